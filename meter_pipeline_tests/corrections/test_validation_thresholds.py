"""Dated thresholds of validation promise: a threshold that changes from a day on judges the days from then on, days
before it are judged as they were when they run again, and the ledger's entry of a day tells them apart."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections.apply import change_row, import_folder
from meter_pipeline.corrections.as_known import reference_rows
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.reference.importing import RowChange
from meter_pipeline.vee import validate_billing_day
from meter_pipeline.vee.dated_thresholds import register_tolerance_on, thresholds_on
from meter_pipeline.vee.rules.thresholds import default
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]


def limit(name: str, first: date, past: date | None, value: str) -> dict[str, Any]:
    return {"threshold": name, "valid_from": first, "valid_to": past, "value": value}


def thresholds(city: Town, *rows: dict[str, Any]) -> Path:
    return city.folder_of({"validation_thresholds": rows})


def hashes(city: Town) -> list[str]:
    """By day, the hash of the thresholds in the last ledger entry of its validation."""
    found = city.database.read(
        "SELECT DISTINCT ON (day) day, sha FROM (SELECT entry_id, convert_from(body, 'UTF8')::jsonb -> 'body' ->> 'billing_day' AS day, "
        "convert_from(body, 'UTF8')::jsonb -> 'body' ->> 'rules_sha256' AS sha FROM ledger.entry) AS e WHERE sha IS NOT NULL ORDER BY day, entry_id DESC"
    )
    return [str(sha) for sha in found["sha"]]


def test_a_limit_that_was_another_from_a_day_on_judges_the_days_from_then_on(
    database: Database, tmp_path: Path
) -> None:
    """A uses 1 kWh an hour. From the second day on no residence may use more than 0.5: its reads are refused
    and estimated."""
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    folder = thresholds(city, limit("range.residential.kWh", DAYS[1], DAYS[2], "0.5"))
    seen = preview_folder(database, city.calendar, folder, clock=city.clock)
    assert (seen.document["days"], seen.document["service_points"]) == (1, 3)
    made = import_folder(database, city.calendar, folder, clock=city.clock)
    assert made.days == DAYS[1:2]
    city.settle()
    estimated = "SELECT DISTINCT billing_day FROM vee.interval_day WHERE estimated > 0 ORDER BY 1"
    assert database.read(estimated)["billing_day"].to_list() == DAYS[1:2]
    first, second, third = hashes(city)
    assert first == third == default().digest
    assert second == thresholds_on(database, DAYS[1]).digest != first
    # Another reason to judge the first day again: it is judged as it was.
    assert (
        validate_billing_day(database, city.calendar, DAYS[0], clock=city.clock).report().figures["changed_rows"] == 0
    )
    rows = reference_rows(database, f"AC-A.C1.{FIRST:%Y%m%d}.0.1", city.clock.now() + timedelta(days=3650))["rows"]
    assert [row["value"] for row in rows["validation_thresholds"]] == [Decimal("0.5")]
    gone = RowChange("validation_thresholds", ("range.residential.kWh", str(DAYS[1])), by="ana", why="of another city")
    assert change_row(database, city.calendar, gone, clock=city.clock)[1].days == DAYS[1:2]
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.owed() == {"AC-A": Decimal("7.2"), "AC-B": Decimal("7.2"), "AC-R": Decimal(3)}
    assert set(hashes(city)) == {default().digest}
    assert city.law(FIRST, PERIODS[0][1]).ok


def test_values_take_the_place_of_the_files(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    rows = [
        limit("sum_check.register_units", DAYS[0], None, "3"),
        limit("high_low.sigmas", DAYS[0], None, "5.5"),
        limit("range.municipal.kVArh", DAYS[0], None, "70"),
    ]
    import_folder(database, city.calendar, thresholds(city, *rows), clock=city.clock)
    held = thresholds_on(database, DAYS[0])
    assert (held.sum_register_units, held.high_low_sigmas, held.version) == (3, 5.5, default().version)
    assert held.limit_per_hour("municipal", "kVArh") == 70_000_000
    assert thresholds_on(database, FIRST - timedelta(days=1)) == default()
    with database.connect() as connection:
        assert register_tolerance_on(connection, DAYS[0]) == held.register_tolerance != default().register_tolerance


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        (
            "spike.procent",
            "2",
            "validation_thresholds.csv:2: threshold: thresholds cannot be read: spike.procent is no",
        ),
        ("sum_check.register_units", "2.5", "sum_check.register_units is a whole number, not 2.5"),
        ("range.residential.kwh", "2", "did you mean kWh"),
        ("sum_check.multiplier_suspects.ratios", "2", "is no threshold with one value"),
        ("version", "9", "version is no threshold"),
    ],
)
def test_a_threshold_that_nothing_reads_is_refused_with_its_line(
    tmp_path: Path, name: str, value: str, fault: str
) -> None:
    from meter_pipeline.reference.folder import read_folder

    (tmp_path / "validation_thresholds.csv").write_text(
        f"threshold,valid_from,valid_to,value\n{name},2026-01-01,,{value}\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert fault in "\n".join(map(str, refused.value.faults))
