"""One round of the watch over real tables: what breaks raises the pause with its evidence, once, and again only after
something new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.control import pause, watch
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.control.test_pause import ask


def file(
    connection: Any, name: str, received: int, rejected: int = 0, at: datetime | None = None, head_end: str = "HE-1"
) -> None:
    connection.execute(
        """INSERT INTO raw.feed_file (sha256, content_sha256, file_name, head_end, commodity, file_format, bytes, archive_path, landed_at, received,
             rejected, dead_letters)
           VALUES (sha256(%s::bytea), sha256(''), %s, %s, 'electricity', 'csv', 1, 'a', %s, %s, %s, 0)""",
        (name, name, head_end, at or datetime.now(UTC), received, rejected),
    )


def loaded(connection: Any, name: str, received: int, accepted: int) -> None:
    connection.execute(
        """INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, register_rows, duplicate_in_file,
             superseded_in_file, accepted, duplicate, superseded, rejected, loaded_at)
           VALUES (sha256(%s::bytea), '2026-02-28', 's', sha256(''), %s, 1, 0, 0, 0, %s, 0, 0, 0, clock_timestamp())""",
        (name, received, accepted),
    )


def dead(connection: Any, name: str, reads: int, at: datetime) -> None:
    connection.execute(
        """INSERT INTO raw.dead_letter (dead_letter_key, file_sha256, file_name, head_end, file_format, raw, raw_format, reasons, reads, rule_version,
             first_seen, last_seen, leaf) VALUES (sha256(%s::bytea), sha256(''), 'f', 'HE-1', 'csv', '', 'source', '[{"code": "x"}]', %s, 'v', %s, %s, sha256(''))""",
        (name, reads, at, at),
    )


def test_a_quiet_system_raises_nothing_and_notes_its_thresholds_once(database: Database) -> None:
    with database.connect() as connection:
        file(connection, "good", 96)
        loaded(connection, "good", 96, 96)
    for _ in range(2):
        assert watch.watch(database).raised == []
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind = 'rule_version'") == 1


def test_a_broken_control_total_raises_once_and_stays_answered(database: Database) -> None:
    with database.connect() as connection:
        file(connection, "short", 96)
        loaded(connection, "short", 96, 95)
    (raised,) = watch.watch(database).raised
    assert raised.rule == "control_total"
    assert "received 96, accounted for 95" in raised.words()
    watch.watch(database)
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM control.pause_evidence") == 0
    pause.confirm_resume(database, ask(database), by="bob")
    assert watch.watch(database).raised == []
    with database.connect() as connection:
        file(connection, "short again", 96)
        loaded(connection, "short again", 96, 95)
    assert watch.watch(database).raised


def test_a_file_that_still_waits_is_not_broken(database: Database) -> None:
    with database.connect() as connection:
        file(connection, "waiting", 96)
        connection.execute(
            """INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, register_rows, duplicate_in_file,
                 superseded_in_file) VALUES (sha256('waiting'), '2026-02-28', 's', sha256(''), 96, 1, 0, 0, 0)"""
        )
    assert watch.watch(database).raised == []


def test_a_burst_holds_its_head_end_and_an_old_one_does_not(database: Database) -> None:
    now = SYSTEM_CLOCK.now()
    with database.connect() as connection:
        file(connection, "week", 100_000, at=now - timedelta(days=2))
        file(connection, "now", 100_000)
        for name in ("week", "now"):
            loaded(connection, name, 100_000, 100_000)
        dead(connection, "old", 90_000, now - timedelta(days=9))
        dead(connection, "new", 600, now - timedelta(minutes=5))
    (raised,) = watch.watch(database).raised
    assert raised.scope == pause.Scope("head_end", "HE-1")
    with database.connect(autocommit=True) as connection:
        assert pause.is_paused(connection, head_end="HE-2") is None


def test_a_head_end_whose_files_are_refused_whole_is_held(database: Database) -> None:
    """A column was renamed: twelve files, not one read that could be counted."""
    with database.connect() as connection:
        file(connection, "week", 100_000, at=SYSTEM_CLOCK.now() - timedelta(days=2))
        loaded(connection, "week", 100_000, 100_000)
        for n in range(12):
            file(connection, f"f{n}", 0)
        connection.execute("UPDATE raw.feed_file SET refused = 'bad_header: no kwh' WHERE file_name LIKE 'f%'")
    (raised,) = watch.watch(database).raised
    assert raised.scope == pause.Scope("head_end", "HE-1")
    assert "100.00% of the files from HE-1 were rejected" in raised.words()


def test_a_breaker_and_a_ledger_handed_in_are_seen(database: Database) -> None:
    with database.connect() as connection:
        watch.observe_breaker(connection, "store", is_open=True)
        watch.observe_ledger(connection, ok=False, detail="root differs at size 12")
        connection.execute(
            "UPDATE control.observation SET figures = jsonb_set(figures, '{since}', to_jsonb(now() - interval '6 min')) WHERE kind = 'breaker'"
        )
    done = watch.watch(database)
    assert [f.rule for f in done.findings] == ["breaker_open", "ledger"]
    with database.connect() as connection:
        told = pause.status(connection)
    assert len(told["active"]) == 1
    assert len(told["active"][0]["further_evidence"]) == 1
