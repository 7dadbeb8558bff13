"""Head-ends that are asked: a paginated HTTP API pulled into the inbox, a billing day at a time.

Belongs here: asking, retrying, resuming, and which days to ask for. Does not belong here: reading what came (feeds/ reads the JSON Lines file).

A head-end of format ``http`` declares in its options: ``url`` (https; plain http only to this machine), ``token_env`` (the environment variable
that holds the bearer token), and optionally ``page_size``. A page is ``GET url?day=YYYY-MM-DD&limit=N[&cursor=C]`` answered with
``{"reads": [object, ...], "next": "C" or null}``. Pages go to a hidden file beside a note of the cursor; only a whole day gets a name that the inbox
sees. A pull that was cut goes on from its cursor; one whose cursors turn in a circle is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.store import raw
from meter_pipeline.store.database import Database

#: Days for which a missing day is asked again before its estimate may become final.
ASK_AGAIN_DAYS: Final = 5
TIMEOUTS: Final = httpx.Timeout(30.0, connect=5.0, read=20.0)
#: One page as a whole, which the read timeout (between two bytes) does not bound: a server that drips a byte a second would hold us for ever.
PAGE_S: Final = 60.0
PAGE_BYTES: Final = 32 << 20
MOST_PAGES: Final = 100_000
ATTEMPTS: Final = 6
#: A server that asks for a longer rest than this is asked again by the next run, not waited for.
LONGEST_REST_S: Final = 60.0
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class PullError(RuntimeError):
    """The day could not be pulled; the message says why. What came so far is kept and the next pull goes on from there."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pulled day: the inbox file (None where the day was empty), its reads, the pages asked for, and the attempts beyond the first."""

    day: date
    path: Path | None
    reads: int
    pages: int
    retries: int


async def pull_day(
    head_end: HeadEnd,
    day: date,
    inbox: Path,
    *,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
    timeouts: httpx.Timeout = TIMEOUTS,
    page_s: float = PAGE_S,
) -> Pulled:
    """Pull one billing day of a head-end into ``inbox/HEAD-END/``. Raises PullError."""
    url, headers = _address(head_end)
    rng = rng or random.Random()  # noqa: S311 - jitter of retries
    folder = inbox / head_end.name
    folder.mkdir(parents=True, exist_ok=True)
    part, note = folder / f".{day}.part", folder / f".{day}.cursor"
    state = _resume(part, note)
    retries = 0
    async with httpx.AsyncClient(timeout=timeouts, headers=headers, follow_redirects=False, verify=True) as client:
        seen: set[str] = set(state["seen"])
        while not state["done"]:
            parameters = {"day": day.isoformat(), "limit": str(head_end.options.get("page_size", 1000))}
            if state["cursor"] is not None:
                parameters["cursor"] = state["cursor"]
            page, again = await _page(client, url, parameters, clock, rng, page_s)
            retries += again
            following = page["next"]
            if following is not None and (following in seen or following == state["cursor"]):
                _forget(part, note)
                raise PullError(f"{head_end.name} sends page {following[:40]!r} a second time: its cursors turn in a circle")
            if len(seen) >= MOST_PAGES:
                raise PullError(f"{head_end.name} has more than {MOST_PAGES} pages for {day}")
            lines = b"".join(json.dumps(read, sort_keys=True, separators=(",", ":")).encode() + b"\n" for read in page["reads"])
            if following is not None:
                seen.add(following)
            state = {
                "cursor": following, "done": following is None, "bytes": state["bytes"] + len(lines), "reads": state["reads"] + len(page["reads"]),
                "pages": state["pages"] + 1, "seen": sorted(seen),
            }  # fmt: skip
            await asyncio.to_thread(_keep, part, note, lines, state)
    target = None
    if state["reads"]:
        target = folder / f"{day}.{clock.now():%Y%m%dT%H%M%SZ}.jsonl"
        part.replace(target)
    _forget(part, note)
    return Pulled(day, target, state["reads"], state["pages"], retries)


def pull_missing(
    database: Database, calendar: BillingCalendar, head_end: HeadEnd, inbox: Path, *, clock: Clock = SYSTEM_CLOCK, days: int = ASK_AGAIN_DAYS
) -> list[tuple[date, Pulled | str]]:
    """Ask for each of the last closed billing days that no file of the head-end covers; the day pulled, or why it was not. Never raises PullError."""
    today = calendar.day_of(clock.now())
    wanted = [today - timedelta(days=n) for n in range(days, 0, -1)]
    with database.connect("pull") as connection:
        missing = raw.days_without_file(connection, head_end.name, wanted)
    done: list[tuple[date, Pulled | str]] = []
    for day in missing:
        result: Pulled | str
        try:
            result = asyncio.run(pull_day(head_end, day, inbox, clock=clock))
            outcome, reads = ("pulled" if result.reads else "empty"), result.reads
        except PullError as error:
            result = outcome = str(error)
            reads = 0
        with database.connect("pull") as connection:
            raw.note_pull(connection, head_end.name, day, clock.now(), outcome[:500], reads)
            connection.commit()
        done.append((day, result))
    return done


