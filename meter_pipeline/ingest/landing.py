"""Landing: a file becomes staged billing days, dead letters and a row in the register of files, exactly once.

A file is identified by its head-end and its bytes. The same bytes again from that head-end, under any name, are
recorded as a duplicate and load nothing, unless the file was refused or some reads were rejected: then it is read
again, and reads that are valid now are staged (restage.py). A crash before the transaction leaves only an archived copy
and staged files, which the next landing writes again under the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline import feeds
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import archive, file_checks, plain_files, restage, staging
from meter_pipeline.ingest.dead_letter_rows import (
    REFUSED_BYTES,
    finish_letters,
    line_letters,
    refused_letter,
)
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.staged_days import file_day, staged_days
from meter_pipeline.ingest.tables import dead_letters, raw
from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.schemas.reads import ParsedFeed

Parse = Callable[[Path, HeadEnd, BillingCalendar], ParsedFeed]


@dataclass(slots=True)
class Landed:
    """Result of landing a file. ``days``: the billing days that wait now. ``duplicate``: the bytes were known and
    nothing changed."""

    file_name: str
    sha256: bytes
    head_end: str
    duplicate: bool = False
    refused: str | None = None
    received: int = 0
    rejected: int = 0
    dead_letters: int = 0
    stated_differences: int = 0
    days: list[date] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileFolders:
    """Where files are kept: the archive of originals and the staging of parsed days."""

    archive: Path
    staging: Path


def land(
    database: Database,
    calendar: BillingCalendar,
    path: Path,
    head_end: HeadEnd,
    places: FileFolders,
    *,
    parse: Parse | None = None,
    clock: Clock = SYSTEM_CLOCK,
    name: str | None = None,
    channels: Declared | None = None,
    run_id: str | None = None,
    replay_of: bytes | None = None,
) -> Landed:
    """Land one file: hash, archive, parse, check against reference data, stage by billing day, register. Repeating it
    changes nothing.

    ``parse``: the parser of content that is not in the head-end's format (a dead letter in canonical form). ``name``:
    the file's name in the register (its path below the inbox). ``channels``: declared channels, shared between files. A
    file that changes while it is read raises (OSError, ValueError or the parser's own refusal to read a growing file)
    and is not registered.
    """

    def prepared() -> Prepared:
        return prepare_file(
            database, calendar, path, head_end, places, clock.now(), parse, name, channels, run_id, replay_of
        )

    try:
        return register(database, prepared(), places, clock=clock)
    except IdentityTaken:
        return register(database, prepared(), places, clock=clock)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that is read and archived, and not yet registered; ``days`` are staged. ``known``: the same file was
    registered before, and no further work was done. ``again``: it was registered before with rejects and was read
    again; ``staged`` has the result, not written yet."""

    file: raw.FeedFile
    known: bool = False
    modified_ns: int = 0
    days: Sequence[raw.FileDay] = ()
    letters: pl.DataFrame = field(default_factory=pl.DataFrame)
    reused: Sequence[tuple[date, str, str, int]] = ()
    stated_differences: Sequence[tuple[Any, ...]] = ()
    roundings: Sequence[tuple[str, str, Decimal]] = ()
    again: bool = False
    staged: dict[date, staging.StagedDay] = field(default_factory=dict)


class IdentityTaken(ValueError):
    """Another head-end's file of the same bytes was registered at this moment: prepare the file again."""


def file_identity(head_end: str, content: bytes) -> bytes:
    """Returns the identity of a file whose bytes another head-end sent first: SHA-256 over ``mp-file-1``, the
    head-end and the bytes' SHA-256 in hexadecimal, joined by 0x1F."""
    return hashlib.sha256("\x1f".join(("mp-file-1", head_end, content.hex())).encode()).digest()


#: A larger file is hashed while it is archived and parsed, and not once more before: a pass over 1 GB takes 0.6 s. One
#: that is known under another name is then parsed before it is known again.
HASHED_FIRST: Final = 8 << 20


def _identify(
    database: Database, head_end: str, content: bytes, replay_of: bytes | None
) -> tuple[bytes, raw.FeedFile | None]:
    """Returns a file's identity, and the registered file with it."""
    with database.connect("landing") as connection:
        if replay_of is not None:
            sha256 = replay_identity(replay_of, content)
            return sha256, raw.known_file(connection, sha256)
        same = raw.files_of_content(connection, content)
    own = next((file for file in same if file.head_end == head_end), None)
    if own is not None:
        return own.sha256, own
    return (file_identity(head_end, content) if same else content), None


def prepare_file(
    database: Database,
    calendar: BillingCalendar,
    path: Path,
    head_end: HeadEnd,
    places: FileFolders,
    now: datetime,
    parse: Parse | None = None,
    name: str | None = None,
    channels: Declared | None = None,
    run_id: str | None = None,
    replay_of: bytes | None = None,
) -> Prepared:
    """Do all of a file's landing except its transaction. Repeated or abandoned it leaves an archived copy and staged
    files of the same names. Safe to run for several files at the same time. Raises as ``land``."""
    name = name or plain_files.shown(path.name)
    with plain_files.opened(path) as source:
        first = source.size <= HASHED_FIRST or replay_of is not None
        content = archive.hash_file(source.source) if first else None
        if content is not None:
            sha256, known = _identify(database, head_end.name, content, replay_of)
            if known is not None and (replay_of is not None or not (known.refused or known.rejected)):
                archive.store(places.archive, source.source, content)  # its copy may be lost; it is not written twice
                return Prepared(replace(known, file_name=name, size=source.size), True, source.modified_ns)
        parsed, refused, letters, archived = read(source, content, head_end, calendar, places, parse or feeds.parse)
        if content is None:
            content = archived
            sha256, known = _identify(database, head_end.name, content, replay_of)
            if known is not None and not (known.refused or known.rejected):
                return Prepared(replace(known, file_name=name, size=source.size), True, source.modified_ns)
        if not source.unchanged() or parsed.sha256 not in ("", content.hex()):
            # Size and time may be put back; the bytes that were parsed may not be others than those that are
            # registered and archived.
            raise ValueError(f"{name} changed while it was read")
        beginning = source.beginning(REFUSED_BYTES)
    file_checks.set_arrival(parsed, head_end, known.landed_at if known is not None else now)
    declared = channels or Declared.of(raw.channels(database), raw.dated_channels(database))
    share = file_checks.superseded_share(head_end)
    try:
        staged, rejected_payloads = staged_days(parsed, calendar, head_end.name, declared, now, share)
    except file_checks.FileRefused as error:
        refused, letters = str(error), [refused_letter(beginning, error.code, error.detail)]
        parsed = ParsedFeed(parsed.file_format)
        staged, rejected_payloads = staged_days(parsed, calendar, head_end.name, declared, now)
    letters += [line_letters(parsed.rejects), rejected_payloads]
    found = finish_letters(letters, sha256, name, head_end.name, parsed.file_format, run_id, now)
    file = raw.FeedFile(
        sha256,
        content,
        name,
        head_end.name,
        head_end.commodity,
        parsed.file_format,
        source.size,
        archive.relative_path(content),
        now,
        parsed.received,
        int(found["reads"].sum() or 0),
        found.height,
        refused,
        run_id,
        replay_of,
    )
    notes = _reused(staged), parsed.stated_differences.rows(), file_checks.rounding_rows(parsed)
    if known is not None:
        return Prepared(file, False, source.modified_ns, (), found, *notes, again=True, staged=staged)
    days = [
        file_day(day, staging.write(places.staging, sha256, day, content), content) for day, content in staged.items()
    ]
    return Prepared(file, False, source.modified_ns, days, found, *notes)


def read(
    source: plain_files.PlainFile,
    content: bytes | None,
    head_end: HeadEnd,
    calendar: BillingCalendar,
    places: FileFolders,
    parse: Parse,
) -> tuple[ParsedFeed, str | None, list[pl.DataFrame], bytes]:
    """Parse and archive at the same time. ``content``: the hash of the bytes, where it is known. Returns the parsed
    reads, the reason where the whole file was refused, its dead letters, the hash of the archived bytes."""
    refused: str | None = None
    letters: list[pl.DataFrame] = []
    parsed = ParsedFeed(head_end.format)
    with ThreadPoolExecutor(1, "archive") as pool:
        archived = pool.submit(archive.store, places.archive, source.source, content)
        try:
            parsed = parse(source.path, head_end, calendar)
        except Exception as error:
            code, detail = refusal(error)
            if code is None or code == "file_growing":
                raise
            refused = f"{code}: {detail}"
            letters.append(refused_letter(source.beginning(REFUSED_BYTES), code, detail))
        else:
            parsed, refused, letters = _refused_whole(parsed, source)
        return parsed, refused, letters, archived.result()


def register(database: Database, prepared: Prepared, places: FileFolders, *, clock: Clock = SYSTEM_CLOCK) -> Landed:
    """Register a prepared file in one transaction: its row, days, dead letters and ledger entries; or another
    arrival of a known file; or the result of a file that is read again. Raises IdentityTaken."""
    file, modified_ns = prepared.file, prepared.modified_ns
    if prepared.again:
        return _register_again(database, prepared, places, clock)
    with database.connect("landing") as connection:
        if prepared.known or not raw.register_file(connection, file, prepared.days):
            connection.rollback()
            known = raw.known_file(connection, file.sha256)
            assert known is not None  # noqa: S101 - it was found, or the conflict was with this row
            if known.head_end != file.head_end:
                raise IdentityTaken(
                    f"{file.file_name}: head-end {known.head_end} offered the same bytes at this moment"
                )
            return _duplicate(connection, known, file.file_name, file.size, modified_ns, clock)
        raw.note_arrival(connection, file.sha256, file.file_name, file.landed_at, False, file.size, modified_ns)
        raw.note_reused_sequences(connection, file.sha256, prepared.reused)
        raw.note_stated_differences(connection, file.sha256, prepared.stated_differences)
        raw.note_roundings(connection, file.sha256, prepared.roundings)
        dead_letters.write(connection, prepared.letters)
        days = [d.billing_day for d in prepared.days]
        entry = restage.record(connection, file, days, prepared.letters, file.rejected, clock)
        raw.set_ledger_entry(connection, file.sha256, entry)
        connection.commit()
    letters, stated = prepared.letters.height, len(prepared.stated_differences)
    return Landed(
        file.file_name,
        file.sha256,
        file.head_end,
        False,
        file.refused,
        file.received,
        file.rejected,
        letters,
        stated,
        days,
    )


def _register_again(database: Database, prepared: Prepared, places: FileFolders, clock: Clock) -> Landed:
    """A file with rejects that was sent again: a duplicate where its result is unchanged."""
    file = prepared.file
    found = restage.Reading(file, prepared.staged, prepared.letters)
    done = restage.apply(database, places.staging, found, clock=clock)
    with database.connect("landing") as connection:
        known = raw.known_file(connection, file.sha256)
        assert known is not None  # noqa: S101 - apply has just looked at it
        if not done.changed:
            return _duplicate(connection, known, file.file_name, file.size, prepared.modified_ns, clock)
        raw.note_arrival(connection, file.sha256, file.file_name, clock.now(), False, file.size, prepared.modified_ns)
        raw.note_reused_sequences(connection, file.sha256, prepared.reused)
        raw.note_stated_differences(connection, file.sha256, prepared.stated_differences)
        raw.note_roundings(connection, file.sha256, prepared.roundings)
        connection.commit()
    return Landed(
        file.file_name,
        file.sha256,
        file.head_end,
        False,
        known.refused,
        known.received,
        known.rejected,
        done.letters_written,
        len(prepared.stated_differences),
        done.days,
    )


def _reused(staged: dict[date, staging.StagedDay]) -> list[tuple[date, str, str, int]]:
    """Returns (billing day, meter, channel, reads) of payloads in which one sequence number had two values."""
    found = []
    for day, content in staged.items():
        if content.intervals.height and content.intervals["conflicts"].max():
            own = (
                content.intervals.filter(pl.col("conflicts") > 0)
                .group_by("meter_id", "channel")
                .agg(pl.col("conflicts").sum())
                .sort("meter_id", "channel")
            )
            found += [(day, meter, channel, int(reads)) for meter, channel, reads in own.iter_rows()]
    return found


def replay_identity(dead_letter: bytes, content: bytes) -> bytes:
    """Returns the identity of a replayed dead letter's content: SHA-256 over ``mp-replay-1``, the letter's key and the
    content's hash.

    The content's hash alone is not enough: two letters may have the same content, and a letter that was refused as a
    whole is replayed with the bytes of its file.
    """
    return hashlib.sha256(b"mp-replay-1" + dead_letter + content).digest()


def _refused_whole(
    parsed: ParsedFeed, source: plain_files.PlainFile
) -> tuple[ParsedFeed, str | None, list[pl.DataFrame]]:
    """A file refused as a whole comes from feeds.parse as one reject without reads: its letter keeps the file's
    beginning."""
    rejects = parsed.rejects
    if rejects.height != 1 or parsed.received or parsed.intervals.height or parsed.registers.height:
        return parsed, None, []
    reason = rejects["reasons"][0][0]
    letter = refused_letter(source.beginning(REFUSED_BYTES), reason["code"], reason["detail"])
    return ParsedFeed(parsed.file_format), f"{reason['code']}: {reason['detail']}", [letter]


def refusal(error: Exception) -> tuple[str | None, str]:
    """Returns code and detail of a parser's refusal of a whole file (an exception with ``code`` and ``detail``);
    (None, ...) for any other exception."""
    code, detail = getattr(error, "code", None), getattr(error, "detail", None)
    return (code, detail) if isinstance(code, str) and isinstance(detail, str) else (None, str(error))


def _duplicate(
    connection: Connection, known: raw.FeedFile, name: str, size: int, modified_ns: int, clock: Clock
) -> Landed:
    raw.note_arrival(connection, known.sha256, name, clock.now(), name != known.file_name, size, modified_ns)
    entries.append(
        connection,
        "duplicate",
        {"sha256": known.sha256, "file_name": name, "first_name": known.file_name, "reads": known.received},
        clock=clock,
    )
    connection.commit()
    return Landed(name, known.sha256, known.head_end, True, known.refused, known.received)
