"""``meter-pipeline migrate`` promises: one JSON document, exit 1 where something must be looked at, and every step on
the record."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.migration import fill_city, fill_day
from meter_pipeline.cli import migrate
from meter_pipeline.migration.results import new_results
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.units import from_micro

DAY = date(2026, 10, 5)


@pytest.fixture
def ask(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a command and get its document and exit code."""
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(migrate, "prepare", lambda settings: database)  # migrated already: the fixture's template

    def call(*words: str) -> tuple[dict[str, Any], int]:
        done = CliRunner().invoke(migrate.app, [*words, "--json"])
        assert done.exit_code in (0, 1), done.output
        return json.loads(done.stdout) if done.stdout.strip() else {}, done.exit_code

    return call


def test_a_day_from_import_to_gate(ask: Any, database: Database, tmp_path: Path) -> None:
    fill_city(database, 20)
    fill_day(database, 20, 0)
    rows = ["account_id,level,code,value,estimated,tariff_version"]
    for account, level, code, value, estimated, version in (
        new_results(database, DAY)
        .select("account_id", "level", "code", "value", "estimated", "tariff_version")
        .iter_rows()
    ):
        rows.append(
            f"{account},{level},{code},{from_micro(value)},{str(estimated).lower()},{'' if version is None else version}"
        )
    path = tmp_path / "legacy.csv"
    path.write_text("\n".join(rows) + "\n")
    assert ask("import-legacy", "--day", str(DAY), "--file", str(path)) == (
        {"day": "2026-10-05", "figures": len(rows) - 1},
        0,
    )
    document, code = ask("compare", "--day", str(DAY))
    assert (document["blocking"], document["bills"], document["source"], code) == (0, 20, "pipeline", 0)
    assert {row["class"] for row in document["summary"]} == {"match"}
    document, code = ask("compare", "--day", str(DAY), "--mode", "legacy_twice", "--second-run", str(path))
    assert (document["blocking"], code) == (0, 0)
    path.write_text("\n".join([*rows[:-1], rows[-1].replace(rows[-1].split(",")[3], "999.99")]) + "\n")
    ask("import-legacy", "--day", str(DAY), "--file", str(path))
    document, code = ask("compare", "--day", str(DAY))
    assert code == 1
    assert document["blocking"] >= 1
    document, code = ask("gate")
    assert (document["green"], code) == (False, 1)
    assert Path(document["page"]).read_text("utf-8").count(document["sha256"]) == 1
    path.write_text("account_id,level,code\nA,line,x\n")
    assert ask("import-legacy", "--day", str(DAY), "--file", str(path))[1] == 1


def test_steps_and_rollback_are_on_the_record(ask: Any, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from meter_pipeline.migration import shadow

    made: list[str] = []
    monkeypatch.setattr(shadow, "prepare", lambda given: made.append(given.name))
    assert ask("advance", "shadow", "--by", "ana", "--reason", "parallel run")[0]["done"] is True
    assert made == [database.name], "the step makes the shadow"
    assert ask("advance", "live", "--by", "ana", "--reason", "too far")[0]["refused"] == "not_allowed"
    assert ask("advance", "dual_write", "--by", "ana", "--reason", "seen")[1] == 0
    document, code = ask("advance", "live", "--route", "R-1", "--by", "ana", "--reason", "alone")
    assert (document["refused"], code) == ("needs_two", 1)
    document, code = ask(
        "advance", "live", "--route", "R-1", "--report", "0" * 64, "--by", "ana", "--reason", "no report"
    )
    assert (document["refused"], code) == ("no_report", 1)
    document, code = ask("rollback", "--to", "shadow", "--by", "ana", "--reason", "drill")
    assert (document["to"]["stage"], code) == ("shadow", 0)
    assert document["seconds"] < 5
    status, _ = ask("status")
    assert (status["stage"], status["outbox"], status["gate"]["green"]) == ("shadow", {}, False)
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind = 'migration_stage'") == 4


def test_a_defect_takes_two_people_and_an_end(ask: Any, database: Database) -> None:
    words = ["known-defect", "LEG-1", "--most", "0.25", "--reason", "old price", "--by", "ana"]
    assert ask(*words, "--approver", "ana", "--expires", "2026-12-31")[1] == 1
    assert ask(*words, "--approver", "ben", "--expires", "2031-12-31")[1] == 1
    assert database.read("SELECT count(*) AS n FROM migration.known_defect")["n"][0] == 0
