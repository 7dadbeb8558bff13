"""Billing a day again for the touched service points leaves what billing the whole day leaves: every table, every
ledger entry, the days carried forward and the statements noted.

A city of all commodities and every planted defect is billed for three days. The first day is changed at random, in two
copies; one is billed for what was validated again, the other whole.
"""

from __future__ import annotations

import random
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day, bill_billing_days, several_days, validated_since_billed
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ingest import ingest_billing_day, land_inbox
from meter_pipeline.postgres import day_lock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.reference import import_folder
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline.vee import several_days as several_validated
from meter_pipeline.vee import touched_since, validate_billing_day, validate_billing_days
from meter_pipeline.vee.tables import true_up
from meter_pipeline.vee.tables.part_of_day import note_validation
from meter_pipeline_tests.support import copy_database
from meter_pipeline_tests.vee.city import noon_after

FIRST = date(2026, 11, 2)
DAYS = [FIRST + timedelta(days=k) for k in range(3)]
#: What of the ledger and of the versions kept says when and in which transaction
OF_THE_RUN = ["xid", "recorded_at", "replaced_by"]


@pytest.fixture(scope="module")
def city(
    server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Database, BillingCalendar]:
    """Three billed days; what another day would ask for is not run."""
    from dataclasses import replace

    from meter_pipeline.settings import load_settings

    folder = tmp_path_factory.mktemp("part")
    data = folder / "data"
    simulate(Spec(meters=60, days=len(DAYS), start=FIRST, seed=5), data)
    database = copy_database(server, "billed_part", template.name)
    settings = replace(
        load_settings(), home=folder / "home", data=data, inbox=data / "inbox", database_url=database.url
    )
    Path(settings.home).mkdir()
    calendar = settings.calendar()
    import_folder(database, data / "reference")
    clock = noon_after(DAYS[-1])
    land_inbox(database, calendar, settings, clock=clock)
    for day in DAYS:
        ingest_billing_day(database, calendar, day, settings=settings, clock=clock)
        validate_billing_day(database, calendar, day, clock=clock)
        bill_billing_day(database, calendar, day, clock=clock)
    with server.connect(autocommit=True) as connection:
        # sessions that reading keeps open: a template may have none
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'billed_part'")
    return database, calendar


def held(database: Database, *schemas: str) -> dict[str, str]:
    """Every row of billing (and other ``schemas``) and of the notes on bills, and every ledger entry."""
    found = {}
    with database.connect(autocommit=True) as c:
        tables = c.execute(
            "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(%s) AND c.relname <> 'usage_seen' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1",
            (["billing", *schemas],),
        ).fetchall()
        for (table,) in [*tables, ("ledger.entry",)]:
            row = c.execute(
                f"SELECT coalesce(string_agg(h, E'\\n' ORDER BY h), '') FROM (SELECT (to_jsonb(t) - %s::text[])::text AS h FROM {table} t) x".encode(),
                (OF_THE_RUN,),
            ).fetchone()
            assert row is not None
            found[table] = row[0]
    return found


def change(database: Database, rng: random.Random, day: date = FIRST) -> list[str]:
    """One to three service points come out differently: usage, payer, tariff, a deduct meter, no usage."""
    with database.connect() as c:
        points = [
            p
            for (p,) in c.execute(
                "SELECT DISTINCT service_point_id FROM billing.determinant_day WHERE billing_day = %s ORDER BY 1",
                (day,),
            ).fetchall()
        ]
        chosen = rng.sample(points, rng.randrange(1, 4))
        for point in chosen:
            kind = rng.choice(["usage", "payer", "no usage", "tariff", "attribute"])
            if kind == "usage":
                c.execute(
                    "UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 7000000 WHERE billing_day = %s AND service_point_id = %s",
                    (day, point),
                )
                c.execute(
                    "UPDATE vee.interval_day SET values[5] = values[5] + 700 WHERE billing_day = %s AND service_point_id = %s AND values IS NOT NULL",
                    (day, point),
                )
            elif kind == "payer":
                c.execute(
                    "UPDATE ref.agreements SET valid_from = %s WHERE service_point_id = %s AND valid_from <= %s",
                    (day + timedelta(days=1), point, day),
                )
            elif kind == "no usage":
                c.execute("DELETE FROM vee.daily_usage WHERE billing_day = %s AND service_point_id = %s", (day, point))
                c.execute("DELETE FROM vee.interval_day WHERE billing_day = %s AND service_point_id = %s", (day, point))
            elif kind == "tariff":
                c.execute(
                    "UPDATE ref.agreements SET tariff_id = (SELECT min(tariff_id) FROM ref.agreements AS o JOIN ref.service_points AS p USING "
                    "(service_point_id) WHERE p.commodity = (SELECT min(commodity) FROM ref.service_points WHERE service_point_id = %s)) "
                    "WHERE service_point_id = %s",
                    (point, point),
                )
            else:
                other = points[points.index(point) - 1]
                c.execute(
                    "INSERT INTO ref.service_attributes (service_point_id, attribute, value, valid_from) SELECT %s, 'deducts_from', %s, %s "
                    "WHERE NOT EXISTS (SELECT FROM ref.service_attributes WHERE service_point_id = %s AND attribute = 'deducts_from')",
                    (point, other, day, point),
                )
    return chosen


