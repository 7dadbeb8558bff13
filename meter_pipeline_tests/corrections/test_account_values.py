"""Dated classes of accounts and dated tax exemptions promise: charges by class change on the day, a bill is cut there,
a correction is previewed and asks for its days alone, and rules take the class of a bill's last day."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing.back_billing.tables import bill
from meter_pipeline.corrections.apply import change_row, import_folder
from meter_pipeline.corrections.as_known import reference_rows
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.corrections.reproduce import reproduce
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.reference.importing import RowChange
from meter_pipeline.unbilled.tables import classes
from meter_pipeline_tests.billing.test_cut_bills import flat
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, agreement, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]
END = PERIODS[0][1]
#: 0.10 a kWh for residences, 0.20 for others; tax of 50 percent, not for municipal accounts and not with a certificate
_USE = {
    "kind": "usage",
    "code": "USE",
    "name": "Usage",
    "by": {"attribute": "customer_class", "values": {"residential": {"rate": "0.10"}, "*": {"rate": "0.20"}}},
}
_TAX = {"kind": "tax", "code": "TAX", "name": "Tax", "percent": "50", "exempt": ["municipal"], "certificate": True}


@pytest.fixture
def city(database: Database, tmp_path: Path) -> Town:
    """A and B use 24 kWh a day: 2.40 and 1.20 of tax."""
    made = town(database, tmp_path / "town")
    tariff = {
        "tariff_id": "E-CLASS",
        "commodity": "electricity",
        "version": 1,
        "valid_from": date(2015, 1, 1),
        "document": "c.json",
    }
    made.refer({"tariffs": [tariff]}, {("E-CLASS", 1): json.dumps(flat("E-CLASS", _USE, _TAX)).encode()})
    made.refer({"agreements": [agreement(p, tariff_id="E-CLASS") for p in "AB"]})
    made.days(DAYS)
    made.issue("C1", END)
    assert [made.owed()[f"AC-{p}"] for p in "AB"] == [Decimal("10.8")] * 2
    return made


def classed(first: date, past: date | None, name: str) -> dict[str, Any]:
    return {"account_id": "AC-A", "valid_from": first, "valid_to": past, "customer_class": name}


def approve_all(city: Town) -> None:
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)


def test_a_class_that_was_another_from_a_day_on_is_charged_from_that_day(city: Town) -> None:
    folder = city.folder_of({"account_values": [classed(DAYS[1], DAYS[2], "commercial")]})
    seen = preview_folder(city.database, city.calendar, folder, clock=city.clock)
    assert [(a["account_id"], a["difference"]) for a in seen.document["money"]["accounts"]] == [("AC-A", "3.60")]
    made = import_folder(city.database, city.calendar, folder, clock=city.clock)
    assert (made.days, made.service_points) == (DAYS[1:2], 1)
    approve_all(city)
    assert [city.owed()[f"AC-{p}"] for p in "AB"] == [Decimal("14.4"), Decimal("10.8")]
    assert city.law(FIRST, END).ok
    name = f"AC-A.C1.{FIRST:%Y%m%d}.0"
    assert reproduce(city.database, city.calendar, name).identical
    now = city.clock.now() + timedelta(days=3650)
    assert "account_values" not in reference_rows(city.database, f"{name}.1")["rows"]
    assert [r["customer_class"] for r in reference_rows(city.database, f"{name}.1", now)["rows"]["account_values"]] == [
        "commercial"
    ]
    # It was the town's own account, and from the last day on.
    later = city.folder_of({"account_values": [classed(DAYS[2], None, "municipal")]})
    assert import_folder(city.database, city.calendar, later, clock=city.clock).days == DAYS[2:]
    gone = RowChange("account_values", ("AC-A", str(DAYS[1])), by="ana", why="entered for the neighbour")
    assert change_row(city.database, city.calendar, gone, clock=city.clock)[1].days == DAYS[1:2]
    approve_all(city)
    assert city.owed()["AC-A"] == Decimal("3.6") * 2 + Decimal("4.8"), "0.20 a kWh and no tax on the last day"
    with city.database.connect() as connection:
        assert bill(connection, name)[0] == "municipal"
    assert dict(classes(city.database, END).iter_rows())["AC-A"] == "municipal"
    assert dict(classes(city.database, DAYS[2]).iter_rows())["AC-A"] == "residential"
    assert city.law(FIRST, END).ok


def test_a_certificate_that_was_on_file_since_a_day_takes_its_tax_back(city: Town) -> None:
    certificate = {"service_point_id": "SP-B", "attribute": "tax_exempt", "value": "true", "valid_from": DAYS[1]}
    folder = city.folder_of({"service_attributes": [certificate]})
    assert import_folder(city.database, city.calendar, folder, clock=city.clock).days == DAYS[1:]
    approve_all(city)
    assert city.owed()["AC-B"] == Decimal("8.4")
    assert reproduce(city.database, city.calendar, f"AC-B.C1.{FIRST:%Y%m%d}.0").identical


def test_two_classes_on_one_day_and_an_unknown_account_are_refused(city: Town) -> None:
    first = city.folder_of({"account_values": [classed(DAYS[0], None, "commercial")]})
    import_folder(city.database, city.calendar, first, clock=city.clock)
    for row, fault in (
        (classed(DAYS[1], None, "municipal"), "in force at the same time"),
        (classed(DAYS[1], None, "municipal") | {"account_id": "AC-NONE"}, "AC-NONE"),
    ):
        folder = city.folder_of({"account_values": [row]})
        with pytest.raises(ReferenceRefused) as refused:
            import_folder(city.database, city.calendar, folder, clock=city.clock)
        assert fault in "\n".join(map(str, refused.value.faults))


def test_a_price_that_moves_on_sealed_days_is_corrected_and_taken_back(city: Town) -> None:
    """The days' determinants stay as they are: what they cost is another matter."""
    city.seal(date(2026, 1, 1))
    certificate = {"service_point_id": "SP-B", "attribute": "tax_exempt", "value": "true", "valid_from": DAYS[1]}
    import_folder(city.database, city.calendar, city.folder_of({"service_attributes": [certificate]}), clock=city.clock)
    shop = city.folder_of({"account_values": [classed(DAYS[1], DAYS[2], "commercial")]})
    import_folder(city.database, city.calendar, shop, clock=city.clock)
    approve_all(city)
    assert [city.owed()[f"AC-{p}"] for p in "AB"] == [Decimal("14.4"), Decimal("8.4")]
    assert city.law(FIRST, END).ok
    gone = (("service_attributes", ("SP-B", "tax_exempt", str(DAYS[1]))), ("account_values", ("AC-A", str(DAYS[1]))))
    for table, key in gone:
        change = RowChange(table, key, by="ana", why="of the neighbour")
        change_row(city.database, city.calendar, change, clock=city.clock)
    approve_all(city)
    assert [city.owed()[f"AC-{p}"] for p in "AB"] == [Decimal("10.8")] * 2
    assert city.law(FIRST, END).ok
