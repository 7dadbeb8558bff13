"""The version of a file's reads, where the sender writes it beside them: in the file's name, or in a line of its own.

Most senders have no version in each row. Two actual values of one interval are then ordered by nothing but a hash, so a
correction wins for some meters and loses for others. A declared version orders them by something the sender wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.schemas.reads import ParsedFeed

_FRAMES: Final = ("intervals", "registers", "periods")


def set_version(parsed: ParsedFeed, head_end: HeadEnd, name: str) -> None:
    """Give the reads of a file that have no version the one in its name or header. Raises FeedRefused (no_version)
    where the declared place holds none: a file without its version would lose against all others."""
    version = head_end.version
    if version.name is not None:
        apply_version(parsed, digits_of(version.name, (name,), f"its name {shown(name)}"))
    elif version.header is not None:
        apply_version(parsed, digits_of(version.header, parsed.noted, "a line without reads"))


def apply_version(parsed: ParsedFeed, version: int) -> None:
    """Give the reads that have no version this one."""
    own = pl.when(pl.col("source_version") == 0).then(pl.lit(version, pl.Int64)).otherwise(pl.col("source_version"))
    for frame in _FRAMES:
        setattr(parsed, frame, getattr(parsed, frame).with_columns(own.alias("source_version")))


def digits_of(pattern: str, lines: Sequence[str], where: str) -> int:
    """The version that a pattern finds. Raises FeedRefused (no_version)."""
    for line in lines:
        match = re.search(pattern, line)
        if match is not None and match[1] is not None:
            digits = re.sub(r"[^0-9]", "", match[1])
            if digits and len(digits) <= 18:
                return int(digits)
    raise FeedRefused("no_version", f"the declared version is not in {where}")
