"""Zones in a folder promise: what could not be balanced is refused with file and line before it is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder

HEADERS = {
    "zones": "zone_id,kind,commodity,name,parent_id,valid_from,valid_to",
    "zone_members": "service_point_id,zone_id,valid_from,valid_to",
    "zone_supplies": "zone_id,service_point_id,direction,valid_from,valid_to",
    "zone_unmetered": "zone_id,purpose,quantity_per_day,unit,valid_from,valid_to",
    "winter_average_rules": "customer_class,months,drop_high,drop_low,least_periods,default_per_day,valid_from,valid_to",
}
GOOD = {
    "zones": ["CITY,pressure_zone,water,City,,2020-01-01,", "EAST,district,water,East,CITY,2020-01-01,"],
    "zone_members": ["SP-1,EAST,2020-01-01,"],
    "zone_supplies": ["EAST,SP-9,in,2020-01-01,"],
    "zone_unmetered": ["EAST,flushing,10,gal,2020-01-01,"],
    "winter_average_rules": ["*,12 1 2,1,0,2,0.2,2020-01-01,"],
}


WHOLE = ": zones.csv has the whole tree, with the zones that are stored already"


def read(folder: Path, **changes: list[str]) -> None:
    for name, rows in (GOOD | changes).items():
        (folder / f"{name}.csv").write_text("\n".join([HEADERS[name], *rows]) + "\n")
    read_folder(folder)


def test_a_good_folder_is_read(tmp_path: Path) -> None:
    read(tmp_path)


def test_a_tree_that_was_turned_around_is_no_loop(tmp_path: Path) -> None:
    """Each day has its own tree: EAST lay in CITY until November, and CITY lies in EAST since."""
    read(
        tmp_path,
        zones=[
            "CITY,pressure_zone,water,City,,2020-01-01,2026-11-01",
            "CITY,pressure_zone,water,City,EAST,2026-11-01,",
            "EAST,district,water,East,CITY,2020-01-01,2026-11-01",
            "EAST,district,water,East,,2026-11-01,",
        ],
    )


def test_a_loop_that_two_folders_would_make_is_found_in_the_whole_tree(tmp_path: Path) -> None:
    """CITY goes under EAST, stored under CITY: alone the row is refused for what its file lacks, not as if EAST
    did not exist; with EAST beside it the loop is named."""
    read(tmp_path)
    moved = "CITY,pressure_zone,water,City,EAST,2020-01-01,"
    for zones, said in (
        ([moved], f"zones.csv:2: parent_id: EAST is not a zone of this file on 2020-01-01{WHOLE}"),
        ([moved, GOOD["zones"][1]], "zones.csv:2: parent_id: zones CITY > EAST > CITY are a loop"),
    ):
        with pytest.raises(ReferenceRefused) as refused:
            read(tmp_path, zones=zones)
        assert said in [str(fault) for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zones": ["CITY,district,water,C,CITY,2020-01-01,"]}, "zones.csv:2: parent_id: zones CITY > CITY are a loop"),
        (
            {
                "zones": [
                    "CITY,district,water,C,,2020-01-01,2026-11-04",
                    "CITY,district,water,C,EAST,2026-11-04,",
                    "EAST,district,water,E,CITY,2020-01-01,",
                ]
            },
            "zones.csv:3: parent_id: zones CITY > EAST > CITY are a loop",
        ),
        (
            {"zones": ["EAST,district,water,E,NOWHERE,2020-01-01,"]},
            f"zones.csv:2: parent_id: NOWHERE is not a zone of this file on 2020-01-01{WHOLE}",
        ),
        (
            {"zones": ["CITY,district,water,C,,2020-01-01,2026-11-04", "EAST,district,water,E,CITY,2020-01-01,"]},
            f"zones.csv:3: parent_id: CITY is not a zone of this file on 2026-11-04{WHOLE}",
        ),
        (
            {"zones": ["CITY,feeder,electricity,C,,2020-01-01,", "EAST,district,water,E,CITY,2020-01-01,"]},
            "zones.csv:3: parent_id: EAST is of water, its parent CITY of electricity",
        ),
        ({"zone_members": ["SP-1,WEST,2020-01-01,"]}, "zone_members.csv:2: zone_id: WEST is not in zones.csv"),
        (
            {"zone_members": ["SP-1,EAST,2020-01-01,", "SP-1,CITY,2026-11-03,"]},
            "zone_members.csv:3: overlaps the stretch that starts 2020-01-01 (line 2) of SP-1",
        ),
        (
            {"zone_supplies": ["EAST,SP-1,in,2026-01-01,"]},
            "zone_supplies.csv:2: service_point_id: SP-1 is a customer of EAST too (zone_members.csv, line 2)",
        ),
        (
            {"zone_unmetered": ["EAST,x,-5,gal,2020-01-01,"]},
            "zone_unmetered.csv:2: quantity_per_day: -5 is below 0",
        ),
        (
            {"zone_unmetered": ["EAST,x,5,kWh,2020-01-01,"]},
            "zone_unmetered.csv:2: unit: kWh does not count water, which zone EAST is of",
        ),
        (
            {"winter_average_rules": ["*,12 13,1,0,2,,2020-01-01,"]},
            "winter_average_rules.csv:2: months: '12 13' are not numbers from 1 to 12 with blanks between",
        ),
        (
            {"winter_average_rules": ["*,12 1,-1,0,2,,2020-01-01,"]},
            "winter_average_rules.csv:2: drop_high: -1 is below 0",
        ),
    ],
)
def test_what_could_not_be_balanced_is_refused(tmp_path: Path, changes: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ReferenceRefused) as refused:
        read(tmp_path, **changes)
    assert said in [str(fault) for fault in refused.value.faults]
