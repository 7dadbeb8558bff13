"""Registers read by hand every four days: what the field's rules find, what waits for it, and that nothing else
does.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, local

FIRST = date(2026, 8, 24)
VISITS = [FIRST + timedelta(days=4 * k) for k in range(6)]
STARTS = [VISITS[1], VISITS[2], VISITS[3], VISITS[4], VISITS[5]]
DAYS = [VISITS[1] + timedelta(days=k) for k in range(16)]


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.tariff(flat("W", "water", "m3", "2.00"))
    made.tariff(flat("E", "electricity", "kWh", "0.10"))
    made.cycle(*STARTS)
    return made


def meter(town: Town, name: str, *, status: str = "active", since: date = date(2020, 1, 1), **channel: object) -> None:
    town.service(name, "W", "water", status=status, since=since)
    town.meter(name, name, dial("m3", **channel), commodity="water")  # type: ignore[arg-type]  # columns of a channel


def visit(town: Town, k: int, **dials: str) -> None:
    for name, value in dials.items():
        town.read(name, local(VISITS[k], 10), value, unit="m3")


def waits(town: Town, start: date) -> dict[str, str]:
    """Accounts whose bill of the period that begins on a day waits for a person, with the reason's first words."""
    found = town.rows(
        "SELECT account_id, detail FROM billing.statement_exception WHERE period_start = %s AND reason = 'held'", start
    )
    return dict(found)


def test_a_misread_of_a_thousand_holds_the_bill_until_the_next_visit_puts_it_right(town: Town) -> None:
    """1108 for 108: neither billed nor a pace for the days after it; the neighbour who reads right is billed."""
    for name in ("MIS", "OK"):
        meter(town, name)
    visit(town, 0, MIS="100", OK="100")
    visit(town, 1, MIS="104", OK="104")
    visit(town, 2, MIS="1108", OK="108")
    town.run(*DAYS[:4], issue=True)
    town.run(*DAYS[4:8], issue=True)
    assert "READ_IMPOSSIBLE" in town.exceptions("MIS")
    assert town.exceptions("OK") == {}
    assert list(waits(town, STARTS[1])) == ["A-MIS"]
    assert town.billed("OK") == 8
    assert town.billed("MIS") == 0
    assert [town.usage("MIS")[d] for d in DAYS[5:8]] == [1, 1, 1]
    visit(town, 3, MIS="112", OK="112")
    town.run(*DAYS[8:12])
    town.run(DAYS[3], issue=True)
    town.run(DAYS[7], issue=True)
    assert waits(town, STARTS[1]) == {}
    assert town.billed("MIS") == 8
    assert set(town.exceptions("MIS")) == {"READ_ERROR"}


def test_a_high_read_is_held_against_the_meters_own_stretches_and_released_by_a_person(town: Town) -> None:
    """40 m3 in four days can be: four a stretch before make it a case, which somebody releases for billing."""
    meter(town, "HIGH")
    for k, value in enumerate(("100", "104", "108", "148")):
        visit(town, k, HIGH=value)
    town.run(*DAYS[:8])
    town.run(*DAYS[8:9])
    kinds = town.exceptions("HIGH")
    assert kinds == {"READ_HIGH": [VISITS[2] + timedelta(days=k) for k in range(5)]}
    [(detail,)] = town.rows("SELECT DISTINCT split_part(detail, '; the day', 1) FROM vee.exception")
    assert detail == "40 m3 in 4.00 days to 2026-09-05 15:00 UTC; usual in that time: 4.000"


def test_a_new_level_that_the_next_read_bears_out_is_the_history_from_then_on(town: Town) -> None:
    meter(town, "NEW")
    for k, value in enumerate(("100", "104", "108", "148", "188", "228")):
        visit(town, k, NEW=value)
    town.run(*DAYS)
    assert town.exceptions("NEW") == {"READ_HIGH": [VISITS[2] + timedelta(days=k) for k in range(5)]}


def test_a_class_that_moves_together_is_nothing_high(town: Town) -> None:
    """A heat wave: ten homes use five times as much in the same week. One of them uses fifty times as much."""
    names = [f"H{k}" for k in range(10)]
    for name in names:
        meter(town, name)
    for k, value in enumerate((100, 104, 108, 128)):
        visit(town, k, **dict.fromkeys(names[1:], str(value)), H0=str(value if k < 3 else 308))
    town.run(DAYS[8])
    found = {n: town.exceptions(n) for n in names if town.exceptions(n)}
    assert found == {"H0": {"READ_HIGH": [DAYS[8]]}}


def test_a_dial_that_does_not_move_is_a_case_from_its_second_read_on_and_is_billed(town: Town) -> None:
    meter(town, "STUCK")
    for k, value in enumerate(("100", "104", "104", "104", "104")):
        visit(town, k, STUCK=value)
    town.run(*DAYS[:4])
    assert town.exceptions("STUCK") == {}
    town.run(*DAYS[4:12], issue=True)
    assert set(town.exceptions("STUCK")) == {"READ_ZERO"}
    assert min(town.exceptions("STUCK")["READ_ZERO"]) == VISITS[2]
    assert waits(town, STARTS[2]) == {}
    assert town.rows("SELECT kind, hold, state FROM anomaly.exception_case WHERE subject = 'SP-STUCK'") == [
        ("validation", False, "open")
    ]


