"""A supply meter that a zone declares promises: no account is missed for it. Its usage is named in billing, in the
reconciliation and by the law, on the days of the declaration and on no others."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.control.tables.alerts import over_age
from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.revenue_assurance.law import law_of_day, law_of_days
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_intervals,
)
from meter_pipeline_tests.corrections.town import FIRST, town

PAST = JULY + timedelta(days=4)
DECLARED = JULY + timedelta(days=2)


def declare(database: Database, point: str, first: date = DECLARED) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.zone_supplies (zone_id, service_point_id, direction, valid_from) VALUES ('E-CITY', %s, 'in', %s)",
            (point, first),
        )


def bill(database: Database, *billed: date) -> None:
    for day in billed:
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)


@pytest.fixture
def city(database: Database) -> Database:
    """A customer of 24 kWh a day, a meter of 48 kWh that is declared on the third of four days, and one of 12 kWh that
    is a customer too."""
    add_tariff(database, native())
    add_cycle(database, JULY, date(2026, 8, 1))
    add_service(database, 1)
    add_service(database, 2, agreed=False)
    add_service(database, 3)
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.zones VALUES ('E-CITY', 'feeder', 'electricity', 'E-CITY', NULL, '2020-01-01', NULL)"
        )
    declare(database, "SP-002")
    declare(database, "SP-003", JULY)
    for day in days(JULY, 4):
        put_intervals(database, day, {"SP-001": [1000] * 24, "SP-002": [2000] * 24, "SP-003": [500] * 24})
    bill(database, *days(JULY, 4))
    return database


def reasons(database: Database) -> list[tuple[str, str]]:
    found = database.read("SELECT service_point_id, reason FROM billing.exception_day ORDER BY billing_day")
    return list(found.iter_rows())


def test_each_day_has_one_state_by_its_own_declaration(city: Database) -> None:
    assert reasons(city) == [("SP-002", "no_agreement")] * 2 + [("SP-002", "supply_meter")] * 2
    found = law_of_days(city, JULY, PAST)
    assert found.ok, found.sentence()
    assert [(f.billing_day, f.why) for f in found.findings] == [(day, "no_agreement") for day in days(JULY, 2)]
    assert found.supply_meters == 2
    validated, billed, accrued, waiting, supply = found.totals["kWh"]
    assert (validated, billed) == (4 * 84_000_000, 0)
    assert (accrued, waiting, supply) == (4 * 36_000_000, 2 * 48_000_000, 2 * 48_000_000)
    assert validated == billed + accrued + waiting + supply
    assert {t["unit"]: t["supply"] for t in found.document()["totals"]} == {"kWh": "96"}


def test_the_reconciliation_names_it_and_no_alert_counts_it(city: Database) -> None:
    outcome = bill_billing_day(city, CHICAGO, DECLARED, clock=CLOCK)
    joint = outcome.reconciliation.filter(pl.col("joint") == "validated_to_determinants")
    rows = {
        cause: (want, have, items)
        for cause, want, have, items in joint.select("cause", "expected", "actual", "items").rows()
    }
    assert rows == {"none": (36, 36, 2), "supply_meter": (Decimal(48), Decimal(0), 1)}
    assert all(check.passed for check in outcome.report().checks)
    with city.connect() as connection:
        waits = {what: count for what, count, _ in over_age(connection, CLOCK.now() + timedelta(days=400))}
        assert waits["services that could not be billed"] == 1, "of the two days before the declaration"
        connection.execute("DELETE FROM billing.exception_day WHERE billing_day < %s", (DECLARED,))
        waits = {what: count for what, count, _ in over_age(connection, CLOCK.now() + timedelta(days=400))}
        assert "services that could not be billed" not in waits


def test_the_law_asks_the_declaration_and_not_billing(city: Database) -> None:
    with city.connect() as connection:
        connection.execute("DELETE FROM ref.zone_supplies WHERE service_point_id = 'SP-002'")
    found = law_of_day(city, DECLARED)
    assert [(f.service_point_id, f.ok) for f in found.open] == [("SP-002", False)]
    assert "set aside as a supply meter, while no zone declares it" in found.open[0].why
    bill(city, DECLARED)
    found = law_of_day(city, DECLARED)
    assert found.ok
    assert [f.why for f in found.findings] == ["no_agreement"]


def test_a_declaration_that_comes_late_names_open_days_and_sealed_ones(city: Database) -> None:
    with city.connect() as connection:
        connection.execute("UPDATE ref.zone_supplies SET valid_from = %s WHERE service_point_id = 'SP-002'", (JULY,))
    bill(city, JULY)
    with city.connect() as connection:
        connection.execute(
            "INSERT INTO billing.period (month, status, requested_by, requested_at, checklist, approved_by, sealed_at, control_totals, "
            "totals_sha256) VALUES (%s, 'sealed', 'ana', %s, '[]', 'ben', %s, '{}', %s)",
            (JULY, CLOCK.now(), CLOCK.now(), bytes(32)),
        )
    found = law_of_day(city, JULY + timedelta(days=1))
    assert [f.why for f in found.findings] == ["no_agreement"], "the sealed day was billed before the declaration"
    bill(city, JULY + timedelta(days=1))
    found = law_of_days(city, JULY, PAST)
    assert found.ok, found.sentence()
    assert not found.findings
    assert found.supply_meters == 4
    assert reasons(city)[1] == ("SP-002", "no_agreement"), "the sealed row stays, its revision says supply_meter"


def test_an_import_asks_for_the_days_of_the_declaration(database: Database, tmp_path: Path) -> None:
    """A meter without an agreement is vacant for validation until a zone declares it; both stages run again from then
    on."""
    city = town(database, tmp_path / "town")
    with database.connect() as connection:
        connection.execute("DELETE FROM ref.agreements WHERE service_point_id = 'SP-B'")
    span = days(FIRST, 3)
    city.days(span)
    zone = {"zone_id": "Z1", "kind": "feeder", "commodity": "electricity", "name": "north", "valid_from": FIRST}
    supply = {"zone_id": "Z1", "service_point_id": "SP-B", "direction": "in", "valid_from": span[1]}
    folder = city.folder_of({"zones": [zone], "zone_supplies": [supply]})
    made = import_folder(database, city.calendar, folder, clock=city.clock)
    assert (made.days, made.service_points) == (span[1:], 1)
    city.settle()
    found = database.read(
        "SELECT kind, severity FROM vee.exception WHERE service_point_id = 'SP-B' ORDER BY billing_day"
    )
    assert list(found.iter_rows()) == [("VACANT", "fail"), *[("SUPPLY_METER", "inform")] * 2]
    law = law_of_days(database, FIRST, FIRST + timedelta(days=3))
    assert law.ok, law.sentence()
    assert [(f.billing_day, f.why) for f in law.findings if f.service_point_id == "SP-B"] == [(FIRST, "no_agreement")]
    assert law.supply_meters == 2
