"""The stage against a real database: what is stored, that reruns write nothing, that references resolve or say so."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta

import numpy as np
import pytest

from meter_pipeline.cli.output import plain
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import explain_day, usage_report, validate_billing_day
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 3, 3)


def midnight(day: date) -> datetime:
    return CALENDAR.bounds(day)[0]


@pytest.fixture
def city(database: Database) -> City:
    return City(database)


def validate(city: City, day: date = DAY, after: int = 1):  # type: ignore[no-untyped-def]
    return validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day, after))


def test_a_complete_day_is_stored_as_read_and_summed(city: City) -> None:
    city.reference(Installed("M-1", "SP-1"))
    curve = load_curve(DAY)
    city.intervals(DAY, {"M-1": curve})
    city.register(
        "M-1", (midnight(DAY), 1_000_000_000), (midnight(DAY + timedelta(days=1)), 1_000_000_000 + int(curve.sum()))
    )
    outcome = validate(city)
    assert outcome.balanced
    assert (outcome.expected, outcome.actual, outcome.sum_checked, outcome.sum_failed) == (96, 96, 1, 0)
    [(quantity, actual, estimated, account)] = city.rows(
        "SELECT quantity_micro, actual, estimated, account_id FROM vee.daily_usage"
    )
    assert (quantity, actual, estimated, account) == (int(curve.sum()), 96, 0, "A-1")
    [(total,)] = city.rows("SELECT sum(value) FROM vee.interval")
    assert int(total * 1_000_000) == int(curve.sum())


def test_a_gap_is_estimated_to_the_register_exactly_and_a_rerun_writes_nothing(city: City) -> None:
    city.reference(Installed("M-1", "SP-1"), Installed("M-2", "SP-2"))
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[40:44] = NO_VALUE
    holed[70:95] = NO_VALUE
    city.intervals(DAY, {"M-1": holed, "M-2": load_curve(DAY, seed=2)})
    city.register(
        "M-1", (midnight(DAY), 5_000_000_000), (midnight(DAY + timedelta(days=1)), 5_000_000_000 + int(curve.sum()))
    )
    first = validate(city)
    assert first.estimated == 29
    assert first.missing == 0
    [(quantity,)] = city.rows("SELECT quantity_micro FROM vee.daily_usage WHERE service_point_id = 'SP-1'")
    assert quantity == curve.sum()
    before = city.rows("SELECT d::text, xmin::text FROM vee.interval_day d ORDER BY meter_id")
    entries = city.rows("SELECT count(*) FROM ledger.entry WHERE kind = 'validated'")
    again = validate(city)
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 2)
    assert city.rows("SELECT d::text, xmin::text FROM vee.interval_day d ORDER BY meter_id") == before
    assert city.rows("SELECT count(*) FROM ledger.entry WHERE kind = 'validated'") == entries


def test_late_actuals_replace_estimates_and_the_estimate_is_kept_as_a_version(city: City) -> None:
    city.reference(Installed("M-1", "SP-1", register=False))
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[10:14] = NO_VALUE
    city.intervals(DAY, {"M-1": holed})
    validate(city)
    city.intervals(DAY, {"M-1": curve})
    outcome = validate(city)
    assert (outcome.inserted, outcome.updated, outcome.estimated) == (0, 1, 0)
    [(version, total)] = city.rows("SELECT version, total_micro FROM vee.interval_day")
    assert (version, total) == (2, curve.sum())
    [(old, estimated, by, reason)] = city.rows(
        "SELECT version, estimated, superseded_by, reason FROM vee.interval_day_version"
    )
    assert (old, estimated, by, reason) == (1, 4, "vee", "inputs")


def test_a_final_estimate_is_locked_against_history_that_grows(city: City) -> None:
    city.reference(Installed("M-1", "SP-1", register=False))
    holed = load_curve(DAY)
    holed[40:60] = NO_VALUE
    city.intervals(DAY, {"M-1": holed})
    days = [DAY - timedelta(days=k) for k in (1, 4, 5, 6)]
    for k, day in enumerate(days[:2]):
        city.intervals(day, {"M-1": load_curve(day, seed=k)})
        validate(city, day, 30)
    first = validate(city, after=10)
    assert first.methods == {"F15": 20}
    for k, day in enumerate(days[2:]):
        city.intervals(day, {"M-1": load_curve(day, seed=7 + k)})
        validate(city, day, 30)
    second = validate(city, after=12)
    assert (second.updated, second.locked_kept) == (0, 1)


def test_an_estimate_stays_open_while_a_head_end_is_still_asked_for_the_day(city: City) -> None:
    city.reference(Installed("M-1", "SP-1", register=False))
    holed = load_curve(DAY)
    holed[40:60] = NO_VALUE
    city.intervals(DAY, {"M-1": holed})
    late = CALENDAR.bounds(DAY)[1] + timedelta(days=10)
    with city.database.connect() as connection:
        connection.execute(
            "INSERT INTO raw.pull_request (head_end, billing_day, first_asked, last_asked, outcome) VALUES ('HES', %s, %s, %s, 'status 500')",
            (DAY, late - timedelta(days=4), late - timedelta(hours=3)),
        )
    validate(city, after=10)
    assert city.rows("SELECT locked FROM vee.interval_day") == [(False,)]
    validate(city, after=12)
    assert city.rows("SELECT locked FROM vee.interval_day") == [(True,)]


def test_a_meter_exchange_counts_every_slot_once_and_adds_up_to_both_registers(city: City) -> None:
    start, end = CALENDAR.bounds(DAY)
    swap = start + timedelta(hours=10, minutes=20)
    city.reference(
        Installed("M-OLD", "SP-1", removed_at=swap, removal_read=900_007_000_000),
        Installed("M-NEW", "SP-1", installed_at=swap, install_read=3_000_000),
    )
    curve = load_curve(DAY)
    old, new = curve.copy(), curve.copy()
    old[44:] = NO_VALUE  # its last report ran to 11:00: slots 42 and 43 lie after the exchange
    new[:43] = NO_VALUE  # the first report is of slot 43, so the cut slot 41 and slot 42 are missing
    city.intervals(DAY, {"M-OLD": old, "M-NEW": new})
    city.register("M-OLD", (start, 900_000_000_000))
    city.register("M-NEW", (end, 3_000_000 + 20_000_000))
    outcome = validate(city)
    [(quantity, exchange, meters)] = city.rows("SELECT quantity_micro, exchange, meters FROM vee.daily_usage")
    parts = dict(city.rows("SELECT meter_id, total_micro FROM vee.interval_day"))
    assert parts["M-NEW"] == 20_000_000
    assert (quantity, exchange, meters) == (sum(parts.values()), True, 2)
    assert outcome.rules["OUTSIDE_INSTALLATION"] == 2
    assert outcome.rules["EXCHANGE"] == 2


def test_an_overlapping_exchange_counts_the_shared_hours_once(city: City) -> None:
    start, end = CALENDAR.bounds(DAY)
    swap, removed = start + timedelta(hours=10, minutes=20), start + timedelta(hours=12, minutes=30)
    curve = load_curve(DAY)
    # both meters see the same load; the new one's first interval is part of a slot
    old, new = curve.copy(), curve.copy()
    old[50:] = NO_VALUE
    new[:41] = NO_VALUE
    new[41] = new[41] * 2 // 3 // 1000 * 1000
    city.reference(
        Installed("M-OLD", "SP-1", removed_at=removed, removal_read=7_000_000_000 + int(old[:50].sum())),
        Installed("M-NEW", "SP-1", installed_at=swap, install_read=1_000_000),
    )
    new[60:64] = NO_VALUE
    whole = curve.copy()
    whole[41] = curve[41] * 2 // 3 // 1000 * 1000
    city.intervals(DAY, {"M-OLD": old, "M-NEW": new})
    city.register("M-OLD", (start, 7_000_000_000))
    city.register("M-NEW", (end, 1_000_000 + int(whole[41:].sum())))
    outcome = validate(city)
    [(quantity, exchange)] = city.rows("SELECT quantity_micro, exchange FROM vee.daily_usage")
    assert (quantity, exchange) == (int(curve.sum()), True)
    assert (outcome.sum_checked, outcome.sum_failed, outcome.estimated) == (2, 0, 4)


@pytest.mark.parametrize(("installed", "removed", "cut"), [(620, 650, 42), (620, 660, 44), (1412, 1440 + 300, 96)])
def test_short_overlaps_and_overlaps_over_midnight_count_every_slot_once(
    city: City, installed: int, removed: int, cut: int
) -> None:
    """Minutes after midnight at which the new meter came and the old one went; the slot at which the one hands over to
    the other."""
    start, end = CALENDAR.bounds(DAY)
    after = DAY + timedelta(days=1)
    today, tomorrow = load_curve(DAY), load_curve(after, seed=1)
    both = np.concatenate([today, tomorrow])
    old, new = both.copy(), both.copy()
    went, came = removed // 15, installed // 15
    old[went:], new[:came] = NO_VALUE, NO_VALUE
    if removed % 15:
        old[went] = both[went] * (removed % 15) // 15
    new[came] = both[came] * (15 - installed % 15) // 15
    counted = {name: np.where(v == NO_VALUE, 0, v) for name, v in (("old", old), ("new", new))}
    at_removal = 7_000_000_000 + int(counted["old"].sum())
    city.reference(
        Installed("M-OLD", "SP-1", removed_at=start + timedelta(minutes=removed), removal_read=at_removal),
        Installed("M-NEW", "SP-1", installed_at=start + timedelta(minutes=installed), install_read=1_000_000),
    )
    for day, part in ((DAY, slice(0, 96)), (after, slice(96, 192))):
        city.intervals(
            day, {name: v[part] for name, v in (("M-OLD", old), ("M-NEW", new)) if (v[part] != NO_VALUE).any()}
        )
    midnight = int(counted["old"][:96].sum())
    city.register("M-OLD", (start, 7_000_000_000), *([(end, 7_000_000_000 + midnight)] if removed > 1440 else []))
    city.register(
        "M-NEW",
        (end, 1_000_000 + int(counted["new"][:96].sum())),
        (CALENDAR.bounds(after)[1], 1_000_000 + int(counted["new"].sum())),
    )
    outcomes = [validate(city, day) for day in (DAY, after)]
    usage = city.rows("SELECT quantity_micro FROM vee.daily_usage ORDER BY billing_day")
    assert usage == [(int(today.sum()),), (int(tomorrow.sum()),)]
    assert [(o.estimated, o.missing, o.sum_failed) for o in outcomes] == [(0, 0, 0), (0, 0, 0)]
    assert city.rows("SELECT first_slot FROM vee.interval_day WHERE meter_id = 'M-NEW' AND billing_day = %s", DAY) == [
        (cut,)
    ]
    assert city.rows("SELECT kind FROM vee.exception") == []


def test_meters_of_different_interval_lengths_hand_over_on_one_day(city: City) -> None:
    start, end = CALENDAR.bounds(DAY)
    swap = start + timedelta(hours=11)
    city.reference(
        Installed("M-OLD", "SP-1", removed_at=swap, interval_minutes=30, removal_read=80_000_000),
        Installed("M-NEW", "SP-1", installed_at=swap, install_read=0, multiplier=20),
    )
    half, quarter = load_curve(DAY, 30), load_curve(DAY, 15)
    half[22:], quarter[:44] = NO_VALUE, NO_VALUE
    quarter[80:84] = NO_VALUE
    city.intervals(DAY, {"M-OLD": half}, minutes=30)
    city.intervals(DAY, {"M-NEW": quarter})
    city.register("M-OLD", (start, 80_000_000 - int(half[:22].sum())))
    city.register("M-NEW", (end, 2_000_000))
    validate(city)
    [(quantity, meters)] = city.rows("SELECT quantity_micro, meters FROM vee.daily_usage")
    assert (quantity, meters) == (int(half[:22].sum()) + 40_000_000, 2)


def test_a_stretch_without_a_meter_is_answered_for_with_nothing(city: City) -> None:
    start, end = CALENDAR.bounds(DAY)
    removed, installed = start + timedelta(hours=9), start + timedelta(hours=11)
    curve = load_curve(DAY)
    old, new = curve.copy(), curve.copy()
    old[36:], new[:44] = NO_VALUE, NO_VALUE
    old[20:24] = NO_VALUE
    city.reference(
        Installed("M-OLD", "SP-1", removed_at=removed, removal_read=int(curve[:36].sum())),
        Installed("M-NEW", "SP-1", installed_at=installed, install_read=0),
    )
    city.intervals(DAY, {"M-OLD": old, "M-NEW": new})
    city.register("M-OLD", (start, 0))
    city.register("M-NEW", (end, int(curve[44:].sum())))
    outcome = validate(city)
    [(quantity, slots, missing)] = city.rows("SELECT quantity_micro, slots_expected, missing FROM vee.daily_usage")
    assert (quantity, slots, missing) == (int(curve.sum() - curve[36:44].sum()), 96, 0)
    assert outcome.methods == {"S17": 4, "S19": 8}


def test_an_exchange_recorded_late_rewrites_the_day_and_keeps_what_was_said_before(city: City) -> None:
    start, _end = CALENDAR.bounds(DAY)
    swap = start + timedelta(hours=12)
    city.reference(Installed("M-OLD", "SP-1", register=False))
    curve = load_curve(DAY)
    old = curve.copy()
    old[48:] = NO_VALUE
    city.intervals(DAY, {"M-OLD": old})
    first = validate(city)
    assert first.estimated == 48
    with city.database.connect() as c:
        c.execute("UPDATE ref.installations SET removed_at = %s WHERE meter_id = 'M-OLD'", (swap,))
    city.reference(Installed("M-NEW", "SP-1", installed_at=swap, register=False))
    new = curve.copy()
    new[:48] = NO_VALUE
    city.intervals(DAY, {"M-NEW": new})
    second = validate(city)
    assert (second.inserted, second.updated, second.estimated) == (1, 1, 0)
    assert city.rows("SELECT quantity_micro, meters FROM vee.daily_usage") == [(int(curve.sum()), 2)]
    assert city.rows("SELECT meter_id, version, estimated FROM vee.interval_day_version") == [("M-OLD", 1, 48)]
    leaves = city.rows("SELECT sum(leaf_count) FROM ledger.entry WHERE kind = 'validated'")
    rows = city.rows("SELECT (SELECT count(*) FROM vee.interval_day) + (SELECT count(*) FROM vee.interval_day_version)")
    assert leaves == rows
    with city.database.connect() as c:
        c.execute("DELETE FROM ref.installations WHERE meter_id = 'M-NEW'")
        c.execute("UPDATE ref.installations SET removed_at = NULL WHERE meter_id = 'M-OLD'")
    third = validate(city)
    assert (third.withdrawn, third.updated) == (1, 1)
    assert city.rows("SELECT reason FROM vee.interval_day_version WHERE meter_id = 'M-NEW'") == [("withdrawn",)]


def test_vacant_unknown_and_missing_tariff_are_exceptions_and_nothing_is_dropped(city: City) -> None:
    city.reference(Installed("M-1", "SP-1", account=False), Installed("M-2", "SP-2"), tariff=False)
    curve = load_curve(DAY)
    city.intervals(DAY, {"M-1": curve, "M-2": curve, "M-9": curve})
    outcome = validate(city)
    assert outcome.exceptions == {"NO_TARIFF": 1, "UNKNOWN_METER": 1, "VACANT": 1}
    assert city.rows("SELECT count(*), sum(quantity_micro) FROM vee.daily_usage") == [(2, 2 * int(curve.sum()))]
    assert city.rows("SELECT days FROM vee.exception_span WHERE kind = 'VACANT'") == [(1,)]


def test_two_accounts_a_transfer_within_a_day_and_vacancy_are_exceptions_with_their_days(city: City) -> None:
    start, _ = CALENDAR.bounds(DAY)
    noon = start + timedelta(hours=12)
    days = [DAY, DAY + timedelta(days=1)]
    city.reference(
        Installed("M-1", "SP-1"),
        Installed("M-2", "SP-2", account=False),
        Installed("M-3", "SP-3", removed_at=noon, register=False),
        Installed("M-3", "SP-4", installed_at=noon, register=False),
    )
    with city.database.connect() as c:
        c.execute("INSERT INTO ref.accounts VALUES ('A-2', 'residential', '2020-01-01', NULL)")
        c.execute(
            "ALTER TABLE ref.agreements DROP CONSTRAINT one_agreement_at_a_time"
        )  # validation does not rely on it
        c.execute("INSERT INTO ref.agreements VALUES ('A-2', 'SP-1', 'T-1', 'C-1', '2021-01-01', NULL)")
    curves = {day: load_curve(day) for day in days}
    for day in days:
        city.intervals(day, dict.fromkeys(("M-1", "M-2", "M-3"), curves[day]))
        validate(city, day)
    spans = city.rows(
        "SELECT kind, service_point_id, meter_id, first_day, last_day, days FROM vee.exception_span ORDER BY kind"
    )
    assert spans == [
        ("TRANSFERRED", "", "M-3", DAY, DAY, 1),
        ("TWO_ACCOUNTS", "SP-1", "", *days, 2),
        ("VACANT", "SP-2", "", *days, 2),
    ]
    # nothing is dropped, nothing counted twice: the newest agreement pays, the moved meter's day is cut at noon, vacant
    # usage waits
    usage = {
        (point, day): (used, account)
        for point, day, used, account in city.rows(
            "SELECT service_point_id, billing_day, quantity_micro, account_id FROM vee.daily_usage"
        )
    }
    whole = int(curves[DAY].sum())
    assert usage["SP-1", DAY] == (whole, "A-2")
    assert usage["SP-2", DAY] == (whole, None)
    assert usage["SP-3", DAY][0] + usage["SP-4", DAY][0] == whole
    assert usage["SP-4", days[1]] == (int(curves[days[1]].sum()), "A-1")
    assert ("SP-3", days[1]) not in usage


def test_a_register_only_meter_is_estimated_first_and_trued_up_when_its_read_comes(city: City) -> None:
    city.reference(*(Installed(f"W-{k}", f"SP-{k}", interval_minutes=None) for k in range(9)))
    days = [DAY + timedelta(days=k) for k in range(5)]
    for k in range(1, 9):
        for n, day in enumerate([*days, days[-1] + timedelta(days=1)]):
            city.register(f"W-{k}", (midnight(day), 1_000_000 * (100 + 10 * n)))
    city.register("W-0", (midnight(days[0]), 50_000_000))
    for day in days[:4]:
        validate(city, day)
    assert city.rows(
        "SELECT quantity_micro, estimated FROM vee.daily_usage WHERE service_point_id = 'SP-0' AND billing_day = %s",
        days[2],
    ) == [(10_000_000, 1)]
    city.register("W-0", (midnight(days[4]), 50_000_000 + 33_333_333))
    outcome = validate(city, days[3])
    assert outcome.redetermine == days[:3]
    for day in outcome.redetermine:
        validate(city, day)
    [(total, days_with)] = city.rows(
        "SELECT sum(quantity_micro), count(*) FROM vee.daily_usage WHERE service_point_id = 'SP-0'"
    )
    assert (total, days_with) == (33_333_333, 4)


@pytest.mark.parametrize(("day", "slots"), [(date(2026, 3, 8), 92), (date(2026, 11, 1), 100)])
def test_days_on_which_clocks_change_have_their_own_number_of_slots(city: City, day: date, slots: int) -> None:
    city.reference(Installed("M-1", "SP-1"))
    curve = load_curve(day)
    holed = curve.copy()
    holed[6:20] = NO_VALUE
    city.intervals(day, {"M-1": holed})
    city.register("M-1", (midnight(day), 0), (midnight(day + timedelta(days=1)), int(curve.sum())))
    for k in (8, 7, 1):
        other = day - timedelta(days=k)
        city.intervals(other, {"M-1": load_curve(other, seed=k)})
        validate(city, other)
    outcome = validate(city, day)
    assert outcome.expected == slots
    assert outcome.missing == 0
    assert city.rows("SELECT quantity_micro FROM vee.daily_usage WHERE billing_day = %s", day) == [(int(curve.sum()),)]
    assert outcome.methods == {"S15": 14}


def test_row_order_of_the_raw_store_does_not_matter(city: City) -> None:
    names = [f"M-{k}" for k in range(12)]
    city.reference(*(Installed(n, f"SP-{n}", register=False) for n in names))
    values = {n: load_curve(DAY, seed=k) for k, n in enumerate(names)}
    values["M-3"][5:30] = NO_VALUE
    for n in names:
        city.intervals(DAY, {n: values[n]})
    validate(city)
    one = city.rows("SELECT meter_id, content_hash FROM vee.interval_day ORDER BY 1")
    with city.database.connect() as c:
        c.execute("DELETE FROM vee.interval_day")
        c.execute("DELETE FROM vee.daily_usage")
    for n in reversed(names):
        city.intervals(DAY, {n: values[n]})
    validate(city)
    assert city.rows("SELECT meter_id, content_hash FROM vee.interval_day ORDER BY 1") == one
    assert np.array_equal(np.array(one, object)[:, 0], sorted(names))


def test_the_reports_name_their_checks_and_draw_small_pictures(city: City) -> None:
    city.reference(Installed("M-1", "SP-1"), Installed("M-2", "SP-2"))
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[30:50] = NO_VALUE
    city.intervals(DAY, {"M-1": holed, "M-2": curve})
    city.register("M-2", (midnight(DAY), 0), (midnight(DAY + timedelta(days=1)), int(curve.sum()) + 9_000_000))
    report = validate(city).report()
    assert {c.name: c.passed for c in report.checks} == {"slots_complete": True, "sum_check": True}
    assert report.figures["sum_checks_failed"] == 1
    assert set(report.plots) == {"load shape", "estimates by method", "worst sum checks", "worst meters"}
    assert all(len(png) < 20_000 and png[:4] == b"\x89PNG" for png in report.plots.values())
    usage = usage_report(city.database, CALENDAR, DAY)
    assert [(c.name, c.passed) for c in usage.checks] == [("usage_is_validated", True)]
    assert usage.figures["service_points"] == 2
    assert len(usage.plots["usage by quality"]) < 20_000


def test_explain_tells_the_day_slot_by_slot_on_a_day_of_25_hours(city: City) -> None:
    day = date(2026, 11, 1)
    city.reference(Installed("M-1", "SP-1"))
    curve = load_curve(day)
    holed = curve.copy()
    holed[4:8] = NO_VALUE
    holed[20] = -1000
    city.intervals(day, {"M-1": holed})
    city.register("M-1", (midnight(day), 0), (midnight(day + timedelta(days=1)), int(curve.sum())))
    validate(city, day)
    document = explain_day(city.database, CALENDAR, "M-1", day)
    [channel] = document["channels"]
    assert len(channel["intervals"]) == 100
    assert channel["total"] == channel["register_difference"]
    assert [i["local"] for i in channel["intervals"][4:9]] == [
        "01:00 -0500",
        "01:15 -0500",
        "01:30 -0500",
        "01:45 -0500",
        "01:00 -0600",
    ]
    assert channel["intervals"][4]["rules"] == ["GAP"]
    assert channel["intervals"][4]["quality"]["method_name"] == "linear"
    assert channel["intervals"][20]["rules"] == ["NEGATIVE"]
    assert channel["intervals"][20]["quality"]["reason"] == 39
    assert [r["step"] for r in document["registers"][0]["reads"]] == ["first", "normal"]
    json.dumps(plain(document))
    assert not explain_day(city.database, CALENDAR, "M-404", day)["found"]


def test_a_day_of_nothing_and_a_day_of_strangers_are_days_too(city: City) -> None:
    outcome = validate(city)
    assert (outcome.rows, outcome.expected, outcome.exceptions) == (0, 0, {})
    assert all(c.passed for c in outcome.report().checks)
    assert all(c.passed for c in usage_report(city.database, CALENDAR, DAY).checks)
    city.intervals(DAY, {"M-9": load_curve(DAY)})
    city.register("M-8", (midnight(DAY), 1_000_000))
    outcome = validate(city)
    assert outcome.exceptions == {"UNKNOWN_METER": 1}
    assert city.rows("SELECT count(*) FROM vee.daily_usage") == [(0,)]
    document = explain_day(city.database, CALENDAR, "M-9", DAY)
    assert document["raw_not_used"] == [{"channel": "E1", "interval_minutes": 15, "reads": 96}]


def test_a_wrong_unit_and_a_wrong_interval_length_are_exceptions_and_never_billed(city: City) -> None:
    city.reference(Installed("M-1", "SP-1", register=False), Installed("M-2", "SP-2", register=False))
    city.intervals(DAY, {"M-1": load_curve(DAY)}, unit="kVArh")
    city.intervals(DAY, {"M-2": load_curve(DAY, 30)}, minutes=30)
    outcome = validate(city)
    assert outcome.exceptions["UNIT"] == 1
    assert outcome.exceptions["INTERVAL_SIZE"] == 1
    assert outcome.actual == 0
    assert outcome.balanced
