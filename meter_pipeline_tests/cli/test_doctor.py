"""Each finding of the doctor: a deployment with the fault, and the line that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_pipeline.cli import doctor
from meter_pipeline.cli.init import make_demo
from meter_pipeline.cli.main import app
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.readiness import server_facts
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import load_settings


@pytest.fixture
def deployment(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "city"
    make_demo(folder)
    for name in ("HOME", "DATA", "INBOX"):
        monkeypatch.delenv(f"METER_PIPELINE_{name}", raising=False)
    monkeypatch.setenv("METER_PIPELINE_AUTOMATION", "off")
    monkeypatch.setattr(sys, "argv", ["meter-pipeline", "doctor"])  # commands are imported by the word asked for
    monkeypatch.setenv("METER_PIPELINE_DEPLOYMENT", str(folder))
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    return folder


def _levels() -> tuple[int, dict[str, tuple[str, str]]]:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    document = json.loads(done.stdout)
    assert document["ok"] == (done.exit_code == 0)
    return done.exit_code, {c["what"]: (c["level"], c["next"]) for c in document["checks"]}


def test_a_deployment_without_reference_data_is_told_to_import_it(deployment: Path, database: Database) -> None:
    code, found = _levels()
    assert code == 1
    assert found["reference data"][0] == "problem"
    assert "reference import" in found["reference data"][1]
    assert found["people"][0] == "note"
    assert {
        found[what][0] for what in ("settings", "inbox", "home", "head-ends", "disk", "database", "roles", "clock")
    } == {"ok"}
    import_folder(database, deployment / "reference")
    code, found = _levels()
    assert (code, found["reference data"][0], found["tariffs"][0]) == (0, "ok", "ok")


def test_an_empty_database_is_told_to_migrate(
    deployment: Path, server: Database, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = ensure_database(server, f"{database.name}_empty")
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", empty.url)
    code, found = _levels()
    assert (code, found["migrations"]) == (1, ("problem", "meter-pipeline database migrate"))


def test_a_server_that_is_away_is_one_line(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    code, found = _levels()
    assert (code, found["database"][0]) == (1, "problem")


def test_a_wrong_zone_names_the_file(deployment: Path) -> None:
    text = (deployment / "utility.toml").read_text("utf-8")
    (deployment / "utility.toml").write_text(text.replace("America/Chicago", "America/Chicagoo"), "utf-8")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    (check,) = json.loads(done.stdout)["checks"]
    assert done.exit_code == 1
    assert "utility.toml" in check["found"]
    assert "America/Chicagoo" in check["found"]


def test_rights_that_are_missing_come_with_the_statement_for_an_administrator(database: Database) -> None:
    facts = server_facts(database)
    now = datetime.now(UTC)
    poor = replace(
        facts, superuser=False, may_create_roles=False, may_create_schemas=False, missing_roles=["meter_owner"]
    )
    found = {c.what: c for c in doctor.server(poor, now, embedded=False)}
    assert found["rights"].next.endswith(f'GRANT CREATE ON DATABASE "{facts.database}" TO "{facts.login}";')
    assert "database roles --sql" in found["roles"].next
    old = {c.what: c for c in doctor.server(replace(facts, version=130_004), now, embedded=False)}
    assert old["database"].level == "problem"
    late = {c.what: c for c in doctor.server(facts, now + timedelta(minutes=3), embedded=True)}
    assert (late["clock"].level, "chrony" in late["clock"].next) == ("problem", True)


def test_the_first_billing_day_and_automation(deployment: Path) -> None:
    today = date(2026, 11, 29)
    assert doctor.first_day(None, today).level == "problem"
    assert doctor.first_day(date(2027, 1, 1), today).level == "note"
    assert doctor.first_day(date(2026, 10, 1), today).level == "ok"
    assert doctor.automation(False).level == "note"
    assert doctor.automation(True).level == "ok"


def test_an_inbox_that_cannot_be_written_is_found(deployment: Path) -> None:
    settings = replace(load_settings(), inbox=Path("/proc/inbox"))
    found = {check.what: check for check in doctor.folders(settings)}
    assert found["inbox"].level == "problem"
    assert "/proc/inbox" in found["inbox"].next


def test_a_day_that_cannot_be_billed_is_refused_in_one_line(deployment: Path) -> None:
    for day, said in (("2001-01-01", "before the first billing day"), ("2999-01-01", "has not closed yet")):
        command = [sys.executable, "-m", "meter_pipeline.cli.main", "run", "--day", day]
        done = subprocess.run(command, env=os.environ.copy(), capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
