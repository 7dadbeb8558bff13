"""A net channel gives import less export in each interval: negative intervals are exports, and what is billed
reconciles with what was validated."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from meter_pipeline.billing.reconcile import usage_rows
from meter_pipeline.billing.tables.usage import split_net
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.contracts import CONTRACTS
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline_tests.corrections.town import FIRST, channel, town


def day(values: list[list[int]], flows: list[str]) -> DayMatrix:
    matrix = np.array(values, np.int64)
    keys = pl.DataFrame({"service_point_id": [f"P{k}" for k in range(len(flows))], "unit": "kWh", "flow": flows})
    return DayMatrix(
        date(2026, 11, 10), 60, keys, matrix, np.zeros(matrix.shape, np.uint16), np.zeros(matrix.shape, np.int32)
    )


def test_a_net_row_is_an_import_and_an_export() -> None:
    found = split_net(day([[900, -1500, NO_VALUE], [1, 2, 3], [5, 0, 7]], ["net", "import", "net"]))
    rows = dict(zip(found.keys.select("service_point_id", "flow").rows(), found.values.tolist(), strict=True))
    assert rows == {
        ("P0", "import"): [900, 0, NO_VALUE],
        ("P1", "import"): [1, 2, 3],
        ("P2", "import"): [5, 0, 7],
        ("P0", "export"): [0, 1500, NO_VALUE],
    }
    assert found.quality.shape == found.values.shape == found.sequence.shape


def test_a_day_without_net_channels_is_left_alone() -> None:
    given = day([[1, -2]], ["import"])
    assert split_net(given) is given


def test_net_usage_reconciles_with_an_import_and_an_export() -> None:
    """Twenty hours of 0.9 in, four of 1.5 out: 12 kWh net are 18 in less 6 out."""
    wanted = pl.DataFrame(
        [("P0", "kWh", "net", 12_000_000), ("P1", "kWh", "import", 5)],
        schema={"service_point_id": pl.String, "unit": pl.String, "flow": pl.String, "quantity": pl.Int64},
        orient="row",
    )
    columns = {
        "service_point_id": pl.String,
        "source_unit": pl.String,
        "source_quantity": pl.Int64,
        "source_export": pl.Int64,
        "other_unit": pl.String,
        "other_quantity": pl.Int64,
        "other_export": pl.Int64,
    }
    excused = pl.DataFrame(schema={"service_point_id": pl.String, "reason": pl.String, "uncharged": pl.Boolean})

    def causes(imported: int, exported: int) -> set[str]:
        rows = [("P0", "kWh", imported, exported, "", 0, 0), ("P1", "kWh", 5, 0, "", 0, 0)]
        held = pl.DataFrame(rows, schema=columns, orient="row")
        return {str(cell) for row in usage_rows(wanted, held, excused) for cell in row if cell in ("none", "open")}

    assert causes(18_000_000, 6_000_000) == {"none"}
    assert "open" in causes(21_600_000, 0)


def test_a_day_of_estimates_below_zero_keeps_every_contract(database: Database, tmp_path: Path) -> None:
    """A net meter that gave 24 kWh on one day and sends nothing on the next: the estimates are below zero too. The
    contract of vee.interval_day refused their sum, and its check stopped the whole city."""
    from meter_pipeline.defs.lib.contract_check import evaluate

    city = town(database, tmp_path / "town")
    city.refer({"channels": [channel("A", flow="net")]})
    start, _ = city.calendar.bounds(FIRST)
    city.read([("INTERVAL-KWH", "MA", "E1", start + timedelta(hours=h), "-1", 1) for h in range(24)])
    for day in (FIRST, FIRST + timedelta(days=1)):
        city.run_day(day)
    found = database.read(
        "SELECT total_micro, unscaled_micro, estimated FROM vee.interval_day WHERE meter_id = 'MA' ORDER BY billing_day"
    )
    assert found.rows() == [(-24_000_000, 0, 0), (-24_000_000, -24_000_000, 24)]
    for table, contract in CONTRACTS.items():
        if "billing_day" in contract.columns and table.partition(".")[0] in ("vee", "billing", "raw"):
            for day in (FIRST, FIRST + timedelta(days=1)):
                result = evaluate(database, table, day)
                assert result.passed, (table, result.metadata)
