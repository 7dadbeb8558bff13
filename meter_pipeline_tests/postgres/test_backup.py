"""Backup and restore drilled on the system's PostgreSQL, as an owner who may create no roles: the dump comes back
elsewhere, the ledger verifies, and the next day is billed as it would have been. An older version's dump migrates
forward.

Skipped where the system has no PostgreSQL (Debian: apt-get install postgresql).
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from psycopg import sql

from meter_pipeline import backup, database_roles
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.ledger import privileges as ledger_privileges
from meter_pipeline.ledger.checkpoints import checkpoint
from meter_pipeline.ledger.tables import entries
from meter_pipeline.ledger.verification import verify
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres import dump, privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.migrations import migrate, shipped
from meter_pipeline.settings import Settings
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    native,
    put_intervals,
)
from meter_pipeline_tests.postgres.old_chain import unpack
from meter_pipeline_tests.postgres.test_own_server import PASSWORD, System, no_environment, system

__all__ = ["no_environment", "system"]


@pytest.fixture(autouse=True)
def password(no_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


@pytest.fixture(scope="module")
def owner(system: System) -> str:
    """An owner without CREATEROLE, for whom an administrator ran the script."""
    with system.admin() as connection:
        connection.execute(sql.SQL("CREATE ROLE plain LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
    administrator(system)
    return "plain"


def administrator(system: System) -> None:
    with system.admin() as connection:
        connection.execute(database_roles.administrators_script("plain").encode())


def settings(folder: Path) -> Settings:
    return Settings(folder / "home", folder, folder / "inbox", None)


def billed(database: Database, day: date, point: str, kwh: int = 1) -> list[tuple[object, ...]]:
    put_intervals(database, day, {point: [kwh * 1000] * 24})
    bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    found = database.read("SELECT account_id, total FROM billing.charge_day WHERE billing_day = $1 ORDER BY 1", [day])
    return found.rows()


def log_findings(database: Database, place: Settings) -> list[str]:
    """What is wrong with the log: entries, tree, checkpoints, keys. The usage and the reference data that these tests
    write straight into their tables have no leaf, so their rows are left out."""
    found = verify(database, home=place.home, full=True, hashers=hashers()).findings
    straight = ("vee.interval_day", "reference data of")
    return [f"{one.check} {one.detail}" for one in found if not any(words in one.detail for words in straight)]


def test_a_backup_comes_back_elsewhere_verifies_and_bills_the_next_day(
    system: System, owner: str, tmp_path: Path
) -> None:
    first = Database(system.database(owner))
    migrate(first)
    privileges.apply(first)
    add_tariff(first, native())
    add_cycle(first, JULY, JULY + timedelta(days=30))
    point = add_service(first, 1)
    billed(first, JULY, point)
    here = settings(tmp_path / "here")
    (here.archive / "ab").mkdir(parents=True)
    (here.archive / "ab" / "abcd.zst").write_bytes(b"an original")
    checkpoint(first, home=here.home, utility="Springfield", clock=CLOCK)

    with pytest.raises(dump.DumpError, match=r"permission denied|row-level security"):
        dump.dump(first, tmp_path / "plain.dump", role=None)
    made = backup.back_up(first, here, tmp_path / "backup", keys=True, clock=CLOCK)
    assert (made.tree_size > 0, made.files["archive"], made.owner) == (True, 1, "plain")
    expected = billed(first, JULY + timedelta(days=1), point, kwh=2)  # what the original goes on to do

    second = Database(system.database(owner))
    there = settings(tmp_path / "there")
    with pytest.raises(backup.BackupError, match="may not hand the ledger's tables"):
        backup.restore(second, there, tmp_path / "backup")
    administrator(system)
    written = (tmp_path / "backup").stat().st_mtime_ns
    backup.restore(second, there, tmp_path / "backup")
    # Nothing is written beside the dump, not even for a moment: the folder may be on a read-only medium.
    assert (tmp_path / "backup").stat().st_mtime_ns == written
    assert (there.archive / "ab" / "abcd.zst").read_bytes() == b"an original"
    with pytest.raises(backup.BackupError, match="holds tables already"):
        backup.restore(second, there, tmp_path / "backup")
    assert migrate(second) == 0
    privileges.apply(second)
    with second.connect() as connection:
        assert privileges.differences(connection) == []
        found = ledger_privileges.check(connection).deviations
        # Another database has other catalogue versions: a person accepts the guards once. Nothing else is amiss.
        assert all("was altered since" in said for said in found), found
        assert any("was altered since" in said for said in found)
        ledger_privileges.record(connection, accepted_by="ana", reason="restored from a backup")
        connection.commit()
        assert ledger_privileges.check(connection).deviations == ()
    assert log_findings(second, there) == []
    assert billed(second, JULY + timedelta(days=1), point, kwh=2) == expected
    checkpoint(second, home=there.home, utility="Springfield", clock=CLOCK)
    assert log_findings(second, there) == []
    with second.connect() as connection:
        head = entries.latest_head(connection)
    assert head is not None
    assert head.tree_size > made.tree_size


def test_a_damaged_backup_is_refused_before_anything_is_restored(tmp_path: Path, database: Database) -> None:
    here = settings(tmp_path)
    made = backup.back_up(database, here, tmp_path / "backup", clock=CLOCK)
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["sha256"] == made.sha256
    with (tmp_path / "backup" / "database.dump").open("r+b") as opened:
        opened.seek(1000)
        opened.write(b"?")
    with pytest.raises(backup.BackupError, match="not the dump that the manifest names"):
        backup.read_manifest(tmp_path / "backup")
    with pytest.raises(backup.BackupError, match="holds no backup"):
        backup.read_manifest(tmp_path / "nowhere")


def test_a_dump_of_an_older_version_migrates_forward(system: System, owner: str, tmp_path: Path) -> None:
    """What a utility does that upgrades on a new server: the dump of the version before, then this version's
    migrations."""
    administrator(system)
    first = Database(system.database(owner))
    migrate(first, unpack(tmp_path))
    point = "SP-001"
    with first.connect() as connection:
        connection.execute("INSERT INTO ref.accounts VALUES ('A-001', 'residential', '2020-01-01', NULL)")
    administrator(system)
    path = tmp_path / "older.dump"
    super_url = f"postgresql://postgres:secret@localhost:{system.port}/{first.name}"
    dump.dump(Database(super_url), path, role=None)
    second = Database(system.database(owner))
    with second.connect(autocommit=True) as connection:
        connection.execute("GRANT meter_ledger_owner TO plain")
        dump.restore(second, path)
        connection.execute("REVOKE meter_ledger_owner FROM plain")
    assert migrate(second) == len([version for version in shipped() if version > "0199"])
    privileges.apply(second)
    with second.connect() as connection:
        assert privileges.differences(connection) == []
    add_tariff(second, native())
    add_cycle(second, JULY, JULY + timedelta(days=30))
    assert add_service(second, 1) == point
    assert len(billed(second, JULY, point)) == 1
    assert second.read("SELECT count(*) AS n FROM ref.accounts")["n"][0] == 1
