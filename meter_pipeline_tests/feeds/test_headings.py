"""Fields that stand beside the rows: in lines above them, in the file's name, or as the names of columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.declaration_text import toml_text
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError, read_head_end
from meter_pipeline.feeds.json_records import path_of, steps_of
from meter_pipeline.feeds.one_line import line_declaration, lines_above
from meter_pipeline.feeds.registry import parse
from meter_pipeline.schemas.reads import ParsedFeed

CALENDAR = BillingCalendar("America/Chicago")
DEVICES = """format = "delimited"
delimiter = ";"
zone = "America/Chicago"
interval_minutes = 60
unit = "kWh"

[columns]
time = "Time"
value = "kWh"

[constants]
channel = "E1"

[elsewhere]
meter_id = { heading = "^Device;([A-Z0-9]+)" }

[skip]
Time = ["Total"]
"""
TEXT = (
    b"Export of 2026-11-12\r\n\r\nDevice;A1\r\nTime;kWh\r\n2026-11-10 00:00;1\r\n2026-11-10 01:00;x\r\nTotal;1\r\n\r\n"
    b"Device;A2\r\nTime;kWh\r\n2026-11-10 00:00;2\r\n2026-11-10 01:00;3,\r\n2026-11-10 02:00;4\r\n"
)


def declared(tmp_path: Path, text: str) -> HeadEnd:
    (tmp_path / "head.toml").write_text(text)
    return read_head_end(tmp_path / "head.toml")


def read(tmp_path: Path, head_end: HeadEnd, content: bytes, name: str = "feed.csv") -> ParsedFeed:
    (tmp_path / name).write_bytes(content)
    return parse(tmp_path / name, head_end, CALENDAR)


def codes(feed: ParsedFeed) -> list[str]:
    return [reason["code"] for reasons in feed.rejects["reasons"].to_list() for reason in reasons]


def test_headings_hold_for_the_rows_below_them(tmp_path: Path) -> None:
    """Rejected lines keep their numbers, bytes and offsets; totals and headers that come again are passed over."""
    head_end = declared(tmp_path, DEVICES + "\n[options]\nskip_lines = 1\n")
    feed = read(tmp_path, head_end, TEXT)
    found = feed.intervals.sort("line").select("meter_id", "value", "line").rows()
    assert found == [("A1", 1_000_000, 5), ("A2", 2_000_000, 11), ("A2", 4_000_000, 13)]
    assert codes(feed) == ["bad_number", "bad_number"]
    for line, offset, raw in feed.rejects.select("line", "byte_offset", "raw").iter_rows():
        assert TEXT[offset:].split(b"\r\n", 1)[0] == raw == TEXT.split(b"\r\n")[line - 1]


def test_blocks_of_lines_do_not_change_what_is_read(tmp_path: Path) -> None:
    """A file of more than one block, with a heading for every seven rows and without a last line end."""
    lines = [b"Time;kWh"]
    for meter in range(30_000):
        lines.append(f"Device;M{meter}".encode())
        lines += [f"2026-11-10 {hour:02d}:00;{meter % 10}.{hour}".encode() for hour in range(7)]
    feed = read(tmp_path, declared(tmp_path, DEVICES), b"\n".join(lines))
    assert (feed.intervals.height, feed.rejects.height) == (210_000, 0)
    assert feed.intervals["meter_id"].n_unique() == 30_000
    assert feed.intervals["value"].sum() == sum((m % 10) * 10**6 + h * 10**5 for m in range(30_000) for h in range(7))


def test_numbers_of_columns_count_from_the_file_s_own(tmp_path: Path) -> None:
    text = DEVICES.replace('"Time"', '"1"').replace('"kWh"\n\n[const', '"#2"\n\n[const').replace("Time =", "1 =")
    text = text.replace('"#2"', '"2"').replace('format = "delimited"', 'format = "delimited"\nheader = false')
    feed = read(tmp_path, declared(tmp_path, text), b"Device;A1\n2026-11-10 00:00;1\nDevice;A2\n2026-11-10 00:00;2\n")
    assert feed.intervals.select("meter_id", "value").rows() == [("A1", 1_000_000), ("A2", 2_000_000)]


@pytest.mark.parametrize(
    ("elsewhere", "says"),
    [
        ('meter_id = { heading = "x" }', "one group"),
        ("meter_id = { heading = '(x)', name = '(x)' }", "either name or heading"),
        ("channel = { name = '(x)' }", "in columns or constants too"),
        ("value = { name = '(x)' }", "unknown key 'value'"),
        ("meter_id = { headings = '(x)' }", "did you mean heading"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(tmp_path: Path, elsewhere: str, says: str) -> None:
    text = DEVICES.replace('meter_id = { heading = "^Device;([A-Z0-9]+)" }', elsewhere)
    with pytest.raises(HeadEndError, match=says):
        declared(tmp_path, text)


def test_a_file_without_its_heading_or_name_is_refused(tmp_path: Path) -> None:
    feed = read(tmp_path, declared(tmp_path, DEVICES), b"Time;kWh\n2026-11-10 00:00;1\n")
    assert (codes(feed), feed.intervals.height) == (["no_heading"], 0)
    named = declared(tmp_path, DEVICES.replace('heading = "^Device;', 'name = "^'))
    feed = read(tmp_path, named, b"Time;kWh\n2026-11-10 00:00;1\n", "-.csv")
    assert codes(feed) == ["no_heading"]
    assert read(tmp_path, named, b"Time;kWh\n2026-11-10 00:00;1\n", "A7.csv").intervals["meter_id"].to_list() == ["A7"]


def test_the_declaration_is_written_as_it_was_read(tmp_path: Path) -> None:
    head_end = declared(tmp_path, DEVICES)
    assert declared(tmp_path, toml_text(head_end, {})) == head_end


def test_a_corrected_line_is_read_with_what_stands_above_it(tmp_path: Path) -> None:
    """The preamble, the header and the heading of its own meter; a control total and a footer are not looked for."""
    text = DEVICES + '\n[control]\nrows = "^Export of ([0-9]+)"\n\n[version]\nheader = "^Export of (.*)"\n'
    head_end = declared(tmp_path, text + "\n[options]\nskip_lines = 1\nfooter_lines = 1\n")
    above = lines_above(head_end, "delimited", TEXT, 12)
    assert above == b"Export of 2026-11-12\r\n\r\nDevice;A1\r\nTime;kWh\r\nDevice;A2\r\n"
    feed = read(tmp_path, line_declaration(head_end, "feed.csv", TEXT), above + b"2026-11-10 01:00;3\n")
    assert feed.intervals.select("meter_id", "value", "source_version").rows() == [("A2", 3_000_000, 20_261_112)]
    assert feed.rejects.height == 0


def test_a_corrected_reading_of_a_route_file_keeps_its_meter(tmp_path: Path) -> None:
    text = """format = "fixed"
