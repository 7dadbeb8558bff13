"""A pause raised while a stage computes: nothing of it is written, and after the resume the day is what it would have
been."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from meter_pipeline.control import pause
from meter_pipeline.control.pause_check import PausedError
from meter_pipeline.defs.lib import partitions
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.control.test_pause import ask
from meter_pipeline_tests.defs.content import content
from meter_pipeline_tests.support import copy_database

DAY = date(2026, 10, 30)
#: stage -> (where it computes, a table it fills)
STAGES = {
    "vee": ("meter_pipeline.vee.day.validate_matrix", "vee.interval_day"),
    "anomalies": ("meter_pipeline.anomalies.commodity_points.detect_in_parts", "anomaly.flag_run"),
    "billing": ("meter_pipeline.billing.day_shards.accrue", "billing.charge_day"),
}


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    data = tmp_path / "data"
    simulate(Spec(meters=12, days=1, start=DAY, seed=5), data)
    for path in (data / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    monkeypatch.setenv("METER_PIPELINE_DATA", str(data))
    monkeypatch.setenv("METER_PIPELINE_INBOX", str(data / "inbox"))
    from meter_pipeline.defs import jobs

    cached = (partitions.billing_days, partitions.billing_months, jobs.billing_day_job)
    for one in cached:
        one.cache_clear()
    from meter_pipeline.definitions import build_defs

    yield build_defs()
    for one in cached:
        one.cache_clear()


def bill(definitions: dg.Definitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for name, partition in (
            ("import_reference_data", None),
            ("land_feeds", None),
            ("billing_day", DAY.isoformat()),
        ):
            job = definitions.resolve_job_def(name)
            done = job.execute_in_process(instance=instance, raise_on_error=False, partition_key=partition)
            assert done.success, [
                e.event_specific_data for e in done.all_events if e.event_type_value == "STEP_FAILURE"
            ]


def test_a_day_paused_in_the_middle_of_each_stage_is_the_same_day(
    city: dg.Definitions,
    server: Database,
    template: Database,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In each stage the pause comes after it has read and before it writes; two people end it a second later, when
    nothing may be there."""
    plain = copy_database(server, f"{database.name}_plain", template.name)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "plain"))
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", plain.url)
    bill(city)

    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    written: dict[str, int] = {}
    timers: list[threading.Timer] = []

    def resume(stage: str, table: str) -> None:
        with database.connect(autocommit=True) as connection:
            written[stage] = scalar(connection, f"SELECT count(*) FROM {table}")
        pause.confirm_resume(database, ask(database), by="fay")

    def interrupted(stage: str, compute: Any, table: str) -> Any:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            made = compute(*arguments, **named)
            if stage not in written:
                written[stage] = -1
                pause.raise_pause(database, reason=f"odd {stage}", by="oli")
                timers.append(threading.Timer(1.0, resume, (stage, table)))
                timers[-1].start()
            return made

        return wrapper

    for stage, (where, table) in STAGES.items():
        module, _, name = where.rpartition(".")
        import importlib

        monkeypatch.setattr(where, interrupted(stage, getattr(importlib.import_module(module), name), table))
    bill(city)
    for timer in timers:
        timer.join()
    assert written == dict.fromkeys(STAGES, 0)
    expected = content(plain)
    assert {name: digest for name, digest in content(database).items() if digest != expected[name]} == {}
    filled = {
        "raw.interval_day",
        "vee.interval_day",
        "vee.daily_usage",
        "billing.determinant_day",
        "billing.charge_day",
    }
    assert {table for table in filled if expected[table].startswith("0:")} == set(), (
        "every stage wrote, or equal tables would prove nothing"
    )


def test_a_stage_called_by_itself_says_that_it_is_held(database: Database) -> None:
    from meter_pipeline.calendar import BillingCalendar
    from meter_pipeline.vee import validate_billing_day

    pause.raise_pause(database, reason="odd reads", by="oli")
    with pytest.raises(PausedError, match=r"PAUSED .* Nothing of this stage was written"):
        validate_billing_day(database, BillingCalendar("Europe/Berlin"), DAY)
