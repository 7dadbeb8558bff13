"""A pause in the middle of a 960,000-interval day, on the product's own definitions under real services: nothing starts after the flag, what was
in flight commits, and after two people have resumed the result is that of a day that was never interrupted."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from meter_pipeline.control import pause
from meter_pipeline.ingest import ingest_billing_day, land_inbox
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline.store.database import Database, ensure_database, scalar
from meter_pipeline_tests.control.test_pause import ask
from meter_pipeline_tests.defs.services import Services

DAY = date(2026, 10, 28)
METERS = 10_000


def landed(database: Database, city: Path, home: Path) -> Settings:
    settings = replace(load_settings(), home=home, data=city, inbox=city / "inbox", database_url=database.url)
    home.mkdir(parents=True, exist_ok=True)
    import_folder(database, city / "reference")
    land_inbox(database, settings.calendar(), settings, run_id="landing")
    return settings


def content(database: Database) -> dict[str, object]:
    """What the day left: the tables' rows and the ledger's payload hashes, each as one digest; and the control totals."""
    with database.connect(autocommit=True) as connection:
        out: dict[str, object] = {
            table: scalar(connection, f"SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM (SELECT * FROM {table}) t")
            for table in ("raw.interval_day", "raw.interval_payload", "raw.register_read")
        }
        out["payloads"] = scalar(
            connection,
            """SELECT md5(string_agg(leaf, '' ORDER BY leaf)) FROM (SELECT encode(substring(leaves FROM 1 + 32 * n FOR 32), 'hex') AS leaf
               FROM ledger.entry, generate_series(0, leaf_count - 1) n WHERE kind = 'ingested') l""",
        )
        out["totals"] = scalar(connection, "SELECT array_agg((received, accepted, duplicate, superseded, rejected, balanced)::text) FROM raw.control_total")
    return out


def entries_after(database: Database, seconds_after: float) -> tuple[int, float]:
    """Ingested batches recorded later than so long after the raise, and how long after it the last was."""
    with database.connect(autocommit=True) as connection:
        row = connection.execute(
            """SELECT count(*) FILTER (WHERE e.recorded_at > p.raised_at + %s * interval '1 s'), coalesce(extract(epoch FROM max(e.recorded_at - p.raised_at)), 0)
               FROM ledger.entry e, control.emergency_pause p WHERE e.kind = 'ingested'""",
            (seconds_after,),
        ).fetchone()
    assert row is not None
    return int(row[0]), float(row[1])


@pytest.mark.slow
def test_a_day_interrupted_by_a_pause_is_the_same_day(server: Database, template: Database, database: Database, tmp_path: Path, record_property: object) -> None:
    city = tmp_path / "city"
    simulate(Spec(meters=METERS, days=1, start=DAY, mix="electricity", formats=("delimited",), defects=False), city)
    plain = ensure_database(server, f"{database.name}_plain", template.name)
    settings = landed(plain, city, tmp_path / "plain")
    ingest_billing_day(plain, settings.calendar(), DAY, settings=settings, run_id="plain")

    landed(database, city, tmp_path / "home")
    env = {"METER_PIPELINE_DATA": str(city), "METER_PIPELINE_INBOX": str(city / "inbox")}
    with Services(tmp_path / "home", database, "meter_pipeline.definitions", env=env) as services:
        backfill = services.backfill("raw_reads", [DAY.isoformat()])
        with database.connect(autocommit=True) as connection:
            whole = scalar(connection, "SELECT sum(interval_rows) FROM raw.feed_file_day")
            deadline = time.monotonic() + 240
            # A day's load takes a second or two: looked at every 2 ms, so that the flag is up in the middle of it.
            while not scalar(connection, "SELECT count(*) >= 2 FROM raw.load_batch"):
                assert time.monotonic() < deadline
                time.sleep(0.002)
        raised = time.monotonic()
        pause.raise_pause(database, reason="odd reads", by="oli")
        took = time.monotonic() - raised
        time.sleep(5)
        with database.connect(autocommit=True) as connection:
            before = scalar(connection, "SELECT count(*) FROM raw.load_batch")
            in_flight = scalar(
                connection, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest%%' AND state = 'active' AND datname = current_database()"
            )
        late, last = entries_after(database, 2.0)
        assert services.backfill_status(backfill) == "REQUESTED"
        time.sleep(3)
        with database.connect(autocommit=True) as connection:
            assert scalar(connection, "SELECT count(*) FROM raw.load_batch") == before
            loaded = scalar(connection, "SELECT sum(upper(r) - lower(r)) FROM raw.load_batch, unnest(rows) r WHERE kind = 'interval'")
        assert 0 < loaded < whole
        assert late == 0
        assert in_flight == 0
        pause.confirm_resume(database, ask(database), by="fay")
        resumed = time.monotonic()
        services.until(lambda: services.backfill_status(backfill) == "COMPLETED_SUCCESS", 240, "the backfill's end")
        done = time.monotonic() - resumed
    assert content(database) == content(plain)
    print(f"raise {took:.3f} s; last batch {last:.3f} s after the flag; {loaded} of {whole} channel-days in; {done:.1f} s from resume to the backfill's end")
