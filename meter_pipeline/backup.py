"""Backup and restore of a deployment: its database, and the files in its home that the database refers to.

A backup is a folder: database.dump (pg_dump), files/ (the archive of originals, archived billing days, the published
ledger, and the signing keys on request), manifest.json. The manifest has the dump's hash and the ledger's tree head
before the dump, so that a restore can verify the restored database.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from meter_pipeline import database_roles
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger.tables import entries, guards
from meter_pipeline.postgres import dump, migrations, privileges, readiness
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection, identifier
from meter_pipeline.postgres.driver import Error as PostgresError
from meter_pipeline.settings import Settings

ROLE: Final = "meter_backup"
_FORMAT: Final = "meter-pipeline-backup/1"


class BackupError(RuntimeError):
    """A backup or a restore that cannot be made; the message has the reason, ``hint`` the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a backup. ``tree_size`` and ``root``: the ledger's latest tree head before the dump, 0 and
    empty where there is none. ``files``: number of files by folder."""

    folder: Path
    made_at: str
    server: int
    owner: str
    migration: str
    sha256: str
    size: int
    tree_size: int
    root: str
    files: dict[str, int]

    def document(self) -> dict[str, Any]:
        """The manifest."""
        names = ("made_at", "server", "owner", "migration", "sha256", "size", "tree_size", "root", "files")
        return {"format": _FORMAT} | {name: getattr(self, name) for name in names}


def back_up(
    database: Database, settings: Settings, folder: Path, *, keys: bool = False, clock: Clock = SYSTEM_CLOCK
) -> Backup:
    """Write a backup to a new folder, or update the files of an existing one. ``keys``: include the ledger's signing
    keys, which are otherwise kept elsewhere.

    The database stays in use: the dump is one snapshot. The archive is copied after it, so that every file that the
    dump refers to is there, and the published ledger before it, so that the database has all of its checkpoints. Raises
    BackupError, dump.DumpError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    facts = readiness.server_facts(database)
    with database.connect("backup", autocommit=True) as connection:
        head = entries.latest_head(connection)
        acts = privileges.may_act_as(connection, ROLE)
    if not facts.superuser and not acts:
        grant = f'GRANT {ROLE} TO "{facts.login}";'
        raise BackupError(
            f"{facts.login} may not act as {ROLE}, which reads every table", f"an administrator runs: {grant}"
        )
    owner = readiness.tables_owner(database)
    if facts.login == owner:
        # Until the first `services deploy` no role has its grants; applying them again changes nothing.
        privileges.apply(database)
    files = {"ledger": _copied(settings.home / "ledger", folder / "files" / "ledger")}
    partial = folder / "database.dump.partial"
    partial.unlink(missing_ok=True)
    dump.dump(database, partial, role=None if facts.superuser else ROLE, without_values=[guards.ENTRY_SEQUENCE])
    result = Backup(
        folder,
        made_at=clock.now().isoformat(timespec="seconds"),
        server=facts.version,
        owner=owner,
        migration=max(readiness.migrations_applied(database), default=""),
        sha256=_sha256(partial),
        size=partial.stat().st_size,
        tree_size=head.tree_size if head else 0,
        root=head.root_hash.hex() if head else "",
        files=files
        | {name: _copied(place, folder / "files" / name) for name, place in _folders(settings, keys).items()},
    )
    os.replace(partial, folder / "database.dump")
    (folder / "manifest.json").write_text(json.dumps(result.document(), indent=2) + "\n", "utf-8")
    return result


def read_manifest(folder: Path) -> Backup:
    """Returns a backup's manifest, after comparing the dump with its hash. Raises BackupError."""
    try:
        found = json.loads((folder / "manifest.json").read_text("utf-8"))
        if found.pop("format") != _FORMAT:
            raise ValueError("its format is not known")
        manifest = Backup(folder, **found)
        datetime.fromisoformat(manifest.made_at)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupError(f"{folder} holds no backup: {error}", "give the folder that database backup wrote") from error
    path = folder / "database.dump"
    if not path.exists() or _sha256(path) != manifest.sha256:
        raise BackupError(f"{path} is not the dump that the manifest names", "take an earlier backup")
    return manifest


