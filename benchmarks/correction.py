"""``bench correction``: one meter's ratio found wrong over months: previewed, made, and its days run again.

A water utility of daily register reads. Its days are billed and the months that ended are issued before the clock
starts. ``preview_s``: the impact, exact, in a transaction that is undone. ``apply_s``: the import and the days it asks
for, validated and billed again, adjustments worked out. ``nothing_s``: importing the whole folder again, which changes
nothing. Beside them, ``apply_over_whole_days`` divides apply_s by what billing the same days took at first.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.backfill import FIRST, _files
from benchmarks.day import roomy
from benchmarks.support import document, peak_rss_mib
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.settings import Settings, load_settings


def run(meters: int = 1_000, days: int = 61, keep: bool = False) -> dict[str, Any]:
    """Correct the ratio of one of ``meters`` meters over ``days`` billing days."""
    settings = load_settings()
    base = open_database(settings)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    work = Path(tempfile.mkdtemp(prefix="correction-", dir=roomy(settings)))
    try:
        migrate(database)
        mine = replace(
            settings, home=work / "home", data=work / "city", inbox=work / "city" / "inbox", database_url=database.url
        )
        mine.home.mkdir(parents=True)
        return _run(database, mine, meters, days)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
            with base.connect(autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _run(database: Database, mine: Settings, meters: int, days: int) -> dict[str, Any]:
    from meter_pipeline.corrections.apply import import_folder
    from meter_pipeline.corrections.preview import preview_folder

    _files(mine.data, meters, days)
    _opened(mine.data, days)
    calendar = mine.calendar()
    reference = mine.data / "reference"
    import_folder(database, calendar, reference)
    first_s = _bill(database, mine, days)
    fixed = mine.data / "corrected"
    fixed.mkdir()
    channels = pl.read_csv(reference / "channels.csv", infer_schema=False)
    wrong = channels["meter_id"][0]
    channels.filter(meter_id=wrong).with_columns(multiplier=pl.lit("10")).write_csv(fixed / "channels.csv")

    began = time.perf_counter()
    made = preview_folder(database, calendar, fixed)
    preview_s = time.perf_counter() - began
    began = time.perf_counter()
    done = import_folder(database, calendar, fixed)
    _again(database, mine)
    apply_s = time.perf_counter() - began
    channels.with_columns(
        multiplier=pl.when(pl.col("meter_id") == wrong).then(pl.lit("10")).otherwise("multiplier")
    ).write_csv(reference / "channels.csv")
    began = time.perf_counter()
    nothing = import_folder(database, calendar, reference)
    nothing_s = time.perf_counter() - began
    if nothing.days:
        raise RuntimeError("an import of what is stored asked for days")
    return document(
        "correction",
        {"meters": meters, "days": days},
        {
            "preview_s": round(preview_s, 3),
            "apply_s": round(apply_s, 3),
            "nothing_s": round(nothing_s, 3),
            "days": len(done.days),
            "statements": made.document["statements"]["issued"],
            "difference": made.document["money"]["difference"],
            "first_billing_s": round(first_s, 3),
            "peak_rss_mib": peak_rss_mib(),
        },
        {"apply_over_whole_days": round(apply_s / first_s, 3)},
    )


def _opened(data: Path, days: int) -> None:
    """Install reads that open the first day, and monthly periods over the days."""
    reference = data / "reference"
    number = pl.int_range(pl.len(), dtype=pl.Int64)
    dial = 100_000 + (number * 7919) % 500_000 - (20 + (number * 104_729) % 400)
    pl.read_csv(reference / "installations.csv", infer_schema=False).with_columns(
        installed_at=pl.lit(f"{FIRST}T05:00:00Z"), install_read=dial.cast(pl.String)
    ).write_csv(reference / "installations.csv")
    start, periods = FIRST, ["cycle_id,period_start,period_end"]
    while start < FIRST + timedelta(days=days):
        end = (start + timedelta(days=32)).replace(day=1)
        periods.append(f"MONTHLY,{start},{end}")
        start = end
    (reference / "billing_cycles.csv").write_text("\n".join(periods) + "\n")


def _bill(database: Database, mine: Settings, days: int) -> float:
    """Every day read and billed, ended months issued; the seconds that validation and billing took."""
    from meter_pipeline.billing import bill_billing_day
    from meter_pipeline.billing.bill_run import issue_statements
    from meter_pipeline.ingest import ingest_billing_day, land_inbox
    from meter_pipeline.vee import validate_billing_day

    calendar, spent = mine.calendar(), 0.0
    land_inbox(database, calendar, mine, run_id="bench")
    for day in calendar.days(FIRST, FIRST + timedelta(days=days - 1)):
        ingest_billing_day(database, calendar, day, settings=mine, run_id="bench")
        began = time.perf_counter()
        validate_billing_day(database, calendar, day)
        bill_billing_day(database, calendar, day)
        spent += time.perf_counter() - began
        following: date = day + timedelta(days=1)
        if following.day == 1:
            issue_statements(database, calendar, "MONTHLY", following)
    return spent


def _again(database: Database, mine: Settings) -> None:
    """The days that are asked for, until none is."""
    from meter_pipeline.billing import bill_billing_days
    from meter_pipeline.vee import validate_billing_days
    from meter_pipeline.vee.tables.true_up import waiting

    seen: set[tuple[date, bytes]] = set()
    while asked := {(day, e) for day, several in waiting(database) for e in several} - seen:
        seen |= asked
        days = sorted({day for day, _ in asked})
        for _ in validate_billing_days(database, mine.calendar(), days):
            pass
        for _ in bill_billing_days(database, mine.calendar(), days):
            pass
