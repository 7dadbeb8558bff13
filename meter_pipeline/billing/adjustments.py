"""Adjustments: late actuals and corrections of issued statements, as cancel and rebill of the lines that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.reconcile import DAY_CHECKS
from meter_pipeline.billing.reprice import Repriced, reprice
from meter_pipeline.billing.statement_frames import LINE_SCHEMA, SEGMENT_SCHEMA
from meter_pipeline.billing.tables import adjustments, days
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.usage_change import UsageChange
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.ledger.contents import stored_content
from meter_pipeline.ledger.row_states import rows_as_they_are
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.reading import reading
from meter_pipeline.set_aside import apart

#: Statements of one service that follow each other and are corrected in one go: ten years of months.
MOST_ROUNDS: Final = 120
REASONS: Final = ("late_actual", "correction", "tariff", "reference")
#: Reason of an adjustment that forgives part of what the days come to, for a leak: corrections leave it as it is.
LEAK: Final = "leak"
_KEY: Final = ["service_point_id", "tariff_id", "tariff_version", "segment_start", "segment_end", "line_key"]


class AdjustmentError(ValueError):
    """An adjustment that can't be made or moved; the message says why."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What correcting a statement comes to.

    ``lines``: action, original_line_no, the line's columns, quantity and amount in millionths; ``segments``: what the
    corrected statement stands on (SEGMENT_SCHEMA). ``sealed_days``: what the corrected statement bills for its days
    beyond the charges that stand, which those of sealed months keep; ``period_end``: what its end adds to its days.
    ``blocked``: why it cannot be worked out, and then
    there are no lines: a statement is never cancelled because a day of it cannot be priced.
    """

    statement_id: str
    lines: pl.DataFrame
    segments: pl.DataFrame
    sealed_days: int = 0
    period_end: int = 0
    blocked: str = ""

    @property
    def net(self) -> int:
        return int(self.lines["amount"].sum() or 0)

    @property
    def due(self) -> int:
        """What the corrected statement bills beyond the charges that stand for its days."""
        return self.sealed_days + self.period_end

    @property
    def gross(self) -> int:
        """What changes hands: the sum over line keys of the absolute change."""
        changes = self.lines.group_by(_KEY).agg(pl.col("amount").sum())
        return int(changes["amount"].abs().sum() or 0)


def difference(effective: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Cancel and rebill lines that turn what a statement says into what it should say; lines that agree are not
    touched."""
    both = effective.join(now, on=_KEY, how="full", coalesce=True, suffix="_now").with_columns(
        pl.col("amount", "amount_now").fill_null(0),
        pl.coalesce("name", "name_now").alias("name"),
        pl.coalesce("component", "component_now").alias("component"),
        pl.coalesce("unit", "unit_now").alias("unit"),
    )
    changed = both.filter(
        (pl.col("amount") != pl.col("amount_now"))
        | (pl.col("quantity").fill_null(0) != pl.col("quantity_now").fill_null(0))
    )
    there = (pl.col("amount") != 0) | (pl.col("quantity").fill_null(0) != 0)
    here = (pl.col("amount_now") != 0) | (pl.col("quantity_now").fill_null(0) != 0)
    shown = [*_KEY, "name", "component", "unit"]
    cancel = changed.filter(there).select(
        pl.lit("cancel").alias("action"), "original_line_no", *shown, "quantity", -pl.col("amount")
    )
    rebill = changed.filter(here).select(
        pl.lit("rebill").alias("action"),
        "original_line_no",
        *shown,
        pl.col("quantity_now").alias("quantity"),
        pl.col("amount_now").alias("amount"),
    )
    return pl.concat([cancel, rebill]).sort("service_point_id", "segment_start", "line_key", "action")


