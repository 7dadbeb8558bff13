"""A 960,000-interval day, from files to a signed checkpoint, paused three times on the product's own definitions under
real services with the real daemon: nothing starts after the flag, what was in flight commits within two seconds, the
run waits, and after two people have resumed the result is that of a day that was never interrupted."""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.control import pause
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.control.test_pause import ask
from meter_pipeline_tests.defs.content import content
from meter_pipeline_tests.defs.services import Services
from meter_pipeline_tests.support import copy_database

DAY = date(2026, 10, 28)
METERS = 10_000
#: Every stage of the day writes under one of these names.
WRITERS = (
    "ingest-writer%",
    "vee",
    "meter-pipeline anomalies",
    "billing",
    "billing statements",
    "meter-pipeline-ledger",
)
#: The stage to interrupt -> the sign that it is at work.
SIGNS = {
    "raw_reads": "SELECT count(*) >= 2 FROM raw.load_batch",
    "validated_intervals": "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vee')",
    "reconciled_billing": "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'billing')",
}


def writing(connection: Any) -> int:
    """Transactions of the pipeline that have written something and are not committed."""
    return int(
        scalar(
            connection,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL AND application_name LIKE ANY(%s)",
            (list(WRITERS),),
        )
    )


def entries(connection: Any) -> int:
    """Ledger entries of the day's work: each batch and each stage makes one in its transaction."""
    return int(scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind NOT LIKE 'pause%%'"))


def run_day(database: Database, city: Path, home: Path, interrupted: bool) -> dict[str, dict[str, float]]:
    """Reference, landing and the billing day through GraphQL; with ``interrupted``, a pause in each of SIGNS. Figures
    by stage."""
    figures: dict[str, dict[str, float]] = {}
    env = {"METER_PIPELINE_DATA": str(city), "METER_PIPELINE_INBOX": str(city / "inbox")}
    with (
        Services(home, database, "meter_pipeline.definitions", env=env) as services,
        database.connect(autocommit=True) as connection,
    ):
        for job in ("import_reference_data", "land_feeds"):
            assert services.finished(services.launch(job), 240) == "SUCCESS"
        run = services.launch("billing_day", tags={"dagster/partition": DAY.isoformat()})
        for stage, sign in SIGNS.items() if interrupted else ():
            deadline = time.monotonic() + 240
            # A stage takes a second or two: looked at every 2 ms, so that the flag is up in the middle of it.
            while not scalar(connection, sign):
                assert time.monotonic() < deadline, stage
                time.sleep(0.002)
            before, raised, drained = entries(connection), time.monotonic(), 0.0
            pause.raise_pause(database, reason=f"odd {stage}", by="oli")
            visible = time.monotonic() - raised
            while time.monotonic() - raised < 4:
                if writing(connection):
                    drained = time.monotonic() - raised
                time.sleep(0.005)
            after = entries(connection)
            # Whatever was in flight has committed; from here on nothing may.
            time.sleep(2)
            assert (entries(connection), writing(connection)) == (after, 0), stage
            assert services.run(run)["status"] == "STARTED"
            assert drained < 2
            pause.confirm_resume(database, ask(database), by="fay")
            resumed = time.monotonic()
            services.until(lambda: entries(connection) > after, 60, f"work after the resume in {stage}")  # noqa: B023 - called at once
            figures[stage] = {
                "raise_s": visible,
                "drained_s": drained,
                "in_flight_entries": after - before,
                "first_write_after_resume_s": time.monotonic() - resumed,
            }
        assert services.finished(run, 240) == "SUCCESS"
    return figures


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_day_interrupted_by_pauses_is_the_same_day(
    server: Database, template: Database, database: Database, tmp_path: Path
) -> None:
    city = tmp_path / "city"
    simulate(Spec(meters=METERS, days=1, start=DAY, mix="electricity", formats=("delimited",), defects=False), city)
    for path in (city / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    plain = copy_database(server, f"{database.name}_plain", template.name)
    run_day(plain, city, tmp_path / "plain", interrupted=False)
    figures = run_day(database, city, tmp_path / "home", interrupted=True)
    for stage, found in figures.items():
        print(stage, {name: round(value, 3) for name, value in found.items()})
    expected, got = content(plain), content(database)
    assert {name: (digest, expected[name]) for name, digest in got.items() if digest != expected[name]} == {}
    with database.connect(autocommit=True) as connection:
        assert scalar(connection, "SELECT sum(slots) FROM raw.interval_day") >= 96 * METERS
    print({name: digest for name, digest in got.items() if name.startswith("ledger") or name.endswith("_day")})
