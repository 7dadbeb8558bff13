"""JSON documents: one document a file, or one a line, with lists of reads anywhere inside.

A column is named by its path from the document's root, keys joined by points; a list on the way is gone through, so
``meters.readings.value`` is every value of every reading of every meter, and ``meters.id`` stands beside each of them.
Lists of plain values side by side (``{"time": [...], "value": [...]}``) are read in step. Two lists of objects side by
side, both mapped, are refused: nobody can say which element goes with which.

The records are written as delimited text and read by delimited.py. Line numbers are those of the records.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.delimited import parse_text, without_header_line
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Limits, open_feed, whole_document
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.json_records import Wanted, expand
from meter_pipeline.feeds.jsonl import Duplicate, Number, pairs
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.feeds.row_plan import plan_of
from meter_pipeline.schemas.reads import ParsedFeed

#: A document is held whole, at about fifteen times its size in memory.
MAX_DOCUMENT: Final = 64 << 20


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse JSON documents into interval or register reads. Raises HeadEndError, FeedRefused (bad_document: not JSON, or
    two lists side by side)."""
    if head_end.day_columns is not None:
        raise HeadEndError(f"{head_end.name}: day_columns: a day in a row is for delimited text")
    plan = plan_of(head_end)
    names = list(dict.fromkeys([source.name for source in (*plan.sources, *[each.source for each in plan.numbers])]))
    with open_feed(path, limits, head_end.encoding) as opened:
        small = replace(limits, max_document_bytes=min(limits.max_document_bytes, MAX_DOCUMENT))
        content = whole_document(opened.source, small)
    if not content.strip():
        raise FeedRefused("empty_file", f"{opened.size} bytes")
    wanted: Wanted = [(at, tuple(name.split("."))) for at, name in enumerate(names)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    try:
        for document in _documents(content):
            records = expand(document, wanted)
            empty = [""] * records.count
            columns = [_texts(records.columns.get(at, empty), head_end.decimal) for at in range(len(names))]
            writer.writerows(zip(*columns, strict=True))
    except RecursionError as error:
        raise FeedRefused("too_deep", "objects nested too deeply") from error
    declared = replace(head_end, delimiter=",", quote='"', header=True, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "records.csv"
        made.write_text(text.getvalue(), "utf-8")
        parsed = parse_text(made, declared, limits)
    parsed.sha256 = opened.sha256
    parsed.file_format = "json"
    without_header_line(parsed)
    return parsed


def _documents(content: bytes) -> Iterator[Any]:
    """The documents of a file: one, or one a line."""
    try:
        yield _loaded(content)
        return
    except FeedRefused as refused:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        first = refused
    for number, line in enumerate(lines, 1):
        try:
            document = _loaded(line)
        except FeedRefused as refused:
            if number == 1:
                raise first from refused
            raise FeedRefused(refused.code, f"line {number}: {refused.detail}", line) from refused
        yield document


def _loaded(content: bytes) -> Any:
    try:
        return json.loads(
            content.removeprefix(b"\xef\xbb\xbf").decode("utf-8"),
            parse_float=Number,
            parse_int=Number,
            parse_constant=Number,
            object_pairs_hook=pairs,
        )
    except Duplicate as error:
        raise FeedRefused("duplicate_key", shown(str(error)), content) from error
    except ValueError as error:
        raise FeedRefused("bad_document", f"not JSON: {shown(str(error))}", content) from error


def _texts(column: list[Any], decimal: str) -> list[str]:
    """Values as fields of delimited text. A JSON number has a point whatever the marks of numbers in strings."""
    return [
        value if type(value) is str and "\n" not in value and "\r" not in value else _text(value, decimal)
        for value in column
    ]


def _text(value: Any, decimal: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Number):
        return value.replace(".", decimal) if decimal != "." else str(value)
    return " ".join(str(value).split()) if not isinstance(value, str) else value.replace("\n", " ").replace("\r", " ")
