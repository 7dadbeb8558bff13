"""What a bill shows beside its lines: meter reads, earlier usage, premises. Read for many statements at once."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from meter_pipeline.postgres.database import Database

#: How far before a period the read that opens it is looked for: two bi-monthly reads that were missed.
_OPENING_DAYS = 130

_READS = f"""
WITH bills AS (
    SELECT s.statement_id, g.service_point_id, min(g.segment_start) AS first_day, max(g.segment_end) AS past_day,
        min(g.segment_start)::timestamp AT TIME ZONE $2 AS opens, max(g.segment_end)::timestamp AT TIME ZONE $2 AS closes
    FROM billing.statement AS s JOIN billing.statement_segment AS g USING (statement_id)
    WHERE s.statement_id = ANY(string_to_array($1, ',')) GROUP BY 1, 2),
meters AS (
    SELECT b.*, i.meter_id, i.installed_at, i.install_read::text AS install_read, i.removed_at,
        i.removal_read::text AS removal_read, c.channel, c.unit, coalesce(w.multiplier, c.multiplier) AS multiplier,
        coalesce(w.decimals, c.decimals) AS decimals, coalesce(w.flow, c.flow) AS flow,
        EXISTS (SELECT FROM ref.channels AS o LEFT JOIN ref.channel_values AS x ON x.meter_id = o.meter_id AND x.channel = o.channel
            AND x.valid_from < b.past_day AND (x.valid_to IS NULL OR x.valid_to >= b.past_day)
            WHERE o.meter_id = i.meter_id AND o.kind = 'interval' AND coalesce(x.billed, o.billed)) AS intervals_billed
    FROM bills AS b JOIN ref.installations AS i USING (service_point_id) JOIN ref.channels AS c ON c.meter_id = i.meter_id AND c.kind = 'register'
    LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from < b.past_day
        AND (w.valid_to IS NULL OR w.valid_to >= b.past_day)
    WHERE i.installed_at < b.closes AND (i.removed_at IS NULL OR i.removed_at > b.opens))
SELECT m.statement_id, m.service_point_id, m.meter_id, m.channel, m.unit, m.multiplier::text AS multiplier, m.decimals, m.flow, m.intervals_billed,
    m.first_day, m.past_day, m.opens, m.closes, m.installed_at, m.install_read, m.removed_at, m.removal_read,
    p.read_at AS previous_at, p.value AS previous_value, p.quality AS previous_quality,
    n.read_at AS present_at, n.value AS present_value, n.quality AS present_quality
FROM meters AS m
LEFT JOIN LATERAL (SELECT r.read_at, r.value, r.quality FROM raw.register_read AS r WHERE r.meter_id = m.meter_id AND r.channel = m.channel
    AND r.billing_day >= m.first_day - {_OPENING_DAYS} AND r.billing_day < m.first_day AND r.read_at <= m.opens AND r.read_at >= m.installed_at
    AND (r.quality::integer & 65535) >> 13 NOT IN (4, 6) ORDER BY r.read_at DESC LIMIT 1) AS p ON true
LEFT JOIN LATERAL (SELECT r.read_at, r.value, r.quality FROM raw.register_read AS r WHERE r.meter_id = m.meter_id AND r.channel = m.channel
    AND r.billing_day >= m.first_day AND r.billing_day < m.past_day AND r.read_at <= m.closes AND (m.removed_at IS NULL OR r.read_at <= m.removed_at)
    AND (r.quality::integer & 65535) >> 13 NOT IN (4, 6) ORDER BY r.read_at DESC LIMIT 1) AS n ON true
ORDER BY 1, 2, m.installed_at, m.channel
"""

_EARLIER = """
SELECT t.statement_id, g.service_point_id, e.period_start, e.period_end, sum(g.segment_end - g.segment_start)::int AS days, min(l.unit) AS unit,
    sum((SELECT sum(x) FROM unnest(g.energy) AS x))::bigint AS quantity
FROM billing.statement AS t JOIN billing.statement AS e ON e.account_id = t.account_id AND e.period_end <= t.period_start
    AND e.period_start >= t.period_start - 400
JOIN billing.effective_segment AS g ON g.statement_id = e.statement_id
JOIN LATERAL (SELECT min(o.unit) AS unit FROM billing.statement_segment AS o WHERE o.statement_id = e.statement_id
    AND o.service_point_id = g.service_point_id) AS l ON true
