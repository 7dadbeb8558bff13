"""Real Dagster services for a test: web server, daemon and code server as processes, driven through GraphQL as the UI
does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from meter_pipeline.deployment import dagster_url
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import ROOT

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Services:
    """Dagster on a database of the test's own. Use as a context manager; every process started is ended by its pid."""

    def __init__(
        self,
        home: Path,
        database: Database,
        location: Path | str,
        attribute: str = "defs",
        env: dict[str, str] | None = None,
        max_runtime: int = 0,
    ) -> None:
        self.home, self.database = home, database
        self.code_port, self.web_port = free_port(), free_port()
        self.location, self.attribute = location, attribute
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        home.mkdir(parents=True, exist_ok=True)
        base = (ROOT / "dagster.yaml").read_text()
        if max_runtime:
            base = base.replace("max_runtime_seconds: 21600", f"max_runtime_seconds: {max_runtime}").replace(
                "poll_interval_seconds: 10", "poll_interval_seconds: 2"
            )
        (home / "dagster.yaml").write_text(base)
        (home / "workspace.yaml").write_text(
            f"load_from:\n  - grpc_server:\n      host: 127.0.0.1\n      port: {self.code_port}\n      location_name: test\n"
        )
        self.env = (
            os.environ
            | {
                "DAGSTER_HOME": str(home),
                "PYTHONPATH": str(ROOT),
                "METER_PIPELINE_HOME": str(home),
                "METER_PIPELINE_DATABASE_URL": database.url,
                "METER_PIPELINE_DAGSTER_URL": dagster_url(database.url),
            }
            | (env or {})
        )

    def __enter__(self) -> Services:
        subprocess.run(
            [BIN / "dagster", "instance", "migrate"],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            check=True,
            timeout=120,
        )
        self.start("code")
        self.start("daemon")
        self.start("web")
        self.until(lambda: self._answers(), 45, "the web server")
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.stop(name)

    def start(self, name: str) -> None:
        where = ["-f", str(self.location)] if isinstance(self.location, Path) else ["-m", str(self.location)]
        commands = {
            "code": [
                "code-server",
                "start",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.code_port),
                *where,
                "-a",
                self.attribute,
            ],
            "daemon": ["-m", "dagster._daemon"],
            "web": ["-h", "127.0.0.1", "-p", str(self.web_port), "-w", str(self.home / "workspace.yaml")],
        }
        program: dict[str, list[object]] = {
            "code": [BIN / "dagster"],
            "daemon": [BIN / "dagster-daemon", "run", "-w", self.home / "workspace.yaml"],
            "web": [BIN / "dagster-webserver"],
        }
        arguments = [str(a) for a in program[name]] + ([] if name == "daemon" else commands[name])
        with (self.home / f"{name}.log").open("ab") as log:
            # Its own session, so that a killed service takes no other with it.
            self.processes[name] = subprocess.Popen(
                arguments, env=self.env, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )
        if name == "code":
            self.until(lambda: _listening(self.code_port), 60, "the code server")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        if how is signal.SIGKILL:
            os.killpg(process.pid, how)  # the code server's child and its run workers too: a reboot of that machine
        else:
            process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def until(self, ready: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for something to be true and return it; the services' logs are in the failure."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = ready()
            if found:
                return found
            time.sleep(0.1)
        tails = "\n".join(
            f"--- {log.name}\n" + log.read_text(errors="replace")[-1500:] for log in self.home.glob("*.log")
        )
        raise AssertionError(f"{what} did not come within {seconds} s\n{tails}")

    def _answers(self) -> bool:
        try:
            found = self.graphql(
                "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
            )
        except httpx.HTTPError:
            return False
        entries = found["workspaceOrError"].get("locationEntries", [])
        return bool(entries) and all(
            e["locationOrLoadError"] and e["locationOrLoadError"]["__typename"] == "RepositoryLocation" for e in entries
        )

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"http://127.0.0.1:{self.web_port}/graphql", json={"query": query, "variables": variables}, timeout=30
        )
        document = answer.json()
        assert "errors" not in document, document["errors"]
        return dict(document["data"])

    def backfill(self, asset: str | list[str], days: list[str]) -> str:
        """Launch an asset backfill, as the UI's button does."""
        keys = [asset] if isinstance(asset, str) else asset
        found = self.graphql(
            """mutation ($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            p={"partitionNames": days, "assetSelection": [{"path": [key]} for key in keys], "fromFailure": False},
        )["launchPartitionBackfill"]
        return str(found["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        return str(
            self.graphql(
                "query ($b: String!) { partitionBackfillOrError(backfillId: $b) { ... on PartitionBackfill { status } } }",
                b=backfill,
            )["partitionBackfillOrError"]["status"]
        )

    def stop_sensors(self, *names: str) -> None:
        """Switch sensors off, as their switch in the UI does."""
        for name in names:
            found = self.graphql(
                """query ($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { sensorState { id } } } }""",
                s={"repositoryLocationName": "test", "repositoryName": "__repository__", "sensorName": name},
            )["sensorOrError"]["sensorState"]["id"]
            self.graphql("mutation ($i: String!) { stopSensor(id: $i) { __typename } }", i=found)

    def launch(self, job: str, config: dict[str, Any] | None = None, tags: dict[str, str] | None = None) -> str:
        """Launch a job, as the Launchpad does; returns the run id."""
        found = self.graphql(
            """mutation ($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename ... on LaunchRunSuccess { run { runId } }
                 ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } } }""",
            p={
                "selector": {"repositoryLocationName": "test", "repositoryName": "__repository__", "jobName": job},
                "runConfigData": config or {},
                "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in (tags or {}).items()]},
            },
        )["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        return str(found["run"]["runId"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(
            self.graphql(
                "query ($r: ID!) { runOrError(runId: $r) { ... on Run { status startTime endTime tags { key value } } } }",
                r=run_id,
            )["runOrError"]
        )

    def statuses(self) -> list[str]:
        return [
            r["status"]
            for r in self.graphql("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
        ]

    def finished(self, run_id: str, seconds: float = 60) -> str:
        return str(
            self.until(
                lambda: (s := self.status(run_id)) in ("SUCCESS", "FAILURE", "CANCELED") and s,
                seconds,
                f"the end of {run_id}",
            )
        )

    def status(self, run_id: str) -> str:
        """A run's status; nothing where the web server cannot say, as in the moment after its database was
        restarted.
        """
        try:
            return str(self.run(run_id)["status"])
        except (AssertionError, httpx.HTTPError):
            return ""

    def pool_limit(self, pool: str) -> int | None:
        limits = self.graphql("{ instance { poolConfig { __typename } concurrencyLimits { concurrencyKey limit } } }")[
            "instance"
        ]["concurrencyLimits"]
        return next((row["limit"] for row in limits if row["concurrencyKey"] == pool), None)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
