"""Reads the rows of a customer-system export with their line numbers."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from meter_pipeline.mapping.declaration import MappingError, Source
from meter_pipeline.reference.faults import Fault

#: largest export, in bytes: a listing of some million lines
MOST_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its file and line, and its texts by column without surrounding blanks."""

    file: str
    line: int
    values: dict[str, str]


@dataclass(slots=True)
class Export:
    """The rows and columns of one source."""

    file: str
    columns: tuple[str, ...]
    rows: list[Row]


def read_export(folder: Path, name: str, source: Source, faults: list[Fault]) -> Export:
    """Returns the export that a source names. Lines that are not rows are added to ``faults``. Raises MappingError
    where no file or several files match, or the file cannot be read as declared."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and fnmatchcase(path.name, source.file))
    if len(found) != 1:
        problem = (
            f"{len(found)} files match: {', '.join(path.name for path in found[:5])}" if found else "no file matches"
        )
        raise MappingError(f"sources.{name}: {source.file}: {problem} in {folder}")
    path = found[0]
    if path.stat().st_size > MOST_BYTES:
        raise MappingError(f"sources.{name}: {path.name} has more than {MOST_BYTES} bytes")
    if source.format == "spreadsheet":
        lines = list(_sheet(path, source))
    else:
        try:
            text = path.read_bytes().decode(
                "utf-8-sig" if source.encoding.lower() in ("utf-8", "utf8") else source.encoding
            )
        except UnicodeDecodeError as error:
            raise MappingError(f"sources.{name}: {path.name} is not {source.encoding}: byte {error.start}") from error
        lines = list(_fixed(text, source) if source.format == "fixed" else _delimited(text, source, path.name, faults))
    lines = lines[: len(lines) - source.footer_lines] if source.footer_lines else lines
    columns, body = _columns(name, path.name, source, lines)
    rows = []
    for line, cells in body:
        if len(cells) > len(columns) and not any(cell.strip() for cell in cells[len(columns) :]):
            cells = cells[: len(columns)]
        if len(cells) != len(columns):
            faults.append(Fault(path.name, line, "", f"{len(cells)} cells, {len(columns)} expected"))
            continue
        values = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
        if not passes(values, source.skip, keeps=False):
            continue
        rows.append(Row(path.name, line, values))
    return Export(path.name, columns, rows)


def passes(values: dict[str, str], rules: Any, *, keeps: bool) -> bool:
    """Returns whether a row passes: with ``keeps``, every rule's column must have one of its texts; otherwise none
    may."""
    for column, words in rules.items():
        text = values.get(column, "")
        hit = any(text.startswith(word[:-1]) if word.endswith("*") else text == word for word in words)
        if hit != keeps:
            return False
    return True


def _columns(
    name: str, file: str, source: Source, lines: list[tuple[int, list[str]]]
) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Returns the column names, and the lines that hold rows."""
    if source.format == "fixed":
        return tuple(source.columns), lines
    if source.columns:
        places = {int(place) - 1: column for column, place in source.columns.items()}
        width = max((len(cells) for _, cells in lines), default=0)
        return tuple(places.get(at, f"#{at + 1}") for at in range(width)), lines
    if not lines:
        raise MappingError(f"sources.{name}: {file} is empty")
    header = [cell.strip() for cell in lines[0][1]]
    while header and not header[-1]:
        header.pop()
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if twice:
        header = [f"#{at + 1}" if cell in twice else cell for at, cell in enumerate(header)]
    return tuple(header), lines[1:]


def _delimited(text: str, source: Source, file: str, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    """Yields records with the number of their first line. Skips blank lines."""
    lines = text.splitlines(keepends=True)[source.skip_lines :]
    quoting: Any = {"quotechar": source.quote} if source.quote else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(lines, delimiter=source.delimiter, strict=True, **quoting)
    begin = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.append(Fault(file, source.skip_lines + reader.line_num, "", f"not delimited as declared: {error}"))
            return
        if any(cell.strip() for cell in cells):
            yield source.skip_lines + begin, cells
        begin = reader.line_num + 1


def _fixed(text: str, source: Source) -> Iterator[tuple[int, list[str]]]:
    places = [(int(a) - 1, int(b)) for a, b in (place.split("-") for place in source.columns.values())]
    for number, line in enumerate(text.splitlines(), 1):
        if number > source.skip_lines and line.strip():
            yield number, [line[begin:end] for begin, end in places]


def _sheet(path: Path, source: Source) -> Iterator[tuple[int, list[str]]]:
    import python_calamine

    try:
        book = python_calamine.CalamineWorkbook.from_path(str(path))
        sheet = book.get_sheet_by_name(source.sheet) if source.sheet else book.get_sheet_by_index(0)
        rows: Iterable[list[Any]] = sheet.to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError) as error:
        raise MappingError(f"{path.name}: cannot be read as a spreadsheet: {error}") from error
    for number, cells in enumerate(rows, 1):
        if number > source.skip_lines and any(str(cell).strip() for cell in cells):
            yield number, [_shown(cell) for cell in cells]


def _shown(cell: Any) -> str:
    if isinstance(cell, dt.datetime):
        return cell.date().isoformat() if cell.time() == dt.time() else cell.isoformat(sep=" ")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