def _proposals(database: Database, calendar: BillingCalendar, statement_ids: Sequence[str]) -> dict[str, Proposal]:
    """The correction of each statement; those of one period are priced together. Unknown statements are left out."""
    found: dict[str, Proposal] = {}
    with reading(database) as session:
        known = adjustments.statements(session, statement_ids)
        for (cycle_id, first, past), part in sorted(
            known.group_by("cycle_id", "period_start", "period_end"), key=lambda item: str(item[0])
        ):
            span = (str(cycle_id), _date(first), _date(past))
            again = apart(part["account_id"].to_list(), partial(_repriced, session, calendar, span))
            blocked = again.faults | {a: why for r in again.results for a, why in r.blocked.iter_rows()}
            now = pl.concat([pl.DataFrame(schema=LINE_SCHEMA), *(r.priced.lines for r in again.results)])
            stands = pl.concat([pl.DataFrame(schema=SEGMENT_SCHEMA), *(r.priced.segments for r in again.results)])
            said = adjustments.effective_lines(session, part["statement_id"].to_list())
            accounts = part["account_id"].to_list()
            days_due = _sums(pl.concat([r.accrued for r in again.results]), "accrued") if again.results else {}
            standing = _sums(store.charge_totals(session, *span, accounts), "accrued")
            totals = _sums(now, "amount")
            for statement_id, account_id in part.select("statement_id", "account_id").iter_rows():
                mine = said.filter(pl.col("statement_id") == statement_id).drop("statement_id")
                lines = difference(mine, now.filter(pl.col("account_id") == account_id).drop("account_id", "at"))
                why = str(blocked.get(account_id, ""))
                due = days_due.get(account_id, 0)
                found[statement_id] = Proposal(
                    statement_id,
                    lines.clear() if why else lines,
                    stands.filter(pl.col("account_id") == account_id),
                    due - standing.get(account_id, 0),
                    totals.get(account_id, 0) - due,
                    why,
                )
    return found


def _sums(rows: pl.DataFrame, column: str) -> dict[str, int]:
    """A column's sum by account."""
    return {str(a): int(v or 0) for a, v in rows.group_by("account_id").agg(pl.col(column).sum()).iter_rows()}


def _repriced(
    session: Database, calendar: BillingCalendar, span: tuple[str, date, date], accounts: Sequence[str]
) -> Repriced:
    return reprice(session, calendar, accounts, *span)


def _date(value: object) -> date:
    assert isinstance(value, date)  # noqa: S101 - a date column
    return value


def propose(database: Database, calendar: BillingCalendar, statement_id: str) -> Proposal:
    """The lines that would correct a statement; none where it is right. Raises AdjustmentError for an unknown
    statement."""
    found = _proposals(database, calendar, [statement_id])
    if not found:
        raise AdjustmentError(f"no statement {statement_id}")
    return found[statement_id]


def at_usage(database: Database, calendar: BillingCalendar, statement_id: str, change: UsageChange) -> Proposal:
    """The lines that turn a statement into what it would say of another usage. Raises AdjustmentError for an unknown
    statement, one that cannot be priced, and one that has to be corrected first."""
    due = propose(database, calendar, statement_id)
    if due.blocked:
        raise AdjustmentError(f"{statement_id} cannot be priced again: {due.blocked}")
    if due.lines.height:
        raise AdjustmentError(
            f"{statement_id} is not what its days come to: decide its correction first (meter-pipeline billing adjustments)"
        )
    with reading(database) as session:
        row = adjustments.statements(session, [statement_id]).row(0, named=True)
        again = reprice(
            session,
            calendar,
            [row["account_id"]],
            row["cycle_id"],
            row["period_start"],
            row["period_end"],
            change,
        )
        said = adjustments.effective_lines(session, [statement_id]).drop("statement_id")
    return Proposal(statement_id, difference(said, again.priced.lines.drop("account_id", "at")), due.segments)


