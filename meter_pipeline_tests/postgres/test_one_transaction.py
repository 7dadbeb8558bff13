"""Sessions that share one transaction: what they read one time, and when deferred constraints are checked."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import psycopg
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.one_transaction import OneTransaction, undone
from meter_pipeline.postgres.reading import expect_days, of_day

FIRST = date(2026, 11, 2)
QUERY = "SELECT billing_day, movement::text AS movement FROM vee.class_movement WHERE billing_day BETWEEN $1 AND $2"


def write(session: OneTransaction, day: date, count: int) -> None:
    """Store a movement of a day."""
    with session.connect() as connection:
        connection.execute(
            "INSERT INTO vee.class_movement (billing_day, movement) VALUES (%s, jsonb_build_object('n', %s::int)) ON CONFLICT (billing_day) "
            "DO UPDATE SET movement = excluded.movement",
            (day, count),
        )


def test_rows_of_the_days_ahead_are_read_together_and_given_out_one_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty days are expected, of which each third has a row: two queries bring all. A day that is read again, one that
    was not expected, and those of a new list are read as they are now."""
    asked = list[str]()
    read = OneTransaction.read

    def counted(session: OneTransaction, query: str, parameters: tuple[object, ...] = ()) -> pl.DataFrame:
        asked.append(query)
        return read(session, query, parameters)

    monkeypatch.setattr(OneTransaction, "read", counted)
    days = [FIRST + timedelta(days=k) for k in range(40)]
    with undone(database, "test") as session:
        for k, day in enumerate(days):
            if k % 3 == 0:
                write(session, day, k)
        expect_days(session, days)
        for k, day in enumerate(days):
            found = of_day(session, QUERY, day)
            assert found.schema == {"movement": pl.String}
            assert found["movement"].to_list() == ([f'{{"n": {k}}}'] if k % 3 == 0 else [])
            write(session, day, -1)
        assert len(asked) == 2
        assert of_day(session, QUERY, days[3])["movement"].to_list() == ['{"n": -1}']
        write(session, days[4], -2)
        expect_days(session, days)
        assert of_day(session, QUERY, days[4])["movement"].to_list() == ['{"n": -2}']
        assert of_day(session, QUERY, FIRST - timedelta(days=1)).is_empty()


def test_deferred_constraints_are_checked_when_a_session_that_wrote_ends(database: Database) -> None:
    """Two equal keys may stand while their session is open, and while another only reads."""
    with undone(database, "test") as session:
        with session.connect() as connection:
            connection.execute("CREATE TEMP TABLE numbers (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
        writer = session.connect()
        writer.execute("INSERT INTO numbers VALUES (1), (1)")
        with session.connect() as reader:
            assert reader.execute("SELECT count(*) FROM numbers").fetchall() == [(2,)]
        with pytest.raises(psycopg.errors.UniqueViolation):
            writer.commit()
