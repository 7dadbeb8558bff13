"""Dated values of meters promise: a meter that moves to another head-end or collector is told apart by the day, and
only the days on which the row holds are asked for."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.anomalies.tables.detection import read_points
from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline.vee.tables.day_inputs import read_installations
from meter_pipeline_tests.corrections.town import FIRST, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]


def test_a_meter_that_moves_to_another_head_end_is_its_own_from_that_day_on(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    moved = [{"meter_id": "MA", "valid_from": DAYS[1], "valid_to": DAYS[2], "head_end": "MESH", "collector_id": "C-7"}]
    made = import_folder(database, city.calendar, city.folder_of({"meter_values": moved}), clock=city.clock)
    assert (made.days, made.service_points) == (DAYS[1:2], 1)
    city.settle()
    assert city.owed()["AC-A"] == Decimal("7.2")
    for day, head_end, collector in zip(
        DAYS, ("INTERVAL-KWH", "MESH", "INTERVAL-KWH"), (None, "C-7", None), strict=True
    ):
        start, end = city.calendar.bounds(day)
        (known,) = read_installations(database, day, start, end, "MA")["head_end"].to_list()
        (stood,) = (
            read_points(database.read, day, end)
            .filter(service_point_id="SP-A")
            .select("head_end", "collector_id")
            .rows()
        )
        assert (known, stood) == (head_end, (head_end, collector))


def test_a_row_that_says_nothing_is_refused_with_its_line(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    empty = city.folder_of({"meter_values": [{"meter_id": "MA", "valid_from": DAYS[1]}]})
    with pytest.raises(ReferenceRefused) as refused:
        import_folder(database, city.calendar, empty, clock=city.clock)
    assert "meter_values.csv:2: the row says nothing" in "\n".join(map(str, refused.value.faults))
