"""The code location promises: it loads, its assets are what the UI shows, a billing day runs end to end, and a range
tells each day apart."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from meter_pipeline.defs.lib import partitions, policy
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.support import ROOT

START = date(2026, 10, 30)


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Any:
    """A small simulated city as the configured municipality, with definitions loaded for it."""
    data = tmp_path / "data"
    simulate(Spec(meters=12, days=3, start=START, seed=5), data)
    past = 1_700_000_000
    for path in (data / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (past, past))
    monkeypatch.setenv("METER_PIPELINE_DATA", str(data))
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METER_PIPELINE_INBOX", str(data / "inbox"))
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    from meter_pipeline.defs import jobs

    for cached in (partitions.billing_days, partitions.billing_months, jobs.billing_day_job):
        cached.cache_clear()
    from meter_pipeline.definitions import build_defs

    yield build_defs()
    for cached in (partitions.billing_days, partitions.billing_months, jobs.billing_day_job):
        cached.cache_clear()


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, **where: Any) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False, **where)


def checks_of(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], set[str | None]]:
    """(asset, check) -> the partitions it was evaluated for, of the checks that passed."""
    found: dict[tuple[str, str], set[str | None]] = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            data: Any = event.event_specific_data
            assert data.passed, (data.check_name, data.description, data.metadata)
            found.setdefault((data.asset_key.to_user_string(), data.check_name), set()).add(data.partition)
    return found


def test_every_asset_says_what_an_analyst_needs(city: dg.Definitions) -> None:
    graph = city.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.group_name in {
            policy.REFERENCE,
            policy.INGEST,
            policy.VALIDATION,
            policy.DETECTION,
            policy.BILLING,
            policy.AUDIT,
            policy.MIGRATION,
        }
        assert node.owners, key
        assert node.kinds, key
        assert "dagster/table_name" in node.metadata or key == dg.AssetKey("close_report"), (
            f"{key}: of all assets only the report is a file"
        )
        assert node.pools == {policy.POOL}, f"{key} would run through an emergency pause"
        assert "dagster/code_references" in node.metadata, key
        if key == dg.AssetKey("close_report"):
            continue
        columns = node.metadata["dagster/column_schema"].columns
        assert columns, key
        assert all(column.description for column in columns), key
        if node.group_name == policy.REFERENCE:
            continue  # files of people: nothing is upstream of them, and they change when something changes
        assert node.metadata["dagster/column_lineage"].deps_by_column, key
        assert "column lineage" in node.metadata, key
        on_demand = node.group_name == policy.MIGRATION or key.path[-1] in ("winter_averages", "rate_study")
        assert node.freshness_policy is not None or on_demand, (
            f"{key}: only the migration, a rate study, and a winter's averages where a rule asks for them, are made when asked for"
        )


def test_every_table_of_a_billing_day_is_checked_against_its_contract(city: dg.Definitions) -> None:
    checked = {
        (key.asset_key.to_user_string(), key.name)
        for key in city.resolve_asset_graph().asset_check_keys
        if key.name.startswith("schema_of_")
    }
    assert checked >= {
        ("raw_reads", "schema_of_raw_interval_day"),
        ("raw_reads", "schema_of_raw_register_read"),
        ("validated_intervals", "schema_of_vee_interval_day"),
        ("daily_usage", "schema_of_vee_daily_usage"),
        ("anomaly_flags", "schema_of_anomaly_flag"),
        ("reconciled_billing", "schema_of_billing_determinant_day"),
        ("reconciled_billing", "schema_of_billing_charge_day"),
    }


@pytest.mark.slow
def test_dagster_validates_a_checkout_as_it_stands(tmp_path: Path) -> None:
    """As somebody types it in the project's folder, nothing set but where the embedded server lives: dagster.yaml is
    found there, and finds it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("METER_PIPELINE_", "DAGSTER_"))}
    plain["METER_PIPELINE_HOME"] = str(tmp_path)
    command = [str(Path(sys.executable).parent / "dagster"), "definitions", "validate"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=600, check=False)
    finally:
        embedded.cluster(tmp_path).delete()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "All code locations passed validation" in done.stdout + done.stderr


def test_a_billing_day_runs_from_files_to_a_signed_checkpoint(city: dg.Definitions, database: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(city, instance, "import_reference_data").success
        assert run(city, instance, "land_feeds").success
        result = run(city, instance, "billing_day", partition_key=START.isoformat())
        assert result.success, [e.message for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
        checks = checks_of(result)
        assert {partition for found in checks.values() for partition in found} == {START.isoformat()}
        assert ("raw_reads", "control_totals") in checks
        assert ("reconciled_billing", "reconciliation") in checks
        assert {("ledger_before_billing", "ledger_verifies"), ("ledger_checkpoint", "ledger_verifies")} <= set(checks)
        materialized = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}
        days_own = {
            "raw_reads",
            "validated_intervals",
            "daily_usage",
            "weather",
            "anomaly_flags",
            "reconciled_billing",
            "statements",
            "ledger_checkpoint",
            "ledger_before_billing",
            "close_report",
        }
        assert materialized == days_own
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM billing.charge_day") > 0
        assert (
            scalar(connection, "SELECT count(*) FROM billing.reconciliation WHERE cause IN ('open', 'unexplained')")
            == 0
        )
        assert scalar(connection, "SELECT count(*) FROM ledger.checkpoint") > 0


def test_a_read_changed_behind_the_ledger_stops_the_days_billing_and_raises_the_pause(
    city: dg.Definitions, database: Database
) -> None:
    from meter_pipeline.control.watch import watch

    with dg.DagsterInstance.ephemeral() as instance:
        run(city, instance, "import_reference_data")
        run(city, instance, "land_feeds")
        job = city.resolve_implicit_global_asset_job_def()
        reads = job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("raw_reads")], partition_key=START.isoformat()
        )
        assert reads.success
        with database.connect("dba") as connection:
            changed = connection.execute(
                "UPDATE raw.register_read SET value = value + 1 WHERE billing_day = %s AND payloads = 1", (START,)
            ).rowcount
            changed += connection.execute(
                "UPDATE raw.interval_day SET values[1] = values[1] + 1 WHERE billing_day = %s AND payloads = 1",
                (START,),
            ).rowcount
        assert changed > 0
        result = run(city, instance, "billing_day", partition_key=START.isoformat())
        assert not result.success
        materialized = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key}
        assert "ledger_before_billing" in materialized
        assert not materialized & {"reconciled_billing", "statements", "ledger_checkpoint"}
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM billing.charge_day") == 0
    assert [state.rule for state in watch(database).raised] == ["ledger"]


