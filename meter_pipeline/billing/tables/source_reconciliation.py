"""SQL that reconciles the stages before billing on a day: files with reads, reads with validated days, intervals with
registers.

Rows are (subject, unit, cause, expected, actual, items, detail); quantities in millionths, counts unscaled. The subject
of an open cause is its service point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import psycopg

from meter_pipeline.tolerances import RegisterTolerance

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


def files(connection: Connection, day: date) -> list[Row]:
    """Returns per file that touches the day: the reads that landing received, and the reads that the committed
    batches and the file's own repetitions account for."""
    return _rows(
        connection,
        """
        SELECT encode(d.sha256, 'hex'), 'reads',
            CASE WHEN d.loaded_at IS NULL THEN 'not_loaded' WHEN d.received = b.reads + d.duplicate_in_file + d.superseded_in_file THEN 'none' ELSE 'open' END,
            d.received, b.reads + d.duplicate_in_file + d.superseded_in_file, 1, f.file_name
        FROM raw.feed_file_day AS d JOIN raw.feed_file AS f USING (sha256)
        CROSS JOIN LATERAL (SELECT coalesce(sum(accepted + duplicate + superseded + rejected), 0) AS reads FROM raw.load_batch AS b
            WHERE b.sha256 = d.sha256 AND b.billing_day = d.billing_day) AS b
        WHERE d.billing_day = %(day)s ORDER BY 1
        """,
        day,
    )


def channel_days(connection: Connection, day: date, points: Sequence[str] | None = None) -> list[Row]:
    """Returns channel-days by whether the raw and validated tables have them, and the reason where a raw one was not
    validated. Those in both, nearly all, are only counted: to look up the possible reasons of each took 0.4 s of
    100,000 meters."""
    return _rows(connection, _channel_days(_on_the_day, points), day, points=points)


def channel_days_of(connection: Connection, days: Sequence[date], points: Sequence[str]) -> list[tuple[date, Row]]:
    """``channel_days`` of each of some days."""
    return _rows_of(connection, _channel_days(_on_each, points), days, points)


def _channel_days(on: Callable[[str], str], points: Sequence[str] | None) -> str:
    return f"""
        WITH sides AS MATERIALIZED (SELECT r.meter_id AS raw_meter, v.meter_id AS valid_meter, channel, starts_at, slots, interval_minutes
            FROM (SELECT meter_id, channel, starts_at, slots, interval_minutes FROM raw.interval_day WHERE {on("billing_day")}
                {_some(points, "AND meter_id IN (SELECT meter_id FROM ref.installations WHERE service_point_id = ANY(%(points)s))")}) AS r
            FULL JOIN (SELECT DISTINCT meter_id, channel FROM vee.interval_day WHERE {on("billing_day")}
                {_some(points, "AND service_point_id = ANY(%(points)s)")}) AS v USING (meter_id, channel)),
        found AS MATERIALIZED (SELECT raw_meter, valid_meter, stood.service_point_id, CASE
                WHEN valid_meter IS NOT NULL THEN 'wholly_estimated'
                WHEN NOT EXISTS (SELECT FROM ref.channels AS c WHERE c.meter_id = raw_meter AND c.channel = sides.channel) THEN 'unknown_channel'
                WHEN NOT EXISTS (SELECT FROM ref.installations AS i WHERE i.meter_id = raw_meter) THEN 'not_installed'
                WHEN EXISTS (SELECT FROM vee.exception AS e WHERE {on("e.billing_day")} AND e.meter_id = raw_meter) THEN 'validation_exception'
                WHEN stood.service_point_id IS NULL THEN 'not_installed'
                ELSE 'open' END AS cause
            FROM sides LEFT JOIN LATERAL (SELECT max(i.service_point_id) AS service_point_id FROM ref.installations AS i WHERE valid_meter IS NULL
                AND i.meter_id = raw_meter AND i.installed_at < starts_at + slots * interval_minutes * interval '1 minute'
                AND (i.removed_at IS NULL OR i.removed_at > starts_at)) AS stood ON true
            WHERE raw_meter IS NULL OR valid_meter IS NULL)
        SELECT * FROM (
            SELECT 'all' AS subject, 'channel-days', 'none' AS cause, count(*), count(*), count(*), ''
            FROM sides WHERE raw_meter IS NOT NULL AND valid_meter IS NOT NULL HAVING count(*) > 0
            UNION ALL
            SELECT {_subject("coalesce(service_point_id, raw_meter)")}, 'channel-days', cause, count(raw_meter), count(valid_meter), count(*), {_named("raw_meter")}
            FROM found GROUP BY 1, 3
        ) AS counted ORDER BY cause, subject
        """


