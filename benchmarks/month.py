"""``bench month``: what finance and engineering ask every month, of one city: unbilled revenue, supply balance, rate
study, leak adjustments, limits on estimates, winter averages, charges by the unit.

Each part is timed alone, and compared with the answers that month_city.py works out from the formula of the city's use.
``cents_off`` is the sum of the differences, account by account; where a part has no money, ``off`` counts what differs.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar

from benchmarks.month_city import BILLED, CUT, IN_A_ROW, JULY, OPEN, PROPOSED, MonthCity, tariff
from benchmarks.support import document, peak_rss_mib
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.estimate_limits.apply import apply_limits
from meter_pipeline.billing.rate_study.positions import Change
from meter_pipeline.billing.rate_study.study import Question, study
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.leak_adjustments.request import apply
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.reporting.tables import unit_charges
from meter_pipeline.settings import load_settings
from meter_pipeline.supply_balance.balance import refresh as balance
from meter_pipeline.unbilled.month import refresh as unbilled
from meter_pipeline.winter_average.compute import refresh as winter

T = TypeVar("T")
CALENDAR = BillingCalendar("America/Chicago")


def run(accounts: int = 10_000) -> dict[str, Any]:
    """Make the city, ask each question, compare each answer."""
    base = open_database(load_settings())
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    city = MonthCity(accounts)
    try:
        migrate(database)
        started = time.perf_counter()
        city.put_reference(database)
        limits = _bill(database, city)
        made = time.perf_counter() - started
        figures = {
            "estimate_limits": limits,
            "unbilled": _unbilled(database, city),
            "supply_balance": _balance(database, city),
            "winter_average": _winter(database, city),
            "unit_charges": _units(database, city),
            "rate_study": _study(database, city),
            "leak_adjustments": _leaks(database, city),
        }
        return document(
            "month",
            {"accounts": accounts, "bills": accounts * (len(BILLED) + len(IN_A_ROW)) + int(city.second_cycle.sum())},
            figures | {"city_made_s": round(made, 1), "peak_rss_mib": peak_rss_mib()},
            {},
        )
    finally:
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _timed(answer: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    found = answer()
    return found, round(time.perf_counter() - started, 3)


def _cents(amount: Fraction | Decimal | int) -> float:
    """A difference in the currency, as cents."""
    return round(float(Fraction(amount) * 100), 6)


def _bill(database: Database, city: MonthCity) -> dict[str, Any]:
    """Bill the city; the limits on estimates are applied to the last bills in a row alone first, and timed."""
    limits: dict[str, Any] = {}
    for day in [*BILLED, *IN_A_ROW, *OPEN]:
        city.put_day(database, day)
        bill_billing_day(database, CALENDAR, day)
        if day == IN_A_ROW[-1]:
            with database.connect("bench", autocommit=True) as connection:
                connection.execute("ANALYZE")  # as autovacuum has done by the next night
            limits = _limits(database, city, day)
        for cycle in ("C1", "C2") if day not in OPEN else ("C2",) if day + timedelta(days=1) == CUT else ():
            done = issue_statements(database, CALENDAR, cycle, day + timedelta(days=1))
            expected = int((city.second_cycle == (cycle == "C2")).sum())
            if done.issued != expected:
                raise RuntimeError(f"{day}: {done.issued} of {expected} statements issued, {done.exceptions}")
    with database.connect("bench", autocommit=True) as connection:
        connection.execute("ANALYZE")
    return limits


def _limits(database: Database, city: MonthCity, day: date) -> dict[str, Any]:
    asked, seconds = 0, 0.0
    for cycle in ("C1", "C2"):
        one, took = _timed(lambda c=cycle: apply_limits(database, c, day, day + timedelta(days=1)))  # type: ignore[misc]
        asked, seconds = asked + one, seconds + took
    rows = database.read(
        "SELECT service_point_id, in_a_row, action FROM billing.estimated_bill WHERE period_start = $1 ORDER BY 1",
        [day],
    ).rows()
    wanted = [
        (point, len(IN_A_ROW), "read_request")
        for point, estimated in zip(city.points, city.estimated.tolist(), strict=True)
        if estimated
    ]
    return {
        "accounts": len(city.points),
        "answers": asked,
        "seconds": round(seconds, 3),
        "off": len(set(rows) ^ set(wanted)) + abs(asked - len(wanted)),
    }


def _unbilled(database: Database, city: MonthCity) -> dict[str, Any]:
    found, seconds = _timed(lambda: unbilled(database, JULY))
    ours = dict(
        database.read(
            "SELECT account_id, sum(amount)::bigint FROM billing.unbilled_month WHERE month = $1 GROUP BY 1", [JULY]
        ).iter_rows()
    )
    off = Fraction(0)
    for account, wanted in zip(city.accounts, city.unbilled(), strict=True):
        off += abs(Fraction(ours.get(account, 0), 10**6) - wanted)
    booked = [Fraction(row["debit"] or 0) - Fraction(row["credit"] or 0) for row in found.journal]
    return {
        "accounts": len(city.points),
        "answers": found.detail.height,
        "seconds": seconds,
        "cents_off": _cents(off),
        "journal_off": _cents(sum(booked, Fraction(0))),
        "open_points": len(found.open_points),
    }


def _balance(database: Database, city: MonthCity) -> dict[str, Any]:
    found, seconds = _timed(lambda: balance(database, CALENDAR, JULY))
    ours = {(day, zone): d for day, zone, d in found.days.select("billing_day", "zone_id", "difference").iter_rows()}
    wanted = {(day, zone): d for day in (*IN_A_ROW, *OPEN) for zone, d in city.difference(day).items()}
    off = sum(1 for key in ours.keys() | wanted.keys() if ours.get(key) != wanted.get(key))
    return {"accounts": len(city.points), "answers": len(ours), "seconds": seconds, "off": off}


def _winter(database: Database, city: MonthCity) -> dict[str, Any]:
    found, seconds = _timed(lambda: winter(database, date(2026, 7, 1)))
    ours = dict(found.select("service_point_id", "per_day").iter_rows())
    micro = sum(abs(ours.get(p, 0) - w) for p, w in zip(city.points, city.winter(), strict=True))
    # thirty days of sewer by the average, at the tariff's rate
    return {
        "accounts": len(city.points),
        "answers": found.height,
        "seconds": seconds,
        "cents_off": _cents(Fraction(micro, 10**6) * 30 * 3),
    }


def _units(database: Database, city: MonthCity) -> dict[str, Any]:
    day = BILLED[-1]
    found, seconds = _timed(lambda: unit_charges(database, day, day))
    ours = sum((Fraction(row["amount"]) for row in found), Fraction(0))
    wanted = sum((city.stormwater(n) for n in range(len(city.points))), Fraction(0))
    return {
        "accounts": len(city.points),
        "answers": len(found),
        "seconds": seconds,
        "cents_off": _cents(abs(ours - wanted)),
    }


def _study(database: Database, city: MonthCity) -> dict[str, Any]:
    raw = json.dumps(tariff("W-NEW", PROPOSED)).encode()
    question = Question([Change(parse_tariff(raw), raw, "W-STD")], BILLED[0], BILLED[-1] + timedelta(days=1))
    found, seconds = _timed(lambda: study(database, CALENDAR, question))
    if found.not_reproduced or found.left_out:
        raise RuntimeError(f"{len(found.not_reproduced)} bills not reproduced, {found.left_out}")
    ours = {
        a: (actual, new) for a, actual, new in found.accounts.select("account_id", "actual", "proposed").iter_rows()
    }
    used = [city.used(day).tolist() for day in BILLED]
    off = Fraction(0)
    for n, account in enumerate(city.accounts):
        actual, new = ours.get(account, (0, 0))
        off += abs(Fraction(actual, 10**6) - sum(city.bill(n, month[n]) for month in used))
        off += abs(Fraction(new, 10**6) - sum(city.bill(n, month[n], PROPOSED) for month in used))
    return {"accounts": len(city.points), "answers": found.bills, "seconds": seconds, "cents_off": _cents(off)}


def _leaks(database: Database, city: MonthCity) -> dict[str, Any]:
    cases = city.put_leaks(database)

    def every() -> None:
        for case in cases:
            apply(database, CALENDAR, case, shown="receipt", requested_by="analyst")

    _, seconds = _timed(every)
    ours = dict(
        database.read(
            "SELECT s.account_id, sum(a.net)::text FROM billing.adjustment AS a JOIN billing.statement AS s USING (statement_id) "
            "WHERE a.reason = 'leak' GROUP BY 1"
        ).iter_rows()
    )
    off = sum(
        (abs(Fraction(ours.get(city.accounts[n], "0")) - city.leak_net(n)) for n in city.leaks.tolist()), Fraction(0)
    )
    return {"accounts": len(city.points), "answers": len(ours), "seconds": seconds, "cents_off": _cents(off)}
