"""Demand that a dial registers, and kVA from reactive intervals, from reads to bills."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.revenue_assurance.law import law_of_day
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, interval, local

FIRST = date(2026, 9, 1)
PAST = FIRST + timedelta(days=5)
DAYS = [FIRST + timedelta(days=k) for k in range(10)]
DEMAND: dict[str, Any] = {"kind": "demand", "code": "D", "name": "Demand", "rate": "10.00"}
ENERGY: dict[str, Any] = {"kind": "usage", "code": "USAGE", "name": "Usage", "rate": "1.00"}
DIAL = dial("kW", "D1", multiplier=40, billed=False, flow="other")


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.cycle(FIRST, PAST, FIRST + timedelta(days=10))
    return made


def bills(town: Town) -> dict[tuple[str, date], Decimal]:
    rows = town.rows("SELECT account_id, period_start, total FROM billing.statement ORDER BY 1, 2")
    return {(account, start): total for account, start, total in rows}


def test_a_dial_that_registers_demand(town: Town) -> None:
    """Read by hand and reset on the mornings of the 1st, 6th and 11th: 2.5 and 1.25 on the dial, times 40. The kWh dial
    runs on from 1,000 to 1,100. The second period's read of the demand dial is missing at one of the two: that bill
    waits."""
    town.tariff(flat("E", "electricity", "kWh", "1.00", charges=[ENERGY, DEMAND]))
    for name in ("A", "B"):
        town.service(name, "E")
        town.meter(name, name, dial(), DIAL)
        for day, read, demand in ((0, "1000", "9"), (5, "1050", "2.5"), (10, "1100", "1.25")):
            at = local(FIRST + timedelta(days=day), 8)
            town.read(name, at, read)
            if (name, day) != ("B", 10):
                town.read(name, at, demand, channel="D1", unit="kW")
    town.run(*DAYS, issue=True)
    energy = {
        (a, s): q
        for a, s, q in town.rows(
            "SELECT account_id, period_start, sum(quantity) FROM billing.statement_line JOIN billing.statement USING (statement_id) "
            "WHERE line_key LIKE 'USAGE%%' GROUP BY 1, 2"
        )
    }
    charged = {key: total - energy[key] for key, total in bills(town).items()}
    assert {key: round(d, 1) for key, d in charged.items()} == {
        ("A-A", FIRST): Decimal("1000.0"),
        ("A-B", FIRST): Decimal("1000.0"),
        ("A-A", PAST): Decimal("500.0"),
    }
    assert town.rows("SELECT account_id, detail FROM billing.statement_exception WHERE reason = 'not_charged'") == [
        (
            "A-B",
            "SP-B: demand_missing no read of the demand dial in the 5 days before the period's end from 2026-09-10, 1 days",
        )
    ]
    assert town.exceptions("A") == {}
    assert all(law_of_day(town.database, day).ok for day in DAYS)


def test_dials_by_time_of_use(town: Town) -> None:
    """Energy and demand dials on-peak (8:00 to 20:00) and off-peak; only on-peak demand is charged."""
    hours = [{"period": "on", "days": "all", "from": "08:00", "to": "20:00"}]
    schedule = {"periods": ["off", "on"], "default": "off", "rules": hours}
    charges = [ENERGY | {"rates": {"off": "0.10", "on": "0.30"}}, DEMAND | {"period": "on"}]
    del charges[0]["rate"]
    town.tariff(flat("E", "electricity", "kWh", "1.00", charges=charges, time_of_use=schedule))
    town.service("A", "E")
    parts = [dial(channel=c) for c in ("ON", "OFF")]
    town.meter("A", "A", *parts, dial("kW", "DON", billed=False), dial("kW", "DOFF", billed=False))
    spans = {
        "ON": [(480, 1200)],
        "OFF": [(0, 480), (1200, 1440)],
        "DON": [(480, 1200)],
        "DOFF": [(0, 480), (1200, 1440)],
    }
    with town.database.connect() as c:
        for channel, edges in spans.items():
            for start, end in edges:
                c.execute("INSERT INTO ref.register_hours VALUES ('AMI', %s, 'all', %s, %s)", (channel, start, end))
    for k in range(6):
        at = local(FIRST + timedelta(days=k))
        for channel, step in (("ON", 20), ("OFF", 10)):
            town.read("A", at, str(1000 + step * k), channel=channel)
        for channel, value in (("DON", 3 + k), ("DOFF", 90)):
            town.read("A", at, str(value), channel=channel, unit="kW")
    town.run(*DAYS[:5], issue=True)
    assert (
        town.rows("SELECT reason, detail FROM billing.exception_day UNION SELECT kind, detail FROM vee.exception") == []
    )
    # 5 x (20 x 0.30 + 10 x 0.10) and 8 kW, the highest of the reads that close a day of the period.
    assert bills(town) == {("A-A", FIRST): Decimal(35 + 80)}


def test_kva_of_a_meter_with_reactive_intervals(town: Town) -> None:
    """3 kWh and 4 kVArh an hour are 5 kVA; a service without kVArh waits."""
    town.tariff(flat("E", "electricity", "kWh", "1.00", charges=[ENERGY, DEMAND | {"measure": "kva"}]))
    for name in ("A", "B"):
        town.service(name, "E")
        town.meter(name, name, interval())
    town.meter("Q", "A", interval(unit="kVArh", billed=False))
    for day in DAYS[:5]:
        town.city.intervals(day, {m: [3_000_000] * 24 for m in ("A", "B")}, minutes=60)
        town.city.intervals(day, {"Q": [4_000_000] * 24}, minutes=60, unit="kVArh")
    town.run(*DAYS[:5], issue=True)
    assert bills(town) == {("A-A", FIRST): Decimal(5 * 24 * 3 + 50)}
    [(account, detail)] = town.rows("SELECT account_id, detail FROM billing.statement_exception")
    assert account == "A-B"
    assert detail.startswith("SP-B: needs_reactive E: no kVArh intervals")
    assert all(law_of_day(town.database, day).ok for day in DAYS[:5])
