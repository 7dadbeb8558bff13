"""The stage says what an analyst needs: size, root, signer, last witness, and whether the ledger verifies."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from meter_pipeline.ledger import checkpoint_billing_day, entries
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings
from meter_pipeline_tests.ledger.test_verification import as_dba

DAY = date(2026, 3, 8)


def settings_in(folder: Path) -> Settings:
    (folder / "utility.toml").write_text('name = "City of Example"\nzone = "America/Chicago"\ncurrency = "USD"\n')
    return Settings(home=folder, data=folder, inbox=folder, database_url=None)


def test_a_days_report_and_its_blocking_check(database: Database, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with database.connect("test") as connection:
        entries.append(connection, "reconciled", {"billing_day": DAY})
    report = checkpoint_billing_day(database, DAY, settings=settings).report()
    assert report.rows == 2
    assert report.figures["size"] == 2
    assert report.figures["last witness"] == "none yet"
    assert str(report.figures["signer"]).startswith("city-of-example/meter-pipeline/")
    assert [(check.name, check.passed) for check in report.checks] == [("ledger_verifies", True)]
    (plot,) = report.plots.values()
    assert plot.startswith(b"\x89PNG")
    assert len(plot) < 20_000
    again = checkpoint_billing_day(database, DAY, settings=settings).report()
    assert (again.rows, again.figures["root"]) == (0, report.figures["root"])


def test_a_broken_ledger_fails_the_check_and_says_where(database: Database, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with database.connect("test") as connection:
        entries.append(connection, "reconciled", {"billing_day": DAY})
    checkpoint_billing_day(database, DAY, settings=settings)
    with database.connect("dba") as connection:
        as_dba(connection, "UPDATE ledger.leaf SET leaf_hash = sha256('x') WHERE leaf_index = 1")
    (check,) = checkpoint_billing_day(database, DAY, settings=settings, full=True).report().checks
    assert not check.passed
    assert check.figures["first_bad_index"] == 1
    assert "leaf at 1" in check.description