@dataclass(frozen=True, slots=True)
class Beside:
    """Rows of a table that are written with an adjustment and never again."""

    table: str
    key: tuple[str, ...]
    row: dict[str, Any]


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
    """Ask for lines on top of what a statement's days come to (reason ``leak``), with a row of their own, in the
    caller's transaction. The threshold holds as for corrections. Raises Refused for a name that may not ask."""
    person = decisions.entitled(connection, requested_by, decisions.WORK)
    adjustments.lock(connection, proposal.statement_id)
    return _write(connection, calendar, proposal, _Asked(LEAK, evidence, person), [], clock, beside)


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
    """Ask for the correction of a statement; None where nothing changed. Up to the threshold in force
    (control.decisions.ADJUSTMENT_THRESHOLD) it is posted at once. Raises Refused for a name that may not ask.

    It takes the place of what was asked of the statement before and is undecided. Raises AdjustmentError where
    the period cannot be priced again.
    It is posted in the first accounting month, from the current one on, that is not sealed, whatever month it corrects.
    What was posted of the statement before without a second person counts towards the threshold.
    """
    if reason not in REASONS:
        raise AdjustmentError(f"{reason!r} is not one of {', '.join(REASONS)}")
    proposal = propose(database, calendar, statement_id)
    if proposal.blocked:
        raise AdjustmentError(f"{statement_id} cannot be priced again: {proposal.blocked}")
    with database.connect("billing adjustment") as connection:
        person = decisions.entitled(connection, requested_by, decisions.WORK)
        return _ask(connection, calendar, proposal, _Asked(reason, evidence, person), clock)


