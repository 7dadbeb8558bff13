"""SQL of the reconciliation of a billing day: the figures of the stages before billing, in the units in which they are
compared.

Rows are (subject, unit, cause, expected, actual, items, detail); quantities and money in millionths, counts unscaled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import polars as pl
import psycopg

from meter_pipeline.postgres.database import scalar

Connection = psycopg.Connection[Any]


#: What the reconciliation checks of a day compare of each of its tables, as SQL: read once, compared as frames
# (billing/reconcile.py). Three joins over a hundred thousand services in SQL took 1.3 processor seconds, this 0.3.
def stored_determinants(connection: Connection, day: date, points: Sequence[str] | None = None) -> pl.DataFrame:
    """The day's determinants as stored, of some service points where they are given: service_point_id, unit,
    source_unit, source_quantity, source_export, energy and export over all periods."""
    where = f"billing_day = %(day)s{_among(points)}"
    return determinants_where(connection, "service_point_id", where, {"day": day, "points": points})


def determinants_where(connection: Connection, name: str, where: str, values: dict[str, Any]) -> pl.DataFrame:
    """``stored_determinants`` of the rows that meet a condition. ``name``: SQL of the service point id."""
    columns: dict[str, tuple[str, Any]] = {
        "service_point_id": (name, pl.String),
        **{c: (c, pl.String) for c in ("unit", "source_unit", "other_unit")},
        **{c: (c, pl.Int64) for c in ("source_quantity", "source_export", "other_quantity", "other_export")},
        "energy": (_summed("energy"), pl.Int64),
        "export": (_summed("export"), pl.Int64),
    }
    found = _gathered(connection, columns, f"billing.determinant_day WHERE {where}", values)
    return found.with_columns(pl.col("source_unit", "other_unit").fill_null(""))


def stored_charges(
    connection: Connection, day: date, points: Sequence[str] | None = None, *, before: bool = False
) -> pl.DataFrame:
    """Positions of a day as stored, of some service points where they are given: service_point_id, account_id,
    tariff_id, stretch_start, reached and sent over all periods, and, but for those ``before`` a day, total, the sum of
    its lines, and their currency."""
    where = f"billing_day = %(day)s{_among(points)}"
    return charges_where(connection, "service_point_id", where, {"day": day, "points": points}, before=before)


def charges_where(
    connection: Connection, name: str, where: str, values: dict[str, Any], *, before: bool = False
) -> pl.DataFrame:
    """``stored_charges`` of the rows that meet a condition. ``name``: SQL of the service point id."""
    columns: dict[str, tuple[str, Any]] = {
        "service_point_id": (name, pl.String),
        **{c: (c, pl.String) for c in ("account_id", "tariff_id")},
        "stretch_start": ("stretch_start", pl.Date),
        "reached": (_summed("energy_to_date"), pl.Int64),
        "sent": (_summed("export_to_date"), pl.Int64),
    }
    where = f"billing.charge_day WHERE {where}"
    if before:
        return _gathered(connection, columns, where, values)
    money = {
        "tariff_version": ("tariff_version", pl.Int64),
        "total": ("total", pl.Int64),
        "lines": (f"coalesce({_summed('amounts')}, 0)", pl.Int64),
    }
    found = _gathered(connection, columns | money, where, values)
    rows = connection.execute("SELECT tariff_id, version::bigint, currency FROM billing.tariff_version").fetchall()
    versions = pl.DataFrame(
        rows, schema={"tariff_id": pl.String, "tariff_version": pl.Int64, "currency": pl.String}, orient="row"
    )
    return found.join(versions, on=["tariff_id", "tariff_version"])


def positions_before(connection: Connection, day: date, alone: pl.DataFrame) -> pl.DataFrame:
    """Returns the latest earlier position of services that have none on the day before: columns as
    stored_charges(before=True)."""
    prior_day = day - timedelta(days=1)
    schema = {
        **dict.fromkeys(("service_point_id", "account_id", "tariff_id"), pl.String),
        "stretch_start": pl.Date,
        "reached": pl.Int64,
        "sent": pl.Int64,
    }
    first = alone["stretch_start"].min() if alone.height else None
    billed = (
        "SELECT EXISTS (SELECT FROM billing.charge_day WHERE billing_day >= %(first)s AND billing_day < %(prior_day)s)"
    )
    if first is None or not scalar(connection, billed, {"first": first, "prior_day": prior_day}):
        return pl.DataFrame(schema=schema)
    rows = connection.execute(
        "SELECT DISTINCT ON (service_point_id, account_id, tariff_id, stretch_start) service_point_id, account_id, tariff_id, stretch_start, "
        f"{_summed('energy_to_date')} AS reached, {_summed('export_to_date')} AS sent FROM billing.charge_day "
        "WHERE billing_day >= %(first)s AND billing_day < %(prior_day)s AND billing_day >= stretch_start AND service_point_id = ANY(%(points)s) "
        "ORDER BY service_point_id, account_id, tariff_id, stretch_start, billing_day DESC".encode(),
        {"first": first, "prior_day": prior_day, "points": alone["service_point_id"].to_list()},
    ).fetchall()
    return pl.DataFrame(rows, schema=schema, orient="row")


def validated_usage(connection: Connection, day: date, points: Sequence[str] | None = None) -> pl.DataFrame:
    """Validated usage of a day, of some service points where they are given: service_point_id, unit, flow, quantity in
    millionths. Usage that is billed at another service point stands there, with its sign."""
    if not scalar(connection, f"SELECT EXISTS ({_PARTS})", {"day": day}):
        where = f"billing_day = %(day)s{_among(points)}"
        return usage_where(connection, "service_point_id", where, {"day": day, "points": points})
    columns, flows = _usage_columns("service_point_id"), _FLOWS
    both = f"""(
        WITH part AS ({_PARTS}) SELECT service_point_id, unit, flow, sum(quantity_micro)::bigint AS quantity_micro FROM (
            SELECT service_point_id, unit, flow, quantity_micro FROM vee.daily_usage AS u WHERE billing_day = %(day)s AND {flows}
                AND NOT EXISTS (SELECT FROM part WHERE part.member = u.service_point_id AND (part.sign > 0 OR NOT part.own))
            UNION ALL SELECT part.target, u.unit, u.flow, u.quantity_micro * part.sign FROM vee.daily_usage AS u
                JOIN part ON part.member = u.service_point_id WHERE u.billing_day = %(day)s AND {flows}
        ) AS placed GROUP BY 1, 2, 3) AS billed"""
    return _gathered(connection, columns, f"{both} WHERE true{_among(points)}", {"day": day, "points": points})


_FLOWS: Final = "flow IN ('import', 'export', 'net') AND quantity_micro IS NOT NULL"


def _usage_columns(name: str) -> dict[str, tuple[str, Any]]:
    return {
        "service_point_id": (name, pl.String),
        **{c: (c, pl.String) for c in ("unit", "flow")},
        "quantity": ("quantity_micro", pl.Int64),
    }


def usage_where(connection: Connection, name: str, where: str, values: dict[str, Any]) -> pl.DataFrame:
    """``validated_usage`` of the rows that meet a condition, where no usage is billed at another service point.
    ``name``: SQL of the service point id."""
    return _gathered(connection, _usage_columns(name), f"vee.daily_usage WHERE {where} AND {_FLOWS}", values)


def _among(points: Sequence[str] | None) -> str:
    """SQL of a condition on some service points; empty where all are meant."""
    return "" if points is None else " AND service_point_id = ANY(%(points)s)"


#: Usage that is billed at another service point on a day: of member at target, with its sign; own: the member is billed
#: too.
_PARTS: Final = """
SELECT a.service_point_id AS member, upper(btrim(a.value)) AS target, CASE a.attribute WHEN 'totals_into' THEN 1 ELSE -1 END AS sign,
    EXISTS (SELECT FROM ref.agreements AS g WHERE g.service_point_id = a.service_point_id AND g.valid_from <= %(day)s
        AND (g.valid_to IS NULL OR g.valid_to > %(day)s)) AS own
