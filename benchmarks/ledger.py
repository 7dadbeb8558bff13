"""What the ledger costs, and how fast it proves and verifies.

Figures: ``root_1m_s`` the RFC 6962 root over a million payload hashes; ``verify_day_s`` a day of intervals verified
from its rows (every payload hashed again from what is stored, matched with its leaf, the log recomputed); ``proof_ms``
one read's proof from the database, checked. Ratios, each of the same work with the ledger and without, in turn:
``on_over_off_wall`` a whole billing day through the stages, feed file to bill (land, ingest, validate, verify what
bills stand on, bill, then checkpoint and verify); without the ledger, entries are one constant row, nothing is folded,
checkpointed or verified, and charges are not hashed. Payloads are hashed in both: which version wins needs it.
``on_over_off_p95`` a batch's write (COPY, entry, commit) with four writers; ``write_path_wall`` is the wall of that
bare write path (narrow, encode, COPY, commit), where the ledger's side pays for hashing too: the most it can weigh.
"""

from __future__ import annotations

import inspect
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl

from benchmarks.support import document
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.ingest import keys
from meter_pipeline.ledger import checkpoints, entries, merkle, proving, verification
from meter_pipeline.ledger.sequencer import sequence
from meter_pipeline.postgres import vectors
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline.settings import load_settings

DAY = date(2026, 10, 28)
STARTS_AT = datetime(2026, 10, 28, 5, tzinfo=UTC)
HASHERS = {"mpi1": keys.interval_payload_hashes}
WRITERS = 4
EMPTIED = ("entry", "leaf", "tree_head", "node", "checkpoint", "cosignature", "anchor")


def run(
    meters: int = 100_000, interval: int = 15, rounds: int = 3, batch: int = 1000, seed: int = 7, day_rounds: int = 1
) -> dict[str, Any]:
    """A day of ``meters`` interval meters, ``batch`` payloads a transaction; ``day_rounds`` whole days with and without
    (0: none)."""
    base = open_database(load_settings())
    with _scratch(base) as database:
        made = _run(database, meters, interval, rounds, batch, seed)
    walls: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * day_rounds):
        walls[turn % 2 == 1].append(_whole_day(base, meters, interval, on=turn % 2 == 1))
    if day_rounds:
        made["figures"]["day_wall_s"] = {
            "on": round(statistics.median(walls[True]), 2),
            "off": round(statistics.median(walls[False]), 2),
        }
        made["ratios"]["on_over_off_wall"] = round(statistics.median(walls[True]) / statistics.median(walls[False]), 3)
    return made


@contextmanager
def _scratch(base: Database) -> Iterator[Database]:
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    try:
        migrate(database)
        yield database
    finally:
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _whole_day(base: Database, meters: int, interval: int, *, on: bool) -> float:
    """Seconds from landed file to bill of a simulated clean city, in one process."""
    from meter_pipeline.billing import bill_billing_day
    from meter_pipeline.ingest import ingest_billing_day, land_inbox
    from meter_pipeline.ledger import checkpoint_billing_day, verify_before_billing
    from meter_pipeline.ledger.sources import AFTER_BILLING
    from meter_pipeline.ledger_hashers import hashers
    from meter_pipeline.reference import import_folder
    from meter_pipeline.simulator import Spec, simulate
    from meter_pipeline.vee import validate_billing_day

    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    with _scratch(base) as database, tempfile.TemporaryDirectory(prefix="bench-", dir=settings.home) as folder:
        data = Path(folder) / "city"
        spec = Spec(
            meters=meters,
            days=1,
            interval_minutes=interval,
            start=DAY,
            seed=7,
            defects=False,
            mix="electricity",
            formats=("delimited",),
            registers=False,
            history_days=30,
        )
        simulate(spec, data)
        mine = replace(settings, home=Path(folder) / "home", data=data, inbox=data / "inbox", database_url=database.url)
        mine.home.mkdir()
        import_folder(database, data / "reference")
        calendar = mine.calendar()
        database.read("SELECT 1")
        with contextmanager(_as_it_is if on else _without_ledger)():
            started = time.perf_counter()
            land_inbox(database, calendar, mine, clock=SYSTEM_CLOCK, run_id="bench")
            ingest_billing_day(database, calendar, DAY, settings=mine, clock=SYSTEM_CLOCK, run_id="bench")
            for stage in (validate_billing_day, bill_billing_day):
                if on and stage is bill_billing_day:
                    sound = verify_before_billing(database, DAY, settings=mine, hashers=hashers()).verification
                    assert sound.ok, sound.findings
                # In this process: another would not be without the ledger.
                one: dict[str, Any] = {"shards": 1} if "shards" in inspect.signature(stage).parameters else {}
                stage(database, calendar, DAY, clock=SYSTEM_CLOCK, **one)
            if on:
                done = checkpoint_billing_day(
                    database, DAY, settings=mine, hashers=hashers(), sources=AFTER_BILLING
                ).verification
                assert done.ok, done.findings
            return time.perf_counter() - started


