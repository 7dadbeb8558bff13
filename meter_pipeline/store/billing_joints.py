"""Queries behind the reconciliation of a billing day: what the stages before billing hold, in the units in which they are compared.

Belongs here: SQL over raw, vee and billing. Does not belong here: which difference has which cause (billing/reconcile.py).
"""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.store.database import Database


def files(database: Database, day: date) -> pl.DataFrame:
    """Files that touch the day: reads received, and accepted + duplicate + superseded + rejected; null where it is not loaded yet."""
    return database.read(
        "SELECT encode(d.sha256, 'hex') AS subject, d.received, d.accepted + d.duplicate + d.superseded + d.rejected AS accounted, "
        "d.loaded_at IS NOT NULL AS loaded FROM raw.feed_file_day AS d WHERE d.billing_day = $1 ORDER BY 1",
        [day],
    )


def channel_days(database: Database, day: date) -> pl.DataFrame:
    """Channel-days by whether raw and validated hold them, and why a raw one was not validated."""
    return database.read(
        """
        SELECT CASE
            WHEN v.meter_id IS NOT NULL AND r.meter_id IS NOT NULL THEN 'none'
            WHEN v.meter_id IS NOT NULL THEN 'wholly_estimated'
            WHEN c.meter_id IS NULL THEN 'unknown_channel'
            WHEN NOT EXISTS (SELECT FROM ref.installations AS i WHERE i.meter_id = r.meter_id) THEN 'not_installed'
            WHEN EXISTS (SELECT FROM vee.exception AS e WHERE e.billing_day = $1 AND e.meter_id = r.meter_id) THEN 'validation_exception'
            WHEN NOT EXISTS (SELECT FROM ref.installations AS i WHERE i.meter_id = r.meter_id
                AND i.installed_at < r.starts_at + r.slots * r.interval_minutes * interval '1 minute'
                AND (i.removed_at IS NULL OR i.removed_at > r.starts_at)) THEN 'not_installed'
            ELSE 'open' END AS cause,
            count(*) FILTER (WHERE r.meter_id IS NOT NULL) AS expected, count(*) FILTER (WHERE v.meter_id IS NOT NULL) AS actual
        FROM (SELECT meter_id, channel, starts_at, slots, interval_minutes FROM raw.interval_day WHERE billing_day = $1) AS r
        FULL JOIN (SELECT DISTINCT meter_id, channel FROM vee.interval_day WHERE billing_day = $1) AS v USING (meter_id, channel)
        LEFT JOIN ref.channels AS c USING (meter_id, channel)
        GROUP BY 1 ORDER BY 1
        """,
        [day],
    )


def registers(database: Database, day: date) -> pl.DataFrame:
    """Intervals against registers by unit and cause. The tolerance is two register units times the multiplier (ERCOT TDSP practice: usage
    billed and interval total agree within two meter multipliers)."""
    return database.read(
        """
        SELECT unit, cause, sum(expected)::bigint AS expected, sum(actual)::bigint AS actual, count(*) AS items FROM (
            SELECT v.unit, v.register_difference_micro AS expected, v.total_micro AS actual, CASE
                WHEN v.total_micro = v.register_difference_micro THEN 'none'
                WHEN abs(v.total_micro - v.register_difference_micro) <= 2000000 * coalesce(c.multiplier, 1) / 10 ^ coalesce(c.decimals, 0)
                    THEN 'within_tolerance'
                WHEN v.missing > 0 THEN 'intervals_missing'
                WHEN v.estimated > 0 THEN 'estimated'
                WHEN 'SUM_CHECK' = ANY (SELECT upper(code) FROM unnest(vee.row_rules(v.row_flags)) AS code) THEN 'sum_check_failed'
                ELSE 'open' END AS cause
            FROM vee.interval_day AS v
            LEFT JOIN LATERAL (SELECT max(c.multiplier) AS multiplier, min(c.decimals) AS decimals FROM ref.channels AS c
                WHERE c.meter_id = v.meter_id AND c.sums_to = v.channel) AS c ON true
            WHERE v.billing_day = $1 AND v.billed AND v.register_difference_micro IS NOT NULL
        ) AS compared GROUP BY 1, 2 ORDER BY 1, 2
        """,
        [day],
    )


def replace(connection: psycopg.Connection[Any], day: date, frame: pl.DataFrame, joints: list[str], subject: str | None = None) -> int:
    """Bring the day's rows of the given joints (of one subject, where one is given) to exactly ``frame``; equal rows are left untouched.

    Returns rows written or deleted.
    """
    rows = [(r["joint"], r["subject"], r["unit"], r["cause"], r["expected"], r["actual"], r["items"], r["detail"]) for r in frame.to_dicts()]
    connection.execute(
        "CREATE TEMP TABLE incoming_joint (joint text, subject text, unit text, cause text, expected numeric, actual numeric, items bigint, "
        "detail text) ON COMMIT DROP"
    )
    with connection.cursor() as cursor, cursor.copy("COPY incoming_joint FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    gone = connection.execute(
        "DELETE FROM billing.reconciliation AS t WHERE billing_day = %s AND joint = ANY(%s) AND (%s::text IS NULL OR subject = %s) "
        "AND NOT EXISTS (SELECT FROM incoming_joint AS i "
        "WHERE (i.joint, i.subject, i.unit, i.cause) = (t.joint, t.subject, t.unit, t.cause))",
        (day, joints, subject, subject),
    ).rowcount
    changed = connection.execute(
        "INSERT INTO billing.reconciliation AS t (billing_day, joint, subject, unit, cause, expected, actual, items, detail) "
        "SELECT %s, joint, subject, unit, cause, expected, actual, items, detail FROM incoming_joint "
        "ON CONFLICT (billing_day, joint, subject, unit, cause) DO UPDATE SET expected = excluded.expected, actual = excluded.actual, "
        "items = excluded.items, detail = excluded.detail WHERE (t.expected, t.actual, t.items, t.detail) "
        "IS DISTINCT FROM (excluded.expected, excluded.actual, excluded.items, excluded.detail)",
        (day,),
    ).rowcount
    connection.execute("DROP TABLE incoming_joint")
    return gone + changed
