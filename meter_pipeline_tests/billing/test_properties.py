"""What holds for any usage: no order of inputs matters, no line disappears, a correction is exactly the difference,
every feature of the native schema has a price."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, accrue
from meter_pipeline.billing.carried import nothing_carried
from meter_pipeline.billing.day_groups import DAILY_SCHEMA
from meter_pipeline.billing.day_slots import BLOCK, bucket_sums
from meter_pipeline.billing.determinants import day_determinants
from meter_pipeline.billing.load import read_load
from meter_pipeline.billing.proposals import difference
from meter_pipeline.billing.rate_calculator import price
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.service_agreements import Reference, services_of_day
from meter_pipeline.billing.statements import before_columns, numbered, price_segments
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline_tests.billing.support import CHICAGO, JULY, native, raw

END = JULY + timedelta(days=4)
TIERED = native(
    charges=[
        {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "12.37"},
        {
            "kind": "usage",
            "code": "ENERGY",
            "name": "Energy",
            "periods": {
                "off-peak": [{"upto": 300, "rate": "0.0812"}, {"rate": "0.1131"}],
                "peak": [{"upto": 300, "rate": "0.1812"}, {"rate": "0.2999"}],
            },
        },
        {"kind": "demand", "code": "DEMAND", "name": "Demand", "rate": "4.10"},
        {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": "40.00"},
        {"kind": "tax", "code": "TAX", "name": "Tax", "percent": "8.875"},
    ]
)


def city(document: dict[str, Any], points: int, **attributes: str) -> Reference:
    """Services SP-0 ... on one tariff, all year; ``attributes`` the same for all."""
    ids = [f"SP-{n}" for n in range(points)]
    dates = {"valid_from": pl.Date, "valid_to": pl.Date}
    tariff = document["tariff_id"]
    return Reference(
        pl.DataFrame(
            [(f"A-{n}", p, tariff, "C1", date(2020, 1, 1), None) for n, p in enumerate(ids)],
            orient="row",
            schema={
                "account_id": pl.String,
                "service_point_id": pl.String,
                "tariff_id": pl.String,
                "cycle_id": pl.String,
                **dates,
            },
        ),
        pl.DataFrame(
            [(tariff, document["commodity"], 1, date(2020, 1, 1), None)],
            orient="row",
            schema={"tariff_id": pl.String, "commodity": pl.String, "version": pl.Int64, **dates},
        ),
        pl.DataFrame({"cycle_id": ["C1"], "period_start": [JULY], "period_end": [END]}),
        pl.DataFrame({"account_id": [f"A-{n}" for n in range(points)], "customer_class": ["residential"] * points}),
        pl.DataFrame(
            [(p, k, v, date(2020, 1, 1), None) for p in ids for k, v in attributes.items()],
            orient="row",
            schema={"service_point_id": pl.String, "attribute": pl.String, "value": pl.String, **dates},
        ),
        holidays=frozenset({JULY + timedelta(days=1)}),
        documents={(tariff, 1): json.dumps(document).encode()},
    )


def matrix(day: date, values: list[list[int]], order: list[int]) -> DayMatrix:
    numbers = np.array(values, np.int64)[order] * 1000
    keys = pl.DataFrame({"service_point_id": [f"SP-{n}" for n in order]}).with_columns(
        unit=pl.lit("kWh"), flow=pl.lit("import")
    )
    return DayMatrix(day, 60, keys, numbers, np.zeros(numbers.shape, np.uint16), np.zeros(numbers.shape, np.int32))


def period(
    document: dict[str, Any], daily: list[list[list[int]]], order: list[int], **attributes: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The charges of every day, and the lines of the period's statements."""
    reference = city(document, len(order), **attributes)
    charges = [pl.DataFrame(schema=CHARGE_SCHEMA)]
    for k, values in enumerate(daily):
        day = JULY + timedelta(days=k)
        found = day_determinants(
            services_of_day(reference, day),
            CHICAGO,
            day,
            [matrix(day, values, order)],
            pl.DataFrame(schema=DAILY_SCHEMA),
            reference.holidays,
        )
        charges.append(accrue(found, charges[-1], CHICAGO).charges)
    bound = services_of_day(reference, END - timedelta(days=1))
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    rows = (
        segments(reference, "C1", JULY, END)
        .join(charges[-1].drop("cycle_id", "period_start"), on=[*key, "tariff_version"])
        .join(before_columns(charges[0]), on=[*key, "segment_start"], how="left")
        .join(bound.services.drop("account_id", "tariff_id", "tariff_version", "stretch_start"), on="service_point_id")
        .with_columns(
            pl.lit(None, pl.List(pl.String)).alias("moves_to"),
            *nothing_carried(),
            year_lines=pl.lit(None, pl.Int64),
            year_days=pl.lit(None, pl.Int64),
        )
    )
    return pl.concat(charges), numbered(price_segments(rows, bound.tariffs, JULY, END).lines, "C1", JULY)


