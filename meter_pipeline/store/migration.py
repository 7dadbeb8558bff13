"""Schema ``migration`` in PostgreSQL: legacy results, comparisons, gate reports, authority and outbox. Belongs here: its SQL and nothing that decides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, TypeAlias

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from meter_pipeline.store.database import Database, scalar

Connection: TypeAlias = psycopg.Connection[Any]

RESULT_COLUMNS = ("billing_day", "account_id", "level", "code", "value", "exact", "estimated", "tariff_version")


def replace_legacy(connection: Connection, day: date, results: pl.DataFrame, run: tuple[datetime, datetime, str, bytes]) -> None:
    """Put a day's legacy results in place of what was imported before. ``run``: finished at, imported at, source, content hash."""
    connection.execute("DELETE FROM migration.legacy_result WHERE billing_day = %s", (day,))
    columns = ", ".join((*RESULT_COLUMNS, "occurrence"))
    with connection.cursor() as cursor, cursor.copy(f"COPY migration.legacy_result ({columns}) FROM STDIN") as copy:
        for row in results.select(*RESULT_COLUMNS, "occurrence").iter_rows():
            copy.write_row(row)
    connection.execute(
        "INSERT INTO migration.legacy_run (billing_day, finished_at, imported_at, source, figures, content_sha256) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (billing_day) DO UPDATE SET finished_at = excluded.finished_at, imported_at = excluded.imported_at, source = excluded.source, "
        "figures = excluded.figures, content_sha256 = excluded.content_sha256",
        (day, run[0], run[1], run[2], results.height, run[3]),
    )


def legacy_results(database: Database, day: date) -> pl.DataFrame:
    """A day's legacy results; empty with the right columns where there are none."""
    return database.read(f"SELECT {', '.join(RESULT_COLUMNS)} FROM migration.legacy_result WHERE billing_day = $1", [day])


def legacy_finished(connection: Connection, day: date) -> bool:
    return bool(scalar(connection, "SELECT EXISTS (SELECT FROM migration.legacy_run WHERE billing_day = %s)", (day,)))


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
            "INSERT INTO migration.comparison_run (billing_day, mode, compared_at, compared, blocking, net_money, absolute_money, configuration, "
            "cycle_id, coverage, summary) VALUES (%(day)s, %(mode)s, %(at)s, %(compared)s, %(blocking)s, %(net)s, %(absolute)s, %(configuration)s, "
            "%(cycle)s, %(coverage)s, %(summary)s) RETURNING run_id",
            run | {"day": day, "coverage": Jsonb(run["coverage"]), "summary": Jsonb(run["summary"])},
        )
    )
    if run["mode"] != "legacy_twice":
        connection.execute("DELETE FROM migration.comparison WHERE billing_day = %s", (day,))
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "COPY migration.comparison (billing_day, account_id, level, code, new_value, legacy_value, difference, class, cause, run_id) FROM STDIN"
            ) as copy,
        ):
            for row in differences.iter_rows():
                copy.write_row((*row, run_id))
    return run_id


def comparison_runs(connection: Connection) -> list[dict[str, Any]]:
    """Every comparison with the new side, oldest first."""
    names = ("billing_day", "mode", "compared_at", "compared", "blocking", "absolute_money", "configuration", "cycle_id", "coverage")
    rows = connection.execute(f"SELECT {', '.join(names)} FROM migration.comparison_run WHERE mode <> 'legacy_twice' ORDER BY compared_at, run_id")
    return [dict(zip(names, row, strict=True)) for row in rows]


def note_event(connection: Connection, at: datetime, what: str) -> None:
    connection.execute("INSERT INTO migration.event (at, what) VALUES (%s, %s) ON CONFLICT DO NOTHING", (at, what))


def events(connection: Connection) -> list[tuple[datetime, str]]:
    """Resets of the gate's clock: recorded events, and every emergency pause of all work."""
    return connection.execute(
        "SELECT at, what FROM migration.event UNION ALL SELECT raised_at, 'emergency pause ' || pause_id FROM control.emergency_pause ORDER BY 1, 2"
    ).fetchall()


def save_report(connection: Connection, sha256: str, at: datetime, green: bool, document: dict[str, Any]) -> None:
    connection.execute(
        "INSERT INTO migration.gate_report (sha256, at, green, document) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", (sha256, at, green, Jsonb(document))
    )


