"""The billing tables: frames in and out of schema ``billing``, and what billing reads of its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres import bring_to as bring
from meter_pipeline.postgres.array_bytes import listed, lists
from meter_pipeline.postgres.copy_binary import copy_frame
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.postgres.reading import made_once, remembered, remembers
from meter_pipeline.sharding import EVERYTHING, KeyRange, KeySet

Connection = psycopg.Connection[Any]

#: The arrays of billing's day tables, by element type.
LISTS: Final = dict.fromkeys(
    (
        "energy",
        "export",
        "peaks",
        "peak_at",
        "energy_to_date",
        "export_to_date",
        "peaks_to_date",
        "peak_at_to_date",
        "register_days",
        "carry",
        "history",
        "amounts",
    ),
    pl.Int64,
)
_REFERENCE: Final[dict[str, str]] = {
    "agreements": "SELECT account_id, service_point_id, tariff_id, cycle_id, valid_from, valid_to FROM ref.agreements "
    "WHERE valid_from <= $1 ORDER BY service_point_id, valid_from",
    "tariffs": "SELECT tariff_id, commodity, version, valid_from, valid_to FROM ref.tariffs ORDER BY tariff_id, version",
    "billing_cycles": "SELECT cycle_id, period_start, period_end FROM ref.billing_cycles ORDER BY cycle_id, period_start",
    "accounts": "SELECT account_id, customer_class FROM ref.accounts ORDER BY account_id",
    "account_values": "SELECT account_id, valid_from, valid_to, customer_class FROM ref.account_values ORDER BY 1, 2",
    "service_attributes": "SELECT service_point_id, attribute, value, valid_from, valid_to FROM ref.service_attributes ORDER BY 1, 2, 4",
    "heat_contents": "SELECT zone_id, valid_from, valid_to, therms_per_ccf::text AS therms_per_ccf FROM ref.heat_contents ORDER BY 1, 2",
    "zone_supplies": "SELECT DISTINCT service_point_id, valid_from, valid_to FROM ref.zone_supplies ORDER BY 1, 2",
}


def lock(connection: Connection) -> None:
    """One billing at a time: a day's charges read the day before and are read by the day after. Released with the
    transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('billing.day'))")


def hold_reference(connection: Connection) -> None:
    """Keep reference data as it is until the transaction ends: a change of it waits, or was committed before. A
    statement can then be rebuilt from the changes whose ledger entries stand before its own. Taken before ``lock``."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended('meter_pipeline reference data', 0))")


#: The same of some service points
_REFERENCE_OF: Final[dict[str, str]] = _REFERENCE | {
    "agreements": "SELECT account_id, service_point_id, tariff_id, cycle_id, valid_from, valid_to FROM ref.agreements "
    "WHERE valid_from <= $1 AND service_point_id = ANY(string_to_array($2, ',')) ORDER BY service_point_id, valid_from",
    "accounts": "SELECT account_id, customer_class FROM ref.accounts WHERE account_id IN (SELECT account_id FROM ref.agreements "
    "WHERE valid_from <= $1 AND service_point_id = ANY(string_to_array($2, ','))) ORDER BY account_id",
    "account_values": "SELECT account_id, valid_from, valid_to, customer_class FROM ref.account_values WHERE account_id IN (SELECT account_id "
    "FROM ref.agreements WHERE valid_from <= $1 AND service_point_id = ANY(string_to_array($2, ','))) ORDER BY 1, 2",
    "service_attributes": "SELECT service_point_id, attribute, value, valid_from, valid_to FROM ref.service_attributes "
    "WHERE valid_from <= $1 AND service_point_id = ANY(string_to_array($2, ',')) ORDER BY 1, 2, 4",
}


def read_reference_of(database: Database, day: date, points: Sequence[str]) -> dict[str, pl.DataFrame]:
    """As read_reference, of some service points. A transaction that is undone reads the rows of every day at once."""
    of = (date.max if remembers(database) else day, ",".join(points))
    return {name: remembered(database, query, of if "$2" in query else ()) for name, query in _REFERENCE_OF.items()}


def read_reference(database: Database, day: date, beside: Database | None = None) -> dict[str, pl.DataFrame]:
    """The reference frames billing joins, by table name; agreements that begin by ``day``.

    ``beside``: a second session, over which the others come while the first brings the agreements, half of all there
    is.
    """

    def some(session: Database, names: list[str]) -> dict[str, pl.DataFrame]:
        return {name: session.read(_REFERENCE[name], [day] if "$1" in _REFERENCE[name] else ()) for name in names}

    first, *rest = _REFERENCE
    if beside is None:
        return some(database, [first, *rest])
    with ThreadPoolExecutor(1, "billing-reference") as pool:
        others = pool.submit(some, beside, rest)
        return some(database, [first]) | others.result()


#: Accounts whose service points are looked up: of more the whole city is read
_MOST_ACCOUNTS: Final = 5_000


def points_of(database: Database, account_ids: Sequence[str]) -> list[str] | None:
    """The service points at which some accounts have agreements, of any day; None for all of the city's."""
    if len(account_ids) > _MOST_ACCOUNTS:
        return None
    query = "SELECT DISTINCT service_point_id FROM ref.agreements WHERE account_id = ANY(string_to_array($1, ',')) ORDER BY 1"
    points: list[str] = remembered(database, query, (",".join(account_ids),))["service_point_id"].to_list()
    return points


