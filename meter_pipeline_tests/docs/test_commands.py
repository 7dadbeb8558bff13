"""Every command in the README and docs exists with its options; every block meant to be typed is typed, in order, on
the demo (slow)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter_pipeline_tests.docs.pages import PAGES, commands, shell_blocks, unknown
from meter_pipeline_tests.support import ROOT

#: Lines that this test does not type, and why.
ELSEWHERE = {
    "make demo": "the demo is made once for all pages, by this very command",
    "make test": "it would run itself",
    "make test-all": "it would run itself",
    "make bench": "minutes of measuring; each benchmark has a test of its own",
    "make ui": "serves until stopped; meter_pipeline_tests/defs starts the services",
}
#: Blocks with one of these need another machine or another server; their commands are still checked for existence.
OTHER_MACHINES = re.compile(
    r"\b(docker|podman|kubectl|helm|systemctl|sudo|ssh|celery|citus|redis|rabbitmq|pg_basebackup|pgbackrest|initdb|pg_ctl)\b|services up|example\.org|\$DATABASE_URL",
    re.I,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from meter_pipeline.cli import main

    monkeypatch.setattr(sys, "argv", ["meter-pipeline", "demo"])  # a command is asked for, so modules are really loaded
    root = typer.main.get_command(main.app)
    wrong = {" ".join(words): why for words in commands(page) if (why := unknown(root, words))}
    assert wrong == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")) if not re.match(r"[a-z]+:|#", t)]
    missing = [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]
    assert missing == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A checkout after ``make demo``: the house linked, the municipality's folder a copy, a home of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name not in ("data", ".meter_pipeline", ".git", ".pytest_cache"):
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "data", folder / "data")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("METER_PIPELINE_", "DAGSTER_"))} | {
        "METER_PIPELINE_HOME": str(folder / ".meter_pipeline"),
        "METER_PIPELINE_DATA": str(folder / "data"),
        "NO_COLOR": "1",
    }
    # The linked .venv stays as it is: installed again from here it would belong to a folder that the test removes.
    made = subprocess.run(
        ["make", "--old-file=.venv/.installed", "demo"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    yield folder, environment
    subprocess.run(
        [".venv/bin/meter-pipeline", "database", "stop"],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )


#: Pages about files that a utility has and the demo has not: test_adopt.py types the one, mapping/ tests the other
_TYPED_ELSEWHERE = ("adopt.md", "mapping.md")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if shell_blocks(page) and page.name not in _TYPED_ELSEWHERE],
    ids=lambda page: page.name,
)
def test_what_a_page_says_to_type_works(project: tuple[Path, dict[str, str]], page: Path) -> None:
    if not (ROOT / ".venv" / "bin" / "meter-pipeline").exists():
        pytest.skip("not an installed checkout: no .venv")
    folder, environment = project
    script = []
    for block in shell_blocks(page):
        if OTHER_MACHINES.search(block):
            continue
        script += [line for line in block.splitlines() if line.partition("#")[0].strip() not in ELSEWHERE]
    text = "set -euo pipefail\n" + "\n".join(script) + "\n"
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "\x1b[" not in done.stdout, "no colours where the output is piped"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_analysts_questions_are_answered_by_the_demo(project: tuple[Path, dict[str, str]]) -> None:
    from meter_pipeline.postgres.database import Database
    from meter_pipeline_tests.reporting.test_analyst import QUERIES

    folder, environment = project
    url = subprocess.run(
        [".venv/bin/meter-pipeline", "database", "url"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with Database(url).connect(autocommit=True) as connection:
        empty = [question for question, query in QUERIES if not connection.execute(query.encode()).fetchall()]
    numbers = [int(question.partition(".")[0]) for question in empty]
    # No difference is open and no zone's day is unknown; a week has no old balances, rate studies, leak adjustments,
    # estimated bills or corrections under a back-billing rule.
    assert numbers == [2, 13, 16, 17, 18, 20, 21, 22, 23, 24]