FROM ref.service_attributes AS a WHERE a.attribute IN ('totals_into', 'deducts_from') AND a.valid_from <= %(day)s
    AND (a.valid_to IS NULL OR a.valid_to > %(day)s)
"""


def excused(connection: Connection, day: date) -> pl.DataFrame:
    """Returns services whose usage need not be billed, with the reason: the day's exceptions; for a sealed day,
    those of its latest revision. A service with missing usage is not excused: it has no usage to bill."""
    return excused_where(connection, "service_point_id", "billing_day = %(day)s", {"day": day})


def excused_where(connection: Connection, name: str, where: str, values: dict[str, Any]) -> pl.DataFrame:
    """``excused`` of the rows that meet a condition. ``name``: SQL of the service point id."""
    rows = connection.execute(
        f"WITH later AS (SELECT DISTINCT ON ({name}) {name} AS named, exceptions FROM billing.determinant_revision "
        f"WHERE {where} ORDER BY {name}, revision DESC), "
        f"held AS (SELECT {name} AS named, reason FROM billing.exception_day WHERE {where} "
        f"AND {name} NOT IN (SELECT named FROM later WHERE exceptions IS NOT NULL) "
        "UNION ALL SELECT named, x ->> 0 FROM later, jsonb_array_elements(exceptions) AS x) "
        "SELECT named, min(reason) AS reason, bool_or(reason IN ('attribute_missing', 'not_priced', 'set_aside')) AS uncharged "
        "FROM held WHERE reason NOT IN ('no_usage', 'usage_missing') GROUP BY 1".encode(),
        values,
    ).fetchall()
    return pl.DataFrame(
        rows, schema={"service_point_id": pl.String, "reason": pl.String, "uncharged": pl.Boolean}, orient="row"
    )


def revised(connection: Connection, day: date) -> pl.DataFrame:
    """Returns the latest determinants stored beside a sealed day: service_point_id, source_unit, source_quantity,
    source_export, and those of the day's other unit. A service that is no longer charged has no unit."""
    return revised_where(connection, "service_point_id", "billing_day = %(day)s", {"day": day})


