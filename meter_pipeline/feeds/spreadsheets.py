"""Spreadsheets (xlsx, xlsm, xlsb, xls, ods) as the delimited text of their cells.

A sheet's cells are written as comma-separated text and read like any other: dates as ISO 8601 in local time, numbers by
their shortest decimal, which is what the sheet shows of them. Line numbers are the sheet's row numbers. The sheet is
the first, or ``options.sheet`` by its name (``*`` in it stands for anything). Cells are floating-point numbers inside:
0.1 + 0.2 stands in them as 0.30000000000000004, so sheets with formulas want a declared ``rounding``.
"""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.files import DEFAULT_LIMITS, ZIP_MAGIC, Limits, names_in_zip, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.members import merged
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.schemas.reads import ParsedFeed

#: Compound files: xls of Excel 97 to 2003
_OLE_MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def is_spreadsheet(path: Path) -> bool:
    """Whether a file is a spreadsheet, by its first bytes and, for a zip, by the names in it."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(8) == _OLE_MAGIC:
            return True
    names = names_in_zip(path)
    return "xl/workbook.xml" in names or "xl/workbook.bin" in names or {"content.xml", "mimetype"} <= names


def first_rows(path: Path, limits: Limits = DEFAULT_LIMITS, most: int = 500) -> bytes:
    """The beginning of the first sheet as comma-separated text. Raises FeedRefused(spreadsheet)."""
    with open_feed(path, limits, as_is=True) as opened:
        content = b"".join(iter(lambda: opened.source.read(1 << 20), b""))
    _check_size(content, limits)
    return _written(_cells(content, "")[:most]).encode("utf-8")


def _written(rows: list[list[Any]]) -> str:
    """Cells as comma-separated text."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_shown(cell) for cell in row] for row in rows)
    return text.getvalue()


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse a sheet of a spreadsheet with the declaration of delimited text. Raises HeadEndError, FeedRefused
    (spreadsheet: it cannot be opened, or has no such sheet)."""
    from meter_pipeline.feeds import delimited

    with open_feed(path, limits, as_is=True) as opened:
        content = b"".join(iter(lambda: opened.source.read(1 << 20), b""))
    _check_size(content, limits)
    declared = replace(head_end, delimiter=",", quote='"', encoding="utf-8", **_plain_numbers(head_end))
    found: list[ParsedFeed] = []
    for name in _sheets(content, str(head_end.options.get("sheet", ""))):
        text = _written(_cells(content, name))
        with tempfile.TemporaryDirectory() as folder:
            sheet = Path(folder) / "sheet.csv"
            sheet.write_text(text, "utf-8")
            found.append(delimited.parse_text(sheet, declared, limits, or_iso=True))
    parsed = merged(found)
    parsed.sha256 = opened.sha256
    return parsed


def _sheets(content: bytes, pattern: str) -> list[str]:
    """The sheets to read: the first, the one of a name, or all whose names match a pattern with a ``*``."""
    if "*" not in pattern:
        return [pattern]
    names = [name for name in _opened(content).sheet_names if fnmatchcase(name, pattern)]
    if not names:
        raise FeedRefused("spreadsheet", f"no sheet matches {shown(pattern)}")
    return names


def _plain_numbers(head_end: HeadEnd) -> dict[str, Any]:
    """Numbers of cells have a point; text cells keep the head-end's own marks where it declares a comma, which a
    number's text never has."""
    return {"decimal": ".", "thousands": head_end.thousands if head_end.thousands != "." else ""}


def _check_size(content: bytes, limits: Limits) -> None:
    """The caps of archives, before a reader opens the sheets."""
    if not content.startswith(ZIP_MAGIC):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > limits.max_document_bytes:
        raise FeedRefused("archive_too_large", f"{size} bytes in the spreadsheet")
    if size > limits.ratio_from_bytes and size > limits.max_ratio * max(len(content), 1):
        raise FeedRefused("archive_ratio", f"{size} bytes from {len(content)}")


def _opened(content: bytes) -> Any:
    """The workbook. Raises FeedRefused (spreadsheet) for a damaged one."""
    from python_calamine import CalamineWorkbook

    try:
        return CalamineWorkbook.from_filelike(io.BytesIO(content))
    except BaseException as error:  # the reader's own errors, and its panics on damaged files
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise FeedRefused("spreadsheet", f"cannot be read: {shown(str(error))}") from error


def _cells(content: bytes, name: str) -> list[list[Any]]:
    book = _opened(content)
    try:
        names = book.sheet_names
        if name and name not in names:
            raise FeedRefused("spreadsheet", f"no sheet {shown(name)}; it has {shown(', '.join(names))}")
        sheet = book.get_sheet_by_name(name) if name else book.get_sheet_by_index(0)
        rows: list[list[Any]] = sheet.to_python(skip_empty_area=False)
    except FeedRefused:
        raise
    except BaseException as error:  # the reader's own errors, and its panics on damaged files
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise FeedRefused("spreadsheet", f"cannot be read: {shown(str(error))}") from error
    return rows


def _shown(cell: Any) -> str:
    """A cell's text."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float):
        return _decimal(cell)
    if isinstance(cell, datetime):
        rounded = cell + timedelta(microseconds=500_000)
        return rounded.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(cell, date):
        return cell.isoformat()
    if isinstance(cell, time):
        return cell.strftime("%H:%M:%S")
    if isinstance(cell, timedelta):
        seconds = round(cell.total_seconds())
        return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    return " ".join(str(cell).split()) if cell is not None else ""


def _decimal(number: float) -> str:
    """The shortest decimal of a cell's number, without an exponent."""
    if number == int(number) and abs(number) < 1e15:
        return str(int(number))
    text = repr(number)
    if "e" in text:
        from decimal import Decimal

        return format(Decimal(text), "f")
    return text
