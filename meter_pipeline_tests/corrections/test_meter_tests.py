"""Meter tests promise: a test starts a correction of the multiplier for the days on which the meter was wrong, by the
test or by the rule, and nothing is made of it before it is approved."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing.back_billing.rules import Rule
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.corrections.apply import apply, approve, request
from meter_pipeline.corrections.meter_tests import preview_meter_test, propose
from meter_pipeline.corrections.tables import MeterTest
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.test_back_billing import RULE, approve_all, noon
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, town

DAYS = [FIRST + timedelta(days=k) for k in range(6)]
CHICAGO = BillingCalendar("America/Chicago")


def known(**changes: Any) -> MeterTest:
    values: dict[str, Any] = {
        "meter_id": "M1",
        "tested_on": date(2026, 10, 1),
        "percent": Decimal(80),
        "wrong_since": None,
        "wrong_until": None,
        "commodity": "electricity",
        "customer_class": "residential",
        "installed_at": datetime(2024, 10, 1, 12, tzinfo=UTC),
        "earlier": [],
        "channels": [("R1", Decimal(40))],
        "values": [],
        "rules": [],
    }
    return MeterTest(**(values | changes))


def factors(test: MeterTest, rule: Rule | None = None) -> list[tuple[date, date | None, Decimal | None]]:
    made = propose(test, rule, CHICAGO)
    return [(row["valid_from"], row["valid_to"], row["multiplier"]) for row in made.rows]


def test_eighty_percent_is_a_quarter_more() -> None:
    """A ratio of 40 at 80 % counts 50; 103 % counts 38.834951."""
    since = {"wrong_since": date(2026, 5, 1)}
    assert factors(known(**since)) == [(date(2026, 5, 1), date(2026, 10, 1), Decimal(50))]
    assert factors(known(percent=Decimal(103), **since))[0][2] == Decimal("38.834951")


def test_dated_values_that_stand_are_cut_and_multiplied() -> None:
    empty = {"meter_id": "M1", "channel": "R1", "dials": None, "decimals": None, "flow": None, "billed": None}
    stands = [
        empty | {"valid_from": date(2026, 4, 1), "valid_to": date(2026, 6, 1), "multiplier": Decimal(20)},
        empty | {"valid_from": date(2026, 8, 1), "valid_to": None, "multiplier": None, "dials": 6},
    ]
    assert factors(known(wrong_since=date(2026, 5, 1), values=stands)) == [
        (date(2026, 4, 1), date(2026, 5, 1), Decimal(20)),
        (date(2026, 5, 1), date(2026, 6, 1), Decimal(25)),
        (date(2026, 6, 1), date(2026, 8, 1), Decimal(50)),
        (date(2026, 8, 1), date(2026, 10, 1), Decimal(50)),
        (date(2026, 10, 1), None, None),
    ]


def test_an_unknown_beginning_is_taken_by_the_rule_from_the_last_good_test() -> None:
    """Tested good on 1 October 2025, 80 % a year later: half of 365 days before, from 2 April 2026."""
    rule = Rule(**RULE)
    tests = [(date(2025, 10, 1), Decimal("101.5")), (date(2026, 3, 1), Decimal(90))]
    made = propose(known(earlier=tests), rule, CHICAGO)
    assert (made.first, made.past) == (date(2026, 4, 2), date(2026, 10, 1))
    assert made.why == (
        "beginning unknown: half the time since 2025-10-01 (its last good test), by rule *, * from 2020-01-01 (city code 12-3)"
    )
    assert propose(known(), rule, CHICAGO).first == date(2025, 10, 1)  # half of 730 days since its installation


@pytest.mark.parametrize(
    ("change", "ruled", "why"),
    [
        ({"percent": Decimal("98.5")}, True, "is good: 98.5 % is within 2 % of 100"),
        ({"percent": Decimal(0)}, True, "found it stopped"),
        ({}, False, "does not say since when, and no back-billing rule for electricity, residential"),
        ({"channels": [], "wrong_since": date(2026, 9, 1)}, True, "has no channel"),
    ],
)
def test_a_test_that_starts_no_correction_says_why(change: dict[str, Any], ruled: bool, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        propose(known(**change), Rule(**RULE) if ruled else None, CHICAGO)


def test_a_slow_meter_is_previewed_limited_approved_and_billed(database: Database, tmp_path: Path) -> None:
    """R registers 80 % since 6 January and is found on the 9th: of 10 a day, 12.5 are billed for the 6th to the 8th.

    Period 1 (5th to 7th): 0.50 more, half a year late: nothing may be charged. Period 2 (8th to 10th): still open,
    0.25 more."""
    city = town(database, tmp_path / "town")
    city.clock = noon(PERIODS[0][1])
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    city.refer({"back_billing_rules": [RULE | {"charge_months": 5, "waive_below": None}]})
    city.refer(
        {
            "meter_tests": [
                {
                    "meter_id": "MR",
                    "tested_on": DAYS[4],
                    "percent_registration": 80,
                    "wrong_since": DAYS[1],
                    "evidence": "shop report 88",
                }
            ]
        }
    )
    city.clock = noon(date(2026, 7, 9))
    employ(database)
    with pytest.raises(ReferenceRefused, match="no test of MR on 2026-01-10"):
        preview_meter_test(database, city.calendar, "MR", DAYS[5], clock=city.clock)
    proposed, made = preview_meter_test(database, city.calendar, "MR", DAYS[4], clock=city.clock)
    assert [(r["valid_from"], r["valid_to"], r["multiplier"]) for r in proposed.rows] == [
        (DAYS[1], DAYS[4], Decimal("1.25"))
    ]
    (policy,) = made.document["policy"]
    assert (policy["full"], policy["allowed"], policy["waived"]) == ("0.50", "0.00", "0.50")
    assert made.document["money"]["difference"] == "0.25"
    with pytest.raises(ReferenceRefused, match="two people make it"):
        apply(database, made.digest, by="ana", why="test", clock=city.clock)
    asked = request(database, made.digest, by="ana", reason="shop report 88", clock=city.clock)
    approve(database, asked.request_id, by="ben", reason="report seen", clock=city.clock)
    city.settle()
    approve_all(city)
    assert city.owed()["AC-R"] == Decimal("6.25")
    law = city.law(FIRST, PERIODS[1][1])
    assert (law.ok, law.bills_open) == (True, [])
    assert law.waived == [f"AC-R.C1.{FIRST:%Y%m%d}.0.A1 SP-R: 0.50 corrected, 0.00 allowed, 0.50 waived, interest 0.00"]
