"""Shapes of exports at their edges: days of clock changes, marks, several values, archives, spreadsheets, totals."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import (
    Control,
    DayColumns,
    HeadEnd,
    HeadEndError,
    Periods,
    ValueColumn,
    Version,
    read_head_end,
)
from meter_pipeline.feeds.inspect import report
from meter_pipeline.feeds.registry import parse
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.units import UnitError, base_unit

CALENDAR = BillingCalendar("America/Chicago")
PLAIN: dict[str, Any] = {"meter_id": "m", "time": "t", "value": "v"}


def head_end(**given: Any) -> HeadEnd:
    base: dict[str, Any] = {
        "zone": "America/Chicago",
        "interval_minutes": 60,
        "unit": "kWh",
        "columns": PLAIN,
        "constants": {"channel": "E1"},
    }
    return HeadEnd("T", given.pop("format", "delimited"), **(base | given))


def read(tmp_path: Path, content: str | bytes, declared: HeadEnd, name: str = "feed") -> ParsedFeed:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parse(path, declared, CALENDAR)


def codes(feed: ParsedFeed) -> list[str]:
    return [reason["code"] for reasons in feed.rejects["reasons"].to_list() for reason in reasons]


def starts(feed: ParsedFeed) -> list[str]:
    return feed.intervals["interval_start"].dt.strftime("%d %H:%M").to_list()


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decimal", "thousands", "micro"),
    [
        ("0.12500000000000", ".", "", 125_000),
        ("0000000000000000000012.5", ".", "", 12_500_000),
        ("1.234,5", ",", ".", 1_234_500_000),
        ("1 234 567.25", ".", " ", 1_234_567_250_000),
        ("-1'000", ".", "'", -1_000_000_000),
        ("1.23,5", ",", ".", None),
        ("1.2345", ",", ".", None),
        ("1.5", ",", "", None),
        ("1,5", ".", "", None),
    ],
)
def test_marks_of_numbers(tmp_path: Path, text: str, decimal: str, thousands: str, micro: int | None) -> None:
    feed = read(
        tmp_path, f"m;t;v\nM;2026-11-10 00:00;{text}\n", head_end(delimiter=";", decimal=decimal, thousands=thousands)
    )
    assert feed.intervals["value"].to_list() == ([] if micro is None else [micro])
    assert codes(feed) == ([] if micro is not None else ["bad_number"])


def test_what_rounding_did_is_kept_exactly(tmp_path: Path) -> None:
    """By the scan and by the careful way (an exponent), positive and negative, to even on halves."""
    values = ["0.0000005", "0.0000015", "-0.0000005", "3.2269999999999186", "12345e-11", "0.25"]
    lines = "".join(f"M,2026-11-10 {hour:02d}:00,{value}\n" for hour, value in enumerate(values))
    assert set(codes(read(tmp_path, f"m,t,v\n{lines}", head_end()))) == {"too_fine"}
    feed = read(tmp_path, f"m,t,v\n{lines}", head_end(rounding="half_even"))
    assert feed.intervals["value"].to_list() == [0, 2, 0, 3_227_000, 0, 250_000]
    exact = sum((Fraction(value) for value in values), Fraction(0)) * 10**6
    assert sum(feed.intervals["value"].to_list()) - exact == feed.roundings["M", "E1"]
    found = report("f", feed)["channels"][0]
    assert Fraction(found["sum"]) == exact / 10**6
    assert (found["stored"], found["stored_unit"]) == ("3.477002", "kWh")
    up = read(tmp_path, f"m,t,v\n{lines}", head_end(rounding="half_up"))
    assert up.intervals["value"].to_list()[:3] == [1, 2, -1]


def test_nem12_values_with_zeros_and_residue(tmp_path: Path) -> None:
    values = ",".join(["0.12500000000000"] * 23 + ["0.30000000000000004"])
    content = f"100,NEM12,202611110000,A,B\n200,N1,E1,E1,E1,,S,kWh,60,\n300,20261110,{values},A,,,,\n900\n"
    feed = read(tmp_path, content, HeadEnd("N", "nem12", rounding="half_even"))
    assert (feed.intervals.height, int(feed.intervals["value"].sum())) == (24, 23 * 125_000 + 300_000)
    assert feed.roundings == {("N1", "E1"): Fraction("-0.00000000000000004") * 10**6}


@pytest.mark.parametrize(
    ("kind", "value", "kept"), [("register", "12345678901.5", 1), ("interval", "12345678901.5", 0)]
)
def test_a_dial_may_stand_above_ten_thousand_million(tmp_path: Path, kind: str, value: str, kept: int) -> None:
    """A plant's register in watt hours; by the scan and by the careful way."""
    for text in (value, f"{value}e0"):
        feed = read(tmp_path, f"m,t,v\nM,2026-11-10 00:00,{text}\n", head_end(kind=kind))
        assert feed.registers.height + feed.intervals.height == kept
        assert codes(feed) == ([] if kept else ["out_of_range"])
    most = read(tmp_path, "m,t,v\nM,2026-11-10 00:00,9000000000001\n", head_end(kind="register"))
    assert codes(most) == ["out_of_range"]


