"""Failed days are asked for again at growing intervals, people are told, and none keeps a new day waiting."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from meter_pipeline.ingest import day_requests
from meter_pipeline.ingest.day_requests import MOST_INTERVAL, ask, due, evidence_of, interval
from meter_pipeline.ingest.tables.day_requests import RequestCount
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import FixedClock

NOW = datetime(2026, 6, 10, 6, tzinfo=UTC)
FIRST = date(2026, 3, 1)


def days(count: int) -> dict[date, list[bytes]]:
    return {FIRST + timedelta(days=n): [b"f"] for n in range(count)}


def test_a_hundred_failed_days_do_not_keep_the_next_one_waiting(database: Database) -> None:
    clock = FixedClock(NOW)
    first = ask(database, days(101), (), most=100, clock=clock)
    assert [r.day for r in first] == list(days(100))
    assert [r.day for r in ask(database, days(101), (), most=100, clock=clock)] == [FIRST + timedelta(days=100)]
    assert ask(database, days(101), (), most=100, clock=clock) == []
    clock.advance(601)
    again = ask(database, days(102), (), most=100, clock=clock)
    assert FIRST + timedelta(days=101) in [r.day for r in again], "a new day comes before the hundred that failed"
    assert len(again) == 100
    assert len({r.run_key for r in (*first, *again)}) == 200, "a key that was used is skipped by Dagster for ever"


def test_intervals_grow_to_two_hours_and_people_are_told_once(database: Database) -> None:
    clock, asked_after, last = FixedClock(NOW), list[float](), NOW
    for _ in range(24 * 60):
        if ask(database, days(1), (), most=100, clock=clock):
            asked_after.append((clock.now() - last) / timedelta(minutes=1))
            last = clock.now()
        clock.advance(60)
    assert asked_after[:7] == [0, 10, 20, 40, 80, 120, 120]
    told = database.read("SELECT title FROM control.notification")["title"].to_list()
    assert told == [f"Billing day {FIRST} still waits after 4 runs"]


def test_new_evidence_is_asked_for_at_once_and_done_days_are_forgotten(database: Database) -> None:
    clock = FixedClock(NOW)
    ask(database, days(2), (), most=100, clock=clock)
    more = days(2) | {FIRST: [b"f", b"g"]}
    assert [(r.day, r.times) for r in ask(database, more, (), most=100, clock=clock)] == [(FIRST, 1)]
    ask(database, {FIRST: [b"f", b"g"]}, (), most=100, clock=clock)
    assert database.read("SELECT count(*) AS n FROM raw.day_request").item() == 1


def test_a_day_whose_run_is_under_way_is_left_alone() -> None:
    evidence = evidence_of([b"f"])
    asked = {FIRST: RequestCount(evidence, 3, NOW - timedelta(days=1))}
    assert due({FIRST: evidence}, asked, NOW, {FIRST}, 100) == []
    [request] = due({FIRST: evidence}, asked, NOW, (), 100)
    assert request.times == 4
    assert interval(10_000) == MOST_INTERVAL
    assert interval(1) == day_requests.FIRST_INTERVAL
