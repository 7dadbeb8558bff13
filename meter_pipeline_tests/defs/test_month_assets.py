"""The month's assets promise: each materialises through Dagster in the role of its group, and its checks look at the
rows of the whole month."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
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

UNITS = native(
    "E-UNITS",
    time_of_use={"periods": ["all"], "default": "all", "rules": []},
    charges=[
        {"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": "0.10"},
        {"kind": "fixed", "code": "STORM", "name": "Stormwater", "amount": "7.35", "times": "eru"},
    ],
)


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[dg.Definitions]:
    """A service with two days in July, in a zone whose supply meter counts a kilowatt hour more a day; and one with two
    bills of a day, estimated, that pays for two and a half stormwater units."""
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
        connection.execute("INSERT INTO ref.attribute_names VALUES ('eru', 'count', 'stormwater units')")
        connection.execute("INSERT INTO ref.service_attributes VALUES ('SP-002', 'eru', '2.5', '2020-01-01', NULL)")
        connection.execute(
            "INSERT INTO ref.estimate_limits VALUES ('*', '*', '*', 1, 'read_request', true, '2020-01-01', NULL)"
        )
    add_tariff(database, UNITS)
    add_cycle(database, *days(JULY, 3), cycle_id="C2")
    other = add_service(database, 2, "E-UNITS", cycle="C2")
    for day in days(JULY, 2):
        put_intervals(database, day, {point: [1000] * 24})
        put_intervals(database, day, {other: [2000] * 24}, estimated=24)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        issue_statements(database, CHICAGO, "C2", day + timedelta(days=1), clock=CLOCK)
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


def said(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str | None]]:
    """Whether each check passed, and what it said."""
    assert not [e.message for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    checks: list[Any] = [
        e.event_specific_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {check.check_name: (check.passed, check.description) for check in checks}


def test_the_assets_of_a_month_materialise_and_their_checks_see_all_its_rows(
    city: dg.Definitions, database: Database
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = city.resolve_implicit_global_asset_job_def()
        asked: dict[str, Any] = {
            "instance": instance,
            "asset_selection": [dg.AssetKey(name) for name in MONTH_ASSETS],
            "partition_key": "2026-07-01",
            "raise_on_error": False,
        }
        result = job.execute_in_process(**asked)
        found = said(result)
        shown = {
            name: result.asset_materializations_for_node(name)[0].metadata
            for name in ("estimated_bills", "unit_charges")
        }
        with database.connect() as connection:
            connection.execute("UPDATE billing.estimated_bill SET in_a_row = 3 WHERE in_a_row = 2")
            connection.execute("DELETE FROM ref.service_attributes")
        again = said(job.execute_in_process(**asked))
    assert all(passed for passed, _ in found.values()), found
    assert found["schema_of_billing_zone_day"][1] == "2 rows keep the contract of billing.zone_day"
    assert found["schema_of_billing_estimated_bill"][1] == "2 rows keep the contract of billing.estimated_bill"
    assert found["journal_balances"][1] == "debits equal credits in 2 lines"
    assert found["every_service_has_an_average"][1] == "no rule is in force on 2026-08-01"
    assert shown["estimated_bills"]["bills"].value == 2
    assert shown["unit_charges"]["service days"].value == 2
    assert {name for name, values in shown.items() if any("image/png" in str(v.value) for v in values.values())} == set(
        shown
    )
    assert again["estimates_are_counted"] == (False, "A-002 SP-002 to 2026-07-03: 3 in a row, and no 2 before it")
    assert again["counts_are_charged"] == (False, "SP-002 STORM: charged, and no count is in force")


def test_a_rate_study_is_an_asset_and_refuses_by_name(city: dg.Definitions, database: Database, tmp_path: Path) -> None:
    """Two bills of 48 kWh: 0.02 a kWh dearer is 0.96 more each."""
    proposed = UNITS | {"tariff_id": "E-NEW", "charges": [UNITS["charges"][0] | {"rate": "0.12"}, UNITS["charges"][1]]}
    (tmp_path / "new.json").write_text(json.dumps(proposed))
    config = {
        "tariff": [str(tmp_path / "new.json")],
        "replaces": ["E-UNITS"],
        "from_day": "2026-07-01",
        "to_day": "2026-07-03",
        "by": "ana",
        "html": str(tmp_path / "study.html"),
    }
    job = city.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:

        def run(**changes: Any) -> dg.ExecuteInProcessResult:
            return job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey("rate_study")],
                run_config={"ops": {"rate_study": {"config": config | changes}}},
                raise_on_error=False,
            )

        result = run()
        refused = run(customer_class="industrial")
    assert said(result) == {
        "bills_are_reproduced": (True, "2 bills come out as billed, to the millionth"),
        "schema_of_billing_rate_study": (True, "1 rows keep the contract of billing.rate_study"),
    }
    values = result.asset_materializations_for_node("rate_study")[0].metadata
    assert (values["bills"].value, values["difference"].value) == (2, "1.920000")
    assert sum("image/png" in str(value.value) for value in values.values()) == 2
    assert "comes out as billed" in (tmp_path / "study.html").read_text()
    assert database.rows("SELECT study_id FROM analyst.rate_studies") == [{"study_id": values["study"].value}]
    (why,) = [str(e.event_specific_data.user_failure_data.description) for e in refused.all_events if e.is_step_failure]  # type: ignore[union-attr]
    assert why.startswith("nothing was studied: ")
    assert "industrial" in why