# -- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "base", "factor"),
    [
        ("10 CF", "ft3", 10),
        ("100 GAL", "gal", 100),
        ("CUBIC_FEET", "ft3", 1),
        ("Cu.Ft.", "ft3", 1),
        ("kW-hr", "kWh", 1),
        ("m³", "m3", 1),
        ("Therms", "therm", 1),
        ("1000CF", "ft3", 1000),
    ],
)
def test_spellings_of_units(spelling: str, base: str, factor: int) -> None:
    assert base_unit(spelling) == (base, Fraction(factor))


@pytest.mark.parametrize("spelling", ["-", "0 CF", "10", "furlong", "1.5 CF"])
def test_what_is_no_unit(spelling: str) -> None:
    with pytest.raises(UnitError):
        base_unit(spelling)


def test_power_over_its_own_minutes_is_energy(tmp_path: Path) -> None:
    declared = head_end(
        unit="kW",
        average_power=True,
        interval_minutes=None,
        rounding="half_even",
        columns={**PLAIN, "interval_minutes": "n"},
    )
    feed = read(tmp_path, "m,t,v,n\nM,2026-11-10 00:00,1,30\nM,2026-11-10 00:30,1,5\n", declared)
    assert feed.intervals["value"].to_list() == [500_000, 83_333]
    assert feed.roundings["M", "E1"] == Fraction(-1, 3)
    assert feed.intervals["unit"].unique().to_list() == ["kWh"]


def test_a_factor_that_is_no_factor_is_refused(tmp_path: Path) -> None:
    declared = head_end(columns={**PLAIN, "factor": "f"})
    feed = read(
        tmp_path, "m,t,v,f\nM,2026-11-10 00:00,2,40\nM,2026-11-10 01:00,2,0\nM,2026-11-10 02:00,2,x\n", declared
    )
    assert feed.intervals["value"].to_list() == [80_000_000]
    assert codes(feed) == ["bad_unit", "bad_unit"]


# -- stamps ----------------------------------------------------------------------------------------

HOURS = "m,t,h,v\n"


def hours(day: str, numbers: range) -> str:
    return HOURS + "".join(f"M,{day},{number},{number}\n" for number in numbers)


