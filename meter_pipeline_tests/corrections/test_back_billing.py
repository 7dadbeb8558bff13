"""Back-billing rules promise: what a correction may charge and credit, by hand; what is waived is an amount with a
name, and the law, the reconciliation and later corrections hold it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide
from meter_pipeline.billing.back_billing.rules import (
    Correction,
    Key,
    Rule,
    RuledCorrection,
    Standing,
    begins,
    chosen,
    days_between,
    judge,
    months_before,
)
from meter_pipeline.billing.explain import explain
from meter_pipeline.billing.proposals import AdjustmentError, propose
from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.app import build
from meter_pipeline.desk.web import Desk
from meter_pipeline.ledger.contents import verify_contents
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.sources import ADJUSTMENTS
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, town
from meter_pipeline_tests.desk.support import ORIGIN
from meter_pipeline_tests.support import ROOT, FixedClock

DAYS = [FIRST + timedelta(days=k) for k in range(3)]
ISSUED, CORRECTED = date(2026, 1, 8), date(2026, 2, 7)
RULE: dict[str, Any] = {
    "commodity": "*",
    "customer_class": "*",
    "covers": "corrections",
    "charge_months": 1,
    "credit_months": None,
    "unknown_beginning": "half_since_test",
    "unknown_most_months": None,
    "tolerance_percent": Decimal(2),
    "interest_percent": Decimal(10),
    "day_count": "actual/365",
    "instalments": "error_time",
    "instalment_months": None,
    "waive_below": Decimal(5),
    "source": "city code 12-3",
    "valid_from": date(2020, 1, 1),
    "valid_to": None,
}


def rule(**changes: Any) -> Rule:
    return Rule(**(RULE | changes))


def key(first: date, past: date, line: str = "ENERGY") -> Key:
    return ("SP-1", "E", 1, first, past, line)


def judged(
    lines: dict[Key, int], standing: Standing | None = None, on: date = CORRECTED, **changes: Any
) -> RuledCorrection:
    return judge(rule(**changes), Correction(lines, on, ISSUED), standing or Standing())


def noon(day: date) -> FixedClock:
    return FixedClock(datetime(day.year, day.month, day.day, 18, tzinfo=UTC))


def test_a_charge_counts_the_days_from_the_limit_on() -> None:
    """Four days from 5 to 9 January, corrected on 7 February, one month back: the 7th and 8th count."""
    found = judged(
        {key(date(2026, 1, 5), date(2026, 1, 9)): 80_000_000, key(date(2026, 1, 5), date(2026, 1, 9), "TAX"): 4_010_000}
    )
    assert (found.full, found.allowed, found.waived) == (84_010_000, 42_010_000, 42_000_000)  # 40.00 and 2.005, to even
    assert found.lines[key(date(2026, 1, 5), date(2026, 1, 9))] == -40_000_000
    assert found.limit_day == date(2026, 1, 7)
    assert found.instalments == 2  # the error lasted from 5 January: more than a month


def test_a_limit_makes_no_charge_larger_and_turns_none_into_a_credit() -> None:
    early, late = key(date(2026, 1, 1), date(2026, 1, 4)), key(date(2026, 1, 20), date(2026, 1, 23))
    assert judged({early: -20_000_000, late: 50_000_000}).waived == 0
    assert judged({early: 50_000_000, late: -20_000_000}).allowed == 0


def test_interest_is_of_the_refund_by_the_day_count() -> None:
    """365.00 for 30 days at 10 %: 3.00 by actual/365, 3.04 by actual/360; 30/360 has 29 days from 8 January to 7
    February: 2.94."""
    refund = {key(date(2026, 1, 5), date(2026, 1, 9)): -365_000_000}
    assert [judged(refund, day_count=count).interest for count in ("actual/365", "actual/360", "30/360")] == [
        3_000_000,
        3_040_000,
        2_940_000,
    ]
    assert judged(refund, interest_percent=None).interest == 0
    assert judged({k: -v for k, v in refund.items()}).interest == 0


def test_a_small_charge_is_waived_and_a_small_refund_is_not() -> None:
    line = key(date(2026, 1, 20), date(2026, 1, 23))
    assert (judged({line: 4_990_000}).waived, judged({line: 5_000_000}).waived) == (4_990_000, 0)
    assert judged({line: -1_000_000}).waived == 0


def test_what_takes_a_correction_back_takes_back_what_was_waived_of_it() -> None:
    line = key(date(2026, 1, 5), date(2026, 1, 9))
    standing = Standing(100_000_000, 60_000_000, 0, {line: -60_000_000})
    whole = judged({line: -100_000_000}, standing)
    assert (whole.full, whole.allowed, whole.waived, whole.interest) == (-100_000_000, -40_000_000, -60_000_000, 0)
    half = judged({line: -50_000_000}, standing)
    assert (half.allowed, half.waived) == (-20_000_000, -30_000_000)
    beyond = judged({line: -136_500_000}, standing)  # 36.50 more than was corrected: a refund with interest
    assert (beyond.allowed, beyond.waived, beyond.interest) == (-76_500_000, -60_000_000, 300_000)
    refunded = Standing(-36_500_000, 0, 300_000, {})
    assert judged({line: 36_500_000}, refunded).interest == -300_000


STEPS = st.lists(
    st.tuples(st.integers(-20_000, 20_000), st.integers(-20_000, 20_000), st.integers(0, 400)), min_size=1, max_size=5
)


@given(STEPS, st.sampled_from([0, 1, 3]), st.sampled_from([None, Decimal(5), Decimal(80)]))
def test_whatever_is_corrected_and_taken_back_nothing_stays_waived(
    steps: list[tuple[int, int, int]], months: int, least: Decimal | None
) -> None:
    """Cents on two lines, corrected on some days; the last correction makes the bill what it was."""
    lines = (key(date(2026, 1, 5), date(2026, 1, 9)), key(date(2026, 1, 9), date(2026, 1, 20), "TAX"))
    moves = [*steps, (-sum(a for a, _, _ in steps), -sum(b for _, b, _ in steps), 500)]
    standing = Standing()
    for first, second, later in moves:
        moved = {k: cents * 10_000 for k, cents in zip(lines, (first, second), strict=True) if cents}
        if not moved:
            continue
        on = CORRECTED + timedelta(days=later)
        made = judged(moved, standing, on, charge_months=months, credit_months=months, waive_below=least)
        assert made.full == made.allowed + made.waived
        assert sum(made.lines.values()) == -made.waived
        both = {k: standing.lines.get(k, 0) + made.lines.get(k, 0) for k in lines}
        standing = Standing(
            standing.full + made.full, standing.waived + made.waived, standing.interest + made.interest, both
        )
    assert (standing.full, standing.waived, standing.interest) == (0, 0, 0)


def test_the_rule_of_the_class_comes_before_that_of_the_commodity() -> None:
    rules = [
        rule(),
        rule(commodity="water"),
        rule(customer_class="municipal"),
        rule(valid_from=date(2030, 1, 1), commodity="gas"),
    ]
    named = [
        chosen(rules, c, k, CORRECTED)
        for c, k in (("water", "municipal"), ("water", "residential"), ("gas", "industrial"))
    ]
    assert named == [rules[2], rules[1], rules[0]]
    assert chosen(rules[3:], "gas", "municipal", CORRECTED) is None


def test_dates_count_back_to_the_end_of_a_shorter_month() -> None:
    assert months_before(date(2026, 3, 31), 1) == date(2026, 2, 28)
    assert months_before(date(2026, 2, 7), 14) == date(2024, 12, 7)
    assert days_between(date(2026, 1, 31), date(2026, 3, 31), "30/360") == (60, 360)


def test_an_unknown_beginning_is_half_the_time_since_the_last_good_test_within_the_limit() -> None:
    good, tested = date(2025, 10, 1), date(2026, 10, 1)
    assert begins(rule(), tested, good)[0] == date(2026, 4, 2)  # 182 days before
    assert begins(rule(unknown_most_months=3), tested, good)[0] == date(2026, 7, 1)
    assert begins(rule(unknown_beginning="last_good_test"), tested, good)[0] == good


@pytest.fixture
def city(database: Database, tmp_path: Path) -> Town:
    """Three bills of three days each, issued on 8 January: 7.20, 7.20 and 3.00; a rule of one month back."""
    made = town(database, tmp_path / "town")
    made.clock = noon(ISSUED)
    made.days(DAYS)
    made.issue("C1", PERIODS[0][1])
    made.refer({"back_billing_rules": [RULE]})
    made.clock = noon(CORRECTED)
    return made


def values(**multipliers: str) -> dict[str, list[dict[str, Any]]]:
    rows = [
        {"meter_id": f"M{p}", "channel": "R1" if p == "R" else "E1", "valid_from": DAYS[0], "multiplier": m}
        for p, m in multipliers.items()
    ]
    return {"channel_values": rows}


def amounts(city: Town) -> dict[str, tuple[Decimal, ...]]:
    """By account, the last correction's full, allowed and waived amount, and interest."""
    rows = city.database.rows(
        "SELECT account_id, full_amount, allowed, waived, interest FROM analyst.back_billing ORDER BY adjustment_id"
    )
    return {r["account_id"]: (r["full_amount"], r["allowed"], r["waived"], r["interest"]) for r in rows}


