"""Which meter stood where: the part of a billing day each installation answers for.

An exchange is two installations of one service point that measure the same thing one after the other, be it by
intervals or by a register alone, in the same unit or another of the same measure. Where their
windows overlap (both meters counted the same energy), the old meter answers up to the next full hour after the new
one's installation and the new one from there, so that whole intervals change hands and nothing is counted twice; each
register's difference is lessened by what its own meter read in the other's time. An overlap that ends before the hour
changes hands where intervals of both meet. A meter that stands there on a day for which the other answers keeps a row
without slots, so that its reads are reported as outside its window and not as an unknown meter's. Where they leave a
stretch without a meter, nothing was metered and the policy decides (thresholds).
"""

from __future__ import annotations

from typing import Final

import polars as pl

#: Measure of a unit: meters of one measure and flow at a service point follow each other whatever unit each counts
# in. Other units measure nothing but themselves.
MEASURES: Final = {"gal": "volume", "m3": "volume", "ft3": "volume", "therm": "heat", "MJ": "heat"}
_QUANTITY: Final = ["service_point_id", "flow", "measure", "billed"]
#: End of an installation that still stands, in UTC seconds: far beyond any billing day.
OPEN_END = 1 << 40


def installation_windows(installations: pl.DataFrame, day_start_s: int, day_end_s: int) -> pl.DataFrame:
    """The windows of a day's installations.

    ``installations``: one row per installation and measured quantity, with service_point_id, meter_id, channel, flow,
    unit, billed, interval_minutes, installed_s and removed_s (UTC seconds, null while it stands). Returns the rows that
    touch the day with ``begin_s`` and ``end_s`` (the part of the day they answer for, half-open), ``register_begin_s``
    and ``register_end_s`` (the part of it they stood there), ``handover`` (another meter took over or was taken over
    from on this day), ``overlap_s`` (seconds both stood there) and ``gap_s`` (seconds without a meter after this one,
    within the day).
    """
    # most installations fill the day and stand alone: only service points where something begins or ends need looking
    # into
    moving = installations.filter(pl.col("removed_s").is_not_null() | (pl.col("installed_s") > day_start_s))[
        "service_point_id"
    ].unique()
    quiet = ~pl.col("service_point_id").is_in(moving.implode())
    still = installations.filter(quiet).with_columns(
        successor_s=pl.lit(None, pl.Int64),
        effective_end=pl.lit(OPEN_END, pl.Int64),
        overlap_s=pl.lit(0, pl.Int64),
        gap_s=pl.lit(0, pl.Int64),
        begin_s=pl.lit(day_start_s, pl.Int64),
        end_s=pl.lit(day_end_s, pl.Int64),
        handover=pl.lit(False),
        register_begin_s=pl.lit(day_start_s, pl.Int64),
        register_end_s=pl.lit(day_end_s, pl.Int64),
    )
    if still.height == installations.height:
        return still
    stirred = _stirred(installations.filter(~quiet), day_start_s, day_end_s)
    return pl.concat([still, stirred.select(still.columns)], how="vertical_relaxed")


def _stirred(installations: pl.DataFrame, day_start_s: int, day_end_s: int) -> pl.DataFrame:
    """Windows of service points where a meter comes or goes."""
    frame = installations.with_columns(
        removed=pl.col("removed_s").fill_null(OPEN_END), measure=pl.col("unit").replace(MEASURES)
    )
    meter = [*_QUANTITY, "meter_id", "installed_s", "removed"]
    frame = frame.join(_successions(frame, meter, day_start_s, day_end_s), on=meter, maintain_order="left")
    return (
        frame.sort(*_QUANTITY, "installed_s", "meter_id", "channel")
        .with_columns(
            begin_s=pl.max_horizontal("starts_s", pl.lit(day_start_s)),
            end_s=pl.min_horizontal("effective_end", pl.lit(day_end_s)),
            register_begin_s=pl.max_horizontal("installed_s", pl.lit(day_start_s)),
            register_end_s=pl.min_horizontal("removed", pl.lit(day_end_s)),
            handover=(pl.col("handed_over") & (pl.col("effective_end") < day_end_s)) | pl.col("taken_over"),
        )
        .with_columns(answers=pl.col("begin_s") < pl.col("end_s"))
        .filter(
            pl.col("answers")
            | (
                pl.col("interval_minutes").is_not_null()
                & (pl.col("installed_s") < day_end_s)
                & (pl.col("removed") > day_start_s)
            )
        )
        .with_columns(
            pl.when("answers").then(edge).otherwise(pl.lit(day_end_s, pl.Int64)).alias(edge)
            for edge in ("begin_s", "end_s")
        )
        .drop("removed", "measure", "handed_over", "taken_over", "starts_s", "answers")
    )