hours = st.lists(st.integers(0, 9000), min_size=24, max_size=24)
cities = st.lists(st.lists(hours, min_size=3, max_size=3), min_size=4, max_size=4)


@settings(max_examples=15)
@given(cities, st.permutations(range(3)))
def test_no_order_matters_and_no_line_disappears(daily: list[list[list[int]]], order: list[int]) -> None:
    charges, lines = period(TIERED, daily, order)
    plainly, again = period(TIERED, daily, [0, 1, 2])
    assert charges.equals(plainly)
    assert lines.equals(again)
    tariff = parse_tariff(raw(TIERED))
    keys = {line.key: k for k, line in enumerate(tariff.lines)}
    for n in range(3):
        mine = lines.filter(pl.col("service_point_id") == f"SP-{n}")
        # every line that has money on any day is on the bill or came to nothing: the sums agree line by line
        accrued = np.array(charges.filter(pl.col("service_point_id") == f"SP-{n}")["amounts"].to_list(), np.int64).sum(
            axis=0
        )
        owed = dict.fromkeys(tariff.day_keys, 0)
        for key, amount, component in mine.select("line_key", "amount", "component").iter_rows():
            assert key in keys
            owed[tariff.lines[keys[key]].day_key] += amount if component not in ("minimum", "tax") else 0
        for k, key in enumerate(tariff.day_keys):
            component = next(line.component for line in tariff.lines if line.day_key == key)
            if component not in ("minimum", "tax"):  # the end of the period adds to these
                assert owed[key] == accrued[k], key
        energy = int(mine.filter(pl.col("component") == "energy")["quantity"].sum())
        assert abs(energy - sum(sum(day[n]) for day in daily) * 1000) <= 2, (
            "tiers hold all of the usage, each rounded to a millionth"
        )


@settings(max_examples=25)
@given(st.permutations(range(48)), st.lists(st.integers(0, 5000), min_size=48, max_size=48))
def test_the_rows_of_a_load_may_come_in_any_order(order: list[int], values: list[int]) -> None:
    rows = [f"2018-01-{1 + k // 24:02}T{k % 24:02}:00:00,{v / 1000}" for k, v in enumerate(values)]
    tariff = parse_tariff(raw(native()))
    header = ["interval_start,kwh"]
    assert price(tariff, read_load(header + rows)) == price(tariff, read_load(header + [rows[k] for k in order]))


figures = st.dictionaries(
    st.sampled_from(["BASIC", "ENERGY/1", "ENERGY/2", "MIN", "TAX"]),
    st.tuples(st.integers(0, 10**9), st.integers(-(10**9), 10**9)),
)


def statement(lines: dict[str, tuple[int, int]], original: bool) -> pl.DataFrame:
    rows = [
        ("SP-1", "E-TOU", 1, JULY, END, key, key, "energy", "kWh", q, a, *([k + 1] if original else []))
        for k, (key, (q, a)) in enumerate(lines.items())
    ]
    schema = {
        "service_point_id": pl.String,
        "tariff_id": pl.String,
        "tariff_version": pl.Int32,
        "segment_start": pl.Date,
        "segment_end": pl.Date,
        "line_key": pl.String,
        "name": pl.String,
        "component": pl.String,
        "unit": pl.String,
        "quantity": pl.Int64,
        "amount": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema | ({"original_line_no": pl.Int32} if original else {}), orient="row")


