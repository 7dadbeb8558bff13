"""The exception queue in schema anomaly: cases, their flags, their holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from meter_pipeline.postgres.database import Read

CASE: Final = (
    "first_day",
    "last_day",
    "days",
    "opened_at",
    "decided_at",
    "confidence",
    "hold",
    "case_id",
    "family",
    "kind",
    "subject",
    "service_point_id",
    "commodity",
    "severity",
    "state",
    "assigned_to",
    "decided_by",
    "reason",
)


def lock_flag_cases(connection: psycopg.Connection[Any]) -> None:
    """One writer at a time for the cases of flags: two days judged at the same time would open the same case twice."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('anomaly.exception_case'), 0)")


def lock_validation_cases(connection: psycopg.Connection[Any]) -> None:
    """One writer at a time for the cases of validation.

    A lock of its own: a detection that hangs keeps the other lock, and validation and billing must go on beside it.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('anomaly.exception_case'), 1)")


def read_cases(
    connection: psycopg.Connection[Any], *, subjects: Sequence[str] | None = None, **where: Any
) -> list[dict[str, Any]]:
    """Cases, newest first: of subjects, or by state, kind, family, service_point_id, commodity, severity, assigned_to,
    case_id."""
    clauses: list[sql.Composable] = []
    parameters: list[Any] = []
    if subjects is not None:
        clauses.append(sql.SQL("subject = ANY (%s)"))
        parameters.append(list(subjects))
    for column, value in where.items():
        if value is None:
            continue
        wanted = list(value) if isinstance(value, list | tuple | set) else [value]
        clauses.append(sql.SQL("{} = ANY (%s)").format(sql.Identifier(column)))
        parameters.append(wanted)
    query = sql.SQL("SELECT {} FROM anomaly.exception_case").format(sql.SQL(", ").join(map(sql.Identifier, CASE)))
    if clauses:
        query += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(clauses)
    rows = connection.execute(query + sql.SQL(" ORDER BY last_day DESC, case_id"), parameters).fetchall()
    return [dict(zip(CASE, row, strict=True)) for row in rows]


def open_before(connection: psycopg.Connection[Any], day: date) -> list[dict[str, Any]]:
    """Undecided cases that were last flagged before a day."""
    rows = connection.execute(
        sql.SQL(
            "SELECT {} FROM anomaly.exception_case WHERE state IN ('open', 'assigned') AND last_day < %s "
            "AND family NOT IN ('validation', 'estimates', 'supply')"
        ).format(sql.SQL(", ").join(map(sql.Identifier, CASE))),
        (day,),
    ).fetchall()
    return [dict(zip(CASE, row, strict=True)) for row in rows]


def upsert_cases(connection: psycopg.Connection[Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Write cases whole."""
    if not cases:
        return
    statement = sql.SQL(
        "INSERT INTO anomaly.exception_case ({}) VALUES ({}) ON CONFLICT (case_id) DO UPDATE SET {}"
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, CASE)),
        sql.SQL(", ").join(sql.Placeholder(c) for c in CASE),
        sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in CASE if c not in ("case_id", "opened_at")
        ),
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, [dict(c) for c in cases])


def refresh_spans(connection: psycopg.Connection[Any], case_ids: Sequence[str]) -> None:
    """Set first day, last day and number of days of cases from the flags they have."""
    connection.execute(
        "UPDATE anomaly.exception_case AS c SET first_day = f.first_day, last_day = f.last_day, days = f.days FROM (SELECT case_id, "
        "min(billing_day) AS first_day, max(billing_day) AS last_day, count(DISTINCT billing_day) AS days FROM anomaly.flag "
        "WHERE case_id = ANY (%s) GROUP BY case_id) AS f WHERE f.case_id = c.case_id "
        "AND (c.first_day, c.last_day, c.days) IS DISTINCT FROM (f.first_day, f.last_day, f.days::integer)",
        (list(case_ids),),
    )


def drop_unflagged(connection: psycopg.Connection[Any], case_ids: Sequence[str]) -> None:
    """Delete untouched cases that no flag supports any more: a corrected day took them back."""
    connection.execute(
        "DELETE FROM anomaly.exception_case AS c WHERE c.case_id = ANY (%s) AND c.state = 'open' "
        "AND NOT EXISTS (SELECT 1 FROM anomaly.flag AS f WHERE f.case_id = c.case_id)",
        (list(case_ids),),
    )


def day_cases(connection: psycopg.Connection[Any], day: date) -> list[str]:
    """Cases the day's present flags belong to."""
    rows = connection.execute(
        "SELECT DISTINCT case_id FROM anomaly.flag WHERE billing_day = %s AND case_id IS NOT NULL", (day,)
    ).fetchall()
    return [row[0] for row in rows]


def case_flags(connection: psycopg.Connection[Any], case_id: str) -> list[dict[str, Any]]:
    """The flags of a case, oldest first."""
    names = (
        "billing_day",
        "kind",
        "severity",
        "confidence",
        "expected",
        "observed",
        "unit",
        "evidence",
        "baseline_version",
    )
    rows = connection.execute(
        "SELECT billing_day, kind, severity, confidence, expected, observed, unit, evidence, baseline_version FROM anomaly.flag "
        "WHERE case_id = %s ORDER BY billing_day, kind",
        (case_id,),
    ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def put_evidence(connection: psycopg.Connection[Any], row: Mapping[str, Any]) -> None:
    """Keep what a case rests on that no flag opened, in the place of what stood for its day."""
    connection.execute(
        "INSERT INTO anomaly.case_evidence (case_id, billing_day, kind, unit, expected, observed, evidence) VALUES (%(case_id)s, %(billing_day)s, "
        "%(kind)s, %(unit)s, %(expected)s, %(observed)s, %(evidence)s) ON CONFLICT (case_id, billing_day) DO UPDATE SET expected = excluded.expected, "
        "observed = excluded.observed, unit = excluded.unit, evidence = excluded.evidence",
        {**row, "evidence": Jsonb(row["evidence"])},
    )


def evidence_of(connection: psycopg.Connection[Any], case_id: str, severity: str) -> list[dict[str, Any]]:
    """The evidence of a case that no flag opened, oldest first, in the shape of flags."""
    rows = connection.execute(
        "SELECT billing_day, kind, expected, observed, unit, evidence FROM anomaly.case_evidence WHERE case_id = %s ORDER BY billing_day",
        (case_id,),
    ).fetchall()
    return [
        {
            "billing_day": day,
            "kind": kind,
            "severity": severity,
            "confidence": 1.0,
            "expected": expected,
            "observed": observed,
            "unit": unit,
            "evidence": evidence,
            "baseline_version": None,
        }
        for day, kind, expected, observed, unit, evidence in rows
    ]


def decisions(read: Read) -> dict[str, tuple[int, int]]:
    """(confirmed, dismissed) by service point."""
    return {
        p: (c, d)
        for p, c, d in read("SELECT service_point_id, confirmed, dismissed FROM anomaly.decisions_by_point").iter_rows()
    }
