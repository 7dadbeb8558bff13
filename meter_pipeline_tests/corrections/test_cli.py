"""The command line of corrections: the documents that scripts read."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meter_pipeline.cli.main import app
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, agreement, channel, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]


def test_a_correction_at_the_command_line(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    city = town(database, tmp_path / "town")
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(city.settings.home))
    monkeypatch.setenv("METER_PIPELINE_DATA", str(city.settings.data))

    def call(*words: str, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["meter-pipeline", *words])  # a command is asked for, not the list of them
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == code, (words, done.output, done.exception)
        return json.loads(done.stdout)

    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    before = datetime.now(UTC).isoformat()
    folder = str(city.folder_of({"channels": [channel("R", 20)]}))
    seen = call("reference", "import", folder, "--dry-run")
    assert {"digest", "changes", "days", "service_points", "statements", "money", "refused"} <= seen.keys()
    assert seen["changes"][0] | {"old": "1.000000", "new": "20.000000"} == seen["changes"][0]
    assert (seen["days"], seen["service_points"], seen["refused"]) == (3, 1, None)
    assert seen["statements"] == {"open": 0, "issued": 1, "sealed_months": []}
    assert seen["money"]["difference"] == "57.00"
    assert seen["two_people"]
    assert call("reference", "import", folder, "--dry-run")["digest"] == seen["digest"]
    assert [c["digest"] for c in call("reference", "corrections")["corrections"]] == [seen["digest"]]
    asked = call("reference", "request", seen["digest"], "--by", "ana", "--why", "nameplate")
    done = call("reference", "approve", str(asked["request"]), "--by", "ben", "--why", "seen")
    assert done["asked"]["days"] == [d.isoformat() for d in DAYS]
    now = call("reference", "show", "channels")["rows"]
    then = call("reference", "show", "channels", "--as-of", before)["rows"]
    assert [[r["multiplier"] for r in rows if r["meter_id"] == "MR"] for rows in (now, then)] == [
        ["20.000000"],
        ["1.000000"],
    ]
    statement = f"AC-R.C1.{FIRST:%Y%m%d}.0"
    city.settle()
    adjustment = {"adjustment_id": f"{statement}.A1", "by": "carol"}
    assert call("billing", "decide", f"{statement}.A1", "--by", "carol") == adjustment | {"status": "posted"}
    said = CliRunner().invoke(app, ["billing", "decide", f"{statement}.A1", "--by", "carol"])
    assert "is not waiting for a decision" in said.output
    assert call("billing", "reproduce", statement)["identical"]
    assert call("reference", "verify")["ok"]
    assert call("reference", "import", folder, "--dry-run")["changes"] == []
    short = str(city.folder_of({"agreements": [agreement(p) for p in "AB"]}))
    refused = call("reference", "import", short, "--snapshot", "agreements", code=1)
    assert "would end 1 of 3 rows" in refused["faults"][0]
    whole = call(
        "reference", "import", short, "--snapshot", "agreements", "--confirm-ended", "--on", "2026-01-08", "--dry-run"
    )
    assert whole["changes"][0]["new"] == "2026-01-08"
    assert call("reference", "import", "nowhere", "--dry-run", code=1)["refused"]
    tested = {
        "meter_id": "MA",
        "tested_on": DAYS[2],
        "percent_registration": 50,
        "wrong_since": DAYS[1],
        "evidence": "shop",
    }
    call("reference", "import", str(city.folder_of({"meter_tests": [tested]})))
    said = CliRunner().invoke(app, ["reference", "import", str(city.folder_of({"meter_tests": [tested]}))])
    assert "Rows that the folder lacks stay as they are" in said.stdout
    row = {"threshold": "high_low.sigmas", "valid_from": date(2030, 6, 1), "value": 5}
    call("reference", "import", str(city.folder_of({"validation_thresholds": [row]})))
    said = CliRunner().invoke(app, ["vee", "rules"])
    assert all(word in said.stdout for word in ("high_low.sigmas", "2030-06-01", "SUM_CHECK"))
    test = call("reference", "meter-test", "ma", str(DAYS[2]))
    assert (test["wrong_from"], test["right_from"], test["days"], test["two_people"]) == (
        str(DAYS[1]),
        str(DAYS[2]),
        1,
        True,
    )
    assert test["money"]["difference"] == "2.40"  # 24 kWh of 0.10 were half of what was used
