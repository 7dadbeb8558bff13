"""The auditor's program and our own verification hold what a leak's adjustment says: its case, rule, usage and what is
forgiven."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from meter_pipeline.billing.adjustments import decide
from meter_pipeline.leak_adjustments.request import apply
from meter_pipeline.ledger import checkpoints
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger.verification import verify
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import history
from meter_pipeline_tests.billing.support import CHICAGO, CLOCK
from meter_pipeline_tests.leak_adjustments.test_request import LEAK, city  # noqa: F401 - a fixture
from meter_pipeline_tests.support import ROOT

#: What is done to the row behind the ledger. Every column of it is in the `content` of the adjustment's entry.
DEEDS = (
    "UPDATE billing.leak_adjustment SET forgiven = forgiven + 1",
    "UPDATE billing.leak_adjustment SET normal = normal - 1",
    "UPDATE billing.leak_adjustment SET case_id = 'another'",
    "UPDATE billing.leak_adjustment SET rule_from = rule_from + 1",
    "DELETE FROM billing.leak_adjustment",
)


def _inside(database: Database, home: Path) -> list[Any]:
    return list(verify(database, home=home, full=True, hashers=hashers(), days=()).findings)


def _outside(database: Database, home: Path, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    export(database, folder)
    key = next((home / "ledger").glob("*.vkeys")).read_text().split()[0]
    command = [sys.executable, str(ROOT / "tools" / "verify_ledger.py"), str(folder), "--vkey", key, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)["findings"]


def _recorded(database: Database) -> None:
    """The fixture writes reference data and usage by plain SQL: give the reference rows their entries, and leave no
    usage that was never validated."""
    with database.connect() as connection:
        instants = [instant for instant, _ in history.unproven(connection)]
    for instant in instants:
        with database.connect() as connection:
            connection.execute("SELECT set_config('meter_pipeline.record_time', %s, true)", (instant.isoformat(),))
            history.record(connection, {}, source="test", reason="the fixture's rows", by=None)
    with database.connect() as connection:
        connection.execute("DELETE FROM vee.daily_usage")


def test_an_export_with_a_leak_adjustment_verifies_and_a_changed_one_does_not(city: Database, tmp_path: Path) -> None:  # noqa: F811
    _, (name,) = apply(city, CHICAGO, LEAK, shown="receipt 4711", requested_by="ben", clock=CLOCK)
    decide(city, name, approve=True, person="cleo", clock=CLOCK)
    assert city.rows("SELECT status FROM billing.adjustment") == [{"status": "posted"}]
    _recorded(city)
    home = tmp_path / "home"
    home.mkdir()
    checkpoints.checkpoint(city, home=home)

    assert _inside(city, home) == []
    assert _outside(city, home, tmp_path / "clean") == (0, [])
    with city.connect() as connection:
        for n, deed in enumerate(DEEDS):
            connection.execute("CREATE TABLE public.kept AS SELECT * FROM billing.leak_adjustment")
            assert connection.execute(deed.encode()).rowcount == 1, deed
            connection.commit()
            assert "content" in {finding.check for finding in _inside(city, home)}, deed
            code, found = _outside(city, home, tmp_path / f"changed{n}")
            assert (code, {finding["check"] for finding in found}) == (1, {"content"}), deed
            connection.execute("DELETE FROM billing.leak_adjustment")
            connection.execute("INSERT INTO billing.leak_adjustment SELECT * FROM public.kept")
            connection.execute("DROP TABLE public.kept")
            connection.commit()
    assert _inside(city, home) == []
