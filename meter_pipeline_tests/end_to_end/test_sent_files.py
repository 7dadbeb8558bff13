"""Files in the shapes that utilities and vendors send, each with its declaration: what is read of them, and what their
meters are billed for. All of them share one city.

A folder of ``sent_files`` holds the file, ``head_end.toml`` and ``expected.json``: the file's name, and by
meter/channel the number of reads and their sum in base units, by meter/flow the usage of the days that the file covers.
The figures were added up when the files were made, not read back from them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd, read_head_end
from meter_pipeline.feeds.registry import guess, parse
from meter_pipeline.feeds.rejects import FeedRefused
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.utility import SmallUtility

FILES = Path(__file__).parent / "sent_files"
SHAPES = sorted(folder.name for folder in FILES.iterdir())
ZONE = "America/Chicago"


def declared(shape: str) -> tuple[Path, HeadEnd, dict[str, Any]]:
    """A shape's file, its declaration, and what is expected of it."""
    expected: dict[str, Any] = json.loads((FILES / shape / "expected.json").read_text())
    head_end = replace(read_head_end(FILES / shape / "head_end.toml"), name=shape.upper())
    return FILES / shape / expected["file"], head_end, expected


@pytest.mark.parametrize("shape", SHAPES)
def test_every_read_of_the_file_is_read(shape: str) -> None:
    path, head_end, expected = declared(shape)
    parsed = parse(path, head_end, BillingCalendar(ZONE))
    assert parsed.rejects.height == 0
    found: dict[str, list[Decimal]] = {}
    for frame in (parsed.intervals, parsed.registers):
        for meter, channel, value in frame.select("meter_id", "channel", "value").iter_rows():
            found.setdefault(f"{meter}/{channel}", []).append(Decimal(value).scaleb(-6))
    for channel, (readings, total) in expected["channels"].items():
        assert (len(found[channel]), sum(found[channel])) == (readings, Decimal(total)), channel


def test_every_meter_is_billed_for_what_it_used(database: Database, tmp_path: Path) -> None:
    utility = SmallUtility.make(database, tmp_path, ZONE)
    for number, shape in enumerate(SHAPES):
        path, head_end, expected = declared(shape)
        copy = tmp_path / str(number) / path.name
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes())
        utility.enrol(copy, head_end, expected["commodity"])
        assert utility.land(copy, head_end).rejected == 0, shape
    utility.run_touched()
    # Days on which a meter has no read are estimated: they are of other files' days.
    usage = utility.read(
        "SELECT service_point_id, flow, sum(quantity)::text AS quantity FROM analyst.usage"
        " WHERE actual > 0 OR source = 'register' GROUP BY 1, 2"
    )
    found = {(point, flow): Decimal(quantity) for point, flow, quantity in usage.iter_rows()}
    for shape in SHAPES:
        for key, quantity in declared(shape)[2]["usage"].items():
            meter, flow = key.split("/")
            assert found.get((f"SP-{meter}", flow)) == Decimal(quantity), (shape, key)


def test_a_guess_is_right_or_says_what_it_leaves_open() -> None:
    """What a written guess reads of each file is all of it, or lines are rejected, or a comment names what is missing:
    the meter, the unit, other columns, other sheets. Nothing is left out without a word."""
    right, told = [], []
    for shape in SHAPES:
        path, _, expected = declared(shape)
        try:
            found = guess(path, ZONE)
        except FeedRefused:
            told.append(shape)
            continue
        parsed = parse(path, found.head_end, BillingCalendar(ZONE))
        totals: dict[str, Decimal] = {}
        for frame in (parsed.intervals, parsed.registers):
            for meter, value in frame.select("meter_id", "value").iter_rows():
                totals[meter] = totals.get(meter, Decimal(0)) + Decimal(value or 0).scaleb(-6)
        wanted: dict[str, Decimal] = {}
        for channel, (_, total) in expected["channels"].items():
            meter = channel.split("/")[0]
            wanted[meter] = wanted.get(meter, Decimal(0)) + Decimal(total)
        if totals == wanted or (not wanted and totals):
            right.append(shape)
            continue
        open_questions = {"columns", "constants.meter_id", "unit", "options.sheet", "unit_map"} & found.notes.keys()
        assert parsed.rejects.height or open_questions, shape
        told.append(shape)
    assert len(right) >= 30, told
