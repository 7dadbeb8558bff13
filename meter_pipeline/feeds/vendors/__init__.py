"""Declarations of vendors' exports, ready to copy, and which of them fits a file.

Each is a TOML file beside this module: its first comment line says what it is, the next where the shape is published;
``Has:`` names a column that tells it from its likes, ``Named:`` a pattern of file names that does.
A declaration fits a delimited file that has all of its columns, a JSON file that has all of its keys, a fixed-width
file that has its record types, and a file of a format that says itself what it is. What no file says (zone, what a
stamp names, the meaning of flags) stays to be asked and set.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from meter_pipeline.feeds import wide_csv
from meter_pipeline.feeds.files import DEFAULT_LIMITS, names_in_zip, open_feed
from meter_pipeline.feeds.fixed_width import record_of
from meter_pipeline.feeds.head_ends import HeadEnd, read_head_end
from meter_pipeline.feeds.rejects import FeedRefused
from meter_pipeline.feeds.row_plan import plan_of

_HEAD: Final = 65_536
_MARKS: Final = ("From: ", "Has: ", "Named: ")
#: lines that a header may stand behind
_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Vendor:
    """A ready declaration: its name, what it is, where its shape is published, its text and what it declares."""

    name: str
    title: str
    source: str
    text: str
    head_end: HeadEnd
    has: str = ""
    named: str = ""


@cache
def vendors() -> tuple[Vendor, ...]:
    """Every ready declaration, by name."""
    found = []
    for entry in sorted(resources.files(__name__).iterdir(), key=lambda each: each.name):
        if entry.name.endswith(".toml"):
            text = entry.read_text("utf-8")
            comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
            marks = {
                key: next((line.removeprefix(key) for line in comments if line.startswith(key)), "") for key in _MARKS
            }
            with resources.as_file(entry) as path:
                head_end = read_head_end(path)
            name = entry.name.removesuffix(".toml")
            found.append(
                Vendor(name, comments[0], marks[_MARKS[0]], text, head_end, marks[_MARKS[1]], marks[_MARKS[2]])
            )
    return tuple(found)


def fitting(path: Path) -> list[Vendor]:
    """The declarations that fit a file, those with the most columns at first; none for a file that cannot be opened."""
    try:
        member = next(iter(sorted(names_in_zip(path))), None)
        with open_feed(path, replace(DEFAULT_LIMITS, block_bytes=_HEAD), member=member) as opened:
            head = opened.source.read(_HEAD).removeprefix(b"\xef\xbb\xbf")
    except (FeedRefused, OSError):
        return []
    fit = []
    for each in vendors():
        columns = [*_columns(each.head_end), *([each.has] if each.has else [])]
        if _fits(each.head_end, columns, head):
            named = bool(each.named) and fnmatchcase(path.name.lower(), each.named)
            fit.append(((len(columns), named), each))
    most = max((rank for rank, _ in fit), default=(0, False))
    return [each for rank, each in fit if rank == most]


def _columns(head_end: HeadEnd) -> list[str]:
    """The columns, keys or record types that a declaration reads."""
    if head_end.format == "wide_csv":
        return list((wide_csv.COLUMNS | {key: str(value) for key, value in head_end.columns.items()}).values())
    if head_end.format in ("cmep", "espi", "nem12"):
        return []
    plan = plan_of(head_end)
    return [each.name for each in (*plan.sources, *[number.source for number in plan.numbers])]


def _fits(head_end: HeadEnd, columns: list[str], head: bytes) -> bool:
    text = head.lstrip()
    if head_end.format == "cmep":
        return text.startswith(b"MEPMD01,")
    if head_end.format == "espi":
        return text.startswith(b"<") and b"naesb.org/espi" in text
    if head_end.format in ("json", "jsonl"):
        keys = {key for column in columns for key in column.split(".")}
        return text.startswith((b"{", b"[")) and all(f'"{key}"'.encode() in head for key in keys)
    if head_end.format == "fixed":
        lines = head.splitlines()
        kinds = {record_of(column) for column in columns}
        return "" not in kinds and all(any(line.startswith(kind.encode()) for line in lines) for kind in kinds)
    for line in head.decode(head_end.encoding, "replace").splitlines()[:_LINES]:
        cells = next(csv.reader([line], delimiter=head_end.delimiter), [])
        if set(columns) <= {cell.strip() for cell in cells}:
            return True
    return False
