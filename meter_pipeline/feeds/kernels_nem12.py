"""The inner loop over NEM12 records."""

from __future__ import annotations

from typing import Any

from meter_pipeline.feeds.kernels import Array, lookup

#: rows of the record array of scan_nem12
R_LINE, R_BEGIN, R_DATE, R_FIRST, R_COUNT, R_TAIL, R_STATUS, R_DETAILS = range(8)
#: rows of its array of other lines; O_RECORD is the number of interval records before the line
O_LINE, O_BEGIN, O_END, O_KIND, O_RECORD = range(5)
#: status bits of an interval record
BAD_DATE, BAD_VALUES, BAD_CONTEXT, BAD_BYTES = 1, 2, 4, 8


def scan_nem12(
    data: Any,
    size: int,
    expected: int,
    max_line: int,
    records: Array,
    others: Array,
    mantissa: Array,
    decimals: Array,
    table: Array,
    entry_begin: Array,
    entry_length: Array,
    counts: Array,
) -> tuple[int, int, int, int]:
    """Split a block of NEM12 lines.

    ``expected`` is the number of values a 300 record must have, from the last 200 record before the block (0: none); it
    is kept up to date from the interval length of each 200 record. Returns numbers of lines, records and other lines,
    and ``expected`` at the end. The text after the values is numbered in dictionary 0.
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
            pos + 12 < size
            and data[pos] == 51
            and data[pos + 1] == 48
            and data[pos + 2] == 48
            and data[pos + 3] == 44
            and data[pos + 12] == 44
        ):
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
                while pos < size and data[pos] == 32:
                    pos += 1
                negative = False
                if pos < size and (data[pos] == 45 or data[pos] == 43):
                    negative = data[pos] == 45
                    pos += 1
                number = 0
                digits = 0
                seen = False
                zeros = 0
                places = -1
                while pos < size:
                    c = data[pos]
                    if 48 <= c <= 57:
                        seen = True
                        if c == 48 and places >= 0:
                            zeros += 1  # counted once a digit follows: zeros at the end say nothing
                        else:
                            if places >= 0:
                                places += zeros + 1
                            if number > 0:
                                digits += zeros
                            while zeros > 0 and digits < 19:
                                number *= 10
                                zeros -= 1
                            number = number * 10 + (c - 48)
                            if number > 0:
                                digits += 1
                    elif c == 46 and places < 0:
                        places = 0
                    else:
                        break
                    pos += 1
                    if digits > 18:
                        break
                places = max(places, 0)
                if seen and digits <= 18 and pos + 1 < size and (data[pos] == 69 or data[pos] == 101):
                    pos += 1
                    shrinks = data[pos] == 45
                    if shrinks or data[pos] == 43:
                        pos += 1
                    power = 0
                    seen = False
                    while pos < size and 48 <= data[pos] <= 57 and power < 100:
                        seen = True
                        power = power * 10 + (data[pos] - 48)
                        pos += 1
                    places += power if shrinks else -power
                    while places < 0 and digits <= 18:
                        number *= 10
                        digits += 1 if number > 0 else 0
                        places += 1
                    if number == 0:
                        places = 0
                while pos < size and data[pos] == 32:
                    pos += 1
                if not seen or digits > 18 or places > 18 or pos >= size or data[pos] != 44:
                    status |= BAD_VALUES
                    break
                mantissa[value] = -number if negative else number
                decimals[value] = places
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
