"""``bench runs``: what a Dagster run costs before its first write, and what the services of a deployment cost at rest.

The services of the deployment in use (the demo's, after ``make demo``) are started as ``meter-pipeline services up``
starts them. A run of ``land_feeds`` is launched through the web server, as the Launchpad does, with one small file in
the inbox; its first write is the file's row in raw.feed_file, which says when it was registered. With ``beside``
another checkout's program is measured by turns on a deployment of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.support import document
from meter_pipeline.postgres.database import open_database
from meter_pipeline.settings import Settings, load_settings

#: A run's events that mark its way to the first write, in order.
MARKS: Final = {
    "RUN_ENQUEUED": "queued",
    "RUN_STARTING": "taken_from_queue",
    "RUN_START": "code_loaded",
    "STEP_START": "step",
}
_EVENTS: Final = """query ($r: ID!) { logsForRun(runId: $r) { ... on EventConnection { events {
    __typename ... on MessageEvent { timestamp eventType } } } } }"""
_LAUNCH: Final = """mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_STATUS: Final = "query ($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }"
_ENDED: Final = ("SUCCESS", "FAILURE", "CANCELED")


def run(
    rounds: int = 5, idle_s: int = 600, settle_s: int = 60, beside: str = "", beside_home: str = ""
) -> dict[str, Any]:
    """Median seconds from a launch to its first write, of ``rounds`` runs by turns, and each service's processor
    seconds over ``idle_s`` seconds at rest. ``beside``: another checkout's ``meter-pipeline``, whose deployment is in
    ``beside_home``."""
    settings = load_settings()
    measured = {"ours": _Deployment([sys.executable, "-m", "meter_pipeline.cli.main"], settings)}
    if beside:
        measured["beside"] = _Deployment([beside], replace(settings, home=Path(beside_home)))
    figures: dict[str, Any] = {name: {} for name in measured}
    try:
        if rounds:
            for one in measured.values():
                one.start(automation="off")
            for n in range(rounds + 1):  # the first run of each is not counted: the server has read nothing yet
                for one in measured.values():
                    one.launch(counts=n > 0)
            for name, one in measured.items():
                figures[name] |= one.starts()
                one.stop()
        if idle_s:
            for one in measured.values():
                one.start(automation="on")
            time.sleep(settle_s)
            before = {name: one.processor() for name, one in measured.items()}
            time.sleep(idle_s)
            for name, one in measured.items():
                spent = {p: round(s - before[name].get(p, 0.0), 2) for p, s in one.processor().items()}
                figures[name]["idle_processor_s"] = spent
                figures[name]["idle_percent_of_a_core"] = round(100 * sum(spent.values()) / idle_s, 2)
    finally:
        for one in measured.values():
            one.stop()
    ratios: dict[str, float | None] = {}
    for what in ("launch_to_first_write_s", "processor_s", "idle_percent_of_a_core") if beside else ():
        if what in figures["ours"]:
            ratios[f"{what}_over_beside"] = round(figures["ours"][what] / figures["beside"][what], 3)
    return document("runs", {"rounds": rounds, "idle_s": idle_s, "beside": beside}, figures, ratios)