@pytest.mark.parametrize(("day", "last"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-11-10", 24)])
def test_hours_count_through_the_civil_day(tmp_path: Path, day: str, last: int) -> None:
    declared = head_end(columns={**PLAIN, "period": "h"})
    feed = read(tmp_path, hours(day, range(1, 27)), declared)
    assert feed.intervals["value"].to_list() == [number * 10**6 for number in range(1, last + 1)]
    begin, end = CALENDAR.bounds(date.fromisoformat(day))
    instants = feed.intervals["interval_start"].to_list()
    assert (instants[0], instants[-1].timestamp() + 3600) == (begin, end.timestamp())
    assert codes(feed) == ["nonexistent_time"] * (26 - last)


def test_hours_of_the_clock_skip_and_repeat(tmp_path: Path) -> None:
    declared = head_end(columns={**PLAIN, "period": "h"}, periods=Periods(1, "clock"))
    feed = read(tmp_path, hours("2026-03-08", range(1, 25)), declared)
    assert (feed.intervals.height, codes(feed)) == (23, ["nonexistent_time"])
    feed = read(tmp_path, hours("2026-11-01", range(1, 25)), declared)
    assert (feed.intervals.height, codes(feed)) == (23, ["ambiguous_time"])


def test_the_end_of_a_numbered_hour_is_its_own(tmp_path: Path) -> None:
    declared = head_end(columns={**PLAIN, "period": "h"}, stamp="end")
    assert starts(read(tmp_path, hours("2026-11-10", range(1, 3)), declared)) == ["10 06:00", "10 07:00"]


def day_row(count: int, cells: list[str], order: str = "", **given: Any) -> tuple[str, HeadEnd]:
    header = ",".join(["m", "t", *[f"h{k}" for k in range(count)]])
    columns = {"meter_id": "m", "time": "t"}
    declared = head_end(columns=columns, day_columns=DayColumns("h0", count, order=order), **given)
    return f"{header}\nM,{given.get('day', '')}" + ",".join(cells) + "\n", declared


@pytest.mark.parametrize(
    ("day", "count", "filled"), [("2026-11-10", 25, 24), ("2026-11-01", 25, 25), ("2026-03-08", 25, 23)]
)
def test_a_day_of_25_columns_counts_through(tmp_path: Path, day: str, count: int, filled: int) -> None:
    cells = [str(k + 1) if k < filled else "" for k in range(count)]
    header = ",".join(["m", "t", *[f"h{k}" for k in range(count)]])
    declared = head_end(columns={"meter_id": "m", "time": "t"}, day_columns=DayColumns("h0", count))
    feed = read(tmp_path, f"{header}\nM,{day},{','.join(cells)}\n", declared)
    assert codes(feed) == []
    assert feed.intervals["value"].to_list() == [(k + 1) * 10**6 for k in range(filled)]
    begin, _ = CALENDAR.bounds(date.fromisoformat(day))
    assert feed.intervals["interval_start"].to_list()[0] == begin


def test_a_day_by_the_clock_leaves_the_skipped_hour_empty_and_adds_the_repeated_one(tmp_path: Path) -> None:
    header = ",".join(["m", "t", *[f"h{k}" for k in range(25)]])
    columns = {"meter_id": "m", "time": "t"}
    clock = head_end(columns=columns, day_columns=DayColumns("h0", 25, order="clock"), options={"ambiguous": "first"})
    autumn = ",".join(map(str, range(25)))
    feed = read(tmp_path, f"{header}\nM,2026-11-01,{autumn}\n", clock)
    instants = dict(zip(starts(feed), feed.intervals["value"].to_list(), strict=True))
    # 01:00 summer time is 06:00Z, its second pass 07:00Z: the 25th column
    assert (instants["01 06:00"], instants["01 07:00"], instants["01 08:00"]) == (1_000_000, 24_000_000, 2_000_000)
    spring = ",".join("" if k in (2, 24) else str(k) for k in range(25))
    feed = read(tmp_path, f"{header}\nM,2026-03-08,{spring}\n", clock)
    assert (feed.intervals.height, codes(feed)) == (23, [])
    wrong = ",".join(map(str, range(25)))
    assert codes(read(tmp_path, f"{header}\nM,2026-03-08,{wrong}\n", clock)) == ["nonexistent_time", "nonexistent_time"]


def test_an_hour_beside_its_marked_second_pass_is_the_first(tmp_path: Path) -> None:
    """02X and 2* mark the second pass, or it has a column of its own: the other needs no rule."""
    by_mark = head_end(columns={**PLAIN, "period": "h"}, periods=Periods(1, "clock"))
    rows = "".join(f"M,2026-11-01,{name},{k}\n" for k, name in enumerate(("01", "02", "02X", "03"), 1))
    second = DayColumns("h1", 25, order="clock", second=3)
    by_column = head_end(columns={"meter_id": "m", "time": "t"}, day_columns=second)
    names = ["h1", "h2", "h2x", *(f"h{k}" for k in range(3, 25))]
    wide = f"m,t,{','.join(names)}\nM,2026-11-01,{','.join(map(str, range(1, 26)))}\n"
    for text, declared in ((HOURS + rows, by_mark), (wide, by_column)):
        feed = read(tmp_path, text, declared)
        assert codes(feed) == []
        assert starts(feed)[:4] == ["01 05:00", "01 06:00", "01 07:00", "01 08:00"]
        assert feed.intervals["value"].to_list()[:4] == [1_000_000, 2_000_000, 3_000_000, 4_000_000]


def test_a_hole_in_a_day_costs_itself_alone(tmp_path: Path) -> None:
    header = ",".join(["m", "t", *[f"h{k}" for k in range(24)]])
    declared = head_end(columns={"meter_id": "m", "time": "t"}, day_columns=DayColumns("h0", 24))
    cells = ",".join("" if k == 5 else "x" if k == 6 else "1" for k in range(24))
    feed = read(tmp_path, f"{header}\nM,2026-11-10,{cells}\n", declared)
    assert feed.intervals.height == 22
    assert codes(feed) == ["missing_value", "bad_number"]
    assert feed.rejects["reads"].to_list() == [2]
    assert feed.received == 24


def test_values_and_their_qualities_by_turns(tmp_path: Path) -> None:
    declared = head_end(
        columns={"meter_id": "m", "time": "t"},
        interval_minutes=720,
        day_columns=DayColumns("v1", 2, step=2, quality=1),
        quality_map={"ok": "A", "est": "E"},
    )
    feed = read(tmp_path, "m,t,v1,q1,v2,q2\nM,2026-11-10,1,ok,2,est\n", declared)
    assert [code >> 13 for code in feed.intervals["quality"].to_list()] == [0, 3]


def test_a_flag_without_a_meaning_settles_nothing(tmp_path: Path) -> None:
    declared = head_end(columns={**PLAIN, "dst": "d"}, dst_map={"S": "first", "W": "second"})
    lines = "M,2026-11-01 01:00,S,1\nM,2026-11-01 01:00,W,2\nM,2026-11-01 01:30,?,3\nM,2026-11-01 03:00,?,4\n"
    feed = read(tmp_path, f"m,t,d,v\n{lines}", declared)
    assert starts(feed) == ["01 06:00", "01 07:00", "01 09:00"]
    assert codes(feed) == ["bad_time"]


@pytest.mark.parametrize(
    ("rule", "found"), [("refuse", []), ("forward", ["08 08:30"]), ("back", ["08 07:30"]), ("skip", [])]
)
def test_stamps_of_the_hour_that_clocks_skip(tmp_path: Path, rule: str, found: list[str]) -> None:
    feed = read(tmp_path, "m,t,v\nM,2026-03-08 02:30,1\n", head_end(options={"nonexistent": rule}))
    assert starts(feed) == found
    assert codes(feed) == (["nonexistent_time"] if rule == "refuse" else [])
    assert feed.skipped == (rule == "skip")


def test_digits_of_a_format_stand_for_themselves(tmp_path: Path) -> None:
    declared = head_end(time_format="%Y-%m-%d %H:%M:00.0000000")
    feed = read(tmp_path, "m,t,v\nM,2026-11-10 00:00:00.0000000,1\nM,2026-11-10 01:00:30.0000000,1\n", declared)
    assert (feed.intervals.height, codes(feed)) == (1, ["bad_time"])


@pytest.mark.parametrize(
    ("time_format", "text"),
    [
        ("epoch", "1794290400"),
        ("epoch", "1794290400.0"),
        ("epoch_ms", "1794290400000.5"),
        ("epoch_ns", "1794290400000000000"),
        ("excel", "46336.0"),
        ("%d-%B-%Y %H:%M", "10-November-2026 00:00"),
        ("%d-%b-%y %I.%M.%S.%f %p", "10-NOV-26 12.00.00.000000000 AM"),
        ("%Y%j", "2026314"),
        (None, "20261110T000000-0600"),
    ],
)
def test_formats_of_stamps(tmp_path: Path, time_format: str | None, text: str) -> None:
    feed = read(tmp_path, f"m,t,v\nM,{text},1\n", head_end(time_format=time_format))
    assert starts(feed) == ["10 06:00"], feed.rejects


def test_a_clock_that_was_reset_is_refused_by_the_head_end_s_window(tmp_path: Path) -> None:
    feed = read(tmp_path, "m,t,v\nM,2000-01-01 00:00,1\nM,2026-11-10 00:00,1\n", head_end(earliest=date(2024, 1, 1)))
    assert (feed.intervals.height, codes(feed)) == (1, ["implausible_time"])


def test_hours_ending_repeat_two_o_clock(tmp_path: Path) -> None:
    """ERCOT's shape: hour ending 02:00 comes twice in autumn, and a flag says which is the repeated hour."""
    declared = head_end(
        columns={**PLAIN, "time": ("t", "h"), "dst": "d"}, stamp="ending", dst_map={"N": "first", "Y": "second"}
    )
    lines = "".join(
        f"M,2026-11-01,{hour:02d}:00,{flag},{hour}\n" for hour in range(1, 25) for flag in ("NY" if hour == 2 else "N")
    )
    feed = read(tmp_path, f"m,t,h,d,v\n{lines}", declared)
    assert codes(feed) == []
    begin, _ = CALENDAR.bounds(date(2026, 11, 1))
    seconds = [int(each.timestamp() - begin.timestamp()) for each in feed.intervals["interval_start"].to_list()]
    assert seconds == [3600 * k for k in range(25)]
    spring = "".join(f"M,2026-03-08,{hour:02d}:00,N,1\n" for hour in range(1, 25) if hour != 3)
    assert read(tmp_path, f"m,t,h,d,v\n{spring}", declared).intervals.height == 23


def test_quoted_thousands_in_a_file_of_commas(tmp_path: Path) -> None:
    content = 'm,t,v\nM,2026-11-10 00:00,"1,234.50"\nM,2026-11-10 01:00,"12,34.5"\nM,2026-11-10 02:00,7\n'
    feed = read(tmp_path, content, head_end(thousands=","))
    assert (feed.intervals["value"].to_list(), codes(feed)) == ([1_234_500_000, 7_000_000], ["bad_number"])


def test_columns_by_number_and_words_for_nothing(tmp_path: Path) -> None:
    content = "m,t,v,v\nM,2026-11-10 00:00,x,1\nM,2026-11-10 01:00,x,NULL\nM,2026-11-10 02:00,x,-\n"
    declared = head_end(columns={**PLAIN, "value": "#4"}, nulls=("NULL", "-"))
    feed = read(tmp_path, content, declared)
    assert (feed.intervals["value"].to_list(), codes(feed)) == ([1_000_000], ["missing_value"] * 2)
    assert codes(read(tmp_path, content, replace(declared, options={"empty": "skip"}))) == []


# -- rows ------------------------------------------------------------------------------------------


def test_rows_that_hold_no_reads_are_counted(tmp_path: Path) -> None:
    content = "sep=;\nm;t;v\nM;2026-11-10 00:00;1\nm;t;v\nTotal;;1\nM2;2026-11-10 00:00;2\n# end\n"
    declared = head_end(delimiter=";", skip={"m": ("Total",), "*": ("#*",)}, keep={"m": ("M", "Total")})
    feed = read(tmp_path, content, declared)
    assert (feed.intervals["meter_id"].to_list(), codes(feed), feed.skipped) == (["M"], [], 4)


def test_line_ends_inside_quotes(tmp_path: Path) -> None:
    content = 'm,t,v,note\nM,2026-11-10 00:00,1,"two\nlines"\nM,2026-11-10 01:00,2,x\n'
    assert codes(read(tmp_path, content, head_end())) == ["bad_quoting", "truncated_row"]
    feed = read(tmp_path, content, head_end(options={"quoted_line_breaks": True}))
    assert (feed.intervals["value"].to_list(), codes(feed)) == ([1_000_000, 2_000_000], [])


@pytest.mark.parametrize(
    ("rows", "total", "refused"), [("2", "3", None), ("3", "3", "control_total"), ("2", "3.1", "control_total")]
)
def test_control_totals(tmp_path: Path, rows: str, total: str, refused: str | None) -> None:
    content = f"m,t,v\nM,2026-11-10 00:00,1\nM,2026-11-10 01:00,2\nTRL,{rows},{total}\n"
    declared = head_end(control=Control("^TRL,([0-9]+)", "^TRL,[0-9]+,(.*)"), options={"footer_lines": 1})
    feed = read(tmp_path, content, declared)
    assert codes(feed) == ([] if refused is None else [refused])
    assert feed.intervals.height == (2 if refused is None else 0)
    missing = read(tmp_path, "m,t,v\nM,2026-11-10 00:00,1\nend\n", declared)
    assert codes(missing) == ["control_total"]


def test_several_values_keep_the_order_of_the_file_and_their_own_units(tmp_path: Path) -> None:
    declared = head_end(
        columns={"meter_id": "m", "time": "t"},
        kind="register",
        unit=None,
        values=(ValueColumn("a", "A", "kWh"), ValueColumn("b", "B", "MWh", "export")),
    )
    feed = read(tmp_path, "m,t,a,b\nM,2026-11-10 00:00,1,2\nM,2026-11-10 01:00,,3\n", declared)
    assert feed.registers.select("channel", "value", "line").rows() == [
        ("A", 1_000_000, 2),
        ("B", 2_000_000_000, 2),
        ("B", 3_000_000_000, 3),
    ]
    assert feed.flow("M", "B") == "export"


def test_two_fields_of_one_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadEndError, match="for a value and a field"):
        read(tmp_path, "m,t,v\n", head_end(columns={**PLAIN, "meter_id": "v"}))


@pytest.mark.parametrize("tail", ["", " note", "\r"])
def test_fields_by_their_places(tmp_path: Path, tail: str) -> None:
    """Lines of one length at once, others line by line; numbers of lines are the file's own."""
    lines = ["M1 202611100000 001.5", f"M2 202611100100 0x2.5{tail}", f"M3 202611100200 003.5{tail}"]
    declared = head_end(
        format="fixed",
        columns={"meter_id": "1-2", "time": "4-15", "value": "17-21"},
        time_format="%Y%m%d%H%M",
        options={"skip_lines": 1},
    )
    feed = read(tmp_path, "HEADER\n" + "\n".join(lines) + "\n", declared)
    assert feed.intervals.select("meter_id", "value", "line").rows() == [("M1", 1_500_000, 2), ("M3", 3_500_000, 4)]
    assert (codes(feed), feed.rejects["line"].to_list()) == (["bad_number"], [3])
    even = read(tmp_path, "\n".join([lines[0]] * 2) + "\n", replace(declared, options={}))
    assert even.intervals.height == 2
    with pytest.raises(HeadEndError, match="no place in a line"):
        read(tmp_path, "x\n", replace(declared, columns={**declared.columns, "value": "21-17"}))


# -- archives and spreadsheets ---------------------------------------------------------------------


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_members_of_a_zip(tmp_path: Path) -> None:
    content = zipped(
        **{
            "a.csv": "m,t,v\nM,2026-11-10 00:00,1\n",
            "b.csv": "m,t,v\nM,2026-11-10 01:00,2\n",
            "readme.txt": "hello",
        }
    )
    assert codes(read(tmp_path, content, head_end())) == ["archive_members"]
    feed = read(tmp_path, content, head_end(options={"member": "*.csv"}))
    assert feed.intervals["value"].to_list() == [1_000_000, 2_000_000]
    assert len(feed.sha256) == 64
    assert codes(read(tmp_path, content, head_end(options={"member": "*.json"}))) == ["archive_members"]
    assert codes(read(tmp_path, content, head_end(options={"member": "*"}))) == ["bad_header"]


CELL = '<c r="{0}" t="inlineStr"><is><t>{1}</t></is></c>'
NUMBER = '<c r="{0}"{2}><v>{1}</v></c>'


def xlsx(rows: list[list[Any]]) -> bytes:
    """A workbook of one sheet: texts, numbers, and datetimes as Excel keeps them."""
    lines = []
    for number, row in enumerate(rows, 1):
        cells = []
        for column, value in enumerate(row):
            place = f"{chr(65 + column)}{number}"
            if isinstance(value, datetime):
                serial = (value - datetime(1899, 12, 30, tzinfo=UTC)).total_seconds() / 86_400
                cells.append(NUMBER.format(place, repr(serial), ' s="1"'))
            elif isinstance(value, str):
                cells.append(CELL.format(place, value))
            else:
                cells.append(NUMBER.format(place, repr(value), ""))
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return zipped(
        **{
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
            f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet name="Reads" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
            f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
            f'<Relationship Id="r2" Type="{office}/styles" Target="styles.xml"/></Relationships>',
            "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>',
        }
    )


def test_a_spreadsheet_is_read_as_its_cells(tmp_path: Path) -> None:
    moments = [datetime(2026, 11, 10, hour, tzinfo=UTC) for hour in range(3)]
    content = xlsx([["m", "t", "v"], *[["M", moment, 0.1 + 0.2 * k] for k, moment in enumerate(moments)]])
    feed = read(tmp_path, content, head_end(rounding="half_even", delimiter=";", decimal=","), "feed.xlsx")
    assert starts(feed) == ["10 06:00", "10 07:00", "10 08:00"], feed.rejects
    assert feed.intervals["value"].to_list() == [100_000, 300_000, 500_000]
    assert feed.intervals["line"].to_list() == [2, 3, 4]
    texts = xlsx([["m", "t", "v"], ["M", "10.11.2026 00:00", "1"]])
    assert starts(read(tmp_path, texts, head_end(time_format="%d.%m.%Y %H:%M"))) == ["10 06:00"]
    assert codes(read(tmp_path, content, head_end(options={"sheet": "Other"}))) == ["spreadsheet"]


def test_a_damaged_spreadsheet_is_refused_by_that_name(tmp_path: Path) -> None:
    assert codes(read(tmp_path, zipped(**{"xl/workbook.xml": "<a"}), head_end())) == ["spreadsheet"]
    assert codes(read(tmp_path, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 600, head_end())) == ["spreadsheet"]


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "columns", "count", "refused"),
    [
        ('{"m":"M","d":{"t":["2026-11-10T00:00:00Z","2026-11-10T01:00:00Z"],"v":[1,2]}}', {"time": "d.t", "value": "d.v"}, 2, []),
        ('[{"m":"M","r":[{"t":"2026-11-10T00:00:00Z","v":"1"}]},{"m":"N","r":[]}]', {"time": "r.t", "value": "r.v"}, 1, []),
        ('{"m":"M","d":{"t":["a"],"v":[1,2]}}', {"time": "d.t", "value": "d.v"}, 0, ["bad_document"]),
        ('{"m":"M","a":[{"t":"x"}],"b":[{"v":1}]}', {"time": "a.t", "value": "b.v"}, 0, ["bad_document"]),
        ('{"m":"M"', {"time": "t", "value": "v"}, 0, ["bad_document"]),
        ('{"m":"M","m":"N"}', {"time": "t", "value": "v"}, 0, ["duplicate_key"]),
        ('{"m":"M","t":"2026-11-10T00:00:00Z","v":1}\n{"m":"M","t":"2026-11-10T01:00:00Z","v":2}\n', {"time": "t", "value": "v"}, 2, []),
    ],
)  # fmt: skip
def test_json_documents(tmp_path: Path, content: str, columns: dict[str, str], count: int, refused: list[str]) -> None:
    feed = read(tmp_path, content, head_end(format="json", columns={"meter_id": "m", **columns}))
    assert (feed.intervals.height, codes(feed)) == (count, refused)


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ('{"a":{"b":{"m":"M","x":[1,{"y":2}]},"t":"2026-11-10T00:00:00Z"},"v":1,"z":true,"w":{}}', []),
        ('{"v":1,"a":{"t":"2026-11-10T00:00:00Z","b":{"m":"M"}}}', []),
        ('{"v":1,"a":{"t":"2026-11-10T00:00:00Z","b":{"m":"\\u004d"}}}', []),
        ('{"v":1,"a":{"t":"2026-11-10T00:00:00Z","b":{"m":"M","m":"N"}}}', ["duplicate_key"]),
        ('{"v":1,"a":{"t":"2026-11-10T00:00:00Z","b":{}}}', ["missing_field"]),
        ('{"v":1,"a":{"t":"2026-11-10T00:00:00Z","b":"M"}}', ["bad_json", "missing_field"]),
        ('{"v":1,"a":{"t":"2026-11-10T00:00:00Z","b":{"m":"M"}}', ["bad_json"]),
        ('{"v":{"x":1},"a":{"t":"2026-11-10T00:00:00Z","b":{"m":"M"}}}', ["bad_json", "missing_value"]),
    ],
)
def test_nested_keys_of_json_lines(tmp_path: Path, line: str, refused: list[str]) -> None:
    declared = head_end(format="jsonl", columns={"meter_id": "a.b.m", "time": "a.t", "value": "v"})
    feed = read(tmp_path, line + "\n", declared)
    assert codes(feed) == refused
    assert feed.intervals.height == (not refused)


