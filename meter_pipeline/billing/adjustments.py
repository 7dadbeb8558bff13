"""Adjustments of issued statements, for late actual reads and corrections: cancel and rebill of the lines that
changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.back_billing import apply as back_billing
from meter_pipeline.billing.back_billing import tables as policies
from meter_pipeline.billing.proposals import AdjustmentError, Proposal, proposals, propose
from meter_pipeline.billing.reconcile import DAY_CHECKS
from meter_pipeline.billing.tables import adjustments, days, late_changes
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.ledger.contents import stored_content
from meter_pipeline.ledger.row_states import rows_as_they_are
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

#: Statements of one service that follow each other and are corrected in one go: ten years of months.
MOST_ROUNDS: Final = 120
REASONS: Final = ("late_actual", "correction", "tariff", "reference")
#: Reason of an adjustment that forgives part of what the days come to, for a leak: corrections leave it as it is.
LEAK: Final = "leak"
#: Reason of an adjustment that goes with a correction: what a back-billing rule waives of it, and interest.
POLICY: Final = "policy"


@dataclass(frozen=True, slots=True)
class Beside:
    """Rows of a table that are written together with an adjustment and never changed."""

    table: str
    key: tuple[str, ...]
    rows: list[dict[str, Any]]


def request_on_top(
    connection: Connection,
    calendar: BillingCalendar,
    proposal: Proposal,
    *,
    evidence: str,
    requested_by: str,
    beside: Beside,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """Request lines in addition to a statement's lines (reason ``leak``), with a row of their own, in the caller's
    transaction. The threshold applies as for corrections. Raises Refused for a person who may not request."""
    person = decisions.entitled(connection, requested_by, decisions.WORK)
    adjustments.lock(connection, proposal.statement_id)
    return _write(connection, calendar, proposal, _Request(LEAK, evidence, person), [], clock, beside)


def request(
    database: Database,
    calendar: BillingCalendar,
    statement_id: str,
    *,
    reason: str,
    evidence: str,
    requested_by: str,
    clock: Clock = SYSTEM_CLOCK,
) -> str | None:
    """Request the correction of a statement. Returns None where no line changed.

    Up to the threshold in force (control.decisions.ADJUSTMENT_THRESHOLD) the adjustment is posted now; earlier
    adjustments of the statement that were posted without a second person count towards the threshold. It replaces an
    undecided adjustment of the statement. It is posted in the first accounting month, from the current one on, that is
    not sealed.

    Raises Refused for a person who may not request, and AdjustmentError where the period cannot be priced again.
    """
    if reason not in REASONS:
        raise AdjustmentError(f"{reason!r} is not one of {', '.join(REASONS)}")
    proposal = propose(database, calendar, statement_id)
    if proposal.blocked:
        raise AdjustmentError(f"{statement_id} cannot be priced again: {proposal.blocked}")
    with database.connect("billing adjustment") as connection:
        person = decisions.entitled(connection, requested_by, decisions.WORK)
        noted = policies.corrected_on(connection, statement_id)
        on = noted or (calendar.day_of(clock.now()) if reason == "reference" else None)
        return _ask(connection, calendar, proposal, _Request(reason, evidence, person, corrected_on=on), clock)


def propose_late_changes(
    database: Database,
    calendar: BillingCalendar,
    *,
    clock: Clock = SYSTEM_CLOCK,
    actor: str = "billing",
) -> list[str]:
    """Propose adjustments of every statement whose days changed after it was issued (billing.late_change). Returns
    their ids.

    Each is requested by ``actor``, so that any person may decide it where it is above the threshold. A statement is
    removed from the list in the transaction that writes its adjustment, also where no line changed; a run that is
    killed before leaves it on the list. A statement stays on the list with a reason (tables.late_changes) while its
    days are requested again, do not reconcile, or cannot be priced. An adjustment that a person refused is not proposed
    again unless its figures change.
    """
    made: list[str] = []
    for _ in range(MOST_ROUNDS):
        found = _propose_noted(database, calendar, clock, actor)
        made += found
        # An adjustment that changes what a later statement carries in puts that one on the list.
        if not found:
            break
    return made


def _propose_noted(database: Database, calendar: BillingCalendar, clock: Clock, actor: str) -> list[str]:
    """Propose adjustments of the statements that are on the list now."""
    noted = late_changes.late_changes(database, DAY_CHECKS)
    if not noted.height:
        return []
    ready = noted.filter(pl.col("waits_for").is_null())
    found = proposals(database, calendar, ready["statement_id"].to_list())
    waits = list(noted.filter(pl.col("waits_for").is_not_null()).select("statement_id", "waits_for").iter_rows())
    waits += [(statement_id, f"cannot be priced: {p.blocked}") for statement_id, p in found.items() if p.blocked]
    made = []
    # One session: a city's correction is hundreds of statements, and a new session reads the catalogue again for each.
    with database.connect("billing adjustment") as connection:
        late_changes.note_waits(connection, waits)
        connection.commit()
        columns = ("statement_id", "evidence", "noticed_at", "corrected_on", "unusual")
        for statement_id, evidence, noticed_at, on, unusual in ready.select(columns).iter_rows():
            if found[statement_id].blocked:
                continue
            looked_at = f"validation found {unusual}; " if unusual else ""
            evidence_text = f"{looked_at}days that changed after it was issued: {evidence}"[:2000]
            if late_changes.take_late_change(connection, statement_id, noticed_at):
                request = _Request(
                    "late_actual", evidence_text, actor, again=False, corrected_on=on, unusual=bool(unusual)
                )
                name = _ask(connection, calendar, found[statement_id], request, clock)
                made += [name] if name is not None else []
            connection.commit()
    return made


@dataclass(frozen=True, slots=True)
class _Request:
    """The reason of a correction and the person who requests it.

    ``again``: write it also where the same was refused before. ``corrected_on``: the day of the correction of reference
    data that changed the bill. ``kept_for``: the part of the threshold that its policy adjustment needs.
    ``with_another``: it waits together with another adjustment. ``unusual``: validation finds its reads unusual, so
    that it waits for a second person whatever its amount.
    """

    reason: str
    evidence: str
    by: str
    again: bool = True
    corrected_on: date | None = None
    kept_for: Decimal = Decimal(0)
    with_another: bool = False
    unusual: bool = False


def _ask(
    connection: Connection, calendar: BillingCalendar, proposal: Proposal, request: _Request, clock: Clock
) -> str | None:
    """Write a proposal, replacing the statement's undecided ones. Returns None where no difference is left, or the same
    was refused.

    A waiting adjustment with the same lines stays, unless charges of its days changed since. A change of usage, of a
    credit or of a day's charge that changes no money of this statement is stored as an adjustment without lines; the
    next adjustment starts from it.
    """
    now, statement_id = clock.now(), proposal.statement_id
    adjustments.lock(connection, statement_id)
    standing = adjustments.undecided(connection, statement_id)
    request = replace(
        request,
        corrected_on=request.corrected_on or policies.last_correction(connection, [name for name, _ in standing]),
    )
    lines, due = _rows(proposal), adjustments.amount(proposal.due)
    for adjustment_id, _ in standing:
        if lines and adjustments.same(connection, adjustment_id, lines, due):
            return adjustment_id
    refused = adjustments.last_refused(connection, statement_id)
    standing = policies.with_policy(connection, standing)
    repeated = lines and not request.again and refused and adjustments.same(connection, refused, lines, due)
    if repeated or (not lines and adjustments.stands_on(connection, statement_id, proposal.segments, due)):
        adjustments.supersede(connection, [name for name, _ in standing], None, now)
        for name, requested_by in standing:
            ended = {
                "adjustment_id": name,
                "requested_by": requested_by,
                "refused_by": request.by,
                "reason": "nothing is left to correct",
                "rows": _as_they_are(connection, name),
            }
            ledger.append(connection, "adjustment_refused", ended, clock=clock, actor=request.by)
        return None
    return _correct(connection, calendar, proposal, request, standing, clock)


def _correct(
    connection: Connection,
    calendar: BillingCalendar,
    proposal: Proposal,
    request: _Request,
    standing: Sequence[tuple[str, str]],
    clock: Clock,
) -> str:
    """Write a correction in full and, where a back-billing rule is in force, the rule's result: a row beside it, and
    a second adjustment with the waived part and the interest. The two are decided together."""
    statement_id = proposal.statement_id
    policy = back_billing.policy_of(
        connection, calendar, statement_id, proposal.lines, request.corrected_on, clock.now()
    )
    if policy is None:
        return _write(connection, calendar, proposal, request, standing, clock)
    request = replace(
        request,
        reason=request.reason if request.corrected_on is None else "reference",
        evidence=f"{policy.explanation()}; {request.evidence}"[:2000],
        kept_for=adjustments.amount(policy.gross),
    )
    beside = Beside(
        back_billing.TABLE, back_billing.KEY, policy.rows(adjustments.next_name(connection, statement_id, 2))
    )
    name = _write(connection, calendar, proposal, request, standing, clock, beside)
    if policy.lines.height:
        waits = policies.status(connection, name) == "requested"
        waived = _Request(POLICY, f"goes with {name}: {policy.explanation()}"[:2000], request.by, with_another=waits)
        of = Proposal(statement_id, policy.lines, proposal.segments.clear())
        _write(connection, calendar, of, waived, [], clock)
    return name


def _write(
    connection: Connection,
    calendar: BillingCalendar,
    proposal: Proposal,
    request: _Request,
    standing: Sequence[tuple[str, str]],
    clock: Clock,
    beside: Beside | None = None,
) -> str:
    """Write a proposal with its ledger entry, replacing the undecided adjustments. Post it where no second person is
    needed."""
    now, statement_id, lines = clock.now(), proposal.statement_id, _rows(proposal)
    month = days.open_month(connection, calendar.day_of(now))
    net, gross = adjustments.amount(proposal.net), adjustments.amount(proposal.gross)
    left = max(adjustments.left_without_approval(connection, statement_id) - request.kept_for, Decimal(0))
    left = Decimal(0) if request.with_another or request.unusual else left
    row: dict[str, Any] = {
        "statement_id": statement_id,
        "account_id": statement_id.rsplit(".", 3)[0],
        "reason": request.reason,
        "evidence": request.evidence,
        "net": net,
        "gross": gross,
        "approval_required": gross > left,
        "threshold": left,
        "requested_by": request.by,
        "requested_at": now,
        "posting_month": month,
        "sealed_days_due": adjustments.amount(proposal.sealed_days),
        "period_end_due": adjustments.amount(proposal.period_end),
    }
    adjustment_id = adjustments.insert(connection, row, lines)
    written = dict(adjustments.WRITTEN_ONCE)
    if request.reason not in (LEAK, POLICY):
        adjustments.keep_segments(connection, adjustment_id, month, proposal.segments.to_dicts())
    if beside is not None:
        for each in beside.rows:
            adjustments.insert_beside(connection, beside.table, {"adjustment_id": adjustment_id} | each)
        written[beside.table] = (("adjustment_id", *beside.rows[0]), beside.key)
    adjustments.supersede(connection, [name for name, _ in standing], adjustment_id, now)
    body: dict[str, Any] = {
        "adjustment_id": adjustment_id,
        "statement_id": statement_id,
        "net": net,
        "gross": gross,
        "requested_by": request.by,
        "reason": request.reason,
    }
    body["rows"] = _as_they_are(connection, adjustment_id, *(name for name, _ in standing))
    body["content"] = [
        stored_content(connection, table, columns, key, ("adjustment_id", adjustment_id))
        for table, (columns, key) in written.items()
    ]
    if standing:
        body["supersedes"] = [name for name, _ in standing]
    hashes = _hashes(connection, adjustment_id)
    ledger.append(connection, "adjustment_requested", body, hashes or None, clock=clock, actor=request.by)
    if not row["approval_required"]:
        _post(connection, adjustment_id, clock, request.by)
    return adjustment_id


def _rows(proposal: Proposal) -> list[tuple[Any, ...]]:
    """A proposal's lines as tables.adjustments.LINE_COLUMNS, numbered."""
    return [
        (
            k,
            r["action"],
            r["original_line_no"],
            r["service_point_id"],
            r["tariff_id"],
            r["tariff_version"],
            r["segment_start"],
            r["segment_end"],
            r["line_key"],
            r["name"],
            r["component"],
            None if r["quantity"] is None else adjustments.amount(r["quantity"]),
            r["unit"],
            adjustments.amount(r["amount"]),
        )
        for k, r in enumerate(proposal.lines.to_dicts(), start=1)
    ]


