"""A real API that makes reports on request: slow, failing, lying about lengths and addresses; each report comes
once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest

from meter_pipeline.feeds.fetch_rules import Fetch, fault_of
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import pull
from meter_pipeline.ingest.fetched import NotReadyError, Pulled, PullError
from meter_pipeline.ingest.report_pull import pull_report
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import CALENDAR

DAY = date(2026, 3, 10)
REPORT = b"meter,at,dial\n" + b"M-1,2026-03-10T01:00:00Z,5\n" * 20_000


class Api(BaseHTTPRequestHandler):
    """Each request takes the next misbehaviour of ``script``; an empty script behaves. ``states``: what the next looks
    at the report say of it."""

    script: ClassVar[list[str]] = []
    states: ClassVar[list[str]] = []
    asked: ClassVar[list[dict[str, list[str]]]] = []
    ranges: ClassVar[list[str | None]] = []
    elsewhere: ClassVar[str] = ""
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take an order for a report."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self._tricked():
            return
        Api.asked.append(parse_qs(form))
        self._json(202, {"edsUUID": "r-1", "statusUrl": Api.elsewhere or "/eds/status/r-1"})

    def do_GET(self) -> None:
        """Say how a report is, or send its file."""
        if self._tricked():
            return
        if self.path.startswith("/eds/status/"):
            state = Api.states.pop(0) if Api.states else "done"
            self._json(200, {"state": state, "report": {"url": "/content/r-1.csv"} if state == "done" else {}})
            return
        given = self.headers.get("Range")
        Api.ranges.append(given)
        begin = int(given.removeprefix("bytes=").removesuffix("-")) if given else 0
        self.send_response(206 if given else 200)
        if given:
            self.send_header("Content-Range", f"bytes {begin}-{len(REPORT) - 1}/{len(REPORT)}")
        self.send_header("Content-Length", str(len(REPORT) - begin))
        self.end_headers()
        cut = Api.script and Api.script[0] == "cut"
        try:
            self.wfile.write(REPORT[begin : begin + 100_000] if cut else REPORT[begin:])
        except OSError:
            return
        if cut:
            Api.script.pop(0)
            self.close_connection = True

    def _tricked(self) -> bool:
        trick = Api.script[0] if Api.script else ""
        if trick == "cut":
            return False
        if trick:
            Api.script.pop(0)
        if self.headers.get("Authorization") != "Basic Y2l0eTpzZWNyZXQ=":
            self._json(401, {})
        elif trick == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif trick.isdigit():
            self._json(int(trick), {})
        elif trick == "junk":
            self._send(200, b"<html>")
        else:
            return False
        return True

    def _json(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not a word."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDS_PASSWORD", "secret")
    Api.script, Api.states, Api.asked, Api.ranges, Api.elsewhere = [], [], [], [], ""


class StepClock:
    """Time passes only by waiting."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 11, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        """Wait without waiting."""
        self.at += timedelta(seconds=seconds)


def head_end(port: int, **more: Any) -> HeadEnd:
    given: dict[str, Any] = {
        "how": "report",
        "url": f"http://127.0.0.1:{port}/eds/range",
        "user": "city",
        "password_env": "EDS_PASSWORD",
        "body": {"Start_Date": "{day}", "End_Date": "{next_day}", "Resolution": "hourly"},
        "status": "statusUrl",
        "state": "state",
        "ready": ("done",),
        "failed": ("exception",),
        "file": "report.url",
    }
    fetch = Fetch(**(given | more))
    assert fault_of(fetch) is None
    return HeadEnd("BEACON", "wide_csv", fetch=fetch)


def go(declared: HeadEnd, inbox: Path, clock: StepClock | None = None) -> Pulled:
    return asyncio.run(pull_report(declared, DAY, inbox, clock=clock or StepClock()))


def test_a_report_is_asked_for_waited_for_and_collected(port: int, tmp_path: Path) -> None:
    Api.states = ["run", "run", "done"]
    pulled = go(head_end(port), tmp_path)
    assert pulled.path is not None
    assert pulled.path.read_bytes() == REPORT
    assert Api.asked == [{"Start_Date": ["2026-03-10"], "End_Date": ["2026-03-11"], "Resolution": ["hourly"]}]
    assert [p.name for p in (tmp_path / "BEACON").iterdir()] == [pulled.path.name]
    again = go(head_end(port), tmp_path)
    assert (again.path, again.new) == (pulled.path, False)


def test_a_report_that_is_not_ready_is_collected_by_a_later_pull(port: int, tmp_path: Path) -> None:
    declared = head_end(port, id="edsUUID", status="/eds/status/{id}", patience_seconds=60, poll_seconds=30)
    Api.states = ["run"] * 3
    with pytest.raises(NotReadyError, match="asked for, run"):
        go(declared, tmp_path)
    pulled = go(declared, tmp_path)
    assert pulled.path is not None
    assert len(Api.asked) == 1
    Api.states = ["run"] * 3
    clock = StepClock()
    with pytest.raises(NotReadyError):
        go(declared, tmp_path, clock)
    clock.at += timedelta(days=3)
    go(declared, tmp_path, clock)
    assert len(Api.asked) == 3, "a report that is not ready after two days is asked for anew"


def test_resets_rests_and_cut_files_cost_attempts_and_no_bytes(port: int, tmp_path: Path) -> None:
    Api.script = ["503", "ok", "reset", "500", "junk", "cut", "cut"]
    pulled = go(head_end(port), tmp_path)
    assert pulled.path is not None
    assert pulled.path.read_bytes() == REPORT
    assert len(Api.asked) == 1
    assert Api.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_report_that_failed_or_is_gone_is_asked_for_anew(port: int, tmp_path: Path) -> None:
    Api.states = ["exception"]
    with pytest.raises(PullError, match="failed"):
        go(head_end(port), tmp_path)
    Api.states = ["run"] * 10
    with pytest.raises(NotReadyError):
        go(head_end(port), tmp_path)
    Api.script, Api.states = ["404"], []
    with pytest.raises(PullError, match="no longer knows"):
        go(head_end(port), tmp_path)
    assert go(head_end(port), tmp_path).path is not None
    assert len(Api.asked) == 3


def test_an_order_that_may_have_been_taken_is_not_sent_twice_by_one_pull(port: int, tmp_path: Path) -> None:
    Api.script = ["reset"]
    with pytest.raises(PullError, match="no usable answer"):
        go(head_end(port), tmp_path)
    assert Api.asked == []


def test_no_secret_goes_to_another_host_and_a_refusal_says_so(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Api.elsewhere = "https://elsewhere.example/eds"
    with pytest.raises(PullError, match=r"an address on elsewhere\.example"):
        go(head_end(port), tmp_path)
    Api.elsewhere = ""
    monkeypatch.setenv("EDS_PASSWORD", "guess")
    with pytest.raises(PullError, match="status 401"):
        go(head_end(port), tmp_path)
    assert fault_of(Fetch("report", url="http://elsewhere.example/")) == "url must be https, or http to this machine"


def test_days_are_asked_for_again_when_reads_have_gone_on_arriving(port: int) -> None:
    declared = head_end(port, again_days=(3, 30))
    today = date(2026, 4, 20)
    first = {today - timedelta(days=n): today - timedelta(days=n - 1) for n in range(1, 60)}  # each asked the day after
    assert pull.again(declared, first, today) == {
        today - timedelta(days=lag + late) for lag in (3, 30) for late in range(7)
    }
    asked = {day: max(at, today if pull.again(declared, first, today) & {day} else at) for day, at in first.items()}
    assert pull.again(declared, asked, today) == set()
    assert pull.again(head_end(port), first, today) == set()


def test_a_round_of_pulls_leaves_a_report_to_the_next(port: int, tmp_path: Path, database: Database) -> None:
    declared = head_end(port, patience_seconds=0)
    Api.states = ["run"]
    [asked] = pull.pull(database, CALENDAR, [declared], tmp_path, days=[DAY]).pulls
    assert (asked.ok, asked.file) == (True, None)
    assert "the next pull collects it" in asked.outcome
    [came] = pull.pull(database, CALENDAR, [declared], tmp_path, days=[DAY]).pulls
    assert came.outcome == "pulled"
    assert came.file is not None
    assert (tmp_path / came.file).read_bytes() == REPORT
    assert len(Api.asked) == 1