zone = "America/Chicago"
kind = "register"
unit = "gal"
time_format = "%Y%m%d"

[columns]
meter_id = "MTRDT:7-12"
time = "RTEHD:7-14"
value = "RDGDT:7-16"

[constants]
channel = "R1"
"""
    head_end = declared(tmp_path, text)
    whole = b"RTEHD 20261110\nMTRDT N-1001\nRDGDT 0000012345\nMTRDT N-1002\nRDGDT 00000x0777\n"
    feed = read(tmp_path, head_end, whole)
    assert feed.rejects.select("line", "byte_offset", "raw").row(0) == (5, 58, b"RDGDT 00000x0777")
    above = lines_above(head_end, "fixed", whole, 5)
    feed = read(tmp_path, line_declaration(head_end, "route", whole), above + b"RDGDT 0000000777\n")
    assert feed.registers.select("meter_id", "value").rows() == [("N-1002", 777_000_000)]


def test_a_meter_in_each_column_takes_all_that_nothing_else_names(tmp_path: Path) -> None:
    text = """format = "delimited"
zone = "America/Chicago"
interval_minutes = 60
unit = "kWh"

[columns]
time = "Time"

[[values]]
column = "*"
channel = "E1"
meter_id = "*"

[skip]
Note = ["no"]
"""
    feed = read(
        tmp_path, declared(tmp_path, text), b"Time,M1,Note,M2\n2026-11-10 00:00,1,,2\n2026-11-10 01:00,9,no,9\n"
    )
    assert feed.intervals.select("meter_id", "value").sort("meter_id").rows() == [("M1", 1_000_000), ("M2", 2_000_000)]
    assert codes(read(tmp_path, declared(tmp_path, text), b"Time,M1,M1\n2026-11-10 00:00,1,2\n")) == ["bad_header"]
    with pytest.raises(HeadEndError, match="stands alone"):
        declared(tmp_path, text.replace('meter_id = "*"', 'meter_id = "M1"'))


def test_points_in_keys_and_places_in_lists(tmp_path: Path) -> None:
    assert steps_of(r"a.1\.8\.0.#") == ("a", "1.8.0", "#")
    assert path_of(("a", "1.8.0", "#")) == r"a.1\.8\.0.#"
    text = """format = "json"