def _address(head_end: HeadEnd) -> tuple[str, dict[str, str]]:
    url = str(head_end.options.get("url", ""))
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise PullError(f"{head_end.name}: options.url must be https")
    headers = {"Accept": "application/json"}
    variable = head_end.options.get("token_env")
    if variable is not None:
        token = os.environ.get(str(variable))
        if not token:
            raise PullError(f"{head_end.name}: the environment has no {variable}")
        headers["Authorization"] = f"Bearer {token}"
    return url, headers


async def _page(
    client: httpx.AsyncClient, url: str, parameters: dict[str, str], clock: Clock, rng: random.Random, page_s: float
) -> tuple[dict[str, Any], int]:
    """One page and the attempts beyond the first it took."""
    why = ""
    for attempt in range(ATTEMPTS):
        rest = rng.uniform(0, min(5.0, 0.2 * 2**attempt))
        try:
            async with asyncio.timeout(page_s), client.stream("GET", url, params=parameters) as answer:
                if answer.status_code == 200:
                    return _checked(await _body(answer)), attempt
                why = f"status {answer.status_code}"
                if answer.status_code != 429 and answer.status_code < 500:
                    raise PullError(why)
                rest = max(rest, _retry_after(answer.headers.get("retry-after"), clock))
                if rest > LONGEST_REST_S:
                    raise PullError(f"{why}: it asks for {rest:.0f} s of rest")
        except (httpx.TransportError, TimeoutError, ValueError) as error:
            # Resets, stalls, a body shorter than its length says, or one that is not the JSON it should be.
            why = f"{type(error).__name__}: {error}"
        if attempt + 1 < ATTEMPTS:
            await clock.sleep(rest)
    raise PullError(f"gave up after {ATTEMPTS} attempts: {why[:300]}")


async def _body(answer: httpx.Response) -> bytes:
    whole = bytearray()
    async for piece in answer.aiter_bytes():
        whole += piece
        if len(whole) > PAGE_BYTES:
            raise PullError(f"a page of more than {PAGE_BYTES} bytes")
    return bytes(whole)


def _checked(body: bytes) -> dict[str, Any]:
    page = json.loads(body)
    if not isinstance(page, dict) or not isinstance(page.get("reads"), list) or not all(isinstance(r, dict) for r in page["reads"]):
        raise ValueError("the page has no list of reads")
    if not (page.get("next") is None or isinstance(page["next"], str)):
        raise ValueError("the page's next cursor is no text")
    return {"reads": page["reads"], "next": page.get("next")}


def _retry_after(header: str | None, clock: Clock) -> float:
    """Seconds that a Retry-After header asks for: a number or a date."""
    if not header:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - clock.now()).total_seconds(), 0.0)


_FRESH: Final[dict[str, Any]] = {"cursor": None, "done": False, "bytes": 0, "reads": 0, "pages": 0, "seen": []}


def _resume(part: Path, note: Path) -> dict[str, Any]:
    """The state of a pull that was cut; a fresh one where there is none or it cannot be trusted."""
    try:
        state: dict[str, Any] = json.loads(note.read_text("utf-8"))
        if set(state) != set(_FRESH) or part.stat().st_size < state["bytes"]:
            raise ValueError("not the note of this pull")
        with part.open("r+b") as kept:
            kept.truncate(state["bytes"])  # a page written after the last note comes again
    except (OSError, ValueError):
        part.write_bytes(b"")
        return dict(_FRESH)
    return state


def _keep(part: Path, note: Path, lines: bytes, state: dict[str, Any]) -> None:
    """Add a page, then note where to go on: in this order, so that a cut between the two only asks for a page again."""
    with part.open("ab") as kept:
        kept.write(lines)
        kept.flush()
        os.fsync(kept.fileno())
    half = note.with_suffix(".half")
    half.write_text(json.dumps(state), "utf-8")
    half.replace(note)


def _forget(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def last_asked(now: datetime, first_asked: datetime, days: int = ASK_AGAIN_DAYS) -> bool:
    """Whether a missing day has been asked for long enough, so that its estimate may become final."""
    return now - first_asked >= timedelta(days=days)
