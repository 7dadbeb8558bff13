"""The supervisor starts in order, brings back what dies, stops in reverse, and starts nothing beside somebody else's
service."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_pipeline.cli.init import make_demo
from meter_pipeline.cli.supervisor import PortTaken, Program, ServiceFailed, Supervisor, programs, write_workspace

LISTEN = "import socket,sys,time\ns=socket.socket(); s.setsockopt(1,2,1); s.bind(('127.0.0.1',int(sys.argv[1]))); s.listen(); time.sleep(600)"
STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int | None) -> bool:
    return (
        pid is not None
        and Path(f"/proc/{pid}").exists()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    )


def supervised(wanted: list[Program], folder: Path) -> tuple[Supervisor, threading.Thread, list[str]]:
    said: list[str] = []
    supervisor = Supervisor(wanted, cwd=folder, logs=folder / "logs", say=said.append)
    # signal.signal is for the main thread alone; a test's supervisor is told to stop instead.
    thread = threading.Thread(target=supervisor.run)
    return supervisor, thread, said


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: signal.SIG_DFL)


def test_a_service_that_dies_comes_back_on_its_port_and_all_stop_together(tmp_path: Path) -> None:
    port = free()
    wanted = [
        Program("server", [sys.executable, "-c", LISTEN, str(port)], port),
        Program("stubborn", [sys.executable, "-c", "import time; time.sleep(600)"]),
    ]
    supervisor, thread, said = supervised(wanted, tmp_path)
    thread.start()
    until(lambda: "all services run" in said)
    first = supervisor.pid("server")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.pid("server") != first and alive(supervisor.pid("server")))
    pids = [supervisor.pid(name) for name in ("server", "stubborn")]
    supervisor.stop()
    thread.join(30)
    assert not any(alive(pid) for pid in pids)
    assert [words.split()[0] for words in said if words.endswith("stopped")] == ["stubborn", "server"]


def test_what_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter_pipeline.cli.supervisor.STOP_S", 1.0)
    supervisor, thread, said = supervised([Program("stubborn", [sys.executable, "-c", STUBBORN])], tmp_path)
    thread.start()
    until(lambda: "all services run" in said)
    time.sleep(0.5)
    pid = supervisor.pid("stubborn")
    supervisor.stop()
    thread.join(20)
    assert not alive(pid)


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            Supervisor(
                [Program("first", ["true"]), Program("server", ["true"], port)], tmp_path, tmp_path / "logs"
            ).run()
    assert not (tmp_path / "logs").exists()


def test_the_services_of_a_machine(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path, 4000)
    assert "port: 4000" in workspace.read_text()
    assert [p.name for p in programs(workspace, 4000, 3000)] == ["code-server", "daemon", "webserver"]


def test_a_service_that_cannot_start_says_its_last_cause_and_where_its_log_is(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "server.log").write_text("ValueError: of an earlier start\n")
    failing = (
        "import sys; print('starting'); sys.stdout.flush(); raise RuntimeError('role meter_ingest: permission denied')"
    )
    program = Program("server", [sys.executable, "-c", failing], free())
    with pytest.raises(
        ServiceFailed, match=r"the server ended with 1: RuntimeError: role meter_ingest: permission denied"
    ):
        Supervisor([program], tmp_path, folder).run()
    quiet = Program("server", [sys.executable, "-c", "raise SystemExit(3)"], free())
    with pytest.raises(ServiceFailed, match=r"ended with 3 \(.*server.log\)"):
        Supervisor([quiet], tmp_path, folder).run()


@pytest.mark.parametrize("command", [("ui",), ("metrics", "--serve"), ("desk",)])
def test_a_busy_port_is_one_line_that_names_another(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meter_pipeline.cli.main import app

    make_demo(tmp_path)
    monkeypatch.setenv("METER_PIPELINE_DEPLOYMENT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["meter-pipeline", *command])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = CliRunner().invoke(app, [*command, "--port", port])
    assert done.exit_code == 1
    assert f"port {port} is taken" in done.stderr
    assert "Next: give another one" in done.stderr