@pytest.mark.parametrize("seed", range(10))
def test_a_part_leaves_the_bytes_of_the_whole_day(
    server: Database, city: tuple[Database, BillingCalendar], seed: int
) -> None:
    """Random service points of the first of three days."""
    billed, calendar = city
    found = []
    for way in ("part", "whole"):
        database = copy_database(server, f"billed_{seed}_{way}", billed.name)
        points = change(database, random.Random(seed))
        outcome = bill_billing_day(
            database, calendar, FIRST, clock=noon_after(DAYS[-1]), only=points if way == "part" else None
        )
        assert (outcome.service_points is not None) == (way == "part")
        assert outcome.services <= 2 * len(points) or way == "whole"
        found.append((outcome.changed, outcome.carried, held(database)))
    (changed, carried, part), (changed_whole, carried_whole, whole) = found
    for table, rows in whole.items():
        assert part[table] == rows, table
    assert (changed, carried) == (changed_whole, carried_whole)


#: What says how often a day was written on the way to what it is
ON_THE_WAY = {"billing.charge_day_version", "billing.determinant_day_version", "ledger.entry"}


@pytest.mark.parametrize("seed", range(4))
def test_parts_of_a_span_of_days_leave_the_bytes_of_whole_days(
    server: Database, city: tuple[Database, BillingCalendar], seed: int
) -> None:
    """Each of three days changes. One copy bills them whole, one after the other, and carries each into the next; one
    bills their parts; one is killed after a part and begins again; and one bills them shuffled (a day that another
    carries into keeps its reconciliation until it runs itself)."""
    billed, calendar = city
    found: dict[str, dict[str, str]] = {}
    versions: dict[str, int] = {}
    for way in ("whole", "parts", "killed", "shuffled"):
        database = copy_database(server, f"billed_span_{seed}_{way}", billed.name)
        rng = random.Random(seed)
        # another payer or tariff reaches the other days too
        touched = sorted({point for day in DAYS for point in change(database, rng, day)})
        if way != "whole":
            with database.connect() as c:
                for day in DAYS:
                    note_validation(c, day, touched)
        order = rng.sample(DAYS, len(DAYS)) if way == "shuffled" else [*DAYS[: way == "killed"], *DAYS]
        for day in order:
            bill_billing_day(
                database, calendar, day, clock=noon_after(DAYS[-1]), only=validated_since_billed(database, day)
            )
        found[way] = {table: rows for table, rows in held(database).items() if table not in ON_THE_WAY}
        with database.connect() as c:
            versions[way] = c.execute("SELECT count(*) FROM billing.charge_day_version").fetchall()[0][0]
    for table, rows in found["whole"].items():
        assert found["parts"][table] == rows, table
        assert found["killed"][table] == rows, table
        assert table == "billing.reconciliation" or found["shuffled"][table] == rows, table
    assert versions["parts"] <= versions["whole"]


