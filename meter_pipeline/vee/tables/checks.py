"""What the stored tables say of a validated day, for its checks: nothing here is taken from what the stage has
in hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg

from meter_pipeline.tolerances import RegisterTolerance

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class StoredDay:
    """Counts read back from the store. ``rows``: channel-days; ``absent``: interval channels that reference data has at
    a service point on the day and the day does not; ``miscounted``: rows whose stored values are not as many as they
    count actual and estimated, or not the rest of their slots missing; ``slots``: values found in the stored vectors.
    ``tested``: rows beside a register; ``missed``: those that miss it; ``unlisted``: those of them that are no
    exception. The lists name the first five.
    """

    rows: int
    slots: int
    absent: list[str]
    miscounted: list[str]
    tested: int
    missed: int
    unlisted: list[str]


_VALUES = """
SELECT count(*), coalesce(sum(held), 0)::bigint,
    coalesce((array_agg(meter_id || ' ' || channel ORDER BY meter_id, channel) FILTER (WHERE held <> actual + estimated
        OR expected <> actual + estimated + missing))[1:5], '{}')
FROM (SELECT meter_id, channel, actual, estimated, missing, expected,
    coalesce(cardinality(values) - cardinality(array_positions(values, -2147483648)),
        cardinality(wide_values) - cardinality(array_positions(wide_values, -9223372036854775808))) AS held
    FROM vee.interval_day WHERE billing_day = %(day)s AND {among}) AS v
"""
_ABSENT = """
SELECT coalesce((array_agg(DISTINCT i.meter_id || ' ' || c.channel ORDER BY i.meter_id || ' ' || c.channel))[1:5], '{}')
FROM ref.installations AS i JOIN ref.channels AS c USING (meter_id)
WHERE {among} AND c.kind = 'interval' AND c.interval_minutes IS NOT NULL AND i.installed_at < %(past)s AND (i.removed_at IS NULL OR i.removed_at > %(start)s)
    AND EXISTS (SELECT FROM ref.service_points AS p WHERE p.service_point_id = i.service_point_id AND p.valid_from <= %(day)s
        AND (p.valid_to IS NULL OR p.valid_to > %(day)s))
    AND NOT EXISTS (SELECT FROM vee.exception AS e WHERE e.billing_day = %(day)s AND e.kind = 'SET_ASIDE' AND e.service_point_id = i.service_point_id)
    AND NOT EXISTS (SELECT FROM vee.interval_day AS v WHERE v.billing_day = %(day)s AND v.meter_id = i.meter_id AND v.channel = c.channel)
"""


def stored_day(
    connection: Connection,
    day: date,
    start: datetime,
    past: datetime,
    tolerance: RegisterTolerance,
    points: Sequence[str] | None = None,
) -> StoredDay:
    """Read a validated day back (of some service points, where they are given), in the transaction that wrote it."""
    at = {"day": day, "start": start, "past": past, "points": None if points is None else list(points)}

    def among(column: str) -> str:
        return "true" if points is None else f"{column} = ANY(%(points)s)"

    values, lacking = (
        _VALUES.replace("{among}", among("service_point_id")),
        _ABSENT.replace("{among}", among("i.service_point_id")),
    )
    rows, slots, miscounted = connection.execute(values.encode(), at).fetchone() or (0, 0, [])
    absent: list[str] = (connection.execute(lacking.encode(), at).fetchone() or ([],))[0]
    allowed = tolerance.sql("d.multiplier", "d.decimals", "v.expected")
    over = "abs(v.total_micro - v.register_difference_micro)"
    mine = (
        ""
        if points is None
        else " AND c.meter_id = ANY(ARRAY(SELECT meter_id FROM vee.interval_day WHERE billing_day = %(day)s AND service_point_id = ANY(%(points)s)))"
    )
    tested, missed, unlisted = connection.execute(
        f"""
        WITH d AS MATERIALIZED (SELECT c.meter_id, c.sums_to AS channel, max(coalesce(w.multiplier, c.multiplier)) AS multiplier,
                min(coalesce(w.decimals, c.decimals)) AS decimals FROM ref.channels AS c
            LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from <= %(day)s
                AND (w.valid_to IS NULL OR w.valid_to > %(day)s)
            WHERE c.sums_to IS NOT NULL{mine} GROUP BY 1, 2),
        off AS (SELECT v.service_point_id, v.meter_id, v.channel, {over} > {allowed}
            AND {over} > {allowed} * {tolerance.days_sql("v.meter_id")} AS missed
            FROM vee.interval_day AS v LEFT JOIN d USING (meter_id, channel)
            WHERE v.billing_day = %(day)s AND {among("v.service_point_id")} AND v.register_difference_micro IS NOT NULL)
        SELECT count(*), count(*) FILTER (WHERE missed), coalesce((array_agg(meter_id || ' ' || channel ORDER BY meter_id, channel)
            FILTER (WHERE missed AND NOT EXISTS (SELECT FROM vee.exception AS e WHERE e.billing_day = %(day)s
                AND e.service_point_id = off.service_point_id AND e.meter_id = off.meter_id AND e.channel = off.channel
                AND e.kind IN ('SUM_CHECK', 'INFEASIBLE', 'TOU_SUM', 'NOT_ESTIMATED', 'SET_ASIDE'))))[1:5], '{{}}') FROM off
        """.encode(),
        at,
    ).fetchone() or (0, 0, [])
    return StoredDay(int(rows), int(slots), list(absent), list(miscounted), int(tested), int(missed), list(unlisted))
