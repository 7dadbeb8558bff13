"""Dials are learnt from a file in which a register started again at 0, and from nothing else."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.registry import parse
from meter_pipeline.reference.enrolment import Enrolment, admit
from meter_pipeline.schemas.reference import TABLES

CALENDAR = BillingCalendar("America/Chicago")


def moduli(tmp_path: Path, reads: list[str], unit: str = "gal", **declared: Any) -> tuple[object, list[str]]:
    """Modulus of the channel and the notes of its enrolment."""
    rows = "".join(f"M1,2026-11-{day:02} 00:00,{read}\n" for day, read in enumerate(reads, 1))
    (tmp_path / "feed.csv").write_text(f"m,t,v\n{rows}")
    head_end = HeadEnd(
        "AMR",
        "delimited",
        commodity="water",
        zone="America/Chicago",
        kind="register",
        unit=unit,
        columns={"meter_id": "m", "time": "t", "value": "v"},
        constants={"channel": "R1"},
        **declared,
    )
    admitted = admit(
        parse(tmp_path / "feed.csv", head_end, CALENDAR), CALENDAR, Enrolment("AMR", "W", "C", "water"), frozenset()
    )
    [row] = admitted.rows["channels"]
    return dict(zip(TABLES["channels"].columns, row, strict=True))["modulus"], admitted.notes


@pytest.mark.parametrize(
    ("reads", "unit", "modulus"),
    [
        (["99960", "99970", "99981", "99992", "3", "14"], "gal", Decimal(100_000)),
        (["99.60", "99.70", "99.81", "99.92", "0.03", "0.14"], "gal", Decimal(100)),
        (["9960", "9970", "9981", "9992", "3", "14"], "10 CF", Decimal(100_000)),
        (["99960", "99970", "99981", "99992", "53", "64"], "gal", None),
        (["99960", "99992", "3", "14"], "gal", None),
        (["5400", "5410", "5421", "5432", "0", "9"], "gal", None),
        (["10", "20", "31", "40", "39", "50"], "gal", None),
    ],
    ids=[
        "five digits",
        "decimals",
        "a unit of ten",
        "a step too large",
        "too few steps",
        "another meter",
        "a small fall",
    ],
)
def test_a_dial_is_learnt_where_the_step_over_zero_is_like_the_others(
    tmp_path: Path, reads: list[str], unit: str, modulus: Decimal | None
) -> None:
    found, notes = moduli(tmp_path, reads, unit)
    assert found == modulus
    assert bool(notes) == (modulus is not None)


def test_what_is_declared_stands(tmp_path: Path) -> None:
    reads = ["99960", "99970", "99981", "99992", "3", "14"]
    assert moduli(tmp_path, reads, dials={"R1": 6}) == (None, [])
    found, notes = moduli(tmp_path, reads, moduli={"R1": 120_000})
    assert (found, notes) == (Decimal(120_000), [])
