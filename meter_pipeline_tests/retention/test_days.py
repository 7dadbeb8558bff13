"""Days that leave the database come back to the byte, are read and verified where they lie, survive a kill at every
step, and are never made twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.explain import explain
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ingest import ingest_billing_day, keys, land_inbox
from meter_pipeline.ledger import checkpoint_billing_day
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger.verification import verify
from meter_pipeline.postgres import partitions, privileges
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import history, import_folder
from meter_pipeline.retention import archive_days, ensure_present, make_ahead, restore_days
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline.vee import validate_billing_day
from meter_pipeline.vee.explain import explain_day
from meter_pipeline_tests.support import ROOT, FixedClock, copy_database, drop_database

FIRST = date(2026, 3, 2)
DAYS = [FIRST + timedelta(days=k) for k in range(3)]
CLOCK = FixedClock(datetime(2026, 11, 20, 12, tzinfo=UTC))
BEFORE = DAYS[2]
HASHERS = {"mpi1": keys.interval_payload_hashes, "mpr1": keys.register_payload_hashes}


class City:
    """Forty meters, three days, billed and signed; the third day is younger than what is archived here."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.data = database, folder / "city"
        self.settings: Settings = replace(
            load_settings(), home=folder / "home", data=self.data, inbox=self.data / "inbox", database_url=database.url
        )

    @property
    def calendar(self) -> BillingCalendar:
        return self.settings.calendar()

    def build(self) -> None:
        simulate(Spec(meters=40, days=3, start=FIRST, seed=11, interval_minutes=60, history_days=30), self.data)
        self.settings.home.mkdir()
        import_folder(self.database, self.data / "reference")
        with self.database.connect() as connection:
            connection.execute(
                "UPDATE ref.billing_cycles SET period_start = %s, period_end = %s WHERE period_start <= %s AND period_end > %s",
                (FIRST, DAYS[2], FIRST, FIRST),
            )
            history.record(connection, {}, source="test", reason="a cycle of three days", by="test")
            connection.commit()
        land_inbox(self.database, self.calendar, self.settings, clock=CLOCK, run_id="test")
        for day in DAYS:
            self.run(day)

    def run(self, day: date) -> None:
        ingest_billing_day(self.database, self.calendar, day, settings=self.settings, clock=CLOCK, run_id="test")
        validate_billing_day(self.database, self.calendar, day, clock=CLOCK)
        bill_billing_day(self.database, self.calendar, day, clock=CLOCK)
        checkpoint_billing_day(self.database, day, settings=self.settings, clock=CLOCK)

    def archive(self) -> Any:
        return archive_days(self.database, self.settings.days, BEFORE, clock=CLOCK)

    def one(self, query: str, *parameters: Any) -> Any:
        with self.database.connect() as connection:
            return scalar(connection, query, parameters)

    def bytes_of(self, days: list[date]) -> dict[tuple[str, date], bytes]:
        """The content of every partition of the days, as stored."""
        with self.database.connect() as connection:
            found = partitions.attached(connection)
            return {
                (table, day): partitions.partition_hash(
                    connection, table, day, partitions.columns_of(connection, table)
                )
                for day in days
                for table in found.get(day, [])
            }


