"""What an adjustment says (amount, people, state) is what its entries in the ledger say: every column, inside and
outside.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide, request
from meter_pipeline.ledger import checkpoints
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger.verification import verify
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing.support import CHICAGO, CLOCK, JULY, put_intervals
from meter_pipeline_tests.billing.test_corrections import STATEMENT, issued
from meter_pipeline_tests.support import ROOT

#: What is done to rows of an adjustment -> which check finds it.
DEEDS = {
    "UPDATE billing.adjustment SET net = net + 100": "state",
    "UPDATE billing.adjustment SET gross = gross - 1": "state",
    "UPDATE billing.adjustment SET threshold = 1000000, approval_required = false": "state",
    "UPDATE billing.adjustment SET decided_by = 'somebody'": "state",
    "UPDATE billing.adjustment SET decided_at = decided_at - interval '1 day'": "state",
    "UPDATE billing.adjustment SET status = 'refused', posted_at = NULL": "state",
    "UPDATE billing.adjustment SET evidence = 'another'": "state",
    "UPDATE billing.adjustment SET posting_month = posting_month - interval '1 month'": "state",
    "UPDATE billing.adjustment SET restated = NOT restated": "state",
    "UPDATE billing.adjustment SET account_id = 'A-999'": "state",
    "DELETE FROM billing.adjustment": "state",
    "INSERT INTO billing.adjustment SELECT (jsonb_populate_record(a, jsonb_build_object('adjustment_id', a.adjustment_id || '9'))).* FROM billing.adjustment a": "state",
    "UPDATE billing.adjustment_line SET name = name || ' (reduced)'": "content",
    "UPDATE billing.adjustment_line SET quantity = quantity + 1": "content",
    "UPDATE billing.adjustment_line SET amount = amount + 1": "leaf without row",
    "UPDATE billing.adjustment_segment SET carry_out = array_append(carry_out, 5)": "content",
    "UPDATE billing.adjustment_segment SET energy = array_append(energy, 5)": "content",
    "DELETE FROM billing.adjustment_segment": "content",
}


def inside(database: Database, home: Path) -> set[str]:
    return {f.check for f in verify(database, home=home, full=True, hashers=hashers(), days=()).findings}


def outside(database: Database, home: Path, folder: Path) -> set[str]:
    export(database, folder)
    key = next((home / "ledger").glob("*.vkeys")).read_text().split()[0]
    command = [sys.executable, str(ROOT / "tools" / "verify_ledger.py"), str(folder), "--vkey", key, "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return {f["check"] for f in found["findings"]}


@pytest.fixture
def home(database: Database, tmp_path: Path) -> Path:
    """A posted adjustment that a second person approved, under a checkpoint."""
    point = issued(database)
    put_intervals(database, JULY, {point: [900_000] * 24})
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    why = {"reason": "late_actual", "evidence": "1 July came late", "requested_by": "analyst"}
    request(database, CHICAGO, STATEMENT, clock=CLOCK, **why)
    waiting = database.rows("SELECT adjustment_id FROM billing.adjustment WHERE status = 'requested'")
    for row in waiting:
        decide(database, row["adjustment_id"], approve=True, person="ben", clock=CLOCK)
    assert database.rows("SELECT status FROM billing.adjustment WHERE status = 'posted'")
    home = tmp_path / "home"
    home.mkdir()
    checkpoints.checkpoint(database, home=home)
    return home


def test_every_column_of_an_adjustment_is_held(database: Database, home: Path, tmp_path: Path) -> None:
    known = inside(database, home)
    assert known.isdisjoint({"state", "content"})
    assert outside(database, home, tmp_path / "clean").isdisjoint({"state", "content"})
    with database.connect("dba") as connection:
        connection.execute("SET session_replication_role = replica")
        for table in ("adjustment", "adjustment_line", "adjustment_segment"):
            # Its triggers refuse most of this to everybody: the owner of the table takes them off first.
            connection.execute(f"ALTER TABLE billing.{table} DISABLE TRIGGER USER".encode())
        for n, (deed, check) in enumerate(DEEDS.items()):
            tables = ("adjustment", "adjustment_line", "adjustment_segment")
            for table in tables:
                connection.execute(f"CREATE TABLE public.{table} AS SELECT * FROM billing.{table}".encode())
            assert connection.execute(deed.encode()).rowcount > 0, deed
            connection.commit()
            found = inside(database, home) - known
            assert check in found, (deed, found)
            if n % 4 == 0:
                assert check in outside(database, home, tmp_path / f"export{n}"), deed
            for table in tables:
                connection.execute(f"DELETE FROM billing.{table}".encode())
                connection.execute(f"INSERT INTO billing.{table} SELECT * FROM public.{table}".encode())
                connection.execute(f"DROP TABLE public.{table}".encode())
            connection.commit()
    assert inside(database, home) == known
