"""Files in a zip that holds more than one: the members that ``options.member`` names, read one after another as if each
had come by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import polars as pl

from meter_pipeline.feeds.files import Limits, names_in_zip, open_feed
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.schemas.reads import ParsedFeed

_FRAMES: Final = ("intervals", "registers", "periods", "rejects")
_CHUNK: Final = 1 << 20


def parse_members(path: Path, pattern: str, limits: Limits, parse_one: Callable[[Path, str], ParsedFeed]) -> ParsedFeed:
    """The reads of every member whose name matches (``*.csv``), in the order of their names. Raises FeedRefused where
    none matches, or where one is refused: half an archive is never loaded."""
    names = sorted(name for name in names_in_zip(path) if fnmatchcase(name, pattern))
    if not names:
        raise FeedRefused("archive_members", f"no file in the archive matches {shown(pattern)}")
    found: list[ParsedFeed] = []
    sha256 = ""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            single = Path(folder) / f"member{Path(name).suffix}"
            with open_feed(path, limits, member=name) as opened, single.open("wb") as file:
                while piece := opened.source.read(_CHUNK):
                    file.write(piece)
            sha256 = opened.sha256
            try:
                found.append(parse_one(single, Path(name).name))
            except FeedRefused as refused:
                raise FeedRefused(refused.code, f"{shown(name)}: {refused.detail}", refused.raw) from refused
    whole = merged(found)
    whole.sha256 = sha256
    return whole


def merged(found: list[ParsedFeed]) -> ParsedFeed:
    """Join the parsed parts of one file."""
    whole = found[0]
    for other in found[1:]:
        for frame in _FRAMES:
            setattr(whole, frame, pl.concat([getattr(whole, frame), getattr(other, frame)]))
        whole.file_units = other.file_units | whole.file_units
        whole.flows |= other.flows
        whole.skipped += other.skipped
        for key, rounded in other.roundings.items():
            whole.roundings[key] = whole.roundings.get(key, rounded - rounded) + rounded
    return whole
