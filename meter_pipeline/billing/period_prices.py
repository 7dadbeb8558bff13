"""Amounts of a period's statements: from the charged days, or from later reads of days in sealed months."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.bill_holds import HOLD_SCHEMA, Period
from meter_pipeline.billing.reprice import reprice
from meter_pipeline.billing.segment_positions import gather
from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.statements import Priced
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.set_aside import apart


@dataclass(frozen=True, slots=True)
class PeriodPrices:
    """Statements of a period before they are written. ``wanted``: their segments; ``accrued``: account_id and the sum
    of its days' charges from the usage known now, of accounts priced from revisions; ``faults``: accounts that must
    wait after all (HOLD_SCHEMA)."""

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
    found = gather(
        database,
        reference,
        plain,
        period.cycle_id,
        period.start,
        lambda at: store.positions(database, at, CHARGE_SCHEMA.names()).cast(CHARGE_SCHEMA),
    )
    tariffs = dict(found.tariffs)
    key = ["account_id", "service_point_id", "segment_start"]
    lost = plain.join(found.rows, on=key, how="anti") if plain.height else plain
    people = lost["account_id"].unique().to_list()
    faults = [_holds(people, "not_charged", "the last day of a segment is not charged")]
    parts: list[Priced] = []
    accounts = (
        found.rows.filter(~pl.col("account_id").is_in(people))["account_id"].unique().sort().to_list()
        if plain.height
        else []
    )
    if accounts:
        done = apart(accounts, lambda some: found.price(some, period.end))
        parts += [
            part for priced in done.results for part in _isolated(priced, lambda some: found.price(some, period.end))
        ]
        faults += [_holds([account], "set_aside", why) for account, why in done.faults.items()]
    accrued = pl.DataFrame(schema={"account_id": pl.String, "accrued": pl.Int64})
    if period.revised:
        span = (period.cycle_id, period.start, period.end)
        again = apart(period.revised, lambda accounts: reprice(database, calendar, accounts, *span))
        for known in again.results:
            blocked = known.blocked["account_id"].to_list()
            parts.append(known.priced)
            accrued = pl.concat([accrued, known.accrued.filter(~pl.col("account_id").is_in(blocked))])
            faults.append(known.blocked.select("account_id", pl.lit("not_charged").alias("reason"), "detail"))
            tariffs |= known.tariffs
        faults += [_holds([account], "set_aside", why) for account, why in again.faults.items()]
    priced = _joined(parts)
    faults.append(priced.refused.select("account_id", pl.lit("not_charged").alias("reason"), "detail"))
    all_faults = pl.concat(faults)
    result = PeriodPrices(period.wanted, priced, accrued, all_faults, tariffs)
    return result.without(all_faults["account_id"].unique().to_list())


def _isolated(priced: Priced, price: Callable[[Sequence[str]], Priced]) -> list[Priced]:
    """What was priced, with the accounts that were refused only because another one of their tariff could not be.

    Where three accounts of a refused tariff are refused alone as well, the tariff is at fault, and all of them wait.
    """
    parts = [priced]
    saved: list[str] = []
    for (_,), group in priced.refused.group_by(["detail"]):
        accounts = group["account_id"].sort().to_list()
        sample = {accounts[0], accounts[len(accounts) // 2], accounts[-1]}
        if len(accounts) == 1 or all(price([account]).refused.height for account in sample):
            continue
        done = apart(accounts, lambda some: _unless_refused(price(some)))
        parts += done.results
        saved += [a for part in done.results for a in part.segments["account_id"].unique().to_list()]
    parts[0] = replace(priced, refused=priced.refused.filter(~pl.col("account_id").is_in(saved)))
    return parts


def _unless_refused(priced: Priced) -> Priced:
    if priced.refused.height:
        raise ValueError(str(priced.refused["detail"][0]))
    return priced


def _joined(parts: Sequence[Priced]) -> Priced:
    if not parts:
        return Priced.empty()
    return Priced(
        pl.concat([p.lines for p in parts]),
        pl.concat([p.segments for p in parts]),
        pl.concat([p.refused for p in parts]),
    )


def _holds(accounts: Sequence[str], reason: str, detail: str) -> pl.DataFrame:
    rows = [(account, reason, detail[:500]) for account in accounts]
    return pl.DataFrame(rows, schema=HOLD_SCHEMA, orient="row")
