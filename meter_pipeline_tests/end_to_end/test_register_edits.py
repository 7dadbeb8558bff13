"""Edits of register reads: the same life as those of intervals, and every day that stands on the read follows."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.vee import edits, explain_day, register_edits
from meter_pipeline.vee.tables import true_up
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, interval, local
from meter_pipeline_tests.vee.city import CALENDAR

FIRST = date(2026, 8, 24)
VISITS = [FIRST + timedelta(days=4 * k) for k in range(5)]
DAYS = [VISITS[1] + timedelta(days=k) for k in range(8)]


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.tariff(flat("W", "water", "m3", "2.00"))
    made.cycle(VISITS[1], VISITS[2], VISITS[3], VISITS[4])
    made.service("1", "W", "water")
    made.meter("M", "1", dial("m3"), commodity="water")
    return made


def visits(town: Town, *dials: str) -> None:
    for k, value in enumerate(dials):
        town.read("M", local(VISITS[k], 10), value, unit="m3")


def put(town: Town, at: datetime, value: str | None, *, propose: bool = False) -> register_edits.EditedRead:
    shown = None if value is None else register_edits.dial_micro(town.database, "M", "R1", value)
    return register_edits.edit_read(
        town.database, CALENDAR, "M", "R1", at, shown, reason="slip of the pen", by="ana", propose=propose
    )


def waiting(town: Town) -> list[date]:
    return [day for day, _ in true_up.waiting(town.database)]


def test_a_corrected_misread_frees_the_bill_and_withdrawing_it_holds_it_again(town: Town) -> None:
    visits(town, "100", "104", "1108")
    town.run(*DAYS)
    assert "READ_IMPOSSIBLE" in town.exceptions("1")
    raw = town.rows("SELECT r::text FROM raw.register_read AS r ORDER BY 1")
    done = put(town, local(VISITS[2], 10), "108")
    assert done.days == waiting(town) == DAYS
    town.run()
    assert town.exceptions("1") == {}
    assert set(town.usage("1").values()) == {Decimal(1)}
    assert town.rows("SELECT r::text FROM raw.register_read AS r ORDER BY 1") == raw
    [(body,)] = town.rows(
        "SELECT convert_from(body, 'UTF8')::jsonb -> 'body' FROM ledger.entry WHERE kind = 'corrected'"
    )
    assert (body["edited_by"], body["value"], body["read_at"]) == ("ana", "108", "2026-09-01T15:00:00+00:00")
    document = explain_day(town.database, CALENDAR, "M", VISITS[2])
    assert [(e["edit_id"], e["value"], e["reason"]) for e in document["register_edits"]] == [
        (done.edit_id, Decimal(108), "slip of the pen")
    ]
    assert register_edits.withdraw(town.database, CALENDAR, done.edit_id, by="fay") == DAYS
    town.run()
    assert "READ_IMPOSSIBLE" in town.exceptions("1")
    assert register_edits.withdraw(town.database, CALENDAR, done.edit_id, by="fay") is None
    assert town.rows("SELECT edited_by, withdrawn_by FROM vee.register_edit") == [("ana", "fay")]


def test_an_edit_of_a_meter_that_was_removed_before_it_can_be_withdrawn_and_not_approved(town: Town) -> None:
    """The removal was entered after the edit: the read is of no meter at the service point, and no day stands on it."""
    visits(town, "100", "104", "108")
    town.run(*DAYS)
    standing = put(town, local(VISITS[2], 10), "109").edit_id
    town.run()
    proposed = put(town, local(VISITS[3], 10), "115", propose=True).edit_id
    town.rows(
        "UPDATE ref.installations SET removed_at = %s, removal_read = 106 RETURNING 1",
        local(VISITS[2] - timedelta(days=2), 10),
    )
    assert register_edits.withdraw(town.database, CALENDAR, standing, by="fay") == []
    with pytest.raises(edits.EditError, match="has no register R1 installed at"):
        register_edits.approve(town.database, CALENDAR, proposed, by="fay")
    assert town.rows("SELECT withdrawn_by, approved_by FROM vee.register_edit ORDER BY edit_id") == [
        ("fay", None),
        (None, None),
    ]


def test_a_proposed_edit_changes_nothing_until_another_person_approves_it(town: Town) -> None:
    visits(town, "100", "104", "1108")
    town.run(*DAYS)
    done = put(town, local(VISITS[2], 10), "108", propose=True)
    assert (done.days, waiting(town)) == ([], [])
    town.run(DAYS[-1])
    assert "READ_IMPOSSIBLE" in town.exceptions("1")
    with pytest.raises(edits.EditError, match="does not wait for approval by ana"):
        register_edits.approve(town.database, CALENDAR, done.edit_id, by="ana")
    assert register_edits.approve(town.database, CALENDAR, done.edit_id, by="ben") == DAYS
    town.run()
    assert town.exceptions("1") == {}
    with pytest.raises(edits.EditError, match="does not wait"):
        register_edits.approve(town.database, CALENDAR, done.edit_id, by="cem")


def test_a_register_that_went_back_is_put_right_by_refusing_or_adding_a_read(town: Town) -> None:
    """The dial of another meter was read: without that read the stretch is one of eight days."""
    visits(town, "500", "504", "496")
    town.run(*DAYS)
    assert "DECREASE" in town.exceptions("1")
    put(town, local(VISITS[2], 10), None)
    town.run()
    assert town.exceptions("1") == {}
    done = put(town, local(VISITS[2], 12), "508")
    assert done.read_at == local(VISITS[2], 12)
    town.run()
    assert sum(town.usage("1")[d] for d in DAYS[:4]) + town.usage("1")[DAYS[4]] * 12 // 24 > 3


def test_the_rules_for_manual_override_refuse_what_no_dial_can_have_shown(town: Town) -> None:
    visits(town, "100", "104", "108", "112")
    town.run(*DAYS)
    at = local(VISITS[2], 10)
    for value, rule in (("90", "DECREASE|READ_ERROR"), ("100108", "DIALS"), ("114", "DECREASE|READ_ERROR")):
        with pytest.raises(edits.EditError, match=rule):
            put(town, at, value)
    with pytest.raises(edits.EditError, match="no read within a minute"):
        put(town, local(VISITS[2], 13), None)
    with pytest.raises(edits.EditError, match="no register R2"):
        register_edits.edit_read(town.database, CALENDAR, "M", "R2", at, 1, reason="x", by="ana")
    with pytest.raises(edits.EditError, match="nothing a dial shows"):
        put(town, at, "-1")
    with pytest.raises(edits.EditError, match="reason"):
        register_edits.edit_read(town.database, CALENDAR, "M", "R1", at, 1, reason=" ", by="ana")
    assert town.rows("SELECT count(*) FROM vee.register_edit") == [(0,)]


def test_an_edit_of_issued_periods_becomes_an_adjustment_of_each(town: Town) -> None:
    """109 for 108 on 1 September at ten: the first period has 10 hours of 1 m3 a day and 86 of 1.25, at 2.00 a cubic
    metre.
    """
    visits(town, "100", "104", "108", "112")
    town.run(*DAYS, issue=True)
    assert town.billed("1") == 8
    put(town, local(VISITS[2], 10), "109")
    town.run()
    used = Decimal(10) / 24 + Decimal(86) / 24 * Decimal("1.25")
    assert abs(sum(town.usage("1")[d] for d in DAYS[:4]) - used) < Decimal("0.00001")
    net = dict(
        town.rows(
            "SELECT period_start, sum(a.net) FROM billing.adjustment AS a JOIN billing.statement USING (statement_id) GROUP BY 1"
        )
    )
    assert net[VISITS[1]] == (2 * used - 8).quantize(Decimal("0.01"))
    assert net[VISITS[2]] == Decimal("-1.58")


def test_an_edit_of_intervals_can_be_proposed_too(town: Town) -> None:
    town.tariff(flat("E", "electricity", "kWh", "0.10"))
    town.service("2", "E")
    town.meter("I", "2", interval())
    town.city.intervals(DAYS[0], {"I": np.full(24, 1_000_000, np.int64)}, minutes=60)
    town.run(DAYS[0])
    done = edits.edit(town.database, CALENDAR, "I", "E1", DAYS[0], 1, [2_000_000], reason="x", by="ana", propose=True)
    assert waiting(town) == []
    town.run(DAYS[0])
    assert town.usage("2")[DAYS[0]] == 24
    assert register_edits.approve(town.database, CALENDAR, done.edit_id, by="ben") == [DAYS[0]]
    town.run()
    assert town.usage("2")[DAYS[0]] == 25


def test_the_register_beside_intervals_is_corrected_in_every_place_that_looks_at_it(town: Town) -> None:
    """119.6 was noted for 109.6: the sum check holds the day, the edit frees it, and reconciliation reads the
    edit too.
    """
    town.tariff(flat("E", "electricity", "kWh", "0.10"))
    town.service("2", "E")
    town.meter("I", "2", interval(), dial(sums_to="E1", billed=False))
    town.city.intervals(DAYS[0], {"I": np.full(24, 400_000, np.int64)}, minutes=60)
    town.read("I", local(DAYS[0]), "100.000")
    town.read("I", local(DAYS[1]), "119.600")
    town.run(DAYS[0])
    assert "SUM_CHECK" in town.exceptions("2")
    register_edits.edit_read(
        town.database, CALENDAR, "I", "R1", local(DAYS[1]), 109_600_000, reason="read again on site", by="ana"
    )
    town.run()
    assert town.exceptions("2") == {}
    causes = "SELECT DISTINCT cause FROM billing.reconciliation WHERE joint = 'intervals_to_register'"
    assert town.rows(causes) == [("none",)]
