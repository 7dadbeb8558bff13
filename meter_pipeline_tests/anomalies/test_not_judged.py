"""A service whose data break a detector is not judged, and says so; the rest of the city is judged as ever."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from meter_pipeline.anomalies import detect as detection
from meter_pipeline.anomalies.day import detect_billing_day
from meter_pipeline.anomalies.refit import refit_baselines
from meter_pipeline.anomalies.window import Window
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.anomalies.streets import CALENDAR, StillClock, Streets, day, temperatures, write

DAYS = 60


@pytest.mark.parametrize("step", ["residual_flags", "flow_flags"])
def test_a_fault_of_one_point_leaves_the_findings_of_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    rng = np.random.default_rng(4)
    t = temperatures(DAYS)
    usage = np.round(rng.uniform(8, 20, (30, 1)) * rng.normal(1, 0.05, (30, DAYS)), 3)
    usage[7, -1] = -4.0
    usage[12, -6:] = 0.0
    usage[21, -1] = 123.456  # the point that will break
    streets = Streets("electricity", "kWh", usage)
    write(database, streets, t)
    refit_baselines(database, CALENDAR, clock=StillClock(), as_of=day(DAYS - 1))
    plain = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=StillClock()).flags

    original = getattr(detection, step)

    def broken(window: Window, *more: object) -> pl.DataFrame:
        if (window.usage[:, -1] == np.float32(123.456)).any():
            raise ValueError("broken data")
        found: pl.DataFrame = original(window, *more)
        return found

    monkeypatch.setattr(detection, step, broken)
    outcome = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=StillClock())
    told = outcome.flags.filter(pl.col("kind") == "not_judged")
    assert told["service_point_id"].to_list() == [streets.ids[21]]
    assert "broken data" in told["evidence"][0]
    key = ["kind", "service_point_id", "group_id"]
    others = outcome.flags.filter(pl.col("kind") != "not_judged").select(key)
    assert others.equals(plain.filter(pl.col("service_point_id") != streets.ids[21]).select(key))
    assert all(check.passed for check in outcome.report().checks)


def test_a_fault_of_the_program_is_raised(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    streets = Streets("electricity", "kWh", np.full((30, DAYS), 10.0))
    write(database, streets, temperatures(DAYS))

    def broken(*_: object) -> pl.DataFrame:
        raise ValueError("the program's own fault")

    monkeypatch.setattr(detection, "residual_flags", broken)
    with pytest.raises(ValueError, match="own fault"):
        detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=StillClock())
