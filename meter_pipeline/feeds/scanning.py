"""Blocks of lines to rows, for the formats that have one line a row: the scan on two threads, and what is wrong with a
line by its bytes alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from meter_pipeline.feeds import compiled
from meter_pipeline.feeds.absorb import Careful, absorb, is_utf8
from meter_pipeline.feeds.files import Block, Limits, LongLine
from meter_pipeline.feeds.rejects import Reason, shown
from meter_pipeline.feeds.row_plan import RowPlan
from meter_pipeline.feeds.rows import RowReader
from meter_pipeline.feeds.scanned import Scanned

THREADS: Final = 2
_CONTROL: Final = bytes(c for c in range(32) if c not in (9, 10)) + b"\x7f"


def scan_all(
    pieces: Iterator[Block | LongLine],
    scan: Callable[[Block], Scanned],
    reader: RowReader,
    plan: RowPlan,
    careful: Careful,
    limits: Limits,
    size: int,
) -> None:
    """Scan every block and take in its rows, in the order of the file; a large file on two threads, three blocks in
    hand at most."""
    for done in _in_order(pieces, scan, size):
        if isinstance(done, LongLine):
            detail = f"{done.length} bytes, at most {limits.max_line_bytes}"
            reader.rejects.add(done.line, done.offset, done.head, [Reason("line_too_long", detail)])
        else:
            absorb(done, reader, plan, careful)


def _in_order(
    pieces: Iterator[Block | LongLine], scan: Callable[[Block], Scanned], size: int
) -> Iterator[Scanned | LongLine]:
    if size < compiled.COMPILE_FROM_BYTES:
        for piece in pieces:
            yield piece if isinstance(piece, LongLine) else scan(piece)
        return
    waiting: deque[Future[Scanned] | LongLine] = deque()
    compiled.kernel("lookup", size)  # compiled once, before two threads ask for it
    with ThreadPoolExecutor(THREADS, "scan") as pool:
        for piece in pieces:
            waiting.append(piece if isinstance(piece, LongLine) else pool.submit(scan, piece))
            if len(waiting) > THREADS:
                done = waiting.popleft()
                yield done if isinstance(done, LongLine) else done.result()
        while waiting:
            done = waiting.popleft()
            yield done if isinstance(done, LongLine) else done.result()


def byte_reasons(raw: bytes, limits: Limits) -> list[Reason]:
    """Returns the fault of a line's bytes, before its fields are read."""
    if len(raw) > limits.max_line_bytes:
        return [Reason("line_too_long", f"{len(raw)} bytes, at most {limits.max_line_bytes}")]
    reasons: list[Reason] = []
    if len(raw.translate(None, _CONTROL)) != len(raw):
        control = next(c for c in raw if c in _CONTROL)
        reasons.append(Reason("control_character", f"byte {control:#04x}"))
    if not is_utf8(raw):
        reasons.append(Reason("wrong_encoding", f"not UTF-8: {shown(raw)}"))
    return reasons


def field_reasons(reader: RowReader, fields: dict[str, str]) -> list[Reason]:
    """Why the fields of a row that is refused already would be refused too."""
    found: list[Reason] = []
    for name in reader.varying:
        coded_column = reader.coded_columns[name]
        reason = coded_column.reason(coded_column.code(fields[name].encode("utf-8", "replace")))
        if reason is not None:
            found.append(reason)
    value = reader.units.exact(0, reader.plain(fields["value"]))
    if isinstance(value, Reason):
        found.append(value)
    return found
