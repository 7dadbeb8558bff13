"""A server of one's own, as utilities have it: the system's PostgreSQL, passwords by every way libpq knows, an owner
who is no superuser, and one who may not create roles.

Skipped where the system has no PostgreSQL (Debian: apt-get install postgresql).
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import sql

from meter_pipeline import database_roles
from meter_pipeline.ledger import privileges as ledger_privileges
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.migrations import MigrationError, migrate
from meter_pipeline_tests.postgres.pause_attempts import try_everything

PASSWORD = "p w/%:@é'"


@dataclass(frozen=True)
class System:
    """The system's server on TCP with passwords and TLS."""

    folder: Path
    port: int

    def admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password="secret", dbname="postgres", autocommit=True
        )

    def database(self, owner: str) -> str:
        """A fresh database of an owner; its URL names the user and no password."""
        name = f"mp_{uuid.uuid4().hex[:8]}"
        with self.admin() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
            )
        return f"postgresql://{owner}@localhost:{self.port}/{name}"


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("the system has no PostgreSQL: apt-get install postgresql")
    return found[-1].parent


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    binaries = _binaries()
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="meter-pipeline-system-"))
    folder.chmod(0o755)
    data, port = folder / "data", 40_000 + os.getpid() % 20_000
    (folder / "password").write_text("secret\n")
    _certificate(folder)
    for path in (folder, *folder.iterdir()):
        if user is not None:
            shutil.chown(path, user, user)

    def run(*command: str) -> None:
        subprocess.run(
            command, user=user, group=user, extra_groups=[] if user else None, cwd="/", check=True, capture_output=True
        )

    tls = f"-c ssl=on -c ssl_cert_file={folder}/server.crt -c ssl_key_file={folder}/server.key"
    options = f"-p {port} -k {folder} -c listen_addresses=localhost -c fsync=off {tls}"
    run(
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "scram-sha-256",
        f"--pwfile={folder}/password",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    )
    run(str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield System(folder, port)
    finally:
        run(str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "server.key").chmod(0o600)


@pytest.fixture(scope="module")
def owner(system: System) -> str:
    """An owner as managed servers give it: CREATEROLE and CREATEDB, no superuser."""
    with system.admin() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD {}").format(sql.Literal(PASSWORD))
        )
    return "dba"


@pytest.fixture
def one_migration(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("-- migrate:up\nCREATE TABLE one ();\n-- migrate:down\nDROP TABLE one;\n")
    return tmp_path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    "way", ["PGPASSWORD", "PGPASSFILE", "service file", "TLS by environment", "checked TLS", "socket"]
)
def test_migrations_reach_the_server_by_every_way_that_connections_do(
    system: System, owner: str, one_migration: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    url = system.database(owner)
    if way == "PGPASSFILE":
        escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        (one_migration / "pass").write_text(f"localhost:{system.port}:*:{owner}:{escaped}\n")
        (one_migration / "pass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(one_migration / "pass"))
    elif way == "service file":
        name = url.rsplit("/", 1)[1]
        (one_migration / "services").write_text(
            f"[meters]\nhost=localhost\nport={system.port}\nuser={owner}\ndbname={name}\npassword={PASSWORD}\n"
        )
        monkeypatch.setenv("PGSERVICEFILE", str(one_migration / "services"))
        url = f"postgresql:///{name}?service=meters"
    else:
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    if way == "TLS by environment":
        monkeypatch.setenv("PGSSLMODE", "require")
    elif way == "checked TLS":
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        monkeypatch.setenv("PGSSLROOTCERT", str(system.folder / "server.crt"))
    elif way == "socket":
        url = f"postgresql://{owner}@:{system.port}/{url.rsplit('/', 1)[1]}?host={system.folder}"
    assert migrate(Database(url), one_migration) == 1
    assert migrate(Database(url), one_migration) == 0


def test_a_password_is_in_no_message(
    system: System, owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    (tmp_path / "0001_bad.sql").write_text("-- migrate:up\nSELECT nonsense;\n-- migrate:down\n")
    with pytest.raises(MigrationError) as raised:
        migrate(Database(system.database(owner)), tmp_path)
    assert "nonsense" in str(raised.value)
    assert PASSWORD not in str(raised.value)
    assert "p%20w" not in str(raised.value)


def whole(url: str) -> None:
    """All migrations, the roles' privileges, and the ledger's guards as they should be."""
    database = Database(url)
    assert migrate(database) >= 12
    privileges.apply(database)
    assert privileges.apply(database) > 0, "and again"
    with database.connect() as connection:
        assert privileges.differences(connection) == []
        assert ledger_privileges.check(connection).deviations == () or all(
            "may act as the owner" in said for said in ledger_privileges.check(connection).deviations
        )


def test_an_owner_who_creates_roles_is_enough(system: System, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = system.database(owner)
    whole(url)
    # This server cannot grant a membership without SET (PostgreSQL 15), and no role ends a pause there either.
    tried = try_everything(Database(f"postgresql://postgres:secret@localhost:{system.port}/{url.rsplit('/', 1)[1]}"))
    assert min(tried.values()) > 30


def test_an_owner_who_may_not_create_roles_has_them_made_by_an_administrator(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    with system.admin() as connection:
        no_roles(connection)
        connection.execute(sql.SQL("CREATE ROLE plain LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = system.database("plain")
    with pytest.raises(MigrationError, match="role meter_ledger_owner is missing and plain may not make it"):
        migrate(Database(url))
    with system.admin() as connection:
        for _ in range(2):
            connection.execute(database_roles.administrators_script("plain").encode())
    whole(system.database("plain"))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a demo takes a minute, and six beside other work
@pytest.mark.parametrize("roles", ["made by the owner", "made by an administrator"])
def test_the_whole_demo_as_an_owner_who_is_no_superuser(
    system: System, roles: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From an empty database to a bill and an export that the auditor's program passes."""
    name = f"demo_{uuid.uuid4().hex[:6]}"
    how = sql.SQL("CREATEROLE CREATEDB") if roles == "made by the owner" else sql.SQL("NOCREATEROLE NOCREATEDB")
    with system.admin() as connection:
        no_roles(connection)
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(sql.Identifier(name), how, sql.Literal(PASSWORD))
        )
        if roles == "made by an administrator":
            connection.execute(database_roles.administrators_script(name).encode())
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = system.database(name)
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    command = [str(Path(sys.executable).with_name("meter-pipeline")), "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "an export of the ledger and its rows: OK" in " ".join(done.stdout.split())
    with Database(url).connect() as connection:
        (bills,) = connection.execute("SELECT count(*) FROM billing.statement").fetchone() or (0,)
        assert bills > 10
        (superuser,) = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone() or (
            1,
        )
        assert not superuser


def no_roles(administrator: psycopg.Connection[tuple[object, ...]]) -> None:
    """Drop every database that tests made and every role of the product, as before a first deployment."""
    for (database,) in administrator.execute("SELECT datname FROM pg_database WHERE datname LIKE 'mp_%'").fetchall():
        administrator.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(database))))
    for (role,) in administrator.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'meter%'").fetchall():
        administrator.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(role))))
