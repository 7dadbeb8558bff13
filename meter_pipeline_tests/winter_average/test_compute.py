"""A winter average promises: the winter's bills by the rule's months, highest and lowest dropped, confirmed leaks and
bills without a read left out, a default where too few are left; each said with its reason."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.winter_average.compute import average, refresh, write_attributes
from meter_pipeline.winter_average.rules import Rule, WinterAverageRefusedError
from meter_pipeline_tests.billing.support import add_service

EFFECTIVE = date(2026, 7, 1)
WINTER = frozenset({12, 1, 2, 3})
ENDS = [date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1), date(2026, 4, 1)]
UNIT = 10**6


def bill(end: date, days: int, quantity: int, **other: Any) -> dict[str, Any]:
    first = date.fromordinal(end.toordinal() - days)
    row = {
        "period_end": end,
        "first_day": first,
        "past_day": end,
        "days": days,
        "quantity": quantity * UNIT,
        "unit": "ccf",
    }
    return row | {"estimated": False} | other


def test_the_highest_and_the_lowest_are_dropped_and_days_weigh() -> None:
    bills = [bill(ENDS[1], 31, 310), bill(ENDS[2], 31, 62), bill(ENDS[3], 28, 140), bill(ENDS[4], 31, 186)]
    per_day, source, told = average(Rule(WINTER, 1, 1, 2, None), bills, [])
    assert (per_day, source) == (int((Decimal(140 + 186) / 59 * UNIT).to_integral_value()), "computed")
    assert [p["left_out"] for p in told] == ["highest", "lowest", "", ""]


def test_other_months_bills_without_a_read_and_confirmed_leaks_are_left_out() -> None:
    bills = [
        bill(ENDS[0], 30, 900),
        bill(ENDS[1], 31, 31),
        bill(ENDS[2], 31, 310, estimated=True),
        bill(ENDS[3], 28, 280),
        bill(ENDS[4], 31, 31),
    ]
    leak = (date(2026, 2, 10), date(2026, 2, 12), "leak-7")
    per_day, source, told = average(Rule(WINTER, 0, 0, 2, None), bills, [leak])
    assert (per_day, source) == (UNIT, "computed")
    assert [p["left_out"] for p in told] == [
        "not a month that counts",
        "",
        "no read",
        "confirmed leak, case leak-7",
        "",
    ]


def test_too_few_bills_take_the_default_or_none() -> None:
    bills = [bill(ENDS[1], 31, 31)]
    assert average(Rule(WINTER, 0, 0, 2, Decimal("0.25")), bills, [])[:2] == (250_000, "default")
    assert average(Rule(WINTER, 0, 0, 2, None), bills, [])[:2] == (None, "none")
    assert average(Rule(WINTER, 1, 1, 1, None), bills, [])[:2] == (UNIT, "computed"), (
        "what drops everything drops nothing"
    )


@pytest.fixture
def city(database: Database) -> Database:
    """Two services with four bills of one, one bill of the other."""
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO billing.tariff_version VALUES ('W', 1, %s, 'native', 'W', 'water', 'USD', 'ccf', '{all}', '{}', '{U}', '{U}', "
            "'{energy}', '{U}', '{energy}', 'half_up', now())",
            (bytes(32),),
        )
    for number in (1, 2):
        add_service(database, number, "W", commodity="water")
    with database.connect() as connection:
        for number, ends in ((1, ENDS[1:]), (2, ENDS[1:2])):
            for end in ends:
                start = date(end.year - (end.month == 1), 12 if end.month == 1 else end.month - 1, 1)
                name = f"A-00{number}.C1.{start:%Y%m%d}.0"
                connection.execute(
                    "INSERT INTO billing.statement (statement_id, account_id, cycle_id, period_start, period_end, revision, kind, posting_month, "
                    "currency, total, accrued, lines, lines_sha256, issued_at) VALUES (%s, %s, 'C1', %s, %s, 0, 'regular', %s, 'USD', 0, 0, 0, %s, %s)",
                    (name, f"A-00{number}", start, end, start, bytes(32), datetime(2026, 5, 1, tzinfo=UTC)),
                )
                connection.execute(
                    "INSERT INTO billing.statement_segment (statement_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end, "
                    "days, unit, energy, peaks, peak_at, carry_out, slots, estimated, posting_month) "
                    "VALUES (%s, %s, 'W', 1, %s, %s, %s, 'ccf', %s, '{}', '{}', '{}', 10, 0, %s)",
                    (name, f"SP-00{number}", start, end, (end - start).days, [(end - start).days * UNIT // 2], start),
                )
    return database


def rule(database: Database, customer_class: str = "*", months: str = "12 1 2 3") -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.winter_average_rules VALUES (%s, %s, 1, 0, 2, 0.2, '2020-01-01', NULL)",
            (customer_class, months),
        )


def test_a_city_by_hand_and_the_rows_to_import(city: Database, tmp_path: Path) -> None:
    rule(city)
    with city.connect() as connection:
        connection.execute(
            "INSERT INTO ref.service_attributes VALUES ('SP-001', 'winter_average_per_day', '0.7', '2025-07-01', NULL)"
        )
    found = refresh(city, EFFECTIVE)
    assert found.select("service_point_id", "per_day", "source").rows() == [
        ("SP-001", 500_000, "computed"),
        ("SP-002", 200_000, "default"),
    ]
    (kept,) = city.rows(
        "SELECT per_day, source, periods FROM analyst.winter_averages WHERE service_point_id = 'SP-001'"
    )
    assert kept["per_day"] == Decimal("0.5")
    assert len(kept["periods"]) == len(json.loads(found["periods"][0])) == 4
    assert write_attributes(city, tmp_path / "service_attributes.csv", found, EFFECTIVE) == 2
    assert (tmp_path / "service_attributes.csv").read_text().splitlines() == [
        "service_point_id,attribute,value,valid_from,valid_to",
        "SP-001,winter_average_per_day,0.7,2025-07-01,2026-07-01",
        "SP-001,winter_average_per_day,0.500000,2026-07-01,",
        "SP-002,winter_average_per_day,0.200000,2026-07-01,",
    ]


def test_a_class_without_a_rule_and_a_rule_that_cannot_be_read_are_named(city: Database) -> None:
    with pytest.raises(WinterAverageRefusedError, match="no rule is in force on 2026-07-01"):
        refresh(city, EFFECTIVE)
    rule(city, "commercial")
    with pytest.raises(WinterAverageRefusedError, match="class residential has no rule"):
        refresh(city, EFFECTIVE)
    rule(city, "residential", "12 13")
    with pytest.raises(WinterAverageRefusedError, match="class residential: months '12 13' are not numbers"):
        refresh(city, EFFECTIVE)