def _successions(frame: pl.DataFrame, meter: list[str], day_start_s: int, day_end_s: int) -> pl.DataFrame:
    """Per installed meter: who follows it and when. One row per ``meter`` key with successor_s, starts_s,
    effective_end, overlap_s, gap_s, handed_over and taken_over.

    Meters and not channels follow each other: a register read by hand gives way to intervals, gallons to cubic metres,
    and a meter with several registers hands over all of them at once.
    """
    meters = (
        frame.group_by(meter)
        .agg(minutes=pl.col("interval_minutes").cast(pl.Int64).max())
        .sort(*_QUANTITY, "installed_s", "meter_id")
    )
    one = pl.col("meter_id").ne(pl.col("meter_id").shift(-1).over(_QUANTITY))
    following = pl.col("installed_s").shift(-1).over(_QUANTITY)
    # an old meter that still stands is no exchange: two meters serve the point side by side
    succeeded = (
        one & following.is_not_null() & (pl.col("removed") < OPEN_END) & (pl.col("installed_s") < following)
    ).fill_null(False)
    # where both count up to the next full hour or beyond, that hour is where the one stops and the other starts; else
    # the next instant at which intervals begin. Registers have no intervals: their difference is prorated to the
    # second.
    grid = pl.max_horizontal("minutes", pl.col("minutes").shift(-1).over(_QUANTITY)) * 60
    hour, meeting = (
        day_start_s + -((day_start_s - following) // step) * step for step in (pl.lit(3600, pl.Int64), grid)
    )
    cut = pl.when(hour <= pl.col("removed")).then(hour).when(meeting <= pl.col("removed")).then(meeting)
    shared = succeeded & cut.is_not_null() & following.is_between(day_start_s, day_end_s, closed="left")
    return (
        meters.with_columns(
            successor_s=pl.when(succeeded).then(pl.when(shared).then(cut).otherwise(following)),
            starts_s=pl.when(shared).then(cut).shift(1).over(_QUANTITY).fill_null(pl.col("installed_s")),
        )
        .with_columns(effective_end=pl.min_horizontal("removed", pl.col("successor_s").fill_null(OPEN_END)))
        .with_columns(
            overlap_s=pl.when(pl.col("successor_s") < pl.col("removed"))
            .then(pl.col("removed") - pl.col("successor_s"))
            .otherwise(0),
            gap_s=pl.when(pl.col("successor_s") > pl.col("removed"))
            .then(
                (
                    pl.min_horizontal("successor_s", pl.lit(day_end_s))
                    - pl.max_horizontal("removed", pl.lit(day_start_s))
                ).clip(0)
            )
            .otherwise(0),
            handed_over=pl.col("successor_s").is_not_null()
            & pl.col("effective_end").is_between(day_start_s, day_end_s, closed="right"),
        )
        .with_columns(
            taken_over=pl.col("handed_over").shift(1).over(_QUANTITY).fill_null(False)
            & (pl.col("installed_s") > day_start_s),
        )
        .drop("minutes")
    )


def slot_windows(windows: pl.DataFrame, day_start_s: int, interval_s: pl.Expr) -> pl.DataFrame:
    """Slots of each window: ``first``, ``last`` (half-open), and the cut slots with the part of each that belongs to
    the window.

    ``interval_s``: an expression for the interval length in seconds. ``straddle_first``/``straddle_last`` are -1 where
    the window starts or ends on the grid; their shares are millionths of the slot. A slot cut on both sides carries its
    whole share on the first.
    """
    begin, end = pl.col("begin_s") - day_start_s, pl.col("end_s") - day_start_s
    frame = windows.with_columns(
        first=(begin // interval_s).cast(pl.Int32),
        last=((end + interval_s - 1) // interval_s).cast(pl.Int32),
        step=interval_s,
    )
    cut_first, cut_last = begin % pl.col("step") != 0, end % pl.col("step") != 0
    same = pl.col("last") - pl.col("first") == 1
    return frame.with_columns(
        straddle_first=pl.when(cut_first | (cut_last & same)).then(pl.col("first")).otherwise(-1).cast(pl.Int32),
        straddle_last=pl.when(cut_last & ~same).then(pl.col("last") - 1).otherwise(-1).cast(pl.Int32),
        share_first=pl.when(same)
        .then((end - begin) * 1_000_000 // pl.col("step"))
        .otherwise(1_000_000 - begin % pl.col("step") * 1_000_000 // pl.col("step"))
        .cast(pl.Int32),
        share_last=pl.when(cut_last)
        .then(end % pl.col("step") * 1_000_000 // pl.col("step"))
        .otherwise(1_000_000)
        .cast(pl.Int32),
    ).drop("step")
