"""Controller, breaker, retry and permits in virtual time: bounded, settling, and never more calls than their rules
allow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.ingest.breaker import Breaker, Permit, Rules, State
from meter_pipeline.ingest.controller import DATA_WAITS, LOCK_WAITS, WAL_WAITS, Controller, Limits
from meter_pipeline.ingest.retry import Budget, Meaning, Patience, PausedTime, Retrier, meaning
from meter_pipeline.ingest.writer import WRITE_DEADLINE_S, Permits, _again
from meter_pipeline.postgres.database import Database


def drive(
    controller: Controller,
    latency: Callable[[int, float], float],
    seconds: float,
    start: float = 0.0,
    *,
    ok: Callable[[float], bool] = lambda _: True,
) -> None:
    """Write batches one after another per writer in virtual time, always with more waiting."""
    now = start
    while now < start + seconds:
        took = latency(controller.batch, now)
        now += took / controller.writers
        controller.wrote(now, controller.batch, took, ok(now), controller.writers, True)


def plant(fixed: float, row: float, seed: int = 1, noise: float = 0.0) -> Callable[[int, float], float]:
    rng = random.Random(seed)
    return lambda rows, now: max(1e-4, (fixed + row * rows) * (1 + noise * (2 * rng.random() - 1)))


@given(st.floats(0.0005, 0.02), st.floats(2e-6, 5e-5), st.integers(0, 1000))
@settings(max_examples=40)
def test_it_settles_at_the_target_and_stays_within_bounds(fixed: float, row: float, seed: int) -> None:
    controller = Controller()
    drive(controller, plant(fixed, row, seed, 0.1), 60)
    limits = controller.limits
    assert all(
        limits.batch_least <= d["batch"] <= limits.batch_most and 1 <= d["writers"] <= limits.writers_most
        for d in controller.history
    )
    settled = controller.history[20:]
    assert settled
    assert all(d["p90_ms"] <= 1.15 * (limits.target_s + fixed) * 1000 for d in settled)
    best = min(limits.batch_most, (limits.target_s - fixed) / row)
    assert settled[-1]["batch"] >= 0.55 * best, "and it does not settle far below what the target allows"


def test_a_step_in_latency_is_answered_and_recovered_from() -> None:
    controller = Controller()
    quick, slow = plant(0.004, 8e-6), plant(0.004, 6e-5)
    drive(controller, quick, 40)
    before = controller.batch
    drive(controller, slow, 30, 40)
    assert controller.history[-1]["p90_ms"] <= 60
    drive(controller, quick, 90, 70)
    assert controller.batch >= 0.8 * before


@pytest.mark.parametrize("fixed", [0.001, 0.02, 0.03, 0.055, 0.07, 0.11, 0.3, 1.0])
@pytest.mark.parametrize("measured", [False, True])
def test_a_fixed_cost_of_a_write_shrinks_nothing(fixed: float, measured: bool) -> None:
    """A distant server or a slow disk: smaller batches would be written no quicker. At least 80 % of the best fixed
    setting, from wherever it began."""
    controller = Controller()
    if measured:
        controller.empty_commit(fixed)
    row, now = 2e-6, 0.0
    for _ in range(400):
        took = fixed + row * controller.batch
        for _ in range(controller.writers):
            controller.wrote(now + took, controller.batch, took, True, controller.writers, True)
        now += took
    best = controller.limits.batch_most * controller.limits.writers_most / (fixed + row * controller.limits.batch_most)
    assert controller.batch * controller.writers / (fixed + row * controller.batch) >= 0.8 * best


def test_a_measured_floor_says_where_a_load_begins() -> None:
    near, far = Controller(), Controller()
    near.empty_commit(0.002)
    far.empty_commit(0.3)
    assert (near.batch, near.writers) == (7_916, near.limits.writers_start), "what a core writes in 95 % of 50 ms"
    assert (far.batch, far.writers) == (far.limits.batch_most, far.limits.writers_most)
    off = Controller(enabled=False)
    off.empty_commit(0.3)
    assert off.batch == off.limits.batch_start


def test_a_writer_that_writes_no_more_rows_is_taken_back() -> None:
    """Two cores: four writers share them, and each write takes twice as long."""
    controller = Controller(batch=16_384)
    now, row = 0.0, 1e-6
    for _ in range(400):
        took = 0.002 + row * controller.batch * max(controller.writers, 2) / 2
        now += took / controller.writers
        controller.wrote(now, controller.batch, took, True, controller.writers, True)
    assert sum(d["writers"] == 2 for d in controller.history) > 0.8 * len(controller.history)


def test_a_smaller_batch_that_is_written_no_quicker_is_taken_back() -> None:
    """A machine that others keep busy: every write waits as long for its turns, whatever its size, and far longer than
    the target."""
    controller, rng, now = Controller(), random.Random(3), 0.0
    controller.empty_commit(0.001)
    for _ in range(300):
        # 0.15 s beside the write in each batch's turn: encoding, the pause's poll, the wait for a processor
        took = rng.uniform(0.1, 0.3)
        now += (took + 0.15) / controller.writers
        controller.wrote(now, controller.batch, took, True, controller.writers, True)
    settled = controller.history[5:]
    assert settled
    assert sum(d["batch"] >= controller.limits.batch_start / 2 for d in settled) > 0.8 * len(settled)


def test_a_batch_keeps_the_rows_that_are_nine_tenths_of_its_write() -> None:
    """A machine that others keep busy makes rows and everything around them slow alike: 6 ms around the rows and 24 us
    a row. Batches of 1,000 rows would meet the target at four fifths of the rate of those of 2,250."""
    controller, now = Controller(), 0.0
    controller.empty_commit(0.001)
    for _ in range(300):
        rows = controller.batch
        sent, around = 24e-6 * rows * controller.writers, 0.007
        now += (sent + around) / controller.writers
        controller.parts(rows, sent, around)
        controller.wrote(now, rows, sent + around, True, controller.writers, True)
    row_s = 24e-6 * controller.writers
    assert controller.least_rows == pytest.approx(9 * 0.006 / row_s, abs=1)
    assert controller.batch >= 0.98 * controller.least_rows
    slow = Controller()
    slow.parts(4_096, 0.4, 0.002)  # a slow disk: the rows are nearly all of it, and the batch may shrink
    assert slow.least_rows < 200


def test_a_writer_that_is_missed_comes_back() -> None:
    """Two of three sessions wait for the write-ahead log, and each write takes longer than the target. One writer
    commits no quicker: a group commit serves them all."""
    controller, now = Controller(Limits(writers_start=3)), 0.0
    for _ in range(400):
        controller.waits({"IO:WALSync": 2, "CPU": 1})
        now += 0.12 / controller.writers
        controller.wrote(now, controller.batch, 0.12, True, controller.writers, True)
    assert [d["writers"] for d in controller.history[:2]] == [2, 3], "taken away, and back a window later"
    assert sum(d["writers"] == 3 for d in controller.history) > 0.9 * len(controller.history)


def test_the_first_write_of_a_session_only_begins_the_window() -> None:
    controller = Controller()
    controller.first_write(1.0)
    for n in range(1, 5):
        controller.wrote(1.0 + n * 0.05, 1_000, 0.02, True, 1, True)
    assert controller.history[0]["samples"] == 4
    assert controller.history[0]["p90_ms"] == 20
    # 4,000 rows in 0.2 s: a window that began with the first sample would say 4,000 rows in 0.15 s
    controller.first_write(1.2)
    controller.wrote(1.3, 1_000, 0.02, True, 1, True)
    assert controller._rate(1.3) == pytest.approx(10_000)


def test_errors_halve_the_batch_and_take_a_writer() -> None:
    controller = Controller()
    before = controller.batch, controller.writers
    drive(controller, plant(0.01, 5e-6), 0.3, ok=lambda _: False)
    assert controller.batch == before[0] // 2
    assert controller.writers == before[1] - 1


def test_a_load_of_a_second_is_decided_on_and_its_end_is_in_the_history() -> None:
    controller = Controller()
    drive(controller, plant(0.004, 8e-6), 1.0)
    assert len(controller.history) >= 3
    short = Controller()
    for n in range(3):
        short.wrote(n * 0.01, 100, 0.01, True, 1, False)
    was = short.batch, short.writers
    short.finish(0.05)
    short.finish(0.06)
    assert [(d["move"], d["samples"]) for d in short.history] == [("end", 3)], (
        "once, and not again where nothing was written since"
    )
    assert (short.batch, short.writers) == was


def test_nothing_grows_while_the_application_is_the_limit() -> None:
    controller = Controller()
    for n in range(400):
        controller.wrote(n * 0.05, controller.batch, 0.002, True, 1, False)
    assert controller.batch <= controller.limits.batch_start


@pytest.mark.parametrize(
    ("event", "latency", "batch", "writers"),
    [
        ("Lock:transactionid", 0.03, "same", "fewer"),
        ("IO:WALSync", 0.07, "not smaller than shrink", "fewer"),
        ("IO:DataFileExtend", 0.07, "smaller", "same"),
    ],
)
def test_waits_move_one_knob(event: str, latency: float, batch: str, writers: str) -> None:
    controller = Controller(Limits(writers_start=3))
    was = controller.batch
    for n in range(30):
        controller.waits({event: 3})
        controller.wrote(n * 0.05, was, latency, True, 3, False)
    first = controller.history[0]
    assert (first["writers"] < 3) == (writers == "fewer")
    assert {
        "same": first["batch"] == was,
        "smaller": first["batch"] < was,
        "not smaller than shrink": first["batch"] >= was,
    }[batch]


def test_wait_events_exist_under_these_names(database: Database) -> None:
    names = database.read("SELECT count(*) AS n FROM pg_class WHERE relname = 'pg_wait_events'").item()
    if not names:
        return  # the view came with PostgreSQL 17
    known = set(database.read("SELECT type || ':' || name AS event FROM pg_wait_events")["event"].to_list())
    for family in (LOCK_WAITS, WAL_WAITS, DATA_WAITS):
        assert len(family & known) >= len(family) // 2, family - known


calls = st.lists(
    st.tuples(st.sampled_from(["ok", "fail", "slow", "cancel", "hold", "tick"]), st.floats(0.01, 3)), max_size=120
)


@given(calls, st.integers(0, 99))
def test_the_breaker_never_lets_more_through_than_its_state_allows(events: list[tuple[str, float]], seed: int) -> None:
    rules = Rules(window=10, least_calls=4)
    moves: list[tuple[State, State]] = []
    breaker = Breaker(rules, random.Random(seed), lambda was, state: moves.append((was, state)))
    now, held = 0.0, list[Permit]()
    for event, seconds in events:
        if event == "tick":
            now += seconds
            continue
        was, until = breaker.state, breaker.remaining(now)
        permit = breaker.acquire(now)
        if was is State.OPEN and until > 0:
            assert permit is None, "OPEN makes no calls"
        if permit is None:
            continue
        held.append(permit)
        out = [p for p in held if p.trial and p.generation == permit.generation]
        assert len(out) <= rules.trials
        if event == "hold":
            continue
        held.remove(permit)
        if event == "cancel":
            breaker.cancelled(permit)
        else:
            breaker.done(permit, now, 1.0 if event == "slow" else 0.01, event != "fail")
        now += 0.01
    assert (State.CLOSED, State.HALF_OPEN) not in moves


def test_a_steady_two_thirds_of_failures_opens_it_and_good_trials_close_it() -> None:
    breaker = Breaker(rng=random.Random(1))
    now = 0.0
    for n in range(12):
        if (permit := breaker.acquire(now)) is not None:
            breaker.done(permit, now, 0.01, n % 3 == 0)
    opened = breaker.state
    assert opened is State.OPEN
    now += breaker.remaining(now) + 0.001
    trials = [breaker.acquire(now) for _ in range(10)]
    given_out = [t for t in trials if t is not None]
    assert len(given_out) == breaker.rules.trials
    for permit in given_out:
        breaker.done(permit, now, 0.01, True)
    assert breaker.state is State.CLOSED


def test_a_trial_that_never_answers_does_not_hold_it_half_open_for_ever() -> None:
    breaker = Breaker(rng=random.Random(1))
    breaker.open_for(0.0, 1.0)
    assert breaker.acquire(1.5) is not None
    assert breaker.acquire(1.5 + breaker.rules.half_open_most_s + 0.1) is None
    assert breaker.state is State.OPEN


class VirtualClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_retries_are_bounded_in_number_and_time() -> None:
    clock, tries = VirtualClock(), 0

    async def go() -> None:
        nonlocal tries
        retrier = Retrier(clock, random.Random(3), Patience())  # type: ignore[arg-type]  # no wall time is asked for
        async for attempt in retrier.attempts(lambda _: True):
            with attempt:
                tries += 1
                raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(go())
    assert tries == Patience().attempts
    assert clock.time <= sum(min(5, 0.05 * 2**n) for n in range(5))


@pytest.mark.parametrize("paused_s", [0.0, 29.0, 31.0, 3600.0])
@pytest.mark.parametrize("before_attempt", [0, 1])
def test_a_pause_takes_no_attempt_from_a_batch(paused_s: float, before_attempt: int) -> None:
    clock, tries, held = VirtualClock(), 0, PausedTime()

    async def go() -> None:
        nonlocal tries
        async for attempt in Retrier(clock, random.Random(1)).attempts(_again, held):  # type: ignore[arg-type]
            with attempt:
                if tries == before_attempt:
                    await clock.sleep(paused_s)
                    held.seconds += paused_s
                tries += 1
                if tries < 3:
                    raise psycopg.errors.DeadlockDetected("deadlock")

    asyncio.run(go())
    assert tries == 3


def test_a_write_cut_at_its_deadline_is_tried_again() -> None:
    clock, tries = VirtualClock(), 0

    async def go() -> None:
        nonlocal tries
        async for attempt in Retrier(clock, random.Random(1)).attempts(_again):  # type: ignore[arg-type]
            with attempt:
                tries += 1
                if tries < 3:
                    await clock.sleep(WRITE_DEADLINE_S)
                    raise psycopg.OperationalError("cut by the watchdog")

    asyncio.run(go())
    assert tries == 3


def test_an_outage_spends_the_budget() -> None:
    budget = Budget(tokens=2)
    assert [budget.take() for _ in range(4)] == [True, True, False, False]
    for _ in range(11):
        budget.call()
    assert budget.take()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.SerializationFailure(), Meaning.TRANSIENT),
        (psycopg.errors.DeadlockDetected(), Meaning.TRANSIENT),
        (psycopg.errors.LockNotAvailable(), Meaning.TRANSIENT),
        (psycopg.errors.QueryCanceled(), Meaning.SMALLER),
        (psycopg.errors.AdminShutdown(), Meaning.UNKNOWN),
        (psycopg.OperationalError("reset on COMMIT"), Meaning.UNKNOWN),
        (psycopg.errors.DiskFull(), Meaning.EXHAUSTED),
        (psycopg.errors.TooManyConnections(), Meaning.EXHAUSTED),
        (psycopg.errors.CheckViolation(), Meaning.DATA),
        (psycopg.errors.NumericValueOutOfRange(), Meaning.DATA),
        (psycopg.errors.UndefinedTable(), Meaning.FATAL),
        (psycopg.errors.InsufficientPrivilege(), Meaning.FATAL),
        (ValueError(), Meaning.FATAL),
    ],
)
def test_what_an_error_means(error: Exception, expected: Meaning) -> None:
    assert meaning(error) is expected


def test_permits_shrink_as_they_come_back() -> None:
    async def go() -> None:
        permits = Permits(2)
        await permits.take()
        await permits.take()
        await permits.resize(1)
        await permits.give()
        waiting = asyncio.create_task(permits.take())
        await asyncio.sleep(0)
        assert not waiting.done()
        await permits.give()
        await asyncio.wait_for(waiting, 1)
        assert permits.taken == 1

    asyncio.run(go())
