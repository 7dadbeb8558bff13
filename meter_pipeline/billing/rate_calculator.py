"""One tariff on one load: what ``meter-pipeline tariffs price`` prints.

A synthetic account with one service is billed by calendar months, by the same functions that bill a city: a day's
determinants, segments from position to position, what one bill carries into the next. Amounts are exact (12 decimals),
not rounded by line: published figures are compared with them to the cent. A month that the load covers in part is a
whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.bill_end import year_before
from meter_pipeline.billing.bill_position import EXACT_PLACES, QUANTITY_SCALE
from meter_pipeline.billing.carried import carried
from meter_pipeline.billing.daily_blocks import fill_blocks
from meter_pipeline.billing.day_groups import DAILY_SCHEMA, DayExtras, DayGroup
from meter_pipeline.billing.determinants import day_determinants
from meter_pipeline.billing.load import LOAD_SCALE, Load, LoadDay
from meter_pipeline.billing.positions import micro_of
from meter_pipeline.billing.reactive import REACTIVE_UNIT
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, SERVICE_SCHEMA, DayServices, attribute_columns
from meter_pipeline.billing.statement_frames import Precision
from meter_pipeline.billing.statements import Priced, price_segments
from meter_pipeline.billing.tariffs.fields import TariffRefusedError
from meter_pipeline.billing.tariffs.holidays import NERC, HolidayList
from meter_pipeline.billing.tariffs.model import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import DayMatrix

COMPONENTS: Final = ("energy", "demand_flat", "demand_tou", "fixed", "minimum", "tax", "total")
EXACT: Final = Precision(exact=True, scale=LOAD_SCALE)
_KEY: Final = ("T", 1)
#: Where a reason for which a day can't be priced stands in a document.
_FIELDS: Final = {
    "demand_interval": {"urdb": "demandwindow", "native": "demand_minutes"},
    "needs_intervals": {"urdb": "energyweekdayschedule", "native": "time_of_use"},
    "unit_mismatch": {"urdb": "energyratestructure[0][0].unit", "native": "unit"},
    "no_heat_content": {"native": "heat_content"},
    "needs_reactive": {"urdb": "flatdemandunit", "native": "load.kvarh"},
}


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month's bill: the days it is for, net usage in 1/LOAD_SCALE and its priced lines and segment."""

    start: date
    past: date
    usage: int
    priced: Priced


