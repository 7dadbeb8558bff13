"""Safeguards, each switched off in turn: what the simulation must notice."""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from psycopg import errors

from meter_pipeline.ingest import day, dead_letter_rows, landing, merge_versions, retry, writer
from meter_pipeline.ingest.tables import load, raw
from meter_pipeline.ledger import sequencer
from meter_pipeline.ledger.tables import entries as ledger_store
from meter_pipeline_tests.simulation import world
from meter_pipeline_tests.simulation.server import Faults
from meter_pipeline_tests.simulation.world import Profile


@dataclass(frozen=True, slots=True)
class Mutation:
    """``before`` of a function's source becomes ``after``. ``trouble`` makes histories in which its absence shows; in
    that of ``seed`` it did."""

    safeguard: str
    module: ModuleType
    function: str
    before: str
    after: str
    trouble: Profile | None = None
    seed: int = 0


_LOST: Final = Profile("replies lost", Faults(after_commit=0.3), mild=True)
_HUNG: Final = Profile("commits hang", Faults(hung_commit=0.5), mild=True)
_KILLED: Final = Profile("killed", Faults(after_commit=0.1), kills=2)
_PAUSED: Final = Profile("paused", pauses=2, mild=True)
_BUSY: Final = Profile("transient", Faults(before=0.05, errors=("reset",)), mild=True)
_QUIET: Final = Profile("quiet", mild=True)
_STOPPED: Final = Profile("server stopped", freezes=3)
_DEADLOCKS: Final = Profile("transient", Faults(before=0.1, errors=(errors.DeadlockDetected,)), mild=True)

