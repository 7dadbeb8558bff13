"""Statements in and out of the store."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.billing.tables.days import read_day
from meter_pipeline.postgres.database import Database, scalar

Connection = psycopg.Connection[Any]


def period(database: Database, cycle_id: str, period_end: date) -> date | None:
    """First day of the cycle's period that ends on a day."""
    with database.connect("billing") as connection:
        found = scalar(
            connection,
            "SELECT period_start FROM ref.billing_cycles WHERE cycle_id = %s AND period_end = %s",
            (cycle_id, period_end),
        )
    return found if isinstance(found, date) else None


def issued_accounts(database: Database, cycle_id: str, period_start: date) -> set[str]:
    """Accounts whose statement of the period is issued."""
    return set(
        database.read(
            "SELECT account_id FROM billing.statement WHERE cycle_id = $1 AND period_start = $2",
            [cycle_id, period_start],
        )["account_id"].to_list()
    )


def charge_totals(
    database: Database, cycle_id: str, first: date, past: date, accounts: Sequence[str] | None = None
) -> pl.DataFrame:
    """Per service point, account, tariff and version: days billed and their money. ``accounts``: some of the cycle's
    only."""
    narrowed = "" if accounts is None else "AND c.account_id = ANY(string_to_array($4, ',')) "
    return database.read(
        "SELECT c.service_point_id, c.account_id, c.tariff_id, c.tariff_version, c.stretch_start, count(*)::int AS billed_days, "
        "sum(c.total)::bigint AS accrued FROM billing.charge_day AS c WHERE c.cycle_id = $1 AND c.billing_day >= $2 AND c.billing_day < $3 "
        f"{narrowed}GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 5, 4",
        [cycle_id, first, past] if accounts is None else [cycle_id, first, past, ",".join(accounts)],
    )


def day_exceptions(database: Database, first: date, past: date) -> pl.DataFrame:
    """What stands against billing days of a range: billing_day, service_point_id, account_id, reason, detail. Days
    without usage where no meter stands (no_usage) do not. A later version of a day in a sealed month has its own."""
    return database.read(
        """
        WITH later AS (
            SELECT DISTINCT ON (billing_day, service_point_id) billing_day, service_point_id, exceptions FROM billing.determinant_revision
            WHERE billing_day >= $1 AND billing_day < $2 ORDER BY billing_day, service_point_id, revision DESC)
        SELECT e.billing_day, e.service_point_id, e.account_id, e.reason, e.detail FROM billing.exception_day AS e
        WHERE e.billing_day >= $1 AND e.billing_day < $2 AND e.reason <> 'no_usage'
            AND NOT EXISTS (SELECT FROM later AS l WHERE l.billing_day = e.billing_day AND l.service_point_id = e.service_point_id
                AND l.exceptions IS NOT NULL)
        UNION ALL
        SELECT l.billing_day, l.service_point_id, NULL, x ->> 0, x ->> 1 FROM later AS l CROSS JOIN LATERAL jsonb_array_elements(l.exceptions) AS x
        WHERE x ->> 0 <> 'no_usage' ORDER BY 1, 2, 4, 5
        """,
        [first, past],
    )


def true_up_days(database: Database, first: date, past: date) -> pl.DataFrame:
    """Days of a range that will be validated again (a request waits, or reads came since they were), or that were and
    are not billed since: billing_day, service_point_id (null where everyone's day is) and ``what``: validated or
    billed."""
    return database.read(
        "SELECT DISTINCT t.billing_day, s.service_point_id, 'validated' AS what FROM vee.true_up AS t "
        "LEFT JOIN LATERAL unnest(t.service_points) AS s (service_point_id) ON true "
        "WHERE t.done_at IS NULL AND t.billing_day >= $1 AND t.billing_day < $2 "
        "UNION SELECT c.billing_day, p.service_point_id, 'billed' FROM vee.usage_change AS c JOIN billing.usage_seen AS b USING (billing_day) "
        "LEFT JOIN LATERAL unnest(c.service_points) AS p (service_point_id) ON true "
        "WHERE c.change_id > b.change_id AND c.billing_day >= $1 AND c.billing_day < $2 "
        "UNION SELECT m.billing_day, i.service_point_id, 'validated' FROM raw.touched_meter AS m JOIN ref.installations AS i USING (meter_id) "
        "WHERE m.read_day = m.billing_day AND m.billing_day >= $1 AND m.billing_day < $2 "
        "AND EXISTS (SELECT FROM vee.usage_block AS u WHERE u.billing_day = m.billing_day) ORDER BY 1, 2, 3",
        [first, past],
    )