def decide(database: Database, adjustment_id: str, *, approve: bool, person: str, clock: Clock = SYSTEM_CLOCK) -> None:
    """Approve (and post) or refuse an adjustment. Raises AdjustmentError where it does not wait for a decision, or
    where the same person requested it; Refused for a person who may not decide."""
    from meter_pipeline.postgres import driver

    with database.connect("billing adjustment") as connection:
        person = decisions.entitled(connection, person, decisions.FINANCE)
        if (correction := policies.correction_of(connection, adjustment_id)) is not None:
            raise AdjustmentError(f"{adjustment_id} goes with {correction}: decide that one")
        goes_with = policies.partner(connection, adjustment_id)
        try:
            _decide(connection, adjustment_id, approve, person, clock)
            if goes_with is not None:
                _decide(connection, goes_with, approve, person, clock)
        except driver.errors.CheckViolation as error:
            if error.diag.constraint_name != "decided_by_another_person":
                raise
            raise AdjustmentError(f"{person} asked for it; another person must decide") from error


def _decide(connection: Connection, adjustment_id: str, approve: bool, person: str, clock: Clock) -> None:
    """Approve and post, or refuse, one adjustment, with its ledger entry."""
    row = adjustments.decide(connection, adjustment_id, "approved" if approve else "refused", person, clock.now())
    if row is None:
        raise AdjustmentError(f"{adjustment_id} is not waiting for a decision")
    kind = "adjustment_approved" if approve else "adjustment_refused"
    named = "approved_by" if approve else "refused_by"
    body = {
        "adjustment_id": adjustment_id,
        "requested_by": row["requested_by"],
        named: person,
        "net": row["net"],
        "gross": row["gross"],
        "rows": _as_they_are(connection, adjustment_id),
    }
    ledger.append(connection, kind, body, clock=clock, actor=person)
    if approve:
        _post(connection, adjustment_id, clock, person)


