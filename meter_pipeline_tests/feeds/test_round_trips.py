"""A day rendered in any format and parsed again is the same day; the two ways a loop may run agree; clock changes lose
and double nothing."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled, scanned
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.kernels import read_number, read_short
from meter_pipeline.feeds.registry import parse
from meter_pipeline.quality import pack
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.units import from_micro

COLUMNS = {
    "meter_id": "meter",
    "channel": "channel",
    "time": "time",
    "value": "value",
    "quality": "q",
    "sequence": "seq",
}
Read = tuple[str, str, datetime, int, int]

QUALITIES = {pack("A"): "A", pack("S", 14): "S14", pack("F", 16, 76): "F16:76", pack("E"): "E", pack("S"): "S"}
meters = st.lists(st.from_regex(r"[A-Z][A-Z0-9-]{0,9}", fullmatch=True), min_size=1, max_size=4, unique=True)
values = st.integers(-(10**13), 10**13)


def parsed(content: bytes, head_end: HeadEnd, zone: str = "UTC") -> ParsedFeed:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feed"
        path.write_bytes(content)
        return parse(path, head_end, BillingCalendar(zone))


def reads_of(feed: ParsedFeed) -> list[Read]:
    return feed.intervals.select("meter_id", "channel", "interval_start", "value", "quality").rows()


@st.composite
def days(draw: st.DrawFn) -> tuple[int, list[Read]]:
    """A day of 30-minute reads on a fixed-offset day: meters, two channels, quality by meter."""
    day = draw(st.dates(date(2000, 1, 1), date(2037, 12, 31)))
    minutes = draw(st.sampled_from([30, 60, 120]))
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=10)
    reads: list[Read] = []
    for meter in draw(meters):
        for channel in draw(st.sampled_from([["E1"], ["E1", "B1"]])):
            quality = draw(st.sampled_from(sorted(QUALITIES)))
            count = 1440 // minutes
            numbers = draw(st.lists(values, min_size=count, max_size=count))
            reads.extend(
                (meter, channel, start + timedelta(minutes=minutes * k), numbers[k], quality) for k in range(count)
            )
    return minutes, reads


def number(micro: int) -> str:
    return format(from_micro(micro), "f")


def delimited(minutes: int, reads: list[Read]) -> tuple[bytes, HeadEnd]:
    lines = ["meter,channel,time,value,q,seq"]
    for k, (meter, channel, start, value, quality) in enumerate(reads):
        stamp = (start + timedelta(minutes=minutes)).astimezone(ZoneInfo("Asia/Kolkata")).isoformat()
        lines.append(f"{meter},{channel},{stamp},{number(value)},{QUALITIES[quality]},{k}")
    return "\n".join(lines).encode(), HeadEnd(
        "x", "delimited", stamp="end", interval_minutes=minutes, unit="kWh", columns=COLUMNS
    )


def json_lines(minutes: int, reads: list[Read]) -> tuple[bytes, HeadEnd]:
    rows = (
        {
            "q": QUALITIES[quality],
            "meter": meter,
            "channel": channel,
            "time": int(start.timestamp()),
            "value": number(value),
            "seq": 1,
        }
        for meter, channel, start, value, quality in reads
    )
    content = "\n".join(json.dumps(row) for row in rows)
    return content.encode(), HeadEnd(
        "x", "jsonl", zone="+00:00", time_format="epoch", interval_minutes=minutes, unit="kWh", columns=COLUMNS
    )


def nem12(minutes: int, reads: list[Read]) -> tuple[bytes, HeadEnd]:
    lines = ["100,NEM12,203801010000,A,B"]
    count = 1440 // minutes
    for k in range(0, len(reads), count):
        meter, channel, start, _, quality = reads[k]
        local = start + timedelta(hours=10)
        text = ",".join(number(read[3]) for read in reads[k : k + count])
        word, _, reason = QUALITIES[quality].partition(":")
        lines.append(f"200,{meter},E1B1,{channel},{channel},,,kWh,{minutes},")
        if k % (2 * count):
            lines += [
                f"300,{local:%Y%m%d},{text},V,,,,",
                f"400,1,3,{word},{reason},",
                f"400,4,{count},{word},{reason},",
            ]
        else:
            lines.append(f"300,{local:%Y%m%d},{text},{word},{reason},,,")
    return "\r\n".join([*lines, "900"]).encode(), HeadEnd("x", "nem12")


def cmep(minutes: int, reads: list[Read]) -> tuple[bytes, HeadEnd]:
    lines = []
    count = 1440 // minutes
    for k in range(0, len(reads), count):
        meter, channel = reads[k][:2]
        triplets = ",".join(
            f"{start + timedelta(minutes=minutes):%Y%m%d%H%M},{QUALITIES[quality]},{number(value)}"
            for _, _, start, value, quality in reads[k : k + count]
        )
        lines.append(
            f"MEPMD01,19970819,U,{channel},U,,203801010000,{meter},OK,E,KWH,1,0000{minutes // 60:02d}{minutes % 60:02d},{count},{triplets}"
        )
    quality_map = {word: word for word in QUALITIES.values()}
    return "\n".join(lines).encode(), HeadEnd("x", "cmep", zone="+00:00", stamp="end", quality_map=quality_map)


@pytest.mark.parametrize("render", [delimited, json_lines, nem12])
@given(day=days())
@settings(max_examples=25)
def test_a_rendered_day_comes_back(
    render: Callable[[int, list[Read]], tuple[bytes, HeadEnd]], day: tuple[int, list[Read]]
) -> None:
    minutes, reads = day
    feed = parsed(*render(minutes, reads))
    assert feed.rejects.height == 0
    assert reads_of(feed) == reads
    assert feed.intervals["interval_minutes"].unique().to_list() == [minutes]


@given(day=days())
@settings(max_examples=25)
def test_a_cmep_day_comes_back_under_its_unit(day: tuple[int, list[Read]]) -> None:
    feed = parsed(*cmep(*day))
    assert feed.rejects.height == 0
    assert reads_of(feed) == [(meter, "KWH", start, value, quality) for meter, _, start, value, quality in day[1]]


_SOUP = st.text(st.sampled_from('MTR-1,2026-03-02T00:15Z.9eE+_"\r\n {}:[]nul\\;é300A'), max_size=300)


_DELIMITERS = re.compile(rb'[ \t]*("[ \t]*")?[ \t]*(,[ \t]*("[ \t]*")?[ \t]*)+')


@given(soup=_SOUP, form=st.sampled_from(["delimited", "jsonl", "nem12", "cmep", "espi", "wide_csv"]))
@example(soup="\r\r", form="delimited")
@example(soup=',,\n " ",\n', form="delimited")
@settings(max_examples=300)
def test_no_text_breaks_a_parser_or_loses_a_line(soup: str, form: str) -> None:
    heads = {
        "delimited": "meter,channel,time,value,q,seq\n",
        "nem12": "100,NEM12,203801010000\n200,N,E1,E1,E1,,,kWh,30,\n",
        "espi": "<feed>",
    }
    head_end = HeadEnd(
        "x",
        form,
        zone="+00:00",
        interval_minutes=15,
        unit="kWh",
        columns=COLUMNS if form in ("delimited", "jsonl") else {},
    )
    feed = parsed((heads.get(form, "") + soup).encode(), head_end)
    if form == "delimited":
        # One carriage return belongs to the end of a line; a second one is text, and a line of it is refused rather
        # than skipped. A row of delimiters alone offers nothing.
        lines = [line.removesuffix(b"\r") for line in soup.encode().split(b"\n")]
        offered = [line for line in lines if line and not _DELIMITERS.fullmatch(line)]
        assert feed.received == len(offered)


def generated(seed: int, rows: int) -> bytes:
    """Delimited and JSON lines with faults of every kind among them."""
    random = np.random.default_rng(seed)
    faults = [
        b"NaN",
        b"1e2",
        b"",
        b"9" * 19,
        b'"2.5"',
        b'"x',
        b"1\r",
        b"\xff",
        b"\xc3\xa9",
        b"1,2",
        b"12345678901234567.1",
    ]
    lines = []
    for i in range(rows):
        value = (
            b"%d.%03d" % (random.integers(0, 99), random.integers(0, 999))
            if random.random() > 0.03
            else faults[random.integers(len(faults))]
        )
        lines.append(
            b"MTR-%03d,E1,2026-03-02T%02d:%02d:00Z,%s,A,%d" % (i // 96 % 50, i // 4 % 24, i % 4 * 15, value, i % 3)
        )
    return b"meter,channel,time,value,q,seq\n" + b"\n".join(lines)


@pytest.mark.parametrize("seed", [1, 2])
def test_compiled_and_plain_loops_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head_end = HeadEnd("x", "delimited", interval_minutes=15, unit="kWh", columns=COLUMNS)
    content = generated(seed, 9_000)
    objects = b"\n".join(
        b'{"meter":"%s","channel":"%s","time":"%s","value":%s,"q":"%s","seq":%s}' % tuple(line.split(b",", 5)[:6])
        for line in content.split(b"\n")[1:]
        if line.count(b",") == 5
    )
    day = b"300,20260302," + b",".join([b"1.25"] * 48) + b",A,,,20260303010203,\n"
    nem = (
        b"100,NEM12,203801010000\n200,N,E1,E1,E1,,,kWh,30,\n"
        + (day * 20 + day.replace(b"1.25", b"x", 1)) * 60
        + b"900\n"
    )
    cases = [(content, head_end), (objects, replace(head_end, format="jsonl")), (nem, HeadEnd("n", "nem12"))]
    monkeypatch.setattr(compiled, "_loops", {})
    monkeypatch.setattr(compiled, "COMPILE_FROM_BYTES", 1 << 40)
    plain = [parsed(*case) for case in cases]
    monkeypatch.setattr(compiled, "COMPILE_FROM_BYTES", 0)
    fast = [parsed(*case) for case in cases]
    for one, other in zip(plain, fast, strict=True):
        assert one.intervals.equals(other.intervals)
        assert one.rejects.equals(other.rejects)
        assert one.rejects.height > 0


def test_more_meters_than_the_dictionaries_first_hold_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head_end = HeadEnd("x", "delimited", interval_minutes=15, unit="kWh", columns=COLUMNS)
    content = generated(3, 600)
    fields = [line.split(b",") for line in content.split(b"\n")[1:] if line.count(b",") == 5]
    content = b"\n".join(
        [content.split(b"\n", 1)[0], *(b",".join([b"MTR-%05d" % i, *rest[1:]]) for i, rest in enumerate(fields))]
    )
    objects = b"\n".join(
        b'{"meter":"MTR-%05d","channel":"%s","time":"%s","value":%s,"q":"%s","seq":%s}'
        % (i, rest[1], rest[2], rest[3], rest[4], rest[5])
        for i, rest in enumerate(fields)
    )
    cases = [(content, head_end), (objects, replace(head_end, format="jsonl"))]
    at_once = [parsed(*case) for case in cases]
    monkeypatch.setattr(scanned, "_FIRST_BITS", 3)
    grown = [parsed(*case) for case in cases]
    for one, other in zip(at_once, grown, strict=True):
        assert one.intervals.n_unique("meter_id") > 400
        assert one.intervals.equals(other.intervals)
        assert one.rejects.equals(other.rejects)


# -- clock changes ---------------------------------------------------------------------------------

ZONES = [
    ("America/Chicago", date(2026, 3, 8), 92),
    ("America/Chicago", date(2026, 11, 1), 100),
    ("Europe/Berlin", date(2026, 3, 29), 92),
    ("Europe/Berlin", date(2026, 10, 25), 100),
    ("Australia/Lord_Howe", date(2026, 4, 5), 98),
    ("Australia/Lord_Howe", date(2026, 10, 4), 94),
    ("America/Chicago", date(2026, 7, 1), 96),
]


def local_day(zone: str, day: date, *, end: bool, backwards: bool = False, meters: int = 2) -> bytes:
    calendar = BillingCalendar(zone)
    start = calendar.start_s(day)
    lines = []
    for m in range(meters):
        for k in range(calendar.slots(day, 15)):
            local = datetime.fromtimestamp(start + 900 * (k + end), ZoneInfo(zone))
            lines.append(f"M{m},E1,{local:%Y-%m-%d %H:%M:%S},{k},A,0")
    return "\n".join(["meter,channel,time,value,q,seq", *(reversed(lines) if backwards else lines)]).encode()


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("zone", "day", "slots"), ZONES)
def test_a_local_day_lands_on_every_slot_once(zone: str, day: date, slots: int, end: bool, backwards: bool) -> None:
    head_end = HeadEnd(
        "x", "delimited", zone=zone, stamp="end" if end else "start", interval_minutes=15, unit="kWh", columns=COLUMNS
    )
    feed = parsed(local_day(zone, day, end=end, backwards=backwards), head_end, zone)
    assert feed.rejects.height == 0
    start = BillingCalendar(zone).start_s(day)
    for _, frame in feed.intervals.group_by("meter_id"):
        ordered = frame.sort("value")
        assert ordered.height == slots
        assert ordered["interval_start"].dt.epoch("s").to_list() == [start + 900 * k for k in range(slots)]


def test_the_repeated_hour_is_settled_per_meter_whatever_the_order_of_meters() -> None:
    lines = local_day("America/Chicago", date(2026, 11, 1), end=False).decode().split("\n")
    head, one, two = lines[0], lines[1:101], lines[101:]
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    head_end = HeadEnd("x", "delimited", zone="America/Chicago", interval_minutes=15, unit="kWh", columns=COLUMNS)
    feed = parsed("\n".join([head, *mixed]).encode(), head_end)
    assert feed.rejects.height == 0
    assert feed.intervals.group_by("meter_id").agg(pl.col("interval_start").n_unique())["interval_start"].to_list() == [
        100,
        100,
    ]


def test_a_read_sent_twice_in_the_repeated_hour_stays_in_its_pass() -> None:
    lines = local_day("America/Chicago", date(2026, 11, 1), end=False, meters=1).decode().split("\n")
    lines.insert(7, lines[6])
    lines.insert(12, lines[11])
    head_end = HeadEnd("x", "delimited", zone="America/Chicago", interval_minutes=15, unit="kWh", columns=COLUMNS)
    feed = parsed("\n".join(lines).encode(), head_end)
    assert feed.rejects.height == 0
    assert feed.intervals.height == 102
    start = BillingCalendar("America/Chicago").start_s(date(2026, 11, 1))
    found = feed.intervals.select("value", pl.col("interval_start").dt.epoch("s")).unique().sort("value")
    assert found["interval_start"].to_list() == [start + 900 * k for k in range(100)]


@pytest.mark.parametrize("backwards", [False, True])
def test_hourly_reads_of_the_repeated_hour_are_its_two_passes(backwards: bool) -> None:
    hours = ["00", "01", "01", "02", "03"]
    lines = [f"M,E1,2026-11-01 {hour}:00:00,{k},A,0" for k, hour in enumerate(hours)]
    content = "\n".join(["meter,channel,time,value,q,seq", *(reversed(lines) if backwards else lines)]).encode()
    feed = parsed(
        content, HeadEnd("x", "delimited", zone="America/Chicago", interval_minutes=60, unit="kWh", columns=COLUMNS)
    )
    assert feed.intervals.sort("value")["interval_start"].dt.hour().to_list() == [5, 6, 7, 8, 9]


def test_an_hour_that_nobody_can_place_is_refused_unless_declared() -> None:
    content = b"meter,channel,time,value,q,seq\n" + b"".join(
        b"M,E1,2026-11-01 0%d:30:00,%d,A,0\n" % (h, h) for h in range(4)
    )
    head_end = HeadEnd("x", "delimited", zone="America/Chicago", interval_minutes=60, unit="kWh", columns=COLUMNS)
    feed = parsed(content, head_end)
    assert [reasons[0]["code"] for reasons in feed.rejects["reasons"].to_list()] == ["ambiguous_time"]
    assert feed.rejects.select("line", "raw").rows() == [(3, b"M,E1,2026-11-01 01:30:00,1,A,0")]
    assert feed.received == 4
    for how, hour in (("first", 6), ("second", 7)):
        placed = parsed(content, replace(head_end, options={"ambiguous": how})).intervals
        assert placed.filter(pl.col("value") == 10**6)["interval_start"].dt.hour().to_list() == [hour]


def test_a_skipped_hour_does_not_exist() -> None:
    content = b"meter,channel,time,value,q,seq\nM,E1,2026-03-08 02:30:00,1,A,0\nM,E1,2026-03-08 03:00:00,1,A,0\n"
    feed = parsed(
        content, HeadEnd("x", "delimited", zone="America/Chicago", interval_minutes=30, unit="kWh", columns=COLUMNS)
    )
    assert [reasons[0]["code"] for reasons in feed.rejects["reasons"].to_list()] == ["nonexistent_time"]
    assert feed.intervals["interval_start"].dt.hour().to_list() == [8]


STAMP_ZONES = ["America/Chicago", "Australia/Lord_Howe", "Europe/Dublin", "Africa/Casablanca", "+05:45", "-03:30"]
WALL_CLOCK = st.integers(31_536_000, 3_700_000_000).map(
    lambda second: datetime.fromtimestamp(second, UTC).replace(tzinfo=None)
)


@given(WALL_CLOCK, st.sampled_from(STAMP_ZONES))
@settings(max_examples=200)
def test_local_stamps_agree_with_the_standard_library(local: datetime, zone: str) -> None:
    from meter_pipeline.feeds.times import StampParser, State

    found = StampParser(zone).parse([local.isoformat().encode()])
    if zone[0] in "+-":
        hours, minutes = zone[1:].split(":")
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (1 if zone[0] == "+" else -1)
        assert found.first[0] == int((local.replace(tzinfo=UTC) - offset).timestamp()) * 10**6
        return
    both = [local.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1)]
    exists = [moment.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local for moment in both]
    if not all(exists):
        assert found.state[0] == State.NONEXISTENT
    else:
        assert [int(found.first[0]), int(found.second[0])] == [int(moment.timestamp()) * 10**6 for moment in both]
        assert (found.state[0] == State.AMBIGUOUS) == (both[0].utcoffset() != both[1].utcoffset())


@given(
    st.text(st.sampled_from('0123456789.,-+ e"'), max_size=22), st.sampled_from([",", ";"]), st.sampled_from([".", ","])
)
@example("-0.050", ";", ".")
@example("123456789012345.1", ";", ".")
@example("5.", ";", ".")
@settings(max_examples=500)
def test_a_short_number_is_the_number(text: str, delimiter: str, point: str) -> None:
    """What the quick way reads is what the careful one reads, and ends where the field does."""
    data = f"{text}{delimiter}x\n".encode()
    number, places, stop = read_short(data, 0, len(data), ord(point), ord(delimiter))
    if stop >= 0 and point != delimiter:
        assert stop == data.index(delimiter.encode())
        assert (number, places) == read_number(data, 0, stop, ord(point), 0)