WHERE t.statement_id = ANY(string_to_array($1, ',')) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3
"""

_PAST_USAGE = """
SELECT s.statement_id, w.which, d.service_point_id, d.unit, count(DISTINCT d.billing_day)::int AS days, sum(d.quantity_micro)::bigint AS quantity
FROM billing.statement AS s CROSS JOIN LATERAL (VALUES
        ('last_period', s.period_start - (s.period_end - s.period_start), s.period_start),
        ('last_year', (s.period_start - interval '1 year')::date, (s.period_end - interval '1 year')::date)) AS w (which, first_day, past_day)
    JOIN vee.daily_usage AS d ON d.billing_day >= w.first_day AND d.billing_day < w.past_day AND d.flow = 'import'
WHERE s.statement_id = ANY(string_to_array($1, ',')) AND d.quantity_micro IS NOT NULL
    AND d.service_point_id IN (SELECT g.service_point_id FROM billing.statement_segment AS g WHERE g.statement_id = s.statement_id)
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""

_POINTS = """
SELECT DISTINCT ON (p.service_point_id) p.service_point_id, p.commodity, p.premise_id FROM ref.service_points AS p
WHERE p.service_point_id = ANY(string_to_array($1, ',')) ORDER BY p.service_point_id, p.valid_from DESC
"""

_HEADS = """
SELECT statement_id, account_id, cycle_id, period_start, period_end, kind, currency, total::text AS total, issued_at FROM billing.statement
WHERE statement_id = ANY(string_to_array($1, ',')) ORDER BY statement_id
"""

_LINES = """
SELECT statement_id, line_no, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, name, component,
    quantity::text AS quantity, unit, amount::text AS amount FROM billing.statement_line WHERE statement_id = ANY(string_to_array($1, ','))
ORDER BY statement_id, line_no
"""

_SEGMENTS = """
SELECT statement_id, service_point_id, min(segment_start) AS first_day, max(segment_end) AS past_day, sum(days)::int AS days, min(unit) AS unit,
    sum((SELECT sum(x) FROM unnest(energy) AS x))::bigint AS quantity, sum(slots)::bigint AS slots, sum(estimated)::bigint AS estimated
FROM billing.statement_segment WHERE statement_id = ANY(string_to_array($1, ',')) GROUP BY 1, 2 ORDER BY 1, 2
"""

_DAYS = """
SELECT s.statement_id, d.service_point_id, d.billing_day, (SELECT sum(e) FROM unnest(d.energy) AS e)::bigint AS quantity, d.estimated > 0 AS estimated
FROM billing.statement AS s JOIN billing.statement_segment AS g USING (statement_id) JOIN billing.determinant_day AS d
    ON d.service_point_id = g.service_point_id AND d.billing_day >= g.segment_start AND d.billing_day < g.segment_end
WHERE s.statement_id = ANY(string_to_array($1, ',')) ORDER BY 1, 2, 3
"""

_IN_A_ROW = """
SELECT s.statement_id, e.service_point_id, e.in_a_row FROM billing.statement AS s JOIN billing.estimated_bill AS e USING (account_id, cycle_id, period_start)
WHERE e.shown AND s.statement_id = ANY(string_to_array($1, ',')) ORDER BY 1, 2
"""


def bill_rows(database: Database, statement_ids: Sequence[str], zone: str) -> dict[str, pl.DataFrame]:
    """Everything some bills show, by name: heads, lines, segments, days, reads, earlier, past, in_a_row, points.
    Quantities of segments, days and earlier bills in millionths of the tariff's unit; of ``past`` and of reads in
    millionths of the base unit. ``reads``: per meter of a service in the period, the last read at or before its first
    instant and the last one in it, instants UTC."""
    ids = ",".join(statement_ids)
    found = {
        "heads": database.read(_HEADS, [ids]),
        "lines": database.read(_LINES, [ids]),
        "segments": database.read(_SEGMENTS, [ids]),
        "days": database.read(_DAYS, [ids]),
        "reads": database.read(_READS, [ids, zone]),
        "earlier": database.read(_EARLIER, [ids]),
        "past": database.read(_PAST_USAGE, [ids]),
        "in_a_row": database.read(_IN_A_ROW, [ids]),
    }
    points = ",".join(found["segments"]["service_point_id"].unique().sort().to_list())
    return found | {"points": database.read(_POINTS, [points])}


def statements_of(database: Database, cycle_id: str, period_end: object) -> list[str]:
    """Identifiers of the statements of a cycle's period, in order."""
    found = database.read(
        "SELECT statement_id FROM billing.statement WHERE cycle_id = $1 AND period_end = $2 ORDER BY 1",
        [cycle_id, period_end],
    )
    return [str(name) for name in found["statement_id"].to_list()]
