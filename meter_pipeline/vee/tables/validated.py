"""SQL of the validated store: bulk reads of VEE and the tables it writes.

Rows travel as day vectors (postgres/vectors.py). A first load goes into a fresh partition; a rerun classifies against
what is there and touches only rows whose content changed, each of which moves to vee.interval_day_version first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from functools import cache
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres import bring_to as bring
from meter_pipeline.postgres import few_rows
from meter_pipeline.postgres.copy_binary import copy_frame
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.postgres.reading import remembered, remembers
from meter_pipeline.postgres.vectors import VectorTable, copy_rows, read_frame
from meter_pipeline.quality import FLAGS

EXTRA: Final = (
    "unit",
    "flow",
    "head_end",
    "account_id",
    "tariff_id",
    "cycle_id",
    "billed",
    "total_micro",
    "register_difference_micro",
    "unscaled_micro",
    "row_flags",
    "version",
    "rules_version",
    "first_slot",
    "expected",
    "actual",
    "estimated",
    "missing",
    "locked",
    "input_hash",
    "content_hash",
    "notes",
    "flags",
)
INTERVAL_DAY: Final = VectorTable(
    "vee.interval_day",
    ("service_point_id", "meter_id", "channel"),
    EXTRA,
    ("sequence", "sequence_step", "sequences", "offsets"),
)
#: The same rows with no more than an estimate needs of an earlier day
INTERVAL_DAY_VALUES: Final = VectorTable("vee.interval_day", INTERVAL_DAY.keys, ("expected",), INTERVAL_DAY.leave_out)
DAILY_USAGE: Final = (
    "billing_day",
    "service_point_id",
    "flow",
    "unit",
    "quantity_micro",
    "estimated_micro",
    "row_flags",
    "slots_expected",
    "actual",
    "estimated",
    "missing",
    "meters",
    "quality",
    "exchange",
    "source",
    "register_micro",
    "commodity",
    "customer_class",
    "account_id",
    "tariff_id",
    "cycle_id",
)
REGISTER_DAY: Final = (
    "billing_day",
    "service_point_id",
    "meter_id",
    "channel",
    "unit",
    "quantity_micro",
    "usage_micro",
    "gap_seconds",
    "causes",
    "reads",
    "closed",
    "broken",
)
EXCEPTION: Final = (
    "billing_day",
    "kind",
    "service_point_id",
    "meter_id",
    "channel",
    "severity",
    "detail",
    "first_seen",
    "action",
)
GROUP_DAY: Final = (
    "billing_day",
    "head_end",
    "unit",
    "flow",
    "interval_minutes",
    "members",
    "profile",
    "shape",
    "shape_members",
    "shifted_hours",
)

#: Top bits of quality codes that wait for a register: forward estimates and nothing at all
FORWARD_CODES: Final = tuple(FLAGS.index(flag) << 13 for flag in "EM")
#: The same bits of codes that say there is no read (null and missing; 7 is no flag at all)
_NO_READ: Final = f"{FLAGS.index('N')}, {FLAGS.index('M')}, 7"
_PARTITIONED: Final = ("vee.interval_day", "vee.register_day", "vee.daily_usage")


def read_vectors(database: Database, table: VectorTable, day: date, meters: Sequence[str]) -> pl.DataFrame:
    """Day vectors of some meters on a day, from the raw or the validated store."""
    return read_frame(database, table, day, " AND meter_id = ANY(string_to_array($2, ','))", (",".join(meters),))


def read_arrived(database: Database, day: date, meters: Sequence[str] | None = None) -> pl.DataFrame:
    """The channels that raw holds of a day (of some meters): meter_id, channel, unit, interval_minutes, sorted by the
    first two."""
    query = "SELECT meter_id, channel, unit, interval_minutes FROM raw.interval_day WHERE billing_day = $1"
    if meters is None:
        return database.read(query, (day,)).sort("meter_id", "channel")
    narrowed = f"{query} AND meter_id = ANY(string_to_array($2, ','))"
    return database.read(narrowed, (day, ",".join(meters))).sort("meter_id", "channel")


#: Frame of a day of which nothing came
NOTHING_ARRIVED: Final = pl.DataFrame(
    schema={"meter_id": pl.String, "channel": pl.String, "unit": pl.String, "interval_minutes": pl.Int16}
)


def any_arrived(database: Database, day: date, meters: Sequence[str]) -> bool:
    """Whether intervals of some meters may have come for a day. A correction that is tried asks one time for all days:
    a register's days have none."""
    if not remembers(database):
        return True
    query = "SELECT DISTINCT billing_day FROM raw.interval_day WHERE meter_id = ANY(string_to_array($1, ','))"
    return day in remembered(database, query, (",".join(meters),))["billing_day"]


