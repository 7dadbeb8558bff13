"""Imports a folder of reference data in one transaction with one ledger entry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import circles, history, tables
from meter_pipeline.reference.faults import Fault, ReferenceRefused
from meter_pipeline.reference.folder import Documents, Rows, folder_sha256, read_folder
from meter_pipeline.reference.table_files import DEFINES
from meter_pipeline.schemas.reference import STRETCHES, TABLES


def import_folder(
    database: Database,
    folder: Path,
    *,
    snapshot: tables.Snapshot | None = None,
    by: str | None = None,
    why: str = "",
) -> dict[str, int]:
    """Import a folder: rows with a stored key replace the stored ones, other stored rows stay. Returns rows by table.
    Raises ReferenceRefused with every fault.

    ``snapshot``: tables of which the folder is the full export; stored rows that it lacks are ended.
    """
    folder_read = read_changed(database, folder, snapshot)
    if not isinstance(folder_read, FolderRead):
        return folder_read
    with database.connect("meter-pipeline reference") as connection:
        counts = write_folder(connection, folder_read, snapshot=snapshot, by=by, why=why)
    tables.settle(database, counts)
    return counts


@dataclass(frozen=True, slots=True)
class FolderRead:
    """A folder of reference tables as ``read_folder`` returns it, with the hash of its files."""

    folder: Path
    sha256: bytes
    rows: Rows
    documents: Documents


def read_changed(database: Database, folder: Path, snapshot: tables.Snapshot | None) -> FolderRead | dict[str, int]:
    """Read a folder. Returns its rows by table alone where the same files were imported last and no reference row
    changed since: 100,000 meters take 0.2 s then. Raises ReferenceRefused."""
    files = folder_sha256(folder)
    if snapshot is None:
        with database.connect("meter-pipeline reference") as connection:
            if (counts := tables.imported_rows(connection, files)) is not None:
                return counts
    rows, documents = read_folder(folder)
    missing = sorted(snapshot.tables - rows.keys()) if snapshot is not None else []
    if missing:
        raise ReferenceRefused([Fault(f"{name}.csv", 0, "", "a snapshot needs the table's file") for name in missing])
    if folder_sha256(folder) != files:
        raise ReferenceRefused([Fault(str(folder), 0, "", "its files changed while they were read; import it again")])
    return FolderRead(folder, files, rows, documents)


def write_folder(
    connection: driver.Connection, read: FolderRead, *, snapshot: tables.Snapshot | None, by: str | None, why: str
) -> dict[str, int]:
    """Import a folder in the caller's transaction, which the caller must roll back where it raises."""
    counts = write_rows(connection, read.rows, read.documents, str(read.folder), snapshot=snapshot, by=by, why=why)
    tables.note_folder(connection, read.sha256, counts)
    return counts


def import_rows(
    database: Database,
    rows: Rows,
    documents: Documents,
    source: str,
    *,
    snapshot: tables.Snapshot | None = None,
    by: str | None = None,
    why: str = "",
) -> dict[str, int]:
    """Import rows that read_folder (or enrolment) has checked. Rows that are stored already write nothing. Raises
    ReferenceRefused where they contradict stored rows."""
    with database.connect("meter-pipeline reference") as connection:
        counts = write_rows(connection, rows, documents, source, snapshot=snapshot, by=by, why=why)
    tables.settle(database, counts)
    return counts


def write_rows(
    connection: driver.Connection,
    rows: Rows,
    documents: Documents,
    source: str,
    *,
    snapshot: tables.Snapshot | None = None,
    by: str | None = None,
    why: str = "",
) -> dict[str, int]:
    """As ``import_rows``, in the caller's transaction, which the caller must roll back where it raises."""
    documents = _without_used(connection, rows, documents)
    rows = _with_spellings(connection, rows)
    try:
        counts = tables.write(connection, rows, documents, snapshot)
    except driver.errors.ForeignKeyViolation as error:
        fault = Fault(f"{error.diag.table_name}.csv", 0, "", error.diag.message_detail or str(error))
        raise ReferenceRefused([fault]) from error
    except tables.Overlapping as error:
        raise ReferenceRefused([_overlap_fault(rows, *pair) for pair in error.pairs]) from error
    except tables.TooManyEnded as error:
        why_not = (
            f"the snapshot would end {error.ended} of {error.rows} rows; if it is whole, import it with --confirm-ended"
        )
        raise ReferenceRefused([Fault(f"{error.table}.csv", 0, "", why_not)]) from error
    if faults := circles.faults_of(connection, rows):
        raise ReferenceRefused(faults)
    if tables.record_time(connection) is None:
        return counts  # no row changed: 720,000 rows take a second to hash
    digest = tables.content_sha256(rows, documents)
    body = {"source": Path(source).name, "content_sha256": digest, "rows": counts} | ({"reason": why} if why else {})
    if history.record(connection, body, source=source, reason=why, by=by) is not None:
        tables.note_import(connection, digest, source, counts)
    return counts


