"""Fields that stand beside the rows of delimited text: in lines above them (``Meter: M33``), or in the header's names
(a meter in each column).

Text with headings is written again with the headings' fields before each row, in blocks of lines, and read as any
other; lines that hold no read are marked, so that they are passed over. Line numbers stay, and the rejected lines and
their offsets are those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.feeds.files import Block, Limits, Source, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd, ValueColumn
from meter_pipeline.feeds.rejects import MAX_RAW_BYTES, FeedRefused, shown
from meter_pipeline.feeds.row_plan import matches
from meter_pipeline.schemas.reads import ParsedFeed

#: before a line that holds no read
MARK: Final = b"\x02"
_PASSED: Final = MARK.decode() + "*"
_NUMBERED: Final = re.compile(r"#([1-9][0-9]{0,3})", re.ASCII)
#: lines of a file that are looked at for its header, beyond those to skip
_HEADER_WITHIN: Final = 200


def from_name(head_end: HeadEnd, name: str) -> HeadEnd:
    """A head-end whose fields of the file's name are constants. Raises FeedRefused (no_heading) for a name without
    them."""
    found: dict[str, str] = {}
    for ours, place in head_end.elsewhere.items():
        if place.name is not None:
            match = re.search(place.name, name)
            if match is None or not match[1]:
                raise FeedRefused("no_heading", f"{ours} is not in the file's name {shown(name)}")
            found[ours] = match[1].strip()
    if not found:
        return head_end
    left = {ours: place for ours, place in head_end.elsewhere.items() if place.name is None}
    return replace(head_end, constants={**head_end.constants, **found}, elsewhere=left)


@dataclass(slots=True)
class Rewritten:
    """Text with its headings' fields in each row: where it was written, the declaration that reads it, and where each
    line begins in the file."""

    path: Path
    head_end: HeadEnd
    starts: list[int]
    sha256: str


def line_starts(block: Block) -> list[int]:
    """Where the lines of a block begin in their file."""
    ends = np.flatnonzero(np.frombuffer(block.data, np.uint8) == ord("\n")) + 1
    return [block.offset, *(block.offset + ends[: block.lines - 1]).tolist()]


def rejects_as_in_file(parsed: ParsedFeed, starts: list[int], fetch: Callable[[list[int]], dict[int, bytes]]) -> None:
    """Rejected lines of a text that was written again, as they stand in the file: ``starts`` are where its lines begin,
    ``fetch`` gets lines by where they begin."""
    if not parsed.rejects.height:
        return
    offsets = [starts[line - 1] for line in parsed.rejects["line"].to_list()]
    lines = fetch(offsets)
    raw = [lines[offset][:MAX_RAW_BYTES] for offset in offsets]
    parsed.rejects = parsed.rejects.with_columns(
        byte_offset=pl.Series(offsets, dtype=pl.Int64), raw=pl.Series(raw, dtype=pl.Binary)
    )


def rewrite(path: Path, head_end: HeadEnd, limits: Limits, folder: Path) -> Rewritten:
    """A text with headings, written again into ``folder`` with their fields before each row."""
    patterns = {
        ours: re.compile(str(place.heading).encode("utf-8"), re.M) for ours, place in head_end.elsewhere.items()
    }
    writer = _Writer(head_end, patterns)
    rows_file = folder / "rows"
    starts: list[int] = []
    with open_feed(path, limits, head_end.encoding) as opened, rows_file.open("wb") as file:
        for piece in line_blocks(opened.source, limits):
            if not isinstance(piece, Block):
                raise FeedRefused("line_too_long", f"line {piece.line} has {piece.length} bytes", piece.head)
            starts += line_starts(piece)
            file.write(writer.block(piece.data))
    for ours in patterns:
        if ours not in writer.seen:
            raise FeedRefused("no_heading", f"no line holds the {ours} that the declaration looks for")
    return Rewritten(rows_file, _declared(head_end, list(patterns)), starts, opened.sha256)


def _declared(head_end: HeadEnd, fields: list[str]) -> HeadEnd:
    """The declaration of the rewritten text: the fields are its first columns, all other numbers of columns are
    higher."""
    by = len(fields)

    def place(name: str) -> str:
        numbered = _NUMBERED.fullmatch(name)
        if numbered is not None:
            return f"#{int(numbered[1]) + by}"
        return str(int(name) + by) if not head_end.header and name.isdigit() else name

    def places(given: Any) -> Any:
        return tuple(map(place, given)) if isinstance(given, tuple) else place(given)

    columns = {ours: places(given) for ours, given in head_end.columns.items()}
    for at, ours in enumerate(fields, 1):
        named = _name(ours) if head_end.header else str(at)
        rest = columns.get(ours, ())  # a date above rows that have the time of day
        columns[ours] = (named, *((rest,) if isinstance(rest, str) else rest)) if rest else named
    skip = {place(name): words for name, words in head_end.skip.items()}
    options = dict(head_end.options)
    if "columns" in options:
        options["columns"] = int(options["columns"]) + by
    day = head_end.day_columns
    return replace(
        head_end,
        columns=columns,
        values=tuple(replace(each, column=place(each.column)) for each in head_end.values),
        day_columns=replace(day, first=place(day.first)) if day is not None else None,
        skip=skip | {"*": (*head_end.skip.get("*", ()), _PASSED)},
        keep={place(name): words for name, words in head_end.keep.items()},
        elsewhere={},
        encoding="utf-8",
        options=options,
    )


def _name(ours: str) -> str:
    """The name of a heading's column, which no file has."""
    return f"\x03{ours}"


