"""Weather files as stations publish them, read into two frames: hourly and daily.

Hourly frame: station_id, observed_at (UTC), temperature_c. Daily frame: station_id, weather_day, temperature_min_c,
temperature_max_c, temperature_mean_c. A daily value is the station's own day; GSOD's is a UTC day and GHCN's ends at
the observer's hour, which is why an hourly source is the better one where there is a choice. Values that failed the
source's own quality control are missing.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import polars as pl

from meter_pipeline.schemas.reads import UTC_US

HOURLY: Final = {"station_id": pl.String, "observed_at": UTC_US, "temperature_c": pl.Float64}
DAILY: Final = {
    "station_id": pl.String,
    "weather_day": pl.Date,
    "temperature_min_c": pl.Float64,
    "temperature_max_c": pl.Float64,
    "temperature_mean_c": pl.Float64,
}
FORMATS: Final = ("ghcn", "ghcn_f", "ghcn_year", "isd", "isd_lite", "gsod", "gsod_csv", "tmy3", "plain")
#: Coldest and warmest air temperatures ever observed are -89.2 and 56.7 °C; beyond this a number is a fault.
_LOWEST_C, _HIGHEST_C = -95.0, 62.0
#: The warmest air temperature observed, in both units; a range within one day that only tenths of a degree have; days
#: that make half a year
_WARMEST_C, _WARMEST_F, _WIDE_DAY, _HALF_A_YEAR = 57.0, 134.0, 60.0, 150
#: ISD quality codes that mean suspect or erroneous (ISD format document, field 93)
_ISD_BAD = frozenset("2367")
_MAX_BYTES = 512 * 1024 * 1024


class WeatherError(ValueError):
    """A weather file that cannot be read; the message names the file, the line where there is one, and what is
    wrong.
    """


def read_weather(path: Path, file_format: str | None = None, *, station_id: str | None = None) -> pl.DataFrame:
    """The file's temperatures as an hourly or a daily frame (see the module), sorted by station and time.

    ``file_format`` is recognised from the content when not given. ``station_id`` names the station of a file that does
    not (plain CSV, ISD-lite under an unusual name). Raises WeatherError.
    """
    data = _bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if not text.strip():
        raise WeatherError(f"{path.name}: empty")
    chosen = file_format or recognise(text)
    if chosen not in FORMATS:
        raise WeatherError(f"{path.name}: weather format {chosen!r} is not one of {', '.join(FORMATS)}")
    named = (station_id or _station_of(path)).upper()
    try:
        match chosen:
            case "ghcn" | "ghcn_f":
                frame = _ghcn(text, file_format)
            case "ghcn_year":
                frame = _ghcn_year(text)
            case "isd":
                frame = _isd(text)
            case "isd_lite":
                frame = _isd_lite(text, named)
            case "gsod":
                frame = _gsod(text)
            case "gsod_csv":
                frame = _gsod_csv(text)
            case "tmy3":
                frame = _tmy3(text)
            case _:
                frame = _plain(text, named)
    except (pl.exceptions.PolarsError, ValueError, IndexError, OverflowError) as error:
        raise WeatherError(f"{path.name}: not {chosen}: {error}") from error
    key = "observed_at" if "observed_at" in frame.columns else "weather_day"
    bounds = [
        pl.when(pl.col(c).is_between(_LOWEST_C, _HIGHEST_C)).then(pl.col(c)).alias(c)
        for c in frame.columns
        if c.startswith("temperature")
    ]
    frame = frame.with_columns(bounds).drop_nulls(key)
    if frame.is_empty():
        raise WeatherError(f"{path.name}: no observation in it")
    return frame.sort("station_id", key)


def recognise(text: str) -> str:
    """The format of a weather file by its first lines; plain where none fits."""
    first, _, rest = text.partition("\n")
    second = rest.partition("\n")[0]
    header = first.upper().replace('"', "")
    if header.startswith("STN---"):
        return "gsod"
    # by whole column names as the archive spells them: a plain file's station_id and temperature_c are neither
    named = {name.strip().strip('"') for name in first.split(",")}
    if {"STATION", "DATE"} <= named and named & {"TMAX", "TMIN", "TAVG"}:
        return "ghcn"
    if {"STATION", "DATE", "TEMP", "MAX", "MIN"} <= named:
        return "gsod_csv"
    if second.upper().startswith(("DATE (MM/DD/YYYY)", '"DATE (MM/DD/YYYY)"')):
        return "tmy3"
    if re.match(r"[A-Z0-9]{11},\d{8},[A-Z0-9]{4},-?\d+,", first):
        return "ghcn_year"
    if re.match(r"\d{4}[0-9A-Z]{6}\d{5}\d{12}", first):
        return "isd"
    if re.match(r"\d{4} \d\d \d\d \d\d +-?\d+ ", first):
        return "isd_lite"
    return "plain"


def _bytes(path: Path) -> bytes:
    raw = path.open("rb")
    try:
        with raw, gzip.open(raw) if path.suffix == ".gz" else raw as opened:
            data = opened.read(_MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise WeatherError(f"{path.name}: not a whole gzip file: {error}") from error
    if len(data) > _MAX_BYTES:
        raise WeatherError(f"{path.name}: more than {_MAX_BYTES // 2**20} MiB of weather")
    return data


def _station_of(path: Path) -> str:
    """The station in an ISD-lite name (USAF-WBAN-YEAR), else the name up to its first dot, as an id."""
    stem = path.name.partition(".")[0]
    named = re.fullmatch(r"(\w{6}-\d{5})-\d{4}", stem)
    return named.group(1) if named else re.sub(r"[^A-Z0-9-]", "-", stem.upper())[:32] or "STATION"


def _fixed(text: str, fields: dict[str, tuple[int, int]], least: int) -> pl.DataFrame:
    """Columns of a fixed-width file as stripped text; lines shorter than ``least`` are left out."""
    lines = pl.DataFrame({"line": text.splitlines()}).filter(pl.col("line").str.len_bytes() >= least)
    return lines.select(
        pl.col("line").str.slice(start, length).str.strip_chars().alias(name)
        for name, (start, length) in fields.items()
    )


def _tenths(column: str, missing: tuple[int, ...]) -> pl.Expr:
    number = pl.col(column).str.strip_prefix("+").cast(pl.Int64, strict=False)
    return pl.when(~number.is_in(missing)).then((number / 10).round(1))


def _celsius(expression: pl.Expr) -> pl.Expr:
    return (expression - 32) / 1.8


def _isd(text: str) -> pl.DataFrame:
    fields = {"usaf": (4, 6), "wban": (10, 5), "stamp": (15, 12), "temperature": (87, 5), "quality": (92, 1)}
    return _fixed(text, fields, 93).select(
        (pl.col("usaf") + "-" + pl.col("wban")).alias("station_id"),
        pl.col("stamp")
        .str.to_datetime("%Y%m%d%H%M", time_unit="us", strict=False)
        .dt.replace_time_zone("UTC")
        .alias("observed_at"),
        pl.when(~pl.col("quality").is_in(_ISD_BAD)).then(_tenths("temperature", (9999,))).alias("temperature_c"),
    )


def _isd_lite(text: str, station_id: str) -> pl.DataFrame:
    fields = {"year": (0, 4), "month": (5, 2), "day": (8, 2), "hour": (11, 2), "temperature": (13, 6)}
    number = {name: pl.col(name).cast(pl.Int32, strict=False) for name in ("year", "month", "day", "hour")}
    return _fixed(text, fields, 19).select(
        pl.lit(station_id).alias("station_id"),
        pl.datetime(
            number["year"], number["month"], number["day"], number["hour"], time_unit="us", time_zone="UTC"
        ).alias("observed_at"),
        _tenths("temperature", (-9999,)).alias("temperature_c"),
    )


def _gsod(text: str) -> pl.DataFrame:
    fields = {"stn": (0, 6), "wban": (7, 5), "day": (14, 8), "mean": (24, 6), "max": (102, 6), "min": (110, 6)}
    body = text.partition("\n")[2] if text.startswith("STN---") else text
    return _fixed(body, fields, 116).select(
        (pl.col("stn") + "-" + pl.col("wban")).alias("station_id"),
        pl.col("day").str.to_date("%Y%m%d", strict=False).alias("weather_day"),
        *_gsod_temperatures("min", "max", "mean"),
    )


def _gsod_temperatures(low: str, high: str, mean: str) -> list[pl.Expr]:
    """Fahrenheit with 9999.9 for missing."""
    number = {c: pl.col(c).str.strip_chars(" *").cast(pl.Float64, strict=False) for c in (low, high, mean)}
    return [
        _celsius(pl.when(number[c] < 9999).then(number[c])).alias(f"temperature_{name}_c")
        for c, name in ((low, "min"), (high, "max"), (mean, "mean"))
    ]


def _gsod_csv(text: str) -> pl.DataFrame:
    raw = pl.read_csv(io.StringIO(text), infer_schema=False)
    return raw.select(
        pl.col("STATION").str.to_uppercase().alias("station_id"),
        pl.col("DATE").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).alias("weather_day"),
        *_gsod_temperatures("MIN", "MAX", "TEMP"),
    )


def _ghcn_fahrenheit(raw: pl.DataFrame) -> bool:
    """Whether a GHCN-Daily file is in degrees Fahrenheit, as NCEI's web orders in "standard units" are; the archive's
    own files hold whole tenths of a degree Celsius, and orders in "metric units" degrees with a point.

    Nothing in the file says so, and 54 is a number in all of them. Sure are: a magnitude beyond 134, more than ever was
    in Fahrenheit (tenths); a range within the day of 60 or more on the median day (tenths); degrees with a point above
    57, more than ever was in Celsius (Fahrenheit); and half a year of days whose warmest is 75 or more and coldest
    above -40, where tenths would never pass 13.4 C (Fahrenheit). Raises ValueError where none of these decides.
    """
    texts = {c: raw[c].str.strip_chars() for c in ("TMIN", "TMAX", "TAVG") if c in raw.columns}
    values = {c: s.cast(pl.Float64, strict=False) for c, s in texts.items()}
    every = pl.concat([s.rename("value") for s in values.values()]).drop_nulls()
    if not every.len():
        return False
    if any(s.str.contains(".", literal=True).any() for s in texts.values()):
        return float(every.max()) > _WARMEST_C  # type: ignore[arg-type]  # a number column
    low, high = float(every.min()), float(every.max())  # type: ignore[arg-type]
    if max(-low, high) > _WARMEST_F:
        return False
    spread = (values["TMAX"] - values["TMIN"]).median() if {"TMAX", "TMIN"} <= set(values) else None
    if spread is not None and float(spread) >= _WIDE_DAY:  # type: ignore[arg-type]
        return False
    if raw["DATE"].n_unique() >= _HALF_A_YEAR and high >= 75 and low > -40:
        return True
    raise ValueError(
        f"whole degrees from {low:g} to {high:g} may be Fahrenheit or tenths of a degree Celsius: "
        "say --format ghcn_f for Fahrenheit, --format ghcn for tenths"
    )


def _ghcn(text: str, wanted_station: str | None) -> pl.DataFrame:
    """One row a day; TMAX, TMIN, TAVG in tenths of a degree Celsius, or in Fahrenheit (``asked`` by name, or found
    out); *_ATTRIBUTES holds measurement, quality and source flags."""
    raw = pl.read_csv(io.StringIO(text), infer_schema=False)
    fahrenheit = wanted_station == "ghcn_f" or (wanted_station is None and _ghcn_fahrenheit(raw))
    columns = []
    for element, name in (("TMIN", "min"), ("TMAX", "max"), ("TAVG", "mean")):
        if element not in raw.columns:
            columns.append(pl.lit(None, pl.Float64).alias(f"temperature_{name}_c"))
            continue
        value = pl.col(element).str.strip_chars()
        # NCEI's web orders already come in degrees with a decimal point; the archive's own files are whole tenths
        degrees = (
            pl.when(value.str.contains(".", literal=True))
            .then(value.cast(pl.Float64, strict=False))
            .otherwise((value.cast(pl.Float64, strict=False) / 10).round(1))
            if not fahrenheit
            else _celsius(value.cast(pl.Float64, strict=False)).round(2)
        )
        if f"{element}_ATTRIBUTES" in raw.columns:
            flag = (
                pl.col(f"{element}_ATTRIBUTES").fill_null("").str.split(",").list.get(1, null_on_oob=True).fill_null("")
            )
            degrees = pl.when(flag == "").then(degrees)
        columns.append(degrees.alias(f"temperature_{name}_c"))
    return _with_mean(
        raw.select(
            pl.col("STATION").str.to_uppercase().alias("station_id"),
            pl.col("DATE").str.to_date("%Y-%m-%d", strict=False).alias("weather_day"),
            *columns,
        )
    )


def _ghcn_year(text: str) -> pl.DataFrame:
    """One row an element: id, day, element, value in tenths, measurement, quality and source flag, time. Only
    temperatures are kept."""
    raw = pl.read_csv(
        io.StringIO(text),
        has_header=False,
        schema=dict.fromkeys(("id", "day", "element", "value", "m", "q", "s", "at"), pl.String),
        truncate_ragged_lines=True,
    )
    wanted = raw.filter(
        pl.col("element").is_in(["TMIN", "TMAX", "TAVG"]) & (pl.col("q").fill_null("").str.strip_chars() == "")
    )
    wide = wanted.select(
        pl.col("id").str.to_uppercase().alias("station_id"),
        pl.col("day").str.to_date("%Y%m%d", strict=False).alias("weather_day"),
        "element",
        (pl.col("value").cast(pl.Float64, strict=False) / 10).round(1).alias("value"),
    )
    elements = {"TMIN": "min", "TMAX": "max", "TAVG": "mean"}
    return _with_mean(
        wide.group_by("station_id", "weather_day").agg(
            pl.col("value").filter(pl.col("element") == element).first().alias(f"temperature_{name}_c")
            for element, name in elements.items()
        )
    )


def _with_mean(frame: pl.DataFrame) -> pl.DataFrame:
    """(min + max) / 2 where a station reports no mean."""
    half = (pl.col("temperature_min_c") + pl.col("temperature_max_c")) / 2
    return frame.with_columns(pl.coalesce("temperature_mean_c", half).alias("temperature_mean_c")).select(*DAILY)


def _tmy3(text: str) -> pl.DataFrame:
    """Local standard time, hour-ending 01:00 to 24:00; each stamp is put at the hour it ends, in UTC."""
    about, _, rest = text.partition("\n")
    station, _, _, offset = (part.strip().strip('"') for part in about.split(",")[:4])
    raw = pl.read_csv(io.StringIO(rest), infer_schema=False)
    zone = timezone(timedelta(hours=float(offset)))
    when = []
    for day, hour in zip(raw["Date (MM/DD/YYYY)"].to_list(), raw["Time (HH:MM)"].to_list(), strict=True):
        if day is None or hour is None:
            raise ValueError("a row without date or time")
        month, dom, year = (int(part) for part in day.split("/"))
        start = datetime(year, month, dom, tzinfo=zone)
        when.append((start + timedelta(hours=int(hour.split(":")[0]))).astimezone(UTC))
    return pl.DataFrame({"station_id": [station.upper()] * raw.height, "observed_at": when}).select(
        "station_id",
        pl.col("observed_at").cast(UTC_US),
        raw["Dry-bulb (C)"].cast(pl.Float64, strict=False).alias("temperature_c"),
    )


_NAMES: Final = {
    "temperature_c": "c",
    "tempc": "c",
    "temp_c": "c",
    "temperature_f": "f",
    "tempf": "f",
    "temp_f": "f",
    "temperature_min_c": "min",
    "temp_min": "min",
    "tmin": "min",
    "temperature_max_c": "max",
    "temp_max": "max",
    "tmax": "max",
    "temperature_mean_c": "mean",
    "tavg": "mean",
}


def _plain(text: str, station_id: str) -> pl.DataFrame:
    """A header with a time or date and a temperature; °C unless the column says f. Stamps need a zone or a Z, dates
    none."""
    raw = pl.read_csv(io.StringIO(text), infer_schema=False)
    names = {name.strip().lower(): name for name in raw.columns}
    when = next(
        (names[n] for n in ("observed_at", "time", "datetime", "dt", "date", "weather_day", "day") if n in names), None
    )
    columns = {kind: names[name] for name, kind in _NAMES.items() if name in names}
    if when is None or not columns:
        raise ValueError(f"needs a date or time and a temperature column, has {', '.join(raw.columns)}")
    number = {kind: pl.col(name).str.strip_chars().cast(pl.Float64, strict=False) for kind, name in columns.items()}
    single = number.get("c") if "c" in number else _celsius(number["f"]) if "f" in number else None
    named = next((names[n] for n in ("station_id", "station") if n in names), None)
    station = pl.col(named).str.to_uppercase() if named else pl.lit(station_id)
    stamp = raw[when].str.strip_chars().drop_nulls()
    if stamp.len() and (stamp.str.len_bytes() <= 10).all():
        day = (
            pl.col(when)
            .str.strip_chars()
            .str.replace_all("/", "-")
            .str.to_date("%Y-%m-%d", strict=False)
            .alias("weather_day")
        )
        nothing = pl.lit(None, pl.Float64)
        return _with_mean(
            raw.select(
                station.alias("station_id"),
                day,
                number.get("min", nothing).alias("temperature_min_c"),
                number.get("max", nothing).alias("temperature_max_c"),
                number.get("mean", nothing if single is None else single).alias("temperature_mean_c"),
            )
        )
    if single is None:
        raise ValueError("hourly rows need temperature_c or temperature_f")
    zoned = raw.filter(~pl.col(when).str.contains(r"(Z|[+-]\d\d:?\d\d)$"))
    if zoned.height:
        raise ValueError(f"a time without zone, first {zoned[when][0]!r}")
    return raw.select(
        station.alias("station_id"),
        pl.col(when)
        .str.to_datetime("%+", time_unit="us", strict=False)
        .dt.convert_time_zone("UTC")
        .alias("observed_at"),
        single.alias("temperature_c"),
    )
