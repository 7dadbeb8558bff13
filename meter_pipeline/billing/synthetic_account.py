"""A synthetic account with one service, billed by calendar months by the functions that bill a city."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, positions_after
from meter_pipeline.billing.bill_end import year_before
from meter_pipeline.billing.bill_position import EXACT_PLACES, MONEY_PLACES
from meter_pipeline.billing.carried import carried
from meter_pipeline.billing.day_groups import DAILY_SCHEMA, DayDeterminants, DayExtras
from meter_pipeline.billing.determinants import day_determinants
from meter_pipeline.billing.load import LOAD_SCALE, Load, LoadDay
from meter_pipeline.billing.reactive import REACTIVE_UNIT
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, SERVICE_SCHEMA, DayServices, attribute_columns
from meter_pipeline.billing.statement_frames import SEGMENT_SCHEMA, Precision
from meter_pipeline.billing.statements import Priced, before_columns, price_segments
from meter_pipeline.billing.tariffs.fields import TariffRefusedError
from meter_pipeline.billing.tariffs.model import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import DayMatrix

EXACT: Final = Precision(exact=True, scale=LOAD_SCALE)
#: The account's last bill: it closes, or takes service at another service point.
LAST_BILLS: Final = ("closes", "moves")
_KEY: Final = ("T", 1)
_WHOSE: Final = ("service_point_id", "account_id", "tariff_id", "stretch_start")
#: Where a reason for which a day can't be priced stands in a document.
_FIELDS: Final = {
    "demand_interval": {"urdb": "demandwindow", "native": "demand_minutes"},
    "needs_intervals": {"urdb": "energyweekdayschedule", "native": "time_of_use"},
    "unit_mismatch": {"urdb": "energyratestructure[0][0].unit", "native": "unit"},
    "no_heat_content": {"native": "heat_content"},
    "needs_reactive": {"urdb": "flatdemandunit", "native": "load.kvarh"},
}


@dataclass(frozen=True, slots=True)
class Credit:
    """Credit that a bill takes in or leaves: units by period, and money."""

    units: Mapping[str, Decimal] = field(default_factory=dict)
    money: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """How an account is billed. ``held``: exact, or as on a statement; ``last_bill``: one of LAST_BILLS where the last
    month's bill is the account's last at the service point; ``credit``: what the bill before the first left."""

    precision: Precision = EXACT
    last_bill: str | None = None
    credit: Credit = field(default_factory=Credit)


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month's bill: the days it is for, net usage in 1/LOAD_SCALE and its priced lines and segment."""

    start: date
    past: date
    usage: int
    priced: Priced