def first_billed_day(database: Database) -> date | None:
    """The first day that was ever billed here."""
    found: date | None = database.read("SELECT min(billing_day) AS day FROM billing.charge_day")["day"][0]
    return found


def settled_accounts(database: Database, periods: Sequence[tuple[str, date]]) -> pl.DataFrame:
    """Accounts whose bill of some periods (cycle_id, period_start) is issued or was left to the legacy batch:
    account_id, cycle_id, period_start."""
    cycles, starts = ",".join(c for c, _ in periods), ",".join(s.isoformat() for _, s in periods)
    return database.read(
        "WITH wanted AS (SELECT * FROM unnest(string_to_array($1, ','), string_to_array($2, ',')::date[]) AS w (cycle_id, period_start)) "
        "SELECT s.account_id, s.cycle_id, s.period_start FROM billing.statement AS s JOIN wanted USING (cycle_id, period_start) UNION "
        "SELECT e.account_id, e.cycle_id, e.period_start FROM billing.statement_exception AS e JOIN wanted USING (cycle_id, period_start) "
        "WHERE e.reason = 'billed_by_legacy' ORDER BY 1, 2, 3",
        [cycles, starts],
    )


_WAITING = (
    "FROM billing.statement_exception AS e JOIN ref.billing_cycles AS p USING (cycle_id, period_start) "
    "WHERE e.reason NOT IN ('estimate_streak', 'billed_by_legacy') "
)


def waits_for_removed_period(database: Database) -> bool:
    """Whether any account waits for the bill of a period, or has an estimated bill that is not out of one, that
    reference data does not have any more."""
    gone = "NOT EXISTS (SELECT FROM ref.billing_cycles AS p WHERE p.cycle_id = e.cycle_id AND p.period_start = e.period_start)"
    return bool(
        database.read(
            f"SELECT EXISTS (SELECT FROM billing.statement_exception AS e WHERE e.reason <> 'billed_by_legacy' AND {gone}) "
            f"OR EXISTS (SELECT FROM billing.estimated_bill AS e WHERE {gone} AND NOT EXISTS (SELECT FROM billing.statement AS s "
            "WHERE s.account_id = e.account_id AND s.cycle_id = e.cycle_id AND s.period_start = e.period_start)) AS found"
        )["found"][0]
    )


def drop_removed_periods(connection: Connection) -> None:
    """Take out why accounts wait for the bills of periods that reference data does not have any more. That the legacy
    batch billed one is kept."""
    connection.execute(
        "DELETE FROM billing.statement_exception AS e WHERE e.reason <> 'billed_by_legacy' AND NOT EXISTS "
        "(SELECT FROM ref.billing_cycles AS p WHERE p.cycle_id = e.cycle_id AND p.period_start = e.period_start)"
    )


def waiting_before(database: Database, cycle_id: str, first: date, past: date) -> list[tuple[str, date, list[str]]]:
    """Periods that ended by ``first`` and still have accounts waiting that are on the cycle in [first, past): cycle,
    period_end and those accounts, oldest first."""
    found = database.read(
        f"SELECT e.cycle_id, p.period_end, array_agg(DISTINCT e.account_id) AS accounts {_WAITING} AND p.period_end <= $2 "
        "AND EXISTS (SELECT FROM ref.agreements AS a WHERE a.account_id = e.account_id AND a.cycle_id = $1 AND a.valid_from < $3 "
        "AND (a.valid_to IS NULL OR a.valid_to > $2)) GROUP BY 1, 2 ORDER BY 2, 1",
        [cycle_id, first, past],
    )
    return [(c, e, a) for c, e, a in found.iter_rows()]


