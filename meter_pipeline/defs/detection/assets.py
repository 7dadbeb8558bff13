"""Baselines and anomaly flags. Flags go to people and never change a billed quantity."""

from datetime import date

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.report_metadata import metadata
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import PauseGuard
from meter_pipeline.defs.lib.stage_asset import stage_asset, until_done
from meter_pipeline.defs.lib.table_metadata import table_metadata
from meter_pipeline.schemas.report import StageReport


@dg.asset(
    name="baselines",
    group_name=policy.DETECTION,
    description="What each service point is expected to use at a given temperature: degree-day models refitted on their own schedule and versioned.",
    deps=[
        dg.AssetDep("daily_usage"),
        dg.AssetDep(dg.AssetKey(["reference", "weather"])),
        dg.AssetDep(dg.AssetKey(["reference", "weather_stations"])),
    ],
    pool=policy.POOL,
    metadata=table_metadata("anomaly.baseline"),
)
def baselines(
    context: dg.AssetExecutionContext, municipality: Municipality, pause_guard: PauseGuard
) -> dg.MaterializeResult[None]:
    """Fit every service point with enough history; the rest keep their class profile."""
    from meter_pipeline.anomalies import refit_baselines

    database = municipality.acting_as(policy.ROLES[policy.DETECTION]).database()
    outcome = until_done(
        context, pause_guard, lambda: refit_baselines(database, municipality.calendar(), clock=municipality.clock())
    )
    return dg.MaterializeResult(metadata=metadata(outcome.report(), partitioned=False))


def _anomaly_flags(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.anomalies import detect_billing_day

    return detect_billing_day(
        municipality.database(), municipality.calendar(), day, clock=municipality.clock()
    ).report()


def anomaly_flags() -> dg.AssetsDefinition:
    """Detection runs beside billing: nothing billed waits for it but the accounts it holds."""
    return stage_asset(
        "anomaly_flags",
        _anomaly_flags,
        group=policy.DETECTION,
        description=(
            "Service points that behaved unlike themselves on the day: beyond three standard deviations of their weather baseline, or with the signature "
            "of a leak, tampering or a lost connection. Each with its evidence; people decide."
        ),
        deps=["daily_usage", "weather"],
        checks={
            "every_flag_has_evidence": "Each flag names what was expected, what was observed and the baseline it used."
        },
        table="anomaly.flag",
        blocking=False,
    )


def _weather(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.anomalies.weather import weather_day

    return weather_day(municipality.database(), day).report()


def weather() -> dg.AssetsDefinition:
    """The day's temperature, which flags use. Missing weather delays flags, never billing."""
    return stage_asset(
        "weather",
        _weather,
        group=policy.DETECTION,
        description="The day's temperature at every station, from files or reference data. A station without one delays its flags, and never a bill.",
        deps=[("reference", "weather"), ("reference", "weather_stations")],
        checks={
            "some_station_has_the_day": "Flags that need the weather wait until a station has the day; bills do not."
        },
        table="anomaly.weather_day",
        blocking=False,
    )
