"""For random tariffs and loads ``tariffs price`` says what the run bills: as billed, the same quantity and amount in
every line, to the last millionth; exact, the amount before it is rounded.

The run's side goes day by day: determinants, a charge for each day, segments, statement lines.
"""

from __future__ import annotations

import json
import os
import random
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, accrue
from meter_pipeline.billing.carried import nothing_carried
from meter_pipeline.billing.day_groups import DAILY_SCHEMA, DayDeterminants, DayExtras
from meter_pipeline.billing.determinants import day_determinants
from meter_pipeline.billing.load import read_load
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.service_agreements import Reference, services_of_day
from meter_pipeline.billing.statement_frames import CENTS
from meter_pipeline.billing.statements import before_columns, price_segments
from meter_pipeline.billing.synthetic_account import Terms, price_months
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline_tests.billing import random_tariffs

COUNT = int(os.environ.get("METER_PIPELINE_RANDOM_TARIFFS", "60"))
UTC = BillingCalendar("Etc/UTC")
FIRST = date(2018, 5, 1)
DAYS = 4
Line = tuple[Fraction, Fraction]


def reference(document: dict[str, Any]) -> Reference:
    """One service on a tariff, in one billing period."""
    dates: dict[str, type[pl.DataType]] = {"valid_from": pl.Date, "valid_to": pl.Date}
    names = dict.fromkeys(("account_id", "service_point_id", "tariff_id", "cycle_id"), pl.String)
    versions: dict[str, type[pl.DataType]] = {"tariff_id": pl.String, "commodity": pl.String, "version": pl.Int64}
    since = date(2015, 1, 1)
    return Reference(
        pl.DataFrame([("A", "SP", "T", "C1", since, None)], orient="row", schema={**names, **dates}),
        pl.DataFrame([("T", "electricity", 1, since, None)], orient="row", schema={**versions, **dates}),
        pl.DataFrame({"cycle_id": ["C1"], "period_start": [FIRST], "period_end": [FIRST + timedelta(days=DAYS)]}),
        pl.DataFrame({"account_id": ["A"], "customer_class": ["residential"]}),
        pl.DataFrame(
            [
                ("SP", name, value, since, None)
                for name, value in random_tariffs.ATTRIBUTES.items()
                if name != "customer_class"
            ],
            orient="row",
            schema={"service_point_id": pl.String, "attribute": pl.String, "value": pl.String, **dates},
        ),
        holidays=frozenset(random_tariffs.HOLIDAYS),
        documents={("T", 1): json.dumps(document).encode()},
    )


def determined(city: Reference, day: date, matrix: DayMatrix, turned: list[int]) -> DayDeterminants:
    """A day's determinants of the run, with its reactive energy."""
    keys = pl.DataFrame({"service_point_id": ["SP"], "flow": ["other"], "unit": ["kVArh"]})
    values = np.array([turned], np.int64)
    codes = np.zeros(values.shape, np.uint16), np.zeros(values.shape, np.int32)
    extras = DayExtras(reactive=[DayMatrix(day, 60, keys, values, *codes)])
    services, nothing = services_of_day(city, day), pl.DataFrame(schema=DAILY_SCHEMA)
    return day_determinants(services, UTC, day, [matrix], nothing, city.holidays, extras)


