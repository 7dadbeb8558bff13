"""The pause stops what it names, and only two different people, in time, once, end it; whatever was refused is on
record."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from meter_pipeline.control import pause, people
from meter_pipeline.control.people import Refused
from meter_pipeline.control.tables import dual_requests
from meter_pipeline.postgres.database import Database, scalar

CHECKED = {"ledger": "verified to size 10", "control_totals": "all files balance", "dead_letters": "none open"}


class Wound:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def ask(database: Database, by: str = "ann", **more: Any) -> int:
    return pause.request_resume(database, reason="fixed", by=by, checklist=CHECKED, **more).request_id


def refused(database: Database) -> list[str]:
    with database.connect(autocommit=True) as connection:
        return [row["code"] for row in dual_requests.refusals(connection)]


def kinds(database: Database) -> list[str]:
    with database.connect(autocommit=True) as connection:
        return [row[0] for row in connection.execute("SELECT kind FROM ledger.entry ORDER BY entry_id")]


def test_a_pause_holds_what_it_names_and_nothing_else(database: Database) -> None:
    pause.raise_pause(database, reason="odd water", by="ann", scope=pause.Scope("commodity", "water"))
    pause.raise_pause(database, reason="clock an hour off", by="ann", scope=pause.Scope("head_end", "HE-2"))
    with database.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is None
        assert pause.is_paused(connection, "electricity", "HE-1") is None
        held = pause.is_paused(connection, "water", "HE-1")
        assert held is not None
        assert held.scope == pause.Scope("commodity", "water")
        assert pause.is_paused(connection, "gas", "HE-2") is not None
    pause.raise_pause(database, reason="stop", by="ann")
    with database.connect(autocommit=True) as connection:
        everything = pause.is_paused(connection)
        assert everything is not None
        assert everything.scope == pause.ALL
        assert "stop" in everything.words()


def test_two_people_resume_and_the_ledger_names_both(database: Database) -> None:
    raised = pause.raise_pause(database, reason="stop", by="Ann")
    assert raised.raised_by == "ann"
    ended = pause.confirm_resume(database, ask(database), by="bob", reason="looked at it")
    assert ended.state == "resumed"
    with database.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is None
        body = scalar(connection, "SELECT convert_from(body, 'UTF8') FROM ledger.entry WHERE kind = 'pause_cleared'")
    said = json.loads(body)["body"]
    assert (said["requested_by"], said["confirmed_by"]) == ("ann", "bob")
    assert said["body"]["checklist"] == CHECKED
    assert kinds(database) == ["pause_set", "pause_requested_resume", "pause_cleared"]


@pytest.mark.parametrize("second", ["ann", "ANN", " ann "])
def test_one_person_asking_and_confirming_is_refused(database: Database, second: str) -> None:
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    with pytest.raises(Refused, match="second person"):
        pause.confirm_resume(database, request, by=second)
    assert refused(database) == ["same_person"]
    assert kinds(database)[-1] == "pause_refused"
    with database.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is not None


@pytest.mark.parametrize("name", ["аnn", "ann\u200b", "a nn", "", "ann;--", "\x00", "\ud800"])
def test_a_look_alike_name_is_no_second_person(database: Database, name: str) -> None:
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    with pytest.raises(Refused):
        pause.confirm_resume(database, request, by=name)
    assert refused(database) == ["bad_name"]


def test_an_expired_request_is_refused_and_another_may_be_made(database: Database) -> None:
    clock = Wound()
    pause.raise_pause(database, reason="stop", by="ann", clock=clock)
    first = ask(database, clock=clock, life=timedelta(hours=1))
    clock.at += timedelta(hours=1)
    with pytest.raises(Refused, match="expired"):
        pause.confirm_resume(database, first, by="bob", clock=clock)
    assert refused(database) == ["expired"]
    pause.confirm_resume(database, ask(database, clock=clock), by="bob", clock=clock)


def test_a_replayed_confirmation_is_refused_and_ends_no_later_pause(database: Database) -> None:
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    pause.confirm_resume(database, request, by="bob")
    pause.raise_pause(database, reason="stop again", by="ann")
    with pytest.raises(Refused, match="counts once"):
        pause.confirm_resume(database, request, by="bob")
    assert refused(database) == ["replayed"]
    with database.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is not None


def test_a_request_needs_the_whole_checklist_and_a_pause(database: Database) -> None:
    with pytest.raises(Refused, match="no pause"):
        ask(database)
    pause.raise_pause(database, reason="stop", by="ann")
    with pytest.raises(Refused, match="control_totals"):
        pause.request_resume(database, reason="fixed", by="ann", checklist=CHECKED | {"control_totals": "  "})
    ask(database)
    with pytest.raises(Refused, match="waits"):
        ask(database, by="bob")
    assert refused(database) == ["already_asked", "checklist", "not_paused"]


def test_further_evidence_withdraws_the_request(database: Database) -> None:
    first = pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    again = pause.raise_pause(
        database, reason="dead letters", by="pause-watch", rule="dead_letters", evidence={"count": 900}
    )
    assert again.pause_id == first.pause_id
    with pytest.raises(Refused, match="withdrawn"):
        pause.confirm_resume(database, request, by="bob")
    # The watcher sees the same thing a minute later: nothing new, so a request stands.
    request = ask(database)
    pause.raise_pause(database, reason="dead letters", by="pause-watch", rule="dead_letters", evidence={"count": 900})
    pause.confirm_resume(database, request, by="bob")


def test_the_register_decides_who_confirms(database: Database) -> None:
    with database.connect() as connection:
        people.put(connection, "fay", ["finance"], by="admin")
        people.put(connection, "oli", ["operator"], by="admin")
        with pytest.raises(ValueError, match="own duties"):
            people.put(connection, "oli", ["finance"], by="oli")
    pause.raise_pause(database, reason="stop", by="oli")
    request = ask(database, by="oli")
    for outsider in ("eve", "oli"):
        with pytest.raises(Refused):
            pause.confirm_resume(database, request, by=outsider)
    pause.confirm_resume(database, request, by="fay")


def test_a_declined_request_cannot_be_confirmed(database: Database) -> None:
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    pause.decline_resume(database, request, by="bob", reason="not convinced")
    with pytest.raises(Refused, match="declined"):
        pause.confirm_resume(database, request, by="cat")


def test_the_schema_itself_refuses(database: Database) -> None:
    """Not only code: plain SQL by the owner of the tables cannot end a pause alone, late, twice, or by another's
    confirmation."""
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    other = """INSERT INTO control.dual_request (action, subject, body, digest, reason, requested_by, requested_at, expires_at)
               VALUES ('resume', 'pause:99', '{}', sha256(''), 'r', 'ann', now(), now() + interval '1 h') RETURNING request_id"""
    decide = """INSERT INTO control.dual_decision (request_id, action, subject, requested_by, expires_at, decision, decided_by, decided_at, reason)
                SELECT request_id, action, {subject}, requested_by, {expires}, 'confirmed', {by}, {at}, 'r'
                FROM control.dual_request WHERE request_id = {request}"""

    def attempt(statement: str) -> str:
        with database.connect(autocommit=True) as connection, pytest.raises(psycopg.Error) as caught:
            connection.execute(statement.encode())
        return str(caught.value)

    plain = {"subject": "subject", "expires": "expires_at", "by": "'bob'", "at": "now()", "request": request}
    assert "resumed_by_two" in attempt("UPDATE control.emergency_pause SET state = 'resumed', resumed_at = now()")
    assert "emergency_pause_confirmed" in attempt(
        f"UPDATE control.emergency_pause SET state = 'resumed', resumed_at = now(), resume_request = {request}, resume_decision = 'confirmed'"
    )
    assert "two_people" in attempt(decide.format(**plain | {"by": "'ann'"}))
    assert "in_time" in attempt(decide.format(**plain | {"at": "expires_at"}))
    assert "of_its_request" in attempt(decide.format(**plain | {"expires": "expires_at + interval '1 day'"}))
    assert "of_its_request" in attempt(decide.format(**plain | {"subject": "'pause:99'"}))
    assert "can only be ended" in attempt("UPDATE control.emergency_pause SET scope = 'head_end', target = 'NOWHERE'")
    assert "record" in attempt("DELETE FROM control.emergency_pause")
    assert "record" in attempt("TRUNCATE control.emergency_pause CASCADE")
    assert "record" in attempt(
        "SET session_replication_role = replica; DELETE FROM control.refusal; DELETE FROM control.dual_request"
    )
    with database.connect(autocommit=True) as connection:
        elsewhere = scalar(connection, other)
        connection.execute(decide.format(**plain | {"request": elsewhere}).encode())
    assert "emergency_pause_confirmed" in attempt(
        f"UPDATE control.emergency_pause SET state = 'resumed', resumed_at = now(), resume_request = {elsewhere}, resume_decision = 'confirmed'"
    )


def test_many_raise_and_confirm_at_once_and_one_of_each_counts(database: Database) -> None:
    outcomes: list[str] = []

    def run(work: Any) -> None:
        try:
            work()
            outcomes.append("done")
        except Refused as refusal:
            outcomes.append(refusal.code)

    def together(works: list[Any]) -> None:
        threads = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    together([lambda n=n: pause.raise_pause(database, reason=f"r{n}", by=f"p{n}") for n in range(6)])
    with database.connect(autocommit=True) as connection:
        assert scalar(connection, "SELECT count(*) FROM control.emergency_pause") == 1
        assert scalar(connection, "SELECT count(*) FROM control.pause_evidence") == 5
    request = ask(database)
    outcomes.clear()
    together([lambda n=n: pause.confirm_resume(database, request, by=f"p{n}") for n in range(6)])
    assert sorted(outcomes) == ["done"] + ["replayed"] * 5


def test_a_raise_beside_a_confirmation_never_deadlocks(database: Database) -> None:
    """Whichever comes first: afterwards work is paused again, or the request was withdrawn."""
    for round_ in range(8):
        pause.raise_pause(database, reason="stop", by="ann")
        with database.connect(autocommit=True) as connection:
            pending = dual_requests.pending_requests(connection, "resume")
        request = pending[0].request_id if pending else ask(database)
        errors: list[BaseException] = []

        def confirm(request: int = request, errors: list[BaseException] = errors) -> None:
            try:
                pause.confirm_resume(database, request, by="bob")
            except Refused as refusal:
                if refusal.code != "withdrawn":
                    errors.append(refusal)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=confirm)
        thread.start()
        time.sleep(0.002 * (round_ % 4))
        pause.raise_pause(database, reason=f"more {round_}", by="cat")
        thread.join()
        assert not errors
        with database.connect(autocommit=True) as connection:
            assert pause.is_paused(connection) is not None


def test_a_pause_that_the_ledger_cannot_record_is_not_raised(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.entry RENAME TO gone")
    with pytest.raises(psycopg.errors.UndefinedTable):
        pause.raise_pause(database, reason="stop", by="ann")
    with database.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is None


def test_status_tells_the_whole_state(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        assert pause.status(connection)["words"] == "Running: no pause is in force."
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    with database.connect(autocommit=True) as connection:
        told = pause.status(connection)
    assert told["paused"]
    assert told["pending"][0]["request"] == request
    assert told["pending"][0]["checklist"] == CHECKED
    assert f"request {request}" in told["words"]
