"""Schema ``migration`` in PostgreSQL: legacy results, comparisons, gate reports, authority and outbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, TypeAlias

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from meter_pipeline.postgres.database import Database, scalar

Connection: TypeAlias = psycopg.Connection[Any]

RESULT_COLUMNS = ("billing_day", "account_id", "level", "code", "value", "exact", "estimated", "tariff_version")


def replace_legacy(
    connection: Connection, day: date, results: pl.DataFrame, run: tuple[datetime, datetime, str, bytes]
) -> None:
    """Replace a day's legacy results of an earlier import. ``run``: finished at, imported at, source,
    content hash."""
    connection.execute("DELETE FROM migration.legacy_result WHERE billing_day = %s", (day,))
    _copy(connection, "migration.legacy_result", results.select(*RESULT_COLUMNS, "occurrence"))
    connection.execute(
        "INSERT INTO migration.legacy_run (billing_day, finished_at, imported_at, source, figures, content_sha256) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (billing_day) DO UPDATE SET finished_at = excluded.finished_at, imported_at = excluded.imported_at, source = excluded.source, "
        "figures = excluded.figures, content_sha256 = excluded.content_sha256",
        (day, run[0], run[1], run[2], results.height, run[3]),
    )


def legacy_results(database: Database, day: date) -> pl.DataFrame:
    """A day's legacy results; empty with the right columns where there are none."""
    found = database.read(
        f"SELECT {', '.join(RESULT_COLUMNS[1:])} FROM migration.legacy_result WHERE billing_day = $1", [day]
    )
    return found.select(pl.lit(day).alias("billing_day"), pl.all())


def columns_of(connection: Connection, table: str) -> list[str]:
    """Columns of a table, none where there is no such table."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (table,),
    )
    return [str(row[0]) for row in rows]


def legacy_finished(connection: Connection, day: date) -> bool:
    return bool(scalar(connection, "SELECT EXISTS (SELECT FROM migration.legacy_run WHERE billing_day = %s)", (day,)))


def _copy(connection: Connection, table: str, frame: pl.DataFrame) -> None:
    """COPY a frame into a table by the frame's own column names; text in quotes, so that only a null is empty."""
    statement = f"COPY {table} ({', '.join(frame.columns)}) FROM STDIN (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(frame.write_csv(include_header=False, quote_style="non_numeric", null_value=""))


def known_defects(connection: Connection) -> list[tuple[Any, ...]]:
    """defect_id, levels, codes, most, approver, expires, first_day, last_day."""
    return connection.execute(
        "SELECT defect_id, levels, codes, most, approver, expires, first_day, last_day FROM migration.known_defect ORDER BY defect_id"
    ).fetchall()


def write_comparison(connection: Connection, day: date, run: dict[str, Any], differences: pl.DataFrame) -> int:
    """Store one comparison: its figures, and the day's differences in place of the last comparison's."""
    run_id = int(
        scalar(
            connection,
            "INSERT INTO migration.comparison_run (billing_day, mode, compared_at, compared, bills, blocking, net_money, absolute_money, configuration, "
            "cycle_id, coverage, summary, source, results_sha256) VALUES (%(day)s, %(mode)s, %(at)s, %(compared)s, %(bills)s, %(blocking)s, %(net)s, "
            "%(absolute)s, %(configuration)s, %(cycle)s, %(coverage)s, %(summary)s, %(source)s, %(sha256)s) RETURNING run_id",
            run | {"day": day, "coverage": Jsonb(run["coverage"]), "summary": Jsonb(run["summary"])},
        )
    )
    if run["mode"] != "legacy_twice":
        connection.execute("DELETE FROM migration.comparison WHERE billing_day = %s", (day,))
        named = differences.rename({"new": "new_value", "legacy": "legacy_value"}).with_columns(
            run_id=pl.lit(run_id, pl.Int64)
        )
        _copy(connection, "migration.comparison", named)
    return run_id


