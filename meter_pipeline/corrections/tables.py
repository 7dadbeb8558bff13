"""What corrections read and write: reference rows before and after, stored days, statements and their money."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from meter_pipeline.billing.back_billing import tables as policies
from meter_pipeline.billing.back_billing.rules import Rule
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference.history import key_of
from meter_pipeline.reference.tables import last_change, record_time
from meter_pipeline.schemas.reference import TABLES

Connection = psycopg.Connection[Any]

#: Tables of daily observations: a new row of one moves no figure, so they may go on while people decide.
OBSERVED: Final = ("weather", "weather_stations")


def agreements(connection: Connection, column: str, values: Sequence[str] | None) -> pl.DataFrame:
    """Agreements as they are and as they were before the caller's transaction, of which ``column`` has one of some
    values (None: all): service_point_id, account_id, tariff_id, cycle_id, valid_from, valid_to."""
    query = sql.SQL(
        "SELECT service_point_id, account_id, tariff_id, cycle_id, valid_from, valid_to FROM ref.agreements "
        "WHERE %(v)s::text[] IS NULL OR {c} = ANY(%(v)s) UNION SELECT service_point_id, account_id, tariff_id, cycle_id, valid_from, valid_to "
        "FROM ref.agreements_version WHERE known_until = %(t)s AND (%(v)s::text[] IS NULL OR {c} = ANY(%(v)s))"
    ).format(c=sql.Identifier(column))
    found = connection.execute(query, {"v": None if values is None else list(values), "t": record_time(connection)})
    return pl.DataFrame(
        found.fetchall(),
        schema={
            "service_point_id": pl.String,
            "account_id": pl.String,
            "tariff_id": pl.String,
            "cycle_id": pl.String,
            "first": pl.Date,
            "past": pl.Date,
        },
        orient="row",
    )


def installations(
    connection: Connection, column: str, values: Sequence[str]
) -> list[tuple[str, str, datetime, datetime | None]]:
    """Where meters stand and stood, now and before the caller's transaction: service point, meter, installed, removed.
    ``column``: meter_id, or head_end of its meters."""
    of = (
        "meter_id = ANY(%(v)s)"
        if column == "meter_id"
        else (
            "meter_id IN (SELECT meter_id FROM ref.meters WHERE head_end = ANY(%(v)s) UNION "
            "SELECT meter_id FROM ref.meter_values WHERE head_end = ANY(%(v)s) UNION "
            "SELECT meter_id FROM ref.meters_version WHERE known_until = %(t)s AND head_end = ANY(%(v)s))"
        )
    )
    query = (
        f"SELECT service_point_id, meter_id, installed_at, removed_at FROM ref.installations WHERE {of} UNION "
        f"SELECT service_point_id, meter_id, installed_at, removed_at FROM ref.installations_version WHERE known_until = %(t)s AND {of}"
    )
    return connection.execute(query.encode(), {"v": list(values), "t": record_time(connection)}).fetchall()


def gas_services(connection: Connection) -> pl.DataFrame:
    """Services on tariffs of gas, as they are and as they were before the caller's transaction: service_point_id,
    first, past."""
    found = connection.execute(
        "WITH gas AS (SELECT DISTINCT tariff_id FROM ref.tariffs WHERE commodity = 'gas') SELECT service_point_id, valid_from, valid_to "
        "FROM ref.agreements JOIN gas USING (tariff_id) UNION SELECT service_point_id, valid_from, valid_to FROM ref.agreements_version "
        "JOIN gas USING (tariff_id) WHERE known_until = %s",
        (record_time(connection),),
    ).fetchall()
    return pl.DataFrame(found, schema={"service_point_id": pl.String, "first": pl.Date, "past": pl.Date}, orient="row")


def heat_zones(connection: Connection) -> pl.DataFrame:
    """The heat zones that services name, now and before the caller's transaction: service_point_id, zone_id, first,
    past."""
    found = connection.execute(
        "SELECT service_point_id, upper(btrim(value)), valid_from, valid_to FROM ref.service_attributes WHERE attribute = 'heat_zone' UNION "
        "SELECT service_point_id, upper(btrim(value)), valid_from, valid_to FROM ref.service_attributes_version "
        "WHERE attribute = 'heat_zone' AND known_until = %s",
        (record_time(connection),),
    ).fetchall()
    schema = {"service_point_id": pl.String, "zone_id": pl.String, "first": pl.Date, "past": pl.Date}
    return pl.DataFrame(found, schema=schema, orient="row")


def sharing(connection: Connection, riders: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Which tariffs share riders (``riders``: ids of tariffs.csv, of which some may be riders): rider, tariff, and
    whether a version of the rider goes by the day on which a bill's period ends."""
    return connection.execute(
        "WITH rider AS (SELECT tariff_id, body ->> 'rider_id' AS rider_id, bool_or(body ->> 'by' = 'bill_date') AS by_bill FROM ref.tariff_document "
        "WHERE tariff_id = ANY(%s) AND body ? 'rider_id' GROUP BY 1, 2) SELECT DISTINCT r.tariff_id, d.tariff_id, coalesce(r.by_bill, false) "
        "FROM rider AS r JOIN ref.tariff_document AS d ON d.body @> jsonb_build_object('charges', jsonb_build_array("
        "jsonb_build_object('kind', 'shared', 'rider', r.rider_id))) ORDER BY 1, 2",
        (list(riders),),
    ).fetchall()