def billed(
    document: dict[str, Any], taken: list[list[int]], sent: list[list[int]], turned: list[list[int]]
) -> tuple[dict[str, Line], Fraction]:
    """Quantity and money of every statement line, and the sum of the days' charges without what the end adds."""
    city, end = reference(document), FIRST + timedelta(days=DAYS)
    charges = pl.DataFrame(schema=CHARGE_SCHEMA)
    every: list[pl.DataFrame] = []
    days = Fraction(0)
    keys = pl.DataFrame({"service_point_id": ["SP", "SP"], "flow": ["import", "export"], "unit": ["kWh", "kWh"]})
    for k in range(DAYS):
        day = FIRST + timedelta(days=k)
        values = np.array([taken[k], sent[k]], np.int64)
        matrix = DayMatrix(day, 60, keys, values, np.zeros(values.shape, np.uint16), np.zeros(values.shape, np.int32))
        found = determined(city, day, matrix, turned[k])
        charges = accrue(found, charges, UTC).charges
        every.append(charges)
        days += Fraction(int(charges["total"][0]), 10**6)
    bound = services_of_day(city, end - timedelta(days=1))
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    reached = pl.concat(every)
    parts = segments(city, "C1", FIRST, end).with_columns(billing_day=pl.col("segment_end").dt.offset_by("-1d"))
    eves = reached.join(parts.select(billing_day=pl.col("segment_start").dt.offset_by("-1d")), on="billing_day")
    rows = (
        parts.join(reached.drop("cycle_id", "period_start"), on=[*key, "tariff_version", "billing_day"])
        .join(before_columns(eves), on=[*key, "segment_start"], how="left")
        .join(bound.services.drop("account_id", "tariff_id", "tariff_version", "stretch_start"), on="service_point_id")
        .with_columns(
            *nothing_carried(),
            moves_to=pl.lit(None, pl.List(pl.String)),
            year_lines=pl.lit(None, pl.Int64),
            year_days=pl.lit(None, pl.Int64),
        )
    )
    priced = price_segments(rows, bound.tariffs, FIRST, end)
    added = priced.segments.select(pl.sum_horizontal("period_end", "credit", "ratchet", "year_end")).to_series()
    return lines(priced.lines, 10**6, 10**6), days + Fraction(int(added.sum()), 10**6)


def lines(frame: pl.DataFrame, money: int, units: int) -> dict[str, Line]:
    """By line, the parts of a cut bill together: a demand line says the demand of its last part."""
    found: dict[str, Line] = {}
    for key, component, quantity, amount in frame.select("line_key", "component", "quantity", "amount").iter_rows():
        held, paid = found.get(key, (Fraction(0), Fraction(0)))
        used = Fraction(int(quantity or 0), units)
        found[key] = (used if component.startswith("demand") else held + used), paid + Fraction(int(amount), money)
    return found


def check_rounding(run: dict[str, Line], exact: dict[str, Line], document: dict[str, Any], seed: int) -> None:
    """A line that stands on no other is its exact amount, rounded to a cent for each part of the bill."""
    # A part of a bill that a fuel factor cuts is rounded by itself.
    parts = 1 + any(charge["code"] == "FU" for charge in document["charges"])
    for key in run.keys() | exact.keys():
        ours, theirs = run.get(key, (Fraction(0), Fraction(0))), exact.get(key, (Fraction(0), Fraction(0)))
        if key.split("/")[0] not in ("M", "T", "R", "C", "PF", "CREDIT-USED", "ROUNDING"):
            assert abs(ours[1] - theirs[1]) <= Fraction(parts, 100), f"seed {seed}, {key}: amount"


@pytest.mark.oracle
def test_price_says_what_the_run_bills() -> None:
    for seed in range(1, COUNT + 1):
        rng = random.Random(seed)
        document = random_tariffs.tariff(rng)
        solar = document.get("metering") is not None
        taken = [[rng.randint(0, 9_000_000) for _ in range(24)] for _ in range(DAYS)]
        sent = [[rng.randint(0, 9_000_000) if solar else 0 for _ in range(24)] for _ in range(DAYS)]
        turned = [[rng.randint(0, 9_000_000) for _ in range(24)] for _ in range(DAYS)]
        run, explained = billed(document, taken, sent, turned)
        start = datetime(2018, 5, 1)  # noqa: DTZ001 - wall-clock time
        rows = [
            f"{(start + timedelta(days=d, hours=h)).isoformat()},{taken[d][h] / 10**6:.6f},{sent[d][h] / 10**6:.6f},{turned[d][h] / 10**6:.6f}"
            for d in range(DAYS)
            for h in range(24)
        ]
        load = read_load(["interval_start,kwh,export_kwh,kvarh", *rows])
        tariff = parse_tariff(json.dumps(document).encode())
        days_off, has = frozenset(random_tariffs.HOLIDAYS), random_tariffs.ATTRIBUTES
        [month] = price_months(tariff, load, holidays=days_off, attributes=has, terms=Terms(CENTS))
        assert lines(month.priced.lines, 10**6, 10**6) == run, f"seed {seed}"
        [month] = price_months(tariff, load, holidays=days_off, attributes=has)
        check_rounding(run, lines(month.priced.lines, 10**12, 10**9), document, seed)
        assert explained == sum((amount for _, amount in run.values()), Fraction(0)), f"seed {seed}: days and end"
