"""Dated reference rows promise: each is held by a leaf of the ledger, and a value that is changed behind it is found by
the pipeline's own verification and by the auditor's program."""

from __future__ import annotations

from pathlib import Path

from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.ledger import checkpoints
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.town import FIRST, town
from meter_pipeline_tests.ledger.test_adjustment_rows import inside, outside

ROWS = {
    "account_values": {"account_id": "AC-A", "valid_from": FIRST, "customer_class": "commercial"},
    "channel_values": {"meter_id": "MA", "channel": "E1", "valid_from": FIRST, "interval_minutes": 15},
    "heat_contents": {"zone_id": "NORTH", "valid_from": FIRST, "therms_per_ccf": "1.036"},
    "validation_thresholds": {"threshold": "high_low.sigmas", "valid_from": FIRST, "value": "5"},
}
CHANGES = {
    "account_values": "customer_class = 'municipal'",
    "channel_values": "interval_minutes = 30",
    "heat_contents": "therms_per_ccf = 1.136",
    "validation_thresholds": "value = 50",
}


def test_a_dated_value_that_is_changed_behind_the_ledger_is_found(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    folder = city.folder_of({name: [row] for name, row in ROWS.items()})
    import_folder(database, city.calendar, folder, clock=city.clock)
    home = city.settings.home
    checkpoints.checkpoint(database, home=home)
    assert (inside(database, home), outside(database, home, tmp_path / "honest")) == (set(), set())
    for name, change in CHANGES.items():
        with database.connect() as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(f"CREATE TABLE public.kept AS SELECT * FROM ref.{name}".encode())
            connection.execute(f"UPDATE ref.{name} SET {change}".encode())
        assert inside(database, home), name
        assert outside(database, home, tmp_path / name), name
        with database.connect() as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(f"DELETE FROM ref.{name}".encode())
            connection.execute(f"INSERT INTO ref.{name} SELECT * FROM public.kept".encode())
            connection.execute("DROP TABLE public.kept")
    assert (inside(database, home), outside(database, home, tmp_path / "again")) == (set(), set())
