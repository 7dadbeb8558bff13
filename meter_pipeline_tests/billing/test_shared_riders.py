"""Riders that several tariffs share, declared once: their versions are one charge whose price changes on days."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.tariffs import TariffRefusedError, load_tariff, parse_rider, parse_tariff
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    put_intervals,
    raw,
)
from meter_pipeline_tests.billing.test_not_priced import totals
from meter_pipeline_tests.billing.test_price_and_run import electricity, energy

SHARED = {"kind": "shared", "rider": "FUEL"}
FUEL: dict[str, Any] = {
    "schema": "meter_pipeline.rider/1",
    "rider_id": "FUEL",
    "name": "Fuel and franchise",
    "commodity": "electricity",
    "unit": "kWh",
    "currency": "USD",
    "valid_from": "2020-01-01",
    "charges": [
        {"kind": "rider", "code": "FUEL", "name": "Fuel", "rate": "0.01"},
        {"kind": "tax", "code": "FRANCHISE", "name": "Franchise fee", "percent": "5"},
    ],
}


def later(first: str, rate: str, percent: str) -> dict[str, Any]:
    """The rider's next version."""
    fuel, franchise = FUEL["charges"]
    return FUEL | {"valid_from": first, "charges": [fuel | {"rate": rate}, franchise | {"percent": percent}]}


def test_two_tariffs_share_a_rider_whose_factor_changes_in_mid_period(database: Database) -> None:
    """10 kWh a day at 0.10 and 0.20; fuel 0.01 and from the third day 0.05, a fee of 5 and then 10 % of both.

    A: 2 x (1.00 + 0.10) x 1.05 = 2.31 and 2 x (1.00 + 0.50) x 1.10 = 3.30. B: 2 x 2.10 x 1.05 = 4.41 and 2 x 2.50 x
    1.10.
    """
    documents = [
        electricity(energy(rate), SHARED) | {"tariff_id": name} for name, rate in (("A", "0.10"), ("B", "0.20"))
    ]
    changed = JULY + timedelta(days=2)
    add_tariff(database, FUEL | {"tariff_id": "FUEL"}, 1, date(2020, 1, 1), changed)
    for document in documents:
        add_tariff(database, document)
    with database.connect() as connection:
        connection.execute("UPDATE ref.tariff_document SET body = body - 'tariff_id' WHERE tariff_id = 'FUEL'")
    add_tariff(database, later(changed.isoformat(), "0.05", "10") | {"tariff_id": "FUEL"}, 2, changed)
    with database.connect() as connection:
        connection.execute("UPDATE ref.tariff_document SET body = body - 'tariff_id' WHERE tariff_id = 'FUEL'")
    end = JULY + timedelta(days=4)
    add_cycle(database, JULY, end)
    points = [add_service(database, 1, "A"), add_service(database, 2, "B")]
    for day in days(JULY, 4):
        put_intervals(database, day, {point: [1000] * 10 + [0] * 14 for point in points})
        outcome = bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        assert outcome.exceptions == {}
        assert "open" not in outcome.reconciliation["cause"].to_list()
    issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    assert totals(database) == {"A-001": Decimal("5.61"), "A-002": Decimal("9.91")}
    frozen = database.read("SELECT tariff_id, version FROM billing.tariff_version ORDER BY 1, 2").rows()
    assert frozen == [("A", 1), ("B", 1), ("FUEL", 1), ("FUEL", 2)]


def test_a_rider_costs_nothing_before_its_first_day(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(electricity(energy("0.10"), SHARED)))
    (tmp_path / "fuel-1.json").write_text(json.dumps(FUEL))
    (tmp_path / "fuel-2.json").write_text(json.dumps(later("2026-02-01", "0.05", "10")))
    (tmp_path / "other.json").write_text("not even JSON")
    tariff = load_tariff(tmp_path / "a.json")
    assert [line.key for line in tariff.lines] == ["E/all/1", "FUEL/all/1", "FRANCHISE"]
    assert sorted(tariff.rate_days)[1:] == [date(2020, 1, 1), date(2026, 2, 1)]


@pytest.mark.parametrize(
    ("riders", "tariff", "why"),
    [
        ([], electricity(energy("1"), SHARED), "no document of the rider FUEL"),
        ([FUEL, FUEL], electricity(energy("1"), SHARED), "two versions from 2020-01-01"),
        ([FUEL | {"unit": "therm"}], electricity(energy("1"), SHARED), "is in therm, the tariff in kWh"),
        ([FUEL], electricity(energy("1", code="FUEL"), SHARED), "is used twice"),
        ([FUEL], electricity(SHARED | {"colour": "blue"}), "colour: is not a field"),
        (
            [FUEL, later("2026-01-01", "0.02", "5") | {"charges": FUEL["charges"][:1]}],
            electricity(SHARED),
            "another charge is another rider",
        ),
        (
            [FUEL, FUEL | {"valid_from": "2026-01-01", "by": "bill_date"}],
            electricity(SHARED),
            "FUEL goes by service_date",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(riders: list[dict[str, Any]], tariff: dict[str, Any], why: str) -> None:
    with pytest.raises(TariffRefusedError, match=why):
        parse_tariff(raw(tariff), tuple(raw(rider) for rider in riders))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"charges": [{"kind": "demand", "code": "D", "name": "D", "rate": 1}]}, "charges[0].kind"),
        ({"charges": [FUEL["charges"][0] | {"dated": {}}]}, "charges[0].dated"),
        ({"colour": "blue"}, "colour"),
        ({"charges": [FUEL["charges"][0] | {"colour": "blue"}]}, "charges[0].colour"),
        ({"valid_from": "soon"}, "valid_from"),
    ],
)
def test_a_rider_s_own_document_is_checked(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(TariffRefusedError) as refused:
        parse_rider(raw(FUEL | changes))
    assert refused.value.field == field


def test_a_fault_of_a_rider_beside_a_tariff_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(electricity(energy("0.10"), SHARED)))
    (tmp_path / "fuel.json").write_text(json.dumps(FUEL | {"colour": "blue"}, indent=1))
    with pytest.raises(TariffRefusedError, match=r"fuel\.json:\d+: colour"):
        load_tariff(tmp_path / "a.json")


def test_an_agreement_names_no_rider() -> None:
    with pytest.raises(TariffRefusedError, match="is a rider"):
        parse_tariff(raw(FUEL))