def approve_all(city: Town) -> None:
    """A second person decides corrections; what goes with one is decided with it."""
    going_with = {
        r["policy_adjustment"] for r in city.database.rows("SELECT policy_adjustment FROM billing.back_billing")
    }
    for _, adjustment in city.waiting_adjustments():
        if adjustment not in going_with:
            city.decide(adjustment, approve=True)


def look_at_the_desk(city: Town, bill: str, digest: str) -> None:
    """The pages of the adjustments, of the bill's line and of the preview say the rule and the amounts."""
    desk = Desk(city.database, city.settings, Access(city.folder / "access"))
    with TestClient(build(desk), follow_redirects=True) as client:
        client.post("/login", data={"token": desk.access.issue("ana")}, headers=ORIGIN)
        for page in (
            f"/adjustments/{bill}.A1",
            f"/adjustments/{bill}.A2",
            f"/bills/{bill}/1",
            f"/corrections/{digest}",
        ):
            shown = client.get(page).text
            assert "Back-billing" in shown, page
            assert "38.00" in shown, page
            assert "days before Jan 7, 2026 are not charged" in shown, page
    desk.close()


def test_a_correction_is_charged_by_the_rule_and_everything_holds(city: Town) -> None:
    """R: ratio 20 for 1, 3.00 becomes 60.00, of which one of three days lies within a month: 19.00 of 57.00.
    A: over-registered to twice, 3.60 back with 0.03 of interest (3.60 x 10 % x 30 / 365). B: 1.80 is below 5.00."""
    folder = city.folder_of(values(R="20", A="0.5", B="1.25"))
    seen = preview_folder(city.database, city.calendar, folder, clock=city.clock)
    assert {a["account_id"]: a["difference"] for a in seen.document["money"]["accounts"]} == {
        "AC-A": "-3.63",
        "AC-R": "19.00",
    }
    assert [
        (p["account_id"], p["full"], p["allowed"], p["waived"], p["interest"]) for p in seen.document["policy"]
    ] == [
        ("AC-A", "-3.60", "-3.60", "0.00", "0.03"),
        ("AC-B", "1.80", "0.00", "1.80", "0.00"),
        ("AC-R", "57.00", "19.00", "38.00", "0.00"),
    ]
    import_folder(city.database, city.calendar, folder, clock=city.clock)
    city.settle()
    waits = f"AC-R.C1.{FIRST:%Y%m%d}.0.A2"
    assert waits in [name for _, name in city.waiting_adjustments()], "57.00 and what is waived of it wait together"
    with pytest.raises(AdjustmentError, match=r"goes with AC-R.*A1: decide that one"):
        city.decide(waits, approve=True)
    law = city.law(FIRST, PERIODS[0][1])
    assert law.ok, (law.open, law.bills_open)
    approve_all(city)
    assert city.owed() == {"AC-A": Decimal("3.57"), "AC-B": Decimal("7.2"), "AC-R": Decimal(22)}
    assert amounts(city) == {
        "AC-A": (Decimal("-3.6"), Decimal("-3.6"), Decimal(0), Decimal("0.03")),
        "AC-B": (Decimal("1.8"), Decimal(0), Decimal("1.8"), Decimal(0)),
        "AC-R": (Decimal(57), Decimal(19), Decimal(38), Decimal(0)),
    }
    law = city.law(FIRST, PERIODS[0][1])
    assert (law.ok, law.bills_waiting) == (True, [])
    assert [w.split(": ", 1)[1] for w in law.waived] == [
        "-3.60 corrected, -3.60 allowed, 0.00 waived, interest 0.03",
        "1.80 corrected, 0.00 allowed, 1.80 waived, interest 0.00",
        "57.00 corrected, 19.00 allowed, 38.00 waived, interest 0.00",
    ]
    bill = f"AC-R.C1.{FIRST:%Y%m%d}.0"
    assert propose(city.database, city.calendar, bill).lines.height == 0, "a correction does not take it back"
    told = explain(city.database, f"{bill}.1")
    assert told is not None
    (policy,) = told["policy"]
    assert (policy["rule"], policy["full"], policy["allowed"], policy["waived"]) == (
        "*, * from 2020-01-01 (city code 12-3)",
        "57.00",
        "19.00",
        "38.00",
    )
    (said,) = city.database.rows(
        "SELECT evidence, reason FROM billing.adjustment WHERE adjustment_id = $1", [f"{bill}.A1"]
    )
    assert said["reason"] == "reference"
    assert "full 57.000000, allowed 19.000000, waived 38.000000" in said["evidence"]
    look_at_the_desk(city, bill, seen.digest.hex())
    # The crew had read the nameplate of the meter next door: the correction is taken back, and its waiver with it.
    import_folder(city.database, city.calendar, city.folder_of(values(R="1", A="1", B="1")), clock=city.clock)
    city.settle()
    approve_all(city)
    assert city.owed() == {"AC-A": Decimal("7.2"), "AC-B": Decimal("7.2"), "AC-R": Decimal(3)}
    law = city.law(FIRST, PERIODS[0][1])
    assert (law.ok, law.bills_waiting, law.bills_open) == (True, [], [])


