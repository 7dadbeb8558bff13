"""Delimited text with a declared mapping of columns: one read per line, several, or a day of them.

A record is a line: a quoted field may hold the delimiter and doubled quotes; line ends inside quotes are read where
``options.quoted_line_breaks`` says that there are such (lines are then numbered by record). Empty fields behind the
last column do not count. A line ``sep=;`` before the header is Excel's and is passed over, and so is the header where
it comes again. docs/feeds.md has every option.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled, headings, kernels
from meter_pipeline.feeds.control_totals import check_totals
from meter_pipeline.feeds.files import (
    DEFAULT_LIMITS,
    Block,
    Limits,
    LongLine,
    Source,
    fetch_lines,
    limits_of,
    line_blocks,
    open_feed,
)
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.rejects import FeedRefused, Reason, shown
from meter_pipeline.feeds.row_plan import Number, Part, RowPlan, matches, plan_of
from meter_pipeline.feeds.row_plan import Source as Column
from meter_pipeline.feeds.rows import RowReader
from meter_pipeline.feeds.scanned import ScanBuffers, Scanned
from meter_pipeline.feeds.scanning import byte_reasons, field_reasons, scan_all
from meter_pipeline.feeds.stamp_rules import StampRules
from meter_pipeline.schemas.reads import ParsedFeed

#: a column by its number, where two have one name
_NUMBERED: Final = re.compile(r"#([1-9][0-9]{0,3})", re.ASCII)
#: lines with their ends; a carriage return alone ends none
_LINES: Final = re.compile(rb"[^\n]*\n|[^\n]+")
_SEP: Final = re.compile(rb'"?sep=(.)"?')
#: lines without reads that are kept to search control totals in
_MOST_NOTED: Final = 1000


@dataclass(slots=True)
class Layout:
    """Where the fields stand: number of columns, and the column (from 0) of each source and each value."""

    columns: int
    place: dict[Column, int]


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse one delimited file into interval or register reads (``head_end.kind``), UTC, micro base units. A
    spreadsheet is read as the delimited text of its cells.

    Raises HeadEndError for a declaration that cannot be used, FeedRefused for a file refused whole.
    """
    from meter_pipeline.feeds import spreadsheets

    if spreadsheets.is_spreadsheet(path):
        return spreadsheets.parse(path, head_end, calendar, limits)
    return parse_text(path, head_end, limits)


def parse_text(path: Path, head_end: HeadEnd, limits: Limits = DEFAULT_LIMITS, or_iso: bool = False) -> ParsedFeed:
    """As ``parse``, of text. ``or_iso``: stamps may be ISO 8601 beside the declared format."""
    limits = limits_of(head_end.options, limits)
    if head_end.elsewhere:
        with tempfile.TemporaryDirectory() as folder:
            written = headings.rewrite(path, head_end, limits, Path(folder))
            parsed = _parse_rows(written.path, written.head_end, limits, or_iso)
        fetch = partial(fetch_lines, path, head_end.encoding, limits)
        headings.rejects_as_in_file(parsed, written.starts, fetch)
        parsed.sha256 = written.sha256
        return parsed
    return _parse_rows(path, head_end, limits, or_iso)


def _parse_rows(path: Path, head_end: HeadEnd, limits: Limits, or_iso: bool) -> ParsedFeed:
    """As ``parse_text``, of text whose rows say all."""
    if any(each.column == "*" for each in head_end.values):
        head_end = headings.with_every_column(path, head_end, limits)
    plan = plan_of(head_end)
    try:
        stamps = StampRules(head_end, plan.stamp, or_iso)
    except ValueError as error:
        raise HeadEndError(f"{head_end.name}: {error}") from error
    reader = RowReader(head_end, plan.varying, stamps)
    with open_feed(path, limits, head_end.encoding) as opened:
        body = _Body(head_end, plan, limits)
        scan_all(
            body.pieces(opened.source),
            lambda block: _scan_block(block, body.known, head_end, plan, limits, opened.size),
            reader,
            plan,
            partial(_careful, reader, plan, body),
            limits,
            opened.size,
        )
        if body.layout is None:
            raise FeedRefused("empty_file", f"{opened.size} bytes, no line of text")
    parsed = reader.finish(
        partial(fetch_lines, path, head_end.encoding, limits),
        lambda rows: check_totals(head_end, reader, rows, [*body.noted, *reader.noted]),
    )
    parsed.sha256 = opened.sha256
    parsed.noted = body.noted
    return parsed


def without_header_line(parsed: ParsedFeed) -> None:
    """Number the lines of a text as those of the file it was made of, which has no header line."""
    for name in ("intervals", "registers", "rejects"):
        setattr(parsed, name, getattr(parsed, name).with_columns(pl.col("line") - 1))


