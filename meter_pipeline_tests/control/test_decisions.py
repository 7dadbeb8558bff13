"""Who may decide: one rule for every door, once the register of people names somebody, in code and in the database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from meter_pipeline.anomalies import queue
from meter_pipeline.billing import adjustments
from meter_pipeline.billing.close import request_close
from meter_pipeline.control import decisions, flags, pause, people
from meter_pipeline.control.decisions import Proof
from meter_pipeline.control.people import Refused, canonical, skeleton
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.control.test_pause import CHECKED
from meter_pipeline_tests.support import FixedClock

SHELL, OTHER_SHELL = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
def named(database: Database) -> Database:
    """A register with ana and ben in finance and otto as operator; otto's operating system user is oper1."""
    with database.connect() as connection:
        people.put(connection, "ana", ["finance"], by="setup")
        people.put(connection, "ben", ["finance"], by="setup")
        people.put(connection, "otto", ["operator"], by="setup", os_user="oper1")
        connection.commit()
    return database


@pytest.mark.parametrize("text", ["Ana", " ana ", "ＡＮＡ", "ａna"])
def test_every_spelling_of_a_name_is_one_person(text: str) -> None:
    assert canonical(text) == "ana"


@pytest.mark.parametrize("text", ["аna", "anа", "αna", "a na", "", "an\u200ba"])
def test_a_letter_that_looks_alike_makes_no_name(text: str) -> None:
    assert canonical(text) is None


def test_names_that_look_the_same_are_not_two_people(named: Database) -> None:
    assert skeleton("b1ll") == skeleton("bill") == skeleton("b.i.l.l")
    with named.connect() as connection:
        people.put(connection, "bill", ["finance"], by="ana")
        with pytest.raises(ValueError, match="looks like bill"):
            people.put(connection, "b1ll", ["finance"], by="ana")


def test_with_an_empty_register_a_typed_name_is_believed_and_a_look_alike_is_not(database: Database) -> None:
    assert decisions.admit(database, "adjust", "s", "Analyst", decisions.WORK, Proof()) == "analyst"
    with pytest.raises(Refused, match="no name"):
        decisions.admit(database, "adjust", "s", "An\u0430", decisions.WORK, Proof())
    with database.connect() as connection:
        assert scalar(connection, "SELECT code FROM control.refusal") == "bad_name"


