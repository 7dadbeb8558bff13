"""A scanned block's codes and numbers to good rows; undecided lines go to the format's slow reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds import kernels
from meter_pipeline.feeds.coded_columns import Rounded
from meter_pipeline.feeds.rejects import Reason
from meter_pipeline.feeds.row_plan import Filter, Part, RowPlan
from meter_pipeline.feeds.rows import I32, I64, RowReader, Rows
from meter_pipeline.feeds.scanned import Scanned
from meter_pipeline.feeds.times import State

#: reads one line (raw, line number, offset) carefully: keeps it, or returns every reason it is refused for and how many
#: reads that costs
Careful = Callable[[bytes, int, int], tuple[list[Reason], int]]
Mask = npt.NDArray[np.bool_]

#: passed-over rows that are kept to search control totals in
MOST_NOTED: Final = 1000
#: distinct pairs of texts are found by a table of this many slots a row, else by sorting
_DENSE: Final = 8


def absorb(scanned: Scanned, reader: RowReader, plan: RowPlan, careful: Careful) -> None:
    """Look the block's texts up, convert its numbers, keep the good rows and read the others carefully."""
    size = scanned.rows
    status = scanned.status[:size]
    doubtful = status != 0
    if (status == kernels.HIGH).any() and is_utf8(scanned.block.data):
        doubtful &= status != kernels.HIGH
    blank = status == kernels.BLANK
    _empty_nulls(scanned, reader)
    passed = _passed_over(scanned, plan.filters, size)
    if passed is not None:
        for row in np.flatnonzero(passed & ~blank)[: MOST_NOTED - len(reader.noted)].tolist():
            reader.noted.append(scanned.raw(row).decode("utf-8", "replace"))
        reader.skipped += int((passed & ~blank).sum())
        blank |= passed
        doubtful |= passed
    line = np.arange(scanned.block.first_line, scanned.block.first_line + size, dtype=np.int64)
    offset = scanned.starts[:size] + scanned.block.offset
    good = _single(scanned, reader, plan, doubtful, (line, offset)) if len(plan.numbers) == 1 else None
    if good is None:
        good = _several(scanned, reader, plan, doubtful, (line, offset))
    reader.rows += size - int(blank.sum())
    if good.all():
        return
    for i in np.flatnonzero(~good & ~blank).tolist():
        raw = scanned.raw(i)
        if status[i] & kernels.CUT:
            reasons, reads = [Reason("truncated_row", "the file ends inside this line")], 1
        else:
            reasons, reads = careful(raw, int(line[i]), int(offset[i]))
        if reasons:
            reader.rejects.add(int(line[i]), int(offset[i]), raw, reasons, reads)


def _empty_nulls(scanned: Scanned, reader: RowReader) -> None:
    """Empty the numbers that the declaration names as standing for no value."""
    for mantissa, decimals in reader.null_numbers:
        here = (scanned.mantissa[:, : scanned.rows] == mantissa) & (scanned.decimals[:, : scanned.rows] == decimals)
        scanned.decimals[:, : scanned.rows][here] = kernels.EMPTY


def _passed_over(scanned: Scanned, filters: tuple[Filter, ...], size: int) -> Mask | None:
    """Rows that the declaration passes over; None where it has no such rule."""
    found: Mask | None = None
    for each in filters:
        texts = [*scanned.texts[each.source], b""]  # an absent field (-1) reads as the empty text at the end
        drops = np.array([each.drops(text) for text in texts], np.bool_)
        here = drops[scanned.codes[each.source, :size]] & (scanned.codes[each.source, :size] >= 0)
        found = here if found is None else found | here
    return found


def _single(scanned: Scanned, reader: RowReader, plan: RowPlan, doubtful: Mask, place: tuple[I64, I64]) -> Mask:
    """Rows with one value each; returns which are done with."""
    size = scanned.rows
    number = plan.numbers[0]
    codes = {name: coded(scanned, reader, name, plan.parts(name, number)) for name in reader.varying}
    unit: I32 | int = codes["unit"] if "unit" in codes else reader.constants["unit"]
    value, exact, rounded = reader.units.micro(unit, scanned.mantissa[0, :size], scanned.decimals[0, :size])
    good = ~doubtful & exact & ~reader.judge(codes)
    nothing = _nothing(scanned, reader, plan, codes, 0, doubtful)
    line, offset = place
    kept = offset if reader.needs_offsets else offset[:0]
    rows = _with_rounding(Rows(codes, value, line, kept), rounded)
    reader.add(rows if good.all() else rows.take(good))
    if nothing is None:
        return good
    reader.skipped += int(nothing.sum())
    return good | nothing


def _nothing(
    scanned: Scanned, reader: RowReader, plan: RowPlan, codes: dict[str, I32], at: int, doubtful: Mask
) -> Mask | None:
    """Values that are no read: empty ones where the declaration says so, empty ones beyond a day's own intervals, and
    those of the hour that clocks skip where they are declared to be fillers."""
    empty = scanned.decimals[at, : scanned.rows] == kernels.EMPTY
    found: Mask | None = empty & ~doubtful if plan.empty_is_nothing else None
    if (plan.beyond_day or plan.skips_nonexistent) and "time" in codes:
        never = reader.stamps.state == State.NONEXISTENT
        if never.any():
            here = never[codes["time"]] & ~doubtful
            if not plan.skips_nonexistent:
                here &= empty
            found = here if found is None else found | here
    return found


