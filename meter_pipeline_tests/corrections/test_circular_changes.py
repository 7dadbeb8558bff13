"""A change whose reach runs into itself is refused in one line, with nothing asked for and nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused, history
from meter_pipeline_tests.corrections.town import FIRST, Town, channel, town
from meter_pipeline_tests.support import copy_database, drop_database

DAYS = [FIRST + timedelta(days=k) for k in range(2)]


@pytest.fixture(scope="module")
def city(server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town of two billed days: A has a register that its intervals are held to, and is a part of B's bill from the
    second day on."""
    copy_database(server, "circular", template.name)
    made = town(server.sibling("circular"), tmp_path_factory.mktemp("circular") / "town")
    made.refer({"channels": [channel("R", meter_id="MA", channel="R1", billed=False, sums_to="E1")]})
    made.refer({"service_attributes": [part("A", "B", since=1)]})
    made.refer({"zones": [zone("Z1", None), zone("Z2", "Z1")]})
    made.days(DAYS)
    yield made
    drop_database(server, "circular")


def part(member: str, target: str, attribute: str = "deducts_from", since: int = 0) -> dict[str, Any]:
    """Usage of one service point that is taken off another's from a day on."""
    return {
        "service_point_id": f"SP-{member}",
        "attribute": attribute,
        "value": f"SP-{target}",
        "valid_from": FIRST + timedelta(days=since),
    }


def zone(name: str, parent: str | None) -> dict[str, Any]:
    return {
        "zone_id": name,
        "kind": "district",
        "commodity": "electricity",
        "name": name,
        "parent_id": parent,
        "valid_from": FIRST,
    }


def value(meter: str, name: str, total: str) -> dict[str, Any]:
    return {"meter_id": meter, "channel": name, "valid_from": FIRST, "sums_to": total}


#: What is imported, and words of the one line that refuses it
CIRCLES: dict[str, tuple[dict[str, list[dict[str, Any]]], str]] = {
    "a register that adds up to itself": (
        {"channels": [channel("R") | {"sums_to": "R1"}]},
        "channels.csv:2: sums_to: R1 is a register",
    ),
    "intervals that add up to themselves": (
        {"channels": [channel("A") | {"sums_to": "E1"}]},
        "channels.csv:2: sums_to: E1 would add up to itself",
    ),
    "a register that adds up to itself from a day on": (
        {"channel_values": [value("MR", "R1", "R1")]},
        "channel_values.csv:2: sums_to: R1 is a register",
    ),
    "intervals that add up to the register that is held to them": (
        {"channel_values": [value("MA", "E1", "R1")]},
        "MA E1 is an interval channel",
    ),
    "a service point in its own total": (
        {"service_attributes": [part("R", "R", "totals_into")]},
        f"service_attributes.csv:2: value: SP-R is billed in itself from {FIRST} (SP-R > SP-R)",
    ),
    "two that are parts of each other": (
        {"service_attributes": [part("B", "R"), part("R", "B", "totals_into")]},
        f"service_attributes.csv:2: value: SP-B is billed in itself from {FIRST} (SP-B > SP-R > SP-B)",
    ),
    "a part of the stored part of itself": (
        {"service_attributes": [part("B", "A")]},
        f"service_attributes.csv:2: value: SP-A is billed in itself from {DAYS[1]} (SP-A > SP-B > SP-A)",
    ),
    "zones that lie in each other": (
        {"zones": [zone("Z1", "Z2"), zone("Z2", "Z1")]},
        "zones.csv:2: parent_id: zones Z1 > Z2 > Z1 are a loop",
    ),
}


@pytest.mark.parametrize("case", CIRCLES)
@pytest.mark.parametrize("attempt", [preview_folder, import_folder])
def test_a_circular_change_is_refused_and_the_city_is_untouched(city: Town, case: str, attempt: Any) -> None:
    rows, why = CIRCLES[case]
    before = _state(city)
    with pytest.raises(ReferenceRefused) as refused:
        attempt(city.database, city.calendar, city.folder_of(rows), clock=city.clock)
    assert why in str(refused.value.faults[0])
    assert all("\n" not in str(fault) for fault in refused.value.faults)
    assert (_state(city), city.settle()) == (before, [])


def test_parts_that_follow_each_other_in_time_are_no_circle(city: Town, tmp_path: Path) -> None:
    ended = part("B", "A") | {"valid_to": DAYS[1]}
    seen = preview_folder(
        city.database, city.calendar, city.folder_of({"service_attributes": [ended]}), clock=city.clock
    )
    assert seen.document["days"] == 1


def _state(city: Town) -> list[Any]:
    with city.database.connect() as connection:
        entries = connection.execute("SELECT count(*) FROM ledger.entry").fetchone()
        asked = connection.execute("SELECT count(*) FROM vee.true_up").fetchone()
        stored = connection.execute("SELECT count(*), max(known_from) FROM ref.channel_values").fetchone()
        parts = connection.execute(
            "SELECT service_point_id, value FROM ref.service_attributes ORDER BY 1, 2"
        ).fetchall()
        return [entries, asked, stored, parts, history.unproven(connection), city.owed()]
