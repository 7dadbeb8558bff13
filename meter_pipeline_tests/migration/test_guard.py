"""The guard promises: each trigger of the reference, seen in the database's own tables, sends authority back to legacy;
and nothing else does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from benchmarks.migration import fill_city, fill_day, put_stage
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.control import pause, watch
from meter_pipeline.migration import cutover, dual_write, tables
from meter_pipeline.migration.day import compare_billing_day
from meter_pipeline.migration.guard import guard
from meter_pipeline.migration.legacy_import import import_results
from meter_pipeline.migration.results import new_results
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import FixedClock

CALENDAR = BillingCalendar("America/Chicago")
NOW = datetime(2026, 10, 6, 12, tzinfo=UTC)
DAY = date(2026, 10, 5)
Cause = Callable[[Database, FixedClock], None]


def _money(database: Database, clock: FixedClock) -> None:
    frame = new_results(database, DAY)
    import_results(
        database, DAY, frame.with_columns(value=frame["value"] + 500_000), finished_at=NOW, source="x", clock=clock
    )
    compare_billing_day(database, DAY, clock=clock)


def _missing(database: Database, clock: FixedClock) -> None:
    frame = new_results(database, DAY)
    more = frame.head(1).with_columns(code=frame["code"].head(1) + "X")
    import_results(database, DAY, frame.vstack(more), finished_at=NOW, source="x", clock=clock)
    compare_billing_day(database, DAY, clock=clock)


def _ledger(database: Database, clock: FixedClock) -> None:
    with database.connect() as connection:
        watch.observe_ledger(connection, ok=False, detail="leaf 7 differs", clock=clock)


def _breaker(database: Database, clock: FixedClock) -> None:
    with database.connect() as connection:
        watch.observe_breaker(connection, "store", is_open=True, clock=clock)
    clock.advance(301)


def _slow(database: Database, clock: FixedClock) -> None:
    with database.connect() as connection:
        watch.observe_writes(connection, [250.0] * 40, 50.0, clock=clock)
        clock.advance(901)
        watch.observe_writes(connection, [250.0] * 40, 50.0, clock=clock)


def _late(database: Database, clock: FixedClock) -> None:
    clock.at = CALENDAR.bounds(DAY + timedelta(days=1))[1] + timedelta(hours=12, seconds=1)


def _paused(database: Database, clock: FixedClock) -> None:
    pause.raise_pause(database, reason="stop", by="ops", clock=clock)


def _letters(rejected: int, before: int) -> Cause:
    """100,000 reads a day for a week and today, so many of them rejected."""

    def cause(database: Database, clock: FixedClock) -> None:
        with database.connect() as connection:
            for days in range(8):
                seal = hashlib.sha256(bytes([days])).digest()
                at = clock.now() - timedelta(days=days, hours=1)
                connection.execute(
                    "INSERT INTO raw.feed_file (sha256, content_sha256, file_name, head_end, commodity, file_format, bytes, archive_path, landed_at, received, rejected, "
                    "dead_letters) VALUES (%s, %s, %s, 'HE', 'electricity', 'delimited', 1, 'x', %s, 100000, 0, 0)",
                    (seal, seal, f"f{days}", at),
                )
                connection.execute(
                    "INSERT INTO raw.dead_letter (dead_letter_key, file_sha256, file_name, head_end, file_format, line, raw, raw_format, reasons, reads, "
                    "rule_version, first_seen, last_seen, leaf) VALUES (%s, %s, 'f', 'HE', "
                    "'delimited', 1, 'x', 'source', '[{\"code\": \"off_grid\"}]', %s, '1', %s, %s, %s)",
                    (seal, seal, before if days else rejected, at, at, seal),
                )

    return cause


def _refused_files(database: Database, clock: FixedClock) -> None:
    """A renamed column: a night's files refused whole, which hold no reads that could be counted."""
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO raw.feed_file (sha256, content_sha256, file_name, head_end, commodity, file_format, bytes, "
            "archive_path, landed_at, received, rejected, dead_letters, refused) SELECT sha256(n::text::bytea), "
            "sha256(n::text::bytea), 'f' || n, 'HE', 'electricity', 'delimited', 9, 'x', %s, 0, 0, 1, 'bad_header: x' "
            "FROM generate_series(1, 12) AS n",
            (clock.now() - timedelta(hours=1),),
        )


CAUSES: list[tuple[str, Cause]] = [
    ("unexplained money", _money),
    ("missing on the new side", _missing),
    ("ledger does not verify", _ledger),
    ("circuit breaker open", _breaker),
    ("write p95", _slow),
    ("behind", _late),
    ("pause is raised", _paused),
    ("refused files at 100.00%", _refused_files),
    ("dead letters at 0.60%", _letters(600, 500)),
    ("dead letters at 0.40%", _letters(400, 100)),
]


