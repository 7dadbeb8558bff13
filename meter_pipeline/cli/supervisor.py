"""Production's services on one machine under one parent: code server, one daemon, web server, metrics.

A parent of our own and not a shell script: a code server started with & inherits SIGINT ignored, and Dagster, which
takes SIGTERM for SIGINT, can then not be stopped; and a second one silently shares the first one's port. So ports are
tried first, and a child that dies is started again with growing waits.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: A child that lived this long starts its waits over.
HEALTHY_S: Final = 60.0
LONGEST_WAIT_S: Final = 30.0
STOP_S: Final = 25.0


class PortTaken(RuntimeError):
    """Another program listens there already; the message names the port."""


class ServiceFailed(RuntimeError):
    """A service did not start. The message names it, the last cause in its log, and the log."""


#: "psycopg.errors.InsufficientPrivilege: permission denied ...": a line that ends a traceback.
_CAUSE: Final = re.compile(r"^\s*[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Privilege|Violation|Refused)\b.*: .+")


def last_cause(log: Path, since: int = 0) -> str:
    """The last error that a log names after ``since`` bytes, else its last line; empty where it has none."""
    try:
        with log.open("rb") as opened:
            opened.seek(max(since, opened.seek(0, os.SEEK_END) - 200_000))
            lines = opened.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    written = [line.strip() for line in lines if line.strip()]
    causes = [line for line in written if _CAUSE.match(line)]
    return (causes or written or [""])[-1][:500]


@dataclass(frozen=True, slots=True)
class Program:
    """A service: its name, its command, the port it must find free and then listen on (None: it has none)."""

    name: str
    command: Sequence[str]
    port: int | None = None


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    wait_s: float = 1.0
    due: float = 0.0
    log_from: int = 0


def programs(
    workspace: Path,
    code_port: int,
    web_port: int,
    host: str = "127.0.0.1",
    metrics_port: int | None = None,
    desk_port: int | None = None,
) -> list[Program]:
    """The services of one machine, in the order they start."""
    binaries = Path(sys.executable).parent
    found = [
        Program(
            "code-server",
            [
                str(binaries / "dagster"),
                "code-server",
                "start",
                "-h",
                host,
                "-p",
                str(code_port),
                "-m",
                "meter_pipeline.definitions",
            ],
            code_port,
        ),
        Program("daemon", [str(binaries / "dagster-daemon"), "run", "-w", str(workspace)]),
        Program(
            "webserver",
            [str(binaries / "dagster-webserver"), "-h", host, "-p", str(web_port), "-w", str(workspace)],
            web_port,
        ),
    ]
    ours = [sys.executable, "-m", "meter_pipeline.cli.main"]
    if metrics_port is not None:
        command = [*ours, "metrics", "--serve", "--host", host, "--port", str(metrics_port)]
        found.append(Program("metrics", command, metrics_port))
    if desk_port is not None:
        found.append(Program("desk", [*ours, "desk", "--host", host, "--port", str(desk_port)], desk_port))
    return found


def write_workspace(folder: Path, code_port: int) -> Path:
    """The workspace that names the code server: an own one, so that the daemon does not reload the code each minute
    (dagster #32677)."""
    path = folder / "workspace.yaml"
    path.write_text(
        f"load_from:\n  - grpc_server:\n      host: 127.0.0.1\n      port: {code_port}\n      location_name: meter_pipeline\n",
        "utf-8",
    )
    return path


@dataclass
class Supervisor:
    """Keeps programs running until it is stopped (SIGTERM, SIGINT, or ``stop``)."""

    programs: Sequence[Program]
    cwd: Path
    logs: Path
    say: Callable[[str], None] = print
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    _children: dict[str, _Child] = field(default_factory=dict, init=False)
    _stopping: bool = field(default=False, init=False)

    def run(self) -> None:
        """Start all, watch, and stop all in reverse. Raises PortTaken before anything is started, and ServiceFailed
        where a service does not come up."""
        for program in self.programs:
            if program.port is not None and listening(program.port):
                raise PortTaken(f"port {program.port} for the {program.name} is taken; is another deployment running?")
        handlers = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for program in self.programs:
                self._start(program)
                self._wait_for(program)
            self.say("all services run")
            while not self._stopping:
                self._watch()
                time.sleep(0.2)
        finally:
            self._stop_all()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """End ``run`` from another thread."""
        self._stopping = True

    def pid(self, name: str) -> int | None:
        """Returns the process id of a service; None where it is not started."""
        child = self._children.get(name)
        return child.process.pid if child else None

    def _asked(self, *_: Any) -> None:
        self._stopping = True

    def _start(self, program: Program, wait_s: float = 1.0) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{program.name}.log").open("ab") as log:
            log_from = log.seek(0, os.SEEK_END)
            # A session of its own: Ctrl-C at the terminal reaches the supervisor alone, which then stops the rest in
            # order.
            process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                list(program.command),
                cwd=self.cwd,
                env=self.env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._children[program.name] = _Child(program, process, time.monotonic(), wait_s, log_from=log_from)
        self.say(f"{program.name} started, process {process.pid}")

    def _wait_for(self, program: Program, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while program.port is not None and not self._stopping and not listening(program.port):
            child = self._children[program.name]
            code = child.process.poll()
            if code is not None or time.monotonic() > deadline:
                how = f"did not answer within {seconds:.0f} s" if code is None else f"ended with {code}"
                raise ServiceFailed(f"the {program.name} {how}{self._because(child)}")
            time.sleep(0.1)

    def _because(self, child: _Child) -> str:
        """The child's last cause and where its log is."""
        log = self.logs / f"{child.program.name}.log"
        cause = last_cause(log, child.log_from)
        return (f": {cause}" if cause else "") + f" ({log})"

    def _watch(self) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            code = child.process.poll()
            if code is None:
                continue
            if not child.due:
                lived = now - child.started
                child.wait_s = 1.0 if lived > HEALTHY_S else min(LONGEST_WAIT_S, 2 * child.wait_s)
                child.due = now + child.wait_s
                # What it left behind (a killed code server's own child) would hold the port.
                _end_group(child.process.pid, signal.SIGTERM)
                self.say(
                    f"{child.program.name} ended with {code} after {lived:.0f} s; again in {child.wait_s:.0f} s"
                    + self._because(child)
                )
            elif now >= child.due:
                _end_group(child.process.pid, signal.SIGKILL)
                self._start(child.program, child.wait_s)

    def _stop_all(self) -> None:
        for child in reversed(list(self._children.values())):
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_S
        for child in reversed(list(self._children.values())):
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{child.program.name} did not stop within {STOP_S:.0f} s and is killed")
            _end_group(child.process.pid, signal.SIGKILL)
            child.process.wait()
            self.say(f"{child.program.name} stopped")


def _end_group(leader: int, how: signal.Signals) -> None:
    """Signal whatever is left of a child's own session."""
    try:
        os.killpg(leader, how)
    except (ProcessLookupError, PermissionError):
        return


def listening(port: int) -> bool:
    """Whether a program on this machine answers on a port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
