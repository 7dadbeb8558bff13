"""Landing: a file becomes staged billing days, dead letters and a row in the register of files, once.

The same bytes again, under any name, are recorded as a duplicate and load nothing. A crash anywhere before the
transaction leaves only an archived copy and staged files, which the next landing writes again under the same names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import archive, keys, pack, staging
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.tables import dead_letters, raw
from meter_pipeline.ledger import entries, erasure
from meter_pipeline.postgres import vectors
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import ParsedFeed

Parse = Callable[[Path, HeadEnd, BillingCalendar], ParsedFeed]

#: Goes into every dead letter, so that a triage rule can tell what rejected it.
RULE_VERSION: Final = "landing-1"
#: A meter's clock may run ahead by this much before a read counts as from the future.
FUTURE: Final = timedelta(hours=1)
# : Nothing was metered electronically before; an earlier stamp is a clock at its epoch, and would open partitions
# nobody reads.
EARLIEST: Final = datetime(1980, 1, 1, tzinfo=UTC)
#: Bytes of a refused file kept in its dead letter; the whole is in the archive.
REFUSED_BYTES: Final = 65_536


@dataclass(slots=True)
class Landed:
    """What landing a file did. ``days`` are the billing days now waiting; ``duplicate`` means the bytes were known and
    nothing was done."""

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
class Places:
    """Where files are kept: the archive of originals and the staging of parsed days."""

    archive: Path
    staging: Path


def land(
    database: Database,
    calendar: BillingCalendar,
    path: Path,
    head_end: HeadEnd,
    places: Places,
    *,
    parse: Parse | None = None,
    clock: Clock = SYSTEM_CLOCK,
    name: str | None = None,
    channels: Declared | None = None,
    run_id: str | None = None,
    replay_of: bytes | None = None,
) -> Landed:
    """Land one file: hash, archive, parse, check against reference data, stage by billing day, register; idempotent.

    ``name``: what the file is called in the register (its path below the inbox); ``channels``: what is declared, to
    share between files. A file that changes while it is read raises (OSError, ValueError or the parser's own refusal to
    read a growing file) and is not registered.
    """
    now = clock.now()
    return register(
        database,
        prepare_file(database, calendar, path, head_end, places, now, parse, name, channels, run_id, replay_of),
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file read, archived and staged, of which the database knows nothing yet. ``known``: the same bytes were
    registered before, and nothing more was done."""

    file: raw.FeedFile
    known: bool = False
    modified_ns: int = 0
    days: Sequence[raw.FileDay] = ()
    letters: pl.DataFrame = field(default_factory=pl.DataFrame)
    reused: Sequence[tuple[date, str, str, int]] = ()
    stated_differences: Sequence[tuple[Any, ...]] = ()


def prepare_file(
    database: Database,
    calendar: BillingCalendar,
    path: Path,
    head_end: HeadEnd,
    places: Places,
    now: datetime,
    parse: Parse | None = None,
    name: str | None = None,
    channels: Declared | None = None,
    run_id: str | None = None,
    replay_of: bytes | None = None,
) -> Prepared:
    """All of a file's landing but its transaction; repeated or abandoned it leaves an archived copy and staged files of
    the same names. Safe to run for several files at once. Raises as ``land``."""
    if parse is None:
        from meter_pipeline import feeds

        parse = feeds.parse
    name = name or path.name
    before = path.stat()
    own_sha256 = archive.hash_file(path)
    sha256 = own_sha256 if replay_of is None else replay_identity(replay_of, own_sha256)
    with database.connect("landing") as connection:
        known = raw.known_file(connection, sha256)
    if known is not None:
        return Prepared(replace(known, file_name=name, size=before.st_size), True, before.st_mtime_ns)
    refused: str | None = None
    letters: list[pl.DataFrame] = []
    parsed = ParsedFeed(head_end.format)
    with ThreadPoolExecutor(1, "archive") as pool:
        archived = pool.submit(archive.store, places.archive, path, own_sha256)
        try:
            parsed = parse(path, head_end, calendar)
        except Exception as error:
            code, detail = refusal(error)
            if code is None or code == "file_growing":
                raise
            refused = f"{code}: {detail}"
            letters.append(_refused_letter(path, code, detail))
        else:
            parsed, refused, letters = _refused_whole(parsed, path)
        relative = archived.result()
    after = path.stat()
    # Size and time may be put back; the bytes that were parsed may not be others than those that are registered and
    # archived.
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or parsed.sha256 not in (
        "",
        own_sha256.hex(),
    ):
        raise ValueError(f"{path.name} changed while it was read")

    staged, rejected_payloads = prepare(
        parsed, calendar, head_end.name, channels or Declared.of(raw.channels(database)), now
    )
    letters += [_line_letters(parsed.rejects), rejected_payloads]
    found = finish_letters(letters, sha256, name, head_end.name, parsed.file_format, run_id, now)
    days = [
        _file_day(day, staging.write(places.staging, sha256, day, content), content) for day, content in staged.items()
    ]
    rejected = int(found["reads"].sum() or 0)
    file = raw.FeedFile(
        sha256,
        name,
        head_end.name,
        head_end.commodity,
        parsed.file_format,
        before.st_size,
        relative,
        now,
        parsed.received,
        rejected,
        found.height,
        refused,
        run_id,
        replay_of,
    )
    return Prepared(file, False, before.st_mtime_ns, days, found, _reused(staged), parsed.stated_differences.rows())


