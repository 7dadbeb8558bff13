"""A city is judged in parts, and no finding depends on how it was cut."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from meter_pipeline.anomalies import daily_features as packing
from meter_pipeline.anomalies.commodity_points import CommodityPoints, read_surroundings
from meter_pipeline.anomalies.day import detect_billing_day
from meter_pipeline.anomalies.refit import refit_baselines
from meter_pipeline.anomalies.tables import detection
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.anomalies.streets import CALENDAR, StillClock, Streets, day, temperatures, write, write_days

CLOCK = StillClock()
DAYS = 100


def city(database: Database) -> Streets:
    """Sixty homes with a fall of one and of its whole street, a silent meter, a dark collector, a stuck meter, a
    reversal and a spike."""
    rng = np.random.default_rng(9)
    t = temperatures(DAYS)
    usage = rng.uniform(8, 20, (60, 1)) + rng.uniform(0.2, 0.9, (60, 1)) * np.maximum(60 - t, 0)
    usage = np.round(usage * rng.normal(1, 0.07, usage.shape), 3)
    usage[5, -15:] *= 0.25
    usage[17, -6:] = 0.0
    usage[41, -1] = -4.0
    usage[52, -1] *= 9
    streets = Streets("electricity", "kWh", usage)
    streets.coverage[33, -3:] = 0.0
    streets.coverage[20:30, -1] = 0.6
    write(database, streets, t)
    return streets


def test_the_findings_are_the_same_however_a_city_is_cut(database: Database) -> None:
    city(database)
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    whole = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert set(whole.by_kind) >= {
        "tamper_fall",
        "stuck",
        "reverse",
        "spike",
        "dropout_meter",
        "dropout_collector",
        "high",
        "low",
    }
    days = CALENDAR.days(day(DAYS - 56), day(DAYS - 1))
    packed, lists = detection.read_facts(database.read, days[0], days[-1])
    given, _ = read_surroundings(database.read, CALENDAR, days)
    cut = CommodityPoints(packing.PackedDays(packed, lists, "electricity", "kWh", days, days[-1]), given)
    one = cut.judge(part=1000)
    assert one.height == whole.flags.height
    for part, threads in ((7, 1), (13, 2), (59, 1)):
        assert cut.judge(part=part, threads=threads).equals(one), part


def test_a_point_that_joins_or_leaves_the_list_keeps_its_own_days(database: Database) -> None:
    streets = city(database)
    detect_billing_day(database, CALENDAR, day(DAYS - 2), clock=CLOCK)
    with database.connect() as connection:
        connection.execute(
            "DELETE FROM vee.daily_usage WHERE service_point_id = 'SP-E002' AND billing_day = %s", (day(DAYS - 1),)
        )
        connection.execute(
            "DELETE FROM vee.daily_usage WHERE service_point_id = 'SP-E010' AND billing_day < %s", (day(DAYS - 1),)
        )
        connection.execute("DELETE FROM anomaly.day_facts WHERE billing_day > %s", (day(DAYS - 4),))
    detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    days = CALENDAR.days(day(DAYS - 3), day(DAYS - 1))
    packed, lists = detection.read_facts(database.read, days[0], days[-1])
    weeks = packing.PackedDays(packed, lists, "electricity", "kWh", days, days[-1])
    assert weeks.points.tolist() == [p for p in streets.ids if p != "SP-E002"]
    laid = weeks.history().usage
    expected = streets.usage[[p for p in range(60) if p != 2], -3:].copy()
    expected[9, :2] = np.nan
    np.testing.assert_allclose(laid, expected, rtol=1e-6)
    some = np.array([3, 9, 40])
    np.testing.assert_array_equal(weeks.history(some).usage, laid[some])
    np.testing.assert_array_equal(weeks.history(slice(5, 12)).coverage, weeks.history().coverage[5:12])


@pytest.mark.parametrize("agreed", [True, False])
def test_another_payer_is_a_move_where_an_agreement_begins(database: Database, agreed: bool) -> None:
    streets = city(database)
    streets.account[8, -1] = "ACC-NEW"
    with database.connect() as connection:
        write_days(connection, streets, range(DAYS - 1, DAYS))
        if agreed:
            connection.execute(
                "INSERT INTO ref.accounts (account_id, customer_class, opened) VALUES ('ACC-NEW', 'residential', '2020-01-01')"
            )
            connection.execute(
                "UPDATE ref.agreements SET valid_to = %s WHERE service_point_id = 'SP-E008'", (day(DAYS - 1),)
            )
            connection.execute(
                "INSERT INTO ref.agreements (account_id, service_point_id, tariff_id, cycle_id, valid_from) VALUES ('ACC-NEW', 'SP-E008', 'T', 'C', %s)",
                (day(DAYS - 1),),
            )
    outcome = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert outcome.flags.filter(pl.col("kind") == "move")["service_point_id"].to_list() == (
        ["SP-E008"] if agreed else []
    )


def test_a_refit_in_parts_is_the_refit_of_the_whole(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    streets = city(database)
    with database.connect() as connection:
        connection.execute(
            "DELETE FROM vee.daily_usage WHERE service_point_id = 'SP-E044' AND billing_day < %s", (day(DAYS - 40),)
        )
    whole = refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    assert whole.by_status == {"class_profile": 1, "provisional": len(streets.ids) - 1}
    monkeypatch.setattr("meter_pipeline.anomalies.refit._PART", 7)
    parts = refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    assert (parts.version, parts.written) == (whole.version, False)