def revised_where(connection: Connection, name: str, where: str, values: dict[str, Any]) -> pl.DataFrame:
    """``revised`` of the rows that meet a condition. ``name``: SQL of the service point id."""
    units, quantities = (
        ("source_unit", "other_unit"),
        ("source_quantity", "source_export", "other_quantity", "other_export"),
    )
    columns = [f"coalesce(determinants ->> '{c}', '') AS {c}" for c in units]
    columns += [f"coalesce((determinants ->> '{c}')::bigint, 0) AS {c}" for c in quantities]
    rows = connection.execute(
        f"SELECT DISTINCT ON ({name}) {name}, {', '.join(columns)} FROM billing.determinant_revision "
        f"WHERE {where} ORDER BY {name}, revision DESC".encode(),
        values,
    ).fetchall()
    texts = dict.fromkeys(("service_point_id", *units), pl.String)
    return pl.DataFrame(rows, schema=texts | dict.fromkeys(quantities, pl.Int64), orient="row")


def _summed(array: str) -> str:
    """SQL for the sum of an array's elements, null for an empty array. Most tariffs have fewer than sixteen periods
    or lines, which are added one by one: a query over unnest costs each row ten times as much. A sum beyond bigint
    raises an error."""
    few = " ".join(f"WHEN {n} THEN " + " + ".join(f"{array}[{k}]" for k in range(1, n + 1)) for n in range(1, 17))
    return f"CASE cardinality({array}) {few} ELSE (SELECT sum(x)::bigint FROM unnest({array}) AS x) END"


def period_streaks(connection: Connection, cycle_id: str, first: date, past: date, at_least: int) -> pl.DataFrame:
    """Returns runs of completely estimated days within a period: account_id, service_point_id, days, since."""
    rows = connection.execute(
        "SELECT account_id, service_point_id, count(*)::int AS days, min(billing_day) AS since FROM (SELECT account_id, service_point_id, billing_day, "
        "billing_day - (row_number() OVER (PARTITION BY account_id, service_point_id ORDER BY billing_day))::int AS run FROM billing.determinant_day "
        "WHERE cycle_id = %s AND billing_day >= %s AND billing_day < %s AND slots > 0 AND estimated >= slots) AS runs "
        "GROUP BY 1, 2, run HAVING count(*) >= %s ORDER BY 1, 2, 4",
        (cycle_id, first, past, at_least),
    ).fetchall()
    return pl.DataFrame(
        rows,
        schema={"account_id": pl.String, "service_point_id": pl.String, "days": pl.Int32, "since": pl.Date},
        orient="row",
    )


