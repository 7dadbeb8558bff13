"""Delimited text with one read per line and a declared mapping of columns.

A record is a line: a quoted field may hold the delimiter and doubled quotes, not a line end. Options of the head-end:
``skip_lines`` before the header, ``ambiguous`` (rows.py), ``max_line_bytes``, ``columns`` (how many, where there is no
header), ``empty = "skip"`` (a line without a value is not a read; else it is rejected as ``missing_value``),
``final_newline = "required"`` (a last line without its line end was cut).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled, kernels
from meter_pipeline.feeds.files import (
    DEFAULT_LIMITS,
    Block,
    Limits,
    LongLine,
    fetch_lines,
    limits_of,
    line_blocks,
    open_feed,
)
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.rejects import FeedRefused, Reason, shown
from meter_pipeline.feeds.rows import CODED_FIELDS, FIELDS, RowReader
from meter_pipeline.feeds.scanning import Scanned, Work, byte_reasons, field_reasons, scan_all
from meter_pipeline.schemas.reads import ParsedFeed


@dataclass(slots=True)
class Layout:
    """Where the fields stand: number of columns, and the column (from 0) of each mapped field."""

    columns: int
    place: dict[str, int]


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse one delimited file into interval or register reads (``head_end.kind``), UTC, micro base units.

    Raises HeadEndError for a declaration that cannot be used, FeedRefused for a file refused whole.
    """
    limits = limits_of(head_end.options, limits)
    varying = tuple(name for name in CODED_FIELDS if name in head_end.columns)
    if "value" not in head_end.columns:
        raise HeadEndError(f"{head_end.name}: columns: value is not mapped")
    unknown = sorted(set(head_end.columns) - set(FIELDS))
    if unknown:
        raise HeadEndError(f"{head_end.name}: columns: unknown field {', '.join(unknown)}")
    reader = RowReader(head_end, varying)
    with open_feed(path, limits, head_end.encoding) as opened:
        body = _Body(head_end, limits)
        scan_all(
            body.pieces(opened.source),
            lambda block: _scan_block(block, body.known, head_end, varying, limits, opened.size),
            reader,
            partial(_careful, reader, body),
            limits,
            opened.size,
        )
        if body.layout is None:
            raise FeedRefused("empty_file", f"{opened.size} bytes, no line of text")
    parsed = reader.finish(partial(fetch_lines, path, head_end.encoding, limits))
    parsed.sha256 = opened.sha256
    return parsed


