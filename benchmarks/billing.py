"""``bench billing``: a billing day and a month's statements for a city on quarter-hour time of use, and one
account-year beside PySAM.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
import uuid
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from psycopg import sql

from benchmarks.support import document, peak_rss_mib
from meter_pipeline.billing.accrual import CHARGE_SCHEMA, accrue
from meter_pipeline.billing.day_groups import DAILY_SCHEMA
from meter_pipeline.billing.determinants import day_determinants
from meter_pipeline.billing.leaves import charge_leaves as charge_hashes
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.service_agreements import ATTRIBUTES, Reference, services_of_day
from meter_pipeline.billing.statements import before_columns, line_hashes, numbered, price_segments
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.copy_binary import copy_frame
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.postgres.vectors import VectorTable, write_matrices
from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline.settings import load_settings

FIRST, END = date(2026, 7, 1), date(2026, 8, 1)
RATES = {"off-peak": "0.0912", "mid": "0.1311", "peak": "0.2140"}
TARIFF = {
    "schema": "meter_pipeline.tariff/1",
    "tariff_id": "E-TOU",
    "name": "Time of use",
    "commodity": "electricity",
    "currency": "USD",
    "unit": "kWh",
    "time_of_use": {
        "periods": list(RATES),
        "default": "off-peak",
        "rules": [
            {"period": "peak", "days": "weekdays", "from": "14:00", "to": "19:00"},
            {"period": "mid", "days": "weekdays", "from": "07:00", "to": "22:00"},
        ],
    },
    "charges": [
        {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "12.50"},
        {
            "kind": "usage",
            "code": "ENERGY",
            "name": "Energy",
            "periods": {p: [{"upto": 600, "rate": r}, {"rate": str(float(r) * 2)[:6]}] for p, r in RATES.items()},
        },
        {"kind": "rider", "code": "FUEL", "name": "Fuel adjustment", "rate": "0.00413"},
        {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": "15.00"},
        {"kind": "tax", "code": "TAX", "name": "City tax", "percent": "6.25"},
    ],
}


def _city(accounts: int) -> tuple[Reference, pl.DataFrame]:
    number = pl.int_range(accounts, eager=True).cast(pl.String).str.zfill(7)
    point, account = "SP-" + number, "A-" + number
    open_ended = pl.Series([None], dtype=pl.Date).new_from_index(0, accounts)
    first = pl.Series([date(2020, 1, 1)]).new_from_index(0, accounts)
    agreements = pl.DataFrame(
        {
            "account_id": account,
            "service_point_id": point,
            "tariff_id": pl.Series(["E-TOU"]).new_from_index(0, accounts),
            "cycle_id": pl.Series(["C1"]).new_from_index(0, accounts),
            "valid_from": first,
            "valid_to": open_ended,
        }
    )
    reference = Reference(
        agreements,
        pl.DataFrame(
            [("E-TOU", "electricity", 1, date(2020, 1, 1), None)],
            schema={
                "tariff_id": pl.String,
                "commodity": pl.String,
                "version": pl.Int64,
                "valid_from": pl.Date,
                "valid_to": pl.Date,
            },
            orient="row",
        ),
        pl.DataFrame({"cycle_id": ["C1"], "period_start": [FIRST], "period_end": [END]}),
        pl.DataFrame({"account_id": account, "customer_class": pl.Series(["residential"]).new_from_index(0, accounts)}),
        pl.DataFrame(
            schema={
                "service_point_id": pl.String,
                "attribute": pl.String,
                "value": pl.String,
                "valid_from": pl.Date,
                "valid_to": pl.Date,
            }
        ),
        documents={("E-TOU", 1): json.dumps(TARIFF).encode()},
    )
    keys = pl.DataFrame({"service_point_id": point}).with_columns(unit=pl.lit("kWh"), flow=pl.lit("import"))
    return reference, keys


def _day(
    reference: Reference, keys: pl.DataFrame, day: date, prior: pl.DataFrame, minutes: int, seed: int
) -> tuple[pl.DataFrame, float, float]:
    calendar = BillingCalendar("America/Chicago")
    slots = calendar.slots(day, minutes)
    values = np.random.default_rng(seed).integers(0, 700_000, (keys.height, slots))
    matrix = DayMatrix(
        day, minutes, keys, values, np.zeros(values.shape, np.uint16), np.zeros((keys.height, slots), np.int32)
    )
    started = time.perf_counter()
    bound = services_of_day(reference, day)
    determinants = day_determinants(bound, calendar, day, [matrix], pl.DataFrame(schema=DAILY_SCHEMA), frozenset())
    used = time.perf_counter() - started
    result = accrue(determinants, prior, calendar)
    charge_hashes(result.charges)
    return result.charges, used, time.perf_counter() - started


def _statements(reference: Reference, charges: pl.DataFrame) -> tuple[int, float]:
    started = time.perf_counter()
    wanted = segments(reference, "C1", FIRST, END)
    bound = services_of_day(reference, END - timedelta(days=1))
    named = ["service_point_id", "customer_class", *ATTRIBUTES]
    attributes = bound.services.select(named)
    empty = pl.lit(None, pl.List(pl.Int64))
    rows = (
        wanted.join(
            charges.drop("cycle_id", "period_start"),
            on=["service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"],
        )
        .join(
            before_columns(pl.DataFrame(schema=CHARGE_SCHEMA)),
            how="left",
            on=["service_point_id", "account_id", "tariff_id", "stretch_start", "segment_start"],
        )
        .join(attributes, on="service_point_id")
        .with_columns(
            empty.alias("carry_in"),
            pl.lit(None, pl.Int64).alias("credit_in"),
            empty.alias("history_in"),
            year_lines=pl.lit(None, pl.Int64),
            year_days=pl.lit(None, pl.Int64),
        )
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
    rates.assign(
        {
            "en_electricity_rates": 1,
            "ur_metering_option": 0,
            "ur_monthly_fixed_charge": 12.5,
            "ur_monthly_min_charge": 15.0,
            "ur_annual_min_charge": 0.0,
            "ur_ec_sched_weekday": weekday,
            "ur_ec_sched_weekend": [[1] * 24] * 12,
            "ur_dc_enable": 0,
            "ur_en_ts_sell_rate": 0,
            "ur_nm_yearend_sell_rate": 0,
            "ur_ec_tou_mat": [
                [p, t, 600 if t == 1 else 1e38, 0, float(r) * t, 0]
                for p, r in enumerate(RATES.values(), 1)
                for t in (1, 2)
            ],
        }
    )
    model.Lifetime.assign({"analysis_period": 1, "inflation_rate": 0, "system_use_lifetime_output": 0})
    model.SystemOutput.assign({"gen": [0.0] * 8760, "degradation": [0.0]})
    model.Load.assign({"load": [float(x) for x in rng.random(8760) * 2.8]})
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        model.execute()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / 2


def _stored(accounts: int, interval: int, days: int, timed: int) -> dict[str, Any]:
    """The stages on a scratch database: seconds of each of the last ``timed`` days of a month of ``days``, of its
    statements, and of the law of a day when every bill of the month is out.

    The days before are billed within minutes, not one each night, and autovacuum and the checkpointer would still be at
    their 5 GB during those timed: their work is done before. What the timed days themselves make of it is in their
    seconds.
    """
    from meter_pipeline.billing import bill_billing_day
    from meter_pipeline.billing.bill_run import issue_statements
    from meter_pipeline.revenue_assurance.law import law_of_day

    settings = load_settings()
    base = open_database(settings)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    calendar = BillingCalendar("America/Chicago")
    first = END - timedelta(days=days)
    try:
        migrate(database)
        put_city(database, accounts, [(first, END)])
        seconds = []
        for k in range(days):
            day = first + timedelta(days=k)
            put_day(database, calendar, day, accounts, 60 if k < days - timed else interval, k)
            if k == days - timed:
                with database.connect("bench", autocommit=True) as connection:
                    connection.execute("VACUUM (ANALYZE) billing.determinant_day, billing.charge_day")
                    connection.execute("CHECKPOINT")
            started = time.perf_counter()
            outcome = bill_billing_day(database, calendar, day)
            if k >= days - timed:
                seconds.append(time.perf_counter() - started)
            if outcome.charged != accounts or "open" in outcome.reconciliation["cause"].to_list():
                raise RuntimeError(f"{day}: {outcome.charged} of {accounts} services charged, {outcome.exceptions}")
        started = time.perf_counter()
        done = issue_statements(database, calendar, "C1", END)
        statements_s = time.perf_counter() - started
        if done.issued != accounts or "open" in done.reconciliation["cause"].to_list():
            raise RuntimeError(f"{done.issued} of {accounts} statements issued, {done.exceptions}")
        law_s = []
        with database.connect("bench", autocommit=True) as connection:
            connection.execute("ANALYZE")  # as autovacuum has done by the next night
        for day in (first, END - timedelta(days=1)):
            started = time.perf_counter()
            if not law_of_day(database, day).ok:
                raise RuntimeError(f"{day}: usage is neither billed nor accrued nor waiting")
            law_s.append(time.perf_counter() - started)
        return {
            "days": seconds,
            "steps": outcome.seconds,
            "statements": statements_s,
            "lines": done.lines,
            "law": max(law_s),
        }
    finally:
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def put_city(database: Database, accounts: int, periods: Sequence[tuple[date, date]]) -> None:
    """The city's reference data, one billing cycle with some periods."""
    reference, _ = _city(accounts)
    ids = reference.agreements.with_columns(p="service_point_id")
    points = ids.select(
        service_point_id="p",
        commodity=pl.lit("electricity"),
        premise_id="p",
        route=pl.lit("R1"),
        customer_class=pl.lit("residential"),
        status=pl.lit("active"),
        valid_from=pl.lit(date(2020, 1, 1)),
    )
    opened = reference.accounts.with_columns(opened=pl.lit(date(2020, 1, 1)))
    with database.connect("bench") as connection:
        for table, frame in (("accounts", opened), ("service_points", points), ("agreements", reference.agreements)):
            copy_frame(connection, sql.Identifier("ref", table), frame, frame.columns)
        connection.execute("INSERT INTO ref.tariffs VALUES ('E-TOU', 'electricity', 1, '2020-01-01', NULL, 'x.json')")
        raw = json.dumps(TARIFF)
        connection.execute(
            "INSERT INTO ref.tariff_document VALUES ('E-TOU', 1, %s::jsonb, %s)",
            (raw, hashlib.sha256(raw.encode()).digest()),
        )
        for first, past in periods:
            connection.execute("INSERT INTO ref.billing_cycles VALUES ('C1', %s, %s)", (first, past))