# -- declarations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('decimals = ","', "did you mean decimal"),
        ('[options]\ndecimal = ","', "stands at the top of the declaration"),
        ("[columns]\nmeter = 'm'", "did you mean meter_id"),
        ('separator = ";"', "did you mean delimiter"),
        ("[option]\nskip_lines = 1", "did you mean options"),
        ("[day_columns]\nfirst = 'a'\ncuont = 3", "did you mean count"),
        ("[day_columns]\nfirst = 'a'", "give count"),
        ("interval_minutes = 30\n[day_columns]\nfirst = 'a'\ncount = 24", "24 of 30 minutes are 12 hours, no day"),
        ("[[values]]\ncolumn = 'a'", "give channel"),
        ("[ids]\nprefix = 3", "prefix: 3 is not str"),
        ('rounding = "up"', "half_even, half_up"),
        ('decimal = "::"', "decimal must be one ASCII mark"),
        ('quote = ";"\ndelimiter = ";"', "quote must be another mark"),
        ("[flows]\nE1 = 'both'", "import, export, net, other"),
        ("[columns]\ndst = 'd'", "dst_map"),
        ("average_power = true", "interval_minutes"),
        ("[control]\nrows = '('", "control: rows"),
        ("[options]\nnonexistent = 'guess'", "refuse, forward, back or skip"),
    ],
)
def test_a_declaration_says_what_is_wrong_with_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "declared.toml"
    path.write_text(f'format = "delimited"\n{text}\n')
    with pytest.raises(HeadEndError, match=said):
        read_head_end(path)