def estimate_streaks(connection: Connection, day: date, at_least: int) -> pl.DataFrame:
    """Services whose usage was estimated on a day and on each of the days before it: service_point_id, account_id,
    days, since."""
    rows = connection.execute(
        "SELECT service_point_id, account_id, days, since FROM billing.estimate_streaks(%s, %s)", (day, at_least)
    ).fetchall()
    return pl.DataFrame(
        rows,
        schema={"service_point_id": pl.String, "account_id": pl.String, "days": pl.Int32, "since": pl.Date},
        orient="row",
    )


_STATEMENTS = """
SELECT s.statement_id, s.account_id, (s.total * 1000000)::bigint AS total, (s.period_end_due * 1000000)::bigint AS period_end,
    (s.credit_carried * 1000000)::bigint AS credit, (s.ratchet_due * 1000000)::bigint AS ratchet, (s.year_end_due * 1000000)::bigint AS year_end,
    coalesce(s.sealed_days_due * 1000000, 0)::bigint AS sealed_days,
    s.currency, encode(s.lines_sha256, 'hex') AS lines_sha256, s.ledger_entry, s.ledger_leaf
FROM billing.statement AS s WHERE s.cycle_id = %(cycle)s AND s.period_start = %(start)s ORDER BY 1
"""
#: By statement of a period, the corrections that exist or are due: the net of posted adjustments, of the waiting one
#: and of the last one refused since, each with the due of the statement it makes beyond its days' charges; and how far
#: late changes moved the charges. A leak's adjustment forgives part of the charges, no correction. ``room``: an
#: adjustment requested before those figures were stored may settle any minimum charge, tax, credit or demand, and a
#: cent of rounding a line; where it corrects sealed days no bound is known.
_CORRECTIONS = """
WITH chosen AS (SELECT statement_id FROM billing.statement WHERE cycle_id = %(cycle)s AND period_start = %(start)s),
made AS (
    SELECT a.*, ((a.sealed_days_due + a.period_end_due) * 1000000)::bigint AS due, (a.net * 1000000)::bigint AS micro
    FROM billing.adjustment AS a JOIN chosen USING (statement_id) WHERE a.reason NOT IN ('leak', 'policy')
),
posted AS (
    SELECT statement_id, sum(micro)::bigint AS posted, max(posted_at) AS posted_at,
        (array_agg(due ORDER BY posted_at DESC, length(adjustment_id) DESC, adjustment_id DESC))[1] AS posted_due
    FROM made WHERE status = 'posted' GROUP BY 1
),
asked AS (
    SELECT DISTINCT ON (statement_id) statement_id, micro AS asked, due AS asked_due FROM made WHERE status IN ('requested', 'approved')
    ORDER BY statement_id, requested_at DESC, length(adjustment_id) DESC, adjustment_id DESC
),
refused AS (
    SELECT DISTINCT ON (m.statement_id) m.statement_id, m.micro AS refused, m.due AS refused_due FROM made AS m LEFT JOIN posted AS p USING (statement_id)
    WHERE m.status = 'refused' AND (p.posted_at IS NULL OR m.decided_at >= p.posted_at)
    ORDER BY m.statement_id, m.requested_at DESC, length(m.adjustment_id) DESC, m.adjustment_id DESC
),
moved AS (
    SELECT c.statement_id, coalesce(sum(c.charge_moved), 0)::bigint AS moved FROM billing.late_change AS c JOIN chosen USING (statement_id) GROUP BY 1
),
room AS (
    SELECT m.statement_id, CASE WHEN EXISTS (SELECT FROM billing.determinant_revision AS r JOIN billing.statement_segment AS g
            ON g.service_point_id = r.service_point_id AND r.billing_day >= g.segment_start AND r.billing_day < g.segment_end
            WHERE g.statement_id = m.statement_id) THEN 9000000000000000 ELSE (SELECT coalesce(sum(abs(l.amount)) FILTER (WHERE l.component IN
            ('minimum', 'tax', 'credit', 'demand_flat', 'demand_tou')), 0) * 1000000 + 10000 * count(*) FILTER (WHERE l.action = 'rebill')
            FROM billing.adjustment_line AS l JOIN made AS o USING (adjustment_id) WHERE o.statement_id = m.statement_id)::bigint END AS room
    FROM made AS m WHERE m.due IS NULL AND m.status <> 'superseded' GROUP BY 1
)
SELECT statement_id, posted, posted_due, asked, asked_due, refused, refused_due, moved, room FROM posted FULL JOIN asked USING (statement_id)
FULL JOIN refused USING (statement_id) FULL JOIN moved USING (statement_id) LEFT JOIN room USING (statement_id)
"""
_LINE_SUMS = """
SELECT statement_id, (sum(amount) * 1000000)::bigint AS lines FROM billing.statement_line JOIN billing.statement AS s USING (statement_id)
WHERE s.cycle_id = %(cycle)s AND s.period_start = %(start)s GROUP BY 1
"""
_CHARGE_SUMS = """
SELECT account_id, sum(total)::bigint AS charged FROM billing.charge_day
WHERE cycle_id = %(cycle)s AND billing_day >= %(start)s AND billing_day < %(past)s GROUP BY 1
"""
_LINES = """
SELECT l.statement_id, l.line_no, l.service_point_id, l.tariff_id, l.tariff_version, l.segment_start, l.segment_end, l.line_key,
    (l.quantity * 1000000)::bigint AS quantity, (l.amount * 1000000)::bigint AS amount
FROM billing.statement_line AS l JOIN billing.statement AS s USING (statement_id)
WHERE s.cycle_id = %(cycle)s AND s.period_start = %(start)s ORDER BY 1, 2
"""


