"""Dead letters: show, correct, replay, dismiss, erase.

A replay is landed like a file, under an identity made of the letter and its content, so that a second request finds it
landed. The content is parsed first: content that would be rejected again changes nothing and returns the reasons. The
reads then wait for their billing days.
"""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline import feeds
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.feeds.files import DEFAULT_LIMITS, limits_of, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.headings import from_name
from meter_pipeline.feeds.one_line import line_declaration, lines_above
from meter_pipeline.feeds.rejects import FeedRefused
from meter_pipeline.ingest import archive
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.landing import FileFolders, land
from meter_pipeline.ingest.staged_days import staged_days
from meter_pipeline.ingest.tables import dead_letters, load, raw
from meter_pipeline.ingest.tables.dead_letters import DeadLetter
from meter_pipeline.ledger import entries, erasure
from meter_pipeline.postgres import vectors
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.narrowing import NO_VALUE_32
from meter_pipeline.schemas.reads import INTERVAL_READS, NO_VALUE, REGISTER_READS, UTC_US, ParsedFeed

#: How far into a file the record that introduces a line is looked for (NEM12's 100 and 200 records).
_CONTEXT_BYTES: Final = 64 << 20


class DeadLetterError(ValueError):
    """The request cannot be done; the message gives the reason."""


@dataclass(slots=True)
class Replayed:
    """Result of a replay. ``rejected``: reasons for which it was not done; ``already``: it was done before. ``days``
    wait to be loaded."""

    key: bytes
    already: bool = False
    reads: int = 0
    days: list[date] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)


def show(database: Database, prefix: str) -> DeadLetter:
    """Returns one dead letter by its key, or by enough of the key's first digits to identify it."""
    with database.connect("dead-letters") as connection:
        return _one(dead_letters.by_prefix(connection, _hex(prefix)), prefix)


def file_line(places: FileFolders, file_sha256: bytes, database: Database, line: int | None) -> str | None:
    """Returns the line of the archived file that a dead letter came from, as text; None where the file is not in the
    archive, or has no such line in its first 64 MiB."""
    if not line:
        return None
    with database.connect("dead-letters") as connection:
        file = raw.known_file(connection, file_sha256)
    if file is None:
        return None
    with tempfile.TemporaryDirectory(prefix="dead-letter-") as folder:
        copy = Path(folder) / "original"
        try:
            archive.restore(places.archive, file.archive_path, copy)
            with open_feed(copy, DEFAULT_LIMITS) as opened:
                whole = opened.source.read(_CONTEXT_BYTES)
        except (OSError, ValueError):
            return None
    lines = whole.split(b"\n", line)
    return dead_letters.shown(lines[line - 1].rstrip(b"\r"), 2000) if len(lines) >= line else None


