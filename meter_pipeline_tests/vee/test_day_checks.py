"""The checks of a validated day read the store, and fail where the store is not what it should be."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from meter_pipeline.billing.tables.source_reconciliation import registers
from meter_pipeline.postgres.database import Database
from meter_pipeline.tolerances import RegisterTolerance
from meter_pipeline.vee import validate_billing_day
from meter_pipeline.vee.rules.catalogue import ROW_RULES
from meter_pipeline.vee.rules.thresholds import default
from meter_pipeline.vee.tables import validated
from meter_pipeline.vee.tables.checks import StoredDay, stored_day, stored_rows
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, noon_after

DAY = date(2026, 6, 10)
DIAL = 1_000_000_000


@pytest.fixture
def city(database: Database) -> City:
    """A meter that is right, one ten times its register, and a CT meter 0.096 kWh off."""
    town = City(database)
    town.reference(Installed("M-1", "SP-1"), Installed("M-10", "SP-10"), Installed("M-CT", "SP-CT", multiplier=40))
    town.intervals(DAY, {"M-1": np.full(96, 250_000), "M-10": np.full(96, 2_500_000), "M-CT": np.full(96, 1_000_000)})
    start, end = CALENDAR.bounds(DAY)
    for meter, used in (("M-1", 24_000_000), ("M-10", 24_000_000), ("M-CT", (96_000_000 + 96_000) // 40)):
        town.register(meter, (start, DIAL), (end, DIAL + used))
    return town


def _stored(city: City) -> StoredDay:
    with city.database.connect() as connection:
        bounds = CALENDAR.bounds(DAY)
        return stored_day(connection, DAY, bounds, stored_rows(connection, DAY, bounds), default().register_tolerance)


def _passed(city: City) -> dict[str, bool]:
    outcome = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    return {check.name: check.passed for check in outcome.report().checks}


def test_a_sound_day_passes_and_a_row_off_its_register_is_an_exception(city: City) -> None:
    assert _passed(city) == {"slots_complete": True, "sum_check": True}
    stored = _stored(city)
    assert (stored.rows, stored.slots, stored.tested, stored.missed) == (3, 288, 3, 1)


def test_a_lost_row_a_lost_value_and_a_lost_exception_are_each_found(city: City) -> None:
    _passed(city)
    with city.database.connect() as connection:
        connection.execute("DELETE FROM vee.exception WHERE kind = 'SUM_CHECK'")
    assert _stored(city).unlisted == ["M-10 E1"]
    with city.database.connect() as connection:
        connection.execute("UPDATE vee.interval_day SET values[5] = -2147483648 WHERE meter_id = 'M-1'")
        connection.execute("DELETE FROM vee.interval_day WHERE meter_id = 'M-CT'")
    stored = _stored(city)
    assert (stored.miscounted, stored.absent) == (["M-1 E1"], ["M-CT E1"])
    assert (stored.rows, stored.slots) == (2, 191)  # 2 x 96, less the value that was taken out


def test_a_service_that_is_set_aside_is_not_missed(city: City) -> None:
    noon = CALENDAR.bounds(DAY)[0].replace(hour=17)
    with city.database.connect() as connection:
        connection.execute("UPDATE ref.installations SET removed_at = %s WHERE meter_id = 'M-1'", (noon,))
        connection.execute(
            "INSERT INTO ref.installations (service_point_id, meter_id, installed_at) VALUES ('SP-1', 'M-1', %s)",
            (noon.replace(hour=20),),
        )
    assert _passed(city) == {"slots_complete": True, "sum_check": True}
    assert _stored(city).rows == 2


def test_validation_and_reconciliation_agree_about_a_ct_meter_a_little_off(city: City) -> None:
    """0.096 kWh off passed validation and failed the day as open, after its adjustments had posted."""
    _passed(city)
    with city.database.connect() as connection:
        found = registers(connection, DAY, CALENDAR.bounds(DAY), default().register_tolerance)
    causes = {cause: items for _, _, cause, _, _, items, _ in found}
    assert causes == {"none": 1, "within_tolerance": 1, "sum_check_failed": 1}


def test_the_tolerance_is_the_same_in_sql(database: Database) -> None:
    tolerance = RegisterTolerance(2, 1000)
    for multiplier, decimals, intervals in ((1, 3, 96), (40, 3, 96), (40, 0, 24), (7, 2, 23)):
        told = database.read(
            f"SELECT ({tolerance.sql(str(multiplier), str(decimals), str(intervals))})::bigint AS t"
        ).item()
        unit = np.array([10 ** (6 - decimals) * multiplier])
        assert told == int(tolerance.of(unit, np.array([intervals]))[0])


@pytest.mark.parametrize(("off", "cause"), [(400_000, "day_edge"), (600_000, "open")])
def test_intervals_that_reach_over_midnight_explain_two_of_them(city: City, off: int, cause: str) -> None:
    """Where clocks change by half an hour: the largest interval of the day is 0.25 kWh."""
    _passed(city)
    with city.database.connect() as connection:
        connection.execute(
            "UPDATE vee.interval_day SET total_micro = total_micro + %s, row_flags = %s WHERE meter_id = 'M-1'",
            (off, ROW_RULES["DAY_EDGE"].mask),
        )
        rows = registers(connection, DAY, CALENDAR.bounds(DAY), default().register_tolerance)
    assert cause in {row[2] for row in rows}
    assert ("open" in {row[2] for row in rows}) == (cause == "open")
    # The check of the store allows the same: it failed on each day of half a year on Lord Howe Island.
    assert _stored(city).unlisted == (["M-1 E1"] if cause == "open" else [])


@pytest.mark.parametrize("lost", ["M-CT", "M-10"])
def test_a_channel_that_is_lost_on_the_way_to_the_store_sets_its_service_aside(
    city: City, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The service's other channels would be billed as if they were all."""
    write = validated.write_intervals

    def losing(connection: Any, day: date, frame: pl.DataFrame, *rest: Any, **named: Any) -> None:
        write(connection, day, frame.filter(pl.col("meter_id") != lost), *rest, **named)

    monkeypatch.setattr(validated, "write_intervals", losing)
    outcome = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    assert [check.name for check in outcome.report().checks if not check.passed] == ["slots_complete"]
    waiting = city.database.read(
        "SELECT service_point_id, meter_id, action, detail FROM vee.exception WHERE kind = 'SET_ASIDE'"
    )
    point = lost.replace("M", "SP")
    assert waiting.rows() == [(point, lost, "hold", f"{lost} E1 has no validated day")]
    monkeypatch.setattr(validated, "write_intervals", write)
    assert _passed(city)["slots_complete"]
    assert city.database.read("SELECT FROM vee.exception WHERE kind = 'SET_ASIDE'").is_empty()