class _JoinedLines:
    """A source in which each line end inside quotes is a blank: a record is one line. The number of bytes stays."""

    def __init__(self, source: Source, quote: int) -> None:
        self._source, self._quote, self._inside = source, quote, False

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        content = np.frombuffer(data, np.uint8)
        quotes = np.cumsum(content == self._quote) + self._inside
        breaks = ((content == 10) | (content == 13)) & (quotes % 2 == 1)
        self._inside = bool(quotes[-1] % 2) if quotes.size else self._inside
        if not breaks.any():
            return data
        joined = content.copy()
        joined[breaks] = 32
        return joined.tobytes()


class _Body:
    """The blocks of a file without its header, the lines before it and the footer. ``layout`` is known after the
    header; ``noted`` are the lines that hold no reads."""

    def __init__(self, head_end: HeadEnd, plan: RowPlan, limits: Limits) -> None:
        self.head_end = head_end
        self.limits = limits
        self.layout: Layout | None = None
        self.header = b""
        self.noted: list[str] = []
        self.passed = head_end.skip.get("*", ())
        self.delimiter = head_end.delimiter.encode("utf-8")
        self._wanted = [*plan.sources, *[number.source for number in plan.numbers]]
        if len(self.delimiter) != 1 or self.delimiter in b'"\r\n':
            raise HeadEndError(f"{head_end.name}: delimiter must be one ASCII character")

    @property
    def known(self) -> Layout:
        """The layout, once the header has been read."""
        if self.layout is None:
            raise AssertionError("a row before the header")
        return self.layout

    def note(self, line: bytes) -> None:
        """Keep a line without reads, for control totals."""
        if len(self.noted) < _MOST_NOTED:
            self.noted.append(line.removeprefix(headings.MARK).decode("utf-8", "replace"))

    def pieces(self, source: Source) -> Iterator[Block | LongLine]:
        """The blocks that hold reads."""
        if self.head_end.options.get("quoted_line_breaks") and self.head_end.quote:
            source = _JoinedLines(source, ord(self.head_end.quote))
        blocks = self._after_header(source)
        footer = int(self.head_end.options.get("footer_lines", 0))
        return self._before_footer(blocks, footer) if footer else blocks

    def _before_footer(self, blocks: Iterator[Block | LongLine], footer: int) -> Iterator[Block | LongLine]:
        """Blocks without the file's last lines: those that might be them are held back until more lines came."""
        kept_back: list[Block] = []
        for piece in blocks:
            if isinstance(piece, LongLine):
                yield from kept_back
                kept_back = []
                yield piece
                continue
            kept_back.append(piece)
            while len(kept_back) > 1 and sum(each.lines for each in kept_back[1:]) >= footer:
                yield kept_back.pop(0)
        while kept_back and footer:
            last = kept_back.pop()
            lines = _LINES.findall(last.data)
            taken = list(lines[-footer:])
            for line in taken:
                self.note(line.rstrip(b"\r\n"))
            footer -= len(taken)
            rest = b"".join(lines[: len(lines) - len(taken)])
            if rest:
                kept_back.append(Block(rest, last.offset, last.first_line, last.lines - len(taken)))
                break
        yield from kept_back

    def _after_header(self, source: Source) -> Iterator[Block | LongLine]:
        skip = int(self.head_end.options.get("skip_lines", 0))
        first = True
        for piece in line_blocks(source, self.limits):
            if self.layout is not None:
                yield piece
                continue
            if isinstance(piece, LongLine):
                raise FeedRefused("bad_header", f"the first line has {piece.length} bytes", piece.head)
            block: Block | None = piece
            while block is not None and self.layout is None:
                line, after = _first_line(block)
                sep = _SEP.fullmatch(line) if first else None
                first = False
                if sep is not None:
                    if sep[1] != self.delimiter:
                        raise FeedRefused("bad_header", f"the file says {shown(line)}: declare that delimiter", line)
                    block = after
                elif skip > 0:
                    self.note(line)
                    skip -= 1
                    block = after
                elif not line.strip():
                    block = after
                elif self.passed and matches(line.decode("utf-8", "replace"), self.passed):
                    self.note(line)
                    block = after
                elif self.head_end.header:
                    self.layout = self._by_name(line)
                    self.header = line
                    block = after
                else:
                    self.layout = self._by_number(line)
            if block is not None:
                yield block

    def _by_name(self, line: bytes) -> Layout:
        names = header_names(line, self.head_end)
        place: dict[Column, int] = {}
        for column in self._wanted:
            numbered = _NUMBERED.fullmatch(column.name)
            if numbered is not None and column.name not in names and int(numbered[1]) <= len(names):
                place[column] = int(numbered[1]) - 1 + column.offset
                continue
            if names.count(column.name) != 1:
                problem = "is not in the header" if column.name not in names else "occurs twice in the header"
                raise FeedRefused(
                    "bad_header", f"column {shown(column.name)} ({self._ours(column.name)}) {problem}", line
                )
            place[column] = names.index(column.name) + column.offset
        while names and not names[-1] and len(names) - 1 > max(place.values()):
            names.pop()
        return self._laid_out(len(names), place, line)

    def _by_number(self, line: bytes) -> Layout:
        try:
            count = len(split(line, self.head_end))
        except (csv.Error, UnicodeDecodeError):
            count = line.count(self.delimiter) + 1
        count = int(self.head_end.options.get("columns", count))
        place: dict[Column, int] = {}
        for column in self._wanted:
            if not (column.name.isascii() and column.name.isdigit() and int(column.name) >= 1):
                ours = self._ours(column.name)
                raise HeadEndError(
                    f"{self.head_end.name}: columns: {ours}: without a header, give the column's number from 1"
                )
            place[column] = int(column.name) - 1 + column.offset
        return self._laid_out(count, place, line)

    def _laid_out(self, count: int, place: dict[Column, int], line: bytes) -> Layout:
        if max(place.values()) >= count:
            raise FeedRefused("bad_header", f"{count} columns, column {max(place.values()) + 1} is declared", line)
        at = list(place.values())
        twice = next((column for column, where in place.items() if at.count(where) > 1), None)
        if twice is not None:
            raise FeedRefused("bad_header", f"column {shown(twice.name)} would be both a value and a field", line)
        return Layout(count, place)

    def _ours(self, name: str) -> str:
        """The field that a column was declared for."""
        for ours, theirs in self.head_end.columns.items():
            if name in ((theirs,) if isinstance(theirs, str) else theirs):
                return ours
        return "declared"


