"""A real local server that stalls, resets, repeats pages, refuses and lies about its length; the day still comes whole,
once."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import pull
from meter_pipeline.ingest.fetched import Pulled, PullError
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import CALENDAR

DAY = date(2024, 3, 10)
PAGES = {None: ("p2", 3), "p2": ("p3", 3), "p3": (None, 2)}


class Hostile(BaseHTTPRequestHandler):
    """Each request takes the next misbehaviour of ``script``; an empty script behaves."""

    script: ClassVar[list[str]] = []
    asked: ClassVar[list[str | None]] = []
    whole: ClassVar[str] = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        cursor = query.get("cursor", [None])[0]
        Hostile.asked.append(cursor)
        following, count = PAGES[cursor]
        trick = Hostile.script.pop(0) if Hostile.script else ""
        body = json.dumps(
            {"reads": [{"meter": "M-1", "n": f"{cursor}-{i}"} for i in range(count)], "next": following}
        ).encode()
        if Hostile.whole:
            body = f'{{"reads": [{Hostile.whole}], "next": null}}'.encode()
        status, length, extra = 200, len(body), {}
        if self.headers.get("Authorization") != "Bearer secret":
            status, body, length = 401, b"", 0
        elif trick == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        elif trick == "stall":
            threading.Event().wait(1.5)
        elif trick in ("429", "500", "503"):
            status, body, length, extra = int(trick), b"", 0, {"Retry-After": "1"} if trick == "429" else {}
        elif trick == "lie":
            length += 50
        elif trick == "junk":
            body = b"<html>"
            length = len(body)
        elif trick == "circle":
            body = json.dumps({"reads": [], "next": "p2"}).encode()
            length = len(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return
        if trick == "lie":
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        return


class QuickClock:
    """Sleeps are noted, not slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2024, 3, 12, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def head_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeadEnd]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hostile.script, Hostile.asked = [], []
    monkeypatch.setenv("HES_TOKEN", "secret")
    yield HeadEnd(
        "HES", "http", options={"url": f"http://127.0.0.1:{server.server_port}/reads", "token_env": "HES_TOKEN"}
    )
    server.shutdown()
    server.server_close()


def go(head_end: HeadEnd, inbox: Path, clock: QuickClock | None = None) -> Pulled:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pull, "TIMEOUTS", httpx.Timeout(0.5))
        return asyncio.run(pull.pull_day(head_end, DAY, inbox, clock=clock or QuickClock()))


def reads_of(pulled: Pulled) -> list[str]:
    assert pulled.path is not None
    return [json.loads(line)["n"] for line in pulled.path.read_text().splitlines()]


ALL = ["None-0", "None-1", "None-2", "p2-0", "p2-1", "p2-2", "p3-0", "p3-1"]


@pytest.mark.parametrize(
    "script", [[], ["reset", "", "500", "stall"], ["429", "lie", "junk", "503"], ["", "lie", "reset", "lie"]]
)
def test_every_page_comes_once_whatever_the_server_does(head_end: HeadEnd, tmp_path: Path, script: list[str]) -> None:
    Hostile.script = list(script)
    clock = QuickClock()
    pulled = go(head_end, tmp_path, clock)
    assert reads_of(pulled) == ALL
    assert pulled.retries == sum(bool(s) for s in script)
    assert [p.name for p in (tmp_path / "HES").iterdir()] == [pulled.path.name], "nothing hidden is left"  # type: ignore[union-attr]
    if "429" in script:
        assert max(clock.slept) >= 1, "Retry-After is kept"


def test_a_pull_that_was_cut_goes_on_from_its_cursor(head_end: HeadEnd, tmp_path: Path) -> None:
    Hostile.script = ["", ""] + ["500"] * pull.ATTEMPTS
    with pytest.raises(PullError, match="gave up"):
        go(head_end, tmp_path)
    with (tmp_path / "HES" / f".{DAY}.part").open("ab") as torn:
        torn.write(b'{"half a li')
    Hostile.asked = []
    pulled = go(head_end, tmp_path)
    assert Hostile.asked == ["p3"]
    assert reads_of(pulled) == ALL


def test_cursors_that_turn_in_a_circle_are_refused(head_end: HeadEnd, tmp_path: Path) -> None:
    Hostile.script = ["", "circle"]
    with pytest.raises(PullError, match="circle"):
        go(head_end, tmp_path)


def test_a_refused_token_is_not_tried_again_and_never_shown(
    head_end: HeadEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HES_TOKEN", "planted-secret")
    with pytest.raises(PullError, match="401") as caught:
        go(head_end, tmp_path)
    assert len(Hostile.asked) == 1
    assert "planted-secret" not in str(caught.value)


def test_plain_http_to_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="https"):
        go(HeadEnd("HES", "http", options={"url": "http://hes.example/reads"}), tmp_path)


def test_what_is_wrong_in_a_read_is_handed_on_digit_by_digit(
    head_end: HeadEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser refuses that read alone: no float rounds it, no page is lost for it."""
    sent = (
        '{"meter":"M","n":"a","v":0.12345678901234567890},{"meter":"M","n":"b","v":NaN},{"n":"c","v":1,"v":2},{"n":"d","v":1e999},{"n":"e","v":'
        + "9" * 5000
        + "}"
    )
    monkeypatch.setattr(Hostile, "whole", sent)
    pulled = go(head_end, tmp_path)
    assert pulled.path is not None
    lines = pulled.path.read_text().splitlines()
    assert lines[:4] == [
        '{"meter":"M","n":"a","v":"0.12345678901234567890"}',
        '{"meter":"M","n":"b","v":"NaN"}',
        '{"n":"c","v":1,"v":2}',
        '{"n":"d","v":"1e999"}',
    ]
    assert "9" * 5000 in lines[4]


def test_missing_days_are_asked_for_again(database: Database, head_end: HeadEnd, tmp_path: Path) -> None:
    clock = QuickClock()
    Hostile.script = ["500"] * pull.ATTEMPTS
    first = pull.pull(database, CALENDAR, [head_end], tmp_path, clock=clock).pulls
    assert [asked.day for asked in first] == [date(2024, 3, 12) - timedelta(days=n) for n in range(5, 0, -1)]
    assert [asked.ok for asked in first] == [False, True, True, True, True]
    again = pull.pull(database, CALENDAR, [head_end], tmp_path, clock=clock).pulls
    assert [asked.day for asked in again] == [date(2024, 3, 7)], "the others' files wait in the inbox"
    asked = database.read("SELECT billing_day, times, outcome FROM raw.pull_request ORDER BY 1").rows()
    assert [(times, outcome) for _, times, outcome in asked] == [(2, "pulled")] + [(1, "pulled")] * 4


def test_two_pulls_of_one_head_end_do_not_mix(database: Database, head_end: HeadEnd, tmp_path: Path) -> None:
    with pull._alone(database, head_end.name) as first:
        assert first
        outcome = pull.pull(database, CALENDAR, [head_end], tmp_path, clock=QuickClock())
    assert (outcome.pulls, outcome.postponed) == ([], [("HES", "another pull of it is at work")])