def read_documents(database: Database) -> tuple[dict[tuple[str, int], bytes], dict[tuple[str, int], bytes]]:
    """Tariff documents and their SHA-256 by (tariff_id, version)."""
    frame = remembered(
        database,
        "SELECT tariff_id, version, body::text AS body, sha256 FROM ref.tariff_document ORDER BY 1, 2",
    )

    def by_version() -> tuple[dict[tuple[str, int], bytes], dict[tuple[str, int], bytes]]:
        keys = list(zip(frame["tariff_id"].to_list(), frame["version"].to_list(), strict=True))
        bodies = dict(zip(keys, (str(b).encode() for b in frame["body"].to_list()), strict=True))
        return bodies, dict(zip(keys, frame["sha256"].to_list(), strict=True))

    return made_once(database, ("tariff documents",), [frame], by_version)


def read_opening(database: Database) -> date | None:
    """The first day that is billed here; None where every day is."""
    found = remembered(database, "SELECT first_billing_day FROM billing.going_live")["first_billing_day"].to_list()
    return found[0] if found else None


def read_holidays(database: Database) -> frozenset[date]:
    """The utility's holidays."""
    return frozenset(remembered(database, "SELECT holiday FROM ref.holidays")["holiday"].to_list())


def read_frozen(database: Database) -> dict[tuple[str, int], bytes]:
    """Document hashes of the tariff versions something was billed with."""
    frame = database.read("SELECT tariff_id, version, document_sha256 FROM billing.tariff_version")
    return {(t, v): h for t, v, h in frame.iter_rows()}


def read_day(
    database: Database, table: str, day: date, columns: Iterable[str], service_points: Sequence[str] | None = None
) -> pl.DataFrame:
    """A day of a billing table, sorted by service point."""
    if service_points is None:
        return _rows(database, table, columns, "billing_day = $1 ORDER BY service_point_id", [day])
    named = "billing_day = $1 AND service_point_id = ANY(string_to_array($2, ',')) ORDER BY service_point_id"
    return _rows(database, table, columns, named, [day, ",".join(service_points)])


#: Rows of a billing table that are read at once
_MOST_ROWS: Final = 50_000


