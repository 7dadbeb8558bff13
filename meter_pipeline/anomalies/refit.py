"""Refitting the city's baselines: on their own schedule, versioned, never inside a billing day's judgement."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.anomalies import daily_features as packing
from meter_pipeline.anomalies.day import ensure_facts
from meter_pipeline.anomalies.past_days import past_days, with_past_days
from meter_pipeline.anomalies.tables import detection
from meter_pipeline.anomalies.window import CLASSES
from meter_pipeline.baselines import (
    COEFFICIENTS,
    LAG_DAYS,
    MODELS,
    STATUSES,
    ClassMeans,
    fit_group,
    options_for,
    training_days,
)
from meter_pipeline.baselines.weather import serve
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport

#: a year, and the days a refit leaves out
_LOOK_BACK: Final = 365 + LAG_DAYS
#: Points fitted at once: a year of them is 190 MB a matrix.
_PART: Final = 65_536


@dataclass(frozen=True, slots=True)
class RefitOutcome:
    """A version and what is in it (``by_hours``: models on degree hours); ``written`` is False where the same data had
    made it before."""

    version: str | None
    as_of: date
    points: int
    by_status: dict[str, int]
    by_model: dict[str, int]
    by_hours: int
    median_r2: float | None
    written: bool

    def report(self) -> StageReport:
        """Figures and a check for whoever shows them."""
        return StageReport(
            rows=self.points,
            figures={
                "version": self.version or "none: no validated usage yet",
                "as of": self.as_of.isoformat(),
                "service points": self.points,
                "made on degree hours": self.by_hours,
                **{f"status: {k}": v for k, v in self.by_status.items()},
                **{f"model: {k}": v for k, v in self.by_model.items()},
                "median R2 of own models": "none yet" if self.median_r2 is None else self.median_r2,
            },
            checks=[Check("every_point_has_a_baseline", sum(self.by_status.values()) == self.points)],
        )


def refit_baselines(
    database: Database,
    calendar: BillingCalendar,
    *,
    clock: Clock = SYSTEM_CLOCK,
    as_of: date | None = None,
) -> RefitOutcome:
    """Fit every service point's baseline on the measured days before ``as_of`` (by default the day after the last
    validated one) and keep it as a version that judges days from ``as_of`` on. The very first version judges the days
    before it too, since nothing better exists.

    The same usage and weather give the same version and write nothing. Estimated, disconnected and reversed days teach
    nothing.
    """
    last_known = detection.last_validated_day(database.read)
    if last_known is None:
        return RefitOutcome(None, as_of or date.min, 0, {}, {}, 0, None, written=False)
    as_of = as_of or last_known + timedelta(days=1)
    days = calendar.days(as_of - timedelta(days=_LOOK_BACK), as_of - timedelta(days=1))
    ensure_facts(database, calendar, days, refresh=set())
    known = sorted(detection.fact_days(database.read, days[0], days[-1]))
    if not known:
        return RefitOutcome(None, as_of, 0, {}, {}, 0, None, written=False)
    billed = past_days(database, days[0], known[0])
    # A year of daily totals from before the first billing day makes a baseline from the first day on.
    days = calendar.days(min([known[0], *billed["period_start"]]), known[-1])
    used = days[training_days(len(days))]
    with database.reader() as read:
        packed, lists = detection.read_facts(read, used[0], used[-1])
        points = detection.read_points(read, known[-1], calendar.bounds(known[-1])[1])
        stations, temperatures = detection.read_stations(read), detection.read_temperatures(read, used[0], used[-1])
        hours = detection.read_weather_hours(read, used[0], used[-1])
        holidays = detection.read_holidays(read, used[0], used[-1])
        first_ever = detection.baseline_version(read, date.max) is None
    weekend = np.array([d.weekday() >= 5 for d in used])
    holiday = np.array([d in holidays for d in used])
    frames = []
    for commodity, unit in packed.select("commodity", "unit").unique().sort("commodity", "unit").iter_rows():
        weeks = packing.PackedDays(packed, lists, commodity, unit, used, used[-1])
        located = weeks.names.to_frame().join(points, on="service_point_id", how="left", maintain_order="left")
        weather = serve(located, stations, temperatures, used, hours)
        mine = billed.filter(pl.col("unit") == unit)
        frames.append(_fit(weeks, located, weather, (weekend, holiday), mine))
    rows = pl.concat(frames).filter(pl.col("intercept").is_finite()).sort("service_point_id", "unit")
    digest = _digest(rows)
    stands_from = known[0] if first_ever else as_of
    version = f"{as_of.isoformat()}-{digest.hex()[:12]}"
    rows = rows.with_columns(pl.lit(version).alias("version"))
    own = rows.filter(pl.col("status") != STATUSES[0])
    header = {
        "version": version,
        "as_of": stands_from,
        "fitted_at": clock.now(),
        "first_day": used[0],
        "last_day": used[-1],
        "points": rows.height,
        "own": own.height,
        "content_hash": digest,
    }
    before_writing(database, clock=clock)
    with database.connect("meter-pipeline baselines") as connection:
        written = detection.write_baselines(connection, header, rows)
        if written:
            body = {
                "version": version,
                "as_of": stands_from.isoformat(),
                "points": rows.height,
                "own": own.height,
                "content_hash": digest,
            }
            entries.append(connection, "baselines_fitted", body, clock=clock)
    median: Any = own["r2"].median() if own.height else None
    return RefitOutcome(
        version,
        as_of,
        rows.height,
        dict(sorted(rows.group_by("status").len().iter_rows())),
        dict(sorted(rows.group_by("model").len().iter_rows())),
        int(rows["hourly"].sum()),
        None if median is None else round(float(median), 4),
        written,
    )


def _fit(
    weeks: packing.PackedDays,
    located: pl.DataFrame,
    weather: Any,
    rest_days: tuple[np.ndarray, np.ndarray],
    billed: pl.DataFrame,
) -> pl.DataFrame:
    """Rows of anomaly.baseline (without version) of one commodity and unit, a part of each station's points at a time:
    a year of a million is 3 GB a matrix. Points without a station have no weather, and no baseline. ``rest_days``:
    which days are weekends, which holidays; ``billed``: daily totals from before the first billing day."""
    weekend, holiday = rest_days
    code = {name: i for i, name in enumerate(CLASSES)}
    classes = located["customer_class"].replace_strict(code, default=0, return_dtype=pl.Int64).to_numpy()
    fuel: Any = weeks.commodity
    frames = []
    for station in np.unique(weather.station):
        members = np.flatnonzero(weather.station == station)
        degrees = weather.temperatures_f[station] if station >= 0 else np.full(len(weeks.days), np.nan)
        if not np.isfinite(degrees).any():
            continue
        hourly_f = None if weather.hourly_f is None else weather.hourly_f[station]
        parts = [members[start : start + _PART] for start in range(0, members.size, _PART)]
        means = ClassMeans(len(CLASSES), len(weeks.days))
        for at in parts:
            usage = with_past_days(weeks.history(at, usage_only=True).measured(), weeks.points[at], weeks.days, billed)
            means.add(usage, classes[at])
        profiles = means.profiles(degrees, cooling=options_for(fuel).cooling)
        for at in parts:
            if len(parts) > 1:
                measured = weeks.history(at, usage_only=True).measured()
                usage = with_past_days(measured, weeks.points[at], weeks.days, billed)
            fit = fit_group(
                usage,
                classes[at],
                len(CLASSES),
                degrees,
                fuel,
                weekend=weekend,
                holiday=holiday,
                hourly_f=hourly_f,
                profiles=profiles,
            )
            frames.append(
                pl.DataFrame(
                    {
                        **{name: fit.coefficients[name] for name in (*COEFFICIENTS, "r2", "adj_r2", "low_f", "high_f")},
                        "days": fit.n,
                        "hourly": fit.hourly,
                        "service_point_id": weeks.points[at].tolist(),
                        "unit": weeks.unit,
                        "commodity": weeks.commodity,
                        "station_id": weather.names[station],
                        "model": [MODELS[max(m, 0)] for m in fit.model.tolist()],
                        "status": [STATUSES[s] for s in fit.status.tolist()],
                    }
                )
            )
    numbers = (*COEFFICIENTS, "r2", "adj_r2", "low_f", "high_f")
    texts = ("service_point_id", "unit", "commodity", "station_id", "model", "status")
    empty: dict[str, Any] = {
        **dict.fromkeys(numbers, pl.Float64),
        "days": pl.Int32,
        "hourly": pl.Boolean,
        **dict.fromkeys(texts, pl.String),
    }
    return pl.concat(frames) if frames else pl.DataFrame(schema=empty)


def _digest(rows: pl.DataFrame) -> bytes:
    """SHA-256 over the coefficients to twelve significant digits: the last bits of a sum may differ between
    machines.
    """
    hasher = hashlib.sha256(b"mp-baselines/1")
    for name in sorted(rows.columns):
        column = rows[name]
        text = column.round_sig_figs(12).cast(pl.String) if column.dtype == pl.Float64 else column.cast(pl.String)
        hasher.update(name.encode() + b"\x1f" + "\x1e".join(text.fill_null("").to_list()).encode())
    return hasher.digest()