def tariff_dates(connection: Connection, tariff_id: str, version: int) -> list[tuple[date, date | None]]:
    """The days a tariff version is valid on."""
    return connection.execute(
        "SELECT valid_from, valid_to FROM ref.tariffs WHERE tariff_id = %s AND version = %s", (tariff_id, version)
    ).fetchall()


def periods(connection: Connection) -> pl.DataFrame:
    """Every billing period: cycle_id, period_start, period_end."""
    rows = connection.execute("SELECT cycle_id, period_start, period_end FROM ref.billing_cycles").fetchall()
    schema = {"cycle_id": pl.String, "period_start": pl.Date, "period_end": pl.Date}
    return pl.DataFrame(rows, schema=schema, orient="row")


def stored_days(connection: Connection) -> list[date]:
    """Billing days that were validated or billed."""
    rows = connection.execute(
        "SELECT billing_day FROM vee.usage_block UNION SELECT billing_day FROM billing.determinant_day "
        "UNION SELECT billing_day FROM billing.exception_day ORDER BY 1"
    ).fetchall()
    return [day for (day,) in rows]


def archived_days(connection: Connection) -> list[date]:
    """Billing days whose tables left the database."""
    rows = connection.execute("SELECT DISTINCT billing_day FROM archive.day_table WHERE state = 'archived' ORDER BY 1")
    return [day for (day,) in rows.fetchall()]


def statements(connection: Connection, pairs: pl.DataFrame) -> tuple[int, int, list[date]]:
    """Of the pairs (service_point_id, billing_day): how many statements still to be issued and how many issued ones
    hold any of them, and the sealed months they lie in."""
    _pairs(connection, pairs)
    try:
        issued = scalar(
            connection,
            "SELECT count(DISTINCT g.statement_id) FROM billing.segment_in_effect AS g JOIN pg_temp.reached AS r USING (service_point_id) "
            "WHERE r.billing_day >= g.segment_start AND r.billing_day < g.segment_end",
        )
        waiting = scalar(
            connection,
            "SELECT count(*) FROM (SELECT DISTINCT d.account_id, d.cycle_id, d.period_start FROM billing.determinant_day AS d "
            "JOIN pg_temp.reached AS r USING (service_point_id, billing_day) WHERE NOT EXISTS (SELECT FROM billing.statement AS s "
            "WHERE s.account_id = d.account_id AND s.cycle_id = d.cycle_id AND s.period_start = d.period_start)) AS open_periods",
        )
        sealed = connection.execute(
            "SELECT month FROM billing.period WHERE status = 'sealed' AND month IN "
            "(SELECT DISTINCT date_trunc('month', billing_day)::date FROM pg_temp.reached) ORDER BY 1"
        ).fetchall()
    finally:
        connection.execute("DROP TABLE pg_temp.reached")
    return int(waiting), int(issued), [month for (month,) in sealed]


def _pairs(connection: Connection, pairs: pl.DataFrame) -> None:
    connection.execute('CREATE TEMP TABLE reached (service_point_id text COLLATE "C", billing_day date)')
    with connection.cursor() as cursor, cursor.copy("COPY pg_temp.reached FROM STDIN") as copy:
        for row in pairs.select("service_point_id", "billing_day").iter_rows():
            copy.write_row(row)
    connection.execute("ANALYZE pg_temp.reached")


