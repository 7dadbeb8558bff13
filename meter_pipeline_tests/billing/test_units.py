"""Charges by units that no meter counts promise: dated counts by service, of any declared name, priced alike for a file
and in the run; a count that is missing, wrong, undeclared or in force twice is refused by name."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.reference.importing import import_folder
from meter_pipeline.reporting import month_sections
from meter_pipeline_tests.billing.support import CHICAGO, CLOCK, JULY, add_cycle, add_service, add_tariff, native, raw
from meter_pipeline_tests.billing.test_price_and_run import monthly, months

END = JULY + timedelta(days=3)
CHARGES: list[dict[str, Any]] = [
    {"kind": "fixed", "code": "STORM", "name": "Stormwater", "amount": "7.35", "times": "eru"},
    {
        "kind": "fixed",
        "code": "CART-64",
        "name": "64 gallon carts",
        "amount": "18.20",
        "times": "cart_64",
        "without": 0,
    },
    {
        "kind": "fixed",
        "code": "CART-96",
        "name": "96 gallon carts",
        "amount": "24.60",
        "times": "cart_96",
        "without": 0,
    },
    {
        "kind": "fixed",
        "code": "HPS-100",
        "name": "100 W sodium",
        "amount": "8.40",
        "times": "lamp_hps_100",
        "without": 0,
    },
    {
        "kind": "fixed",
        "code": "AREA",
        "name": "Haul",
        "by": {"attribute": "haul_area", "values": {"north": "1.00", "*": "2.00"}},
    },
]
PUBLIC_WORKS = native("PW", charges=CHARGES, time_of_use=None)
COUNTS = {"eru": "2.5", "cart_96": "2", "lamp_hps_100": "12", "haul_area": "north"}
#: 2.5 x 7.35 rounded up to 18.38, 2 x 24.60, 12 x 8.40, 1.00
TOTAL = Decimal("18.38") + Decimal("49.20") + Decimal("100.80") + 1


def names(database: Database) -> None:
    with database.connect() as connection:
        for name in COUNTS:
            kind = "text" if name == "haul_area" else "count"
            connection.execute("INSERT INTO ref.attribute_names VALUES (%s, %s, 'x')", (name, kind))


def has(database: Database, name: str, value: str, first: date = date(2020, 1, 1), past: date | None = None) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.service_attributes VALUES ('SP-001', %s, %s, %s, %s)", (name, value, first, past)
        )


@pytest.fixture
def city(database: Database) -> Database:
    """A service that no meter measures."""
    add_tariff(database, PUBLIC_WORKS)
    add_cycle(database, JULY, END)
    add_service(database, 1, "PW")
    names(database)
    return database


def run(database: Database) -> Any:
    day = JULY
    while day < END:
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        day += timedelta(days=1)
    return issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)


def lines(database: Database) -> dict[str, Decimal]:
    found = database.rows("SELECT line_key, sum(amount) AS amount FROM billing.statement_line GROUP BY 1")
    return {row["line_key"]: row["amount"] for row in found}


def test_a_bill_of_units_by_hand(city: Database) -> None:
    for name, value in COUNTS.items():
        has(city, name, value)
    outcome = run(city)
    assert (outcome.issued, outcome.total) == (1, TOTAL * 10**6)
    assert lines(city) == {
        "STORM": Decimal("18.38"),
        "CART-96": Decimal("49.20"),
        "HPS-100": Decimal("100.80"),
        "AREA": Decimal("1.00"),
    }


def test_analysts_see_units_and_money_of_each_charge(city: Database) -> None:
    for name, value in COUNTS.items():
        has(city, name, value)
    run(city)
    rows = city.rows(
        "SELECT code, unit, units, count(*) AS days, sum(amount) AS amount FROM analyst.unit_charges GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert [(r["code"], r["unit"], r["units"], r["days"], round(r["amount"], 2)) for r in rows] == [
        ("CART-64", "cart_64", Decimal(0), 3, Decimal(0)),
        ("CART-96", "cart_96", Decimal(2), 3, Decimal("49.20")),
        ("HPS-100", "lamp_hps_100", Decimal(12), 3, Decimal("100.80")),
        ("STORM", "eru", Decimal("2.5"), 3, Decimal("18.38")),
    ]
    sections = month_sections.sections(city, JULY)
    assert [(u["code"], u["units"], u["amount"]) for u in sections["units"]][1] == ("CART-96", "2", "49.20")


def test_a_file_is_priced_as_the_run() -> None:
    (found,) = months(PUBLIC_WORKS, monthly(["0"]), "total", attributes=COUNTS)
    assert found == TOTAL


def test_a_count_that_changes_cuts_the_bill(city: Database) -> None:
    has(city, "eru", "1", past=date(2026, 7, 2))
    has(city, "eru", "2", date(2026, 7, 2))
    assert run(city).issued == 1
    # one of three days at 7.35, two at 14.70
    assert lines(city)["STORM"] == Decimal("2.45") + Decimal("9.80")


def test_a_service_without_a_count_that_must_be_declared_waits(city: Database) -> None:
    has(city, "cart_96", "1")
    outcome = run(city)
    assert (outcome.issued, outcome.exceptions) == (0, {"days_missing": 1, "not_charged": 1})
    rows = city.rows("SELECT DISTINCT reason, detail FROM billing.exception_day ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("attribute_missing", "eru"), ("no_usage", "")]


def test_undeclared_names_wrong_counts_and_overlaps_are_refused_by_name(city: Database, tmp_path: Path) -> None:
    head = "service_point_id,attribute,value,valid_from,valid_to\n"
    (tmp_path / "service_attributes.csv").write_text(
        head
        + "SP-001,eru,2,2026-01-01,\nSP-001,eru,3,2026-05-01,\nSP-001,carts,1,2026-01-01,\nSP-001,lamps,many,2026-01-01,\n"
    )
    (tmp_path / "attribute_names.csv").write_text(
        "attribute,kind,about\neru,count,x\nlamps,count,x\nBig Cart,count,x\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert [str(f) for f in refused.value.faults] == [
        "service_attributes.csv:3: overlaps the stretch that starts 2026-01-01 (line 2) of SP-001 eru",
        "attribute_names.csv:3: attribute: lamps is an attribute that every tariff knows: leave it out",
        "attribute_names.csv:4: attribute: 'Big Cart' is not a name: small letters, digits and _, at most 40",
        "service_attributes.csv:4: attribute: 'carts' of SP-001 is not declared in attribute_names.csv",
        "service_attributes.csv:5: value: lamps of SP-001 is 'many', not a count",
    ]
    (tmp_path / "attribute_names.csv").unlink()
    (tmp_path / "service_attributes.csv").write_text(head + "SP-001,carts,1,2026-01-01,\n")
    with pytest.raises(ReferenceRefused, match="attribute carts of SP-001 is not declared"):
        import_folder(city, tmp_path)
    (tmp_path / "service_attributes.csv").write_text(head + "SP-001,eru,few,2026-01-01,\n")
    with pytest.raises(ReferenceRefused, match="eru of SP-001 is few, not a count"):
        import_folder(city, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"times": "meter_size"}, "meter_size is not a count"),
        ({"times": "Big Cart"}, "'Big Cart' is not a name of an attribute"),
        ({"times": None, "without": 0}, "stands beside times"),
        ({"times": "eru", "without": -1}, "is below 0"),
    ],
)
def test_a_tariff_names_counts(change: dict[str, Any], said: str) -> None:
    charge = {k: v for k, v in (CHARGES[0] | change).items() if v is not None}
    with pytest.raises(TariffRefusedError, match=said):
        parse_tariff(raw(PUBLIC_WORKS | {"charges": [charge]}))
