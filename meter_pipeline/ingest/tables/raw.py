"""SQL of the raw store: feed files, staged days, loaded days, and the writer's claim on a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class FeedFile:
    """A row of raw.feed_file. ``sha256`` is its identity (landing.file_identity), ``content_sha256`` of its bytes."""

    sha256: bytes
    content_sha256: bytes
    file_name: str
    head_end: str
    commodity: str
    file_format: str
    size: int
    archive_path: str
    landed_at: datetime
    received: int
    rejected: int
    dead_letters: int
    refused: str | None = None
    run_id: str | None = None
    replay_of: bytes | None = None
    ledger_entry: int | None = None


@dataclass(frozen=True, slots=True)
class FileDay:
    """A row of raw.feed_file_day as landing writes it."""

    billing_day: date
    staged_path: str
    staged_sha256: bytes
    received: int
    interval_rows: int
    register_rows: int
    duplicate_in_file: int
    superseded_in_file: int


def channels(database: Database) -> pl.DataFrame:
    """Returns each channel's declaration: meter_id, channel, kind, unit, interval_minutes, commodity."""
    return database.read(
        "SELECT c.meter_id, c.channel, c.kind, c.unit, c.interval_minutes, m.commodity FROM ref.channels AS c JOIN ref.meters AS m USING (meter_id)"
    )


def dated_channels(database: Database) -> pl.DataFrame:
    """Returns channels with another unit or interval length on some days: meter_id, channel, valid_from, valid_to,
    unit, interval_minutes."""
    return database.read(
        "SELECT meter_id, channel, valid_from, valid_to, unit, interval_minutes FROM ref.channel_values "
        "WHERE unit IS NOT NULL OR interval_minutes IS NOT NULL"
    )


_FILE: Final = (
    "sha256, content_sha256, file_name, head_end, commodity, file_format, bytes, archive_path, landed_at, received, "
    "rejected, dead_letters, refused, run_id, replay_of, ledger_entry"
)


def known_file(connection: Connection, sha256: bytes) -> FeedFile | None:
    """The registered file of this identity, or None."""
    row = connection.execute(f"SELECT {_FILE} FROM raw.feed_file WHERE sha256 = %s", (sha256,)).fetchone()
    return FeedFile(*row) if row else None


def files_of_content(connection: Connection, content_sha256: bytes) -> list[FeedFile]:
    """Returns every head-end's registered file of these bytes without replays of dead letters; the first one first."""
    rows = connection.execute(
        f"SELECT {_FILE} FROM raw.feed_file WHERE content_sha256 = %s AND replay_of IS NULL ORDER BY landed_at, sha256",
        (content_sha256,),
    ).fetchall()
    return [FeedFile(*row) for row in rows]


def register_file(connection: Connection, file: FeedFile, days: Sequence[FileDay]) -> bool:
    """Register a landed file and its days. Returns False where another process registered the same identity first
    (then it writes no row)."""
    values = astuple(file)
    done = connection.execute(
        f"INSERT INTO raw.feed_file ({_FILE}) VALUES ({', '.join(['%s'] * len(values))}) ON CONFLICT (sha256) DO NOTHING",
        values,
    )
    if not done.rowcount:
        return False
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, register_rows, "
            "duplicate_in_file, superseded_in_file) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [(file.sha256, *astuple(day)) for day in days],
        )
    return True


def set_ledger_entry(connection: Connection, sha256: bytes, entry: int) -> None:
    """Store the ledger entry that recorded a file."""
    connection.execute("UPDATE raw.feed_file SET ledger_entry = %s WHERE sha256 = %s", (entry, sha256))


def note_arrival(
    connection: Connection, sha256: bytes, file_name: str, at: datetime, duplicate: bool, size: int, modified_ns: int
) -> None:
    """Store a name under which a file's bytes arrived."""
    connection.execute(
        "INSERT INTO raw.feed_file_arrival AS a (sha256, file_name, first_seen, last_seen, duplicate, bytes, modified_ns) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (sha256, file_name) DO UPDATE SET last_seen = excluded.last_seen, "
        "times = a.times + 1, modified_ns = excluded.modified_ns",
        (sha256, file_name, at, at, duplicate, size, modified_ns),
    )