interval_minutes = 60
unit = "kWh"

[columns]
meter_id = 'm.id\\.1'
time = "rows.0"
value = "rows.2"

[constants]
channel = "E1"
"""
    rows = [["2026-11-10T00:00:00Z", "A", 1.5], ["2026-11-10T01:00:00Z", "A"], ["2026-11-10T02:00:00Z", "A", 2]]
    content = json.dumps([{"m": {"id.1": "J1"}, "rows": rows}]).encode()
    feed = read(tmp_path, declared(tmp_path, text), content)
    assert feed.intervals["value"].to_list() == [1_500_000, 2_000_000]
    assert codes(feed) == ["missing_value"], "a row that is too short lacks its value"


DATED = """format = "delimited"
delimiter = ";"
zone = "America/Chicago"
interval_minutes = {minutes}
unit = "kWh"
{format}
[columns]
meter_id = "m"
{columns}
[constants]
channel = "E1"
{more}
"""
IN_NAME = '[elsewhere]\ntime = { name = "_([0-9]{8})" }\n'
ABOVE = '[elsewhere]\ntime = { heading = "^Day;([0-9-]+)" }\n'
ELAPSED = '[periods]\nfirst = 1\norder = "elapsed"\n'


@pytest.mark.parametrize(
    ("columns", "more", "text", "found"),
    [
        ('time = "t"\nvalue = "v"', IN_NAME, b"m;t;v\nA;00:00;1\nA;23:00;2\n", [("01 05:00", 1), ("02 05:00", 2)]),
        ('period = "p"\nvalue = "v"', ELAPSED + IN_NAME, b"m;p;v\nA;1;1\nA;25;2\n", [("01 05:00", 1), ("02 05:00", 2)]),
        ("", '[day_columns]\nfirst = "a"\ncount = 24\n[options]\nambiguous = "first"\nempty = "skip"\n' + IN_NAME,
         b"m;" + b";".join([b"a", *[b"b%d" % k for k in range(23)]]) + b"\nA;1" + b";" * 22 + b";2\n", [("01 05:00", 1), ("02 05:00", 2)]),
        ('time = "t"\nvalue = "v"', ABOVE, b"Day;2026-11-01\nm;t;v\nA;00:00;1\nDay;2026-11-02\nm;t;v\nA;00:00;2\n",
         [("01 05:00", 1), ("02 06:00", 2)]),
        ('period = "p"\nvalue = "v"', ELAPSED + ABOVE, b"Day;2026-11-01\nm;p;v\nA;1;1\nA;25;2\n;;\n;;\n", [("01 05:00", 1), ("02 05:00", 2)]),
    ],
    ids=["name, times", "name, hours", "name, a day in a row", "heading, times", "heading, hours and empty rows"],
)  # fmt: skip
def test_a_date_beside_the_rows_stands_before_their_times(
    tmp_path: Path, columns: str, more: str, text: bytes, found: list[tuple[str, int]]
) -> None:
    """Numbers of hours under a date in the file's name were all read as its midnight: a day lost but for one value."""
    form = 'time_format = "%Y%m%d %H:%M"' if "name" in more and "t;v" in text.decode() else ""
    form = 'time_format = "%Y%m%d"' if "name" in more and not form else form
    head_end = declared(tmp_path, DATED.format(minutes=60, format=form, columns=columns, more=more))
    feed = read(tmp_path, head_end, text, "x_20261101.csv")
    assert codes(feed) == []
    rows = feed.intervals.select("interval_start", "value").rows()
    assert [(f"{start:%d %H:%M}", value // 1_000_000) for start, value in rows] == found


def test_rows_of_delimiters_alone_are_no_reads(tmp_path: Path) -> None:
    """Spreadsheets write them below the last row; each was a dead letter."""
    plain = declared(tmp_path, DATED.format(minutes=60, format="", columns='time = "t"\nvalue = "v"', more=""))
    feed = read(tmp_path, plain, b'm;t;v\nA;2026-11-10 00:00;1\n;;\n "" ; ;\nA;2026-11-10 01:00;2\n;;;;\r\n')
    assert codes(feed) == []
    assert (feed.received, feed.intervals.height) == (2, 2)
