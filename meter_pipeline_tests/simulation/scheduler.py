"""Virtual time for real code: every process of a simulated deployment is a greenlet, exactly one of which runs at a
time.

A greenlet and not a thread: a history changes process 740 times, and two threads handing over a lock cost the system
two switches each time.

Which process goes on is decided by the order of (virtual time, a number drawn from the seed), so a seed is a history:
run it again and the same thing happens. A killed process runs no further statement: whatever it tries next raises
``Killed``.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
from asyncio import base_events
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, TypeVarTuple

from greenlet import getcurrent, greenlet

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
EPOCH: Final = datetime(2024, 4, 1, tzinfo=UTC)
#: Virtual seconds after which a history counts as stuck.
PATIENCE_S: Final = 6 * 3600.0


class Killed(BaseException):
    """The process is gone; nothing in it runs any more."""


class Stuck(AssertionError):
    """A process never came to its end."""


class Process:
    """One simulated process."""

    def __init__(self, scheduler: Scheduler, name: str, work: Callable[[], Any]) -> None:
        self.scheduler, self.name, self.work = scheduler, name, work
        self.killed = False
        self.kill_at: int | None = None
        self.steps = 0
        self.skew_s = 0.0
        self.done = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.on_kill: list[Callable[[], None]] = []
        self._greenlet: greenlet | None = None

    def step(self) -> None:
        """A point at which the process may die."""
        self.steps += 1
        if self.killed:
            raise Killed(self.name)
        if self.kill_at is not None and self.steps >= self.kill_at:
            self.kill()
            raise Killed(self.name)

    def kill(self) -> None:
        """SIGKILL: from now on it does nothing."""
        if not self.killed and not self.done:
            self.killed = True
            for call in self.on_kill:
                call()

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass for this process."""
        self.scheduler.wake(self, seconds)
        # What asyncio keeps by thread is this process's alone: every one of them runs a loop of its own.
        loop, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)
        hub = getcurrent().parent
        assert hub is not None
        hub.switch()
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)
        if self.killed:
            raise Killed(self.name)

    def resume(self) -> None:
        """Let it run until it sleeps or ends. Called by the scheduler alone."""
        if self._greenlet is None:
            self._greenlet = greenlet(self._run)
        self._greenlet.parent = getcurrent()
        CURRENT.process = self
        try:
            self._greenlet.switch()
        finally:
            CURRENT.process = None

    @property
    def begun(self) -> bool:
        return self._greenlet is not None

    def _run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.done = True


class _Current:
    process: Process | None = None


CURRENT: Final = _Current()


def current() -> Process:
    """The process that runs now."""
    assert CURRENT.process is not None
    return CURRENT.process


class Scheduler:
    """Runs processes and calls in the order of virtual time."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.processes: list[Process] = []
        self._queue: list[tuple[float, float, int, Process | Callable[[], None]]] = []
        self._count = 0

    def wake(self, what: Process | Callable[[], None], after_s: float) -> None:
        """Resume a process, or call something, after some virtual seconds."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + max(after_s, 0.0), self.rng.random(), self._count, what))

    def spawn(self, name: str, work: Callable[[], Any], after_s: float = 0.0) -> Process:
        """A new process."""
        process = Process(self, name, work)
        self.processes.append(process)
        self.wake(process, after_s)
        return process

    def run(self) -> None:
        """Until every process has ended. Raises Stuck where one does not."""
        while self._queue:
            at, _, _, what = heapq.heappop(self._queue)
            if isinstance(what, Process):
                if what.done:
                    continue
                self.now = at
                if at > PATIENCE_S:
                    names = [process.name for process in self.processes if not process.done]
                    self._give_up()
                    raise Stuck(f"after {at:.0f} s still running: {', '.join(names)}")
                what.resume()
            elif at <= PATIENCE_S:
                self.now = at
                what()

    def _give_up(self) -> None:
        for process in self.processes:
            tries = 0
            process.killed = True
            while not process.done and process.begun and tries < 1000:
                process.resume()
                tries += 1


class VirtualClock:
    """The product's Clock for one process: wall time may be skewed and may jump, monotonic time never does."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.jumps: list[tuple[float, float]] = []

    def now(self) -> datetime:
        jumped = sum(by for at, by in self.jumps if at <= self.scheduler.now)
        skew = CURRENT.process.skew_s if CURRENT.process is not None else 0.0
        return EPOCH + timedelta(seconds=self.scheduler.now + jumped + skew)

    def monotonic(self) -> float:
        return self.scheduler.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Selector:
    """Waits in virtual time for the loop's next timer."""

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck(f"{current().name} waits for nothing")
        if timeout > 0:
            current().sleep(timeout)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(base_events.BaseEventLoop):
    """An event loop whose time is the scheduler's, and whose threads run in line."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector()

    def time(self) -> float:
        return CURRENT.process.scheduler.now if CURRENT.process is not None else 0.0

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Killed:
            raise
        except Exception as error:
            future.set_exception(error)
        return future


class VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio.run gives a VirtualLoop."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return VirtualLoop()


def drive(steps: Generator[float, None, Any]) -> Any:
    """Run an operation that yields the seconds it takes, blocking the process."""
    process = current()
    while True:
        try:
            seconds = next(steps)
        except StopIteration as done:
            return done.value
        if seconds > 0:
            process.sleep(seconds)


async def drive_async(steps: Generator[float, None, Any]) -> Any:
    """The same on the process's event loop."""
    while True:
        try:
            seconds = next(steps)
        except StopIteration as done:
            return done.value
        await asyncio.sleep(seconds)
