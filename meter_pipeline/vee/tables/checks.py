"""SQL for a validated day's checks, which read the stored tables: nothing here is taken from the values the stage has
in hand.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import itemgetter
from typing import Any, Final

import psycopg

from meter_pipeline.tolerances import RegisterTolerance

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Channel-days read back from the store. ``rows``: how many; ``slots``: values found in their vectors; ``absent``:
    interval channels that reference data has at a service point on the day and the day does not; ``miscounted``: rows
    whose stored values are not as many as they count actual and estimated, or not the rest of their slots missing. Both
    name the first five; ``services``: by service point, what is wrong, all of them.
    """

    rows: int
    slots: int
    absent: list[str]
    miscounted: list[str]
    services: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoredDay(StoredRows):
    """With the registers. ``tested``: rows beside a register; ``missed``: those that miss it; ``unlisted``: those of
    them that are no exception, the first five."""

    tested: int
    missed: int
    unlisted: list[str]


# The filter counts the values of each row. PostgreSQL computes an expression again for each place that names it, 0.05 s
# for 100,000 rows. Without a subquery it can use parallel workers.
_VALUES = """
SELECT count(*), coalesce(sum(actual + estimated), 0)::bigint,
    coalesce(array_agg(ARRAY[service_point_id, meter_id || ' ' || channel, {held}::text, (actual + estimated)::text])
        FILTER (WHERE {held} IS DISTINCT FROM actual + estimated OR expected <> actual + estimated + missing), '{}')
FROM vee.interval_day WHERE billing_day = %(day)s AND {among}
""".replace(
    "{held}",
    "CASE WHEN values IS NULL THEN cardinality(wide_values) - cardinality(array_positions(wide_values, -9223372036854775808)) "
    "WHEN -2147483648 = ANY(values) THEN cardinality(values) - cardinality(array_positions(values, -2147483648)) "
    "ELSE cardinality(values) END",
)
# Channels without a row come first: they are few, and only theirs is looked for among a city's installations.
_ABSENT = """
WITH silent AS MATERIALIZED (SELECT c.meter_id, c.channel FROM ref.channels AS c
    WHERE {meters} AND c.kind = 'interval' AND c.interval_minutes IS NOT NULL
        AND NOT EXISTS (SELECT FROM vee.interval_day AS v WHERE v.billing_day = %(day)s AND v.meter_id = c.meter_id AND v.channel = c.channel))
SELECT DISTINCT s.meter_id || ' ' || s.channel, i.service_point_id FROM silent AS s JOIN ref.installations AS i USING (meter_id)
WHERE {among} AND i.installed_at < %(past)s AND (i.removed_at IS NULL OR i.removed_at > %(start)s) AND i.service_point_id <> ALL(%(aside)s)
    AND EXISTS (SELECT FROM ref.service_points AS p WHERE p.service_point_id = i.service_point_id AND p.valid_from <= %(day)s
        AND (p.valid_to IS NULL OR p.valid_to > %(day)s))
"""


def stored_rows(
    connection: Connection,
    day: date,
    bounds: tuple[datetime, datetime],
    aside: Collection[str] = (),
    points: Sequence[str] | None = None,
) -> StoredRows:
    """Read a day's channel-days back (of some service points, where they are given), in the transaction that wrote
    them. ``bounds``: the day's begin and end; ``aside``: service points whose day could not be worked out, which wait
    under that reason.
    """
    at = {
        "day": day,
        "start": bounds[0],
        "past": bounds[1],
        "aside": list(aside),
        "points": None if points is None else list(points),
    }
    values = _VALUES.replace("{among}", _among(points, "service_point_id"))
    meters = f"c.meter_id IN (SELECT meter_id FROM ref.installations WHERE {_among(points, 'service_point_id')})"
    lacking = _ABSENT.replace("{among}", _among(points, "i.service_point_id")).replace(
        "{meters}", "true" if points is None else meters
    )
    # The planner's cost counts pages and not the work on their vectors, so by default it starts no parallel workers.
    if points is None:
        connection.execute("SET LOCAL parallel_setup_cost = 0")
    # Sorted here: sorting in the server's aggregate sorts every row of the day, 0.2 s of 100,000, for the few it keeps.
    rows, counted, found = connection.execute(values.encode(), at).fetchone() or (0, 0, [])
    wrong = sorted(((point, channel) for point, channel, _, _ in found), key=itemgetter(1))
    # A row that is not in ``found`` has as many values as it counts; the others are corrected by their difference.
    slots = counted + sum(int(stored or 0) - int(recorded) for _, _, stored, recorded in found)
    absent = sorted(connection.execute(lacking.encode(), at).fetchall())
    if points is None:
        connection.execute("RESET parallel_setup_cost")
    services = {point: f"the stored values of {channel} are not as many as the row counts" for point, channel in wrong}
    services |= {point: f"{channel} has no validated day" for channel, point in absent}
    return StoredRows(
        int(rows), int(slots), [channel for channel, _ in absent][:5], [channel for _, channel in wrong][:5], services
    )


