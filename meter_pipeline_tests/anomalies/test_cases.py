"""Days fold into cases: however often and in whatever portions they are told, the matter is one."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.anomalies import KINDS, Case, CaseFlag, expired, merge_into_cases, tolerance
from meter_pipeline.anomalies.cases import FOLD_DAYS, QUIET_DAYS

START = date(2026, 1, 1)


def flag(kind: str, day: int, subject: str = "SP-1") -> CaseFlag:
    return CaseFlag(subject, kind, KINDS[kind].severity, 0.8, START + timedelta(days=day))


def run(flags: list[CaseFlag], cases: list[Case] | None = None) -> list[Case]:
    known = {c.case_id: c for c in cases or []}
    for day in sorted({f.day for f in flags}):
        made, changed = merge_into_cases([f for f in flags if f.day == day], list(known.values()))
        known |= {c.case_id: c for c in made + changed}
    return sorted(known.values(), key=lambda c: c.case_id)


def test_days_in_a_row_are_one_case_that_follows_its_latest_kind() -> None:
    (case,) = run([flag("leak", 0), flag("leak", 1), flag("leak_drift", 4)])
    assert (case.kind, case.days, case.first_day, case.last_day) == ("leak_drift", 3, START, START + timedelta(days=4))
    assert not case.hold


def test_what_opens_no_case_opens_none() -> None:
    assert run([flag("high", 0), flag("vacant", 0), flag("solar_arrival", 0), flag("move", 0)]) == []


def test_a_kind_whose_policy_says_so_holds_the_bill() -> None:
    assert [c.hold for c in run([flag("reverse", 0)])] == [True]
    assert [c.hold for c in run([flag("stuck", 0)])] == [False]


def test_a_gap_longer_than_the_fold_is_another_matter() -> None:
    assert len(run([flag("stuck", 0), flag("stuck", FOLD_DAYS)])) == 1
    assert len(run([flag("stuck", 0), flag("stuck", FOLD_DAYS + 1)])) == 2


def test_a_dismissed_matter_stays_quiet_unless_it_turns_worse() -> None:
    (case,) = run([flag("leak", 0)])
    dismissed = replace(case, state="dismissed")
    assert [c.state for c in run([flag("leak", QUIET_DAYS)], [dismissed])] == ["dismissed"]
    assert [c.state for c in run([flag("leak", QUIET_DAYS + 1)], [dismissed])] == ["dismissed", "open"]
    (spike,) = run([flag("dropout_collector", 0, "C1")])
    quiet = replace(spike, state="dismissed")
    worse = CaseFlag("C1", "dropout_head_end", "severe", 0.9, START + timedelta(days=2))
    assert sorted(c.state for c in run([worse], [quiet])) == ["dismissed", "open"]


def test_a_confirmed_leak_that_still_runs_is_the_same_leak() -> None:
    (case,) = run([flag("leak", 0)])
    (same,) = run([flag("leak", d) for d in range(1, 9)], [replace(case, state="confirmed")])
    assert (same.state, same.days) == ("confirmed", 9)


def test_undecided_cases_expire_and_let_the_bill_go() -> None:
    (case,) = run([flag("reverse", 0)])
    assert expired([case], START + timedelta(days=60)) == []
    (gone,) = expired([case], START + timedelta(days=61))
    assert (gone.state, gone.hold) == ("expired", False)
    assert expired([replace(case, state="confirmed")], START + timedelta(days=99)) == []


def test_tolerance_widens_with_dismissals_and_never_without_bound() -> None:
    assert tolerance(0, 0) == 1.0
    assert tolerance(0, 1) == 1.25
    assert tolerance(0, 99) == 3.0
    assert tolerance(99, 0) == 0.8


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["leak", "leak_drift", "stuck", "reverse", "high"]),
            st.integers(0, 60),
            st.sampled_from(["A", "B"]),
        ),
        max_size=40,
    )
)
def test_telling_a_day_twice_changes_nothing_and_each_flag_has_one_case(told: list[tuple[str, int, str]]) -> None:
    flags = [flag(kind, day, subject) for kind, day, subject in sorted(set(told), key=lambda t: t[1])]
    once = run(flags)
    for day in sorted({f.day for f in flags}):
        made, changed = merge_into_cases([f for f in flags if f.day == day], once)
        assert not made
        for case in changed:
            before = next(c for c in once if c.case_id == case.case_id)
            assert (case.first_day, case.last_day, case.days) == (before.first_day, before.last_day, before.days)
    for f in flags:
        if KINDS[f.kind].case:
            mine = [
                c
                for c in once
                if c.subject == f.subject and c.family == KINDS[f.kind].family and c.first_day <= f.day <= c.last_day
            ]
            assert len(mine) == 1
