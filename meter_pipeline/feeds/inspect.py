"""Contents of a file by meter and channel, in the file's own units, so that they compare with another reader of the
file.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.coded_columns import shown_unit, unit_factor
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.registry import parse
from meter_pipeline.quality import flag_of
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.units import MICRO

Report = dict[str, Any]
_MOST_PLACES: Final = 60
_WIDE: Final = Context(prec=200)


def exact_decimal(micro: int | Fraction, spelling: str) -> str:
    """Micro base units as an exact decimal of the file's own unit: 1_500_000 micro kWh in Wh is ``1500``. What has no
    finite decimal (a third of a kWh, from a factor) is shown to 12 places."""
    value = Fraction(micro) / MICRO / unit_factor(spelling)[1]
    denominator, places = value.denominator, 0
    while denominator != 1 and places <= _MOST_PLACES:
        denominator, places = Fraction(denominator, 10).numerator, places + 1
    if denominator != 1:
        places = 12
    text = format(Decimal(round(value * 10**places)).scaleb(-places, _WIDE), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def inspect(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> Report:
    """The report of one file: ``file``, ``format``, ``channels``, ``rejected`` as CLI.md has them, and more.

    Intervals give their own channel; register reads a channel with ``interval_minutes`` null. Where a file states
    consumption over periods (NEM13, Green Button blocks longer than a day), readings and sum are the stated periods,
    and ``stated_differences`` lists those whose own two dials show another consumption. ``repeated`` stands at a
    channel some of whose readings name the time of another one; only one of each is stored.
    """
    parsed = parse(path, head_end, calendar)
    return report(path.name, parsed)


def report(name: str, parsed: ParsedFeed) -> Report:
    """Returns the report of a parsed file."""
    channels = [*_intervals(parsed), *_periods(parsed), *_registers(parsed)]
    channels.sort(key=lambda channel: (channel["meter_id"], channel["channel"], channel["interval_minutes"] or 0))
    rejected = [
        {"line": line, "byte_offset": offset, "reason": reason["code"], "detail": reason["detail"], "reads": reads}
        for line, offset, reasons, reads in parsed.rejects.select("line", "byte_offset", "reasons", "reads").iter_rows()
        for reason in reasons
    ]
    return {
        "file": name,
        "format": parsed.file_format,
        "channels": channels,
        "rejected": rejected,
        "stated_differences": [
            {
                "line": line,
                "meter_id": meter,
                "channel": channel,
                "period_start": start,
                "period_end": end,
                "stated": exact_decimal(stated, parsed.file_units[meter, channel]),
                "by_dials": exact_decimal(dials, parsed.file_units[meter, channel]),
            }
            for line, meter, channel, start, end, stated, dials, _ in parsed.stated_differences.iter_rows()
        ],
        "received": parsed.received,
        "skipped": parsed.skipped,
        "accepted": parsed.intervals.height + parsed.registers.height,
        "rejected_reads": int(parsed.rejects["reads"].sum() or 0),
        "sha256": parsed.sha256,
    }


def _grouped(frame: pl.DataFrame, time: str) -> Iterable[dict[str, Any]]:
    """Per channel: readings, sum in micro base units (128 bits), first, last, quality counts, and ``repeated``: how
    many readings name a time that another one before them names too."""
    flags = (
        frame.group_by("meter_id", "channel", "unit", "quality")
        .len()
        .sort("quality")
        .group_by("meter_id", "channel", "unit", maintain_order=True)
        .agg("quality", pl.col("len"))
    )
    totals = frame.group_by("meter_id", "channel", "unit").agg(
        pl.len().alias("readings"),
        pl.col("value").cast(pl.Int128).sum().alias("micro"),
        pl.col(time).min().alias("first"),
        pl.col(time).max().alias("last"),
        (pl.len() - pl.col(time).n_unique()).alias("repeated"),
    )
    return (
        totals.join(flags, on=["meter_id", "channel", "unit"]).sort("meter_id", "channel", "unit").iter_rows(named=True)
    )


def _channel(row: dict[str, Any], parsed: ParsedFeed, minutes: int | None) -> Report:
    spelling = _spelling(row, parsed)
    quality: dict[str, int] = {}
    for code, count in zip(row["quality"], row["len"], strict=True):
        quality[flag_of(code)] = quality.get(flag_of(code), 0) + count
    key = row["meter_id"], row["channel"]
    flow, rounded = parsed.flow(*key), parsed.roundings.get(key, Fraction(0))
    stored = {"stored": exact_decimal(row["micro"], ""), "stored_unit": row["unit"]}
    return {
        "meter_id": row["meter_id"],
        "channel": row["channel"],
        **({"flow": flow} if flow else {}),
        "unit": shown_unit(spelling),
        "interval_minutes": minutes,
        "readings": row["readings"],
        "sum": exact_decimal(row["micro"] - rounded, spelling),
        **(stored if rounded or (unit_factor(spelling)[0] != spelling and spelling != shown_unit(spelling)) else {}),
        "first": row["first"],
        "last": row["last"],
        **({"repeated": row["repeated"]} if row["repeated"] else {}),
        "quality": quality,
    }


def _spelling(row: dict[str, Any], parsed: ParsedFeed) -> str:
    """The file's own unit of a channel; the base unit where the channel holds another one beside the first it was given
    (gallons after cubic feet), since quantities of two units are not one sum."""
    spelling = parsed.file_units[row["meter_id"], row["channel"]]
    return spelling if unit_factor(spelling)[0] == row["unit"] else str(row["unit"])


def _intervals(parsed: ParsedFeed) -> list[Report]:
    channels: list[Report] = []
    for (minutes,), frame in parsed.intervals.group_by("interval_minutes", maintain_order=True):
        channels.extend(_channel(row, parsed, int(minutes)) for row in _grouped(frame, "interval_start"))
    return channels


def _periods(parsed: ParsedFeed) -> list[Report]:
    return [_channel(row, parsed, None) for row in _grouped(parsed.periods, "period_start")]


def _registers(parsed: ParsedFeed) -> list[Report]:
    """Dials: besides the sum of the readings, how far each advanced, how often it fell and where it stayed silent for
    over two hours."""
    dials = parsed.registers
    if parsed.periods.height:
        dials = dials.join(
            parsed.periods.select("meter_id", "channel").unique(), on=["meter_id", "channel"], how="anti"
        )
    if not dials.height:
        return []
    steps = (
        dials.sort("meter_id", "channel", "read_at", "line")
        .with_columns(
            pl.col("value").diff().over("meter_id", "channel", "unit").alias("step"),
            pl.col("read_at").diff().over("meter_id", "channel", "unit").alias("gap"),
        )
        .group_by("meter_id", "channel", "unit")
        .agg(
            pl.col("step").cast(pl.Int128).sum().alias("advance"),
            (pl.col("step") < 0).sum().alias("decreases"),
            (pl.col("gap") > pl.duration(hours=2)).sum().alias("gaps_over_2h"),
        )
    )
    further = {row[:3]: row[3:] for row in steps.iter_rows()}
    channels: list[Report] = []
    for row in _grouped(dials, "read_at"):
        channel = _channel(row, parsed, None)
        advance, decreases, gaps = further[row["meter_id"], row["channel"], row["unit"]]
        channel["advance"] = exact_decimal(advance, _spelling(row, parsed))
        channels.append(channel | {"decreases": decreases, "gaps_over_2h": gaps})
    return channels
