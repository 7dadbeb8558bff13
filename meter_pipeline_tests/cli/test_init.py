"""``init`` promises: a folder or one line that says what is wrong, and no password in a file that is committed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from meter_pipeline.cli.init import init

APP = typer.Typer()
APP.command()(init)
RIGHT = {
    "--name": "Springfield",
    "--zone": "America/Chicago",
    "--currency": "USD",
    "--commodities": "water",
    "--first-billing-day": "2026-11-02",
}


def made(folder: Path, **changes: str) -> tuple[int, str]:
    options = RIGHT | {f"--{k.replace('_', '-')}": v for k, v in changes.items()}
    done = CliRunner().invoke(APP, [str(folder), *[part for pair in options.items() for part in pair]])
    assert not isinstance(done.exception, OSError), done.exception
    return done.exit_code, " ".join(done.output.replace("│", " ").split())


def test_a_deployment_is_made_with_a_url_without_a_password(tmp_path: Path) -> None:
    code, _ = made(tmp_path / "city", database="postgresql://me@localhost/city")
    assert code == 0
    assert 'database_url = "postgresql://me@localhost/city"' in (tmp_path / "city" / "utility.toml").read_text()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:secret@localhost/city", "leave the password out"),
        ("mysql://me@localhost/city", "'mysql' is not a database of ours"),
        ("city.db", "'city.db' is not a database of ours"),
    ],
)
def test_a_database_that_cannot_be_is_refused(tmp_path: Path, url: str, said: str) -> None:
    code, output = made(tmp_path / "city", database=url)
    assert code == 2
    assert said in output
    assert not (tmp_path / "city").exists()


@pytest.mark.parametrize("where", ["taken", "taken/city", "/proc/city"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "taken").write_text("a file")
    code, output = made(tmp_path / where)
    assert code == 1
    assert "cannot be made" in output
