"""Content hashes of rows that one entry wrote together: one hash over all their columns, in the entry's body.

``mp-content/1``: rows in the order of their key, columns joined by 0x1F, rows by 0x1E; each value as PostgreSQL prints
it, empty where null. The entry's body has in ``content`` the table, the columns, the key, the number of rows and the
SHA-256. The rows are those of the statements that name the entry, or those with the value that ``of`` names: [column,
value]. For a table whose rows are updated, such as a day's usage, each entry covers the whole day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl

from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.sources import Source
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import rows as ledger_rows
from meter_pipeline.postgres.database import Database


def content_of(
    table: str, frame: pl.DataFrame, key: Sequence[str], of: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Returns an entry's content record. ``frame``: the rows as written, decimals and arrays as PostgreSQL's text;
    ``of``: the column and value that identify them, where they belong to no statement."""
    parts = [pl.col(name).cast(pl.String).fill_null("") for name in frame.columns]
    texts = frame.sort(key).select(pl.concat_str(parts, separator="\x1f")).to_series()
    whole = "\x1e".join(texts.to_list()).encode()
    return {
        "table": table,
        "columns": frame.columns,
        "key": list(key),
        "rows": frame.height,
        "sha256": hashlib.sha256(whole).hexdigest(),
    } | ({} if of is None else {"of": list(of)})


def stored_content(
    connection: store.Connection, table: str, columns: Sequence[str], key: Sequence[str], of: tuple[str, str]
) -> dict[str, Any]:
    """Returns an entry's content record of the rows with a value in a column, read back in the transaction that
    wrote them."""
    rows, text = ledger_rows.content(connection, table, columns, key, of)
    return {
        "table": table,
        "columns": list(columns),
        "key": list(key),
        "of": list(of),
        "rows": rows,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def verify_contents(
    database: Database,
    connection: store.Connection,
    source: Source,
    day: date | None,
    outcome: VerifyOutcome,
) -> None:
    """Verify that the rows of every entry with a content record are unchanged. Where several entries name rows by
    the same value, the last entry counts. A table whose entries cover whole days has no rows on a day without an
    entry."""
    entries = store.entries_of(connection, source.kinds, day)
    if day is not None and not entries and source.whole_days and _contents_recorded_since_first_entry(connection):
        for table in source.whole_days:
            one = table, ("billing_day",), ("billing_day",)
            rows, _ = ledger_rows.stored_content(database, connection, one, ("billing_day", str(day)), day)
            if rows:
                outcome.find("row without leaf", f"{table} {day}: {rows} rows of a day that no entry is about")
    last: dict[tuple[Any, ...], tuple[store.StoredEntry, dict[str, Any]]] = {}
    for entry in entries:
        for recorded in json.loads(entry.body)["body"].get("content", ()):
            named = tuple(recorded["of"]) if recorded.get("of") else (entry.entry_id,)
            last[recorded["table"], *named] = entry, recorded
    for entry, recorded in last.values():
        of = recorded.get("of")
        named_by = (str(of[0]), str(of[1])) if of else entry.entry_id
        wanted = recorded["table"], recorded["columns"], recorded["key"]
        rows, text = ledger_rows.stored_content(database, connection, wanted, named_by, entry.billing_day)
        outcome.checked[f"contents of {recorded['table']}"] += rows
        if rows != recorded["rows"] or hashlib.sha256(text.encode()).hexdigest() != recorded["sha256"]:
            detail = f"{recorded['table']} of entry {entry.entry_id}: its {rows} rows are not the {recorded['rows']} that were written"
            outcome.find("content", detail, entry.leaf_index)


def _contents_recorded_since_first_entry(connection: store.Connection) -> bool:
    """Whether the log's entries covered whole days from the beginning: its first import of reference data names
    columns, which was introduced together with it. In an older log a day of register-only meters may have no entry."""
    first = next(iter(store.bodies_of(connection, ("reference_imported",), None)), None)
    return first is not None and "columns" in first[1]