class _Writer:
    """Writes blocks of lines with the headings' fields before each row."""

    def __init__(self, head_end: HeadEnd, patterns: dict[str, re.Pattern[bytes]]) -> None:
        self.patterns = patterns
        self.delimiter = head_end.delimiter.encode()
        self.quote = head_end.quote.encode()
        self.skip = int(head_end.options.get("skip_lines", 0))
        self.wants_header = head_end.header
        self.passed = head_end.skip.get("*", ())
        self.header = b""
        marks = re.escape(self.delimiter + self.quote)
        #: a row of delimiters alone, as spreadsheets write below the last one: it becomes an empty line
        self.nothing = re.compile(rb"\n[ \t" + marks + rb"]+(?=\r?\n|\Z)")
        self.values = dict.fromkeys(patterns, b"")
        self.seen: set[str] = set()

    def block(self, data: bytes) -> bytes:
        """Whole lines, each with its fields."""
        out = []
        while data and (self.skip or self.wants_header):
            line, mark, data = data.partition(b"\n")
            out.append(self._above(line) + mark)
        out += self._rows(data)
        return b"".join(out)

    def _above(self, line: bytes) -> bytes:
        """A line that stands before the first row: a preamble's, as it is, or the header with our names."""
        text = line.rstrip(b"\r")
        heading = self._take(text)
        if self.skip:
            self.skip -= 1
            return line
        if heading:
            return MARK + line
        if not text.strip() or text.lower().startswith((b"sep=", b'"sep=')):
            return line
        if self.passed and matches(text.decode("utf-8", "replace"), self.passed):
            return line
        self.wants_header = False
        self.header = text
        return b"".join(_name(ours).encode() + self.delimiter for ours in self.patterns) + line

    def _rows(self, data: bytes) -> list[bytes]:
        """Lines below the header: the stretches between headings at once."""
        out: list[bytes] = []
        at = 0
        while at < len(data):
            found = [match for each in self.patterns.values() if (match := each.search(data, at))]
            if not found:
                out.append(self._stretch(data[at:]))
                break
            start = data.rfind(b"\n", at, min(match.start() for match in found)) + 1 or at
            end = data.find(b"\n", start) + 1 or len(data)
            out.append(self._stretch(data[at:start]))
            line = data[start:end]
            out.append(MARK + line if self._take(line.rstrip(b"\r\n")) else self._stretch(line))
            at = end
        return out

    def _take(self, line: bytes) -> bool:
        """Whether a line is a heading; its values hold for the lines below it."""
        heading = False
        for ours, pattern in self.patterns.items():
            match = pattern.search(line)
            if match is not None and match[1] is not None:
                self.values[ours] = self._field(match[1].strip())
                self.seen.add(ours)
                heading = True
        return heading

    def _field(self, text: bytes) -> bytes:
        """A text as a field of a row."""
        text = text.strip(self.quote) if self.quote else text
        return text.replace(self.delimiter, b" ")

    def _stretch(self, lines: bytes) -> bytes:
        """Rows with the fields of the heading above them. Empty lines stay empty; the header and rows that are passed
        over are marked where they come again."""
        if not lines:
            return b""
        before = b"".join(value + self.delimiter for value in self.values.values())
        text = b"\n" + lines
        whole = text.endswith(b"\n")
        if b"\n" + self.delimiter in text:
            text = self.nothing.sub(b"\n", text)
        empty, again = b"\n\n" in text or b"\n\r\n" in text, bool(self.header) and self.header in text
        text = text.removesuffix(b"\n").replace(b"\n", b"\n" + before) + b"\n"
        for end in (b"\r\n", b"\n"):
            blank = b"\n" + before + end
            while empty and blank in text:
                text = text.replace(blank, b"\n" + end)
            if again:
                text = text.replace(b"\n" + before + self.header + end, b"\n" + MARK + self.header + end)
        for words in self.passed:
            start = words.removesuffix("*").encode("utf-8")
            text = text.replace(b"\n" + before + start, b"\n" + MARK + start)
        return text[1:] if whole else text[1:-1]


def with_every_column(path: Path, head_end: HeadEnd, limits: Limits) -> HeadEnd:
    """A declaration whose value column ``*`` is every column of the header that nothing else names, each with the meter
    that it is called by."""
    from meter_pipeline.feeds.delimited import header_names

    star = head_end.values[0]
    named = {each for given in head_end.columns.values() for each in ((given,) if isinstance(given, str) else given)}
    named |= {*head_end.skip, *head_end.keep}
    with open_feed(path, limits, head_end.encoding) as opened:
        header = _header_line(opened.source, head_end, limits)
    columns = header_names(header, head_end)
    meters = [name for name in columns if name and name not in named]
    twice = next((name for name in meters if meters.count(name) > 1), None)
    if twice is not None:
        raise FeedRefused("bad_header", f"column {shown(twice)} occurs twice in the header", header)
    if not meters:
        raise FeedRefused("bad_header", "no column is left for the meters", header)
    values = tuple(ValueColumn(name, star.channel, star.unit, star.flow, meter_id=name) for name in meters)
    return replace(head_end, values=values)


def _header_line(source: Source, head_end: HeadEnd, limits: Limits) -> bytes:
    """The line of names: the first below the lines to skip that holds all columns the declaration names."""
    skip = int(head_end.options.get("skip_lines", 0))
    for piece in line_blocks(source, limits):
        if not isinstance(piece, Block):
            break
        for line in piece.data.split(b"\n")[skip : skip + _HEADER_WITHIN]:
            if line.strip() and not line.startswith((b"sep=", b'"sep=')):
                return line.rstrip(b"\r")
        break
    raise FeedRefused("bad_header", "no header", b"")
