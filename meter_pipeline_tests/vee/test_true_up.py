"""True-ups: a register read asks for exactly the days it changes, in the transaction that found them, once; running
them settles every request."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from meter_pipeline.anomalies import detect_billing_day
from meter_pipeline.postgres.database import Database
from meter_pipeline.vee import VeeOutcome, validate_billing_day
from meter_pipeline.vee.registers.assemble import day_windows, with_units
from meter_pipeline.vee.registers.read_window import reads_around
from meter_pipeline.vee.tables import true_up
from meter_pipeline.vee.tables.day_inputs import read_installations
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 2, 3)
DAYS = [DAY + timedelta(days=k) for k in range(8)]


@pytest.fixture
def city(database: Database) -> City:
    return City(database)


def validate(city: City, day: date) -> VeeOutcome:
    return validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))


def at(day: date, hour: int) -> datetime:
    return CALENDAR.bounds(day)[0] + timedelta(hours=hour)


def waiting(city: City) -> list[date]:
    return [day for day, _ in true_up.waiting(city.database)]


def run_waiting(city: City) -> list[date]:
    """Every waiting day, as the sensor and the command line run them, until none asks."""
    ran = []
    while days := waiting(city):
        for day in days:
            validate(city, day)
            ran.append(day)
        assert len(ran) < 50, "a rerun asks for itself"
    return ran


def usage(city: City) -> dict[date, int]:
    return dict(
        city.rows("SELECT billing_day, quantity_micro FROM vee.daily_usage WHERE service_point_id = 'SP-0' ORDER BY 1")
    )


def test_a_read_every_three_days_bills_every_day_between_and_settles(city: City) -> None:
    city.reference(Installed("W-0", "SP-0", interval_minutes=None))
    city.register("W-0", (at(DAY - timedelta(days=1), 12), 10_000_000))
    for k, day in enumerate(DAYS):
        if k in (2, 5):
            city.register("W-0", (at(day, 12), 10_000_000 + 7_000_001 * (k + 1)))
        validate(city, day)
    assert waiting(city) == DAYS[:2] + DAYS[2:5]
    assert run_waiting(city) == DAYS[:5]
    used = usage(city)
    # 21.000003 in each 72 hours from noon to noon: the first midnight lies 12 hours into the one, the last 60 hours
    # into the other
    assert sum(used[d] for d in DAYS[:5]) == 21_000_003 - 21_000_003 * 12 // 72 + 21_000_003 * 60 // 72
    assert all(used[d] > 0 for d in DAYS[:5])
    assert city.rows("SELECT count(*) FROM vee.true_up WHERE done_at IS NULL") == [(0,)]
    for day in DAYS:
        again = validate(city, day)
        assert (again.redetermine, again.inserted, again.updated) == ([], 0, 0)


def test_days_between_manual_reads_sum_to_the_register_whenever_they_were_read(city: City) -> None:
    """Read by hand at 9:30, 10:03 and 15:17: the pace changes within the days of the reads, and only time after the
    last is estimated."""
    first, second, last = (
        at(DAY, 9) + timedelta(minutes=30, seconds=55),
        at(DAYS[3], 10) + timedelta(seconds=213),
        at(DAYS[6], 15) + timedelta(minutes=17),
    )
    city.reference(Installed("W-0", "SP-0", interval_minutes=None, installed_at=first))
    city.register("W-0", (first, 6_342_800_000))
    for day in DAYS[:7]:
        if day == DAYS[3]:
            city.register("W-0", (second, 6_354_900_001))
        if day == DAYS[6]:
            city.register("W-0", (last, 6_359_200_008))
        validate(city, day)
    run_waiting(city)
    rest = int((CALENDAR.bounds(DAYS[6])[1] - last).total_seconds())
    forward = 16_400_008 * rest // int((last - first).total_seconds())
    assert sum(usage(city).values()) == 16_400_008 + forward
    codes = dict(
        city.rows("SELECT billing_day, raw.quality_flag(quality) FROM vee.daily_usage WHERE service_point_id = 'SP-0'")
    )
    assert codes[DAYS[6]] == "E"
    assert {codes[d] for d in DAYS[:6]} <= {"S", "A"}
    # a last read at midnight leaves nothing to estimate
    end = CALENDAR.bounds(DAYS[6])[1]
    city.register("W-0", (end, 6_360_000_000))
    validate(city, DAYS[6])
    run_waiting(city)
    assert sum(usage(city).values()) == 6_360_000_000 - 6_342_800_000


def test_a_late_read_between_two_others_recuts_the_days_up_to_both_and_loses_nothing(city: City) -> None:
    city.reference(Installed("W-0", "SP-0", interval_minutes=None))
    end = CALENDAR.bounds(DAYS[5])[1]
    city.register("W-0", (CALENDAR.bounds(DAY)[0], 0), (end, 60_000_000))
    for day in DAYS[:6]:
        validate(city, day)
    run_waiting(city)
    assert set(usage(city).values()) == {10_000_000}
    city.register("W-0", (at(DAYS[3], 0), 45_000_000))  # belongs to the day it closes
    late = validate(city, DAYS[2])
    assert late.redetermine == [*DAYS[:2], *DAYS[3:6]]
    run_waiting(city)
    assert list(usage(city).values()) == [15_000_000] * 3 + [5_000_000] * 3
    assert validate(city, DAYS[2]).redetermine == []


def share(day: date, total: int, first: datetime, last: datetime) -> int:
    """What a day between two reads has of the whole: a difference of one cumulative integer function of time."""
    elapsed = (last - first) // timedelta(seconds=1)
    opens, closes = (min(max(edge, first), last) for edge in CALENDAR.bounds(day))
    return (
        total * ((closes - first) // timedelta(seconds=1)) // elapsed
        - total * ((opens - first) // timedelta(seconds=1)) // elapsed
    )


@pytest.mark.parametrize("opened_by", ["a read", "the install read"])
def test_a_meter_that_is_read_once_a_year_has_every_day_of_the_year_closed(city: City, opened_by: str) -> None:
    """Its days are estimated until it is read; then each is its exact share of what the two reads, a year apart,
    counted."""
    read_day = DAY + timedelta(days=371)
    first, last = at(DAY, 10), at(read_day, 15)
    if opened_by == "a read":
        city.reference(Installed("W-0", "SP-0", interval_minutes=None))
        city.register("W-0", (first, 4_000_000_000))
    else:
        city.reference(Installed("W-0", "SP-0", interval_minutes=None, installed_at=first, install_read=4_000_000_000))
    # a neighbour read every quarter: what is asked for it is what was asked before
    city.reference(Installed("W-1", "SP-1", interval_minutes=None))
    city.register("W-1", (at(DAY - timedelta(days=30), 9), 1_000_000))
    between = [DAY + timedelta(days=n) for n in (0, 1, 99, 100, 101, 200, 350, 370)]
    for day in between:
        validate(city, day)
    before = usage(city)
    assert waiting(city) == []
    city.register("W-0", (last, 4_000_000_000 + 3_650_000_011))
    validate(city, read_day)
    assert waiting(city) == between
    run_waiting(city)
    after = usage(city)
    # the hours of the first day before its read are estimated where the meter stood there already
    exact = between if opened_by == "the install read" else between[1:]
    assert {d: after[d] for d in exact} == {d: share(d, 3_650_000_011, first, last) for d in exact}
    assert all(after[d] != before.get(d) for d in between)
    codes = dict(
        city.rows("SELECT billing_day, raw.quality_flag(quality) FROM vee.daily_usage WHERE service_point_id = 'SP-0'")
    )
    assert {codes[d] for d in between} <= {"S", "A"}
    for day in (*between, read_day):
        again = validate(city, day)
        assert (again.redetermine, again.inserted, again.updated) == ([], 0, 0)


def test_a_true_up_leaves_days_alone_whose_own_opening_reads_are_archived(city: City) -> None:
    """Validated again without the reads that opened it, an exact day would become an estimate."""
    read_day = DAY + timedelta(days=300)
    city.reference(Installed("W-0", "SP-0", interval_minutes=None))
    city.register("W-0", (at(DAY, 10), 0))
    days = [DAY + timedelta(days=n) for n in (1, 50, 160, 161, 299)]
    for day in days:
        validate(city, day)
    with city.database.connect() as connection:
        connection.execute(
            "INSERT INTO archive.day_table (billing_day, table_name, state, rows, bytes, columns, folder, file, file_sha256, content_sha256, archived_at, "
            "changed_at, ledger_entry) VALUES (%s, 'raw.interval_day', 'archived', 0, 1, '{}', '/', 'f', sha256(''), sha256(''), now(), now(), 0)",
            (DAY + timedelta(days=60),),
        )
        connection.commit()
    city.register("W-0", (at(read_day, 15), 300_000_000))
    validate(city, read_day)
    assert waiting(city) == days[3:]


@pytest.mark.parametrize(
    ("reads", "reach_days"), [((-30,), 100), ((-30, -150), 100), ((-150,), 400), ((-30, 90), 100), ((-30, 150), 400)]
)
def test_reads_far_off_are_fetched_only_for_registers_that_are_open_on_that_side(
    city: City, reads: tuple[int, ...], reach_days: int
) -> None:
    city.reference(Installed("W-0", "SP-0", interval_minutes=None))
    for n in reads:
        city.register("W-0", (at(DAY + timedelta(days=n), 10), 1_000_000 * (400 + n)))
    start, end = (int(moment.timestamp()) for moment in CALENDAR.bounds(DAY))
    windows = day_windows(with_units(read_installations(city.database, DAY, *CALENDAR.bounds(DAY))), start, end)
    around = reads_around(city.database, DAY, start, end, windows, ["W-0"])
    assert around.days == reach_days
    assert around.reads.height == sum(abs(n) <= reach_days for n in reads)


def test_reads_at_midnight_ask_for_no_other_day(city: City) -> None:
    city.reference(Installed("W-0", "SP-0", interval_minutes=None))
    for k in range(5):
        city.register("W-0", (CALENDAR.bounds(DAYS[k])[0], 1_000_000 * k))
    for day in DAYS[:4]:
        assert validate(city, day).redetermine == []


def test_a_request_made_while_its_day_runs_waits_for_the_next_run(city: City) -> None:
    city.reference(Installed("W-0", "SP-0", interval_minutes=None))
    validate(city, DAY)
    request = true_up.Request(DAY, DAYS[3], b"e" * 32, 1)
    with city.database.connect() as connection:
        known = true_up.pending(connection, DAY)
        assert true_up.ask(connection, [request], noon_after(DAY).now()) == [DAY]
        true_up.done(connection, DAY, known, noon_after(DAY).now())
    assert waiting(city) == [DAY]
    validate(city, DAY)
    assert waiting(city) == []
    with city.database.connect() as connection:
        assert true_up.ask(connection, [request], noon_after(DAY).now()) == []


def test_a_day_without_usage_takes_the_mean_of_the_interval_meters_of_its_class(city: City) -> None:
    city.reference(
        Installed("W-0", "SP-0", interval_minutes=None),
        *(Installed(f"M-{k}", f"SP-{k}", register=False) for k in range(1, 10)),
    )
    curves = {f"M-{k}": load_curve(DAY, seed=k) for k in range(1, 10)}
    city.intervals(DAY, curves)
    validate(city, DAY)
    assert usage(city)[DAY] == sum(int(c.sum()) for c in curves.values()) // 9


def test_a_register_between_two_reads_is_no_dropout_and_one_that_is_overdue_is(city: City) -> None:
    """A meter read every third day owes nothing on the days between; after six days of silence it does."""
    city.reference(*(Installed(f"W-{k}", f"SP-{k}", interval_minutes=None) for k in range(6)))
    first = DAY - timedelta(days=12)
    for meter in range(6):
        for n in range(5):
            city.register(f"W-{meter}", (at(first + timedelta(days=3 * n), 10), 1_000_000 * (20 + 3 * n)))
    days = [first + timedelta(days=n) for n in range(21)]
    kinds: dict[date, set[str]] = {}
    for day in days:
        validate(city, day)
        run_waiting(city)
        kinds[day] = set(detect_billing_day(city.database, CALENDAR, day, clock=noon_after(day)).by_kind)
    last_read = days[12]
    assert not any(
        kind.startswith("dropout") for day in days if day <= last_read + timedelta(days=5) for kind in kinds[day]
    )
    assert any(kind.startswith("dropout") for day in days if day > last_read + timedelta(days=6) for kind in kinds[day])
