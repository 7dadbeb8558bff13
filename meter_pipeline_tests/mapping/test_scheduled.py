"""Exports that are imported without a person promise: what changes no issued money is made, what does waits for two
people, a fault refuses the whole, and the same exports again change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.corrections.exports import import_exports, listing
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused

CALENDAR = BillingCalendar("America/Chicago")
MAPPING = """
[sources.customers]
file = "CUST*.csv"

[[tables.accounts]]
from = "customers"

[tables.accounts.columns]
account_id = "ACCT"
customer_class = { column = "CLASS", map = { "R" = "residential", "C" = "commercial" } }
opened = "OPENED"
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    mapping, exports = tmp_path / "mapping", tmp_path / "exports"
    mapping.mkdir()
    exports.mkdir()
    (mapping / "cis.toml").write_text(MAPPING)
    (exports / "CUST_1.csv").write_text("ACCT,CLASS,OPENED\n04-1123.07/2,R,2026-01-05\n04-1124,C,2026-02-01\n")
    return mapping, exports


def test_a_new_export_is_imported_and_the_same_again_changes_nothing(
    database: Database, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    mapping, exports = folders
    first = listing(exports)
    found = import_exports(database, CALENDAR, mapping, exports, tmp_path / "out")
    assert (found.changes, found.waits, found.made.changed) == (2, "", {"accounts": 2})
    assert database.read("SELECT account_id FROM ref.accounts ORDER BY 1")["account_id"].to_list() == [
        "04-1123.07/2",
        "04-1124",
    ]
    assert import_exports(database, CALENDAR, mapping, exports, tmp_path / "again").changes == 0
    (exports / "CUST_1.csv").write_text("ACCT,CLASS,OPENED\n04-1124,R,2026-02-01\n")
    assert listing(exports) != first
    assert import_exports(database, CALENDAR, mapping, exports, tmp_path / "third").changes == 1
    entries = database.read(
        "SELECT convert_from(body, 'UTF8') AS body FROM ledger.entry WHERE kind = 'reference_imported'"
    )
    assert all("customer_exports" in body or "CUST_1.csv" in body for body in entries["body"].to_list())


def test_a_fault_refuses_the_whole_with_file_and_line(
    database: Database, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    mapping, exports = folders
    (exports / "CUST_1.csv").write_text("ACCT,CLASS,OPENED\n04-1123,R,2026-01-05\n04-1124,X,2026-02-01\n")
    with pytest.raises(ReferenceRefused) as refused:
        import_exports(database, CALENDAR, mapping, exports, tmp_path / "out")
    assert str(refused.value.faults[0]).startswith("CUST_1.csv:3: CLASS: customer_class: no code for 'X'")
    assert database.read("SELECT account_id FROM ref.accounts").height == 0


def test_no_export_is_no_listing(tmp_path: Path) -> None:
    assert listing(tmp_path / "exports") == ""
