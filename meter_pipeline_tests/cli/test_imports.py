"""A command imports what it uses and nothing else. Modules are counted, not seconds: a slow machine does not fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database

#: Each costs 0.1 to 1 s of processor time.
HEAVY = ("polars", "numpy", "pyarrow", "dagster", "pandera", "scipy", "matplotlib", "numba", "adbc_driver_manager")

_PROGRAM = """
import json, sys
sys.argv = ["meter-pipeline", *sys.argv[1:]]
from meter_pipeline.cli.main import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write("\\nLOADED " + json.dumps(sorted(sys.modules)))
"""


def _loaded(folder: Path, database: Database | None, *words: str) -> set[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("METER_PIPELINE_")}
    env |= {"METER_PIPELINE_HOME": str(folder / "home")}
    if database is not None:
        env |= {"METER_PIPELINE_DATABASE_URL": database.url}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return set(json.loads(done.stderr.split("\nLOADED ")[1]))


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"], ["billing", "--help"], ["settings"]], ids=" ".join)
def test_help_imports_no_library_of_frames_and_no_driver(tmp_path: Path, words: list[str]) -> None:
    loaded = _loaded(tmp_path, None, *words)
    assert loaded & {*HEAVY, "rich.markdown"} == set()
    if words == ["--help"]:
        assert "psycopg" not in loaded


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["pause", "status"],
        ["exceptions", "list"],
        ["explain", "A.C.20260101.0.1"],
        ["desk", "token", "ana"],
    ],
    ids=" ".join,
)
def test_a_small_answer_is_a_query_and_no_frame(tmp_path: Path, database: Database, words: list[str]) -> None:
    loaded = _loaded(tmp_path, database, *words)
    assert "psycopg" in loaded
    assert loaded & set(HEAVY) == set()
