"""Hostile and broken input: each is a named rejection or a clear refusal, the rest of the file goes on, and memory
stays bounded."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.files import Limits, line_blocks, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError, read_head_end
from meter_pipeline.feeds.registry import parse
from meter_pipeline.feeds.rejects import REASONS
from meter_pipeline.quality import pack
from meter_pipeline.schemas.reads import ParsedFeed

UTC = BillingCalendar("UTC")
CSV = HeadEnd(
    "csv",
    "delimited",
    interval_minutes=15,
    unit="kWh",
    columns={"meter_id": "meter", "time": "time", "value": "kwh", "sequence": "seq", "quality": "q"},
)
HEADER = b"meter,time,kwh,seq,q\n"
GOOD = b"MTR-1,2026-03-02T00:00:00Z,1.5,1,A\n"


def reading(tmp_path: Path, content: bytes, head_end: HeadEnd = CSV, limits: Limits | None = None) -> ParsedFeed:
    path = tmp_path / "feed"
    path.write_bytes(content)
    return parse(path, head_end, UTC, limits or Limits())


def codes(feed: ParsedFeed) -> list[list[str]]:
    found = [[reason["code"] for reason in reasons] for reasons in feed.rejects["reasons"].to_list()]
    assert all(code in REASONS for reasons in found for code in reasons)
    return found


LINES = {
    b"MTR-1,2026-03-02T00:15:00Z,NaN,1,A": ["not_finite"],
    b"MTR-1,2026-03-02T00:15:00Z,inf,1,A": ["not_finite"],
    b"MTR-1,2026-03-02T00:15:00Z,1e999,1,A": ["not_finite"],
    b"MTR-1,2026-03-02T00:15:00Z,1_000,1,A": ["bad_number"],
    b"MTR-1,2026-03-02T00:15:00Z,1 0,1,A": ["bad_number"],
    b"MTR-1,2026-03-02T00:15:00Z,0x10,1,A": ["bad_number"],
    b"MTR-1,2026-03-02T00:15:00Z,=1+1,1,A": ["bad_number"],
    b"MTR-1,2026-03-02T00:15:00Z,,1,A": ["missing_value"],
    b"MTR-1,2026-03-02T00:15:00Z,1.2345678,1,A": ["too_fine"],
    b"MTR-1,2026-03-02T00:15:00Z,99999999999999999,1,A": ["out_of_range"],
    "MTR-1,2026-03-02T00:15:00Z,١٢,1,A".encode(): ["bad_number"],
    "ＭＴＲ１,2026-03-02T00:15:00Z,1,1,A".encode(): ["bad_id"],
    "MTR-А,2026-03-02T00:15:00Z,1,1,A".encode(): ["bad_id"],
    b"=CMD,2026-03-02T00:15:00Z,1,1,A": ["bad_id"],
    b"'; DROP TABLE x;--,2026-03-02T00:15:00Z,1,1,A": ["bad_id"],
    b",2026-03-02T00:15:00Z,1,1,A": ["missing_field"],
    b"MTR-1,2026-03-02T00:15:00,1,1,A": ["missing_zone"],
    b"MTR-1,2026-02-30T00:15:00Z,1,1,A": ["bad_time"],
    b"MTR-1,2026-03-02T25:15:00Z,1,1,A": ["bad_time"],
    b"MTR-1,yesterday,1,1,A": ["bad_time"],
    b"MTR-1,2026-03-02T00:15:00Z,1,one,A": ["bad_integer"],
    b"MTR-1,2026-03-02T00:15:00Z,1,-1,A": ["bad_integer"],
    b"MTR-1,2026-03-02T00:15:00Z,1,1,S99": ["bad_quality"],
    b"MTR-1,2026-03-02T00:15": ["truncated_row"],
    b"MTR-1,2026-03-02T00:15:00Z,1,1,A,more": ["too_many_fields"],
    b"MT\0R,2026-03-02T00:15:00Z,1,1,A": ["control_character"],
    b'MTR-1,"2026-03-02T00:15:00Z,1,1,A': ["bad_quoting"],
    b"MTR-1\xff,2026-03-02T00:15:00Z,1,1,A": ["wrong_encoding", "bad_id"],
    b"MTR-1\xed\xa0\x80,2026-03-02T00:15:00Z,1,1,A": ["wrong_encoding", "bad_id"],
    b"bad*id,never,NaN,x,?": ["bad_id", "bad_time", "bad_quality", "bad_integer", "not_finite"],
}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.decode("ascii", "backslashreplace"))
def test_a_bad_line_is_named_and_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    feed = reading(tmp_path, HEADER + GOOD + line + b"\n" + GOOD)
    assert codes(feed) == [LINES[line]]
    assert feed.rejects.select("line", "byte_offset", "raw", "reads").rows() == [(3, len(HEADER + GOOD), line, 1)]
    assert feed.intervals["line"].to_list() == [2, 4]  # an exact repetition is kept, not swallowed
    assert feed.received == 3


def test_all_bad_lines_together_leave_every_good_one(tmp_path: Path) -> None:
    body = b"".join(line + b"\r\n" + GOOD for line in LINES)
    feed = reading(tmp_path, HEADER + body)
    assert codes(feed) == list(LINES.values())
    assert feed.intervals.height == len(LINES)
    assert (feed.intervals["value"] == 1_500_000).all()


def test_odd_but_honest_numbers_are_read(tmp_path: Path) -> None:
    values = {
        b"1e3": 10**9,
        b".5": 500_000,
        b"5.": 5_000_000,
        b"+1": 10**6,
        b"-0.000001": -1,
        b'"2.5"': 2_500_000,
        b"1.50000000000": 1_500_000,
    }
    lines = b"".join(b"MTR-1,2026-03-02T00:15:00Z,%s,1,A\n" % text for text in values)
    feed = reading(tmp_path, HEADER + lines)
    assert feed.rejects.height == 0
    assert feed.intervals["value"].to_list() == list(values.values())
    assert feed.intervals["line"].to_list() == [2, 3, 4, 5, 6, 7, 8]


def test_a_uuid_is_one_meter_in_both_spellings(tmp_path: Path) -> None:
    uuid = b"1f8730a9-5d67-4895-9215-6e247087ea00"
    feed = reading(
        tmp_path, HEADER + GOOD.replace(b"MTR-1", uuid) + GOOD.replace(b"MTR-1", uuid.replace(b"-", b"").upper())
    )
    assert feed.intervals["meter_id"].to_list() == ["1F8730A95D67489592156E247087EA00"] * 2


def test_text_in_another_encoding_beside_the_reads_is_no_reason_where_declared(tmp_path: Path) -> None:
    content = b"meter,time,kwh,seq,q,town\n" + GOOD[:-1] + b",K\xf6ln\n"
    assert codes(reading(tmp_path, content)) == [["wrong_encoding"]]
    assert reading(tmp_path, content, replace(CSV, encoding="latin-1")).intervals.height == 1
    assert reading(tmp_path, content.decode("latin-1").encode()).rejects.height == 0


def test_utf16_is_refused_whole_unless_declared(tmp_path: Path) -> None:
    content = (HEADER + GOOD).decode().encode("utf-16")
    assert codes(reading(tmp_path, content)) == [["wrong_encoding"]]
    assert reading(tmp_path, content, replace(CSV, encoding="utf-16")).intervals.height == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", ["delimited", "jsonl", "nem12", "cmep", "espi", "wide_csv"])
def test_an_empty_file_is_refused_by_name(tmp_path: Path, content: bytes, form: str) -> None:
    head_end = CSV if form in ("delimited", "jsonl") else HeadEnd("x", form, zone="+00:00")
    feed = reading(tmp_path, content, replace(head_end, format=form))
    assert codes(feed) in ([["empty_file"]], [["bad_document"]])
    assert feed.received == 0


def test_a_header_without_a_declared_column_refuses_the_file(tmp_path: Path) -> None:
    assert codes(reading(tmp_path, b"meter,when,kwh\n" + GOOD)) == [["bad_header"]]
    assert codes(reading(tmp_path, b"meter,time,kwh,kwh,seq,q\n")) == [["bad_header"]]


def test_a_head_end_that_cannot_work_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(HeadEndError, match="unit"):
        reading(tmp_path, HEADER, replace(CSV, unit=None))
    with pytest.raises(HeadEndError, match="time_format"):
        reading(tmp_path, HEADER, replace(CSV, time_format="%Q"))


def test_a_last_line_without_its_end_is_cut_where_the_head_end_always_writes_one(tmp_path: Path) -> None:
    strict = replace(CSV, options={"final_newline": "required"})
    cut = HEADER + GOOD + GOOD[:-1]
    assert reading(tmp_path, cut).intervals.height == 2
    assert codes(reading(tmp_path, cut, strict)) == [["truncated_row"]]
    assert reading(tmp_path, HEADER + GOOD, strict).intervals.height == 1


DECLARATIONS = {
    'format = "xls"': "format",
    'format = "delimited"\nzone = "Mars/Olympus"': "zone",
    'format = "delimited"\nzone = "+25:00"': "zone",
    'format = "delimited"\nunit = "furlong"': "unit",
    'format = "delimited"\nencoding = "klingon"': "encoding",
    'format = "delimited"\ndelimiter = ",,"': "delimiter",
    'format = "delimited"\ntime_format = "%Q"': "time_format",
    'format = "delimited"\ninterval_minutes = 1441': "interval_minutes",
    'format = "delimited"\ninterval_minutes = "15"': "interval_minutes",
    'format = "delimited"\nheader = 1': "header",
    'format = "delimited"\ncolour = "red"': "colour",
    'format = "delimited"\n[quality_map]\nOK = "fine"': "quality_map",
    'format = "delimited"\n[columns]\ntime = [["a"]]': "columns",
    "format = ": "declared",
}


@pytest.mark.parametrize("text", DECLARATIONS)
def test_a_declaration_that_cannot_work_names_its_field(tmp_path: Path, text: str) -> None:
    path = tmp_path / "declared.toml"
    path.write_text(text)
    with pytest.raises(HeadEndError, match=DECLARATIONS[text]):
        read_head_end(path)


# -- files -----------------------------------------------------------------------------------------


def test_a_line_beyond_the_cap_is_skipped_and_the_rest_read(tmp_path: Path) -> None:
    limits = Limits(max_line_bytes=1000, block_bytes=512)
    feed = reading(tmp_path, HEADER + GOOD + b"x" * 5000 + b"\n" + GOOD, limits=limits)
    assert codes(feed) == [["line_too_long"]]
    assert feed.rejects["line"].to_list() == [3]
    assert feed.intervals["line"].to_list() == [2, 4]


@pytest.mark.parametrize("block", [64, 100, 257, 4096])
def test_blocks_hold_every_byte_once_and_in_order(tmp_path: Path, block: int) -> None:
    content = b"".join(b"%d" % i * (i % 50) + b"\n" for i in range(300)) + b"tail"
    path = tmp_path / "lines"
    path.write_bytes(content)
    limits = Limits(max_line_bytes=120, block_bytes=block)
    rebuilt, lines = b"", 1
    with open_feed(path, limits) as opened:
        for piece in line_blocks(opened.source, limits):
            assert (piece.offset, getattr(piece, "first_line", None) or getattr(piece, "line", None)) == (
                len(rebuilt),
                lines,
            )
            data = getattr(piece, "data", None) or content[piece.offset : piece.offset + piece.length]  # type: ignore[union-attr]
            rebuilt += data
            lines += data.count(b"\n")
    assert rebuilt == content


_RSS = """
import resource, sys
from pathlib import Path
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds import parse
form = sys.argv[2]
columns = {"meter_id": "meter", "time": "time", "value": "kwh"} if form in ("delimited", "jsonl") else {}
head_end = HeadEnd("x", form, zone="+00:00", unit="kWh", interval_minutes=15, columns=columns)
parse(Path(sys.argv[1]), head_end, BillingCalendar("UTC"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
feed = parse(Path(sys.argv[3]), head_end, BillingCalendar("UTC"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, *[r["code"] for rs in feed.rejects["reasons"] for r in rs])
"""


def rss_of(small: Path, form: str, large: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _RSS, str(small), form, str(large)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    grown, *found = done.stdout.split()
    return int(grown), found


def test_a_line_of_200_megabytes_is_refused_within_64_mib(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"meter,time,kwh\nM,2026-03-02T00:00:00Z,1\n")
    with large.open("wb") as file:
        file.write(b"meter,time,kwh\n")
        for _ in range(200):
            file.write(b"9" * 1_000_000)
    grown, found = rss_of(small, "delimited", large)
    assert found == ["line_too_long"]
    assert grown < 64


BOMBS = {
    "xxe": b'<?xml version="1.0"?><!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]><feed>&x;</feed>',
    "http": b'<!DOCTYPE feed SYSTEM "http://127.0.0.1:9/x.dtd"><feed/>',
    "laughs": b'<!DOCTYPE f [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]><feed>&j;</feed>",
    "quadratic": b'<!DOCTYPE f [<!ENTITY a "' + b"x" * 100_000 + b'">]><feed>' + b"&a;" * 1000 + b"</feed>",
    "deep": b"<feed>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</feed>",
    "unclosed": b"<feed><entry>",
    "binary": b"<feed>\0\0</feed>",
    "other": b"<html><body>503</body></html>",
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_markup_is_refused(tmp_path: Path, name: str) -> None:
    feed = reading(tmp_path, BOMBS[name], HeadEnd("x", "espi"))
    assert codes(feed)[0][0] in ("forbidden_markup", "too_deep", "bad_document", "unknown_format")
    assert feed.received == 0


def test_a_tag_of_100_megabytes_is_refused_within_64_mib(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"<feed/>")
    large.write_bytes(b"<feed a='" + b"x" * 100_000_000 + b"'/>")
    grown, found = rss_of(small, "espi", large)
    assert found == ["line_too_long"]
    assert grown < 64


def test_gzip_and_zip_are_opened(tmp_path: Path) -> None:
    assert reading(tmp_path, gzip.compress(HEADER + GOOD)).intervals.height == 1
    assert reading(tmp_path, gzip.compress(HEADER) + gzip.compress(GOOD)).intervals.height == 1
    assert reading(tmp_path, zipped({"a.csv": HEADER + GOOD})).intervals.height == 1


def zipped(files: dict[str, bytes], mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


ARCHIVES = {
    "truncated gzip": (gzip.compress(HEADER + GOOD * 1000)[:-20], "truncated_archive"),
    "spoiled gzip": (b"\x1f\x8b" + b"x" * 100, "bad_archive"),
    "gzip bomb": (gzip.compress(b"0" * 40_000_000), "archive_ratio"),
    "zip bomb": (zipped({"a": b"0" * 40_000_000}), "archive_ratio"),
    "traversal": (zipped({"../../etc/a.csv": GOOD}), "archive_path"),
    "absolute": (zipped({"/etc/a.csv": GOOD}), "archive_path"),
    "backslash": (zipped({"..\\a.csv": GOOD}), "archive_path"),
    "drive": (zipped({"C:a.csv": GOOD}), "archive_path"),
    "link": (zipped({"a.csv": b"/etc/passwd"}, 0o120777), "archive_path"),
    "nested": (zipped({"a.zip": zipped({"a.csv": GOOD})}), "nested_archive"),
    "gzip in gzip": (gzip.compress(gzip.compress(GOOD)), "nested_archive"),
    "two files": (zipped({"a.csv": GOOD, "b.csv": GOOD}), "archive_members"),
    "no file": (zipped({}), "archive_members"),
    "many entries": (zipped({f"d{i}/": b"" for i in range(100)}), "archive_members"),
    "cut zip": (zipped({"a.csv": HEADER + GOOD})[:-30], "bad_archive"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_whole(tmp_path: Path, name: str) -> None:
    content, code = ARCHIVES[name]
    feed = reading(tmp_path, content)
    assert codes(feed) == [[code]]
    assert feed.intervals.height == 0


def test_links_directories_and_pipes_are_no_feeds(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(HEADER + GOOD)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(real)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        assert codes(parse(path, CSV, UTC)) == [["not_a_file"]]


# -- other formats ---------------------------------------------------------------------------------

JSON = HeadEnd(
    "j", "jsonl", unit="kWh", interval_minutes=15, columns={"meter_id": "m", "time": "t", "value": "v", "quality": "q"}
)
J = b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":1.5}\n'
JSON_LINES = {
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":NaN}': ["not_finite"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":1e999}': ["not_finite"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":"1_0"}': ["bad_number"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":01}': ["bad_json"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":+1}': ["bad_json"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":[1]}': ["bad_json", "missing_value"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":true}': ["bad_json", "missing_value"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z"}': ["missing_value"],
    b'{"m":"MTR-1","m":"MTR-2","t":"2026-03-02T00:00:00Z","v":1}': ["duplicate_key"],
    b'{"m":"\\ud800","t":"2026-03-02T00:00:00Z","v":1}': ["bad_id"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":1} x': ["bad_json"],
    b'{"m":"MTR-1","t":"2026-03-02T00:00:00Z","v":1': ["bad_json"],
    b"[1,2]": ["bad_json"],
    b"[" * 50_000: ["bad_json"],
}


@pytest.mark.parametrize("line", JSON_LINES, ids=lambda line: line[:60].decode())
def test_a_bad_json_line_is_named_and_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    feed = reading(tmp_path, J + line + b"\n" + J, JSON)
    assert codes(feed) == [JSON_LINES[line]]
    assert feed.intervals["line"].to_list() == [1, 3]


def test_escapes_blanks_and_extra_keys_are_honest_json(tmp_path: Path) -> None:
    odd = b' { "x" : {"y":[1]}, "v" : "2.5" , "t":"2026-03-02T00:15:00Z", "m":"\\u004dTR-1", "q": null } \r\n'
    feed = reading(tmp_path, J + odd, JSON)
    assert feed.rejects.height == 0
    assert feed.intervals.select("meter_id", "value").rows() == [("MTR-1", 1_500_000), ("MTR-1", 2_500_000)]


NEM = HeadEnd("n", "nem12")
DAY = b"300,20260302," + b",".join([b"1"] * 48) + b",A,,,20260303010203,\n"
NEM_FILE = b"100,NEM12,202603030000,A,B\n200,NMI1,E1,,E1,,SER,kWh,30,\n%s900\n"
NEM_DAYS = {
    DAY.replace(b"1,1,", b"1,NaN,", 1): ["not_finite"],
    DAY.replace(b"1,1,", b"1,", 1): ["value_count"],
    DAY.replace(b"1,1,", b"1,1,1,", 1): ["bad_quality"],
    DAY.replace(b"20260302", b"20260230"): ["bad_time"],
    DAY.replace(b"20260302", b"2026030X"): ["bad_time"],
    DAY.replace(b"20260302", b"2026-03-02"): ["bad_time"],
    DAY.replace(b"20260302", b""): ["missing_field"],
    DAY.replace(b",A,", b",S99,"): ["bad_quality"],
    DAY.replace(b",A,", b",V,"): ["bad_quality"],
    DAY.replace(b"20260303010203", b"2026"): ["bad_time"],
    DAY.replace(b",A,", b",A,\0"): ["control_character", "bad_quality"],
    DAY.replace(b",A,", b",A,x,"): ["bad_quality", "bad_time"],
    b"300,20260302,1,1\n": ["truncated_row"],
}


@pytest.mark.parametrize("day", NEM_DAYS, ids=lambda day: day[:40].decode("ascii", "backslashreplace"))
def test_a_bad_nem12_day_is_refused_whole_and_costs_only_itself(tmp_path: Path, day: bytes) -> None:
    feed = reading(tmp_path, NEM_FILE % (DAY + day + DAY), NEM)
    assert codes(feed)[0][0] == NEM_DAYS[day][0]
    assert feed.rejects["line"].to_list() == [4]
    assert feed.rejects["reads"].to_list() == [48]
    assert feed.intervals.height == 96


def test_a_nem12_day_whose_400_records_differ_is_refused(tmp_path: Path) -> None:
    """Intervals 20 to 24 are actual and substituted: either would be a guess. The same said twice is no fault."""
    variable = DAY.replace(b",A,", b",V,")
    feed = reading(tmp_path, NEM_FILE % (variable + b"400,1,24,A,,\n400,20,48,S14,51,\n"), NEM)
    assert codes(feed) == [["bad_quality"]]
    assert "two of its 400 records differ on intervals 20 to 48" in str(feed.rejects["reasons"].to_list())
    assert feed.intervals.height == 0
    same = reading(tmp_path, NEM_FILE % (variable + b"400,1,24,A,,\n400,20,48,A,,\n"), NEM)
    assert same.intervals.height == 48


@pytest.mark.parametrize("date", [b"2026030X", b"2026-03-03", b"3.3.2026", b""])
@pytest.mark.parametrize("block", [1, 700, 1 << 20])
def test_a_nem12_day_with_a_bad_date_keeps_its_400_records(tmp_path: Path, date: bytes, block: int) -> None:
    """They are not the day's before: it would be billed as substituted. The 200 record that the day is refused under is
    its own, wherever the file's blocks end."""
    bad = DAY.replace(b"20260302", date).replace(b",A,", b",V,") + b"400,1,48,S14,51,\n"
    other = b"200,NMI2,E1,,E1,,SER,kWh,15,\n" + DAY.replace(b"1,1", b"1,1,1,1", 24).replace(b"0302", b"0304")
    (tmp_path / "feed").write_bytes(NEM_FILE % (DAY + bad + other))
    feed = parse(tmp_path / "feed", NEM, UTC, Limits(block_bytes=block))
    assert codes(feed) == [["bad_time" if date else "missing_field"]]
    assert feed.rejects["reads"].to_list() == [48]
    assert feed.intervals["quality"].unique().to_list() == [pack("A")]
    assert feed.intervals.height == 48 + 96


def test_a_nem12_400_record_belongs_to_a_day_of_its_own_200_record(tmp_path: Path) -> None:
    """Behind another 200 record it belongs to no day: the day before it stays actual."""
    feed = reading(tmp_path, NEM_FILE % (DAY + b"200,NMI2,E1,,E1,,SER,kWh,30,\n400,1,48,S14,51,\n"), NEM)
    assert codes(feed) == [["bad_record"]]
    assert "a 400 record without a 300 record" in str(feed.rejects["reasons"].to_list())
    assert feed.intervals["quality"].unique().to_list() == [pack("A")]


def test_a_nem12_file_cut_short_says_so(tmp_path: Path) -> None:
    whole = NEM_FILE % (DAY + DAY)
    feed = reading(tmp_path, whole[: whole.rindex(b"300,") + 60], NEM)
    assert feed.intervals.height == 48
    assert sorted(code for reasons in codes(feed) for code in reasons) == ["missing_end", "truncated_row"]


def test_records_out_of_place_are_named(tmp_path: Path) -> None:
    body = b"400,1,5,S14,,\n" + DAY + b"400,40,60,S14,,\n"
    feed = reading(tmp_path, NEM_FILE.replace(b"200,NMI1", b"999,x\n200,NMI1") % body, NEM)
    assert [c[0] for c in codes(feed)] == ["bad_record", "bad_record", "bad_quality", "bad_record"]
    feed = reading(tmp_path, NEM_FILE.replace(b"kWh", b"parsec") % DAY, NEM)
    assert [c[0] for c in codes(feed)] == ["bad_unit", "bad_record"]
    assert feed.received == 48 or feed.received == 47
    assert codes(reading(tmp_path, DAY, NEM)) == [["bad_header"]]


CMEP = HeadEnd("c", "cmep", zone="+00:00", stamp="end")
RECORD = b"MEPMD01,19970819,U,U-1,U,,202603030800,MTR-1,OK,E,KWH,1.0,00000015,2,202603020015,R0,1.5,,R0,2\n"
RECORDS = {
    RECORD.replace(b",2,2026", b",3,2026"): "value_count",
    RECORD.replace(b"1.5", b"1e999"): "not_finite",
    RECORD.replace(b"MTR-1", b"MTR*1"): "bad_id",
    RECORD.replace(b"KWH", b"FURLONG"): "bad_unit",
    RECORD.replace(b",1.0,", b",40,"): "bad_record",
    RECORD.replace(b",R0,1.5", b",Q,1.5"): "bad_quality",
    RECORD.replace(b"202603020015", b"202602300015"): "bad_time",
    RECORD.replace(b",OK,", b",SUMMARY,"): "bad_record",
    b"MEPAD01,1\n": "bad_record",
}


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r[40:70].decode())
def test_a_bad_cmep_record_is_refused_whole_and_costs_only_itself(tmp_path: Path, record: bytes) -> None:
    feed = reading(tmp_path, RECORD + record + RECORD, CMEP)
    assert codes(feed)[0][0] == RECORDS[record]
    assert feed.rejects["line"].to_list() == [2]
    assert feed.intervals["line"].to_list() == [1, 1, 3, 3]
    assert feed.intervals["value"].to_list() == [1_500_000, 2_000_000] * 2


def test_minus_signs_as_programs_write_them_need_no_declared_mark(tmp_path: Path) -> None:
    values = {"1.5-": -1_500_000, "\u22123": -3_000_000, "(2)": -2_000_000, "0.25 -": -250_000}
    lines = "".join(f"MTR-1,2026-03-02T00:15:00Z,{text},1,A\n" for text in values).encode()
    feed = reading(tmp_path, HEADER + lines)
    assert feed.intervals["value"].to_list() == list(values.values())
    for wrong in ("1.5--", "-1.5-", "-", "1-5"):
        line = f"MTR-1,2026-03-02T00:15:00Z,{wrong},1,A\n".encode()
        assert codes(reading(tmp_path, HEADER + line)) == [["bad_number"]], wrong


def test_a_header_that_is_not_utf8_says_to_declare_the_encoding(tmp_path: Path) -> None:
    content = HEADER[:-1] + b",stra\xdfe\n" + GOOD[:-1] + b",K\xf6ln\n"
    assert codes(reading(tmp_path, content)) == [["wrong_encoding"]]
    assert reading(tmp_path, content, replace(CSV, encoding="latin-1")).intervals.height == 1


def test_lines_that_end_in_cr_alone_are_refused_in_those_words(tmp_path: Path) -> None:
    feed = reading(tmp_path, (HEADER + GOOD).replace(b"\n", b"\r"))
    assert codes(feed) == [["bad_header"]]
    assert "CR (0x0D) alone" in str(feed.rejects["reasons"].to_list())
