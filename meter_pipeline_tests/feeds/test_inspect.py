"""``feeds inspect``: the contract of CLI.md, exact sums, guesses that are shown as guesses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.cli.feeds import app
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.inspect import exact_decimal, inspect
from meter_pipeline.feeds.registry import format_name
from meter_pipeline.ids import canonical_id
from meter_pipeline.units import parse_decimal, to_micro

HERE = Path(__file__).parent


def inspected(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["inspect", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout) if result.exit_code < 2 else {}


def written(tmp_path: Path, content: str, name: str = "feed.csv") -> str:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    return str(path)


def test_the_report_has_the_contract_s_keys(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "meter_id,timestamp,kwh\n"
        + "".join(f"M1,2026-03-02T0{h}:00:00-06:00,0.{h}\n" for h in range(10))
        + "M1,never,1\n",
    )
    code, document = inspected(file)
    assert code == 1
    assert document["channels"] == [
        {
            "meter_id": "M1",
            "channel": "1",
            "unit": "kwh",
            "interval_minutes": 60,
            "readings": 10,
            "sum": "4.5",
            "first": "2026-03-02T06:00:00Z",
            "last": "2026-03-02T15:00:00Z",
            "quality": {"A": 10},
        }
    ]
    assert [(each["line"], each["reason"]) for each in document["rejected"]] == [(12, "bad_time")]
    assert document["assumed"]["columns"] == {"meter_id": "meter_id", "time": "timestamp", "value": "kwh"}


def test_a_declared_head_end_is_obeyed_and_an_unknown_one_is_wrong_usage(tmp_path: Path) -> None:
    file = written(tmp_path, "V1;V2;V3\nabc;01/03/2017 00:03:26;117279\n")
    code, document = inspected(file, "--head-end", str(HERE / "head_ends" / "water-alicante.toml"))
    assert code == 0
    assert document["channels"][0] | {"first": None} == {
        "meter_id": "ABC",
        "channel": "R1",
        "unit": "L",
        "interval_minutes": None,
        "readings": 1,
        "sum": "117279",
        "first": None,
        "last": "2017-02-28T23:03:26Z",
        "quality": {"A": 1},
        "advance": "0",
        "decreases": 0,
        "gaps_over_2h": 0,
    }
    assert inspected(file, "--head-end", "nobody", "--head-ends", str(tmp_path))[0] == 2
    assert inspected(str(tmp_path / "absent"))[0] == 2
    assert inspected(file, "--format", "cuneiform")[0] == 2


def test_two_values_of_one_interval_in_a_file_are_counted(tmp_path: Path) -> None:
    lines = "".join(f"M1,2026-03-02T0{h}:00:00-06:00,1\n" for h in range(6))
    file = written(tmp_path, f"meter_id,timestamp,kwh\n{lines}M1,2026-03-02T01:00:00-06:00,3\n")
    code, document = inspected(file)
    assert code == 0
    assert (document["channels"][0]["readings"], document["channels"][0]["repeated"]) == (7, 1)
    assert "1 of 7 readings name" in CliRunner().invoke(app, ["inspect", file]).stdout.replace("\n", " ")


@pytest.mark.parametrize("content", ["", "once upon a time\n", "a,b,c\nx,y,z\n", "{}\n", '{"a": 1}\n', "[1]\n"])
def test_what_nobody_recognises_is_a_named_refusal(tmp_path: Path, content: str) -> None:
    code, document = inspected(written(tmp_path, content))
    assert code == 1
    assert document["rejected"][0]["reason"] in ("empty_file", "unknown_format")


def test_json_lines_are_guessed(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"meter": "M1", "start": f"2026-03-02T00:{m}:00Z", "value": 0.25, "unit": "kWh"}) + "\n"
        for m in ("00", "15", "30")
    )
    code, document = inspected(written(tmp_path, lines, "feed.jsonl"))
    assert code == 0
    assert (document["format"], document["channels"][0]["sum"], document["channels"][0]["interval_minutes"]) == (
        "jsonl",
        "0.75",
        15,
    )


@given(
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.sampled_from(["kWh", "L", "kL", "GAL", "10^3 kWh", "10^-3 therm"]),
)
def test_sums_in_the_file_s_unit_are_exact(text: str, spelling: str) -> None:
    from meter_pipeline.feeds.coded_columns import unit_factor

    micro = to_micro(parse_decimal(text), unit_factor(spelling)[1])
    assert parse_decimal(exact_decimal(micro, spelling)) == parse_decimal(text)


@given(st.text(max_size=40))
def test_an_identifier_is_never_made_of_another(text: str) -> None:
    found = canonical_id(text)
    if found is not None:
        assert found.isascii()
        assert len(found) <= 64
        assert canonical_id(found) == found
        assert found.replace("-", "") == text.replace("-", "").upper()


@pytest.mark.parametrize("text", ["M\n", " M", "M ", "", "A" * 65, "M;1", "ı1", "ﬀ", "M\0", "１", "=1"])
def test_what_is_no_identifier(text: str) -> None:
    assert canonical_id(text) is None


@pytest.mark.parametrize(
    ("before", "after", "stated", "differs"),
    [
        ("999950", "000015", "65", None),
        ("9999.5", "0000.5", "1", None),
        ("100", "90", "-10", None),
        ("100", "110", "400", "10"),
        ("950", "10015", "65", "9065"),
    ],
)
def test_a_stated_quantity_is_held_against_its_dials(
    tmp_path: Path, before: str, after: str, stated: str, differs: str | None
) -> None:
    """Across the last digit a dial counts on; a difference is listed with both figures."""
    file = tmp_path / "one.csv"
    file.write_text(
        "100,NEM13,202603030000,A,B\n"
        f"250,N1,11,1,11,11,S,E,{before},20260101000000,A,,,{after},20260301000000,A,,,{stated},kWh,20260601,20260302000000,\n900\n"
    )
    found = inspect(file, HeadEnd("given", "nem12", zone="+10:00"), BillingCalendar("UTC"))["stated_differences"]
    assert [(each["line"], each["stated"], each["by_dials"]) for each in found] == (
        [] if differs is None else [(2, stated, differs)]
    )


def test_aliases_of_formats() -> None:
    assert [format_name(alias) for alias in ("NEM13", "green_button", "csv")] == ["nem12", "espi", "delimited"]
    with pytest.raises(HeadEndError):
        format_name("xls")
