"""Blocks of lines to rows, for the formats that have one read per line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds import compiled, kernels
from meter_pipeline.feeds.files import Block, Limits, LongLine
from meter_pipeline.feeds.rejects import Reason, shown
from meter_pipeline.feeds.rows import RowReader, Rows

THREADS: Final = 2
_CONTROL: Final = bytes(c for c in range(32) if c not in (9, 10)) + b"\x7f"

# : Slots of a dictionary at first, as a power of two: 200 kB for six columns, which stay in a core's own cache. Room
# for every line of a block to be : another text is 12 MB to clear, for each block of 8 MB.
_FIRST_BITS: Final = 13

#: reads one line (raw, line number, offset) carefully: keeps it, or returns every reason it is refused for
Careful = Callable[[bytes, int, int], list[Reason]]


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


@dataclass(slots=True)
class Work:
    """Arrays for the scan of one block into ``kinds`` dictionary columns and one number."""

    block: Block
    kinds: int
    lines: int = 0
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = self.kinds
        self.lines = rows = self.block.lines
        self.arrays = {
            "codes": np.empty((kinds, rows), np.int32),
            "mantissa": np.zeros(rows, np.int64),
            "decimals": np.empty(rows, np.int8),
            "starts": np.empty(rows, np.int64),
            "status": np.empty(rows, np.uint8),
            "table": np.full((kinds, 1 << min(max(6, (2 * rows).bit_length()), _FIRST_BITS)), -1, np.int32),
            "entry_begin": np.empty((kinds, rows), np.int64),
            "entry_length": np.empty((kinds, rows), np.int32),
            "counts": np.zeros(kinds, np.int32),
            "follows": np.empty((kinds, rows), np.int32),
            "last": np.full(kinds, -1, np.int32),
        }

    def scan(self, loop: Callable[..., Any], *asked: Any) -> Scanned:
        """The block as ``loop`` reads it. Its dictionaries begin small, since most files repeat a few thousand texts;
        where they fill up, all of the block is read again with sixteen times the room."""
        while (rows := int(loop(*asked, *self.arrays.values()))) < 0:
            self.arrays["table"] = np.full((self.kinds, self.arrays["table"].shape[1] << 4), -1, np.int32)
            self.arrays["counts"][:] = 0
            self.arrays["last"][:] = -1
        return self._scanned(rows)

    def _scanned(self, rows: int) -> Scanned:
        """The result, with the distinct texts taken out of the block."""
        made, data = self.arrays, self.block.data
        texts = []
        for k in range(self.kinds):
            count = made["counts"][k]
            spans = zip(made["entry_begin"][k, :count].tolist(), made["entry_length"][k, :count].tolist(), strict=True)
            texts.append([data[begin : begin + length] for begin, length in spans])
        return Scanned(
            self.block, rows, made["codes"], made["mantissa"], made["decimals"], made["starts"], made["status"], texts
        )


def scan_all(
    pieces: Iterator[Block | LongLine],
    scan: Callable[[Block], Scanned],
    reader: RowReader,
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
            _absorb(done, reader, careful)


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


def _absorb(scanned: Scanned, reader: RowReader, careful: Careful) -> None:
    """Look the block's texts up, convert its numbers, keep the good rows and read the others carefully."""
    size = scanned.rows
    status = scanned.status[:size]
    doubtful = status != 0
    if (status == kernels.HIGH).any() and is_utf8(scanned.block.data):
        doubtful &= status != kernels.HIGH
    codes: dict[str, npt.NDArray[np.int32]] = {}
    for k, name in enumerate(reader.varying):
        vocabulary = reader.vocabularies[name]
        local = scanned.codes[k, :size]
        absent = local < 0
        numbers = vocabulary.codes([*scanned.texts[k], b""] if absent.any() else scanned.texts[k])
        codes[name] = numbers[local]  # an absent field (-1) reads as the empty text at the end
    unit: npt.NDArray[np.int32] | int = codes["unit"] if "unit" in codes else reader.constants["unit"]
    value, exact = reader.units.micro(unit, scanned.mantissa[:size], scanned.decimals[:size])
    good = ~doubtful & exact & ~reader.judge(codes)
    offset = scanned.starts[:size] + scanned.block.offset
    kept = offset if reader.needs_offsets else offset[:0]
    line = np.arange(scanned.block.first_line, scanned.block.first_line + size, dtype=np.int64)
    if good.all():
        reader.add(Rows(codes, value, line, kept))
        return
    reader.add(
        Rows(
            {name: column[good] for name, column in codes.items()},
            value[good],
            line[good],
            kept[good] if kept.size else kept,
        )
    )
    for i in np.flatnonzero(~good & (status != kernels.BLANK)).tolist():
        begin = int(scanned.starts[i])
        end = int(scanned.starts[i + 1]) if i + 1 < size else len(scanned.block.data)
        raw = scanned.block.data[begin:end].removesuffix(b"\n").removesuffix(b"\r")
        cut = bool(status[i] & kernels.CUT)
        reasons = (
            [Reason("truncated_row", "the file ends inside this line")]
            if cut
            else careful(raw, int(line[i]), int(offset[i]))
        )
        if reasons:
            reader.rejects.add(int(line[i]), int(offset[i]), raw, reasons)


def is_utf8(data: bytes) -> bool:
    """Whether bytes are valid UTF-8 (surrogates are not)."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def byte_reasons(raw: bytes, limits: Limits) -> list[Reason]:
    """What is wrong with a line's bytes, before any field is looked at."""
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
        vocabulary = reader.vocabularies[name]
        reason = vocabulary.reason(vocabulary.code(fields[name].encode("utf-8", "replace")))
        if reason is not None:
            found.append(reason)
    value = reader.units.exact(0, fields["value"])
    if isinstance(value, Reason):
        found.append(value)
    return found
