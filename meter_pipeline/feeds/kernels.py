"""The inner loops over bytes: delimited rows and JSON Lines to dictionary codes and scaled integers.

``data`` is bytes in Python and a uint8 array when compiled. A dictionary column keeps, per distinct text, where it
stands in the block. Files repeat themselves, so before hashing the text that followed the previous one last time is
compared first (meters stay, times cycle).
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

#: bits of a row's status; 0 is a row the fast path vouches for
COLUMNS, NUMBER, CONTROL, HIGH, QUOTE, BLANK, LONG, CUT = 1, 2, 4, 8, 16, 32, 64, 128

#: action of a column: VALUE is the first number of a row, VALUE - 1 the second, and so on; DESCEND is a JSON key whose
#: object holds more keys
IGNORE, VALUE, DESCEND = -1, -2, -1_000_000

#: decimals where a value's place is empty
EMPTY = -2

Array = npt.NDArray[Any]


def read_number(data: Any, begin: int, end: int, point: int, thousands: int) -> tuple[int, int]:
    """Mantissa and number of decimals of a plain decimal of at most 18 digits that count (zeros at either end do not);
    decimals -1 for anything else. ``thousands`` (0: none) must have three digits behind it."""
    pos = begin
    negative = False
    if pos < end and (data[pos] == 45 or data[pos] == 43):
        negative = data[pos] == 45
        pos += 1
    mantissa = 0
    digits = 0
    whole = 0
    while pos < end:
        c = data[pos]
        if 48 <= c <= 57:
            mantissa = mantissa * 10 + (c - 48)
            whole += 1
            if mantissa > 0:
                digits += 1
                if digits > 18:
                    return 0, -1
        elif c == thousands and thousands != 0 and whole > 0:
            if pos + 3 >= end or not (
                48 <= data[pos + 1] <= 57 and 48 <= data[pos + 2] <= 57 and 48 <= data[pos + 3] <= 57
            ):
                return 0, -1
            if pos + 4 < end and 48 <= data[pos + 4] <= 57:
                return 0, -1
        else:
            break
        pos += 1
    decimals = 0
    if pos < end and data[pos] == point:
        pos += 1
        zeros = 0
        while pos < end and 48 <= data[pos] <= 57:
            whole += 1
            if data[pos] == 48:
                zeros += 1
            else:
                decimals += zeros + 1
                if mantissa > 0:
                    digits += zeros
                digits += 1
                if digits > 18 or decimals > 18:
                    return 0, -1
                while zeros > 0:
                    mantissa *= 10
                    zeros -= 1
                mantissa = mantissa * 10 + (data[pos] - 48)
            pos += 1
    if whole == 0 or pos != end:
        return 0, -1
    return (-mantissa if negative else mantissa), decimals


def read_short(data: Any, begin: int, size: int, point: int, delimiter: int) -> tuple[int, int, int]:
    """A field that is a plain number of at most 15 digits and nothing else, as read_number has it, and where it ends;
    -1 for any other field. It saves the common value a first pass that looks for the field's end."""
    pos = begin
    negative = pos < size and data[pos] == 45
    if negative:
        pos += 1
    first = pos
    number = 0
    while pos < size and 48 <= data[pos] <= 57:
        number = number * 10 + (data[pos] - 48)
        pos += 1
    whole = pos - first
    if whole == 0 or whole > 15:
        return 0, 0, -1
    places = 0
    if pos < size and data[pos] == point:
        pos += 1
        zeros = 0
        while pos < size and 48 <= data[pos] <= 57:
            if data[pos] == 48:
                zeros += 1
            else:
                places += zeros + 1
                if whole + places > 15:
                    return 0, 0, -1
                while zeros > 0:
                    number *= 10
                    zeros -= 1
                number = number * 10 + (data[pos] - 48)
            pos += 1
    if pos < size and (data[pos] == delimiter or data[pos] == 10 or data[pos] == 13):
        return (-number if negative else number), places, pos
    return 0, 0, -1


