"""What is fuzzed, and what must hold of any bytes: one function a parser, ``(data, folder) -> None``, that raises where
a promise breaks.

A parser promises more than not to crash. Whatever the bytes: reads are within range and carry canonical ids, every
reject names a known reason, the result does not depend on where blocks of the file end, nor on whether the inner loop
is plain Python or compiled, and landing sorts every read into staged or rejected.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.baselines.weather.formats import DAILY, FORMATS, HOURLY, WeatherError, read_weather
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import HeadEnd, compiled, json_document, kernels_json, parse, registry
from meter_pipeline.feeds.declaration_text import toml_text
from meter_pipeline.feeds.files import Limits, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import (
    DayColumns,
    Elsewhere,
    HeadEndError,
    IdRules,
    Periods,
    ValueColumn,
    read_head_end,
)
from meter_pipeline.feeds.inspect import report
from meter_pipeline.feeds.json_records import Wanted
from meter_pipeline.feeds.json_scan import Loops, records_by
from meter_pipeline.feeds.rejects import MAX_RAW_BYTES, REASONS, FeedRefused
from meter_pipeline.ids import canonical_id
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.staged_days import staged_days
from meter_pipeline.ledger.notes import NoteError, parse_checkpoint, parse_note, parse_vkey
from meter_pipeline.migration.legacy_import import LegacyRefused, read_csv
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.units import MAX_DIAL_MICRO, MAX_MICRO

Target = Callable[[bytes, Path], None]

COLUMNS: Final = {
    "meter_id": "meter",
    "channel": "channel",
    "time": "time",
    "value": "value",
    "quality": "q",
    "sequence": "seq",
    "unit": "unit",
}
HEAD_ENDS: Final = {
    "delimited": HeadEnd("fuzz", "delimited", zone="America/Chicago", interval_minutes=15, columns=COLUMNS),
    "jsonl": HeadEnd("fuzz", "jsonl", zone="America/Chicago", interval_minutes=15, columns=COLUMNS),
    "nem12": HeadEnd("fuzz", "nem12"),
    "nem13": HeadEnd("fuzz", "nem12"),
    "espi": HeadEnd("fuzz", "espi"),
    "cmep": HeadEnd("fuzz", "cmep", zone="+00:00", stamp="end"),
    "beacon": HeadEnd("fuzz", "wide_csv", zone="America/Chicago"),
    "marks": HeadEnd(
        "fuzz",
        "delimited",
        zone="America/Chicago",
        delimiter=";",
        decimal=",",
        thousands=".",
        rounding="half_even",
        average_power=True,
        time_range=" - ",
        columns={
            "meter_id": ("m", "n"),
            "time": ("d", "t"),
            "dst": "s",
            "value": "v",
            "unit": "u",
            "factor": "f",
            "interval_minutes": "i",
            "channel": "c",
        },
        channel_map={"in": "E1", "out": "B1"},
        dst_map={"S": "first", "W": "second"},
        unit_map={"leistung": "kW"},
        ids=IdRules(remove=" ", prefix="X", strip_zeros=True),
        skip={"m": ("Total*",), "*": ("#*",)},
        keep={"c": ("in", "out", "")},
        options={"quoted_line_breaks": True, "footer_lines": 1, "nonexistent": "forward"},
    ),
    "day_row": HeadEnd(
        "fuzz",
        "delimited",
        zone="America/Chicago",
        stamp="end",
        interval_minutes=360,
        unit="kWh",
        columns={"meter_id": "m", "time": "d"},
        constants={"channel": "E1"},
        day_columns=DayColumns("v1", 5, step=2, quality=1, order="clock"),
    ),
    "values": HeadEnd(
        "fuzz",
        "delimited",
        zone="America/Chicago",
        interval_minutes=60,
        unit="kWh",
        columns={"meter_id": "m", "time": "d", "period": "h"},
        values=(ValueColumn("a", "A"), ValueColumn("b", "B", "MWh", "export", "q")),
        options={"nonexistent": "skip", "ambiguous": "first"},
    ),
    "fixed": HeadEnd(
        "fuzz",
        "fixed",
        zone="America/Chicago",
        stamp="ending",
        interval_minutes=60,
        unit="kWh",
        nulls=("NULL",),
        columns={"meter_id": "1-6", "time": ("8-15", "17-20"), "value": "22-30", "quality": "32-34"},
        time_format="%Y%m%d %H%M",
        options={"skip_lines": 1},
    ),
    "nested": HeadEnd(
        "fuzz",
        "jsonl",
        zone="America/Chicago",
        kind="register",
        unit="gal",
        columns={"meter_id": "Message.ID", "time": "Time", "value": "Message.Body.Read", "unit": "Message.Unit"},
    ),
    "json": HeadEnd(
        "fuzz",
        "json",
        zone="America/Chicago",
        interval_minutes=15,
        unit="kWh",
        columns={"meter_id": "d.m.id", "time": "d.m.r.t", "value": "d.m.r.v"},
    ),
    "headings": HeadEnd(
        "fuzz",
        "delimited",
        zone="America/Chicago",
        delimiter=";",
        interval_minutes=60,
        unit="kWh",
        columns={"time": "t", "period": "h", "value": "v"},
        elsewhere={"meter_id": Elsewhere(heading="^Meter:(.*)"), "channel": Elsewhere(heading="^Ch;([A-Z0-9]+)")},
        periods=Periods(order="clock"),
        skip={"t": ("Total*",), "*": ("#*",)},
        options={"skip_lines": 1, "nonexistent": "skip"},
    ),
    "meter_columns": HeadEnd(
        "fuzz",
        "delimited",
        zone="America/Chicago",
        interval_minutes=60,
        unit="kWh",
        columns={"time": "t"},
        values=(ValueColumn("*", "E1", meter_id="*"),),
    ),
    "positions": HeadEnd(
        "fuzz",
        "json",
        interval_minutes=30,
        unit="kWh",
        columns={"meter_id": "m", "time": "s", "period": "v.#", "value": "v", "quality": "q.1"},
        constants={"channel": "E1"},
        periods=Periods(order="from_stamp"),
    ),
    "sheet": HeadEnd(
        "fuzz",
        "delimited",
        zone="America/Chicago",
        interval_minutes=60,
        unit="kWh",
        rounding="half_even",
        columns={"meter_id": "m", "time": "t", "value": "v"},
        constants={"channel": "E1"},
        options={"sheet": "*"},
    ),
}
#: small caps, so that a fuzzer's small files meet them
LIMITS: Final = Limits(
    max_line_bytes=4096, block_bytes=512, max_document_bytes=1 << 20, max_bytes=1 << 20, ratio_from_bytes=1 << 16
)
OTHER_BLOCKS: Final = Limits(
    max_line_bytes=4096, block_bytes=1 << 16, max_document_bytes=1 << 20, max_bytes=1 << 20, ratio_from_bytes=1 << 16
)
CALENDAR: Final = BillingCalendar("America/Chicago")
NOW: Final = datetime(2027, 1, 1, tzinfo=UTC)
CHANNELS: Final = pl.DataFrame(
    [
        ("M-1", "E1", "interval", "kWh", 15),
        ("M-1", "R1", "register", "kWh", None),
        ("N1", "E1", "interval", "kWh", 30),
        ("12", "F1", "interval", "gal", 60),
    ],
    schema={
        "meter_id": pl.String,
        "channel": pl.String,
        "kind": pl.String,
        "unit": pl.String,
        "interval_minutes": pl.Int64,
    },
    orient="row",
)

#: compiled inner loops to compare the plain ones with; run.py fills it, tests may
TWINS: dict[str, Callable[..., Any]] = {}


def same(one: ParsedFeed, other: ParsedFeed, what: str) -> None:
    """Two readings of one file give the same reads, rejects and units."""
    for name in ("intervals", "registers", "periods", "rejects"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert ours.equals(theirs), f"{what}: {name} differ\n{ours}\n{theirs}"
    assert one.file_units == other.file_units, what


def check_feed(feed: ParsedFeed) -> None:
    """What holds of every parsed feed."""
    for reasons in feed.rejects["reasons"].to_list():
        assert reasons
        assert all(reason["code"] in REASONS for reason in reasons), reasons
    assert all(len(raw) <= MAX_RAW_BYTES for raw in feed.rejects["raw"].to_list())
    assert (feed.rejects["reads"] >= 0).all()
    for frame, time in (
        (feed.intervals, "interval_start"),
        (feed.registers, "read_at"),
        (feed.periods, "period_start"),
    ):
        assert frame[time].null_count() == 0
        values = frame["value"].drop_nulls()
        assert (values.abs() <= (MAX_MICRO if time == "interval_start" else MAX_DIAL_MICRO)).all()
        for column in ("meter_id", "channel"):
            assert all(canonical_id(text) == text for text in frame[column].unique().to_list())
    if feed.intervals.height:
        assert feed.intervals["interval_minutes"].is_between(1, 1440).all()
    assert feed.received >= feed.intervals.height + feed.registers.height


def check_landing(feed: ParsedFeed) -> None:
    """Landing's own sorting keeps every read: staged, or rejected with a reason."""
    staged, rejected = staged_days(feed, CALENDAR, "fuzz", Declared.of(CHANNELS), NOW)
    kept = sum(
        int(frame["received"].sum() or 0)
        for day in staged.values()
        for frame in (day.intervals, day.registers)
        if frame.height
    )
    lost = feed.intervals.height + feed.registers.height - kept - int(rejected["reads"].sum() or 0)
    assert lost == 0, f"{lost} reads neither staged nor rejected"


