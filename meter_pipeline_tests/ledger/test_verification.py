"""Verification from inside finds what was changed, and remembers outside the database what it has seen."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from meter_pipeline.ledger import checkpoints, entries, verification
from meter_pipeline.postgres.database import Database

TABLES = ("entry", "log", "leaf", "node", "tree_head", "checkpoint", "cosignature", "anchor", "personal")


def as_dba(connection: psycopg.Connection[tuple[object, ...]], *statements: str) -> None:
    """What someone who owns the server can do: guards off, the deed, guards on again."""
    for table in TABLES:
        connection.execute(sql.SQL("ALTER TABLE ledger.{} DISABLE TRIGGER ALL").format(sql.Identifier(table)))
    for statement in statements:
        connection.execute(statement.encode())
    for table in TABLES:
        connection.execute(sql.SQL("ALTER TABLE ledger.{} ENABLE TRIGGER ALL").format(sql.Identifier(table)))
        for trigger in ("only_grows", "never_truncated"):
            connection.execute(
                sql.SQL("ALTER TABLE ledger.{} ENABLE ALWAYS TRIGGER {}").format(
                    sql.Identifier(table), sql.Identifier(trigger)
                )
            )
    connection.commit()


@pytest.fixture
def log(database: Database, tmp_path: Path) -> Database:
    with database.connect("test") as connection:
        for number in range(9):
            entries.append(connection, "ingested", {"number": number}, [bytes([number]) * 32] * 3)
    checkpoints.checkpoint(database, home=tmp_path)
    return database


def test_a_sound_log_verifies_full_and_from_where_it_was_left(log: Database, tmp_path: Path) -> None:
    first = verification.verify(log, home=tmp_path)
    assert (first.ok, first.start, first.size) == (True, 0, 10)
    assert first.checked["entries"] == 10
    assert first.checked["leaves"] == 27
    with log.connect("test") as connection:
        entries.append(connection, "reconciled", {})
    checkpoints.checkpoint(log, home=tmp_path)
    second = verification.verify(log, home=tmp_path)
    assert (second.ok, second.start, second.size) == (True, 10, 11)
    assert verification.verify(log, home=tmp_path, full=True).checked["entries"] == 11


def test_an_empty_ledger_verifies(database: Database, tmp_path: Path) -> None:
    assert verification.verify(database, home=tmp_path).ok


def test_an_edit_of_a_verified_past_is_found_by_a_full_run(log: Database, tmp_path: Path) -> None:
    assert verification.verify(log, home=tmp_path).ok
    with log.connect("dba") as connection:
        edited = "replace(convert_from(body, 'UTF8'), '\"number\":3', '\"number\":7')"
        as_dba(
            connection,
            f"UPDATE ledger.entry SET body = convert_to({edited}, 'UTF8'), leaf_hash = sha256('\\x00'::bytea || convert_to({edited}, 'UTF8'))"
            " WHERE convert_from(body, 'UTF8') LIKE '%\"number\":3}%'",
        )
    done = verification.verify(log, home=tmp_path, full=True)
    assert done.first_bad_index == 3
    assert {finding.check for finding in done.findings} >= {"leaf", "root", "guards"}


def test_a_shorter_log_than_remembered_is_found(log: Database, tmp_path: Path) -> None:
    assert verification.verify(log, home=tmp_path).ok
    with log.connect("dba") as connection:
        as_dba(
            connection,
            "DELETE FROM ledger.checkpoint",
            "DELETE FROM ledger.tree_head",
            "DELETE FROM ledger.leaf WHERE leaf_index > 4",
        )
    done = verification.verify(log, home=tmp_path)
    assert [finding.check for finding in done.findings][:1] == ["memory"]


def test_one_name_under_dual_control_and_totals_that_do_not_add_up_are_found(log: Database, tmp_path: Path) -> None:
    def forged(kind: str, body: str) -> str:
        text = f'{{"actor":"x","at":"2026-01-01T00:00:00.000000Z","body":{body},"kind":"{kind}","leaves":null,"v":"mp-ledger-entry/1"}}'
        return (
            f"INSERT INTO ledger.entry (kind, body, leaf_hash) VALUES ('{kind}', convert_to('{text}', 'UTF8'),"
            f" sha256('\\x00'::bytea || convert_to('{text}', 'UTF8')))"
        )

    with log.connect("dba") as connection:
        connection.execute(forged("pause_cleared", '{"confirmed_by":"finance-1 ","requested_by":"Finance-1"}').encode())
        connection.execute(
            forged("file_loaded", '{"accepted":1,"duplicate":1,"received":3,"rejected":0,"superseded":0}').encode()
        )
    checkpoints.checkpoint(log, home=tmp_path)
    done = verification.verify(log, home=tmp_path)
    assert [(finding.check, finding.index) for finding in done.findings] == [
        ("dual control", 10),
        ("control totals", 11),
    ]
