"""A billing day is written exactly once, whatever arrives in whatever order, and its control totals add up."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.ingest import land, waiting_days
from meter_pipeline.ingest.tables import raw
from meter_pipeline.postgres.database import Database
from meter_pipeline.quality import pack
from meter_pipeline.vee.tables.validated import read_reused_sequences
from meter_pipeline_tests.ingest.support import (
    CALENDAR,
    CLOCK,
    DAY,
    METERS,
    NORTH,
    Read,
    enrol,
    load_day,
    places,
    raw_bytes,
    truncate,
    write_file,
)

pytestmark = pytest.mark.usefixtures("toy_feed")


def land_all(database: Database, folder: Path, files: list[Path]) -> None:
    for path in files:
        land(database, CALENDAR, path, NORTH, places(folder), clock=CLOCK)


def test_a_simple_day(database: Database, tmp_path: Path) -> None:
    enrol(database)
    reads = [Read(m, slot, 1000 * slot, sequence=slot) for m in METERS for slot in range(92)]
    registers = [Read(m, hour, 5_000_000 + hour, register=True, sequence=hour) for m in METERS for hour in (0, 22)]
    path = write_file(tmp_path, "a.jsonl", reads + registers, ["not json"])
    landed = land(database, CALENDAR, path, NORTH, places(tmp_path), clock=CLOCK)
    assert (landed.received, landed.rejected, landed.days) == (6 * 92 + 12 + 1, 1, [DAY])
    assert [day for day, _ in waiting_days(database)] == [DAY]
    outcome = load_day(database, tmp_path)
    assert (outcome.accepted, outcome.duplicate, outcome.superseded, outcome.rejected) == (6 * 92 + 12, 0, 0, 0)
    assert outcome.balanced
    assert waiting_days(database) == []
    seen = database.read(
        "SELECT count(*) AS n, sum(value)::text AS total, count(DISTINCT idempotency_key) AS keys FROM raw.interval"
    ).row(0)
    assert seen == (6 * 92, str(Decimal(6 * sum(range(92))) / 1000), 6 * 92)
    assert database.read("SELECT count(*) AS n FROM raw.register").item() == 12
    report = outcome.report()
    assert report.checks[0].passed
    kinds = database.read("SELECT kind, count(*) AS n FROM ledger.entry GROUP BY 1 ORDER BY 1").rows()
    assert kinds == [("file_loaded", 1), ("ingested", 2), ("received", 1), ("rejected", 1)]


def test_a_sequence_number_used_for_two_values_is_known_although_one_value_is_kept(
    database: Database, tmp_path: Path
) -> None:
    enrol(database)
    reads = [Read(m, slot, 1000 * slot, sequence=slot) for m in METERS for slot in range(92)]
    land_all(
        database,
        tmp_path,
        [write_file(tmp_path, "a", [*reads, Read("M-2", 5, 77, sequence=5), Read("M-3", 6, 6000, sequence=6)])],
    )
    load_day(database, tmp_path)
    assert read_reused_sequences(database, DAY).rows() == [("M-2", "E1", None)]
    assert database.read("SELECT reads FROM raw.reused_sequence").rows() == [(1,)]


def test_a_day_that_comes_in_two_files_of_different_slots_reuses_no_sequence_number(
    database: Database, tmp_path: Path
) -> None:
    """Files of half a day each were marked as duplicates on all 96 intervals: 80 of 101 meter-days for nothing."""
    enrol(database)
    first = [Read(m, slot, 1000 * slot) for m in METERS for slot in range(40)]
    second = [Read(m, slot, 1000 * slot) for m in METERS for slot in range(40, 92)]
    # the second file repeats two slots of M-1 as they were, and gives slot 7 of M-2 another value
    second += [Read("M-1", 5, 5000), Read("M-1", 6, 6000), Read("M-2", 7, 1, read_time=60)]
    for name, reads in (("a", first), ("b", second)):
        land_all(database, tmp_path, [write_file(tmp_path, name, reads)])
        load_day(database, tmp_path)
    assert database.read("SELECT count(*) AS n FROM raw.interval_payload").item() == 2 * len(METERS)
    assert read_reused_sequences(database, DAY).rows() == [("M-2", "E1", [7])]


def test_the_same_bytes_under_another_name_load_nothing(database: Database, tmp_path: Path) -> None:
    enrol(database)
    reads = [Read(m, slot, 7000) for m in METERS for slot in range(10)]
    land_all(database, tmp_path, [write_file(tmp_path, "a", reads)])
    load_day(database, tmp_path)
    before = raw_bytes(database)
    again = land(database, CALENDAR, write_file(tmp_path, "b", reads), NORTH, places(tmp_path), clock=CLOCK)
    assert again.duplicate
    assert load_day(database, tmp_path).accepted == 0
    assert raw_bytes(database) == before


def test_the_same_reads_in_other_bytes_are_duplicates(database: Database, tmp_path: Path) -> None:
    enrol(database)
    reads = [Read(m, slot, 7000) for m in METERS for slot in range(10)]
    land_all(database, tmp_path, [write_file(tmp_path, "a", reads)])
    load_day(database, tmp_path)
    before = raw_bytes(database)
    land_all(database, tmp_path, [write_file(tmp_path, "b", reversed(reads))])
    outcome = load_day(database, tmp_path)
    assert (outcome.accepted, outcome.duplicate) == (0, 60)
    assert raw_bytes(database) == before


def test_an_older_version_never_regresses_a_value(database: Database, tmp_path: Path) -> None:
    enrol(database)
    newer = write_file(tmp_path, "new", [Read("M-0", slot, 2000, version=2) for slot in range(4)])
    older = write_file(tmp_path, "old", [Read("M-0", slot, 1000, version=1) for slot in range(8)])
    for path in (newer, older):
        land_all(database, tmp_path, [path])
        outcome = load_day(database, tmp_path)
    assert (outcome.accepted, outcome.superseded) == (4, 4)
    values = database.read("SELECT value::text AS v FROM raw.interval ORDER BY slot")["v"].to_list()
    assert [Decimal(v) for v in values] == [Decimal("0.002")] * 4 + [Decimal("0.001")] * 4
    assert len(raw_bytes(database)["raw.interval_payload"]) == 2


def test_a_late_actual_replaces_an_estimate_and_no_estimate_replaces_an_actual(
    database: Database, tmp_path: Path
) -> None:
    enrol(database)
    said = [  # (file, version, flag, value) as they come; a final substitution is how a source takes an actual back
        ("estimate", 5, "E", 1000),
        ("late-actual", 1, "A", 2000),
        ("newer-estimate", 6, "E", 3000),
        ("newer-substitute", 7, "S", 4000),
    ]
    for name, version, flag, value in said:
        read = Read("M-0", 3, value, version=version, quality=pack(flag), sequence=version)
        register = Read("M-0", 4, value, version=version, quality=pack(flag), register=True, sequence=version)
        land_all(database, tmp_path, [write_file(tmp_path, name, [read, register])])
        outcome = load_day(database, tmp_path)
        assert (outcome.accepted, outcome.superseded) == ((2, 0) if flag in "EA" and version < 6 else (0, 2)), name
    for table in ("raw.interval", "raw.register"):
        assert Decimal(database.read(f"SELECT value::text AS v FROM {table}").item()) == Decimal("0.002"), table
    land_all(
        database,
        tmp_path,
        [write_file(tmp_path, "final", [Read("M-0", 3, 5000, version=8, quality=pack("F"), sequence=8)])],
    )
    assert load_day(database, tmp_path).accepted == 1
    land_all(
        database,
        tmp_path,
        [write_file(tmp_path, "stale", [Read("M-0", 3, 6000, version=2, quality=pack("A"), sequence=2)])],
    )
    assert load_day(database, tmp_path).superseded == 1
    assert database.read("SELECT count(*) AS n FROM raw.interval_payload").item() == 6, "what lost is kept"


def read_of(meter: str, slot: int, version: int, sequence: int, quality: int, register: bool, read_time: int) -> Read:
    """Values differ with what orders them. Two actual reads that nothing orders are another matter
    (test_unordered.py).
    """
    value = 500 * (hash((meter, slot, version, sequence, register, read_time)) % 4)
    return Read(meter, slot, value, version, sequence, quality, register, read_time)


reads = st.builds(
    read_of,
    meter=st.sampled_from(METERS[:3]),
    slot=st.integers(0, 5),
    version=st.integers(1, 2),
    sequence=st.integers(0, 2),
    quality=st.sampled_from([pack(flag) for flag in "ASFE"]),
    register=st.booleans(),
    read_time=st.sampled_from([0, 60]),
)


@given(st.lists(st.lists(reads, min_size=1, max_size=12), min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=5)
def test_any_order_and_repetition_of_files_gives_the_same_tables(
    database: Database, tmp_path_factory: object, files: list[list[Read]], rng: object
) -> None:
    folder = tmp_path_factory.mktemp("files")  # type: ignore[attr-defined]
    if not database.read("SELECT 1 FROM ref.meters LIMIT 1").height:
        enrol(database)
    paths = [write_file(folder, f"f{i}", file) for i, file in enumerate(files)]
    outcomes = []
    for attempt in range(3):
        truncate(database)
        order = list(paths)
        if attempt:
            rng.shuffle(order)  # type: ignore[attr-defined]
            order += rng.sample(order, k=min(2, len(order)))  # type: ignore[attr-defined]
        work = folder / f"work{attempt}"
        for path in order:
            land_all(database, work, [path])
            if attempt != 1:  # once all at the end, else after each file
                load_day(database, work)
        load_day(database, work)
        with database.connect() as connection:
            totals = raw.control_totals(connection)
        assert totals["balanced"].all()
        assert totals["waiting"].sum() == 0
        assert (
            totals.filter(
                pl.col("accepted") + pl.col("duplicate") + pl.col("superseded") + pl.col("rejected")
                != pl.col("received")
            ).height
            == 0
        )
        outcomes.append(raw_bytes(database))
    assert outcomes[0] == outcomes[1] == outcomes[2]
