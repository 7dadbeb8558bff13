"""The inner loops over bytes: delimited rows and NEM12 records to dictionary codes and scaled integers.

Belongs here: functions of arrays that run both as plain Python (small files, no compiler start-up) and compiled by numba (large ones), with the
same result. Does not belong here: what a text means; a loop only splits, numbers the distinct texts of each column and reads plain decimals.
Anything out of the ordinary (exponents, doubled quotes, more than 18 digits) is marked and left to the careful path in Python.

``data`` is bytes in Python and a uint8 array when compiled. A dictionary column keeps, per distinct text, where it stands in the block. Files
repeat themselves, so before hashing the text that followed the previous one last time is compared first (meters stay, times cycle).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import FunctionType
from typing import Any, Final

import numpy.typing as npt

#: bits of a row's status; 0 is a row the fast path vouches for
COLUMNS, NUMBER, CONTROL, HIGH, QUOTE, BLANK, LONG = 1, 2, 4, 8, 16, 32, 64

#: action of a column
IGNORE, VALUE = -1, -2

#: files at least this long are worth the compiler's start-up (about a second from its cache)
COMPILE_FROM_BYTES: Final = 400_000

Array = npt.NDArray[Any]


def read_number(data: Any, begin: int, end: int) -> tuple[int, int]:
    """Mantissa and number of decimals of a plain decimal of at most 18 digits; decimals -1 for anything else."""
    pos = begin
    negative = False
    if pos < end and (data[pos] == 45 or data[pos] == 43):
        negative = data[pos] == 45
        pos += 1
    mantissa = 0
    digits = 0
    while pos < end and 48 <= data[pos] <= 57:
        mantissa = mantissa * 10 + (data[pos] - 48)
        digits += 1
        pos += 1
        if digits > 18:
            return 0, -1
    decimals = 0
    if pos < end and data[pos] == 46:
        pos += 1
        while pos < end and 48 <= data[pos] <= 57:
            mantissa = mantissa * 10 + (data[pos] - 48)
            digits += 1
            decimals += 1
            pos += 1
            if digits > 18 or decimals > 12:
                return 0, -1
    if digits == 0 or pos != end:
        return 0, -1
    return (-mantissa if negative else mantissa), decimals


def read_numbers(data: Any, begins: Array, ends: Array, mantissa: Array, decimals: Array) -> None:
    """read_number of many stretches."""
    for i in range(begins.shape[0]):
        number, places = read_number(data, begins[i], ends[i])
        mantissa[i] = number
        decimals[i] = places


def lookup(
    data: Any, begin: int, length: int, k: int, table: Array, entry_begin: Array, entry_length: Array, counts: Array
) -> int:
    """The number of a text in dictionary k, entered if new. ``table`` is (K, 2**b), -1 where free, always less than half full."""
    mask = table.shape[1] - 1
    value = 2166136261
    for i in range(length):
        value = ((value ^ data[begin + i]) * 16777619) & 0xFFFFFFFF
    slot = (value ^ (value >> 15)) & mask
    while True:
        code = table[k, slot]
        if code < 0:
            code = counts[k]
            counts[k] = code + 1
            table[k, slot] = code
            entry_begin[k, code] = begin
            entry_length[k, code] = length
            return int(code)
        if entry_length[k, code] == length:
            other = entry_begin[k, code]
            same = True
            for i in range(length):
                if data[other + i] != data[begin + i]:
                    same = False
                    break
            if same:
                return int(code)
        slot = (slot + 1) & mask


def scan_delimited(
    data: Any, size: int, delimiter: int, quote: int, actions: Array, max_line: int, codes: Array, mantissa: Array, decimals: Array,
    starts: Array, status: Array, table: Array, entry_begin: Array, entry_length: Array, counts: Array, follows: Array, last: Array,
) -> int:  # fmt: skip
    """Split a block of lines. Returns the number of lines; the arrays hold one entry per line (``codes``: (K, lines))."""
    columns = actions.shape[0]
    kinds = codes.shape[0]
    pos = 0
    row = 0
    while pos < size:
        starts[row] = pos
        flags = 0
        column = 0
        decimals[row] = -1
        for k in range(kinds):
            codes[k, row] = -1
        ended = False
        while not ended:
            action = actions[column] if column < columns else IGNORE
            if action >= 0:
                guess = follows[action, last[action]] if last[action] >= 0 else -1
                if guess >= 0:
                    length = entry_length[action, guess]
                    stop = pos + length
                    if stop < size:
                        c = data[stop]
                        if c == delimiter or c == 10 or c == 13:
                            other = entry_begin[action, guess]
                            i = 0
                            while i < length and data[pos + i] == data[other + i]:
                                i += 1
                            if i == length:
                                codes[action, row] = guess
                                last[action] = guess
                                pos = stop
                                column += 1
                                if c == delimiter:
                                    pos += 1
                                    if column >= columns:
                                        flags |= COLUMNS
                                else:
                                    ended = True
                                continue
            begin = pos
            if pos < size and data[pos] == quote and quote != 0:
                pos += 1
                begin = pos
                while pos < size and data[pos] != quote and data[pos] != 10:
                    if data[pos] < 32 or data[pos] == 127:
                        flags |= CONTROL
                    elif data[pos] > 127:
                        flags |= HIGH
                    pos += 1
                end = pos
                if pos >= size or data[pos] == 10:
                    flags |= QUOTE
                else:
                    pos += 1
                    if pos < size and data[pos] != delimiter and data[pos] != 10 and data[pos] != 13:
                        flags |= QUOTE
                if flags & QUOTE:
                    while pos < size and data[pos] != 10:
                        pos += 1
                    ended = True
                    break
            else:
                while pos < size:
                    c = data[pos]
                    if c == delimiter or c == 10 or c == 13:
                        break
                    if c < 32 or c == 127:
                        flags |= CONTROL
                    elif c > 127:
                        flags |= HIGH
                    elif c == quote:
                        flags |= QUOTE
                    pos += 1
                end = pos
            if action == VALUE:
                number, places = read_number(data, begin, end)
                mantissa[row] = number
                decimals[row] = places
                if places < 0:
                    flags |= NUMBER
            elif action >= 0:
                known = counts[action]
                code = lookup(data, begin, end - begin, action, table, entry_begin, entry_length, counts)
                if code == known:
                    follows[action, code] = -1
                if last[action] >= 0:
                    follows[action, last[action]] = code
                last[action] = code
                codes[action, row] = code
            column += 1
            if pos < size and data[pos] == delimiter:
                pos += 1
                if column >= columns:
                    flags |= COLUMNS
            else:
                ended = True
        if pos < size and data[pos] == 13:
            pos += 1
            if pos < size and data[pos] != 10:
                flags |= CONTROL
        while pos < size and data[pos] != 10:
            pos += 1
        if column < columns:
            flags |= COLUMNS
        width = pos - starts[row]
        if width == 0 or (width == 1 and data[starts[row]] == 13):
            flags = BLANK
        elif width > max_line:
            flags |= LONG
        status[row] = flags
        pos += 1
        row += 1
    return row


def scan_json_lines(
    data: Any, size: int, keys: Any, key_begin: Array, key_actions: Array, max_line: int, codes: Array, mantissa: Array, decimals: Array,
    starts: Array, status: Array, table: Array, entry_begin: Array, entry_length: Array, counts: Array, follows: Array, last: Array,
) -> int:  # fmt: skip
    """Split a block of flat JSON objects, one a line. ``keys`` are the known keys end to end, key i from key_begin[i] to key_begin[i + 1].

    Anything but plain strings, numbers and null (escapes, nesting, a key twice) marks the line. Absent keys leave code -1.
    """
    known = key_actions.shape[0]
    kinds = codes.shape[0]
    pos = 0
    row = 0
    while pos < size:
        starts[row] = pos
        flags = 0
        decimals[row] = -1
        for k in range(kinds):
            codes[k, row] = -1
        seen = 0
        guess_key = 0
        while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 13):
            pos += 1
        blank = pos >= size or data[pos] == 10
        closed = False
        if not blank:
            if data[pos] == 123:
                pos += 1
            else:
                flags |= QUOTE
        while flags == 0 and not blank:
            while pos < size and (data[pos] == 32 or data[pos] == 9):
                pos += 1
            if pos >= size or data[pos] != 34:
                flags |= QUOTE
                break
            pos += 1
            begin = pos
            while pos < size and data[pos] != 34 and data[pos] != 92 and data[pos] >= 32 and data[pos] < 127:
                pos += 1
            if pos >= size or data[pos] != 34:
                flags |= QUOTE
                break
            length = pos - begin
            pos += 1
            found = -1
            for attempt in range(known):
                i = guess_key + attempt
                if i >= known:
                    i -= known
                if key_begin[i + 1] - key_begin[i] == length:
                    j = 0
                    while j < length and keys[key_begin[i] + j] == data[begin + j]:
                        j += 1
                    if j == length:
                        found = i
                        break
            if found >= 0:
                if seen >> found & 1:
                    flags |= QUOTE
                    break
                seen |= 1 << found
                guess_key = found + 1
            action = key_actions[found] if found >= 0 else IGNORE
            while pos < size and (data[pos] == 32 or data[pos] == 9):
                pos += 1
            if pos >= size or data[pos] != 58:
                flags |= QUOTE
                break
            pos += 1
            while pos < size and (data[pos] == 32 or data[pos] == 9):
                pos += 1
            if pos < size and data[pos] == 34:
                pos += 1
                begin = pos
                while pos < size and data[pos] != 34:
                    if data[pos] == 92 or data[pos] < 32 or data[pos] == 127:
                        flags |= QUOTE
                        break
                    if data[pos] > 127:
                        flags |= HIGH
                    pos += 1
                if pos >= size or flags & QUOTE:
                    flags |= QUOTE
                    break
                length = pos - begin
                pos += 1
            else:
                begin = pos
                while pos < size and data[pos] != 44 and data[pos] != 125 and data[pos] > 32 and data[pos] < 127:
                    pos += 1
                length = pos - begin
                if length == 4 and data[begin] == 110 and data[begin + 1] == 117 and data[begin + 2] == 108 and data[begin + 3] == 108:
                    length = 0
                else:
                    digits = begin + 1 if length > 0 and data[begin] == 45 else begin
                    if digits >= pos or not 48 <= data[digits] <= 57:
                        flags |= QUOTE
                        break
                    if data[digits] == 48 and digits + 1 < pos and 48 <= data[digits + 1] <= 57:
                        flags |= QUOTE
                        break
                    _, places = read_number(data, begin, pos)
                    if places < 0 or data[pos - 1] == 46:
                        flags |= QUOTE
                        break
            if action == VALUE:
                number, places = read_number(data, begin, begin + length)
                mantissa[row] = number
                decimals[row] = places
                if places < 0:
                    flags |= NUMBER
            elif action >= 0:
                guess = follows[action, last[action]] if last[action] >= 0 else -1
                code = -1
                if guess >= 0 and entry_length[action, guess] == length:
                    other = entry_begin[action, guess]
                    j = 0
                    while j < length and data[begin + j] == data[other + j]:
                        j += 1
                    if j == length:
                        code = guess
                if code < 0:
                    entered = counts[action]
                    code = lookup(data, begin, length, action, table, entry_begin, entry_length, counts)
                    if code == entered:
                        follows[action, code] = -1
                    if last[action] >= 0:
                        follows[action, last[action]] = code
                last[action] = code
                codes[action, row] = code
            while pos < size and (data[pos] == 32 or data[pos] == 9):
                pos += 1
            if pos < size and data[pos] == 44:
                pos += 1
            elif pos < size and data[pos] == 125:
                pos += 1
                closed = True
                break
            else:
                flags |= QUOTE
                break
        while pos < size and data[pos] != 10:
            if closed and data[pos] != 32 and data[pos] != 9 and data[pos] != 13:
                flags |= QUOTE
            pos += 1
        if blank:
            flags = BLANK
        elif not closed:
            flags |= QUOTE
        elif decimals[row] < 0:
            flags |= NUMBER
        if pos - starts[row] > max_line:
            flags |= LONG
        status[row] = flags
        pos += 1
        row += 1
    return row


#: rows of the record array of scan_nem12
R_LINE, R_BEGIN, R_DATE, R_FIRST, R_COUNT, R_TAIL, R_STATUS, R_DETAILS = range(8)
#: rows of its array of other lines; O_RECORD is the number of interval records before the line
O_LINE, O_BEGIN, O_END, O_KIND, O_RECORD = range(5)
#: status bits of an interval record
BAD_DATE, BAD_VALUES, BAD_CONTEXT, BAD_BYTES = 1, 2, 4, 8


def scan_nem12(
    data: Any, size: int, expected: int, max_line: int, records: Array, others: Array, mantissa: Array, decimals: Array,
    table: Array, entry_begin: Array, entry_length: Array, counts: Array,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Split a block of NEM12 lines.

    ``expected`` is the number of values a 300 record must have, from the last 200 record before the block (0: none); it is kept up to date from
    the interval length of each 200 record. Returns numbers of lines, records and other lines, and ``expected`` at the end. The text after the
    values is numbered in dictionary 0.
    """
    pos = 0
    line = 0
    record = 0
    other = 0
    value = 0
    details = -1
    while pos < size:
        begin = pos
        if (
            pos + 12 < size and data[pos] == 51 and data[pos + 1] == 48 and data[pos + 2] == 48 and data[pos + 3] == 44
            and data[pos + 12] == 44
        ):  # fmt: skip
            status = 0
            date = 0
            for i in range(4, 12):
                c = data[pos + i]
                if 48 <= c <= 57:
                    date = date * 10 + (c - 48)
                else:
                    status |= BAD_DATE
            pos += 13
            first = value
            if expected == 0:
                status |= BAD_CONTEXT
            while value - first < expected:
                negative = False
                if pos < size and (data[pos] == 45 or data[pos] == 43):
                    negative = data[pos] == 45
                    pos += 1
                number = 0
                digits = 0
                places = -1
                while pos < size:
                    c = data[pos]
                    if 48 <= c <= 57:
                        number = number * 10 + (c - 48)
                        digits += 1
                        if places >= 0:
                            places += 1
                    elif c == 46 and places < 0:
                        places = 0
                    else:
                        break
                    pos += 1
                    if digits > 18:
                        break
                if digits == 0 or digits > 18 or places > 12 or pos >= size or data[pos] != 44:
                    status |= BAD_VALUES
                    break
                mantissa[value] = -number if negative else number
                decimals[value] = places if places > 0 else 0
                value += 1
                pos += 1
            tail = pos
            while pos < size and data[pos] != 10:
                if data[pos] < 32 and data[pos] != 13:
                    status |= BAD_BYTES
                pos += 1
            end = pos
            if end > tail and data[end - 1] == 13:
                end -= 1
            if pos - begin > max_line:
                status |= BAD_BYTES
            if status != 0:
                value = first
            records[R_TAIL, record] = -1
            if status == 0:
                records[R_TAIL, record] = lookup(data, tail, end - tail, 0, table, entry_begin, entry_length, counts)
            records[R_LINE, record] = line
            records[R_BEGIN, record] = begin
            records[R_DATE, record] = date
            records[R_FIRST, record] = first
            records[R_COUNT, record] = value - first
            records[R_STATUS, record] = status
            records[R_DETAILS, record] = details
            record += 1
        else:
            kind = 0
            i = 0
            while i < 3 and pos + i < size and 48 <= data[pos + i] <= 57:
                kind = kind * 10 + (data[pos + i] - 48)
                i += 1
            if i < 3 or (pos + 3 < size and data[pos + 3] != 44 and data[pos + 3] != 13 and data[pos + 3] != 10):
                kind = -1
            commas = 0
            length = 0
            while pos < size and data[pos] != 10:
                if data[pos] == 44:
                    commas += 1
                elif commas == 8 and kind == 200:
                    length = length * 10 + (data[pos] - 48) if 48 <= data[pos] <= 57 and length < 10000 else -100000
                pos += 1
            if kind == 200:
                expected = 1440 // length if 0 < length <= 1440 and 1440 % length == 0 else 0
                details = other
            elif kind == 100 or kind == 900:
                expected = 0
                details = -2
            others[O_LINE, other] = line
            others[O_BEGIN, other] = begin
            others[O_END, other] = pos
            others[O_KIND, other] = kind
            others[O_RECORD, other] = record
            other += 1
        pos += 1
        line += 1
    return line, record, other, expected


_LOOPS: Final[tuple[Callable[..., Any], ...]] = (read_number, read_numbers, lookup, scan_delimited, scan_json_lines, scan_nem12)
_loops: dict[str, Callable[..., Any]] = {}
_lock = Lock()


def kernel(name: str, size: int) -> tuple[Callable[..., Any], bool]:
    """A loop by name, compiled when ``size`` bytes are worth it. The flag says whether it takes a uint8 array (True) or bytes."""
    if size < COMPILE_FROM_BYTES:
        return next(loop for loop in _LOOPS if loop.__name__ == name), False
    with _lock:
        if not _loops:
            _compile()
    return _loops[name], True


def _compile() -> None:
    """Wrap the loops for the compiler. They call each other by name, so the compiled ones get a namespace of their own."""
    import numba

    for loop in _LOOPS:  # in order of use: a compiled loop may call only compiled ones
        twin = FunctionType(loop.__code__, {**globals(), **_loops}, loop.__name__, loop.__defaults__)
        twin.__module__, twin.__qualname__ = loop.__module__, loop.__qualname__
        _loops[loop.__name__] = numba.njit(cache=True, nogil=True)(twin)
