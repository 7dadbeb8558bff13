"""SQL of adjustments. The rules that protect money (two people, threshold, sealed months) are constraints and
triggers of the database, so that no query here can break them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from meter_pipeline.postgres.database import Database, scalar

Connection = psycopg.Connection[Any]

LINE_COLUMNS = (
    "line_no",
    "action",
    "original_line_no",
    "service_point_id",
    "tariff_id",
    "tariff_version",
    "segment_start",
    "segment_end",
    "line_key",
    "name",
    "component",
    "quantity",
    "unit",
    "amount",
)
#: Tables that are written with an adjustment and never again: their columns and their key.
WRITTEN_ONCE: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "billing.adjustment_line": (("adjustment_id", *LINE_COLUMNS, "posting_month"), ("line_no",)),
    "billing.adjustment_segment": (
        (
            "adjustment_id",
            "service_point_id",
            "tariff_id",
            "tariff_version",
            "segment_start",
            "segment_end",
            "days",
            "unit",
            "energy",
            "peaks",
            "carry_out",
            "credit_out",
            "posting_month",
        ),
        ("service_point_id", "segment_start"),
    ),
}


def statements(database: Database, statement_ids: Sequence[str]) -> pl.DataFrame:
    """Account, cycle, period and currency of some statements."""
    return database.read(
        "SELECT statement_id, account_id, cycle_id, period_start, period_end, currency FROM billing.statement "
        "WHERE statement_id = ANY(string_to_array($1, ',')) ORDER BY 1",
        [",".join(statement_ids)],
    )


def effective_lines(database: Database, statement_ids: Sequence[str]) -> pl.DataFrame:
    """Returns the booked lines of statements: their own with every posted adjustment, in millionths, per line key
    and segment. An adjustment that waits for a decision does not count, so that the result stays correct whether it
    is approved or refused; an adjustment for a leak, which forgives part of the days' amount, does not count either."""
    return database.read(
        "SELECT statement_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, max(name) AS name, "
        "max(component) AS component, max(unit) AS unit, (sum(quantity) * 1000000)::bigint AS quantity, (sum(amount) * 1000000)::bigint AS amount, "
        "max(original)::int AS original_line_no FROM ("
        "SELECT statement_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, name, component, unit, quantity, "
        "amount, line_no AS original FROM billing.statement_line WHERE statement_id = ANY(string_to_array($1, ',')) UNION ALL "
        "SELECT a.statement_id, l.service_point_id, l.tariff_id, l.tariff_version, l.segment_start, l.segment_end, l.line_key, l.name, l.component, "
        "l.unit, CASE WHEN l.action = 'cancel' THEN -l.quantity ELSE l.quantity END, l.amount, NULL FROM billing.adjustment_line AS l "
        "JOIN billing.adjustment AS a USING (adjustment_id) WHERE a.statement_id = ANY(string_to_array($1, ',')) AND a.status = 'posted' "
        "AND a.reason NOT IN ('leak', 'policy')) AS all_lines "
        "GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 5, 7",
        [",".join(statement_ids)],
    )


def revisions(database: Database, first: date, past: date, service_points: Sequence[str]) -> pl.DataFrame:
    """The latest determinants that arrived for sealed days: billing_day, service_point_id, determinants (JSON text)."""
    return database.read(
        "SELECT DISTINCT ON (billing_day, service_point_id) billing_day, service_point_id, determinants::text AS determinants "
        "FROM billing.determinant_revision WHERE billing_day >= $1 AND billing_day < $2 AND service_point_id = ANY(string_to_array($3, ',')) "
        "ORDER BY billing_day, service_point_id, revision DESC",
        [first, past, ",".join(service_points)],
    )


def revised_points(database: Database, first: date, past: date) -> list[str]:
    """Service points with later determinants of sealed days in a range."""
    found = database.read(
        "SELECT DISTINCT service_point_id FROM billing.determinant_revision WHERE billing_day >= $1 AND billing_day < $2 ORDER BY 1",
        [first, past],
    )
    return [str(point) for point in found["service_point_id"].to_list()]


