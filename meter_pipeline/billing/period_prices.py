"""What the statements of a period come to: from the charged days, or from later reads of days in sealed months."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.bill_holds import HOLD_SCHEMA, Period
from meter_pipeline.billing.reprice import reprice
from meter_pipeline.billing.segment_positions import gather
from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.statement_frames import LINE_SCHEMA, SEGMENT_SCHEMA
from meter_pipeline.billing.statements import Priced, price_segments
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.set_aside import apart


@dataclass(frozen=True, slots=True)
class PeriodPrices:
    """Statements of a period before they are written. ``wanted``: their segments; ``accrued``: account_id and the sum of
    its days' charges from the usage known now, of accounts priced from revisions; ``faults``: accounts that must wait
    after all (HOLD_SCHEMA)."""

    wanted: pl.DataFrame
    priced: Priced
    accrued: pl.DataFrame
    faults: pl.DataFrame
    tariffs: dict[tuple[str, int], Tariff]

    def without(self, accounts: Sequence[str]) -> PeriodPrices:
        """All but some accounts."""
        if not accounts:
            return self
        kept = ~pl.col("account_id").is_in(list(accounts))
        priced = replace(self.priced, lines=self.priced.lines.filter(kept), segments=self.priced.segments.filter(kept))
        return replace(self, wanted=self.wanted.filter(kept), priced=priced, accrued=self.accrued.filter(kept))


def price_period(database: Database, calendar: BillingCalendar, reference: Reference, period: Period) -> PeriodPrices:
    """Prices of a period's accounts that nothing holds. One whose pricing fails is set aside; the others are priced."""
    plain = period.wanted.filter(~pl.col("account_id").is_in(period.revised))
    rows, tariffs = gather(
        database,
        reference,
        plain,
        period.cycle_id,
        period.start,
        lambda at: store.positions(database, at, CHARGE_SCHEMA.names()).cast(CHARGE_SCHEMA),
    )
    lost = (
        plain.join(rows, on=["account_id", "service_point_id", "segment_start"], how="anti") if plain.height else plain
    )
    faults = [_holds(lost["account_id"].unique().to_list(), "not_charged", "the last day of a segment is not charged")]
    rows = rows.join(lost, on="account_id", how="anti") if lost.height else rows
    parts: list[Priced] = []
    if rows.height:
        compute = partial(_priced, rows, tariffs, period)
        done = apart(rows["account_id"].unique().sort().to_list(), compute)
        parts += done.results
        faults += [_holds([account], "set_aside", why) for account, why in done.faults.items()]
    accrued = pl.DataFrame(schema={"account_id": pl.String, "accrued": pl.Int64})
    if period.revised:
        span = (period.cycle_id, period.start, period.end)
        again = apart(period.revised, lambda accounts: reprice(database, calendar, accounts, *span))
        for found in again.results:
            blocked = found.blocked["account_id"].to_list()
            parts.append(found.priced)
            accrued = pl.concat([accrued, found.accrued.filter(~pl.col("account_id").is_in(blocked))])
            faults.append(found.blocked.select("account_id", pl.lit("not_charged").alias("reason"), "detail"))
            tariffs |= found.tariffs
        faults += [_holds([account], "set_aside", why) for account, why in again.faults.items()]
    priced = _joined(parts)
    faults.append(priced.refused.select("account_id", pl.lit("not_charged").alias("reason"), "detail"))
    held = pl.concat(faults)
    result = PeriodPrices(period.wanted, priced, accrued, held, tariffs)
    return result.without(held["account_id"].unique().to_list())


def _priced(
    rows: pl.DataFrame, tariffs: dict[tuple[str, int], Tariff], period: Period, accounts: Sequence[str]
) -> Priced:
    chosen = rows.filter(pl.col("account_id").is_in(list(accounts)))
    return price_segments(chosen, tariffs, period.start, period.end)


def _joined(parts: Sequence[Priced]) -> Priced:
    if not parts:
        return Priced(pl.DataFrame(schema=LINE_SCHEMA), pl.DataFrame(schema=SEGMENT_SCHEMA))
    return Priced(
        pl.concat([p.lines for p in parts]),
        pl.concat([p.segments for p in parts]),
        pl.concat([p.refused for p in parts]),
    )


def _holds(accounts: Sequence[str], reason: str, detail: str) -> pl.DataFrame:
    rows = [(account, reason, detail[:500]) for account in accounts]
    return pl.DataFrame(rows, schema=HOLD_SCHEMA, orient="row")
