"""Pulls reads from head-ends that answer requests: a paginated HTTP API, one billing day at a time; files by SFTP
(sftp_pull.py); reports made on request (report_pull.py).

A head-end of format ``http`` declares in its options: ``url`` (https; plain http only to this machine), ``token_env``
(the environment variable with the bearer token), and optionally ``page_size``. A page is ``GET
url?day=YYYY-MM-DD&limit=N[&cursor=C]`` answered with ``{"reads": [object, ...], "next": "C" or null}``. Pages go to a
hidden file beside a note of the cursor; only a complete day gets a name that the inbox lists. An interrupted pull
continues from its cursor; a pull whose cursors repeat is refused. Numbers are copied digit by digit, never as floats.
Faults of a read (NaN, a key that occurs twice) are copied too, so that the parser refuses that read alone.

A closed billing day is missing while a meter installed under the head-end has no read of it (or, where the reference
data has no such meter, while no file of it holds a read). It is requested in every round for five days after the first
request; until then the day's estimates stay open (ingest.tables.raw.still_asked). Five days is the window in which AMI
operators continue collecting before an estimate becomes final (field practice; AEMO's settlement timetable also revises
no sooner).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import archive
from meter_pipeline.ingest.fetched import NotReadyError, Pulled, PullError
from meter_pipeline.ingest.inbox import new_files
from meter_pipeline.ingest.tables import raw
from meter_pipeline.ingest.writer import PauseCheck
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import StageReport

#: Days for which a missing day is asked again before its estimate may become final.
ASK_AGAIN_DAYS: Final = 5
#: After the service was down for longer than that, days back to the last one asked are caught up with, but no more
# than this.
CATCH_UP_DAYS: Final = 35
#: Days within which a day is asked for again after one of its ``again_days``, where the service was down on that day.
AGAIN_WITHIN_DAYS: Final = 7
#: Class of the advisory lock that keeps two pulls of one head-end apart; the second key is the CRC of its name.
LOCK_CLASS: Final = 0x6D70_7075  # "mppu"
TIMEOUTS: Final = httpx.Timeout(30.0, connect=5.0, read=20.0)
#: One page as a whole, which the read timeout (between two bytes) does not bound: a server that drips a byte a second
# would hold us for ever.
PAGE_S: Final = 60.0
PAGE_BYTES: Final = 32 << 20
MOST_PAGES: Final = 100_000
ATTEMPTS: Final = 6
#: A server that asks for a longer rest than this is asked again by the next run, not waited for.
LONGEST_REST_S: Final = 60.0
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class DayPull:
    """One day requested of one head-end. ``outcome``: pulled, empty, nothing new, or the error. ``missing`` of
    ``meters`` had no read before."""

    head_end: str
    day: date
    outcome: str
    ok: bool
    reads: int = 0
    pages: int = 0
    retries: int = 0
    missing: int = 0
    meters: int = 0
    file: str | None = None


@dataclass(slots=True)
class PullOutcome:
    """Result of a round of pulls. ``postponed``: head-ends that were not asked, with the reason (a pause, another
    pull)."""

    pulls: list[DayPull] = field(default_factory=list)
    postponed: list[tuple[str, str]] = field(default_factory=list)

    def report(self) -> StageReport:
        """For Dagster and the CLI."""
        figures = {
            "days_asked": len(self.pulls),
            "files": sum(a.file is not None for a in self.pulls),
            "reads": sum(a.reads for a in self.pulls),
            "pages": sum(a.pages for a in self.pulls),
            "retries": sum(a.retries for a in self.pulls),
            "failed": sum(not a.ok for a in self.pulls),
            "held": len(self.postponed),
        }
        schema = {
            "head_end": pl.String,
            "day": pl.Date,
            "outcome": pl.String,
            "reads": pl.Int64,
            "missing": pl.Int64,
            "meters": pl.Int64,
            "file": pl.String,
        }
        pulls = pl.DataFrame(
            [(a.head_end, a.day, a.outcome, a.reads, a.missing, a.meters, a.file) for a in self.pulls],
            schema=schema,
            orient="row",
        )
        postponed = pl.DataFrame(self.postponed, schema={"head_end": pl.String, "why": pl.String}, orient="row")
        return StageReport(
            sum(a.reads for a in self.pulls),
            figures,
            {name: t for name, t in (("asked", pulls), ("held", postponed)) if t.height},
        )


async def pull_day(
    head_end: HeadEnd,
    day: date,
    inbox: Path,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> Pulled:
    """Pull one billing day of a head-end into ``inbox/HEAD-END/``. Raises PullError."""
    url, headers = _address(head_end)
    folder = inbox / head_end.name
    folder.mkdir(parents=True, exist_ok=True)
    part, note = folder / f".{day}.part", folder / f".{day}.cursor"
    state = _resume(part, note)
    retries = 0
    async with httpx.AsyncClient(timeout=TIMEOUTS, headers=headers, follow_redirects=False, verify=True) as client:
        seen: set[str] = set(state["seen"])
        while not state["done"]:
            parameters = {"day": day.isoformat(), "limit": str(head_end.options.get("page_size", 1000))}
            if state["cursor"] is not None:
                parameters["cursor"] = state["cursor"]
            page, again = await _page(client, url, parameters, clock)
            retries += again
            following = page["next"]
            if following is not None and (following in seen or following == state["cursor"]):
                _forget(part, note)
                raise PullError(
                    f"{head_end.name} sends page {following[:40]!r} a second time: its cursors turn in a circle"
                )
            if len(seen) >= MOST_PAGES:
                raise PullError(f"{head_end.name} has more than {MOST_PAGES} pages for {day}")
            lines = b"".join(map(_line, page["reads"]))
            if following is not None:
                seen.add(following)
            state = {
                "cursor": following,
                "done": following is None,
                "bytes": state["bytes"] + len(lines),
                "reads": state["reads"] + len(page["reads"]),
                "pages": state["pages"] + 1,
                "seen": sorted(seen),
            }
            await asyncio.to_thread(_keep, part, note, lines, state)
    target, new = None, True
    if state["reads"]:
        target = folder / f"{day}.{archive.hash_file(part).hex()[:16]}.jsonl"
        new = not target.exists()
        if new:
            part.replace(target)
    _forget(part, note)
    return Pulled(day, target, state["reads"], state["pages"], retries, new)


def pull(
    database: Database,
    calendar: BillingCalendar,
    head_ends: Sequence[HeadEnd],
    inbox: Path,
    *,
    days: Sequence[date] | None = None,
    clock: Clock = SYSTEM_CLOCK,
    pause: PauseCheck | None = None,
) -> PullOutcome:
    """Request the missing days of each head-end (or exactly ``days``). A failing head-end does not raise: its error
    is in the result, and the next head-end follows. A head-end is postponed by a pause of it or its commodity, and
    by another pull of it."""
    outcome = PullOutcome()
    for head_end in head_ends:
        if pause is not None and (state := pause.check(head_end.commodity, head_end.name)) is not None:
            outcome.postponed.append((head_end.name, state.words() if hasattr(state, "words") else "paused"))
            continue
        with _alone(database, head_end.name) as alone:
            if not alone:
                outcome.postponed.append((head_end.name, "another pull of it is at work"))
                continue
            if head_end.fetch is not None and head_end.fetch.how == "sftp":
                outcome.pulls += _fetched(head_end, calendar.day_of(clock.now()), inbox, clock)
                continue
            wanted = (
                missing_days(database, calendar, head_end, inbox, clock=clock)
                if days is None
                else [raw.IncompleteDay(day, 0, 0) for day in days]
            )
            outcome.pulls += [_ask(database, head_end, day, inbox, clock) for day in wanted]
    return outcome


def missing_days(
    database: Database, calendar: BillingCalendar, head_end: HeadEnd, inbox: Path, *, clock: Clock = SYSTEM_CLOCK
) -> list[raw.IncompleteDay]:
    """Returns the closed billing days to request now: incomplete, first requested less than five days ago, and
    without a file waiting in the inbox."""
    now = clock.now()
    today = calendar.day_of(now)
    with database.connect("pull") as connection:
        requests = raw.pull_requests(connection, head_end.name)
        back = max(ASK_AGAIN_DAYS, min(CATCH_UP_DAYS, (today - min(requests)).days)) if requests else ASK_AGAIN_DAYS
        closed = [today - timedelta(days=n) for n in range(back, 0, -1)]
        open_days = [day for day in closed if day not in requests or not last_asked(now, requests[day])]
        found = raw.days_incomplete(connection, head_end.name, [(day, *calendar.bounds(day)) for day in open_days])
        latest = raw.last_pulls(connection, head_end.name)
    due = again(head_end, {day: calendar.day_of(at) for day, at in latest.items()}, today)
    found = sorted(
        [*found, *[raw.IncompleteDay(day, 0, 0) for day in due - {each.day for each in found}]],
        key=lambda each: each.day,
    )
    waiting = {
        name.split("/", 1)[1].split(".", 1)[0]
        for name in new_files(database, inbox)
        if name.split("/", 1)[0] == head_end.name
    }
    return [day for day in found if day.day.isoformat() not in waiting]


def _ask(database: Database, head_end: HeadEnd, day: raw.IncompleteDay, inbox: Path, clock: Clock) -> DayPull:
    """Request one day and record the request. An answer with the same bytes as an earlier one leaves no second file
    in the inbox."""
    pulled = Pulled(day.day, None, 0, 0, 0)
    ok = True
    try:
        if head_end.fetch is not None:
            from meter_pipeline.ingest.report_pull import pull_report

            pulled = asyncio.run(pull_report(head_end, day.day, inbox, clock=clock))
        else:
            pulled = asyncio.run(pull_day(head_end, day.day, inbox, clock=clock))
        outcome = "pulled" if pulled.path is not None else "empty"
    except NotReadyError as error:
        outcome = str(error)[:500]
    except PullError as error:
        outcome, ok = str(error)[:500], False
    file = pulled.path if pulled.new else None
    if pulled.path is not None and file is None:
        outcome = "nothing new"
    with database.connect("pull") as connection:
        if file is not None and raw.known_file(connection, archive.hash_file(file)) is not None:
            file.unlink()  # landed before, and cleared from the inbox since
            file, outcome = None, "nothing new"
        raw.note_pull(connection, head_end.name, day.day, clock.now(), outcome, pulled.reads)
        connection.commit()
    name = None if file is None else str(file.relative_to(inbox))
    return DayPull(
        head_end.name,
        day.day,
        outcome,
        ok,
        pulled.reads,
        pulled.pages,
        pulled.retries,
        day.meters_missing,
        day.meters,
        name,
    )


def again(head_end: HeadEnd, latest: dict[date, date], today: date) -> set[date]:
    """Returns complete days to request again, because reads of a radio network arrive late: those requested before
    that are ``again_days`` old, or became so within the last week, and were not requested since. ``latest``: the
    last request of each day."""
    lags = head_end.fetch.again_days if head_end.fetch is not None else ()
    due = set()
    for lag in lags:
        for late in range(AGAIN_WITHIN_DAYS):
            day = today - timedelta(days=lag + late)
            if day in latest and latest[day] < day + timedelta(days=lag):
                due.add(day)
    return due


def _fetched(head_end: HeadEnd, today: date, inbox: Path, clock: Clock) -> list[DayPull]:
    """Fetch the new files of an SFTP server; one entry a file, for the day it was fetched on."""
    from meter_pipeline.ingest.sftp_pull import fetch_files

    try:
        files = asyncio.run(fetch_files(head_end, inbox, clock=clock))
    except PullError as error:
        return [DayPull(head_end.name, today, str(error)[:500], False)]
    if not files:
        return [DayPull(head_end.name, today, "nothing new", True)]
    return [
        DayPull(
            head_end.name,
            today,
            each.why[:500] or "fetched",
            not each.why,
            retries=each.retries,
            file=None if each.path is None else str(each.path.relative_to(inbox)),
        )
        for each in files
    ]


@contextlib.contextmanager
def _alone(database: Database, head_end: str) -> Iterator[bool]:
    """Takes the lock that keeps two pulls of a head-end apart: they would write each other's pages. Returns False
    where another process has it. The lock ends with the process."""
    with database.connect("pull-lock", autocommit=True) as connection:
        lock = (LOCK_CLASS, zlib.crc32(head_end.encode()) - (1 << 31))
        row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", lock).fetchone()
        taken = bool(row and row[0])
        yield taken
        if (
            taken
        ):  # A server lets go of a closed session's locks when it comes to it, and the next pull would be held by it.
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


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
    client: httpx.AsyncClient, url: str, parameters: dict[str, str], clock: Clock
) -> tuple[dict[str, Any], int]:
    """One page and the attempts beyond the first it took."""
    why = ""
    for attempt in range(ATTEMPTS):
        rest = random.uniform(0, min(5.0, 0.2 * 2**attempt))  # noqa: S311 - jitter of retries
        try:
            async with asyncio.timeout(PAGE_S), client.stream("GET", url, params=parameters) as answer:
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
    page = json.loads(body, parse_float=str, parse_int=_digits, parse_constant=str, object_pairs_hook=_object)
    if (
        not isinstance(page, dict)
        or not isinstance(page.get("reads"), list)
        or not all(isinstance(r, dict) for r in page["reads"])
    ):
        raise ValueError("the page has no list of reads")
    if not (page.get("next") is None or isinstance(page["next"], str)):
        raise ValueError("the page's next cursor is no text")
    return {"reads": page["reads"], "next": page.get("next")}


class _Twice(dict[str, Any]):
    """An object in which a key occurs twice; ``pairs`` has both."""

    pairs: list[tuple[str, Any]]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = _Twice(found)
    twice.pairs = pairs
    return twice


def _digits(text: str) -> int | str:
    """Returns a JSON integer; one too long for any quantity stays text, so that the parser refuses the read (int()
    would refuse the page)."""
    return int(text) if len(text) <= 19 else text


def _line(read: dict[str, Any]) -> bytes:
    """Returns one read as a line of JSON with sorted keys, so that the same answer gives the same bytes."""
    if not isinstance(read, _Twice):
        return json.dumps(read, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    return (
        "{"
        + ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in sorted(read.pairs, key=lambda pair: pair[0]))
        + "}\n"
    ).encode()


def _retry_after(header: str | None, clock: Clock) -> float:
    """Returns the seconds of a Retry-After header: a number or a date."""
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
    """Returns the state of an interrupted pull; a new one where there is none or it is not valid."""
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
    """Append a page, then note its cursor: in this order, so that an interruption between the two only repeats a
    request."""
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


def last_asked(now: datetime, first_asked: datetime) -> bool:
    """Whether a missing day has been requested for long enough, so that its estimate may become final."""
    return now - first_asked >= timedelta(days=ASK_AGAIN_DAYS)
