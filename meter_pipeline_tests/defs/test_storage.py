"""Dagster's storage keeps its sessions, and outlives a server that ends them."""

from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance

from meter_pipeline.defs.lib import storage
from meter_pipeline.deployment import dagster_url
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import ROOT


@dg.op
def _say(context: dg.OpExecutionContext) -> None:
    for line in range(40):
        context.log_event(dg.AssetObservation(f"line_{line}"))


@dg.job
def _talks() -> None:
    _say()


def sessions(database: Database) -> list[int]:
    """Processes of the sessions of Dagster's storage."""
    rows = database.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = '' "
        "AND backend_type = 'client backend' ORDER BY pid"
    )
    return [row["pid"] for row in rows]


def test_a_run_of_many_events_uses_few_sessions_and_new_ones_where_they_were_ended(
    database: Database, server: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METER_PIPELINE_DAGSTER_URL", dagster_url(database.url))
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert _talks.execute_in_process(instance=instance).success
        first = sessions(database)
        assert 1 <= len(first) <= storage.KEPT
        assert _talks.execute_in_process(instance=instance).success
        assert set(first) <= set(sessions(database))
        with server.connect(autocommit=True) as other:
            for pid in first:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        assert _talks.execute_in_process(instance=instance).success
        assert len(instance.get_runs()) == 3
        assert not set(first) & set(sessions(database))
        with instance.event_log_storage._connect() as connection:  # type: ignore[attr-defined]
            kept = connection.exec_driver_sql("SHOW idle_session_timeout").scalar()
        assert kept == f"{storage.IDLE_S // 60}min"
    # The code server makes another for each tick of a sensor.
    last = sessions(database)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert len(instance.get_runs()) == 3
    assert sessions(database) == last
