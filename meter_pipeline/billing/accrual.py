"""Cost of a billing day: the position after the day less the position before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.bill_position import QUANTITY_SCALE, MissingAttributeError
from meter_pipeline.billing.daily_blocks import fill_blocks
from meter_pipeline.billing.day_groups import DayDeterminants, DayGroup
from meter_pipeline.billing.day_peaks import after_day
from meter_pipeline.billing.positions import INTS, Aligned, attribute_arrays, lists, micro_of, position
from meter_pipeline.billing.pricing import amounts
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, NO_EXCEPTIONS, exceptions
from meter_pipeline.billing.tariffs.model import Layout, Tariff
from meter_pipeline.billing.tariffs.schedules import season_days
from meter_pipeline.calendar import BillingCalendar

#: Day 0 of a Date column as a proleptic ordinal.
EPOCH: Final = date(1970, 1, 1).toordinal()
#: Errors that applying a tariff to odd figures may raise.
PRICING_ERRORS: Final = (ValueError, ArithmeticError, LookupError, TypeError, pl.exceptions.PolarsError)

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
        "energy": INTS,
        "export": INTS,
        "peaks": INTS,
        "peak_at": INTS,
        "slots": pl.Int32(),
        "estimated": pl.Int32(),
        "missing": pl.Int32(),
        "interval_minutes": pl.Int16(),
    }
)

#: A day's charges and the position after it. Amounts in millionths of the currency, in the order of the tariff
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
        "energy_to_date": INTS,
        "export_to_date": INTS,
        "peaks_to_date": INTS,
        "peak_at_to_date": INTS,
        "register_days": INTS,
        "budget_to_date": pl.Int64(),
        "carry": INTS,
        "history": INTS,
        "amounts": INTS,
        "total": pl.Int64(),
    }
)


@dataclass(frozen=True, slots=True)
class DayCharges:
    """A day's frames for the database, sorted by service point, and the services that could not be charged."""

    determinants: pl.DataFrame
    charges: pl.DataFrame
    exceptions: pl.DataFrame = field(default_factory=lambda: NO_EXCEPTIONS)


def joined(parts: Sequence[DayCharges]) -> DayCharges:
    """Shards of a day, in the order of their service points, as the day."""
    return DayCharges(
        pl.concat([p.determinants for p in parts], rechunk=False),
        pl.concat([p.charges for p in parts], rechunk=False),
        pl.concat([p.exceptions for p in parts]),
    )


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


