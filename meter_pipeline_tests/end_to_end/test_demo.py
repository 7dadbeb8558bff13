"""The demo as a newcomer runs it ends with the auditor's program saying OK, over an export made right after the last
billing day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database


@pytest.mark.slow
def test_the_demo_ends_with_the_auditors_program_content(database: Database, tmp_path: Path) -> None:
    environment = os.environ | {
        "METER_PIPELINE_HOME": str(tmp_path / "home"),
        "METER_PIPELINE_DATABASE_URL": database.url,
    }
    command = [sys.executable, "-m", "meter_pipeline.cli.main", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    audit = json.loads(done.stdout)["audit"]
    assert (audit["ok"], audit["findings"]) == (True, [])
    assert audit["size"] > 100