#: Statements whose days a change may move: those of the service points from the first day on, since a period carries
#: into the next.
_STATEMENTS: Final = (
    "SELECT DISTINCT s.statement_id, s.account_id, s.total FROM billing.statement AS s JOIN billing.statement_segment AS g USING (statement_id) "
    "WHERE g.service_point_id = ANY(%(p)s) AND s.period_end > %(d)s"
)


def money(connection: Connection, points: Sequence[str], first: date) -> dict[str, tuple[Any, Any]]:
    """By account, what some service points come to from a day on: issued statements with every adjustment that was not
    refused, and the charges of days that no statement holds."""
    rows = connection.execute(
        f"WITH bill AS ({_STATEMENTS}), issued AS (SELECT account_id, sum(total + coalesce((SELECT sum(net) FROM billing.adjustment AS a "
        "WHERE a.statement_id = bill.statement_id AND a.status IN ('requested', 'approved', 'posted')), 0)) AS amount FROM bill GROUP BY 1), "
        "accrued AS (SELECT c.account_id, sum(c.total) / 1000000.0 AS amount FROM billing.charge_day AS c WHERE c.service_point_id = ANY(%(p)s) "
        "AND c.billing_day >= %(d)s AND NOT EXISTS (SELECT FROM billing.segment_in_effect AS g WHERE g.service_point_id = c.service_point_id "
        "AND c.billing_day >= g.segment_start AND c.billing_day < g.segment_end) GROUP BY 1) "
        "SELECT coalesce(i.account_id, a.account_id), coalesce(i.amount, 0), coalesce(a.amount, 0) FROM issued AS i FULL JOIN accrued AS a "
        "ON a.account_id = i.account_id ORDER BY 1".encode(),
        {"p": list(points), "d": first},
    ).fetchall()
    return {account: (issued, accrued) for account, issued, accrued in rows}


def bills_waiting(connection: Connection, points: Sequence[str]) -> list[tuple[str, str]]:
    """Statements of some service points whose correction cannot be worked out yet, and why."""
    return connection.execute(
        "SELECT statement_id, min(coalesce(waits_for, 'its days were not billed again yet')) FROM billing.late_change "
        "WHERE service_point_id = ANY(%s) GROUP BY 1 ORDER BY 1",
        (list(points),),
    ).fetchall()


def has_people(connection: Connection) -> bool:
    """Whether the register of people names anybody."""
    return bool(scalar(connection, "SELECT EXISTS (SELECT FROM control.person)"))


def reference_mark(connection: Connection) -> str:
    """The last change of reference data that a figure may stand on, once this transaction alone may make the next."""
    return last_change(connection, [n for n in (*TABLES, "tariff_document") if n not in OBSERVED])


def state(connection: Connection, points: Sequence[str], first: date | None) -> str:
    """A hash over the stored rows that an impact stands on: usage, charges and bills of some service points from a day
    on, and the sealed months."""
    found = scalar(
        connection,
        "SELECT md5(concat_ws('|', "
        "(SELECT string_agg(month::text, ',' ORDER BY month) FROM billing.period WHERE status = 'sealed'), "
        "(SELECT md5(string_agg(u::text, ',' ORDER BY billing_day, service_point_id, flow, unit)) FROM vee.daily_usage AS u "
        "WHERE service_point_id = ANY(%(p)s) AND billing_day >= %(d)s), "
        "(SELECT md5(string_agg(c::text, ',' ORDER BY billing_day, service_point_id)) FROM billing.charge_day AS c "
        "WHERE service_point_id = ANY(%(p)s) AND billing_day >= %(d)s), "
        f"(SELECT string_agg(statement_id || ' ' || total, ',' ORDER BY statement_id) FROM ({_STATEMENTS}) AS b), "
        "(SELECT string_agg(a.adjustment_id || ' ' || a.status, ',' ORDER BY a.adjustment_id) FROM billing.adjustment AS a "
        f"WHERE a.statement_id IN (SELECT statement_id FROM ({_STATEMENTS}) AS b))))",
        {"p": list(points), "d": first or date.max},
    )
    return str(found)