@given(figures, figures)
def test_a_correction_is_the_difference_and_nothing_where_there_is_none(
    said: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]]
) -> None:
    assert difference(statement(said, True), statement(said, False)).height == 0
    lines = difference(statement(said, True), statement(now, False))
    for key in said.keys() | now.keys():
        mine = lines.filter(pl.col("line_key") == key)
        before, after = said.get(key, (0, 0)), now.get(key, (0, 0))
        assert mine["amount"].sum() == after[1] - before[1]
        cancelled, charged = (int(mine.filter(pl.col("action") == a)["quantity"].sum()) for a in ("cancel", "rebill"))
        assert charged - cancelled == after[0] - before[0]
        assert mine.height == 0 or before != after, "a line that agrees is not touched"


PLAIN: dict[str, Any] = {k: v for k, v in native("N").items() if k != "time_of_use"}
USE = {"kind": "usage", "code": "USE", "name": "Use", "rate": "2.00"}


@pytest.mark.parametrize(
    ("changes", "attributes", "expected"),
    [
        (
            {"charges": [USE, {"kind": "rider", "code": "R", "name": "R", "rate": "0.10"}]},
            {},
            {"USE/all/1": "192.00", "R/all/1": "9.60"},
        ),
        (
            {"charges": [USE, {"kind": "rider", "code": "R", "name": "R", "percent": 5, "of": ["USE"]}]},
            {},
            {"USE/all/1": "192.00", "R": "9.60"},
        ),
        (
            {
                "charges": [
                    USE,
                    {"kind": "tax", "code": "T", "name": "T", "percent": 10, "of": ["USE"], "jurisdiction": "CITY"},
                ]
            },
            {"jurisdiction": "CITY"},
            {"USE/all/1": "192.00", "T": "19.20"},
        ),
        (
            {
                "charges": [
                    USE,
                    {"kind": "tax", "code": "T", "name": "T", "percent": 10, "of": ["USE"], "jurisdiction": "CITY"},
                ]
            },
            {"jurisdiction": "COUNTY"},
            {"USE/all/1": "192.00"},
        ),
        (
            {
                "charges": [
                    USE,
                    {"kind": "tax", "code": "T", "name": "T", "percent": 10, "of": ["USE"], "exempt": ["residential"]},
                ]
            },
            {},
            {"USE/all/1": "192.00"},
        ),
        (
            {
                "charges": [
                    USE | {"rate": "0.00055"},
                    USE | {"code": "FINE", "rate": "0.00055", "rounding": {"places": 4, "mode": "down"}},
                ]
            },
            {},
            {"USE/all/1": "0.05", "FINE/all/1": "0.0528"},
        ),
        (
            {
                "charges": [
                    {
                        "kind": "fixed",
                        "code": "F",
                        "name": "F",
                        "by": {"attribute": "meter_size", "values": {"2": "40.00", "*": "9.00"}},
                    }
                ]
            },
            {"meter_size": "2"},
            {"F": "40.00"},
        ),
        (
            {
                "charges": [
                    {
                        "kind": "fixed",
                        "code": "F",
                        "name": "F",
                        "by": {"attribute": "customer_class", "values": {"residential": "7.00", "*": "9.00"}},
                    }
                ]
            },
            {},
            {"F": "7.00"},
        ),
        ({"charges": [USE | {"factor": "0.85"}]}, {}, {"USE/all/1": "163.20"}),
        (
            {
                "charges": [
                    {
                        "kind": "usage",
                        "code": "B",
                        "name": "B",
                        "tiers": [{"upto": 1, "of": "budget", "rate": 1}, {"rate": 3}],
                    }
                ]
            },
            {"budget_per_day": "10"},
            {"B/all/1": "40.00", "B/all/2": "168.00"},
        ),
        (
            {"charges": [USE | {"basis": "winter_average"}]},
            {"winter_average_per_day": "6"},
            {"USE/all/1": "365.040000"},
        ),
        ({"charges": [USE | {"basis": "winter_average_cap"}]}, {"winter_average_per_day": "6"}, {"USE/all/1": "48.00"}),
        (
            {
                "time_of_use": {
                    "periods": ["usual", "holiday"],
                    "default": "usual",
                    "rules": [{"period": "holiday", "days": "holidays"}],
                },
                "charges": [{"kind": "usage", "code": "E", "name": "E", "rates": {"usual": 1, "holiday": "0.5"}}],
            },
            {},
            {"E/usual/1": "72.00", "E/holiday/1": "12.00"},
        ),
        (
            {
                "commodity": "gas",
                "unit": "therm",
                "heat_content": [
                    {"from": "1980-01-01", "therms_per_ccf": "1.000"},
                    {"from": "2026-07-03", "therms_per_ccf": "1.050"},
                ],
                "charges": [USE],
            },
            {},
            {"USE/all/1": "196.80"},
        ),
    ],
)
def test_every_feature_of_the_native_schema_has_its_price(
    changes: dict[str, Any], attributes: dict[str, str], expected: dict[str, str]
) -> None:
    """24 units on each of four days, the second a holiday."""
    document = PLAIN | changes
    daily = [[[1000] * 24] for _ in range(4)]
    lines = gas(document) if document["commodity"] == "gas" else period(document, daily, [0], **attributes)[1]
    assert {k: Decimal(a).scaleb(-6) for k, a in lines.select("line_key", "amount").iter_rows()} == {
        k: Decimal(v) for k, v in expected.items()
    }


