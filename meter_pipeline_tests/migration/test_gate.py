"""The gate promises: it opens after 72 clean continuous hours with replay and coverage, and any reset sets its clock
back to zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.migration.gate import COVERAGE, Event, Evidence, LiveRun, evaluate

START = datetime(2026, 11, 2, 6, tzinfo=UTC)


def clean(days: int, compared: int = 20_000) -> Evidence:
    live = [
        LiveRun(START + timedelta(days=n), date(2026, 11, 1) + timedelta(days=n), compared, 0, 0, "c1")
        for n in range(days)
    ]
    return Evidence(
        live=live,
        replayed_days=frozenset(date(2026, 9, 1) + timedelta(days=n) for n in range(31)),
        replayed_cycles=frozenset({"C1", "C2", "C3"}),
        coverage=dict.fromkeys(COVERAGE, 1000),
    )


def test_it_opens_after_72_hours_and_not_a_second_before() -> None:
    evidence = clean(4)
    assert not evaluate(evidence, START + timedelta(hours=72, seconds=-1)).green
    report = evaluate(evidence, START + timedelta(hours=72))
    assert report.green
    assert report.error_bound == pytest.approx(3 / 80_000)


def test_a_blocking_difference_sets_the_clock_back() -> None:
    evidence = clean(8)
    live = list(evidence.live)
    live[3] = replace(live[3], blocking=1, absolute_money=5)
    evidence = replace(evidence, live=live)
    assert not evaluate(evidence, START + timedelta(days=5)).green
    assert evaluate(evidence, START + timedelta(days=7)).clock_started == START + timedelta(days=4)
    assert evaluate(evidence, START + timedelta(days=7)).green


@pytest.mark.parametrize("what", ["pause", "configuration"])
def test_a_pause_or_a_configuration_change_resets_it(what: str) -> None:
    evidence = replace(clean(8), events=[Event(START + timedelta(days=4, hours=1), what)])
    report = evaluate(evidence, START + timedelta(days=6))
    assert not report.green
    assert report.clock_started == START + timedelta(days=5)
    assert report.reset_by is not None
    assert what in report.reset_by


def test_silence_is_not_agreement() -> None:
    evidence = clean(4)
    assert not evaluate(evidence, START + timedelta(days=6)).green


def test_what_was_never_seen_is_missed_by_name() -> None:
    evidence = replace(
        clean(5),
        strata={"rate_class": ["RES", "COM"]},
        coverage={**dict.fromkeys(COVERAGE, 1000), "rate_class:RES": 99},
    )
    report = evaluate(evidence, START + timedelta(days=4))
    missing = next(c for c in report.conditions if c.name == "coverage_rate_class")
    assert not report.green
    assert "rate_class:COM 0" in missing.have


def test_what_is_signed_is_this_report() -> None:
    first, second = (evaluate(clean(5), START + timedelta(days=4, seconds=s)) for s in (0, 1))
    assert first.sha256 != second.sha256
    assert first.fresh(first.at + timedelta(minutes=59))
    assert not first.fresh(first.at + timedelta(minutes=61))


@given(st.lists(st.tuples(st.integers(0, 14), st.booleans()), max_size=15), st.integers(0, 15 * 24))
def test_the_clock_never_runs_through_a_reset(runs: list[tuple[int, bool]], hours: int) -> None:
    days = dict(runs)
    live = [
        LiveRun(START + timedelta(days=n), date(2026, 11, 1), 1000, int(bad), 0, "c") for n, bad in sorted(days.items())
    ]
    now = START + timedelta(hours=hours)
    report = evaluate(Evidence(live=live), now)
    if report.clock_started is not None:
        assert all(not run.blocking for run in live if report.clock_started <= run.at <= now)


def test_the_plot_fits_the_event_log() -> None:
    from meter_pipeline.migration.plots import gate_plot

    png = gate_plot(evaluate(clean(5), START + timedelta(days=4)))
    assert png.startswith(b"\x89PNG")
    assert len(png) < 20_000


def test_one_billing_day_compared_again_and_again_is_neither_hours_nor_bills() -> None:
    """A comparison of the same day in a loop, three days long: 24 hours and its own bills, however often."""
    loop = [LiveRun(START + timedelta(minutes=n), date(2026, 11, 1), 100, 0, 0, "c1") for n in range(72 * 60)]
    report = evaluate(replace(clean(0), live=loop), START + timedelta(hours=72))
    hours = next(c for c in report.conditions if c.name == "live_hours")
    assert (hours.met, hours.have) == (False, "24.0 h of 1 billing days")
    assert report.compared == 100
    assert not report.green


def test_a_day_that_closed_long_ago_is_no_live_day() -> None:
    old = [
        LiveRun(START + timedelta(days=19 + n), date(2026, 11, 1) + timedelta(days=n), 40_000, 0, 0, "c1")
        for n in range(4)
    ]
    report = evaluate(replace(clean(0), live=old), START + timedelta(days=22))
    assert (report.clock_started, report.compared, report.green) == (None, 0, False)
