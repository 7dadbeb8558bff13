"""Fixed-width text: fields by their position in the line, as older readers and mainframes write them.

A column is given by its first and last character, counted from 1 (``"1-12"``). The fields are rewritten as delimited
text and parsed by delimited.py, so that quality marks, time stamps and several values in a row are declared as for
delimited text. A field beyond the end of a line is empty. Positions count characters of the declared encoding, which
must have one byte a character.

Route files of handheld readers have several record types, recognised by the beginning of the line: a route, its
premises, their meters, the readings of a meter. ``"MTRDT:38-57"`` is a field of the last record of type MTRDT above the
reading. Each record of the value's type is a read. A record clears the fields of the record types below it (those that
first appeared after it in the file), so that a meter without an order record does not get the order of the meter
before.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.delimited import parse_text, without_header_line
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Block, Limits, fetch_lines, limits_of, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.headings import line_starts, rejects_as_in_file
from meter_pipeline.feeds.rejects import FeedRefused
from meter_pipeline.feeds.row_plan import plan_of
from meter_pipeline.schemas.reads import ParsedFeed

_PLACE: Final = re.compile(r"(?:([A-Za-z0-9_]{1,20}):)?([1-9][0-9]{0,5})-([1-9][0-9]{0,5})", re.ASCII)
#: between the fields of the text that is read on; a tab inside a line is one blank letter
_MARK: Final = 9


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse fixed-width text into interval or register reads. Raises FeedRefused, and HeadEndError for a column without
    positions."""
    limits = limits_of(head_end.options, limits)
    plan = plan_of(head_end)
    if head_end.day_columns is not None:
        raise HeadEndError(f"{head_end.name}: day_columns: name the places of each value in [[values]]")
    names = list(dict.fromkeys([source.name for source in (*plan.sources, *[each.source for each in plan.numbers])]))
    places = [_place(name, head_end) for name in names]
    kinds = [record_of(name) for name in names]
    if any(kinds) and not all(kinds):
        raise HeadEndError(f"{head_end.name}: columns: {names[kinds.index('')]!r} does not say of which record it is")
    records = _Records(kinds, places, record_of(plan.numbers[0].source.name)) if all(kinds) else None
    skip = int(head_end.options.get("skip_lines", 0))
    starts: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        fields_file = Path(folder) / "fields"
        with open_feed(path, limits, head_end.encoding) as opened, fields_file.open("wb") as file:
            file.write(bytes([_MARK]).join(name.encode() for name in names) + b"\n")
            for piece in line_blocks(opened.source, limits):
                if not isinstance(piece, Block):
                    raise FeedRefused("line_too_long", f"line {piece.line} has {piece.length} bytes", piece.head)
                starts += line_starts(piece)
                left = max(skip - piece.first_line + 1, 0)
                file.write(records.fields(piece.data, left) if records else _fields(piece.data, places, left))
        declared = replace(
            head_end,
            delimiter=chr(_MARK),
            quote="",
            header=True,
            encoding="utf-8",
            options={key: value for key, value in head_end.options.items() if key != "skip_lines"},
        )
        parsed = parse_text(fields_file, declared, limits)
    parsed.sha256 = opened.sha256
    parsed.file_format = "fixed"
    without_header_line(parsed)
    rejects_as_in_file(parsed, starts, partial(fetch_lines, path, head_end.encoding, limits))
    return parsed


def _place(name: str, head_end: HeadEnd) -> tuple[int, int]:
    """Returns the first position (from 0) and the position after the last."""
    match = _PLACE.fullmatch(name)
    if match is None or int(match[2]) > int(match[3]):
        raise HeadEndError(f"{head_end.name}: columns: {name!r} is no place in a line, such as 1-12")
    return int(match[2]) - 1, int(match[3])


def record_of(name: str) -> str:
    """Returns the record type that a column is a field of; empty for a field of every line."""
    match = _PLACE.fullmatch(name)
    return (match[1] or "") if match else ""


class _Records:
    """Lines of several record types as the fields of their readings. ``read``: the record type that is a read."""

    def __init__(self, kinds: list[str], places: list[tuple[int, int]], read: str) -> None:
        self.read = read.encode()
        self.wanted = [(kind.encode(), begin, end) for kind, (begin, end) in zip(kinds, places, strict=True)]
        self.kinds = sorted({kind for kind, _, _ in self.wanted}, key=len, reverse=True)
        self.order: dict[bytes, int] = {}
        self.last: dict[bytes, bytes] = {}

    def fields(self, data: bytes, skip: int) -> bytes:
        """As ``_fields``: one line of fields for each read, an empty line for every other record."""
        mark = bytes([_MARK])
        out = []
        lines = data.replace(b"\t", b" ").split(b"\n")
        if data.endswith(b"\n"):
            lines.pop()
        for number, raw in enumerate(lines):
            line = raw.removesuffix(b"\r")
            kind = next((each for each in self.kinds if line.startswith(each)), None) if number >= skip else None
            if kind is None:
                out.append(b"")
                continue
            place = self.order.setdefault(kind, len(self.order))
            self.last = {each: text for each, text in self.last.items() if self.order[each] < place} | {kind: line}
            parts = [self.last.get(each, b"")[begin:end] for each, begin, end in self.wanted]
            out.append(mark.join(parts) if kind == self.read else b"")
        return b"\n".join(out) + b"\n"


def _fields(data: bytes, places: list[tuple[int, int]], skip: int) -> bytes:
    """Rewrite lines as their fields with a separator between them. The first ``skip`` lines become empty lines, so that
    line numbers stay the same."""
    data = data.replace(b"\t", b" ")
    letters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(letters == 10)
    width = int(ends[0]) + 1 if ends.size else 0
    even = width > 1 and len(data) == width * ends.size and bool((np.diff(ends) == width).all())
    if even and not skip and max(end for _, end in places) < width:
        return _sliced(letters.reshape(-1, width), places).tobytes()
    mark = bytes([_MARK])
    lines = data.split(b"\n")
    if data.endswith(b"\n"):
        lines.pop()
    out = []
    for number, raw in enumerate(lines):
        line = raw.removesuffix(b"\r")
        kept = number >= skip and line.strip()
        out.append(mark.join(line[begin:end] for begin, end in places) if kept else b"")
    return b"\n".join(out) + b"\n"


def _sliced(rows: npt.NDArray[np.uint8], places: list[tuple[int, int]]) -> npt.NDArray[np.uint8]:
    """Cut lines of equal length, all in one operation."""
    parts: list[npt.NDArray[np.uint8]] = []
    for begin, end in places:
        parts += [rows[:, begin:end], np.full((len(rows), 1), _MARK, np.uint8)]
    parts[-1] = np.full((len(rows), 1), 10, np.uint8)
    return np.ascontiguousarray(np.concatenate(parts, axis=1))
