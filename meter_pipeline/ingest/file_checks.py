"""Checks of a whole file before any of its reads is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import polars as pl

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.versions import apply_version
from meter_pipeline.schemas.reads import ParsedFeed

#: A clock that was reset stamps 1970, 1980 or 2000 and runs on from there. Interval data of before 2001 are hardly
#: anywhere, and a head-end may declare a later ``earliest`` day, which its files are read with.
EARLIEST: Final = datetime(2001, 1, 1, tzinfo=UTC)
#: Share of a file's reads that may name the interval of another of its reads with another value, and how many must do
#: so before the share is asked for. Corrections beside originals are a few per cent; a day's periods under one date are
#: 49 of 50.
SUPERSEDED_SHARE: Final = 0.2
FEWEST_SUPERSEDED: Final = 24


class FileRefused(ValueError):
    """A whole file that may not be stored: a code of feeds.rejects.REASONS and the detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


def superseded_share(head_end: HeadEnd) -> float:
    """The share of its reads that a head-end's file may supersede itself."""
    return float(head_end.options.get("superseded_share", SUPERSEDED_SHARE))


def check_superseded(intervals: pl.DataFrame, most: float) -> None:
    """Refuse a file whose own reads supersede each other beyond a share: nearly always a declaration that misses a
    column (the period of a day, the channel), which would lose most of it in silence. ``intervals``: one row a payload
    with received and superseded. Raises FileRefused."""
    if not intervals.height:
        return
    received, superseded = int(intervals["received"].sum()), int(intervals["superseded"].sum())
    if superseded >= FEWEST_SUPERSEDED and superseded > most * received:
        detail = f"{superseded} of {received} reads name the interval of another read of this file with another value: "
        detail += "declare the column that tells them apart, or options.superseded_share"
        raise FileRefused("superseded_share", detail)


def set_arrival(parsed: ParsedFeed, head_end: HeadEnd, landed_at: datetime) -> None:
    """Where a head-end declares it, reads without a version get the second their file was first landed in: what came
    later corrects what came before. The register of files keeps that time, so the same file always gives the same."""
    if head_end.version.arrival:
        apply_version(parsed, int(landed_at.timestamp()))


def rounding_rows(parsed: ParsedFeed) -> list[tuple[str, str, Decimal]]:
    """Returns the sum of rounding by meter and channel, in millionths of the base unit, to twelve places."""
    rows = []
    for (meter, channel), rounded in sorted(parsed.roundings.items()):
        rows.append((meter, channel, Decimal(round(rounded * 10**12)).scaleb(-12)))
    return rows