def _with_spellings(connection: driver.Connection, rows: Rows) -> Rows:
    """The rows, and those of ids that were written in small letters before and are written in capitals now."""
    columns = {name: list(TABLES[name].columns) for name in DEFINES}
    here = {
        (kind, row[columns[name].index(column)])
        for name, defined in DEFINES.items()
        for column, kind in defined.items()
        for row in rows.get(name, [])
    }
    listed = {row[:2] for row in rows.get("id_spellings", [])}
    turned = [(kind, key, key) for kind, key in tables.spelled(connection) if (kind, key) in here - listed]
    return {**rows, "id_spellings": [*rows.get("id_spellings", []), *turned]} if turned else rows


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that a person ends (``on``: the first day without it, or an instant for installations) or removes."""

    table: str
    key: tuple[str, ...]
    on: str | None = None
    by: str = ""
    why: str = ""


def change_row(connection: driver.Connection, change: RowChange) -> dict[str, Any]:
    """End a row or take it out in the caller's transaction, with its ledger entry; the row. Raises ReferenceRefused."""
    name, key = change.table, change.key
    if name not in TABLES:
        raise ReferenceRefused([Fault(name, 0, "", f"is none of {', '.join(TABLES)}")])
    if change.on is not None and name not in STRETCHES:
        raise ReferenceRefused([Fault(name, 0, "", f"its rows have no end; one of {', '.join(STRETCHES)} has")])
    expected = TABLES[name].key
    if len(key) != len(expected):
        raise ReferenceRefused([Fault(name, 0, "", f"the key is {' '.join(expected)}: {len(expected)} values")])
    given = [k.upper() if c.endswith("_id") else k for c, k in zip(expected, key, strict=True)]
    try:
        ended = change.on
        row = tables.remove(connection, name, given) if ended is None else tables.end(connection, name, given, ended)
    except (driver.errors.IntegrityError, driver.errors.DataError) as error:
        raise ReferenceRefused([Fault(name, 0, "", error.diag.message_detail or str(error))]) from error
    if row is None:
        raise ReferenceRefused([Fault(name, 0, "", f"no row {' '.join(key)}")])
    who = {"removed_by": change.by} if change.on is None else {"ended_by": change.by, "ended_on": change.on}
    change_body = {**who, "reason": change.why}
    body = {"table": name, "key": list(key), "row": {c: str(v) for c, v in row.items()}, **change_body}
    history.record(connection, body, source="a person's change", reason=change.why, by=change.by or None)
    return row


def _overlap_fault(rows: Rows, name: str, first: dict[str, Any], second: dict[str, Any]) -> Fault:
    """Names two rows that are in force at the same time, and the next step."""
    columns, how = list(TABLES[name].columns), STRETCHES[name]
    given = {tuple(row): line for line, row in enumerate(rows.get(name, []), start=2)}

    def named(row: dict[str, Any]) -> tuple[str, int]:
        line = given.get(tuple(row[c] for c in columns), 0)
        until = "" if row[how.ends] is None else f" to {row[how.ends]}"
        what = " ".join(str(row[c]) for c in dict.fromkeys((*how.identity, *how.group)))
        return f"{what} from {row[how.starts]}{until} ({f'line {line}' if line else 'stored'})", line

    (one, one_line), (other, other_line) = named(first), named(second)
    old = second if one_line else first
    key = " ".join(str(old[c]) for c in TABLES[name].key)
    return Fault(
        f"{name}.csv",
        one_line or other_line,
        "",
        f"{one} and {other} are in force at the same time; end one of them in the file, or take the stored one out with: "
        f"meter-pipeline reference remove {name} {key}",
    )


def _without_used(connection: driver.Connection, rows: Rows, documents: Documents) -> Documents:
    """Documents without those of versions that bills were made with, which are kept as they are.

    A file that says the same in other bytes (spaces, order of keys) is no change. Raises ReferenceRefused for one that
    says something else: the bills could no longer be explained, and a correction of one would be priced by it.
    """
    used = tables.used_documents(connection, list(documents))
    columns = list(TABLES["tariffs"].columns)
    tariffs = [dict(zip(columns, row, strict=True)) for row in rows.get("tariffs", [])]
    names = {(t["tariff_id"], t["version"]): str(t["document"]) for t in tariffs}
    faults = [
        Fault(
            f"tariffs/{names.get((tariff_id, version), tariff_id)}",
            0,
            "",
            f"{tariff_id} version {version} was billed with, so its document cannot change. A new price is the next version, with a row of its own "
            f"in tariffs.csv; to correct this one for all of its days, give its row the next version number and the same dates",
        )
        for (tariff_id, version), body in sorted(used.items())
        if _parsed(documents[tariff_id, version]) != _parsed(body)
    ]
    if faults:
        raise ReferenceRefused(faults)
    return {key: body for key, body in documents.items() if key not in used}


def _parsed(body: bytes) -> Any:
    return json.loads(body, parse_float=Decimal)
