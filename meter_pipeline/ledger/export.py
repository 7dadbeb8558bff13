"""The auditor's export: the whole log, its signatures, and the rows of chosen billing days, as plain
files.

    manifest.json       format, origin, size, when, which days, SHA-256 of every other file
    checkpoints.jsonl   {"size", "note", "cosignatures": [line]} in order of size
    entries.jsonl       {"index", "entry_id", "kind", "leaf_hash", "body", "leaves", "billing_day", "recorded_by"}; body
    is base64 of the exact
                        bytes, leaves the name of a file or null
    leaves/N.bin        payload hashes of the entry at place N, end to end
    rows/reference/ref.T/all.jsonl, ref.T_version: reference data with its earlier rows
    rows/S/T/DAY.jsonl  every row of table T (of source S) on a billing day, or all.jsonl, as PostgreSQL writes JSON;
    the first line
                        names table, hash column (null: the hash is made of the row), encoding, and the table its hash
                        is over if not its own
    personal.jsonl      {"payload_hash", "salt", "payload"} in hex; the last two null once erased
    control_totals.jsonl, guards.json, anchors/SIZE-K.tsr
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger.row_checks import days_of
from meter_pipeline.ledger.sources import SOURCES, RowTable
from meter_pipeline.ledger.tables import entries, guards, reference_rows
from meter_pipeline.ledger.tables import rows as ledger_rows
from meter_pipeline.postgres.database import Database

FORMAT: Final = "mp-ledger-export/1"
#: How often a checkpoint is made before an export while others write; a batch takes under a second.
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    """Where the export lies and what is in it. ``unsigned``: entries that no checkpoint covers yet; rows of theirs do
    not verify before the next one."""

    folder: Path
    origin: str | None
    size: int
    checkpoints: int
    leaves: int
    rows: int
    days: tuple[date, ...]
    unsigned: int = 0


class _Folder:
    """Writes files and remembers their hashes for the manifest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, str] = {}

    def write(self, name: str, fill: Callable[[_Hashed], None]) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            hashed = _Hashed(handle)
            fill(hashed)
        self.files[name] = hashed.digest.hexdigest()

    def lines(self, name: str, documents: Iterable[dict[str, Any]]) -> int:
        count = 0

        def fill(out: _Hashed) -> None:
            nonlocal count
            for document in documents:
                out.write(_json(document))
                count += 1

        self.write(name, fill)
        return count