@dataclass(slots=True)
class _Account:
    """The synthetic account: its attributes, how it is billed, and the segments billed so far."""

    tariff: Tariff
    attributes: Mapping[str, str]
    holidays: frozenset[date]
    calendar: BillingCalendar
    terms: Terms
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

    def determinants(self, services: pl.DataFrame, load: Load, of: LoadDay) -> DayDeterminants:
        """A day's determinants. Raises TariffRefusedError where the day can't be priced."""
        bound = DayServices(services, {_KEY: self.tariff}, pl.DataFrame(schema=EXCEPTION_SCHEMA))
        of = _scaled_load(of, self.terms.precision.scale)
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
        return found

    def bill(self, load: Load, days: Sequence[LoadDay], *, last: bool) -> Month:
        """One month's bill. ``last``: it is the load's last month."""
        tariff, precision = self.tariff, self.terms.precision
        start, past = days[0].day, days[-1].day + timedelta(days=1)
        services = self.services(start, past)
        reached = self._positions(services, load, days)
        cuts = [start, *sorted(d for d in tariff.rate_days if start < d < past), past]
        final = last and self.terms.last_bill is not None
        parts = pl.DataFrame(
            [(a, b, b - timedelta(days=1), b == past) for a, b in pairwise(cuts)],
            schema={"segment_start": pl.Date, "segment_end": pl.Date, "billing_day": pl.Date, "last": pl.Boolean},
            orient="row",
        ).with_columns(
            pl.lit(past).alias("stretch_end"),
            pl.lit(False).alias("first"),
            pl.lit(final).alias("final"),
            pl.lit(["elsewhere"] if final and self.terms.last_bill == "moves" else None, pl.List(pl.String)).alias(
                "moves_to"
            ),
        )
        mine = services.drop("cycle_id", "period_start", "tariff_version").join(parts, how="cross")
        rows = mine.join(reached, on=[*_WHOSE, "billing_day"]).join(
            before_columns(reached), on=[*_WHOSE, "segment_start"], how="left"
        )
        priced = price_segments(self._carried_in(rows, start), {_KEY: tariff}, start, past, precision)
        if priced.refused.height:
            raise TariffRefusedError("document", str(priced.refused["detail"][0]))
        self.billed.append(priced.segments.with_columns(pl.lit(past).alias("period_end_day")))
        usage = sum(int(d.imports.sum()) - int(d.exports.sum()) for d in days)
        return Month(start, past, usage, priced)

    def _positions(self, services: pl.DataFrame, load: Load, days: Sequence[LoadDay]) -> pl.DataFrame:
        """CHARGE_SCHEMA rows of each day of a month. A day that the load leaves out is one without usage."""
        by_day = {of.day: of for of in days}
        position = pl.DataFrame(schema=CHARGE_SCHEMA)
        every = []
        for k in range((days[-1].day - days[0].day).days + 1):
            day = days[0].day + timedelta(days=k)
            of = by_day.get(day) or _empty(days[0], day, self.calendar, load.interval_minutes)
            found = self.determinants(services, load, of)
            position = positions_after(found, position, self.calendar, self.terms.precision.scale)
            every.append(position)
        return pl.concat(every)

    def _carried_in(self, rows: pl.DataFrame, start: date) -> pl.DataFrame:
        """The month with the amounts that earlier bills carry into it."""
        precision = self.terms.precision
        earlier = pl.concat(self.billed) if self.billed else self._opening(start)
        found = carried(self.tariff, earlier.drop("period_end").rename({"period_end_day": "period_end"}), {}, start)
        year = earlier.filter(pl.col("segment_start") > year_before(self.tariff, start))
        return rows.with_columns(
            *(pl.lit(found[name]).first().alias(name) for name in ("carry_in", "history_in", "credit_in")),
            pl.lit(int(year["total"].sum() or 0), precision.kind).alias("year_lines"),
            pl.lit(int(year["days"].sum() or 0), pl.Int64).alias("year_days"),
        )

    def _opening(self, start: date) -> pl.DataFrame:
        """The balance that the bill before the first left, as a segment."""
        precision, periods = self.terms.precision, self.tariff.schedule.periods
        given = self.terms.credit
        for name in given.units:
            if name not in periods:
                raise TariffRefusedError("credit", f"{name!r} is not one of the tariff's periods: {', '.join(periods)}")
        if (any(given.units.values()) and not self.tariff.carries_units) or (
            given.money and not self.tariff.carries_money
        ):
            raise TariffRefusedError("credit", "this tariff keeps no credit of that kind")
        places = EXACT_PLACES if precision.exact else MONEY_PLACES
        row = {
            "account_id": "A",
            "service_point_id": "SP",
            "tariff_id": _KEY[0],
            "tariff_version": _KEY[1],
            "segment_start": start - timedelta(days=1),
            "segment_end": start,
            "days": 0,
            "peaks": [0] * len(self.tariff.registers),
            "carry_out": [_whole(given.units.get(name, Decimal(0)) * precision.scale) for name in periods],
            "credit_out": _whole(given.money * 10**places),
            "total": 0,
            "period_end_day": start,
        }
        money = dict.fromkeys(("credit_out", "total"), precision.kind())
        schema = {**SEGMENT_SCHEMA, **money, "period_end_day": pl.Date()}
        return pl.DataFrame([row], schema=schema)


def _whole(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_EVEN))


def _scaled_load(of: LoadDay, scale: int) -> LoadDay:
    """A day's load in parts of a unit as it is billed: rounded half to even where they are fewer than it is read
    with."""
    ratio = LOAD_SCALE // scale
    if ratio == 1:
        return of
    reactive = None if of.reactive is None else _fewer(of.reactive, ratio)
    return LoadDay(of.day, _fewer(of.imports, ratio), _fewer(of.exports, ratio), reactive)


def _fewer(values: npt.NDArray[np.int64], ratio: int) -> npt.NDArray[np.int64]:
    whole, rest = values // ratio, values % ratio
    up: npt.NDArray[np.bool_] = (2 * rest > ratio) | ((2 * rest == ratio) & (whole % 2 == 1))
    return np.asarray(whole + up, np.int64)


def _empty(like: LoadDay, day: date, calendar: BillingCalendar, minutes: int) -> LoadDay:
    zeros = np.zeros(len(like.imports) if minutes == 1440 else calendar.slots(day, minutes), np.int64)
    return LoadDay(day, zeros, zeros, None if like.reactive is None else zeros)


def price_months(
    tariff: Tariff,
    load: Load,
    *,
    holidays: frozenset[date] = frozenset(),
    attributes: Mapping[str, str] | None = None,
    terms: Terms | None = None,
) -> list[Month]:
    """The bill of every calendar month the load touches, by default exact. Raises TariffRefusedError, naming the
    field."""
    given = attributes or {}
    missing = sorted(name for name in tariff.attributes if not given.get(name))
    if missing:
        raise TariffRefusedError("charges.by", f"needs the service's {', '.join(missing)}: give --attribute NAME=VALUE")
    account = _Account(tariff, given, holidays, BillingCalendar(load.zone), terms or Terms())
    months: dict[tuple[int, int], list[LoadDay]] = {}
    for of in load.days:
        months.setdefault((of.day.year, of.day.month), []).append(of)
    return [account.bill(load, days, last=key == max(months)) for key, days in months.items()]


def left_over(tariff: Tariff, month: Month, precision: Precision) -> Credit:
    """The credit that a month's bill leaves for the next."""
    segment = month.priced.segments.row(-1, named=True)
    names = tariff.schedule.periods
    units = zip(names, segment["carry_out"], strict=True) if tariff.carries_units else ()
    places = EXACT_PLACES if precision.exact else MONEY_PLACES
    return Credit(
        {name: Decimal(count) / precision.scale for name, count in units},
        Decimal(segment["credit_out"]).scaleb(-places),
    )
