"""SQL of the figures that the pause rules evaluate, read from the tables of other rooms."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]


def open_breakers(connection: Connection) -> list[tuple[str, datetime]]:
    """Returns name and opening instant of every breaker that was open when it last reported."""
    return connection.execute(
        "SELECT subject, (figures ->> 'since')::timestamptz FROM control.observation WHERE kind = 'breaker' AND (figures ->> 'open')::boolean ORDER BY 1"
    ).fetchall()


def shared_breakers(connection: Connection) -> list[tuple[str, str]]:
    """Name and state of the breakers that ingestion shares between processes."""
    if connection.execute("SELECT to_regclass('raw.breaker') IS NULL").fetchone() == (True,):
        return []
    return connection.execute("SELECT name, state FROM raw.breaker ORDER BY 1").fetchall()


#: Kinds of rejected records of a head-end, in the order of ``rejections``' counts.
MEASURES = ("reads", "files", "bytes")


def rejections(
    connection: Connection, now: datetime, window: timedelta, baseline: timedelta, since: datetime | None
) -> list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Returns by head-end: (received, rejected) of the window, then (received, rejected) of the baseline before it; in
    reads, in files and in bytes. The window starts at ``since`` if that is later. A file that was refused as a whole
    has no reads to count; its file and its bytes count."""
    rows = connection.execute(
        """
        WITH span AS (SELECT greatest(%(start)s, %(since)s::timestamptz) AS start, %(start)s::timestamptz - %(baseline)s::interval AS past),
        received AS (
            SELECT f.head_end, f.landed_at > span.start AS recent, sum(f.received) AS reads, count(*) AS files, sum(f.bytes) AS bytes,
                   count(*) FILTER (WHERE f.refused IS NOT NULL) AS refused, coalesce(sum(f.bytes) FILTER (WHERE f.refused IS NOT NULL), 0) AS refused_bytes
            FROM raw.feed_file f, span WHERE f.landed_at > span.past AND f.landed_at <= %(now)s AND f.replay_of IS NULL GROUP BY 1, 2),
        rejected AS (
            SELECT d.head_end, d.first_seen > span.start AS recent, sum(d.reads) AS reads
            FROM raw.dead_letter d, span WHERE d.first_seen > span.past AND d.first_seen <= %(now)s GROUP BY 1, 2)
        SELECT head_end, recent, coalesce(received.reads, 0)::bigint, coalesce(rejected.reads, 0)::bigint, coalesce(received.files, 0)::bigint,
               coalesce(received.refused, 0)::bigint, coalesce(received.bytes, 0)::bigint, coalesce(received.refused_bytes, 0)::bigint
        FROM received FULL JOIN rejected USING (head_end, recent) ORDER BY 1
        """,
        {"now": now, "start": now - window, "since": since, "baseline": baseline},
    ).fetchall()
    none = (0,) * 6
    found = {(head_end, recent): tuple(counts) for head_end, recent, *counts in rows}
    return [
        (
            name,
            *(
                (*found.get((name, True), none)[at : at + 2], *found.get((name, False), none)[at : at + 2])
                for at in (0, 2, 4)
            ),
        )
        for name in sorted({head_end for head_end, _ in found})
    ]


def unbalanced_files(connection: Connection, since: datetime | None) -> list[tuple[str, str, int, int]]:
    """Returns files that are loaded completely and whose reads do not add up: name, head-end, reads received, reads
    accounted for. Only files changed after ``since``."""
    return connection.execute(
        """
        SELECT c.file_name, c.head_end, c.received, (c.accepted + c.duplicate + c.superseded + c.rejected)::bigint
        FROM raw.control_total c
        WHERE NOT c.balanced AND c.waiting = 0
          AND (%(since)s::timestamptz IS NULL OR c.landed_at > %(since)s
               OR EXISTS (SELECT FROM raw.feed_file_day d WHERE d.sha256 = c.sha256 AND d.loaded_at > %(since)s))
        ORDER BY c.landed_at DESC LIMIT 100
        """,
        {"since": since},
    ).fetchall()


def last_verification(connection: Connection) -> tuple[bool, datetime, str] | None:
    """Returns result, instant and detail of the last ledger verification."""
    return connection.execute(
        "SELECT (figures ->> 'ok')::boolean, observed_at, coalesce(figures ->> 'detail', '') FROM control.observation WHERE kind = 'ledger' AND subject = 'log'"
    ).fetchone()


def variances(connection: Connection) -> list[tuple[str, str, str, Decimal, Decimal]]:
    """Returns by billing day, check and unit: the sum of absolute differences without a cause, and the sum of what was
    expected. Covers the latest 35 reconciled days."""
    if connection.execute("SELECT to_regclass('billing.reconciliation') IS NULL").fetchone() == (True,):
        return []
    return connection.execute(
        """
        SELECT billing_day::text, joint, unit, sum(abs(difference)) FILTER (WHERE cause = 'open'), sum(abs(expected))
        FROM billing.reconciliation
        WHERE billing_day > (SELECT max(billing_day) FROM billing.reconciliation) - 35
        GROUP BY 1, 2, 3 HAVING sum(abs(difference)) FILTER (WHERE cause = 'open') > 0 ORDER BY 1, 2, 3
        """
    ).fetchall()


def answered_checks(connection: Connection) -> list[tuple[str, str, str, Decimal]]:
    """Returns the variances in the evidence of pauses that people have ended: billing day, check, unit, unexplained
    amount."""
    return connection.execute(
        """
        SELECT DISTINCT j ->> 'billing_day', j ->> 'joint', j ->> 'unit', (j ->> 'unexplained')::numeric
        FROM (
            SELECT p.evidence FROM control.emergency_pause p WHERE p.state = 'resumed' AND p.rule = 'variance'
            UNION ALL
            SELECT e.evidence FROM control.pause_evidence e JOIN control.emergency_pause p USING (pause_id) WHERE p.state = 'resumed' AND e.rule = 'variance'
        ) f, jsonb_array_elements(f.evidence -> 'joints') j
        """
    ).fetchall()
