"""An old statement priced again from what was known when it was issued, after any number of corrections since."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.bill_holds import Period
from meter_pipeline.billing.period_prices import price_period
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segments import covered, stretches
from meter_pipeline.billing.statements import line_hashes, numbered
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.corrections import tables
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession, reading
from meter_pipeline.schemas.reference import TABLES

_REFERENCE: Final = re.compile(rf"\bref\.({'|'.join((*TABLES, 'tariff_document'))})\b")


class ReproduceError(ValueError):
    """A statement that cannot be rebuilt; the message says why."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A statement rebuilt: whether its lines are those that were issued, byte for byte, the record time of the
    reference data it was priced from, and the lines that differ (line_no, line_key, issued, rebuilt)."""

    statement_id: str
    identical: bool
    known_from: datetime
    lines_sha256: bytes
    differing: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class AsKnown(ReadSession):
    """A session that reads reference data, charges and corrections as they were when a statement was issued."""

    moment: tables.Moment | None = None

    @property
    def shared(self) -> bool:
        return True

    def read(self, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        return ReadSession.read(self, as_known(query, self.moment) if self.moment else query, parameters)


def as_known(query: str, moment: tables.Moment) -> str:
    """A query over today's tables as one over those of a moment."""
    later = "ARRAY[" + ", ".join(f"'{name}'" for name in moment.later_adjustments) + "]::text[]"
    query = _REFERENCE.sub(rf"ref.\1_as_of('{moment.known_from.isoformat()}')", query)
    for table in ("charge_day", "determinant_day"):
        query = re.sub(rf"\bbilling\.{table}\b", f"billing.{table}_before('{moment.transaction}'::xid8)", query)
    for table in ("adjustment", "effective_segment"):
        query = re.sub(rf"\bbilling\.{table}\b", f"billing.{table}_without({later})", query)
    return query


def reproduce(database: Database, calendar: BillingCalendar, statement_id: str) -> Reproduced:
    """Rebuild a statement. Raises ReproduceError for an unknown one, or where what it was priced from is not there."""
    with database.connect("reproduce") as connection:
        moment = tables.moment_of(connection, statement_id)
    if moment is None:
        raise ReproduceError(f"no statement {statement_id}")
    with reading(database) as session:
        known = AsKnown(session.url, session.role, session.connection, moment=moment)
        lines = _lines(known, calendar, moment)
        issued = tables.issued_lines(session, statement_id)
    if not lines.height and issued.height:
        raise ReproduceError(f"{statement_id}: the charges it was priced from are not there")
    now = line_hashes(lines, pl.Series([statement_id]))["lines_sha256"][0]
    identical = bytes(now) == moment.lines_sha256
    return Reproduced(
        statement_id, identical, moment.known_from, bytes(now), [] if identical else _differing(issued, lines)
    )


def _lines(known: AsKnown, calendar: BillingCalendar, moment: tables.Moment) -> pl.DataFrame:
    reference = load_reference(known, moment.period_end)
    first, past = moment.period_start, moment.period_end
    runs = stretches(reference, moment.cycle_id, first, past).filter(pl.col("account_id") == moment.account_id)
    revised = [moment.account_id] if moment.revised else []
    period = Period(moment.cycle_id, first, past, covered(reference, runs), runs, revised)
    return numbered(price_period(known, calendar, reference, period).priced.lines, moment.cycle_id, first)


def _differing(issued: pl.DataFrame, lines: pl.DataFrame) -> list[dict[str, Any]]:
    now = lines.select("line_no", "line_key", pl.col("amount").alias("rebuilt"))
    both = issued.select("line_no", "line_key", pl.col("amount").alias("issued")).join(
        now, on=["line_no", "line_key"], how="full", coalesce=True
    )
    return both.filter(pl.col("issued").ne_missing(pl.col("rebuilt"))).sort("line_no").to_dicts()
