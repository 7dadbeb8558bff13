"""What billing reads of a day's usage: validated intervals, days' totals, dials, and whose usage is not known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.billing.day_groups import DIALS_SCHEMA
from meter_pipeline.billing.demand_dials import CLOSING_DAYS, DEMAND_SCHEMA
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import remembered, remembers
from meter_pipeline.postgres.vectors import VectorTable, read_matrices
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.sharding import EVERYTHING, KeyRange, KeySet

USAGE: Final = VectorTable(
    "vee.interval_day",
    ("service_point_id", "meter_id", "channel"),
    ("unit", "flow"),
    ("sequence", "sequence_step", "sequences", "offsets"),
)
#: Quality code of a day that is a share of the register's stretch between two reads (AEMO S17)
_SHARED: Final = quality.pack("S", 17, 85)

#: flows of channels that are billed
BILLED_FLOWS: Final = "('import', 'export', 'net')"


def read_usage(database: Database, day: date, within: KeyRange | KeySet = EVERYTHING) -> list[DayMatrix]:
    """Validated billed intervals of a day, imports and exports, of a range of service points. A net channel is an
    import where its intervals are positive and an export where they are negative (split_net)."""
    narrowed, limits = within.where("service_point_id", 2)
    found = read_matrices(database, USAGE, day, f" AND billed AND flow IN {BILLED_FLOWS}{narrowed}", limits)
    return [split_net(matrix) for matrix in found]


def _named(points: Sequence[str]) -> str:
    return ",".join(sorted(points))


def read_usage_of(database: Database, day: date, points: Sequence[str]) -> list[DayMatrix]:
    """As read_usage, of some service points."""
    chosen = f" AND billed AND flow IN {BILLED_FLOWS} AND service_point_id = ANY(string_to_array($2, ','))"
    return [split_net(matrix) for matrix in read_matrices(database, USAGE, day, chosen, [_named(points)])]


def read_reactive(database: Database, day: date, points: Sequence[str]) -> list[DayMatrix]:
    """Validated intervals of reactive energy of some service points, whether or not their channels are marked as
    billed.
    """
    chosen = " AND unit = 'kVArh' AND service_point_id = ANY(string_to_array($2, ','))"
    return read_matrices(database, USAGE, day, chosen, [_named(points)])


def split_net(matrix: DayMatrix) -> DayMatrix:
    """A day in which each net row (import less export in each interval) is an import of its positive intervals and,
    where it has negative ones, an export of those: what each is worth is the tariff's to say."""
    net = np.flatnonzero((matrix.keys["flow"] == "net").to_numpy())
    if not net.size:
        return matrix
    values = matrix.values[net]
    there = values != NO_VALUE
    sends = np.flatnonzero((there & (values < 0)).any(axis=1))
    used = matrix.values.copy()
    used[net] = np.where(there, np.maximum(values, 0), NO_VALUE)
    sent = np.where(there, np.maximum(-values, 0), NO_VALUE)[sends]
    rows = net[sends]
    exports = matrix.keys[rows.tolist()].with_columns(flow=pl.lit("export"))
    keys = pl.concat([matrix.keys.with_columns(pl.col("flow").replace("net", "import")), exports])
    return DayMatrix(
        matrix.billing_day,
        matrix.interval_minutes,
        keys,
        np.concatenate([used, sent]),
        np.concatenate([matrix.quality, matrix.quality[rows]]),
        np.concatenate([matrix.sequence, matrix.sequence[rows]]),
        None if matrix.offsets is None else np.concatenate([matrix.offsets, matrix.offsets[rows]]),
    )


def read_daily(database: Database, day: date, within: KeyRange | KeySet = EVERYTHING) -> pl.DataFrame:
    """What registers alone make of a day, by service point, flow and unit; quantities in millionths.

    A day's share of the stretch between two reads is counted, not estimated: only time that no read closes is.
    """
    narrowed, limits = within.where("service_point_id", 2)
    return _daily(database, day, narrowed, limits)


def read_daily_of(database: Database, day: date, points: Sequence[str]) -> pl.DataFrame:
    """As read_daily, of some service points."""
    return _daily(database, day, " AND service_point_id = ANY(string_to_array($2, ','))", [_named(points)])


