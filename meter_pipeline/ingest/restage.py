"""Stage the reads of a registered file that was read again. Reads that are committed already keep their rows.

Staged reads are derived from the archived file, reference data and the parser. They may be lost (a cache, not synced to
disk) and made again; and a file that was refused, or of which reads were rejected, may be offered again after its
meters were enrolled, its declaration was mended or it was moved to its own head-end's folder. In each case payloads
whose hash stands in a committed batch stay as they are; the others are staged under row numbers that no claim holds;
dead letters whose reads are staged now are closed; and control totals follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ingest import staging
from meter_pipeline.ingest.dead_letter_rows import RULE_VERSION
from meter_pipeline.ingest.staging import StagedDay
from meter_pipeline.ingest.tables import dead_letters, raw
from meter_pipeline.ingest.tables import restage as tables
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import day_lock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.postgres.driver import Connection


class DayIsBeingWritten(ValueError):
    """A run holds one of the file's days at this moment: read the file again when it is done."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A registered file as it reads now: its row with the new ``refused``, ``rejected`` and format, its staged days,
    its dead letters (tables.dead_letters.COLUMNS)."""

    file: raw.FeedFile
    staged: Mapping[date, StagedDay]
    letters: pl.DataFrame


@dataclass(slots=True)
class Restaged:
    """Result of reading a file again. ``days`` wait now; ``changed``: whether anything is other than before."""

    file_name: str
    days: list[date] = field(default_factory=list)
    letters_closed: int = 0
    letters_written: int = 0
    changed: bool = False


def apply(
    database: Database, staged_in: Path, found: Reading, *, only: date | None = None, clock: Clock = SYSTEM_CLOCK
) -> Restaged:
    """Register the present result of a file, in one transaction. With ``only``, of that day alone, whose lock the
    caller's run holds. Raises DayIsBeingWritten where a run holds another of the days."""
    done = Restaged(found.file.file_name)
    with database.connect("restage") as connection:
        known = tables.days(connection, found.file.sha256)
        if only is None and _stands(connection, found, known):
            return done
        touched = [only] if only is not None else sorted({*known, *found.staged})
        if only is None:
            for day in touched:
                if not day_lock.try_take(connection, DayLock.LOAD, day):
                    raise DayIsBeingWritten(f"{found.file.file_name}: {day} is being written")
        tables.lock_file(connection, found.file.sha256)
        known = tables.days(connection, found.file.sha256)
        before = raw.known_file(connection, found.file.sha256)
        assert before is not None  # noqa: S101 - only registered files are read again
        letters = _letters(connection, found, only)
        for day in touched:
            content = _without_waiting(found.staged.get(day, EMPTY), day, letters.waiting)
            if _put_day(connection, staged_in, found.file.sha256, day, known.get(day), content):
                done.days.append(day)
        done.letters_closed, done.letters_written = len(letters.closed), letters.fresh.height
        done.changed = bool(done.days or letters.closed or letters.reopened or letters.fresh.height) or (
            only is None and before.refused != found.file.refused
        )
        if done.changed:
            _register(connection, found.file if only is None else before, before, letters, done.days, clock)
            connection.commit()
        else:
            connection.rollback()
    return done


def _stands(connection: Connection, found: Reading, known: Mapping[date, tables.KnownDay]) -> bool:
    """Whether a file's result is the registered one. Takes no lock on its days, so that runs go on."""
    before = raw.known_file(connection, found.file.sha256)
    if before is None or before.refused != found.file.refused or known.keys() != found.staged.keys():
        return False
    if any(known[day].staged_sha256 != content.content_sha256 for day, content in found.staged.items()):
        return False
    keys = set(found.letters["dead_letter_key"].to_list()) if found.letters.height else set()
    there = tables.letters(connection, found.file.sha256)
    return keys <= {letter.key for letter in there} and not any(
        letter.status == "open" and letter.key not in keys for letter in there
    )


EMPTY = StagedDay(pl.DataFrame(), pl.DataFrame())


@dataclass(slots=True)
class _Letters:
    """Dead letters of a reading beside those that are known: ``closed`` are accepted now, ``waiting`` a person has
    answered or is correcting, so that their payloads stay out."""

    closed: list[tables.KnownLetter] = field(default_factory=list)
    counted_elsewhere: list[tables.KnownLetter] = field(default_factory=list)
    reopened: list[tables.KnownLetter] = field(default_factory=list)
    waiting: list[tables.KnownLetter] = field(default_factory=list)
    fresh: pl.DataFrame = field(default_factory=pl.DataFrame)


def _letters(connection: Connection, found: Reading, only: date | None) -> _Letters:
    def in_scope(letter: tables.KnownLetter) -> bool:
        return only is None or letter.payload.get("billing_day") == only.isoformat()

    def of_day(raw_format: str, content: bytes) -> bool:
        probe = tables.KnownLetter(b"", "", 0, raw_format, content, b"", None)
        return in_scope(probe)

    known = tables.letters(connection, found.file.sha256)
    now = found.letters.unique("dead_letter_key", keep="first", maintain_order=True)
    keys = set(now["dead_letter_key"].to_list()) if now.height else set()
    sorted_out = _Letters()
    for letter in known:
        if letter.key in keys:
            if letter.status == "replayed" and letter.replay_sha256 == found.file.sha256:
                sorted_out.reopened.append(letter)
        elif not in_scope(letter):
            continue
        elif letter.status == "open":
            sorted_out.closed.append(letter)
        elif letter.status == "replayed" and letter.replay_sha256 != found.file.sha256:
            sorted_out.counted_elsewhere.append(letter)
        elif letter.status in ("dismissed", "corrected"):
            sorted_out.waiting.append(letter)
    there = [letter.key for letter in known]
    sorted_out.fresh = now.filter(~pl.col("dead_letter_key").is_in(pl.Series(there, dtype=pl.Binary).implode()))
    if only is not None and sorted_out.fresh.height:
        chosen = [of_day(*row) for row in sorted_out.fresh.select("raw_format", "raw").iter_rows()]
        sorted_out.fresh = sorted_out.fresh.filter(pl.Series(chosen, dtype=pl.Boolean))
    return sorted_out


