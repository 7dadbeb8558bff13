"""PostgreSQL, which holds the reads, the pause and Dagster's own record, is restarted in the middle of a billing day's
stages: the run goes on by itself and ends as if nothing had happened; killed outright (as by the kernel), the run ends
or is retried, and the day is whole."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from meter_pipeline.defs.lib import policy
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database, scalar
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.defs.content import content
from meter_pipeline_tests.defs.services import Services
from meter_pipeline_tests.defs.test_pause_mid_day import SIGNS

DAY = date(2026, 10, 28)
METERS = 4_000


@pytest.fixture
def own() -> Iterator[embedded.Cluster]:
    """A server of the test's own, with fsync as in production, that it may stop and kill."""
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-restart-"))
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    cluster.start()
    yield cluster
    cluster.delete()


def until_sign(database: Database, sign: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    with database.connect(autocommit=True) as connection:
        while not scalar(connection, sign):
            assert time.monotonic() < deadline, sign
            time.sleep(0.002)


def launched(services: Services) -> str | None:
    try:
        return services.launch(
            "raise_emergency_pause", {"ops": {"raise_the_pause": {"config": {"raised_by": "oli", "reason": "drill"}}}}
        )
    except AssertionError:
        return None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_day_goes_on_through_a_restart_of_the_server(own: embedded.Cluster, how: str, tmp_path: Path) -> None:
    city = tmp_path / "city"
    simulate(Spec(meters=METERS, days=1, start=DAY, mix="electricity", formats=("delimited",), defects=False), city)
    for path in (city / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    env = {"METER_PIPELINE_DATA": str(city), "METER_PIPELINE_INBOX": str(city / "inbox")}
    contents = []
    for name in ("plain", "disturbed"):
        database = ensure_database(Database(own.url("postgres")), name)
        migrate(database)
        with Services(tmp_path / name, database, "meter_pipeline.definitions", env=env) as services:
            for job in ("import_reference_data", "land_feeds"):
                assert services.finished(services.launch(job), 240) == "SUCCESS"
            services.until(lambda: services.pool_limit(policy.POOL) == 2, 60, "the pool's limit")
            run = services.launch("billing_day", tags={"dagster/partition": DAY.isoformat()})
            if name == "disturbed":
                for stage in ("raw_reads", "validated_intervals") if how == "restarted" else ("raw_reads",):
                    until_sign(database, SIGNS[stage])
                    began = time.monotonic()
                    own.stop() if how == "restarted" else own.kill()
                    time.sleep(1.0)
                    own.start()
                    print(f"{stage}: server {how}, away {time.monotonic() - began:.1f} s")
            ended = services.finished(run, 300)
            print(f"{name} {how}: first run {ended}")
            if ended != "SUCCESS":
                services.until(lambda: services.statuses().count("SUCCESS") == 3, 300, "the retry")
            if name == "disturbed" and how == "restarted":
                assert ended == "SUCCESS"
            # The web server pools its connections: what is clicked first after a restart may meet a dead one, and is
            # clicked again.
            after = services.until(lambda: launched(services), 60, "a launch")
            assert services.finished(after, 120) == "SUCCESS", "the queue goes on"
            with database.connect(autocommit=True) as connection:
                held = scalar(
                    connection,
                    "SELECT count(*) FROM dagster.concurrency_slots WHERE run_id IS NOT NULL AND NOT deleted",
                )
                assert held == 0, "slots are freed"
        contents.append(content(database))
    plain, disturbed = contents
    assert {name: digest for name, digest in disturbed.items() if digest != plain[name]} == {}


def test_which_errors_mean_that_the_server_went_away(database: Database) -> None:
    from meter_pipeline.postgres.database import connection_lost

    with database.connect(autocommit=True) as connection, database.connect(autocommit=True) as other:
        connection.execute("SELECT pg_terminate_backend(%s)", (other.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError) as lost:
            other.execute("SELECT 1")
        with pytest.raises(psycopg.Error) as wrong:
            connection.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.OperationalError) as cancelled:
            connection.execute("SET statement_timeout = 10; SELECT pg_sleep(1)")
    assert connection_lost(lost.value)
    assert not connection_lost(wrong.value)
    assert not connection_lost(cancelled.value)
    with pytest.raises(psycopg.OperationalError) as refused:
        Database("postgresql://x@127.0.0.1:9/x").connect()
    assert connection_lost(refused.value)
