"""``feeds guess`` writes a declaration that reads the file; ``feeds check`` says what is wrong with one and what to
change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.cli.feeds import app
from meter_pipeline.feeds.head_ends import DayColumns, Periods, read_head_end
from meter_pipeline.feeds.inspect import inspect


def hours(line: str, count: int = 24) -> str:
    return "".join(
        line.format(h=hour, v=(hour * 7) % 11 / 10, c=str((hour * 7) % 11 / 10).replace(".", ","))
        for hour in range(count)
    )


HALF_HOURS = [f"{k // 2:02d}:{k % 2 * 30:02d}" for k in range(1, 49)]
#: name -> (file, what its declaration must say, meters and readings)
FILES: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "decimal commas": (
        "Zaehlpunkt;Beginn;Wert;Einheit\n" + hours("AT0099990123456789012345678901232;10.11.2026 {h:02d}:00;{c};KWH\n"),
        {"delimiter": ";", "decimal": ",", "time_format": "%d.%m.%Y %H:%M"},
        {"AT0099990123456789012345678901232": 24},
    ),
    "date and time apart under a preamble": (
        "Name,,,\nAddress,,,\nMeter Number,Date,Start Time,Consumed\n" + hours("0004711,11/13/2026,{h:02d}:00,{v}\n"),
        {"options": {"skip_lines": 2}, "time_format": "%m/%d/%Y %H:%M"},
        {"0004711": 24},
    ),
    "hours by number": (
        "meter,date,hour ending,kwh\n" + "".join(f"M1,2026-11-10,{h},{h % 5}.5\n" for h in range(1, 25)),
        {"interval_minutes": 60},
        {"M1": 24},
    ),
    "a day in a row": (
        ",".join(["MPAN", "Date", *HALF_HOURS]) + "\n12000001,10/11/2026," + ",".join(["0.1"] * 48) + "\n",
        {"stamp": "end", "interval_minutes": 30},
        {"12000001": 48},
    ),
    "several values": (
        "time,meter,Import kWh,Export kWh\n" + hours("2026-11-10 {h:02d}:00,M1,{v},0.{h}\n"),
        {},
        {"M1": 48},
    ),
    "a quality of one letter": (
        "meter,time,value,q\n" + hours("M1,2026-11-10T{h:02d}:00:00Z,{v},A\n"),
        {"unit": ""},
        {"M1": 24},
    ),
    "columns of one letter": (
        "m,t,v\n" + hours("M1,2026-11-10T{h:02d}:00:00Z,{v}\n"),
        {"unit": ""},  # not volts
        {"M1": 24},
    ),
    "start to end": (
        "meter,period,kWh\n" + hours("M1,2026-11-10 {h:02d}:00 - 2026-11-10 {h:02d}:59,{v}\n"),
        {"time_range": " - "},
        {"M1": 24},
    ),
    "words for channels": (
        "MPRN,Read Type,Read Date and End Time,Read Value\n" + hours("100012345,Active Import (kW),10-11-2026 {h:02d}:30,{v}\n")
        + hours("100012345,Active Export (kW),10-11-2026 {h:02d}:30,{v}\n"),
        {"stamp": "end", "flows": {"B2": "export"}},
        {"100012345": 48},
    ),
    "nested JSON": (
        hours('{{"Time":"2026-11-10T{h:02d}:00:00Z","Message":{{"ID":37000037,"Consumption":1978{h:03d}}}}}\n'),
        {"format": "jsonl"},
        {"37000037": 24},
    ),
    "a JSON document": (
        json.dumps(
            {"site": "x", "meters": [
                {"id": f"M-{m}", "unit": "kWh", "readings": [{"ts": f"2026-11-10T{h:02d}:00:00Z", "value": h % 5 / 10} for h in range(24)]}
                for m in range(2)
            ]},
            indent=1,
        ),
        {"format": "json"},
        {"M-0": 24, "M-1": 24},
    ),
    "no meter": (
        "Consumption (kwh), Cost, Start, End\n" + hours("{v}, 3.1, 2026-11-10T{h:02d}:00:00+00:00, 2026-11-10T{h:02d}:59:00+00:00\n"),
        {"constants": {"meter_id": "METER-1"}},
        {"METER-1": 24},
    ),
    "numbers of hours in Spanish": (
        "CUPS;Fecha;Hora;Consumo_kWh\n" + "".join(f"ES01;10/11/2026;{h + 1};0,{h + 100}\n" for h in range(24)),
        {"decimal": ",", "interval_minutes": 60, "time_format": "%m/%d/%Y"},
        {"ES01": 24},
    ),
    "second passes": (
        "meter_no|read_date|hr_ending|kwh\n" + "".join(f"HE12|20261101|{h}|1.5\n" for h in ("01", "02", "02X", *map("{:02d}".format, range(3, 25)))),
        {"periods": Periods(1, "clock"), "time_format": "%Y%m%d"},
        {"HE12": 25},
    ),
    "digits alone": ("Meter,When,kWh\n" + hours("0000012345,20261110{h:02d}00,{v}\n"), {"time_format": "%Y%m%d%H%M"}, {"0000012345": 24}),
    "a quality behind every value": (
        "NMI,Date," + ",".join(f"I{k},Q{k}" for k in range(1, 49)) + "\n6001,2026-11-10," + ",".join(f"0.{k},A" for k in range(10, 58)) + "\n",
        {"day_columns": DayColumns("I1", 48, step=2, quality=1), "interval_minutes": 30},
        {"6001": 48},
    ),
    "values that are missing": (
        "Meter,Start,kWh\n" + hours("M1,2026-11-10 {h:02d}:00,{v}\n") + "M1,2026-11-11 00:00,\nM1,2026-11-11 01:00,nan\n",
        {"nulls": ("nan",)},
        {"M1": 24},
    ),
    "pairs in lists": (
        json.dumps({"units": "kWh", "data": [[1794268800 + 1800 * k, 0.1 + k % 3 / 10] for k in range(48)]}),
        {"format": "json", "time_format": "epoch"},
        {"METER-1": 48},
    ),
    "blanks that do not break": (
        "Meter,Start,kWh\n" + "".join(f'M6,"11/10/26, {h % 12 or 12}:00\u202f{"AP"[h // 12]}M",{h}.5\n' for h in range(24)),
        {"time_format": "%m/%d/%y, %I:%M %p"},
        {"M6": 24},
    ),
    "negatives in parentheses": (
        "Meter,Date,Time,Net kWh\n" + "".join(f'P13,11/10/2026,{h:02d}:00,"{f"({h}.25)" if h % 5 == 1 else f"{h}.5"}"\n' for h in range(24)),
        {"time_format": "%m/%d/%Y %H:%M"},
        {"P13": 24},
    ),
    "start and end times beside a date": (
        "TYPE,DATE,START TIME,END TIME,USAGE (kWh),COST\n" + hours("Electric usage,2026-11-10,{h:02d}:00,{h:02d}:59,{v},$0.10\n"),
        {"constants": {"meter_id": "METER-1"}, "time_format": "%Y-%m-%d %H:%M"},
        {"METER-1": 24},
    ),
    "a row of units": (
        "Timestamp,Meter A,Meter B\n,kWh,kWh\n" + hours("2026-11-10 {h:02d}:00,{v},{v}\n"),
        {"unit": "kWh"},
        {"METER A": 24, "METER B": 24},
    ),
}  # fmt: skip


def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else {}, result.output


@pytest.mark.parametrize("name", FILES)
def test_a_guess_is_a_declaration_that_reads_the_file(tmp_path: Path, name: str) -> None:
    content, said, meters = FILES[name]
    file, out = tmp_path / "first.csv", tmp_path / "guessed.toml"
    file.write_text(content)
    code, document, output = run("guess", str(file), "--name", "NEW", "--zone", "America/Chicago", "--out", str(out))
    assert code == 0, output
    assert out.read_text() == document["declaration"]
    declared = read_head_end(out)
    assert declared.name == "NEW"
    assert {key: getattr(declared, key) for key in said} == said
    found: dict[str, int] = {}
    for channel in inspect(file, declared, BillingCalendar("America/Chicago"))["channels"]:
        found[channel["meter_id"]] = found.get(channel["meter_id"], 0) + channel["readings"]
    assert found == meters
    assert document["reads"][0]["meter_id"] == next(iter(meters))


def test_a_guess_says_what_the_file_cannot(tmp_path: Path) -> None:
    file = tmp_path / "first.csv"
    file.write_text("meter,time,value,status\n" + hours("M1,2026-11-10 {h:02d}:00,{v},X\n"))
    code, document, _ = run("guess", str(file), "--zone", "America/Chicago")
    assert code == 0
    assert {"zone", "stamp", "unit", "quality_map"} <= set(document["notes"])
    assert "# not in the file: ask in which zone" in document["declaration"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("/ISk5MT382-1000\n\n1-0:1.8.1(000001.000*kWh)\n!\n", "P1 telegram"),
        ("UNA:+.? '\nUNB+UNOC:3+1+2'", "MSCONS"),
        ('{"a": [{"b": 1}]}', "no key looks like"),
        ('[\n {"a": 1}\n]', "no key looks like"),
        ("[1, 2]", "declare format json"),
    ],
)
def test_what_cannot_be_guessed_is_refused_in_words(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "first"
    file.write_text(content)
    code, _, output = run("guess", str(file))
    assert code == 1
    assert said in " ".join(output.split())


def test_check_shows_the_first_rejection_of_each_kind_and_what_to_change(tmp_path: Path) -> None:
    declared, file = tmp_path / "d.toml", tmp_path / "f.csv"
    declared.write_text(
        'format = "delimited"\ninterval_minutes = 60\nunit = "kWh"\n[columns]\nmeter_id = "m"\ntime = "t"\nvalue = "v"\n'
    )
    file.write_text(
        "m,t,v\nM,2026-11-10T00:00:00Z,1\nM,2026-11-10 01:00,2\nM,2026-11-10 02:00,3\nM,2026-11-10T03:00:00Z,x\n"
    )
    code, document, _ = run("check", str(declared), str(file))
    assert code == 1
    assert [(each["reason"], each["lines"], each["first_line"]) for each in document["rejected"]] == [
        ("missing_zone", 2, 3),
        ("bad_number", 1, 5),
    ]
    assert document["rejected"][0]["text"] == "M,2026-11-10 01:00,2"
    assert "declare zone" in document["rejected"][0]["change"]
    assert document["reads"][0]["value"] == "1"
    file.write_text("m,t,v\nM,2026-11-10T00:00:00Z,1\n")
    assert run("check", str(declared), str(file))[0] == 0
    declared.write_text('format = "delimited"\ndecimals = ","\n')
    code, _, output = run("check", str(declared), str(file))
    assert code == 2
    assert "did you mean decimal" in output.replace("\n", " ").replace("│", "")
