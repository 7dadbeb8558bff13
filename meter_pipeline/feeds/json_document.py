"""JSON documents: one document a file, or one a line, with lists of reads anywhere inside.

A column is named by its path from the document's root, keys joined by points; a list on the way is gone through, so
``meters.readings.value`` is every value of every reading of every meter, and ``meters.id`` stands beside each of them.
Lists of plain values side by side (``{"time": [...], "value": [...]}``) are read in step; ``values.#`` is the number of
each value in its list, and ``rows.0`` the first element of each list in a list of lists. Two lists of objects side by
side, both mapped, are refused: it is unknown which element goes with which.

The records are written as delimited text, tabs between the values, and read by delimited.py. Line numbers are those of
the records. Documents are taken apart by a compiled loop (kernels_json.py), unusual ones (a quotation mark, a backslash
or a control character in a wanted value, mixed lists) by Python's json, at a tenth of the speed; both make the same
lines.
"""

from __future__ import annotations

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
from meter_pipeline.feeds.json_records import Wanted, expand, steps_of
from meter_pipeline.feeds.json_scan import scanned_records
from meter_pipeline.feeds.jsonl import Duplicate, Number, pairs
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.feeds.row_plan import plan_of
from meter_pipeline.schemas.reads import ParsedFeed

#: A document that Python's json reads is held at about fifteen times its size in memory.
MAX_DOCUMENT: Final = 64 << 20
#: characters that would end a value or a line in the text made of the records
_BREAKS: Final = dict.fromkeys(map(ord, "\t\n\r"), " ")


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse JSON documents into interval or register reads. Raises HeadEndError, FeedRefused (bad_document: not JSON,
    or two lists side by side)."""
    if head_end.day_columns is not None:
        message = 'a day in a row is for delimited text; here columns.period = "path.#" numbers the values of a list'
        raise HeadEndError(f"{head_end.name}: day_columns: {message}")
    plan = plan_of(head_end)
    names = list(dict.fromkeys([source.name for source in (*plan.sources, *[each.source for each in plan.numbers])]))
    with open_feed(path, limits, head_end.encoding) as opened:
        content = whole_document(opened.source, limits).removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise FeedRefused("empty_file", f"{opened.size} bytes")
    wanted: Wanted = [(at, steps_of(name)) for at, name in enumerate(names)]
    made = scanned_records(content, wanted, head_end.decimal)
    if made is None:
        made = slow_records(content, wanted, head_end.decimal)
    declared = replace(head_end, delimiter="\t", quote="", header=True, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.tsv"
        with records.open("wb") as file:
            file.write("\t".join(names).encode("utf-8") + b"\n")
            file.write(made)
        parsed = parse_text(records, declared, limits)
    parsed.sha256 = opened.sha256
    parsed.file_format = "json"
    without_header_line(parsed)
    return parsed


def slow_records(content: bytes, wanted: Wanted, decimal: str) -> bytes:
    """The records of any document, as lines of text with tabs between the values. Raises FeedRefused."""
    if len(content) > MAX_DOCUMENT:
        detail = f"{len(content)} bytes with escapes or lists side by side, at most {MAX_DOCUMENT}: ask for one object a line"
        raise FeedRefused("archive_too_large", detail)
    lines: list[str] = []
    try:
        for document in _documents(content):
            records = expand(document, wanted)
            empty = [""] * records.count
            columns = [_texts(records.columns.get(at, empty), decimal) for at in range(len(wanted))]
            lines += ["\t".join(row) for row in zip(*columns, strict=True)]
    except RecursionError as error:
        raise FeedRefused("too_deep", "objects nested too deeply") from error
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


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
            content.decode("utf-8"),
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
    return [value if type(value) is str and value.isprintable() else _text(value, decimal) for value in column]


def _text(value: Any, decimal: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Number):
        return value.replace(".", decimal) if decimal != "." else str(value)
    if isinstance(value, str):
        return value.translate(_BREAKS)
    return " ".join(str(value).split())