def header_names(line: bytes, head_end: HeadEnd) -> list[str]:
    """The names of a header line. Raises FeedRefused where it cannot be read, and says why."""
    try:
        return [name.strip() for name in split(line, head_end)]
    except UnicodeDecodeError as error:
        detail = f"the header is not UTF-8 from its byte {error.start + 1} on: declare encoding"
        raise FeedRefused("wrong_encoding", detail, line) from error
    except csv.Error as error:
        if b"\r" in line:
            detail = "the lines end with CR (0x0D) alone: ask for LF, or CR and LF"
            raise FeedRefused("bad_header", detail, line) from error
        raise FeedRefused("bad_header", shown(str(error)), line) from error


def _first_line(block: Block) -> tuple[bytes, Block | None]:
    cut = block.data.find(b"\n") + 1
    if not cut or cut == len(block.data):
        return block.data.rstrip(b"\r\n"), None
    return block.data[:cut].rstrip(b"\r\n"), Block(
        block.data[cut:], block.offset + cut, block.first_line + 1, block.lines - 1
    )


def split(line: bytes, head_end: HeadEnd) -> list[str]:
    """The fields of one line. Raises csv.Error for bad quoting and UnicodeDecodeError for bytes that are not UTF-8."""
    quoting: Any = {"quotechar": head_end.quote} if head_end.quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    text = line.decode("utf-8")
    if head_end.trim and head_end.quote:
        text = _blanks_around_quotes(text, head_end.delimiter, head_end.quote)
    rows = list(csv.reader([text], delimiter=head_end.delimiter, strict=True, **quoting))
    fields = rows[0] if rows else []
    return [field.strip(" \t") for field in fields] if head_end.trim else fields


def _blanks_around_quotes(text: str, delimiter: str, quote: str) -> str:
    """A line whose quoted fields have no blanks outside their quotes, for csv, which takes those for content."""
    if quote not in text:
        return text
    mark, sign = re.escape(delimiter), re.escape(quote)
    text = re.sub(rf"(^|{mark})[ \t]+(?={sign})", r"\1", text)
    return re.sub(rf"(?<={sign})[ \t]+(?={mark}|$)", "", text)


def _scan_block(block: Block, layout: Layout, head_end: HeadEnd, plan: RowPlan, limits: Limits, size: int) -> Scanned:
    actions = np.full(layout.columns, kernels.IGNORE, np.int32)
    for k, column in enumerate(plan.sources):
        actions[layout.place[column]] = k
    for v, number in enumerate(plan.numbers):
        actions[layout.place[number.source]] = kernels.VALUE - v
    work = ScanBuffers(block, len(plan.sources), len(plan.numbers))
    strict = head_end.options.get("final_newline") == "required" and not block.data.endswith(b"\n")
    loop, fast = compiled.kernel("scan_delimited", max(size, len(block.data)))
    data: Any = np.frombuffer(block.data, np.uint8) if fast else block.data
    scanned = work.scan(loop, data, len(block.data), marks_of(head_end), actions, limits.max_line_bytes)
    if strict:
        scanned.status[scanned.rows - 1] |= kernels.CUT
    return scanned