def _post(connection: Connection, adjustment_id: str, clock: Clock, actor: str) -> None:
    statement_id = adjustment_id.rsplit(".", 1)[0]
    before = adjustments.carried_out(connection, statement_id)
    now = clock.now()
    row = adjustments.post(connection, adjustment_id, now)
    if row is None:
        raise AdjustmentError(f"{adjustment_id} can't be posted before it is approved")
    body = {
        "adjustment_id": adjustment_id,
        "statement_id": row["statement_id"],
        "net": row["net"],
        "posting_month": row["posting_month"],
        "rows": _as_they_are(connection, adjustment_id),
    }
    ledger.append(
        connection, "adjustment_posted", body, _hashes(connection, adjustment_id) or None, clock=clock, actor=actor
    )
    if adjustments.carried_out(connection, statement_id) != before:
        # A credit or a peak that a later statement stands on is another one now.
        adjustments.note_following(connection, statement_id, now)
        policies.note_following(connection, statement_id, now)


def _as_they_are(connection: Connection, *adjustment_ids: str) -> list[dict[str, Any]]:
    """Returns the complete rows of some adjustments, for their ledger entry."""
    return rows_as_they_are(connection, "billing.adjustment", "adjustment_id", adjustment_ids)


def _hashes(connection: Connection, adjustment_id: str) -> list[bytes]:
    return [
        hashlib.sha256("\x1f".join(("mp-adjustment-line/1", adjustment_id, *(str(v) for v in line))).encode()).digest()
        for line in adjustments.lines(connection, adjustment_id)
    ]
