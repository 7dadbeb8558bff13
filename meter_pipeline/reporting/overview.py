"""Overview of reads, days, bills and waiting work: for ``status``, the demo's summary and the close report."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from meter_pipeline.postgres.database import Database


def files(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Per head-end over the days: files, and reads by outcome (received = accepted + duplicate + superseded + rejected
    + waiting)."""
    return database.rows(
        """
        SELECT f.head_end, count(DISTINCT f.sha256) AS files, sum(d.received)::bigint AS received, sum(coalesce(d.accepted, 0))::bigint AS accepted,
            sum(coalesce(d.duplicate, 0))::bigint AS duplicate, sum(coalesce(d.superseded, 0))::bigint AS superseded,
            sum(coalesce(d.rejected, 0))::bigint AS rejected, sum(CASE WHEN d.loaded_at IS NULL THEN d.received ELSE 0 END)::bigint AS waiting
        FROM raw.feed_file f JOIN raw.feed_file_day d USING (sha256)
        WHERE d.billing_day BETWEEN $1 AND $2 GROUP BY f.head_end ORDER BY f.head_end
        """,
        [first, last],
    )


def arrivals(database: Database) -> dict[str, int]:
    """Files landed, refused and known again; dead letters open and in all."""
    (row,) = database.rows(
        """
        SELECT (SELECT count(*) FROM raw.feed_file WHERE replay_of IS NULL) AS files, (SELECT count(*) FROM raw.feed_file WHERE refused IS NOT NULL) AS refused,
            (SELECT count(*) FROM raw.feed_file_arrival WHERE duplicate) AS duplicate_files,
            (SELECT count(*) FROM raw.dead_letter) AS dead_letters, (SELECT coalesce(sum(rejected), 0)::bigint FROM raw.feed_file) AS reads_rejected
        """
    )
    return {name: int(value) for name, value in row.items()}


