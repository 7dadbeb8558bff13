"""A corrected tariff document promises: it takes the place of the wrong one on the same days as its next version, with
its money previewed and approved by two people; what was billed with the wrong one stays as it was."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_days
from meter_pipeline.corrections.apply import approve, import_folder, request
from meter_pipeline.corrections.as_known import reference_rows
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.corrections.reproduce import reproduce
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.vee import validate_billing_days
from meter_pipeline.vee.tables.true_up import waiting
from meter_pipeline_tests.billing.test_cut_bills import energy, flat
from meter_pipeline_tests.billing.test_shared_riders import FUEL, SHARED
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, agreement, town
from meter_pipeline_tests.lives.model import Rates
from meter_pipeline_tests.lives.prices import document

DAYS = [FIRST + timedelta(days=k) for k in range(6)]
ROW = {"tariff_id": "E-FLAT", "commodity": "electricity", "valid_from": date(2015, 1, 1), "document": "flat.json"}


def published(city: Town, version: int, rate: str, **more: Any) -> Path:
    """A folder with one version of the flat tariff."""
    folder = city.folder_of({"tariffs": [ROW | {"version": version} | more]})
    (folder / "tariffs").mkdir()
    body = document("E-FLAT", Rates(Decimal(0), ((None, Decimal(rate)),)))
    (folder / "tariffs" / "flat.json").write_text(json.dumps(body))
    return folder


def test_a_wrong_price_is_corrected_for_all_of_its_days(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    with pytest.raises(ReferenceRefused, match="give its row the next version number and the same dates"):
        import_folder(database, city.calendar, published(city, 1, "0.12"), clock=city.clock)
    employ(database)
    corrected = published(city, 2, "0.12")
    seen = preview_folder(database, city.calendar, corrected, clock=city.clock)
    assert (seen.document["days"], seen.document["service_points"], seen.issued) == (6, 3, True)
    assert {a["account_id"]: (a["old"], a["new"]) for a in seen.document["money"]["accounts"]} == {
        "AC-A": ("14.40", "17.28"),
        "AC-B": ("14.40", "17.28"),
        "AC-R": ("6.00", "7.20"),
    }
    with pytest.raises(ReferenceRefused, match="two people"):
        import_folder(database, city.calendar, corrected, clock=city.clock)
    asked = request(database, seen.digest, by="ana", reason="the council's sheet says 0.12", clock=city.clock)
    assert approve(database, asked.request_id, by="ben", reason="sheet seen", clock=city.clock).days == DAYS
    # Validation reads no price: the days are billed again and not judged again.
    validated = dict(validate_billing_days(database, city.calendar, DAYS, clock=city.clock))
    assert [(v.service_points, v.ledger_entry, v.balanced) for v in validated.values()] == [(0, None, True)] * 6
    assert all(check.passed for check in validated[FIRST].report().checks)
    assert waiting(database) == []
    billed = dict(bill_billing_days(database, city.calendar, DAYS, clock=city.clock))
    assert {day: o.service_points for day, o in billed.items()} == dict.fromkeys(DAYS, 3)
    assert city.settle() == []
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    city.issue("C1", PERIODS[1][1])
    assert city.owed() == {"AC-A": Decimal("17.28"), "AC-B": Decimal("17.28"), "AC-R": Decimal("7.2")}
    assert city.law(FIRST, PERIODS[1][1]).ok
    names = [f"AC-A.C1.{first:%Y%m%d}.0" for first, _ in PERIODS]
    assert [reproduce(database, city.calendar, name).identical for name in names] == [True, True]
    then, now = (reference_rows(database, f"{name}.1")["rows"]["tariffs"] for name in names)
    assert ([row["version"] for row in then], [row["version"] for row in now]) == ([1], [2])
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ref.tariff_document WHERE tariff_id = 'E-FLAT'") == 2
    assert import_folder(database, city.calendar, corrected, clock=city.clock).days == []


def test_a_version_on_other_days_takes_no_place(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    for more in ({"valid_from": FIRST}, {"valid_to": DAYS[2]}):
        with pytest.raises(ReferenceRefused, match="in force at the same time"):
            import_folder(database, city.calendar, published(city, 2, "0.12", **more), clock=city.clock)


def riders(city: Town, *versions: tuple[int, str, date, date | None], by: str = "service_date") -> Path:
    """A folder with versions of the rider: number, rate, first day, day after the last."""
    rows = [
        {
            "tariff_id": "FUEL",
            "commodity": "electricity",
            "version": n,
            "valid_from": first,
            "valid_to": past,
            "document": f"fuel-{n}.json",
        }
        for n, _, first, past in versions
    ]
    folder = city.folder_of({"tariffs": rows})
    (folder / "tariffs").mkdir()
    fuel, franchise = FUEL["charges"]
    for n, rate, first, _ in versions:
        body = FUEL | {
            "valid_from": str(first),
            "by": by,
            "charges": [fuel | {"rate": rate}, franchise | {"percent": "0"}],
        }
        (folder / "tariffs" / f"fuel-{n}.json").write_text(json.dumps(body))
    return folder


def test_a_rider_asks_for_the_days_of_the_tariffs_that_share_it(database: Database, tmp_path: Path) -> None:
    """A is on a tariff with the rider: 24 kWh a day at 0.10 and fuel of 0.01. B's has none."""
    city, begun = town(database, tmp_path / "town"), date(2020, 1, 1)
    import_folder(database, city.calendar, riders(city, (1, "0.01", begun, None)), clock=city.clock)
    tariff = ROW | {"tariff_id": "E-FUEL", "version": 1}
    body = json.dumps(flat("E-FUEL", energy("0.10"), SHARED)).encode()
    city.refer({"tariffs": [tariff], "agreements": [agreement("A", tariff_id="E-FUEL")]}, {("E-FUEL", 1): body})
    city.days(DAYS[:4])
    city.issue("C1", PERIODS[0][1])
    assert city.owed()["AC-A"] == Decimal("10.56")
    # The factor was wrong from its first day: 0.02 is right.
    made = import_folder(database, city.calendar, riders(city, (2, "0.02", begun, None)), clock=city.clock)
    assert (made.days, made.service_points) == (DAYS[:4], 1)
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.owed()["AC-A"] == Decimal("11.52")
    # The next factor, from the third day on, comes when that day is billed already.
    both = riders(city, (2, "0.02", begun, DAYS[2]), (3, "0.12", DAYS[2], None))
    assert import_folder(database, city.calendar, both, clock=city.clock).days == DAYS[2:4]
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.owed()["AC-A"] == Decimal("11.52") + 2 * Decimal("2.4")
    assert city.owed()["AC-B"] == Decimal("9.6")
    assert reproduce(database, city.calendar, f"AC-A.C1.{FIRST:%Y%m%d}.0").identical
    assert city.law(FIRST, DAYS[3] + timedelta(days=1)).ok


def test_a_rider_by_the_bills_date_asks_from_the_first_day_of_the_period(database: Database, tmp_path: Path) -> None:
    """The factor of the day on which the period ends counts for all of its days: 72 kWh at 0.10 and at 0.01 or 0.12."""
    city, begun = town(database, tmp_path / "town"), date(2020, 1, 1)
    import_folder(database, city.calendar, riders(city, (1, "0.01", begun, None), by="bill_date"), clock=city.clock)
    body = json.dumps(flat("E-FUEL", energy("0.10"), SHARED)).encode()
    tariff = ROW | {"tariff_id": "E-FUEL", "version": 1}
    city.refer({"tariffs": [tariff], "agreements": [agreement("A", tariff_id="E-FUEL")]}, {("E-FUEL", 1): body})
    city.days(DAYS[:3])
    city.issue("C1", PERIODS[0][1])
    assert city.owed()["AC-A"] == Decimal("7.92")
    both = riders(city, (1, "0.01", begun, DAYS[2]), (2, "0.12", DAYS[2], None), by="bill_date")
    assert import_folder(database, city.calendar, both, clock=city.clock).days == DAYS[:3]
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.owed()["AC-A"] == Decimal("15.84")
    assert city.law(FIRST, DAYS[3]).ok