def seen_names(connection: Connection, names: Sequence[str]) -> dict[str, set[tuple[int, int]]]:
    """Returns sizes and modification times under which these names were landed."""
    seen: dict[str, set[tuple[int, int]]] = {}
    rows = connection.execute(
        "SELECT file_name, bytes, modified_ns FROM raw.feed_file_arrival WHERE file_name = ANY(%s)", (list(names),)
    )
    for name, size, modified in rows:
        seen.setdefault(name, set()).add((size, modified))
    return seen


def waiting_days(connection: Connection) -> list[tuple[date, list[bytes]]]:
    """Billing days with reads staged and not loaded, with the hashes of the files they wait in, in order of day."""
    return connection.execute(
        "SELECT billing_day, array_agg(sha256 ORDER BY sha256) FROM raw.feed_file_day WHERE loaded_at IS NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()


def note_reused_sequences(connection: Connection, sha256: bytes, rows: Sequence[tuple[date, str, str, int]]) -> None:
    """Store channel-days (day, meter, channel, reads) in which the file gave one sequence number to different
    values."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO raw.reused_sequence (billing_day, meter_id, channel, sha256, reads) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(day, meter, channel, sha256, reads) for day, meter, channel, reads in rows],
        )


def note_stated_differences(connection: Connection, sha256: bytes, rows: Sequence[tuple[Any, ...]]) -> None:
    """Store periods of a file whose stated consumption differs from its dials
    (schemas.reads.ParsedFeed.stated_differences)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO raw.stated_difference (sha256, line, meter_id, channel, period_start, period_end, stated_micro, dials_micro, unit) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(sha256, *row) for row in rows],
        )


def note_roundings(connection: Connection, sha256: bytes, rows: Sequence[tuple[str, str, Decimal]]) -> None:
    """Store the effect of rounding on each channel of a file (meter, channel, millionths of the base unit)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO raw.rounding (sha256, meter_id, channel, difference_micro) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(sha256, *row) for row in rows],
        )


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A staged file and day that is not loaded."""

    sha256: bytes
    billing_day: date
    staged_path: str
    staged_sha256: bytes
    received: int
    duplicate_in_file: int
    superseded_in_file: int
    interval_rows: int
    register_rows: int
    first_row: int
    head_end: str
    commodity: str
    file_format: str
    file_name: str
    archive_path: str


def waiting(connection: Connection, day: date) -> list[WaitingFile]:
    """The staged files of a billing day that are not loaded, by landing time then hash."""
    rows = connection.execute(
        "SELECT d.sha256, d.billing_day, d.staged_path, d.staged_sha256, d.received, d.duplicate_in_file, d.superseded_in_file, "
        "d.interval_rows, d.register_rows, d.first_row, f.head_end, "
        "f.commodity, f.file_format, f.file_name, f.archive_path FROM raw.feed_file_day AS d JOIN raw.feed_file AS f USING (sha256) "
        "WHERE d.billing_day = %s AND d.loaded_at IS NULL ORDER BY f.landed_at, d.sha256",
        (day,),
    ).fetchall()
    return [WaitingFile(*row) for row in rows]


def control_totals(connection: Connection, day: date | None = None) -> pl.DataFrame:
    """Returns control totals by file (columns of raw.control_total); of the files that touch a billing day where one
    is given."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.sha256, c.file_name, c.head_end, c.landed_at, c.received, c.accepted, c.duplicate, c.superseded, c.rejected, c.waiting, "
            "c.balanced FROM raw.control_total AS c WHERE %(day)s::date IS NULL "
            "OR c.sha256 IN (SELECT sha256 FROM raw.feed_file_day WHERE billing_day = %(day)s) ORDER BY c.landed_at, c.file_name",
            {"day": day},
        )
        return pl.DataFrame(cursor.fetchall(), schema=CONTROL_TOTAL, orient="row")


CONTROL_TOTAL: Final[dict[str, Any]] = {
    "sha256": pl.Binary,
    "file_name": pl.String,
    "head_end": pl.String,
    "landed_at": pl.Datetime("us", "UTC"),
    "received": pl.Int64,
    "accepted": pl.Int64,
    "duplicate": pl.Int64,
    "superseded": pl.Int64,
    "rejected": pl.Int64,
    "waiting": pl.Int64,
    "balanced": pl.Boolean,
}


def take_day(connection: Connection, day: date, holder: str, at: datetime) -> int:
    """Take the next epoch of a billing day, after waiting for batches in flight of the last one. Commit immediately."""
    row = connection.execute(
        "INSERT INTO raw.day_load AS d (billing_day, epoch, holder, taken_at) VALUES (%s, 1, %s, %s) ON CONFLICT (billing_day) "
        "DO UPDATE SET epoch = d.epoch + 1, holder = excluded.holder, taken_at = excluded.taken_at RETURNING epoch",
        (day, holder, at),
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of an upsert
    return int(row[0])


def open_partition(connection: Connection, table: str, day: date) -> str:
    """Make a day's partition, unattached. Returns "created", or "open" or "attached" where it exists."""
    row = connection.execute("SELECT raw.open_partition(%s::regclass, %s)", (table, day)).fetchone()
    assert row is not None  # noqa: S101 - a function call gives a row
    return str(row[0])


