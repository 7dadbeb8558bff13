"""Detection runs beside billing: killed in the middle of its day, it takes nothing with it, and the day's ingestion,
validation and billing finish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from meter_pipeline.defs import jobs
from meter_pipeline.defs.lib import partitions
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.simulator import Spec, simulate

DAY = date(2026, 10, 30)
#: A run of detection alone, in a process of its own.
DETECTION = f"""
import dagster as dg
from meter_pipeline.definitions import build_defs
with dg.DagsterInstance.ephemeral() as instance:
    build_defs().resolve_job_def("billing_day").execute_in_process(
        instance=instance, partition_key="{DAY.isoformat()}", asset_selection=[dg.AssetKey("anomaly_flags")])
"""
#: Detection's backends that wait for a lock: for the table, once it has packed the day, judged it and written its
# cases; or for another detection.
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'meter-pipeline anomalies' AND wait_event_type = 'Lock'"


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[dg.Definitions]:
    data = tmp_path / "data"
    simulate(Spec(meters=12, days=1, start=DAY, seed=5), data)
    for path in (data / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    for name, value in {
        "DATA": data,
        "HOME": tmp_path / "home",
        "INBOX": data / "inbox",
        "DATABASE_URL": database.url,
    }.items():
        monkeypatch.setenv(f"METER_PIPELINE_{name}", str(value))
    from meter_pipeline.definitions import build_defs

    cached = (partitions.billing_days, partitions.billing_months, jobs.billing_day_job)
    for function in cached:
        function.cache_clear()
    yield build_defs()
    for function in cached:
        function.cache_clear()


def run(city: dg.Definitions, job: str, **where: Any) -> tuple[bool, set[str], set[str]]:
    """Whether a job succeeded, what it materialised, and the steps that failed."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = city.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **where)
        done = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}
        failed = {str(e.step_key) for e in result.all_events if e.event_type_value == "STEP_FAILURE"}
    return result.success, done, failed


def stalled(connection: Any, within: float, child: subprocess.Popen[bytes]) -> int | None:
    """The backend of detection once it waits in the middle of its transaction; None where its process ends or the time
    does."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and child.poll() is None:
        row = connection.execute(f"{WAITING} AND wait_event = 'relation'").fetchone()
        if row:
            return int(row[0])
        time.sleep(0.02)
    return None


def figures(database: Database) -> dict[str, str]:
    """What was billed and what was flagged, as digests."""
    return {
        table: str(
            database.read(
                f"SELECT coalesce(md5(string_agg(t::text, '' ORDER BY t::text)), '') AS h FROM (SELECT * FROM {table}) t"
            )["h"][0]
        )
        for table in ("billing.charge_day", "billing.determinant_day", "vee.daily_usage", "anomaly.flag")
    }


@pytest.mark.timeout(1200)
def test_a_detection_killed_in_the_middle_stops_nothing_and_is_done_again(
    city: dg.Definitions, database: Database, tmp_path: Path
) -> None:
    assert run(city, "import_reference_data")[0]
    assert run(city, "land_feeds")[0]
    partition = {"partition_key": DAY.isoformat()}
    before = {"raw_reads", "validated_intervals", "daily_usage"}
    assert run(city, "billing_day", asset_selection=[dg.AssetKey(name) for name in sorted(before)], **partition)[0]
    with database.connect() as holder, database.connect(autocommit=True) as watcher:
        holder.execute("LOCK TABLE anomaly.flag IN EXCLUSIVE MODE")
        # killed outright, its own process and nobody else's
        with (tmp_path / "detection.log").open("wb") as log:
            child = subprocess.Popen([sys.executable, "-c", DETECTION], stdout=log, stderr=log)
            try:
                assert stalled(watcher, 400, child), (tmp_path / "detection.log").read_text()[-3000:]
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
        # its orphaned backend still waits, and all the rest of the day goes on; a detection in the same run is cut off
        # too
        cut: list[int] = []

        def cut_off() -> None:
            watching = time.monotonic() + 200
            orphans = {row[0] for row in watcher.execute(WAITING).fetchall()}
            while time.monotonic() < watching and not cut:
                waiting = [row[0] for row in watcher.execute(WAITING).fetchall() if row[0] not in orphans]
                for pid in waiting:
                    watcher.execute("SELECT pg_cancel_backend(%s)", (pid,))
                    cut.append(pid)
                time.sleep(0.02)

        cutting = threading.Thread(target=cut_off)
        cutting.start()
        success, done, failed = run(city, "billing_day", **partition)
        cutting.join()
        assert (success, failed, len(cut)) == (False, {"anomaly_flags"}, 1)
        assert done >= before | {"reconciled_billing", "statements", "ledger_checkpoint"}
        assert scalar(watcher, "SELECT count(*) FROM anomaly.exception_case") == 0, (
            "what was killed left no case, and so no hold"
        )
        assert int(scalar(watcher, "SELECT count(*) FROM billing.charge_day")) > 0
        neither = (
            "SELECT count(*) FROM vee.daily_usage AS u WHERE flow = 'import' AND account_id IS NOT NULL AND NOT EXISTS (SELECT FROM billing.charge_day AS c "
            "WHERE c.service_point_id = u.service_point_id AND c.billing_day = u.billing_day) AND NOT EXISTS (SELECT FROM billing.exception_day AS e "
            "WHERE e.service_point_id = u.service_point_id AND e.billing_day = u.billing_day)"
        )
        assert scalar(watcher, neither) == 0, "every service is charged, or says why not"
        assert (
            scalar(watcher, "SELECT count(*) FROM billing.reconciliation WHERE cause IN ('open', 'unexplained')") == 0
        )
        holder.rollback()
    first = figures(database)
    success, done, failed = run(city, "billing_day", asset_selection=[dg.AssetKey("anomaly_flags")], **partition)
    assert (success, failed) == (True, set())
    with database.connect(autocommit=True) as connection:
        assert scalar(connection, "SELECT count(*) FROM anomaly.flag_run") == 1
    after = figures(database)
    assert {k: v for k, v in after.items() if k != "anomaly.flag"} == {
        k: v for k, v in first.items() if k != "anomaly.flag"
    }


def test_baselines_are_refitted_on_a_schedule_of_their_own(city: dg.Definitions) -> None:
    refit = city.resolve_schedule_def("refit_baselines_weekly")
    daily = city.resolve_schedule_def("close_of_billing_day")
    assert isinstance(refit, dg.ScheduleDefinition)
    assert (refit.cron_schedule, refit.job_name != daily.job_name) == ("30 6 * * 0", True)
    assert refit.execution_timezone == daily.execution_timezone