@pytest.fixture
def live(database: Database) -> Database:
    """Live for everyone, in the role that may only go back."""
    fill_city(database, 20)
    fill_day(database, 20, 0)
    privileges.apply(database)
    put_stage(database, "live", 10_000)
    with database.connect() as connection:
        connection.execute("UPDATE control.flag SET changed_at = %s", (NOW - timedelta(days=1),))
    return database.acting_as("meter_migration")


def test_calm_pulls_nothing(live: Database, database: Database) -> None:
    clock = FixedClock(NOW)
    _letters(200, 100)(database, clock)
    with database.connect() as connection:
        watch.observe_ledger(connection, ok=True, detail="", clock=clock)
        watch.observe_writes(connection, [40.0] * 40, 50.0, clock=clock)
    import_results(database, DAY, new_results(database, DAY), finished_at=NOW, source="x", clock=clock)
    compare_billing_day(database, DAY, clock=clock)
    assert guard(live, CALENDAR, clock=clock) is None


@pytest.mark.parametrize(("reason", "cause"), CAUSES, ids=[reason for reason, _ in CAUSES])
def test_each_trigger_alone_sends_authority_back(live: Database, database: Database, reason: str, cause: Cause) -> None:
    clock = FixedClock(NOW)
    cause(database, clock)
    done = guard(live, CALENDAR, clock=clock)
    assert done is not None
    assert [reason in words for words in done.reasons] == [True], done.reasons
    assert cutover.peek(database).value == {"stage": "dual_write", "routes": [], "basis_points": 0}
    assert guard(live, CALENDAR, clock=clock) is None, "there is nothing left to take back"
    with database.connect() as connection:
        assert [what for _, what in tables.events(connection) if "rollback" in what] == ["rollback to dual_write"], (
            "the gate begins anew"
        )


@pytest.mark.parametrize("stage", ["dual_write", "live", "ramp_down"])
def test_rollback_at_every_stage_in_the_middle_of_writing(database: Database, tmp_path: Path, stage: str) -> None:
    """Writers go on through the flip; every bill has one authority, every bill is on both sides after delivery, and
    legacy writes from then on."""
    import threading

    from meter_pipeline.migration.rollback import roll_back
    from meter_pipeline.migration.sides import LegacyFolder, OurCopy
    from meter_pipeline.postgres.database import scalar

    put_stage(database, stage, 0 if stage == "dual_write" else 10_000)
    to = "shadow" if stage == "dual_write" else "dual_write"
    before: set[str] = set()
    stop, begun, failures = threading.Event(), threading.Barrier(3), []

    def writer(seed: int) -> None:
        number = 0
        try:
            begun.wait()
            while not stop.is_set() or number < 5:
                records = [
                    (
                        dual_write.Record(
                            DAY, f"A-{seed}-{number}-{k}", {"figures": [["total", "total", k, False, None]]}
                        ),
                        None,
                    )
                    for k in range(10)
                ]
                with database.connect("writer") as connection:
                    dual_write.write(connection, records)
                    connection.commit()
                before.update(r.account_id for r, _ in records)
                number += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    begun.wait()
    done = roll_back(database, ["drill"], by="ops", to=to)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert done is not None
    print(f"rollback from {stage} in the middle of writing: {done.seconds * 1000:.1f} ms")
    folder = LegacyFolder(tmp_path / "to_legacy")
    waiting = dual_write.deliver_all(database, {"legacy": folder, "new": OurCopy(database)}, most=7)
    assert waiting["legacy_waiting"] == waiting["new_waiting"] == 0
    with database.connect() as connection:
        rows = connection.execute("SELECT account_id, authority, stage FROM migration.authority").fetchall()
        kept = {row[0] for row in connection.execute("SELECT account_id FROM migration.customer_bill")}
        assert scalar(connection, "SELECT count(*) FROM migration.outbox WHERE delivered_at IS NULL") == 0
    assert {name for name, _, _ in rows} == before, "one authority a bill, none lost"
    assert all((side == "new") == (at in ("live", "ramp_down")) for _, side, at in rows), (
        "by the stage it was written under, and no other"
    )
    held = {name for _, name in folder.figures()}
    assert held == {name for name, side, _ in rows if side == "new"}, (
        "legacy has every bill written while the new side had authority"
    )
    assert kept == {name for name, side, at in rows if side == "legacy" and at == "dual_write"}
    with database.connect() as connection:
        after = dual_write.write(connection, [(dual_write.Record(DAY, "AFTER", {"figures": []}), None)])
    assert after[0].authority == "legacy"


def test_the_guard_s_role_cannot_give_the_new_side_authority(live: Database) -> None:
    refused = (psycopg.errors.InsufficientPrivilege, psycopg.errors.CheckViolation)
    with live.connect() as connection, pytest.raises(refused):
        connection.execute(
            'UPDATE control.flag SET value = \'{"stage": "complete", "routes": [], "basis_points": 10000}\', version = version + 1'
        )
    with live.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE billing.charge_day SET total = 0")