def attach_partition(connection: Connection, table: str, day: date) -> bool:
    """Attach a day's partition: its keys are built and its rows become visible. Returns False where it was attached."""
    row = connection.execute("SELECT raw.attach_partition(%s::regclass, %s)", (table, day)).fetchone()
    assert row is not None  # noqa: S101 - a function call gives a row
    return bool(row[0])


def partition_is_open(connection: Connection, table: str, day: date) -> bool:
    """Whether a day's partition was made and never attached."""
    row = connection.execute(
        "SELECT NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = p.oid) FROM (SELECT to_regclass(%s) AS oid) AS p WHERE p.oid IS NOT NULL",
        (f"{table}_{day:%Y%m%d}",),
    ).fetchone()
    return bool(row and row[0])


def loaded_rows(connection: Connection, day: date) -> dict[tuple[bytes, str], list[tuple[int, int]]]:
    """Committed row ranges [first, past) of a day's waiting files by (file, kind)."""
    found: dict[tuple[bytes, str], list[tuple[int, int]]] = {}
    rows = connection.execute(
        "SELECT b.sha256, b.kind, lower(r), upper(r) FROM raw.load_batch AS b JOIN raw.feed_file_day AS d USING (sha256, billing_day), "
        "unnest(b.rows) AS r WHERE b.billing_day = %s AND d.loaded_at IS NULL ORDER BY 1, 2, 3",
        (day,),
    )
    for sha256, kind, first, past in rows:
        found.setdefault((sha256, kind), []).append((first, past))
    return found


def finish_file_day(connection: Connection, sha256: bytes, day: date, at: datetime) -> tuple[int, int, int, int, int]:
    """Mark a file's day loaded with its totals from the batches. Returns received, accepted, duplicate, superseded,
    rejected."""
    row = connection.execute(
        "UPDATE raw.feed_file_day AS d SET loaded_at = %s, accepted = b.accepted, duplicate = b.duplicate + d.duplicate_in_file, "
        "superseded = b.superseded + d.superseded_in_file, rejected = b.rejected FROM (SELECT coalesce(sum(accepted), 0) AS accepted, "
        "coalesce(sum(duplicate), 0) AS duplicate, coalesce(sum(superseded), 0) AS superseded, coalesce(sum(rejected), 0) AS rejected "
        "FROM raw.load_batch WHERE sha256 = %s AND billing_day = %s) AS b WHERE d.sha256 = %s AND d.billing_day = %s "
        "RETURNING d.received, d.accepted, d.duplicate, d.superseded, d.rejected",
        (at, sha256, day, sha256, day),
    ).fetchone()
    assert row is not None  # noqa: S101 - the row was read as waiting
    received, accepted, duplicate, superseded, rejected = map(int, row)
    return received, accepted, duplicate, superseded, rejected


@dataclass(frozen=True, slots=True)
class IncompleteDay:
    """A billing day of a head-end with missing reads: ``meters_missing`` of its ``meters`` have no read (0 of 0
    where no meter is declared)."""

    day: date
    meters_missing: int
    meters: int


