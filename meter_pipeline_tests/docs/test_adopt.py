"""docs/adopt.md typed as it stands: the wheel in an environment of its own, the system's PostgreSQL, an owner who may
create no roles; from an empty folder to right bills, files for the customer system and a backup that comes back
elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from psycopg import sql

from meter_pipeline_tests.postgres.test_own_server import PASSWORD, System, no_environment, system
from meter_pipeline_tests.support import ROOT
from meter_pipeline_tests.test_packaging import installed, wheel

__all__ = ["installed", "no_environment", "system", "wheel"]


def blocks() -> list[str]:
    """The commands of the page, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "adopt.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_has_a_block_for_each_of_its_steps() -> None:
    assert len(blocks()) == 7
    assert "meter-pipeline init" in blocks()[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_ends_in_right_bills_within_its_ten_minutes(system: System, installed: Path, tmp_path: Path) -> None:
    with system.admin() as connection:
        connection.execute(sql.SQL("CREATE ROLE city LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METER_PIPELINE_")} | {
        "PATH": f"{installed}:{os.environ['PATH']}",
        "PGPASSWORD": PASSWORD,
        "DATABASE_URL": system.database("city"),
        "ADMIN_URL": f"postgresql://postgres:secret@localhost:{system.port}/postgres",
        "METER_PIPELINE_AUTOMATION": "off",
    }

    def typed(text: str, folder: Path, **more: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        # doctor ends with 1 where something is left to do, such as an empty register of people
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    began = time.monotonic()
    first, *others = blocks()
    typed(first, tmp_path)
    city = tmp_path / "springfield"
    for text in others:
        typed(text.replace("cd springfield\n", ""), city)
    took = time.monotonic() - began
    for account, total in (("A-1", "4.60"), ("A-2", "15.40")):
        shown = json.loads(typed(f"meter-pipeline billing show {account}.C1.20261102.0 --json", city))
        assert shown["total"] == total
    assert "1,030" in (city / "bill.html").read_text("utf-8")  # as a US page writes the dial
    assert (city / "bill.pdf").read_bytes().startswith(b"%PDF-")
    reads = [
        json.loads(line) for path in (city / "to_cis").glob("reads_*.jsonl") for line in path.read_text().splitlines()
    ]
    assert {(r["meter_id"], r["dial"], r["status"]) for r in reads} == {("M-1", "1030", "read"), ("M-2", "212", "read")}

    with system.admin() as connection:
        connection.execute((city / "roles.sql").read_bytes())
    other = system.database("city")
    there = {"METER_PIPELINE_DATABASE_URL": other, "METER_PIPELINE_HOME": str(tmp_path / "elsewhere")}
    typed(
        "meter-pipeline database restore backups/first; meter-pipeline ledger accept-guards --by ana --reason restored; "
        "meter-pipeline ledger verify --full --day 2026-11-02",
        city,
        **there,
    )
    more = "meter,register,read_at,dial\nM-1,R1,2026-11-05T00:00:00-06:00,1036\nM-2,R1,2026-11-05T00:00:00-06:00,213\n"
    (city / "inbox" / "HAND" / "fifth.csv").write_text(more)
    os.utime(city / "inbox" / "HAND" / "fifth.csv", (time.time() - 60,) * 2)
    typed("meter-pipeline run --day 2026-11-04", city, **there)
    charged = typed("meter-pipeline billing law --day 2026-11-04 --json", city, **there)
    assert json.loads(charged)["ok"]
    assert took < 600, f"the machine took {took:.0f} s"