def gas(document: dict[str, Any]) -> pl.DataFrame:
    """A gas meter in hundreds of cubic feet, 24 a day, whose heat content changes on the third day."""
    reference = city(document, 1)
    charges = pl.DataFrame(schema=CHARGE_SCHEMA)
    total = 0
    for k in range(4):
        day = JULY + timedelta(days=k)
        daily = pl.DataFrame([("SP-0", "import", "ft3", 2400 * 10**6, False)], schema=DAILY_SCHEMA, orient="row")
        found = day_determinants(services_of_day(reference, day), CHICAGO, day, [], daily, reference.holidays)
        charges = accrue(found, charges, CHICAGO).charges
        total += int(charges["total"][0])
    return pl.DataFrame({"line_key": ["USE/all/1"], "amount": [total]})


@pytest.mark.parametrize("largest", [1, 700_000, 1 << 40, 1 << 52, 1 << 58])
def test_sums_by_period_are_exact_however_large(largest: int) -> None:
    """Matrix products in doubles where they are exact, whole numbers otherwise."""
    rng = np.random.default_rng(largest)
    values = rng.integers(-largest, largest, (3 * BLOCK // 2, 25))
    columns = [np.array([0, 1, 7]), np.array([], np.int64), np.array([2, 3, 4, 24])]
    sums, whole = bucket_sums(values, columns)
    assert sums.tolist() == [[sum(row[k] for k in held.tolist()) for held in columns] for row in values.tolist()]
    assert whole.tolist() == [sum(row) for row in values.tolist()]


SPANS = st.lists(st.tuples(st.integers(-2, 9), st.integers(1, 6)), max_size=4)


@given(SPANS, SPANS, st.none() | st.integers(0, 6), st.lists(st.integers(-1, 8), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_services_of_a_day_are_the_same_whichever_day_was_asked_for_before(
    served: list[tuple[int, int]], sizes: list[tuple[int, int]], opening: int | None, asked: list[int]
) -> None:
    """Agreements and attributes that begin and end on any days of some weeks, gaps and overlaps among them."""
    whole = city(TIERED, 1)
    agreements = [
        (f"A-{k}", "SP-0", TIERED["tariff_id"], "C1", JULY + timedelta(days=a), JULY + timedelta(days=a + n))
        for k, (a, n) in enumerate(served)
    ]
    attributes = [
        ("SP-0", "meter_size", str(k), JULY + timedelta(days=a), JULY + timedelta(days=a + n))
        for k, (a, n) in enumerate(sizes)
    ]
    reference = replace(
        whole,
        agreements=pl.DataFrame(agreements, schema=whole.agreements.schema, orient="row"),
        service_attributes=pl.DataFrame(attributes, schema=whole.service_attributes.schema, orient="row"),
        opening=None if opening is None else JULY + timedelta(days=opening),
    )
    for n in asked:
        day = JULY + timedelta(days=n)
        found, alone = services_of_day(reference, day), services_of_day(replace(reference), day)
        assert found.services.equals(alone.services)
        assert found.exceptions.equals(alone.exceptions)
        assert found.tariffs.keys() == alone.tariffs.keys()
