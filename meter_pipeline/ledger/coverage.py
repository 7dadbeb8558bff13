"""Which stored columns the ledger holds, and how; every other column is listed as not protected."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

MANIFEST: Final = Path(__file__).with_name("coverage.toml")
#: Schemas whose tables hold what the pipeline stores.
SCHEMAS: Final = ("anomaly", "archive", "billing", "control", "ledger", "migration", "raw", "ref", "vee")
WAYS: Final = ("leaf", "content", "derived")


@dataclass(frozen=True, slots=True)
class Coverage:
    """``ways``: way -> table -> columns; ``why``: table or schema.* -> why its other columns are not protected."""

    ways: Mapping[str, Mapping[str, tuple[str, ...]]]
    why: Mapping[str, str]

    def way(self, table: str, column: str) -> str | None:
        """How a column is held; None where it is not."""
        return next((way for way in WAYS if column in self.ways[way].get(table, ())), None)

    def reason(self, table: str) -> str:
        """Why columns of a table are not protected. Raises KeyError for a table without an entry."""
        return self.why.get(table) or self.why[f"{table.partition('.')[0]}.*"]


@cache
def load() -> Coverage:
    """Read the manifest."""
    raw = tomllib.loads(MANIFEST.read_text("utf-8"))
    ways = {way: {table: tuple(columns) for table, columns in raw[way].items()} for way in WAYS}
    return Coverage(ways, raw["why"])


def unprotected(columns: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Of (table, column) pairs those that nothing holds, by table."""
    rights, found = load(), dict[str, list[str]]()
    for table, column in columns:
        if rights.way(table, column) is None:
            found.setdefault(table, []).append(column)
    return found


def page(columns: Iterable[tuple[str, str]]) -> str:
    """The list of docs/audit.md: tables, their columns that are not protected, and why."""
    rights = load()
    rows = [
        f"| {table} | {', '.join(names)} | {rights.reason(table)} |"
        for table, names in sorted(unprotected(columns).items())
    ]
    return "\n".join(["| Table | Columns | Why |", "| --- | --- | --- |", *rows])
