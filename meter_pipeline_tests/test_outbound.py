"""What goes back to the customer system: reads at the date asked for with their status, determinants and lines under a
versioned contract; nothing is sent twice, a correction is a new sequence, and what was sent is held against what was
taken."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.cli.outputs import app
from meter_pipeline.outbound import records, tables
from meter_pipeline.outbound.contracts import OUTPUTS
from meter_pipeline.outbound.deliveries import DeliveryError, acknowledge, deliver
from meter_pipeline.outbound.templates import TemplateError, plain_template, read_template
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
    put_intervals,
)
from meter_pipeline_tests.billing.test_bill_page import read_at

ZONE = "America/Chicago"
END = JULY + timedelta(days=3)
#: SHA-256 of every contract that was published. A change of a published one breaks a reader: give it a new version and
#: a line here and in docs/outputs.md.
PUBLISHED = {
    "adjustments-1.json": "b97efc64f6d7d2c17bc4b5c8c249d01d2ed1a7b16c9b6f1b1bd4e7c643d9a05a",
    "determinants-1.json": "09364302b4aa2c423b574c3839b286855db2efac61f0a837801425d0b3933893",
    "journal-1.json": "48d18b64798788916855bcac67074ea0419baafb8d342eb75063061c7f85628f",
    "read_requests-1.json": "57cdbd56419fb66172c42f1ce09800ae06e5afb469169469903776adcea84c33",
    "reads-1.json": "43a16bd14ff390cc6b25c0138e4f461e64d129232a4c328a25c78287e97017c4",
    "statements-1.json": "5b49ff2f80ad1f9ff48f6d9cfa1718ebe460ec8cd603b4a3f526a36244ac94e8",
}

ROUTE_FILE = """
output = "reads"
format = "fixed_width"
date = "%m%d%Y"
line_end = "crlf"
extension = "dat"
first_line = "HDR{date}{records}"
last_line = "TRL{sum_dial}"
[[field]]
constant = "RDG"
width = 3
[[field]]
name = "METER"
from = "meter_id"
width = 12
[[field]]
from = "read_date"
width = 8
[[field]]
from = "dial"
width = 9
align = "right"
pad = "0"
implied_decimals = 2
[[field]]
from = "status"
width = 1
map = { read = "A", estimated = "E", missing = "M" }
"""


def template(folder: Path, text: str) -> Any:
    path = folder / "route_file.toml"
    path.write_text(text)
    return read_template(path)


@pytest.fixture
def city(database: Database) -> Database:
    """Meter M-1 (multiplier 10, kWh) at SP-001, read at the beginning and at the end of 1 July; billed for
    three days.
    """
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES ('M-1', 'electricity', 'HE'), ('M-2', 'electricity', 'HE')"
        )
        connection.execute(
            "INSERT INTO ref.installations (service_point_id, meter_id, installed_at) VALUES (%s, 'M-1', '2020-01-01')",
            (point,),
        )
        connection.execute(
            "INSERT INTO ref.channels (meter_id, channel, kind, unit, flow, multiplier, billed) VALUES ('M-1', 'R1', 'register', 'kWh', 'import', 10, true)"
        )
    read_at(database, CHICAGO.bounds(JULY)[0].astimezone(UTC), "100")
    read_at(database, CHICAGO.bounds(JULY + timedelta(days=1))[0].astimezone(UTC), "102.4")
    for day in days(JULY, 3):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    return database


def test_each_meter_asked_for_comes_back_with_its_read_or_with_why_not(city: Database) -> None:
    put_daily(city, JULY + timedelta(days=1), {"SP-001": 30_000_000}, "kWh", "electricity")
    asked = [
        ("M-1", JULY),
        ("M-1", JULY + timedelta(days=1)),
        ("M-1", JULY + timedelta(days=9)),
        ("M-2", JULY),
        ("M-9", JULY),
    ]
    found = {(r["meter_id"], r["read_date"]): r for r in records.reads(city, asked, ZONE)}
    assert len(found) == 5
    actual = found["M-1", JULY]
    assert (actual["status"], actual["dial"], actual["read_on"], actual["reason"]) == ("read", "102.4", JULY, "")
    assert (actual["account_id"], actual["cycle_id"], actual["multiplier"]) == ("A-001", "C1", "10")
    estimate = found["M-1", JULY + timedelta(days=1)]
    assert (estimate["status"], estimate["dial"]) == ("estimated", "105.4"), (
        "102.4 and 30 kWh through a multiplier of 10"
    )
    assert "the read of 2026-07-01" in estimate["reason"]
    late = found["M-1", JULY + timedelta(days=9)]
    assert (late["status"], late["dial"]) == ("missing", None)
    assert "of 9 days since the read of 2026-07-01 are validated" in late["reason"]
    assert found["M-2", JULY]["reason"] == "installed nowhere on the date"
    assert found["M-9", JULY]["reason"] == "unknown meter"
    assert tables.meters_of(city, "R1", "C1", JULY, ZONE) == ["M-1"]
    assert tables.meters_of(city, "R2", "", JULY, ZONE) == []


def test_determinants_and_lines_are_what_the_statement_says(city: Database) -> None:
    determinants = records.determinants(city, "C1", END)
    energy = sum(Decimal(r["quantity"]) for r in determinants if r["determinant"].startswith("energy/"))
    assert energy == 72
    lines = records.statements(city, "C1", END)
    total = city.read("SELECT sum(total)::text AS t FROM billing.statement")["t"][0]
    assert sum(Decimal(line["amount"]) for line in lines) == Decimal(total)


def test_nothing_is_sent_twice_and_a_correction_is_a_new_sequence(city: Database, tmp_path: Path) -> None:
    plain = plain_template(OUTPUTS["reads"])
    first = records.reads(city, [("M-1", JULY), ("M-2", JULY)], ZONE)
    sent = deliver(city, plain, "july", first, tmp_path, by="ana", clock=CLOCK)
    assert (sent.records, sent.sequence, sent.sums) == (2, 1, {"dial": "102.4"})
    again = deliver(city, plain, "july", first, tmp_path, by="ana", clock=CLOCK)
    assert (again.path, again.unchanged) == (None, 2)
    corrected = [r | {"dial": "102.5"} if r["meter_id"] == "M-1" else r for r in first]
    second = deliver(city, plain, "july", corrected, tmp_path, by="ana", clock=CLOCK)
    assert second.path is not None
    (line,) = [json.loads(text) for text in second.path.read_text().splitlines()]
    assert (second.sequence, line["meter_id"], line["dial"], line["sequence"]) == (2, "M-1", "102.5", 2)
    manifest = json.loads((tmp_path / f"{second.path.name}.manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(second.path.read_bytes()).hexdigest()
    assert (manifest["records"], manifest["sums"], manifest["contract"]) == (1, {"dial": "102.5"}, 1)


def test_a_file_that_could_not_be_written_was_not_sent(city: Database, tmp_path: Path) -> None:
    found = records.reads(city, [("M-1", JULY)], ZONE)
    narrow = template(tmp_path, ROUTE_FILE.replace("width = 12", "width = 2"))
    with pytest.raises(TemplateError, match="field METER: 'M-1' has 3 characters, the field 2"):
        deliver(city, narrow, "july", found, tmp_path, by="ana", clock=CLOCK)
    assert tables.deliveries(city, open_only=False) == []
    assert deliver(city, plain_template(OUTPUTS["reads"]), "july", found, tmp_path, by="ana", clock=CLOCK).records == 1


def test_what_was_sent_is_held_against_what_was_taken(city: Database, tmp_path: Path) -> None:
    plain = plain_template(OUTPUTS["statements"])
    sent = deliver(city, plain, "C1", records.statements(city, "C1", END), tmp_path, by="ana", clock=CLOCK)
    assert sent.path is not None
    assert [row["status"] for row in tables.deliveries(city, open_only=True)] == ["sent"]
    answer = tmp_path / "ack.csv"

    def answered(**cells: str) -> Any:
        row = {"file_name": sent.path.name, "records": str(sent.records)} | cells  # type: ignore[union-attr]
        with answer.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(row))
            writer.writeheader()
            writer.writerow(row)
        return acknowledge(city, answer, clock=CLOCK)[0]

    assert answered(records="1").detail == f"took 1 records of {sent.records}"
    assert [row["status"] for row in tables.deliveries(city, open_only=True)] == ["disputed"]
    assert answered(sha256="00" * 32).status == "disputed"
    assert answered(status="rejected", detail="period closed").detail == "rejected: period closed"
    assert answered(sha256=sent.sha256).status == "acknowledged"
    assert tables.deliveries(city, open_only=True) == []
    with pytest.raises(DeliveryError, match=r"line 2: no file 'other.jsonl' was written"):
        answered(file_name="other.jsonl")
    with pytest.raises(DeliveryError, match=r"line 2: records is 'many'"):
        answered(records="many")
    answer.write_text("name\nx\n")
    with pytest.raises(DeliveryError, match=r"line 1: an acknowledgement has the columns file_name and records"):
        acknowledge(city, answer)


def test_a_handheld_route_file_is_a_template(city: Database, tmp_path: Path) -> None:
    route = template(tmp_path, ROUTE_FILE)
    sent = deliver(
        city, route, "R1", records.reads(city, [("M-1", JULY), ("M-9", JULY)], ZONE), tmp_path, by="ana", clock=CLOCK
    )
    assert sent.path is not None
    assert sent.path.read_bytes().decode().split("\r\n") == [
        f"HDR{CLOCK.now():%m%d%Y}2",
        "RDGM-1         07012026000010240A",
        "RDGM-9         07012026" + " " * 9 + "M",
        "TRL102.4",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('output = "nothing"', "output is 'nothing', none of"),
        ('output = "reads"\nformat = "xml"', "format is 'xml'"),
        ('output = "reads"\nformat = "delimited"', r"no \[\[field\]\]"),
        ('output = "reads"\nformat = "delimited"\n[[field]]\nfrom = "dail"', "reads has no 'dail'; it has meter_id"),
        ('output = "reads"\nformat = "fixed_width"\n[[field]]\nfrom = "dial"', "width is None"),
        (
            'output = "reads"\nformat = "delimited"\n[[field]]\nfrom = "dial"\nconstant = "x"',
            "neither from nor constant, or both",
        ),
        ('output = "reads"\nformat = "delimited"\ncolour = 1\n[[field]]\nfrom = "dial"', "unknown 'colour'"),
    ],
)
def test_a_wrong_template_is_refused_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        template(tmp_path, text)


def test_a_template_never_loses_a_digit_and_quotes_what_needs_it(tmp_path: Path) -> None:
    head = 'output = "reads"\nformat = "delimited"\n'
    record = dict.fromkeys(OUTPUTS["reads"].fields) | {"meter_id": 'M,"1"', "dial": "1.25", "status": "odd"}
    two = template(tmp_path, head + '[[field]]\nfrom = "meter_id"\n[[field]]\nfrom = "dial"\ndecimals = 3\n')
    assert two.text([record], {}) == b'meter_id,dial\n"M,""1""",1.250\n'
    with pytest.raises(TemplateError, match=r"1\.25 has more than 1 decimals"):
        template(tmp_path, head + '[[field]]\nfrom = "dial"\ndecimals = 1\n').text([record], {})
    with pytest.raises(TemplateError, match="map has no 'odd'"):
        template(tmp_path, head + '[[field]]\nfrom = "status"\nmap = { read = "A" }\n').text([record], {})
    with pytest.raises(TemplateError, match="is not in ascii"):
        template(tmp_path, head + 'encoding = "ascii"\n[[field]]\nfrom = "meter_id"\n').text(
            [record | {"meter_id": "Ł"}], {}
        )


