"""A single fit equals what independent calculators get from real gas meters."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from meter_pipeline.baselines import FileError, NoModelError, fit_best, fit_known, options_for, read_pair
from meter_pipeline.cli.baselines import app
from meter_pipeline_tests.support import fixtures_dir


@pytest.fixture(scope="module")
def gas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, object]]]:
    """Usage files cut to the published baseline year, daily temperatures, and what statsmodels gets from them."""
    source, folder = fixtures_dir() / "gas_baseline", tmp_path_factory.mktemp("gas")
    hourly = pl.read_csv(source / "il-tempF.csv.gz").with_columns(pl.col("dt").str.slice(0, 10).alias("date"))
    hourly.group_by("date", maintain_order=True).agg(pl.col("tempF").mean().alias("temperature_f")).write_csv(
        folder / "temps.csv"
    )
    for name in ("il-gas-hdd-only-daily", "il-gas-intercept-only-daily"):
        daily = pl.read_csv(source / f"{name}.csv.gz").with_columns(pl.col("start").str.slice(0, 10).alias("date"))
        daily.filter(pl.col("date") >= "2015-12-27").head(365).select("date", "value").write_csv(folder / f"{name}.csv")
    return folder, json.loads((fixtures_dir() / "EXPECTED.json").read_text())["gas_baseline"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("il-gas-hdd-only-daily", ["--hdd-balance", "60"]), ("il-gas-intercept-only-daily", ["--model", "intercept"])],
)
def test_known_balance_points_give_the_published_figures(
    gas: tuple[Path, dict[str, dict[str, object]]], name: str, arguments: list[str]
) -> None:
    folder, expected = gas
    wanted = expected[name]
    result = CliRunner().invoke(
        app, ["fit", str(folder / f"{name}.csv"), str(folder / "temps.csv"), *arguments, "--json"]
    )
    assert result.exit_code == 0, result.output
    got = json.loads(result.stdout)
    parameters = wanted["params"]
    assert isinstance(parameters, dict)
    assert got["n"] == wanted["n"]
    assert got["intercept"] == pytest.approx(parameters["const"], abs=5e-7)
    assert (got["hdd_beta"] or 0) == pytest.approx(parameters.get("hdd", 0), abs=5e-7)
    assert got["sigma"] == pytest.approx(wanted["sigma"], abs=5e-7)
    assert got["r2"] == pytest.approx(wanted["rsq"], abs=5e-7)
    assert got["beyond_3_sigma"] == wanted["days3"]


def test_the_search_finds_the_balance_point_the_gas_meter_was_made_with(
    gas: tuple[Path, dict[str, dict[str, object]]],
) -> None:
    folder, _ = gas
    pair = read_pair(folder / "il-gas-hdd-only-daily.csv", folder / "temps.csv")
    found = fit_best(pair.usage, pair.temperatures_f, options_for("gas"))
    assert (found.model, found.hdd_balance_f, pair.days[0]) == ("hdd", 60.0, date(2015, 12, 27))


def test_hourly_temperatures_and_stamps_are_taken_as_days(gas: tuple[Path, dict[str, dict[str, object]]]) -> None:
    folder, _ = gas
    pair = read_pair(folder / "il-gas-hdd-only-daily.csv", fixtures_dir() / "gas_baseline" / "il-tempF.csv.gz")
    daily = read_pair(folder / "il-gas-hdd-only-daily.csv", folder / "temps.csv")
    np.testing.assert_allclose(pair.temperatures_f, daily.temperatures_f)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("date,value\n2026-01-01,1\n2026-01-02,nan\n")
    (tmp_path / "t.csv").write_text("date,temperature_f\n2026-01-01,30\n2026-01-02,31\n")
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "u.csv"), str(tmp_path / "t.csv"), "--json"])
    assert result.exit_code == 1
    assert "line 3" in result.stderr


def test_celsius_and_fahrenheit_files_fit_the_same_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    c = np.round(10 + 15 * np.sin(np.arange(365) / 58) + rng.normal(0, 3, 365), 3)
    usage = 3 + 0.4 * np.maximum(16 - c, 0) + rng.normal(0, 0.2, 365)
    days = pl.date_range(date(2025, 1, 1), date(2025, 12, 31), eager=True)
    pl.DataFrame({"date": days, "value": usage}).write_csv(tmp_path / "u.csv")
    pl.DataFrame({"date": days, "temperature_c": c}).write_csv(tmp_path / "c.csv")
    pl.DataFrame({"date": days, "temperature_f": c * 1.8 + 32}).write_csv(tmp_path / "f.csv")
    one, two = (read_pair(tmp_path / "u.csv", tmp_path / name) for name in ("c.csv", "f.csv"))
    np.testing.assert_allclose(one.temperatures_f, two.temperatures_f)
    assert fit_best(one.usage, one.temperatures_f).hdd_balance_f == pytest.approx(61, abs=1)


def test_nothing_to_fit_says_so() -> None:
    with pytest.raises(NoModelError, match="fewer than two days"):
        fit_best(np.full(30, np.nan), np.full(30, 60.0))
    with pytest.raises(NoModelError, match="no day lies beyond"):
        fit_known(np.arange(30.0), np.full(30, 60.0), hdd_balance_f=40)
    with pytest.raises(NoModelError, match="negative on average"):
        fit_best(np.full(30, -1.0), np.linspace(55, 60, 30))


def _pair(tmp_path: Path, usage: str) -> list[float]:
    (tmp_path / "u.csv").write_text("date,value\n" + usage)
    (tmp_path / "t.csv").write_text("date,temperature_f\n2026-10-30,50\n2026-10-31,51\n2026-11-01,52\n")
    return list(read_pair(tmp_path / "u.csv", tmp_path / "t.csv").usage)


def test_a_day_with_two_values_is_refused_by_line_and_a_repeated_row_counts_once(tmp_path: Path) -> None:
    """Two values for one day were summed without a word, also where the second row was the first again."""
    assert _pair(tmp_path, "2026-10-30,10\n2026-10-31,11\n2026-10-31,11\n") == [10.0, 11.0]
    with pytest.raises(FileError, match=r"u.csv: line 4: 2026-10-31 is 12, and 11 on line 3: leave one of them"):
        _pair(tmp_path, "2026-10-30,10\n2026-10-31,11\n2026-10-31,12\n")


def test_hours_without_zone_come_twice_when_autumn_repeats_one(tmp_path: Path) -> None:
    hours = [f"2026-11-01 {h:02d}:00" for h in (0, 1, 1, 2)]
    assert _pair(tmp_path, "".join(f"{h},1\n" for h in hours)) == [4.0]
    assert _pair(tmp_path, "".join(f"{h},{k}\n" for k, h in enumerate(hours))) == [6.0]
    with pytest.raises(FileError, match="line 3: 2026-11-01T01:00Z is 2, and 1 on line 2"):
        _pair(tmp_path, "2026-11-01T01:00Z,1\n2026-11-01T01:00Z,2\n")
