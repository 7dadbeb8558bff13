"""The guard of every run: waits while the pause is in force, locks the run's billing days, and sends heartbeats.

The pool's limit stops the queue, but a run may still start between the raising of the flag and the sensor's tick. So a
run first reads the flag itself: the pool's limit saves starts, this check is the guarantee.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, Final

import dagster as dg
from pydantic import PrivateAttr

from meter_pipeline.control.pause import PauseState
from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.control.tables import pauses, runs
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.postgres import day_lock, driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock

#: Heartbeats. A run silent for LOST_AFTER_S has lost its worker (sensors_lost_runs); six beats may be missed, as in a
# restart of the database.
BEAT_S: Final = 5.0
LOST_AFTER_S: Final = 45.0
#: Run monitoring reads this tag at every poll, before its own max_runtime_seconds (seen in 1.13.27,
# _daemon/monitoring/run_monitoring.py).
MAX_RUNTIME_TAG: Final = "dagster/max_runtime"
RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"
PARTITION: Final = "dagster/partition"


class PauseGuard(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the value type open
    """The guard of one run: set up before its first step, released after its last (with the in-process executor, which
    every job here has).

    Before the first step it waits until no pause covers all work and no other run has one of its billing days. While
    the run lives it sends heartbeats, and adds the time it waited to the run's time limit, so that a waiting run is not
    ended.
    """

    municipality: dg.ResourceDependency[Municipality]
    beat_s: float = BEAT_S

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Wait for the pause and for the days; start the heartbeat."""
        if context.run is None or context.instance is None:
            self._worker = None
            return
        log = context.log or logging.getLogger(__name__)
        allowance = _Allowance(context.instance, context.run.run_id)
        self._worker = _Worker(
            self.municipality.database(),
            context.run.run_id,
            days_of(context.run.tags),
            allowance,
            log.info,
            self.beat_s,
        )
        self._worker.begin()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the days and stop the heartbeat."""
        if self._worker is not None:
            self._worker.end()

    def wait(self) -> float:
        """Wait at a boundary until no pause holds all work; returns the seconds waited. Call it holding no
        transaction.
        """
        if self._worker is None:
            return 0.0
        return float(self._worker.wait())

    def after_a_loss(self) -> None:
        """The server was restarted: its advisory locks went with it, so the run's days are taken again."""
        if self._worker is not None:
            self._worker.after_a_loss()

    _worker: Any = PrivateAttr(default=None)


def days_of(tags: Any) -> list[date]:
    """Returns the billing days in a run's tags, oldest first."""
    start, end = tags.get(RANGE_START), tags.get(RANGE_END)
    try:
        if start and end:
            first, last = date.fromisoformat(start), date.fromisoformat(end)
            return [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return [date.fromisoformat(tags[PARTITION])] if PARTITION in tags else []
    except ValueError:  # a partition that is no day (a month to close): nothing to lock
        return []


class _Allowance:
    """The run's time limit, extended by the time it waited."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance, self._run_id, self._limit = instance, run_id, 0.0
        self.held_s = 0.0

    def add(self, seconds: float) -> None:
        self.held_s += seconds
        run = self._instance.get_run_by_id(self._run_id)
        if run is None:
            return
        if not self._limit:
            self._limit = float(run.tags.get(MAX_RUNTIME_TAG) or self._instance.run_monitoring_max_runtime_seconds or 0)
        if self._limit:
            # A minute ahead of the clock, so that the monitor never looks just before the next beat.
            self._instance.add_run_tags(self._run_id, {MAX_RUNTIME_TAG: str(int(self._limit + self.held_s + 60))})


class _Worker:
    def __init__(
        self,
        database: Database,
        run_id: str,
        days: list[date],
        allowance: _Allowance,
        say: Callable[[str], None],
        beat_s: float,
    ) -> None:
        self.database, self.run_id, self.days, self.allowance, self.say, self.beat_s = (
            database,
            run_id,
            days,
            allowance,
            say,
            beat_s,
        )
        self.probe = PauseProbe(database, application_name=f"hold {run_id[:8]}")
        self.stop = threading.Event()
        self.waiting = threading.Event()
        self.locks: driver.Connection | None = None
        self.thread = threading.Thread(target=self._live, name=f"hold-{run_id[:8]}", daemon=True)

    def begin(self) -> None:
        self.thread.start()
        try:
            self.wait()
            self._take_days()
            self.wait()  # the pause may have been raised while another run had the day
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self.stop.set()
        self.thread.join(2 * self.beat_s)
        self.probe.close()
        if self.locks is not None:
            self.locks.close()

    def after_a_loss(self) -> None:
        if self.locks is not None:
            self.wait()
            self.locks.close()
            self._take_days()

    def wait(self) -> float:
        announced: list[str] = []

        def on_wait(state: PauseState, waited_s: float) -> None:
            self.waiting.set()
            if not announced or announced[-1] != state.words():
                announced.append(state.words())
                self.say(f"waiting: {state.words()}")

        try:
            waited = self.probe.wait_until_resumed(on_wait=on_wait)
        finally:
            self.waiting.clear()
        if waited:
            self.say(f"resumed after {waited:.1f} s")
        return waited

    def _take_days(self) -> None:
        if not self.days:
            return
        self.locks = self.database.connect(f"days {self.run_id[:8]}", autocommit=True)
        announced = False
        for day in self.days:  # oldest first in every run, so that two ranges cannot wait for each other
            while not day_lock.try_take(self.locks, DayLock.RUN, day):
                if not announced:
                    announced = True
                    self.say(f"waiting: another run has billing day {day}")
                time.sleep(1.0)

    def _live(self) -> None:
        """Send heartbeats, and add the waiting time, until the run ends. The database may be unreachable for a
        while."""
        connection: driver.Connection | None = None
        last = time.monotonic()
        while True:
            try:
                if connection is None:
                    connection = self.database.connect("heartbeat", autocommit=True)
                paused = self.waiting.is_set() or bool(pauses.active_pauses(connection))
                runs.beat(connection, self.run_id, socket.gethostname(), os.getpid(), paused)
                now = time.monotonic()
                if paused:
                    self.allowance.add(now - last)
                last = now
            except (
                Exception
            ) as error:  # whatever it is (the instance's storage has errors of its own), a heartbeat must not end a run
                logging.getLogger(__name__).warning("no heartbeat: %s", error)
                if connection is not None:
                    connection.close()
                connection = None
            if self.stop.wait(self.beat_s):
                break
        if connection is not None:
            try:
                runs.leave(connection, self.run_id)
            except driver.Error:
                logging.getLogger(__name__).warning("run %s left without saying so", self.run_id)
            connection.close()