def statement_sums(connection: Connection, cycle_id: str, first: date, past: date) -> pl.DataFrame:
    """Returns per statement of a period: its total, the sum of its stored lines, its days' stored charges, the
    amounts of the period's end, its hash and position."""
    numbers = dict.fromkeys(("total", "period_end", "credit", "ratchet", "year_end", "sealed_days"), pl.Int64)
    texts = dict.fromkeys(("statement_id", "account_id", "currency", "lines_sha256"), pl.String)
    values = {"cycle": cycle_id, "start": first, "past": past}
    found = _copied(connection, _STATEMENTS, values, {**numbers, **texts, "ledger_leaf": pl.Int64})
    # Joined here: the statements were written a moment ago by the same transaction, so the server has no idea of how
    # many there are and may loop over a hundred thousand of them for each of a hundred thousand accounts (ten minutes
    # and no end).
    lines = _copied(connection, _LINE_SUMS, values, {"statement_id": pl.String, "lines": pl.Int64})
    charged = _copied(connection, _CHARGE_SUMS, values, {"account_id": pl.String, "charged": pl.Int64})
    beside = ("posted", "posted_due", "asked", "asked_due", "refused", "refused_due", "moved", "room")
    corrections = _copied(
        connection, _CORRECTIONS, values, {"statement_id": pl.String, **dict.fromkeys(beside, pl.Int64)}
    )
    sums = pl.col("lines", "charged", "posted", "moved", "room").fill_null(0)
    for more, key in ((lines, "statement_id"), (charged, "account_id"), (corrections, "statement_id")):
        found = found.join(more, on=key, how="left", maintain_order="left")
    return found.with_columns(sums, pl.col("lines_sha256").str.decode("hex"))


def statement_lines(connection: Connection, cycle_id: str, first: date) -> pl.DataFrame:
    """Returns every stored line of a period's statements, with the columns of the statement's hash; quantity and
    amount in millionths."""
    texts = dict.fromkeys(("statement_id", "service_point_id", "tariff_id", "line_key"), pl.String)
    kinds = texts | {"segment_start": pl.Date, "segment_end": pl.Date, "quantity": pl.Int64, "amount": pl.Int64}
    return _copied(connection, _LINES, {"cycle": cycle_id, "start": first}, kinds)


def issued_leaves(connection: Connection, cycle_id: str, first: date, last: date) -> dict[int, bytes]:
    """Returns the concatenated leaves of the ledger entries that record the issue of a period's statements, by
    entry."""
    rows = connection.execute(
        "SELECT entry_id, leaves FROM billing.leaf_entries(%(last)s, 'bill_issued') "
        "WHERE convert_from(body, 'UTF8')::jsonb -> 'body' ->> 'cycle_id' = %(cycle)s "
        "AND convert_from(body, 'UTF8')::jsonb -> 'body' ->> 'period_start' = %(start)s ORDER BY 1",
        {"last": last, "cycle": cycle_id, "start": first.isoformat()},
        binary=True,
    ).fetchall()
    return {int(entry): bytes(leaves or b"") for entry, leaves in rows}


