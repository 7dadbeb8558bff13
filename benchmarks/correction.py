"""``bench correction``: what corrections cost in a water utility of daily register reads.

Its days are billed and the months that ended are issued before the clock starts (``--issued=false``: no month is, so
that no statement needs an adjustment). Three corrections follow:

- one meter's ratio that was wrong on every day: ``preview_s`` is the impact, exact, in a transaction that is undone;
  ``apply_s`` the import and the days it asks for, validated and billed again, adjustments worked out.
- a tariff document of ``accounts`` accounts, wrong for the last ``document_days`` days: ``document_preview_s`` and
  ``document_apply_s``.
- the whole folder imported again, which changes nothing: ``nothing_s``.

Of the first two, ``statements`` are the issued ones that the days are on, ``adjustments`` those that were made of them
and ``adjusted`` what they come to. ``apply_over_whole_days`` divides apply_s by what validating and billing the same
days took at first.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import uuid
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.backfill import FIRST, _files
from benchmarks.day import roomy
from benchmarks.support import document, peak_rss_mib
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.settings import Settings, load_settings


def run(
    meters: int = 1_000,
    days: int = 61,
    accounts: int = 200,
    document_days: int = 60,
    keep: bool = False,
    issued: bool = True,
) -> dict[str, Any]:
    """Correct the ratio of one of ``meters`` meters over ``days`` billing days, and the tariff document of ``accounts``
    of them over the last ``document_days``; with the months that ended ``issued``, or open."""
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
        return _run(database, mine, (meters, days, min(accounts, meters), min(document_days, days)), issued)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
            with base.connect(autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _run(database: Database, mine: Settings, size: tuple[int, int, int, int], issued: bool) -> dict[str, Any]:
    """``size``: meters, days, accounts on the corrected tariff, days of its document."""
    from meter_pipeline.corrections.apply import import_folder

    meters, days, accounts, document_days = size
    _files(mine.data, meters, days)
    _opened(mine.data, days)
    _second_tariff(mine.data, accounts, FIRST + timedelta(days=days - document_days))
    reference = mine.data / "reference"
    import_folder(database, mine.calendar(), reference)
    first_s = _bill(database, mine, days, issued)
    ratio = _corrected(database, mine, _other_ratio(mine.data))
    tariff = _corrected(database, mine, _other_document(mine.data))
    began = time.perf_counter()
    nothing = import_folder(database, mine.calendar(), reference)
    nothing_s = time.perf_counter() - began
    if nothing.days:
        raise RuntimeError("an import of what is stored asked for days")
    return document(
        "correction",
        {"meters": meters, "days": days, "accounts": accounts, "document_days": document_days, "issued": issued},
        {
            **ratio,
            **{f"document_{name}": figure for name, figure in tariff.items()},
            "nothing_s": round(nothing_s, 3),
            "first_billing_s": round(first_s, 3),
            "peak_rss_mib": peak_rss_mib(),
        },
        {
            "apply_over_whole_days": round(ratio["apply_s"] / first_s, 3),
            "document_apply_over_whole_days": round(tariff["apply_s"] / first_s * days / document_days, 3),
        },
    )


def _corrected(database: Database, mine: Settings, folder: Path) -> dict[str, Any]:
    """A folder previewed, imported, and its days run again. ``days``: the billing days it asked for; ``statements``:
    the issued ones it is on; ``client_cpu_s``: processor seconds of this process, of the preview and of the rest."""
    from meter_pipeline.corrections.apply import import_folder
    from meter_pipeline.corrections.preview import preview_folder

    count, net = _adjustments(database)
    clocks = [(time.perf_counter(), time.process_time())]
    made = preview_folder(database, mine.calendar(), folder)
    clocks.append((time.perf_counter(), time.process_time()))
    done = import_folder(database, mine.calendar(), folder)
    _again(database, mine)
    clocks.append((time.perf_counter(), time.process_time()))
    more, sum_of_all = _adjustments(database)
    preview_s, apply_s = (round(b[0] - a[0], 3) for a, b in pairwise(clocks))
    return {
        "preview_s": preview_s,
        "apply_s": apply_s,
        "client_cpu_s": [round(b[1] - a[1], 3) for a, b in pairwise(clocks)],
        "days": len(done.days),
        "service_points": done.service_points,
        "statements": made.document["statements"]["issued"],
        "adjustments": more - count,
        "adjusted": str(sum_of_all - net),
        "difference": made.document["money"]["difference"],
    }


def _adjustments(database: Database) -> tuple[int, Decimal]:
    """How many adjustments wait or are posted, and what they come to."""
    query = "SELECT count(*) AS made, coalesce(sum(net), 0) AS net FROM billing.adjustment WHERE status IN ('requested', 'posted')"
    [found] = database.rows(query)
    return int(found["made"]), Decimal(found["net"])


def _other_ratio(data: Path) -> Path:
    """The first meter counts in tens: a folder of its channel, which the whole folder has from now on too."""
    folder, reference = data / "ratio", data / "reference"
    folder.mkdir()
    channels = pl.read_csv(reference / "channels.csv", infer_schema=False)
    first = pl.col("meter_id") == channels["meter_id"][0]
    right = channels.with_columns(multiplier=pl.when(first).then(pl.lit("10")).otherwise("multiplier"))
    right.filter(first).write_csv(folder / "channels.csv")
    right.write_csv(reference / "channels.csv")
    return folder


def _second_tariff(data: Path, accounts: int, since: date) -> None:
    """The last ``accounts`` accounts on a tariff of their own, whose second version holds from a day on."""
    reference = data / "reference"
    agreements = pl.read_csv(reference / "agreements.csv", infer_schema=False)
    last = pl.int_range(pl.len()) >= agreements.height - accounts
    agreements.with_columns(tariff_id=pl.when(last).then(pl.lit("W-SECOND")).otherwise("tariff_id")).write_csv(
        reference / "agreements.csv"
    )
    rows = [f"W-SECOND,water,1,2020-01-01,{since},w-second.json", f"W-SECOND,water,2,{since},,w-second.json"]
    with (reference / "tariffs.csv").open("a") as file:
        file.write("\n".join(rows) + "\n")
    flat = json.loads((data / "tariffs" / "w-flat.json").read_text())
    (data / "tariffs" / "w-second.json").write_text(json.dumps(flat | {"tariff_id": "W-SECOND"}))


def _other_document(data: Path) -> Path:
    """The second version's document was wrong from its first day: a folder with a third one on the same days, which
    the whole folder has from now on too."""
    folder, reference = data / "document", data / "reference"
    folder.mkdir()
    head, *rows = (reference / "tariffs.csv").read_text().splitlines()
    right = rows.pop().replace(",2,", ",3,").replace("w-second.json", "w-third.json")
    (folder / "tariffs.csv").write_text(f"{head}\n{right}\n")
    (reference / "tariffs.csv").write_text("\n".join([head, *rows, right]) + "\n")
    third = json.loads((data / "tariffs" / "w-second.json").read_text())
    third["charges"][1]["tiers"][0]["rate"] = "4.30"
    for place in (folder / "tariffs", data / "tariffs"):
        place.mkdir(exist_ok=True)
        (place / "w-third.json").write_text(json.dumps(third))
    return folder


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


def _bill(database: Database, mine: Settings, days: int, issued: bool = True) -> float:
    """Every day read and billed, ended months ``issued``; the seconds that validation and billing took."""
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
        if issued and following.day == 1:
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
