"""A code location for the tests of the pause: one partitioned asset that writes in batches, under the real hold,
sensors, pool and jobs.

The stages of the product are left out so that a test of the queue takes seconds; the writer is the plainest one that
keeps the rule of polling before each batch on a connection of its own.
"""

import os
import time
from datetime import date

import dagster as dg

from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import PauseGuard
from meter_pipeline.defs.pause import jobs as pause
from meter_pipeline.defs.pause import sensors as pause_sensors

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2027-01-02", timezone="Europe/Berlin")
BATCHES = int(os.environ.get("PAUSED_BATCHES", "4"))
BATCH_S = float(os.environ.get("PAUSED_BATCH_S", "0.05"))


@dg.asset(partitions_def=DAYS, pool=policy.POOL, backfill_policy=dg.BackfillPolicy.multi_run(1))
def written(
    context: dg.AssetExecutionContext, municipality: Municipality, pause_guard: PauseGuard
) -> dg.MaterializeResult[None]:
    """BATCHES batches a day, each committed with the time it began."""
    database = municipality.database()
    with (
        PauseProbe(database, application_name="writer", interval_s=0.1) as probe,
        database.connect("writes") as connection,
    ):
        for key in context.partition_keys:
            pause_guard.wait()
            for batch in range(BATCHES):
                probe.wait_until_resumed()
                connection.execute(
                    "INSERT INTO test_batch (day, batch, run_id) VALUES (%s, %s, %s) ON CONFLICT (day, batch) DO UPDATE SET run_id = EXCLUDED.run_id",
                    (date.fromisoformat(key), batch, context.run_id),
                )
                time.sleep(BATCH_S)
                connection.commit()
    return dg.MaterializeResult(metadata={"batches": BATCHES})


municipality = Municipality()
defs = dg.Definitions(
    assets=[written],
    jobs=[
        pause.raise_emergency_pause,
        pause.request_resume,
        pause.confirm_resume,
        pause.prune_dagster_storage,
        dg.define_asset_job("write_days", selection=["written"], executor_def=dg.in_process_executor),
    ],
    sensors=[pause_sensors.emergency_pause, pause_sensors.lost_runs],
    resources={"municipality": municipality, "pause_guard": PauseGuard(municipality=municipality)},
    executor=dg.in_process_executor,
)
