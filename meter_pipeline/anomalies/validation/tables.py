"""SQL of validation findings in the exception queue: anomaly.validation_finding and the cases opened from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from meter_pipeline.postgres import few_rows

if TYPE_CHECKING:
    import polars as pl

Connection = psycopg.Connection[Any]

_KEY: Final = ("service_point_id", "billing_day", "kind", "meter_id", "channel")
_COLUMNS: Final = (*_KEY, "severity", "action", "detail", "first_seen")
#: States in which a case of validation takes further days: a person who confirmed it waits for the data to be corrected
_ACTIVE: Final = "c.family = 'validation' AND c.state IN ('open', 'assigned', 'confirmed')"


@cache
def _few_findings() -> str:
    return few_rows.relation(sql.Identifier("anomaly", "validation_finding")).as_string(None)


def replace_day(connection: Connection, day: date, findings: pl.DataFrame) -> list[str]:
    """Replace a day's findings by ``findings`` (the columns of vee.exception). Returns the ids of cases that lost a
    finding.

    A finding that a person released stays released while its figures are the same. If they change, it holds again.
    """
    listed, incoming = ", ".join(_COLUMNS), "incoming_finding"
    values: dict[str, Any] = {"day": day}
    if few := few_rows.fits(findings):
        incoming, values["rows"] = _few_findings(), few_rows.text(findings)
    else:
        connection.execute("CREATE TEMP TABLE incoming_finding (LIKE anomaly.validation_finding) ON COMMIT DROP")
        with connection.cursor() as cursor, cursor.copy(f"COPY {incoming} ({listed}) FROM STDIN".encode()) as copy:
            for row in findings.select(_COLUMNS).iter_rows():
                copy.write_row(row)
    same = " AND ".join(f"i.{c} = f.{c}" for c in _KEY)
    gone = connection.execute(
        f"DELETE FROM anomaly.validation_finding AS f WHERE f.billing_day = %(day)s AND f.released_at IS NULL "
        f"AND NOT EXISTS (SELECT FROM {incoming} AS i WHERE {same}) RETURNING f.case_id".encode(),
        values,
    ).fetchall()
    changed = connection.execute(
        f"INSERT INTO anomaly.validation_finding AS f ({listed}) SELECT {listed} FROM {incoming} AS i "
        f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET severity = excluded.severity, action = excluded.action, detail = excluded.detail, "
        "released_at = NULL, released_by = NULL, reason = NULL, "
        "case_id = CASE WHEN f.released_at IS NULL THEN f.case_id END "
        "WHERE (f.severity, f.action, f.detail) IS DISTINCT FROM (excluded.severity, excluded.action, excluded.detail) "
        "RETURNING f.case_id".encode(),
        values,
    ).fetchall()
    if not few:
        connection.execute("DROP TABLE incoming_finding")
    return sorted({case for (case,) in (*gone, *changed) if case is not None})


def join_cases(connection: Connection, day: date, reach: int) -> list[str]:
    """Put each finding of a day that has no case into the active case of its service point whose days lie within
    ``reach`` days of it. Returns the ids of these cases."""
    rows = connection.execute(
        f"UPDATE anomaly.validation_finding AS f SET case_id = (SELECT c.case_id FROM anomaly.exception_case AS c WHERE {_ACTIVE} "
        "AND c.subject = f.service_point_id AND f.billing_day BETWEEN c.first_day - %(reach)s AND c.last_day + %(reach)s "
        "ORDER BY c.last_day DESC, c.case_id LIMIT 1) "
        "WHERE f.billing_day = %(day)s AND f.released_at IS NULL AND f.case_id IS NULL RETURNING f.case_id".encode(),
        {"day": day, "reach": reach},
    ).fetchall()
    return sorted({case for (case,) in rows if case is not None})


def open_cases(connection: Connection, day: date, now: datetime) -> list[str]:
    """Open a case for each service point whose findings of a day have no case. Returns the ids of the new cases."""
    rows = connection.execute(
        "INSERT INTO anomaly.exception_case (first_day, last_day, days, opened_at, confidence, hold, case_id, family, kind, subject, service_point_id, "
        "commodity, severity, state) SELECT %(day)s, %(day)s, 1, %(now)s, 1, bool_or(f.action = 'hold'), "
        # a person decided about this day before: the case of the new figures is another one
        "'validation-' || f.service_point_id || '-' || to_char(%(day)s::date, 'YYYYMMDD') || coalesce((SELECT '-' || (count(*) + 1) FROM "
        "anomaly.exception_case AS e WHERE e.subject = f.service_point_id AND e.family = 'validation' AND e.case_id LIKE "
        "'validation-%%-' || to_char(%(day)s::date, 'YYYYMMDD') || '%%' HAVING count(*) > 0), ''), "
        "'validation', 'validation', f.service_point_id, f.service_point_id, "
        "coalesce((SELECT min(p.commodity) FROM ref.service_points AS p WHERE p.service_point_id = f.service_point_id), ''), "
        "CASE WHEN bool_or(f.action = 'hold') THEN 'severe' ELSE 'warn' END, 'open' "
        "FROM anomaly.validation_finding AS f WHERE f.billing_day = %(day)s AND f.released_at IS NULL AND f.case_id IS NULL "
        "GROUP BY f.service_point_id RETURNING case_id, service_point_id",
        {"day": day, "now": now},
    ).fetchall()
    if rows:
        connection.execute(
            "UPDATE anomaly.validation_finding AS f SET case_id = n.case_id FROM unnest(%(cases)s::text[], %(points)s::text[]) AS n (case_id, point) "
            "WHERE f.service_point_id = n.point AND f.billing_day = %(day)s AND f.released_at IS NULL AND f.case_id IS NULL",
            {"day": day, "cases": [r[0] for r in rows], "points": [r[1] for r in rows]},
        )
    return [str(case) for case, _ in rows]


def refresh(connection: Connection, cases: list[str]) -> None:
    """Set days, hold and severity of active cases from their findings that are not released."""
    connection.execute(
        "UPDATE anomaly.exception_case AS c SET first_day = f.first_day, last_day = f.last_day, days = f.days, hold = f.held, "
        "severity = CASE WHEN f.held THEN 'severe' ELSE c.severity END FROM (SELECT case_id, min(billing_day) AS first_day, max(billing_day) AS last_day, "
        "count(DISTINCT billing_day)::int AS days, bool_or(action = 'hold') AS held FROM anomaly.validation_finding WHERE case_id = ANY (%(cases)s) "
        f"AND released_at IS NULL GROUP BY case_id) AS f WHERE f.case_id = c.case_id AND {_ACTIVE}".encode(),
        {"cases": cases},
    )


def close_empty(connection: Connection, cases: list[str], now: datetime) -> list[str]:
    """Close cases without a finding that is not released; delete those that no person has taken. Returns the ids of
    those closed."""
    empty = (
        "c.case_id = ANY (%(cases)s) AND c.family = 'validation' AND NOT EXISTS "
        "(SELECT FROM anomaly.validation_finding AS f WHERE f.case_id = c.case_id AND f.released_at IS NULL)"
    )
    connection.execute(
        f"DELETE FROM anomaly.exception_case AS c WHERE c.state = 'open' AND {empty}".encode(), {"cases": cases}
    )
    rows = connection.execute(
        "UPDATE anomaly.exception_case AS c SET state = 'expired', hold = false, decided_at = %(now)s, decided_by = NULL, "
        f"reason = 'the data were corrected' WHERE c.state IN ('assigned', 'confirmed') AND {empty} RETURNING c.case_id".encode(),
        {"cases": cases, "now": now},
    ).fetchall()
    return sorted(str(case) for (case,) in rows)


def release(connection: Connection, case: Mapping[str, Any], by: str, reason: str, now: datetime) -> None:
    """Release the findings of a case: their services are billed with the stored values."""
    connection.execute(
        "UPDATE anomaly.validation_finding SET released_at = %s, released_by = %s, reason = %s WHERE case_id = %s AND released_at IS NULL",
        (now, by, reason, case["case_id"]),
    )


def case_findings(connection: Connection, case_id: str) -> list[dict[str, Any]]:
    """Returns the findings of a case, oldest first, with the columns that flags of other cases have."""
    rows = connection.execute(
        "SELECT billing_day, kind, severity, meter_id, channel, action, detail, released_by FROM anomaly.validation_finding WHERE case_id = %s "
        "ORDER BY billing_day, kind, meter_id, channel",
        (case_id,),
    ).fetchall()
    return [
        {
            "billing_day": day,
            "kind": kind,
            "severity": severity,
            "confidence": 1.0,
            "expected": None,
            "observed": None,
            "unit": "",
            "evidence": {"found": detail, "action": action}
            | ({"meter": meter, "channel": channel} if meter else {})
            | ({"released by": released} if released else {}),
            "baseline_version": None,
        }
        for day, kind, severity, meter, channel, action, detail, released in rows
    ]
