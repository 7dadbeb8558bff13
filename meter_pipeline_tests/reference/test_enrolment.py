"""Enrolment: what a file's channels imply, and what a person is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.registry import parse
from meter_pipeline.reference.enrolment import (
    EnrolledRows,
    Enrolment,
    EnrolmentRefused,
    KnownChannels,
    admit,
    derived_id,
    known_channels_of,
)
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.schemas.reference import TABLES

CALENDAR = BillingCalendar("America/Chicago")
HOW = Enrolment("TEST", "E-RES", "MONTHLY", "electricity")
COLUMNS = {"meter_id": "m", "channel": "c", "time": "t", "value": "v", "interval_minutes": "n"}


def parsed(tmp_path: Path, *lines: str, **declared: Any) -> ParsedFeed:
    path = tmp_path / "feed.csv"
    path.write_text("m,c,t,v,n\n" + "".join(f"{line}\n" for line in lines))
    return parse(path, HeadEnd("TEST", "delimited", unit="kWh", columns=COLUMNS, **declared), CALENDAR)


def table(admitted: EnrolledRows, name: str) -> list[dict[str, Any]]:
    return [dict(zip(TABLES[name].columns, row, strict=True)) for row in admitted.rows.get(name, [])]


def channels(admitted: EnrolledRows) -> dict[str, tuple[str, bool, int | None]]:
    return {
        row["channel"]: (row["flow"], row["billed"], row["interval_minutes"]) for row in table(admitted, "channels")
    }


def enrolled(feed: ParsedFeed, known: KnownChannels | None = None) -> EnrolledRows:
    return admit(feed, CALENDAR, HOW, frozenset(known or {}), known or {})


HOURS = [f"M1,H,2026-11-10T{hour:02d}:00:00-06:00,0.5,60" for hour in range(24)]
DAY = "M1,D,2026-11-10T00:00:00-06:00,12,1440"


def test_hours_and_the_day_of_the_same_energy_are_billed_once(tmp_path: Path) -> None:
    """A Green Button file with an hourly and a daily reading of one usage point: 12 kWh were used, not 24."""
    admitted = enrolled(parsed(tmp_path, *HOURS, DAY))
    assert channels(admitted) == {"H": ("import", True, 60), "D": ("import", False, 1440)}
    assert admitted.notes == [
        (
            "meter M1: channel D (1440 minutes) repeats H (60 minutes): kept, not billed; their sums in the file are 12 and "
            "12 kWh"
        )
    ]


def test_two_channels_of_one_length_are_both_billed(tmp_path: Path) -> None:
    admitted = enrolled(parsed(tmp_path, *HOURS, *[line.replace(",H,", ",H2,") for line in HOURS]))
    assert channels(admitted) == {"H": ("import", True, 60), "H2": ("import", True, 60)}


def test_a_known_meter_gets_the_channels_it_does_not_have(tmp_path: Path) -> None:
    first = enrolled(parsed(tmp_path, *HOURS))
    held = pl.DataFrame(table(first, "channels"))
    feed = parsed(tmp_path, *HOURS, DAY, *[line.replace(",H,", ",X,") for line in HOURS])
    again = admit(feed, CALENDAR, HOW, frozenset({"M1"}), known_channels_of(held, feed))
    assert sorted(again.rows) == ["channels"]
    assert channels(again) == {"D": ("import", False, 1440), "X": ("import", True, 60)}
    everything = pl.concat([held, pl.DataFrame(table(again, "channels"), schema=held.schema)])
    assert admit(feed, CALENDAR, HOW, frozenset({"M1"}), known_channels_of(everything, feed)).rows == {}


def test_a_letter_b_means_export_in_nem_files_only(tmp_path: Path) -> None:
    lines = [line.replace(",H,", ",B1,") for line in HOURS]
    assert channels(enrolled(parsed(tmp_path, *lines)))["B1"][0] == "import"
    assert channels(enrolled(parsed(tmp_path, *lines, flows={"B1": "export"})))["B1"][0] == "export"
    nem = tmp_path / "nem.csv"
    values = ",".join(["0.5"] * 24)
    records = "".join(f"200,N1,B1E1,{c},{c},,S,kWh,60,\n300,20261110,{values},A,,,,\n" for c in ("B1", "E1"))
    nem.write_text(f"100,NEM12,202611110000,A,B\n{records}900\n")
    found = channels(enrolled(parse(nem, HeadEnd("N", "nem12"), CALENDAR)))
    assert {name: each[0] for name, each in found.items()} == {"B1": "export", "E1": "import"}


def test_net_is_a_flow_of_its_own(tmp_path: Path) -> None:
    assert channels(enrolled(parsed(tmp_path, *HOURS, flows={"*": "net"})))["H"] == ("net", True, 60)


def test_a_clock_that_was_reset_installs_nothing(tmp_path: Path) -> None:
    stray = [f"M1,H,2000-01-01T{hour:02d}:00:00-06:00,0.5,60" for hour in range(1)]
    admitted = enrolled(parsed(tmp_path, *stray, *HOURS))
    assert table(admitted, "service_points")[0]["valid_from"] == date(2026, 11, 10)
    assert "installed from 2026-11-10" in admitted.notes[0]
    history = [f"M1,H,{year}-11-10T{hour:02d}:00:00-06:00,0.5,60" for year in (2024, 2026) for hour in range(24)]
    assert table(enrolled(parsed(tmp_path, *history)), "service_points")[0]["valid_from"] == date(2024, 11, 10)


def test_a_dial_and_a_flow_of_one_cmep_meter_are_two_channels(tmp_path: Path) -> None:
    head = "MEPMD01,20080519,S,U,C,A,202611110615,C61,OK,E,"
    path = tmp_path / "feed.cmep"
    path.write_text(
        f"{head}CF,1.0,00000100,2,202611100700,R0,2,202611100800,R0,9\n"
        f"{head}CFREG,1.0,00010000,2,202611100600,R0,2931567,202611110600,R0,2931868\n"
    )
    declared = HeadEnd("C", "cmep", "water", zone="+00:00", stamp="end", constants={"channel": "W1"})
    found = admit(parse(path, declared, CALENDAR), CALENDAR, Enrolment("C", "W", "M", "water"), frozenset(), {})
    kinds = {row["channel"]: row["kind"] for row in table(found, "channels")}
    assert kinds == {"W1": "interval", "W1REG": "register"}


def test_one_channel_for_intervals_and_a_dial_is_refused(tmp_path: Path) -> None:
    feed = parsed(tmp_path, *HOURS)
    other = parsed(tmp_path, *HOURS, kind="register")
    feed.registers = other.registers
    with pytest.raises(EnrolmentRefused, match="channel H of meter M1 holds intervals and dials"):
        enrolled(feed)


def test_ids_made_of_long_ones_stay_apart() -> None:
    one, other = derived_id("SP", "A" * 62 + "1"), derived_id("SP", "A" * 62 + "2")
    assert (len(one), len(other), one == other) == (64, 64, False)
    assert derived_id("SP", "M1") == "SP-M1"


@pytest.mark.parametrize(
    ("unit", "commodity"), [("kWh", "gas"), ("kWh", "water"), ("gal", "electricity"), ("therm", "water")]
)
def test_a_meter_is_not_enrolled_on_a_tariff_of_another_commodity(tmp_path: Path, unit: str, commodity: str) -> None:
    """A typing error in --tariff made a gas service of an electricity meter."""
    (tmp_path / "feed.csv").write_text("m,c,t,v,n\n" + "".join(f"{hour}\n" for hour in HOURS))
    declared = HeadEnd("TEST", "delimited", unit=unit, columns=COLUMNS)
    feed = parse(tmp_path / "feed.csv", declared, CALENDAR)
    with pytest.raises(EnrolmentRefused, match=f"M1 channel H measures {unit}, and the tariff T is for {commodity}"):
        admit(feed, CALENDAR, Enrolment("TEST", "T", "MONTHLY", commodity), frozenset(), {})
