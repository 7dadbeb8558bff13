"""A day of bad input, file beside file in one inbox: each fault is named, the good reads are billed, nothing is lost
and nothing loaded twice.

A line of 200 MB and markup bombs have their memory measured in feeds/test_hostile.py; here a long line passes through
the whole house.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, date, timedelta
from pathlib import Path

import pytest

from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.feeds.head_ends import read_head_end
from meter_pipeline.feeds.registry import parse
from meter_pipeline.ingest import land_inbox
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline_tests.end_to_end.utility import SmallUtility

DAY = date(2026, 3, 9)
HEADER = "meter,at,kwh,n"
DECLARATION = """
name = "NORTH"
format = "delimited"
commodity = "electricity"
interval_minutes = 15
unit = "kWh"
[columns]
meter_id = "meter"
time = "at"
value = "kwh"
sequence = "n"
[constants]
channel = "E1"
"""


def stamp(utility: SmallUtility, slot: int) -> str:
    return f"{(utility.calendar.bounds(DAY)[0] + timedelta(minutes=15 * slot)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_a_day_of_bad_input_is_named_and_the_rest_is_billed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utility = SmallUtility.make(database, tmp_path, "America/Chicago")
    (utility.settings.head_ends / "north.toml").write_text(DECLARATION)
    declared = read_head_end(utility.settings.head_ends / "north.toml")
    inbox = utility.settings.inbox / "NORTH"
    inbox.mkdir()

    def put(name: str, content: bytes) -> Path:
        path = inbox / name
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        return path

    good = [f"M1,{stamp(utility, n)},0.250,{n + 1}" for n in range(96)]
    first = put("a-good.csv", "\n".join([HEADER, *good, ""]).encode())
    utility.enrol(first, declared, "electricity")
    put("b-same-bytes-another-name.csv", first.read_bytes())
    put("c-empty.csv", b"")
    put("d-utf16.csv", "\n".join([HEADER, *good, ""]).encode("utf-16"))
    one = stamp(utility, 40)
    bad = {
        f"M1,{one}": "truncated_row",
        f"M9,{one},1.0,1": "unknown_meter",
        f"M1,{one[:-1]},1.0,1": "missing_zone",
        f"M1,{one},NaN,1": "not_finite",
        f"M1,{one},1e999,1": "not_finite",
        "M1,2099-01-01T00:00:00Z,1.0,1": "in_future",
    }
    put("e-lines.csv", "\n".join([HEADER, *bad, ""]).encode())
    put("f-long-line.csv", HEADER.encode() + b"\n" + b"M1," + b"9" * (3 << 20) + b"\n")
    put("g-sequence-again.csv", f"{HEADER}\nM1,{stamp(utility, 5)},0.250,6\nM1,{stamp(utility, 5)},0.990,6\n".encode())
    growing = put("h-growing.csv", f"{HEADER}\n{good[0]}\n".encode())

    def parse_while_written(path: Path, *rest: object) -> ParsedFeed:
        if path.name == growing.name:
            with path.open("a") as file:
                file.write(good[1] + "\n")
        return parse(path, *rest)  # type: ignore[arg-type]  # handed through

    with monkeypatch.context() as patch:
        patch.setattr("meter_pipeline.feeds.parse", parse_while_written)
        outcome = land_inbox(database, utility.calendar, utility.settings, clock=SYSTEM_CLOCK, run_id="test")
    assert [name for name, _ in outcome.postponed] == ["NORTH/h-growing.csv"]
    landed = {one.file_name.split("/")[-1]: one for one in outcome.landed}
    assert landed["b-same-bytes-another-name.csv"].duplicate
    refused = {name for name, one in landed.items() if one.refused}
    assert refused == {"c-empty.csv", "d-utf16.csv"}
    assert utility.calendar.day_of(utility.calendar.bounds(DAY)[0]) in outcome.days
    assert all(day.year == 2026 for day in outcome.days), "a read from the future asks for no billing day"

    reports = utility.run(DAY)
    # the growing file is whole by now; what it says is known already
    os.utime(growing, (1_700_000_100, 1_700_000_100))
    again = land_inbox(database, utility.calendar, utility.settings, clock=SYSTEM_CLOCK, run_id="test")
    assert ([one.file_name.split("/")[-1] for one in again.landed], again.postponed) == (["h-growing.csv"], [])
    reports = utility.run(DAY)
    assert all(check.passed for report in reports.values() for check in report.checks), reports

    codes = Counter(
        r["code"]
        for row in utility.read("SELECT reasons::text AS r FROM raw.dead_letter").to_dicts()
        for r in json.loads(row["r"])
    )
    whole = Counter({"empty_file": 1, "wrong_encoding": 1, "line_too_long": 1})
    # two actual reads of one interval that nothing orders: the first stands, the other waits for a person
    assert codes == Counter(bad.values()) + whole + Counter({"unordered_actual": 1})
    billed = utility.read(
        f"SELECT source_quantity, slots FROM billing.determinant_day WHERE billing_day = '{DAY}'"
    ).row(0)
    kept = utility.read(
        f"SELECT value::text AS v FROM raw.interval WHERE billing_day = '{DAY}' AND slot = 6"
    ).to_dicts()
    assert billed == (95 * 250_000 + int(float(kept[0]["v"]) * 1_000_000), 96)
    assert utility.read("SELECT reads FROM raw.reused_sequence").rows() == [(1,)]
    totals = utility.read(
        "SELECT sum(received)::bigint AS r, sum(accepted + duplicate + superseded + rejected)::bigint AS s FROM raw.control_total"
    ).row(0)
    # a file that cannot be read as a whole has no reads to count: its one dead letter holds it
    assert totals[0] == totals[1] == len(good) + len(bad) + len(["the long line"]) + len(["the number", "again"]) + 2