def waiting_for(database: Database, accounts: Sequence[str], past: date) -> list[tuple[str, date, list[str]]]:
    """Periods in which some accounts wait for an earlier statement and that had ended by ``past``: as
    waiting_before.
    """
    found = database.read(
        f"SELECT e.cycle_id, p.period_end, array_agg(DISTINCT e.account_id) AS accounts {_WAITING} AND e.reason = 'earlier_statement' "
        "AND e.account_id = ANY(string_to_array($1, ',')) AND p.period_end <= $2 GROUP BY 1, 2 ORDER BY 2, 1",
        [",".join(accounts), past],
    )
    return [(c, e, a) for c, e, a in found.iter_rows()]


def waiting_periods(database: Database, past: date) -> list[tuple[str, date, list[str]]]:
    """Every period that ended by a day and still has accounts waiting: as waiting_before."""
    found = database.read(
        f"SELECT e.cycle_id, p.period_end, array_agg(DISTINCT e.account_id) AS accounts {_WAITING} AND p.period_end <= $1 GROUP BY 1, 2 ORDER BY 2, 1",
        [past],
    )
    return [(c, e, a) for c, e, a in found.iter_rows()]


def determinant_totals(database: Database, cycle_id: str, first: date, past: date) -> pl.DataFrame:
    """Per service point, stretch and version: intervals summed and estimates among them."""
    return database.read(
        "SELECT service_point_id, stretch_start, tariff_version, sum(slots)::bigint AS slots, sum(estimated)::bigint AS estimated "
        "FROM billing.determinant_day WHERE cycle_id = $1 AND billing_day >= $2 AND billing_day < $3 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        [cycle_id, first, past],
    )


def determinant_counts(database: Database, first: date, past: date, points: Sequence[str]) -> pl.DataFrame:
    """Intervals and estimates of some service points, day by day: service_point_id, billing_day, slots, estimated."""
    return database.read(
        "SELECT service_point_id, billing_day, slots::bigint AS slots, estimated::bigint AS estimated FROM billing.determinant_day "
        "WHERE billing_day >= $1 AND billing_day < $2 AND service_point_id = ANY(string_to_array($3, ','))",
        [first, past, ",".join(sorted(set(points)))],
    )


def positions(database: Database, days: Sequence[date], columns: Sequence[str]) -> pl.DataFrame:
    """Charge rows of some days."""
    return pl.concat([read_day(database, "charge_day", day, columns) for day in sorted(set(days))])


def held_service_points(database: Database, first: date, past: date) -> pl.DataFrame:
    """Service points whose bill waits for a person or for right data: service_point_id and ``held``, what it waits for.
    Empty where detection is not installed."""
    with database.connect("billing") as connection:
        known = scalar(connection, "SELECT to_regclass('anomaly.bill_hold') IS NOT NULL")
    if not known:
        return pl.DataFrame(schema={"service_point_id": pl.String, "held": pl.String})
    return database.read(
        "SELECT service_point_id, string_agg(said, '; ' ORDER BY said) AS held FROM (SELECT service_point_id, CASE WHEN case_id LIKE 'validation-%' "
        "THEN string_agg(DISTINCT kind, ', ') || ' on ' || count(DISTINCT first_day) || ' day(s) from ' || min(first_day) || ', ' ELSE '' END || "
        "'case ' || case_id AS said FROM anomaly.bill_hold WHERE first_day < $2 AND (last_day IS NULL OR last_day >= $1) "
        "GROUP BY service_point_id, case_id) AS h GROUP BY 1 ORDER BY 1",
        [first, past],
    )


