"""Ready declarations of vendors' exports: a file of each shape is recognised, and read as its sender means it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.cli.feeds import app
from meter_pipeline.feeds import parse
from meter_pipeline.feeds.inspect import report
from meter_pipeline.feeds.vendors import fitting, vendors

READY = {each.name: each for each in vendors()}


def route(kind: str, **fields: str) -> str:
    """A fixed-width record: each field ends or begins at the letter its name says."""
    line = list(f"{kind:<130}")
    for place, text in fields.items():
        begin = int(place.removeprefix("at_")) - 1
        line[begin : begin + len(text)] = text
    return "".join(line).rstrip() + "\n"


ROUTE = (
    route("COMHD", at_6="0001")
    + route("RTEHD", at_24="20261110")
    + route("PRMDT", at_104="000000000000000ACC-1")
    + route("MTRDT", at_38="N-1001")
    + route("ORDST", at_6="20261109")
    + route("RDGDT", at_50="06", at_89="0000012345")
    + route("PRMDT", at_104="000000000000000ACC-2")
    + route("MTRDT", at_38="N-1002")
    + route("RDGDT", at_50="06", at_89="0000000777")
)
AMI = "11/10/2026 01:00:00.000000,{},70011,2.16.840.1.114416.1,L_1,01/01/2020 00:00:00.000000,CF_WAT\n"
ITRON = "Timestamp,Read_Value,Meter_Serial_Number,EndpointID,Location_ID,Meter_Install_Date,Read_Units\n"
INTERVALREADS = (
    "METER_ID,CHANNEL_ID,READ_DT,READ_HR,READ_30MIN_INT,READ_15MIN_INT,READ_5MIN_INT,READ_DTM,READ_VALUE,UOM,STATUS,"
    "READ_VERSION\nMS1,1,2026-11-10,1,0,0,0,2026-11-10T01:00:00,1.5,CF,1,1\n"
    "MS1,1,2026-11-10,2,0,0,0,2026-11-10T02:00:00,2.5,CF,1,1\n"
)
REGISTERREADS = "METER_ID,CHANNEL_ID,READ_DTM,READ_VALUE,UOM,STATUS,READ_VERSION\nMS1,1,2026-11-10T01:00:00,5,CF,1,1\n"
ACLARA = (
    "AccountNumber,MeterSN,MTUID,Port,AccountType,Address1,City,State,Zip,RawRead,ScaledRead,ReadingTime,LocalTime,Active,"
    "Scalar,MeterTypeID,Vendor,Model,Description,ReadInterval\n"
    '17,8001,2,1,RESIDENTIAL,"12 MY LN, UNIT 2",X,CA,0,23497071,023497.071,2026-11-10 16:00:00.000,'
    "2026-11-10 08:00:00.000,1,0.001,2212,BADGER,HR-E LCD,9D 0.001CuFt,60\n"
    "17,8001,2,1,RESIDENTIAL,12 MY LN,X,CA,0,,ERROR,2026-11-10 17:00:00.000,2026-11-10 09:00:00.000,1,0.001,2212,B,H,D,60\n"
)
BEACON = (
    "Account_ID,Meter_ID,Flow,Flow_Time,Flow_Unit,Read,Read_Time,Read_Unit,Estimated_Flag\n"
    "A1,B7,1.25,2026-11-10 01:59,CCF,881.5,2026-11-10 01:59,CCF,0\n"
)
SENTRYX = json.dumps(
    {
        "meters": [
            {
                "deviceId": 123,
                "bodySerialNumber": "21",
                "units": "CF",
                "data": [{"timeStamp": "2026-11-10T01:00:00", "reading": 35828, "consumption": 0}],
            }
        ]
    }
)
CMEP = (
    "MEPMD01,19970819,Sensus,C:1,CITY,C61,202611100800,C61,OK,W,CF,1.0,00000100,2,202611100100,R0,3,202611100200,R0,4\n"
    "MEPMD01,19970819,Sensus,C:1,CITY,C61,202611100800,C61,OK,W,CFREG,1.0,00000100,1,202611100200,R0,5007\n"
)
GREEN = '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:e="http://naesb.org/espi"></feed>'

#: vendor -> file name, content, and (meter, channel, unit, sum, first instant) of what it holds
SAMPLES: dict[str, tuple[str, str, list[tuple[str, str, str, str, str]]]] = {
    "aclara": ("CaDC_Readings_11102026.csv", ACLARA, [("8001", "R1", "ft3", "23497.071", "2026-11-10T16:00:00Z")]),
    "badger-beacon": (
        "range.csv",
        BEACON,
        [
            ("B7", "F1", "CCF", "1.25", "2026-11-10T06:59:00Z"),
            ("B7", "R1", "CCF", "881.5", "2026-11-10T07:59:00Z"),
        ],
    ),
    "itron-interval": (
        "cityof_Interval_20261110_20261111.csv",
        ITRON + AMI.format("4.5"),
        [("70011", "F1", "CF", "4.5", "2026-11-10T08:00:00Z")],
    ),
    "itron-register": (
        "cityof_Register_202611.csv",
        ITRON + AMI.format("4500") + AMI.format("4294967294"),
        [("70011", "R1", "CF", "4500", "2026-11-10T09:00:00Z")],
    ),
    "metersense-interval": ("i.csv", INTERVALREADS, [("MS1", "1", "CF", "4", "2026-11-10T08:00:00Z")]),
    "metersense-register": ("r.csv", REGISTERREADS, [("MS1", "1", "CF", "5", "2026-11-10T09:00:00Z")]),
    "mueller-sentryx": ("c.json", SENTRYX, [("123", "R1", "CF", "35828", "2026-11-10T09:00:00Z")]),
    "neptune-route": ("route.exp", ROUTE, [("N-1001", "R1", "gal", "12345", "2026-11-09T06:00:00Z")]),
    "sensus-rni": (
        "STAHO_IntervalReport_202611100815.txt",
        CMEP,
        [("C61", "CF", "CF", "7", "2026-11-10T00:00:00Z"), ("C61", "CFREG", "CF", "5007", "2026-11-10T02:00:00Z")],
    ),
    "green-button": ("g.xml", GREEN, []),
}


def test_there_is_a_sample_of_each() -> None:
    assert set(SAMPLES) == set(READY)
    assert all(each.title and each.source for each in READY.values())


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_its_file_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    file, content, holds = SAMPLES[name]
    path = tmp_path / file
    path.write_text(content)
    assert [each.name for each in fitting(path)] == [name]
    if holds:
        document = report(file, parse(path, READY[name].head_end, BillingCalendar("UTC")))
        found = [
            (c["meter_id"], c["channel"], c["unit"], c["sum"], f"{c['first']:%Y-%m-%dT%H:%M:%SZ}")
            for c in document["channels"]
        ]
        assert found == holds


def test_a_meter_without_an_order_does_not_take_its_neighbours_date(tmp_path: Path) -> None:
    path = tmp_path / "route.exp"
    path.write_text(ROUTE)
    feed = parse(path, READY["neptune-route"].head_end, BillingCalendar("UTC"))
    assert [(row["line"], row["reasons"][0]["code"]) for row in feed.rejects.to_dicts()] == [(9, "missing_field")]


def test_other_files_fit_nobody(tmp_path: Path) -> None:
    for content in ("meter,time,value\nM,2026-11-10,1\n", "", '{"a": 1}', "<feed/>", "\x00\x01"):
        (tmp_path / "x").write_text(content)
        assert fitting(tmp_path / "x") == []


def test_the_command_names_it_and_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(ACLARA)
    run = CliRunner()
    assert json.loads(run.invoke(app, ["inspect", str(path), "--json"]).stdout)["vendors"] == ["aclara"]
    assert run.invoke(app, ["vendors", "aclara"]).stdout == READY["aclara"].text
    assert "sensus-rni" in run.invoke(app, ["vendors"]).stdout
    found = json.loads(run.invoke(app, ["inspect", str(path), "--head-end", "vendor:aclara", "--json"]).stdout)
    assert found["channels"][0]["sum"] == "23497.071"