def read_days(
    database: Database, table: str, span: tuple[date, date], columns: Sequence[str], service_points: Sequence[str]
) -> Iterator[tuple[date, pl.DataFrame]]:
    """As ``read_day``, each day of [first, past) in turn: a statement for as many days as hold _MOST_ROWS rows."""
    day, past = span
    together = max(_MOST_ROWS // max(len(service_points), 1), 1)
    while day < past:
        end = min(day + timedelta(days=together), past)
        found = _rows(
            database,
            table,
            columns,
            "billing_day >= $1 AND billing_day < $2 AND service_point_id = ANY(string_to_array($3, ',')) "
            "ORDER BY billing_day, service_point_id",
            [day, end, ",".join(service_points)],
        )
        of_day = found.partition_by("billing_day", as_dict=True)
        while day < end:
            yield day, of_day.get((day,), found.clear())
            day += timedelta(days=1)


def read_prior(
    database: Database,
    day: date,
    columns: Sequence[str],
    services: pl.DataFrame,
    within: KeyRange | KeySet = EVERYTHING,
) -> pl.DataFrame:
    """The last position before a day of every stretch that began earlier: yesterday's, or the latest one billed.

    ``services``: those of the range ``within``.
    """
    began = services.filter(pl.col("stretch_start") < day)
    if not began.height:
        return _rows(database, "charge_day", columns, "false", [])
    first = began["stretch_start"].min()
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    narrowed, limits = within.where("service_point_id", 2)
    yesterday = _rows(
        database,
        "charge_day",
        columns,
        f"billing_day = $1::date - 1{narrowed} ORDER BY service_point_id",
        [day, *limits],
    )
    behind = began.join(yesterday.select(key), on=key, how="anti")
    if not behind.height or not _any_billed(database, first, day):
        return yesterday
    older = _rows(
        database,
        "charge_day",
        columns,
        "billing_day >= $1 AND billing_day < $2::date - 1 AND service_point_id = ANY(string_to_array($3, ',')) "
        "ORDER BY service_point_id, stretch_start, billing_day DESC",
        [first, day, ",".join(behind["service_point_id"].to_list())],
        distinct="DISTINCT ON (service_point_id, stretch_start) ",
    )
    return pl.concat([yesterday, older.join(behind.select(key), on=key, how="semi")])


def _rows(
    database: Database, table: str, columns: Iterable[str], where: str, parameters: Sequence[object], distinct: str = ""
) -> pl.DataFrame:
    """Rows of a billing table with their arrays as lists. The one way by which LISTS are read: asked for as bytes they
    are made lists here."""
    query = f"SELECT {distinct}{listed(columns, LISTS)} FROM billing.{table} WHERE {where}"
    return lists(database.read(query, parameters), LISTS)


def _any_billed(database: Database, first: object, day: date) -> bool:
    """Whether anything was billed from ``first`` to the day before yesterday; on a utility's first day nothing was, and
    accounts need no search by name."""
    query = (
        "SELECT EXISTS (SELECT FROM billing.charge_day WHERE billing_day >= $1 AND billing_day < $2::date - 1) AS found"
    )
    return bool(database.read(query, [first, day])["found"][0])


def later_days(connection: Connection, day: date) -> Iterator[date]:
    """Billed days after one, the first alone and then some at a time: a look at the key for each day, however many
    services were billed on it."""
    yield from _billed_days(connection, day, day + timedelta(days=1))
    last = scalar(connection, "SELECT max(billing_day) FROM billing.determinant_day")
    day += timedelta(days=1)
    while last is not None and day < last:
        past = min(day + timedelta(days=_DAYS_AT_ONCE), last)
        yield from _billed_days(connection, day, past)
        day = past


def _billed_days(connection: Connection, day: date, past: date) -> list[date]:
    """Billed days after ``day`` up to ``past``."""
    rows = connection.execute(
        "SELECT d::date FROM generate_series(%(day)s::date + 1, %(past)s::date, interval '1 day') AS d "
        "WHERE EXISTS (SELECT FROM billing.determinant_day AS b WHERE b.billing_day = d::date) ORDER BY 1",
        {"day": day, "past": past},
    ).fetchall()
    return [found for (found,) in rows]


#: Later days that are looked for together: most often nothing is carried beyond the first
_DAYS_AT_ONCE: Final = 31


def is_billed(connection: Connection, day: date) -> bool:
    """Whether a day has rows already; a day's first load is a plain COPY."""
    found = "SELECT EXISTS (SELECT FROM billing.determinant_day WHERE billing_day = %(day)s) OR EXISTS (SELECT FROM billing.charge_day WHERE billing_day = %(day)s)"
    return bool(scalar(connection, found, {"day": day}))


def load(connection: Connection, table: str, day: date, frame: pl.DataFrame) -> None:
    """COPY rows of a day that has none of them yet."""
    copy_frame(connection, _partition(connection, table, day), frame, frame.columns)


def sealed(connection: Connection, day: date) -> bool:
    """Whether the accounting month of a day is sealed."""
    return bool(
        scalar(
            connection,
            "SELECT EXISTS (SELECT FROM billing.period WHERE status = 'sealed' AND month = date_trunc('month', %s::date))",
            (day,),
        )
    )


def ensure_day(connection: Connection, day: date) -> None:
    """Make the partitions that hold a day."""
    connection.execute("SELECT billing.ensure_partitions(%s)", (day,))


def _partition(connection: Connection, table: str, day: date) -> sql.Identifier:
    """The table a day's rows lie in. Named outright a COPY writes whole pages; through a parent with statement triggers
    it writes row by row. The sealed-month triggers stand on each partition too. A month whose partition was there
    before the roles were last defined has no rights of its own (only its parent has): then it is the parent."""
    month = f"{table}_{day:%Y%m}"
    may = "SELECT to_regclass(%(t)s) IS NOT NULL AND has_table_privilege(to_regclass(%(t)s), 'INSERT')"
    return sql.Identifier("billing", month if scalar(connection, may, {"t": f"billing.{month}"}) else table)


def replaced(connection: Connection, day: date) -> dict[str, int]:
    """How many rows of a day's charges and determinants the caller's transaction has replaced or taken out, by the
    table that keeps them."""
    counts: dict[str, int] = {}
    for table in ("billing.charge_day_version", "billing.determinant_day_version"):
        query = sql.SQL("SELECT count(*) FROM {} WHERE billing_day = %s AND replaced_by = pg_current_xact_id()")
        found = connection.execute(query.format(sql.Identifier(*table.split("."))), (day,)).fetchone()
        counts[table] = int(found[0]) if found else 0
    return counts


def bring_to(
    connection: Connection,
    table: str,
    day: date,
    frame: pl.DataFrame,
    key: Sequence[str],
    *,
    only: Sequence[str] | None = None,
) -> list[str]:
    """Bring a day of a table to exactly ``frame``: equal rows untouched, changed ones upserted, vanished ones deleted.

    ``only``: service points concerned; others stay as they are. Returns the service points written or deleted. A day's
    first load is a plain COPY.
    """
    if only is None and not scalar(
        connection, f"SELECT EXISTS (SELECT FROM billing.{table} WHERE billing_day = %s)", (day,)
    ):
        load(connection, table, day, frame)
        return frame["service_point_id"].to_list()
    values = {"day": day, "only": None if only is None else list(only)}
    return sorted(bring.bring_to(connection, f"billing.{table}", frame, tuple(key), values, named=True).points)


def write_tariff(connection: Connection, row: dict[str, Any], at: datetime) -> bool:
    """Freeze a tariff version on its first use. Returns whether it is new."""
    columns = [*row, "first_used_at"]
    result = connection.execute(
        sql.SQL(
            "INSERT INTO billing.tariff_version ({}) VALUES ({}) ON CONFLICT (tariff_id, version) DO NOTHING"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        ),
        [*row.values(), at],
    )
    return result.rowcount == 1


def next_revisions(
    connection: Connection, day: date, rows: Sequence[tuple[str, str, str]], month: date, at: datetime
) -> list[str]:
    """Keep later determinants of a sealed day beside it: (service point, determinants, exceptions), both as JSON.
    Returns the service points of the rows that were written."""
    written = []
    for service_point, determinants, exceptions in rows:
        new = connection.execute(
            "INSERT INTO billing.determinant_revision (billing_day, service_point_id, revision, posting_month, recorded_at, determinants, exceptions) "
            "SELECT %(d)s, %(s)s, coalesce(max(revision), 0) + 1, %(m)s, %(t)s, %(r)s::jsonb, %(e)s::jsonb FROM billing.determinant_revision "
            "WHERE billing_day = %(d)s AND service_point_id = %(s)s "
            "HAVING (array_agg(determinants ORDER BY revision DESC))[1] IS DISTINCT FROM %(r)s::jsonb "
            "OR (array_agg(exceptions ORDER BY revision DESC))[1] IS DISTINCT FROM %(e)s::jsonb",
            {"d": day, "s": service_point, "m": month, "t": at, "r": determinants, "e": exceptions},
        ).rowcount
        if new:
            written.append(service_point)
    return written


def exceptions_of(database: Database, day: date) -> list[tuple[str, str, str]]:
    """A day's exceptions as stored: (service point, reason, detail)."""
    found = database.read(
        "SELECT service_point_id, reason, detail FROM billing.exception_day WHERE billing_day = $1 ORDER BY 1, 2, 3",
        [day],
    )
    return [(point, reason, detail) for point, reason, detail in found.iter_rows()]


def revised(connection: Connection, day: date) -> set[str]:
    """Service points with determinants beside a sealed day."""
    found = connection.execute(
        "SELECT DISTINCT service_point_id FROM billing.determinant_revision WHERE billing_day = %s", (day,)
    )
    return {str(point) for (point,) in found}


def open_month(connection: Connection, day: date) -> date:
    """The first accounting month from a day's on that is not sealed."""
    month = scalar(
        connection,
        "SELECT m::date FROM generate_series(date_trunc('month', %s::date), date_trunc('month', %s::date) + interval '50 years', "
        "interval '1 month') AS m WHERE NOT EXISTS (SELECT FROM billing.period AS p WHERE p.month = m AND p.status = 'sealed') ORDER BY m LIMIT 1",
        (day, day),
    )
    assert isinstance(month, date)  # noqa: S101 - fifty years are never all sealed
    return month
