"""Rows that change in steps: each entry about one says the whole row as it stands after the step.

An entry's body has ``rows``: [{"table", "key": [column, value], "row": {column: text or null}}]. The row in the table
must be what the last entry about it says. Entries from before rows were said name a few columns in their body; of such
a row nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.sources import Source
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import rows as ledger_rows


def rows_as_they_are(connection: store.Connection, table: str, key: str, values: Sequence[str]) -> list[dict[str, Any]]:
    """Returns an entry's text about rows that its transaction has just written."""
    found = ledger_rows.states(connection, table, key, values)
    return [{"table": table, "key": [key, value], "row": found[value]} for value in values]


def verify_states(connection: store.Connection, source: Source, outcome: VerifyOutcome) -> None:
    """Every row of the source's table is what the last entry about it says; no row without entries, none gone."""
    if source.states is None:
        return
    table, kinds = source.states
    recorded, named = last_recorded(body for _, body in store.bodies_of(connection, kinds, None))
    key = next((key for key, _ in recorded), "adjustment_id")
    stored = ledger_rows.states(connection, table, key)
    outcome.checked[f"rows of {table}"] += len(stored)
    for (_, value), row in recorded.items():
        now = stored.get(value)
        if now is None:
            outcome.find("state", f"{table} {value}: its row is gone")
            continue
        for column, text in row.items():
            if now.get(column) != text:
                outcome.find("state", f"{table} {value}: {column} is {now.get(column)!r}, its last entry says {text!r}")
    for value in stored.keys() - {value for _, value in recorded} - named:
        outcome.find("state", f"{table} {value}: no entry is about it")


def last_recorded(bodies: Iterable[dict[str, Any]]) -> tuple[dict[tuple[str, str], dict[str, Any]], set[str]]:
    """By (key column, value) the row that the last of some entries says; and the adjustments that entries name
    otherwise."""
    recorded: dict[tuple[str, str], dict[str, Any]] = {}
    named: set[str] = set()
    for body in bodies:
        named.add(str(body.get("adjustment_id")))
        for row in body.get("rows", ()):
            column, value = row["key"]
            recorded[str(column), str(value)] = row["row"]
    return recorded, named