def _any_payload(database: Database, day: date, meters: Sequence[str]) -> bool:
    """Whether payloads of some meters may be kept of a day; asked one time for all days of a correction that is
    tried."""
    if not remembers(database):
        return True
    query = " UNION ".join(
        f"SELECT billing_day FROM raw.{table} WHERE meter_id = ANY(string_to_array($1, ','))"
        for table in ("interval_payload", "reused_sequence")
    )
    return day in remembered(database, query, (",".join(meters),))["billing_day"]


_NOTHING_REUSED: Final = pl.DataFrame(schema={"meter_id": pl.String, "channel": pl.String, "slots": pl.List(pl.Int64)})


def read_reused_sequences(database: Database, day: date, meters: Sequence[str] | None = None) -> pl.DataFrame:
    """Channels (of some meters) of which one sequence number came with two values: meter_id, channel, and the slots
    (0-based) it was used twice in, null where one file held both and only the channel is known.

    Payloads that fill different slots of the day are no repetition, nor are two that say the same. To find the few that
    contradict each other, values are counted first: as many as all payloads merged hold means that no slot came
    twice.
    """
    if meters is not None and not _any_payload(database, day, meters):
        return _NOTHING_REUSED
    among = "" if meters is None else " AND meter_id = ANY(string_to_array($2, ','))"
    found = database.read(
        "WITH several AS (SELECT meter_id, channel, source_version, sequence, sequence_step, "
        "sum(coalesce(cardinality(p.values) - cardinality(array_positions(p.values, -2147483648)), "
        "cardinality(p.wide_values) - cardinality(array_positions(p.wide_values, -9223372036854775808)))) AS held, max(p.slots) AS slots "
        f"FROM raw.interval_payload AS p WHERE billing_day = $1{among} GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1), "
        "crossing AS (SELECT s.* FROM several AS s LEFT JOIN raw.interval_day AS d ON d.billing_day = $1 AND d.meter_id = s.meter_id "
        "AND d.channel = s.channel WHERE d.meter_id IS NULL OR s.held > "
        "coalesce(cardinality(d.values) - cardinality(array_positions(d.values, -2147483648)), "
        "cardinality(d.wide_values) - cardinality(array_positions(d.wide_values, -9223372036854775808)))), "
        "told AS (SELECT p.meter_id, p.channel, p.source_version, v.slot, coalesce(p.sequences[v.slot], p.sequence + (v.slot - 1) * p.sequence_step) AS number, "
        "v.value * power(10::numeric, -p.scale) AS value FROM raw.interval_payload AS p JOIN crossing AS c USING (meter_id, channel, source_version, "
        "sequence, sequence_step) CROSS JOIN LATERAL unnest(coalesce(p.wide_values, p.values::bigint[])) WITH ORDINALITY AS v (value, slot) "
        "WHERE p.billing_day = $1 AND v.value NOT IN (-2147483648, -9223372036854775808)) "
        "SELECT meter_id, channel, array_to_string(array_agg(DISTINCT slot - 1 ORDER BY slot - 1), ',') AS slots FROM "
        "(SELECT meter_id, channel, slot FROM told GROUP BY meter_id, channel, source_version, slot, number HAVING count(DISTINCT value) > 1) AS twice "
        f"GROUP BY 1, 2 UNION ALL SELECT DISTINCT meter_id, channel, NULL::text FROM raw.reused_sequence WHERE billing_day = $1{among} ORDER BY 1, 2, 3",
        (day,) if meters is None else (day, ",".join(meters)),
    )
    if not found.height:
        return _NOTHING_REUSED
    slots = pl.col("slots").cast(pl.String)
    return (
        found.group_by("meter_id", "channel")
        .agg(pl.when(slots.is_not_null().all()).then(slots.first()).alias("slots"))
        .with_columns(slots.str.split(",").cast(pl.List(pl.Int64)).alias("slots"))
        .sort("meter_id", "channel")
    )


def several_meters(database: Database, first: date, last: date) -> list[str]:
    """Service points that had several meters on a day of a range, a day of an exchange included."""
    found = database.read(
        "SELECT DISTINCT service_point_id FROM vee.daily_usage WHERE billing_day BETWEEN $1 AND $2 AND meters > 1 ORDER BY 1",
        (first, last),
    )
    return [str(point) for point in found["service_point_id"].to_list()]