def _without_waiting(content: StagedDay, day: date, letters: Sequence[tables.KnownLetter]) -> StagedDay:
    """A day's reads without the payloads of letters that a person dismissed or is correcting."""
    payloads = [p for letter in letters if (p := letter.payload) and p.get("billing_day") == day.isoformat()]
    intervals, registers = content.intervals, content.registers
    for payload in payloads:
        same = (pl.col("meter_id") == payload["meter_id"]) & (pl.col("channel") == payload["channel"])
        same &= pl.col("source_version") == payload["source_version"]
        if "read_at" in payload:
            if registers.height:
                at = pl.lit(payload["read_at"]).cast(pl.Datetime("us", "UTC"))
                registers = registers.filter(~(same & (pl.col("read_at") == at)))
        elif intervals.height:
            intervals = intervals.filter(~same)
    return StagedDay(intervals, registers)


def _put_day(
    connection: Connection, staged_in: Path, sha256: bytes, day: date, known: tables.KnownDay | None, content: StagedDay
) -> bool:
    """Stage a day again; False where it stands as it was registered."""
    if known is not None and not known.loaded and content.content_sha256 == known.staged_sha256:
        staging.write(staged_in, sha256, day, content)  # the same rows: only their file may have been lost
        return False
    written = tables.committed(connection, sha256, day)
    rest = StagedDay(_without(content.intervals, written.payloads), _without(content.registers, written.payloads))
    if known is not None and known.loaded and not (rest.intervals.height or rest.registers.height):
        return False
    if not (rest.intervals.height or rest.registers.height or written.batches):
        if known is not None:
            tables.drop_day(connection, sha256, day)
        return known is not None
    frames = [frame for frame in (content.intervals, content.registers) if frame.height]
    duplicate, superseded = (sum(int(frame[c].sum()) for frame in frames) for c in ("duplicate", "superseded"))
    reads = sum(int(frame["reads"].sum()) for frame in (rest.intervals, rest.registers) if frame.height)
    row = raw.FileDay(
        day,
        staging.write(staged_in, sha256, day, rest),
        rest.content_sha256,
        written.reads + reads + duplicate + superseded,
        rest.intervals.height,
        rest.registers.height,
        duplicate,
        superseded,
    )
    first_row = 0
    if known is not None and written.batches:
        first_row = known.first_row + max(known.interval_rows, known.register_rows)
    tables.put_day(connection, sha256, row, first_row)
    return True


def _without(frame: pl.DataFrame, hashes: frozenset[bytes]) -> pl.DataFrame:
    if not frame.height or not hashes:
        return frame
    return frame.filter(~pl.col("payload_hash").is_in(pl.Series(sorted(hashes), dtype=pl.Binary).implode()))


def _register(
    connection: Connection,
    file: raw.FeedFile,
    before: raw.FeedFile,
    letters: _Letters,
    days: list[date],
    clock: Clock,
) -> None:
    """The file's row, its dead letters and the ledger's entries."""

    def reads(of: Sequence[tables.KnownLetter]) -> int:
        return sum(letter.reads for letter in of)

    fresh_reads = int(letters.fresh["reads"].sum() or 0)
    rejected = before.rejected - reads(letters.closed) - reads(letters.counted_elsewhere)
    rejected += reads(letters.reopened) + fresh_reads
    now = replace(file, rejected=rejected, file_name=before.file_name, archive_path=before.archive_path)
    if letters.closed:
        tables.close_letters(
            connection, [letter.key for letter in letters.closed], file.sha256, clock.now(), "the file was read again"
        )
        body = {"by": "ingest", "reads": reads(letters.closed), "file": file.sha256, "letters": len(letters.closed)}
        entries.append(connection, "replayed", body, [letter.leaf for letter in letters.closed], clock=clock)
    tables.reopen_letters(connection, [letter.key for letter in letters.reopened])
    dead_letters.write(connection, letters.fresh)
    received = tables.update_file(connection, now, letters.fresh.height, 0)
    now = replace(now, received=received)
    entry = record(connection, now, days, letters.fresh, fresh_reads, clock, again=True)
    raw.set_ledger_entry(connection, file.sha256, entry)


def record(
    connection: Connection,
    file: raw.FeedFile,
    days: Sequence[date],
    letters: pl.DataFrame,
    letter_reads: int,
    clock: Clock,
    *,
    again: bool = False,
) -> int:
    """Append the ledger entries of a file that was read: received reads, and rejected ones (``letters``)."""
    body = {
        "file_name": file.file_name,
        "sha256": file.sha256,
        "head_end": file.head_end,
        "format": file.file_format,
        "bytes": file.size,
        "archive_path": file.archive_path,
        "reads": file.received,
        "rejected": file.rejected,
        "refused": file.refused,
        "run_id": file.run_id,
        "first_day": days[0] if days else None,
        "last_day": days[-1] if days else None,
        "days": len(days),
    }
    if again:
        body["read_again"] = True
    if letters.height:
        refused = {
            "sha256": file.sha256,
            "stage": "landing",
            "letters": letters.height,
            "reads": letter_reads,
            "rule_version": RULE_VERSION,
        }
        written = letters.unique("dead_letter_key", keep="first", maintain_order=True)
        entries.append(connection, "rejected", refused, written["leaf"].to_list(), clock=clock)
    return entries.append(connection, "received", body, clock=clock)
