"""Manual edits: judged by their own rules, beside the raw read, named with who and why in every version, and taken back
without trace lost."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import VeeOutcome, edits, explain_day, validate_billing_day
from meter_pipeline.vee.tables import true_up
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 2, 3)


@pytest.fixture
def city(database: Database) -> City:
    made = City(database)
    made.reference(Installed("M-1", "SP-1"))
    return made


def validate(city: City, after: int = 1) -> VeeOutcome:
    return validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, after))


def put(city: City, slot: int, *values: int | None, why: str = "read on site") -> edits.Edited:
    return edits.edit(
        city.database, CALENDAR, "M-1", "E1", DAY, slot, values, reason=why, by="oli", clock=noon_after(DAY)
    )


def test_an_edit_stands_in_the_day_beside_the_raw_read_with_who_and_why(city: City) -> None:
    curve = load_curve(DAY)
    city.intervals(DAY, {"M-1": curve})
    validate(city)
    raw = city.rows("SELECT d::text FROM raw.interval_day AS d")
    done = put(city, 41, 310_000, 280_000)
    assert [day for day, _ in true_up.waiting(city.database)] == [DAY]
    outcome = validate(city, after=30)
    assert (outcome.updated, outcome.balanced, true_up.waiting(city.database)) == (1, True, [])
    assert city.rows("SELECT d::text FROM raw.interval_day AS d") == raw
    found = dict(city.rows("SELECT slot::int, (value * 1000000)::bigint FROM vee.interval WHERE slot IN (41, 42)"))
    assert found == {41: 310_000, 42: 280_000}
    assert city.rows(
        "SELECT DISTINCT quality, quality_method, quality_reason, rules FROM vee.interval WHERE slot IN (41, 42)"
    ) == [("F", 16, 93, ["EDITED"])]
    assert city.rows("SELECT superseded_by, reason FROM vee.interval_day_version") == [
        ("oli", f"edit {done.edit_id}: read on site")
    ]
    [(body,)] = city.rows("SELECT convert_from(body, 'UTF8')::jsonb FROM ledger.entry WHERE kind = 'corrected'")
    assert (body["actor"], body["body"]["edited_by"], body["body"]["slots"]) == ("oli", "oli", 2)
    assert (validate(city, after=30).updated, validate(city, after=30).unchanged) == (0, 1)
    document = explain_day(city.database, CALENDAR, "M-1", DAY)
    assert [(e["edited_by"], e["reason"]) for e in document["edits"]] == [("oli", "read on site")]
    assert document["channels"][0]["intervals"][40]["rules"] == ["EDITED"]


def test_estimates_around_an_edit_are_scaled_to_the_register_and_the_edit_is_not(city: City) -> None:
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[50:60] = NO_VALUE
    city.intervals(DAY, {"M-1": holed})
    start, end = CALENDAR.bounds(DAY)
    city.register("M-1", (start, 0), (end, int(curve.sum())))
    validate(city)
    put(city, 51, 400_000)
    validate(city)
    [(total, value)] = city.rows(
        "SELECT total_micro, (SELECT (value * 1000000)::bigint FROM vee.interval WHERE slot = 51) FROM vee.interval_day"
    )
    assert (total, value) == (int(curve.sum()), 400_000)


def test_the_rules_for_manual_override_refuse_what_cannot_be(city: City) -> None:
    city.intervals(DAY, {"M-1": load_curve(DAY)})
    for values in ((-1,), (10**12,)):
        with pytest.raises(edits.EditError, match="refused by"):
            put(city, 1, *values)
    outside: list[tuple[int, list[int]]] = [(0, [1]), (96, [1, 1]), (1, [])]
    for slot, micro in outside:
        with pytest.raises(edits.EditError, match="not all within"):
            put(city, slot, *micro)
    with pytest.raises(edits.EditError, match="reason"):
        put(city, 1, 1, why=" ")
    with pytest.raises(edits.EditError, match="no interval channel"):
        edits.edit(city.database, CALENDAR, "M-9", "E1", DAY, 1, [1], reason="x", by="oli", clock=noon_after(DAY))
    assert city.rows("SELECT count(*) FROM vee.edit") == [(0,)]


def test_a_refused_read_is_estimated_and_withdrawing_brings_it_back(city: City) -> None:
    curve = load_curve(DAY)
    city.intervals(DAY, {"M-1": curve})
    done = put(city, 30, None, None)
    assert validate(city).estimated == 2
    assert edits.withdraw(city.database, done.edit_id, by="fay", clock=noon_after(DAY)) == DAY
    assert validate(city).estimated == 0
    assert city.rows("SELECT total_micro, version FROM vee.interval_day") == [(int(curve.sum()), 2)]
    with pytest.raises(edits.EditError, match="does not stand"):
        edits.withdraw(city.database, done.edit_id, by="fay")
    assert city.rows("SELECT edited_by, withdrawn_by FROM vee.edit") == [("oli", "fay")]
    assert CALENDAR.bounds(DAY)[1] - CALENDAR.bounds(DAY)[0] == timedelta(days=1)
