"""Classifies errors of a write and retries it.

Retries are made in this layer only. Waits are full jitter (uniform from 0 to min(cap, base * 2^n)); at most 6 attempts,
and none that begins more than 90 s after the first failure; and a budget of a tenth of all calls, so that retries do
not amplify an outage. Time in which a pause or an open circuit breaker stopped the batch does not count: after a pause
a batch has all its attempts left.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.stop import stop_base

from meter_pipeline.clock import Clock
from meter_pipeline.ingest.tables.load import DayTakenOverError
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.pools import PoolTimeout


class Meaning(StrEnum):
    """The action for an error."""

    TRANSIENT = "transient"  # the same batch again
    SMALLER = "smaller"  # statement timeout: again, in halves
    UNKNOWN = "unknown"  # the connection went: settle its transaction, then the same rows again; their claim decides
    DATA = "data"  # a row the server will never take: bisect, dead letter
    EXHAUSTED = "exhausted"  # disk, memory, connections: open the breaker at once
    FATAL = "fatal"  # code, privileges, corruption: stop


_BY_STATE: Final = {
    "40001": Meaning.TRANSIENT,
    "40P01": Meaning.TRANSIENT,
    # Another session's lock: a smaller batch would wait for the same one.
    "55P03": Meaning.TRANSIENT,
    "57014": Meaning.SMALLER,
    "57P01": Meaning.UNKNOWN,
    "57P02": Meaning.UNKNOWN,
    "57P03": Meaning.UNKNOWN,
    "25P03": Meaning.UNKNOWN,
    "53100": Meaning.EXHAUSTED,
    "53200": Meaning.EXHAUSTED,
    "53300": Meaning.EXHAUSTED,
    "58030": Meaning.EXHAUSTED,
}


def meaning(error: BaseException) -> Meaning:
    """Returns the action for an error of a batch's write."""
    if isinstance(error, DayTakenOverError):
        return Meaning.FATAL
    if isinstance(error, (PoolTimeout, TimeoutError, ConnectionError)):
        return Meaning.UNKNOWN
    if isinstance(error, driver.Error):
        state = error.sqlstate
        if state is None:
            # A reset on COMMIT's reply comes as OperationalError without a state, and the row is committed.
            return (
                Meaning.UNKNOWN
                if isinstance(error, (driver.OperationalError, driver.InterfaceError))
                else Meaning.FATAL
            )
        if state in _BY_STATE:
            return _BY_STATE[state]
        if state[:2] == "08":
            return Meaning.UNKNOWN
        if state[:2] in ("22", "23") or state == "P0001":
            return Meaning.DATA
    return Meaning.FATAL


@dataclass(slots=True)
class Budget:
    """A token bucket: each call adds ``share`` of a token, each retry takes one."""

    share: float = 0.1
    most: float = 20.0
    tokens: float = 10.0
    refused: int = 0

    def call(self) -> None:
        self.tokens = min(self.most, self.tokens + self.share)

    def take(self) -> bool:
        """Whether one more retry is allowed now."""
        if self.tokens < 1:
            self.refused += 1
            return False
        self.tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Patience:
    """Attempts and times of the retries of one batch; seconds. ``total_s`` counts from the first failure, so that a
    write which is cut at its deadline (writer.WRITE_DEADLINE_S, 40 s) is tried again."""

    attempts: int = 6
    base_s: float = 0.05
    cap_s: float = 5.0
    total_s: float = 90.0


@dataclass(slots=True)
class PausedTime:
    """Seconds in which a pause or an open circuit breaker stopped a batch, over all its attempts."""

    seconds: float = 0.0


class _Stop(stop_base):
    def __init__(self, patience: Patience, clock: Clock, paused_time: PausedTime) -> None:
        self.patience, self.clock, self.paused_time = patience, clock, paused_time
        self.first_failure: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        spent = self.clock.monotonic() - self.paused_time.seconds
        if self.first_failure is None:
            self.first_failure = spent
        return state.attempt_number >= self.patience.attempts or spent - self.first_failure >= self.patience.total_s


@dataclass(slots=True)
class Retrier:
    """Makes tenacity's retrying loop for one batch, with injected clock and randomness."""

    clock: Clock
    rng: random.Random
    patience: Patience = field(default_factory=Patience)
    budget: Budget = field(default_factory=Budget)
    retries: int = 0

    def attempts(self, again: Callable[[BaseException], bool], paused_time: PausedTime | None = None) -> AsyncRetrying:
        """Yields attempts while ``again`` accepts the error; raises the last error unchanged. The caller adds to
        ``paused_time`` while the batch waits."""
        self.budget.call()

        def wanted(error: BaseException) -> bool:
            return again(error)

        def before_sleep(_: RetryCallState) -> None:
            self.retries += 1

        return AsyncRetrying(
            sleep=self._sleep,
            stop=_Stop(self.patience, self.clock, paused_time or PausedTime()),
            wait=self._wait,
            retry=retry_if_exception(wanted),
            before_sleep=before_sleep,
            reraise=True,
        )

    def _wait(self, state: RetryCallState) -> float:
        ceiling = min(self.patience.cap_s, self.patience.base_s * 2 ** (state.attempt_number - 1))
        # Out of budget, an attempt is not refused (the batch must land in the end) but waits the longest.
        return self.rng.uniform(0, ceiling) if self.budget.take() else self.patience.cap_s * self.rng.uniform(0.5, 1)

    async def _sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