class _Body:
    """Takes the header off the blocks and learns the layout from it."""

    def __init__(self, head_end: HeadEnd, limits: Limits) -> None:
        self.head_end = head_end
        self.limits = limits
        self.layout: Layout | None = None
        self.delimiter = head_end.delimiter.encode("utf-8")
        if len(self.delimiter) != 1 or self.delimiter in b'"\r\n':
            raise HeadEndError(f"{head_end.name}: delimiter must be one ASCII character")

    @property
    def known(self) -> Layout:
        """The layout, once the header has been read."""
        if self.layout is None:
            raise AssertionError("a row before the header")
        return self.layout

    def pieces(self, source: Any) -> Iterator[Block | LongLine]:
        skip = int(self.head_end.options.get("skip_lines", 0))
        for piece in line_blocks(source, self.limits):
            if self.layout is not None:
                yield piece
                continue
            if isinstance(piece, LongLine):
                raise FeedRefused("bad_header", f"the first line has {piece.length} bytes", piece.head)
            block: Block | None = piece
            while block is not None and self.layout is None:
                line, after = _first_line(block)
                if skip > 0:
                    skip -= 1
                    block = after
                elif not line.strip():
                    block = after
                elif self.head_end.header:
                    self.layout = self._by_name(line)
                    block = after
                else:
                    self.layout = self._by_number(line)
            if block is not None:
                yield block

    def _by_name(self, line: bytes) -> Layout:
        try:
            names = [name.strip() for name in split(line, self.head_end.delimiter)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise FeedRefused("bad_header", shown(str(error)), line) from error
        place: dict[str, int] = {}
        for ours, theirs in self.head_end.columns.items():
            if names.count(theirs) != 1:
                said = "is not in the header" if theirs not in names else "occurs twice in the header"
                raise FeedRefused("bad_header", f"column {shown(theirs)} ({ours}) {said}", line)
            place[ours] = names.index(theirs)
        return Layout(len(names), place)

    def _by_number(self, line: bytes) -> Layout:
        try:
            count = len(split(line, self.head_end.delimiter))
        except (csv.Error, UnicodeDecodeError):
            count = line.count(self.delimiter) + 1
        count = int(self.head_end.options.get("columns", count))
        place: dict[str, int] = {}
        for ours, theirs in self.head_end.columns.items():
            if not (theirs.isascii() and theirs.isdigit() and int(theirs) >= 1):
                raise HeadEndError(
                    f"{self.head_end.name}: columns: {ours}: without a header, give the column's number from 1"
                )
            place[ours] = int(theirs) - 1
        if max(place.values()) >= count:
            raise FeedRefused("bad_header", f"{count} columns, column {max(place.values()) + 1} is declared", line)
        return Layout(count, place)


def _first_line(block: Block) -> tuple[bytes, Block | None]:
    cut = block.data.find(b"\n") + 1
    if not cut or cut == len(block.data):
        return block.data.rstrip(b"\r\n"), None
    return block.data[:cut].rstrip(b"\r\n"), Block(
        block.data[cut:], block.offset + cut, block.first_line + 1, block.lines - 1
    )


def split(line: bytes, delimiter: str) -> list[str]:
    """The fields of one line. Raises csv.Error for bad quoting and UnicodeDecodeError for what is not UTF-8."""
    rows = list(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    return rows[0] if rows else []


def _scan_block(
    block: Block, layout: Layout, head_end: HeadEnd, varying: tuple[str, ...], limits: Limits, size: int
) -> Scanned:
    actions = np.full(layout.columns, kernels.IGNORE, np.int32)
    for k, name in enumerate(varying):
        actions[layout.place[name]] = k
    actions[layout.place["value"]] = kernels.VALUE
    work = Work(block, len(varying))
    strict = head_end.options.get("final_newline") == "required" and not block.data.endswith(b"\n")
    loop, fast = compiled.kernel("scan_delimited", max(size, len(block.data)))
    data: Any = np.frombuffer(block.data, np.uint8) if fast else block.data
    scanned = work.scan(loop, data, len(block.data), head_end.delimiter.encode()[0], 34, actions, limits.max_line_bytes)
    if strict:
        scanned.status[scanned.rows - 1] |= kernels.CUT
    return scanned


def _mended(raw: bytes) -> bytes:
    """A line that is refused already, made splittable so that its other faults can be named too."""
    return raw.replace(b"\0", b"").decode("utf-8", "replace").encode()


def _careful(reader: RowReader, body: _Body, raw: bytes, line: int, offset: int) -> list[Reason]:
    """Read one line by the careful way; returns every reason it is refused for, or keeps it and returns none."""
    layout = body.known
    reasons = byte_reasons(raw, body.limits)
    if reasons and reasons[0].code == "line_too_long":
        return reasons
    try:
        fields = split(raw if not reasons else _mended(raw), reader.head_end.delimiter)
    except csv.Error as error:
        return [*reasons, Reason("bad_quoting", shown(str(error)))]
    if len(fields) != layout.columns:
        code = "truncated_row" if len(fields) < layout.columns else "too_many_fields"
        return [*reasons, Reason(code, f"{len(fields)} fields of {layout.columns}")]
    named = {name: fields[at] for name, at in layout.place.items()}
    if reasons:
        return reasons + [more for more in field_reasons(reader, named) if more not in reasons]
    if not named["value"] and reader.head_end.options.get("empty") == "skip":
        return []
    return reader.add_fields(named, line, offset)