def _daily(database: Database, day: date, narrowed: str, limits: Sequence[object]) -> pl.DataFrame:
    found = database.read(
        "SELECT service_point_id, flow, unit, CASE source WHEN 'mixed' THEN register_micro ELSE quantity_micro END AS quantity, "
        f"estimated > 0 AND (quality::integer & 65535) <> {_SHARED} AS estimated FROM vee.daily_usage "
        f"WHERE billing_day = $1 AND source <> 'interval' AND flow IN {BILLED_FLOWS} AND quantity_micro IS NOT NULL"
        f"{narrowed} ORDER BY 1, 2, 3",
        [day, *limits],
    )
    net = pl.col("flow") == "net"
    sent = net & (pl.col("quantity") < 0)
    return found.with_columns(
        flow=pl.when(sent).then(pl.lit("export")).when(net).then(pl.lit("import")).otherwise("flow"),
        quantity=pl.when(sent).then(-pl.col("quantity")).otherwise("quantity"),
    )


def read_dials(database: Database, day: date, within: KeyRange | KeySet = EVERYTHING) -> pl.DataFrame:
    """What time-of-use registers of services without intervals counted on a day, with the hours they count on such a
    day (DIALS_SCHEMA). A register that counts no hour of the day has no row; rest days are weekends and holidays."""
    if remembers(database) and not remembered(database, "SELECT head_end FROM ref.register_hours LIMIT 1").height:
        return DIALS_SCHEMA.to_frame()
    narrowed, limits = within.where("r.service_point_id", 2)
    return database.read(
        "SELECT r.service_point_id, r.meter_id, r.channel, r.unit, r.usage_micro AS quantity, h.from_minute, h.to_minute "
        "FROM ref.register_hours AS h JOIN (SELECT m.meter_id, coalesce(w.head_end, m.head_end) AS head_end FROM ref.meters AS m "
        "LEFT JOIN ref.meter_values AS w ON w.meter_id = m.meter_id AND w.valid_from <= $1 AND (w.valid_to IS NULL OR w.valid_to > $1)) AS m "
        "ON m.head_end = h.head_end "
        "JOIN vee.register_day AS r ON r.meter_id = m.meter_id AND r.channel = h.channel "
        "WHERE r.billing_day = $1 AND r.usage_micro IS NOT NULL AND h.days IN ('all', CASE WHEN extract(isodow FROM $1::date) > 5 "
        "OR EXISTS (SELECT FROM ref.holidays WHERE holiday = $1::date) THEN 'restday' ELSE 'workday' END)"
        f"{narrowed} ORDER BY 1, 2, 3, 6",
        [day, *limits],
    )


def read_demand(
    database: Database, calendar: BillingCalendar, day: date, within: KeyRange | KeySet = EVERYTHING
) -> pl.DataFrame:
    """Demand dials at service points on a day, with what was read for it and the hours they count on such a day
    (demand_dials.DEMAND_SCHEMA).

    A read counts on the last billing day that ended by its time.
    """
    narrowed, limits = within.where("i.service_point_id", 7)
    past, following = calendar.bounds(day)[1], calendar.bounds(day + timedelta(days=1))[1]
    opened = calendar.bounds(day - timedelta(days=CLOSING_DAYS))[1]
    return database.read(
        "SELECT i.service_point_id, c.meter_id, c.channel, max(r.value * coalesce(w.multiplier, c.multiplier)) FILTER (WHERE r.read_at >= $2)::bigint AS demand, "
        "max((r.read_at AT TIME ZONE $6)::date - 1) FILTER (WHERE r.read_at < $2) AS last_day, h.from_minute, h.to_minute "
        "FROM ref.channels AS c JOIN ref.meters AS m USING (meter_id) JOIN ref.installations AS i USING (meter_id) "
        "LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from <= $1 "
        "AND (w.valid_to IS NULL OR w.valid_to > $1) "
        "LEFT JOIN ref.meter_values AS x ON x.meter_id = m.meter_id AND x.valid_from <= $1 AND (x.valid_to IS NULL OR x.valid_to > $1) "
        "LEFT JOIN raw.register_read AS r ON r.meter_id = c.meter_id AND r.channel = c.channel AND r.read_at >= $4 AND r.read_at < $3 "
        "AND r.billing_day >= $1::date - 6 AND r.billing_day <= $1::date + 1 AND r.read_at > i.installed_at "
        "LEFT JOIN ref.register_hours AS h ON h.head_end = coalesce(x.head_end, m.head_end) AND h.channel = c.channel AND h.days IN ('all', "
        "CASE WHEN extract(isodow FROM $1::date) > 5 OR EXISTS (SELECT FROM ref.holidays WHERE holiday = $1::date) THEN 'restday' ELSE 'workday' END) "
        "WHERE c.kind = 'register' AND c.unit = 'kW' AND i.installed_at < $2 AND (i.removed_at IS NULL OR i.removed_at >= $5)"
        f"{narrowed} GROUP BY 1, 2, 3, 6, 7 ORDER BY 1, 2, 3, 6",
        [day, past, following, opened, calendar.bounds(day)[0], calendar.zone, *limits],
    ).cast(DEMAND_SCHEMA)


