"""Delimited text with one read per line and a declared mapping of columns.

Belongs here: header, quoting, the fast scan of blocks on two threads, and the careful reading of the lines the scan will not vouch for. Does
not belong here: what the fields mean (rows.py, vocabulary.py).

A record is a line: a quoted field may hold the delimiter and doubled quotes, not a line end. Options of the head-end: ``skip_lines`` before
the header, ``ambiguous`` (rows.py), ``max_line_bytes``.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import kernels
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Block, Limits, LongLine, fetch_lines, limits_of, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.rejects import FeedRefused, Reason, shown
from meter_pipeline.feeds.rows import CODED_FIELDS, FIELDS, RowReader, Rows
from meter_pipeline.schemas.reads import ParsedFeed

_CONTROL: Final = bytes(c for c in range(32) if c not in (9, 10, 13)) + b"\x7f"
THREADS: Final = 2


@dataclass(slots=True)
class Layout:
    """Where the fields stand: number of columns, and the column (from 0) of each mapped field."""

    columns: int
    place: dict[str, int]


@dataclass(slots=True)
class Scanned:
    """One scanned block, in the kernel's arrays."""

    block: Block
    rows: int
    codes: npt.NDArray[np.int32]
    mantissa: npt.NDArray[np.int64]
    decimals: npt.NDArray[np.int8]
    starts: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]
    texts: list[list[bytes]]


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
        for scanned in _scan(body.pieces(opened.source), body, varying, opened.size):
            if isinstance(scanned, LongLine):
                detail = f"{scanned.length} bytes, at most {limits.max_line_bytes}"
                reader.rejects.add(scanned.line, scanned.offset, scanned.head, [Reason("line_too_long", detail)])
            else:
                _absorb(scanned, reader, body, limits)
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
                raise HeadEndError(f"{self.head_end.name}: columns: {ours}: without a header, give the column's number from 1")
            place[ours] = int(theirs) - 1
        if max(place.values()) >= count:
            raise FeedRefused("bad_header", f"{count} columns, column {max(place.values()) + 1} is declared", line)
        return Layout(count, place)


def _first_line(block: Block) -> tuple[bytes, Block | None]:
    cut = block.data.find(b"\n") + 1
    if not cut or cut == len(block.data):
        return block.data.rstrip(b"\r\n"), None
    return block.data[:cut].rstrip(b"\r\n"), Block(block.data[cut:], block.offset + cut, block.first_line + 1)


