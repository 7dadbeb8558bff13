"""Heat content of gas promises: it is dated by zone, a value that is corrected later moves the bills of that zone's
services on its days and no others, and a zone without a value makes its services wait."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections.apply import approve, change_row, import_folder, request
from meter_pipeline.corrections.as_known import reference_rows
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.corrections.reproduce import reproduce
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.reference.importing import RowChange
from meter_pipeline_tests.billing.test_cut_bills import energy, flat
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, agreement, point

DAYS = [FIRST + timedelta(days=k) for k in range(6)]
MONTH = PERIODS[0][1]
ACCOUNTS = "NSO"
_HEAD_END = """name = "GAS"
format = "delimited"
commodity = "gas"
kind = "register"
unit = "ft3"
[columns]
meter_id = "m"
channel = "c"
time = "t"
value = "v"
source_version = "ver"
"""
_TARIFF = flat(
    "G-FLAT",
    energy("10.00"),
    commodity="gas",
    unit="therm",
    heat_content=[{"from": "2015-01-01", "therms_per_ccf": "1.00"}],
)


class GasTown(Town):
    """Houses that use 100 cubic feet a day, at 10.00 a therm: N of zone north, S of south, O that names no zone."""

    def begin(self) -> None:
        (self.folder / "data" / "head_ends" / "gas.toml").write_text(_HEAD_END)
        (self.folder / "data" / "inbox" / "GAS").mkdir()
        tariff = {
            "tariff_id": "G-FLAT",
            "commodity": "gas",
            "version": 1,
            "valid_from": date(2015, 1, 1),
            "document": "g.json",
        }
        self.refer({"tariffs": [tariff]}, {("G-FLAT", 1): json.dumps(_TARIFF).encode()})
        installed = self.calendar.bounds(FIRST)[0]
        self.refer(
            {
                "billing_cycles": [{"cycle_id": "C1", "period_start": a, "period_end": b} for a, b in PERIODS],
                "service_points": [point(p, commodity="gas") for p in ACCOUNTS],
                "meters": [{"meter_id": f"M{p}", "commodity": "gas", "head_end": "GAS"} for p in ACCOUNTS],
                "channels": [
                    {
                        "meter_id": f"M{p}",
                        "channel": "R1",
                        "kind": "register",
                        "unit": "ft3",
                        "flow": "import",
                        "multiplier": 1,
                        "dials": 6,
                        "billed": True,
                    }
                    for p in ACCOUNTS
                ],
                "installations": [
                    {"service_point_id": f"SP-{p}", "meter_id": f"M{p}", "installed_at": installed, "install_read": 0}
                    for p in ACCOUNTS
                ],
                "accounts": [
                    {"account_id": f"AC-{p}", "customer_class": "residential", "opened": date(2015, 1, 1)}
                    for p in ACCOUNTS
                ],
                "agreements": [agreement(p, tariff_id="G-FLAT") for p in ACCOUNTS],
                "service_attributes": [zone("N", "NORTH"), zone("S", "south")],
                "heat_contents": [heat("NORTH", FIRST, None, "1.10"), heat("SOUTH", FIRST, None, "0.95")],
            }
        )

    def reads(self, days: Any) -> None:
        self.read(
            [
                ("GAS", f"M{p}", "R1", self.calendar.bounds(day)[1], str(100 * ((day - FIRST).days + 1)), 1)
                for day in days
                for p in ACCOUNTS
            ]
        )

    def approve_all(self) -> None:
        self.settle()
        for _, adjustment in self.waiting_adjustments():
            self.decide(adjustment, approve=True)


def zone(p: str, name: str, **more: Any) -> dict[str, Any]:
    return {"service_point_id": f"SP-{p}", "attribute": "heat_zone", "value": name, "valid_from": FIRST} | more


def heat(name: str, first: date, past: date | None, therms: str) -> dict[str, Any]:
    return {"zone_id": name, "valid_from": first, "valid_to": past, "therms_per_ccf": therms}


@pytest.fixture
def city(database: Database, tmp_path: Path) -> GasTown:
    made = GasTown(database, tmp_path / "town")
    made.begin()
    return made


def owed(city: Town) -> list[Decimal]:
    return [city.owed().get(f"AC-{p}", Decimal(0)) for p in ACCOUNTS]


def test_a_value_that_is_corrected_moves_its_zone_on_its_days(city: GasTown) -> None:
    city.days(DAYS)
    city.issue("C1", MONTH)
    assert owed(city) == [Decimal(66), Decimal(57), Decimal(60)]
    employ(city.database)
    # The gas company states the second period's value of the north, and corrects the first one's.
    rows = [heat("NORTH", FIRST, MONTH, "1.12"), heat("NORTH", MONTH, None, "1.05")]
    folder = city.folder_of({"heat_contents": rows})
    seen = preview_folder(city.database, city.calendar, folder, clock=city.clock)
    assert (seen.document["days"], seen.document["service_points"], seen.issued) == (6, 1, True)
    (moved,) = seen.document["money"]["accounts"]
    assert (moved["account_id"], moved["old"], moved["new"]) == ("AC-N", "66.00", "65.10")
    asked = request(city.database, seen.digest, by="ana", reason="the company's statement", clock=city.clock)
    made = approve(city.database, asked.request_id, by="ben", reason="statement seen", clock=city.clock)
    assert (made.days, made.service_points) == (DAYS, 1)
    city.approve_all()
    assert owed(city) == [Decimal("65.1"), Decimal(57), Decimal(60)]
    assert city.law(FIRST, PERIODS[1][1]).ok
    bill = f"AC-N.C1.{FIRST:%Y%m%d}.0"
    assert reproduce(city.database, city.calendar, bill).identical
    (then,) = reference_rows(city.database, f"{bill}.1")["rows"]["heat_contents"]
    (now,) = reference_rows(city.database, f"{bill}.1", city.clock.now() + timedelta(days=3650))["rows"][
        "heat_contents"
    ]
    assert (then["therms_per_ccf"], now["therms_per_ccf"]) == (Decimal("1.10"), Decimal("1.12"))
    assert import_folder(city.database, city.calendar, folder, clock=city.clock).days == []


def test_everywhere_is_of_services_without_a_zone_and_a_zone_may_change(city: GasTown) -> None:
    city.days(DAYS[:3])
    everywhere = city.folder_of({"heat_contents": [heat("*", DAYS[1], DAYS[2], "1.20")]})
    made = import_folder(city.database, city.calendar, everywhere, clock=city.clock)
    assert (made.days, made.service_points) == (DAYS[1:2], 1)
    city.settle()
    assert owed(city) == [Decimal(33), Decimal("28.5"), Decimal(32)]
    moved = city.folder_of(
        {"service_attributes": [zone("S", "south", valid_to=DAYS[2]), zone("S", "NORTH", valid_from=DAYS[2])]}
    )
    assert import_folder(city.database, city.calendar, moved, clock=city.clock).days == DAYS[2:3]
    city.settle()
    assert owed(city) == [Decimal(33), Decimal(30), Decimal(32)]
    assert city.law(FIRST, MONTH).ok


def test_a_zone_without_a_value_waits_under_its_name(city: GasTown) -> None:
    gone = RowChange("heat_contents", ("SOUTH", str(FIRST)), by="ana", why="the company takes it back")
    change_row(city.database, city.calendar, gone, clock=city.clock)
    city.days(DAYS[:3])
    city.issue("C1", MONTH)
    assert owed(city) == [Decimal(33), Decimal(0), Decimal(30)]
    (said,) = city.database.read("SELECT detail FROM billing.statement_exception")["detail"].to_list()
    assert said.startswith(
        "SP-S: no_heat_content G-FLAT: no row of heat_contents is in force for its zone from 2026-01-05"
    )
    assert city.law(FIRST, MONTH).ok
    told = city.folder_of({"heat_contents": [heat("SOUTH", FIRST, None, "0.90")]})
    assert import_folder(city.database, city.calendar, told, clock=city.clock).days == DAYS[:3]
    city.settle()
    city.issue("C1", MONTH)
    assert owed(city) == [Decimal(33), Decimal(27), Decimal(30)]


def test_values_that_cannot_be_meant_are_refused_with_their_lines(city: GasTown) -> None:
    for rows, fault in (
        ([heat("NORTH", DAYS[0], None, "103")], "heat_contents.csv:2: therms_per_ccf: 103 is not between 0 and 10"),
        ([heat("no rth", DAYS[0], None, "1")], "heat_contents.csv:2: zone_id: 'no rth' is neither a zone in capitals"),
        ([heat("NORTH", DAYS[1], None, "1")], "in force at the same time"),
    ):
        with pytest.raises(ReferenceRefused) as refused:
            import_folder(city.database, city.calendar, city.folder_of({"heat_contents": rows}), clock=city.clock)
        assert fault in "\n".join(map(str, refused.value.faults))
