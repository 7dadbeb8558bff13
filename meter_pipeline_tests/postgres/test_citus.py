"""sql/citus.sql does nothing without the extension, its keys would be accepted with it, and by their plans the queries
of a billing day stay in one shard.

Citus itself is in none of Debian's or PyPI's packages for this server, so nothing here has run on a Citus cluster. What
is checked is what Citus needs: a unique key holds the distribution column, and a join of two distributed tables is on
it, within one colocation group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.anomalies import detect_billing_day
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.ingest import ingest_billing_day, land_inbox
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.end_to_end.utility import SmallUtility
from meter_pipeline_tests.support import ROOT

FILE = ROOT / "sql" / "citus.sql"
TEXT = FILE.read_text("utf-8")
DAY = date(2026, 3, 2)


def _array(after: str) -> list[str]:
    found = re.search(after + r".*?ARRAY\[(.*?)\]", TEXT, re.DOTALL)
    assert found, after
    return re.findall(r"'([a-z_.]+)'", found[1])


REFERENCE = _array("-- Small tables")
RAW = _array("-- Raw reads")
POINTS = _array("-- Everything of a service point")
KEYS = dict.fromkeys(RAW, "meter_id") | dict.fromkeys(POINTS, "service_point_id")


TABLES = (
    b"SELECT oid, relname, relkind, relhastriggers FROM pg_class "
    b"WHERE relnamespace::regnamespace::text IN ('raw', 'vee', 'billing', 'ref') ORDER BY 1"
)


def test_without_the_extension_nothing_is_done(database: Database) -> None:
    with database.connect() as connection:
        before = connection.execute(TABLES).fetchall()
        said: list[str] = []
        connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        for _ in range(2):
            connection.execute(TEXT.encode())
        after = connection.execute(TABLES).fetchall()
    assert after == before
    assert said == ["citus is not installed here: the tables stay on this server"] * 2


def test_every_table_named_is_there_and_its_unique_keys_hold_the_distribution_column(database: Database) -> None:
    with database.connect() as connection:
        for table in (*KEYS, *REFERENCE):
            assert connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,), table
        lacking = []
        for table, key in KEYS.items():
            for name, columns in connection.execute(
                "SELECT x.indexrelid::regclass::text, array_agg(a.attname::text) FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid "
                "AND a.attnum = ANY(x.indkey) WHERE x.indrelid = %s::regclass AND x.indisunique GROUP BY 1",
                (table,),
            ).fetchall():
                if key not in columns:
                    lacking.append(name)
    # a hash over the meter among others, so that the meter beside it changes nothing: the file makes the wider key
    # first
    assert lacking == ["raw.register_read_idempotency_key_channel_billing_day_key"]
    assert "DROP CONSTRAINT register_read_idempotency_key_channel_billing_day_key" in TEXT


class Recorder:
    """Plans of everything the stages read, made as the stages read it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.plans: dict[str, Any] = {}
        read, session_read, execute = Database.read, ReadSession.read, psycopg.Connection.execute

        def note(connection: Any, query: str, parameters: Any, generic: str) -> None:
            key = re.sub(r"_[0-9]{6,8}\b", "", " ".join(query.split()))
            if (
                key in self.plans
                or not re.match(r"(SELECT|WITH)\b", key)
                or not re.search(r"\b(raw|vee|billing)\.", key)
            ):
                return
            explain = f"EXPLAIN ({generic}VERBOSE, FORMAT JSON) {query}".encode()
            [([plan],)] = execute(connection, explain, parameters).fetchall()
            self.plans[key] = plan["Plan"]

        def reading(database: Database, query: str, parameters: Any = ()) -> Any:
            with psycopg.connect(database.url, options=database.session_options) as connection:
                note(connection, query, None, "GENERIC_PLAN, ")
            return (
                session_read(database, query, parameters)
                if isinstance(database, ReadSession)
                else read(database, query, parameters)
            )

        def executing(connection: Any, query: Any, parameters: Any = None, **how: Any) -> Any:
            text = (
                query.decode()
                if isinstance(query, bytes)
                else query
                if isinstance(query, str)
                else query.as_string(connection)
            )
            if not text.startswith("EXPLAIN"):
                note(connection, text, parameters, "")
            return execute(connection, query, parameters, **how)

        patch.setattr(Database, "read", reading)
        patch.setattr(ReadSession, "read", reading)
        patch.setattr(psycopg.Connection, "execute", executing)