def test_the_guards_are_compared_on_a_schedule_and_a_deviation_raises_the_pause(
    city: dg.Definitions, database: Database
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(city, instance, "check_ledger_guards").success
        with database.connect("dba") as connection:
            connection.execute("GRANT UPDATE ON ledger.entry TO meter_ledger_writer")
        assert not run(city, instance, "check_ledger_guards").success
    with database.connect() as connection:
        assert scalar(connection, "SELECT rule FROM control.emergency_pause WHERE state = 'paused'") == "ledger"
        said = scalar(
            connection,
            "SELECT convert_from(body, 'UTF8') FROM ledger.entry WHERE kind = 'verified' ORDER BY entry_id DESC LIMIT 1",
        )
    assert "meter_ledger_writer may UPDATE entry" in str(said)
    schedule = city.resolve_schedule_def("check_guards_hourly")
    assert (schedule.cron_schedule, schedule.job_name) == ("25 * * * *", "check_ledger_guards")


TABLES = (
    "raw.interval_day",
    "raw.register_read",
    "vee.interval_day",
    "vee.daily_usage",
    "billing.determinant_day",
    "billing.charge_day",
)


def contents(database: Database) -> dict[str, str]:
    """A hash of every row of the stage tables, times of writing left out."""
    found = {}
    for table in TABLES:
        row = database.read(
            f"SELECT coalesce(md5(string_agg(h, '' ORDER BY h)), '') AS h FROM (SELECT md5(t::text) AS h FROM {table} t) x"
        )
        found[table] = row["h"][0]
    return found


def test_a_second_run_of_a_day_writes_the_same_bytes(city: dg.Definitions, database: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run(city, instance, "import_reference_data")
        run(city, instance, "land_feeds")
        assert run(city, instance, "billing_day", partition_key=START.isoformat()).success
        before = contents(database)
        assert run(city, instance, "land_feeds").success
        assert run(city, instance, "billing_day", partition_key=START.isoformat()).success
        assert contents(database) == before


def test_a_range_in_one_run_tells_every_day_apart(city: dg.Definitions) -> None:
    days = [(START + timedelta(days=n)).isoformat() for n in range(2)]
    with dg.DagsterInstance.ephemeral() as instance:
        run(city, instance, "import_reference_data")
        run(city, instance, "land_feeds")
        tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
        result = run(city, instance, "billing_day", tags=tags)
        assert result.success
        for (asset, check), found in checks_of(result).items():
            assert set(days) <= found, (asset, check)
        rows: dict[str, set[int]] = {}
        for event in result.get_asset_materialization_events():
            data: Any = event.step_materialization_data.materialization
            if event.asset_key == dg.AssetKey("raw_reads"):
                rows[data.partition] = {v.value for k, v in data.metadata.items() if k == "dagster/partition_row_count"}
        assert set(rows) == set(days)
        assert all(rows.values())


def test_the_arrival_sensors_ask_for_exactly_the_days_a_file_touches(city: dg.Definitions, database: Database) -> None:
    from meter_pipeline.defs.lib.resources import Municipality
    from meter_pipeline.defs.sensors import feed_arrival, touched_days_sensor

    with dg.DagsterInstance.ephemeral() as instance:
        run(city, instance, "import_reference_data")
        asked: Any = feed_arrival(
            dg.build_sensor_context(instance=instance, definitions=city), municipality=Municipality()
        )
        again: Any = feed_arrival(
            dg.build_sensor_context(instance=instance, definitions=city), municipality=Municipality()
        )
        assert isinstance(asked, dg.RunRequest)
        # Dagster runs one key once; ten minutes may have begun between the two ticks.
        assert str(asked.run_key).split(":")[0] == str(again.run_key).split(":")[0]
        run(city, instance, "land_feeds")
        landed: Any = feed_arrival(
            dg.build_sensor_context(instance=instance, definitions=city), municipality=Municipality()
        )
        assert isinstance(landed, dg.SkipReason)
        answer: Any = touched_days_sensor()(
            dg.build_sensor_context(instance=instance, definitions=city), municipality=Municipality()
        )
        requests = list(answer)
        asked_days = {r.partition_key for r in requests if isinstance(r, dg.RunRequest)}
    with database.connect() as connection:
        touched = {str(row[0]) for row in connection.execute("SELECT DISTINCT billing_day FROM raw.feed_file_day")}
    assert asked_days == touched
    assert len({r.run_key for r in requests}) == len(requests)


def test_a_faulty_reference_folder_fails_the_run_with_every_fault_listed(city: dg.Definitions) -> None:
    folder = Path(os.environ["METER_PIPELINE_DATA"]) / "reference"
    (folder / "meters.csv").write_text("meter_id,commodity\nM 1,steam\n")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(city, instance, "import_reference_data")
        assert not result.success
        failure: Any = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE").event_specific_data
        assert "column missing" in json.dumps(str(failure.user_failure_data))
