"""SQL of unbilled revenue: the charges, bills and adjustments it is computed from, and the stored figures of each
month."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres.database import Database

Connection = psycopg.Connection[Any]
#: Posting month of an adjustment that is not posted yet.
NEVER: Final = date(9999, 12, 1)
KEPT: Final = ("billing.journal_line", "billing.unbilled_roll", "billing.unbilled_month")


def is_sealed(database: Database, month: date) -> bool:
    """Whether a month is sealed."""
    found = database.rows("SELECT 1 FROM billing.period WHERE month = $1 AND status = 'sealed'", [month])
    return bool(found)


def horizon(database: Database, month: date) -> date:
    """Returns the first day that can be unbilled at the end of the month before ``month`` or later: the earliest
    unbilled day of the last sealed month, or that month's end; where no month was sealed with its unbilled revenue,
    the first charged day."""
    (row,) = database.rows(
        "WITH last AS (SELECT max(p.month) AS month FROM billing.period AS p WHERE p.status = 'sealed' AND p.month < $1 "
        "AND EXISTS (SELECT FROM billing.unbilled_roll AS r WHERE r.month = p.month)) "
        "SELECT CASE WHEN last.month IS NULL THEN (SELECT min(billing_day) FROM billing.charge_day) "
        "ELSE least((last.month + interval '1 month')::date, (SELECT min(first_day) FROM billing.unbilled_month AS u WHERE u.month = last.month)) END "
        "AS day FROM last",
        [month],
    )
    found: date | None = row["day"]
    return min(found or month, month)


def covered_until(database: Database, month: date, past: date) -> date:
    """The day after the last one that a bill posted by ``month`` covers, at least ``past``."""
    (row,) = database.rows(
        "SELECT max(period_end) AS day FROM billing.statement WHERE posting_month <= $1 AND period_end > $2",
        [month, past],
    )
    return max(past, row["day"] or past)


def charges(database: Database, since: date, first: date, past: date, until: date) -> pl.DataFrame:
    """Charged days of [since, until) summed by service, tariff version and billing period, apart by ``phase``: before
    ``first``, in [first, past), after. Columns a1, a2, ... hold the sums of the day lines, millionths; null where a
    version has fewer."""
    (row,) = database.rows("SELECT coalesce(max(cardinality(day_keys)), 0)::int AS lines FROM billing.tariff_version")
    sums = "".join(f", sum(c.amounts[{k}])::bigint AS a{k}" for k in range(1, row["lines"] + 1))
    return database.read(
        "SELECT c.service_point_id, c.account_id, c.tariff_id, c.tariff_version, c.cycle_id, c.period_start, "
        "CASE WHEN c.billing_day < $2 THEN 'before' WHEN c.billing_day < $3 THEN 'month' ELSE 'after' END AS phase, "
        "count(*)::int AS days, min(c.billing_day) AS first_day, "
        f"sum(c.total)::bigint AS total{sums} FROM billing.charge_day AS c WHERE c.billing_day >= $1 AND c.billing_day < $4 "
        "GROUP BY 1, 2, 3, 4, 5, 6, 7",
        [since, first, past, until],
    )


def layouts(database: Database) -> pl.DataFrame:
    """Component of each day line of each tariff version: tariff_id, tariff_version, at (from 1), component, commodity,
    currency.
    """
    return database.read(
        "SELECT v.tariff_id, v.version AS tariff_version, c.at::int AS at, c.component, v.commodity, v.currency "
        "FROM billing.tariff_version AS v CROSS JOIN LATERAL unnest(v.day_components) WITH ORDINALITY AS c (component, at) ORDER BY 1, 2, 3"
    )


def classes(database: Database, past: date) -> pl.DataFrame:
    """Customer class of each account on the last day before ``past``."""
    return database.read(
        "SELECT a.account_id, coalesce(v.customer_class, a.customer_class) AS customer_class FROM ref.accounts AS a "
        "LEFT JOIN ref.account_values AS v ON v.account_id = a.account_id AND v.valid_from < $1 AND (v.valid_to IS NULL OR v.valid_to >= $1) ORDER BY 1",
        [past],
    )


def bills(database: Database, since: date, month: date, past: date) -> pl.DataFrame:
    """Returns bills posted by ``month`` whose period ends after ``since``: account, period, posting month, the
    charges of their days (``accrued``) and the amounts their period end added by cause, in millionths. ``where``:
    here, or elsewhere for periods that the legacy batch bills, posted in the month of their last day."""
    money = ", ".join(
        f"(s.{column} * 1000000)::bigint AS {column}"
        for column in ("accrued", "total", "period_end_due", "credit_carried", "ratchet_due", "year_end_due")
    )
    nothing = ", ".join("0::bigint" for _ in range(7))
    return database.read(
        f"SELECT 'here' AS where, s.account_id, s.cycle_id, s.period_start, s.posting_month, s.statement_id, {money}, "
        "(coalesce(s.sealed_days_due, 0) * 1000000)::bigint AS sealed_days_due FROM billing.statement AS s "
        "WHERE s.period_end > $1 AND s.posting_month <= $2 AND s.revision = 0 UNION ALL "
        "SELECT DISTINCT 'elsewhere', e.account_id, e.cycle_id, e.period_start, date_trunc('month', p.period_end - 1)::date, NULL, "
        f"{nothing} FROM billing.statement_exception AS e JOIN ref.billing_cycles AS p USING (cycle_id, period_start) "
        "WHERE e.reason = 'billed_by_legacy' AND p.period_end > $1 AND p.period_end <= $3 AND NOT EXISTS (SELECT FROM billing.statement AS s "
        "WHERE s.account_id = e.account_id AND s.cycle_id = e.cycle_id AND s.period_start = e.period_start)",
        [since, month, past],
    )


def issued(database: Database, month: date, past: date) -> pl.DataFrame:
    """Lines of statements posted in a month, which ends before ``past``: customer_class on its last day, commodity,
    component, currency, amount in millionths."""
    return database.read(
        "SELECT coalesce(c.customer_class, a.customer_class) AS customer_class, v.commodity, l.component, s.currency, (sum(l.amount) * 1000000)::bigint AS amount "
        "FROM billing.statement_line AS l JOIN billing.statement AS s USING (statement_id) JOIN ref.accounts AS a USING (account_id) "
        "LEFT JOIN ref.account_values AS c ON c.account_id = a.account_id AND c.valid_from < $2 AND (c.valid_to IS NULL OR c.valid_to >= $2) "
        "JOIN billing.tariff_version AS v ON v.tariff_id = l.tariff_id AND v.version = l.tariff_version "
        "WHERE s.posting_month = $1 GROUP BY 1, 2, 3, 4",
        [month, past],
    )


def adjustments(database: Database, before: date, month: date) -> pl.DataFrame:
    """Lines of adjustments that are posted after ``before`` or wait for a decision, of bills posted by ``month``,
    summed by component, millionths. ``posted``: month the adjustment is posted in; ``bill_posted``: its bill's."""
    return database.read(
        "SELECT a.statement_id, a.account_id, s.posting_month AS bill_posted, "
        f"CASE WHEN a.status = 'posted' THEN a.posting_month ELSE '{NEVER}'::date END AS posted, l.service_point_id, v.commodity, l.component, "
        "s.currency, min(l.segment_start) AS first_day, (sum(l.amount) * 1000000)::bigint AS amount "
        "FROM billing.adjustment AS a JOIN billing.adjustment_line AS l USING (adjustment_id) JOIN billing.statement AS s USING (statement_id) "
        "JOIN billing.tariff_version AS v ON v.tariff_id = l.tariff_id AND v.version = l.tariff_version "
        "WHERE s.posting_month <= $2 AND (a.status IN ('requested', 'approved') OR (a.status = 'posted' AND a.posting_month > $1)) "
        "GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
        [before, month],
    )


