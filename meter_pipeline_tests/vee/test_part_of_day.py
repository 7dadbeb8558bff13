"""A run for the touched service points of a day leaves what a run of the whole day leaves: every table, every ledger
entry.

A town of intervals with and without registers, of daily registers and of an exchanged meter has weeks of history. A day
of it is changed at random, in two copies; one is validated whole, the other for what was touched.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import VeeOutcome, validate_billing_day
from meter_pipeline.vee.loading import Touched
from meter_pipeline_tests.support import copy_database
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 3, 24)
HISTORY = [DAY - timedelta(days=k) for k in range(9, 0, -1)]
READ = [f"M-{n:02d}" for n in range(9)]
PLAIN = ["M-20", "M-21", "M-22"]
DIALS = [f"W-{n:02d}" for n in range(9)]
POINT = {m: f"SP-{m}" for m in (*READ, *PLAIN, *DIALS)} | {"M-30": "SP-M-30", "M-31": "SP-M-30"}
#: What a run of the whole day writes anew and a part takes as stored, and which of the two it was
AS_STORED = {"vee.class_movement", "vee.usage_change"}


def noon_of(day: date) -> Any:
    return CALENDAR.bounds(day)[0] + timedelta(hours=13)


def build(city: City) -> None:
    """The town and its history; the day itself is validated too."""
    exchanged = noon_of(DAY)
    city.reference(
        *(Installed(m, POINT[m]) for m in READ),
        *(Installed(m, POINT[m], register=False, customer_class="commercial") for m in PLAIN),
        *(Installed(m, POINT[m], interval_minutes=None, unit="kWh") for m in DIALS),
        Installed("M-30", "SP-M-30", removed_at=exchanged, register=False),
        Installed("M-31", "SP-M-30", installed_at=exchanged, register=False),
    )
    for number, day in enumerate([*HISTORY, DAY]):
        curves = {m: load_curve(day, seed=31 * k + number) for k, m in enumerate((*READ, *PLAIN))}
        curves["M-30"] = load_curve(day, seed=number)
        if day == DAY:
            curves["M-31"] = load_curve(day, seed=99)
            curves["M-30"][52:] = NO_VALUE
            curves["M-31"][:52] = NO_VALUE
            curves["M-01"][30:50] = NO_VALUE
            curves["M-20"][10:12] = NO_VALUE
            del curves["M-02"], curves["M-21"]
        city.intervals(day, curves)
        start, end = CALENDAR.bounds(day)
        if day == DAY:
            used = int(curves["M-00"].sum())
            city.register("M-00", (start, 50_000_000), (end, 50_000_000 + used))
        for k, w in enumerate(DIALS):
            if not (day == DAY and k == 3):
                city.register(w, (end, 10_000_000 + (number + 1) * (9_000_000 + 100_000 * k) + number * number * 1000))
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))


def late(city: City, rng: random.Random) -> list[str]:
    """A channel whose day was missing or cut comes whole."""
    meter = rng.choice(["M-02", "M-21", "M-01", "M-20"])
    city.intervals(DAY, {meter: load_curve(DAY, seed=rng.randrange(99))})
    return [meter]


def cut(city: City, rng: random.Random) -> list[str]:
    """A channel is sent again with a gap."""
    meter = rng.choice([*READ[3:], "M-22", "M-20"])
    curve = load_curve(DAY, seed=rng.randrange(99))
    first = rng.randrange(0, 80)
    curve[first : first + rng.choice([3, 7, 30])] = NO_VALUE
    city.intervals(DAY, {meter: curve})
    return [meter]


def revised(city: City, rng: random.Random) -> list[str]:
    """Values that were read whole change, all of them by a tenth or one of them tenfold."""
    meter = rng.choice([*READ[3:], "M-22"])
    curve = load_curve(DAY, seed=rng.randrange(99))
    if rng.random() < 0.5:
        curve[40] *= 20
    city.intervals(DAY, {meter: curve})
    return [meter]


def read(city: City, rng: random.Random) -> list[str]:
    """A dial's read comes late, or says something else."""
    meter = rng.choice(DIALS)
    city.rows("DELETE FROM raw.register_read WHERE billing_day = %s AND meter_id = %s RETURNING 1", DAY, meter)
    value = 10_000_000 + (len(HISTORY) + 1) * 9_300_000 + rng.randrange(5_000_000)
    city.register(meter, (CALENDAR.bounds(DAY)[1], value))
    return [meter]


def ratio(city: City, rng: random.Random) -> list[str]:
    """A dial's multiplier was wrong."""
    meter = rng.choice(DIALS)
    city.rows("UPDATE ref.channels SET multiplier = %s WHERE meter_id = %s RETURNING 1", rng.choice([2, 10]), meter)
    return [meter]