def _rows(
    group: DayGroup, services: pl.DataFrame, prior: pl.DataFrame, day: date, scale: int = QUANTITY_SCALE
) -> _Rows:
    chosen = services[group.rows.tolist()]
    of_agreement = chosen.select("service_point_id", "account_id", "tariff_id", "stretch_start").join(
        prior.rename({"tariff_version": "prior_version"}).drop(
            "billing_day", "cycle_id", "period_start", "days", "amounts", "total", strict=False
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
    finer = scale // QUANTITY_SCALE
    budget, average = (micro_of(chosen[name]) for name in ("budget_per_day", "winter_average_per_day"))
    budget = np.where(budget < 0, -1, budget * finer)
    if group.tariff.budget_monthly:
        percent = group.tariff.budget_monthly[day.month - 1]
        budget = np.where(budget < 0, -1, budget * int(percent * 10**6) // 10**8)
    return _Rows(
        chosen,
        of_agreement,
        days["before"].to_numpy(),
        days["first"].to_numpy(),
        days["period"].to_numpy(),
        budget,
        np.where(average < 0, -1, average * finer),
        attribute_arrays(chosen, group.tariff),
    )


def positions_after(
    determinants: DayDeterminants, prior: pl.DataFrame, calendar: BillingCalendar, scale: int = QUANTITY_SCALE
) -> pl.DataFrame:
    """The position after a day of every service, as ``accrue`` says it, without what the day costs.

    ``scale``: parts of a unit that quantities are held in.
    """
    day = determinants.billing_day
    frames = []
    for group in determinants.groups:
        fill_blocks(group.tariff, group.energy, group.peaks, scale)
        rows = _rows(group, determinants.services, prior, day, scale)
        layouts = {
            version: layout for (name, version), layout in determinants.layouts.items() if name == group.tariff_id
        }
        reached = _reach(group, rows, day, calendar, layouts)
        kept = np.arange(len(group.rows))
        frames.append(_position_frame(rows, day, reached, kept, np.zeros((len(kept), 0), np.int64)))
    return pl.concat([pl.DataFrame(schema=CHARGE_SCHEMA), *frames]).sort("service_point_id")


def accrue(
    determinants: DayDeterminants, prior: pl.DataFrame, calendar: BillingCalendar, *, charges_alone: bool = False
) -> DayCharges:
    """Charges of a day for every service.

    ``prior``: CHARGE_SCHEMA rows of the day before (or the last one billed) of each stretch; a service without one
    begins at zero. ``charges_alone``: without the frame of determinants, of days whose determinants are stored.
    """
    day = determinants.billing_day
    determinant_frames: list[pl.DataFrame] = []
    charge_frames: list[pl.DataFrame] = []
    faults = [determinants.exceptions]
    for group in determinants.groups:
        fill_blocks(group.tariff, group.energy, group.peaks)
        rows = _rows(group, determinants.services, prior, day)
        if not charges_alone:
            determinant_frames.append(_determinant_frame(group, rows.services, day, calendar))
        layouts = {
            version: layout for (name, version), layout in determinants.layouts.items() if name == group.tariff_id
        }
        try:
            charges, missing = _charge(group, rows, day, calendar, layouts)
        except PRICING_ERRORS as error:
            # A tariff that can't be applied sets its own services aside; the others are charged.
            charges = pl.DataFrame(schema=CHARGE_SCHEMA)
            missing = exceptions(rows.services, "not_priced", f"{group.tariff_id}: {error}"[:400])
        charge_frames.append(charges)
        faults.append(missing)
    found = [f.cast(EXCEPTION_SCHEMA) for f in faults if f.height]
    return DayCharges(
        _in_order(determinant_frames) if determinant_frames else pl.DataFrame(schema=DETERMINANT_SCHEMA),
        _in_order(charge_frames) if charge_frames else pl.DataFrame(schema=CHARGE_SCHEMA),
        pl.concat(found).unique().sort("service_point_id", "reason", "detail") if found else NO_EXCEPTIONS,
    )


def _in_order(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of a day's groups, sorted by service point. Those of one group are."""
    return frames[0] if len(frames) == 1 else pl.concat(frames).sort("service_point_id")


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


@dataclass(frozen=True, slots=True)
class _Reached:
    """Positions of a group's services before and after a day, and when each register's peak so far began."""

    before: dict[str, Any]
    after: dict[str, Any]
    peak_at: npt.NDArray[np.int64]


def _reach(
    group: DayGroup, rows: _Rows, day: date, calendar: BillingCalendar, layouts: Mapping[int, Layout]
) -> _Reached:
    tariff, n = group.tariff, len(group.rows)
    prior = rows.prior
    aligned = Aligned(tariff, prior["prior_version"], layouts)
    energy_before, export_before = aligned.periods(prior["energy_to_date"]), aligned.periods(prior["export_to_date"])
    peaks_before, peak_at_before = (
        aligned.registers(prior["peaks_to_date"]),
        aligned.registers(prior["peak_at_to_date"]),
    )
    register_days_before = aligned.registers(prior["register_days"])
    starts = rows.services["stretch_start"].cast(pl.Int32).to_numpy() + EPOCH
    in_season = np.array([register.in_season(day) for register in tariff.registers], np.int64)
    budget_before = prior["budget_to_date"].fill_null(0).to_numpy()
    peaks, peak_at = after_day(
        tariff.registers, (peaks_before, peak_at_before), (group.peaks, _peak_seconds(group, day, calendar))
    )
    shared: dict[str, Any] = {
        "carry": aligned.periods(prior["carry"]),
        "history": aligned.registers(prior["history"]),
        "months": np.full(n, day.month, np.int64),
        "period_days": rows.period_days,
        "first_day": rows.first_day,
        "winter_average": rows.winter_average,
        "service_day": np.full(n, day.toordinal(), np.int64),
        "bill_day": rows.services["period_end"].cast(pl.Int32).to_numpy().astype(np.int64) + EPOCH,
        "attributes": rows.attributes,
    }
    before = shared | {
        "energy": energy_before,
        "export": export_before,
        "peaks": peaks_before,
        "register_days": register_days_before,
        "days": rows.days_before,
        "season_days": season_days(tariff.schedule, starts.tolist(), rows.days_before),
        "budget": np.where(rows.budget_today < 0, -1, budget_before),
    }
    after = shared | {
        "energy": energy_before + group.energy,
        "export": export_before + group.export,
        "peaks": peaks,
        "register_days": register_days_before + in_season,
        "days": rows.days_before + 1,
        "season_days": season_days(tariff.schedule, starts.tolist(), rows.days_before + 1),
        "budget": np.where(rows.budget_today < 0, -1, budget_before + rows.budget_today),
    }
    return _Reached(before, after, peak_at)


def _charge(
    group: DayGroup, rows: _Rows, day: date, calendar: BillingCalendar, layouts: Mapping[int, Layout]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    tariff, n = group.tariff, len(group.rows)
    reached = _reach(group, rows, day, calendar, layouts)
    before, after = reached.before, reached.after
    kept, cost, missing = _cost(tariff, before, after, np.arange(n), rows.services)
    exceeded = (after["energy"] < 0).any(axis=1) & (rows.days_before + rows.first_day + 1 == rows.period_days)
    if exceeded.any():
        # What is deducted may be ahead of the meter before it for some days, by their dials' steps, but not for a
        # period.
        missing.append(exceptions(rows.services.filter(pl.Series(exceeded)), "deducts_exceed"))
    lines = tariff.day_keys
    day_amounts = np.zeros((len(kept), len(lines)), np.int64)
    for k, line in enumerate(tariff.lines):
        day_amounts[:, lines.index(line.day_key)] += cost[:, k]
    frame = _position_frame(rows, day, reached, kept, day_amounts)
    return frame, pl.concat(missing) if missing else NO_EXCEPTIONS


def _position_frame(
    rows: _Rows, day: date, reached: _Reached, kept: npt.NDArray[np.int64], day_amounts: npt.NDArray[np.int64]
) -> pl.DataFrame:
    """CHARGE_SCHEMA rows of some of a group's services."""
    after = reached.after
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
    frame: pl.DataFrame = head.with_columns(
        pl.Series("days", after["days"][kept]),
        lists(after["energy"][kept]).alias("energy_to_date"),
        lists(after["export"][kept]).alias("export_to_date"),
        lists(after["peaks"][kept]).alias("peaks_to_date"),
        lists(reached.peak_at[kept]).alias("peak_at_to_date"),
        lists(after["register_days"][kept]).alias("register_days"),
        pl.Series("budget_to_date", np.maximum(after["budget"][kept], 0)),
        lists(after["carry"][kept]).alias("carry"),
        lists(after["history"][kept]).alias("history"),
        lists(day_amounts).alias("amounts"),
        pl.Series("total", day_amounts.sum(axis=1)),
    )
    return frame.cast(CHARGE_SCHEMA)


def _cost(
    tariff: Tariff,
    before: dict[str, Any],
    after: dict[str, Any],
    wanted: npt.NDArray[np.int64],
    services: pl.DataFrame,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[pl.DataFrame]]:
    """The services that could be priced, what each line of theirs costs, and those that could not. A service whose
    figures fit no amount is found by halves, so that the others of its tariff are charged."""
    kept, missing = wanted, list[pl.DataFrame]()
    while True:
        try:
            cost = amounts(tariff, position(tariff, after, kept)) - amounts(tariff, position(tariff, before, kept))
            return kept, np.asarray(cost).astype(np.int64), missing
        except MissingAttributeError as error:
            missing.append(exceptions(services[kept[error.rows].tolist()], "attribute_missing", error.attribute))
            kept = np.delete(kept, error.rows)
        except PRICING_ERRORS as error:
            if len(kept) <= 1:
                missing.append(exceptions(services[kept.tolist()], "not_priced", f"{error}"[:400]))
                return kept[:0], np.zeros((0, len(tariff.lines)), np.int64), missing
            halves = [_cost(tariff, before, after, half, services) for half in np.array_split(kept, 2)]
            found = np.concatenate([h[0] for h in halves]), np.concatenate([h[1] for h in halves])
            return *found, [*missing, *(m for h in halves for m in h[2])]