#: Usage of a day as it stands, by service point and account: a sealed day's latest revision, else its determinants
_DAY_USAGE = """
WITH later AS (
    SELECT DISTINCT ON (service_point_id) service_point_id, determinants AS j FROM billing.determinant_revision
    WHERE billing_day = %(d)s AND service_point_id = ANY(%(s)s) ORDER BY service_point_id, revision DESC
)
SELECT d.service_point_id, d.account_id, d.cycle_id, d.period_start,
    (SELECT coalesce(sum(x), 0)::bigint FROM unnest(d.energy) AS x) AS energy FROM billing.determinant_day AS d
WHERE d.billing_day = %(d)s AND d.service_point_id = ANY(%(s)s) AND NOT EXISTS (SELECT FROM later AS l WHERE l.service_point_id = d.service_point_id)
UNION ALL SELECT service_point_id, j ->> 'account_id', j ->> 'cycle_id', (j ->> 'period_start')::date,
    (SELECT coalesce(sum(x::bigint), 0)::bigint FROM jsonb_array_elements_text(j -> 'energy') AS x) FROM later
    WHERE j <> 'null'
"""
_PERIOD_CHARGES = """
SELECT s.statement_id, c.service_point_id, sum(c.total)::bigint FROM billing.statement AS s JOIN billing.charge_day AS c
    ON c.account_id = s.account_id AND c.cycle_id = s.cycle_id AND c.period_start = s.period_start
WHERE s.period_start <= %(d)s AND s.period_end > %(d)s AND c.service_point_id = ANY(%(s)s) AND c.billing_day >= (SELECT min(period_start)
    FROM billing.statement WHERE period_start <= %(d)s AND period_end > %(d)s) AND c.billing_day < (SELECT max(period_end)
    FROM billing.statement WHERE period_start <= %(d)s AND period_end > %(d)s) GROUP BY 1, 2
"""

#: Statements that cover a day at some service points, or whose period holds it for some accounts, with the service
#: points covered
_STATEMENTS_OF_DAY = """
WITH covering AS (
    SELECT statement_id, array_agg(DISTINCT service_point_id) AS points FROM billing.statement_segment
    WHERE service_point_id = ANY(%(s)s) AND segment_start <= %(d)s AND segment_end > %(d)s GROUP BY 1
)
SELECT s.statement_id, s.account_id, s.cycle_id, s.period_start, c.points FROM covering AS c JOIN billing.statement AS s USING (statement_id)
UNION ALL SELECT s.statement_id, s.account_id, s.cycle_id, s.period_start, NULL FROM billing.statement AS s
WHERE s.account_id = ANY(%(a)s) AND s.period_start <= %(d)s AND s.period_end > %(d)s
    AND NOT EXISTS (SELECT FROM covering AS c WHERE c.statement_id = s.statement_id) ORDER BY 1
"""


#: Usage of a day by service point, account, cycle and period, and charges by statement and service point.
Amounts: TypeAlias = tuple[dict[tuple[str, str, str, date], int], dict[tuple[str, str], int]]


def note_late_changes(
    connection: Connection,
    before: Callable[[Sequence[str]], Amounts],
    day: date,
    service_points: Sequence[str],
    at: datetime,
) -> int:
    """Record which issued statements a day of some changed service points belongs to, and the change in usage and
    charges. Returns how many.

    A statement is recorded that covers the day, that the day is charged to now, or was before (``before``: the earlier
    state of some service points): where a move is corrected, both accounts' bills are wrong. Changes add up until an
    adjustment is computed. An account without a bill of a period whose bills are issued is put on the list of waiting
    accounts, so that the next statements step issues it.
    """
    if not service_points or not _issued(connection, day):
        return 0  # a city's ids need not be sent to be looked for in nothing
    values = {"d": day, "s": list(service_points)}
    usage_was, charges_was = before(service_points)
    usage, charges = _amounts(connection, day, service_points)
    accounts = sorted({account for _, account, _, _ in (*usage, *usage_was)})
    found = connection.execute(_STATEMENTS_OF_DAY.encode(), values | {"a": accounts}).fetchall()
    charged: dict[tuple[str, str, date], set[str]] = {}
    for point, account, cycle, start in (*usage, *usage_was):
        charged.setdefault((account, cycle, start), set()).add(point)
    rows = []
    for statement_id, account, cycle, start, covered in found:
        for point in sorted({*(covered or ()), *charged.get((account, cycle, start), ())}):
            own = (point, account, cycle, start)
            moved = usage.get(own, 0) - usage_was.get(own, 0)
            billed = charges.get((statement_id, point), 0) - charges_was.get((statement_id, point), 0)
            rows.append((statement_id, day, point, at, moved, billed))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO billing.late_change AS t (statement_id, billing_day, service_point_id, noticed_at, energy_moved, charge_moved) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (statement_id, billing_day, service_point_id) DO UPDATE SET "
            "noticed_at = excluded.noticed_at, energy_moved = coalesce(t.energy_moved, 0) + excluded.energy_moved, "
            "charge_moved = coalesce(t.charge_moved, 0) + excluded.charge_moved",
            rows,
        )
        cursor.executemany(
            "INSERT INTO billing.statement_exception (account_id, cycle_id, period_start, reason, detail) "
            "SELECT %(account)s, %(cycle)s, %(start)s, 'days_missing', %(detail)s WHERE EXISTS (SELECT FROM billing.statement WHERE cycle_id = %(cycle)s "
            "AND period_start = %(start)s) AND NOT EXISTS (SELECT FROM billing.statement WHERE cycle_id = %(cycle)s AND period_start = %(start)s "
            "AND account_id = %(account)s) AND NOT EXISTS (SELECT FROM billing.statement_exception WHERE cycle_id = %(cycle)s "
            "AND period_start = %(start)s AND account_id = %(account)s AND reason <> 'estimate_streak')",
            [
                {
                    "account": a,
                    "cycle": c,
                    "start": p,
                    "detail": f"{point}: charged after the period's bills were issued",
                }
                for point, a, c, p in sorted(usage)
            ],
        )
    return len(rows)


