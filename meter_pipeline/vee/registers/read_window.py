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
from meter_pipeline.vee.tables import day_inputs

#: A quarter and some days of delay.
NEAR_DAYS: Final = 100
#: A year and a month: yearly reading rounds slip by some weeks.
FAR_DAYS: Final = 400
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class ReadsAround:
    """Register reads around a day: meter_id, channel, at (UTC seconds), value (micro). ``days``: how far they reach,
    either way."""

    reads: pl.DataFrame
    days: int


def reads_around(
    session: Database, day: date, start_s: int, end_s: int, windows: pl.DataFrame, meters: list[str], before: int = 1
) -> ReadsAround:
    """Register reads of some meters around a billing day that runs from ``start_s`` to ``end_s``, UTC seconds.

    ``windows`` as from ``assemble.day_windows``. All within NEAR_DAYS; within FAR_DAYS those of registers that have
    fewer than ``before`` reads up to the day's start, or none from its end on, where any register was read that far
    away. With these, the install and removal reads of that time of meters with one register, to which alone an
    installation's read belongs for certain; nearer ones are put in by ``assemble.register_series`` (``near_span``).
    """
    near, far = timedelta(days=NEAR_DAYS), timedelta(days=FAR_DAYS)
    reads = day_inputs.read_registers(session, day - near, day + near, meters)
    own = windows.filter((pl.col("kind") == "register") & pl.col("meter_id").is_in(meters))
    ends = _far_ends(own, start_s)
    earlier = day_inputs.registers_read(session, day - far, day - near - timedelta(days=1))
    later = day_inputs.registers_read(session, day + near + timedelta(days=1), day + far)
    if not (earlier or later or ends.height):
        return ReadsAround(reads, NEAR_DAYS)
    sides = (
        own.select("meter_id", "channel")
        .unique()
        .join(reads, on=["meter_id", "channel"], how="left")
        .group_by("meter_id", "channel")
        .agg(behind=(pl.col("at") <= start_s).sum(), ahead=(pl.col("at") >= end_s).sum())
    )
    open_before = sides.filter((pl.col("behind") < before) & pl.lit(earlier or ends.height > 0))
    open_after = sides.filter((pl.col("ahead") == 0) & pl.lit(later or ends.height > 0))
    wanted = pl.concat([open_before, open_after])["meter_id"].unique().sort()
    if not len(wanted):
        return ReadsAround(reads, NEAR_DAYS)
    of_wanted = pl.col("meter_id").is_in(wanted.implode())
    wide = (
        day_inputs.read_registers(session, day - far, day + far, wanted.to_list())
        if earlier or later
        else reads.filter(of_wanted)
    )
    return ReadsAround(
        pl.concat([reads.filter(~of_wanted), wide, ends.filter(of_wanted)], how="vertical_relaxed"), FAR_DAYS
    )


def near_span(start_s: int, end_s: int) -> tuple[int, int]:
    """The time around a billing day, UTC seconds, of which ``reads_around`` has every read."""
    return start_s - NEAR_DAYS * _DAY_S, end_s + NEAR_DAYS * _DAY_S


def _far_ends(own: pl.DataFrame, start_s: int) -> pl.DataFrame:
    """Install and removal reads between the near reach and the far one, as reads."""
    single = own.filter(~pl.struct("service_point_id", "meter_id").is_duplicated())
    near, far = near_span(start_s, start_s + _DAY_S), FAR_DAYS * _DAY_S
    parts = [
        single.filter(pl.col(value).is_not_null() & pl.col(at).is_between(*reach)).select(
            "meter_id", "channel", pl.col(at).alias("at"), pl.col(value).alias("value")
        )
        for at, value, reach in (
            ("installed_s", "install_micro", (start_s - far, near[0] - 1)),
            ("removed_s", "removal_micro", (near[1] + 1, start_s + far)),
        )
    ]
    return pl.concat(parts)
