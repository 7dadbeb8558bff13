"""Every stage, check, job and sensor runs under a log-in that owns nothing, each in the database role it has in
production."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from meter_pipeline.anomalies import detect_billing_day
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.control import pause
from meter_pipeline.defs import alerts, sensors
from meter_pipeline.defs.lib import partitions, pause_pool
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.migration import jobs as migration
from meter_pipeline.defs.pause import sensors as pause_sensors
from meter_pipeline.deployment import CONSOLE_ROLE, dagster_url
from meter_pipeline.migration import cutover, shadow
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.dagster_storage import prune
from meter_pipeline.postgres.database import Database
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.control.test_pause import CHECKED

START = date(2026, 10, 29)
ROLES = (
    "meter_console",
    "meter_ingest",
    "meter_billing",
    "meter_finance",
    "meter_notary",
    "meter_shadow",
    "meter_migration",
    "meter_auditor",
)


@pytest.fixture
def service(database: Database) -> Iterator[Database]:
    """The same database under a log-in of least privilege: it inherits nothing and may only act in the
    services' roles.
    """
    privileges.apply(database)
    name = f"svc_{uuid.uuid4().hex[:10]}"
    with database.connect(autocommit=True) as connection:
        members = sql.SQL(", ").join(map(sql.Identifier, ROLES))
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOINHERIT PASSWORD 'svc' IN ROLE {}").format(sql.Identifier(name), members)
        )
    parts = urlsplit(database.url)
    yield Database(urlunsplit(parts._replace(netloc=f"{name}:svc@{parts.netloc.rpartition('@')[2]}")))
    with database.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def deployed(service: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    """Definitions for a simulated city, on the service's log-in, with roles on."""
    data = tmp_path / "data"
    simulate(Spec(meters=12, days=2, start=START, seed=5), data)
    for path in (data / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    for name, value in {
        "METER_PIPELINE_DATA": str(data),
        "METER_PIPELINE_HOME": str(tmp_path / "home"),
        "METER_PIPELINE_INBOX": str(data / "inbox"),
        "METER_PIPELINE_DATABASE_URL": service.url,
        "METER_PIPELINE_ROLES": "on",
    }.items():
        monkeypatch.setenv(name, value)
    from meter_pipeline.defs import jobs

    cached = (partitions.billing_days, partitions.billing_months, jobs.billing_day_job)
    for one in cached:
        one.cache_clear()
    from meter_pipeline.definitions import build_defs

    yield build_defs()
    for one in cached:
        one.cache_clear()


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, **where: Any) -> None:
    done = definitions.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **where)
    assert done.success, [
        (e.step_key, e.event_specific_data) for e in done.all_events if e.event_type_value == "STEP_FAILURE"
    ]


def test_the_log_in_alone_may_do_nothing(service: Database) -> None:
    with service.connect() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT count(*) FROM raw.interval_day")


