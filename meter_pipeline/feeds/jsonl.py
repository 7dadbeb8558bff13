"""JSON Lines: one flat object a line, keys mapped by the head-end's ``columns``.

A number may be a JSON number or a string holding one. An absent or null key is an empty field. Escapes, nesting and
exponents are read by the careful path; a mapped field that is an object, a list or a boolean is refused, and so is a
key that occurs twice.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled, kernels
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Block, Limits, fetch_lines, limits_of, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.rejects import FeedRefused, Reason, shown
from meter_pipeline.feeds.rows import CODED_FIELDS, FIELDS, RowReader
from meter_pipeline.feeds.scanning import Scanned, Work, byte_reasons, field_reasons, scan_all
from meter_pipeline.schemas.reads import ParsedFeed

_MAX_KEYS: Final = 60


class _Duplicate(ValueError):
    """A key occurs twice."""


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse a JSON Lines file into interval or register reads (``head_end.kind``). Raises HeadEndError, FeedRefused."""
    limits = limits_of(head_end.options, limits)
    unknown = sorted(set(head_end.columns) - set(FIELDS))
    if unknown or "value" not in head_end.columns:
        raise HeadEndError(
            f"{head_end.name}: columns: "
            + (f"unknown field {', '.join(unknown)}" if unknown else "value is not mapped")
        )
    varying = tuple(name for name in CODED_FIELDS if name in head_end.columns)
    reader = RowReader(head_end, varying)
    encoded = [head_end.columns[name].encode("utf-8") for name in (*varying, "value")]
    if len(set(encoded)) != len(encoded) or len(encoded) > _MAX_KEYS:
        raise HeadEndError(f"{head_end.name}: columns: two fields from one key")
    with open_feed(path, limits, head_end.encoding) as opened:
        if not opened.size:
            raise FeedRefused("empty_file", "0 bytes")
        scan_all(
            line_blocks(opened.source, limits),
            lambda block: _scan_block(block, encoded, limits, opened.size),
            reader,
            partial(_careful, reader, limits),
            limits,
            opened.size,
        )
    parsed = reader.finish(partial(fetch_lines, path, head_end.encoding, limits))
    parsed.sha256 = opened.sha256
    if not parsed.received:
        raise FeedRefused("empty_file", f"{opened.size} bytes, no line of text")
    return parsed


def _scan_block(block: Block, keys: list[bytes], limits: Limits, size: int) -> Scanned:
    actions = np.array([*range(len(keys) - 1), kernels.VALUE], np.int32)
    begins = np.cumsum([0, *map(len, keys)]).astype(np.int64)
    work = Work(block, len(keys) - 1)
    loop, fast = compiled.kernel("scan_json_lines", max(size, len(block.data)))
    joined = b"".join(keys)
    data: Any = np.frombuffer(block.data, np.uint8) if fast else block.data
    known: Any = np.frombuffer(joined, np.uint8) if fast else joined
    return work.scan(loop, data, len(block.data), known, begins, actions, limits.max_line_bytes)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Duplicate(next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])))
    return made


class _Constant(str):
    """NaN, Infinity or -Infinity, which JSON does not have."""


class _Number(str):
    """A JSON number, as its text."""


def _careful(reader: RowReader, limits: Limits, raw: bytes, line: int, offset: int) -> list[Reason]:
    """Read one line by the careful way; returns every reason it is refused for, or keeps it and returns none."""
    reasons = byte_reasons(raw, limits)
    if reasons and reasons[0].code == "line_too_long":
        return reasons
    try:
        row = json.loads(
            raw.decode("utf-8", "replace"),
            parse_float=_Number,
            parse_int=_Number,
            parse_constant=_Constant,
            object_pairs_hook=_pairs,
        )
    except _Duplicate as error:
        return [*reasons, Reason("duplicate_key", shown(str(error)))]
    except (ValueError, RecursionError) as error:
        return [*reasons, Reason("bad_json", shown(str(error)))]
    if not isinstance(row, dict):
        return [*reasons, Reason("bad_json", "not an object")]
    fields: dict[str, str] = {}
    for ours in (*reader.varying, "value"):
        value = row.get(reader.head_end.columns[ours])
        if value is not None and not isinstance(value, str):
            reasons.append(Reason("bad_json", f"{ours} is {shown(str(value))}"))
        fields[ours] = value if isinstance(value, str) else ""
    if reasons:
        return reasons + [more for more in field_reasons(reader, fields) if more not in reasons]
    return reader.add_fields(fields, line, offset)