@pytest.fixture(scope="module")
def built(server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    """The city built once, its tables made ahead; each test works on a copy."""
    folder = tmp_path_factory.mktemp("built")
    name = f"built_{uuid.uuid4().hex[:12]}"
    city = City(copy_database(server, name, template.name), folder)
    assert make_ahead(city.database, FIRST, 3) == 3 * len(partitions.AHEAD)
    assert make_ahead(city.database, FIRST, 3) == 3 * len(partitions.AHEAD)
    with city.database.connect() as connection:
        assert {state for _, _, state, _, _ in partitions.sizes(connection)} == {"ahead"}
    city.build()
    yield city
    drop_database(server, name)


@pytest.fixture
def city(server: Database, built: City, tmp_path: Path) -> Iterator[City]:
    name = f"city_{uuid.uuid4().hex[:12]}"
    shutil.copytree(built.settings.home.parent, tmp_path, dirs_exist_ok=True)
    yield City(copy_database(server, name, built.database.name), tmp_path)
    drop_database(server, name)


def test_an_archived_day_comes_back_to_the_byte_and_is_archived_again_to_the_same_file(city: City) -> None:
    before = city.bytes_of(DAYS)
    assert {table for table, _ in before} >= {
        "raw.interval_day",
        "raw.register_read",
        "vee.interval_day",
        "vee.register_day",
    }
    done = city.archive()
    assert sorted(done.days) == DAYS[:2]
    assert done.kept == {}
    assert city.bytes_of(DAYS[:2]) == {}
    assert city.bytes_of(DAYS[2:]) == {key: value for key, value in before.items() if key[1] == DAYS[2]}
    assert {(t.table, d): t.content_sha256 for d, tables in done.days.items() for t in tables} == {
        k: v for k, v in before.items() if k[1] < DAYS[2]
    }
    files = {path: path.read_bytes() for path in city.settings.days.rglob("*.parquet")}
    restored = restore_days(city.database, DAYS[:2], clock=CLOCK)
    assert len(restored) == len(files)
    assert city.bytes_of(DAYS) == before
    assert sorted(city.archive().days) == DAYS[:2]
    assert {path: path.read_bytes() for path in city.settings.days.rglob("*.parquet")} == files


def test_the_auditor_verifies_an_archived_day_where_it_lies(city: City, tmp_path: Path) -> None:
    city.archive()
    checkpoint_billing_day(city.database, DAYS[2], settings=city.settings, clock=CLOCK)
    whole = verify(city.database, home=city.settings.home, full=True, days=DAYS, hashers=HASHERS)
    assert whole.findings == []
    assert whole.checked["content of raw.interval_day"] > 0
    export(city.database, tmp_path / "export", days=DAYS[:2], clock=CLOCK)
    assert _verifier(city, tmp_path / "export").returncode == 0
    path = next(p for p in sorted(city.settings.days.rglob("raw.interval_day.parquet")) if str(DAYS[0]) in str(p))
    _change_one_value(path)
    assert {
        f.check for f in verify(city.database, home=city.settings.home, days=DAYS[:1], hashers=HASHERS).findings
    } == {"row"}
    export(city.database, tmp_path / "changed", days=DAYS[:1], clock=CLOCK)
    changed = _verifier(city, tmp_path / "changed")
    assert changed.returncode == 1, changed.stdout
    with pytest.raises(partitions.ArchiveError, match="SHA-256 is another"):
        restore_days(city.database, DAYS[:1], clock=CLOCK)
    assert city.bytes_of(DAYS[:1]) == {}


def test_explanations_are_the_same_from_the_archive_and_leave_nothing_behind(city: City) -> None:
    with city.database.connect() as connection:
        cycles = [
            r[0]
            for r in connection.execute(
                "SELECT DISTINCT cycle_id FROM ref.billing_cycles WHERE period_end = %s", (DAYS[2],)
            ).fetchall()
        ]
    issued = sum(issue_statements(city.database, city.calendar, cycle, DAYS[2], clock=CLOCK).issued for cycle in cycles)
    assert issued > 0
    lines = city.database.read(
        "SELECT DISTINCT ON (service_point_id) statement_id || '.' || line_no AS line FROM billing.statement_line WHERE service_point_id <> '' "
        "ORDER BY service_point_id, line_no"
    )["line"].to_list()
    meters = city.database.read(
        "SELECT DISTINCT meter_id FROM raw.interval_day UNION SELECT DISTINCT meter_id FROM raw.register_read ORDER BY 1"
    )
    chosen = meters["meter_id"].to_list()[::4]
    bills = {line: explain(city.database, line) for line in lines[::3]}
    told = {meter: explain_day(city.database, city.calendar, meter, DAYS[1]) for meter in chosen}
    assert any(bill and bill["payloads"] and bill["ledger"] for bill in bills.values())
    city.archive()
    assert {line: explain(city.database, line) for line in bills} == bills
    assert {meter: explain_day(city.database, city.calendar, meter, DAYS[1]) for meter in chosen} == told
    assert city.bytes_of(DAYS[:2]) == {}
    assert city.one("SELECT count(*) FROM archive.day_table WHERE state <> 'archived'") == 0


@pytest.mark.parametrize("at", ["write_file", "hash_of_file", "drop", "commit"])
def test_a_kill_at_any_step_loses_nothing(city: City, at: str) -> None:
    before = city.bytes_of(DAYS[:2])
    code = (
        "import os, signal, sys, datetime, pathlib\n"
        "from meter_pipeline.retention import archive_days\nfrom meter_pipeline.postgres.database import Database\n"
        "from meter_pipeline.postgres import day_lock, partitions\n"
        "def kill_after(module, name, calls):\n"
        "    done, inner = [], getattr(module, name)\n"
        "    def run(*given):\n"
        "        result = inner(*given)\n"
        "        done.append(name)\n"
        "        if len(done) == calls: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return result\n"
        "    setattr(module, name, run)\n"
        # the lock of the second day is taken after the commit of the first
        "if sys.argv[3] == 'commit': kill_after(day_lock, 'try_take', 2)\n"
        "else: kill_after(partitions, sys.argv[3], 1)\n"
        "archive_days(Database(sys.argv[1]), pathlib.Path(sys.argv[2]), datetime.date.fromisoformat(sys.argv[4]))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, city.database.url, str(city.settings.days), at, BEFORE.isoformat()],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=240,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    gone = [] if at != "commit" else DAYS[:1]
    assert city.bytes_of(DAYS[:2]) == {k: v for k, v in before.items() if k[1] not in gone}
    assert sorted(city.archive().days) == [d for d in DAYS[:2] if d not in gone]
    restore_days(city.database, DAYS[:2], clock=CLOCK)
    assert city.bytes_of(DAYS[:2]) == before


def test_a_late_read_restores_its_day_first_and_is_refused_where_nobody_does(city: City) -> None:
    before = city.bytes_of(DAYS[:1])
    city.archive()
    with (
        city.database.connect() as connection,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is archived"),
    ):
        connection.execute("SELECT raw.open_partition('raw.interval_day', %s)", (DAYS[0],))
    assert ensure_present(city.database, DAYS[0], clock=CLOCK)
    assert not ensure_present(city.database, DAYS[0], clock=CLOCK)
    assert city.bytes_of(DAYS[:1]) == before
    # What came after the day says more of a gas dial's gap than was known at first; the next run finds nothing new.
    city.run(DAYS[0])
    written = city.one("SELECT count(*) FROM ledger.entry WHERE kind IN ('ingested', 'validated', 'billed')")
    city.run(DAYS[0])
    assert city.bytes_of(DAYS[:1]) == before
    assert city.one("SELECT count(*) FROM ledger.entry WHERE kind IN ('ingested', 'validated', 'billed')") == written


def test_services_archive_and_restore_in_their_own_roles(city: City) -> None:
    privileges.apply(city.database)
    before = city.bytes_of(DAYS[:2])
    service, notary = city.database.acting_as("meter_ingest"), city.database.acting_as("meter_notary")
    make_ahead(service, DAYS[2] + timedelta(days=1), 1)
    done = archive_days(service, city.settings.days, BEFORE, verifier=notary, clock=CLOCK)
    assert (sorted(done.days), done.kept) == (DAYS[:2], {})
    with (
        service.connect() as connection,
        pytest.raises(psycopg.errors.RaiseException, match="was not archived by this transaction"),
    ):
        connection.execute("SELECT archive.drop_partition('raw.interval_day', %s)", (DAYS[2],))
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        city.database.acting_as("meter_billing").connect() as connection,
    ):
        connection.execute("SELECT archive.drop_partition('raw.interval_day', %s)", (DAYS[2],))
    assert ensure_present(service, DAYS[0], clock=CLOCK)
    assert city.bytes_of(DAYS[:2]) == {k: v for k, v in before.items() if k[1] == DAYS[0]}


def test_a_day_stays_where_something_waits_for_it_or_it_does_not_verify(city: City) -> None:
    with city.database.connect() as connection:
        connection.execute("UPDATE raw.feed_file_day SET loaded_at = NULL WHERE billing_day = %s", (DAYS[0],))
        connection.execute("UPDATE vee.interval_day SET content_hash = sha256('x') WHERE billing_day = %s", (DAYS[1],))
        connection.commit()
    done = city.archive()
    assert done.days == {}
    assert done.kept[DAYS[0]] == "files wait for it"
    assert "row without leaf" in done.kept[DAYS[1]]
    with pytest.raises(ValueError, match="220 days"):
        archive_days(city.database, city.settings.days, CLOCK.now().date(), clock=CLOCK)


def test_tables_made_ahead_took_the_first_load_and_were_attached_with_it(city: City) -> None:
    with city.database.connect() as connection:
        rows = {(d, t): s for d, t, s, _, _ in partitions.sizes(connection)}
    assert rows[DAYS[0], "raw.interval_day"] == rows[DAYS[0], "vee.interval_day"] == "attached"
    assert city.one("SELECT count(*) FROM raw.interval_day") > 0
    assert (
        city.one(
            "SELECT count(*) FROM raw.interval_payload WHERE payloads = 1 AND NOT EXISTS (SELECT FROM raw.interval_day AS d WHERE d.payloads > 1)"
        )
        == 0
    )


def test_the_command_line_makes_archives_lists_and_restores(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from meter_pipeline.cli.partitions import app

    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", city.database.url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(city.settings.home))
    monkeypatch.setenv("METER_PIPELINE_DATA", str(city.data))
    run = CliRunner().invoke
    keep = (city.settings.calendar().day_of(datetime.now(UTC)) - BEFORE).days
    made = json.loads(run(app, ["create", "--days", "2", "--json"]).stdout)
    assert made["ready"] == 2 * len(partitions.AHEAD)
    archived = json.loads(run(app, ["archive", "--keep-days", str(keep), "--json"]).stdout)
    assert [d["day"] for d in archived["archived"]] == [d.isoformat() for d in DAYS[:2]]
    assert run(app, ["archive", "--keep-days", "30"]).exit_code == 1
    listed = json.loads(run(app, ["list", "--json"]).stdout)
    assert {row["state"] for row in listed["archive"]} == {"archived"}
    assert len(listed["archive"]) == sum(len(d["tables"]) for d in archived["archived"])
    assert run(app, ["list"]).exit_code == 0
    restored = json.loads(run(app, ["restore", "--day", DAYS[0].isoformat(), "--json"]).stdout)
    assert {row["day"] for row in restored["restored"]} == {DAYS[0].isoformat()}
    assert run(app, ["restore", "--day", DAYS[2].isoformat()]).exit_code == 1


def _verifier(city: City, folder: Path) -> subprocess.CompletedProcess[str]:
    key = next((city.settings.home / "ledger").glob("*.vkeys"))
    return subprocess.run(
        [sys.executable, "tools/verify_ledger.py", str(folder), "--vkey", str(key)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def _change_one_value(path: Path) -> None:
    import polars as pl

    frame = pl.read_parquet(path)
    values = frame["values"].to_list()
    at = next(i for i, v in enumerate(values) if v and frame["payloads"][i] == 1)
    values[at][0] += 1
    frame.with_columns(pl.Series("values", values, dtype=pl.List(pl.Int32))).write_parquet(path)