def silent_points(database: Database, day: date, points: Sequence[str]) -> list[str]:
    """Those of some service points of whose day some or all values are missing."""
    found = database.read(
        "SELECT p AS point FROM unnest(string_to_array($2, ',')) AS p WHERE NOT EXISTS (SELECT FROM vee.daily_usage AS u WHERE u.billing_day = $1 "
        f"AND u.service_point_id = p AND u.flow IN {BILLED_FLOWS}) OR EXISTS (SELECT FROM vee.daily_usage AS u WHERE u.billing_day = $1 "
        f"AND u.service_point_id = p AND u.flow IN {BILLED_FLOWS} AND (u.missing > 0 OR u.quantity_micro IS NULL)) ORDER BY 1",
        [day, _named(points)],
    )
    return [str(point) for point in found["point"].to_list()]


#: Rules by which validation says that a day, or some of it, has no value; the utility's policy says what follows
TOLD_MISSING: Final = "('NOT_ESTIMATED', 'NO_DATA', 'NEVER_READ')"


def missing_usage(database: Database, day: date, service_points: Sequence[str] | None = None) -> pl.DataFrame:
    """Services (of some, where they are given) whose validated day has no value in some or all of its intervals and of
    which validation says nothing: service_point_id, missing, expected. What it found is billed, estimated or held by
    the utility's policy."""
    among = "" if service_points is None else " AND service_point_id = ANY(string_to_array($2, ','))"
    return database.read(
        "SELECT service_point_id, sum(missing)::bigint AS missing, sum(slots_expected)::bigint AS expected FROM vee.daily_usage AS u "
        f"WHERE billing_day = $1 AND flow IN {BILLED_FLOWS} AND (missing > 0 OR quantity_micro IS NULL) AND NOT EXISTS "
        "(SELECT FROM vee.exception AS e WHERE e.billing_day = u.billing_day AND e.service_point_id = u.service_point_id "
        f"AND e.kind IN {TOLD_MISSING}){among} GROUP BY 1 ORDER BY 1",
        [day] if service_points is None else [day, ",".join(service_points)],
    )


def metered_points(
    database: Database, service_points: Sequence[str], day: date, bounds: tuple[datetime, datetime]
) -> list[str]:
    """Those of some service points at which a meter with a billed channel stands on a day (``bounds``: its instants),
    and of whose missing values validation says nothing: what it found is the policy's to hold."""
    found = database.read(
        "SELECT DISTINCT i.service_point_id FROM ref.installations AS i JOIN ref.channels AS c USING (meter_id) "
        "LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel AND w.valid_from <= $4 "
        "AND (w.valid_to IS NULL OR w.valid_to > $4) WHERE coalesce(w.billed, c.billed) "
        f"AND coalesce(w.flow, c.flow) IN {BILLED_FLOWS} AND i.installed_at < $3 AND (i.removed_at IS NULL OR i.removed_at > $2) "
        f"AND i.service_point_id = ANY(string_to_array($1, ',')) AND NOT EXISTS (SELECT FROM vee.exception AS e WHERE e.billing_day = $4 "
        f"AND e.service_point_id = i.service_point_id AND e.kind IN {TOLD_MISSING}) ORDER BY 1",
        [",".join(service_points), *bounds, day],
    )
    return [str(point) for point in found["service_point_id"].to_list()]


def idle_points(database: Database, service_points: Sequence[str], day: date) -> list[str]:
    """Those of some service points that are inactive or disconnected on a day."""
    found = database.read(
        "SELECT DISTINCT service_point_id FROM ref.service_points WHERE status <> 'active' AND valid_from <= $2 "
        "AND (valid_to IS NULL OR valid_to > $2) AND service_point_id = ANY(string_to_array($1, ',')) ORDER BY 1",
        [",".join(service_points), day],
    )
    return [str(point) for point in found["service_point_id"].to_list()]