def lookup(
    data: Any, begin: int, length: int, k: int, table: Array, entry_begin: Array, entry_length: Array, counts: Array
) -> int:
    """The number of a text in dictionary k, entered if new. ``table`` is (K, 2**b), -1 where free, always less than
    half full."""
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
    data: Any,
    size: int,
    marks: Array,
    actions: Array,
    max_line: int,
    codes: Array,
    mantissa: Array,
    decimals: Array,
    starts: Array,
    status: Array,
    table: Array,
    entry_begin: Array,
    entry_length: Array,
    counts: Array,
    follows: Array,
    last: Array,
) -> int:
    """Split a block of lines. Returns the number of lines; the arrays hold one entry per line (``codes``: (K, lines),
    ``mantissa`` and ``decimals``: (V, lines)). -1: ``table`` is too small.

    ``marks``: delimiter, quote (0: none), decimal mark, thousands mark (0: none), 1 where blanks around a field do not
    count. ``actions``: per column a dictionary from 0, IGNORE, or VALUE less the number of the value. Decimals are
    EMPTY where no number stands.
    """
    delimiter, quote, point, thousands, trim = marks[0], marks[1], marks[2], marks[3], marks[4]
    columns = actions.shape[0]
    kinds = codes.shape[0]
    values = decimals.shape[0]
    pos = 0
    row = 0
    while pos < size:
        starts[row] = pos
        flags = 0
        column = 0
        for v in range(values):
            decimals[v, row] = -1
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
                                        i = pos
                                        while i < size and (data[i] == delimiter or data[i] == 32):
                                            i += 1
                                        if i >= size or data[i] == 10 or data[i] == 13:
                                            pos = i
                                            ended = True
                                        else:
                                            flags |= COLUMNS
                                else:
                                    ended = True
                                continue
            stop = -1
            if action <= VALUE and point != delimiter:
                number, places, stop = read_short(data, pos, size, point, delimiter)
            if stop >= 0:
                mantissa[VALUE - action, row] = number
                decimals[VALUE - action, row] = places
                pos = stop
            else:
                begin = pos
                if trim != 0:
                    while pos < size and (data[pos] == 32 or data[pos] == 9) and data[pos] != delimiter:
                        pos += 1
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
                        if trim != 0:
                            while pos < size and (data[pos] == 32 or data[pos] == 9) and data[pos] != delimiter:
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
                        elif c == quote and quote != 0:
                            flags |= QUOTE
                        pos += 1
                    end = pos
                if trim != 0:
                    while begin < end and (data[begin] == 32 or data[begin] == 9):
                        begin += 1
                    while end > begin and (data[end - 1] == 32 or data[end - 1] == 9):
                        end -= 1
                if action <= VALUE:
                    number, places = read_number(data, begin, end, point, thousands)
                    if begin == end:
                        places = EMPTY
                    mantissa[VALUE - action, row] = number
                    decimals[VALUE - action, row] = places
                    if places == -1:
                        flags |= NUMBER
                elif action >= 0:
                    known = counts[action]
                    code = lookup(data, begin, end - begin, action, table, entry_begin, entry_length, counts)
                    if code == known:
                        follows[action, code] = -1
                        if 2 * code >= table.shape[1]:
                            return -1
                    if last[action] >= 0:
                        follows[action, last[action]] = code
                    last[action] = code
                    codes[action, row] = code
            column += 1
            if pos < size and data[pos] == delimiter:
                pos += 1
                if column >= columns:
                    i = pos
                    while i < size and (data[i] == delimiter or data[i] == 32):
                        i += 1
                    if i >= size or data[i] == 10 or data[i] == 13:
                        pos = i
                        ended = True
                    else:
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
    data: Any,
    size: int,
    keys: Any,
    key_begin: Array,
    key_actions: Array,
    key_parents: Array,
    marks: Array,
    max_line: int,
    codes: Array,
    mantissa: Array,
    decimals: Array,
    starts: Array,
    status: Array,
    table: Array,
    entry_begin: Array,
    entry_length: Array,
    counts: Array,
    follows: Array,
    last: Array,
) -> int:
    """Split a block of JSON objects, one a line. ``keys`` are the known keys end to end, key i from key_begin[i] to
    key_begin[i + 1], below the key key_parents[i] (-1: of the object itself); ``marks`` as in scan_delimited, for
    numbers written as strings.

    Anything but plain strings, numbers and null where a known key stands (escapes, lists, a key twice) marks the line;
    objects and lists under other keys are passed over. Absent keys leave code -1 and decimals EMPTY. Returns the number
    of lines, or -1 where ``table`` is too small.
    """
    point, thousands = marks[2], marks[3]
    known = key_actions.shape[0]
    kinds = codes.shape[0]
    values = decimals.shape[0]
    pos = 0
    row = 0
    while pos < size:
        starts[row] = pos
        flags = 0
        for v in range(values):
            decimals[v, row] = EMPTY
            mantissa[v, row] = 0
        for k in range(kinds):
            codes[k, row] = -1
        seen = 0
        guess_key = 0
        here = -1
        while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 13):
            pos += 1
        blank = pos >= size or data[pos] == 10
        closed = False
        entered_object = False
        if not blank:
            if data[pos] == 123:
                pos += 1
            else:
                flags |= QUOTE
        while flags & QUOTE == 0 and not blank:
            while pos < size and (data[pos] == 32 or data[pos] == 9):
                pos += 1
            if not (entered_object and pos < size and data[pos] == 125):
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
                    if key_begin[i + 1] - key_begin[i] == length and key_parents[i] == here:
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
                entered_object = False
                if pos < size and (data[pos] == 123 or data[pos] == 91):
                    if action == DESCEND and data[pos] == 123:
                        pos += 1
                        here = found
                        entered_object = True
                        continue
                    if action != IGNORE:
                        flags |= QUOTE
                        break
                    depth = 0
                    inside = False
                    while pos < size and data[pos] >= 32 and data[pos] != 92:
                        c = data[pos]
                        if c == 34:
                            inside = not inside
                        elif not inside:
                            if c == 123 or c == 91:
                                depth += 1
                            elif c == 125 or c == 93:
                                depth -= 1
                        if c > 127:
                            flags |= HIGH
                        pos += 1
                        if depth == 0:
                            break
                    if depth != 0:
                        flags |= QUOTE
                        break
                else:
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
                        number, places = 0, -1
                        if action <= VALUE and action > DESCEND:
                            number, places = read_number(data, begin, begin + length, point, thousands)
                    else:
                        begin = pos
                        while (
                            pos < size and data[pos] != 44 and data[pos] != 125 and data[pos] > 32 and data[pos] < 127
                        ):
                            pos += 1
                        length = pos - begin
                        number, places = 0, -1
                        word = length == 4 or length == 5
                        if (
                            length == 4
                            and data[begin] == 110
                            and data[begin + 1] == 117
                            and data[begin + 2] == 108
                            and data[begin + 3] == 108
                        ):
                            length = 0
                        elif (
                            word
                            and action == IGNORE
                            and (data[begin] == 116 or data[begin] == 102)
                            and data[begin + length - 1] == 101
                        ):
                            places = 0  # true or false under a key that is not read
                        else:
                            digits = begin + 1 if length > 0 and data[begin] == 45 else begin
                            if digits >= pos or not 48 <= data[digits] <= 57:
                                flags |= QUOTE
                                break
                            if data[digits] == 48 and digits + 1 < pos and 48 <= data[digits + 1] <= 57:
                                flags |= QUOTE
                                break
                            number, places = read_number(data, begin, pos, 46, 0)
                            if places < 0 or data[pos - 1] == 46:
                                flags |= QUOTE
                                break
                    if action <= VALUE and action > DESCEND:
                        if length == 0:
                            places = EMPTY
                        mantissa[VALUE - action, row] = number
                        decimals[VALUE - action, row] = places
                        if places == -1:
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
                                if 2 * code >= table.shape[1]:
                                    return -1
                            if last[action] >= 0:
                                follows[action, last[action]] = code
                        last[action] = code
                        codes[action, row] = code
                    elif action == DESCEND and length != 0:
                        flags |= QUOTE  # a value where an object was declared
                        break
            entered_object = False
            another = False
            while pos < size and flags & QUOTE == 0:
                while pos < size and (data[pos] == 32 or data[pos] == 9):
                    pos += 1
                if pos < size and data[pos] == 44:
                    pos += 1
                    another = True
                    break
                if pos < size and data[pos] == 125:
                    pos += 1
                    if here < 0:
                        closed = True
                        break
                    here = key_parents[here]
                else:
                    flags |= QUOTE
            if not another:
                break
        while pos < size and data[pos] != 10:
            if closed and data[pos] != 32 and data[pos] != 9 and data[pos] != 13:
                flags |= QUOTE
            pos += 1
        if blank:
            flags = BLANK
        elif not closed:
            flags |= QUOTE
        if pos - starts[row] > max_line:
            flags |= LONG
        status[row] = flags
        pos += 1
        row += 1
    return row