_ROW = {
    "unit": "kWh",
    "flow": "import",
    "head_end": "HE",
    "billed": True,
    "unscaled_micro": 0,
    "row_flags": 0,
    "rules_version": 1,
    "locked": False,
    "input_hash": bytes(32),
    "content_hash": bytes(32),
}
_VALIDATED = VectorTable(
    "vee.interval_day",
    ("service_point_id", "meter_id", "channel"),
    (*_ROW, "total_micro", "first_slot", "expected", "actual", "estimated", "missing"),
    ("sequence", "sequence_step", "sequences", "offsets"),
)


def put_day(database: Database, calendar: BillingCalendar, day: date, accounts: int, minutes: int, seed: int) -> None:
    """A validated day of the city, nothing estimated, as validation would have left it."""
    slots = calendar.slots(day, minutes)
    values = np.random.default_rng(seed).integers(0, 700 * minutes // 15, (accounts, slots)) * 1000
    small = {"first_slot": 0, "expected": slots, "actual": slots, "estimated": 0, "missing": 0}
    kinds = {"unscaled_micro": pl.Int64, "row_flags": pl.Int64, "rules_version": pl.Int32}
    _, points = _city(accounts)
    keys = points.select("service_point_id").with_columns(
        meter_id="service_point_id",
        channel=pl.lit("E1"),
        total_micro=pl.Series(values.sum(axis=1)),
        **{c: pl.lit(v, dtype=kinds.get(c)) for c, v in _ROW.items()},
        **{c: pl.lit(v, pl.Int16) for c, v in small.items()},
    )
    matrix = DayMatrix(day, minutes, keys, values, np.zeros(values.shape, np.uint16), np.zeros(values.shape, np.int32))
    usage = keys.select(
        "service_point_id",
        "flow",
        "unit",
        quantity_micro="total_micro",
        estimated_micro=pl.lit(0, pl.Int64),
        row_flags=pl.lit(0, pl.Int64),
        billing_day=pl.lit(day),
        slots_expected=pl.lit(slots, pl.Int32),
        actual=pl.lit(slots, pl.Int32),
        estimated=pl.lit(0, pl.Int32),
        missing=pl.lit(0, pl.Int32),
        meters=pl.lit(1, pl.Int16),
        quality=pl.lit(0, pl.Int16),
        exchange=pl.lit(False),
        source=pl.lit("interval"),
        commodity=pl.lit("electricity"),
        customer_class=pl.lit("residential"),
    )
    with database.connect("bench") as connection:
        for table in ("vee.interval_day", "vee.daily_usage"):
            connection.execute("SELECT raw.open_partition(%s, %s)", (table, day))
            connection.execute("SELECT raw.attach_partition(%s, %s)", (table, day))
        write_matrices(connection, _VALIDATED.partition(day), [matrix], calendar.bounds(day)[0])
        copy_frame(connection, sql.Identifier("vee", f"daily_usage_{day:%Y%m%d}"), usage, usage.columns)


def run(
    accounts: int = 100_000,
    interval: int = 15,
    rounds: int = 3,
    pysam_rounds: int = 5,
    store: int = 1,
    days: int = 31,
    timed: int = 3,
) -> dict[str, Any]:
    """Median of some days and statement runs. ``days``: length of the month in the store; the last ``timed`` of them
    are timed."""
    stored = _stored(accounts, interval, days, timed) if store else None
    reference, keys = _city(accounts)
    every, determinants, statement_s, peers, lines = [], [], [], [], 0
    charges = pl.DataFrame(schema=CHARGE_SCHEMA)
    for k in range(rounds):
        charges, used, seconds = _day(reference, keys, FIRST + timedelta(days=k), charges, interval, k)
        determinants.append(used)
        every.append(seconds)
        # The position of the month's last day: the same shape, a month's magnitude.
        final = charges.with_columns(
            pl.lit(END - timedelta(days=1)).alias("billing_day"),
            pl.lit(31, pl.Int32).alias("days"),
            (pl.col("energy_to_date").list.eval(pl.element() * (31 // (k + 1)))).alias("energy_to_date"),
        )
        lines, seconds = _statements(reference, final)
        statement_s.append(seconds)
        peer = _pysam(pysam_rounds)
        peers += [peer] if peer is not None else []
    bills = 12 * statistics.median(statement_s)
    ours = (365 * statistics.median(determinants) + bills) / accounts
    every_day = (365 * statistics.median(every) + bills) / accounts
    compute = {
        "compute_day_s": round(statistics.median(every), 3),
        "compute_statements_s": round(statistics.median(statement_s), 3),
    }
    with_store = (
        {
            "day_wall_s": round(statistics.median(stored["days"]), 3),
            "statements_wall_s": round(stored["statements"], 3),
            "law_of_a_day_wall_s": round(stored["law"], 3),
            "day_steps_s": stored["steps"],
        }
        if stored
        else {}
    )
    return document(
        "billing",
        {
            "accounts": accounts,
            "interval": interval,
            "rounds": rounds,
            "store": bool(store),
            "days": days,
            "timed": timed,
        },
        with_store
        | compute
        | {
            "statement_lines": stored["lines"] if stored else lines,
            "peak_rss_mib": peak_rss_mib(),
            "ours_account_year_ms": round(ours * 1000, 4),
            "ours_account_year_with_daily_charges_ms": round(every_day * 1000, 4),
            "pysam_account_year_ms": round(statistics.median(peers) * 1000, 3) if peers else None,
        },
        {"pysam_over_ours": round(statistics.median(peers) / ours, 2) if peers else None},
    )