def register(database: Database, prepared: Prepared, *, clock: Clock = SYSTEM_CLOCK) -> Landed:
    """The transaction that makes a prepared file known: its row, its days, its dead letters and its ledger entries; or
    one more arrival of a file that is known."""
    file, modified_ns = prepared.file, prepared.modified_ns
    with database.connect("landing") as connection:
        if prepared.known or not raw.register_file(connection, file, prepared.days):
            connection.rollback()
            known = raw.known_file(connection, file.sha256)
            assert known is not None  # noqa: S101 - it was found, or the conflict was with this row
            return _duplicate(connection, known, file.file_name, file.size, modified_ns, clock)
        raw.note_arrival(connection, file.sha256, file.file_name, file.landed_at, False, file.size, modified_ns)
        raw.note_reused_sequences(connection, file.sha256, prepared.reused)
        raw.note_stated_differences(connection, file.sha256, prepared.stated_differences)
        dead_letters.write(connection, prepared.letters)
        days = [d.billing_day for d in prepared.days]
        raw.set_ledger_entry(connection, file.sha256, _record(connection, file, days, prepared.letters, clock))
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


def _reused(staged: dict[date, staging.StagedDay]) -> list[tuple[date, str, str, int]]:
    """(billing day, meter, channel, reads) of payloads in which one sequence number stood for two values."""
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
    """What a replayed dead letter's content is registered under: SHA-256 over ``mp-replay-1``, the letter's key and the
    content's hash.

    Not the content's hash alone: two letters may say the same, and one that was refused whole is replayed with the very
    bytes of its file.
    """
    return hashlib.sha256(b"mp-replay-1" + dead_letter + content).digest()


def _refused_whole(parsed: ParsedFeed, path: Path) -> tuple[ParsedFeed, str | None, list[pl.DataFrame]]:
    """A file refused whole comes from feeds.parse as one reject that holds no reads: its letter keeps the file's
    beginning."""
    rejects = parsed.rejects
    if rejects.height != 1 or parsed.received or parsed.intervals.height or parsed.registers.height:
        return parsed, None, []
    reason = rejects["reasons"][0][0]
    letter = _refused_letter(path, reason["code"], reason["detail"])
    return ParsedFeed(parsed.file_format), f"{reason['code']}: {reason['detail']}", [letter]


def refusal(error: Exception) -> tuple[str | None, str]:
    """Code and detail of a parser's refusal of a whole file (an exception with ``code`` and ``detail``); (None, ...)
    for anything else."""
    code, detail = getattr(error, "code", None), getattr(error, "detail", None)
    return (code, detail) if isinstance(code, str) and isinstance(detail, str) else (None, str(error))


def prepare(
    parsed: ParsedFeed, calendar: BillingCalendar, head_end: str, channels: Declared, now: datetime
) -> tuple[dict[date, staging.StagedDay], pl.DataFrame]:
    """The staged days of a parsed file, and a frame of the payloads that may not be stored (line, raw, raw_format,
    reasons, reads, ids).

    Pure: the same parsed file, reference data and time give the same frames.
    """
    intervals = _intervals(parsed.intervals, calendar, head_end, now)
    registers = _registers(parsed.registers, calendar, head_end, now)
    good_intervals, bad_intervals = _check(intervals, channels, "interval")
    good_registers, bad_registers = _check(registers, channels, "register")
    days = sorted({*_days(good_intervals), *_days(good_registers)})
    if len(days) == 1:
        staged = {days[0]: staging.StagedDay(good_intervals, good_registers)}
    else:
        staged = {day: staging.StagedDay(_of_day(good_intervals, day), _of_day(good_registers, day)) for day in days}
    return staged, pl.concat([payload_letters(bad_intervals), payload_letters(bad_registers)])