def test_the_law_finds_a_waiver_that_is_not_what_its_row_says(city: Town) -> None:
    import_folder(city.database, city.calendar, city.folder_of(values(R="20")), clock=city.clock)
    city.settle()
    approve_all(city)
    assert city.law(FIRST, PERIODS[0][1]).ok
    with city.database.connect() as connection:
        connection.execute("UPDATE billing.back_billing SET allowed = allowed + 1, waived = waived - 1")
    assert any("waives 38.00, its rule 37.00" in said for said in city.law(FIRST, PERIODS[0][1]).bills_open)


def test_refused_together_superseded_together_and_reads_only_where_the_rule_covers_them(city: Town) -> None:
    import_folder(city.database, city.calendar, city.folder_of(values(R="20")), clock=city.clock)
    city.settle()
    import_folder(city.database, city.calendar, city.folder_of(values(R="40")), clock=city.clock)
    city.settle()
    bill = f"AC-R.C1.{FIRST:%Y%m%d}.0"
    states = "SELECT adjustment_id, status FROM billing.adjustment WHERE statement_id = $1 ORDER BY 1"
    assert {r["adjustment_id"][-2:]: r["status"] for r in city.database.rows(states, [bill])} == {
        "A1": "superseded",
        "A2": "superseded",
        "A3": "requested",
        "A4": "requested",
    }
    city.decide(f"{bill}.A3", approve=False)
    assert [r["status"] for r in city.database.rows(states, [bill])][2:] == ["refused", "refused"]
    assert city.owed()["AC-R"] == Decimal(3)
    # A corrected read, 2 kWh an hour: no rule of corrections holds it.
    start = city.calendar.bounds(DAYS[0])[0]
    city.read([("INTERVAL-KWH", "MA", "E1", start + timedelta(hours=h), "2", 2) for h in range(24)])
    city.settle()
    approve_all(city)
    assert city.owed()["AC-A"] == Decimal("9.6")
    city.refer({"back_billing_rules": [RULE | {"covers": "corrections_and_reads"}]})
    city.read([("INTERVAL-KWH", "MB", "E1", start + timedelta(hours=h), "2", 2) for h in range(24)])
    city.settle()
    approve_all(city)
    assert city.owed()["AC-B"] == Decimal("7.2"), "2.40 is below 5.00"
    assert city.law(FIRST, PERIODS[0][1]).ok