def note_corrected(connection: Connection, wanted: pl.DataFrame, evidence: bytes, corrected_on: date) -> None:
    """Keep which days a correction asks for (billing_day, its service_point_id), and its day, until they are billed
    again."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO vee.corrected_day (billing_day, evidence, corrected_on, service_points) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(day, evidence, corrected_on, points) for day, points in wanted.iter_rows()],
        )


def keep(connection: Connection, row: Mapping[str, Any]) -> None:
    """Keep a preview under its digest; the same one again is kept as it is."""
    connection.execute(
        "INSERT INTO ref.correction (digest, source, previewed_at, state_sha256, changes, reached, summary, issued_money_changes) VALUES "
        "(%(digest)s, %(source)s, %(at)s, %(state)s, %(changes)s, %(reached)s, %(summary)s, %(issued)s) ON CONFLICT DO NOTHING",
        {**row, **{c: Jsonb(row[c]) for c in ("reached", "summary")}, "changes": Jsonb(row["changes"], dumps=_exact)},
    )


def _exact(value: Any) -> str:
    return str(value)


def kept(connection: Connection, digest: bytes) -> dict[str, Any] | None:
    """A preview by its digest, or None: changes as JSON text."""
    row = connection.execute(
        "SELECT source, state_sha256, changes::text, reached, summary, issued_money_changes, applied_at FROM ref.correction WHERE digest = %s",
        (digest,),
    ).fetchone()
    if row is None:
        return None
    names = ("source", "state", "changes", "reached", "summary", "issued", "applied_at")
    return dict(zip(names, row, strict=True))


def listed(connection: Connection) -> list[tuple[bytes, str, datetime, bool, datetime | None, Any]]:
    """Previews, newest first."""
    return connection.execute(
        "SELECT digest, source, previewed_at, issued_money_changes, applied_at, summary FROM ref.correction ORDER BY previewed_at DESC"
    ).fetchall()


def applied(connection: Connection, digest: bytes, at: datetime) -> None:
    """Note that a preview was made."""
    connection.execute("UPDATE ref.correction SET applied_at = %s WHERE digest = %s", (at, digest))


def rows_as_json(connection: Connection) -> str:
    """What the caller's transaction changed, as one JSON text: [{table, old, new}], exact."""
    found = scalar(
        connection,
        "SELECT coalesce(jsonb_agg(jsonb_build_object('table', table_name, 'old', old - 'known_from', 'new', new - 'known_from') "
        "ORDER BY table_name, coalesce(old, new)::text), '[]')::text FROM ref.changes_at(%s)",
        (record_time(connection),),
    )
    return str(found)


def write(connection: Connection, changes: str) -> None:
    """Make the changes of a preview: rows taken out first, then rows written, a table at a time."""
    tables = [str(t) for t in dict.fromkeys(c["table"] for c in json.loads(changes))]
    for table in sorted(tables, key=[*TABLES, "tariff_document"].index):
        key = sql.SQL(", ").join(map(sql.Identifier, key_of(table)))
        columns = [
            str(c)
            for (c,) in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = format('ref.%%I', %s::text)::regclass AND attnum > 0 AND NOT attisdropped "
                "AND attname <> 'known_from' ORDER BY attnum",
                (table,),
            )
        ]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        sets = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in columns if c not in key_of(table)
        )
        parts = {"t": sql.Identifier("ref", table), "key": key, "names": names}
        of = "SELECT (jsonb_populate_record(NULL::{t}, c -> %(side)s)).* FROM jsonb_array_elements(%(c)s::jsonb) AS c WHERE c ->> 'table' = %(n)s AND "
        given = {"c": changes, "n": table}
        connection.execute(
            sql.SQL(
                "DELETE FROM {t} WHERE ({key}) IN (SELECT {key} FROM (" + of + "c -> 'new' = 'null'::jsonb) AS gone)"
            ).format(**parts),
            {**given, "side": "old"},
        )
        connection.execute(
            sql.SQL(
                "INSERT INTO {t} ({names}) SELECT {names} FROM ("
                + of
                + "c -> 'new' <> 'null'::jsonb) AS fresh ON CONFLICT ({key}) DO "
            ).format(**parts)
            + (sql.SQL("UPDATE SET {}").format(sets) if sets.as_string(None) else sql.SQL("NOTHING")),
            {**given, "side": "new"},
        )
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    connection.execute("SET CONSTRAINTS ALL DEFERRED")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a statement was issued, in the orders that the database itself keeps: the record time of the last change of
    reference data before its ledger entry, its transaction, and the adjustments of its account that were posted later.
    ``revised``: whether days of it were sealed with later determinants by then."""

    account_id: str
    cycle_id: str
    period_start: date
    period_end: date
    lines_sha256: bytes
    known_from: datetime
    transaction: str
    later_adjustments: list[str]
    revised: bool


def moment_of(connection: Connection, statement_id: str) -> Moment | None:
    """The moment of a statement; None for an unknown one."""
    row = connection.execute(
        "SELECT s.account_id, s.cycle_id, s.period_start, s.period_end, s.lines_sha256, coalesce((SELECT max(known_from) FROM ref.change_set "
        "WHERE change_set.ledger_entry < e.entry_id), '2000-01-01 00:00:00Z'), e.xid::text, e.entry_id, s.sealed_days_due <> 0 "
        "FROM billing.statement AS s JOIN ledger.entry AS e ON e.entry_id = s.ledger_entry WHERE s.statement_id = %s",
        (statement_id,),
    ).fetchone()
    if row is None:
        return None
    account, cycle, start, end, lines, known, transaction, entry, revised = row
    later = connection.execute(
        "SELECT a.adjustment_id FROM billing.adjustment AS a WHERE a.account_id = %s AND a.status = 'posted' AND EXISTS "
        "(SELECT FROM ledger.entry AS e WHERE e.kind = 'adjustment_posted' AND e.entry_id > %s "
        "AND convert_from(e.body, 'UTF8')::jsonb -> 'body' ->> 'adjustment_id' = a.adjustment_id) ORDER BY 1",
        (account, entry),
    ).fetchall()
    return Moment(
        account, cycle, start, end, bytes(lines), known, transaction, [str(name) for (name,) in later], revised
    )


def issued_lines(database: Database, statement_id: str) -> pl.DataFrame:
    """A statement's lines as issued: line_no, line_key, amount in millionths."""
    return database.read(
        "SELECT line_no, line_key, (amount * 1000000)::bigint AS amount FROM billing.statement_line WHERE statement_id = $1 ORDER BY 1",
        [statement_id],
    )