def open_services(database: Database, first: date, past: date, checks: Sequence[str]) -> pl.DataFrame:
    """Service points that an open reconciliation check of days of [first, past) is about: service_point_id (``all``:
    every one), billing_day, joint."""
    return database.read(
        "SELECT service_point_id, billing_day, joint FROM billing.open_service WHERE billing_day >= $1 AND billing_day < $2 "
        "AND joint = ANY(string_to_array($3, ',')) ORDER BY 1, 2, 3",
        [first, past, ",".join(checks)],
    )


def earlier_segments(database: Database, points: Sequence[str], before: date, since: date) -> pl.DataFrame:
    """Peaks and credits of some service points' statements, as corrected since they were issued: what ratchets and net
    metering carry. Segments that ended by ``before``, of periods that ended after ``since``, whatever cycle and tariff
    they were on."""
    return database.read(
        "SELECT g.service_point_id, s.account_id, g.tariff_id, g.tariff_version, s.period_end, g.segment_end, g.peaks, g.carry_out, "
        "g.credit_out FROM billing.effective_segment AS g JOIN billing.statement AS s USING (statement_id) "
        "WHERE g.service_point_id = ANY(string_to_array($1, ',')) AND g.segment_end <= $2 AND s.period_end > $3 ORDER BY 1, g.segment_end",
        [",".join(points), before, since],
    )


def year_so_far(database: Database, cycle_id: str, tariff_id: str, since: date, before: date) -> pl.DataFrame:
    """Per service point and account of a tariff: money (millionths) and days of the statements of periods that began
    after a day and before another, posted corrections included."""
    return database.read(
        "WITH bills AS (SELECT statement_id, account_id FROM billing.statement WHERE cycle_id = $1 AND period_start > $3 AND period_start < $4), "
        "money AS (SELECT b.account_id, l.service_point_id, l.amount FROM bills AS b JOIN billing.statement_line AS l USING (statement_id) "
        "WHERE l.tariff_id = $2 UNION ALL SELECT b.account_id, l.service_point_id, l.amount FROM bills AS b JOIN billing.adjustment AS a "
        "ON a.statement_id = b.statement_id AND a.status = 'posted' AND a.reason NOT IN ('leak', 'policy') "
        "JOIN billing.adjustment_line AS l USING (adjustment_id) WHERE l.tariff_id = $2), "
        "served AS (SELECT b.account_id, g.service_point_id, sum(g.segment_end - g.segment_start)::bigint AS year_days FROM bills AS b "
        "JOIN billing.statement_segment AS g USING (statement_id) WHERE g.tariff_id = $2 GROUP BY 1, 2) "
        "SELECT s.service_point_id, s.account_id, $2::text AS tariff_id, (sum(coalesce(m.amount, 0)) * 1000000)::bigint AS year_lines, "
        "s.year_days FROM served AS s LEFT JOIN money AS m USING (service_point_id, account_id) GROUP BY 1, 2, 3, 5 ORDER BY 1, 2",
        [cycle_id, tariff_id, since, before],
    )


def left_credit(database: Database) -> pl.DataFrame:
    """Credit that last bills left and that no later bill takes in (analyst.left_credit)."""
    return database.read(
        "SELECT account_id, service_point_id, tariff_id, left_on, units::text AS units, money::text AS money, currency, statement_id, "
        "other_service FROM analyst.left_credit ORDER BY left_on, account_id, service_point_id"
    )


def copy_csv(connection: Connection, table: str, frame: pl.DataFrame) -> None:
    """COPY a frame of scalars and array texts; exact decimals travel as text."""
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, null_value="\\N", quote_style="necessary")
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, NULL '\\N')").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(buffer.getvalue())


def array_text(column: str) -> pl.Expr:
    """A list of whole numbers as PostgreSQL writes an array."""
    return pl.concat_str([pl.lit("{"), pl.col(column).cast(pl.List(pl.String)).list.join(","), pl.lit("}")]).alias(
        column
    )