def report(connection: Connection, sha256: str) -> tuple[datetime, bool, dict[str, Any]] | None:
    """Instant, whether green, document of a saved report."""
    row = connection.execute("SELECT at, green, document FROM migration.gate_report WHERE sha256 = %s", (sha256,)).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def put_authority(
    connection: Connection, day: date, account: str, side: str, stage: str, version: int, payload_sha256: bytes, at: datetime
) -> tuple[str, bytes] | None:
    """Record which side counts for a record. Returns what was there already (side, payload hash), which stays, or None."""
    made = connection.execute(
        "INSERT INTO migration.authority (billing_day, account_id, authority, stage, flag_version, payload_sha256, decided_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1",
        (day, account, side, stage, version, payload_sha256, at),
    ).fetchone()
    if made:
        return None
    found = connection.execute(
        "SELECT authority, payload_sha256 FROM migration.authority WHERE billing_day = %s AND account_id = %s", (day, account)
    ).fetchone()
    return None if found is None else (found[0], bytes(found[1]))


def enqueue(connection: Connection, day: date, account: str, side: str, payload: dict[str, Any], sha256: bytes, at: datetime) -> bool:
    """Put a record in the outbox for one side; False when it is there already."""
    done = connection.execute(
        "INSERT INTO migration.outbox (billing_day, account_id, side, payload, payload_sha256, written_at) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING",
        (day, account, side, Jsonb(payload, dumps=lambda value: json.dumps(value, sort_keys=True)), sha256, at),
    )
    return done.rowcount == 1


def waiting(connection: Connection, most: int) -> list[tuple[int, date, str, str, dict[str, Any], bytes]]:
    """Records to deliver, oldest first, locked for this transaction; another deliverer takes the next ones."""
    return connection.execute(
        "SELECT outbox_id, billing_day, account_id, side, payload, payload_sha256 FROM migration.outbox WHERE delivered_at IS NULL "
        "ORDER BY outbox_id LIMIT %s FOR UPDATE SKIP LOCKED",
        (most,),
    ).fetchall()


def mark_delivered(connection: Connection, ids: Sequence[int], at: datetime) -> None:
    connection.execute("UPDATE migration.outbox SET delivered_at = %s, attempts = attempts + 1 WHERE outbox_id = ANY(%s)", (at, list(ids)))