def split(line: bytes, delimiter: str) -> list[str]:
    """The fields of one line. Raises csv.Error for bad quoting and UnicodeDecodeError for what is not UTF-8."""
    rows = list(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    return rows[0] if rows else []


def _scan(
    pieces: Iterator[Block | LongLine], body: _Body, varying: tuple[str, ...], size: int
) -> Iterator[Scanned | LongLine]:
    """Scan blocks in their order; a large file on two threads, with three blocks in hand at most."""
    waiting: deque[Future[Scanned] | LongLine] = deque()
    _, compiled = kernels.kernel("scan_delimited", size)
    if not compiled:
        for piece in pieces:
            yield piece if isinstance(piece, LongLine) else _scan_block(piece, body, varying, size)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        for piece in pieces:
            waiting.append(piece if isinstance(piece, LongLine) else pool.submit(_scan_block, piece, body, varying, size))
            if len(waiting) > THREADS:
                done = waiting.popleft()
                yield done if isinstance(done, LongLine) else done.result()
        while waiting:
            done = waiting.popleft()
            yield done if isinstance(done, LongLine) else done.result()


def _scan_block(block: Block, body: _Body, varying: tuple[str, ...], size: int) -> Scanned:
    layout = body.layout
    if layout is None:
        raise AssertionError("a block before the header")
    data = block.data
    rows = data.count(b"\n") + (not data.endswith(b"\n"))
    actions = np.full(layout.columns, kernels.IGNORE, np.int32)
    for k, name in enumerate(varying):
        actions[layout.place[name]] = k
    actions[layout.place["value"]] = kernels.VALUE
    kinds = len(varying)
    codes = np.empty((kinds, rows), np.int32)
    mantissa = np.zeros(rows, np.int64)
    decimals = np.empty(rows, np.int8)
    starts = np.empty(rows, np.int64)
    status = np.empty(rows, np.uint8)
    table = np.full((kinds, 1 << max(6, (2 * rows).bit_length())), -1, np.int32)
    entry_begin = np.empty((kinds, rows), np.int64)
    entry_length = np.empty((kinds, rows), np.int32)
    counts = np.zeros(kinds, np.int32)
    follows = np.full((kinds, rows), -1, np.int32)
    last = np.full(kinds, -1, np.int32)
    loop, compiled = kernels.kernel("scan_delimited", size)
    found = loop(
        np.frombuffer(data, np.uint8) if compiled else data, len(data), body.delimiter[0], 34, actions, body.limits.max_line_bytes, codes,
        mantissa, decimals, starts, status, table, entry_begin, entry_length, counts, follows, last,
    )  # fmt: skip
    texts = [
        [data[b : b + n] for b, n in zip(entry_begin[k, : counts[k]].tolist(), entry_length[k, : counts[k]].tolist(), strict=True)]
        for k in range(kinds)
    ]
    return Scanned(block, int(found), codes, mantissa, decimals, starts, status, texts)


def _absorb(scanned: Scanned, reader: RowReader, body: _Body, limits: Limits) -> None:
    """Look the block's texts up, convert its numbers, keep the good rows and read the others carefully."""
    size = scanned.rows
    status = scanned.status[:size]
    doubtful = status != 0
    if (status == kernels.HIGH).any() and _is_utf8(scanned.block.data):
        doubtful &= status != kernels.HIGH
    codes: dict[str, npt.NDArray[np.int32]] = {}
    for k, name in enumerate(reader.varying):
        numbers = reader.vocabularies[name].codes(scanned.texts[k])
        codes[name] = numbers[scanned.codes[k, :size]] if numbers.size else scanned.codes[k, :size]
    if doubtful.any():  # their codes may be missing: any valid one will do, since they are not looked at
        for column in codes.values():
            column[doubtful] = 0
    unit: npt.NDArray[np.int32] | int = codes["unit"] if "unit" in codes else reader.constants["unit"]
    value, exact = reader.units.micro(unit, scanned.mantissa[:size], scanned.decimals[:size])
    good = ~doubtful & exact & ~reader.judge(codes)
    offset = scanned.starts[:size] + scanned.block.offset
    line = np.arange(scanned.block.first_line, scanned.block.first_line + size, dtype=np.int64)
    if good.all():
        reader.add(Rows(codes, value, line, offset))
        return
    reader.add(Rows({name: column[good] for name, column in codes.items()}, value[good], line[good], offset[good]))
    for i in np.flatnonzero(~good & (status != kernels.BLANK)).tolist():
        begin = int(scanned.starts[i])
        end = int(scanned.starts[i + 1]) if i + 1 < size else len(scanned.block.data)
        raw = scanned.block.data[begin:end].rstrip(b"\n")
        reasons = _careful(raw.removesuffix(b"\r"), reader, body, limits, int(line[i]), int(offset[i]))
        if reasons:
            reader.rejects.add(int(line[i]), int(offset[i]), raw, reasons)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _careful(raw: bytes, reader: RowReader, body: _Body, limits: Limits, line: int, offset: int) -> list[Reason]:
    """Read one line by the careful way; returns every reason it is refused for, or keeps it and returns none."""
    layout = body.layout
    if layout is None:
        raise AssertionError("a row before the header")
    if len(raw) > limits.max_line_bytes:
        return [Reason("line_too_long", f"{len(raw)} bytes, at most {limits.max_line_bytes}")]
    reasons: list[Reason] = []
    control = next((c for c in raw if c in _CONTROL or c == 13), None)
    if control is not None:
        reasons.append(Reason("control_character", f"byte {control:#04x}"))
    if not _is_utf8(raw):
        reasons.append(Reason("wrong_encoding", f"not UTF-8: {shown(raw)}"))
    try:
        fields = split(raw.replace(b"\0", b"").decode("utf-8", "replace").encode(), reader.head_end.delimiter)
    except csv.Error as error:
        return [*reasons, Reason("bad_quoting", shown(str(error)))]
    if len(fields) < layout.columns:
        return [*reasons, Reason("truncated_row", f"{len(fields)} fields of {layout.columns}")]
    if len(fields) > layout.columns:
        return [*reasons, Reason("too_many_fields", f"{len(fields)} fields of {layout.columns}")]
    named = {name: fields[at] for name, at in layout.place.items()}
    if reasons:
        return reasons + [more for more in _reasons_only(reader, named) if more not in reasons]
    return reader.add_fields(named, line, offset, raw)


def _reasons_only(reader: RowReader, fields: dict[str, str]) -> list[Reason]:
    """Further reasons of a row that is refused already."""
    found: list[Reason] = []
    for name in reader.varying:
        vocabulary = reader.vocabularies[name]
        reason = vocabulary.reason(vocabulary.code(fields[name].encode("utf-8", "replace")))
        if reason is not None:
            found.append(reason)
    value = reader.units.exact(0, fields["value"])
    if isinstance(value, Reason):
        found.append(value)
    return found
