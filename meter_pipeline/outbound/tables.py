"""SQL of the outputs: their records, the deliveries and the acknowledgements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database, scalar

Connection = psycopg.Connection[Any]

#: How far back the read is looked for from which a missing one is estimated.
_LOOK_BACK = 130

_READS = f"""
WITH asked AS (
    SELECT a.meter_id, a.read_date, (a.read_date + 1)::timestamp AT TIME ZONE $3 AS closes
    FROM unnest(string_to_array($1, E'\\x1f'), string_to_array($2, ',')::date[]) AS a (meter_id, read_date)),
placed AS (
    SELECT a.*, m.meter_id IS NOT NULL AS known, i.service_point_id, i.installed_at, p.route, g.account_id, g.cycle_id, c.channel, c.unit,
        coalesce(w.multiplier, c.multiplier)::text AS multiplier
    FROM asked AS a LEFT JOIN ref.meters AS m USING (meter_id)
    LEFT JOIN LATERAL (SELECT x.service_point_id, x.installed_at FROM ref.installations AS x WHERE x.meter_id = a.meter_id AND x.installed_at < a.closes
        AND (x.removed_at IS NULL OR x.removed_at >= a.closes) ORDER BY x.installed_at DESC LIMIT 1) AS i ON true
    LEFT JOIN LATERAL (SELECT x.route FROM ref.service_points AS x WHERE x.service_point_id = i.service_point_id AND x.valid_from <= a.read_date
        AND (x.valid_to IS NULL OR x.valid_to > a.read_date) LIMIT 1) AS p ON true
    LEFT JOIN LATERAL (SELECT x.account_id, x.cycle_id FROM ref.agreements AS x WHERE x.service_point_id = i.service_point_id
        AND x.valid_from <= a.read_date AND (x.valid_to IS NULL OR x.valid_to > a.read_date) ORDER BY x.account_id LIMIT 1) AS g ON true
    LEFT JOIN ref.channels AS c ON c.meter_id = a.meter_id AND c.kind = 'register'
    LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from <= a.read_date
        AND (w.valid_to IS NULL OR w.valid_to > a.read_date))
SELECT q.*, r.read_at, r.billing_day AS read_day, r.value, (r.quality::integer & 65535) >> 13 AS flag,
    u.quantity AS used, u.unit AS used_unit, u.days AS used_days
FROM placed AS q
LEFT JOIN LATERAL (SELECT x.read_at, x.billing_day, x.value, x.quality FROM raw.register_read AS x WHERE x.meter_id = q.meter_id AND x.channel = q.channel
    AND x.billing_day > q.read_date - {_LOOK_BACK} AND x.billing_day <= q.read_date AND x.read_at <= q.closes AND x.read_at >= q.installed_at
    AND (x.quality::integer & 65535) >> 13 NOT IN (4, 6) ORDER BY x.read_at DESC LIMIT 1) AS r ON true
LEFT JOIN LATERAL (SELECT sum(d.quantity_micro)::bigint AS quantity, min(d.unit) AS unit, count(DISTINCT d.billing_day)::int AS days
    FROM vee.daily_usage AS d WHERE d.service_point_id = q.service_point_id AND d.flow = 'import' AND d.quantity_micro IS NOT NULL
    AND d.billing_day > r.billing_day AND d.billing_day <= q.read_date) AS u ON true
ORDER BY q.meter_id, q.read_date, q.channel
"""

_DETERMINANTS = """
SELECT s.account_id, g.service_point_id, s.statement_id, s.cycle_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.energy, g.peaks,
    o.unit, coalesce(o.estimated, 0)::bigint AS estimated
FROM billing.statement AS s JOIN billing.effective_segment AS g USING (statement_id)
LEFT JOIN LATERAL (SELECT min(x.unit) AS unit, sum(x.estimated) AS estimated FROM billing.statement_segment AS x
    WHERE x.statement_id = s.statement_id AND x.service_point_id = g.service_point_id) AS o ON true
WHERE s.cycle_id = $1 AND s.period_end = $2 ORDER BY 1, 2, 7
"""

_STATEMENTS = """
SELECT s.account_id, l.service_point_id, s.statement_id, l.statement_id || '.' || l.line_no AS line_id, s.cycle_id, s.period_start AS period_first,
    s.period_end - 1 AS period_last, l.tariff_id, l.tariff_version, l.line_key, l.name, l.component, l.quantity::text AS quantity, l.unit,
    l.amount::text AS amount, s.currency, s.posting_month