def corrected_bills(database: Database, month: date) -> set[str]:
    """Returns bills posted in a month that have an adjustment in any state, or a noted late change."""
    found = database.read(
        "SELECT DISTINCT s.statement_id FROM billing.statement AS s WHERE s.posting_month = $1 AND ("
        "EXISTS (SELECT FROM billing.adjustment AS a WHERE a.statement_id = s.statement_id AND a.reason NOT IN ('leak', 'policy')) "
        "OR EXISTS (SELECT FROM billing.late_change AS c WHERE c.statement_id = s.statement_id))",
        [month],
    )
    return set(found["statement_id"].to_list())


def not_charged(database: Database, month: date, past: date) -> list[dict[str, Any]]:
    """Returns service days of a month without a charge, counted by reason."""
    return database.rows(
        "SELECT reason, count(*) AS service_days, count(DISTINCT service_point_id) AS services FROM billing.exception_day AS e "
        "WHERE billing_day >= $1 AND billing_day < $2 AND reason NOT IN ('no_usage', 'supply_meter') AND NOT EXISTS (SELECT FROM billing.charge_day AS c "
        "WHERE c.billing_day = e.billing_day AND c.service_point_id = e.service_point_id) GROUP BY 1 ORDER BY 2 DESC, 1",
        [month, past],
    )


