"""Ids as the customer system writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meter_pipeline.postgres.database import Database

#: What the id in a field names.
KINDS: Final[Mapping[str, str]] = {
    "account_id": "account",
    "meter_id": "meter",
    "premise_id": "premise",
    "service_point_id": "service_point",
}
Spellings = Mapping[tuple[str, str], str]


def spellings(database: Database, ids: Iterable[str | None]) -> Spellings:
    """How some ids are written, by what they name and the id in capitals; ids that are written in capitals have no
    entry."""
    wanted = "\x1f".join(sorted({i for i in ids if i}))
    rows = database.rows(
        "SELECT kind, id, written FROM ref.id_spellings WHERE id = ANY(string_to_array($1, E'\\x1f')) AND written <> id",
        [wanted],
    )
    return {(row["kind"], row["id"]): row["written"] for row in rows}


def as_written(record: Mapping[str, Any], written: Spellings) -> dict[str, Any]:
    """A record with the ids in its fields as they are written."""
    return {
        field: written.get((KINDS[field], value), value) if field in KINDS and isinstance(value, str) else value
        for field, value in record.items()
    }
