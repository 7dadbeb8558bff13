"""Meters read by hand: the bill is made from its own closing read, and what nobody knows is not billed as nothing."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.postgres.database import Database
from meter_pipeline.vee.tables import true_up
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, local
from meter_pipeline_tests.vee.city import CALENDAR

FIRST = date(2026, 9, 1)
DAYS = [FIRST + timedelta(days=k) for k in range(8)]
END = FIRST + timedelta(days=8)


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.tariff(flat("W", "water", "m3", "2.00"))
    made.cycle(FIRST, END, END + timedelta(days=8))
    made.service("1", "W", "water")
    made.meter("M", "1", dial("m3"), commodity="water")
    return made


def night(town: Town, day: date) -> dict[str, int]:
    """A day as the assets run it, its bills at once, and then the days that reads ask to have again. What waits."""
    town._run(day)
    done = (
        issue_statements(town.database, CALENDAR, "C1", day + timedelta(days=1))
        if day + timedelta(days=1) == END
        else None
    )
    while asked := [d for d, _ in true_up.waiting(town.database)]:
        for again in asked:
            town._run(again)
            issue_waiting(town.database, CALENDAR, END)
    return done.exceptions if done else {}


def test_the_bill_waits_for_its_own_closing_read(town: Town) -> None:
    """Estimated at 1 m3 a day until the read on the last day says 1.5: one bill of 24.00 and no adjustment."""
    town.read("M", local(FIRST - timedelta(days=8)), "100.000", unit="m3")
    town.read("M", local(FIRST), "108.000", unit="m3")
    town.read("M", local(END), "120.000", unit="m3")
    with town.database.connect() as c:  # the closing read is in the last night's file
        c.execute("CREATE TEMP TABLE kept AS SELECT * FROM raw.register_read WHERE read_at = %s", (local(END),))
        rows = c.execute("DELETE FROM raw.register_read WHERE read_at = %s RETURNING 1", (local(END),)).fetchall()
        assert len(rows) == 1
        c.execute("CREATE TABLE public.kept AS SELECT * FROM kept")
    waits = [night(town, day) for day in DAYS[:-1]]
    assert waits == [{}] * 7
    with town.database.connect() as c:
        c.execute("INSERT INTO raw.register_read SELECT * FROM public.kept")
    assert night(town, DAYS[-1]) == {"true_up_waiting": 1}
    assert town.billed("1") == 12
    [(total,)] = town.rows("SELECT total FROM billing.statement")
    assert total == 24
    assert town.rows("SELECT count(*) FROM billing.adjustment") == [(0,)]
    [(slots, estimated)] = town.rows("SELECT slots, estimated FROM billing.statement_segment")
    assert (slots, estimated) == (8, 0), "a bill between two read dials is actual"


def test_use_that_nobody_knows_holds_the_bill(town: Town) -> None:
    """A first read on the last day but one says nothing of the days before it."""
    town.run(*DAYS)
    done = issue_statements(town.database, CALENDAR, "C1", END)
    assert done.issued == 0
    assert set(done.exceptions) & {"held", "not_charged"}
    town.read("M", local(FIRST), "100.000", unit="m3")
    town.read("M", local(END), "180.000", unit="m3")
    town.run(*DAYS)
    assert sum(done.issued for done in issue_waiting(town.database, CALENDAR, END)) == 1
    assert town.billed("1") == Decimal(80)