def _several(scanned: Scanned, reader: RowReader, plan: RowPlan, doubtful: Mask, place: tuple[I64, I64]) -> Mask:
    """Rows with several values each, in the order of the file; a row with one doubtful value is read carefully whole.
    Returns which are done with."""
    size, width = scanned.rows, len(plan.numbers)
    own = {name for number in plan.numbers for name in number.fields}
    shared = {name: coded(scanned, reader, name, plan.fields[name]) for name in reader.varying if name not in own}
    grids = {name: np.empty((size, width), np.int32) for name in own}
    value = np.empty((size, width), np.int64)
    rounding: list[Rounded | None] = []
    there = np.ones((size, width), np.bool_)
    good = ~doubtful
    for v, number in enumerate(plan.numbers):
        codes = dict(shared)
        for name in own:
            codes[name] = grids[name][:, v] = coded(scanned, reader, name, plan.parts(name, number))
        unit: I32 | int = codes["unit"] if "unit" in codes else reader.constants["unit"]
        value[:, v], exact, rounded = reader.units.micro(unit, scanned.mantissa[v, :size], scanned.decimals[v, :size])
        rounding.append(rounded)
        fine = exact & ~reader.judge(codes)
        nothing = _nothing(scanned, reader, plan, codes, v, doubtful)
        if nothing is not None:
            there[:, v] = ~nothing
            fine |= nothing
        good &= fine
    there &= good[:, None]
    which = np.flatnonzero(there.ravel())
    row = which // width
    line, offset = place
    rows = Rows(
        {name: grids[name].ravel()[which] if name in own else shared[name][row] for name in reader.varying},
        value.ravel()[which],
        line[row],
        offset[row] if reader.needs_offsets else offset[:0],
    )
    if any(each is not None for each in rounding):
        blank = Rounded(np.zeros(size, np.int64), np.ones(size, np.int64))
        stacked = [each or blank for each in rounding]
        rows.rounded = np.stack([each.numerator for each in stacked], 1).ravel()[which]
        rows.below = np.stack([np.broadcast_to(each.below, size) for each in stacked], 1).ravel()[which]
    reader.add(rows)
    return good


def _with_rounding(rows: Rows, rounded: Rounded | None) -> Rows:
    if rounded is not None:
        rows.rounded, rows.below = rounded.numerator, np.broadcast_to(rounded.below, rows.value.shape).copy()
    return rows


def coded(scanned: Scanned, reader: RowReader, name: str, parts: tuple[Part, ...]) -> I32:
    """The codes of a field in a block: of one column, of several put together, or of fixed text."""
    coded_column = reader.coded_columns[name]
    sources = [part for part in parts if isinstance(part, int)]
    size = scanned.rows
    if not sources:
        return np.full(size, coded_column.code(b"".join(part for part in parts if isinstance(part, bytes))), np.int32)
    if len(sources) == 1:
        local = scanned.codes[sources[0], :size]
        texts = scanned.texts[sources[0]]
        if len(parts) > 1:
            texts = [_put_together(parts, {sources[0]: text}) for text in texts]
        if not size or local.min() >= 0:
            numbers = coded_column.codes(texts)
            return np.full(size, numbers[0]) if len(texts) == 1 else numbers.take(local)
        empty = _put_together(parts, {sources[0]: b""}) if len(parts) > 1 else b""
        return coded_column.codes([*texts, empty])[local]  # an absent field (-1) reads as the empty text at the end
    return _combined(scanned, coded_column.codes, parts, sources)


def _put_together(parts: tuple[Part, ...], texts: dict[int, bytes]) -> bytes:
    return b"".join(texts[part] if isinstance(part, int) else part for part in parts)


def _combined(
    scanned: Scanned, codes_of: Callable[[list[bytes]], I32], parts: tuple[Part, ...], sources: list[int]
) -> I32:
    """Codes of texts made of several columns: each distinct combination is put together once."""
    size = scanned.rows
    code = np.zeros(size, np.int64)
    space = 1
    for source in sources:
        width = len(scanned.texts[source]) + 1
        if space * width > 2**62:
            found, code = np.unique(code, return_inverse=True)
            space = len(found)
        code = code * width + scanned.codes[source, :size] + 1
        space *= width
    if space > _DENSE * size + 1024:
        found, code = np.unique(code, return_inverse=True)
        space = len(found)
    first = np.full(space, -1, np.int64)
    first[code[::-1]] = np.arange(size - 1, -1, -1)
    used = first >= 0
    columns = {source: scanned.codes[source, first[used]].tolist() for source in sources}
    texts: list[bytes] = []
    for i in range(int(used.sum())):
        own = {source: _text(scanned, source, column[i]) for source, column in columns.items()}
        texts.append(_put_together(parts, own))
    numbers: Any = codes_of(texts)
    whole: I32 = numbers[(np.cumsum(used) - 1)[code]]
    return whole


def _text(scanned: Scanned, source: int, code: int) -> bytes:
    return scanned.texts[source][code] if code >= 0 else b""


def is_utf8(data: bytes) -> bool:
    """Whether bytes are valid UTF-8 (surrogates are not)."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
