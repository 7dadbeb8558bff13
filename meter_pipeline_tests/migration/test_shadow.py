"""Shadow promises: the pipeline runs whole and PostgreSQL refuses it every table that counts; and what it makes of real
days stands beside a real legacy batch with every difference explained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import psycopg
import pytest
from psycopg import sql

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.migration import cutover, shadow
from meter_pipeline.migration.day import compare_billing_day, gate
from meter_pipeline.migration.defects import record
from meter_pipeline.migration.legacy_import import import_results, read_csv, read_table
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.migration.legacy_batch import LegacyBatch
from meter_pipeline_tests.support import copy_database

#: What a shadow run and its comparison may write in the authoritative database: audit tables.
AUDIT = (
    "migration.legacy_run",
    "migration.legacy_result",
    "migration.comparison_run",
    "migration.comparison",
    "migration.gate_report",
    "ledger.entry",
    "ledger.personal",
)
SPEC = Spec(meters=24, days=2, start=date(2026, 10, 31), seed=4, defects=False)


@dataclass
class Parallel:
    """A utility with its legacy batch, and the pipeline in shadow beside it."""

    database: Database
    settings: Settings
    calendar: BillingCalendar
    batch: LegacyBatch
    folder: Path

    def night(self, day: date, *, ours: bool = True) -> pl.DataFrame:
        """A night of both; the legacy results as exported."""
        if ours:
            shadow.run_day(self.database, self.calendar, day, settings=self.settings, run_id="test")
        self.batch.run_night(day)
        path = self.folder / f"{day}.csv"
        self.batch.export_csv(day, path)
        return read_csv(path, day)


def parallel(server: Database, template: Database, folder: Path, spec: Spec) -> Iterator[Parallel]:
    name = f"shadowed_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    database = copy_database(server, name, template.name)
    simulate(spec, folder / "city")
    settings = Settings(folder / "home", folder / "city", folder / "city" / "inbox", database.url)
    settings.home.mkdir()
    shadow.prepare(database)
    cutover.step(database, {"stage": "shadow", "routes": [], "basis_points": 0}, by="ops", reason="parallel run")
    batch = LegacyBatch(folder / "city", folder / "legacy.sqlite")
    try:
        yield Parallel(database, settings, settings.calendar(), batch, folder)
    finally:
        batch.close()
        with server.connect(autocommit=True) as connection:
            for each in (name + shadow.SUFFIX, name):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(each)))


@pytest.fixture(scope="module")
def beside(server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parallel]:
    """Two clean days, the second of 25 hours."""
    yield from parallel(server, template, tmp_path_factory.mktemp("parallel"), SPEC)


def content(database: Database) -> dict[str, str]:
    """A hash over every table's rows, by table, the ledger's included. Dagster's own storage is nobody's bill."""
    with database.connect() as connection:
        names = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') "
            "AND NOT c.relispartition AND n.nspname NOT IN ('information_schema', 'dagster', 'pg_catalog', 'pg_toast') ORDER BY 1, 2"
        ).fetchall()
        found = {}
        for schema, table in names:
            query = sql.SQL("SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} t").format(
                sql.Identifier(schema, table)
            )
            row = connection.execute(query).fetchone()
            found[f"{schema}.{table}"] = str(row[0]) if row else ""
    return found


def test_a_shadow_day_changes_nothing_that_counts_and_explains_every_difference(beside: Parallel) -> None:
    """Two real days: the diff of every authoritative table is empty, an ordinary day needs no excuse, the 25-hour day
    exactly the one on record."""
    database, first, second = beside.database, SPEC.day(0), SPEC.day(1)
    acting = database.acting_as(shadow.ROLE)
    before = content(database)
    legacy = beside.night(first)
    import_results(acting, first, legacy, finished_at=datetime.now(UTC), source="night 1")
    ordinary = compare_billing_day(acting, first).comparison
    assert ordinary.bills > 5
    # What legacy does by hand (time of use, demand, net billing) it has no lines for: lost there, never excused here.
    assert set(ordinary.pairs["class"].unique().to_list()) <= {"match", "rounding", "missing_legacy"}
    assert ordinary.blocking == 0
    gate(acting)
    after = content(database)
    changed = {table for table in before if before[table] != after[table]}
    assert changed == set(AUDIT) - {"migration.comparison", "ledger.personal"} | (
        {"migration.comparison"} if ordinary.count("match") < ordinary.pairs.height else set()
    )
    assert set(before) == set(after)
    # The shadow has the whole day.
    with shadow.database_of(database).connect() as connection:
        counted = "SELECT (SELECT count(*) FROM raw.interval_day), (SELECT count(*) FROM vee.interval_day), (SELECT count(*) FROM billing.charge_day)"
        row = connection.execute(counted).fetchone()
    assert row is not None
    assert min(row) > 10
    # Legacy against itself: a second run of the same night in a database of its own.
    twin = LegacyBatch(beside.settings.data, beside.folder / "twin.sqlite")
    twin.run_night(first)
    twin.export_csv(first, beside.folder / "twin.csv")
    twin.close()
    noise = compare_billing_day(
        acting, first, mode="legacy_twice", second_run=read_csv(beside.folder / "twin.csv", first)
    ).comparison
    assert noise.pairs["class"].unique().to_list() == ["match"], (
        "the legacy batch repeats itself: all that differs later is a difference"
    )
    # The 25-hour day: its second 01:00 hour overwrites the first. Unexplained until two people put it on record,
    # explained then and only as far as that.
    legacy = beside.night(second)
    import_results(acting, second, legacy, finished_at=datetime.now(UTC), source="night 2")
    lost = compare_billing_day(acting, second).comparison
    wrong = lost.pairs.filter(pl.col("class") == "unexplained")
    assert wrong.filter(pl.col("level") == "usage").height > 10
    assert (wrong["difference"] > 0).all(), "legacy lost an hour"
    assert lost.blocking == wrong.height
    most = int(wrong["difference"].abs().max() or 0)  # type: ignore[arg-type]  # an integer column
    expires = datetime.now(UTC) + timedelta(days=30)
    record(
        database,
        "LEG-DST",
        levels=["usage", "line"],
        codes=[],
        most=most,
        by="ops",
        approver="controller",
        reason="repeated hour",
        expires=expires,
        first_day=second,
        last_day=second,
    )
    explained = compare_billing_day(acting, second).comparison
    assert explained.blocking == 0
    assert explained.count("known_legacy_defect") == wrong.height
    assert explained.pairs.filter(pl.col("cause") == "follows its lines").height > 0


def test_results_come_from_a_table_as_they_do_from_a_file(beside: Parallel) -> None:
    day = SPEC.day(0)
    path = beside.folder / f"{day}.csv"
    if not path.exists():
        beside.batch.run_night(day)
        beside.batch.export_csv(day, path)
    from_file = read_csv(path, day)
    with beside.database.connect() as connection:
        connection.execute("CREATE SCHEMA legacy")
        connection.execute(
            "CREATE TABLE legacy.result (account_id text, level text, code text, value numeric, estimated boolean, tariff_version integer, billing_day date)"
        )
        into = "COPY legacy.result (account_id, level, code, value, estimated, tariff_version) FROM STDIN (FORMAT csv, HEADER)"
        with connection.cursor() as cursor, cursor.copy(into) as copy:
            copy.write(path.read_bytes())
        connection.execute("UPDATE legacy.result SET billing_day = %s", (day,))
        connection.execute(
            "GRANT USAGE ON SCHEMA legacy TO meter_shadow; GRANT SELECT ON legacy.result TO meter_shadow"
        )
        connection.commit()
    from_table = read_table(beside.database.acting_as(shadow.ROLE), "legacy.result", day)
    key = ["account_id", "level", "code"]
    assert from_table.sort(key).equals(from_file.sort(key))


def test_postgresql_refuses_the_shadow_every_table_that_counts(beside: Parallel) -> None:
    """Every authoritative table, every way of writing, tried for real; the legacy batch's own table too."""
    database = beside.database
    privileges.apply(database)
    with database.connect(autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA IF NOT EXISTS legacy; CREATE TABLE IF NOT EXISTS legacy.result (account_id text)"
        )
        tables = [name for name in content(database) if name not in AUDIT]
        column = {
            name: connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1",
                (name,),
            ).fetchone()
            for name in tables
        }
    assert len(tables) > 50
    written = []
    with database.connect(role=shadow.ROLE) as connection:
        for name in tables:
            target, first = sql.Identifier(*name.split(".")), sql.Identifier(str((column[name] or ("",))[0]))
            for statement in (
                "INSERT INTO {t} DEFAULT VALUES",
                "UPDATE {t} SET {c} = DEFAULT",
                "DELETE FROM {t}",
                "TRUNCATE {t} CASCADE",
            ):
                try:
                    connection.execute(sql.SQL(statement).format(t=target, c=first))
                    written.append(f"{statement} {name}")
                except psycopg.errors.InsufficientPrivilege:
                    pass
                connection.rollback()
        for statement in (
            "SELECT raw.open_partition('raw.interval_day'::regclass, '2026-02-28')",
            "CREATE TABLE public.mine ()",
            "UPDATE ledger.entry SET kind = 'x'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            connection.rollback()
    assert written == []
    with database.connect() as connection:
        assert [line for line in privileges.differences(connection) if "legacy.result" not in line] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_six_days_of_a_city_with_defects(server: Database, template: Database, tmp_path: Path) -> None:
    """Gaps, late files, exchanges, rollovers, a 25-hour day: whatever legacy makes of them, each figure has one class
    and the matches are the many."""
    spec = Spec(meters=120, days=6, start=date(2026, 10, 29), seed=11)
    for utility in parallel(server, template, tmp_path, spec):
        acting = utility.database.acting_as(shadow.ROLE)
        counts: dict[str, int] = {}
        for day in (spec.day(k) for k in range(spec.days)):
            import_results(acting, day, utility.night(day), finished_at=datetime.now(UTC), source="night")
            found = compare_billing_day(acting, day).comparison
            assert (
                int(found.summary["figures"].sum())
                == found.pairs.height
                == found.pairs.unique(["account_id", "level", "code"]).height
            )
            for name, number in found.pairs.group_by("class").len().iter_rows():
                counts[name] = counts.get(name, 0) + number
            print(day, dict(found.pairs.group_by("class").len().sort("class").iter_rows()))
        assert counts["match"] > 10 * counts.get("missing_new", 0)
        assert counts["estimate_vs_actual"] > 0, "legacy bills gaps by registers, we estimate intervals"