def write_exceptions(
    connection: Connection,
    cycle_id: str,
    period_start: date,
    frame: pl.DataFrame,
    accounts: Sequence[str] | None = None,
) -> None:
    """Replace the period's exceptions, or those of some accounts of it, with a frame of account_id, reason, detail."""
    connection.execute(
        "DELETE FROM billing.statement_exception WHERE cycle_id = %s AND period_start = %s AND (%s::text[] IS NULL OR account_id = ANY(%s))",
        (cycle_id, period_start, accounts, accounts),
    )
    kept = frame if accounts is None else frame.filter(pl.col("account_id").is_in(list(accounts)))
    rows = (
        kept.unique()
        .sort(pl.all())
        .select(
            "account_id",
            pl.lit(cycle_id).alias("cycle_id"),
            pl.lit(period_start).alias("period_start"),
            "reason",
            "detail",
        )
    )
    copy_csv(connection, "billing.statement_exception", rows)


def read_statement(database: Database, statement_id: str) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """A statement's row, lines and segments; money as exact text."""
    head = database.read(
        "SELECT statement_id, account_id, cycle_id, period_start, period_end, revision, kind, posting_month, currency, total::text AS total, "
        "issued_at FROM billing.statement WHERE statement_id = $1",
        [statement_id],
    )
    lines = database.read(
        "SELECT line_no, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, name, component, "
        "quantity::text AS quantity, unit, amount::text AS amount FROM billing.statement_line WHERE statement_id = $1 ORDER BY line_no",
        [statement_id],
    )
    segments = database.read(
        "SELECT service_point_id, tariff_id, tariff_version, segment_start, segment_end, days, unit, energy, peaks, peak_at, slots, estimated "
        "FROM billing.statement_segment WHERE statement_id = $1 ORDER BY service_point_id, segment_start",
        [statement_id],
    )
    return head, lines, segments


def statement_days(database: Database, statement_id: str) -> pl.DataFrame:
    """Usage by day and service point behind a statement, in millionths of the tariff's unit."""
    return database.read(
        "SELECT d.billing_day, d.service_point_id, d.unit, (SELECT sum(e) FROM unnest(d.energy) AS e)::bigint AS quantity, d.estimated > 0 AS estimated "
        "FROM billing.statement AS s JOIN billing.statement_segment AS g USING (statement_id) JOIN billing.determinant_day AS d "
        "ON d.service_point_id = g.service_point_id AND d.billing_day >= g.segment_start AND d.billing_day < g.segment_end "
        "WHERE s.statement_id = $1 ORDER BY 2, 1",
        [statement_id],
    )


_EXPORTED = """
SELECT s.account_id, l.statement_id || '.' || l.line_no AS line_id, s.cycle_id, s.period_start, s.period_end, l.service_point_id,
    l.tariff_id, l.tariff_version, l.line_key, l.name, l.component, l.quantity::text AS quantity, l.unit, l.amount::text AS amount, s.currency,
    'statement' AS entry, s.posting_month, NULL::text AS adjustment_id, NULL::text AS action, NULL::text AS reason
FROM billing.statement AS s JOIN billing.statement_line AS l USING (statement_id) WHERE s.{column} = $1
UNION ALL
SELECT s.account_id, l.adjustment_id || '.' || l.line_no, s.cycle_id, s.period_start, s.period_end, l.service_point_id,
    l.tariff_id, l.tariff_version, l.line_key, l.name, l.component, (CASE WHEN l.action = 'cancel' THEN -l.quantity ELSE l.quantity END)::text,
    l.unit, l.amount::text, s.currency, 'adjustment', a.posting_month, l.adjustment_id, l.action, a.reason
FROM billing.statement AS s JOIN billing.adjustment AS a USING (statement_id) JOIN billing.adjustment_line AS l USING (adjustment_id)
WHERE a.status = 'posted' AND {prefix}.{column} = $1
ORDER BY 1, 16 DESC, 18 NULLS FIRST, line_id
"""


