"""Computes the correction of a statement: the lines that bring it to the present charges of its days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final

import polars as pl

from meter_pipeline.billing.reprice import Repriced, reprice
from meter_pipeline.billing.statement_frames import LINE_SCHEMA, SEGMENT_SCHEMA
from meter_pipeline.billing.tables import adjustments
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.usage_change import UsageChange
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading
from meter_pipeline.set_aside import apart

_KEY: Final = ["service_point_id", "tariff_id", "tariff_version", "segment_start", "segment_end", "line_key"]


class AdjustmentError(ValueError):
    """An adjustment that cannot be made or decided; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The computed correction of a statement.

    ``lines``: action, original_line_no, the line's columns, quantity and amount in millionths. ``segments``: the
    segments of the corrected statement (SEGMENT_SCHEMA). ``sealed_days``: the amount the corrected statement bills for
    its days beyond their stored charges, which those of sealed months keep; ``period_end``: the amount its period's end
    adds to its days. ``blocked``: the reason the correction cannot be computed; it then has no lines: a statement is
    never cancelled because a day of it cannot be priced.
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
        """The amount the corrected statement bills beyond the stored charges of its days."""
        return self.sealed_days + self.period_end

    @property
    def gross(self) -> int:
        """The gross amount of the change: the sum over line keys of the absolute change."""
        changes = self.lines.group_by(_KEY).agg(pl.col("amount").sum())
        return int(changes["amount"].abs().sum() or 0)


def difference(effective: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Returns the cancel and rebill lines between the present and the corrected lines; equal lines are left out."""
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


def proposals(database: Database, calendar: BillingCalendar, statement_ids: Sequence[str]) -> dict[str, Proposal]:
    """Returns the correction of each statement; those of one period are priced together. Unknown statements are left
    out."""
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
            issued_lines = adjustments.effective_lines(session, part["statement_id"].to_list())
            accounts = part["account_id"].to_list()
            days_due = _sums(pl.concat([r.accrued for r in again.results]), "accrued") if again.results else {}
            standing = _sums(store.charge_totals(session, *span, accounts), "accrued")
            totals = _sums(now, "amount")
            for statement_id, account_id in part.select("statement_id", "account_id").iter_rows():
                mine = issued_lines.filter(pl.col("statement_id") == statement_id).drop("statement_id")
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
    """Returns the lines that would correct a statement; none where it is right. Raises AdjustmentError for an
    unknown statement."""
    found = proposals(database, calendar, [statement_id])
    if not found:
        raise AdjustmentError(f"no statement {statement_id}")
    return found[statement_id]


def at_usage(database: Database, calendar: BillingCalendar, statement_id: str, change: UsageChange) -> Proposal:
    """Returns the lines that bring a statement to another usage. Raises AdjustmentError for an unknown statement,
    one that cannot be priced, and one that has to be corrected first."""
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
        issued_lines = adjustments.effective_lines(session, [statement_id]).drop("statement_id")
    return Proposal(statement_id, difference(issued_lines, again.priced.lines.drop("account_id", "at")), due.segments)