def test_every_stage_runs_in_its_own_role(deployed: dg.Definitions, database: Database) -> None:
    """Reference, landing, two billing days with their checks and checkpoint, baselines, the month's checklist, the
    comparison; a rerun too."""
    with dg.DagsterInstance.ephemeral() as instance:
        run(deployed, instance, "import_reference_data")
        run(deployed, instance, "land_feeds")
        for day in (START, START + timedelta(days=1), START):
            run(deployed, instance, "billing_day", partition_key=day.isoformat())
        run(deployed, instance, "refit_baselines")
        everything = deployed.resolve_implicit_global_asset_job_def()
        for asset, partition in (
            ("month_end_close", "2026-10-01"),
            ("migration_comparison", START.isoformat()),
            ("published_bills", START.isoformat()),
        ):
            done = everything.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(asset)], partition_key=partition, raise_on_error=False
            )
            failed = [e.event_specific_data for e in done.all_events if e.event_type_value == "STEP_FAILURE"]
            assert not failed, (asset, failed)
    calendar, day = Municipality().calendar(), START + timedelta(days=1)
    with database.connect(autocommit=True) as connection:
        connection.execute(
            "DELETE FROM vee.daily_usage WHERE billing_day = %s", (day,)
        )  # so that there is something to write
        connection.execute("DELETE FROM billing.charge_day WHERE billing_day = %s", (day,))
    for stage, wrong in (
        (validate_billing_day, "meter_billing"),
        (bill_billing_day, "meter_ingest"),
        (detect_billing_day, "meter_finance"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stage(Municipality(role=wrong).database(), calendar, day)


def test_dagster_keeps_its_runs_in_a_role_that_reads_no_meter(
    service: Database, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are made by the deployment; the services then only use them. Setting the pause's pool and pruning are
    among that use."""
    (tmp_path / "dagster.yaml").write_text(
        "storage:\n  postgres:\n    postgres_url: {env: METER_PIPELINE_DAGSTER_URL}\ntelemetry: {enabled: false}\n"
    )
    monkeypatch.setenv("METER_PIPELINE_DAGSTER_URL", dagster_url(database.url))
    with dg.DagsterInstance.from_config(str(tmp_path)):
        privileges.apply(database)
    monkeypatch.setenv("METER_PIPELINE_DAGSTER_URL", dagster_url(service.url, CONSOLE_ROLE))

    @dg.asset
    def made() -> None:
        """Anything."""

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert pause_pool.open_or_shut(instance, Municipality(database_url=database.url)) == (
            None,
            pause_pool.pool_limit(),
        )
        done = dg.materialize([made], instance=instance)
        assert done.success
        assert instance.get_latest_materialization_event(dg.AssetKey("made")) is not None
    prune(service.acting_as("meter_ingest"), datetime.now(UTC) + timedelta(minutes=1))
    with service.connect(role=CONSOLE_ROLE) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT count(*) FROM raw.interval_day")


def test_people_end_a_pause_in_finance_s_role_and_sensors_cannot(deployed: dg.Definitions, service: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run(
            deployed,
            instance,
            "raise_emergency_pause",
            run_config={"ops": {"raise_the_pause": {"config": {"raised_by": "ann", "reason": "odd reads"}}}},
        )
        checked = {f"verified_{key}": said for key, said in CHECKED.items()}
        asked = {"requested_by": "ann", "reason": "fixed", **checked}
        run(deployed, instance, "request_resume", run_config={"ops": {"ask_to_resume": {"config": asked}}})
        with service.connect(role="meter_auditor") as connection:
            request = int(pause.status(connection)["pending"][0]["request"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pause.confirm_resume(Municipality().database(), request, by="bob")
        confirmed = {"request": request, "confirmed_by": "bob", "reason": "looked"}
        run(deployed, instance, "confirm_resume", run_config={"ops": {"confirm_the_resume": {"config": confirmed}}})
        with service.connect(role="meter_auditor") as connection:
            assert pause.is_paused(connection) is None


def test_every_sensor_ticks_in_the_services_role(deployed: dg.Definitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for sensor in (
            *pause_sensors.SENSORS,
            *migration.SENSORS,
            alerts.send_alerts,
            sensors.feed_arrival,
            sensors.touched_days_sensor(),
        ):
            with dg.build_sensor_context(instance=instance, definitions=deployed) as context:
                said: Any = sensor(context, municipality=Municipality())
                if not isinstance(said, dg.SkipReason | dg.RunRequest):
                    said = list(said)
                assert said, sensor.name


def test_the_migration_goes_from_the_ui_in_its_own_roles(
    deployed: dg.Definitions, database: Database, server: Database
) -> None:
    """Shadow: a whole day beside legacy, compared, the gate's page linked and drawn. Dual write, and back. The
    authoritative tables stay empty."""
    with dg.DagsterInstance.ephemeral() as instance:
        step = {"stage": "shadow", "by": "ann", "reason": "parallel run"}
        asked = {"ops": {"take_a_step": {"config": step}}}
        early = deployed.resolve_job_def("migrate_advance").execute_in_process(
            instance=instance, run_config=asked, raise_on_error=False
        )
        assert not early.success, "making the shadow is the deployment's right"
        shadow.prepare(database)
        try:
            run(deployed, instance, "migrate_advance", run_config=asked)
            run(deployed, instance, "migrate_compare", partition_key=START.isoformat())
            run(deployed, instance, "migrate_status")
            told = instance.get_latest_materialization_event(dg.AssetKey("migration_comparison"))
            assert told is not None
            assert told.asset_materialization is not None
            metadata = told.asset_materialization.metadata
            page = Path(urlsplit(str(metadata["gate page"].value)).path)
            assert "The gate is <span class=open>shut</span>" in page.read_text("utf-8")
            assert "data:image/png" in str(metadata["gate"].value)
            run(
                deployed,
                instance,
                "migrate_advance",
                run_config={"ops": {"take_a_step": {"config": step | {"stage": "dual_write"}}}},
            )
            back = {"by": "ann", "reason": "drill", "to": "shadow"}
            run(deployed, instance, "migrate_rollback", run_config={"ops": {"go_back": {"config": back}}})
        finally:
            with server.connect(autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                        sql.Identifier(database.name + shadow.SUFFIX)
                    )
                )
    with database.connect() as connection:
        assert connection.execute(
            "SELECT (SELECT count(*) FROM raw.interval_day), (SELECT count(*) FROM billing.charge_day)"
        ).fetchone() == (0, 0)
        assert cutover.peek(database).value["stage"] == "shadow"