def correct(
    database: Database, prefix: str, content: bytes, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> DeadLetter:
    """Store the corrected content of a dead letter. It is loaded when it is replayed."""
    with database.connect("dead-letters") as connection:
        letter = _changeable(_one(dead_letters.by_prefix(connection, _hex(prefix), lock=True), prefix), by, reason)
        by = decisions.entitled(connection, by, decisions.WORK)
        if not content.strip():
            raise DeadLetterError("the correction is empty: to drop a payload, dismiss it")
        # Neither text stands in the entry, which cannot be erased: their leaves do, and what was said is kept behind
        # them.
        now = erasure.keep(connection, content)
        dead_letters.change(
            connection,
            letter.key,
            "corrected",
            by=by,
            at=clock.now(),
            reason=reason,
            corrected_raw=content,
            corrected_leaf=now,
        )
        body = {
            "dead_letter": letter.leaf,
            "by": by,
            "reason": reason,
            "now": now,
            "was_bytes": len(letter.raw),
            "now_bytes": len(content),
        }
        entries.append(connection, "corrected", body, [letter.leaf, now], clock=clock, actor=by)
        connection.commit()
        return _one(dead_letters.by_prefix(connection, letter.key.hex()), prefix)


def dismiss(database: Database, prefix: str, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK) -> DeadLetter:
    """Close a dead letter without loading it. Its reads stay rejected in the file's control total."""
    with database.connect("dead-letters") as connection:
        letter = _changeable(_one(dead_letters.by_prefix(connection, _hex(prefix), lock=True), prefix), by, reason)
        by = decisions.entitled(connection, by, decisions.WORK)
        dead_letters.change(connection, letter.key, "dismissed", by=by, at=clock.now(), reason=reason)
        entries.append(
            connection,
            "dismissed",
            {"dead_letter": letter.leaf, "by": by, "reason": reason, "reads": letter.reads},
            [letter.leaf],
            clock=clock,
            actor=by,
        )
        connection.commit()
        return _one(dead_letters.by_prefix(connection, letter.key.hex()), prefix)


def erase(database: Database, prefix: str, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK) -> int:
    """Erase the content of a closed dead letter and its correction, and record that in the ledger. Returns the letter's
    entry.

    Every proof stays valid: the ledger holds salted hashes, and the salts are erased with the content. Raises
    DeadLetterError where the letter is still open (close it first) or erased already.
    """
    with database.connect("dead-letters") as connection:
        letter = _one(dead_letters.by_prefix(connection, _hex(prefix), lock=True), prefix)
        if not by.strip() or not reason.strip():
            raise DeadLetterError("say who you are and why")
        by = decisions.entitled(connection, by, decisions.WORK)
        if letter.erased_at is not None:
            raise DeadLetterError(f"{letter.key.hex()[:12]} was erased on {letter.erased_at:%Y-%m-%d}")
        if letter.status not in ("replayed", "dismissed"):
            raise DeadLetterError(f"{letter.key.hex()[:12]} is {letter.status}: replay or dismiss it first")
        dead_letters.erase(connection, letter.key, by=by, at=clock.now())
        if letter.corrected_leaf is not None:
            erasure.erase(connection, letter.corrected_leaf, reason=reason, requested_by=by, clock=clock)
        body = {"payload_hash": letter.leaf, "reason": reason, "requested_by": by, "what": "dead letter"}
        return entries.append(connection, "erased", body, clock=clock, actor=by)


def replay(
    database: Database,
    calendar: BillingCalendar,
    places: FileFolders,
    head_ends: dict[str, HeadEnd],
    prefix: str,
    *,
    by: str,
    read_as: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
    run_id: str | None = None,
) -> Replayed:
    """Land a dead letter's content again (corrected, or unchanged where the fault was elsewhere). A repeated call
    does nothing more. ``read_as``: the head-end whose declaration reads it, where a whole file was in another
    head-end's folder; by default the letter's own."""
    with database.connect("dead-letters") as connection:
        by = decisions.entitled(connection, by, decisions.WORK)
        # The row's lock makes a second replay wait and then find the first one's result.
        letter = _one(dead_letters.by_prefix(connection, _hex(prefix), lock=True), prefix)
        if letter.status == "replayed":
            return Replayed(letter.key, already=True)
        if letter.status == "dismissed":
            raise DeadLetterError(f"{letter.key.hex()[:12]} was dismissed by {letter.changed_by}")
        if read_as is not None and read_as != letter.head_end and letter.raw_format != "file":
            raise DeadLetterError("only a file that was refused whole can be read as another head-end's")
        head_end = head_ends.get(read_as or letter.head_end)
        if head_end is None:
            raise DeadLetterError(f"head-end {read_as or letter.head_end} is not declared")
        parse = parse_canonical if letter.raw_format == "canonical" else feeds.parse
        channels = Declared.of(raw.channels(database), raw.dated_channels(database))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"dead-letter-{letter.key.hex()[:12]}"
            content, head_end = _content(connection, places, letter, head_end, Path(folder))
            path.write_bytes(content)
            parsed = parse(path, head_end, calendar)
            found = _faults(parsed, calendar, head_end, channels, clock)
            if found:
                return Replayed(letter.key, rejected=found)
            landed = land(
                database,
                calendar,
                path,
                head_end,
                places,
                parse=parse,
                clock=clock,
                name=f"dead-letter/{letter.key.hex()[:16]}",
                channels=channels,
                run_id=run_id,
                replay_of=letter.key,
            )
        dead_letters.change(connection, letter.key, "replayed", by=by, at=clock.now(), replay_sha256=landed.sha256)
        body = {
            "dead_letter": letter.leaf,
            "by": by,
            "head_end": head_end.name,
            "reads": landed.received,
            "file": landed.sha256,
            "corrected": letter.corrected_raw is not None,
        }
        entries.append(connection, "replayed", body, [letter.leaf], clock=clock, actor=by)
        connection.commit()
    return Replayed(letter.key, landed.duplicate, landed.received, landed.days)


#: Dead letters that one call replays
MOST_REPLAYED: Final = 10_000


def replay_many(
    database: Database,
    calendar: BillingCalendar,
    places: FileFolders,
    head_ends: dict[str, HeadEnd],
    *,
    by: str,
    reason: str | None,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Replayed]:
    """Replay every dead letter of a reason, oldest first, for example after enrolling meters that were unknown.
    Letters that are still at fault stay open."""
    with database.connect("dead-letters") as connection:
        keys = dead_letters.with_status(connection, ("open", "corrected"), reason, MOST_REPLAYED)
    return [replay(database, calendar, places, head_ends, key.hex(), by=by, clock=clock) for key in keys]


def _faults(
    parsed: ParsedFeed, calendar: BillingCalendar, head_end: HeadEnd, channels: Declared, clock: Clock
) -> list[tuple[str, str]]:
    """Every reason for which the content would be rejected again."""
    listed = parsed.rejects["reasons"].to_list() if parsed.rejects.height else []
    _, bad = staged_days(parsed, calendar, head_end.name, channels, clock.now())
    listed += [json.loads(reasons) for reasons in bad["reasons"].to_list()]
    found = [(reason["code"], reason["detail"]) for reasons in listed for reason in reasons]
    return found or ([] if parsed.received else [("no_reads", "the content holds no read")])


def _content(
    connection: Connection, places: FileFolders, letter: DeadLetter, head_end: HeadEnd, folder: Path
) -> tuple[bytes, HeadEnd]:
    """Returns the small file to land (the letter's content with the lines its format needs before it) and the
    declaration that reads it."""
    content = letter.corrected_raw if letter.corrected_raw is not None else letter.raw
    if letter.raw_format == "canonical":
        return content, head_end
    file = raw.known_file(connection, letter.file_sha256)
    if file is None:
        return content, head_end
    if letter.raw_format == "file":
        if letter.corrected_raw is None:
            content = archive.read_bytes(places.archive, file.archive_path)
        return content, _named(head_end, file.file_name)
    whole = _beginning(places, file, head_end, folder)
    before, after = _around(whole, letter, head_end)
    try:
        declared = line_declaration(head_end, file.file_name, whole)
    except FeedRefused as refused:
        raise DeadLetterError(f"{file.file_name}: {refused.detail}") from refused
    return before + content + (b"" if content.endswith(b"\n") else b"\n") + after, declared


def _named(head_end: HeadEnd, name: str) -> HeadEnd:
    """Returns the declaration for a whole file of that name; unchanged where the name lacks the declared parts,
    which is why the file was refused."""
    try:
        return from_name(head_end, name)
    except FeedRefused:
        return head_end


def _beginning(places: FileFolders, file: raw.FeedFile, head_end: HeadEnd, folder: Path) -> bytes:
    """Returns the file as its parser read it (a gzip or zip opened), up to _CONTEXT_BYTES."""
    copy = folder / "original"
    archive.restore(places.archive, file.archive_path, copy)
    whole = bytearray()
    with open_feed(copy, limits_of(head_end.options, DEFAULT_LIMITS), head_end.encoding) as opened:
        while len(whole) < _CONTEXT_BYTES and (piece := opened.source.read(1 << 20)):
            whole += piece
    return bytes(whole)


def _around(whole: bytes, letter: DeadLetter, head_end: HeadEnd) -> tuple[bytes, bytes]:
    """Returns the lines that the rejected line depends on: the records before it, and the end record without which
    NEM12 treats a file as truncated."""
    if letter.file_format == "nem12" and letter.line:
        lines = whole.split(b"\n")[: letter.line - 1]
        opening = [line for line in lines[:1] if line.startswith(b"100")]
        owner = next((line for line in reversed(lines) if line.startswith(b"200")), None)
        return b"".join(line + b"\n" for line in (*opening, *([owner] if owner else []))), b"900\n"
    return lines_above(head_end, letter.file_format, whole, letter.line or 0), b""


def parse_canonical(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
    """Returns the reads of a canonical dead letter: one JSON object of a payload's stored columns. Raises
    DeadLetterError for anything else."""
    try:
        payload = json.loads(path.read_bytes())
        return _register(payload) if "read_at" in payload else _interval(payload)
    except (ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise DeadLetterError(f"not a payload in canonical form: {error}") from error


def _register(payload: dict[str, Any]) -> ParsedFeed:
    row = {"line": 1} | {c: payload.get(c) for c in REGISTER_READS if c != "line"}
    row["quality"] = row["quality"] & 0xFFFF  # type: ignore[operator]  # a JSON number or a TypeError for the caller
    instants = [c for c, t in REGISTER_READS.items() if t == UTC_US]
    frame = pl.DataFrame([row], schema={c: pl.Int64 if c in instants else t for c, t in REGISTER_READS.items()})
    return ParsedFeed("canonical", registers=frame.with_columns(pl.col(instants).cast(UTC_US)))


def _interval(payload: dict[str, Any]) -> ParsedFeed:
    for name, none in (("values", NO_VALUE_32), ("wide_values", NO_VALUE)):
        if payload.get(name) is not None:  # a person is shown null where a slot has no value
            payload[name] = [int(none) if value is None else value for value in payload[name]]
    text = json.dumps([{k: v for k, v in payload.items() if k != "read_at"}]).encode()
    columns = {
        **vectors.VECTOR,
        **{c: load.SCHEMA[c] for c in ("meter_id", "channel", "unit", "source_version")},
        "read_time": pl.Int64,
        "starts_at": pl.Int64,
    }
    columns["billing_day"] = pl.String
    frame = pl.read_json(io.BytesIO(text), schema=columns).with_columns(
        pl.col("billing_day").str.to_date(), pl.col("starts_at", "read_time").cast(UTC_US)
    )
    [matrix] = vectors.to_matrices(frame)
    present = (matrix.values[0] != NO_VALUE).nonzero()[0]
    starts = frame["starts_at"].to_physical()[0] + present * matrix.interval_minutes * 60_000_000
    if matrix.offsets is not None:
        starts = starts + matrix.offsets[0][present].astype("int64") * 1_000_000
    n = len(present)
    reads = pl.DataFrame(
        {
            "meter_id": [payload["meter_id"]] * n,
            "channel": [payload["channel"]] * n,
            "interval_start": pl.Series(starts, dtype=pl.Int64).cast(UTC_US),
            "interval_minutes": [matrix.interval_minutes] * n,
            "value": matrix.values[0][present],
            "unit": [payload["unit"]] * n,
            "sequence": matrix.sequence[0][present],
            "quality": matrix.quality[0][present],
            "source_version": [payload["source_version"]] * n,
            "read_time": pl.repeat(frame["read_time"][0], n, dtype=UTC_US, eager=True),
            "line": [1] * n,
        },
        schema=INTERVAL_READS,
    )
    return ParsedFeed("canonical", intervals=reads)


def _hex(prefix: str) -> str:
    text = prefix.strip().lower()
    if not text or set(text) - set("0123456789abcdef"):
        raise DeadLetterError(f"{prefix!r} is not the beginning of a dead letter's key (hexadecimal digits)")
    return text


def _one(found: list[DeadLetter], prefix: str) -> DeadLetter:
    if not found:
        raise DeadLetterError(f"no dead letter {prefix}")
    if len(found) > 1:
        raise DeadLetterError(f"several dead letters begin with {prefix}: give more digits")
    return found[0]


def _changeable(letter: DeadLetter, by: str, reason: str) -> DeadLetter:
    if not by.strip() or not reason.strip():
        raise DeadLetterError("say who you are and why")
    if letter.status in ("replayed", "dismissed"):
        raise DeadLetterError(f"{letter.key.hex()[:12]} was {letter.status} by {letter.changed_by}")
    return letter
