"""The inner loop over a JSON document: where the wanted values of each record stand.

The document is walked byte by byte, with a stack of the objects and lists that are open. Paths that are wanted form a
tree of keys: ``node`` is a key's number in it, -1 for a value that is not read. A record ends with the innermost
object of a list that holds wanted values; what stands in the objects around it is filled in when those end, since a key
may come behind the list beside it. Lists of plain values under one object are read in step, a record for each place;
a list of plain values of which places are wanted is one record. Whatever is unusual (a quotation mark in a wanted
value, two lists of objects side by side, two documents on one line) ends the loop with ``UNUSUAL``: json_document.py
then reads the document the slow way, which also says what is wrong with it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: the document wants the slow way
UNUSUAL: Final = -1
#: there are more records than room for them
OVERFLOW: Final = -2
#: deepest nesting that the loop walks, and the most keys of an object
MAX_DEPTH: Final = 64
MAX_KEYS: Final = 64

_OBJECT: Final = 1
_LIST: Final = 2


def number_end(data: Any, begin: int, size: int) -> int:
    """Where the JSON number that begins at a byte ends; -1 where there is none."""
    pos = begin
    if pos < size and data[pos] == 45:
        pos += 1
    if pos >= size or not 48 <= data[pos] <= 57:
        return -1
    if data[pos] == 48:
        pos += 1
    else:
        while pos < size and 48 <= data[pos] <= 57:
            pos += 1
    if pos < size and data[pos] == 46:
        pos += 1
        if pos >= size or not 48 <= data[pos] <= 57:
            return -1
        while pos < size and 48 <= data[pos] <= 57:
            pos += 1
    if pos < size and (data[pos] == 101 or data[pos] == 69):
        pos += 1
        if pos < size and (data[pos] == 43 or data[pos] == 45):
            pos += 1
        if pos >= size or not 48 <= data[pos] <= 57:
            return -1
        while pos < size and 48 <= data[pos] <= 57:
            pos += 1
    return pos


def string_end(data: Any, begin: int, size: int) -> int:
    """Where the text that begins behind a quotation mark ends; -2 - end where it holds an escape; -1 where it is no
    JSON text."""
    pos = begin
    escaped = False
    while pos < size and data[pos] != 34:
        if data[pos] < 32:
            return -1
        if data[pos] == 92:
            escaped = True
            pos += 1
            if pos >= size:
                return -1
            c = data[pos]
            if c == 117:
                for _ in range(4):
                    pos += 1
                    if pos >= size:
                        return -1
                    c = data[pos]
                    if not (48 <= c <= 57 or 65 <= c <= 70 or 97 <= c <= 102):
                        return -1
            elif not (c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116):
                return -1
        pos += 1
    if pos >= size:
        return -1
    return -2 - pos if escaped else pos


def word_end(data: Any, pos: int, size: int) -> int:
    """Where true, false, null or a number that begins at a byte ends; -1 where there is none of them."""
    c = data[pos]
    if c == 116 and pos + 4 <= size and data[pos + 1] == 114 and data[pos + 2] == 117:
        return pos + 4 if data[pos + 3] == 101 else -1
    if c == 102 and pos + 5 <= size and data[pos + 1] == 97 and data[pos + 2] == 108:
        return pos + 5 if data[pos + 3] == 115 and data[pos + 4] == 101 else -1
    if c == 110 and pos + 4 <= size and data[pos + 1] == 117 and data[pos + 2] == 108:
        return pos + 4 if data[pos + 3] == 108 else -1
    return number_end(data, pos, size)


def plain_list(data: Any, begin: int, size: int, places: Array, found: Array, found_length: Array) -> tuple[int, int]:
    """Where the plain values of the list that begins behind a bracket stand: their number, and where the list ends.

    ``places``: an array of columns of ``found``, which the first values go to, -1 for none; where it is empty, value
    after value goes to ``found`` itself. Returns -1 where something else is in the list, -2 where there is no room.
    """
    pos = begin
    count = 0
    while True:
        while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
            pos += 1
        if pos >= size:
            return UNUSUAL, pos
        c = data[pos]
        if c == 93 and count == 0:
            return 0, pos + 1
        text = c == 34
        end = string_end(data, pos + 1, size) if text else word_end(data, pos, size)
        if end < 0:
            return UNUSUAL, pos
        at = count
        if places.shape[0] > 0:
            at = places[count] if count < places.shape[0] else -1
        elif count >= found.shape[0]:
            return OVERFLOW, pos
        if at >= 0:
            found[at] = -1 if c == 110 else pos + 1 if text else pos
            found_length[at] = end - pos - 1 if text else end - pos
        count += 1
        pos = end + 1 if text else end
        while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
            pos += 1
        if pos >= size:
            return UNUSUAL, pos
        if data[pos] == 93:
            return count, pos + 1
        if data[pos] != 44:
            return UNUSUAL, pos
        pos += 1


def scan_json_document(
    data: Any,
    size: int,
    keys: Any,
    key_begin: Array,
    key_column: Array,
    key_parent: Array,
    below: Array,
    number_column: Array,
    place_column: Array,
    number_at: Array,
    begins: Array,
    lengths: Array,
) -> int:
    """Fill ``begins`` and ``lengths`` (column, record) with where each wanted value stands; -1: the record has none.

    ``key_begin``: where each node's name begins in ``keys`` (one more than there are nodes); node 0 is the document
    itself. ``key_column``: the column a node's value fills, -1 where it is an object on the way. ``below`` (node,
    column): whether the column is of the node or one under it. ``number_column``: the column that the numbers of a
    node's values fill; ``place_column`` (node, place): those that single values of its lists fill; ``number_at``: where
    the text of each number stands in ``data``, behind the document. Returns the number of records, UNUSUAL or OVERFLOW.
    """
    nodes = key_parent.shape[0]
    columns = below.shape[1]
    kinds = np.zeros(MAX_DEPTH, np.int64)
    node_of = np.zeros(MAX_DEPTH, np.int64)
    first_row = np.zeros(MAX_DEPTH, np.int64)
    expanded = np.zeros(MAX_DEPTH, np.int64)
    listed = np.zeros(MAX_DEPTH, np.int64)  # length of an object's lists of plain values, -1: it has none
    in_list = np.zeros(columns, np.int64)
    apart = np.full(columns, -1, np.int64)
    apart_length = np.zeros(columns, np.int64)
    most = begins.shape[1]
    nowhere = np.zeros(0, np.int64)
    place_none = np.full(1, -1, np.int64)
    key_count = np.zeros(MAX_DEPTH, np.int64)
    key_at = np.zeros((MAX_DEPTH, MAX_KEYS), np.int64)
    key_size = np.zeros((MAX_DEPTH, MAX_KEYS), np.int64)
    pending = np.full(columns, -1, np.int64)
    pending_length = np.zeros(columns, np.int64)
    depth = 0
    rows = 0
    documents = 0
    broken = False  # a line end inside a document
    pos = 0
    while True:
        # between documents
        between = False
        while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
            if data[pos] == 10 or data[pos] == 13:
                between = True
            pos += 1
        if documents > 1 and broken:
            return UNUSUAL
        if pos >= size:
            return rows if documents > 0 else UNUSUAL
        if documents > 0 and (not between or broken):
            return UNUSUAL
        documents += 1
        node = 0
        # one value after another, until the document's own ends
        while True:
            while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
                if data[pos] == 10 or data[pos] == 13:
                    broken = True
                pos += 1
            if pos >= size:
                return UNUSUAL
            c = data[pos]
            ended = True
            plain = False
            if c == 91 and node >= 0:
                if key_column[node] >= 0 or number_column[node] >= 0:
                    # a list of plain values: a record for each
                    if depth == 0 or kinds[depth - 1] != _OBJECT or expanded[depth - 1] != 0:
                        return UNUSUAL
                    k = key_column[node]
                    if k >= 0:
                        count, end = plain_list(data, pos + 1, size, nowhere, begins[k, rows:], lengths[k, rows:])
                        in_list[k] = 1
                    else:
                        count, end = plain_list(data, pos + 1, size, place_none, apart, apart_length)
                    if count < 0:
                        return count
                    if listed[depth - 1] >= 0 and listed[depth - 1] != count:
                        return UNUSUAL
                    listed[depth - 1] = count
                    k = number_column[node]
                    if k >= 0:
                        if count >= number_at.shape[0]:
                            return UNUSUAL
                        if rows + count > most:
                            return OVERFLOW
                        for i in range(count):
                            begins[k, rows + i] = number_at[i]
                            lengths[k, rows + i] = number_at[i + 1] - number_at[i]
                        in_list[k] = 1
                    plain = True
                elif place_column.shape[1] > 0 and place_column[node].max() >= 0:
                    end = pos + 1
                    while end < size and (data[end] == 32 or data[end] == 9 or data[end] == 10 or data[end] == 13):
                        end += 1
                    if end < size and data[end] != 91 and data[end] != 123:
                        # a list of plain values: one record
                        apart[:] = -1
                        count, end = plain_list(data, pos + 1, size, place_column[node], apart, apart_length)
                        if count < 0:
                            return count
                        if count > 0:
                            if rows >= most:
                                return OVERFLOW
                            for k in range(columns):
                                begins[k, rows] = apart[k]
                                lengths[k, rows] = apart_length[k]
                            rows += 1
                        if depth > 0 and kinds[depth - 1] == _OBJECT:
                            if expanded[depth - 1] != 0 or listed[depth - 1] >= 0:
                                return UNUSUAL
                            expanded[depth - 1] = 1
                        plain = True
                if plain:
                    for i in range(pos, end):
                        if data[i] == 10 or data[i] == 13:
                            broken = True
                    pos = end
            if plain:
                pass
            elif c == 123 or c == 91:
                if depth >= MAX_DEPTH or (node > 0 and key_column[node] >= 0):
                    return UNUSUAL
                kinds[depth] = _OBJECT if c == 123 else _LIST
                node_of[depth] = node
                first_row[depth] = rows
                expanded[depth] = 0
                listed[depth] = -1
                key_count[depth] = 0
                if node >= 0 and c == 123:
                    for k in range(columns):
                        if below[node, k] != 0:
                            pending[k] = -1
                depth += 1
                pos += 1
                while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
                    if data[pos] == 10 or data[pos] == 13:
                        broken = True
                    pos += 1
                if pos >= size:
                    return UNUSUAL
                ended = data[pos] == 125 or data[pos] == 93
                if not ended and kinds[depth - 1] == _LIST:
                    continue  # its first element, of the same node
            elif c == 34:
                end = string_end(data, pos + 1, size)
                if end == -1 or (node >= 0 and end < 0 and key_column[node] >= 0):
                    return UNUSUAL
                if node > 0 and key_column[node] >= 0:
                    pending[key_column[node]] = pos + 1
                    pending_length[key_column[node]] = end - pos - 1
                pos = (end if end >= 0 else -2 - end) + 1
            else:
                end = word_end(data, pos, size)
                null = c == 110
                if end < 0:
                    return UNUSUAL
                if node > 0 and key_column[node] >= 0 and not null:
                    pending[key_column[node]] = pos
                    pending_length[key_column[node]] = end - pos
                pos = end
            if c != 123 and c != 91 and node >= 0 and (depth == 0 or kinds[depth - 1] == _LIST):
                return UNUSUAL  # a plain value in place of a record
            # what comes behind the value: the end of what holds it, the next element, the next key
            while ended and depth > 0:
                while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
                    if data[pos] == 10 or data[pos] == 13:
                        broken = True
                    pos += 1
                if pos >= size:
                    return UNUSUAL
                top = depth - 1
                c = data[pos]
                if (c == 125 and kinds[top] == _OBJECT) or (c == 93 and kinds[top] == _LIST):
                    pos += 1
                    own = node_of[top]
                    depth -= 1
                    if own < 0:
                        continue
                    within = depth > 0 and kinds[depth - 1] == _OBJECT
                    if kinds[top] == _LIST:
                        for k in range(columns):
                            if below[own, k] != 0:
                                pending[k] = -1
                        if within:
                            if expanded[depth - 1] != 0 or listed[depth - 1] >= 0:
                                return UNUSUAL
                            expanded[depth - 1] = 1
                        continue
                    if listed[top] >= 0:
                        if expanded[top] != 0:
                            return UNUSUAL
                        last = rows + listed[top]
                        if last > most:
                            return OVERFLOW
                        for k in range(columns):
                            if in_list[k] == 0:
                                for row in range(rows, last):
                                    begins[k, row] = pending[k] if below[own, k] != 0 else -1
                                    lengths[k, row] = pending_length[k]
                            in_list[k] = 0
                            if below[own, k] != 0:
                                pending[k] = -1
                        rows = last
                        if within:
                            if expanded[depth - 1] != 0 or listed[depth - 1] >= 0:
                                return UNUSUAL
                            expanded[depth - 1] = 1
                    elif expanded[top] != 0:
                        for k in range(columns):
                            if below[own, k] != 0 and pending[k] >= 0:
                                for row in range(first_row[top], rows):
                                    begins[k, row] = pending[k]
                                    lengths[k, row] = pending_length[k]
                                pending[k] = -1
                        if within:
                            if expanded[depth - 1] != 0 or listed[depth - 1] >= 0:
                                return UNUSUAL
                            expanded[depth - 1] = 1
                    elif not within:
                        if rows >= most:
                            return OVERFLOW
                        for k in range(columns):
                            begins[k, rows] = pending[k] if below[own, k] != 0 else -1
                            lengths[k, rows] = pending_length[k]
                        rows += 1
                    continue
                if c != 44:
                    return UNUSUAL
                pos += 1
                break
            if depth == 0:
                break
            top = depth - 1
            if kinds[top] == _LIST:
                node = node_of[top]
                continue
            # a key
            while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
                if data[pos] == 10 or data[pos] == 13:
                    broken = True
                pos += 1
            if pos >= size or data[pos] != 34:
                return UNUSUAL
            begin = pos + 1
            end = string_end(data, begin, size)
            if end < 0 or key_count[top] >= MAX_KEYS:
                return UNUSUAL
            for k in range(key_count[top]):
                if key_size[top, k] != end - begin:
                    continue
                i = 0
                while i < end - begin and data[key_at[top, k] + i] == data[begin + i]:
                    i += 1
                if i == end - begin:
                    return UNUSUAL  # a key that occurs twice
            key_at[top, key_count[top]] = begin
            key_size[top, key_count[top]] = end - begin
            key_count[top] += 1
            node = -1
            parent = node_of[top]
            if parent >= 0:
                for each in range(1, nodes):
                    if key_parent[each] != parent or key_begin[each + 1] - key_begin[each] != end - begin:
                        continue
                    i = 0
                    while i < end - begin and keys[key_begin[each] + i] == data[begin + i]:
                        i += 1
                    if i == end - begin:
                        node = each
                        break
            pos = end + 1
            while pos < size and (data[pos] == 32 or data[pos] == 9 or data[pos] == 10 or data[pos] == 13):
                if data[pos] == 10 or data[pos] == 13:
                    broken = True
                pos += 1
            if pos >= size or data[pos] != 58:
                return UNUSUAL
            pos += 1


def unescaped(data: Any, size: int, out: Array) -> int:
    """Write a document with the characters that escapes stand for, where they need none; returns the bytes written.

    Quotation marks, backslashes, control characters and halves of surrogate pairs keep their escapes.
    """
    at = 0
    pos = 0
    text = False
    while pos < size:
        c = data[pos]
        if c == 34:
            text = not text
        if c != 92 or not text or pos + 1 >= size:
            out[at] = c
            at += 1
            pos += 1
            continue
        kind = data[pos + 1]
        step = 2
        code = 47 if kind == 47 else -1
        if kind == 117:
            code = hex_code(data, pos + 2, size)
            step = 6
            if 0xD800 <= code < 0xDC00 and pos + 8 <= size and data[pos + 6] == 92 and data[pos + 7] == 117:
                low = hex_code(data, pos + 8, size)
                if 0xDC00 <= low < 0xE000:
                    code = 0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00
                    step = 12
        if code < 32 or code == 34 or code == 92 or 0xD800 <= code < 0xE000:
            out[at] = c
            out[at + 1] = kind
            at += 2
            pos += 2
            continue
        if code < 0x80:
            out[at] = code
            at += 1
        elif code < 0x800:
            out[at] = 0xC0 | code >> 6
            out[at + 1] = 0x80 | code & 63
            at += 2
        elif code < 0x10000:
            out[at] = 0xE0 | code >> 12
            out[at + 1] = 0x80 | code >> 6 & 63
            out[at + 2] = 0x80 | code & 63
            at += 3
        else:
            out[at] = 0xF0 | code >> 18
            out[at + 1] = 0x80 | code >> 12 & 63
            out[at + 2] = 0x80 | code >> 6 & 63
            out[at + 3] = 0x80 | code & 63
            at += 4
        pos += step
    return at


def hex_code(data: Any, pos: int, size: int) -> int:
    """The number that four hexadecimal digits say; -1 where there are none."""
    if pos + 4 > size:
        return -1
    code = 0
    for i in range(4):
        c = int(data[pos + i])
        if 48 <= c <= 57:
            digit = c - 48
        elif 65 <= c <= 70:
            digit = c - 55
        elif 97 <= c <= 102:
            digit = c - 87
        else:
            return -1
        code = code * 16 + digit
    return code


def write_records(data: Any, begins: Array, lengths: Array, rows: int, delimiter: int, mark: int, out: Array) -> int:
    """Write records as lines of delimited text; returns the bytes written. ``mark``: what numbers have in place of
    the point; texts keep theirs."""
    at = 0
    columns = begins.shape[0]
    for row in range(rows):
        for k in range(columns):
            if k > 0:
                out[at] = delimiter
                at += 1
            begin = begins[k, row]
            if begin >= 0:
                number = mark != 46 and data[begin - 1] != 34
                for i in range(begin, begin + lengths[k, row]):
                    out[at] = mark if number and data[i] == 46 else data[i]
                    at += 1
        out[at] = 10
        at += 1
    return at
