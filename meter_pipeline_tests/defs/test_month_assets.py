"""The month's assets promise: each materialises through Dagster in the role of its group, and its checks look at the
rows of the whole month."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.cli.run import MONTH_ASSETS
from meter_pipeline.defs.lib import partitions
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
    put_intervals,
)


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[dg.Definitions]:
    """A service with two days in July, in a zone whose supply meter counts a kilowatt hour more a day."""
    (tmp_path / "utility.toml").write_text(
        'name = "Springfield"\nzone = "America/Chicago"\ncurrency = "USD"\nfirst_billing_day = "2026-07-01"\n'
    )
    add_tariff(database, native())
    add_cycle(database, JULY, date(2026, 8, 1))
    point = add_service(database, 1)
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.zones VALUES ('F-1', 'feeder', 'electricity', 'Main', NULL, '2020-01-01', NULL)"
        )
        connection.execute("INSERT INTO ref.zone_members VALUES ('SP-001', 'F-1', '2020-01-01', NULL)")
        connection.execute("INSERT INTO ref.zone_supplies VALUES ('F-1', 'SP-900', 'in', '2020-01-01', NULL)")
        connection.execute(
            "INSERT INTO ref.revenue_accounts VALUES ('*', '*', '*', '4400', '1310', '2020-01-01', NULL)"
        )
    for day in days(JULY, 2):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        put_daily(database, day, {"SP-900": 25_000_000}, "kWh", "electricity")
    privileges.apply(database)
    for name, value in (("DATA", tmp_path), ("HOME", tmp_path / "home"), ("DATABASE_URL", database.url)):
        monkeypatch.setenv(f"METER_PIPELINE_{name}", str(value))
    for cached in (partitions.billing_days, partitions.billing_months):
        cached.cache_clear()
    from meter_pipeline.definitions import build_defs

    yield build_defs()
    for cached in (partitions.billing_days, partitions.billing_months):
        cached.cache_clear()


def test_the_assets_of_a_month_materialise_and_their_checks_see_all_its_rows(city: dg.Definitions) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = city.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name) for name in MONTH_ASSETS],
            partition_key="2026-07-01",
            raise_on_error=False,
        )
    assert not [e.message for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    checks: list[Any] = [
        e.event_specific_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    said = {check.check_name: (check.passed, check.description) for check in checks}
    assert all(passed for passed, _ in said.values()), said
    assert said["schema_of_billing_zone_day"][1] == "2 rows keep the contract of billing.zone_day"
    assert said["journal_balances"][1] == "debits equal credits in 2 lines"
    assert said["every_service_has_an_average"][1] == "no rule is in force on 2026-08-01"
