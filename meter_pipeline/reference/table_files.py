"""Reads the CSV files of reference tables: rows of typed values, each with its line; a fault for each wrong cell."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from meter_pipeline.ids import canonical_id
from meter_pipeline.reference.faults import Fault
from meter_pipeline.schemas.reference import Table
from meter_pipeline.units import parse_decimal

ID = re.compile(r"[A-Z0-9-]{1,64}", re.ASCII)
#: A wrong export repeats its fault on every row; past this many the rest are counted, not listed.
MOST_FAULTS = 1000

#: Columns that came later and that a file may lack: they are empty then.
MAY_LACK = frozenset(
    {("channels.csv", "modulus")}
    | {("channel_values.csv", column) for column in ("unit", "interval_minutes", "sums_to")}
)

#: Tables that define ids: of what, by column. Their spelling is the customer system's.
DEFINES: Final[Mapping[str, Mapping[str, str]]] = {
    "accounts": {"account_id": "account"},
    "meters": {"meter_id": "meter"},
    "service_points": {"service_point_id": "service_point", "premise_id": "premise"},
}

#: By what an id names and the id in capitals: as it is written.
Spellings = dict[tuple[str, str], str]
#: A line's number and its cells.
Lines = list[tuple[int, list[str]]]
#: Lines that are parsed column by column.
_TOGETHER: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Column:
    """A table's column: its place in the file (-1: the file lacks it), its type, and what its ids name where the table
    defines them."""

    place: int
    name: str
    kind: str
    defines: str | None


@dataclass(slots=True)
class TableFiles:
    """Reads a folder's tables one after another. ``faults``: what is wrong with them; ``spellings``: the ids that they
    define and write otherwise than in capitals."""

    faults: list[Fault] = field(default_factory=list)
    spellings: Spellings = field(default_factory=dict)
    _values: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read(self, path: Path, table: Table) -> tuple[list[tuple[Any, ...]], list[int]]:
        """A table's rows and their lines."""
        name = path.name
        rows: list[tuple[Any, ...]] = []
        numbers: list[int] = []
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.faults.append(Fault(name, 0, "", f"not UTF-8 at byte {error.start}"))
            return rows, numbers
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = next(reader, [])
            if not self._fits(name, header, table):
                return rows, numbers
            defined = DEFINES.get(path.stem, {})
            columns = [
                _Column(header.index(c) if c in header else -1, c, kind, defined.get(c))
                for c, kind in table.columns.items()
            ]
            for block in _blocks(reader):
                together = self._by_column(block, columns, len(header))
                if together is not None:
                    rows += together
                    numbers += [line for line, _ in block]
                elif not self._by_row(name, block, columns, len(header), (rows, numbers)):
                    break
        except csv.Error as error:
            self.faults.append(Fault(name, reader.line_num, "", f"not CSV: {error}"))
        return rows, numbers

    def _fits(self, name: str, header: Sequence[str], table: Table) -> bool:
        """Whether a file's header is the table's."""
        faults = [
            Fault(name, 1, column, "column missing")
            for column in table.columns
            if column not in header and (name, column) not in MAY_LACK
        ]
        faults += [Fault(name, 1, column, "unknown column") for column in header if column not in table.columns]
        if len(set(header)) != len(header):
            faults.append(Fault(name, 1, "", "a column stands twice"))
        self.faults += faults
        return not faults

    def _by_column(self, block: Lines, columns: Sequence[_Column], width: int) -> list[tuple[Any, ...]] | None:
        """The rows of some lines, or None where one of them is wrong. Each text of a column is parsed one time: a city
        of 100,000 meters has 700,000 rows and a tenth as many different texts a column."""
        if any(len(cells) != width for _, cells in block):
            return None
        given = list(zip(*(cells for _, cells in block), strict=True))
        made: list[list[Any]] = []
        for column in columns:
            texts = given[column.place] if column.place >= 0 else ("",) * len(block)
            values = self._values.setdefault(column.kind, {})
            try:
                values.update({text: _cell(text, column.kind) for text in set(texts) - values.keys()})
            except ValueError:
                return None
            made.append([values[text] for text in texts])
            if column.defines is not None and made[-1] != list(texts):
                pairs = zip(texts, made[-1], strict=True)
                self.spellings.update({(column.defines, value): text for text, value in pairs if text != value})
        return list(zip(*made, strict=True))

    def _by_row(
        self,
        name: str,
        block: Lines,
        columns: Sequence[_Column],
        width: int,
        into: tuple[list[tuple[Any, ...]], list[int]],
    ) -> bool:
        """Append the rows of some lines and their numbers, with a fault for each wrong cell. False: there are too many
        faults to go on."""
        rows, numbers = into
        for line, cells in block:
            if len(cells) != width:
                self.faults.append(Fault(name, line, "", f"{len(cells)} cells, {width} expected"))
                continue
            row: list[Any] = []
            for column in columns:
                text = cells[column.place] if column.place >= 0 else ""
                try:
                    row.append(_cell(text, column.kind))
                    if column.defines is not None and row[-1] != text:
                        self.spellings[column.defines, row[-1]] = text
                except ValueError as error:
                    self.faults.append(Fault(name, line, column.name, str(error)))
                    row.append(None)
            rows.append(tuple(row))
            numbers.append(line)
            if len(self.faults) >= MOST_FAULTS:
                self.faults.append(Fault(name, line, "", "too many faults; the rest was not read"))
                return False
        return True


def _blocks(reader: Any) -> Iterator[Lines]:
    """The lines of a CSV reader, some at a time; those before one that is no CSV too. Raises csv.Error."""
    block: Lines = []
    try:
        for cells in reader:
            block.append((reader.line_num, cells))
            if len(block) == _TOGETHER:
                yield block
                block = []
    except csv.Error:
        yield block
        raise
    if block:
        yield block


def _cell(text: str, kind: str) -> Any:
    if "\x00" in text:
        raise ValueError("a NUL byte")
    if kind.endswith("?"):
        if text == "":
            return None
        kind = kind[:-1]
    if kind == "text":
        return text
    if text == "":
        raise ValueError("empty")
    if kind.startswith("choice:"):
        if text not in kind[7:].split("|"):
            raise ValueError(f"{text[:40]!r} is not one of {kind[7:].replace('|', ', ')}")
        return text
    match kind:
        case "id":
            upper = text.upper()
            if not ID.fullmatch(upper) or not text.isascii():
                raise ValueError(f"{text[:40]!r} is not an id (A to Z, 0 to 9 and -, at most 64)")
            return upper
        case "long_id":
            found = canonical_id(text)
            if found is None:
                raise ValueError(
                    f"{text[:64]!r} is not an id (A to Z, 0 to 9 and -, at most 64; dots, slashes, _ and blanks inside)"
                )
            return text.upper()
        case "date":
            return date.fromisoformat(text)
        case "instant":
            instant = datetime.fromisoformat(text)
            if instant.tzinfo is None:
                raise ValueError(f"{text!r} has no zone")
            return instant.astimezone(UTC)
        case "decimal":
            return parse_decimal(text)
        case "integer":
            if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
                raise ValueError(f"{text[:40]!r} is not a whole number")
            return int(text)
        case "boolean":
            if text not in ("true", "false"):
                raise ValueError(f"{text[:40]!r} is neither true nor false")
            return text == "true"
        case _:
            raise AssertionError(kind)
