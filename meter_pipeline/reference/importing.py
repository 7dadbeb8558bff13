"""Importing a folder of reference data: one transaction, one ledger entry, or nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import tables
from meter_pipeline.reference.folder import Documents, Fault, ReferenceRefused, Rows, read_folder
from meter_pipeline.schemas.reference import TABLES


def import_folder(database: Database, folder: Path) -> dict[str, int]:
    """Load a folder: rows of a known key are replaced, others stay. Returns rows by table. Raises ReferenceRefused with
    every fault."""
    rows, documents = read_folder(folder)
    return import_rows(database, rows, documents, str(folder))


def import_rows(database: Database, rows: Rows, documents: Documents, source: str) -> dict[str, int]:
    """Load rows that read_folder (or enrolment) has checked. Raises ReferenceRefused where they do not fit what is
    stored."""
    with database.connect("meter-pipeline reference") as connection:
        documents = _without_used(connection, rows, documents)
        try:
            counts, digest = tables.write(connection, rows, documents, source)
        except psycopg.errors.ForeignKeyViolation as error:
            fault = Fault(f"{error.diag.table_name}.csv", 0, "", error.diag.message_detail or str(error))
            raise ReferenceRefused([fault]) from error
        entries.append(
            connection, "reference_imported", {"source": Path(source).name, "content_sha256": digest, "rows": counts}
        )
    tables.settle(database, counts)
    return counts


def _without_used(connection: psycopg.Connection[Any], rows: Rows, documents: Documents) -> Documents:
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
            f"{tariff_id} version {version} was billed with, so its document cannot change; put this one beside it as "
            f"the next version, with a row of its own in tariffs.csv",
        )
        for (tariff_id, version), body in sorted(used.items())
        if _parsed(documents[tariff_id, version]) != _parsed(body)
    ]
    if faults:
        raise ReferenceRefused(faults)
    return {key: body for key, body in documents.items() if key not in used}


def _parsed(body: bytes) -> Any:
    return json.loads(body, parse_float=Decimal)