@dataclass(frozen=True, slots=True)
class LinePlace:
    """Where a line of a statement stands: its service point, account, tariff version and days [start, end)."""

    service_point_id: str
    account_id: str
    tariff_id: str
    segment_start: date
    segment_end: date


def line_place(connection: Connection, statement_id: str, line_no: int) -> LinePlace | None:
    """Where a line stands; None for an unknown one."""
    row = connection.execute(
        "SELECT l.service_point_id, s.account_id, l.tariff_id, l.segment_start, l.segment_end FROM billing.statement_line AS l "
        "JOIN billing.statement AS s USING (statement_id) WHERE statement_id = %s AND line_no = %s",
        (statement_id, line_no),
    ).fetchone()
    return None if row is None else LinePlace(*row)


#: Reference rows behind a line: table -> which of its rows
_BEHIND: Final = {
    "service_points": "service_point_id = %(p)s",
    "service_attributes": "service_point_id = %(p)s",
    "heat_contents": "zone_id IN (SELECT upper(btrim(value)) FROM ref.service_attributes_as_of(%(i)s) WHERE service_point_id = %(p)s "
    "AND attribute = 'heat_zone' UNION SELECT '*') AND EXISTS (SELECT FROM ref.tariffs_as_of(%(i)s) WHERE tariff_id = %(t)s AND commodity = 'gas')",
    "agreements": "service_point_id = %(p)s AND account_id = %(a)s",
    "validation_thresholds": "true",
    "accounts": "account_id = %(a)s",
    "account_values": "account_id = %(a)s",
    "tariffs": "tariff_id = %(t)s",
    "installations": "service_point_id = %(p)s",
    "meters": "meter_id IN (SELECT meter_id FROM ref.installations_as_of(%(i)s) WHERE service_point_id = %(p)s)",
    "meter_values": "meter_id IN (SELECT meter_id FROM ref.installations_as_of(%(i)s) WHERE service_point_id = %(p)s)",
    "channels": "meter_id IN (SELECT meter_id FROM ref.installations_as_of(%(i)s) WHERE service_point_id = %(p)s)",
    "channel_values": "meter_id IN (SELECT meter_id FROM ref.installations_as_of(%(i)s) WHERE service_point_id = %(p)s)",
}