def restore(database: Database, settings: Settings, folder: Path) -> Backup:
    """Restore a backup into an empty database and the deployment's home. Returns its content.

    The database is restored completely or not at all, and its ledger must then have the tree of the manifest. Raises
    BackupError, dump.DumpError.
    """
    manifest = read_manifest(folder)
    facts = readiness.server_facts(database)
    if facts.migrated:
        raise BackupError(f"{database.safe_url} holds tables already", "restore into an empty database")
    if facts.version // 10_000 < manifest.server // 10_000:
        raise BackupError(
            f"the server is PostgreSQL {facts.version // 10_000}, the backup is of {manifest.server // 10_000}",
            "restore to the same major version or a later one",
        )
    newest = max(migrations.shipped() | migrations.REPLACED)
    if manifest.migration > newest:
        raise BackupError(
            f"the backup has migration {manifest.migration}, this program ends at {newest}", "upgrade the program first"
        )
    with database.connect("restore", autocommit=True) as connection:
        _make_roles(database, connection, facts, manifest.owner)
        if facts.login != manifest.owner and not facts.superuser:
            raise BackupError(
                f"the backup's tables belong to {manifest.owner}, and this log-in is {facts.login}",
                f"restore as {manifest.owner} or as a superuser",
            )
        try:
            guards.take_ownership(connection)
        except PostgresError as error:
            raise BackupError(
                f"{facts.login} may not hand the ledger's tables to their owner: {error.diag.message_primary}",
                f"an administrator runs what this prints: meter-pipeline database roles --sql --owner {facts.login}",
            ) from error
        try:
            dump.restore(database, folder / "database.dump")
            guards.continue_entry_numbers(connection)
        finally:
            guards.give_ownership_back(connection)
        if manifest.tree_size and (manifest.tree_size, bytes.fromhex(manifest.root)) not in {
            (head.tree_size, head.root_hash) for head in entries.heads(connection)
        }:
            raise BackupError(f"the ledger's tree of {manifest.tree_size} entries is not in the restored database", "")
    for name in manifest.files:
        _copied(folder / "files" / name, settings.home / name)
    return manifest


def _make_roles(database: Database, connection: Connection, facts: readiness.ServerFacts, owner: str) -> None:
    """Create the roles that the dump names, where this log-in may. Raises BackupError where it may not and some are
    missing."""
    existing = readiness.existing_roles(database)
    wanted = {*database_roles.roles(), owner}
    if wanted <= existing:
        return
    if not (facts.superuser or facts.may_create_roles):
        raise BackupError(
            f"{facts.login} may not create roles, and these are missing: {', '.join(sorted(wanted - existing))}",
            f"an administrator runs what this prints: meter-pipeline database roles --sql --owner {facts.login}",
        )
    if owner not in existing:
        connection.execute(f"CREATE ROLE {identifier(owner)} NOLOGIN".encode())
    connection.execute(database_roles.administrators_script(owner).encode())


def _folders(settings: Settings, keys: bool) -> dict[str, Path]:
    found = {"archive": settings.archive, "days": settings.days}
    return found | ({"keys": settings.keys} if keys else {})


def _copied(source: Path, target: Path) -> int:
    """Copy the files that the target lacks or has with another size or age. Returns the number of files. Names in
    the archive are hashes, so that an existing file is the same."""
    count = 0
    if not source.is_dir():
        return 0
    target.mkdir(parents=True, exist_ok=True)
    shutil.copystat(source, target)
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        copy = target / path.relative_to(source)
        count += 1
        if copy.exists() and (copy.stat().st_size, int(copy.stat().st_mtime)) == (
            path.stat().st_size,
            int(path.stat().st_mtime),
        ):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return count


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
