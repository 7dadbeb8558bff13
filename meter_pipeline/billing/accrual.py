"""What a billing day costs: the position after the day less the position before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.determinants import DayDeterminants, DayGroup
from meter_pipeline.billing.fixed_point import Whole
from meter_pipeline.billing.pricing import QUANTITY_SCALE, MissingAttributeError, Position, amounts
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, exceptions
from meter_pipeline.billing.tariffs.model import Tariff
from meter_pipeline.calendar import BillingCalendar

_INTS: Final = pl.List(pl.Int64)

#: A day's determinants, one row per service point. Lists follow the tariff version's periods and registers.
DETERMINANT_SCHEMA: Final = pl.Schema(
    {
        "billing_day": pl.Date(),
        "service_point_id": pl.String(),
        "account_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "cycle_id": pl.String(),
        "period_start": pl.Date(),
        "period_end": pl.Date(),
        "stretch_start": pl.Date(),
        "unit": pl.String(),
        "source_unit": pl.String(),
        "source_quantity": pl.Int64(),
        "source_export": pl.Int64(),
        "other_unit": pl.String(),
        "other_quantity": pl.Int64(),
        "other_export": pl.Int64(),
        "energy": _INTS,
        "export": _INTS,
        "peaks": _INTS,
        "peak_at": _INTS,
        "slots": pl.Int32(),
        "estimated": pl.Int32(),
        "missing": pl.Int32(),
        "interval_minutes": pl.Int16(),
    }
)

# : A day's charges and the position after it. Amounts in millionths of the currency, in the order of the tariff
# version's day lines.
CHARGE_SCHEMA: Final = pl.Schema(
    {
        "billing_day": pl.Date(),
        "service_point_id": pl.String(),
        "account_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "cycle_id": pl.String(),
        "period_start": pl.Date(),
        "stretch_start": pl.Date(),
        "days": pl.Int32(),
        "energy_to_date": _INTS,
        "export_to_date": _INTS,
        "peaks_to_date": _INTS,
        "peak_at_to_date": _INTS,
        "register_days": _INTS,
        "budget_to_date": pl.Int64(),
        "carry": _INTS,
        "history": _INTS,
        "amounts": _INTS,
        "total": pl.Int64(),
    }
)


@dataclass(frozen=True, slots=True)
class DayCharges:
    """A day's frames for the store, sorted by service point, and what could not be charged."""

    determinants: pl.DataFrame
    charges: pl.DataFrame
    exceptions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EXCEPTION_SCHEMA))


def joined(parts: Sequence[DayCharges]) -> DayCharges:
    """Shards of a day, in the order of their service points, as the day."""
    return DayCharges(
        pl.concat([p.determinants for p in parts], rechunk=False),
        pl.concat([p.charges for p in parts], rechunk=False),
        pl.concat([p.exceptions for p in parts]),
    )


def lists(values: npt.NDArray[Any]) -> pl.Series:
    """(n, m) whole numbers as a list column; an empty list where m is 0."""
    if values.shape[1] == 0:
        return pl.Series([[]], dtype=_INTS).new_from_index(0, values.shape[0])
    return pl.Series(np.ascontiguousarray(values, np.int64)).cast(_INTS)


def matrix(column: pl.Series, width: int) -> npt.NDArray[np.int64]:
    """A list column of ``width`` as (n, width); rows that are null are 0."""
    n = len(column)
    if width == 0 or n == 0:
        return np.zeros((n, width), np.int64)
    filled = column.fill_null(pl.Series([[0] * width], dtype=_INTS)) if column.null_count() else column
    flat = filled.explode(empty_as_null=True).to_numpy()
    return flat.reshape(n, width).astype(np.int64, copy=False)


def micro_of(texts: pl.Series) -> npt.NDArray[np.int64]:
    """Decimal texts as millionths; -1 where there is none. Attributes are few and short: a loop over the distinct ones."""
    known = {
        text: -1 if text is None else int((Decimal(text) * QUANTITY_SCALE).quantize(Decimal(1), ROUND_HALF_EVEN))
        for text in texts.unique().to_list()
    }
    return np.array([known[t] for t in texts.to_list()], np.int64)


def text_array(column: pl.Series) -> npt.NDArray[Any]:
    """A text column as an object array with '' for null."""
    return column.fill_null("").to_numpy().astype(object)


@dataclass(slots=True)
class _Rows:
    """A group's services beside their prior positions, aligned."""

    services: pl.DataFrame
    prior: pl.DataFrame
    days_before: npt.NDArray[np.int64]
    first_day: npt.NDArray[np.int64]
    period_days: npt.NDArray[np.int64]
    budget_today: npt.NDArray[np.int64]
    winter_average: npt.NDArray[np.int64]
    attributes: dict[str, npt.NDArray[Any]]