DOORS: dict[str, Callable[[Database], object]] = {
    "adjustment": lambda d: adjustments.decide(d, "A-1.C1.20260701.0.A1", approve=True, person="eve"),
    "close": lambda d: request_close(d, date(2026, 7, 1), person="eve"),
    "raise": lambda d: pause.raise_pause(d, reason="stop", by="eve"),
    "flag": lambda d: flags.request_change(d, decisions.ADJUSTMENT_THRESHOLD, "9.00", by="eve", reason="r"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_name_outside_the_register_decides_nothing_by_any_door(named: Database, door: str) -> None:
    with pytest.raises(Refused, match="not in the register"):
        DOORS[door](named)


def test_a_name_outside_the_register_decides_no_exception(named: Database) -> None:
    with named.connect() as connection, pytest.raises(Refused, match="not in the register"):
        queue.decide(connection, {"case_id": "x"}, "dismissed", by="eve", reason="r")


def test_a_duty_that_nobody_has_is_any_registered_persons(database: Database) -> None:
    with database.connect() as connection:
        people.put(connection, "otto", ["operator"], by="setup")
        assert decisions.entitled(connection, "otto", decisions.FINANCE) == "otto"
        with pytest.raises(Refused):
            decisions.entitled(connection, "eve", decisions.FINANCE)
        people.put(connection, "ana", ["finance"], by="setup")
        with pytest.raises(Refused, match="no duty"):
            decisions.entitled(connection, "otto", decisions.FINANCE)


@pytest.mark.parametrize(
    ("by", "proof", "code"),
    [
        ("ana", Proof(), "not_proven"),
        ("ana", Proof(token_of="ben"), "not_proven"),
        ("ana", Proof(os_user="oper1"), "not_proven"),
        ("ana", Proof(code="guess"), "not_proven"),
        ("ana", Proof(token_of="ana"), None),
        ("otto", Proof(os_user="oper1"), None),
        ("otto", Proof(os_user="root"), "not_proven"),
    ],
)
def test_a_typed_name_is_proven(named: Database, by: str, proof: Proof, code: str | None) -> None:
    if code is None:
        assert decisions.admit(named, "resume", "pause", by, decisions.WORK, proof) == by
        return
    with pytest.raises(Refused) as refused:
        decisions.admit(named, "resume", "pause", by, decisions.WORK, proof)
    assert refused.value.code == code


def test_one_shell_is_one_person(named: Database) -> None:
    decisions.admit(named, "resume", "pause", "ana", decisions.FINANCE, Proof(token_of="ana", shell=SHELL))
    decisions.admit(named, "resume", "pause", "ana", decisions.FINANCE, Proof(token_of="ana", shell=SHELL))
    with pytest.raises(Refused) as refused:
        decisions.admit(named, "resume", "request:1", "ben", decisions.FINANCE, Proof(token_of="ben", shell=SHELL))
    assert refused.value.code == "two_names"
    decisions.admit(named, "resume", "request:1", "ben", decisions.FINANCE, Proof(token_of="ben", shell=OTHER_SHELL))


def test_a_code_proves_once_and_for_minutes(named: Database) -> None:
    clock = FixedClock(datetime(2026, 11, 20, 12, tzinfo=UTC))

    def made() -> str:
        with named.connect() as connection:
            code = decisions.make_code(connection, "ana", clock=clock)
            connection.commit()
        return code

    first, second = made(), made()
    assert decisions.admit(named, "a", "s", "ana", decisions.FINANCE, Proof(code=first), clock=clock) == "ana"
    for code, later in ((first, 0), (second, 601)):
        clock.at += timedelta(seconds=later)
        with pytest.raises(Refused, match="prove"):
            decisions.admit(named, "a", "s", "ana", decisions.FINANCE, Proof(code=code), clock=clock)


def test_the_threshold_is_changed_by_two_people_on_the_ledger(named: Database) -> None:
    with pytest.raises(Refused) as alone:
        flags.change(named, decisions.ADJUSTMENT_THRESHOLD, "1000.00", by="ana", reason="r")
    assert alone.value.code == "needs_two"
    asked = flags.request_change(named, decisions.ADJUSTMENT_THRESHOLD, "25.00", by="ana", reason="r").request_id
    flags.confirm_change(named, decisions.ADJUSTMENT_THRESHOLD, asked, by="ben", reason="r")
    with named.connect() as connection:
        assert str(scalar(connection, "SELECT control.adjustment_limit()")) == "25.00"
        assert scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind = 'flag_flipped'") >= 2
    with named.connect() as connection, pytest.raises(psycopg.errors.CheckViolation, match="two people"):
        connection.execute(
            "UPDATE control.flag SET value = '\"9999\"', version = 2, request = NULL, decision = NULL, dual = false"
        )


def test_a_pause_does_not_end_without_its_entry_on_the_ledger(named: Database) -> None:
    """Plain SQL by the owner of the tables, with two names of the register, and no ledger entry."""
    pause.raise_pause(named, reason="stop", by="ana")
    request = pause.request_resume(named, reason="fixed", by="ana", checklist=CHECKED).request_id
    decide = f"""INSERT INTO control.dual_decision (request_id, action, subject, requested_by, expires_at, decision, decided_by, decided_at, reason)
        SELECT request_id, action, subject, requested_by, expires_at, 'confirmed', 'ben', now(), 'r' FROM control.dual_request WHERE request_id = {request}"""
    end = f"""UPDATE control.emergency_pause SET state = 'resumed', resumed_at = now(), resume_request = {request}, resume_decision = 'confirmed'"""
    with (
        pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="entry on the ledger"),
        named.connect() as connection,
    ):
        connection.execute(f"{decide}; {end}; COMMIT".encode())
    with pytest.raises(psycopg.errors.CheckViolation, match="may not confirm"), named.connect() as connection:
        connection.execute(decide.replace("'ben'", "'eve'").encode())
    pause.confirm_resume(named, request, by="ben")
    with named.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is None


def test_the_register_is_filled_in_its_first_hour_by_who_began_it(database: Database) -> None:
    clock = FixedClock(datetime(2026, 11, 20, 12, tzinfo=UTC))
    with database.connect() as connection:
        assert decisions.may_fill_register(connection, "root1", clock=clock)
        people.put(connection, "ana", ["finance"], by="root1", clock=clock)
        assert decisions.may_fill_register(connection, "root1", clock=clock)
        assert not decisions.may_fill_register(connection, "ana", clock=clock)
        clock.advance(3601)
        assert not decisions.may_fill_register(connection, "root1", clock=clock)
