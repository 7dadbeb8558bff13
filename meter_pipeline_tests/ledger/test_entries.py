"""An entry is one INSERT in the caller's transaction, in bytes that have one spelling."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum

import numpy as np
import psycopg
import pytest

from meter_pipeline.ledger import entries, merkle
from meter_pipeline.ledger.kinds import KINDS

AT = datetime(2026, 3, 8, 12, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


def test_one_spelling() -> None:
    body = {
        "z": Decimal("1E+2"),
        "a": [1, True, None, np.int64(7), (Decimal("0.10"),)],
        "day": date(2026, 3, 8),
        "when": datetime(2026, 3, 8, 6, tzinfo=timezone(timedelta(hours=-6))),
        "hash": b"\x01\xff",
        "colour": Colour.RED,
        "name": "Île",
    }
    encoded = entries.encode("ingested", body, at=AT, actor="test").body
    assert (
        encoded
        == (
            '{"actor":"test","at":"2026-03-08T12:00:00.000000Z","body":{"a":[1,true,null,7,["0.10"]],"colour":"red","day":"2026-03-08",'
            '"hash":"01ff","name":"Île","when":"2026-03-08T12:00:00.000000Z","z":"100"},"kind":"ingested","leaves":null,"v":"mp-ledger-entry/1"}'
        ).encode()
    )


@pytest.mark.parametrize(
    "body",
    [
        {"x": 0.1},
        {"x": float("nan")},
        {1: "x"},
        {"x": datetime(2026, 1, 1)},  # noqa: DTZ001 - the naive time is the point
        {"x": Decimal("NaN")},
        {"x": object()},
        {"x": "\ud800"},
        {"billing_day": AT},
    ],
)
def test_what_has_no_canonical_form_is_refused(body: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        entries.encode("ingested", body, at=AT, actor="test")


def test_unknown_kinds_missing_fields_and_one_name_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="not a kind"):
        entries.encode("whatever", {}, at=AT, actor="test")
    with pytest.raises(ValueError, match="confirmed_by"):
        entries.encode("pause_cleared", {"requested_by": "finance-1"}, at=AT, actor="test")
    with pytest.raises(ValueError, match="two different people"):
        entries.encode(
            "pause_cleared", {"requested_by": "finance-1", "confirmed_by": " Finance-1 "}, at=AT, actor="test"
        )
    entries.encode("pause_cleared", {"requested_by": "finance-1", "confirmed_by": "finance-2"}, at=AT, actor="test")


def test_append_stores_what_was_hashed(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    leaves = [hashlib.sha256(bytes([number])).digest() for number in range(5)]
    first = entries.append(connection, "ingested", {"billing_day": date(2026, 3, 8), "reads": 480}, leaves)
    second = entries.append(connection, "code_version", {"version": "0.1.0"})
    connection.commit()
    assert second > first
    row = connection.execute(
        "SELECT kind, body, leaf_hash, leaf_count, leaves, billing_day FROM ledger.entry WHERE entry_id = %s", (first,)
    ).fetchone()
    assert row is not None
    kind, body, leaf_hash, count, kept, day = row
    assert (kind, count, kept, day) == ("ingested", 5, b"".join(leaves), date(2026, 3, 8))
    assert isinstance(body, bytes)
    assert leaf_hash == merkle.leaf_hash(body)
    assert json.loads(body)["leaves"] == {"count": 5, "root": merkle.root(leaves).hex()}


def test_the_entry_goes_with_its_transaction(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    entries.append(connection, "pause_set", {"reason": "drill"})
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM ledger.entry").fetchone() == (0,)


@pytest.mark.parametrize(
    "row",
    [
        ("ingested", b"{}", b"\x00" * 32, 0, None),
        ("ingested", b"{}", merkle.leaf_hash(b"{}"), 2, b"\x00" * 32),
        ("whatever", b"{}", merkle.leaf_hash(b"{}"), 0, None),
    ],
)
def test_the_server_checks_hash_leaves_and_kind(
    connection: psycopg.Connection[tuple[object, ...]], row: tuple[object, ...]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO ledger.entry (kind, body, leaf_hash, leaf_count, leaves) VALUES (%s, %b, %b, %s, %b)", row
        )


def test_python_and_sql_know_the_same_kinds(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    row = connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'ledger.entry'::regclass AND conname = 'entry_kind_check'"
    ).fetchone()
    assert row is not None
    import re

    assert set(re.findall(r"'([a-z_]+)'::text", str(row[0]))) == set(KINDS)
