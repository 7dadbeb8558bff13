"""The command line answers as docs promise: documents, exit codes, other people's vectors on stdin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meter_pipeline.cli.ledger import app
from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ledger.test_day import settings_in
from meter_pipeline_tests.support import fixtures_dir


def call(*arguments: str, stdin: str | None = None) -> tuple[int, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"], input=stdin)
    return done.exit_code, json.loads(done.stdout) if done.stdout.strip() else None


def test_tree_of_a_file(tmp_path: Path) -> None:
    leaves = tmp_path / "leaves"
    leaves.write_text("\n00\n10\n2021\n3031\n40414243\n5051525354555657\n606162636465666768696a6b6c6d6e6f\n")
    assert call("tree", "--leaves", str(leaves)) == (
        0,
        {"size": 8, "root": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
    )
    leaves.write_text("")
    assert call("tree", "--leaves", str(leaves))[1]["size"] == 0
    leaves.write_text("zz\n")
    assert call("tree", "--leaves", str(leaves))[0] == 2


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_vectors_on_stdin(kind: str) -> None:
    for path in sorted((fixtures_dir() / "merkle" / kind).rglob("*.json")):
        wrong = json.loads(path.read_text())["wantErr"]
        code, document = call(f"check-{kind}", stdin=path.read_text())
        assert (code, document["ok"]) == (int(wrong), not wrong), path


def test_what_is_no_vector_is_wrong_usage() -> None:
    assert call("check-inclusion", stdin="{}")[0] == 2
    assert call("check-consistency", stdin="not json")[0] == 2


def test_checkpoint_verify_witness_export(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_in(tmp_path)
    for name, value in (("HOME", tmp_path), ("DATA", tmp_path), ("DATABASE_URL", database.url)):
        monkeypatch.setenv(f"METER_PIPELINE_{name}", str(value))
    with database.connect("test") as connection:
        entries.append(connection, "reconciled", {})
    code, made = call("checkpoint")
    assert (code, made["size"], made["last_witness"]) == (0, 2, None)
    vkey = tmp_path / "log.vkey"
    vkey.write_text(made["signer"])
    code, seen = call("witness", "--state", str(tmp_path / "w"), "--vkey", str(vkey), "--name", "finance", "--submit")
    assert (code, seen["size"], seen["old_size"]) == (0, 2, 0)
    code, found = call("verify", "--full")
    assert (code, found["ok"], found["last_witness"]["name"]) == (0, True, "finance")
    assert call("export", str(tmp_path / "out"))[1]["size"] == 2
    assert call("export", str(tmp_path / "out"))[0] == 2
    assert call("prove", "--payload", "00" * 32)[0] == 1
    assert call("prove")[0] == 2
    assert call("prove", "--line", "A-1.C1.20260701.0.1")[0] == 1
    code, rotated = call("rotate-key", "--by", "operator-1")
    assert (code, rotated["size"], rotated["signer"] != made["signer"]) == (0, 3, True)
    assert call("erase", "00" * 32, "--reason", "r", "--by", "p")[0] == 1
    assert call("erase", "zz", "--reason", "r", "--by", "p")[0] == 2
    code, accepted = call("accept-guards", "--by", "dba-1", "--reason", "nothing changed")
    assert (code, accepted["entry"] > 0) == (0, True)
    monkeypatch.setenv("METER_PIPELINE_LEDGER_SIGNER", f"unix:{tmp_path / 'nobody'}")
    for command in (("checkpoint",), ("rotate-key", "--by", "operator-1")):
        code, refused = call(*command)
        assert (code, refused["refused"]) == (1, "unreachable")
    with database.connect("dba") as connection:
        connection.execute("ALTER TABLE ledger.entry DISABLE TRIGGER only_grows")
    code, found = call("verify")
    assert (code, found["ok"]) == (1, False)