def rows_behind(connection: Connection, line: LinePlace, instant: datetime) -> dict[str, list[dict[str, Any]]]:
    """Reference rows of a line's service point, account and tariff as known at an instant, by table."""
    values = {"p": line.service_point_id, "a": line.account_id, "t": line.tariff_id, "i": instant}
    with connection.cursor(row_factory=dict_row) as cursor:
        return {
            name: cursor.execute(
                f"SELECT * FROM ref.{name}_as_of(%(i)s) WHERE {of} ORDER BY {', '.join(key_of(name))}".encode(), values
            ).fetchall()
            for name, of in _BEHIND.items()
        }


@dataclass(frozen=True, slots=True)
class MeterTest:
    """A stored meter test with what its correction stands on: the meter's commodity, the class of the account served on
    its day, when it was installed where it stood then, its ``earlier`` tests (day, percent), its billed channels with
    what counts on days without a dated value, its dated values, and all back-billing rules."""

    meter_id: str
    tested_on: date
    percent: Decimal
    wrong_since: date | None
    wrong_until: date | None
    commodity: str
    customer_class: str
    installed_at: datetime
    earlier: list[tuple[date, Decimal]]
    channels: list[tuple[str, Decimal]]
    values: list[dict[str, Any]]
    rules: list[Rule]


def meter_test(connection: Connection, meter_id: str, tested_on: date) -> MeterTest | None:
    """A stored test; None where there is none, or where the meter stood nowhere on its day."""
    given = {"m": meter_id, "d": tested_on}
    row = connection.execute(
        "SELECT t.percent_registration, t.wrong_since, t.wrong_until, m.commodity, coalesce((SELECT coalesce(v.customer_class, c.customer_class) "
        "FROM ref.agreements AS a JOIN ref.accounts AS c USING (account_id) LEFT JOIN ref.account_values AS v ON v.account_id = c.account_id "
        "AND v.valid_from <= %(d)s AND (v.valid_to IS NULL OR v.valid_to > %(d)s) WHERE a.service_point_id = i.service_point_id AND a.valid_from <= %(d)s "
        "ORDER BY a.valid_from DESC LIMIT 1), ''), i.installed_at FROM ref.meter_tests AS t JOIN ref.meters AS m USING (meter_id) "
        "JOIN LATERAL (SELECT * FROM ref.installations AS i WHERE i.meter_id = t.meter_id AND i.installed_at::date <= %(d)s "
        "ORDER BY installed_at DESC LIMIT 1) AS i ON true WHERE t.meter_id = %(m)s AND t.tested_on = %(d)s",
        given,
    ).fetchone()
    if row is None:
        return None
    percent, since, until, commodity, customer_class, installed_at = row
    earlier = connection.execute(
        "SELECT tested_on, percent_registration FROM ref.meter_tests WHERE meter_id = %(m)s AND tested_on < %(d)s ORDER BY 1",
        given,
    ).fetchall()
    channels = connection.execute(
        "SELECT channel, CASE kind WHEN 'register' THEN multiplier ELSE 1 END FROM ref.channels WHERE meter_id = %(m)s AND flow <> 'other' ORDER BY 1",
        given,
    ).fetchall()
    with connection.cursor(row_factory=dict_row) as cursor:
        names = ", ".join(TABLES["channel_values"].columns)
        query = f"SELECT {names} FROM ref.channel_values WHERE meter_id = %(m)s ORDER BY channel, valid_from"
        values = cursor.execute(query.encode(), given).fetchall()
    beside = earlier, channels, values, policies.rules(connection)
    return MeterTest(meter_id, tested_on, percent, since, until, commodity, customer_class, installed_at, *beside)


def progress(connection: Connection, digest: bytes) -> tuple[int, int]:
    """Of the days a correction asked for: how many wait, and how many there are."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE done_at IS NULL), count(*) FROM vee.true_up WHERE evidence = %s", (digest,)
    ).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def pending_request(connection: Connection, action: str, subject: str, now: datetime) -> dict[str, Any] | None:
    """The request that waits for a second person, or None."""
    row = connection.execute(
        "SELECT request_id, requested_by, requested_at, expires_at, reason FROM control.dual_request AS r WHERE action = %s AND subject = %s "
        "AND expires_at > %s AND NOT EXISTS (SELECT FROM control.dual_decision AS d WHERE d.request_id = r.request_id) ORDER BY 1 DESC LIMIT 1",
        (action, subject, now),
    ).fetchone()
    names = ("request_id", "requested_by", "requested_at", "expires_at", "reason")
    return None if row is None else dict(zip(names, row, strict=True))