def _intervals(frame: pl.DataFrame, calendar: BillingCalendar, head_end: str, now: datetime) -> pl.DataFrame:
    """The vector frame of a file's interval reads, one row a payload, sorted by key, with hashes and ``time_fault``."""
    parts = []
    lengths_ok = frame.height == 0 or (frame["interval_minutes"].min() >= 1 and frame["interval_minutes"].max() <= 1440)  # type: ignore[operator]
    if not lengths_ok:
        raise ValueError("a parser let an interval length outside 1 to 1440 minutes through")
    for fault, rows in _by_time(frame, "interval_start", now):
        for matrix in pack.pack_intervals(rows, calendar):
            matrix.keys = matrix.keys.with_columns(
                head_end=pl.lit(head_end), payloads=pl.lit(1, pl.Int16), time_fault=pl.lit(fault, pl.String)
            )
            parts.append(vectors.from_matrix(matrix, calendar.bounds(matrix.billing_day)[0]))
    if not parts:
        return pl.DataFrame()
    whole = pl.concat(parts)
    if len(parts) > 1:
        whole = whole.sort("billing_day", "meter_id", "channel", "source_version", "interval_minutes", "unit")
    return whole.with_columns(
        keys.interval_payload_hashes(whole), reads=pl.col("received") - pl.col("duplicate") - pl.col("superseded")
    )


def _registers(frame: pl.DataFrame, calendar: BillingCalendar, head_end: str, now: datetime) -> pl.DataFrame:
    """Register reads with day, hash and key, exact repetitions folded into one row with ``received`` and ``duplicate``."""
    if not frame.height:
        return pl.DataFrame()
    packed = pack.pack_registers(frame, calendar).with_columns(
        pl.col("quality").reinterpret(signed=True),
        head_end=pl.lit(head_end),
        payloads=pl.lit(1, pl.Int16),
        time_fault=pl.when(pl.col("read_at") > now + FUTURE)
        .then(pl.lit("in_future"))
        .when(pl.col("read_at") < EARLIEST)
        .then(pl.lit("before_metering")),
    )
    hashed = packed.with_columns(
        keys.register_payload_hashes(packed),
        keys.idempotency_keys(packed["meter_id"], packed["read_at"], packed["sequence"]),
    )
    order = ["billing_day", "meter_id", "channel", "read_at", "payload_hash"]
    if hashed["payload_hash"].n_unique() == hashed.height:
        once = hashed.with_columns(received=pl.lit(1, pl.Int64))
    else:
        once = hashed.group_by("payload_hash", maintain_order=True).agg(
            pl.exclude("payload_hash").first(), received=pl.len().cast(pl.Int64)
        )
    return (
        once.rename({"line": "first_line"})
        .with_columns(
            duplicate=pl.col("received") - 1,
            superseded=pl.lit(0, pl.Int64),
            conflicts=pl.lit(0, pl.Int64),
            reads=pl.lit(1, pl.Int64),
        )
        .sort(order)
    )


def _by_time(frame: pl.DataFrame, column: str, now: datetime) -> list[tuple[str | None, pl.DataFrame]]:
    """Reads apart by what is wrong with their time: None for the good ones."""
    if not frame.height:
        return []
    first, last = frame[column].min(), frame[column].max()
    if first >= EARLIEST and last <= now + FUTURE:  # type: ignore[operator]  # a datetime column's bounds
        return [(None, frame)]
    late, early = pl.col(column) > now + FUTURE, pl.col(column) < EARLIEST
    split = [
        ("in_future", frame.filter(late)),
        ("before_metering", frame.filter(early)),
        (None, frame.filter(~late & ~early)),
    ]
    return [(fault, rows) for fault, rows in split if rows.height]


