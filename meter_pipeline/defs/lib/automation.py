"""Whether schedules and sensors start switched on: in a deployment yes, in a checkout's demo no.

A deployment runs by itself after `meter-pipeline services up`. In the demo they stay off, so that a newcomer's backfill
is the only thing that runs. A switch that a person sets in the Dagster UI wins over both.
"""

from __future__ import annotations

import dagster as dg

from meter_pipeline.settings import automation_on, load_settings


def schedule_status() -> dg.DefaultScheduleStatus:
    """The default of a schedule, from the deployment's settings."""
    load_settings()
    return dg.DefaultScheduleStatus.RUNNING if automation_on() else dg.DefaultScheduleStatus.STOPPED


def sensor_status() -> dg.DefaultSensorStatus:
    """The default of a sensor, from the deployment's settings."""
    load_settings()
    return dg.DefaultSensorStatus.RUNNING if automation_on() else dg.DefaultSensorStatus.STOPPED