class _Hashed:
    def __init__(self, handle: BinaryIO) -> None:
        self.handle, self.digest = handle, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.handle.write(data)
        self.digest.update(data)


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def export(
    database: Database,
    folder: Path,
    *,
    days: Sequence[date] | None = None,
    clock: Clock = SYSTEM_CLOCK,
    checkpoint: Callable[[], object] | None = None,
) -> ExportOutcome:
    """Write an export of the log and of the rows of ``days`` (None: every day that has rows) into an empty or new
    folder.

    One snapshot of the database, which ends at a checkpoint where ``checkpoint`` makes one: it is asked again while
    others write between it and the snapshot. Raises FileExistsError where the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    out = _Folder(folder)
    with database.connect("meter-pipeline-ledger-export") as connection:
        unsigned = _at_checkpoint(connection, checkpoint)
        origin, head = entries.origin(connection), entries.latest_head(connection)
        lines: dict[int, list[str]] = {}
        for cosignature in entries.cosignatures(connection):
            lines.setdefault(cosignature.tree_size, []).append(cosignature.line)
        checkpoints = out.lines(
            "checkpoints.jsonl",
            (
                {"size": row.tree_size, "note": row.note, "cosignatures": lines.get(row.tree_size, [])}
                for row in entries.checkpoints(connection)
            ),
        )
        size, leaves = _entries(connection, out)
        out.lines(
            "personal.jsonl",
            (
                {"payload_hash": h.hex(), "salt": _hex(s), "payload": _hex(p)}
                for h, s, p in entries.personal(connection)
            ),
        )
        out.lines("control_totals.jsonl", ledger_rows.control_totals(connection))
        out.write("guards.json", lambda file: file.write(_json(guards.guards(connection))))
        for number, (tree_size, kind, token) in enumerate(entries.anchors(connection)):
            out.write(f"anchors/{tree_size}-{number}.{'tsr' if kind == 'rfc3161' else kind}", _writer(token))
        rows, exported = _rows(database, connection, out, days)
        rows += _reference(connection, out)
    manifest = {
        "format": FORMAT,
        "origin": origin,
        "size": size,
        "tree_head": head.tree_size if head else 0,
        "exported_at": clock.now().isoformat(),
        "days": [day.isoformat() for day in exported],
        "files": out.files,
    }
    (folder / "manifest.json").write_bytes(_json(manifest))
    return ExportOutcome(folder, origin, size, checkpoints, leaves, rows, exported, unsigned)


def _at_checkpoint(connection: entries.Connection, checkpoint: Callable[[], object] | None) -> int:
    """Begin the snapshot; returns how many of its entries no checkpoint covers."""
    for _ in range(_TRIES):
        if checkpoint is not None:
            checkpoint()
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        latest = entries.latest_checkpoint(connection)
        unsigned = entries.entry_total(connection) - (latest.tree_size if latest else 0)
        if not unsigned or checkpoint is None:
            break
        connection.rollback()
    else:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    return unsigned


def _entries(connection: entries.Connection, out: _Folder) -> tuple[int, int]:
    """The log and its leaves; returns how many of each."""
    counted = [0]

    def documents() -> Iterable[dict[str, Any]]:
        for entry in entries.entries(connection, 0, 2**62):
            name = None
            if entry.leaves:
                name = f"leaves/{entry.leaf_index}.bin"
                counted[0] += entry.leaf_count
                out.write(name, _writer(entry.leaves))
            yield {
                "index": entry.leaf_index,
                "entry_id": entry.entry_id,
                "kind": entry.kind,
                "leaf_hash": entry.indexed_hash.hex(),
                "body": base64.b64encode(entry.body).decode(),
                "leaves": name,
                "billing_day": entry.billing_day.isoformat() if entry.billing_day else None,
                "recorded_by": entry.recorded_by,
            }

    return out.lines("entries.jsonl", documents()), counted[0]


def _rows(
    database: Database,
    connection: entries.Connection,
    out: _Folder,
    days: Sequence[date] | None,
) -> tuple[int, tuple[date, ...]]:
    """The rows behind the leaves, a file for each table and billing day; a day asked for without rows has a
    file too.
    """
    total = 0
    exported: set[date] = set(days or ())
    for source in SOURCES:
        present = [table for table in source.tables if ledger_rows.exists(connection, table.name)]
        replaced = [table for table in source.replaced if ledger_rows.exists(connection, table.name)]
        headers = [_header(table) for table in (*present, *replaced)] + [
            _detail_header(table) for table in present if table.detail
        ]
        headers += [_beside_header(name) for name in source.beside if present and ledger_rows.exists(connection, name)]
        wanted: list[date | None] = [None]
        if source.by_day:
            # The days of the log too: a day whose rows are all gone has a file without rows, and that is found.
            dated = set(days) if days is not None else set(days_of(connection, source))
            exported |= dated
            wanted = [*sorted(dated)]
        for header in headers:
            for day in wanted:

                def fill(file: _Hashed, day: date | None = day, header: dict[str, Any] = header) -> None:
                    nonlocal total
                    file.write(_json(header))
                    name = header["table"]
                    for text in chain(
                        ledger_rows.rows(connection, name, day),
                        ledger_rows.archived_rows(database, connection, name, day),
                    ):
                        file.write(text.encode() + b"\n")
                        total += 1

                out.write(f"rows/{source.name}/{header['table']}/{day.isoformat() if day else 'all'}.jsonl", fill)
    return total, tuple(sorted(exported))


def _reference(connection: entries.Connection, out: _Folder) -> int:
    """Reference data with every earlier version of a row, whatever days are asked for."""
    total = 0
    for table in reference_rows.history_tables(connection):
        for name in (f"ref.{table.name}", f"ref.{table.name}_version"):

            def fill(file: _Hashed, name: str = name) -> None:
                nonlocal total
                file.write(_json(_beside_header(name)))
                for text in ledger_rows.rows(connection, name, None):
                    file.write(text.encode() + b"\n")
                    total += 1

            out.write(f"rows/reference/{name}/all.jsonl", fill)
    return total


def _header(table: RowTable) -> dict[str, Any]:
    return {
        "table": table.name,
        "hash_column": table.hash_column,
        "encoding": table.encoding,
        "folded": table.merged,
        "detail": table.detail,
    }


def _detail_header(table: RowTable) -> dict[str, Any]:
    """Rows that another table's hash is over."""
    return {
        "table": table.detail,
        "hash_column": None,
        "encoding": None,
        "folded": False,
        "detail": None,
        "detail_of": table.name,
    }


def _beside_header(name: str) -> dict[str, Any]:
    """Rows that an entry's body has one hash over."""
    return {"table": name, "hash_column": None, "encoding": None, "folded": False, "detail": None}


def _writer(data: bytes) -> Callable[[_Hashed], None]:
    return lambda file: file.write(data)


def _hex(data: bytes | None) -> str | None:
    return None if data is None else bytes(data).hex()