def test_each_step_is_made_by_the_role_of_its_stage_and_the_ledger_covers_the_row(city: Town) -> None:
    privileges.apply(city.database)
    ingest, billing, finance = (city.database.acting_as(f"meter_{role}") for role in ("ingest", "billing", "finance"))
    import_folder(ingest, city.calendar, city.folder_of(values(R="20")), clock=city.clock)
    for day in DAYS:
        validate_billing_day(ingest, city.calendar, day, clock=city.clock)
        bill_billing_day(billing, city.calendar, day, clock=city.clock)
    decide(finance, f"AC-R.C1.{FIRST:%Y%m%d}.0.A1", approve=True, person="carol", clock=city.clock)
    assert city.owed()["AC-R"] == Decimal(22)
    with city.database.connect() as connection:
        connection.execute("UPDATE billing.back_billing SET why = 'nothing'")
    outcome = VerifyOutcome(None, 0, 0, b"")
    with city.database.connect() as connection:
        verify_contents(city.database, connection, ADJUSTMENTS, None, outcome)
    assert [f.detail for f in outcome.findings if "billing.back_billing" in f.detail]


def test_the_rules_of_the_docs_can_be_imported(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "corrections.md").read_text("utf-8")
    for name, columns in (("back_billing_rules", 4), ("meter_tests", 1)):
        (block,) = re.findall(f"```\n({','.join(TABLES[name].columns)}\n.*?)```", page, re.DOTALL)
        (tmp_path / f"{name}.csv").write_text(block)
        assert len(read_folder(tmp_path)[0][name]) == columns


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"charge_months": -1}, "charge_months: -1 is below 0"),
        ({"interest_percent": 120}, "interest_percent: 120 is not from 0 to 100"),
        ({"instalments": "months"}, "instalment_months: is filled where instalments is months"),
        ({"unknown_most_months": 0}, "unknown_most_months: must be above 0"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    row = RULE | change
    (tmp_path / "back_billing_rules.csv").write_text(
        ",".join(row) + "\n" + ",".join("" if v is None else str(v) for v in row.values()) + "\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert f"back_billing_rules.csv:2: {fault}" in "\n".join(map(str, refused.value.faults))
