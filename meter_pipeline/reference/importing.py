"""Importing a folder of reference data: one transaction, one ledger entry, or nothing."""

from __future__ import annotations

from pathlib import Path

import psycopg

from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import tables
from meter_pipeline.reference.folder import Documents, Fault, ReferenceRefused, Rows, read_folder


def import_folder(database: Database, folder: Path) -> dict[str, int]:
    """Load a folder: rows of a known key are replaced, others stay. Returns rows by table. Raises ReferenceRefused with
    every fault."""
    rows, documents = read_folder(folder)
    return import_rows(database, rows, documents, str(folder))


def import_rows(database: Database, rows: Rows, documents: Documents, source: str) -> dict[str, int]:
    """Load rows that read_folder (or enrolment) has checked."""
    with database.connect("meter-pipeline reference") as connection:
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