MUTATIONS: Final = (
    Mutation(
        "an unknown outcome is settled first",
        writer,
        "Writers._settle",
        "if batch.attempt is not None:",
        "if False:",
        _HUNG,
    ),
    Mutation(
        "idempotency: a batch's claim",
        load,
        "write_batch",
        "if not await _claim(connection, batch, piece, entries):",
        "if False:",
        _LOST,
    ),
    Mutation(
        "committed rows are left out of the next run", raw, "loaded_rows", "    return found", "    return {}", _KILLED
    ),
    Mutation("pause poll", writer, "Writers._wait_for_pause", "if self.pause is None:", "if True:", _PAUSED),
    Mutation(
        "pause asked again after waiting",
        writer,
        "Writers._attempt",
        "if began - asked > POLL_STALE_S:",
        "if False:",
        Profile("exhausted", Faults(refuse_connect=0.85), pauses=20, freezes=2),
    ),
    Mutation(
        "ledger in the same transaction",
        load,
        "write_batch",
        "        for piece in batch.pieces:\n",
        "        await connection.commit()\n        for piece in batch.pieces:\n",
        _LOST,
    ),
    Mutation(
        "ledger entry with each batch",
        load,
        "write_batch",
        "for entry in batch.entries]",
        "for entry in batch.entries[:0]]",
        _QUIET,
    ),
    Mutation(
        "meters of a first load noted for validation",
        load,
        "write_batch",
        'await connection.execute(_TOUCHES_ALL, {"day": batch.day})',
        "pass",
        _QUIET,
    ),
    Mutation(
        "retry classification: unknown outcome",
        retry,
        "meaning",
        "Meaning.UNKNOWN\n                if isinstance(error, (driver.OperationalError",
        "Meaning.DATA\n                if isinstance(error, (driver.OperationalError",
        _LOST,
    ),
    Mutation(
        "retry classification: bad data",
        retry,
        "meaning",
        'if state[:2] in ("22", "23")',
        'if state[:2] in ("22",)',
        _QUIET,
    ),
    Mutation(
        "retry classification: transient",
        retry,
        "meaning",
        "return _BY_STATE[state]",
        "return Meaning.FATAL",
        _DEADLOCKS,
    ),
    Mutation(
        "advisory lock on the day",
        day,
        "load_billing_day",
        "day_lock.take(lock, DayLock.LOAD, day)",
        "pass",
        _QUIET,
    ),
    Mutation(
        "advisory lock of the sequencer",
        ledger_store,
        "take_sequencer_lock",
        "if wait_s <= 0:",
        "return True\n    if wait_s <= 0:",
        _QUIET,
    ),
    Mutation(
        "fencing of an overtaken run",
        load,
        "write_batch",
        "if row is None or row[0] != batch.epoch:",
        "if row is None:",
        Profile("sessions terminated", Faults(slow=0.3), terminates=8),
    ),
    Mutation(
        "version ordering: intervals",
        merge_versions,
        "_ranked",
        "payloads.sort([*KEY, *_NEWEST], nulls_last=False)",
        "payloads",
        _QUIET,
    ),
    Mutation(
        "version ordering: registers",
        merge_versions,
        "fold_registers",
        'order = ["condition", "source_version", "read_time", "sequence", "payload_hash"]',
        "order = []",
        _QUIET,
    ),
    Mutation(
        "condition rank: intervals",
        merge_versions,
        "_fold_layout",
        "(layer_condition > condition[row]) | ((layer_condition == condition[row]) & newer)",
        "newer",
        _QUIET,
        61,
    ),
    Mutation(
        "condition rank: registers",
        merge_versions,
        "fold_registers",
        'order = ["condition", "source_version"',
        'order = ["source_version"',
        _QUIET,
    ),
    Mutation(
        "dead letters of refused rows",
        dead_letter_rows,
        "finish_letters",
        "found = pl.concat(letters)",
        "found = pl.concat(letters).clear()",
        _QUIET,
    ),
    Mutation(
        "watchdog of a stopped server",
        writer,
        "Writers._attempt",
        "call_later(self.deadline_s, self._cut, connection)",
        "call_later(1e9, self._cut, connection)",
        _STOPPED,
    ),
    Mutation(
        "a permit comes back",
        writer,
        "Writers._write_batch",
        "finally:\n            await self._permits.give()",
        "finally:\n            pass",
        _QUIET,
    ),
    Mutation(
        "sequencer's horizon",
        sequencer,
        "sequence",
        "store.Head(growing.size, growing.root(), horizon, cluster_id)",
        "store.Head(growing.size, growing.root(), horizon + 3, cluster_id)",
        _QUIET,
    ),
    Mutation(
        "a leftover partition is attached",
        day,
        "_Day._attach_leftover",
        "self._attach(kind.table)",
        "pass",
        _KILLED,
        115,
    ),
)


@contextlib.contextmanager
def switched_off(mutation: Mutation) -> Iterator[None]:
    """The product without one safeguard."""
    owner: Any = mutation.module
    *path, name = mutation.function.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(real))
    snippet = textwrap.dedent(mutation.before) if mutation.before.startswith(" ") else mutation.before
    wanted = mutation.before if mutation.before in source else snippet
    if wanted not in source:
        indented = "\n".join(line.removeprefix("    ") for line in mutation.before.split("\n"))
        if indented not in source:
            raise AssertionError(f"{mutation.safeguard}: {mutation.function} no longer says {mutation.before!r}")
        wanted, after = indented, "\n".join(line.removeprefix("    ") for line in mutation.after.split("\n"))
    else:
        after = mutation.after
    namespace = vars(mutation.module)
    made: dict[str, Any] = {}
    exec(  # noqa: S102 - a mutant of our own source
        compile(
            "from __future__ import annotations\n" + source.replace(wanted, after),
            f"<without {mutation.safeguard}>",
            "exec",
        ),
        namespace,
        made,
    )
    setattr(owner, name, made[name])
    others = [
        module
        for module in (day, landing, writer, sequencer)
        if module is not mutation.module and getattr(module, name, None) is real
    ]
    for module in others:
        setattr(module, name, made[name])
    if getattr(world, name, None) is real:
        others.append(world)
        setattr(world, name, made[name])
    try:
        yield
    finally:
        setattr(owner, name, real)
        for module in others:
            setattr(module, name, real)