def _as_it_is() -> Iterator[None]:
    yield


def _without_ledger() -> Iterator[None]:
    """Every entry is one constant row; nothing is encoded or folded. In this process only, for the comparison only."""
    from meter_pipeline.billing import day as billing

    constant = entries.Entry("reconciled", b"{}", merkle.leaf_hash(b"{}"), None)
    nothing = pl.Series([], dtype=pl.Binary)
    with (
        mock.patch.object(entries, "encode", return_value=constant),
        mock.patch.object(billing, "charge_leaves", return_value=nothing),
        mock.patch.object(billing, "determinant_leaves", return_value=nothing),
    ):
        yield


def _run(database: Database, meters: int, interval: int, rounds: int, batch: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    million = rng.integers(0, 256, (1_000_000, merkle.HASH_SIZE), dtype=np.uint8)
    merkle.fold_root(million)  # compiles, once per installation
    root_s = statistics.median(_seconds(lambda: merkle.fold_root(million)) for _ in range(3))
    matrix = _matrix(meters, interval, rng)

    walls: dict[bool, list[float]] = {True: [], False: []}
    latencies: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * rounds):
        on = turn % 2 == 1  # the last turn leaves a day with its leaves, to verify and prove
        _clear(database)
        wall, latency = _write(database, matrix, batch, on=on)
        if turn > 1 or rounds == 1:  # the first of each warms the server up
            walls[on].append(wall)
            latencies[on] += latency

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        checkpoints.checkpoint(database, home=home)
        database.read("SELECT 1")  # imports Arrow, once per process
        verify_s, sound = _timed(
            lambda: verification.verify(database, home=home, full=True, days=[DAY], hashers=HASHERS)
        )
        rows = sound.checked["content of raw.interval_day"]
        problems = [f"{finding.check}: {finding.detail}" for finding in sound.findings if finding.check != "guards"]
        picked = [matrix.keys["meter_id"][int(row)] for row in rng.integers(0, meters, 20)]
        proof_ms = 1000 * statistics.median(
            [_seconds(lambda m=m: proving.prove_read(database, m, DAY)) for m in picked]
        )
    p95 = {on: float(np.percentile(latencies[on], 95)) for on in (True, False)}
    return document(
        "ledger",
        {"meters": meters, "interval": interval, "rounds": rounds, "batch": batch, "writers": WRITERS, "seed": seed},
        {
            "root_1m_s": round(root_s, 3),
            "verify_day_s": round(verify_s, 2),
            "proof_ms": round(proof_ms, 1),
            "verified_payloads": rows,
            "verified_intervals": rows * matrix.slots,
            "problems": problems,
            "write_wall_s": {
                "on": round(statistics.median(walls[True]), 3),
                "off": round(statistics.median(walls[False]), 3),
            },
            "write_p95_ms": {"on": round(1000 * p95[True], 1), "off": round(1000 * p95[False], 1)},
        },
        {
            "write_path_wall": round(statistics.median(walls[True]) / statistics.median(walls[False]), 3),
            "on_over_off_p95": round(p95[True] / p95[False], 3),
        },
    )


