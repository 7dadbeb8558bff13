"""A rate study promises: the old bills come out to the cent, the new ones are what the product would have billed, and a
question that cannot be answered is refused by name."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.rate_study import figures
from meter_pipeline.billing.rate_study.keeping import keep_study
from meter_pipeline.billing.rate_study.page import page
from meter_pipeline.billing.rate_study.positions import Change
from meter_pipeline.billing.rate_study.study import Question, Study, StudyRefusedError, study
from meter_pipeline.billing.tariffs import parse_tariff
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
    put_intervals,
    raw,
)
from meter_pipeline_tests.support import copy_database

PERIODS = (JULY, date(2026, 7, 4), date(2026, 7, 8), date(2026, 7, 11))
END = PERIODS[-1]


def flat(tariff_id: str, rate: str, **changes: Any) -> dict[str, Any]:
    made = native(
        tariff_id,
        charges=[
            {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "1.00", "per": "day"},
            {"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": rate},
            {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": "4.00"},
            {"kind": "tax", "code": "TAX", "name": "City tax", "percent": "10"},
        ],
    )
    made.pop("time_of_use")
    return made | changes


@pytest.fixture(scope="module")
def city(server: Database, template: Database) -> Database:
    """Three billing periods in ten days: two residential services and a commercial one, one that moves in late, and one
    bill that a later read corrected."""
    database = copy_database(server, "rate_study", template.name)
    add_tariff(database, flat("E-FLAT", "0.10"))
    add_tariff(database, native("E-TOU"))
    add_cycle(database, *PERIODS)
    points = [add_service(database, n, "E-FLAT", first=JULY) for n in (1, 2)]
    points.append(add_service(database, 3, "E-FLAT", first=date(2026, 7, 6)))
    points.append(add_service(database, 4, "E-TOU", first=JULY))
    with database.connect() as connection:
        connection.execute("UPDATE ref.accounts SET customer_class = 'commercial' WHERE account_id = 'A-002'")
    for day in days(JULY, 10):
        served = points if day >= date(2026, 7, 6) else [p for p in points if p != "SP-003"]
        put_intervals(database, day, {p: [1000 * (k + 1)] * 24 for k, p in enumerate(served)})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        if day + timedelta(days=1) in PERIODS:
            issue_statements(database, CHICAGO, "C1", day + timedelta(days=1), clock=CLOCK)
    put_intervals(database, date(2026, 7, 2), {"SP-001": [1500] * 24})
    bill_billing_day(database, CHICAGO, date(2026, 7, 2), clock=CLOCK)
    return database


def ask(database: Database, document: dict[str, Any], replaces: str = "E-FLAT", **other: Any) -> Study:
    bytes_ = raw(document)
    asked: dict[str, Any] = {
        "first": JULY,
        "past": END,
        "changes": [Change(parse_tariff(bytes_), bytes_, replaces)],
    } | other
    return study(database, CHICAGO, Question(**asked))


def test_the_same_tariff_changes_no_bill_and_reproduces_each(city: Database) -> None:
    found = ask(city, flat("E-NEW", "0.10"))
    assert found.not_reproduced == []
    assert found.bills == 8, "3 bills of each of two services, 2 of the one that moved in"
    assert found.total("actual") == found.total("proposed")
    billed = city.rows(
        "SELECT (SELECT sum(amount) FROM billing.statement_line WHERE tariff_id = 'E-FLAT') + "
        "(SELECT sum(amount) FROM billing.adjustment_line WHERE tariff_id = 'E-FLAT') AS n"
    )[0]["n"]
    assert figures.money(found.total("actual")) == billed, "corrections of issued bills count"
    assert figures.document(found)["difference_percent"] == "0.00"


def test_a_dearer_tariff_by_hand(city: Database) -> None:
    """A-001 used 24 kWh on nine days and 36 on one: 252 kWh. From 0.10 to 0.15 that is 12.60, with tax 13.86."""
    document = figures.document(ask(city, flat("E-NEW", "0.15")))
    (mine,) = [row for row in document["most_affected"] if row["account_id"] == "A-001"]
    assert (mine["actual"], mine["proposed"], mine["change"]) == (Decimal("38.72"), Decimal("52.58"), Decimal("13.86"))
    assert mine["change_percent"] == "35.79"
    assert [c["customer_class"] for c in document["by_class"]] == ["commercial", "residential"]
    assert sum(row["proposed"] for row in document["revenue"]) == document["proposed_revenue"]
    assert sum(row["actual"] for row in document["revenue"]) == document["actual"]
    assert {row["component"] for row in document["revenue"]} == {"energy", "fixed", "tax"}
    assert document["shares"][2] == {"direction": "rises", "more_than_percent": 20, "accounts": 3, "share": "1.0000"}
    text = page(document, "Anytown")
    assert "comes out as billed" in text
    assert text.count("data:image/png") == 2


def test_time_of_use_that_was_not_stored_is_counted_again_from_intervals(city: Database) -> None:
    """As the product itself bills a service of the same use: A-004 is on that tariff, with four times A-001's load."""
    found = ask(city, native("E-NEW"))
    assert found.from_intervals == {"E-FLAT": "its time-of-use periods are others"}
    again = ask(city, native("E-NEW", name="Same"), "E-TOU")
    assert again.from_intervals == {}
    assert again.total("actual") == again.total("proposed")
    rows = {row["account_id"]: row for row in found.accounts.to_dicts()}
    assert rows["A-001"]["proposed"] > 0
    assert rows["A-001"]["bills"] == 3


