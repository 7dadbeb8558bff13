"""Migrations take nothing away: every row of reference data and every leaf of the ledger outlives them."""

from __future__ import annotations

import re

import pytest

from meter_pipeline.postgres.migrations import MIGRATIONS

FORWARD_ONLY = "DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;"
#: Statements that change or remove rows. Comments, constraints and functions are no rows.
CHANGES_ROWS = re.compile(
    r"^\s*(DELETE\s+FROM|UPDATE|TRUNCATE|DROP\s+TABLE)\s+(ONLY\s+)?(ref|raw|vee|billing|ledger)\.", re.M
)


def _parts(name: str) -> tuple[str, str]:
    up, down = (MIGRATIONS / name).read_text("utf-8").split("-- migrate:down")
    return up, down


@pytest.mark.parametrize("name", sorted(path.name for path in MIGRATIONS.glob("*.sql")))
def test_a_migration_removes_no_rows(name: str) -> None:
    """A way back deleted attributes of services without a ledger entry: the ledger then held leaves of rows that were
    gone. The way back is the backup made before."""
    up, down = _parts(name)
    assert down.strip() == FORWARD_ONLY
    if name >= "0500":
        assert CHANGES_ROWS.findall(up) == []


def test_the_search_for_changed_rows_finds_them() -> None:
    text = "CREATE TABLE ref.one ();\nDELETE FROM ref.one WHERE false;\n  UPDATE ONLY billing.two SET n = 1;\nDROP TABLE vee.three;"
    assert [found[0].split()[0] for found in CHANGES_ROWS.findall(text)] == ["DELETE", "UPDATE", "DROP"]
