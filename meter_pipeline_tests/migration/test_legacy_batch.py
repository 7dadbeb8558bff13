"""The legacy batch promises: results a comparison can import, and exactly the quirks it is known for."""

from __future__ import annotations

import csv
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from meter_pipeline.billing.bill_position import PeriodPosition
from meter_pipeline.billing.pricing import amounts
from meter_pipeline.billing.tariffs import load_tariff
from meter_pipeline.simulator import Spec, day_matrix, simulate
from meter_pipeline_tests.migration.legacy_batch import LegacyBatch, period_cost

SPEC = Spec(meters=40, days=3, start=date(2026, 10, 31), seed=4, defects=False)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> dict[date, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("legacy")
    simulate(SPEC, folder / "city")
    batch = LegacyBatch(folder / "city", folder / "legacy.sqlite")
    found = {}
    for day in (SPEC.day(k) for k in range(SPEC.days)):
        night = batch.run_night(day)
        path = folder / f"{day}.csv"
        assert batch.export_csv(day, path) == night.figures
        found[day] = list(csv.DictReader(path.open(encoding="utf-8")))
    batch.close()
    return found


def usage_of(day: date) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for matrix in day_matrix(SPEC, day):
        for row, key in enumerate(matrix.keys.iter_rows(named=True)):
            if key["channel"] != "B1":
                found[f"{key['service_point_id']}:usage"] = Decimal(int(matrix.values[row].sum())).scaleb(-6)
    return found


def test_an_ordinary_day_agrees_with_the_intervals(nights: dict[date, list[dict[str, str]]]) -> None:
    day = SPEC.day(0)
    true = usage_of(day)
    compared = {
        r["code"]: Decimal(r["value"]) for r in nights[day] if r["level"] == "usage" and r["estimated"] == "false"
    }
    assert len(compared) > 30
    assert all(abs(true[code] - value) < Decimal("0.001") for code, value in compared.items())


def test_the_repeated_hour_is_lost_and_only_then(nights: dict[date, list[dict[str, str]]]) -> None:
    day = SPEC.day(1)
    true = usage_of(day)
    short = [
        r["code"]
        for r in nights[day]
        if r["level"] == "usage" and true.get(r["code"], Decimal(0)) - Decimal(r["value"]) > Decimal("0.001")
    ]
    assert len(short) > 20


def test_lines_are_cents_and_the_total_is_their_sum(nights: dict[date, list[dict[str, str]]]) -> None:
    for rows in nights.values():
        frame = (
            pl.DataFrame(rows)
            .filter(pl.col("level").is_in(["line", "total"]))
            .with_columns(pl.col("value").cast(pl.Decimal(18, 2)))
        )
        sums = (
            frame.group_by("account_id", "level")
            .agg(pl.col("value").sum())
            .pivot("level", index="account_id", values="value")
        )
        whole = sums.filter(pl.col("total").is_not_null())  # accounts with a service billed by hand have no total
        assert 5 < whole.height < sums.height
        assert (whole["line"] == whole["total"]).all()


def test_accounts_billed_by_hand_have_usage_and_no_lines(nights: dict[date, list[dict[str, str]]]) -> None:
    rows = nights[SPEC.day(0)]
    lines = {r["code"].split(":")[0] for r in rows if r["level"] == "line"}
    usages = {r["code"].split(":")[0] for r in rows if r["level"] == "usage"}
    assert lines < usages
    water = {r["code"].split(":")[1] for r in rows if r["level"] == "line" and r["code"].startswith("SP-W")}
    assert water >= {"BASIC", "WATER/all", "SEWER/all"}


@pytest.mark.parametrize(("name", "factor"), [("w-std-v1", 0.001), ("g-std-v2", 0.01027), ("e-res-v1", 1.0)])
@pytest.mark.parametrize(("quantity", "days"), [(0.0, 1), (345.6, 1), (3456.7, 5), (12_345.6, 20), (40_000.0, 28)])
def test_a_period_costs_what_the_product_says(name: str, factor: float, quantity: float, days: int) -> None:
    path = Path(__file__).parents[2] / "data" / "tariffs" / f"{name}.json"
    tariff = load_tariff(path)
    where = PeriodPosition(
        energy=np.array([[round(quantity * factor * 10**6)]]),
        days=np.array([days]),
        period_days=np.array([30]),
        attributes={"customer_class": np.array(["residential"], object)},
    )
    ours: dict[str, int] = {}
    for line, amount in zip(tariff.lines, amounts(tariff, where)[0].tolist(), strict=True):
        ours[line.day_key] = ours.get(line.day_key, 0) + amount
    theirs = period_cost(json.loads(path.read_text("utf-8")), quantity, days, 30, "residential")
    exact = {code: round(amount * 10**6) for code, amount in theirs.items()}
    if name.startswith("e-"):
        # The product bills a published (URDB) tariff in cents, each tier's line by itself: half a cent a line, two
        # lines a key here.
        assert exact.keys() == ours.keys()
        assert all(abs(exact[code] - ours[code]) <= 10_000 for code in ours)
    else:
        assert exact == ours
