"""The circuit breaker: stop calling a database that does not answer, before timeouts cascade.

The rules are resilience4j's: a count window, no decision before a minimum of calls, failure rate and slow-call rate
with >=, bounded permits in HALF_OPEN, permits given back on cancellation. The wait doubles from 2 to 60 s with jitter
while trials fail; HALF_OPEN never lasts longer than 30 s. Data errors never count.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds; seconds and shares. ``slow_s`` is five times the write target."""

    window: int = 50
    least_calls: int = 10
    failure_share: float = 0.5
    slow_s: float = 0.25
    slow_share: float = 0.8
    open_s: float = 2.0
    open_most_s: float = 60.0
    trials: int = 3
    half_open_most_s: float = 30.0


@dataclass(slots=True)
class Permit:
    """Leave for one call; give it back once with the breaker's ``done`` or ``cancelled``."""

    generation: int
    trial: bool


@dataclass(slots=True)
class Breaker:
    """Ask ``acquire`` before a call; None means wait ``remaining`` seconds and ask again. ``changed`` is called for
    every change of state."""

    rules: Rules = field(default_factory=Rules)
    rng: random.Random = field(default_factory=random.Random)
    changed: Callable[[State, State], None] | None = None
    state: State = State.CLOSED
    opened: int = 0
    _generation: int = 0
    _calls: deque[tuple[bool, bool]] = field(default_factory=deque)
    _until: float = 0.0
    _wait: float = 0.0
    _out: int = 0
    _half_open_since: float = 0.0

    def acquire(self, now: float) -> Permit | None:
        """Leave for one call at monotonic time ``now``, or None."""
        if self.state is State.OPEN and now >= self._until:
            self._move(State.HALF_OPEN, now)
        if self.state is State.HALF_OPEN:
            if now - self._half_open_since > self.rules.half_open_most_s:
                self._open(now)
                return None
            if self._out + len(self._calls) >= self.rules.trials:
                return None
            self._out += 1
            return Permit(self._generation, True)
        return Permit(self._generation, False) if self.state is State.CLOSED else None

    def done(self, permit: Permit, now: float, seconds: float, ok: bool) -> None:
        """The call ended. A result of an earlier state is dropped: it must not flip a new one."""
        if permit.generation != self._generation:
            return
        if permit.trial:
            self._out -= 1
        self._calls.append((ok, seconds >= self.rules.slow_s))
        size = self.rules.trials if self.state is State.HALF_OPEN else self.rules.window
        while len(self._calls) > size:
            self._calls.popleft()
        self._judge(now)

    def cancelled(self, permit: Permit) -> None:
        """The call was given up before it said anything about the server, or failed on its data."""
        if permit.trial and permit.generation == self._generation:
            self._out -= 1

    def remaining(self, now: float) -> float:
        """Seconds until it is worth asking again."""
        if self.state is State.OPEN:
            return max(self._until - now, 0.0)
        return 0.05 if self.state is State.HALF_OPEN else 0.0

    def open_for(self, now: float, seconds: float) -> None:
        """Another process opened the shared breaker: be open as long as it is."""
        if self.state is not State.OPEN and seconds > 0:
            self._move(State.OPEN, now)
            self._until = now + seconds
        elif self.state is State.OPEN:
            self._until = max(self._until, now + seconds)

    def _judge(self, now: float) -> None:
        rules = self.rules
        least = rules.trials if self.state is State.HALF_OPEN else rules.least_calls
        if len(self._calls) < least:
            return
        failed = sum(not ok for ok, _ in self._calls) / len(self._calls)
        slow = sum(is_slow for _, is_slow in self._calls) / len(self._calls)
        if failed >= rules.failure_share or slow >= rules.slow_share:
            self._open(now)
        elif self.state is State.HALF_OPEN:
            self._wait = 0.0
            self._move(State.CLOSED, now)

    def _open(self, now: float) -> None:
        self._wait = min(self._wait * 2 if self._wait else self.rules.open_s, self.rules.open_most_s)
        # Jitter above, never below: processes that opened together must not try together, and none may try early.
        self._until = now + self._wait * (1 + 0.2 * self.rng.random())
        self.opened += 1
        self._move(State.OPEN, now)

    def _move(self, state: State, now: float) -> None:
        was, self.state = self.state, state
        self._generation += 1
        self._calls.clear()
        self._out = 0
        if state is State.HALF_OPEN:
            self._half_open_since = now
        if self.changed is not None:
            self.changed(was, state)
