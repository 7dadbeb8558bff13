"""One bill's arithmetic, step by step: what ``meter-pipeline tariffs explain`` prints.

The bill is priced by the functions that price a city's statements, rounded as they are; each line's text is made from
the tariff and the line's quantity, so that a person can follow it with a pocket calculator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.carried import nothing_carried
from meter_pipeline.billing.daily_blocks import fill_blocks
from meter_pipeline.billing.positions import micro_of
from meter_pipeline.billing.pricing import period_months
from meter_pipeline.billing.service_agreements import SERVICE_SCHEMA, attribute_columns
from meter_pipeline.billing.statements import price_segments
from meter_pipeline.billing.tariffs.fields import TariffRefusedError
from meter_pipeline.billing.tariffs.model import (
    MEASURE_UNITS,
    ByAttribute,
    Charge,
    DemandCharge,
    FixedCharge,
    MinimumCharge,
    PercentCharge,
    Tariff,
    UsageCharge,
)
from meter_pipeline.units import from_micro, to_micro

_KEY = ("T", 1)


@dataclass(frozen=True, slots=True)
class BillUse:
    """What a bill is for: a month, or some days from its first on; use and exports by period and peaks by register, in
    the tariff's unit and in kW; what the service has."""

    start: date
    days: int | None = None
    energy: Mapping[str, Decimal] = field(default_factory=dict)
    export: Mapping[str, Decimal] = field(default_factory=dict)
    peaks: Mapping[str, Decimal] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def past(self) -> date:
        """The day after the last."""
        if self.days is not None:
            return self.start + timedelta(days=self.days)
        return (self.start.replace(day=1) + timedelta(days=31)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the bill and how it came to be."""

    line: str
    name: str
    amount: Decimal
    how: str


def explain_bill(tariff: Tariff, use: BillUse) -> list[Step]:
    """The bill's lines, in order. Raises TariffRefusedError where a name is unknown or the tariff needs more than is
    given.
    """
    missing = sorted(name for name in tariff.attributes if not use.attributes.get(name))
    if missing:
        raise TariffRefusedError("charges.by", f"needs the service's {', '.join(missing)}: give --attribute NAME=VALUE")
    priced = price_segments(_row(tariff, use), {_KEY: tariff}, use.start, use.past)
    if priced.refused.height:
        raise TariffRefusedError("document", str(priced.refused["detail"][0]))
    charges = {charge.code: charge for charge in tariff.charges}
    steps: list[Step] = []
    for row in priced.lines.iter_rows(named=True):
        code = row["line_key"].split("/")[0]
        quantity = None if row["quantity"] is None else from_micro(row["quantity"])
        amount = from_micro(row["amount"])
        how = _how(tariff, charges.get(code), row["line_key"], quantity, use, steps)
        steps.append(Step(row["line_key"], row["name"], amount, how))
    return steps


def _row(tariff: Tariff, use: BillUse) -> pl.DataFrame:
    """The bill's one segment, as price_segments takes it."""
    periods, registers = tariff.layout
    days = [use.start + timedelta(days=k) for k in range((use.past - use.start).days)]
    services = {
        "service_point_id": "SP",
        "account_id": "A",
        "tariff_id": _KEY[0],
        "tariff_version": _KEY[1],
        "cycle_id": "C",
        "period_start": use.start,
        "period_end": use.past,
        "stretch_start": use.start,
        "commodity": tariff.commodity,
        **attribute_columns(use.attributes),
    }
    frame = pl.DataFrame([services], schema=SERVICE_SCHEMA)
    budget = max(int(micro_of(frame["budget_per_day"])[0]), 0)
    shares = [tariff.budget_monthly[d.month - 1] if tariff.budget_monthly else Decimal(100) for d in days]
    position: dict[str, Any] = {
        "days": len(days),
        "energy_to_date": _listed(use.energy, periods, "--use"),
        "export_to_date": _listed(use.export, periods, "--export"),
        "peaks_to_date": _registers(tariff, use, len(days)),
        "peak_at_to_date": [0] * len(registers),
        "register_days": [sum(r.in_season(d) for d in days) for r in tariff.registers],
        "budget_to_date": sum(budget * int(share * 10**6) // 10**8 for share in shares),
    }
    return frame.with_columns(
        pl.lit(use.start).alias("segment_start"),
        pl.lit(use.past).alias("segment_end"),
        pl.lit(use.past).alias("stretch_end"),
        *(pl.lit(value).alias(name) for name, value in (("first", False), ("final", False), ("last", True))),
        *(pl.Series(name, [value], CHARGE_SCHEMA[name]) for name, value in position.items()),
        *(pl.lit(None, kind).alias("before_" + name) for name, kind in CHARGE_SCHEMA.items()),
        pl.lit(None, pl.List(pl.String)).alias("moves_to"),
        *nothing_carried(),
        pl.lit(None, pl.Int64).alias("year_lines"),
        pl.lit(None, pl.Int64).alias("year_days"),
    )


def _registers(tariff: Tariff, use: BillUse, days: int) -> list[int]:
    """What the registers counted: as given, and of blocks that restart each day what an even use makes of each day."""
    counted = _listed(use.peaks, tariff.layout[1], "--peak")
    if any(register.block is not None for register in tariff.registers):
        energy = np.array([_listed(use.energy, tariff.layout[0], "--use")], np.int64)
        sums = np.zeros((2, len(counted)), np.int64)
        # Every day uses the whole millionths, and the first one what is left over.
        each = np.array([energy[0] // days, energy[0] // days + energy[0] % days])
        fill_blocks(tariff, each, sums)
        blocks = sums[0] * (days - 1) + sums[1]
        counted = [int(b) if r.block else c for r, b, c in zip(tariff.registers, blocks, counted, strict=True)]
    return counted


def _listed(given: Mapping[str, Decimal], names: tuple[str, ...], option: str) -> list[int]:
    for name in given:
        if name not in names:
            raise TariffRefusedError(
                option, f"{name!r} is not one of {', '.join(names) or 'none: the tariff has no demand'}"
            )
    return [to_micro(given.get(name, Decimal(0))) for name in names]


def _variant(variants: ByAttribute, use: BillUse) -> int:
    if variants.attribute is None:
        return 0
    if variants.dated:
        day = use.past if variants.attribute == "bill_date" else use.past - timedelta(days=1)
        return max(sum(date.fromisoformat(key) <= day for key in variants.keys) - 1, 0)
    value = use.attributes.get(variants.attribute, "")
    return variants.keys.index(value if value in variants.keys else "*")


def _how(
    tariff: Tariff, charge: Charge | None, key: str, quantity: Decimal | None, use: BillUse, steps: list[Step]
) -> str:
    """The arithmetic of a line in words and figures."""
    match charge:
        case UsageCharge():
            _, period, tier = key.split("/")
            ladder = charge.ladders[_variant(charge.variants, use)][tariff.schedule.periods.index(period)]
            counted = {"winter_average_cap": ", at most the winter average", "winter_average": " of winter average"}
            factor = f" after the factor {charge.factor}" if charge.factor != 1 else ""
            unit = tariff.unit if charge.kvarh is None else "kVArh"
            text = f"{quantity} {unit}{factor}{counted.get(charge.basis, '')}"
            return f"{text} x {ladder[int(tier) - 1].rate}"
        case DemandCharge():
            rate = charge.ladder[int(key.rsplit("/", 1)[1]) - 1].rate
            return f"{quantity} {MEASURE_UNITS[tariff.registers[charge.register].measure]} x {rate}"
        case FixedCharge():
            if charge.steps:
                amounts = " or ".join(map(str, charge.amounts))
                steps_of = "the billing demand" if charge.demand is not None else "use"
                return f"{amounts} {multiplied(charge.per, use)}, by {steps_of} (up to {', '.join(map(str, charge.steps))}, above)"
            amount = charge.amounts[_variant(charge.variants, use)]
            return f"{amount} {multiplied(charge.per, use)}" + (
                f" x {use.attributes[charge.times]}" if charge.times else ""
            )
        case PercentCharge():
            if charge.power_factor is not None:
                other = "other than" if charge.power_factor.credit else "below"
                return f"for a power factor {other} {charge.power_factor.target}, of {_sum(steps, charge.of)}"
            percent = charge.percents[_variant(charge.variants, use)] if charge.percents else charge.percent
            return f"{percent} % of {_sum(steps, charge.of)}"
        case MinimumCharge():
            least = charge.amounts[_variant(charge.variants, use)]
            return f"at least {least} {multiplied(charge.per, use)}; {_sum(steps, charge.of)} charged so far"
    return {"ROUNDING": "the exact total, rounded once"}.get(key, "what the end of the bill or year adds")


def multiplied(per: str, use: BillUse) -> str:
    days = (use.past - use.start).days
    months = int(period_months(np.array([days]))[0])
    if per == "day":
        return f"a day x {days}"
    per_text = "a month" if per == "month" else "a year / 12"
    return per_text if months == 1 else f"{per_text} x {months}"


def _sum(steps: list[Step], codes: tuple[str, ...]) -> Decimal:
    return sum((step.amount for step in steps if step.line.split("/")[0] in codes), Decimal(0))
