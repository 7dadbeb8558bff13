"""What the old system's bills left promises: the first bill here takes the credit in and looks back on the peaks, by
hand."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    native,
    put_intervals,
    raw,
)

END = JULY + timedelta(days=1)
ONE_PERIOD = {"periods": ["all"], "default": "all", "rules": []}
NET = native(
    "NET",
    time_of_use=ONE_PERIOD,
    metering="net_metering",
    sell={"rate": "0.03"},
    charges=[{"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": "0.10"}],
)
LARGE = native(
    "LARGE",
    time_of_use=ONE_PERIOD,
    charges=[
        {
            "kind": "demand",
            "code": "DEMAND",
            "name": "Demand",
            "rate": "10.00",
            "ratchet": {"percent": 80, "months": 11},
        },
    ],
)


def bill(database: Database, point: str) -> Decimal:
    put_intervals(database, JULY, {point: [1000] * 24})
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    assert issue_statements(database, CHICAGO, "C1", END, clock=CLOCK).exceptions == {}
    (row,) = database.rows("SELECT total FROM billing.statement")
    return Decimal(row["total"])


def owes(database: Database, *rows: tuple[str, str, str, date, str]) -> None:
    with database.connect() as connection:
        for tariff, kind, name, end, quantity in rows:
            connection.execute(
                "INSERT INTO ref.opening_balances VALUES ('SP-001', 'A-001', %s, %s, %s, %s, %s)",
                (tariff, kind, name, end, quantity),
            )


def test_a_credit_in_units_is_set_against_the_first_bill(database: Database) -> None:
    """24 kWh used, 10.5 of credit: 13.5 at 0.10."""
    add_tariff(database, NET)
    add_cycle(database, JULY, END)
    owes(database, ("NET", "units", "all", JULY, "10.5"))
    assert bill(database, add_service(database, 1, "NET")) == Decimal("1.35")


def test_a_ratchet_looks_back_on_old_peaks(database: Database) -> None:
    """1 kW now; 20 kW eleven months ago count to 80 %, 100 kW a year ago no longer: 16 kW at 10.00."""
    add_tariff(database, LARGE)
    add_cycle(database, JULY, END)
    owes(
        database,
        ("LARGE", "peak", "demand", date(2025, 9, 1), "20"),
        ("LARGE", "peak", "demand", date(2025, 6, 1), "100"),
    )
    assert bill(database, add_service(database, 1, "LARGE")) == Decimal("160.00")


def test_names_that_a_tariff_does_not_have_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tariffs").mkdir()
    (tmp_path / "tariffs" / "x.json").write_bytes(raw(LARGE))
    (tmp_path / "tariffs.csv").write_text(
        "tariff_id,commodity,version,valid_from,valid_to,document\nLARGE,electricity,1,2020-01-01,,x.json\n"
    )
    (tmp_path / "opening_balances.csv").write_text(
        "service_point_id,account_id,tariff_id,kind,name,period_end,quantity\nSP-1,A-1,LARGE,peak,kw,2026-07-01,5\n"
        "SP-1,A-1,NET,units,all,2026-07-01,5\nSP-1,A-1,LARGE,units,all,2026-07-01,-1\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert [str(f) for f in refused.value.faults] == [
        "opening_balances.csv:2: name: LARGE has no peak 'kw'; it has demand",
        "opening_balances.csv:3: tariff_id: NET is not in this folder's tariffs.csv: import them together",
        "opening_balances.csv:4: quantity: -1 is below 0",
    ]