def comparison_runs(connection: Connection) -> list[dict[str, Any]]:
    """Every comparison with the new side, oldest first."""
    names = (
        "billing_day",
        "mode",
        "compared_at",
        "compared",
        "bills",
        "blocking",
        "absolute_money",
        "configuration",
        "cycle_id",
        "coverage",
        "summary",
    )
    rows = connection.execute(
        f"SELECT {', '.join(names)} FROM migration.comparison_run WHERE mode <> 'legacy_twice' ORDER BY compared_at, run_id"
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def latest_days(connection: Connection, most: int) -> list[dict[str, Any]]:
    """The latest comparison of each of the latest billing days, newest first."""
    names = ("billing_day", "mode", "bills", "blocking", "absolute_money", "net_money")
    rows = connection.execute(
        f"SELECT {', '.join(names)} FROM (SELECT DISTINCT ON (billing_day) * FROM migration.comparison_run "
        "WHERE mode <> 'legacy_twice' ORDER BY billing_day DESC, run_id DESC) latest ORDER BY billing_day DESC LIMIT %s",
        (most,),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def drift(database: Database, day: date, window: int) -> tuple[int, pl.DataFrame]:
    """Days compared in the ``window`` days before a day, and the sum of rounding in them by account
    and code.
    """
    days = database.read(
        "SELECT count(DISTINCT billing_day) AS n FROM migration.comparison_run "
        "WHERE mode <> 'legacy_twice' AND bills > 0 AND billing_day >= $1::date - $2::integer AND billing_day < $1",
        [day, window],
    )["n"][0]
    leant = database.read(
        "SELECT account_id, code, sum(difference)::bigint AS leant FROM migration.comparison "
        "WHERE class = 'rounding' AND billing_day >= $1::date - $2::integer AND billing_day < $1 GROUP BY 1, 2",
        [day, window],
    )
    return int(days), leant.cast({"leant": pl.Int64})


def note_event(connection: Connection, at: datetime, what: str) -> None:
    connection.execute("INSERT INTO migration.event (at, what) VALUES (%s, %s) ON CONFLICT DO NOTHING", (at, what))


def events(connection: Connection) -> list[tuple[datetime, str]]:
    """Resets of the gate's clock: recorded events, and every emergency pause of all work."""
    return connection.execute(
        "SELECT at, what FROM migration.event UNION ALL SELECT raised_at, 'emergency pause ' || pause_id FROM control.emergency_pause ORDER BY 1, 2"
    ).fetchall()


def save_report(connection: Connection, sha256: str, at: datetime, green: bool, document: dict[str, Any]) -> None:
    connection.execute(
        "INSERT INTO migration.gate_report (sha256, at, green, document) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (sha256, at, green, Jsonb(document)),
    )


def report(connection: Connection, sha256: str) -> tuple[datetime, bool, dict[str, Any]] | None:
    """Instant, whether green, document of a saved report."""
    row = connection.execute(
        "SELECT at, green, document FROM migration.gate_report WHERE sha256 = %s", (sha256,)
    ).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def put_authorities(connection: Connection, rows: pl.DataFrame, stage: str, version: int, at: datetime) -> pl.DataFrame:
    """Record which side counts for each record of ``rows`` (billing_day, account_id, authority, payload_sha256); one
    that has a side keeps it.

    Returns billing_day, account_id, authority in force and whether it was recorded only now, in the order of ``rows``.
    """
    connection.execute(
        'CREATE TEMP TABLE IF NOT EXISTS deciding (place bigint, billing_day date, account_id text COLLATE "C", authority text, payload_sha256 bytea) '
        "ON COMMIT DROP; TRUNCATE deciding"
    )
    _copy(connection, "deciding", rows.with_row_index("place").with_columns(payload_sha256=_hex("payload_sha256")))
    written = connection.execute(
        """
        WITH made AS (
            INSERT INTO migration.authority AS a (billing_day, account_id, authority, stage, flag_version, payload_sha256, decided_at)
            SELECT billing_day, account_id, authority, %s, %s, payload_sha256, %s FROM deciding ORDER BY billing_day, account_id
            ON CONFLICT (billing_day, account_id) DO UPDATE SET payload_sha256 = excluded.payload_sha256
            RETURNING billing_day, account_id, authority, xmax = 0 AS fresh
        )
        SELECT d.billing_day, d.account_id, made.authority, made.fresh FROM deciding d JOIN made USING (billing_day, account_id) ORDER BY d.place
        """,
        (stage, version, at),
    ).fetchall()
    return pl.DataFrame(
        written,
        {"billing_day": pl.Date, "account_id": pl.String, "authority": pl.String, "fresh": pl.Boolean},
        orient="row",
    )


def enqueue(connection: Connection, rows: pl.DataFrame, at: datetime) -> int:
    """Put records (billing_day, account_id, side, payload as JSON text, payload_sha256) in the outbox; how many were
    not its last words already.

    For a transaction that holds the records' rows of migration.authority: two writers of one record come one after the
    other.
    """
    connection.execute(
        'CREATE TEMP TABLE IF NOT EXISTS sending (billing_day date, account_id text COLLATE "C", side text, payload jsonb, payload_sha256 bytea) '
        "ON COMMIT DROP; TRUNCATE sending"
    )
    _copy(connection, "sending", rows.with_columns(payload_sha256=_hex("payload_sha256")))
    done = connection.execute(
        """
        INSERT INTO migration.outbox AS o (billing_day, account_id, side, payload, payload_sha256, written_at)
        SELECT s.billing_day, s.account_id, s.side, s.payload, s.payload_sha256, %s FROM sending s
        WHERE s.payload_sha256 IS DISTINCT FROM (
            SELECT l.payload_sha256 FROM migration.outbox l WHERE l.billing_day = s.billing_day AND l.account_id = s.account_id AND l.side = s.side
            ORDER BY l.outbox_id DESC LIMIT 1)
        ORDER BY 1, 2, 3
        """,
        (at,),
    )
    return done.rowcount


def _hex(column: str) -> pl.Expr:
    return pl.lit("\\x") + pl.col(column).bin.encode("hex")


def authorities(connection: Connection, day: date) -> dict[str, Any]:
    """The side recorded for each account of a day."""
    return dict(
        connection.execute(
            "SELECT account_id, authority FROM migration.authority WHERE billing_day = %s", (day,)
        ).fetchall()
    )


def stage_in_force(connection: Connection) -> dict[str, Any] | None:
    """The stage's flag as it is now, held for share until the caller's transaction ends; None where it was never
    declared."""
    return scalar(connection, "SELECT migration.stage_in_force()")  # type: ignore[no-any-return]


def outbox_size(connection: Connection) -> int:
    """Records ever put in the outbox, this transaction's included."""
    return int(scalar(connection, "SELECT count(*) FROM migration.outbox"))


def take_side(connection: Connection, side: str, wait_s: float) -> bool:
    """Be the only one who delivers to a side until the transaction ends, after waiting for whoever does now; False
    where that one is not done within ``wait_s``."""
    try:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{int(wait_s * 1000)}ms",))
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('migration.outbox ' || %s, 0))", (side,))
        connection.execute("SELECT set_config('lock_timeout', '0', true)")
    except psycopg.errors.LockNotAvailable:
        connection.rollback()
        return False
    return True


def waiting(connection: Connection, most: int, side: str) -> list[tuple[int, date, str, str, dict[str, Any], bytes]]:
    """Records of a side to deliver, oldest first. For a transaction that has taken the side: the oldest record of a
    bill is never left out, so that a newer one cannot overtake it."""
    return connection.execute(
        "SELECT outbox_id, billing_day, account_id, side, payload, payload_sha256 FROM migration.outbox WHERE delivered_at IS NULL AND side = %s "
        "ORDER BY outbox_id LIMIT %s",
        (side, most),
    ).fetchall()


def mark_delivered(connection: Connection, ids: Sequence[int], at: datetime) -> None:
    connection.execute(
        "UPDATE migration.outbox SET delivered_at = %s, attempts = attempts + 1 WHERE outbox_id = ANY(%s)",
        (at, list(ids)),
    )


def mark_attempt(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute("UPDATE migration.outbox SET attempts = attempts + 1 WHERE outbox_id = ANY(%s)", (list(ids),))


def outbox_counts(connection: Connection) -> dict[str, int]:
    """Waiting and delivered records by side."""
    rows = connection.execute(
        "SELECT side || CASE WHEN delivered_at IS NULL THEN '_waiting' ELSE '_delivered' END, count(*) FROM migration.outbox GROUP BY 1"
    )
    return {str(name): int(count) for name, count in rows}


def determinants_of(database: Database, day: date) -> pl.DataFrame:
    """Returns the determinants of each service point of a billing day, as the billing stage stores them; ``estimated``:
    an estimate is in it."""
    return database.read(
        "SELECT account_id, service_point_id, tariff_id, tariff_version, source_quantity, source_export, energy, peaks, estimated > 0 AS estimated "
        "FROM billing.determinant_day WHERE billing_day = $1",
        [day],
    )


def charges_of(database: Database, day: date) -> pl.DataFrame:
    """Returns the charges of each service point of a billing day, by line in the order of its tariff's day_keys."""
    return database.read(
        "SELECT account_id, service_point_id, tariff_id, tariff_version, amounts, total FROM billing.charge_day WHERE billing_day = $1",
        [day],
    )


def closing_reads(database: Database, day: date) -> pl.DataFrame:
    """The last register read of the day of each meter and channel, with the service point it was installed at then."""
    return database.read(
        """
        SELECT DISTINCT ON (r.meter_id, r.channel) i.service_point_id, r.channel, r.value
        FROM raw.register_read r JOIN ref.installations i ON i.meter_id = r.meter_id
            AND r.read_at > i.installed_at AND (i.removed_at IS NULL OR r.read_at <= i.removed_at)
        WHERE r.billing_day = $1 ORDER BY r.meter_id, r.channel, r.read_at DESC
        """,
        [day],
    )


def tariff_names(database: Database) -> pl.DataFrame:
    """Returns the keys that the arrays of determinants and charges follow, for every tariff version."""
    return database.read(
        "SELECT tariff_id, version AS tariff_version, periods, registers, day_keys FROM billing.tariff_version"
    )


def statement_results(database: Database, day: date) -> pl.DataFrame:
    """Lines of our statements of the periods that end with a day, adjustments included, as results of level
    ``statement``; a code is a line's id."""
    return database.read(
        """
        SELECT $1::date AS billing_day, s.account_id, 'statement' AS level, l.statement_id || '.' || l.line_no AS code,
            (l.amount * 1000000)::bigint AS value, false AS estimated, l.tariff_version
        FROM billing.statement s JOIN billing.statement_line l USING (statement_id) WHERE s.period_end = $1::date + 1
        """,
        [day],
    )


def known_accounts(database: Database) -> pl.Series:
    """Every account of the reference data."""
    return database.read("SELECT account_id FROM ref.accounts ORDER BY 1")["account_id"]


def cycles_closing(database: Database, day: date) -> list[str]:
    """Billing cycles whose period ends with a day."""
    return database.read("SELECT cycle_id FROM ref.billing_cycles WHERE period_end = $1::date + 1 ORDER BY 1", [day])[
        "cycle_id"
    ].to_list()


def put_known_defect(connection: Connection, defect: dict[str, Any]) -> None:
    """Record a defect, or replace the one of its name. Raises psycopg.errors.CheckViolation where one person is named
    for both parts."""
    connection.execute(
        "INSERT INTO migration.known_defect AS k (defect_id, levels, codes, most, first_day, last_day, reason, recorded_by, approver, expires) "
        "VALUES (%(defect_id)s, %(levels)s, %(codes)s, %(most)s, %(first_day)s, %(last_day)s, %(reason)s, %(recorded_by)s, %(approver)s, %(expires)s) "
        "ON CONFLICT (defect_id) DO UPDATE SET levels = excluded.levels, codes = excluded.codes, most = excluded.most, first_day = excluded.first_day, "
        "last_day = excluded.last_day, reason = excluded.reason, recorded_by = excluded.recorded_by, approver = excluded.approver, expires = excluded.expires",
        defect,
    )


def routes(connection: Connection) -> dict[str, str]:
    """The route of each account: that of its first service point, so that an account moves as a whole."""
    return dict(
        connection.execute(
            "SELECT a.account_id, min(s.route) FROM ref.agreements a JOIN ref.service_points s USING (service_point_id) GROUP BY 1"
        ).fetchall()
    )


def put_customer_bills(connection: Connection, rows: pl.DataFrame, at: datetime) -> int:
    """Keep the legacy batch's records (billing_day, account_id, payload as JSON text, payload_sha256) in place of what
    was kept."""
    connection.execute(
        'CREATE TEMP TABLE IF NOT EXISTS receiving (billing_day date, account_id text COLLATE "C", payload jsonb, payload_sha256 bytea) '
        "ON COMMIT DROP; TRUNCATE receiving"
    )
    _copy(connection, "receiving", rows.with_columns(payload_sha256=_hex("payload_sha256")))
    done = connection.execute(
        "INSERT INTO migration.customer_bill (billing_day, account_id, payload, payload_sha256, received_at) "
        "SELECT billing_day, account_id, payload, payload_sha256, %s FROM receiving ON CONFLICT (billing_day, account_id) "
        "DO UPDATE SET payload = excluded.payload, payload_sha256 = excluded.payload_sha256, received_at = excluded.received_at",
        (at,),
    )
    return done.rowcount


def undelivered(connection: Connection, day: date | None = None) -> list[tuple[date, str, str]]:
    """Records (day, account, side) that the other side lacks: neither delivered nor waiting in the outbox in their
    latest words. Always empty."""
    return connection.execute(
        """
        SELECT a.billing_day, a.account_id, CASE a.authority WHEN 'new' THEN 'legacy' ELSE 'new' END AS side
        FROM migration.authority a
        WHERE (%(day)s::date IS NULL OR a.billing_day = %(day)s) AND a.stage <> 'complete' AND NOT (a.stage IN ('off', 'shadow') AND a.authority = 'legacy')
          AND a.payload_sha256 IS DISTINCT FROM (
              SELECT o.payload_sha256 FROM migration.outbox o WHERE o.billing_day = a.billing_day AND o.account_id = a.account_id
                AND o.side = CASE a.authority WHEN 'new' THEN 'legacy' ELSE 'new' END ORDER BY o.outbox_id DESC LIMIT 1)
        ORDER BY 1, 2
        """,
        {"day": day},
    ).fetchall()


def tariff_documents(connection: Connection) -> str:
    """Every tariff document there is, as one hash."""
    return str(
        scalar(
            connection,
            "SELECT encode(sha256(convert_to(coalesce(string_agg(tariff_id || ':' || version || ':' || encode(sha256, 'hex'), ',' "
            "ORDER BY tariff_id, version), ''), 'UTF8')), 'hex') FROM ref.tariff_document",
        )
    )


def strata(database: Database, day: date) -> pl.DataFrame:
    """Particulars of each service point billed on the day: one row with its rate class and commodity, and
    booleans for rare cases."""
    return database.read(
        """
        SELECT d.account_id, d.service_point_id, d.tariff_id AS rate_class, t.commodity, d.estimated > 0 AS estimated, d.source_export > 0 AS net_metering,
            d.slots::integer * d.interval_minutes NOT IN (0, 1440) AND d.interval_minutes < 1440 AS clock_change, coalesce(u.exchange, false) AS exchange,
            coalesce(r.rollover, false) AS rollover, f.service_point_id IS NOT NULL AS final_bill
        FROM billing.determinant_day d
        LEFT JOIN (SELECT DISTINCT tariff_id, commodity FROM ref.tariffs) t USING (tariff_id)
        LEFT JOIN (SELECT service_point_id, bool_or(exchange) AS exchange FROM vee.daily_usage WHERE billing_day = $1 GROUP BY 1) u USING (service_point_id)
        LEFT JOIN (SELECT service_point_id, bool_or(causes & 4 <> 0) AS rollover FROM vee.register_day WHERE billing_day = $1 GROUP BY 1) r
            USING (service_point_id)
        LEFT JOIN (SELECT DISTINCT service_point_id FROM ref.agreements WHERE valid_to = $1::date + 1) f USING (service_point_id)
        WHERE d.billing_day = $1
        """,
        [day],
    )


def database_exists(connection: Connection, name: str) -> bool:
    return bool(scalar(connection, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)", (name,)))


def replace_bills(
    connection: Connection,
    table: str,
    bills: Sequence[tuple[date, str]],
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Put rows of the given columns in place of a table's rows of these bills (billing day, account). ``table`` is
    schema.table of the legacy batch's own database."""
    target = sql.Identifier(*table.split("."))
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("DELETE FROM {} WHERE billing_day = %s AND account_id = %s").format(target), list(bills)
        )
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(target, names)) as copy:
            for row in rows:
                copy.write_row(row)