def feed_target(name: str) -> Target:
    """The target of a wire format."""
    head_end = HEAD_ENDS[name]

    def target(data: bytes, folder: Path) -> None:
        path = folder / "feed"
        path.write_bytes(data)
        feed = parse(path, head_end, CALENDAR, LIMITS)
        check_feed(feed)
        chance = hashlib.blake2b(data, digest_size=1).digest()[0]
        if chance < 64:
            same(feed, parse(path, head_end, CALENDAR, OTHER_BLOCKS), "other block size")
            report("feed", feed)
        elif chance < 128:
            check_landing(feed)
        if TWINS and chance % 2:
            compiled._loops.update(TWINS)
            try:
                same(feed, parse(path, head_end, CALENDAR, LIMITS), "compiled loop")
            finally:
                compiled._loops.clear()

    return target


#: paths of a document's values, as json_records takes them
WANTED: Final[tuple[Wanted, ...]] = (
    [(0, ("d", "m", "id")), (1, ("d", "m", "r", "t")), (2, ("d", "m", "r", "v")), (3, ("d", "u"))],
    [(0, ("d", "m", "id")), (1, ("d", "m", "t")), (2, ("d", "m", "t", "#")), (3, ("d", "u"))],
    [(0, ("d", "m", "id")), (1, ("d", "m", "r", "0")), (2, ("d", "m", "r", "1")), (3, ("d", "u"))],
)


