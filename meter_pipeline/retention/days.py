"""Archives billing days to Parquet and restores them.

A day is archived in one transaction: writers are locked out, its partitions are written to Parquet, synced, and read
back from disk through a temporary table. Only if that gives the same bytes are the rows of the catalogue and the ledger
entry written and the partitions detached and dropped. If the process is killed before the commit, the day is unchanged,
and the next attempt replaces its file; after the commit, the file is complete and compared.

A late read for an archived day restores the day first (``ensure_present``, which every stage of a day calls): the same
bytes are attached again, and the read is classified against them. The database refuses a second, empty partition for an
archived day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.row_checks import tables_of, verify_rows
from meter_pipeline.ledger.row_rules import RowRules
from meter_pipeline.ledger.sources import SOURCES
from meter_pipeline.postgres import day_lock, partitions
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.partitions import DayTable
from meter_pipeline.vee.registers.read_window import FAR_DAYS, NEAR_DAYS

#: A quarterly read trues up the days since the read before it, and each of those looks back as far again for the read
#: that opens it (vee/registers/read_window.py; : estimates look back 92 days). What is younger stays, with three weeks
#: for files that come late.
LEAST_KEPT_DAYS: Final = 2 * NEAR_DAYS + 20
#: The days that a yearly read trues up, and the reads that open those: what is younger than this is exact whenever its
# register is read.
KEEP_DAYS: Final = FAR_DAYS + NEAR_DAYS
#: Days made ahead: a fortnight outlasts a long weekend without anyone who may make tables.
AHEAD_DAYS: Final = 14
ACTOR: Final = "retention"


@dataclass(slots=True)
class Archived:
    """Result of an archiving run: catalogue rows by day, and the days that stay with the reason."""

    days: dict[date, list[DayTable]] = field(default_factory=dict)
    kept: dict[date, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(t.rows for tables in self.days.values() for t in tables)


def make_ahead(database: Database, first: date, days: int = AHEAD_DAYS) -> int:
    """Make the empty tables of the days from ``first`` on. Returns how many exist."""
    with database.connect("partitions") as connection:
        created = sum(partitions.make_ahead(connection, first + timedelta(days=k)) for k in range(days))
        connection.commit()
    return created


def archive_days(
    database: Database,
    folder: Path,
    before: date,
    *,
    verifier: Database | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Archived:
    """Archive every billing day before ``before``, oldest first, each in its own transaction.

    A day stays, with its reason, while a run works on it, while files or register reads wait for it, or where its rows
    and the ledger's leaves differ. ``verifier``: the database session that reads the ledger, where the archiving role
    may not. Raises ValueError where ``before`` is less than LEAST_KEPT_DAYS ago.
    """
    if before > clock.now().date() - timedelta(days=LEAST_KEPT_DAYS):
        raise ValueError(f"days of the last {LEAST_KEPT_DAYS} days stay: validation reads them")
    done = Archived()
    with database.connect("partitions") as connection:
        found = partitions.attached(connection, before)
    for day, tables in found.items():
        with database.connect("retention") as connection:
            if not day_lock.try_take(connection, DayLock.RUN, day):
                done.kept[day] = "a run has it"
                continue
            why = _why_not(connection, verifier or database, day)
            if why:
                done.kept[day] = why
                continue
            done.days[day] = _archive(database, connection, folder, day, tables, clock)
            connection.commit()
    return done


def _why_not(connection: Connection, verifier: Database, day: date) -> str:
    if scalar(
        connection, "SELECT EXISTS (SELECT FROM raw.feed_file_day WHERE billing_day = %s AND loaded_at IS NULL)", (day,)
    ):
        return "files wait for it"
    if scalar(connection, "SELECT EXISTS (SELECT FROM vee.true_up WHERE billing_day = %s AND done_at IS NULL)", (day,)):
        return "a register read asks to validate it again"
    outcome = VerifyOutcome(None, 0, 0, b"")
    with verifier.connect("retention-verify") as reader:
        for source in SOURCES:
            if source.by_day and (tables := tables_of(reader, source, {})):
                verify_rows(reader, source, tables, day, outcome, RowRules({}))
    return (
        f"its rows and leaves differ: {outcome.findings[0].check}, {outcome.findings[0].detail}"
        if outcome.findings
        else ""
    )


def _archive(
    database: Database, connection: Connection, folder: Path, day: date, tables: Sequence[str], clock: Clock
) -> list[DayTable]:
    now = clock.now()
    written = []
    for table in tables:
        columns = partitions.freeze(connection, table, day)
        content = partitions.partition_hash(connection, table, day, columns)
        file = f"{day:%Y}/{day}/{table}.parquet"
        rows, digest = partitions.write_file(database, connection, table, day, columns, folder / file)
        if (back := partitions.hash_of_file(connection, table, columns, folder / file)) != content:
            raise partitions.ArchiveError(
                f"{folder / file} reads back as {back.hex()}, the partition is {content.hex()}: nothing was dropped"
            )
        if hashlib.sha256((folder / file).read_bytes()).digest() != digest:
            raise partitions.ArchiveError(f"{folder / file} changed while it was verified: nothing was dropped")
        written.append(
            DayTable(
                day,
                table,
                "archived",
                rows,
                (folder / file).stat().st_size,
                columns,
                folder,
                file,
                digest,
                content,
                now,
                0,
            )
        )
    body = {
        "billing_day": day,
        "what": "archived to Parquet",
        "tables": [
            {
                "table": t.table,
                "rows": t.rows,
                "file": t.file,
                "file_sha256": t.file_sha256,
                "content_sha256": t.content_sha256,
            }
            for t in written
        ],
    }
    entry = entries.append(connection, "period_sealed", body, clock=clock, actor=ACTOR)
    for row in written:
        partitions.put_on_record(connection, replace(row, ledger_entry=entry), now)
        partitions.drop(connection, row.table, day)
    return [replace(row, ledger_entry=entry) for row in written]


def restore_days(database: Database, days: Sequence[date], *, clock: Clock = SYSTEM_CLOCK) -> list[DayTable]:
    """Restore archived days, each in one transaction. Returns the restored tables. Raises
    postgres.partitions.ArchiveError naming file and day.

    The files stay: a restored day without changes is archived again to the same bytes.
    """
    done = []
    for day in days:
        with database.connect("retention") as connection:
            day_lock.hold(connection, DayLock.ARCHIVE, day)
            for row in partitions.catalogue(connection, [day], "archived"):
                partitions.restore(connection, row, clock.now())
                done.append(row)
            connection.commit()
    return done


def ensure_present(database: Database, day: date, *, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Restore a day that is archived, before a stage works on it. Returns True where it was archived."""
    with database.connect("retention") as connection:
        gone = partitions.archived_in(connection, day, day)
    return bool(gone and restore_days(database, [day], clock=clock))
