"""Making a correction promises: two people where issued money changes, one transaction, and refusal where anything
moved.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.control.people import Refused
from meter_pipeline.corrections.apply import apply, approve, change_row, import_folder, request
from meter_pipeline.corrections.preview import preview_folder, preview_row
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import ReferenceRefused, history
from meter_pipeline.reference.importing import RowChange
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, agreement, channel, town

DAYS = [FIRST + timedelta(days=k) for k in range(6)]


def employ(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO control.person (person, duties, active, changed_by, changed_at) VALUES ('ana', '{engineer}', true, 'ana', now()), "
            "('ben', '{finance}', true, 'ana', now())"
        )


def test_issued_money_is_changed_by_two_people_and_the_ledger_names_both(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:4])
    city.issue("C1", PERIODS[0][1])
    employ(database)
    folder = city.folder_of({"channels": [channel("R", 20)]})
    with pytest.raises(ReferenceRefused, match="reaches 1 issued statements, so two people make it"):
        import_folder(database, city.calendar, folder, clock=city.clock)
    made = preview_folder(database, city.calendar, folder, clock=city.clock)
    with pytest.raises(ReferenceRefused, match="changes issued money, so two people make it"):
        apply(database, made.digest, by="ana", why="nameplate", clock=city.clock)
    asked = request(database, made.digest, by="ana", reason="nameplate says 20", clock=city.clock)
    for person in ("ana", "zoe"):
        with pytest.raises(Refused):
            approve(database, asked.request_id, by=person, reason="seen", clock=city.clock)
    assert city.settle() == []
    done = approve(database, asked.request_id, by="ben", reason="seen the photo", clock=city.clock)
    assert (done.rows, done.days, done.service_points, done.issued) == ({"channels": 1}, DAYS[:4], 1, 1)
    city.settle()
    assert city.owed()["AC-R"] == Decimal(80)
    with pytest.raises(Refused):
        approve(database, asked.request_id, by="ben", reason="again", clock=city.clock)
    with pytest.raises(ReferenceRefused, match="it was made at"):
        request(database, made.digest, by="ana", reason="again", clock=city.clock)
    with database.connect() as connection:
        assert history.unproven(connection) == []
        ((made_by, why, body),) = connection.execute(
            "SELECT made_by, reason, convert_from(body, 'UTF8') FROM ref.change_set JOIN ledger.entry ON entry_id = ledger_entry "
            "WHERE reason <> ''"
        ).fetchall()
    assert (made_by, why) == ("ben", "nameplate says 20")
    assert made.digest.hex() in body
    assert '"requested_by":"ana"' in body


def test_a_correction_is_refused_where_anything_moved_since_its_preview(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:3])
    ratio = city.folder_of({"channels": [channel("R", 20)]})
    dear = city.folder_of({"agreements": [agreement("R", tariff_id="E-DEAR")]})
    first = preview_folder(database, city.calendar, ratio, clock=city.clock)
    second = preview_folder(database, city.calendar, dear, clock=city.clock)
    assert not first.issued
    assert apply(database, first.digest, by="ana", why="x", clock=city.clock).days == DAYS[:3]
    with pytest.raises(ReferenceRefused, match="moved since it was previewed"):
        apply(database, second.digest, by="ana", why="x", clock=city.clock)  # two previews at one time
    second = preview_folder(database, city.calendar, dear, clock=city.clock)
    city.settle()
    with pytest.raises(ReferenceRefused, match="moved since it was previewed"):
        apply(database, second.digest, by="ana", why="x", clock=city.clock)  # a day was billed again
    second = preview_folder(database, city.calendar, dear, clock=city.clock)
    city.refer({"weather_stations": [{"station_id": "W", "name": "Airport", "latitude": 40, "longitude": -90}]})
    apply(database, second.digest, by="ana", why="x", clock=city.clock)
    city.settle()
    assert city.owed()["AC-R"] == Decimal(3) + Decimal("0.30") * 600


def test_days_that_were_archived_are_refused_with_what_to_do(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:2])
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO archive.day_table VALUES (%s, 'vee.interval_day', 'archived', 3, 1, '{}', '', '', sha256(''), sha256(''), now(), now(), 1)",
            (DAYS[0],),
        )
    folder = city.folder_of({"channels": [channel("R", 20)]})
    with pytest.raises(ReferenceRefused, match=r"reaches 1 archived days .*partitions restore"):
        preview_folder(database, city.calendar, folder, clock=city.clock)
    with pytest.raises(ReferenceRefused, match="reaches 1 archived days"):
        import_folder(database, city.calendar, folder, clock=city.clock)
    with database.connect() as connection:
        assert scalar(connection, "SELECT max(multiplier) FROM ref.channels") == 1


def test_a_row_that_is_ended_or_taken_out_asks_for_its_days_and_two_people_where_money_is_issued(
    database: Database, tmp_path: Path
) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:3])
    ended = RowChange("agreements", ("SP-A", "2015-01-01"), on=str(DAYS[2]), by="ana", why="moved out")
    seen = preview_row(database, city.calendar, ended, clock=city.clock)
    assert seen.document["money"]["accounts"] == [
        {"account_id": "AC-A", "old": "2.40", "new": "0.00", "difference": "-2.40"}
    ]
    row, made = change_row(database, city.calendar, ended, clock=city.clock)
    assert (row["valid_to"], made.days, made.issued) == (DAYS[2], DAYS[2:3], 0)
    city.settle()
    assert city.owed()["AC-A"] == Decimal("4.8")
    city.issue("C1", PERIODS[0][1])
    employ(database)
    taken_out = RowChange("agreements", ("SP-B", "2015-01-01"), by="ana", why="never a customer")
    with pytest.raises(ReferenceRefused, match="reaches 1 issued statements, so two people make it"):
        change_row(database, city.calendar, taken_out, clock=city.clock)
    seen = preview_row(database, city.calendar, taken_out, clock=city.clock)
    assert seen.issued
    asked = request(database, seen.digest, by="ana", reason="never a customer", clock=city.clock)
    assert approve(database, asked.request_id, by="ben", reason="seen", clock=city.clock).days == DAYS[:3]
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert "AC-B" not in city.owed()