def _matrix(meters: int, interval: int, rng: np.random.Generator) -> DayMatrix:
    slots = 1440 // interval
    names = pl.DataFrame(
        {
            "meter_id": [f"E-{number:07}" for number in range(meters)],
            "channel": pl.Series(["E1"] * meters),
            "unit": pl.Series(["kWh"] * meters),
            "head_end": pl.Series(["AMI"] * meters),
            "source_version": pl.Series([1] * meters, dtype=pl.Int64),
            "read_time": pl.Series([STARTS_AT] * meters, dtype=pl.Datetime("us", "UTC")),
            "payloads": pl.Series([1] * meters, dtype=pl.Int16),
        }
    )
    values = rng.integers(0, 4000, (meters, slots), dtype=np.int64) * 1000
    return DayMatrix(
        DAY,
        interval,
        names,
        values,
        np.full((meters, slots), 1, np.uint16),
        np.tile(np.arange(slots, dtype=np.int32), (meters, 1)),
    )


def _clear(database: Database) -> None:
    """An empty partition and an empty ledger: the owner of a scratch database may."""
    with database.connect("bench", autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {vectors.RAW_INTERVAL_DAY.partition(DAY).name}".encode())
        connection.execute("SELECT raw.open_partition('raw.interval_day', %s)", (DAY,))
        for table in EMPTIED:
            connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL".encode())
        connection.execute(f"TRUNCATE {', '.join(f'ledger.{table}' for table in EMPTIED)}".encode())
        connection.execute("CHECKPOINT")


def _write(database: Database, matrix: DayMatrix, batch: int, *, on: bool) -> tuple[float, list[float]]:
    """Seconds of wall for the day, and of each transaction (COPY, entry, commit)."""
    target = vectors.RAW_INTERVAL_DAY.partition(DAY)
    constant = bytes(32)
    latencies: list[float] = []
    work = iter(range(0, matrix.rows, batch))
    lock = threading.Lock()
    failures: list[BaseException] = []

    def writer() -> None:
        try:
            with database.connect("bench-writer") as connection:
                while (first := _next(work, lock)) is not None:
                    frame = vectors.from_matrix(_part(matrix, first, batch), STARTS_AT)
                    hashes = (
                        keys.interval_payload_hashes(frame) if on else pl.repeat(constant, frame.height, eager=True)
                    )
                    frame = frame.with_columns(payload_hash=hashes)
                    leaves = hashes.to_list() if on else []
                    started = time.perf_counter()
                    vectors.copy_rows(connection, target, frame)
                    if on:
                        entries.append(connection, "ingested", {"billing_day": DAY, "payloads": len(leaves)}, leaves)
                    connection.commit()
                    latencies.append(time.perf_counter() - started)
        except BaseException as error:
            failures.append(error)

    started = time.perf_counter()
    threads = [threading.Thread(target=writer) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    with database.connect("bench") as connection:
        connection.execute("SELECT raw.attach_partition('raw.interval_day', %s)", (DAY,))
        connection.commit()
        if on:
            sequence(connection)
    return time.perf_counter() - started, latencies


def _next(work: Any, lock: threading.Lock) -> int | None:
    with lock:
        return next(work, None)


def _part(matrix: DayMatrix, first: int, batch: int) -> DayMatrix:
    rows = slice(first, first + batch)
    return DayMatrix(
        matrix.billing_day,
        matrix.interval_minutes,
        matrix.keys[rows],
        matrix.values[rows],
        matrix.quality[rows],
        matrix.sequence[rows],
    )


def _seconds(call: Any) -> float:
    return _timed(call)[0]


def _timed(call: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