def payer(city: City, rng: random.Random) -> list[str]:
    """Nobody pays for a service any more."""
    meter = rng.choice([*READ, *PLAIN, *DIALS])
    city.rows("UPDATE ref.agreements SET valid_to = %s WHERE service_point_id = %s RETURNING 1", DAY, POINT[meter])
    return [meter]


def exchanged(city: City, rng: random.Random) -> list[str]:
    """The new meter's afternoon is sent again."""
    curve = load_curve(DAY, seed=rng.randrange(99))
    curve[:52] = NO_VALUE
    city.intervals(DAY, {"M-31": curve})
    return ["M-31"]


def removed(city: City, rng: random.Random) -> list[str]:
    """A meter was taken away before the day."""
    meter = rng.choice([*READ[3:], *DIALS])
    before = CALENDAR.bounds(DAY)[0] - timedelta(hours=5)
    city.rows("UPDATE ref.installations SET removed_at = %s WHERE meter_id = %s RETURNING 1", before, meter)
    return [meter]


CHANGES: list[Callable[[City, random.Random], list[str]]] = [
    late,
    cut,
    revised,
    read,
    ratio,
    payer,
    exchanged,
    removed,
]


def held(database: Database) -> dict[str, str]:
    """Every row of vee and of the exception queue, and every ledger entry with its leaves."""
    found = {}
    with database.connect(autocommit=True) as c:
        tables = c.execute(
            "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname IN ('vee', 'anomaly') AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1"
        ).fetchall()
        for table in [*(t for (t,) in tables if t not in AS_STORED), "ledger.entry"]:
            gone = ["xid", "recorded_at"] if table == "ledger.entry" else []
            row = c.execute(
                f"SELECT coalesce(string_agg(h, E'\\n' ORDER BY h), '') FROM (SELECT (to_jsonb(t) - %s::text[])::text AS h FROM {table} t) x".encode(),
                (gone,),
            ).fetchone()
            assert row is not None
            found[table] = row[0]
    return found


@pytest.fixture(scope="module")
def town(server: Database, template: Database) -> Database:
    """The town with its history."""
    database = copy_database(server, "part_of_day", template.name)
    build(City(database))
    with server.connect(autocommit=True) as connection:
        # sessions that reading keeps open: a template may have none
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'part_of_day'")
    return database


def both(
    server: Database, town: Database, name: str, change: Callable[[City], list[str]]
) -> tuple[VeeOutcome, dict[str, str], dict[str, str]]:
    """The change in two copies: the outcome of the run for a part, and what the part and the whole left."""
    outcomes = []
    for way in ("part", "whole"):
        city = City(copy_database(server, f"part_{name}_{way}", town.name))
        meters = change(city)
        only = Touched((), tuple(sorted(meters))) if way == "part" else None
        outcome = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, 2), only=only)
        outcomes.append((outcome, held(city.database)))
    return outcomes[0][0], outcomes[0][1], outcomes[1][1]


@pytest.mark.parametrize("seed", range(16))
def test_a_part_leaves_the_bytes_of_the_whole_day(server: Database, town: Database, seed: int) -> None:
    """One to three random changes of a day."""

    def change(city: City) -> list[str]:
        rng = random.Random(seed)
        chosen = [CHANGES[seed % len(CHANGES)], *rng.sample(CHANGES, rng.randrange(3))]
        return [meter for one in chosen for meter in one(city, rng)]

    outcome, part, whole = both(server, town, str(seed), change)
    for table, rows in whole.items():
        assert part[table] == rows, table
    if outcome.whole_because:
        assert outcome.service_points is None
    else:
        assert outcome.service_points is not None
        assert outcome.rows < 6


def test_most_changes_need_no_whole_day(server: Database, town: Database) -> None:
    """A late file, a read and a ratio are validated alone."""
    for change in (late, read, ratio, payer, exchanged):
        city = City(copy_database(server, f"part_alone_{change.__name__}", town.name))
        meters = change(city, random.Random(3))
        only = Touched((), tuple(meters))
        outcome = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY, 2), only=only)
        assert (change.__name__, outcome.whole_because) == (change.__name__, "")
        assert np.isclose(outcome.service_points or 0, 1)


def test_a_day_that_was_not_validated_is_validated_whole(server: Database, town: Database) -> None:
    """There is nothing stored to leave alone."""
    city = City(copy_database(server, "part_first", town.name))
    following = DAY + timedelta(days=1)
    city.intervals(following, {m: load_curve(following, seed=5) for m in READ})
    only = Touched((POINT["M-03"],), ())
    outcome = validate_billing_day(city.database, CALENDAR, following, clock=noon_after(following), only=only)
    assert outcome.whole_because == "the day was not validated whole yet"
    assert outcome.inserted >= len(READ)
