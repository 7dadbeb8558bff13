"""Dagster's own tables, where its instance offers no call: pruning."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from meter_pipeline.postgres.database import Database

#: Event kinds that are kept for ever: those of assets and runs. Events of steps are deleted. As of dagster 1.13.
KEPT: Final = (
    "ASSET_MATERIALIZATION",
    "ASSET_MATERIALIZATION_PLANNED",
    "ASSET_FAILED_TO_MATERIALIZE",
    "ASSET_OBSERVATION",
    "ASSET_CHECK_EVALUATION",
    "ASSET_CHECK_EVALUATION_PLANNED",
    "PIPELINE_START",
    "PIPELINE_SUCCESS",
    "PIPELINE_FAILURE",
    "PIPELINE_CANCELED",
)
#: Rows deleted in one transaction: short enough that the daemon never waits a second for a lock.
_CHUNK: Final = 20_000

_EVENTS: Final = """
DELETE FROM dagster.event_logs WHERE id IN (
    SELECT e.id FROM dagster.event_logs e JOIN dagster.runs r ON r.run_id = e.run_id
    WHERE e.timestamp < %(before)s AND r.status IN ('SUCCESS', 'FAILURE', 'CANCELED')
      AND (e.dagster_event_type IS NULL OR e.dagster_event_type <> ALL (%(kept)s))
    ORDER BY e.id LIMIT %(chunk)s)
"""
_TICKS: Final = """
DELETE FROM dagster.job_ticks WHERE id IN (
    SELECT id FROM dagster.job_ticks WHERE timestamp < %(before)s AND status <> 'STARTED' ORDER BY id LIMIT %(chunk)s)
"""


def prune(database: Database, before: datetime) -> dict[str, int]:
    """Delete how finished runs went about their work, and ticks, older than ``before`` (UTC). Returns rows deleted and
    kept, by table.

    Materialisations, check results, observations and the starts and ends of runs are kept, and so is every run.
    """
    done = {"event_logs": 0, "job_ticks": 0}
    # Dagster writes naive UTC.
    parameters = {"before": before.replace(tzinfo=None), "kept": list(KEPT), "chunk": _CHUNK}
    with database.connect("prune", autocommit=True) as connection:
        for table, statement in (("event_logs", _EVENTS), ("job_ticks", _TICKS)):
            while gone := connection.execute(statement, parameters).rowcount:
                done[table] += gone
        kept = connection.execute("SELECT count(*) FROM dagster.event_logs").fetchone()
    return done | {"event_logs_kept": int(kept[0]) if kept else 0}