def mark_attempt(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute("UPDATE migration.outbox SET attempts = attempts + 1 WHERE outbox_id = ANY(%s)", (list(ids),))


def outbox_counts(connection: Connection) -> dict[str, int]:
    """Waiting and delivered records by side."""
    rows = connection.execute(
        "SELECT side || CASE WHEN delivered_at IS NULL THEN '_waiting' ELSE '_delivered' END, count(*) FROM migration.outbox GROUP BY 1"
    )
    return {str(name): int(count) for name, count in rows}


def new_results(database: Database, day: date) -> pl.DataFrame:
    """Our figures of a billing day: reads that closed it, usage, energy and demand per period and register, day lines, total.

    Codes name the service point, so that an account with three meters has three usages: ``SP-1:usage``, ``SP-1:energy:peak``, ``SP-1:BASIC``.
    """
    return database.read(
        """
        WITH d AS (
            SELECT det.*, v.periods, v.registers FROM billing.determinant_day det
            JOIN billing.tariff_version v USING (tariff_id) WHERE det.billing_day = $1 AND v.version = det.tariff_version
        ), c AS (
            SELECT ch.*, v.day_keys FROM billing.charge_day ch
            JOIN billing.tariff_version v USING (tariff_id) WHERE ch.billing_day = $1 AND v.version = ch.tariff_version
        ), reads AS (
            SELECT DISTINCT ON (r.meter_id, r.channel) i.service_point_id, r.channel, r.value
            FROM raw.register_read r JOIN ref.installations i ON i.meter_id = r.meter_id
                AND r.read_at > i.installed_at AND (i.removed_at IS NULL OR r.read_at <= i.removed_at)
            WHERE r.billing_day = $1 ORDER BY r.meter_id, r.channel, r.read_at DESC
        )
        SELECT d.billing_day, d.account_id, 'read' AS level, d.service_point_id || ':' || reads.channel AS code, reads.value, NULL::bigint AS exact,
            false AS estimated, NULL::integer AS tariff_version FROM d JOIN reads USING (service_point_id)
        UNION ALL
        SELECT billing_day, account_id, 'usage', service_point_id || ':usage', source_quantity, NULL, estimated > 0, tariff_version FROM d
        UNION ALL
        SELECT billing_day, account_id, 'usage', service_point_id || ':export', source_export, NULL, estimated > 0, tariff_version
        FROM d WHERE source_export <> 0
        UNION ALL
        SELECT billing_day, account_id, 'determinant', service_point_id || ':energy:' || p.name, p.value, NULL, estimated > 0, tariff_version
        FROM d CROSS JOIN LATERAL unnest(d.periods, d.energy) AS p (name, value) WHERE p.value IS NOT NULL AND cardinality(d.periods) > 1
        UNION ALL
        SELECT billing_day, account_id, 'determinant', service_point_id || ':demand:' || p.name, p.value, NULL, estimated > 0, tariff_version
        FROM d CROSS JOIN LATERAL unnest(d.registers, d.peaks) AS p (name, value) WHERE p.value IS NOT NULL
        UNION ALL
        SELECT c.billing_day, c.account_id, 'line', c.service_point_id || ':' || l.key, l.amount, l.amount, d.estimated > 0, c.tariff_version
        FROM c JOIN d USING (service_point_id) CROSS JOIN LATERAL unnest(c.day_keys, c.amounts) AS l (key, amount) WHERE l.amount IS NOT NULL
        UNION ALL
        SELECT c.billing_day, c.account_id, 'total', 'total', sum(c.total)::bigint, sum(c.total)::bigint, bool_or(d.estimated > 0), NULL
        FROM c JOIN d USING (service_point_id) GROUP BY c.billing_day, c.account_id
        """,
        [day],
    )


def known_accounts(database: Database) -> pl.Series:
    """Every account of the reference data."""
    return database.read("SELECT account_id FROM ref.accounts ORDER BY 1")["account_id"]


def configuration(connection: Connection, day: date) -> str:
    """What a day's results were made with, as one hash: tariff documents used and the versions of rules and code on the ledger."""
    return str(
        scalar(
            connection,
            "SELECT encode(sha256(convert_to(coalesce(string_agg(part, ',' ORDER BY part), ''), 'UTF8')), 'hex') FROM ("
            "SELECT DISTINCT v.tariff_id || ':' || v.version || ':' || encode(v.document_sha256, 'hex') AS part FROM billing.tariff_version v "
            "JOIN billing.charge_day c ON c.tariff_id = v.tariff_id AND c.tariff_version = v.version WHERE c.billing_day = %s "
            "UNION SELECT kind || ':' || encode(sha256(convert_to(body::jsonb->>'body', 'UTF8')), 'hex') FROM ("
            "SELECT DISTINCT ON (kind) kind, convert_from(body, 'UTF8') AS body FROM ledger.entry WHERE kind IN ('rule_version', 'code_version') "
            "ORDER BY kind, entry_id DESC) latest) parts",
            (day,),
        )
    )


def coverage(database: Database, day: date) -> dict[str, int]:
    """Accounts compared on the day by stratum: rate class, commodity, and what rarely happens (estimates, exchanges, net metering, final bills)."""
    frame = database.read(
        """
        WITH d AS (SELECT det.*, s.commodity FROM billing.determinant_day det
            JOIN ref.service_points s ON s.service_point_id = det.service_point_id AND s.valid_from <= det.billing_day
                AND (s.valid_to IS NULL OR s.valid_to > det.billing_day) WHERE det.billing_day = $1)
        SELECT 'rate_class:' || tariff_id AS stratum, count(*) AS n FROM d GROUP BY 1
        UNION ALL SELECT 'commodity:' || commodity, count(*) FROM d GROUP BY 1
        UNION ALL SELECT 'estimated', count(*) FROM d WHERE estimated > 0
        UNION ALL SELECT 'net_metering', count(*) FROM d WHERE source_export > 0
        UNION ALL SELECT 'exchange', count(*) FROM d JOIN ref.installations i USING (service_point_id) WHERE i.removed_at::date = d.billing_day
        UNION ALL SELECT 'final_bill', count(*) FROM d JOIN ref.agreements a USING (service_point_id) WHERE a.valid_to = d.billing_day + 1
        """,
        [day],
    )
    return {str(name): int(n) for name, n in frame.iter_rows() if n}
