"""Registered files read again from the archive: by a run whose staged reads are lost, or by `ingest restage`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from meter_pipeline import feeds
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.one_line import line_declaration
from meter_pipeline.ingest import archive, file_checks, landing, plain_files, restage
from meter_pipeline.ingest.dead_letter_rows import finish_letters, line_letters
from meter_pipeline.ingest.dead_letters import parse_canonical
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.landing import FileFolders
from meter_pipeline.ingest.restage import Reading, Restaged
from meter_pipeline.ingest.staged_days import staged_days
from meter_pipeline.ingest.tables import dead_letters, raw
from meter_pipeline.ingest.tables import restage as tables
from meter_pipeline.postgres.database import Database


class StagingError(RuntimeError):
    """A file cannot be read again from the archive; the message names it and the next step."""


def reading(
    database: Database,
    calendar: BillingCalendar,
    places: FileFolders,
    file: raw.FeedFile,
    head_ends: Mapping[str, HeadEnd],
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> Reading:
    """Read an archived file by today's declaration, reference data and parser. Raises StagingError."""
    head_end = head_ends.get(file.head_end)
    if head_end is None:
        raise StagingError(
            f"{file.file_name} cannot be read again: head-end {file.head_end} is not declared. Put its declaration back"
        )
    parse = parse_canonical if file.file_format == "canonical" else feeds.parse
    with tempfile.TemporaryDirectory(prefix="meter-pipeline-restage-") as folder:
        copy = Path(folder) / file.file_name.rsplit("/", 1)[-1].replace("\\", "_")
        _restore(places, file, copy)
        head_end = _of_replay(database, file, head_end, copy)
        with plain_files.opened(copy) as source:
            parsed, refused, letters, _ = landing.read(source, file.content_sha256, head_end, calendar, places, parse)
    file_checks.set_arrival(parsed, head_end, file.landed_at)
    channels = Declared.of(raw.channels(database), raw.dated_channels(database))
    staged, rejected = staged_days(parsed, calendar, head_end.name, channels, clock.now())
    letters += [line_letters(parsed.rejects), rejected]
    found = finish_letters(
        letters, file.sha256, file.file_name, head_end.name, parsed.file_format, file.run_id, clock.now()
    )
    now = replace(file, refused=refused, file_format=parsed.file_format, commodity=head_end.commodity)
    return Reading(now, staged, found)


def _of_replay(database: Database, file: raw.FeedFile, head_end: HeadEnd, copy: Path) -> HeadEnd:
    """The declaration of a replayed dead letter's line, as its replay read it; that of any other file as it is."""
    if not file.file_name.startswith("dead-letter/") or file.file_format == "canonical":
        return head_end
    with database.connect("restage") as connection:
        name = dead_letters.file_of_replay(connection, file.sha256)
    return line_declaration(head_end, name, copy.read_bytes()) if name is not None else head_end


def _restore(places: FileFolders, file: raw.FeedFile, copy: Path) -> None:
    advice = "put the same file into the inbox again: its bytes are then archived again"
    try:
        archive.restore(places.archive, file.archive_path, copy)
    except OSError as error:
        raise StagingError(
            f"{file.file_name} cannot be read again: its archived copy {file.archive_path} is lost ({error}); {advice}"
        ) from error
    if archive.hash_file(copy) != file.content_sha256:
        (places.archive / file.archive_path).rename(places.archive / f"{file.archive_path}.damaged")
        raise StagingError(
            f"{file.file_name} cannot be read again: its archived copy {file.archive_path} does not have the hash it was "
            f"stored under, and was put aside; {advice}"
        )


def restage_files(
    database: Database,
    calendar: BillingCalendar,
    places: FileFolders,
    head_ends: Mapping[str, HeadEnd],
    *,
    name: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Restaged]:
    """Read files again from the archive and stage their present reads: those called ``name`` (any name they arrived
    under), or all with days that wait. Raises StagingError, restage.DayIsBeingWritten."""
    with database.connect("restage") as connection:
        files = tables.to_restage(connection, name)
    return [
        restage.apply(
            database, places.staging, reading(database, calendar, places, file, head_ends, clock=clock), clock=clock
        )
        for file in files
    ]


def staged_day(
    database: Database,
    calendar: BillingCalendar,
    places: FileFolders,
    item: raw.WaitingFile,
    head_ends: Mapping[str, HeadEnd],
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> bool:
    """Stage one day of a file again, whose lock the caller's run holds. True where the reads are others than before,
    so that the day's row has changed; the same reads only get their file back."""
    with database.connect("restage") as connection:
        file = raw.known_file(connection, item.sha256)
    if file is None:
        raise StagingError(f"{item.file_name} is not registered any more")
    found = reading(database, calendar, places, file, head_ends, clock=clock)
    day: date = item.billing_day
    return restage.apply(database, places.staging, found, only=day, clock=clock).changed
