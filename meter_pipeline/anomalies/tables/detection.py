"""SQL of detection: statements on schema anomaly, and reads of vee and ref."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres.database import Read
from meter_pipeline.postgres.vectors import VECTOR, to_matrices

BASELINE: Final = (
    "hdd_balance_f",
    "cdd_balance_f",
    "intercept",
    "hdd_beta",
    "cdd_beta",
    "weekend",
    "holiday",
    "r2",
    "adj_r2",
    "sigma",
    "robust_sigma",
    "low_f",
    "high_f",
    "days",
    "hourly",
    "version",
    "service_point_id",
    "unit",
    "commodity",
    "station_id",
    "model",
    "status",
)
FLAG: Final = (
    "expected",
    "observed",
    "confidence",
    "billing_day",
    "kind",
    "service_point_id",
    "group_id",
    "commodity",
    "unit",
    "severity",
    "evidence",
    "baseline_version",
    "case_id",
)
_FACTS: Final = (
    "billing_day",
    "commodity",
    "unit",
    "points",
    "list_hash",
    "usage",
    "coverage",
    "signs",
    "export",
    "night",
    "sustained",
)

# --- what is read of the validated day and of reference data --------------------------------------


def read_usage(read: Read, day: date) -> pl.DataFrame:
    """Import and export rows of vee.daily_usage of a day, in no order."""
    return read(
        "SELECT service_point_id, commodity, unit, flow, quantity_micro, slots_expected, actual, source = 'register' AS register, "
        "row_flags & (1::bigint << (SELECT bit FROM vee.rule WHERE code = 'READ_OVERDUE')) <> 0 AS overdue "
        "FROM vee.daily_usage WHERE billing_day = $1 AND flow IN ('import', 'export')",
        [day],
    )


def read_past_days(read: Read, first: date, past: date) -> pl.DataFrame:
    """Daily totals that were billed before the first billing day (ref.past_usage, periods of one day) in [first, past):
    service_point_id, unit (as written), period_start, quantity."""
    return read(
        "SELECT service_point_id, unit, period_start, quantity::double precision AS quantity FROM ref.past_usage "
        "WHERE flow = 'import' AND period_end = period_start + 1 AND period_start >= $1 AND period_start < $2",
        [first, past],
    )


def read_points(read: Read, day: date, end: datetime) -> pl.DataFrame:
    """Service points in force on a day, in no order: service_point_id, station_id, route, customer_class, latitude,
    longitude, head_end, collector_id of the meter installed at ``end`` (the last one where there is none). Coordinates
    of points with a station are not read: 100,000 decimal numbers cost more than all other columns."""
    points = read(
        "SELECT service_point_id, station_id, route, customer_class, CASE WHEN station_id IS NULL THEN latitude::double precision END AS latitude, "
        "CASE WHEN station_id IS NULL THEN longitude::double precision END AS longitude "
        "FROM ref.service_points WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1)",
        [day],
    )
    # the last meter of each point is picked here: a look-up a point in the database costs three times as much
    stood = read(
        "SELECT i.service_point_id, i.installed_at, i.meter_id, coalesce(w.head_end, m.head_end) AS head_end, "
        "coalesce(w.collector_id, m.collector_id) AS collector_id FROM ref.installations AS i JOIN ref.meters AS m USING (meter_id) "
        "LEFT JOIN ref.meter_values AS w ON w.meter_id = m.meter_id AND w.valid_from <= $2 AND (w.valid_to IS NULL OR w.valid_to > $2) "
        "WHERE i.installed_at < $1",
        [end, day],
    )
    if stood["service_point_id"].n_unique() < stood.height:
        stood = stood.sort("service_point_id", "installed_at", "meter_id").unique(
            "service_point_id", keep="last", maintain_order=True
        )
    return points.join(stood.select("service_point_id", "head_end", "collector_id"), on="service_point_id", how="left")


def read_water_hours(read: Read, day: date) -> dict[str, tuple[pl.Series, npt.NDArray[np.float64]]]:
    """By unit: ids and (ids, hours) hourly flows in whole units of the water points whose every slot of the day was
    actually read.

    A point with two meters on the day, or with intervals longer than an hour, is left out. Shorter intervals are summed
    to the hour.
    """
    columns = [
        c
        for c in VECTOR
        if c not in ("starts_at", "sequence", "sequence_step", "sequences", "offsets", "quality", "qualities")
    ]
    frame = read(
        f"SELECT d.service_point_id, d.unit, d.{', d.'.join(columns)} FROM vee.interval_day AS d "
        "JOIN vee.daily_usage AS u USING (billing_day, service_point_id, flow, unit) "
        "WHERE d.billing_day = $1 AND d.flow = 'import' AND u.commodity = 'water' AND u.meters = 1 AND d.billed "
        "AND d.actual = d.slots AND d.interval_minutes <= 60 AND 60 % d.interval_minutes = 0",
        [day],
    )
    found: dict[str, tuple[pl.Series, npt.NDArray[np.float64]]] = {}
    for (unit,), part in frame.sort("unit", "service_point_id").group_by("unit", maintain_order=True):
        ids, hours = [], []
        for matrix in to_matrices(part.with_columns(pl.col("values").cast(pl.List(pl.Int32))), ["service_point_id"]):
            each = 60 // matrix.interval_minutes
            whole = (
                matrix.values[:, : matrix.slots - matrix.slots % each].reshape(matrix.rows, -1, each).sum(axis=2) / 1e6
            )
            ids.append(matrix.keys["service_point_id"])
            hours.append(whole)
        width = max(h.shape[1] for h in hours)
        padded = [np.pad(h, ((0, 0), (0, width - h.shape[1])), mode="edge") for h in hours]
        found[str(unit)] = (pl.concat(ids), np.concatenate(padded))
    return found


def read_water_dials(read: Read, day: date) -> pl.DataFrame:
    """Reads of the water dials that were read hour by hour on a day, one dial a service point, with the day's
    neighbours: service_point_id, unit, at (UTC seconds), value (micro units, the multiplier applied), sorted by the
    first and third.

    A dial that ran over, went back or was misread on the day is left out.
    """
    frame = read(
        "SELECT d.service_point_id, d.unit, extract(epoch FROM r.read_at)::bigint AS at, (r.value * d.multiplier)::bigint AS value "
        "FROM (SELECT min(g.service_point_id) AS service_point_id, g.meter_id, min(g.channel) AS channel, min(g.unit) AS unit, "
        "min(coalesce(w.multiplier, c.multiplier)) AS multiplier FROM vee.register_day AS g JOIN vee.daily_usage AS u USING (billing_day, service_point_id, unit) "
        "JOIN ref.channels AS c USING (meter_id, channel) LEFT JOIN ref.channel_values AS w ON w.meter_id = c.meter_id AND w.channel = c.channel "
        "AND w.valid_from <= $1 AND (w.valid_to IS NULL OR w.valid_to > $1) WHERE g.billing_day = $1 AND u.commodity = 'water' AND u.flow = 'import' "
        "AND u.source = 'register' AND u.meters = 1 AND g.reads >= 20 AND g.usage_micro IS NOT NULL AND g.causes & 124 = 0 "
        "GROUP BY g.meter_id HAVING count(*) = 1) AS d JOIN raw.register_read AS r USING (meter_id, channel) "
        "WHERE r.billing_day BETWEEN $1::date - 1 AND $1::date + 1 AND (r.quality::integer & 65535) >> 13 = 0",
        [day],
    )
    return frame.sort("service_point_id", "at")


def read_signs(read: Read, day: date) -> pl.DataFrame:
    """sign, service_point_id: 'reversed' where validation found a quarter of the day's slots or more below zero,
    'register_back' where a register went back unexplained, 'outage' where intervals carry AEMO reason 43, 'off' where
    the service was not active, 'payer' where another account pays than the day before."""
    return read(
        "SELECT 'reversed' AS sign, d.service_point_id FROM vee.interval_day AS d, vee.rule AS r "
        "WHERE d.billing_day = $1 AND d.flow = 'import' AND r.scope = 'interval' AND r.code = 'NEGATIVE' AND d.flags IS NOT NULL "
        "AND (SELECT count(*) FROM unnest(d.flags) AS f WHERE f & (1 << r.bit) <> 0) * 4 >= d.expected AND d.expected > 0 "
        "UNION ALL SELECT 'register_back', service_point_id FROM vee.register_day WHERE billing_day = $1 AND broken "
        "UNION ALL SELECT 'outage', service_point_id FROM vee.interval_day WHERE billing_day = $1 "
        "AND (quality & 127 = 44 OR 44 = ANY (SELECT q & 127 FROM unnest(qualities) AS q)) "
        "UNION ALL SELECT 'off', service_point_id FROM ref.service_points "
        "WHERE status <> 'active' AND valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1) "
        # only where an agreement begins can the payer change: two days of a city side by side cost more than all the
        # rest
        "UNION ALL SELECT 'payer', t.service_point_id FROM ref.agreements AS a JOIN vee.daily_usage AS t USING (service_point_id) "
        "JOIN vee.daily_usage AS y USING (service_point_id, flow, unit) WHERE a.valid_from = $1 AND t.billing_day = $1 AND y.billing_day = $2 "
        "AND t.flow = 'import' AND t.account_id IS NOT NULL AND y.account_id IS NOT NULL AND t.account_id <> y.account_id",
        [day, day - timedelta(days=1)],
    )


def validated_days(read: Read, first: date, last: date) -> list[date]:
    """Days in a range that have validated usage."""
    frame = read(
        # lateral, so that each day looks for one row in its own partition: EXISTS becomes a join that reads them all
        "SELECT d::date AS day FROM generate_series($1::date, $2::date, interval '1 day') AS d "
        "CROSS JOIN LATERAL (SELECT 1 FROM vee.daily_usage WHERE billing_day = d::date LIMIT 1) AS one ORDER BY 1",
        [first, last],
    )
    return frame["day"].to_list()


def last_validated_day(read: Read) -> date | None:
    """The newest day with validated usage."""
    frame = read("SELECT max(billing_day) AS day FROM vee.daily_usage")
    found: date | None = frame["day"][0]
    return found


def read_stations(read: Read) -> pl.DataFrame:
    """station_id, latitude, longitude of every weather station."""
    return read(
        "SELECT station_id, latitude::double precision AS latitude, longitude::double precision AS longitude "
        "FROM ref.weather_stations ORDER BY station_id"
    )


def read_temperatures(read: Read, first: date, last: date) -> pl.DataFrame:
    """station_id, weather_day, temperature_mean_c in a range."""
    return read(
        "SELECT station_id, weather_day, temperature_mean_c FROM anomaly.temperature WHERE weather_day BETWEEN $1 AND $2 ORDER BY 1, 2",
        [first, last],
    )


def read_weather_hours(read: Read, first: date, last: date) -> pl.DataFrame:
    """station_id, weather_day, hourly_c (a list, NaN where an hour is unknown) of the days in a range whose hours are
    kept."""
    return read(
        "SELECT station_id, weather_day, hourly_c FROM anomaly.weather_day WHERE weather_day BETWEEN $1 AND $2 AND hourly_c IS NOT NULL ORDER BY 1, 2",
        [first, last],
    )


def days_to_judge_again(read: Read) -> list[date]:
    """Days judged with weather missing or partial for which some station has a temperature now."""
    frame = read(
        "SELECT billing_day FROM anomaly.flag_run AS r WHERE weather <> 'complete' AND EXISTS (SELECT 1 FROM anomaly.temperature AS t "
        "WHERE t.weather_day = r.billing_day AND (r.weather = 'missing' OR EXISTS (SELECT 1 FROM anomaly.weather_day AS w "
        "WHERE w.weather_day = r.billing_day AND w.loaded_at > r.judged_at))) ORDER BY 1"
    )
    found: list[date] = frame["billing_day"].to_list()
    return found


def read_holidays(read: Read, first: date, last: date) -> set[date]:
    """Holidays in a range."""
    return set(
        read("SELECT holiday FROM ref.holidays WHERE holiday BETWEEN $1 AND $2", [first, last])["holiday"].to_list()
    )


# --- weather --------------------------------------------------------------------------------------


def write_weather(connection: psycopg.Connection[Any], days: pl.DataFrame, source: str, now: datetime) -> int:
    """Upsert daily temperatures (weather.daily's frame, optionally with hourly_c lists); returns rows that changed."""
    columns = ["station_id", "weather_day", "temperature_min_c", "temperature_max_c", "temperature_mean_c", "hours"]
    changed = 0
    with connection.cursor() as cursor:
        for row in days.select(*columns, *(["hourly_c"] if "hourly_c" in days.columns else [])).iter_rows(named=True):
            cursor.execute(
                "INSERT INTO anomaly.weather_day AS w (station_id, weather_day, temperature_min_c, temperature_max_c, temperature_mean_c, hours, "
                "hourly_c, source, loaded_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (station_id, weather_day) DO UPDATE SET "
                "temperature_min_c = excluded.temperature_min_c, temperature_max_c = excluded.temperature_max_c, "
                "temperature_mean_c = excluded.temperature_mean_c, hours = excluded.hours, hourly_c = excluded.hourly_c, "
                "source = excluded.source, loaded_at = excluded.loaded_at WHERE (w.temperature_min_c, w.temperature_max_c, w.temperature_mean_c, "
                "w.hours, w.hourly_c) IS DISTINCT FROM (excluded.temperature_min_c, excluded.temperature_max_c, excluded.temperature_mean_c, "
                "excluded.hours, excluded.hourly_c)",
                (*(row[c] for c in columns), row.get("hourly_c"), source, now),
            )
            changed += cursor.rowcount
    return changed


# --- facts ----------------------------------------------------------------------------------------


def write_facts(
    connection: psycopg.Connection[Any], day: date, packed: Sequence[tuple[Mapping[str, Any], bytes, str]]
) -> None:
    """Replace the day's packed facts."""
    connection.execute("DELETE FROM anomaly.day_facts WHERE billing_day = %s", (day,))
    for row, digest, listed in packed:
        connection.execute(
            "INSERT INTO anomaly.point_list (list_hash, points) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (digest, listed),
        )
        connection.execute(
            sql.SQL("INSERT INTO anomaly.day_facts ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, _FACTS)), sql.SQL(", ").join([sql.Placeholder()] * len(_FACTS))
            ),
            [row[c] for c in _FACTS],
        )


def read_facts(read: Read, first: date, last: date) -> tuple[pl.DataFrame, dict[bytes, str]]:
    """Packed facts of a range of days, and the lists they are about."""
    frame = read(
        f"SELECT {', '.join(_FACTS)} FROM anomaly.day_facts WHERE billing_day BETWEEN $1 AND $2", [first, last]
    )
    lists = read(
        "SELECT list_hash, points FROM anomaly.point_list WHERE list_hash IN "
        "(SELECT list_hash FROM anomaly.day_facts WHERE billing_day BETWEEN $1 AND $2)",
        [first, last],
    )
    return frame, {bytes(h): p for h, p in lists.iter_rows()}


def fact_days(read: Read, first: date, last: date) -> set[date]:
    """Days in a range whose facts are kept."""
    frame = read(
        "SELECT DISTINCT billing_day FROM anomaly.day_facts WHERE billing_day BETWEEN $1 AND $2", [first, last]
    )
    return set(frame["billing_day"].to_list())


# --- baselines ------------------------------------------------------------------------------------


def write_baselines(connection: psycopg.Connection[Any], header: Mapping[str, Any], rows: pl.DataFrame) -> bool:
    """Write one version; False where it is there already (the same data give the same version)."""
    found = connection.execute(
        "INSERT INTO anomaly.baseline_version (version, as_of, fitted_at, first_day, last_day, points, own, content_hash) VALUES "
        "(%(version)s, %(as_of)s, %(fitted_at)s, %(first_day)s, %(last_day)s, %(points)s, %(own)s, %(content_hash)s) ON CONFLICT DO NOTHING "
        "RETURNING version",
        dict(header),
    ).fetchone()
    if found is None:
        return False
    buffer = rows.select(
        *(pl.when(pl.col(c).is_finite()).then(pl.col(c)).alias(c) for c in BASELINE[:13]), *BASELINE[13:]
    ).write_csv(include_header=False, null_value="")
    statement = sql.SQL("COPY anomaly.baseline ({}) FROM STDIN (FORMAT csv)").format(
        sql.SQL(", ").join(map(sql.Identifier, BASELINE))
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(buffer)
    return True


def baseline_version(read: Read, day: date) -> str | None:
    """The version that judges a day: the newest whose as-of day is not after it."""
    frame = read(
        "SELECT version FROM anomaly.baseline_version WHERE as_of <= $1 ORDER BY as_of DESC, fitted_at DESC, version DESC LIMIT 1",
        [day],
    )
    return frame["version"][0] if frame.height else None


def read_baselines(
    read: Read, version: str, columns: Sequence[str], service_point_id: str | None = None
) -> pl.DataFrame:
    """service_point_id, unit and ``columns`` of a version's rows, of one service point or all, in no order."""
    wanted = ", ".join(c for c in BASELINE if c in {"service_point_id", "unit", *columns})
    return read(
        f"SELECT {wanted} FROM anomaly.baseline WHERE version = $1"
        + ("" if service_point_id is None else " AND service_point_id = $2"),
        [version] if service_point_id is None else [version, service_point_id],
    )


# --- flags and cases ------------------------------------------------------------------------------


def run_hash(connection: psycopg.Connection[Any], day: date) -> bytes | None:
    """Content hash of the day's present flags, None where it was never judged."""
    row = connection.execute("SELECT content_hash FROM anomaly.flag_run WHERE billing_day = %s", (day,)).fetchone()
    return bytes(row[0]) if row else None


def write_flags(connection: psycopg.Connection[Any], day: date, flags: pl.DataFrame, run: Mapping[str, Any]) -> None:
    """Replace the day's flags and its run."""
    connection.execute("DELETE FROM anomaly.flag WHERE billing_day = %s", (day,))
    statement = sql.SQL("COPY anomaly.flag ({}) FROM STDIN (FORMAT csv)").format(
        sql.SQL(", ").join(map(sql.Identifier, FLAG))
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(flags.select(FLAG).write_csv(include_header=False))  # an empty string is quoted, a null is not
    connection.execute(
        "INSERT INTO anomaly.flag_run (billing_day, judged_at, points, flags, weather, baseline_version, content_hash) VALUES (%(billing_day)s, "
        "%(judged_at)s, %(points)s, %(flags)s, %(weather)s, %(baseline_version)s, %(content_hash)s) ON CONFLICT (billing_day) DO UPDATE SET "
        "judged_at = excluded.judged_at, points = excluded.points, flags = excluded.flags, weather = excluded.weather, "
        "baseline_version = excluded.baseline_version, content_hash = excluded.content_hash",
        dict(run),
    )