# -- versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "name", "found"),
    [
        (Version(name="_([0-9]{8}T?[0-9]{4})"), "reads_20261112T0600.csv", 202611120600),
        (Version(name="_([0-9]{8})"), "reads.csv", None),
        (Version(header="^Created: ([0-9 :-]+)"), "reads.csv", 202611120601),
        (Version(header="^Made: (.*)"), "reads.csv", None),
        (Version(), "reads.csv", 0),
    ],
)
def test_a_version_in_the_name_or_header_orders_a_file(
    tmp_path: Path, version: Version, name: str, found: int | None
) -> None:
    content = "Created: 2026-11-12 06:01\nm,t,v\nM,2026-11-10 00:00,1\n"
    feed = read(tmp_path, content, head_end(version=version, options={"skip_lines": 1}), name)
    assert feed.intervals["source_version"].to_list() == ([] if found is None else [found])
    assert codes(feed) == ([] if found is not None else ["no_version"])


@pytest.mark.parametrize("name", ["delimited", "jsonl"])
def test_numbers_that_stand_for_no_value_are_none_however_they_are_written(tmp_path: Path, name: str) -> None:
    rows = [("1.5", "A"), ("-999", "B"), ("-999.0", "C"), ("NULL", "D"), ("99", "E"), ("-9990", "F")]
    path = tmp_path / "feed"
    if name == "delimited":
        path.write_text("m,t,v\n" + "".join(f"{m},2026-03-02T00:15:00Z,{v}\n" for v, m in rows))
    else:
        path.write_text("".join(f'{{"m":"{m}","t":"2026-03-02T00:15:00Z","v":"{v}"}}\n' for v, m in rows))
    columns = {"meter_id": "m", "time": "t", "value": "v"}
    for empty, rejected in (("skip", 0), ("reject", 3)):
        head_end = HeadEnd(
            "x",
            name,
            interval_minutes=15,
            unit="kWh",
            columns=columns,
            nulls=("-999", "NULL"),
            options={"empty": empty},
        )
        feed = parse(path, head_end, BillingCalendar("UTC"))
        assert feed.intervals["meter_id"].to_list() == ["A", "E", "F"]
        assert [r["reasons"][0]["code"] for r in feed.rejects.to_dicts()] == ["missing_value"] * rejected


