"""Dated programmes of channels promise: unit and interval length of an interval channel, and the channel that a
register must add up to, change on a day; reads are held to what is declared for their day."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections.apply import change_row, import_folder
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.reference.importing import RowChange
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, channel

DAYS = [FIRST + timedelta(days=k) for k in range(3)]
_QUARTERS = """name = "QUARTERS"
format = "delimited"
commodity = "electricity"
kind = "interval"
unit = "kWh"
interval_minutes = 15
[columns]
meter_id = "m"
channel = "c"
time = "t"
value = "v"
source_version = "ver"
"""


class Programmed(Town):
    """The town, with a head-end whose intervals are quarters of an hour."""

    def begin(self) -> None:
        (self.folder / "data" / "head_ends" / "quarters.toml").write_text(_QUARTERS)
        (self.folder / "data" / "inbox" / "QUARTERS").mkdir()
        super().begin()

    def quarters(self, day: Any) -> None:
        """A quarter of an hour's 0.5 kWh each for A: 48 a day."""
        start, _ = self.calendar.bounds(day)
        self.read([("QUARTERS", "MA", "E1", start + timedelta(minutes=15 * k), "0.5", 1) for k in range(96)])


@pytest.fixture
def city(database: Database, tmp_path: Path) -> Programmed:
    made = Programmed(database, tmp_path / "town")
    made.begin()
    return made


def values(city: Town, *rows: dict[str, Any]) -> Path:
    return city.folder_of({"channel_values": rows})


def letters(city: Town) -> list[str]:
    found = city.database.read("SELECT reasons::text AS why FROM raw.dead_letter ORDER BY 1")
    return [str(why) for why in found["why"]]


def test_a_meter_that_is_programmed_to_quarters_of_an_hour_is_read_so_from_that_day_on(city: Programmed) -> None:
    later = {"meter_id": "MA", "channel": "E1", "valid_from": DAYS[1], "interval_minutes": 15}
    import_folder(city.database, city.calendar, values(city, later), clock=city.clock)
    city.reads(DAYS[:1])
    city.quarters(DAYS[1])
    assert letters(city) == []
    for day in DAYS[:2]:
        city.run_day(day)
    city.settle()
    assert city.owed()["AC-A"] == Decimal("2.4") + Decimal("4.8")
    lengths = city.database.read(
        "SELECT billing_day, interval_minutes::int FROM vee.interval_day WHERE meter_id = 'MA' AND estimated = 0 ORDER BY 1"
    )
    assert lengths.rows() == [(DAYS[0], 60), (DAYS[1], 15)]
    assert city.law(FIRST, DAYS[2]).ok
    # Hours of that day, and quarters of the day before, are not what is declared for them.
    city.quarters(DAYS[0])
    assert "15 minutes where the channel is declared with 60" in letters(city)[0]
    # The programme was changed a day later than was entered.
    gone = RowChange("channel_values", ("MA", "E1", str(DAYS[1])), by="ana", why="the crew came the next day")
    assert change_row(city.database, city.calendar, gone, clock=city.clock)[1].days == DAYS[1:2]


def test_a_unit_that_was_another_from_a_day_on_is_no_usage_of_the_tariff(city: Programmed) -> None:
    """A's channel was programmed to reactive energy on the third day: its values of that day are no kWh."""
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    reactive = {"meter_id": "MA", "channel": "E1", "valid_from": DAYS[2], "unit": "kVArh"}
    seen = preview_folder(city.database, city.calendar, values(city, reactive), clock=city.clock)
    assert (seen.document["days"], seen.document["service_points"]) == (1, 1)
    made = import_folder(city.database, city.calendar, values(city, reactive), clock=city.clock)
    assert made.days == DAYS[2:]
    city.settle()
    units = city.database.read("SELECT billing_day, unit FROM vee.interval_day WHERE meter_id = 'MA' ORDER BY 1")
    assert units.rows() == [(DAYS[0], "kWh"), (DAYS[1], "kWh"), (DAYS[2], "kVArh")]
    assert city.law(FIRST, PERIODS[0][1]).ok


def test_a_register_adds_up_to_its_intervals_on_the_days_on_which_it_is_said(city: Programmed) -> None:
    """A's register counts 30 a day, its intervals 24: from the third day on the register is not tied to them."""
    register = channel("R", meter_id="MA", channel="R1", billed=False, sums_to="E1")
    city.refer({"channels": [register]})
    untied = {"meter_id": "MA", "channel": "R1", "valid_from": DAYS[2], "sums_to": "-"}
    import_folder(city.database, city.calendar, values(city, untied), clock=city.clock)
    edges = [city.calendar.bounds(FIRST)[0], *(city.calendar.bounds(day)[1] for day in DAYS)]
    city.read([("REGISTER-KWH", "MA", "R1", at, str(30 * k), 1) for k, at in enumerate(edges)])
    city.days(DAYS)
    compared = city.database.read(
        "SELECT billing_day, register_difference_micro IS NOT NULL AS held FROM vee.interval_day WHERE meter_id = 'MA' ORDER BY 1"
    )
    assert compared.rows() == [(DAYS[0], False), (DAYS[1], True), (DAYS[2], False)], (
        "the meter's first day has no read before"
    )
    assert city.law(FIRST, PERIODS[0][1]).ok


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"meter_id": "MR", "channel": "R1", "unit": "gal"}, "MR R1 is a register"),
        ({"meter_id": "MA", "channel": "E1", "sums_to": "E1"}, "MA E1 is an interval channel"),
        (
            {"meter_id": "MA", "channel": "E1", "interval_minutes": 0},
            "channel_values.csv:2: interval_minutes: must be from 1",
        ),
        ({"meter_id": "MA", "channel": "E1", "unit": "furlong"}, "channel_values.csv:2: unit: "),
    ],
)
def test_a_programme_that_cannot_be_is_refused(city: Programmed, row: dict[str, Any], fault: str) -> None:
    with pytest.raises(ReferenceRefused) as refused:
        import_folder(city.database, city.calendar, values(city, row | {"valid_from": DAYS[0]}), clock=city.clock)
    assert fault in "\n".join(map(str, refused.value.faults))
