"""``bench rate_study``: a year of a city's bills priced again under a proposed tariff.

Twelve billing periods of one billing day each: a study reads the positions of each bill's last day, so that its cost
goes by bills and not by the days before them. ``study_s`` is the study alone; making the bills is not timed.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta
from typing import Any

from benchmarks.billing import FIRST, TARIFF, put_city, put_day
from benchmarks.support import document, peak_rss_mib
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.rate_study.positions import Change
from meter_pipeline.billing.rate_study.study import Question, study
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.settings import load_settings


def run(accounts: int = 100_000, periods: int = 12) -> dict[str, Any]:
    """Study a fuel rider that is dearer by a tenth of a cent a kWh; each bill must first come out as billed."""
    base = open_database(load_settings())
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    calendar = BillingCalendar("America/Chicago")
    days = [FIRST + timedelta(days=k) for k in range(periods)]
    try:
        migrate(database)
        put_city(database, accounts, [(day, day + timedelta(days=1)) for day in days])
        for k, day in enumerate(days):
            put_day(database, calendar, day, accounts, 60, k)
            bill_billing_day(database, calendar, day)
            done = issue_statements(database, calendar, "C1", day + timedelta(days=1))
            if done.issued != accounts:
                raise RuntimeError(f"{day}: {done.issued} of {accounts} statements issued, {done.exceptions}")
        with database.connect("bench", autocommit=True) as connection:
            connection.execute("ANALYZE")  # as autovacuum has done by the next night
        raw = json.dumps(_dearer()).encode()
        question = Question([Change(parse_tariff(raw), raw, "E-TOU")], FIRST, days[-1] + timedelta(days=1))
        before_mib = peak_rss_mib()
        started = time.perf_counter()
        found = study(database, calendar, question)
        seconds = time.perf_counter() - started
        if found.not_reproduced or found.left_out or found.bills != accounts * periods:
            raise RuntimeError(f"{found.bills} bills, {len(found.not_reproduced)} not reproduced, {found.left_out}")
        return document(
            "rate_study",
            {"accounts": accounts, "periods": periods},
            {
                "study_s": round(seconds, 3),
                "bills": found.bills,
                "bills_per_s": round(found.bills / seconds),
                "peak_rss_mib": peak_rss_mib(),
                "peak_rss_before_study_mib": before_mib,
            },
            {},
        )
    finally:
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _dearer() -> dict[str, Any]:
    proposed = json.loads(json.dumps(TARIFF)) | {"tariff_id": "E-TOU-NEW"}
    for charge in proposed["charges"]:
        if charge["kind"] == "rider":
            charge["rate"] = "0.00513"
    return dict(proposed)