def test_usage_of_an_inactive_service_is_a_case_but_not_what_it_used_before(town: Town) -> None:
    """Off for years, and off since the day after the third visit: only a stretch that began after it is usage of an
    inactive service."""
    meter(town, "OFF", status="inactive")
    meter(town, "LATELY", status="inactive", since=VISITS[2] + timedelta(days=1))
    for k, value in enumerate(("100", "104", "108", "112", "116")):
        visit(town, k, OFF=value, LATELY=value)
    town.run(*DAYS[5:13])
    assert set(town.exceptions("OFF")) == {"READ_INACTIVE"}
    assert set(town.exceptions("LATELY")) == {"READ_INACTIVE"}
    assert min(town.exceptions("LATELY")["READ_INACTIVE"]) == VISITS[3]
    # what no read closes yet is nothing on a service that is off
    town.run(VISITS[4] + timedelta(days=1))
    assert town.usage("OFF")[VISITS[4] + timedelta(days=1)] == 0


@pytest.mark.parametrize("multiplier", [0, 100_000])
def test_a_multiplier_of_nothing_or_of_too_much_holds_the_bill(town: Town, multiplier: int) -> None:
    meter(town, "CT", multiplier=multiplier, decimals=0)
    for k, value in enumerate(("100", "104", "108")):
        visit(town, k, CT=value)
    town.run(*DAYS[:4], issue=True)
    assert "MULTIPLIER" in town.exceptions("CT")
    assert list(waits(town, STARTS[0])) == ["A-CT"]


def test_a_register_that_was_never_read_waits_and_its_neighbours_do_not(town: Town) -> None:
    for name in ("NEVER", "OK"):
        meter(town, name)
    visit(town, 0, OK="100")
    visit(town, 2, OK="108")
    town.run(*DAYS[:4], issue=True)
    assert list(waits(town, STARTS[0])) == ["A-NEVER"]
    assert "NEVER_READ" in waits(town, STARTS[0])["A-NEVER"]
    assert town.billed("OK") == 4


def test_a_refused_read_waits_only_until_a_good_one_comes(town: Town) -> None:
    """Six digits on a dial of four."""
    meter(town, "DIALS", dials=4)
    visit(town, 0, DIALS="100")
    visit(town, 1, DIALS="104")
    visit(town, 2, DIALS="100108")
    town.run(*DAYS[:5])
    assert set(town.exceptions("DIALS")) == {"DIALS"}
    visit(town, 3, DIALS="112")
    town.run(*DAYS[5:9])
    assert set(town.exceptions("DIALS")) == {"READ_ERROR"}
    assert sum(town.usage("DIALS")[d] for d in DAYS[:8]) == 8


def test_a_rollover_within_a_long_stretch_is_told_on_the_day_of_its_read(town: Town) -> None:
    meter(town, "ROLL", dials=4)
    visit(town, 0, ROLL="9990")
    visit(town, 1, ROLL="9994")
    visit(town, 4, ROLL="6")
    town.run(*DAYS[:13])
    assert town.exceptions("ROLL") == {"ROLLOVER": [VISITS[4]]}
    [(detail,)] = town.rows("SELECT detail FROM vee.exception")
    assert detail.startswith("The register ran over its last digit: 6 at 2026-09-09 15:00 UTC, 9994 before")
    assert sum(town.usage("ROLL")[d] for d in DAYS[:12]) == Decimal(12)


def test_dials_above_ten_thousand_million_are_legal(town: Town) -> None:
    meter(town, "BIG", dials=12, multiplier=1000, decimals=0)
    for k, value in enumerate(("123456789000", "123456789001", "123456789002")):
        visit(town, k, BIG=value)
    town.run(*DAYS[:4])
    assert [town.usage("BIG")[d] for d in DAYS[:4]] == [250] * 4


@pytest.mark.parametrize("tariff_unit", ["ccf", "kgal"])
def test_a_dial_in_the_tariffs_own_unit_is_billed_as_it_was_read(town: Town, tariff_unit: str) -> None:
    """388 in 15 days from midnight to midnight, with five digits on the dial: not 387.999976, and no digit too many."""
    town.tariff(flat("OWN", "water", tariff_unit, "1.00"))
    town.service("OWN", "OWN", "water")
    spelled = {"ccf": "CCF", "kgal": "KGAL"}[tariff_unit]
    base, factor = {"CCF": ("ft3", 100), "KGAL": ("gal", 1000)}[spelled]
    town.meter("OWN", "OWN", dial(spelled, decimals=0), commodity="water")
    first, last = DAYS[0], DAYS[15]
    town.read("OWN", local(first - timedelta(days=8)), str(99_000 * factor), unit=base)
    town.read("OWN", local(first), str(99_500 * factor), unit=base)
    town.read("OWN", local(last + timedelta(days=1)), str(99_887 * factor), unit=base)
    town.run(*DAYS, issue=True)
    assert town.billed("OWN") == 387
    assert "DIALS" not in town.exceptions("OWN")
