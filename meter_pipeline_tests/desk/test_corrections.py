"""The page Corrections: previewed, asked for by one person, made by a second one, with the difference by account."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from starlette.testclient import TestClient

from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.app import build
from meter_pipeline.desk.web import Desk
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, channel, town
from meter_pipeline_tests.desk.support import ORIGIN, post


def test_two_people_make_a_correction_at_the_desk(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days([FIRST + timedelta(days=k) for k in range(3)])
    city.issue("C1", PERIODS[0][1])
    made = preview_folder(database, city.calendar, city.folder_of({"channels": [channel("R", 20)]}), clock=city.clock)
    desk = Desk(database, city.settings, Access(tmp_path / "access"), clock=city.clock)
    address = f"/corrections/{made.digest.hex()}"

    def person(name: str) -> TestClient:
        client = TestClient(build(desk), follow_redirects=True)
        client.post("/login", data={"token": desk.access.issue(name)}, headers=ORIGIN)
        return client

    ana, ben = person("ana"), person("ben")
    assert address in ana.get("/corrections").text
    page = ana.get(address).text
    assert all(said in page for said in ("3 billing days of 1 service points", "AC-R", "57.00", "multiplier", "20.0"))
    asked = post(ana, address, f"{address}/request", reason="nameplate")
    assert "waits for a second person" in asked.text
    assert "another person decides" in ana.get(address).text
    done = post(ben, address, f"{address}/approve", request="1", reason="seen")
    assert "3 billing days of 1 service points are asked for again" in done.text
    assert "0 of 3 billing days have run again" in done.text
    city.settle()
    assert "3 of 3 billing days have run again" in ben.get(address).text
    assert ben.get("/corrections/zz").status_code == 404


def test_a_new_row_is_shown_by_its_columns_and_not_as_code(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    dated = {"meter_id": "MR", "channel": "R1", "valid_from": FIRST, "valid_to": None, "multiplier": 20}
    made = preview_folder(database, city.calendar, city.folder_of({"channel_values": [dated]}), clock=city.clock)
    desk = Desk(database, city.settings, Access(tmp_path / "access"), clock=city.clock)
    client = TestClient(build(desk), follow_redirects=True)
    client.post("/login", data={"token": desk.access.issue("ana")}, headers=ORIGIN)
    page = client.get(f"/corrections/{made.digest.hex()}").text
    assert "multiplier 20" in page
    assert "None" not in page
    assert "{" not in page.split("<main", 1)[1]