def propose_late_changes(
    database: Database,
    calendar: BillingCalendar,
    *,
    clock: Clock = SYSTEM_CLOCK,
    actor: str = "billing",
) -> list[str]:
    """Adjustments of every statement whose days moved after it was issued (billing.late_change); returns their ids.

    Each is asked for by ``actor``, so that any person may decide it where it is above the threshold. A statement is
    struck off the list in the transaction that writes its adjustment, also where it turns out that nothing changed: a
    run killed in between leaves it there for the next. One whose days are still asked for again, whose days do not
    reconcile or that cannot be priced stays on the list with the reason (tables.adjustments.late_changes). What a
    person refused is not asked for again unless something else is known since.
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
    """Adjustments of the statements that are on the list now."""
    noted = adjustments.late_changes(database, DAY_CHECKS)
    if not noted.height:
        return []
    ready = noted.filter(pl.col("waits_for").is_null())
    proposals = _proposals(database, calendar, ready["statement_id"].to_list())
    waits = list(noted.filter(pl.col("waits_for").is_not_null()).select("statement_id", "waits_for").iter_rows())
    waits += [(statement_id, f"cannot be priced: {p.blocked}") for statement_id, p in proposals.items() if p.blocked]
    made = []
    # One session: a city's correction is hundreds of statements, and a new session reads the catalogue again for each.
    with database.connect("billing adjustment") as connection:
        adjustments.note_waits(connection, waits)
        connection.commit()
        for statement_id, evidence, noticed_at in ready.select("statement_id", "evidence", "noticed_at").iter_rows():
            if proposals[statement_id].blocked:
                continue
            said = f"days that changed after it was issued: {evidence}"[:2000]
            if adjustments.take_late_change(connection, statement_id, noticed_at):
                asked = _Asked("late_actual", said, actor, again=False)
                name = _ask(connection, calendar, proposals[statement_id], asked, clock)
                made += [name] if name is not None else []
            connection.commit()
    return made


@dataclass(frozen=True, slots=True)
class _Asked:
    """Why a correction is asked for, and by whom. ``again``: also where the same was refused before."""

    reason: str
    evidence: str
    by: str
    again: bool = True


def _ask(
    connection: Connection, calendar: BillingCalendar, proposal: Proposal, asked: _Asked, clock: Clock
) -> str | None:
    """Write a proposal in the place of the statement's undecided ones; None where nothing is left to
    correct, or the same was refused. One that waits already with the same lines stays, unless charges of its days
    moved since. Usage, a credit or a day's charge that moves no money on this statement is kept as an adjustment
    without lines: the next one stands on it.
    """
    now, statement_id = clock.now(), proposal.statement_id
    adjustments.lock(connection, statement_id)
    standing = adjustments.undecided(connection, statement_id)
    lines, due = _rows(proposal), adjustments.amount(proposal.due)
    for adjustment_id, _ in standing:
        if lines and adjustments.same(connection, adjustment_id, lines, due):
            return adjustment_id
    refused = adjustments.last_refused(connection, statement_id)
    repeated = lines and not asked.again and refused and adjustments.same(connection, refused, lines, due)
    if repeated or (not lines and adjustments.stands_on(connection, statement_id, proposal.segments, due)):
        adjustments.supersede(connection, [name for name, _ in standing], None, now)
        for name, requested_by in standing:
            ended = {
                "adjustment_id": name,
                "requested_by": requested_by,
                "refused_by": asked.by,
                "reason": "nothing is left to correct",
                "rows": _as_they_are(connection, name),
            }
            ledger.append(connection, "adjustment_refused", ended, clock=clock, actor=asked.by)
        return None
    return _write(connection, calendar, proposal, asked, standing, clock)


def _write(
    connection: Connection,
    calendar: BillingCalendar,
    proposal: Proposal,
    asked: _Asked,
    standing: Sequence[tuple[str, str]],
    clock: Clock,
    beside: Beside | None = None,
) -> str:
    """Write a proposal with its ledger entry, in the place of the adjustments that stood; post it where no second
    person is needed."""
    now, statement_id, lines = clock.now(), proposal.statement_id, _rows(proposal)
    month = days.open_month(connection, calendar.day_of(now))
    net, gross = adjustments.amount(proposal.net), adjustments.amount(proposal.gross)
    left = adjustments.left_without_approval(connection, statement_id)
    row: dict[str, Any] = {
        "statement_id": statement_id,
        "account_id": statement_id.rsplit(".", 3)[0],
        "reason": asked.reason,
        "evidence": asked.evidence,
        "net": net,
        "gross": gross,
        "approval_required": gross > left,
        "threshold": left,
        "requested_by": asked.by,
        "requested_at": now,
        "posting_month": month,
        "sealed_days_due": adjustments.amount(proposal.sealed_days),
        "period_end_due": adjustments.amount(proposal.period_end),
    }
    adjustment_id = adjustments.insert(connection, row, lines)
    written = dict(adjustments.WRITTEN_ONCE)
    if beside is None:
        adjustments.keep_segments(connection, adjustment_id, month, proposal.segments.to_dicts())
    else:
        adjustments.insert_beside(connection, beside.table, {"adjustment_id": adjustment_id} | beside.row)
        written[beside.table] = (("adjustment_id", *beside.row), beside.key)
    adjustments.supersede(connection, [name for name, _ in standing], adjustment_id, now)
    body: dict[str, Any] = {
        "adjustment_id": adjustment_id,
        "statement_id": statement_id,
        "net": net,
        "gross": gross,
        "requested_by": asked.by,
        "reason": asked.reason,
    }
    body["rows"] = _as_they_are(connection, adjustment_id, *(name for name, _ in standing))
    body["content"] = [
        stored_content(connection, table, columns, key, ("adjustment_id", adjustment_id))
        for table, (columns, key) in written.items()
    ]
    if standing:
        body["supersedes"] = [name for name, _ in standing]
    hashes = _hashes(connection, adjustment_id)
    ledger.append(connection, "adjustment_requested", body, hashes or None, clock=clock, actor=asked.by)
    if not row["approval_required"]:
        _post(connection, adjustment_id, clock, asked.by)
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
    """Approve (and post) or refuse an adjustment. Raises AdjustmentError where it is not waiting, or where the person
    asked for it; Refused for a name that may not decide."""
    from meter_pipeline.postgres import driver

    with database.connect("billing adjustment") as connection:
        person = decisions.entitled(connection, person, decisions.FINANCE)
        try:
            row = adjustments.decide(
                connection, adjustment_id, "approved" if approve else "refused", person, clock.now()
            )
        except driver.errors.CheckViolation as error:
            if error.diag.constraint_name != "decided_by_another_person":
                raise
            raise AdjustmentError(f"{person} asked for it; another person must decide") from error
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
    row = adjustments.post(connection, adjustment_id, clock.now())
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
        adjustments.note_following(connection, statement_id, clock.now())


def _as_they_are(connection: Connection, *adjustment_ids: str) -> list[dict[str, Any]]:
    """The whole rows of some adjustments, for the entry about what was just done to them."""
    return rows_as_they_are(connection, "billing.adjustment", "adjustment_id", adjustment_ids)


def _hashes(connection: Connection, adjustment_id: str) -> list[bytes]:
    return [
        hashlib.sha256("\x1f".join(("mp-adjustment-line/1", adjustment_id, *(str(v) for v in line))).encode()).digest()
        for line in adjustments.lines(connection, adjustment_id)
    ]