def accounts_of(database: Database, day: date) -> list[dict[str, Any]]:
    """Returns rows of ref.revenue_accounts in force on a day."""
    return database.rows(
        "SELECT commodity, customer_class, component, revenue_account, receivable_account FROM ref.revenue_accounts "
        "WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1) ORDER BY 1, 2, 3",
        [day],
    )


def stored(database: Database, month: date) -> pl.DataFrame:
    """Returns the unbilled revenue reported at a month's end, by class, commodity, component and currency,
    millionths."""
    return database.read(
        "SELECT customer_class, commodity, component, currency, closing AS amount FROM billing.unbilled_roll WHERE month = $1 AND closing <> 0",
        [month],
    )


def was_reported(database: Database, month: date) -> bool:
    """Whether unbilled revenue of a month is stored."""
    return bool(database.rows("SELECT 1 FROM billing.unbilled_roll WHERE month = $1 LIMIT 1", [month]))


def roll(database: Database, month: date) -> pl.DataFrame:
    """The stored movement of a month."""
    return database.read("SELECT * FROM billing.unbilled_roll WHERE month = $1 ORDER BY 2, 3, 4, 5", [month])


def journal(database: Database, month: date) -> list[dict[str, Any]]:
    """The stored journal of a month."""
    return database.rows(
        "SELECT line_no, entry_date, entry, account_code, debit, credit, currency, description FROM billing.journal_line WHERE month = $1 ORDER BY 1",
        [month],
    )


def accounts_unbilled(database: Database, month: date) -> int:
    """Accounts with unbilled revenue at a month's end."""
    (row,) = database.rows(
        "SELECT count(DISTINCT account_id)::int AS n FROM billing.unbilled_month WHERE month = $1", [month]
    )
    return int(row["n"])


def lock(connection: Connection) -> None:
    """Wait for a seal that is being written, and block new ones until this transaction ends; billing's writers
    continue."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(hashtext('billing.period'))")
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('billing.unbilled'))")


def replace(connection: Connection, month: date, frames: Mapping[str, pl.DataFrame]) -> None:
    """Replace a month's stored rows. The tables refuse it where the month is sealed."""
    for name in KEPT:
        table = sql.Identifier(*name.split("."))
        connection.execute(sql.SQL("DELETE FROM {} WHERE month = %s").format(table), (month,))
        frame = frames[name]
        if not frame.height:
            continue
        buffer = io.BytesIO()
        frame.write_csv(buffer, include_header=False, null_value="\\N", quote_style="necessary")
        copied = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, NULL '\\N')").format(
            table, sql.SQL(", ").join(map(sql.Identifier, frame.columns))
        )
        with connection.cursor() as cursor, cursor.copy(copied) as copy:
            copy.write(buffer.getvalue())
