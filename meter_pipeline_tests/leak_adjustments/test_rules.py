"""A leak's rule promises: normal use from the season's earlier bills, what is left out said with its reason, and named
refusals."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.leak_adjustments.rules import LeakRefusedError, chosen, forgive, months_apart, rule_of
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder

UNIT = 10**6


def row(**changes: Any) -> dict[str, Any]:
    return {
        "customer_class": "*",
        "seasons": "5 6 7 8 9 10 / 11 12 1 2 3 4",
        "normal_periods": 2,
        "least_periods": 2,
        "share_percent": Decimal(50),
        "sewer_codes": "SEWER",
        "sewer_share_percent": Decimal(100),
        "months_between": 12,
        "most_bills": 2,
        "evidence": "repair receipt",
        "valid_from": date(2020, 1, 1),
        "valid_to": None,
    } | changes


def bill(end: date, days: int, quantity: int, **other: Any) -> dict[str, Any]:
    first = date.fromordinal(end.toordinal() - days)
    held = {"period_end": end, "first_day": first, "past_day": end, "days": days, "quantity": quantity * UNIT}
    return held | {"unit": "ccf", "estimated": False} | other


AUGUST = bill(date(2026, 9, 1), 31, 100)
EARLIER = [
    bill(date(2025, 8, 1), 31, 31),
    bill(date(2025, 9, 1), 31, 900, estimated=True),
    bill(date(2026, 2, 1), 31, 500),
    bill(date(2026, 6, 1), 31, 700),
    bill(date(2026, 7, 1), 30, 90),
    bill(date(2026, 8, 1), 31, 62),
]


def test_the_latest_bills_of_the_season_count_by_their_days() -> None:
    found = forgive(rule_of(row()), AUGUST, EARLIER, [(date(2026, 5, 3), date(2026, 5, 9), "flow-1")], date(2026, 8, 3))
    # 90 + 62 in 61 days, for 31 days
    assert found.normal == round(152 * UNIT * 31 / 61) == 77_245_902
    assert (found.water, found.sewer) == (11_377_049, 22_754_098)
    assert [p["left_out"] for p in found.periods] == [
        "before the 2 that count",
        "no read",
        "another season",
        "confirmed leak, case flow-1",
        "",
        "",
    ]


def test_bills_that_the_leak_reaches_are_no_normal_use() -> None:
    early = [bill(date(2026, 7, 1), 30, 30), bill(date(2026, 8, 1), 31, 900)]
    found = forgive(rule_of(row(least_periods=1)), AUGUST, early, [], date(2026, 7, 5))
    assert [p["left_out"] for p in found.periods] == ["", "the leak had begun"]
    assert found.normal == 31 * UNIT


def test_refusals_name_what_is_missing() -> None:
    with pytest.raises(LeakRefusedError, match=r"1 earlier bills of the season count, the rule of class"):
        forgive(rule_of(row()), AUGUST, EARLIER[-1:], [], date(2026, 8, 3))
    small = bill(date(2026, 9, 1), 31, 60)
    with pytest.raises(LeakRefusedError, match=r"60 ccf were used, and 77.245902 are normal: nothing is above normal"):
        forgive(rule_of(row()), small, EARLIER[-2:], [], date(2026, 8, 3))
    with pytest.raises(LeakRefusedError, match="no rule for class industrial is in force on 2026-08-31"):
        chosen([row(customer_class="residential")], "industrial", date(2026, 8, 31))


def test_the_rule_of_the_class_and_of_the_day() -> None:
    rows = [
        row(valid_to=date(2026, 7, 1)),
        row(valid_from=date(2026, 7, 1), share_percent=Decimal(75)),
        row(customer_class="residential", share_percent=Decimal(100)),
    ]
    assert chosen(rows, "commercial", date(2026, 6, 30)).share == 50
    assert chosen(rows, "commercial", date(2026, 7, 1)).share == 75
    assert chosen(rows, "residential", date(2026, 7, 1)).share == 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seasons": "1 2 3"}, "no season holds month 4"),
        ({"seasons": "1 2 3 4 5 6 7 8 9 10 11 12 / 3"}, "a month is in two seasons"),
        ({"seasons": "1 13"}, "are not numbers from 1 to 12"),
        ({"share_percent": Decimal(101)}, "share_percent 101 is out of range"),
        ({"least_periods": 3}, "least_periods 3 is out of range"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LeakRefusedError, match=said):
        rule_of(row(**changes))


def test_an_import_names_the_line_of_a_rule(tmp_path: Path) -> None:
    (tmp_path / "leak_adjustment_rules.csv").write_text(
        "customer_class,seasons,normal_periods,least_periods,share_percent,sewer_codes,sewer_share_percent,months_between,most_bills,evidence,"
        "valid_from,valid_to\n*,,3,1,50,SEWER,100,12,2,receipt,2026-01-01,\nresidential,1 2,3,1,50,,,12,2,,2026-01-01,\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert (
        str(refused.value.faults[0])
        == "leak_adjustment_rules.csv:3: class residential: seasons '1 2': no season holds month 3"
    )


def test_months_apart() -> None:
    assert months_apart(date(2025, 9, 1), date(2026, 9, 1), 12)
    assert not months_apart(date(2026, 8, 31), date(2025, 9, 1), 12)
