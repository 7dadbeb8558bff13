"""What happens to the bill when a validation rule hits: the policy as data, the queue it fills, the bills it holds."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from meter_pipeline.anomalies import QueueError, decide, show_case
from meter_pipeline.billing.tables.statements import held_service_points
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import validate_billing_day
from meter_pipeline.vee.rules import policy
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, noon_after

DAY = date(2026, 6, 10)
QUARTER = 250_000


@pytest.fixture
def city(database: Database) -> City:
    return City(database)


def _own(tmp_path: Path, text: str) -> policy.Policies:
    (tmp_path / policy.FILE_NAME).write_text(text)
    return policy.load(tmp_path)


def test_every_shipped_entry_names_a_rule_and_says_why() -> None:
    shipped = policy.default().entries
    assert {e.rule for e in shipped} <= set(ROW_RULES) | set(INTERVAL_RULES)
    assert all(e.why for e in shipped)
    assert {e.rule for e in shipped if e.action == "hold"} == {
        "SUM_CHECK", "MULTIPLIER", "INFEASIBLE", "TOU_SUM", "NOT_ESTIMATED", "ESTIMATE_SUSPECT", "UNIT", "DECREASE", "DIALS",
        "READ_HIGH", "READ_IMPOSSIBLE", "NEVER_READ", "SET_ASIDE",
    }  # fmt: skip


def test_a_utilitys_entry_stands_before_the_shipped_one_on_its_days(tmp_path: Path) -> None:
    own = _own(
        tmp_path,
        '[[policy]]\nrule = "SUM_CHECK"\naction = "bill"\nfrom = 2026-07-01\nto = 2026-08-01\nwhy = "registers are being replaced"\n',
    )
    assert [
        own.on(d).action("SUM_CHECK")
        for d in (date(2026, 6, 30), date(2026, 7, 1), date(2026, 7, 31), date(2026, 8, 1))
    ] == ["hold", "bill", "bill", "hold"]
    assert own.digest != policy.default().digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('rule = "SUMCHECK"\naction = "hold"\nwhy = "x"', "no such rule"),
        ('rule = "SUM_CHECK"\naction = "wait"\nwhy = "x"', "not one of hold, estimate, bill"),
        ('rule = "RANGE"\naction = "bill"\nwhy = "x"', "say estimate or hold"),
        ('rule = "MULTIPLIER"\naction = "estimate"\nwhy = "x"', "say hold or bill"),
        ('rule = "SUM_CHECK"\naction = "hold"', "why is missing"),
        ('rule = "SUM_CHECK"\naction = "hold"\nwhy = "x"\nfrom = "July"', "from and to are dates"),
        ('rule = "SUM_CHECK"\naction = "hold"\nwhy = "x"\nsince = 2026-01-01', "no key since"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused_with_file_and_rule(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(policy.PolicyError, match=said) as refused:
        _own(tmp_path, f"[[policy]]\n{text}\n")
    assert str(tmp_path / policy.FILE_NAME) in str(refused.value)


def _held(city: City, first: date = DAY, past: date = DAY + timedelta(days=1)) -> dict[str, str]:
    return dict(held_service_points(city.database, first, past).iter_rows())


def _ten_times(city: City, *days: date) -> None:
    """A meter whose intervals are ten times what its register counts, and a neighbour that is right."""
    city.reference(Installed("M-TEN", "SP-TEN"), Installed("M-OK", "SP-OK"))
    for k, day in enumerate(days):
        city.intervals(day, {m: np.full(96, QUARTER * f, np.int64) for m, f in (("M-TEN", 10), ("M-OK", 1))})
        for meter in ("M-TEN", "M-OK"):
            if k == 0:
                city.register(meter, (CALENDAR.bounds(day)[0], 1_000_000_000))
            city.register(meter, (CALENDAR.bounds(day)[1], 1_000_000_000 + (k + 1) * 96 * QUARTER))


def test_intervals_ten_times_the_register_hold_the_bill_until_a_person_releases_them(city: City) -> None:
    _ten_times(city, DAY, DAY + timedelta(days=1))
    outcome = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    assert (outcome.held, outcome.cases_opened) == (1, 1)
    held = _held(city)
    assert held == {"SP-TEN": f"MULTIPLIER, SUM_CHECK on 1 day(s) from {DAY}, case validation-SP-TEN-{DAY:%Y%m%d}"}
    again = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, 2))
    assert (again.held, again.cases_opened) == (1, 0), "the same findings change nothing"

    case = f"validation-SP-TEN-{DAY:%Y%m%d}"
    with city.database.connect() as connection:
        flags = show_case(connection, case)["flags"]
        assert [f["kind"] for f in flags] == ["MULTIPLIER", "SUM_CHECK"]
        assert "intervals 240000000 against register 24000000" in flags[0]["evidence"]["found"]
        assert decide(connection, {"case_id": [case]}, "confirmed", by="ana").released == 0
    assert _held(city) == held, "confirmed: the data are wrong, and wait to be corrected"
    with city.database.connect() as connection:
        assert decide(connection, {"case_id": [case]}, "dismissed", by="bo", reason="test meter").released == 1
    assert _held(city) == {}
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, 3))
    assert _held(city) == {}, "a day judged again with the same figures stays released"
    # the next day fails too: it is another decision
    following = DAY + timedelta(days=1)
    validate_billing_day(city.database, CALENDAR, following, clock=noon_after(following))
    assert list(_held(city, DAY, following + timedelta(days=1))) == ["SP-TEN"]


def test_corrected_data_release_the_bill_and_close_the_case_by_themselves(city: City) -> None:
    _ten_times(city, DAY)
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    with city.database.connect() as connection:
        decide(connection, {"family": ["validation"]}, "assigned", by="ana", to="field")
        connection.execute("UPDATE ref.channels SET multiplier = 10 WHERE meter_id = 'M-TEN' AND channel = 'R1'")
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, 2))
    assert _held(city) == {}
    assert city.rows("SELECT state, hold, reason FROM anomaly.exception_case") == [
        ("expired", False, "the data were corrected")
    ]
    assert city.rows("SELECT count(*) FROM anomaly.validation_finding") == [(0,)]


def test_a_released_finding_whose_figures_change_is_held_anew(city: City) -> None:
    _ten_times(city, DAY)
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    with city.database.connect() as connection:
        decide(connection, {"family": ["validation"]}, "dismissed", by="bo", reason="agreed with the customer")
        connection.execute("UPDATE ref.channels SET multiplier = 2 WHERE meter_id = 'M-TEN' AND channel = 'R1'")
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, 2))
    assert list(_held(city)) == ["SP-TEN"]
    assert city.rows("SELECT case_id, state, hold FROM anomaly.exception_case ORDER BY 1") == [
        (f"validation-SP-TEN-{DAY:%Y%m%d}", "dismissed", False),
        (f"validation-SP-TEN-{DAY:%Y%m%d}-2", "open", True),
    ]


def test_a_day_without_a_value_holds_the_bill(city: City) -> None:
    city.reference(Installed("M-NEVER", "SP-NEVER", register=False), Installed("M-NULLS", "SP-NULLS", register=False))
    values = np.full(96, NO_VALUE, np.int64)
    values[:16] = QUARTER
    city.intervals(DAY, {"M-NULLS": values})
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    assert {point: said.split(" on ")[0] for point, said in _held(city).items()} == {
        "SP-NEVER": "NOT_ESTIMATED",
        "SP-NULLS": "NOT_ESTIMATED",
    }


def test_a_utility_may_bill_the_register_where_intervals_miss_it(city: City, tmp_path: Path) -> None:
    _ten_times(city, DAY)
    own = _own(
        tmp_path,
        '[[policy]]\nrule = "SUM_CHECK"\naction = "estimate"\nwhy = "the register is trusted"\n'
        '[[policy]]\nrule = "STUCK"\naction = "bill"\ncase = true\nwhy = "someone looks at constant loads"\n',
    )
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY), policies=own)
    assert _held(city) == {}
    assert city.rows(
        "SELECT meter_id, total_micro, estimated, vee.row_rules(row_flags) FROM vee.interval_day ORDER BY 1 DESC"
    ) == [
        ("M-TEN", 96 * QUARTER, 96, ["STUCK", "ESTIMATED", "REPAIRED"]),
        ("M-OK", 96 * QUARTER, 0, ["STUCK"]),
    ]
    assert city.rows("SELECT service_point_id, hold, severity FROM anomaly.exception_case ORDER BY 1") == [
        ("SP-OK", False, "warn"),
        ("SP-TEN", False, "warn"),
    ]


def test_a_stuck_channel_beside_a_counting_register_is_one_case_for_all_its_days(city: City) -> None:
    city.reference(Installed("M-1", "SP-1"))
    dial = 1_000_000_000
    for k in range(6):
        day = DAY + timedelta(days=k)
        city.intervals(day, {"M-1": np.full(96, QUARTER, np.int64)})
        if k == 0:
            city.register("M-1", (CALENDAR.bounds(day)[0], dial))
        dial += 27_000_000
        city.register("M-1", (CALENDAR.bounds(day)[1], dial))
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))
    assert city.rows("SELECT case_id, days, first_day, last_day, hold FROM anomaly.exception_case") == [
        (f"validation-SP-1-{DAY:%Y%m%d}", 6, DAY, DAY + timedelta(days=5), True)
    ]


def test_a_dismissal_needs_a_case_that_holds(city: City) -> None:
    _ten_times(city, DAY)
    validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY))
    with city.database.connect() as connection:
        decide(connection, {"family": ["validation"]}, "dismissed", by="bo", reason="agreed")
        with pytest.raises(QueueError, match="already decided"):
            decide(connection, {"family": ["validation"]}, "dismissed", by="bo", reason="again")


def test_the_page_shows_each_default_with_its_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "vee.md").read_text("utf-8")
    assert [e.rule for e in policy.default().entries if f"| {e.rule} | {e.action} | {e.why} |" not in page] == []