def read_meter_days(database: Database, first: date, last: date, points: Sequence[str]) -> pl.DataFrame:
    """What each interval channel of some service points was put at on the days of a range: service_point_id, meter_id,
    channel, flow, unit, billing_day, total_micro, and whether it was wholly actual. Days on which a meter stood there
    in part are left out."""
    return database.read(
        "SELECT service_point_id, meter_id, channel, flow, unit, billing_day, total_micro, estimated + missing = 0 AS whole FROM vee.interval_day "
        "WHERE billing_day BETWEEN $1 AND $2 AND service_point_id = ANY(string_to_array($3, ',')) AND expected = slots AND first_slot = 0 "
        "AND actual + estimated > 0 ORDER BY 1, 2, 3, 6",
        (first, last, ",".join(points)),
    )


def read_groups(database: Database, days: Sequence[date]) -> pl.DataFrame:
    """Load shapes of the head-ends on some days, days that were shifted left out."""
    return database.read(
        "SELECT billing_day, head_end, unit, flow, interval_minutes, shape, shape_members FROM vee.group_day "
        "WHERE shape_members > 0 AND shifted_hours = 0 AND billing_day = ANY(string_to_array($1, ',')::date[])",
        (",".join(d.isoformat() for d in days),),
    )


def validated_days(database: Database, first: date, last: date) -> list[date]:
    """Days in a range that have validated rows."""
    frame = database.read(
        "SELECT DISTINCT billing_day FROM vee.group_day WHERE billing_day BETWEEN $1 AND $2 ORDER BY 1", (first, last)
    )
    return frame["billing_day"].to_list()


def stored_rows(database: Database, day: date, points: Sequence[str] | None = None) -> pl.DataFrame:
    """Keys, hashes, versions and locks of a day's validated rows (of some service points)."""
    narrowed = "" if points is None else " AND service_point_id = ANY(string_to_array($2, ','))"
    return database.read(
        "SELECT service_point_id, meter_id, channel, version, locked, input_hash, content_hash FROM vee.interval_day "
        f"WHERE billing_day = $1{narrowed} ORDER BY service_point_id, meter_id, channel",
        (day,) if points is None else (day, ",".join(points)),
    )


def stored_usage(database: Database, day: date) -> pl.DataFrame:
    """A day's usage rows as stored, sorted by key."""
    frame = database.read(
        f"SELECT {', '.join(DAILY_USAGE)} FROM vee.daily_usage WHERE billing_day = $1 ORDER BY service_point_id, flow, unit",
        (day,),
    )
    return frame


def interval_sums(database: Database, day: date) -> pl.DataFrame:
    """Sum of the validated rows of each service point, flow and unit, which daily usage must equal."""
    return database.read(
        "SELECT service_point_id, flow, unit, sum(total_micro)::bigint AS interval_micro FROM vee.interval_day "
        "WHERE billing_day = $1 AND billed GROUP BY 1, 2, 3",
        (day,),
    )


def register_sums(database: Database, day: date) -> pl.DataFrame:
    """What the register-only meters of each service point and unit make of a day: service_point_id, unit,
    register_micro, and ``unlike``, how many of them were put at something else than the reads that enclose the day."""
    return database.read(
        "SELECT service_point_id, unit, sum(usage_micro)::bigint AS register_micro, "
        "count(*) FILTER (WHERE usage_micro <> quantity_micro) AS unlike "
        "FROM vee.register_day WHERE billing_day = $1 AND usage_micro IS NOT NULL GROUP BY 1, 2",
        (day,),
    )


def read_exceptions(database: Database, day: date, meter_id: str) -> pl.DataFrame:
    """Exceptions of a meter, or of the service points it has rows for, on a day."""
    return database.read(
        "SELECT kind, service_point_id, meter_id, channel, severity, detail, action FROM vee.exception WHERE billing_day = $1 AND (meter_id = $2 "
        "OR (meter_id = '' AND service_point_id IN (SELECT service_point_id FROM vee.interval_day WHERE billing_day = $1 AND meter_id = $2 "
        "UNION SELECT service_point_id FROM vee.register_day WHERE billing_day = $1 AND meter_id = $2))) ORDER BY kind, channel",
        (day, meter_id),
    )