def amounts(connection: Connection, day: date, service_points: Sequence[str]) -> Amounts:
    """Returns usage and charges of the statements that a day of some service points belongs to; empty where none is
    issued."""
    return _amounts(connection, day, service_points) if _issued(connection, day) else ({}, {})


def _amounts(connection: Connection, day: date, service_points: Sequence[str]) -> Amounts:
    values = {"d": day, "s": list(service_points)}
    usage = {(p, a, c, d): e for p, a, c, d, e in connection.execute(_DAY_USAGE.encode(), values)}
    return usage, {(s, p): total for s, p, total in connection.execute(_PERIOD_CHARGES, values)}


def _issued(connection: Connection, day: date) -> bool:
    """Whether any statement of a period that holds the day is issued."""
    issued = "SELECT EXISTS (SELECT FROM billing.statement WHERE period_start <= %(d)s AND period_end > %(d)s)"
    return bool(scalar(connection, issued, {"d": day}))


def waiting(database: Database) -> bool:
    """Whether any statement waits for its adjustment."""
    return bool(database.read("SELECT EXISTS (SELECT FROM billing.late_change) AS w")["w"][0])


def left_without_approval(connection: Connection, statement_id: str) -> Decimal:
    """Returns the rest of a statement's threshold: the setting less the adjustments posted without a second person,
    so that small corrections one after another do not exceed it."""
    row = connection.execute("SELECT control.left_without_approval(%s)", (statement_id,)).fetchone()
    return Decimal(row[0]) if row else Decimal(0)