def test_a_carriage_return_in_the_last_line_is_no_line_of_its_own(tmp_path: Path) -> None:
    """Found by fuzzing: the footer was counted in lines that other code does not count as lines."""
    path = tmp_path / "feed"
    path.write_bytes(b"m,t,v\nA,2026-03-02T00:15:00Z,1\nend\rof;file")
    columns = {"meter_id": "m", "time": "t", "value": "v"}
    head_end = HeadEnd("x", "delimited", interval_minutes=15, unit="kWh", columns=columns, options={"footer_lines": 1})
    feed = parse(path, head_end, BillingCalendar("UTC"))
    assert (feed.intervals["value"].to_list(), feed.rejects.height) == ([1_000_000], 0)


def test_a_zone_behind_each_stamp_tells_the_repeated_hour(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    path.write_text("m,t,v\nA,2026-11-01 01:00 CDT,1\nA,2026-11-01 01:00 CST,2\nA,2026-11-01 01:00 XYZ,3\n")
    columns = {"meter_id": "m", "time": "t", "value": "v"}
    head_end = HeadEnd(
        "x", "delimited", interval_minutes=60, unit="kWh", time_format="%Y-%m-%d %H:%M %Z", columns=columns
    )
    feed = parse(path, head_end, BillingCalendar("UTC"))
    assert [at.hour for at in feed.intervals["interval_start"]] == [6, 7]
    assert [r["reasons"][0]["code"] for r in feed.rejects.to_dicts()] == ["bad_time"]


def test_a_total_in_a_row_that_is_passed_over_is_held_against_the_rows(tmp_path: Path) -> None:
    columns = {"meter_id": "m", "time": "t", "value": "v"}
    head_end = HeadEnd(
        "x",
        "delimited",
        interval_minutes=60,
        unit="kWh",
        columns=columns,
        skip={"m": ("Grand*",)},
        control=Control(sum="^Grand Total,,([0-9.]+)$"),
    )
    path = tmp_path / "feed"
    for total, kept in (("1.5", 1), ("1.6", 0)):
        path.write_text(f"m,t,v\nA,2026-03-02T00:00:00Z,1.5\nGrand Total,,{total}\n")
        assert parse(path, head_end, BillingCalendar("UTC")).intervals.height == kept


def test_what_macos_adds_to_a_zip_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "feed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", "hello")
        archive.writestr("a/x.csv", "m,t,v\nA,2026-03-02T00:00:00Z,1\n")
        archive.writestr("__MACOSX/a/._x.csv", "junk")
    columns = {"meter_id": "m", "time": "t", "value": "v"}
    head_end = HeadEnd("x", "delimited", interval_minutes=60, unit="kWh", columns=columns, options={"member": "*.csv"})
    assert parse(path, head_end, BillingCalendar("UTC")).intervals.height == 1