@dataclass
class _Deployment:
    """The services of a deployment under their parent, and what its runs took."""

    program: list[str]
    settings: Settings
    web: int = 0
    process: subprocess.Popen[bytes] | None = None
    took: dict[str, list[float]] = field(default_factory=dict)

    def start(self, automation: str) -> None:
        """``automation``: on or off, whether sensors and schedules are switched on."""
        self.web, code, metrics = (_free_port() for _ in range(3))
        ports = ["--port", str(self.web), "--code-port", str(code), "--metrics-port", str(metrics)]
        self.process = subprocess.Popen(
            [*self.program, "services", "up", *ports],
            env=os.environ | {"METER_PIPELINE_HOME": str(self.settings.home), "METER_PIPELINE_AUTOMATION": automation},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _until(self._answers, "the web server")

    def launch(self, *, counts: bool) -> None:
        """One run, from the call of the web server to its end."""
        file = self._new_file()
        before, started = sum(self.processor().values()), time.time()
        selector = {
            "repositoryLocationName": "meter_pipeline",
            "repositoryName": "__repository__",
            "jobName": "land_feeds",
        }
        said = self._ask(_LAUNCH, p={"selector": selector, "runConfigData": {}})["launchRun"]
        run_id = said["run"]["runId"]
        _until(lambda: self._ask(_STATUS, r=run_id)["runOrError"].get("status") in _ENDED, "the end of the run")
        spent = sum(self.processor().values()) - before
        at = self._landed(file.name)
        events = self._ask(_EVENTS, r=run_id)["logsForRun"]["events"]
        seen = {e["eventType"]: float(e["timestamp"]) / 1000 for e in reversed(events) if e.get("eventType")}
        names = {
            "PIPELINE_ENQUEUED": "RUN_ENQUEUED",
            "PIPELINE_STARTING": "RUN_STARTING",
            "PIPELINE_START": "RUN_START",
        }
        seen = {names.get(kind, kind): moment for kind, moment in seen.items()}
        if counts:
            for kind, name in MARKS.items():
                self.took.setdefault(f"launch_to_{name}_s", []).append(seen[kind] - started)
            self.took.setdefault("launch_to_first_write_s", []).append(at.timestamp() - started)
            self.took.setdefault("processor_s", []).append(spent)

    def starts(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: round(statistics.median(all_), 2) for name, all_ in self.took.items()}
        found["runs_s"] = [round(s, 2) for s in self.took["launch_to_first_write_s"]]
        return found

    def processor(self) -> dict[str, float]:
        """Processor seconds so far of each service with its children, by name; ``postgres``: the embedded server."""
        assert self.process is not None
        kept = self.settings.home / "postgres"
        server = next((int(p.read_text().split()[0]) for p in kept.rglob("postmaster.pid")), 0)
        found: dict[str, float] = {"parent": _seconds(self.process.pid), "postgres": _tree_seconds(server)}
        for child in _children(self.process.pid):
            found[_service(child)] = _tree_seconds(child)
        return found

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(90)
            self.process = None

    def _new_file(self) -> Path:
        """A file in the inbox whose reads are known, a line longer than the one before, so that its bytes are new."""
        folder = self.settings.home / "inbox" / "AMI"
        whole = min(folder.glob("*_00.csv")).read_bytes().splitlines(keepends=True)
        path = folder / f"bench-{uuid.uuid4().hex[:12]}.csv"
        lines = 2 + len(list(folder.glob("bench-*.csv")))
        path.write_bytes(b"".join(whole[:lines]))
        past = time.time() - 60
        os.utime(path, (past, past))
        return path

    def _landed(self, name: str) -> datetime:
        with open_database(self.settings).connect("bench", autocommit=True) as connection:
            row = connection.execute(
                "SELECT landed_at FROM raw.feed_file WHERE file_name LIKE %s", (f"%{name}",)
            ).fetchone()
        if row is None:
            raise RuntimeError(f"{name} was not landed")
        moment: datetime = row[0]
        return moment

    def _answers(self) -> bool:
        try:
            found = self._ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except (httpx.HTTPError, ValueError):
            return False
        entries = found["workspaceOrError"].get("locationEntries", [])
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"http://127.0.0.1:{self.web}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        if "errors" in answer:
            raise RuntimeError(str(answer["errors"]))
        return dict(answer["data"])


def _until(ready: Any, what: str, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.25)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _service(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    named = ("code-server", "webserver", "metrics", "daemon")
    return next((name for name in named if any(name in word for word in words)), f"process {pid}")


def _children(pid: int) -> list[int]:
    return [int(n) for task in Path(f"/proc/{pid}/task").glob("*/children") for n in task.read_text().split()]


def _tree_seconds(pid: int) -> float:
    if not pid:
        return 0.0
    return _seconds(pid) + sum(_tree_seconds(child) for child in _children(pid))


def _seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")