def registers(
    connection: Connection,
    day: date,
    bounds: tuple[datetime, datetime],
    tolerance: RegisterTolerance,
    points: Sequence[str] | None = None,
) -> list[Row]:
    """Compares validated intervals with the register's own reads, by unit and cause, in the unit's millionths.

    Where raw.register_read has a read on both edges of the day and the dial did not decrease, the register's usage is
    their difference times the multiplier, from the dials themselves; otherwise it is the usage that validation computed
    from the reads around the day (rollover, exchange, proration). ``tolerance``: as in validation.

    Estimates explain a sum above the register, up to their own quantity. Any other difference is explained as far as a
    finding of validation (vee.exception) states it, and by name: null intervals explain a sum below the register, a
    failed sum check either. A difference of another size is open. ``bounds``: the day's instants.

    OFFSET 0 prevents the server from computing a row's cause again wherever the query names it.
    """
    if not _beside_register(connection, day, points):
        return []
    allowed = tolerance.sql("multiplier", "decimals", "slots")
    return _rows(
        connection,
        f"""
        WITH dials AS (
            SELECT c.meter_id, nullif(coalesce(w.sums_to, c.sums_to), '-') AS channel, count(*) AS registers, min(coalesce(w.decimals, c.decimals)) AS decimals,
                max(coalesce(w.multiplier, c.multiplier)) AS multiplier,
                sum(CASE WHEN e.value >= s.value THEN ((e.value - s.value) * coalesce(w.multiplier, c.multiplier))::bigint END) AS difference,
                count(*) FILTER (WHERE e.value >= s.value) AS whole
            FROM ref.channels AS c
            LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from <= %(day)s
                AND (w.valid_to IS NULL OR w.valid_to > %(day)s)
            LEFT JOIN raw.register_read AS e ON e.billing_day = %(day)s AND e.meter_id = c.meter_id AND e.channel = c.channel AND e.read_at = %(past)s
            LEFT JOIN raw.register_read AS s
                ON s.billing_day = %(prior_day)s AND s.meter_id = c.meter_id AND s.channel = c.channel AND s.read_at = %(start)s
            WHERE nullif(coalesce(w.sums_to, c.sums_to), '-') IS NOT NULL
                {_some(points, "AND c.meter_id = ANY(ARRAY(SELECT meter_id FROM vee.interval_day WHERE billing_day = %(day)s AND service_point_id = ANY(%(points)s)))")}
                AND NOT EXISTS (SELECT FROM vee.register_edit AS x WHERE x.meter_id = c.meter_id
                AND x.channel = c.channel AND x.billing_day IN (%(day)s, %(prior_day)s) AND x.withdrawn_at IS NULL AND (NOT x.proposed OR x.approved_at IS NOT NULL))
            GROUP BY 1, 2
        )
        SELECT {_subject("service_point_id", "source")} AS subject, unit, cause, sum(expected)::bigint, sum(actual)::bigint, count(*),
            {_named("meter_id")}
        FROM (
            SELECT service_point_id, meter_id, unit, source, expected, actual, CASE
                WHEN actual = expected THEN 'none'
                WHEN abs(actual - expected) <= {allowed} THEN 'within_tolerance'
                WHEN source <> 'dials' AND abs(actual - expected) <= {allowed} * {tolerance.days_sql("meter_id")}
                    THEN 'within_tolerance'
                WHEN 'DAY_EDGE' = ANY (SELECT upper(code) FROM unnest(vee.row_rules(row_flags)) AS code)
                    AND abs(actual - expected) <= {allowed} + 2 * (SELECT max(abs(x)) FROM unnest(largest) AS x WHERE x > -2147483648) * 10 ^ (6 - scale)
                    THEN 'day_edge'
                WHEN estimated > 0 AND actual > expected AND actual - expected <= {allowed} + (SELECT coalesce(sum(u.estimated_micro), 0)
                    FROM vee.daily_usage AS u WHERE u.billing_day = %(day)s AND u.service_point_id = sides.service_point_id
                    AND u.unit = sides.unit AND u.flow = sides.flow) THEN 'estimated'
                WHEN abs(actual - expected - stated) > {allowed} OR stated IS NULL THEN 'open'
                WHEN missing > 0 AND (actual < expected OR flow = 'net') THEN 'intervals_missing'
                ELSE 'sum_check_failed' END AS cause
            FROM (
                SELECT v.service_point_id, v.meter_id, v.unit, v.flow, v.missing, v.estimated, v.row_flags, v.scale,
                    coalesce(v.values::bigint[], v.wide_values) AS largest,
                    (SELECT max(said[1]::bigint - said[2]::bigint) FROM vee.exception AS e,
                        regexp_match(e.detail, '^intervals (-?[0-9]+) against register (-?[0-9]+) micro') AS said
                        WHERE e.billing_day = %(day)s AND e.kind IN ('SUM_CHECK', 'INFEASIBLE', 'MULTIPLIER')
                        AND (e.service_point_id, e.meter_id, e.channel) = (v.service_point_id, v.meter_id, v.channel)) AS stated,
                    v.expected AS slots, d.multiplier, d.decimals, v.total_micro AS actual,
                    CASE WHEN d.whole = d.registers AND d.registers = 1 AND v.expected = v.slots THEN 'dials' ELSE 'reads around the day' END AS source,
                    CASE WHEN d.whole = d.registers AND d.registers = 1 AND v.expected = v.slots THEN d.difference ELSE v.register_difference_micro END AS expected
                FROM vee.interval_day AS v LEFT JOIN dials AS d USING (meter_id, channel)
                WHERE v.billing_day = %(day)s AND v.billed AND v.register_difference_micro IS NOT NULL
                    {_some(points, "AND v.service_point_id = ANY(%(points)s)")}
                OFFSET 0
            ) AS sides OFFSET 0
        ) AS compared GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        day,
        start=bounds[0],
        past=bounds[1],
        points=points,
    )


def _beside_register(connection: Connection, day: date, points: Sequence[str] | None) -> bool:
    """Whether any validated row of a day (of some service points, where they are given) has a register: the
    comparison reads the register reads of months, which takes 20 ms to plan among 60 days of partitions."""
    among = _some(points, " AND service_point_id = ANY(%(points)s)")
    found = connection.execute(
        f"SELECT FROM vee.interval_day WHERE billing_day = %(day)s{among} AND billed AND register_difference_micro IS NOT NULL LIMIT 1".encode(),
        {"day": day, "points": None if points is None else list(points)},
    )
    return found.rowcount > 0


def days_beside_register(connection: Connection, days: Sequence[date], points: Sequence[str]) -> list[date]:
    """Returns those of some days on which a validated row of some service points has a register."""
    rows = connection.execute(
        "SELECT DISTINCT billing_day FROM vee.interval_day WHERE billing_day = ANY(%s) AND service_point_id = ANY(%s) AND billed "
        "AND register_difference_micro IS NOT NULL ORDER BY 1",
        (list(days), list(points)),
    ).fetchall()
    return [day for (day,) in rows]


def register_usage(connection: Connection, day: date, points: Sequence[str] | None = None) -> list[Row]:
    """Compares the usage of registers without intervals, from their reads, with the usage of their services, by
    unit, in millionths. Empty for days from before this was stored by register."""
    return _rows(connection, _register_usage(_on_the_day, points), day, points=points)


def register_usage_of(connection: Connection, days: Sequence[date], points: Sequence[str]) -> list[tuple[date, Row]]:
    """``register_usage`` of each of some days."""
    return _rows_of(connection, _register_usage(_on_each, points), days, points)


def _register_usage(on: Callable[[str], str], points: Sequence[str] | None) -> str:
    return f"""
        SELECT {_subject("service_point_id")} AS subject, unit, cause, sum(counted)::bigint, sum(held)::bigint, count(*), ''
        FROM (
            SELECT service_point_id, unit, coalesce(r.counted, 0) AS counted, coalesce(u.held, 0) AS held,
                CASE WHEN coalesce(r.put, 0) = coalesce(u.held, 0) AND coalesce(r.unlike, 0) = 0 THEN 'none' ELSE 'open' END AS cause
            FROM (
                SELECT service_point_id, unit, sum(usage_micro)::bigint AS put, sum(coalesce(quantity_micro, usage_micro))::bigint AS counted,
                    count(*) FILTER (WHERE usage_micro <> quantity_micro) AS unlike
                FROM vee.register_day WHERE {on("billing_day")} AND usage_micro IS NOT NULL
                    {_some(points, "AND service_point_id = ANY(%(points)s)")} GROUP BY 1, 2
            ) AS r FULL JOIN (
                SELECT service_point_id, unit, sum(CASE source WHEN 'mixed' THEN register_micro ELSE quantity_micro END)::bigint AS held
                FROM vee.daily_usage WHERE {on("billing_day")} AND source <> 'interval'
                    {_some(points, "AND service_point_id = ANY(%(points)s)")} GROUP BY 1, 2
            ) AS u USING (service_point_id, unit)
        ) AS compared
        WHERE EXISTS (SELECT FROM vee.register_day WHERE {on("billing_day")} AND usage_micro IS NOT NULL)
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """


def _on_the_day(column: str) -> str:
    """SQL of a condition on one day."""
    return f"{column} = %(day)s"


def _on_each(column: str) -> str:
    """SQL of a condition on each day of a join. The range lets the planner exclude partitions."""
    return f"{column} = d.day AND {column} BETWEEN %(first)s AND %(last)s"


def _rows_of(connection: Connection, query: str, days: Sequence[date], points: Sequence[str]) -> list[tuple[date, Row]]:
    """The rows of a query of each of some days, with the day."""
    values = {"days": list(days), "points": list(points), "first": min(days), "last": max(days)}
    found = connection.execute(
        f"SELECT d.day, q.* FROM unnest(%(days)s::date[]) AS d (day) CROSS JOIN LATERAL ({query}) AS q".encode(), values
    )
    return [(row[0], row[1:]) for row in found.fetchall()]


def _some(points: Sequence[str] | None, condition: str) -> str:
    """SQL of a condition on some service points; empty where all are meant."""
    return "" if points is None else condition


def _subject(service: str, everyone: str = "'all'") -> str:
    """SQL for a row's subject: the service point where the cause is open, otherwise all."""
    return f"CASE WHEN cause = 'open' THEN {service} ELSE {everyone} END"


def _named(meter: str) -> str:
    """SQL for the meters of an open cause."""
    return f"coalesce(string_agg(DISTINCT {meter}, ' ' ORDER BY {meter}) FILTER (WHERE cause = 'open'), '')"


def _rows(connection: Connection, query: str, day: date, **more: Any) -> list[Row]:
    points = more.pop("points", None)
    values = {
        "day": day,
        "prior_day": day - timedelta(days=1),
        "points": None if points is None else list(points),
        **more,
    }
    return connection.execute(query.encode(), values).fetchall()
