"""The writer's side of the pause: ask before each batch on a connection of one's own, and wait at the batch boundary.

Fail closed: a flag that cannot be read within ``deadline`` counts as raised. The deadline is kept by select on the
socket, not by the server (a stopped server runs no statement_timeout) nor by cancelling (against a stopped server
psycopg took 11 s to give a cancelled call back).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause import PauseState, is_paused, unreachable
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.watchdog import deadline

#: Longest time one poll may take. A poll takes 0.2 ms; 2 s is the drain limit of R1.
POLL_DEADLINE_S: Final = 2.0
#: How often a waiting writer looks again: quick enough that work goes on within a second of the resume.
WAIT_INTERVAL_S: Final = 0.5


class WaitCallback(Protocol):
    """Called while a writer waits: once as the wait begins, then at every look, with the state and the seconds waited
    so far."""

    def __call__(self, state: PauseState, waited_s: float) -> None: ...


@dataclass
class PauseProbe:
    """Polls EMERGENCY_PAUSE on its own connection. Thread-safe; one for each run is enough, whatever the number of
    writers. ``check`` and ``wait_until_resumed`` block their thread."""

    database: Database
    application_name: str = "pause-probe"
    role: str | None = None
    clock: Clock = SYSTEM_CLOCK
    poll_deadline_s: float = POLL_DEADLINE_S
    interval_s: float = WAIT_INTERVAL_S
    sleep: Callable[[float], None] = time.sleep
    waited_s: float = field(default=0.0, init=False)
    _connection: driver.Connection | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def check(self, commodity: str | None = None, head_end: str | None = None) -> PauseState | None:
        """The pause that holds this work, or None. Never raises for the database's sake: unreachable is a pause."""
        with self._lock:
            try:
                return self._poll(commodity, head_end)
            except (driver.Error, OSError, TimeoutError) as error:
                was_open = self._connection is not None
                self._drop()
                if not was_open:
                    return unreachable(error, self.clock)
            # The server may have been restarted since the last batch: one fresh connection before calling it
            # unreachable.
            try:
                return self._poll(commodity, head_end)
            except (driver.Error, OSError, TimeoutError) as error:
                self._drop()
                return unreachable(error, self.clock)

    def wait_until_resumed(
        self,
        *,
        on_wait: WaitCallback | None = None,
        stop: threading.Event | None = None,
    ) -> float:
        """Return at once where no pause of the whole utility is raised; otherwise wait until it has ended. Returns the
        seconds waited.

        Call it between batches, holding no transaction and no lock. ``stop`` ends the wait early (the caller then looks
        at it). Whatever ``on_wait`` raises ends the wait.
        """
        began = self.clock.monotonic()
        state = self.check()
        if state is None:
            return 0.0
        while state is not None and not (stop is not None and stop.is_set()):
            if on_wait is not None:
                on_wait(state, self.clock.monotonic() - began)
            self.sleep(self.interval_s)
            state = self.check()
        waited = self.clock.monotonic() - began
        self.waited_s += waited
        return waited

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._drop()

    def __enter__(self) -> PauseProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _poll(self, commodity: str | None, head_end: str | None) -> PauseState | None:
        if self._connection is None or self._connection.closed:
            self._connection = self.database.connect(self.application_name, autocommit=True, role=self.role)
        with deadline(self._connection, self.poll_deadline_s):
            return is_paused(self._connection, commodity, head_end)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
