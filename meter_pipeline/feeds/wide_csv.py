"""Wide exports with a dial and a flow on each line, as Badger Meter's Beacon writes them.

A line gives a register read (channel ``R1``) and an interval read (channel ``F1``), either of which may be empty. The
defaults below are the export's own column names; ``columns`` of a head-end may rename any of them. Flows are stamped at
the end of their hour, a minute early (00:59); the tolerance of the day packer puts them on the hour.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import delimited
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Limits
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.schemas.reads import REJECTS, ParsedFeed

COLUMNS: Final = {
    "meter_id": "Meter_ID",
    "quality": "Estimated_Flag",
    "flow": "Flow",
    "flow_time": "Flow_Time",
    "flow_unit": "Flow_Unit",
    "read": "Read",
    "read_time": "Read_Time",
    "read_unit": "Read_Unit",
}
ESTIMATED: Final = {
    "0": "A",
    "1": "E",
    "": "A",
    "false": "A",
    "true": "E",
    "False": "A",
    "True": "E",
    "N": "A",
    "Y": "E",
}
FLOW_CHANNEL: Final = "F1"
READ_CHANNEL: Final = "R1"


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse a wide export into interval reads (flows) and register reads (dials). Raises HeadEndError, FeedRefused."""
    unknown = sorted(set(head_end.columns) - set(COLUMNS))
    if unknown:
        raise HeadEndError(
            f"{head_end.name}: columns: unknown field {', '.join(unknown)}; known are {', '.join(COLUMNS)}"
        )
    names = COLUMNS | dict(head_end.columns)
    common = replace(
        head_end,
        time_format=head_end.time_format or "%Y-%m-%d %H:%M",
        quality_map=head_end.quality_map or ESTIMATED,
        options={**head_end.options, "empty": "skip"},
    )
    shared = {"meter_id": names["meter_id"], "quality": names["quality"]}
    constants = {key: value for key, value in head_end.constants.items() if key != "channel"}
    flows = replace(
        common,
        kind="interval",
        interval_minutes=head_end.interval_minutes or 60,
        stamp="end",
        columns={**shared, "time": names["flow_time"], "value": names["flow"], "unit": names["flow_unit"]},
        constants={**constants, "channel": FLOW_CHANNEL},
    )
    dials = replace(
        common,
        kind="register",
        columns={**shared, "time": names["read_time"], "value": names["read"], "unit": names["read_unit"]},
        constants={**constants, "channel": READ_CHANNEL},
    )
    parsed = delimited.parse(path, flows, calendar, limits)
    other = delimited.parse(path, dials, calendar, limits)
    parsed.registers = other.registers
    parsed.file_units |= other.file_units
    parsed.rejects = _merged(parsed.rejects, other.rejects)
    parsed.file_format = "wide_csv"
    return parsed


def _merged(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Rejects of both readings: a line refused in both is one reject with the reasons of both and two reads."""
    both = pl.concat([first, second])
    if not both.height:
        return both
    return (
        both.group_by("line", "byte_offset", maintain_order=True)
        .agg(pl.col("raw").first(), pl.col("reasons").list.explode().unique(maintain_order=True), pl.col("reads").sum())
        .sort("line", "byte_offset")
        .select(list(REJECTS))
    )