def index_leaves(connection: Connection, day: date) -> int:
    """Store the first four bytes of each leaf of the day's payload entries, for look-ups. Returns the number of new
    entries."""
    rows = connection.execute(
        "SELECT e.entry_id, e.leaves FROM billing.leaf_entries(%s, 'ingested') AS e "
        "WHERE NOT EXISTS (SELECT FROM billing.leaf_prefix AS p WHERE p.entry_id = e.entry_id) ORDER BY 1",
        (day,),
        binary=True,
    ).fetchall()
    for entry, leaves in rows:
        prefixes = np.frombuffer(leaves, np.uint8).reshape(-1, 32)[:, :4].tobytes()
        connection.execute(
            "INSERT INTO billing.leaf_prefix (entry_id, billing_day, prefixes) VALUES (%s, %s, %b)",
            (entry, day, prefixes),
        )
    return len(rows)


def _gathered(
    connection: Connection, columns: dict[str, tuple[str, Any]], source: str, values: dict[str, Any]
) -> pl.DataFrame:
    """Returns columns (name -> SQL and type) of a table's rows as a frame, in the caller's transaction. The server
    joins them into one text, because the driver returns a COPY row by row, a Python step each. No column holds a
    control character."""
    line = ", E'\x1f', ".join(expression for expression, _ in columns.values())
    text = scalar(connection, f"SELECT string_agg(concat({line}), E'\n') FROM {source}", values)
    schema = {name: kind for name, (_, kind) in columns.items()}
    if not text:
        return pl.DataFrame(schema=schema)
    return pl.read_csv(text.encode(), has_header=False, separator="\x1f", quote_char=None, schema=schema)


def _copied(connection: Connection, query: str, values: dict[str, Any], kinds: dict[str, Any]) -> pl.DataFrame:
    """Returns a query's result as a frame, in the caller's transaction. COPY transfers a million rows in the time
    that fetchall takes for fifty thousand."""
    buffer = io.BytesIO()
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)".encode(), values) as copy,
    ):
        for block in copy:
            buffer.write(block)
    buffer.seek(0)
    return pl.read_csv(buffer, schema_overrides=kinds)


def replace(
    connection: Connection,
    day: date,
    frame: pl.DataFrame,
    checks: Sequence[str],
    subjects: Sequence[str] | None = None,
) -> int:
    """Replace the day's rows of the given checks (of some subjects, where they are given) by ``frame``; equal rows
    are not written. Returns the number of rows written or deleted."""
    rows = [
        {**row, "expected": str(row["expected"]), "actual": str(row["actual"])}
        for row in frame.select("joint", "subject", "unit", "cause", "expected", "actual", "items", "detail").iter_rows(
            named=True
        )
    ]
    values = {
        "day": day,
        "checks": list(checks),
        "subjects": None if subjects is None else list(subjects),
        "rows": json.dumps(rows),
    }
    incoming = (
        "jsonb_to_recordset(%(rows)s::jsonb) AS i (joint text, subject text, unit text, cause text, expected numeric, actual numeric, "
        "items bigint, detail text)"
    )
    gone = connection.execute(
        "DELETE FROM billing.reconciliation AS t WHERE billing_day = %(day)s AND joint = ANY(%(checks)s) "
        "AND (%(subjects)s::text[] IS NULL OR subject = ANY(%(subjects)s)) AND NOT EXISTS "
        f"(SELECT FROM {incoming} WHERE (i.joint, i.subject, i.unit, i.cause) = (t.joint, t.subject, t.unit, t.cause))".encode(),
        values,
    ).rowcount
    changed = connection.execute(
        "INSERT INTO billing.reconciliation AS t (billing_day, joint, subject, unit, cause, expected, actual, items, detail) "
        f"SELECT %(day)s, joint, subject, unit, cause, expected, actual, items, detail FROM {incoming} "
        "ON CONFLICT (billing_day, joint, subject, unit, cause) DO UPDATE SET expected = excluded.expected, actual = excluded.actual, "
        "items = excluded.items, detail = excluded.detail WHERE (t.expected, t.actual, t.items, t.detail) "
        "IS DISTINCT FROM (excluded.expected, excluded.actual, excluded.items, excluded.detail)".encode(),
        values,
    ).rowcount
    return gone + changed
