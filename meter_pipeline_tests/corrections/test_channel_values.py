"""Dated values of channels promise: what a meter counts may change on a billing day, for dials and for intervals, and
only the days from then on move."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.corrections.apply import change_row, import_folder
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.corrections.reproduce import reproduce
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.reference.importing import RowChange
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, channel, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]


def values(city: Town, *rows: dict[str, object]) -> Path:
    return city.folder_of({"channel_values": rows})


def test_a_multiplier_that_holds_from_a_day_moves_the_days_from_then_on(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    dial = {"meter_id": "MR", "channel": "R1", "valid_from": DAYS[1], "multiplier": 40}
    intervals = {"meter_id": "MA", "channel": "E1", "valid_from": DAYS[2], "multiplier": 3}
    exported = values(city, dial, intervals)
    seen = preview_folder(database, city.calendar, exported, clock=city.clock)
    assert seen.document["days"] == 2
    assert {a["account_id"]: (a["old"], a["new"]) for a in seen.document["money"]["accounts"]} == {
        "AC-R": ("3.00", "81.00"),  # 10 kWh of 0.10 on the first day, 400 on the two others
        "AC-A": ("7.20", "12.00"),  # 24, 24 and 72 kWh
    }
    made = import_folder(database, city.calendar, exported, clock=city.clock)
    assert (made.days, made.service_points) == (DAYS[1:], 2)
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.stopped == {}
    assert city.owed() == {"AC-A": Decimal(12), "AC-B": Decimal("7.2"), "AC-R": Decimal(81)}
    assert reproduce(database, city.calendar, f"AC-R.C1.{FIRST:%Y%m%d}.0").identical
    # The crew's date was wrong by a day, and the value was entered for the wrong meter.
    later = values(city, dial | {"valid_from": DAYS[2]}, intervals)
    assert import_folder(database, city.calendar, later, clock=city.clock).days == DAYS[1:2]
    gone = RowChange("channel_values", ("MA", "E1", str(DAYS[2])), by="ana", why="the meter next door")
    assert change_row(database, city.calendar, gone, clock=city.clock)[1].days == DAYS[2:]
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.owed() == {"AC-A": Decimal("7.2"), "AC-B": Decimal("7.2"), "AC-R": Decimal(42)}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"valid_from": DAYS[0]}, "channel_values.csv:2: the row says nothing"),
        ({"valid_from": DAYS[0], "multiplier": 0}, "multiplier: must be above 0"),
        ({"valid_from": DAYS[0], "multiplier": -4}, "multiplier: must be above 0"),
        ({"valid_from": DAYS[1], "valid_to": DAYS[1], "multiplier": 2}, "channel_values.csv:2: "),
        ({"channel": "E9", "valid_from": DAYS[0], "multiplier": 2}, "MR E9 is not in channels.csv"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_line(
    database: Database, tmp_path: Path, row: dict[str, object], fault: str
) -> None:
    city = town(database, tmp_path / "town")
    exported = city.folder_of(
        {"channels": [channel("R")], "channel_values": [{"meter_id": "MR", "channel": "R1"} | row]}
    )
    with pytest.raises(ReferenceRefused) as refused:
        import_folder(database, city.calendar, exported, clock=city.clock)
    assert fault in "\n".join(map(str, refused.value.faults))


def test_two_values_on_one_day_are_refused(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    held = {"meter_id": "MR", "channel": "R1", "multiplier": 2}
    import_folder(database, city.calendar, values(city, held | {"valid_from": DAYS[0]}), clock=city.clock)
    with pytest.raises(ReferenceRefused, match="in force at the same time"):
        import_folder(
            database, city.calendar, values(city, held | {"valid_from": DAYS[1], "multiplier": 3}), clock=city.clock
        )