def test_by_their_plans_the_queries_of_a_day_stay_in_one_shard_or_colocated(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect() as connection:
        if connection.info.server_version < 160_000:
            pytest.skip("EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16")
    utility = _small_city(database, tmp_path)
    with monkeypatch.context() as patch:
        recorded = Recorder(patch)
        for day in (DAY, DAY + timedelta(days=1), DAY):
            ingest_billing_day(database, utility.calendar, day, settings=utility.settings, run_id="test")
            validate_billing_day(database, utility.calendar, day)
            detect_billing_day(database, utility.calendar, day)
            bill_billing_day(database, utility.calendar, day)
    assert len(recorded.plans) > 30
    apart = {query: found for query, plan in recorded.plans.items() if (found := sorted(set(parted(plan))))}
    named = {
        next((name for name, part in REPARTITIONED.items() if part in query), query): found
        for query, found in apart.items()
    }
    assert set(named) <= set(REPARTITIONED), named
    assert {"raw against validated", "intervals against dials"} <= set(named)


@pytest.mark.parametrize(
    ("query", "apart"),
    [
        ("SELECT FROM vee.interval_day AS v JOIN billing.charge_day AS c USING (billing_day, service_point_id)", []),
        (
            "SELECT FROM vee.interval_day AS v JOIN billing.charge_day AS c USING (billing_day, account_id)",
            ["billing.charge_day with vee.interval_day"],
        ),
        (
            "SELECT FROM raw.interval_day AS r JOIN vee.interval_day AS v USING (billing_day, meter_id)",
            ["raw.interval_day with vee.interval_day"],
        ),
        ("SELECT FROM vee.daily_usage AS u JOIN ref.agreements AS a USING (account_id)", []),
        (
            "WITH c AS MATERIALIZED (SELECT * FROM billing.charge_day) SELECT FROM c JOIN vee.daily_usage AS u USING (account_id)",
            ["billing.charge_day with vee.daily_usage"],
        ),
    ],
)
def test_a_join_off_the_key_is_seen(database: Database, query: str, apart: list[str]) -> None:
    with database.connect() as connection:
        connection.execute("SELECT billing.ensure_partitions(%s)", (DAY,))
        for table in ("raw.interval_day", "vee.interval_day", "vee.daily_usage"):
            connection.execute("SELECT raw.open_partition(%s::regclass, %s)", (table, DAY))
            connection.execute("SELECT raw.attach_partition(%s::regclass, %s)", (table, DAY))
        for method in ("hash", "merge"):
            connection.execute(f"SET LOCAL enable_{method}join = off".encode())
            row = connection.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {query}".encode()).fetchone()
            assert row is not None
            assert (
                sorted({" with ".join(sorted(found.split(" with "))) for found in parted(row[0][0]["Plan"])}) == apart
            )


#: Once a day each, and not by service point by their nature; sql/citus.sql says why. The text by which each is known.
REPARTITIONED = {
    "raw against validated": "FULL JOIN (SELECT DISTINCT meter_id, channel FROM vee.interval_day",
    "intervals against dials": "'reads around the day'",
}


def parted(plan: dict[str, Any]) -> Iterator[str]:
    """Joins of a plan that Citus could not do within a shard: what is joined with what."""
    tables: dict[str, set[str]] = {}
    for node in _nodes(plan):
        if node.get("Subplan Name", "").startswith("CTE "):
            tables[node["Subplan Name"][4:]] = set()
    for _ in range(3):  # a CTE may read another
        for node in _nodes(plan):
            name = node.get("Subplan Name", "")
            if name.startswith("CTE "):
                tables[name[4:]] = _distributed(node, tables)
    for node in _nodes(plan):
        if "Join" in node["Node Type"] or node["Node Type"] == "Nested Loop":
            outer, inner = (
                _distributed(side, tables)
                for side in node["Plans"]
                if side["Parent Relationship"] in ("Outer", "Inner")
            )
            for left in outer:
                for right in inner:
                    key = KEYS[left] if KEYS[left] == KEYS[right] else None
                    if key is None or not _on(node, key):
                        yield f"{left} with {right}"


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def _distributed(node: dict[str, Any], tables: dict[str, set[str]]) -> set[str]:
    """Distributed tables below a node, through the CTEs it reads."""
    found: set[str] = set()
    for below in _nodes(node):
        if below.get("Subplan Name", "").startswith("CTE ") and below is not node:
            continue
        if "CTE Name" in below:
            found |= tables.get(below["CTE Name"], set())
        if "Relation Name" in below:
            relation = re.sub(r"_[0-9]{6,8}$", "", below["Relation Name"])
            found |= {table for table in KEYS if table.split(".")[1] == relation and _schema_fits(table, below)}
    return found


def _schema_fits(table: str, node: dict[str, Any]) -> bool:

    schema = table.split(".")[0]
    return bool(node.get("Schema", schema) == schema)


def _on(node: dict[str, Any], key: str) -> bool:
    """Whether a join, or what its inner side is looked up by, is an equality of the key."""
    names = ("Hash Cond", "Merge Cond", "Join Filter", "Index Cond", "Recheck Cond", "Filter")
    said = " ".join(str(below[name]) for below in _nodes(node) for name in names if name in below)
    return bool(re.search(rf"\b{key}\)?(::text)? = \(?\w+\.{key}\b|\b{key}\)?(::text)? = \(?{key}\b", said)) or bool(
        re.search(rf"ROW\([^)]*{key}", said)
    )


def _small_city(database: Database, folder: Path) -> SmallUtility:
    from dataclasses import replace

    from meter_pipeline.reference import import_folder
    from meter_pipeline.settings import load_settings
    from meter_pipeline.simulator import Spec, simulate

    data = folder / "city"
    simulate(Spec(meters=30, days=2, start=DAY, seed=3, interval_minutes=60, history_days=30), data)
    settings = replace(
        load_settings(), home=folder / "home", data=data, inbox=data / "inbox", database_url=database.url
    )
    settings.home.mkdir()
    import_folder(database, data / "reference")
    land_inbox(database, settings.calendar(), settings, run_id="test")
    return SmallUtility(database, settings, settings.calendar())