def period_lines(database: Database, period_start: date) -> pl.DataFrame:
    """Every line of the statements of periods that begin on a day, and every line of their posted adjustments
    (``entry`` says which); exact decimals as text. A cancelled line's quantity and amount are negative."""
    return database.read(_EXPORTED.format(column="period_start", prefix="s"), [period_start])


def month_lines(database: Database, month: date) -> pl.DataFrame:
    """Every line posted in a month (its first day), as ``period_lines``: statements and adjustments of any period."""
    return database.read(_EXPORTED.format(column="posting_month", prefix="a"), [month])


def left_to_legacy(connection: Connection, cycle_id: str, period_start: date) -> set[str]:
    """Accounts whose statement of a period was left to the legacy batch when it was first due."""
    rows = connection.execute(
        "SELECT account_id FROM billing.statement_exception WHERE cycle_id = %s AND period_start = %s AND reason = 'billed_by_legacy'",
        (cycle_id, period_start),
    )
    return {str(account) for (account,) in rows}


def cycles_ending(database: Database, period_end: date) -> list[str]:
    """Billing cycles with a period that ends (excluded) on a day."""
    found = database.read("SELECT cycle_id FROM ref.billing_cycles WHERE period_end = $1 ORDER BY 1", [period_end])
    return [str(cycle) for cycle in found["cycle_id"].to_list()]


def unaccounted(database: Database, cycle_id: str, period_start: date) -> list[str]:
    """Accounts charged in a period that have neither a statement nor a recorded reason for none."""
    found = database.read(
        "SELECT DISTINCT c.account_id FROM billing.charge_day c WHERE c.cycle_id = $1 AND c.period_start = $2 "
        "AND NOT EXISTS (SELECT FROM billing.statement s WHERE s.account_id = c.account_id AND s.cycle_id = $1 AND s.period_start = $2) "
        "AND NOT EXISTS (SELECT FROM billing.statement_exception e WHERE e.account_id = c.account_id AND e.cycle_id = $1 AND e.period_start = $2 "
        "AND e.reason <> 'estimate_streak') ORDER BY 1",
        [cycle_id, period_start],
    )
    return [str(account) for account in found["account_id"].to_list()]


def without_reason(database: Database, cycle_id: str, period_start: date, period_end: date) -> list[str]:
    """Accounts with an agreement in a period that have neither a statement nor a recorded reason for none."""
    found = database.read(
        "SELECT DISTINCT a.account_id FROM ref.agreements AS a WHERE a.cycle_id = $1 AND a.valid_from < $3 AND (a.valid_to IS NULL OR a.valid_to > $2) "
        "AND NOT EXISTS (SELECT FROM billing.statement AS s WHERE s.account_id = a.account_id AND s.cycle_id = $1 AND s.period_start = $2) "
        "AND NOT EXISTS (SELECT FROM billing.statement_exception AS e WHERE e.account_id = a.account_id AND e.cycle_id = $1 AND e.period_start = $2) "
        "ORDER BY 1",
        [cycle_id, period_start, period_end],
    )
    return [str(account) for account in found["account_id"].to_list()]


def period_statements(database: Database, cycle_id: str, period_start: date, most: int) -> pl.DataFrame:
    """The first statements of a period: what each comes to, for people."""
    return database.read(
        "SELECT statement_id, account_id, kind, total::text AS total, currency, lines, posting_month FROM billing.statement "
        "WHERE cycle_id = $1 AND period_start = $2 ORDER BY 1 LIMIT $3",
        [cycle_id, period_start, most],
    )


def open_checks(database: Database, cycle_id: str, period_start: date) -> list[str]:
    """Reconciliation checks of a period's statements that are open, as last compared."""
    found = database.read(
        "SELECT r.joint || ' ' || r.detail AS said FROM billing.reconciliation AS r JOIN ref.billing_cycles AS p ON r.subject = p.cycle_id "
        "AND r.billing_day = p.period_end - 1 WHERE p.cycle_id = $1 AND p.period_start = $2 AND r.cause = 'open' ORDER BY 1",
        [cycle_id, period_start],
    )
    return [str(message) for message in found["said"].to_list()]