def _among(points: Sequence[str] | None, column: str) -> str:
    return "true" if points is None else f"{column} = ANY(%(points)s)"


def _beside_register(connection: Connection, day: date, points: Sequence[str]) -> bool:
    """Whether any validated row of some service points on a day stands beside a register. What compares them looks
    through the reads of months: 40 ms to plan among 400 days of partitions, for rows that most meters do not have."""
    found = connection.execute(
        "SELECT FROM vee.interval_day WHERE billing_day = %s AND service_point_id = ANY(%s) AND register_difference_micro IS NOT NULL LIMIT 1",
        (day, list(points)),
    )
    return found.rowcount > 0


#: Rows whose first and last interval reach over midnight, and what of their register those two may account for: where
#: clocks change by half an hour, an hourly meter's day and its register's are half an hour apart.
_DAY_EDGE: Final = "'DAY_EDGE' = ANY (SELECT upper(code) FROM unnest(vee.row_rules(v.row_flags)) AS code)"
_CUT: Final = "2 * (SELECT max(abs(x)) FROM unnest(coalesce(v.values::bigint[], v.wide_values)) AS x WHERE x > -2147483648) * 10 ^ (6 - v.scale)"


def stored_day(
    connection: Connection,
    day: date,
    bounds: tuple[datetime, datetime],
    rows: StoredRows,
    tolerance: RegisterTolerance,
    points: Sequence[str] | None = None,
) -> StoredDay:
    """The registers of a validated day beside its ``rows``. ``bounds``: the day's begin and end."""
    at = {"day": day, "start": bounds[0], "past": bounds[1], "points": None if points is None else list(points)}
    allowed = tolerance.sql("d.multiplier", "d.decimals", "v.expected")
    over = "abs(v.total_micro - v.register_difference_micro)"
    if points is not None and not _beside_register(connection, day, points):
        return StoredDay(rows.rows, rows.slots, rows.absent, rows.miscounted, rows.services, 0, 0, [])
    mine = (
        ""
        if points is None
        else " AND c.meter_id = ANY(ARRAY(SELECT meter_id FROM vee.interval_day WHERE billing_day = %(day)s AND service_point_id = ANY(%(points)s)))"
    )
    tested, missed, unlisted = connection.execute(
        f"""
        WITH d AS MATERIALIZED (SELECT c.meter_id, nullif(coalesce(w.sums_to, c.sums_to), '-') AS channel,
                max(coalesce(w.multiplier, c.multiplier)) AS multiplier,
                min(coalesce(w.decimals, c.decimals)) AS decimals FROM ref.channels AS c
            LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from <= %(day)s
                AND (w.valid_to IS NULL OR w.valid_to > %(day)s)
            WHERE nullif(coalesce(w.sums_to, c.sums_to), '-') IS NOT NULL{mine} GROUP BY 1, 2),
        off AS (SELECT v.service_point_id, v.meter_id, v.channel, {over} > {allowed}
            AND {over} > {allowed} * {tolerance.days_sql("v.meter_id")}
            AND NOT ({_DAY_EDGE} AND {over} <= {allowed} + {_CUT}) AS missed
            FROM vee.interval_day AS v LEFT JOIN d USING (meter_id, channel)
            WHERE v.billing_day = %(day)s AND {_among(points, "v.service_point_id")} AND v.register_difference_micro IS NOT NULL)
        SELECT count(*), count(*) FILTER (WHERE missed), coalesce((array_agg(meter_id || ' ' || channel ORDER BY meter_id, channel)
            FILTER (WHERE missed AND NOT EXISTS (SELECT FROM vee.exception AS e WHERE e.billing_day = %(day)s
                AND e.service_point_id = off.service_point_id AND e.meter_id = off.meter_id AND e.channel = off.channel
                AND e.kind IN ('SUM_CHECK', 'INFEASIBLE', 'TOU_SUM', 'NOT_ESTIMATED', 'SET_ASIDE'))))[1:5], '{{}}') FROM off
        """.encode(),
        at,
    ).fetchone() or (0, 0, [])
    return StoredDay(
        rows.rows,
        rows.slots,
        rows.absent,
        rows.miscounted,
        rows.services,
        int(tested),
        int(missed),
        list(unlisted),
    )
