"""The story of docs/corrections.md comes out to the cent: a ratio that was wrong for 14 months, found by a meter test,
previewed, limited by the rule, approved by a second person, billed again and explained."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing.adjustments import decide
from meter_pipeline.billing.explain import explain
from meter_pipeline.corrections.apply import approve, request
from meter_pipeline.corrections.meter_tests import preview_meter_test
from meter_pipeline.corrections.reproduce import reproduce
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.test_back_billing import RULE
from meter_pipeline_tests.corrections.town import FLAT, Town, agreement, channel, point
from meter_pipeline_tests.support import ROOT, FixedClock

FIRST, TESTED, PREVIEWED = date(2025, 9, 1), date(2026, 11, 1), date(2026, 11, 10)
MONTHS = [date(2025 + (8 + k) // 12, (8 + k) % 12 + 1, 1) for k in range(15)]
DAYS = [FIRST + timedelta(days=k) for k in range((TESTED - FIRST).days)]
RULE_12 = RULE | {
    "customer_class": "residential",
    "charge_months": 12,
    "interest_percent": None,
    "waive_below": None,
    "source": "12 months",
}


class House(Town):
    """One house: a register whose dial rises by 1 a day. Its transformers are 50 to 1; the records say 40."""

    def begin(self) -> None:
        self.tariffs({"E-FLAT": [FLAT]}, FIRST)
        cycle = [{"cycle_id": "C1", "period_start": a, "period_end": b} for a, b in pairwise(MONTHS)]
        self.refer(
            {
                "billing_cycles": cycle,
                "service_points": [point("R")],
                "meters": [{"meter_id": "MR", "commodity": "electricity", "head_end": "REGISTER-KWH"}],
                "channels": [channel("R", 40)],
                "installations": [
                    {
                        "service_point_id": "SP-R",
                        "meter_id": "MR",
                        "installed_at": self.calendar.bounds(FIRST)[0],
                        "install_read": 0,
                    }
                ],
                "accounts": [{"account_id": "AC-R", "customer_class": "residential", "opened": date(2015, 1, 1)}],
                "agreements": [agreement("R")],
                "back_billing_rules": [RULE_12],
            }
        )

    def on(self, day: date) -> None:
        self.clock = FixedClock(datetime(day.year, day.month, day.day, 18, tzinfo=UTC))


def told(what: str) -> str:
    """A figure of the story, by the words before it."""
    page = (ROOT / "docs" / "corrections.md").read_text("utf-8")
    story = page[page.index("## A story") : page.index("## ", page.index("## A story") + 5)]
    found = re.search(re.escape(what) + r"\s+(-?[\d.,]+)", story)
    assert found is not None, what
    return found[1].rstrip(".,").replace(",", "")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_ratio_that_was_wrong_for_fourteen_months(database: Database, tmp_path: Path) -> None:
    city = House(database, tmp_path / "house")
    city.begin()
    reads: list[Any] = [
        ("REGISTER-KWH", "MR", "R1", city.calendar.bounds(day)[1], str(k), 1) for k, day in enumerate(DAYS, start=1)
    ]
    city.read(reads)
    for start, end in pairwise(MONTHS):
        city.on(end)
        for day in (d for d in DAYS if start <= d < end):
            city.run_day(day)
        city.settle()
        city.issue("C1", end)
    assert city.owed() == {"AC-R": Decimal(told("the fourteen bills come to"))}
    employ(database)
    city.on(TESTED)
    city.refer(
        {
            "meter_tests": [
                {
                    "meter_id": "MR",
                    "tested_on": TESTED,
                    "percent_registration": 80,
                    "wrong_since": FIRST,
                    "evidence": "shop report 88",
                }
            ]
        }
    )
    city.on(PREVIEWED)
    proposed, made = preview_meter_test(database, city.calendar, "MR", TESTED, clock=city.clock)
    assert [row["multiplier"] for row in proposed.rows] == [Decimal(told("the multiplier becomes"))]
    document = made.document
    assert (document["days"], document["statements"]["issued"]) == (int(told("reaches")), 14)
    policy = document["policy"]
    sums = {name: sum(Decimal(p[name]) for p in policy) for name in ("full", "allowed", "waived")}
    assert sums == {
        "full": Decimal(told("comes to in full,")),
        "allowed": Decimal(told("allows")),
        "waived": Decimal(told("waives")),
    }
    assert document["money"]["difference"] == told("the difference is")
    by_bill = {p["statement_id"]: (p["full"], p["allowed"], p["waived"], p["instalments"]) for p in policy}
    assert by_bill["AC-R.C1.20251001.0"] == ("31.00", "0.00", "31.00", None)
    assert by_bill["AC-R.C1.20251101.0"] == ("30.00", "21.00", "9.00", 13)
    asked = request(database, made.digest, by="ana", reason="shop report 88", clock=city.clock)
    approve(database, asked.request_id, by="ben", reason="report and nameplate seen", clock=city.clock)
    city.settle()
    waiting = [name for _, name in city.waiting_adjustments()]
    assert waiting == [f"AC-R.C1.{month}.0.A{n}" for month in ("20250901", "20251001") for n in (1, 2)]
    for name in waiting[::2]:
        decide(database, name, approve=True, person="ben", clock=city.clock)
    assert city.owed() == {"AC-R": Decimal(told("the fourteen bills and their adjustments come to"))}
    law = city.law(FIRST, TESTED)
    assert (law.ok, law.bills_waiting, len(law.waived)) == (True, [], 14)
    november = explain(database, "AC-R.C1.20251101.0.1")
    assert november is not None
    (rule,) = november["policy"]
    assert (rule["full"], rule["allowed"], rule["waived"], rule["limit_day"]) == (
        "30.00",
        "21.00",
        "9.00",
        date(2025, 11, 10),
    )
    assert reproduce(database, city.calendar, "AC-R.C1.20251101.0").identical