def lock(connection: Connection, statement_id: str) -> None:
    """Allow one proposal or decision of a statement at a time; released with the transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('billing.adjustment ' || %s))", (statement_id,))


def undecided(connection: Connection, statement_id: str) -> list[tuple[str, str]]:
    """Corrections of a statement that wait for a decision: (adjustment_id, requested_by)."""
    return connection.execute(
        "SELECT adjustment_id, requested_by FROM billing.adjustment WHERE statement_id = %s AND status = 'requested' "
        "AND reason NOT IN ('leak', 'policy') ORDER BY requested_at, 1",
        (statement_id,),
    ).fetchall()


def last_refused(connection: Connection, statement_id: str) -> str | None:
    """Returns the correction of a statement that was refused last, where no adjustment was posted since."""
    row = connection.execute(
        "SELECT adjustment_id, status FROM billing.adjustment WHERE statement_id = %s AND status IN ('refused', 'posted') AND reason NOT IN ('leak', 'policy') "
        "ORDER BY coalesce(decided_at, posted_at) DESC, adjustment_id DESC LIMIT 1",
        (statement_id,),
    ).fetchone()
    return str(row[0]) if row is not None and row[1] == "refused" else None


def supersede(connection: Connection, adjustment_ids: Sequence[str], by: str | None, at: datetime) -> None:
    """Remove undecided adjustments from the queue: ``by`` replaces them."""
    connection.execute(
        "UPDATE billing.adjustment SET status = 'superseded', superseded_by = %s, superseded_at = %s "
        "WHERE adjustment_id = ANY(%s) AND status = 'requested'",
        (by, at, list(adjustment_ids)),
    )


def same(connection: Connection, adjustment_id: str, lines: Sequence[Sequence[Any]], due: Decimal) -> bool:
    """Whether an adjustment consists of exactly these lines (LINE_COLUMNS) and leaves the statement ``due`` beyond
    the charges of its days. Adjustments from before ``due`` was stored are compared by their lines."""
    names = ", ".join(LINE_COLUMNS)
    stored = connection.execute(
        f"SELECT {names} FROM billing.adjustment_line WHERE adjustment_id = %s ORDER BY line_no", (adjustment_id,)
    ).fetchall()
    query = "SELECT sealed_days_due + period_end_due FROM billing.adjustment WHERE adjustment_id = %s"
    kept = scalar(connection, query, (adjustment_id,))
    return [tuple(row) for row in stored] == [tuple(line) for line in lines] and kept in (None, due)


def carried_out(connection: Connection, statement_id: str) -> list[tuple[Any, ...]]:
    """Returns the peaks and credits that a statement passes to the next one, by service point and segment."""
    return connection.execute(
        "SELECT service_point_id, tariff_id, segment_end, peaks, carry_out, credit_out FROM billing.effective_segment "
        "WHERE statement_id = %s AND (cardinality(peaks) > 0 OR credit_out <> 0 OR EXISTS (SELECT FROM unnest(carry_out) AS c WHERE c <> 0)) ORDER BY 1, 3",
        (statement_id,),
    ).fetchall()


def stands_on(connection: Connection, statement_id: str, segments: pl.DataFrame, due: Decimal) -> bool:
    """Whether a statement's current segments are exactly these (statement_frames.SEGMENT_SCHEMA): their usage, peaks
    and carried amounts; and it bills ``due`` beyond the charges of its days."""
    names = (
        "service_point_id, segment_start, segment_end, tariff_id, tariff_version, energy, peaks, carry_out, credit_out"
    )
    row = connection.execute(
        f"SELECT {names} FROM billing.effective_segment WHERE statement_id = %s".encode(), (statement_id,)
    ).fetchall()
    now = segments.select(names.split(", ")).rows()
    in_effect = (
        "SELECT CASE WHEN a.statement_id IS NOT NULL THEN a.due ELSE s.period_end_due + s.credit_carried + s.ratchet_due "
        "+ s.year_end_due + coalesce(s.sealed_days_due, 0) END FROM billing.statement AS s LEFT JOIN ("
        "SELECT statement_id, sealed_days_due + period_end_due AS due FROM billing.adjustment WHERE statement_id = %(s)s "
        "AND status = 'posted' ORDER BY posted_at DESC, length(adjustment_id) DESC, adjustment_id DESC LIMIT 1) AS a "
        "USING (statement_id) WHERE s.statement_id = %(s)s"
    )
    kept = scalar(connection, in_effect, {"s": statement_id})
    return sorted(row, key=lambda r: r[:2]) == sorted(now, key=lambda r: r[:2]) and kept in (None, due)


def note_following(connection: Connection, statement_id: str, at: datetime) -> None:
    """Put the account's later statements of the same service points on the list of late changes; where the statement
    passes or passed credit on, those of the account's other service points too, to which credit may move."""
    connection.execute(
        "INSERT INTO billing.late_change (statement_id, billing_day, service_point_id, noticed_at) "
        "SELECT DISTINCT ON (s.statement_id, g.service_point_id) s.statement_id, g.segment_start, g.service_point_id, %(at)s::timestamptz "
        "FROM billing.statement AS own JOIN billing.statement AS s ON s.account_id = own.account_id AND s.period_end > own.period_end "
        "JOIN billing.statement_segment AS g ON g.statement_id = s.statement_id WHERE own.statement_id = %(id)s AND g.service_point_id IN "
        "(SELECT service_point_id FROM billing.statement_segment WHERE statement_id = %(id)s) OR own.statement_id = %(id)s AND EXISTS "
        "(SELECT FROM (SELECT carry_out, credit_out FROM billing.statement_segment WHERE statement_id = %(id)s UNION ALL "
        "SELECT k.carry_out, k.credit_out FROM billing.adjustment_segment AS k JOIN billing.adjustment USING (adjustment_id) "
        "WHERE statement_id = %(id)s) AS kept WHERE kept.credit_out <> 0 OR EXISTS (SELECT FROM unnest(kept.carry_out) AS c WHERE c <> 0)) "
        "ORDER BY s.statement_id, g.service_point_id, g.segment_start ON CONFLICT DO NOTHING",
        {"id": statement_id, "at": at},
    )


def next_name(connection: Connection, statement_id: str, ahead: int = 1) -> str:
    """Returns the name of a statement's next adjustment, or of one so many ahead."""
    count = scalar(connection, "SELECT count(*) FROM billing.adjustment WHERE statement_id = %s", (statement_id,))
    return f"{statement_id}.A{count + ahead}"


