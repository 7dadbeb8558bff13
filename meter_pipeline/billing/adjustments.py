"""Adjustments: late actuals and corrections of issued statements, as cancel and rebill of the lines that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.reprice import reprice
from meter_pipeline.billing.tables import adjustments, days
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading

# : Above this sum of absolute line amounts a second person approves: about a quarter of a household's monthly bill, so
# that routine : re-estimates pass and a mistake in a tariff does not. Configuration of the caller; the figure used is
# kept with each adjustment.
THRESHOLD: Final = Decimal("50.00")
REASONS: Final = ("late_actual", "correction", "tariff", "reference")
_KEY: Final = ["service_point_id", "tariff_id", "tariff_version", "segment_start", "segment_end", "line_key"]


class AdjustmentError(ValueError):
    """An adjustment that can't be made or moved; the message says why."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What correcting a statement comes to. ``lines``: action, original_line_no, the line's columns, quantity and
    amount in millionths."""

    statement_id: str
    lines: pl.DataFrame

    @property
    def net(self) -> int:
        return int(self.lines["amount"].sum() or 0)

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
            now = reprice(
                session, calendar, part["account_id"].to_list(), str(cycle_id), _date(first), _date(past)
            ).lines
            said = adjustments.effective_lines(session, part["statement_id"].to_list())
            for statement_id, account_id in part.select("statement_id", "account_id").iter_rows():
                mine = said.filter(pl.col("statement_id") == statement_id).drop("statement_id")
                found[statement_id] = Proposal(
                    statement_id,
                    difference(mine, now.filter(pl.col("account_id") == account_id).drop("account_id", "at")),
                )
    return found


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


def request(
    database: Database,
    calendar: BillingCalendar,
    statement_id: str,
    *,
    reason: str,
    evidence: str,
    requested_by: str,
    threshold: Decimal = THRESHOLD,
    clock: Clock = SYSTEM_CLOCK,
) -> str | None:
    """Ask for the correction of a statement; None where nothing changed. Up to the threshold it is posted at once.

    It is posted in the first accounting month, from the current one on, that is not sealed, whatever month it corrects.
    What was posted of the statement before without a second person counts towards the threshold.
    """
    if reason not in REASONS:
        raise AdjustmentError(f"{reason!r} is not one of {', '.join(REASONS)}")
    proposal = propose(database, calendar, statement_id)
    if not proposal.lines.height:
        return None
    with database.connect("billing adjustment") as connection:
        return _ask(connection, calendar, proposal, reason, evidence, requested_by, threshold, clock)


def propose_late_changes(
    database: Database,
    calendar: BillingCalendar,
    *,
    threshold: Decimal = THRESHOLD,
    clock: Clock = SYSTEM_CLOCK,
    actor: str = "billing",
) -> list[str]:
    """Adjustments of every statement whose days moved after it was issued (billing.late_change); returns their ids.

    Each is asked for by ``actor``, so that any person may decide it where it is above the threshold. A statement is
    struck off the list in the transaction that writes its adjustment, also where it turns out that nothing changed: a
    run killed in between leaves it there for the next.
    """
    waiting = adjustments.late_changes(database)
    proposals = _proposals(database, calendar, waiting["statement_id"].to_list())
    made = []
    for statement_id, evidence in waiting.select("statement_id", "evidence").iter_rows():
        proposal = proposals[statement_id]
        said = f"days that changed after it was issued: {evidence}"
        with database.connect("billing adjustment") as connection:
            if adjustments.take_late_change(connection, statement_id) and proposal.lines.height:
                made.append(_ask(connection, calendar, proposal, "late_actual", said[:2000], actor, threshold, clock))
    return made


def _ask(
    connection: Any,
    calendar: BillingCalendar,
    proposal: Proposal,
    reason: str,
    evidence: str,
    requested_by: str,
    threshold: Decimal,
    clock: Clock,
) -> str:
    now = clock.now()
    month = days.open_month(connection, calendar.day_of(now))
    net, gross = adjustments.amount(proposal.net), adjustments.amount(proposal.gross)
    left = max(threshold - adjustments.unapproved(connection, proposal.statement_id), Decimal(0))
    row: dict[str, Any] = {
        "statement_id": proposal.statement_id,
        "account_id": proposal.statement_id.rsplit(".", 3)[0],
        "reason": reason,
        "evidence": evidence,
        "net": net,
        "gross": gross,
        "approval_required": gross > left,
        "threshold": left,
        "requested_by": requested_by,
        "requested_at": now,
        "posting_month": month,
    }
    lines = [
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
    adjustment_id = adjustments.insert(connection, row, lines)
    body = {
        "adjustment_id": adjustment_id,
        "statement_id": proposal.statement_id,
        "net": net,
        "gross": gross,
        "requested_by": requested_by,
        "reason": reason,
    }
    ledger.append(
        connection, "adjustment_requested", body, _hashes(connection, adjustment_id), clock=clock, actor=requested_by
    )
    if not row["approval_required"]:
        _post(connection, adjustment_id, clock, requested_by)
    return adjustment_id


def decide(database: Database, adjustment_id: str, *, approve: bool, person: str, clock: Clock = SYSTEM_CLOCK) -> None:
    """Approve (and post) or refuse an adjustment. Raises AdjustmentError where it is not waiting, or where the person
    asked for it."""
    import psycopg

    with database.connect("billing adjustment") as connection:
        try:
            row = adjustments.decide(
                connection, adjustment_id, "approved" if approve else "refused", person, clock.now()
            )
        except psycopg.errors.CheckViolation as error:
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
        }
        ledger.append(connection, kind, body, clock=clock, actor=person)
        if approve:
            _post(connection, adjustment_id, clock, person)


def _post(connection: Any, adjustment_id: str, clock: Clock, actor: str) -> None:
    row = adjustments.post(connection, adjustment_id, clock.now())
    if row is None:
        raise AdjustmentError(f"{adjustment_id} can't be posted before it is approved")
    body = {
        "adjustment_id": adjustment_id,
        "statement_id": row["statement_id"],
        "net": row["net"],
        "posting_month": row["posting_month"],
    }
    ledger.append(connection, "adjustment_posted", body, _hashes(connection, adjustment_id), clock=clock, actor=actor)


def _hashes(connection: Any, adjustment_id: str) -> list[bytes]:
    return [
        hashlib.sha256("\x1f".join(("mp-adjustment-line/1", adjustment_id, *(str(v) for v in line))).encode()).digest()
        for line in adjustments.lines(connection, adjustment_id)
    ]
