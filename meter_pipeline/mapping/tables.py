"""Reference tables made of exports: a folder of CSV files as reference/ imports it, and where each row came from."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from meter_pipeline.ids import canonical_id
from meter_pipeline.mapping.declaration import Cell, Join, Mapping, MappingError, Part
from meter_pipeline.mapping.exports import Export, Row, passes, read_export
from meter_pipeline.reference.faults import Fault, ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.reference.table_files import ID as PLAIN_ID
from meter_pipeline.reference.table_files import MOST_FAULTS
from meter_pipeline.schemas.reference import TABLES

#: ids that were changed on the way, for matching our outputs with the customer system
IDS_FILE: Final = "ids.csv"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: file, line, and the export's columns of each column of the table."""

    file: str
    line: int
    columns: dict[str, str]


@dataclass(slots=True)
class MappedTables:
    """Result of a mapping: rows by table, faults by the export's file and line, and ids that are written otherwise, by
    what they name and how the export writes them. ``found``: how each id was written where."""

    tables: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    found: dict[tuple[str, str, str, str], str] = field(default_factory=dict, repr=False)


class _CellError(ValueError):
    """A value that cannot be made."""


def make_tables(mapping: Mapping, exports: Path, out: Path, zone: str) -> MappedTables:
    """Write the mapped tables to ``out`` and check them as an import would. ``zone``: of local instants. A faulty row
    is left out and named; nothing of it is guessed. Raises MappingError for a mapping that does not fit the exports."""
    made = MappedTables()
    read: dict[str, Export] = {}
    for name in dict.fromkeys(n for part in mapping.parts for n in (part.source, *[j.source for j in part.joins])):
        read[name] = read_export(exports, name, mapping.sources[name], made.faults)
    rows: dict[str, list[list[str]]] = {}
    origins: dict[str, list[Origin]] = {}
    for part in mapping.parts:
        _fits(part, read)
        _make_part(part, mapping, read, zone, made, rows.setdefault(part.table, []), origins.setdefault(part.table, []))
    out.mkdir(parents=True, exist_ok=True)
    for table, content in rows.items():
        with (out / f"{table}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(TABLES[table].columns)
            writer.writerows(content)
        made.tables[table] = len(content)
    _write_ids(out / IDS_FILE, made)
    try:
        read_folder(out)
    except ReferenceRefused as refused:
        made.faults += [_original(fault, origins) for fault in refused.faults]
    return made


def _fits(part: Part, read: dict[str, Export]) -> None:
    """Raises MappingError for a column that the export does not have."""
    known = {*read[part.source].columns}
    for join in part.joins:
        theirs = read[join.source].columns
        for ours, other in join.on.items():
            if ours not in known or other not in theirs:
                missing = ours if ours not in known else f"{join.source}.{other}"
                raise MappingError(f"tables.{part.table}.joins: no column {missing!r}")
        known |= {f"{join.source}.{column}" for column in theirs}
    wanted = [(f"columns.{name}", column) for name, cell in part.columns.items() for column in cell.column]
    wanted += [("where", column) for column in part.where]
    for where, column in wanted:
        if column not in known:
            raise MappingError(
                f"tables.{part.table}.{where}: {read[part.source].file} has no column {column!r}; it has "
                f"{', '.join(sorted(known)[:40])}"
            )


def _make_part(
    part: Part,
    mapping: Mapping,
    read: dict[str, Export],
    zone: str,
    made: MappedTables,
    rows: list[list[str]],
    origins: list[Origin],
) -> None:
    """Add one part's rows to its table's."""
    table = TABLES[part.table]
    indexes = [(join, _index(join, read[join.source], made.faults)) for join in part.joins]
    sources = {name: ", ".join(cell.column) for name, cell in part.columns.items()}
    key_at = [list(table.columns).index(column) for column in table.key]
    seen: dict[tuple[str, ...], int] = {}
    for row in read[part.source].rows:
        values = _joined(row, indexes, made.faults)
        if values is None or not passes(values, part.where, keeps=True):
            continue
        made_row = _row(part, mapping, row, values, zone, made)
        if made_row is None:
            continue
        if part.unique:
            key = tuple(made_row[at] for at in key_at)
            before = seen.setdefault(key, len(rows))
            if before < len(rows):
                if rows[before] != made_row:
                    differs = [name for name, a, b in zip(table.columns, rows[before], made_row, strict=True) if a != b]
                    why = f"differs from {origins[before].file}:{origins[before].line} in {', '.join(differs)}"
                    _add(
                        made.faults,
                        Fault(row.file, row.line, ", ".join(sources[d] for d in differs if d in sources), why),
                    )
                continue
        rows.append(made_row)
        origins.append(Origin(row.file, row.line, sources))


def _index(join: Join, export: Export, faults: list[Fault]) -> dict[tuple[str, ...], Row]:
    found: dict[tuple[str, ...], Row] = {}
    for row in export.rows:
        key = tuple(row.values[column] for column in join.on.values())
        if key in found:
            why = f"a second row of {' '.join(key)!r}, after line {found[key].line}"
            _add(faults, Fault(row.file, row.line, ", ".join(join.on.values()), why))
        else:
            found[key] = row
    return found


def _joined(
    row: Row, indexes: list[tuple[Join, dict[tuple[str, ...], Row]]], faults: list[Fault]
) -> dict[str, str] | None:
    """A row's values with those of its partners; None, and a fault, where one is missing."""
    if not indexes:
        return row.values
    values = dict(row.values)
    for join, index in indexes:
        key = tuple(values.get(column, "") for column in join.on)
        partner = index.get(key)
        if partner is None:
            if not join.optional:
                _add(
                    faults,
                    Fault(row.file, row.line, ", ".join(join.on), f"no row of {join.source} has {' '.join(key)!r}"),
                )
                return None
            partner_values: dict[str, str] = dict.fromkeys(next(iter(index.values())).values, "") if index else {}
        else:
            partner_values = partner.values
        values |= {f"{join.source}.{column}": text for column, text in partner_values.items()}
    return values


def _row(
    part: Part, mapping: Mapping, row: Row, values: dict[str, str], zone: str, made: MappedTables
) -> list[str] | None:
    """One row of the table; None where a value cannot be made, which is a fault."""
    table = TABLES[part.table]
    out: list[str] = []
    whole = True
    for name, kind in table.columns.items():
        cell = part.columns.get(name)
        if cell is None:
            out.append("")
            continue
        try:
            original = cell.join.join(values.get(column, "") for column in cell.column)
            text = _made(cell, original, kind.removesuffix("?"), mapping, zone)
            if kind.startswith(("id", "long_id")) and text:
                root = table.references.get(name, f"{part.table}.{name}")
                plain = kind.startswith("id")
                _note_id((root, part.source, ", ".join(cell.column)), original, text, cell, made, plain=plain)
            out.append(text)
        except _CellError as error:
            whole = False
            _add(made.faults, Fault(row.file, row.line, ", ".join(cell.column), f"{name}: {error}"))
    return out if whole else None


def _made(cell: Cell, original: str, kind: str, mapping: Mapping, zone: str) -> str:
    """The text of a value. Raises _CellError."""
    text = cell.constant if cell.constant is not None else original
    if text in cell.empty:
        text = ""
    for old, new in cell.replace.items():
        text = text.replace(old, new)
    text = text.removeprefix(cell.prefix)
    if cell.strip_zeros:
        text = text.lstrip("0") or text[:1]
    words = mapping.codes[cell.codes] if cell.codes else cell.map
    if words and text:
        if text in words:
            text = words[text]
        elif cell.default is not None:
            text = cell.default
        else:
            raise _CellError(f"no code for {text[:40]!r}; the code table has {', '.join(list(words)[:10])}")
    if not text and cell.default is not None:
        text = cell.default
    if text and cell.format:
        text = _stamp(text, cell, kind, zone)
    if cell.decimal != "." and text:
        text = text.replace(".", "").replace(cell.decimal, ".")
    return text


def _stamp(text: str, cell: Cell, kind: str, zone: str) -> str:
    """A date, or an instant of local time as UTC; of a repeated hour the first pass. Raises _CellError."""
    try:
        at = datetime.strptime(text, cell.format)  # noqa: DTZ007 - local until its zone is put on
    except ValueError:
        raise _CellError(f"{text[:40]!r} is not written as {cell.format}") from None
    if kind == "date":
        return at.date().isoformat()
    if at.tzinfo is None:
        local = at.replace(tzinfo=ZoneInfo(cell.zone or zone))
        if local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None) != at:
            raise _CellError(f"{text[:40]!r} is in the hour that clocks skip in {cell.zone or zone}")
        at = local
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _note_id(
    root: tuple[str, str, str], original: str, text: str, cell: Cell, made: MappedTables, *, plain: bool
) -> None:
    """Remember how an id is written here. ``plain``: without dots, slashes, underscores and blanks. ``root``: what it
    names, and the export and columns it is read from. Raises _CellError for one that cannot be one, or that another of
    the same columns became."""
    ours = canonical_id(text)
    if ours is None or (plain and not PLAIN_ID.fullmatch(ours)):
        signs = "letters A to Z, digits and -" + ("" if plain else ", inside also . / _ and blanks")
        raise _CellError(f"{text[:64]!r} is not an id ({signs}; at most 64): take other signs out with replace")
    if cell.constant is not None or cell.codes or cell.map:
        return
    before = made.found.setdefault((*root, ours), original)
    if before != original:
        raise _CellError(f"{original[:64]!r} and {before[:64]!r} both become {ours}")


def _write_ids(path: Path, made: MappedTables) -> None:
    changed = {(key[0], original): key[-1] for key, original in sorted(made.found.items()) if original != key[-1]}
    made.ids = changed
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("column", "original", "id"))
        writer.writerows((root, original, ours) for (root, original), ours in changed.items())


def _original(fault: Fault, origins: dict[str, list[Origin]]) -> Fault:
    """A fault of a made table, by the line of the export it came from."""
    rows = origins.get(fault.file.removesuffix(".csv"), [])
    if not 2 <= fault.line <= len(rows) + 1:
        return fault
    origin = rows[fault.line - 2]
    theirs = origin.columns.get(fault.column, "")
    why = f"{fault.column}: {fault.why}" if fault.column else fault.why
    return Fault(origin.file, origin.line, theirs, f"{fault.file.removesuffix('.csv')}: {why}")


def _add(faults: list[Fault], fault: Fault) -> None:
    if len(faults) < MOST_FAULTS:
        faults.append(fault)
