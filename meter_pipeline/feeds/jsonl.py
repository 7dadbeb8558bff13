"""JSON Lines: one object a line, keys mapped by the head-end's ``columns``; a key of a nested object is named with
points (``Message.Consumption``), a point that belongs to a key with a backslash before it (``regs.1\\.8\\.0``).

A number may be a JSON number or a string holding one. An absent or null key is an empty field. Escapes and exponents
are read by the careful path; a mapped field that is an object, a list or a boolean is refused, and so is a key that
occurs twice. Keys that are not mapped may hold anything. Documents that are not one object a line, and lists of reads
inside an object, are format ``json`` (json_document.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled, kernels
from meter_pipeline.feeds.control_totals import check_totals
from meter_pipeline.feeds.delimited import careful_row, marks_of
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Block, Limits, fetch_lines, limits_of, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.json_records import steps_of
from meter_pipeline.feeds.rejects import FeedRefused, Reason, shown
from meter_pipeline.feeds.row_plan import RowPlan, plan_of
from meter_pipeline.feeds.rows import RowReader
from meter_pipeline.feeds.scanned import ScanBuffers, Scanned
from meter_pipeline.feeds.scanning import byte_reasons, scan_all
from meter_pipeline.feeds.stamp_rules import StampRules
from meter_pipeline.schemas.reads import ParsedFeed

_MAX_KEYS: Final = 60


class Duplicate(ValueError):
    """A key occurs twice."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The mapped keys as the inner loop takes them: their names end to end, the use of each, and the key above it."""

    names: bytes
    begins: npt.NDArray[np.int64]
    actions: npt.NDArray[np.int32]
    parents: npt.NDArray[np.int32]

    @classmethod
    def of(cls, plan: RowPlan, name: str) -> Keys:
        """Raises HeadEndError where two fields come from one key, or a key is both a value and an object."""
        found: dict[tuple[str, ...], int] = {}
        actions: list[int] = []
        wanted = [(source.name, k) for k, source in enumerate(plan.sources)]
        wanted += [(number.source.name, kernels.VALUE - v) for v, number in enumerate(plan.numbers)]
        for path, action in wanted:
            steps = steps_of(path)
            for depth in range(1, len(steps) + 1):
                whole = depth == len(steps)
                at = found.setdefault(steps[:depth], len(actions))
                if at == len(actions):
                    actions.append(action if whole else kernels.DESCEND)
                elif whole or actions[at] != kernels.DESCEND:
                    raise HeadEndError(f"{name}: columns: two fields from one key")
        if len(actions) > _MAX_KEYS:
            raise HeadEndError(f"{name}: columns: more than {_MAX_KEYS} keys")
        encoded = [steps[-1].encode("utf-8") for steps in found]
        parents = [found[steps[:-1]] if len(steps) > 1 else -1 for steps in found]
        begins = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
        return cls(b"".join(encoded), begins, np.array(actions, np.int32), np.array(parents, np.int32))


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse a JSON Lines file into interval or register reads (``head_end.kind``). Raises HeadEndError, FeedRefused."""
    limits = limits_of(head_end.options, limits)
    if head_end.day_columns is not None:
        raise HeadEndError(f"{head_end.name}: day_columns: a day in a row is for delimited text; use format json")
    plan = plan_of(head_end)
    keys = Keys.of(plan, head_end.name)
    try:
        stamps = StampRules(head_end, plan.stamp)
    except ValueError as error:
        raise HeadEndError(f"{head_end.name}: {error}") from error
    reader = RowReader(head_end, plan.varying, stamps)
    with open_feed(path, limits, head_end.encoding) as opened:
        if not opened.size:
            raise FeedRefused("empty_file", "0 bytes")
        scan_all(
            line_blocks(opened.source, limits),
            lambda block: _scan_block(block, keys, plan, head_end, limits, opened.size),
            reader,
            plan,
            partial(_careful, reader, plan, limits),
            limits,
            opened.size,
        )
    parsed = reader.finish(
        partial(fetch_lines, path, head_end.encoding, limits),
        lambda rows: check_totals(head_end, reader, rows, reader.noted),
    )
    parsed.sha256 = opened.sha256
    if not parsed.received and not parsed.skipped:
        if reader.rows:
            named = ", ".join(number.source.name for number in plan.numbers)
            raise FeedRefused("missing_value", f"no line has a value under {shown(named)}")
        raise FeedRefused("empty_file", f"{opened.size} bytes, no line of text")
    return parsed


def _scan_block(block: Block, keys: Keys, plan: RowPlan, head_end: HeadEnd, limits: Limits, size: int) -> Scanned:
    work = ScanBuffers(block, len(plan.sources), len(plan.numbers))
    loop, fast = compiled.kernel("scan_json_lines", max(size, len(block.data)))
    data: Any = np.frombuffer(block.data, np.uint8) if fast else block.data
    known: Any = np.frombuffer(keys.names, np.uint8) if fast else keys.names
    marks = marks_of(head_end)
    return work.scan(
        loop, data, len(block.data), known, keys.begins, keys.actions, keys.parents, marks, limits.max_line_bytes
    )


def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys and values; a key that occurs twice is an error."""
    made = dict(found)
    if len(made) != len(found):
        raise Duplicate(next(key for i, (key, _) in enumerate(found) if key in dict(found[:i])))
    return made


class _Constant(str):
    """NaN, Infinity or -Infinity, which JSON does not have."""


class Number(str):
    """A JSON number, as its text."""


def _careful(
    reader: RowReader, plan: RowPlan, limits: Limits, raw: bytes, line: int, offset: int
) -> tuple[list[Reason], int]:
    """Read one line by the careful way; returns every reason it is refused for and the reads that costs, or keeps it
    and returns none."""
    reasons = byte_reasons(raw, limits)
    if reasons and reasons[0].code == "line_too_long":
        return reasons, 1
    try:
        row = json.loads(
            raw.decode("utf-8", "replace"),
            parse_float=Number,
            parse_int=Number,
            parse_constant=_Constant,
            object_pairs_hook=pairs,
        )
    except Duplicate as error:
        return [*reasons, Reason("duplicate_key", shown(str(error)))], len(plan.numbers)
    except (ValueError, RecursionError) as error:
        return [*reasons, Reason("bad_json", shown(str(error)))], len(plan.numbers)
    if not isinstance(row, dict):
        return [*reasons, Reason("bad_json", "not an object")], len(plan.numbers)
    texts = [_text(row, source.name, reasons) for source in plan.sources]
    values = [_text(row, number.source.name, reasons) for number in plan.numbers]
    decimal = reader.head_end.decimal
    if decimal != ".":  # a JSON number has a point whatever the marks of numbers in strings
        values = [text.replace(".", decimal) if isinstance(text, Number) else text for text in values]
    return careful_row(reader, plan, texts, values, (line, offset), reasons)


def _text(row: dict[str, Any], path: str, reasons: list[Reason]) -> str:
    """The text under a path; empty where there is none. A value that is neither text nor number adds a reason."""
    value: Any = row
    for step in steps_of(path):
        if value is None:
            return ""
        if not isinstance(value, dict):
            reasons.append(Reason("bad_json", f"{path}: {shown(str(value))} is no object"))
            return ""
        value = value.get(step)
    if value is not None and not isinstance(value, str):
        reasons.append(Reason("bad_json", f"{path} is {shown(str(value))}"))
    return value if isinstance(value, str) else ""