def test_a_record_outside_its_contract_is_not_sent(city: Database, tmp_path: Path) -> None:
    (good,) = records.reads(city, [("M-1", JULY)], ZONE)
    plain = plain_template(OUTPUTS["reads"])
    for bad, said in (
        (good | {"colour": 1}, "differs from contract 1 in colour"),
        (good | {"status": "fine"}, "status is 'fine'"),
        (good | {"meter_id": None}, "meter_id is missing"),
    ):
        with pytest.raises(DeliveryError, match=said):
            deliver(city, plain, "x", [bad], tmp_path, by="ana", clock=CLOCK)
    with pytest.raises(DeliveryError, match="two records of M-1"):
        deliver(city, plain, "x", [good, good], tmp_path, by="ana", clock=CLOCK)


def test_a_published_contract_does_not_change_and_its_schema_file_is_the_code_s() -> None:
    folder = Path(tables.__file__).parent / "schemas"
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.json")}
    assert files == PUBLISHED
    for output in OUTPUTS.values():
        schema = json.loads((folder / f"{output.name}-{output.version}.json").read_text())
        assert schema == output.schema()
        assert set(output.key) <= set(output.fields)
    changed = replace(OUTPUTS["reads"], fields=dict(list(OUTPUTS["reads"].fields.items())[:-1]))
    assert changed.schema() != OUTPUTS["reads"].schema()