def _rows(group: DayGroup, services: pl.DataFrame, prior: pl.DataFrame, day: date) -> _Rows:
    chosen = services[group.rows.tolist()]
    held = chosen.select("service_point_id", "account_id", "tariff_id", "stretch_start").join(
        prior.drop(
            "tariff_version", "billing_day", "cycle_id", "period_start", "days", "amounts", "total", strict=False
        ),
        on=["service_point_id", "account_id", "tariff_id", "stretch_start"],
        how="left",
        maintain_order="left",
    )
    ordinal = pl.lit(day).cast(pl.Int32)
    days = chosen.select(
        (ordinal - pl.col("stretch_start").cast(pl.Int32)).cast(pl.Int64).alias("before"),
        (pl.col("stretch_start") - pl.col("period_start")).dt.total_days().alias("first"),
        (pl.col("period_end") - pl.col("period_start")).dt.total_days().alias("period"),
    )
    budget = micro_of(chosen["budget_per_day"])
    if group.tariff.budget_monthly:
        percent = group.tariff.budget_monthly[day.month - 1]
        budget = np.where(budget < 0, -1, budget * int(percent * 10**6) // 10**8)
    return _Rows(
        chosen,
        held,
        days["before"].to_numpy(),
        days["first"].to_numpy(),
        days["period"].to_numpy(),
        budget,
        micro_of(chosen["winter_average_per_day"]),
        {name: text_array(chosen[name]) for name in ("customer_class", "meter_size", "jurisdiction", "rate_code")},
    )


def _net(tariff: Tariff, energy: Whole, export: Whole, carry: Whole) -> Whole:
    """Energy that is charged for: under net metering what is left after exports and the credit carried in, per period."""
    if tariff.metering != "net_metering":
        return energy
    netted: Whole = np.maximum(energy - export - carry, 0)
    return netted


def position(tariff: Tariff, frame: dict[str, Any], rows: npt.NDArray[np.int64] | None = None) -> Position:
    """A Position from cumulative arrays (energy, export, carry, peaks, register_days, days, ...), perhaps of some rows
    only."""

    def take(name: str) -> Any:
        value = frame.get(name)
        return value if value is None or rows is None else value[rows]

    attributes = {k: (v if rows is None else v[rows]) for k, v in frame["attributes"].items()}
    return Position(
        energy=_net(tariff, take("energy"), take("export"), take("carry")),
        export=take("export"),
        days=take("days"),
        period_days=take("period_days"),
        first_day=take("first_day"),
        peaks=take("peaks"),
        register_days=take("register_days"),
        history=take("history"),
        months=take("months"),
        budget=take("budget"),
        winter_average=take("winter_average"),
        attributes=attributes,
    )


def accrue(determinants: DayDeterminants, prior: pl.DataFrame, calendar: BillingCalendar) -> DayCharges:
    """Charges of a day for every service.

    ``prior``: CHARGE_SCHEMA rows of the day before (or the last one billed) of each stretch; a service without one
    begins at zero.
    """
    day = determinants.billing_day
    determinant_frames: list[pl.DataFrame] = []
    charge_frames: list[pl.DataFrame] = []
    faults = [determinants.exceptions]
    for group in determinants.groups:
        rows = _rows(group, determinants.services, prior, day)
        determinant_frames.append(_determinant_frame(group, rows.services, day, calendar))
        charges, missing = _charge(group, rows, day, calendar)
        charge_frames.append(charges)
        faults.append(missing)
    return DayCharges(
        pl.concat(determinant_frames).sort("service_point_id")
        if determinant_frames
        else pl.DataFrame(schema=DETERMINANT_SCHEMA),
        pl.concat(charge_frames).sort("service_point_id") if charge_frames else pl.DataFrame(schema=CHARGE_SCHEMA),
        pl.concat([f.cast(EXCEPTION_SCHEMA) for f in faults]).unique().sort("service_point_id", "reason", "detail"),
    )


def _peak_seconds(group: DayGroup, day: date, calendar: BillingCalendar) -> npt.NDArray[np.int64]:
    """UTC Unix seconds at which each register's peak began; 0 where there is none."""
    step = group.interval_minutes.astype(np.int64)[:, None] * 60
    return np.where(group.peak_slots >= 0, calendar.start_s(day) + group.peak_slots.astype(np.int64) * step, 0)


def _determinant_frame(group: DayGroup, services: pl.DataFrame, day: date, calendar: BillingCalendar) -> pl.DataFrame:
    head = services.select(
        pl.lit(day).alias("billing_day"),
        "service_point_id",
        "account_id",
        "tariff_id",
        "tariff_version",
        "cycle_id",
        "period_start",
        "period_end",
        "stretch_start",
        pl.lit(group.tariff.unit).alias("unit"),
    )
    return head.with_columns(
        pl.Series("source_unit", group.source_unit.tolist(), pl.String),
        pl.Series("source_quantity", group.source),
        pl.Series("source_export", group.source_export),
        pl.Series("other_unit", group.other_unit.tolist(), pl.String),
        pl.Series("other_quantity", group.other),
        pl.Series("other_export", group.other_export),
        lists(group.energy).alias("energy"),
        lists(group.export).alias("export"),
        lists(group.peaks).alias("peaks"),
        lists(_peak_seconds(group, day, calendar)).alias("peak_at"),
        pl.Series("slots", group.slots),
        pl.Series("estimated", group.estimated),
        pl.Series("missing", group.missing),
        pl.Series("interval_minutes", group.interval_minutes),
    ).cast(DETERMINANT_SCHEMA)


def _charge(group: DayGroup, rows: _Rows, day: date, calendar: BillingCalendar) -> tuple[pl.DataFrame, pl.DataFrame]:
    tariff, n = group.tariff, len(group.rows)
    periods, registers = len(tariff.schedule.periods), len(tariff.registers)
    prior = rows.prior
    energy_before = matrix(prior["energy_to_date"], periods)
    export_before = matrix(prior["export_to_date"], periods)
    peaks_before = matrix(prior["peaks_to_date"], registers)
    peak_at_before = matrix(prior["peak_at_to_date"], registers)
    register_days_before = matrix(prior["register_days"], registers)
    in_season = np.array([register.in_season(day) for register in tariff.registers], np.int64)
    budget_before = prior["budget_to_date"].fill_null(0).to_numpy()
    higher = group.peaks > peaks_before
    shared: dict[str, Any] = {
        "carry": matrix(prior["carry"], periods),
        "history": matrix(prior["history"], registers),
        "months": np.full(n, day.month, np.int64),
        "period_days": rows.period_days,
        "first_day": rows.first_day,
        "winter_average": rows.winter_average,
        "attributes": rows.attributes,
    }
    before = shared | {
        "energy": energy_before,
        "export": export_before,
        "peaks": peaks_before,
        "register_days": register_days_before,
        "days": rows.days_before,
        "budget": np.where(rows.budget_today < 0, -1, budget_before),
    }
    after = shared | {
        "energy": energy_before + group.energy,
        "export": export_before + group.export,
        "peaks": np.maximum(peaks_before, group.peaks),
        "register_days": register_days_before + in_season,
        "days": rows.days_before + 1,
        "budget": np.where(rows.budget_today < 0, -1, budget_before + rows.budget_today),
    }
    kept, missing = np.arange(n), []
    while True:
        try:
            cost = amounts(tariff, position(tariff, after, kept)) - amounts(tariff, position(tariff, before, kept))
            break
        except MissingAttributeError as error:
            missing.append(exceptions(rows.services[kept[error.rows].tolist()], "attribute_missing", error.attribute))
            kept = np.delete(kept, error.rows)
    lines = tariff.day_keys
    day_amounts = np.zeros((len(kept), len(lines)), np.int64)
    for k, line in enumerate(tariff.lines):
        day_amounts[:, lines.index(line.day_key)] += cost[:, k].astype(np.int64)
    head = rows.services[kept.tolist()].select(
        pl.lit(day).alias("billing_day"),
        "service_point_id",
        "account_id",
        "tariff_id",
        "tariff_version",
        "cycle_id",
        "period_start",
        "stretch_start",
    )
    frame = head.with_columns(
        pl.Series("days", after["days"][kept]),
        lists(after["energy"][kept]).alias("energy_to_date"),
        lists(after["export"][kept]).alias("export_to_date"),
        lists(after["peaks"][kept]).alias("peaks_to_date"),
        lists(np.where(higher, _peak_seconds(group, day, calendar), peak_at_before)[kept]).alias("peak_at_to_date"),
        lists(after["register_days"][kept]).alias("register_days"),
        pl.Series("budget_to_date", np.maximum(after["budget"][kept], 0)),
        lists(shared["carry"][kept]).alias("carry"),
        lists(shared["history"][kept]).alias("history"),
        lists(day_amounts).alias("amounts"),
        pl.Series("total", day_amounts.sum(axis=1)),
    ).cast(CHARGE_SCHEMA)
    return frame, pl.concat(missing) if missing else pl.DataFrame(schema=EXCEPTION_SCHEMA)
