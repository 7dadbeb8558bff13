"""``bench billing``: a billing day and a month's statements for a city on quarter-hour time of use, and one account-year beside PySAM.

Belongs here: the synthetic city, the timing. Nothing is read from or written to a store: ``bench day`` measures that. The day is bind,
determinants, charges and the ledger's leaf of every charge row, in one process. Statements are priced from positions at the period's end,
numbered and hashed. PySAM's Utilityrate5 prices a year of hours per call and computes the bill with and without a system, so its time is
halved here; ours is 365 days of determinants and 12 statements of the same account's quarter-hours: the same work. What daily charges and
their ledger leaves cost on top, which PySAM has no counterpart of, is a figure of its own.
"""

from __future__ import annotations

import json
import statistics
import time
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks.support import document, peak_rss_mib
from meter_pipeline.billing.accrual import CHARGE_SCHEMA, accrue
from meter_pipeline.billing.bind import Reference, bind
from meter_pipeline.billing.day import charge_hashes
from meter_pipeline.billing.determinants import DAILY_SCHEMA, day_determinants
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.statements import before_columns, line_hashes, numbered, price_segments
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import DayMatrix

FIRST, END = date(2026, 7, 1), date(2026, 8, 1)
RATES = {"off-peak": "0.0912", "mid": "0.1311", "peak": "0.2140"}
TARIFF = {
    "schema": "meter_pipeline.tariff/1", "tariff_id": "E-TOU", "name": "Time of use", "commodity": "electricity", "currency": "USD", "unit": "kWh",
    "time_of_use": {
        "periods": list(RATES), "default": "off-peak",
        "rules": [
            {"period": "peak", "days": "weekdays", "from": "14:00", "to": "19:00"}, {"period": "mid", "days": "weekdays", "from": "07:00", "to": "22:00"},
        ],
    },
    "charges": [
        {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "12.50"},
        {"kind": "usage", "code": "ENERGY", "name": "Energy", "periods": {
            p: [{"upto": 600, "rate": r}, {"rate": str(float(r) * 2)[:6]}] for p, r in RATES.items()}},
        {"kind": "rider", "code": "FUEL", "name": "Fuel adjustment", "rate": "0.00413"},
        {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": "15.00"},
        {"kind": "tax", "code": "TAX", "name": "City tax", "percent": "6.25"},
    ],
}  # fmt: skip


def _city(accounts: int) -> tuple[Reference, pl.DataFrame]:
    number = pl.int_range(accounts, eager=True).cast(pl.String).str.zfill(7)
    point, account = "SP-" + number, "A-" + number
    open_ended = pl.Series([None], dtype=pl.Date).new_from_index(0, accounts)
    first = pl.Series([date(2020, 1, 1)]).new_from_index(0, accounts)
    agreements = pl.DataFrame({
        "account_id": account, "service_point_id": point, "tariff_id": pl.Series(["E-TOU"]).new_from_index(0, accounts),
        "cycle_id": pl.Series(["C1"]).new_from_index(0, accounts), "valid_from": first, "valid_to": open_ended,
    })  # fmt: skip
    reference = Reference(
        agreements,
        pl.DataFrame([("E-TOU", "electricity", 1, date(2020, 1, 1), None)],
                     schema={"tariff_id": pl.String, "commodity": pl.String, "version": pl.Int64, "valid_from": pl.Date, "valid_to": pl.Date}, orient="row"),
        pl.DataFrame({"cycle_id": ["C1"], "period_start": [FIRST], "period_end": [END]}),
        pl.DataFrame({"account_id": account, "customer_class": pl.Series(["residential"]).new_from_index(0, accounts)}),
        pl.DataFrame(schema={"service_point_id": pl.String, "attribute": pl.String, "value": pl.String, "valid_from": pl.Date, "valid_to": pl.Date}),
        documents={("E-TOU", 1): json.dumps(TARIFF).encode()},
    )  # fmt: skip
    keys = pl.DataFrame({"service_point_id": point}).with_columns(unit=pl.lit("kWh"), flow=pl.lit("import"))
    return reference, keys


def _day(reference: Reference, keys: pl.DataFrame, day: date, prior: pl.DataFrame, minutes: int, seed: int) -> tuple[pl.DataFrame, float, float]:
    calendar = BillingCalendar("America/Chicago")
    slots = calendar.slots(day, minutes)
    values = np.random.default_rng(seed).integers(0, 700_000, (keys.height, slots))
    matrix = DayMatrix(day, minutes, keys, values, np.zeros(values.shape, np.uint16), np.zeros((keys.height, slots), np.int32))
    started = time.perf_counter()
    bound = bind(reference, day)
    determinants = day_determinants(bound, calendar, day, [matrix], pl.DataFrame(schema=DAILY_SCHEMA), frozenset())
    used = time.perf_counter() - started
    result = accrue(determinants, prior, calendar)
    charge_hashes(result.charges)
    return result.charges, used, time.perf_counter() - started


def _statements(reference: Reference, charges: pl.DataFrame) -> tuple[int, float]:
    started = time.perf_counter()
    wanted = segments(reference, "C1", FIRST, END)
    bound = bind(reference, END - timedelta(days=1))
    named = ["service_point_id", "customer_class", "meter_size", "jurisdiction", "rate_code", "budget_per_day", "winter_average_per_day"]
    attributes = bound.services.select(named)
    empty = pl.lit(None, pl.List(pl.Int64))
    rows = (
        wanted.join(charges.drop("cycle_id", "period_start"), on=["service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"])
        .join(
            before_columns(pl.DataFrame(schema=CHARGE_SCHEMA)), how="left",
            on=["service_point_id", "account_id", "tariff_id", "stretch_start", "segment_start"],
        )
        .join(attributes, on="service_point_id")
        .with_columns(empty.alias("carry_in"), empty.alias("history_in"), year_lines=pl.lit(None, pl.Int64), year_days=pl.lit(None, pl.Int64))
    )
    lines = numbered(price_segments(rows, bound.tariffs, FIRST, END).lines, "C1", FIRST)
    line_hashes(lines)
    return lines.height, time.perf_counter() - started


def _pysam(rounds: int) -> float | None:
    """Seconds of one account-year in PySAM, or None where it is not installed."""
    try:
        from PySAM import Utilityrate5
    except ImportError:
        return None
    model = Utilityrate5.new()
    rng = np.random.default_rng(1)
    rates = model.ElectricityRates
    weekday = [[1] * 7 + [2] * 7 + [3] * 5 + [2] * 3 + [1] * 2] * 12
    rates.assign({
        "en_electricity_rates": 1, "ur_metering_option": 0, "ur_monthly_fixed_charge": 12.5, "ur_monthly_min_charge": 15.0, "ur_annual_min_charge": 0.0,
        "ur_ec_sched_weekday": weekday, "ur_ec_sched_weekend": [[1] * 24] * 12, "ur_dc_enable": 0, "ur_en_ts_sell_rate": 0, "ur_nm_yearend_sell_rate": 0,
        "ur_ec_tou_mat": [[p, t, 600 if t == 1 else 1e38, 0, float(r) * t, 0] for p, r in enumerate(RATES.values(), 1) for t in (1, 2)],
    })  # fmt: skip
    model.Lifetime.assign({"analysis_period": 1, "inflation_rate": 0, "system_use_lifetime_output": 0})
    model.SystemOutput.assign({"gen": [0.0] * 8760, "degradation": [0.0]})
    model.Load.assign({"load": [float(x) for x in rng.random(8760) * 2.8]})
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        model.execute()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / 2


def run(accounts: int = 100_000, interval: int = 15, rounds: int = 3, pysam_rounds: int = 5) -> dict[str, Any]:
    """Median of some days and statement runs; the first day compiles nothing but warms caches and is counted too."""
    reference, keys = _city(accounts)
    days, determinants, statement_s, peers, lines = [], [], [], [], 0
    charges = pl.DataFrame(schema=CHARGE_SCHEMA)
    for k in range(rounds):
        charges, used, seconds = _day(reference, keys, FIRST + timedelta(days=k), charges, interval, k)
        determinants.append(used)
        days.append(seconds)
        # The position of the month's last day: the same shape, a month's magnitude.
        final = charges.with_columns(
            pl.lit(END - timedelta(days=1)).alias("billing_day"), pl.lit(31, pl.Int32).alias("days"),
            (pl.col("energy_to_date").list.eval(pl.element() * (31 // (k + 1)))).alias("energy_to_date"),
        )  # fmt: skip
        lines, seconds = _statements(reference, final)
        statement_s.append(seconds)
        peer = _pysam(pysam_rounds)
        peers += [peer] if peer is not None else []
    bills = 12 * statistics.median(statement_s)
    ours = (365 * statistics.median(determinants) + bills) / accounts
    every_day = (365 * statistics.median(days) + bills) / accounts
    return document(
        "billing", {"accounts": accounts, "interval": interval, "rounds": rounds, "store": False},
        {
            "day_wall_s": round(statistics.median(days), 3), "statements_wall_s": round(statistics.median(statement_s), 3), "statement_lines": lines,
            "peak_rss_mib": peak_rss_mib(), "ours_account_year_ms": round(ours * 1000, 4),
            "ours_account_year_with_daily_charges_ms": round(every_day * 1000, 4),
            "pysam_account_year_ms": round(statistics.median(peers) * 1000, 3) if peers else None,
        },
        {"pysam_over_ours": round(statistics.median(peers) / ours, 2) if peers else None},
    )  # fmt: skip
