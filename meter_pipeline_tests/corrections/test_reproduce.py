"""Reproduction promises: an issued statement is rebuilt to the byte from what was known then, whatever was corrected
since.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.corrections.as_known import AsKnownError, reference_rows
from meter_pipeline.corrections.reproduce import ReproduceError, reproduce
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, agreement, channel, town

DAYS = [FIRST + timedelta(days=k) for k in range(6)]


def test_a_statement_is_rebuilt_to_the_byte_after_corrections_of_its_ratio_tariff_and_payer(
    database: Database, tmp_path: Path
) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    names = [f"AC-{p}.C1.{FIRST:%Y%m%d}.0" for p in "ABR"]
    for rows in (
        {"channels": [channel("R", 20)]},
        {"agreements": [agreement("A", tariff_id="E-DEAR")]},
        {
            "agreements": [
                agreement("B", valid_to=date(2026, 1, 6)),
                agreement("B", account_id="AC-X", valid_from=date(2026, 1, 6)),
            ]
        },
    ):
        import_folder(database, city.calendar, city.folder_of(rows), clock=city.clock)
        city.settle()
        for _, adjustment in city.waiting_adjustments():
            city.decide(adjustment, approve=True)
        assert [reproduce(database, city.calendar, n).identical for n in names] == [True] * 3
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM billing.charge_day_version") > 0
    city.issue("C1", PERIODS[1][1])
    later = reproduce(database, city.calendar, f"AC-R.C1.{PERIODS[1][0]:%Y%m%d}.0")
    assert later.identical
    assert later.known_from > reproduce(database, city.calendar, names[2]).known_from


def test_a_line_that_was_changed_is_found(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:3])
    city.issue("C1", PERIODS[0][1])
    name = f"AC-A.C1.{FIRST:%Y%m%d}.0"
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "UPDATE billing.charge_day SET energy_to_date = ARRAY[energy_to_date[1] + 1000000] WHERE service_point_id = 'SP-A'"
        )
    found = reproduce(database, city.calendar, name)
    assert not found.identical
    assert [(d["line_key"], d["issued"], d["rebuilt"]) for d in found.differing] == [
        ("USE/all/1", 7_200_000, 7_300_000)
    ]
    with pytest.raises(ReproduceError, match="no statement X"):
        reproduce(database, city.calendar, "X")


def test_the_reference_rows_behind_a_line_are_those_known_when_it_was_issued(
    database: Database, tmp_path: Path
) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:3])
    city.issue("C1", PERIODS[0][1])
    line = f"AC-R.C1.{FIRST:%Y%m%d}.0.1"
    issued = reference_rows(database, line)
    assert [c["multiplier"] for c in issued["rows"]["channels"]] == [1]
    dated = {"meter_id": "MR", "channel": "R1", "valid_from": DAYS[1], "multiplier": 4}
    for rows in ({"channels": [channel("R", 20)]}, {"channel_values": [dated]}):
        import_folder(database, city.calendar, city.folder_of(rows), clock=city.clock)
    assert reference_rows(database, line) == issued
    now = reference_rows(database, line, datetime.now(UTC))
    assert [c["multiplier"] for c in now["rows"]["channels"]] == [20]
    assert [c["multiplier"] for c in now["rows"]["channel_values"]] == [4]
    assert {"service_points", "agreements", "accounts", "tariffs", "installations", "meters"} <= set(issued["rows"])
    assert {c["meter_id"] for c in now["rows"]["channels"]} == {"MR"}
    with pytest.raises(AsKnownError, match="no line"):
        reference_rows(database, f"AC-R.C1.{FIRST:%Y%m%d}.0.99")