def test_use_that_falls_with_the_price_is_an_assumption_apart(city: Database) -> None:
    found = ask(city, flat("E-NEW", "0.15"), elasticity=Decimal("-0.5"))
    document = figures.document(found)
    assert document["proposed_revenue"] == figures.document(ask(city, flat("E-NEW", "0.15")))["proposed_revenue"]
    assert document["actual"] < document["proposed_revenue_with_elasticity"] < document["proposed_revenue"]


def test_a_study_that_is_kept_is_there_for_analysts(city: Database) -> None:
    name = keep_study(city, ask(city, flat("E-NEW", "0.15")), "accountant", CLOCK)
    (row,) = city.rows("SELECT bills, proposed - actual AS more FROM analyst.rate_studies WHERE study_id = $1", [name])
    (sums,) = city.rows("SELECT sum(change) AS more FROM analyst.rate_study_accounts WHERE study_id = $1", [name])
    assert row["bills"] == 8
    assert row["more"] == sums["more"] > 0


REFUSED = [
    ({"replaces": "E-NONE"}, {}, "--replaces E-NONE: no such tariff"),
    ({}, {"commodity": "water", "unit": "kgal"}, "commodity: water, but E-FLAT is of electricity"),
    ({}, {"currency": "CAD"}, "currency: CAD, but E-FLAT is in USD"),
    ({"customer_class": "industrial"}, {}, "--class industrial: no account of the class is on E-FLAT"),
    (
        {"first": date(2025, 1, 1), "past": date(2026, 1, 1)},
        {},
        "no account was on it between 2025-01-01 and 2026-01-01",
    ),
    (
        {"first": END, "past": date(2026, 8, 1)},
        {},
        "no bill of E-FLAT is issued in a period that ends after 2026-07-11",
    ),
]


@pytest.mark.parametrize(("asked", "document", "said"), REFUSED, ids=[said[:30] for _, _, said in REFUSED])
def test_a_question_without_an_answer_is_refused_by_name(
    city: Database, asked: dict[str, Any], document: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyRefusedError, match=said):
        ask(city, flat("E-NEW", "0.10", **document), **asked)


def test_a_tariff_that_asks_what_services_lack_leaves_them_out_by_name(city: Database) -> None:
    charges = [
        {
            "kind": "fixed",
            "code": "BASIC",
            "name": "By meter",
            "by": {"attribute": "meter_size", "values": {"5/8": "1", "1": "2"}},
        }
    ]
    with pytest.raises(StudyRefusedError, match="no bill"):
        ask(city, flat("E-NEW", "0.10", charges=charges))


def test_a_bill_that_does_not_come_out_is_named_and_left_out(city: Database) -> None:
    with city.connect() as connection:
        connection.execute(
            "UPDATE billing.statement_line SET amount = amount + 0.01 WHERE statement_id = 'A-002.C1.20260704.0' AND line_no = 1"
        )
    try:
        found = ask(city, flat("E-NEW", "0.10"))
    finally:
        with city.connect() as connection:
            connection.execute(
                "UPDATE billing.statement_line SET amount = amount - 0.01 WHERE statement_id = 'A-002.C1.20260704.0' AND line_no = 1"
            )
    (off,) = found.not_reproduced
    assert (off["account_id"], off["period_start"], off["billed"] - off["priced"]) == (
        "A-002",
        date(2026, 7, 4),
        10_000,
    )
    assert found.bills == 7


def test_the_command_says_it_in_one_document(city: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from meter_pipeline.cli.rates import app

    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", city.url)
    proposed = tmp_path / "new.json"
    proposed.write_bytes(raw(flat("E-NEW", "0.15")))
    arguments = [
        "study",
        "--tariff",
        str(proposed),
        "--replaces",
        "e-flat",
        "--from",
        "2026-07-01",
        "--to",
        "2026-07-11",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json", "--html", str(tmp_path / "study.html")])
    assert done.exit_code == 0, done.output
    assert '"bills": 8' in done.stdout
    assert (tmp_path / "study.html").read_text().startswith("<!DOCTYPE html>")