def test_a_sent_record_fits_the_schema_of_its_contract(city: Database, tmp_path: Path) -> None:
    """The files are read back as a customer system would: every field there, of its kind."""
    for name, found in (
        ("reads", records.reads(city, [("M-1", JULY)], ZONE)),
        ("determinants", records.determinants(city, "C1", END)),
        ("statements", records.statements(city, "C1", END)),
    ):
        output = OUTPUTS[name]
        sent = deliver(city, plain_template(output), "s", found, tmp_path, by="ana", clock=CLOCK)
        assert sent.path is not None
        for line in sent.path.read_text().splitlines():
            record = json.loads(line)
            assert list(record) == list(output.fields)
            for field, value in record.items():
                kind = output.fields[field]
                if value is None:
                    assert kind.nullable, field
                elif kind.kind == "date":
                    date.fromisoformat(value)
                elif kind.kind == "integer":
                    assert type(value) is int, field
                else:
                    assert type(value) is str, field


def test_a_period_that_the_cycle_does_not_have_is_refused_and_no_record_is_no_file(
    city: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both said "nothing new since file 0", as if something had been sent before."""
    (tmp_path / "utility.toml").write_text('name = "X"\nzone = "America/Chicago"\ncurrency = "USD"\n')
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", city.url)
    monkeypatch.setenv("METER_PIPELINE_DATA", str(tmp_path))
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    for output in ("statements", "determinants", "read-requests"):
        done = CliRunner().invoke(app, [output, "C9", END.isoformat()])
        assert done.exit_code == 1
        assert f"cycle C9 has no period that ends on {END}" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["journal", "2026-05"])
    assert (done.exit_code, " ".join(done.stdout.split())) == (
        0,
        "journal of 2026-05: there is no record, and no file was written",
    )
