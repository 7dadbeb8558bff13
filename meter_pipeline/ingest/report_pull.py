"""Pulls reports that an API makes on request and has ready later: requests one, waits, downloads it into the inbox.

The address of the next request is stored before any wait, so that a pull that ends early, or is killed, leaves the
report to the next one: a report is requested one time. A report that failed, or that the server no longer has, is
requested again at the next pull. Addresses in an answer must be on the declared host. The file is downloaded in pieces
and continues after an interruption, where the server supports that; a download of the wrong length is repeated.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.fetch_rules import Fetch, secure
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import archive
from meter_pipeline.ingest.fetched import NotReadyError, Pulled, PullError, secret

TIMEOUTS: Final = httpx.Timeout(30.0, connect=5.0, read=60.0)
ATTEMPTS: Final = 5
ANSWER_BYTES: Final = 4 << 20
MOST_BYTES: Final = 8 << 30
#: One request as a whole: a server that drips a byte a second would hold us for ever.
REQUEST_S: Final = 900.0
#: A server that asks for a longer rest is asked again by the next pull.
LONGEST_REST_S: Final = 60.0
#: A report that is not ready by then is asked for anew.
GIVEN_UP_AFTER: Final = timedelta(days=2)


async def pull_report(
    head_end: HeadEnd,
    day: date,
    inbox: Path,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> Pulled:
    """The report of one billing day, in ``inbox/HEAD-END/``. Raises NotReadyError where it is still being made,
    PullError where it cannot be had."""
    fetch = head_end.fetch
    if fetch is None or fetch.how != "report":
        raise PullError(f'{head_end.name}: no [fetch] with how = "report"')
    folder = inbox / head_end.name
    folder.mkdir(parents=True, exist_ok=True)
    part, note = folder / f".{day}.report", folder / f".{day}.asked"
    headers, auth = _credentials(head_end.name, fetch)
    async with httpx.AsyncClient(timeout=TIMEOUTS, headers=headers, auth=auth, follow_redirects=False) as client:
        api = _Api(client, fetch, clock)
        state = _noted(note, clock.now())
        if state is None:
            part.unlink(missing_ok=True)
            state = {"status": await api.asked(day), "asked_at": clock.now().isoformat()}
            _write(note, state)
        try:
            address = await api.ready_at(state["status"])
            await api.collected(address, part)
        except _LostReportError as error:
            note.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            raise PullError(f"{error}; the next pull asks for it anew") from error
    target, new = None, True
    if part.stat().st_size:
        target = folder / f"{day}.{archive.hash_file(part).hex()[:16]}{fetch.suffix}"
        new = not target.exists()
        if new:
            part.replace(target)
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    return Pulled(day, target, 0, api.requests, api.retries, new)


class _LostReportError(RuntimeError):
    """The report failed or is gone."""


class _Api:
    """The requests of one pull."""

    def __init__(self, client: httpx.AsyncClient, fetch: Fetch, clock: Clock) -> None:
        self.client, self.fetch, self.clock = client, fetch, clock
        self.requests = self.retries = 0

    async def asked(self, day: date) -> str:
        """Ask for the report; the address of its status."""
        fetch = self.fetch
        words = {"{day}": day.isoformat(), "{next_day}": (day + timedelta(days=1)).isoformat()}
        body = {}
        for key, value in fetch.body.items():
            for word, text in words.items():
                value = value.replace(word, text)
            body[key] = value
        answer = await self._json("POST", fetch.url, body)
        if fetch.id:
            return self._address(fetch.status.replace("{id}", str(_at(answer, fetch.id))))
        return self._address(str(_at(answer, fetch.status)))

    async def ready_at(self, status: str) -> str:
        """Wait for the report; the address of its file. Raises NotReadyError, _LostReportError."""
        fetch = self.fetch
        waited = 0
        while True:
            answer = await self._json("GET", status)
            state = str(_at(answer, fetch.state))
            if state in fetch.ready:
                return self._address(str(_at(answer, fetch.file)))
            if state in fetch.failed:
                raise _LostReportError(f"the report failed ({state})")
            if waited + fetch.poll_seconds > fetch.patience_seconds:
                raise NotReadyError(f"asked for, {state or 'not ready'}: the next pull collects it")
            await self.clock.sleep(fetch.poll_seconds)
            waited += fetch.poll_seconds

    async def collected(self, address: str, part: Path) -> None:
        """Fetch the file, going on where an earlier attempt stopped. Raises PullError, _LostReportError."""
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._rest(attempt)
            have = part.stat().st_size if part.exists() else 0
            ranged = {"Range": f"bytes={have}-"} if have else {}
            try:
                self.requests += 1
                async with asyncio.timeout(REQUEST_S), self.client.stream("GET", address, headers=ranged) as answer:
                    if answer.status_code in (404, 410):
                        raise _LostReportError(f"the report is gone (status {answer.status_code})")
                    if answer.status_code == 416:  # the part is no beginning of this file, or already all of it
                        part.unlink(missing_ok=True)
                        continue
                    if answer.status_code not in (200, 206):
                        why = f"status {answer.status_code}"
                        if answer.status_code != 429 and answer.status_code < 500:
                            raise PullError(why)
                        continue
                    goes_on = answer.status_code == 206 and _begins_at(answer, have)
                    whole = _whole_length(answer, have if goes_on else 0)
                    await _written(answer, part, "ab" if goes_on else "wb")
                size = part.stat().st_size
                if whole is None or size == whole:
                    return
                why = f"{size} bytes came of {whole}"
                if size > whole:
                    part.unlink()
            except (httpx.TransportError, TimeoutError) as error:
                why = f"{type(error).__name__}: {error}"
        raise PullError(f"the report's file: gave up after {ATTEMPTS} attempts: {why[:300]}")

    async def _json(self, method: str, url: str, form: dict[str, str] | None = None) -> Any:
        """A JSON answer. A POST is sent once where it may have been taken: only an answer of 429 or 503 and a
        connection that was never made are tried again."""
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._rest(attempt)
            try:
                self.requests += 1
                async with asyncio.timeout(REQUEST_S), self.client.stream(method, url, data=form) as answer:
                    content = bytearray()
                    async for piece in answer.aiter_bytes():
                        content += piece
                        if len(content) > ANSWER_BYTES:
                            raise PullError(f"an answer of more than {ANSWER_BYTES} bytes")
                if answer.status_code in (200, 201, 202):
                    return json.loads(bytes(content))
                why = f"status {answer.status_code}"
                if method == "GET" and answer.status_code in (404, 410):
                    raise _LostReportError(f"the server no longer knows the report (status {answer.status_code})")
                again = answer.status_code in (429, 503) or (method == "GET" and answer.status_code >= 500)
                if not again:
                    raise PullError(f"{method} {urlsplit(url).path}: {why}")
                await self._rest_asked(answer, why)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                why = f"{type(error).__name__}: {error}"
            except (httpx.TransportError, TimeoutError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
                if method == "POST":
                    raise PullError(f"the request for the report has no usable answer: {why[:300]}") from error
        raise PullError(f"{method} {urlsplit(url).path}: gave up after {ATTEMPTS} attempts: {why[:300]}")

    async def _rest(self, attempt: int) -> None:
        self.retries += 1
        await self.clock.sleep(random.uniform(0, min(5.0, 0.2 * 2**attempt)))  # noqa: S311 - jitter of retries

    async def _rest_asked(self, answer: httpx.Response, why: str) -> None:
        text = answer.headers.get("retry-after", "")
        seconds = float(text) if text.isascii() and text.isdigit() else 0.0
        if seconds > LONGEST_REST_S:
            raise PullError(f"{why}: it asks for {seconds:.0f} s of rest")
        await self.clock.sleep(seconds)

    def _address(self, given: str) -> str:
        """Returns an address from an answer, on the declared host. Raises PullError for another host."""
        whole = urljoin(self.fetch.url, given)
        ours, theirs = urlsplit(self.fetch.url), urlsplit(whole)
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc) or not secure(whole):
            raise PullError(f"the answer names an address on {theirs.netloc or 'no host'}, not on {ours.netloc}")
        return whole


def _credentials(name: str, fetch: Fetch) -> tuple[dict[str, str], httpx.BasicAuth | None]:
    headers = {"Accept": "application/json, text/csv, */*"}
    if fetch.token_env:
        headers["Authorization"] = f"Bearer {secret(fetch.token_env, name)}"
    if fetch.password_env:
        user = secret(fetch.user_env, name) if fetch.user_env else fetch.user
        return headers, httpx.BasicAuth(user, secret(fetch.password_env, name))
    return headers, None


def _at(answer: Any, path: str) -> Any:
    """Returns the value at a path of keys joined by dots. Raises PullError."""
    node = answer
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            raise PullError(f"the answer has no {path}")
        node = node[key]
    if isinstance(node, dict | list) or node is None:
        raise PullError(f"the answer's {path} is no text")
    return node


def _begins_at(answer: httpx.Response, have: int) -> bool:
    return str(answer.headers.get("content-range", "")).startswith(f"bytes {have}-")


def _whole_length(answer: httpx.Response, have: int) -> int | None:
    """Returns the length of the file, where the answer states it for uncompressed bytes."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        return None
    text = answer.headers.get("content-length", "")
    return have + int(text) if text.isascii() and text.isdigit() else None


async def _written(answer: httpx.Response, part: Path, mode: str) -> None:
    with part.open(mode) as kept:
        async for piece in answer.aiter_bytes():
            kept.write(piece)
            if kept.tell() > MOST_BYTES:
                raise PullError(f"a report of more than {MOST_BYTES} bytes")
        kept.flush()
        os.fsync(kept.fileno())


def _noted(note: Path, now: datetime) -> dict[str, str] | None:
    """Returns the request of an earlier pull; None where there is none, or its report is not ready after two days."""
    try:
        state = json.loads(note.read_text("utf-8"))
        asked_at = datetime.fromisoformat(state["asked_at"])
        return state if isinstance(state["status"], str) and now - asked_at < GIVEN_UP_AFTER else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(note: Path, state: dict[str, str]) -> None:
    half = note.with_suffix(".half")
    half.write_text(json.dumps(state), "utf-8")
    half.replace(note)