def test_other_words_of_quality_and_units_behind_values(tmp_path: Path) -> None:
    columns = {"meter_id": "m", "time": "t", "value": "v", "quality": "q"}
    head_end = HeadEnd(
        "x", "delimited", interval_minutes=60, unit="kWh", columns=columns, quality_map={"Actual": "A", "*": "F"}
    )
    path = tmp_path / "feed"
    rows = [("A", "1.5 kWh", "Actual"), ("B", "2KWH", "Guessed"), ("C", "3 MWh", "Actual")]
    path.write_text("m,t,v,q\n" + "".join(f"{m},2026-03-02T00:00:00Z,{v},{q}\n" for m, v, q in rows))
    feed = parse(path, head_end, BillingCalendar("UTC"))
    assert feed.intervals["value"].to_list() == [1_500_000, 2_000_000]
    assert [c["quality"] for c in report("feed", feed)["channels"]] == [{"A": 1}, {"F": 1}]
    assert [r["reasons"][0]["code"] for r in feed.rejects.to_dicts()] == ["bad_number"]


# -- lengths that the reads show ---------------------------------------------------------------------


def lengths(tmp_path: Path, *rows: str) -> tuple[dict[str, set[int]], list[str]]:
    """Minutes of each meter's intervals, and what is said of rejected rows."""
    declared = head_end(interval_minutes=None)
    feed = read(tmp_path, "m,t,v\n" + "".join(f"{row}\n" for row in rows), declared)
    found: dict[str, set[int]] = {}
    for meter, minutes in feed.intervals.select("meter_id", "interval_minutes").rows():
        found.setdefault(meter, set()).add(minutes)
    said = [reason["detail"] for reasons in feed.rejects["reasons"].to_list() for reason in reasons]
    return found, said


