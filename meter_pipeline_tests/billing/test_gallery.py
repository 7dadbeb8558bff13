"""Real published tariffs: each document of docs/tariff-gallery makes the bill that its city published or a person
worked out.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing.bill_explanation import BillUse, explain_bill
from meter_pipeline.billing.tariffs import TariffRefusedError, load_tariff

GALLERY = Path(__file__).parents[2] / "docs" / "tariff-gallery"
BILLS: list[dict[str, Any]] = json.loads((GALLERY / "bills.json").read_text())


def use_of(row: dict[str, Any]) -> BillUse:
    of = row["of"]
    use, export, peaks = ({k: Decimal(v) for k, v in of.get(name, {}).items()} for name in ("use", "export", "peaks"))
    month = date.fromisoformat(of["month"] + "-01")
    return BillUse(month, of.get("days"), use, export, peaks, of.get("attributes", {}))


@pytest.mark.parametrize("row", BILLS, ids=lambda row: f"{row['tariff']} {row['total']}")
def test_a_published_tariff_makes_its_bill(row: dict[str, Any]) -> None:
    tariff = load_tariff(GALLERY / f"{row['tariff']}.json")
    steps = explain_bill(tariff, use_of(row))
    assert sum((step.amount for step in steps), Decimal(0)) == Decimal(row["total"]), [
        (s.line, s.how, s.amount) for s in steps
    ]


def test_every_document_of_the_gallery_has_a_bill_and_stands_on_its_page() -> None:
    documents = {path.stem for path in GALLERY.glob("*.json")} - {"bills"}
    assert documents == {row["tariff"] for row in BILLS}
    assert len(documents) == 13
    page = (GALLERY.parent / "tariff-gallery.md").read_text()
    assert all(f"tariff-gallery/{name}.json" in page for name in documents)
    assert all(row["total"] in page for row in BILLS)


def test_the_arithmetic_of_a_bill_is_shown() -> None:
    row = BILLS[0]
    steps = explain_bill(load_tariff(GALLERY / "seymour-electric.json"), use_of(row))
    assert [(step.line, step.how, str(step.amount)) for step in steps] == [
        ("BASE", "7.50 a month", "7.5"),
        ("ENERGY/winter/1", "250 kWh x 0.064", "16"),
        ("ENERGY/winter/2", "450 kWh x 0.049", "22.05"),
        ("ENERGY/winter/3", "500 kWh x 0.0446", "22.3"),
        ("POWER/winter/1", "1200 kWh x 0.085", "102"),
        ("TAX", "1 % of 169.85", "1.7"),
    ]


def test_a_bill_that_lacks_something_says_what() -> None:
    tariff = load_tariff(GALLERY / "goodland-water-sewer.json")
    with pytest.raises(TariffRefusedError, match="meter_size, winter_average_per_day: give --attribute"):
        explain_bill(tariff, BillUse(date(2025, 1, 1)))
    electric = load_tariff(GALLERY / "seymour-electric.json")
    with pytest.raises(TariffRefusedError, match="'autumn' is not one of winter, summer"):
        explain_bill(electric, BillUse(date(2025, 1, 1), energy={"autumn": Decimal(1)}))