FROM billing.statement AS s JOIN billing.statement_line AS l USING (statement_id) WHERE s.cycle_id = $1 AND s.period_end = $2
ORDER BY s.account_id, l.statement_id, l.line_no
"""

_ADJUSTMENTS = """
SELECT s.account_id, l.service_point_id, s.statement_id, l.adjustment_id || '.' || l.line_no AS line_id, s.cycle_id, s.period_start AS period_first,
    s.period_end - 1 AS period_last, l.tariff_id, l.tariff_version, l.line_key, l.name, l.component,
    (CASE WHEN l.action = 'cancel' THEN -l.quantity ELSE l.quantity END)::text AS quantity, l.unit, l.amount::text AS amount, s.currency,
    a.posting_month, l.adjustment_id, l.action, a.reason
FROM billing.adjustment AS a JOIN billing.statement AS s USING (statement_id) JOIN billing.adjustment_line AS l USING (adjustment_id)
WHERE a.status = 'posted' AND a.posting_month = $1 ORDER BY s.account_id, l.adjustment_id, l.line_no
"""

_JOURNAL = """
SELECT month, line_no, entry_date, entry, account_code, debit::text AS debit, credit::text AS credit, currency, description
FROM billing.journal_line WHERE month = $1 ORDER BY line_no
"""

_READ_REQUESTS = """
SELECT coalesce(i.meter_id, '') AS meter_id, e.account_id, e.service_point_id, p.route, e.cycle_id, e.period_end - 1 AS period_last, e.cause, e.in_a_row,
    e.most_bills
FROM billing.estimated_bill AS e
LEFT JOIN LATERAL (SELECT x.meter_id FROM ref.installations AS x WHERE x.service_point_id = e.service_point_id
    AND x.installed_at < e.period_end::timestamp AT TIME ZONE $3 AND (x.removed_at IS NULL OR x.removed_at >= e.period_end::timestamp AT TIME ZONE $3)) AS i
    ON true
LEFT JOIN LATERAL (SELECT x.route FROM ref.service_points AS x WHERE x.service_point_id = e.service_point_id AND x.valid_from < e.period_end
    AND (x.valid_to IS NULL OR x.valid_to >= e.period_end) LIMIT 1) AS p ON true
WHERE e.cycle_id = $1 AND e.period_end = $2 AND e.action IN ('read_request', 'hold') ORDER BY 1, 3
"""

_ROUTE = """
SELECT DISTINCT i.meter_id FROM ref.installations AS i
JOIN ref.service_points AS p ON p.service_point_id = i.service_point_id AND p.valid_from <= $3 AND (p.valid_to IS NULL OR p.valid_to > $3)
JOIN ref.agreements AS g ON g.service_point_id = i.service_point_id AND g.valid_from <= $3 AND (g.valid_to IS NULL OR g.valid_to > $3)
WHERE ($1 = '' OR p.route = $1) AND ($2 = '' OR g.cycle_id = $2) AND i.installed_at < ($3::date + 1)::timestamp AT TIME ZONE $4
    AND (i.removed_at IS NULL OR i.removed_at >= ($3::date + 1)::timestamp AT TIME ZONE $4) ORDER BY 1
"""


def asked_reads(database: Database, meters: Sequence[str], days: Sequence[date], zone: str) -> pl.DataFrame:
    """Returns one row a register for each meter and date requested: where it is installed, its last read up to the end
    of the date, and validated usage of the days since. Dials in millionths of the base unit without the multiplier."""
    return database.read(_READS, ["\x1f".join(meters), ",".join(day.isoformat() for day in days), zone])


def meters_of(database: Database, route: str, cycle_id: str, day: date, zone: str) -> list[str]:
    """Returns the meters installed on a day on a route, in a cycle, or both (an empty text: any)."""
    return [str(m) for m in database.read(_ROUTE, [route, cycle_id, day, zone])["meter_id"].to_list()]


def has_period(database: Database, cycle_id: str, period_end: date) -> bool:
    """Whether a cycle has a period that ends on a day."""
    found = database.read(
        "SELECT 1 AS one FROM ref.billing_cycles WHERE cycle_id = $1 AND period_end = $2", [cycle_id, period_end]
    )
    return found.height > 0


def segments(database: Database, cycle_id: str, period_end: date) -> pl.DataFrame:
    """Returns the current segments of the statements of a cycle's period, posted adjustments included."""
    return database.read(_DETERMINANTS, [cycle_id, period_end])


