"""Billing a day promises: exact lines that carry through the period, nothing rewritten when nothing changed, late data
carried forward to the same result as if it had come in time, and every difference named."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import polars as pl
import psycopg
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
    put_intervals,
)


def city(database: Database, services: int = 3) -> list[str]:
    add_tariff(database, native())
    add_cycle(database, JULY, date(2026, 8, 1), date(2026, 9, 1))
    return [add_service(database, n) for n in range(services)]


def lines(database: Database) -> pl.DataFrame:
    return database.read(
        "SELECT * FROM (SELECT c.*, c.xmin::text AS x FROM billing.charge_day AS c) AS t ORDER BY billing_day, service_point_id"
    )


def test_a_day_is_billed_to_the_cent_and_reconciled(database: Database) -> None:
    point, *_ = city(database, 1)
    put_intervals(database, JULY, {point: [1000] * 24})  # a Wednesday: 5 kWh of 24 in the peak
    outcome = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    found = database.read("SELECT line_key, amount::text AS amount FROM billing.day_line ORDER BY line_key")
    assert {k: Decimal(a) for k, a in found.iter_rows()} == {
        "BASIC": Decimal("0.40"),
        "ENERGY/off-peak": Decimal("1.73"),
        "ENERGY/peak": Decimal("1.07"),
        "FUEL/off-peak": Decimal("0.08"),
        "FUEL/peak": Decimal("0.02"),
        "MIN": Decimal(0),
        "TAX": Decimal("0.21"),
    }
    assert set(outcome.reconciliation["cause"].to_list()) == {
        "none",
        "wholly_estimated",
    }  # no raw rows stand behind this test
    assert all(check.passed for check in outcome.report().checks)
    assert all(len(png) < 20_000 for png in outcome.report().plots.values())


def test_billing_a_day_again_rewrites_nothing_and_says_nothing_to_the_ledger(database: Database) -> None:
    points = city(database)
    put_intervals(database, JULY, {p: [500 + k] * 24 for k, p in enumerate(points)})
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    before = lines(database)
    with database.connect() as connection:
        entries = scalar(connection, "SELECT count(*) FROM ledger.entry")
    again = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    assert again.changed == 0
    assert lines(database).equals(before)
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ledger.entry") == entries


def test_late_data_and_any_order_of_days_end_in_the_same_charges(database: Database) -> None:
    points = city(database)
    span = days(JULY, 4)
    for k, day in enumerate(span):
        put_intervals(database, day, {p: [100 * (k + 1) + 7 * n] * 24 for n, p in enumerate(points)})
    for day in (span[2], span[0], span[3], span[1]):
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    shuffled = lines(database).drop("x")
    put_intervals(database, span[1], {points[0]: [9999] * 24})
    late = bill_billing_day(database, CHICAGO, span[1], clock=CLOCK)
    assert late.changed == 1
    assert late.carried == {span[2]: 1, span[3]: 1}
    put_intervals(database, span[1], {points[0]: [200] * 24})
    bill_billing_day(database, CHICAGO, span[1], clock=CLOCK)
    assert lines(database).drop("x").equals(shuffled)
    with database.connect() as connection:
        connection.execute("TRUNCATE billing.charge_day, billing.determinant_day")
    for day in span:
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert lines(database).drop("x").equals(shuffled)


def test_usage_without_an_agreement_and_agreements_without_usage_are_named(database: Database) -> None:
    city(database, 1)
    stray = add_service(database, 9, agreed=False)
    put_intervals(database, JULY, {stray: [1000] * 24})
    outcome = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    assert outcome.exceptions == {"no_agreement": 1, "no_usage": 1}
    joint = outcome.reconciliation.filter(pl.col("joint") == "validated_to_determinants")
    assert joint.select("cause", "expected", "actual").rows() == [
        ("no_agreement", Decimal("24.000000"), Decimal("0.000000"))
    ]


def test_a_day_with_a_change_of_clocks_has_its_own_hours(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, date(2026, 3, 1), date(2026, 4, 1), date(2026, 5, 1))
    add_cycle(database, date(2026, 11, 1), date(2026, 12, 1), cycle_id="C1")
    point = add_service(database, 1)
    for day, slots in ((date(2026, 3, 8), 92), (date(2026, 11, 1), 100)):
        put_intervals(database, day, {point: [250] * slots}, minutes=15)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        energy = database.read("SELECT energy FROM billing.determinant_day WHERE billing_day = $1", [day])["energy"][
            0
        ].to_list()
        assert energy == [slots * 250_000, 0], "a Sunday: no peak"


def test_a_days_total_is_enough_for_water_and_is_converted_once(database: Database) -> None:
    tariff = native(
        "W-STD",
        commodity="water",
        unit="kgal",
        time_of_use=None,
        charges=[
            {
                "kind": "usage",
                "code": "WATER",
                "name": "Water",
                "tiers": [{"upto": 1, "rate": "4.00"}, {"rate": "6.00"}],
            }
        ],
    )
    add_tariff(database, {k: v for k, v in tariff.items() if v is not None})
    add_cycle(database, JULY, JULY + timedelta(days=1))
    point = add_service(database, 1, "W-STD", commodity="water")
    put_daily(database, JULY, {point: 7_570_823_568}, "m3", "water")  # 2,000 US gallons, a thousandfold
    outcome = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    assert database.read("SELECT energy FROM billing.determinant_day")["energy"][0].to_list() == [2_000_000_000]
    assert outcome.total == (4 + 1999 * 6) * 10**6
    assert outcome.exceptions == {}


def test_a_tariff_that_bills_were_made_with_may_not_change_under_its_version(database: Database) -> None:
    point, *_ = city(database, 1)
    put_intervals(database, JULY, {point: [1000] * 24})
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    with database.connect() as connection, pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="billed"):
        connection.execute("UPDATE ref.tariff_document SET sha256 = sha256('other')")
    with database.connect() as connection:  # billing does not rely on it alone
        connection.execute("ALTER TABLE ref.tariff_document DISABLE TRIGGER keep_used_document")
        connection.execute("UPDATE ref.tariff_document SET sha256 = sha256('other')")
    outcome = bill_billing_day(database, CHICAGO, JULY + timedelta(days=1), clock=CLOCK)
    assert outcome.exceptions == {"tariff_refused": 1}


def test_the_same_inputs_give_the_same_bytes_in_any_number_of_shards_and_runs(database: Database) -> None:
    add_tariff(database, native())
    water = native(
        "W-STD",
        commodity="water",
        unit="kgal",
        charges=[{"kind": "usage", "code": "WATER", "name": "Water", "tiers": [{"upto": 1, "rate": 4}, {"rate": 6}]}],
    )
    del water["time_of_use"]
    add_tariff(database, water)
    add_cycle(database, JULY, date(2026, 8, 1))
    lit = [add_service(database, n) for n in range(0, 14, 2)]
    wet = [add_service(database, n, "W-STD", commodity="water") for n in range(1, 14, 2)]
    stray = add_service(database, 99, agreed=False)
    for k, day in enumerate(days(JULY, 2)):
        put_intervals(database, day, {p: [300 + 11 * n + k] * 24 for n, p in enumerate([*lit[1:], stray])})
        put_daily(database, day, {p: (n + 1) * 1_000_000_000 for n, p in enumerate(wet)}, "gal", "water")
    tables = ("determinant_day", "charge_day", "exception_day", "reconciliation")
    seen = set()
    for shards in (0, 1, 3, 14, 0):
        with database.connect() as connection:
            connection.execute(
                "TRUNCATE billing.determinant_day, billing.charge_day, billing.exception_day, billing.reconciliation"
            )
            connection.execute("DELETE FROM billing.tariff_version")
        with database.connect() as connection:
            last = scalar(connection, "SELECT coalesce(max(entry_id), 0) FROM ledger.entry")
        for day in days(JULY, 2):
            assert bill_billing_day(database, CHICAGO, day, clock=CLOCK, shards=shards).exceptions == {
                "no_agreement": 1,
                "no_usage": 1,
            }
        with database.connect() as connection:
            rows = [
                connection.execute(f"SELECT t::text FROM billing.{table} AS t ORDER BY 1".encode()).fetchall()
                for table in tables
            ]
            # in the order in which they were written: the ledger's leaves too
            entries = connection.execute(
                "SELECT kind, body, leaves FROM ledger.entry WHERE entry_id > %s ORDER BY entry_id", (last,)
            ).fetchall()
        seen.add(repr((rows, entries)))
    assert len(seen) == 1
