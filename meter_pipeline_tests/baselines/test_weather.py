"""Weather files of every format give the temperatures that were published, and days that lack too much stay missing."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from meter_pipeline.baselines import fahrenheit, sums
from meter_pipeline.baselines.weather import (
    WeatherError,
    coverage,
    daily,
    hourly_grid,
    hours_of_days,
    kilometres,
    ranked_stations,
    read_weather,
    recognise,
    with_fallback,
)
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline_tests.support import fixtures_dir

CHICAGO = BillingCalendar("America/Chicago")


def test_seattles_degree_days_are_the_published_ones() -> None:
    expected = json.loads((fixtures_dir() / "EXPECTED.json").read_text())["weather"]["seattle-weather.csv"]
    days = read_weather(fixtures_dir() / "weather" / "seattle-weather.csv", station_id="SEA")
    heating, cooling = sums(fahrenheit(days["temperature_mean_c"].to_numpy()), 65.0)
    assert days.height == expected["days"]
    assert (round(heating, 2), round(cooling, 2)) == (expected["hdd65_F"], expected["cdd65_F"])


def test_gsod_and_isd_of_one_station_agree() -> None:
    folder = fixtures_dir() / "weather"
    published, observed = read_weather(folder / "GSOD.op.gz"), read_weather(folder / "ISD.gz")
    assert published["station_id"].unique().to_list() == observed["station_id"].unique().to_list() == ["722874-93134"]
    assert published.row(0) == (
        "722874-93134",
        date(2007, 1, 1),
        *(pytest.approx((f - 32) / 1.8) for f in (46.0, 66.9, 56.0)),
    )
    assert observed.row(0) == ("722874-93134", datetime(2007, 1, 1, 0, 47, tzinfo=UTC), 15.0)
    utc_days = daily(observed, BillingCalendar("UTC"), date(2007, 1, 1), date(2007, 12, 31))
    both = published.join(utc_days, on="weather_day", suffix="_isd")
    away = (both["temperature_mean_c"] - both["temperature_mean_c_isd"]).abs()
    assert both.height > 350
    assert float(away.median()) < 0.5  # type: ignore[arg-type]


GHCN = (
    '"STATION","DATE","LATITUDE","LONGITUDE","ELEVATION","NAME","TMAX","TMAX_ATTRIBUTES","TMIN","TMIN_ATTRIBUTES"\n'
    '"USW00094846","2025-01-01","41.9","-87.9","204.8","OHARE","   56",",,W","  -11",",,W"\n'
    '"USW00094846","2025-01-02","41.9","-87.9","204.8","OHARE","  999",",X,W","  -20",",,W"\n'
)
GHCN_YEAR = "USW00094846,20250101,TMAX,56,,,W,2400\nUSW00094846,20250101,TMIN,-11,,,W,2400\nUSW00094846,20250101,PRCP,3,,,W,2400\n"
ISD_LITE = "2025 01 01 00    56   -11 10132   250    41     0     0 -9999\n2025 01 01 01 -9999   -11 10132   250    41     0     0 -9999\n"
GSOD_CSV = (
    '"STATION","DATE","TEMP","MAX","MIN"\n"72530094846","2025-01-01","  41.0","  50.0*","  32.0 "\n'
    '"72530094846","2025-01-02","9999.9","9999.9","9999.9"\n'
)
TMY3 = (
    '725300,"CHICAGO OHARE",IL,-6.0,41.983,-87.917,205\nDate (MM/DD/YYYY),Time (HH:MM),Dry-bulb (C)\n'
    "01/01/1988,01:00,-2.8\n01/01/1988,24:00,-5.0\n"
)


def test_each_format_is_recognised_and_read(tmp_path: Path) -> None:
    def read(name: str, text: str, wanted: str) -> pl.DataFrame:
        (tmp_path / name).write_text(text)
        assert recognise(text) == wanted
        return read_weather(tmp_path / name)

    ghcn = read("USW00094846.csv", GHCN, "ghcn")
    assert ghcn.row(0) == ("USW00094846", date(2025, 1, 1), -1.1, pytest.approx(5.6), pytest.approx(2.25))
    assert ghcn.row(1)[2:] == (-2.0, None, None), "a value that failed quality control is missing"
    assert read("2025.csv", GHCN_YEAR, "ghcn_year").row(0) == (
        "USW00094846",
        date(2025, 1, 1),
        -1.1,
        pytest.approx(5.6),
        pytest.approx(2.25),
    )
    lite = read("725300-94846-2025", ISD_LITE, "isd_lite")
    assert lite.rows() == [
        ("725300-94846", datetime(2025, 1, 1, 0, tzinfo=UTC), 5.6),
        ("725300-94846", datetime(2025, 1, 1, 1, tzinfo=UTC), None),
    ]
    gsod = read("gsod.csv", GSOD_CSV, "gsod_csv")
    assert gsod.rows()[0] == ("72530094846", date(2025, 1, 1), 0.0, 10.0, pytest.approx(5.0))
    assert gsod.rows()[1][2:] == (None, None, None)
    tmy = read("tmy.csv", TMY3, "tmy3")
    assert tmy["observed_at"].to_list() == [datetime(1988, 1, 1, 7, tzinfo=UTC), datetime(1988, 1, 2, 6, tzinfo=UTC)]
    plain = read(
        "plain.csv", "time,temperature_f\n2025-01-01T00:00:00-06:00,32\n2025-01-01T01:00:00-06:00,50\n", "plain"
    )
    assert plain.rows() == [
        ("PLAIN", datetime(2025, 1, 1, 6, tzinfo=UTC), 0.0),
        ("PLAIN", datetime(2025, 1, 1, 7, tzinfo=UTC), pytest.approx(10.0)),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "temperature column"),
        ("time,temperature_c\n2025-01-01 00:00:00,5\n", "without zone"),
        ("date,temperature_c\n", "no observation"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(WeatherError, match=why):
        read_weather(tmp_path / "w.csv")


def observations(hours: list[float], start: datetime = datetime(2025, 1, 1, 6, tzinfo=UTC)) -> pl.DataFrame:
    when = [start + timedelta(hours=h) for h in hours]
    return pl.DataFrame(
        {"station_id": ["S"] * len(hours), "observed_at": when, "temperature_c": [float(h) for h in hours]}
    )


def test_gaps_up_to_six_hours_are_bridged_and_longer_ones_are_not() -> None:
    start = datetime(2025, 1, 1, 6, tzinfo=UTC)
    grid = hourly_grid(observations([0, 6, 13, 14]), start, start + timedelta(hours=16))
    np.testing.assert_allclose(grid[:7], np.arange(7.0))
    assert np.isnan(grid[7:13]).all()
    assert grid[13:15].tolist() == [13.0, 14.0]
    assert np.isnan(grid[15])


def test_a_day_needs_more_than_half_of_its_hours() -> None:
    whole, half = observations([float(h) for h in range(24)]), observations([float(h) for h in range(12)])
    assert daily(whole, CHICAGO, date(2025, 1, 1), date(2025, 1, 1)).row(0) == (
        "S",
        date(2025, 1, 1),
        0.0,
        23.0,
        11.5,
        24,
    )
    assert daily(half, CHICAGO, date(2025, 1, 1), date(2025, 1, 1)).is_empty()
    assert coverage(daily(whole, CHICAGO, date(2025, 1, 1), date(2025, 1, 4)), date(2025, 1, 1), date(2025, 1, 4)) == {
        "S": 0.25
    }


def test_days_of_23_and_25_hours_hold_their_own_hours() -> None:
    spring = observations([float(h) for h in range(72)], datetime(2026, 3, 7, 6, tzinfo=UTC))
    hours = hours_of_days(spring, CHICAGO, date(2026, 3, 7), date(2026, 3, 9))
    assert np.isfinite(hours).sum(axis=1).tolist() == [24, 23, 24]
    assert hours[2, 0] == 47.0


def test_the_nearest_station_with_enough_days_serves_and_the_next_fills_in() -> None:
    stations = ["MDW", "ORD", "LAX"]
    latitude, longitude = np.array([41.786, 41.978, 33.94]), np.array([-87.752, -87.904, -118.4])
    downtown = (np.array([41.88, 34.0]), np.array([-87.63, -118.2]))
    full = ranked_stations(*downtown, stations, latitude, longitude, {"MDW": 1.0, "ORD": 0.95, "LAX": 1.0})
    assert full.tolist() == [[0, 1, -1], [2, -1, -1]]
    assert ranked_stations(*downtown, stations, latitude, longitude, {"MDW": 0.5, "ORD": 0.95}).tolist() == [
        [1, -1, -1],
        [-1, -1, -1],
    ]
    series, source = with_fallback(full, np.array([[1.0, np.nan, np.nan], [5.0, 6.0, np.nan], [9.0, 9.0, 9.0]]))
    np.testing.assert_equal(series, [[1.0, 6.0, np.nan], [9.0, 9.0, 9.0]])
    assert source.tolist() == [[0, 1, -1], [2, 2, 2]]
    assert kilometres(np.array([0.0]), np.array([0.0]), np.array([0.0]), np.array([180.0]))[0, 0] == pytest.approx(
        20015.1, abs=0.1
    )


def _ghcn_file(tmp_path: Path, rows: list[tuple[date, str, str]]) -> Path:
    lines = [f'"USW00094846","{day}","{high}","{low}"' for day, high, low in rows]
    path = tmp_path / "order.csv"
    path.write_text('"STATION","DATE","TMAX","TMIN"\n' + "\n".join(lines) + "\n")
    return path


def test_a_year_of_ghcn_in_fahrenheit_is_not_read_as_tenths_of_a_degree_celsius(tmp_path: Path) -> None:
    """NCEI's orders in "standard units" are whole degrees Fahrenheit, and nothing in the file says so."""
    year = [date(2025, 1, 1) + timedelta(days=k) for k in range(365)]
    rows = [
        (day, str(30 + abs(182 - k) * -1 // 4 + 58), str(10 + abs(182 - k) * -1 // 4 + 58))
        for k, day in enumerate(year)
    ]
    found = read_weather(_ghcn_file(tmp_path, rows))
    assert found["temperature_max_c"].max() == pytest.approx((88 - 32) / 1.8, abs=0.01)
    assert found["temperature_max_c"].min() == pytest.approx((42 - 32) / 1.8, abs=0.01)
    # the same station in the archive's tenths: beyond what any Fahrenheit thermometer shows
    tenths = [(day, str(round((float(h) - 32) / 0.18)), str(round((float(low) - 32) / 0.18))) for day, h, low in rows]
    assert read_weather(_ghcn_file(tmp_path, tenths))["temperature_max_c"].max() == pytest.approx(31.1)


def test_a_short_ghcn_file_that_may_be_either_asks_which(tmp_path: Path) -> None:
    path = _ghcn_file(tmp_path, [(date(2025, 6, 1), "78", "58"), (date(2025, 6, 2), "81", "60")])
    with pytest.raises(WeatherError, match="--format ghcn_f for Fahrenheit, --format ghcn for tenths"):
        read_weather(path)
    assert read_weather(path, "ghcn_f")["temperature_max_c"].to_list() == [pytest.approx(25.56), pytest.approx(27.22)]
    assert read_weather(path, "ghcn")["temperature_max_c"].to_list() == [7.8, 8.1]
    # 20 degrees between night and day are 200 tenths, and degrees with a point are as they stand
    assert read_weather(_ghcn_file(tmp_path, [(date(2025, 6, 1), "98", "-2")]))["temperature_max_c"].to_list() == [9.8]
    assert read_weather(_ghcn_file(tmp_path, [(date(2025, 6, 1), "25.6", "14.4")]))["temperature_max_c"].to_list() == [
        25.6
    ]


def test_a_plain_file_is_not_taken_for_gsod_by_its_stations_name(tmp_path: Path) -> None:
    for header in ("station_id,date,temperature_c", "station,date,temperature_c"):
        (tmp_path / "w.csv").write_text(f"{header}\nKORD,2025-01-01,-1.5\n")
        found = read_weather(tmp_path / "w.csv")
        assert found.select("station_id", "temperature_mean_c").rows() == [("KORD", -1.5)]