def statement_lines(database: Database, cycle_id: str, period_end: date) -> pl.DataFrame:
    """Lines of the statements of a cycle's period."""
    return database.read(_STATEMENTS, [cycle_id, period_end])


def adjustment_lines(database: Database, month: date) -> pl.DataFrame:
    """Lines of the adjustments posted in a month."""
    return database.read(_ADJUSTMENTS, [month])


def read_requests(database: Database, cycle_id: str, period_end: date, zone: str) -> pl.DataFrame:
    """Returns the meters of a cycle's period for which a limit on estimated bills requests a read."""
    return database.read(_READ_REQUESTS, [cycle_id, period_end, zone])


def journal_lines(database: Database, month: date) -> pl.DataFrame:
    """Lines of a month's journal."""
    return database.read(_JOURNAL, [month])


def lock(connection: Connection, output: str, scope: str) -> None:
    """Allow one writer at a time for a scope, until the transaction ends."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"meter_pipeline delivery {output} {scope}",)
    )


def next_sequence(connection: Connection, output: str, scope: str) -> int:
    """Returns the number of the scope's next file."""
    query = "SELECT coalesce(max(sequence), 0) + 1 FROM billing.delivery WHERE output = %s AND scope = %s"
    return int(scalar(connection, query, (output, scope)))


def sent_items(connection: Connection, output: str, scope: str) -> dict[str, tuple[int, bytes]]:
    """Returns the records sent in a scope: key to (sequence, content hash)."""
    rows = connection.execute(
        "SELECT item_key, sequence, content_sha256 FROM billing.delivery_item WHERE output = %s AND scope = %s",
        (output, scope),
    )
    return {str(key): (int(sequence), bytes(digest)) for key, sequence, digest in rows}


def record(connection: Connection, row: dict[str, Any], items: Sequence[tuple[str, int, bytes]]) -> int:
    """Store a file and its records. Returns its number."""
    number = int(
        scalar(
            connection,
            "INSERT INTO billing.delivery (output, contract, scope, sequence, template, file_name, records, sums, sha256, written_by, written_at, status) "
            "VALUES (%(output)s, %(contract)s, %(scope)s, %(sequence)s, %(template)s, %(file_name)s, %(records)s, %(sums)s, %(sha256)s, %(written_by)s, "
            "%(written_at)s, 'sent') RETURNING delivery_id",
            row | {"sums": json.dumps(row["sums"])},
        )
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO billing.delivery_item AS d (output, scope, item_key, delivery_id, sequence, content_sha256) VALUES (%s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (output, scope, item_key) DO UPDATE SET delivery_id = excluded.delivery_id, sequence = excluded.sequence, "
            "content_sha256 = excluded.content_sha256",
            [(row["output"], row["scope"], key, number, sequence, digest) for key, sequence, digest in items],
        )
    return number


def delivery_of(connection: Connection, file_name: str) -> tuple[int, int, bytes, str] | None:
    """Returns (number, records, SHA-256, status) of a file and locks it; None where no file has this name."""
    row = connection.execute(
        "SELECT delivery_id, records, sha256, status FROM billing.delivery WHERE file_name = %s FOR UPDATE",
        (file_name,),
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]), bytes(row[2]), str(row[3]))


def answer(
    connection: Connection, delivery_id: int, status: str, records: int | None, detail: str, at: datetime
) -> None:
    """Store the customer system's acknowledgement of a file."""
    connection.execute(
        "UPDATE billing.delivery SET status = %s, answered_records = %s, answer = %s, answered_at = %s WHERE delivery_id = %s",
        (status, records, detail, at, delivery_id),
    )


def deliveries(database: Database, *, open_only: bool) -> list[dict[str, Any]]:
    """Returns files, newest first; on request only those that are not acknowledged."""
    return database.rows(
        "SELECT delivery_id, output, scope, sequence, file_name, records, sums::text AS sums, encode(sha256, 'hex') AS sha256, written_at, status, answer "
        "FROM billing.delivery WHERE NOT $1 OR status <> 'acknowledged' ORDER BY delivery_id DESC",
        [open_only],
    )