def test_a_day_is_not_carried_into_one_that_is_billed_again(
    server: Database, city: tuple[Database, BillingCalendar]
) -> None:
    """The position moves on the first day; the second waits to be billed for the service point, the third does not:
    the second's billing carries on into the third."""
    database, calendar = copy_database(server, "billed_not_twice", city[0].name), city[1]
    with database.connect() as c:
        [(point,)] = c.execute(
            "SELECT min(service_point_id) FROM (SELECT service_point_id FROM billing.charge_day WHERE stretch_start < %s "
            "GROUP BY 1 HAVING count(*) = 3) AS p",
            (FIRST,),
        ).fetchall()
        for day in DAYS[:2]:
            c.execute(
                "UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 7000000 WHERE billing_day = %s AND service_point_id = %s",
                (day, point),
            )
            c.execute(
                "UPDATE vee.interval_day SET values[5] = values[5] + 700 WHERE billing_day = %s AND service_point_id = %s AND values IS NOT NULL",
                (day, point),
            )
            note_validation(c, day, [point])
    clock = noon_after(DAYS[-1])
    first = bill_billing_day(database, calendar, DAYS[0], clock=clock, only=validated_since_billed(database, DAYS[0]))
    assert (first.changed, first.carried) == (1, {})
    second = bill_billing_day(database, calendar, DAYS[1], clock=clock, only=validated_since_billed(database, DAYS[1]))
    assert (second.changed, second.carried) == (1, {DAYS[2]: 1})
    assert bill_billing_day(database, calendar, DAYS[2], clock=clock).changed == 0


def corrected(database: Database, rng: random.Random) -> int:
    """Ratios of some meters change, and the days of their service points are asked for; how many service points."""
    with database.connect() as c:
        meters = c.execute(
            "SELECT DISTINCT meter_id, channel, service_point_id FROM vee.interval_day WHERE billed AND flow = 'import' UNION "
            "SELECT DISTINCT meter_id, channel, service_point_id FROM vee.register_day WHERE usage_micro IS NOT NULL ORDER BY 1, 2"
        ).fetchall()
        chosen = rng.sample(meters, 4)
        for meter, channel, _ in chosen:
            c.execute(
                "INSERT INTO ref.channel_values (meter_id, channel, valid_from, multiplier) VALUES (%s, %s, %s, 2)",
                (meter, channel, DAYS[0]),
            )
        points = tuple(sorted({point for *_, point in chosen}))
        true_up.ask(
            c, [true_up.Request(day, day, b"ratio".rjust(32), 4, points) for day in DAYS], noon_after(DAYS[-1]).now()
        )
    return len(points)


