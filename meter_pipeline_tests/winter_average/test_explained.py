"""A line that counts a winter average promises: it says which average, and which bills that stands on."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.explain import explain
from meter_pipeline.cli.explain import explain_command
from meter_pipeline.postgres.database import Database
from meter_pipeline.winter_average.compute import refresh, write_attributes
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
)

WATER = native(
    "W",
    commodity="water",
    unit="kgal",
    time_of_use={"periods": ["all"], "default": "all", "rules": []},
    charges=[
        {"kind": "usage", "code": "WATER", "name": "Water", "rate": "4.00"},
        {"kind": "usage", "code": "SEWER", "name": "Sewer", "rate": "3.00", "basis": "winter_average"},
    ],
)


def test_an_average_takes_the_imported_ones_place_and_a_line_explains_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two days of 500 gallons in July's first bill: 0.5 thousand gallons a day from the third day on, where 0.7 was
    imported. A bill counts a twelfth of a year of it, whatever was used: 0.7 x 365 / 12 x 3.00, then 0.5 x 365 / 12 x
    3.00."""
    start, middle, end = JULY, date(2026, 7, 3), date(2026, 7, 5)
    add_tariff(database, WATER)
    add_cycle(database, start, middle, end)
    add_service(database, 1, "W", commodity="water")
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.winter_average_rules VALUES ('*', '7', 0, 0, 1, NULL, '2020-01-01', NULL)")
        connection.execute(
            "INSERT INTO ref.service_attributes VALUES ('SP-001', 'winter_average_per_day', '0.7', '2020-01-01', NULL)"
        )

    def serve(first: date, gallons: int, past: date) -> None:
        for day in days(first, 2):
            put_daily(database, day, {"SP-001": gallons * 10**6}, "gal", "water")
            bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        assert issue_statements(database, CHICAGO, "C1", past, clock=CLOCK).issued == 1

    serve(start, 500, middle)
    found = refresh(database, middle)
    path = tmp_path / "service_attributes.csv"
    assert write_attributes(database, path, found, middle) == 1
    with database.connect() as connection:
        connection.execute("DELETE FROM ref.service_attributes")
        for row in path.read_text().splitlines()[1:]:
            values = [value or None for value in row.split(",")]
            connection.execute("INSERT INTO ref.service_attributes VALUES (%s, %s, %s, %s, %s)", values)
    serve(middle, 900, end)
    lines = {
        (row["period_start"], row["line_key"].split("/")[0]): (row["line_id"], row["amount"])
        for row in database.rows(
            "SELECT s.period_start, l.line_key, l.statement_id || '.' || l.line_no AS line_id, l.amount::numeric(12, 2)::text AS amount "
            "FROM billing.statement_line AS l JOIN billing.statement AS s USING (statement_id)"
        )
    }
    assert {key: amount for key, (_, amount) in lines.items() if key[1] == "SEWER"} == {
        (start, "SEWER"): "63.88",
        (middle, "SEWER"): "45.63",
    }
    before = explain(database, lines[start, "SEWER"][0])
    assert before is not None
    assert (before["winter_average"]["value"], before["winter_average"]["source"]) == ("0.7", "imported")
    now = explain(database, lines[middle, "SEWER"][0])
    assert now is not None
    assert now["winter_average"] == {
        "value": "0.500000",
        "valid_from": middle,
        "source": "computed",
        "unit": "kgal",
        "periods": [{"from": "2026-07-01", "to": "2026-07-03", "days": 2, "quantity": "1.000000", "left_out": ""}],
    }
    water = explain(database, lines[middle, "WATER"][0])
    assert water is not None
    assert water["winter_average"] is None, "it does not count the average"
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path))
    app = typer.Typer()
    app.command()(explain_command)
    shown = CliRunner().invoke(app, [lines[middle, "SEWER"][0]])
    assert "winter average 0.500000 a day from 2026-07-03 (computed)" in shown.stdout
    assert "2026-07-01" in shown.stdout