def days_incomplete(
    connection: Connection, head_end: str, days: Sequence[tuple[date, datetime, datetime]]
) -> list[IncompleteDay]:
    """Returns those of the days (each with its first and past-the-last instant) that lack reads of a meter installed
    under the head-end; where no meter is, those without a file of the head-end. A day whose files wait to be loaded
    is left out: its reads are not known yet."""
    rows = connection.execute(
        "SELECT d.day, count(m.meter_id) FILTER (WHERE NOT EXISTS (SELECT FROM raw.interval_day AS r WHERE r.billing_day = d.day "
        "AND r.meter_id = m.meter_id) AND NOT EXISTS (SELECT FROM raw.register_read AS r WHERE r.billing_day = d.day AND r.meter_id = m.meter_id)), "
        "count(m.meter_id) FROM unnest(%(days)s::date[], %(first)s::timestamptz[], %(past)s::timestamptz[]) AS d (day, first, past) "
        "LEFT JOIN LATERAL (SELECT DISTINCT x.meter_id FROM ref.meters AS x JOIN ref.installations AS i USING (meter_id) LEFT JOIN ref.meter_values AS w "
        "ON w.meter_id = x.meter_id AND w.valid_from <= d.day AND (w.valid_to IS NULL OR w.valid_to > d.day) WHERE coalesce(w.head_end, x.head_end) = %(head_end)s "
        "AND i.installed_at < d.past AND (i.removed_at IS NULL OR i.removed_at > d.first)) AS m ON true "
        "WHERE NOT EXISTS (SELECT FROM raw.feed_file_day AS fd JOIN raw.feed_file AS f USING (sha256) "
        "WHERE fd.billing_day = d.day AND f.head_end = %(head_end)s AND fd.loaded_at IS NULL) GROUP BY d.day "
        "HAVING CASE WHEN count(m.meter_id) = 0 THEN NOT EXISTS (SELECT FROM raw.feed_file_day AS fd JOIN raw.feed_file AS f USING (sha256) "
        "WHERE fd.billing_day = d.day AND f.head_end = %(head_end)s) ELSE true END ORDER BY d.day",
        {
            "head_end": head_end,
            "days": [d for d, _, _ in days],
            "first": [f for _, f, _ in days],
            "past": [p for _, _, p in days],
        },
    ).fetchall()
    return [IncompleteDay(*row) for row in rows if row[1] or not row[2]]


def pull_requests(connection: Connection, head_end: str) -> dict[date, datetime]:
    """Returns the days requested of a head-end, with their first request."""
    return dict(
        connection.execute(
            "SELECT billing_day, first_asked FROM raw.pull_request WHERE head_end = %s", (head_end,)
        ).fetchall()
    )


def last_pulls(connection: Connection, head_end: str) -> dict[date, datetime]:
    """Returns the days requested of a head-end, with their last request."""
    return dict(
        connection.execute(
            "SELECT billing_day, last_asked FROM raw.pull_request WHERE head_end = %s", (head_end,)
        ).fetchall()
    )


def still_asked(connection: Connection, day: date, now: datetime, days: int) -> bool:
    """Whether reads of a day are still requested of a head-end: first less than ``days`` days ago, and again within
    the last day."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM raw.pull_request WHERE billing_day = %s AND first_asked > %s - make_interval(days => %s) "
        "AND last_asked > %s - interval '1 day')",
        (day, now, days, now),
    ).fetchone()
    return bool(row and row[0])


def note_pull(connection: Connection, head_end: str, day: date, at: datetime, outcome: str, reads: int) -> None:
    """Store the request of a day and its result."""
    connection.execute(
        "INSERT INTO raw.pull_request AS p (head_end, billing_day, first_asked, last_asked, outcome, reads) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (head_end, billing_day) DO UPDATE SET times = p.times + 1, last_asked = excluded.last_asked, outcome = excluded.outcome, "
        "reads = excluded.reads",
        (head_end, day, at, at, outcome, reads),
    )


def close_breaker(connection: Connection, name: str, holder: str, at: datetime) -> bool:
    """Close a breaker that a killed run left open, after a day was written completely. Returns True where it was
    open."""
    done = connection.execute(
        "UPDATE raw.breaker SET state = 'closed', open_until = NULL, changed_at = %s, holder = %s WHERE name = %s AND state <> 'closed'",
        (at, holder, name),
    )
    return bool(done.rowcount)
