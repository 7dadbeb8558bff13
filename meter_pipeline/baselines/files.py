"""Reads two files of one meter: usage by day, and temperature by day or hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from meter_pipeline.baselines.degree_days import Floats, fahrenheit

_DATES = ("date", "day", "start", "dt", "datetime", "timestamp")


class FileError(ValueError):
    """A file that cannot be used. The message names the file and the fault."""


@dataclass(frozen=True, slots=True)
class DailyPair:
    """Consecutive days with usage and mean temperature in Fahrenheit, (days,) each, NaN where missing."""

    days: list[date]
    usage: Floats
    temperatures_f: Floats


def _daily(path: Path, columns: tuple[str, ...], *, mean: bool) -> tuple[pl.DataFrame, str]:
    """Returns (day, value) of the first of ``columns`` that the file has. A stamp counts for its local date as written;
    hours of a day are summed or averaged.

    An average needs more than half of the hours that the file has for a full day (CalTRACK 2.2.2.3).
    """
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FileError(f"{path.name}: {error}") from error
    names = {name.strip().lower(): name for name in frame.columns}
    when = next((names[c] for c in _DATES if c in names), None)
    what = next((c for c in columns if c in names), None)
    if when is None or what is None:
        raise FileError(f"{path.name}: needs columns date and {' or '.join(columns)}, has {', '.join(frame.columns)}")
    stamp = pl.col(when).str.strip_chars()
    day = stamp.str.slice(0, 10).str.replace_all("/", "-").str.to_date("%Y-%m-%d", strict=False)
    number = pl.col(names[what]).str.strip_chars()
    read = frame.select(
        stamp.alias("stamp"),
        day.alias("day"),
        number.cast(pl.Float64, strict=False).alias("value"),
        (number.str.len_bytes() > 0).fill_null(value=False).alias("said"),
    ).with_row_index("line", 2)
    faulty = read.filter(
        pl.col("day").is_null() | (pl.col("said") & ~pl.col("value").is_finite().fill_null(value=False))
    )
    if faulty.height:
        line = faulty["line"][0]
        raise FileError(f"{path.name}: line {line}: not a date and a number ({faulty.height} such lines)")
    grouped = (
        _each_once(read, path.name)
        .group_by("day")
        .agg(pl.col("value").mean() if mean else pl.col("value").sum(), pl.col("value").count().alias("count"))
        .sort("day")
    )
    if grouped.is_empty():
        raise FileError(f"{path.name}: no rows")
    fullest = int(grouped["count"].max() or 0)  # type: ignore[arg-type]
    least = fullest / 2 if mean and fullest > 1 else 0
    return grouped.filter(pl.col("count") > least).select("day", "value"), what


def _each_once(read: pl.DataFrame, name: str) -> pl.DataFrame:
    """Drops rows that repeat a stamp and its value. Raises FileError where one stamp has two values.

    Two rows of one date without a time contradict each other; they are not two parts of the day. A stamp without a zone
    appears twice in the repeated hour of autumn: a day with one such hour keeps both.
    """
    twice = read.filter(pl.struct("stamp").is_duplicated())
    if not twice.height:
        return read
    timed = pl.col("stamp").str.len_bytes() > 10
    hour = pl.col("stamp").str.slice(11, 2)
    zoned = pl.col("stamp").str.contains(r"(Z|[+-]\d\d:?\d\d)$")
    once_more = timed & ~zoned & (hour.n_unique().over("day") == 1) & (pl.len().over("stamp") == 2)
    twice = twice.with_columns(autumn=once_more)
    doubted = twice.filter(~pl.col("autumn"))
    against = doubted.filter(pl.col("value").n_unique().over("stamp") > 1).sort("line")
    if against.height:
        first, *others = against.filter(pl.col("stamp") == against["stamp"][0]).select("line", "value").rows()
        raise FileError(
            f"{name}: line {others[0][0]}: {against['stamp'][0]} is {others[0][1]:g}, and {first[1]:g} on line {first[0]}: "
            "leave one of them, or give each its time"
        )
    dropped = doubted.filter(pl.int_range(pl.len()).over("stamp") > 0)["line"]
    return read.filter(~pl.col("line").is_in(dropped.implode()))


def read_pair(usage: Path, temperatures: Path) -> DailyPair:
    """Returns usage (columns date,value) and temperature (date,temperature_f or date,temperature_c) over the days of
    the usage file.

    Several stamps of a day are summed for usage and averaged for temperature, so that hourly files can be used. A
    repeated row counts one time. An empty value is a missing day. Raises FileError for a file that lacks the columns,
    has a line that is not a date and a number, gives one stamp two values, or has no day in common with the other file.
    """
    used, _ = _daily(usage, ("value", "usage", "kwh", "therm", "gal", "m3"), mean=False)
    heat, unit = _daily(temperatures, ("temperature_f", "tempf", "temperature_c", "tempc"), mean=True)
    first, last = used["day"][0], used["day"][-1]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    joined = (
        pl.DataFrame({"day": days})
        .join(used, on="day", how="left")
        .join(heat, on="day", how="left", suffix="_t", maintain_order="left")
    )
    values = joined["value"].to_numpy().astype(np.float64)
    degrees = joined["value_t"].to_numpy().astype(np.float64)
    if not np.isfinite(degrees).any():
        raise FileError(f"{temperatures.name} has no day that {usage.name} has")
    return DailyPair(days, values, fahrenheit(degrees) if unit.endswith("c") else degrees)