def _check(frame: pl.DataFrame, channels: Declared, kind: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Payloads that reference data admits, and the others with their ``reasons`` (JSON text)."""
    if not frame.height:
        return frame, frame
    declared = channels.of_meters(frame["meter_id"].unique())
    meters = declared.select("meter_id").unique().with_columns(known=pl.lit(True))
    seen = frame.select(
        "meter_id", "channel", "unit", "time_fault", *(["interval_minutes"] if kind == "interval" else [])
    )
    joined = seen.join(declared, on=["meter_id", "channel"], how="left", maintain_order="left").join(
        meters, on="meter_id", how="left", maintain_order="left"
    )
    unknown_meter = pl.col("known").is_null()
    unknown_channel = pl.col("known").is_not_null() & pl.col("declared_kind").is_null()
    wrong_kind = pl.col("declared_kind").ne(kind).fill_null(False)
    wrong_unit = pl.col("declared_unit").ne(pl.col("unit")).fill_null(False)
    tests: list[tuple[str, pl.Expr, pl.Expr]] = [
        ("unknown_meter", unknown_meter, pl.format("no meter {} in the reference data", "meter_id")),
        ("unknown_channel", unknown_channel, pl.format("meter {} has no channel {}", "meter_id", "channel")),
        ("wrong_kind", wrong_kind, pl.format(f"an {kind} read for a channel declared as {{}}", "declared_kind")),
        ("wrong_unit", wrong_unit, pl.format("{} where the channel is declared in {}", "unit", "declared_unit")),
        ("time", pl.col("time_fault").is_not_null(), pl.lit("outside the time in which it can have been metered")),
    ]
    if kind == "interval":
        wrong_length = pl.col("declared_minutes").ne(pl.col("interval_minutes")).fill_null(False)
        tests.append(
            (
                "interval_length",
                wrong_length,
                pl.format("{} minutes where the channel is declared with {}", "interval_minutes", "declared_minutes"),
            )
        )
    bad = joined.select(pl.any_horizontal(test for _, test, _ in tests)).to_series()
    if not bad.any():
        return frame.drop("time_fault"), frame.clear()
    said = joined.filter(bad).select(
        pl.concat_list(
            pl.when(test)
            .then(pl.struct(code=(pl.col("time_fault") if code == "time" else pl.lit(code)), detail=detail))
            .otherwise(pl.lit(None, dtype=pl.Struct({"code": pl.String, "detail": pl.String})))
            for code, test, detail in tests
        )
        .list.drop_nulls()
        .alias("reasons")
    )
    return frame.filter(~bad).drop("time_fault"), frame.filter(bad).with_columns(said["reasons"])


_LETTER: Final[dict[str, Any]] = {
    "line": pl.Int64,
    "byte_offset": pl.Int64,
    "raw": pl.Binary,
    "raw_format": pl.String,
    "reasons": pl.String,
    "reads": pl.Int64,
    "meter_id": pl.String,
    "channel": pl.String,
}
#: Columns that only landing and loading count with.
_BOOKKEEPING: Final = (
    "received",
    "duplicate",
    "superseded",
    "conflicts",
    "reads",
    "first_line",
    "time_fault",
    "reasons",
    "payload_hash",
    "payloads",
    "idempotency_key",
)


def payload_letters(bad: pl.DataFrame) -> pl.DataFrame:
    """Dead letters of whole payloads: the stored columns as one JSON object each, which a person can correct and replay
    as it is."""
    if not bad.height:
        return pl.DataFrame(schema=_LETTER)
    columns = [c for c in bad.columns if c not in _BOOKKEEPING]
    plain = bad.select(
        pl.col(c).dt.epoch("us")
        if isinstance(bad.schema[c], pl.Datetime)
        else pl.col(c).dt.to_string()
        if bad.schema[c] == pl.Date
        else pl.col(c)
        for c in columns
    )
    return bad.select(
        line="first_line",
        byte_offset=pl.lit(None, pl.Int64),
        raw=plain.select(pl.struct(pl.all()).struct.json_encode()).to_series().cast(pl.Binary),
        raw_format=pl.lit("canonical"),
        reasons=_json_reasons(bad["reasons"]),
        reads="received",
        meter_id="meter_id",
        channel="channel",
    ).cast(_LETTER)  # type: ignore[arg-type]


def _line_letters(rejects: pl.DataFrame) -> pl.DataFrame:
    """Dead letters of lines that a parser rejected."""
    if not rejects.height:
        return pl.DataFrame(schema=_LETTER)
    return rejects.select(
        "line",
        "byte_offset",
        "raw",
        raw_format=pl.lit("source"),
        reasons=_json_reasons(rejects["reasons"]),
        reads="reads",
        meter_id=pl.lit(None, pl.String),
        channel=pl.lit(None, pl.String),
    ).cast(_LETTER)  # type: ignore[arg-type]


def _refused_letter(path: Path, code: str, detail: str) -> pl.DataFrame:
    with path.open("rb") as source:
        beginning = source.read(REFUSED_BYTES)
    reasons = json.dumps([{"code": code, "detail": detail}])
    return pl.DataFrame([(None, 0, beginning, "file", reasons, 0, None, None)], schema=_LETTER, orient="row")


def _json_reasons(reasons: pl.Series) -> pl.Series:
    """[{"code", "detail"}] as JSON text. NUL, which PostgreSQL's text cannot hold, is shown as its picture."""
    listed = [json.dumps(r, ensure_ascii=False).replace("\\u0000", "␀") for r in reasons.to_list()]
    return pl.Series("reasons", listed, dtype=pl.String)


def finish_letters(
    letters: list[pl.DataFrame],
    sha256: bytes,
    name: str,
    head_end: str,
    file_format: str,
    run_id: str | None,
    now: datetime,
) -> pl.DataFrame:
    """Dead letters with their keys, leaves and context, ready for the table. A leaf is salted: a rejected line may name
    a person, and be erased."""
    found = pl.concat(letters)
    made = [
        letter_key(sha256, line, offset, content)
        for line, offset, content in found.select("line", "byte_offset", "raw").iter_rows()
    ]
    salts = [new_salt(key) for key in made]
    leaves = [erasure.salted_hash(content, salt) for content, salt in zip(found["raw"], salts, strict=True)]
    return found.with_columns(
        pl.Series("dead_letter_key", made, dtype=pl.Binary),
        file_sha256=pl.lit(sha256, pl.Binary),
        file_name=pl.lit(name),
        head_end=pl.lit(head_end),
        file_format=pl.lit(file_format),
        rule_version=pl.lit(RULE_VERSION),
        run_id=pl.lit(run_id, pl.String),
        first_seen=pl.lit(now).cast(pl.Datetime("us", "UTC")),
        last_seen=pl.lit(now).cast(pl.Datetime("us", "UTC")),
        leaf=pl.Series(leaves, dtype=pl.Binary),
        salt=pl.Series(salts, dtype=pl.Binary),
    ).select(*dead_letters.COLUMNS)


def new_salt(key: bytes) -> bytes:
    """The salt of a dead letter: random, and of the letter in nothing. The simulation puts one made of the key in its
    place, so that a seed replays."""
    del key
    return os.urandom(32)


def letter_key(sha256: bytes, line: int | None, offset: int | None, content: bytes) -> bytes:
    """Idempotency key of a rejected payload: SHA-256 over ``mpd1``, the file's hash, line, byte offset and the hash of
    its bytes."""
    text = "\x1f".join(
        (
            "mpd1",
            sha256.hex(),
            "" if line is None else str(line),
            "" if offset is None else str(offset),
            hashlib.sha256(content).hexdigest(),
        )
    )
    return hashlib.sha256(text.encode()).digest()


def _record(connection: Any, file: raw.FeedFile, days: list[date], letters: pl.DataFrame, clock: Clock) -> int:
    """The ledger entries of a landed file: what came, and what of it was rejected."""
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
    if letters.height:
        refused = {
            "sha256": file.sha256,
            "stage": "landing",
            "letters": letters.height,
            "reads": file.rejected,
            "rule_version": RULE_VERSION,
        }
        written = letters.unique("dead_letter_key", keep="first", maintain_order=True)
        entries.append(connection, "rejected", refused, written["leaf"].to_list(), clock=clock)
    return entries.append(connection, "received", body, clock=clock)


def _duplicate(connection: Any, known: raw.FeedFile, name: str, size: int, modified_ns: int, clock: Clock) -> Landed:
    raw.note_arrival(connection, known.sha256, name, clock.now(), name != known.file_name, size, modified_ns)
    entries.append(
        connection,
        "duplicate",
        {"sha256": known.sha256, "file_name": name, "first_name": known.file_name, "reads": known.received},
        clock=clock,
    )
    connection.commit()
    return Landed(name, known.sha256, known.head_end, True, known.refused, known.received)


def _days(frame: pl.DataFrame) -> list[date]:
    return frame["billing_day"].unique().to_list() if frame.height else []


def _of_day(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return frame.filter(pl.col("billing_day") == day) if frame.height else frame


def _file_day(day: date, path: str, content: staging.StagedDay) -> raw.FileDay:
    frames = [f for f in (content.intervals, content.registers) if f.height]
    total = {c: sum(int(f[c].sum()) for f in frames) for c in ("received", "duplicate", "superseded")}
    return raw.FileDay(
        day,
        path,
        content.content_sha256,
        total["received"],
        content.intervals.height,
        content.registers.height,
        total["duplicate"],
        total["superseded"],
    )