def billing_days(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Per billing day: hours, reads stored, validated by quality, flags, accounts billed, money, exceptions."""
    return database.rows(
        """
        WITH days AS (SELECT d::date AS billing_day FROM generate_series($1::date, $2::date, interval '1 day') AS d)
        SELECT days.billing_day,
            (SELECT coalesce(max(slots * interval_minutes) / 60.0, 0)::float8 FROM raw.interval_day r WHERE r.billing_day = days.billing_day) AS hours,
            (SELECT count(*) FROM raw.interval_day r WHERE r.billing_day = days.billing_day)
                + (SELECT count(*) FROM raw.register_read r WHERE r.billing_day = days.billing_day) AS payloads,
            (SELECT coalesce(sum(actual), 0) FROM vee.interval_day v WHERE v.billing_day = days.billing_day) AS actual,
            (SELECT coalesce(sum(estimated), 0) FROM vee.interval_day v WHERE v.billing_day = days.billing_day) AS estimated,
            (SELECT coalesce(sum(missing), 0) FROM vee.interval_day v WHERE v.billing_day = days.billing_day) AS missing,
            (SELECT count(*) FROM anomaly.flag a WHERE a.billing_day = days.billing_day) AS flags,
            (SELECT count(*) FROM vee.exception e WHERE e.billing_day = days.billing_day AND e.kind <> 'SUPPLY_METER') AS exceptions,
            (SELECT count(DISTINCT c.account_id) FROM billing.charge_day c WHERE c.billing_day = days.billing_day) AS accounts,
            (SELECT (coalesce(sum(c.total), 0) / 1000000.0)::numeric(20, 2)::text FROM billing.charge_day c WHERE c.billing_day = days.billing_day) AS charged,
            (SELECT count(*) FROM billing.reconciliation b WHERE b.billing_day = days.billing_day AND b.difference <> 0) AS differences,
            (SELECT count(*) FROM billing.reconciliation b WHERE b.billing_day = days.billing_day AND b.cause = 'unexplained') AS unexplained
        FROM days ORDER BY 1
        """,
        [first, last],
    )


def usage(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Usage and export by commodity and unit over the days, exact decimals as text; what supply meters of zones
    counted is apart as ``supply``: customers' meters count it again."""
    return database.rows(
        """
        SELECT u.commodity, CASE WHEN z.service_point_id IS NULL THEN u.flow ELSE 'supply' END AS flow, u.unit,
            count(DISTINCT u.service_point_id) AS service_points, (sum(u.quantity_micro) / 1000000.0)::numeric(24, 3)::text AS quantity
        FROM vee.daily_usage AS u LEFT JOIN (SELECT DISTINCT service_point_id FROM ref.zone_supplies) AS z USING (service_point_id)
        WHERE u.billing_day BETWEEN $1 AND $2 AND u.quantity_micro IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        [first, last],
    )


def flags(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Anomaly flags by kind."""
    return database.rows(
        "SELECT kind, count(*) AS flags, count(DISTINCT service_point_id) AS service_points FROM anomaly.flag "
        "WHERE billing_day BETWEEN $1 AND $2 GROUP BY 1 ORDER BY 2 DESC, 1",
        [first, last],
    )


def known_days(database: Database) -> tuple[date, date] | None:
    """First and last billing day that any landed file touches."""
    (row,) = database.rows("SELECT min(billing_day) AS a, max(billing_day) AS b FROM raw.feed_file_day")
    first, last = row["a"], row["b"]
    return None if first is None else (first, last)


def waiting_days(database: Database) -> list[tuple[date, int]]:
    """Billing days with reads not yet written, and how many."""
    found = database.rows(
        "SELECT billing_day, sum(received)::bigint AS reads FROM raw.feed_file_day WHERE loaded_at IS NULL GROUP BY 1 ORDER BY 1"
    )
    return [(row["billing_day"], int(row["reads"])) for row in found]


def pauses(database: Database) -> list[dict[str, Any]]:
    """Emergency pauses in force."""
    return database.rows(
        "SELECT scope, target, reason, raised_by, raised_at FROM control.emergency_pause WHERE state = 'paused' ORDER BY raised_at"
    )


def statements(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Billing periods that ended with one of some days: statements issued and their sum, accounts that wait, and one
    statement to look at."""
    return database.rows(
        "SELECT p.cycle_id, p.period_end, count(s.statement_id)::int AS issued, coalesce(sum(s.total), 0)::text AS total, coalesce(min(s.currency), '') "
        "AS currency, (SELECT count(DISTINCT e.account_id)::int FROM billing.statement_exception AS e WHERE e.cycle_id = p.cycle_id "
        "AND e.period_start = p.period_start AND e.reason <> 'estimate_streak') AS waiting, coalesce(min(s.statement_id), '') AS example "
        "FROM ref.billing_cycles AS p LEFT JOIN billing.statement AS s USING (cycle_id, period_start) "
        "WHERE p.period_end > $1 AND p.period_end <= $2::date + 1 GROUP BY p.cycle_id, p.period_start, p.period_end ORDER BY 2, 1",
        [first, last],
    )


#: Accounts of a period listed by ``waiting_bills``; a person asks for more by account
MOST_WAITING: Final = 20


def waiting_bills(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Statements of the billing periods that ended with one of some days and wait: account, cycle, period, reason and
    what exactly; the first MOST_WAITING by reason."""
    return database.rows(
        "SELECT e.account_id, e.cycle_id, p.period_start, p.period_end, e.reason, e.detail FROM billing.statement_exception AS e "
        "JOIN ref.billing_cycles AS p USING (cycle_id, period_start) WHERE p.period_end > $1 AND p.period_end <= $2::date + 1 "
        "AND e.reason <> 'estimate_streak' ORDER BY e.reason, p.period_end, e.account_id, e.detail LIMIT $3",
        [first, last, MOST_WAITING],
    )


def waiting_bill(database: Database, account_id: str, cycle_id: str, period_start: date) -> list[tuple[str, str]]:
    """Why the statement of an account's period waits: (reason, what exactly); empty where it does not."""
    found = database.rows(
        "SELECT reason, detail FROM billing.statement_exception WHERE account_id = $1 AND cycle_id = $2 AND period_start = $3 "
        "AND reason <> 'estimate_streak' ORDER BY 1, 2",
        [account_id, cycle_id, period_start],
    )
    return [(row["reason"], row["detail"]) for row in found]
