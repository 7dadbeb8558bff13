"""Dials that start again at a number that is no power of ten: declared, enrolled, and billed across the turn."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.feeds import parse
from meter_pipeline.feeds.head_ends import HeadEndError, read_head_end
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.enrolment import Enrolment, admit
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, local
from meter_pipeline_tests.vee.city import CALENDAR

FIRST = date(2026, 8, 24)
DAYS = [FIRST + timedelta(days=k) for k in range(4)]


def test_a_dial_of_five_digits_that_turns_at_60000_is_billed_across_the_turn(database: Database) -> None:
    town = Town(database)
    town.tariff(flat("W", "water", "m3", "2.00"))
    town.cycle(DAYS[0], DAYS[3] + timedelta(days=1))
    for name, modulus in (("ODD", 60000), ("EVEN", None)):
        town.service(name, "W", "water")
        town.meter(name, name, dial("m3", modulus=modulus), commodity="water")
    for k, (odd, even) in enumerate([("59990", "99990"), ("59995", "99995"), ("0", "0"), ("5", "5"), ("12", "12")]):
        town.read("ODD", local(FIRST + timedelta(days=k)), odd, unit="m3")
        town.read("EVEN", local(FIRST + timedelta(days=k)), even, unit="m3")
    town.run(*DAYS, issue=True)
    assert list(town.usage("ODD").values()) == [5, 5, 5, 7]
    assert [town.billed(name) for name in ("ODD", "EVEN")] == [22, 22]


def test_a_read_beyond_the_turn_is_impossible(database: Database) -> None:
    town = Town(database)
    town.tariff(flat("W", "water", "m3", "2.00"))
    town.cycle(DAYS[0], DAYS[3] + timedelta(days=1))
    town.service("ODD", "W", "water")
    town.meter("ODD", "ODD", dial("m3", modulus=60000), commodity="water")
    for k, odd in enumerate(["59980", "61000", "59990", "59995", "2"]):
        town.read("ODD", local(FIRST + timedelta(days=k)), odd, unit="m3")
    town.run(*DAYS)
    assert sum(town.usage("ODD").values()) == 22


DECLARED = """
format = "delimited"
commodity = "water"
kind = "register"
unit = "m3"
[columns]
meter_id = "meter"
time = "at"
value = "dial"
[constants]
channel = "R1"
[dials]
R1 = 5
[moduli]
"""


def test_enrolment_writes_the_turn_down(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(DECLARED + "R1 = 60000\n")
    (tmp_path / "odd.csv").write_text("meter,at,dial\nODD,2026-08-24T00:00:00Z,59990\nODD,2026-08-25T00:00:00Z,6\n")
    parsed = parse(tmp_path / "odd.csv", read_head_end(tmp_path / "odd.toml"), CALENDAR)
    rows = admit(parsed, CALENDAR, Enrolment("ODD", "W", "C1", "water"), frozenset()).rows
    channel = dict(zip(TABLES["channels"].columns, rows["channels"][0], strict=True))
    assert [channel["dials"], channel["modulus"]] == [5, Decimal(60000)]
    for wrong in ("R1 = 0", 'R1 = "many"', "R1 = -5"):
        (tmp_path / "bad.toml").write_text(DECLARED + wrong)
        with pytest.raises(HeadEndError, match="moduli: R1"):
            read_head_end(tmp_path / "bad.toml")