def meter_usage(database: Database, day: date, meter_id: str) -> pl.DataFrame:
    """A day's usage of the service points a meter stands at."""
    return database.read(
        "SELECT service_point_id, flow, unit, quantity_micro, quality, source, meters, row_flags FROM vee.daily_usage WHERE billing_day = $1 "
        "AND service_point_id IN (SELECT service_point_id FROM vee.interval_day WHERE billing_day = $1 AND meter_id = $2 "
        "UNION SELECT service_point_id FROM vee.register_day WHERE billing_day = $1 AND meter_id = $2) ORDER BY 1, 2, 3",
        (day, meter_id),
    )


def open_day(connection: psycopg.Connection[Any], day: date) -> bool:
    """Make the day's partitions; True where this is the day's first load (they are attached by ``attach_day``)."""
    opened = ", ".join(f"raw.open_partition('{name}', %(day)s)" for name in _PARTITIONED)
    return bool(scalar(connection, f"SELECT {opened}", {"day": day}) != "attached")


def attach_day(connection: psycopg.Connection[Any], day: date) -> None:
    """Attach the day's partitions, keys built."""
    for name in _PARTITIONED:
        connection.execute(sql.SQL("SELECT raw.attach_partition({}, %s)").format(sql.Literal(name)), (day,))


def take_out(connection: psycopg.Connection[Any], day: date, rows: Sequence[tuple[str, str, str]]) -> None:
    """Delete rows (service_point_id, meter_id, channel) that this transaction wrote."""
    if rows:
        connection.execute(
            sql.SQL(
                "DELETE FROM {} AS d USING unnest(%s::text[], %s::text[], %s::text[]) AS r (service_point_id, meter_id, channel) "
                "WHERE d.service_point_id = r.service_point_id AND d.meter_id = r.meter_id AND d.channel = r.channel"
            ).format(sql.Identifier(*INTERVAL_DAY.partition(day).name.split("."))),
            tuple(list(column) for column in zip(*rows, strict=True)),
        )


def write_intervals(
    connection: psycopg.Connection[Any],
    day: date,
    frame: pl.DataFrame,
    withdrawn: pl.DataFrame,
    first_load: bool,
    *,
    now: datetime,
    actor: str,
    reasons: pl.DataFrame,
) -> None:
    """Write new and changed rows of vee.interval_day; earlier versions of changed and withdrawn rows are kept.

    ``frame``: vector frame of the rows to write with INTERVAL_DAY's columns. ``withdrawn``: keys of rows that are no
    more. ``reasons``: key columns and ``reason`` for changed and withdrawn rows, and ``by`` where a person and not
    ``actor`` replaced them.
    """
    if first_load:
        copy_rows(connection, INTERVAL_DAY.partition(day), frame)
        return
    if not frame.height and not withdrawn.height:
        return
    keys, values = INTERVAL_DAY.keys, dict[str, Any](now=now, actor=actor, day=day)
    named = reasons if "by" in reasons.columns else reasons.with_columns(by=pl.lit(None, pl.String))
    # A temporary table of each costs four statements and 3 ms, for the one row of a day of a correction.
    few = few_rows.fits(frame) and few_rows.fits(named)
    why, incoming = "vee_reason", "vee_incoming"
    if few:
        why = (
            "unnest(%(points)s::text[], %(meters)s::text[], %(channels)s::text[], %(reasons)s::text[], %(by)s::text[])"
        )
        columns = ("service_point_id", "meter_id", "channel", "reason", "by")
        names = ("points", "meters", "channels", "reasons", "by")
        values |= {name: named[column].to_list() for name, column in zip(names, columns, strict=True)}
        incoming, values["rows"] = _few_intervals(), few_rows.text(frame)
    else:
        _copy_reasons(connection, named)
    connection.execute("SELECT raw.open_partition('vee.interval_day', %s)", (day,))
    own = ", ".join(f'd."{c}"' for c in INTERVAL_DAY.columns)
    listed = ", ".join(f'"{c}"' for c in INTERVAL_DAY.columns)
    stated = f"{why} AS r (service_point_id, meter_id, channel, reason, by)"
    connection.execute(
        f"INSERT INTO vee.interval_day_version ({listed}, superseded_at, superseded_by, reason) "
        f"SELECT {own}, %(now)s, coalesce(r.by, %(actor)s), r.reason FROM vee.interval_day AS d JOIN {stated} USING (service_point_id, meter_id, channel) "
        "WHERE d.billing_day = %(day)s ON CONFLICT DO NOTHING".encode(),
        values,
    )
    if withdrawn.height:
        connection.execute(
            f"DELETE FROM vee.interval_day AS d USING {stated} WHERE d.billing_day = %(day)s AND d.service_point_id = r.service_point_id "
            "AND d.meter_id = r.meter_id AND d.channel = r.channel AND r.reason = 'withdrawn'".encode(),
            values,
        )
    if not few:
        connection.execute("CREATE TEMP TABLE vee_incoming (LIKE vee.interval_day INCLUDING DEFAULTS) ON COMMIT DROP")
        table = VectorTable("vee_incoming", INTERVAL_DAY.keys, INTERVAL_DAY.extra, INTERVAL_DAY.leave_out)
        copy_rows(connection, table, frame)
    if frame.height or not few:
        sets = ", ".join(f'"{c}" = excluded."{c}"' for c in INTERVAL_DAY.columns if c not in (*keys, "billing_day"))
        connection.execute(
            f"INSERT INTO vee.interval_day ({listed}) SELECT {listed} FROM {incoming} AS i "
            f"ON CONFLICT (billing_day, {', '.join(keys)}) DO UPDATE SET {sets}".encode(),
            values if few else None,
        )
    if not few:
        # a day of two interval lengths comes here twice in one transaction
        connection.execute("DROP TABLE vee_incoming, vee_reason")