def marks_of(head_end: HeadEnd) -> Any:
    """Delimiter, quote, decimal mark, thousands mark and trimming, as the inner loops take them."""
    letters = (head_end.delimiter, head_end.quote, head_end.decimal, head_end.thousands)
    return np.array([*[ord(letter) if letter else 0 for letter in letters], int(head_end.trim)], np.int64)


def _mended(raw: bytes) -> bytes:
    """A line that is refused already, made splittable so that its other faults can be named too."""
    return raw.replace(b"\0", b"").decode("utf-8", "replace").encode()


def _careful(
    reader: RowReader, plan: RowPlan, body: _Body, raw: bytes, line: int, offset: int
) -> tuple[list[Reason], int]:
    """Read one line by the careful way; returns every reason it is refused for and the reads that costs, or keeps it
    and returns none."""
    layout, head_end = body.known, reader.head_end
    if (body.passed and matches(raw.decode("utf-8", "replace"), body.passed)) or (body.header and raw == body.header):
        body.note(raw)
        reader.skipped += 1
        reader.rows -= 1
        return [], 0
    reasons = byte_reasons(raw, body.limits)
    if reasons and reasons[0].code == "line_too_long":
        return reasons, 1
    try:
        fields = split(raw if not reasons else _mended(raw), head_end)
    except csv.Error as error:
        return [*reasons, Reason("bad_quoting", shown(str(error)))], len(plan.numbers)
    if not reasons and len(fields) > 1 and not any(field.strip() for field in fields):
        reader.skipped += 1  # the rows of delimiters that spreadsheets write below the last one
        reader.rows -= 1
        return [], 0
    while len(fields) > layout.columns and not fields[-1].strip():
        fields.pop()
    if len(fields) != layout.columns:
        code = "truncated_row" if len(fields) < layout.columns else "too_many_fields"
        return [*reasons, Reason(code, f"{len(fields)} fields of {layout.columns}")], len(plan.numbers)
    texts = [fields[layout.place[column]] for column in plan.sources]
    values = [fields[layout.place[number.source]] for number in plan.numbers]
    return careful_row(reader, plan, texts, values, (line, offset), reasons)


def careful_row(
    reader: RowReader, plan: RowPlan, texts: list[str], values: list[str], place: tuple[int, int], reasons: list[Reason]
) -> tuple[list[Reason], int]:
    """One row's reads by the careful way, from the texts of its sources and values: kept, passed over, or refused with
    every reason. ``reasons`` are those that the row is refused for already."""
    if any(each.drops(texts[each.source].encode("utf-8", "replace")) for each in plan.filters):
        reader.skipped += 1
        reader.rows -= 1
        return [], 0
    refused = 0
    spoiled = bool(reasons)
    values = ["" if reader.is_null(value) else value for value in values]
    for number, value in zip(plan.numbers, values, strict=True):
        named = {name: _joined(plan.parts(name, number), texts) for name in reader.varying} | {"value": value}
        if spoiled:
            reasons += [more for more in field_reasons(reader, named) if more not in reasons]
            refused = len(plan.numbers)
            continue
        if _is_nothing(reader, plan, named):
            reader.skipped += len(plan.numbers) == 1
            continue
        found = reader.add_fields(named, *place)
        if found:
            refused += 1
            reasons = _added(reasons, found, number, plan)
    return reasons, refused


def _added(reasons: list[Reason], found: list[Reason], number: Number, plan: RowPlan) -> list[Reason]:
    """Reasons of one more value of a row, named by its column where a row has several."""
    column = number.source
    where = f"{column.name}{f' + {column.offset}' if column.offset else ''}: " if len(plan.numbers) > 1 else ""
    named = [Reason(each.code, f"{where}{each.detail}") for each in found]
    return [*reasons, *[each for each in named if each not in reasons]][:100]


def _is_nothing(reader: RowReader, plan: RowPlan, named: dict[str, str]) -> bool:
    """Whether a value is no read at all, as absorb._nothing has it."""
    if not named["value"] and plan.empty_is_nothing:
        return True
    if not (plan.skips_nonexistent or (plan.beyond_day and not named["value"])) or "time" not in named:
        return False
    code = reader.stamps.code(named["time"].encode("utf-8", "replace"))
    reason = reader.stamps.reason(code)
    return reason is not None and reason.code == "nonexistent_time"


def _joined(parts: tuple[Part, ...], texts: list[str]) -> str:
    return "".join(texts[part] if isinstance(part, int) else part.decode("utf-8") for part in parts)
