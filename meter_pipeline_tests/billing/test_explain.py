"""A line of a bill can be walked back to the bytes that came from the meter, and can leave the house without a formula
in it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_document import bill_documents
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.bill_settings import BillSettings
from meter_pipeline.billing.explain import explain
from meter_pipeline.billing.export import safe_for_spreadsheets, write
from meter_pipeline.billing.render import bill_page
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.page_formats import formats
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
)


def test_a_line_is_explained_from_its_tariff_to_its_payloads_and_ledger_entries(database: Database) -> None:
    add_tariff(database, native(name="<b>Time</b> of use"))
    end = JULY + timedelta(days=2)
    add_cycle(database, JULY, end)
    point = add_service(database, 1)
    payload = bytes(range(32))
    with database.connect() as connection:
        connection.execute("SELECT raw.open_partition('raw.interval_day', %s)", (JULY,))
        connection.execute("SELECT raw.attach_partition('raw.interval_day', %s)", (JULY,))
        connection.execute(
            "INSERT INTO raw.interval_day (starts_at, source_version, billing_day, sequence, interval_minutes, slots, scale, quality, meter_id, channel, "
            "unit, head_end, payload_hash, values) VALUES (%s, 1, %s, 1, 60, 24, 3, 0, %s, 'E1', 'kWh', 'HE', %s, %s)",
            (CHICAGO.bounds(JULY)[0], JULY, "M" + point[2:], payload, [1000] * 24),
        )
        ledger.append(connection, "ingested", {"billing_day": JULY}, [bytes(32), payload], clock=CLOCK)
    for day in days(JULY, 2):
        put_intervals(database, day, {point: [1000] * 24}, estimated=24)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    number = database.read("SELECT line_no FROM billing.statement_line WHERE line_key = 'ENERGY/peak/1'")["line_no"][0]
    told = explain(database, f"A-001.C1.20260701.0.{number}")
    assert told is not None
    assert told["tariff"]["subject"] == "E-TOU version 1"
    assert told["estimated_intervals"] == 48
    assert sum(Decimal(d["amount"]) for d in told["days"]) == Decimal(told["line"]["amount"])
    assert [p["payload_sha256"] for p in told["payloads"]] == [payload.hex()]
    assert {(e["kind"], e["leaf"]) for e in told["ledger"]} == {("bill_issued", 0), ("ingested", 1)}
    assert explain(database, "A-001.C1.20260701.0.99") is None
    assert explain(database, "'; DROP TABLE ref.accounts; --") is None
    utility = "<script>alert(1)</script>"
    (bill,) = bill_documents(database, ["A-001.C1.20260701.0"], utility, "UTC", BillSettings())
    page = bill_page(bill, formats("en_US"))
    assert "<script>" not in page
    assert "data:image/png;base64," in page


def test_an_export_holds_no_formula(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"name": ["=1+1", "+cmd", "-2+3", "@SUM", "\tx", "Energy, off-peak", "-12.50", None], "amount": [1] * 8}
    )
    assert safe_for_spreadsheets(frame)["name"].to_list() == [
        "'=1+1",
        "'+cmd",
        "'-2+3",
        "'@SUM",
        "'\tx",
        "Energy, off-peak",
        "-12.50",
        None,
    ]
    write(frame, tmp_path / "a.csv")
    write(frame, tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet").equals(frame)
    with pytest.raises(ValueError, match="exports are"):
        write(frame, tmp_path / "a.xlsx")