@pytest.mark.parametrize("seed", range(3))
def test_days_in_one_transaction_leave_the_bytes_of_one_each(
    server: Database, city: tuple[Database, BillingCalendar], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Ratios are corrected over three days: day by day; together; together while somebody changes reference data, so
    that nothing that was read may be kept; and together where the process is lost while the last day is billed, which
    leaves nothing of the bills, and begun again."""
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LEAST_ROWS", 0)
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LARGEST_SHARE", 1)
    billed, calendar = city
    clock = noon_after(DAYS[-1])
    found: dict[str, dict[str, str]] = {}
    for way in ("apart", "together", "changing", "lost"):
        database = copy_database(server, f"billed_days_{seed}_{way}", billed.name)
        assert corrected(database, random.Random(seed))
        if way == "apart":
            for day in DAYS:
                validate_billing_day(database, calendar, day, clock=clock, only=touched_since(database, day))
            for day in DAYS:
                bill_billing_day(database, calendar, day, clock=clock, only=validated_since_billed(database, day))
        else:
            with database.connect() as other:
                if way == "changing":
                    other.execute("SELECT ref.record_time()")
                judged = dict(validate_billing_days(database, calendar, DAYS, clock=clock))
            assert list(judged) == DAYS
            assert [day for day, outcome in judged.items() if outcome.whole_because] == []
            if way == "lost":
                before = held(database)
                with monkeypatch.context() as lost:
                    lost.setattr(several_days, "bill_billing_day", _lost_on(DAYS[-1]))
                    with pytest.raises(ConnectionError):
                        list(bill_billing_days(database, calendar, DAYS, clock=clock))
                assert held(database) == before
            outcomes = dict(bill_billing_days(database, calendar, DAYS, clock=clock))
            assert all(outcome.changed for outcome in outcomes.values())
            assert all(outcome.service_points is not None for outcome in outcomes.values())
        found[way] = held(database, "vee", "anomaly")
    for table, rows in found["apart"].items():
        assert found["together"][table] == rows, table
        assert found["changing"][table] == rows, table
        # what was undone used up numbers
        assert _without_numbers(found["lost"][table]) == _without_numbers(rows), table


def test_what_comes_while_days_share_a_transaction_is_left_to_the_next_run(
    server: Database, city: tuple[Database, BillingCalendar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first of three days is validated, a meter of the last is read and an edit asks for the last. The
    transaction may have read both days' inputs before: it leaves the two as they are, and lets nobody else validate the
    last day. What it was asked for before is done."""
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LEAST_ROWS", 0)
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LARGEST_SHARE", 1)
    database, calendar = copy_database(server, "validated_meanwhile", city[0].name), city[1]
    clock = noon_after(DAYS[-1])
    assert corrected(database, random.Random(1))
    edit = true_up.Request(DAYS[-1], DAYS[-1], b"edit".rjust(32), 1, ("SP-NONE",))
    locked = []

    def validated(session: Database, calendar: BillingCalendar, day: date, **how: Any) -> Any:
        with database.connect() as c:
            if day == DAYS[0]:
                c.execute(
                    "INSERT INTO raw.touched_meter (billing_day, read_day, meter_id) VALUES (%s, %s, 'M-NONE')",
                    (DAYS[-1], DAYS[-1]),
                )
                true_up.ask(c, [edit], clock.now())
            locked.append(not day_lock.try_take(c, DayLock.VALIDATE, DAYS[-1]))
        return validate_billing_day(session, calendar, day, **how)

    monkeypatch.setattr(several_validated, "validate_billing_day", validated)
    judged = dict(validate_billing_days(database, calendar, DAYS, clock=clock))
    assert list(judged) == DAYS
    assert locked == [True] * len(DAYS)
    with database.connect() as c:
        waiting = c.execute("SELECT billing_day, evidence FROM vee.true_up WHERE done_at IS NULL").fetchall()
        noted = c.execute("SELECT billing_day, meter_id FROM raw.touched_meter").fetchall()
    assert waiting == [(DAYS[-1], edit.evidence)]
    assert (DAYS[-1], "M-NONE") in noted


def _without_numbers(rows: str) -> list[str]:
    return sorted(re.sub(r'"\w+_id": [0-9]+', "", rows).split("\n"))


def _lost_on(day: date) -> Any:
    def bill(database: Database, calendar: BillingCalendar, billing_day: date, **how: Any) -> Any:
        if billing_day == day:
            raise ConnectionError("the process is lost")
        return bill_billing_day(database, calendar, billing_day, **how)

    return bill


def test_the_ledger_checks_the_rows_of_the_part(
    server: Database, city: tuple[Database, BillingCalendar], tmp_path: Path
) -> None:
    """A charge or a validated row of the part that was changed by hand is found; one of another service point by the
    whole day's check."""
    from meter_pipeline.ledger.checkpoints import order
    from meter_pipeline.ledger.verification import verify
    from meter_pipeline.ledger_hashers import hashers

    database = copy_database(server, "billed_ledger", city[0].name)
    order(database, utility="town")
    with database.connect() as c:
        points = [
            p
            for (p,) in c.execute(
                "SELECT DISTINCT service_point_id FROM vee.interval_day WHERE billing_day = %s AND values IS NOT NULL AND service_point_id IN "
                "(SELECT service_point_id FROM billing.charge_day WHERE billing_day = %s) ORDER BY 1",
                (FIRST, FIRST),
            ).fetchall()
        ]
    mine, other = points[0], points[1]

    def found(some: list[str] | None) -> tuple[list[str], int]:
        outcome = verify(database, home=tmp_path, days=[FIRST], hashers=hashers(), points=some)
        return sorted({finding.check for finding in outcome.findings}), outcome.checked["rows of billing.charge_day"]

    assert found([mine]) == ([], 1)
    assert found(None)[0] == []
    change = "UPDATE vee.interval_day SET values[5] = values[5] + %s WHERE billing_day = %s AND service_point_id = %s"
    for point in (other, mine):
        with database.connect() as c:
            c.execute(change, (1, FIRST, point))
        assert (found([mine])[0] != []) == (point == mine), point
        assert found(None)[0] != []
        with database.connect() as c:
            c.execute(change, (-1, FIRST, point))
    with database.connect() as c:
        c.execute(
            "UPDATE billing.charge_day SET total = total + 1 WHERE billing_day = %s AND service_point_id = %s",
            (FIRST, mine),
        )
    assert found([mine])[0] != []
