"""Records that were wrong in other ways than a value: meters that were crossed, a meter that was another one, rows that
contradict each other, a process that dies while a correction is made."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.corrections import apply as making
from meter_pipeline.corrections.apply import approve, import_folder, request
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import ReferenceRefused, history
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, agreement, channel, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]


def settled(city: Town) -> dict[str, Decimal]:
    """What accounts owe when the days asked for have run and every adjustment is approved."""
    city.settle()
    for _ in range(3):
        city.issue("C1", PERIODS[0][1])
        for _, adjustment in city.waiting_adjustments():
            city.decide(adjustment, approve=True)
    assert city.stopped == {}
    return city.owed()


def stands(city: Town, p: str, meter: str, read: int | None = None) -> dict[str, object]:
    begins = city.calendar.bounds(FIRST)[0]
    return {"service_point_id": f"SP-{p}", "meter_id": f"M{meter}", "installed_at": begins, "install_read": read}


@pytest.mark.parametrize("sealed", [False, True])
def test_crossed_meters_are_uncrossed_and_both_bills_corrected(
    database: Database, tmp_path: Path, sealed: bool
) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    if sealed:
        city.seal(date(2026, 1, 1))
    crossed = city.folder_of({"installations": [stands(city, "A", "R", 0), stands(city, "R", "A")]})
    seen = preview_folder(database, city.calendar, crossed, clock=city.clock)
    assert (seen.document["days"], seen.document["service_points"], seen.issued) == (3, 2, True)
    assert import_folder(database, city.calendar, crossed, clock=city.clock).days == DAYS
    assert settled(city) == {"AC-A": Decimal(3), "AC-B": Decimal("7.2"), "AC-R": Decimal("7.2")}
    back = city.folder_of({"installations": [stands(city, "A", "A"), stands(city, "R", "R", 0)]})
    assert import_folder(database, city.calendar, back, clock=city.clock).days == DAYS
    assert settled(city) == {"AC-A": Decimal("7.2"), "AC-B": Decimal("7.2"), "AC-R": Decimal(3)}


def test_a_meter_that_was_another_one_is_replaced_from_its_first_day(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    city.refer(
        {
            "meters": [{"meter_id": "MX", "commodity": "electricity", "head_end": "REGISTER-KWH"}],
            "channels": [channel("R") | {"meter_id": "MX"}],
        }
    )
    city.read(
        [("REGISTER-KWH", "MX", "R1", city.calendar.bounds(d)[1], str(20 * (k + 1)), 1) for k, d in enumerate(DAYS)]
    )
    whole = city.folder_of(
        {"installations": [stands(city, "A", "A"), stands(city, "B", "B"), stands(city, "R", "X", 0)]}
    )
    every = Snapshot(frozenset({"installations"}), FIRST, city.calendar.bounds(FIRST)[0], Decimal(1))
    assert import_folder(database, city.calendar, whole, snapshot=every, clock=city.clock).days == DAYS
    assert settled(city)["AC-R"] == Decimal(6)  # 20 kWh a day, 10 before


def test_rows_that_contradict_each_other_or_themselves_are_refused_and_nothing_is_asked(
    database: Database, tmp_path: Path
) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS[:1])
    for rows, why in (
        (
            [agreement("A", valid_to=DAYS[0]), agreement("A", account_id="AC-X", valid_from=DAYS[0] - timedelta(1))],
            "overlaps",
        ),
        ([agreement("A", valid_from=DAYS[1], valid_to=DAYS[1])], "agreements.csv:2"),
        ([agreement("A", valid_from=DAYS[1], valid_to=DAYS[0])], "agreements.csv:2"),
        ([agreement("A", account_id="AC-X", valid_from=DAYS[0])], "in force at the same time"),
    ):
        folder = city.folder_of({"agreements": rows})
        for attempt in (preview_folder, import_folder):
            with pytest.raises(ReferenceRefused) as refused:
                attempt(database, city.calendar, folder, clock=city.clock)
            assert why in str(refused.value.faults[0])
    assert city.settle() == []
    with database.connect() as connection:
        assert history.unproven(connection) == []


def test_a_correction_that_dies_leaves_nothing_and_is_made_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    employ(database)
    folder = city.folder_of({"channels": [channel("R", 20)]})
    seen = preview_folder(database, city.calendar, folder, clock=city.clock)
    asked = request(database, seen.digest, by="ana", reason="nameplate", clock=city.clock)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("ask", "tables.write", "history.record", "tables.applied"):
        room, _, name = step.rpartition(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(making, room) if room else making, name, killed)
            with pytest.raises(KeyboardInterrupt):
                approve(database, asked.request_id, by="ben", reason="seen", clock=city.clock)
        assert city.settle() == []
        assert city.owed()["AC-R"] == Decimal(3)
    assert approve(database, asked.request_id, by="ben", reason="seen", clock=city.clock).days == DAYS
    city.settle()
    assert city.owed()["AC-R"] == Decimal(60)
    with database.connect() as connection:
        assert history.unproven(connection) == []