def json_scan(data: bytes, folder: Path) -> None:
    """The loop over JSON documents makes the records that Python's json makes, or leaves the document to it."""
    loops = Loops(kernels_json.scan_json_document, kernels_json.write_records, kernels_json.unescaped)
    content = data.removeprefix(b"\xef\xbb\xbf")
    decimal = "," if content.count(b",") % 2 else "."
    for wanted in WANTED:
        made = records_by(loops, content, wanted, decimal)
        if made is not None:
            assert made == json_document.slow_records(content, wanted, decimal)


def archive(data: bytes, folder: Path) -> None:
    """Opening gzip and zip. The first byte chooses: the bytes as they are, or an archive built of them with a few
    faults."""
    content = _built(data)
    path = folder / "feed"
    path.write_bytes(content)
    held = 0
    try:
        with open_feed(path, LIMITS) as opened:
            for block in line_blocks(opened.source, LIMITS):
                held += 1
                assert held <= 1 << 20, block
            assert opened.member is None or not opened.member.startswith("/")
    except FeedRefused as refused:
        if refused.code not in REASONS:
            raise
        return
    assert opened.sha256 == hashlib.sha256(content).hexdigest()


def _built(data: bytes) -> bytes:
    if not data:
        return data
    mode, body = data[0] % 4, data[1:]
    if mode == 0:
        return body
    if mode == 1:  # gzip members, cut or followed by more
        cut, body = (body[0], body[1:]) if body else (0, b"")
        parts = b"".join(gzip.compress(part, mtime=0) for part in body.split(b"\xff\xfe"))
        return parts[: len(parts) - cut % 32] if cut < 128 else parts + bytes([cut])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for part in body.split(b"\xff\xfe")[:8]:
            name, _, text = part.partition(b"\n")
            info = zipfile.ZipInfo(name.decode("latin-1") or "a")
            kind = {b"@": stat.S_IFLNK, b"#": stat.S_IFCHR, b"/": stat.S_IFDIR}.get(text[:1], stat.S_IFREG)
            info.external_attr = (kind | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED if len(text) % 2 else zipfile.ZIP_STORED
            made.writestr(info, text)
    content = bytearray(buffer.getvalue())
    if mode == 3 and content and len(body) > 2:  # and one byte of it changed
        content[int.from_bytes(body[:2], "big") % len(content)] ^= body[2] or 1
    return bytes(content)


def tariff(data: bytes, folder: Path) -> None:
    """A tariff document is a tariff of finite numbers, or refused by field."""
    try:
        parsed = parse_tariff(data)
    except TariffRefusedError:
        return
    assert parsed.charges is not None
    repr(parsed)
    assert all(number.is_finite() for number in _decimals(parsed, 0))


def _decimals(value: Any, depth: int) -> list[Decimal]:
    if isinstance(value, Decimal):
        return [value]
    if depth > 12:
        return []
    if isinstance(value, tuple | list | frozenset):
        return [found for each in value for found in _decimals(each, depth + 1)]
    if isinstance(value, dict):
        return [found for each in value.values() for found in _decimals(each, depth + 1)]
    slots = getattr(type(value), "__dataclass_fields__", None)
    return [found for name in slots for found in _decimals(getattr(value, name), depth + 1)] if slots else []


_SUFFIXES: Final = ("", *FORMATS)


def weather(data: bytes, folder: Path) -> None:
    """A weather file of a format the first byte chooses (0 lets it be recognised) is a checked frame, or refused."""
    chosen = _SUFFIXES[data[0] % len(_SUFFIXES)] if data else ""
    path = folder / ("weather.csv.gz" if data[:1] >= b"\xf0" else "weather.csv")
    path.write_bytes(data[1:])
    try:
        frame = read_weather(path, chosen or None)
    except WeatherError:
        return
    expected = HOURLY if "observed_at" in frame.columns else DAILY
    assert dict(frame.schema) == {name: frame.schema[name] for name in expected}, frame.schema
    for name, kind in expected.items():
        assert frame.schema[name] == kind, (name, frame.schema[name])
    for name in expected:
        if name.startswith("temperature"):
            values = frame[name].drop_nulls()
            assert values.is_finite().all()
            assert values.is_between(-95.0, 62.0).all()


_TABLES: Final = tuple(TABLES)


def reference(data: bytes, folder: Path) -> None:
    """A reference table the first byte chooses is rows of its declared kinds, or refused with places."""
    name = _TABLES[data[0] % len(_TABLES)] if data else _TABLES[0]
    for old in folder.glob("*.csv"):
        old.unlink()
    (folder / f"{name}.csv").write_bytes(data[1:])
    try:
        rows, _ = read_folder(folder)
    except ReferenceRefused as refused:
        if not refused.faults:
            raise
        return
    kinds: dict[str, type[Any]] = {
        "id": str,
        "long_id": str,
        "text": str,
        "date": date,
        "instant": datetime,
        "decimal": Decimal,
        "integer": int,
        "boolean": bool,
    }
    for row in rows[name]:
        for value, kind in zip(row, TABLES[name].columns.values(), strict=True):
            assert (value is None and kind.endswith("?")) or isinstance(value, kinds.get(kind.rstrip("?"), str)), (
                value,
                kind,
            )
            assert not isinstance(value, Decimal) or value.is_finite()
            assert not isinstance(value, str) or ("\0" not in value and value.encode("utf-8").decode() == value)


def head_end(data: bytes, folder: Path) -> None:
    """A head-end's declaration is usable, or refused by field."""
    path = folder / "declared.toml"
    path.write_bytes(data)
    try:
        declared = read_head_end(path)
    except HeadEndError:
        return
    feed = folder / "feed"
    feed.write_bytes(b"meter,channel,time,value,q,seq,unit\nM-1,E1,2026-11-01 01:15:00,1.5,A,1,kWh\n")
    try:
        check_feed(parse(feed, declared, CALENDAR, LIMITS))
    except HeadEndError:
        return


def guess(data: bytes, folder: Path) -> None:
    """A file nobody declared is refused in words, or given a declaration that can be written, read back and used."""
    path = folder / "unknown"
    path.write_bytes(data)
    try:
        guessed = registry.guess(path, "America/Chicago", LIMITS)
        declared = folder / "guessed.toml"
        declared.write_text(toml_text(guessed.head_end, guessed.notes), "utf-8")
        again = read_head_end(declared)
        assert again == guessed.head_end, (again, guessed.head_end)
        check_feed(parse(path, again, CALENDAR, LIMITS))
    except (FeedRefused, HeadEndError) as refused:
        if isinstance(refused, FeedRefused) and refused.code not in REASONS:
            raise


def legacy(data: bytes, folder: Path) -> None:
    """A legacy batch's CSV is rows, or refused."""
    path = folder / "legacy.csv"
    path.write_bytes(data)
    try:
        read_csv(path, date(2026, 3, 2))
    except LegacyRefused:
        return


def note(data: bytes, folder: Path) -> None:
    """A signed note, its checkpoint and a verifier's key: parsed, or refused by NoteError alone."""
    text = data.decode("utf-8", "replace")
    try:
        if text.startswith("key "):
            parse_vkey(text[4:])
            return
        parsed = parse_note(text)
        parse_checkpoint(parsed.text)
    except NoteError:
        return


TARGETS: Final[dict[str, Target]] = {
    **{name: feed_target(name) for name in HEAD_ENDS},
    "archive": archive,
    "json_scan": json_scan,
    "tariff": tariff,
    "weather": weather,
    "reference": reference,
    "head_end": head_end,
    "guess": guess,
    "legacy": legacy,
    "note": note,
}