@cache
def _few_intervals() -> str:
    return few_rows.relation(sql.Identifier("vee", "interval_day")).as_string(None)


def _copy_reasons(connection: psycopg.Connection[Any], reasons: pl.DataFrame) -> None:
    """Why rows are replaced or withdrawn, in the temporary table vee_reason."""
    connection.execute(
        "CREATE TEMP TABLE vee_reason (service_point_id text, meter_id text, channel text, reason text, by text) ON COMMIT DROP"
    )
    with connection.cursor() as cursor, cursor.copy("COPY vee_reason FROM STDIN") as copy:
        for row in reasons.select(*INTERVAL_DAY.keys, "reason", "by").iter_rows():
            copy.write_row(row)


def replace_rows(
    connection: psycopg.Connection[Any],
    table: str,
    day: date,
    frame: pl.DataFrame,
    columns: Sequence[str],
    key: Sequence[str],
    only: Sequence[str] | None = None,
) -> int:
    """Bring a day of a derived table to exactly ``frame``: changed rows upserted, vanished ones deleted, equal ones
    left untouched. ``only``: service points that the frame is of; rows of others stay.

    Returns the number of rows written or deleted.
    """
    rows = frame.select(columns) if frame.height else pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))
    values = {"day": day, "only": None if only is None else list(only)}
    return bring.bring_to(connection, table, rows, tuple(key), values, kept=("first_seen",)).rows


def first_rows(
    connection: psycopg.Connection[Any], table: str, day: date, frame: pl.DataFrame, columns: Sequence[str]
) -> None:
    """COPY a derived table's rows into the day's fresh partition."""
    space, name = table.split(".")
    copy_frame(connection, sql.Identifier(space, f"{name}_{day:%Y%m%d}"), frame, columns)


def write_rules(connection: psycopg.Connection[Any], rules: Sequence[tuple[str, int, str, str, str, str]]) -> None:
    """Publish the list of rules: scope, bit, code, severity, source, about. Unchanged rows are not rewritten."""
    columns = ([rule[k] for rule in rules] for k in range(6))
    names = ("scope", "bit", "code", "severity", "source", "about")
    connection.execute(
        "INSERT INTO vee.rule (scope, bit, code, severity, source, about) SELECT * FROM unnest(%(scope)s::text[], %(bit)s::smallint[], "
        "%(code)s::text[], %(severity)s::text[], %(source)s::text[], %(about)s::text[]) AS n (scope, bit, code, severity, source, about) "
        "WHERE NOT EXISTS (SELECT FROM vee.rule AS r WHERE (r.scope, r.bit, r.code, r.severity, r.source, r.about) = "
        "(n.scope, n.bit, n.code, n.severity, n.source, n.about)) "
        "ON CONFLICT (scope, bit) DO UPDATE SET code = excluded.code, severity = excluded.severity, source = excluded.source, about = excluded.about",
        dict(zip(names, columns, strict=True)),
    )


def read_version_history(database: Database, day: date, meter_id: str) -> pl.DataFrame:
    """Earlier versions of a meter's validated day: channel, version, total_micro, estimated, superseded_at,
    superseded_by, reason."""
    return database.read(
        "SELECT channel, version, total_micro, actual, estimated, missing, superseded_at, superseded_by, reason "
        "FROM vee.interval_day_version WHERE billing_day = $1 AND meter_id = $2 ORDER BY channel, version",
        (day, meter_id),
    )
