"""Split a parsed file into staged billing days and the payloads that may not be stored.

Pure functions from frame to frame: the same file, reference data and time give the same rows and hashes.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ingest import file_checks, keys, pack, staging
from meter_pipeline.ingest.dead_letter_rows import payload_letters
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.tables import raw
from meter_pipeline.postgres import vectors
from meter_pipeline.schemas.reads import ParsedFeed

#: A meter's clock may run ahead by this much before a read counts as from the future.
FUTURE: Final = timedelta(hours=1)


def staged_days(
    parsed: ParsedFeed,
    calendar: BillingCalendar,
    head_end: str,
    channels: Declared,
    now: datetime,
    superseded_share: float = 1.0,
) -> tuple[dict[date, staging.StagedDay], pl.DataFrame]:
    """The staged days of a parsed file, and a frame of the payloads that may not be stored (line, raw, raw_format,
    reasons, reads, ids).

    Pure: the same parsed file, reference data and time give the same frames. Raises FileRefused where reads of the file
    supersede each other beyond a share.
    """
    intervals = _intervals(parsed.intervals, calendar, head_end, now)
    file_checks.check_superseded(intervals, superseded_share)
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
    """Register reads with day, hash and key, exact repetitions folded into one row with ``received`` and
    ``duplicate``.
    """
    if not frame.height:
        return pl.DataFrame()
    packed = pack.pack_registers(frame, calendar).with_columns(
        pl.col("quality").reinterpret(signed=True),
        head_end=pl.lit(head_end),
        payloads=pl.lit(1, pl.Int16),
        time_fault=pl.when(pl.col("read_at") > now + FUTURE)
        .then(pl.lit("in_future"))
        .when(pl.col("read_at") < file_checks.EARLIEST)
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
    """Split reads by the fault of their time; None holds the good ones."""
    if not frame.height:
        return []
    first, last = frame[column].min(), frame[column].max()
    oldest = file_checks.EARLIEST
    if first >= oldest and last <= now + FUTURE:  # type: ignore[operator]  # a datetime column's bounds
        return [(None, frame)]
    late, early = pl.col(column) > now + FUTURE, pl.col(column) < oldest
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
        "meter_id",
        "channel",
        "unit",
        "billing_day",
        "time_fault",
        *(["interval_minutes"] if kind == "interval" else []),
    )
    joined = seen.join(declared, on=["meter_id", "channel"], how="left", maintain_order="left").join(
        meters, on="meter_id", how="left", maintain_order="left"
    )
    joined = channels.on_days(joined)
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
    problems = joined.filter(bad).select(
        pl.concat_list(
            pl.when(test)
            .then(pl.struct(code=(pl.col("time_fault") if code == "time" else pl.lit(code)), detail=detail))
            .otherwise(pl.lit(None, dtype=pl.Struct({"code": pl.String, "detail": pl.String})))
            for code, test, detail in tests
        )
        .list.drop_nulls()
        .alias("reasons")
    )
    return frame.filter(~bad).drop("time_fault"), frame.filter(bad).with_columns(problems["reasons"])


def _days(frame: pl.DataFrame) -> list[date]:
    return frame["billing_day"].unique().to_list() if frame.height else []


def _of_day(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return frame.filter(pl.col("billing_day") == day) if frame.height else frame


def file_day(day: date, path: str, content: staging.StagedDay) -> raw.FileDay:
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
