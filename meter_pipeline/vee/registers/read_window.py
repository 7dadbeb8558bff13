"""How far from a billing day a register read may open or close it, and the reads within that reach.

Most registers are read within a quarter; some once a year, as in central Europe. Looking a year back for every meter of
a city that is read by hand would bring in four times the reads on every day, so the second look is for those whose
first one left a side open, and is not taken at all where nothing was read that long ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import polars as pl

from meter_pipeline.postgres.database import Database
from meter_pipeline.vee.tables import validated

#: A quarter and some days of delay.
NEAR_DAYS: Final = 100
#: A year and a month: yearly reading rounds slip by some weeks.
FAR_DAYS: Final = 400
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Around:
    """Register reads around a day: meter_id, channel, at (UTC seconds), value (micro). ``days``: how far they reach,
    either way."""

    reads: pl.DataFrame
    days: int


def reads_around(
    session: Database, day: date, start_s: int, end_s: int, windows: pl.DataFrame, meters: list[str], before: int = 1
) -> Around:
    """Register reads of some meters around a billing day that runs from ``start_s`` to ``end_s``, UTC seconds.

    ``windows`` as from ``assemble.day_windows``. All within NEAR_DAYS; within FAR_DAYS those of registers that have
    fewer than ``before`` reads up to the day's start, or none from its end on, where any register was read that far
    away. With these, the install reads of that time of meters with one register, to which alone an installation's read
    belongs for certain.
    """
    near, far = timedelta(days=NEAR_DAYS), timedelta(days=FAR_DAYS)
    reads = validated.read_registers(session, day - near, day + near, meters)
    own = windows.filter((pl.col("kind") == "register") & pl.col("meter_id").is_in(meters))
    installed = _installed(own, start_s)
    earlier = validated.registers_read(session, day - far, day - near - timedelta(days=1))
    later = validated.registers_read(session, day + near + timedelta(days=1), day + far)
    if not (earlier or later or installed.height):
        return Around(reads, NEAR_DAYS)
    sides = (
        own.select("meter_id", "channel")
        .unique()
        .join(reads, on=["meter_id", "channel"], how="left")
        .group_by("meter_id", "channel")
        .agg(behind=(pl.col("at") <= start_s).sum(), ahead=(pl.col("at") >= end_s).sum())
    )
    open_before = sides.filter((pl.col("behind") < before) & pl.lit(earlier or installed.height > 0))
    open_after = sides.filter((pl.col("ahead") == 0) & pl.lit(later))
    wanted = pl.concat([open_before, open_after])["meter_id"].unique().sort()
    if not len(wanted):
        return Around(reads, NEAR_DAYS)
    of_wanted = pl.col("meter_id").is_in(wanted.implode())
    wide = (
        validated.read_registers(session, day - far, day + far, wanted.to_list())
        if earlier or later
        else reads.filter(of_wanted)
    )
    return Around(
        pl.concat([reads.filter(~of_wanted), wide, installed.filter(of_wanted)], how="vertical_relaxed"), FAR_DAYS
    )


def _installed(own: pl.DataFrame, start_s: int) -> pl.DataFrame:
    """Install reads between the far reach and the near one, as reads; nearer ones are put in for every register
    (assemble.register_series)."""
    single = ~pl.struct("service_point_id", "meter_id").is_duplicated()
    then = pl.col("installed_s").is_between(start_s - FAR_DAYS * _DAY_S, start_s - NEAR_DAYS * _DAY_S, closed="left")
    found = own.filter(single & then & pl.col("install_micro").is_not_null())
    return found.select(
        "meter_id", "channel", pl.col("installed_s").alias("at"), pl.col("install_micro").alias("value")
    )