QUARTERS = [f"Q,2026-11-10 {h:02}:{m:02},0.25" for h in range(24) for m in (0, 15, 30, 45)]


def test_meters_of_several_lengths_in_a_file_that_declares_none(tmp_path: Path) -> None:
    """All were read at the file's commonest distance: an hour's use in 15 minutes, and three estimates beside it."""
    hours = [f"H,2026-11-10 {h:02}:00,1" for h in range(24)]
    days = [f"D,2026-11-{d:02} 00:00,24" for d in range(1, 20)]
    assert lengths(tmp_path, *QUARTERS, *hours, *days) == ({"Q": {15}, "H": {60}, "D": {1440}}, [])
    gappy = [row for k, row in enumerate(QUARTERS) if k % 7 and k not in range(30, 40)]
    assert lengths(tmp_path, *gappy) == ({"Q": {15}}, [])


def test_what_the_reads_do_not_show_is_refused(tmp_path: Path) -> None:
    """A read alone has the length of the others where these have one."""
    few = ["D,2026-11-10 00:00,24", "S,2026-11-10 00:00,1", "S,2026-11-10 01:00,1"]
    assert lengths(tmp_path, *QUARTERS, *few) == ({"Q": {15}, "D": {15}, "S": {15}}, [])
    hours = [f"H,2026-11-10 {h:02}:00,1" for h in range(24)]
    found, said = lengths(tmp_path, *QUARTERS, *hours, *few)
    assert found == {"Q": {15}, "H": {60}}
    assert said == [
        "a channel with one read shows no interval length: declare interval_minutes, or the column that says it",
        *[
            (
                "2 reads of the channel, most of them 60 minutes apart, show no interval length: declare interval_minutes, or "
                "the column that says it"
            )
        ]
        * 2,
    ]


def test_a_length_that_changes_within_a_channel_is_refused(tmp_path: Path) -> None:
    halves = [f"Q,2026-11-11 {h:02}:{m:02},0.5" for h in range(24) for m in (0, 30)]
    changed = lengths(tmp_path, *QUARTERS, *halves)
    assert changed[0] == {"Q": {15}}
    assert len(changed[1]) == 48
    assert "reads stand 30 minutes apart here and 15 elsewhere in the channel" in changed[1][0]