def insert(connection: Connection, row: dict[str, Any], lines: Sequence[Sequence[Any]]) -> str:
    """Insert an adjustment and its lines. Returns its id, the statement's next."""
    adjustment_id = next_name(connection, row["statement_id"])
    connection.execute(
        "INSERT INTO billing.adjustment (adjustment_id, statement_id, account_id, reason, evidence, net, gross, approval_required, threshold, "
        "status, requested_by, requested_at, posting_month, sealed_days_due, period_end_due) VALUES (%(adjustment_id)s, %(statement_id)s, "
        "%(account_id)s, %(reason)s, %(evidence)s, %(net)s, %(gross)s, %(approval_required)s, %(threshold)s, 'requested', %(requested_by)s, "
        "%(requested_at)s, %(posting_month)s, %(sealed_days_due)s, %(period_end_due)s)",
        row | {"adjustment_id": adjustment_id},
    )
    with connection.cursor() as cursor:
        names = ", ".join(LINE_COLUMNS)
        cursor.executemany(
            f"INSERT INTO billing.adjustment_line (adjustment_id, posting_month, {names}) VALUES (%s, %s, {', '.join(['%s'] * len(LINE_COLUMNS))})",
            [(adjustment_id, row["posting_month"], *line) for line in lines],
        )
    return adjustment_id


def keep_segments(connection: Connection, adjustment_id: str, month: date, segments: Sequence[dict[str, Any]]) -> None:
    """Store the segments of the statement after an adjustment: all of them, none where no segment is left."""
    connection.execute("UPDATE billing.adjustment SET restated = true WHERE adjustment_id = %s", (adjustment_id,))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO billing.adjustment_segment (adjustment_id, posting_month, service_point_id, tariff_id, tariff_version, segment_start, "
            "segment_end, days, unit, energy, peaks, carry_out, credit_out) VALUES (%(adjustment_id)s, %(month)s, %(service_point_id)s, %(tariff_id)s, "
            "%(tariff_version)s, %(segment_start)s, %(segment_end)s, %(days)s, %(unit)s, %(energy)s, %(peaks)s, %(carry_out)s, %(credit_out)s)",
            [{**row, "adjustment_id": adjustment_id, "month": month} for row in segments],
        )


def insert_beside(connection: Connection, table: str, row: dict[str, Any]) -> None:
    """Insert a row of a table that belongs to an adjustment."""
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    connection.execute(statement, {k: Jsonb(v) if isinstance(v, dict | list) else v for k, v in row.items()})


def decide(connection: Connection, adjustment_id: str, status: str, person: str, at: datetime) -> dict[str, Any] | None:
    """Set a requested adjustment to approved or refused. Returns None where it does not wait. The table refuses the
    person who requested it."""
    return _row(
        connection,
        "UPDATE billing.adjustment SET status = %s, decided_by = %s, decided_at = %s WHERE adjustment_id = %s AND status = 'requested' "
        "RETURNING statement_id, requested_by, net, gross",
        (status, person, at, adjustment_id),
    )


def post(connection: Connection, adjustment_id: str, at: datetime) -> dict[str, Any] | None:
    """Post an adjustment that was approved, or that needs no approval. Returns None where it is not in that state."""
    return _row(
        connection,
        "UPDATE billing.adjustment SET status = 'posted', posted_at = %s WHERE adjustment_id = %s "
        "AND (status = 'approved' OR (status = 'requested' AND NOT approval_required)) RETURNING statement_id, net, gross, posting_month",
        (at, adjustment_id),
    )


def lines(connection: Connection, adjustment_id: str) -> list[tuple[Any, ...]]:
    """An adjustment's lines."""
    return connection.execute(
        "SELECT line_no, action, service_point_id, line_key, amount FROM billing.adjustment_line WHERE adjustment_id = %s ORDER BY line_no",
        (adjustment_id,),
    ).fetchall()


def listed(database: Database) -> pl.DataFrame:
    """Adjustments, newest last."""
    return database.read(
        "SELECT adjustment_id, account_id, reason, net::text AS net, gross::text AS gross, status, requested_by, decided_by, "
        "posting_month FROM billing.adjustment ORDER BY requested_at, adjustment_id"
    )


def amount(value: int) -> Decimal:
    """Millionths as the column's exact decimal."""
    return Decimal(value).scaleb(-6)


def _row(connection: Connection, query: str, parameters: Sequence[Any]) -> dict[str, Any] | None:
    cursor = connection.execute(query.encode(), parameters)
    row = cursor.fetchone()
    if row is None or cursor.description is None:
        return None
    return {column.name: value for column, value in zip(cursor.description, row, strict=True)}