@dataclass(slots=True)
class _Account:
    """The synthetic account: its attributes, and the segments billed so far."""

    tariff: Tariff
    attributes: Mapping[str, str]
    holidays: frozenset[date]
    calendar: BillingCalendar
    billed: list[pl.DataFrame] = field(default_factory=list)

    def services(self, start: date, past: date) -> pl.DataFrame:
        row = {
            "service_point_id": "SP",
            "account_id": "A",
            "tariff_id": _KEY[0],
            "tariff_version": _KEY[1],
            "cycle_id": "C",
            "period_start": start,
            "period_end": past,
            "stretch_start": start,
            "commodity": self.tariff.commodity,
            **attribute_columns(self.attributes),
        }
        return pl.DataFrame([row], schema=SERVICE_SCHEMA)

    def determinants(self, services: pl.DataFrame, load: Load, of: LoadDay) -> DayGroup:
        """A day's determinants. Raises TariffRefusedError where the day can't be priced."""
        bound = DayServices(services, {_KEY: self.tariff}, pl.DataFrame(schema=EXCEPTION_SCHEMA))
        matrices: list[DayMatrix] = []
        daily = pl.DataFrame(schema=DAILY_SCHEMA)
        flows = [("import", of.imports), *([("export", of.exports)] if of.exports.any() else [])]
        if load.interval_minutes == 1440:
            daily = pl.DataFrame(
                [("SP", flow, load.unit, int(values.sum()), False) for flow, values in flows],
                schema=DAILY_SCHEMA,
                orient="row",
            )
        else:
            keys = pl.DataFrame({"service_point_id": ["SP"] * len(flows), "flow": [f for f, _ in flows]})
            values = np.stack([v for _, v in flows])
            codes, zeros = np.zeros(values.shape, np.uint16), np.zeros(values.shape, np.int32)
            keys = keys.with_columns(pl.lit(load.unit).alias("unit"))
            matrices = [DayMatrix(of.day, load.interval_minutes, keys, values, codes, zeros)]
        reactive: list[DayMatrix] = []
        if of.reactive is not None and load.interval_minutes != 1440:
            named = pl.DataFrame({"service_point_id": ["SP"], "flow": ["import"], "unit": [REACTIVE_UNIT]})
            turned = of.reactive[None, :]
            nothing = np.zeros(turned.shape, np.uint16), np.zeros(turned.shape, np.int32)
            reactive = [DayMatrix(of.day, load.interval_minutes, named, turned, *nothing)]
        extras = DayExtras(reactive=reactive)
        found = day_determinants(bound, self.calendar, of.day, matrices, daily, self.holidays, extras)
        for reason, detail in found.exceptions.select("reason", "detail").iter_rows():
            if reason in _FIELDS:
                why = f"{detail or reason} ({of.day})"
                raise TariffRefusedError(_FIELDS[reason].get(self.tariff.source, "document"), why)
        [group] = found.groups
        fill_blocks(self.tariff, group.energy, group.peaks, LOAD_SCALE)
        return group

    def bill(self, load: Load, days: Sequence[LoadDay]) -> Month:
        """One month's bill."""
        tariff, start, past = self.tariff, days[0].day, days[-1].day + timedelta(days=1)
        services = self.services(start, past)
        groups = [self.determinants(services, load, of) for of in days]
        cuts = [start, *sorted(d for d in tariff.rate_days if start < d < past), past]
        parts: list[pl.DataFrame] = []
        before: dict[str, Any] = dict.fromkeys(CHARGE_SCHEMA)
        for begins, ends in pairwise(cuts):
            counted = sum(of.day < ends for of in days)
            at = self._position(
                services, groups[:counted], [start + timedelta(days=k) for k in range((ends - start).days)]
            )
            marks = (("first", False), ("final", False), ("last", ends == past))
            parts.append(
                services.with_columns(
                    pl.lit(begins).alias("segment_start"),
                    pl.lit(ends).alias("segment_end"),
                    pl.lit(past).alias("stretch_end"),
                    *(pl.lit(value).alias(name) for name, value in marks),
                    *(pl.Series(name, [value], CHARGE_SCHEMA[name]) for name, value in at.items()),
                    *(pl.Series(f"before_{name}", [before[name]], kind) for name, kind in CHARGE_SCHEMA.items()),
                )
            )
            before = before | at | {"tariff_version": _KEY[1]}
        priced = price_segments(self._carried_in(pl.concat(parts), start), {_KEY: tariff}, start, past, EXACT)
        if priced.refused.height:
            raise TariffRefusedError("document", str(priced.refused["detail"][0]))
        self.billed.append(priced.segments.with_columns(pl.lit(past).alias("period_end_day")))
        usage = sum(int(d.imports.sum()) - int(d.exports.sum()) for d in days)
        return Month(start, past, usage, priced)

    def _position(self, services: pl.DataFrame, groups: Sequence[DayGroup], span: Sequence[date]) -> dict[str, Any]:
        """What some days from a month's first come to: columns of CHARGE_SCHEMA."""
        tariff = self.tariff
        budget = int(micro_of(services["budget_per_day"])[0]) * (LOAD_SCALE // QUANTITY_SCALE)
        shares = [tariff.budget_monthly[d.month - 1] if tariff.budget_monthly else Decimal(100) for d in span]
        nothing = np.zeros(len(tariff.schedule.periods), np.int64)
        return {
            "days": len(span),
            "energy_to_date": sum((g.energy[0] for g in groups), nothing).tolist(),
            "export_to_date": sum((g.export[0] for g in groups), nothing).tolist(),
            "peaks_to_date": [
                int(
                    sum(g.peaks[0, r] for g in groups)
                    if register.daily
                    else max((g.peaks[0, r] for g in groups), default=0)
                )
                for r, register in enumerate(tariff.registers)
            ],
            "peak_at_to_date": [0] * len(tariff.registers),
            "register_days": [sum(r.in_season(d) for d in span) for r in tariff.registers],
            "budget_to_date": sum(max(budget, 0) * int(s * 10**6) // 10**8 for s in shares),
        }

    def _carried_in(self, row: pl.DataFrame, start: date) -> pl.DataFrame:
        """The month with what the bills before it carry into it."""
        empty = [pl.lit(None, pl.List(pl.Int64)).alias(name) for name in ("carry_in", "history_in")]
        if not self.billed:
            return row.with_columns(
                *empty, *(pl.lit(None, pl.Int128).alias(name) for name in ("credit_in", "year_lines", "year_days"))
            )
        earlier = pl.concat(self.billed)
        found = carried(self.tariff, earlier.drop("period_end").rename({"period_end_day": "period_end"}), {}, start)
        year = earlier.filter(pl.col("segment_start") > year_before(self.tariff, start))
        return row.with_columns(
            *(pl.lit(found[name]).first().alias(name) for name in ("carry_in", "history_in", "credit_in")),
            pl.lit(int(year["total"].sum() or 0), pl.Int128).alias("year_lines"),
            pl.lit(int(year["days"].sum() or 0), pl.Int64).alias("year_days"),
        )


def shared_holidays(years: Sequence[int]) -> frozenset[date]:
    """The six holidays that US tariffs share, of some years."""
    listed = HolidayList(NERC, observed="monday")
    days = [date(year, 1, 1) + timedelta(days=k) for year in years for k in range(366)]
    return frozenset(d for d in days if listed.holds(d))


def price_months(
    tariff: Tariff,
    load: Load,
    *,
    holidays: frozenset[date] = frozenset(),
    attributes: Mapping[str, str] | None = None,
) -> list[Month]:
    """The bill of every calendar month the load touches. Raises TariffRefusedError, naming the field."""
    given = attributes or {}
    missing = sorted(name for name in tariff.attributes if not given.get(name))
    if missing:
        raise TariffRefusedError("charges.by", f"needs the service's {', '.join(missing)}: give --attribute NAME=VALUE")
    account = _Account(tariff, given, holidays, BillingCalendar(load.zone))
    months: dict[tuple[int, int], list[LoadDay]] = {}
    for of in load.days:
        months.setdefault((of.day.year, of.day.month), []).append(of)
    return [account.bill(load, days) for days in months.values()]


def price(
    tariff: Tariff,
    load: Load,
    *,
    holidays: frozenset[date] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The contract's document: monthly and annual energy, demand, fixed, minimum, tax and total, as exact decimals.

    ``holidays``: those of the utility; None: the six that US tariffs share, which ``notes`` says where the tariff asks.
    Raises TariffRefusedError where the tariff needs more than is given, naming the field.
    """
    notes = list(tariff.notes)
    if holidays is None:
        years = sorted({of.day.year for of in load.days})
        holidays = shared_holidays(years)
        if tariff.asks_holidays:
            notes.append(
                f"holidays: none were given for {years[0]} to {years[-1]}; the six that US tariffs share were taken "
                "(New Year, Memorial, Independence, Labor, Thanksgiving, Christmas)"
            )
    months = price_months(tariff, load, holidays=holidays, attributes=attributes)
    rows = [_row(month.priced.lines) for month in months]
    monthly = [
        {
            "month": f"{month.start:%Y-%m}",
            "energy_kwh": _decimal(month.usage, LOAD_SCALE),
            **{c: _decimal(row[c], 10**EXACT_PLACES) for c in COMPONENTS},
        }
        for month, row in zip(months, rows, strict=True)
    ]
    return {
        "tariff": tariff.name,
        "source": tariff.source,
        "monthly": monthly,
        "annual": {c: _decimal(sum(row[c] for row in rows), 10**EXACT_PLACES) for c in COMPONENTS},
        "lines": _lines(tariff, months),
        "notes": notes,
        "refused": None,
    }


def _row(lines: pl.DataFrame) -> dict[str, int]:
    row: dict[str, int] = dict.fromkeys(COMPONENTS, 0)
    for component, amount in lines.select("component", "amount").iter_rows():
        # Riders and export credits are part of what energy costs; the contract has no column of their own for them.
        row[component if component in COMPONENTS else "energy"] += int(amount)
        row["total"] += int(amount)
    return row


def _lines(tariff: Tariff, months: Sequence[Month]) -> list[dict[str, Any]]:
    """Each line of the tariff over all months, and those that only a bill's end adds."""
    found: dict[str, dict[str, Any]] = {
        line.key: {"line": line.key, "name": line.name, "component": line.component, "amount": 0}
        for line in tariff.lines
    }
    for month in months:
        for key, name, component, amount in month.priced.lines.select(
            "line_key", "name", "component", "amount"
        ).iter_rows():
            held = found.setdefault(key, {"line": key, "name": name, "component": component, "amount": 0})
            held["amount"] += int(amount)
    return [line | {"amount": _decimal(line["amount"], 10**EXACT_PLACES)} for line in found.values()]


def _decimal(number: int, scale: int) -> Decimal:
    value = Decimal(number) / scale
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()
