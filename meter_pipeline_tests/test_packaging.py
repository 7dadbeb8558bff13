"""The package works without a checkout: a wheel, an empty environment, another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from meter_pipeline_tests.support import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", str(out), str(ROOT)], check=True, timeout=180)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's bin folder. Dependencies come from this environment; the package comes from the wheel alone."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    python = home / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", str(wheel)]
    subprocess.run(command, check=True, timeout=120)
    packages = next((home / "lib").glob("python*")) / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    for tool in ("dagster", "dbmate"):
        (home / "bin" / tool).symlink_to(Path(sys.executable).parent / tool)
    return home / "bin"


def _run(installed: Path, folder: Path, *words: str, timeout: int = 300) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("METER_PIPELINE_")}
    done = subprocess.run(
        [str(installed / "meter-pipeline"), *words],
        cwd=folder,
        env=env | {"PATH": f"{installed}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_the_package_and_what_it_reads_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name.split("/", 1)[0] for name in names}
    assert inside == {"meter_pipeline", next(n for n in inside if n.endswith(".dist-info"))}
    migrations = {path.name for path in (ROOT / "sql" / "migrations").glob("*.sql")}
    assert migrations == {Path(n).name for n in names if "_packaged/sql/migrations/" in n}
    assert "meter_pipeline/_packaged/tools/verify_ledger.py" in names


def test_a_city_starts_from_the_wheel_in_a_folder_of_its_own(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [str(installed / "python"), "-c", "import meter_pipeline; print(meter_pipeline.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(installed.parent) in where
    city = tmp_path / "springfield"
    options = ["--name", "Springfield", "--zone", "America/Chicago", "--currency", "USD"]
    options += ["--commodities", "electricity", "--first-billing-day", "2026-10-01"]
    _run(installed, tmp_path, "init", str(city), *options)
    try:
        _run(installed, city, "database", "migrate")
        _run(installed, city, "reference", "import", "reference")
        shown = json.loads(_run(installed, city, "settings", "--json"))
        assert shown["deployment"] == str(city)
        assert json.loads(_run(installed, city, "status", "--json")) == {"days": []}
    finally:
        _run(installed, city, "database", "stop")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    try:
        found = json.loads(_run(installed, tmp_path, "demo", "--json", timeout=800))
        assert found["statements"], "bills were issued"
        assert found["audit"]["ok"], found["audit"]["findings"]
        assert all(day["success"] for day in found["runs"]["days"])
    finally:
        _run(installed, tmp_path / "meter-pipeline-demo", "database", "stop")
