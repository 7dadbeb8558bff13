"""A month of a small city promises, through Dagster: every day runs, the cycle that ends with it is stated, two people
close the month, and a closed month refuses every service role."""

import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from meter_pipeline.billing.close import approve_close, request_close
from meter_pipeline.defs.lib import partitions
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.defs.test_definitions import run

OCTOBER = date(2026, 10, 1)
ROLES = ("meter_ingest", "meter_billing", "meter_finance", "meter_auditor")


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[dg.Definitions]:
    """A clean city of one billing cycle, its October in the inbox."""
    data = tmp_path / "data"
    simulate(Spec(meters=8, days=31, start=OCTOBER, seed=5, interval_minutes=60, defects=False), data)
    agreements = data / "reference" / "agreements.csv"
    text = agreements.read_text()
    for k in (2, 3, 4):
        text = text.replace(f"CYCLE-{k}", "CYCLE-1")
    agreements.write_text(text)
    for path in (data / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
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


@pytest.mark.slow
def test_a_month_is_billed_stated_closed_by_two_people_and_sealed(month: dg.Definitions, database: Database) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(month, instance, "import_reference_data").success
        assert run(month, instance, "land_feeds").success
        tags = {"dagster/asset_partition_range_start": "2026-10-01", "dagster/asset_partition_range_end": "2026-10-31"}
        result = run(month, instance, "billing_day", tags=tags)
        assert result.success, [e.message for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
        # An account may hold electricity, water and gas: one statement for all of them.
        accounts = database.read("SELECT count(DISTINCT account_id)::int AS n FROM ref.agreements")["n"][0]
        assert (
            database.read("SELECT count(*)::int AS n FROM billing.statement WHERE period_end = '2026-11-01'")["n"][0]
            == accounts
        )
        whole = month.resolve_implicit_global_asset_job_def()
        shown = whole.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("month_end_close")], partition_key="2026-10-01"
        )
        metadata = shown.asset_materializations_for_node("month_end_close")[0].metadata
        assert metadata["ready"].value, metadata["checklist"].value
    points = request_close(database, OCTOBER, person="accountant")
    assert all(point["ok"] for point in points), points
    seal = approve_close(database, OCTOBER, person="controller")
    assert seal.control_totals["statements"]["count"] == accounts
    assert seal.control_totals["charge_days"]["count"] == 8 * 31
    tables = {
        "determinant_day": "billing_day",
        "charge_day": "billing_day",
        "statement": "posting_month",
        "statement_line": "posting_month",
    }
    with database.connect() as connection:
        known = {
            r
            for (r,) in connection.execute(
                "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),)
            ).fetchall()
        }
        before = {
            t: scalar(connection, f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM billing.{t} AS t")
            for t in tables
        }
    assert known == set(ROLES)
    fresh = json.dumps({"service_point_id": "SP-NEW", "statement_id": "NEW", "line_no": 99, "revision": 9})
    privileges.apply(database)
    for role in ROLES:
        # Who may write billing at all is stopped by the seal (a statement also by its lines); the others have no right
        # to begin with.
        refused = psycopg.IntegrityError if role == "meter_billing" else psycopg.errors.InsufficientPrivilege
        for table, column in tables.items():
            for change in (
                f"INSERT INTO billing.{table} SELECT (jsonb_populate_record(t, '{fresh}')).* FROM billing.{table} AS t LIMIT 1",
                f"UPDATE billing.{table} SET {column} = {column}",
                f"DELETE FROM billing.{table}",
            ):
                with database.connect(role=role) as connection:
                    with pytest.raises(refused):
                        connection.execute(change.encode())
                    connection.rollback()
    with database.connect() as connection:
        assert {
            t: scalar(connection, f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM billing.{t} AS t")
            for t in tables
        } == before
