"""A billing day end to end: feed files to committed, reconciled billing, every stage with its ledger entries and flags.

``--interval 5|10|15|30|60``: electricity intervals of a simulated clean city. ``--interval 1440``: one daily register
read a meter. Timed: landing (hash, archive, parse, pack, stage) to ledger checkpoint, in one process. Not timed:
process start, reference data with the verification of its ledger entry (a leaf a row, once after an import), the
simulation, and the two days before, which a day's register difference stands on. The database is a scratch one on the
configured server, durability on. Beside it, in the same run, stands the floor of the same work (benchmarks/floor.py):
``ratios.ours_over_floor`` compares machines better than seconds do. ``--city FOLDER`` keeps the simulated city there
and uses it again (a million meters take minutes to simulate).
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

from benchmarks import floor
from benchmarks.support import Stopwatch, document
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import Settings, load_settings

DAY = date(2026, 10, 28)
#: Days before it whose reads a day of registers stands on
_EARLIER = (DAY - timedelta(days=2), DAY - timedelta(days=1))


def run(
    meters: int = 10_000, interval: int = 15, keep: bool = False, shards: int = 0, warm: bool = True, city: str = ""
) -> dict[str, Any]:
    """Bill one day of ``meters`` meters; ``shards`` 0 lets each stage choose.

    ``warm`` first bills a day of twenty meters in a database of its own: imports and the compiler's start-up are
    process start, which is not timed. A daemon's run worker pays it once, whatever the day's size.
    """
    if warm:
        from meter_pipeline.feeds import compiled
        from meter_pipeline.ledger import sha256_many

        compiled.warm()
        # Twenty meters have too few leaves to load the compiled loop.
        sha256_many.prefixed(0, bytes(32), 32)
        run(20, interval, warm=False)
    settings = load_settings()
    base = open_database(settings)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=roomy(settings)))
    try:
        migrate(database)
        return _run(
            database, settings, work, meters, interval, shards, Path(city) / f"{meters}x{interval}" if city else None
        )
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
            with base.connect(autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def roomy(settings: Settings) -> Path:
    """The folder for a benchmark's own: beside the server, since /tmp may be memory."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return settings.home


def _run(
    database: Database, settings: Settings, work: Path, meters: int, interval: int, shards: int, kept: Path | None
) -> dict[str, Any]:
    from meter_pipeline.anomalies import detect_billing_day
    from meter_pipeline.billing import bill_billing_day
    from meter_pipeline.ingest import ingest_billing_day, land_inbox
    from meter_pipeline.ledger.day import checkpoint_billing_day, verify_before_billing
    from meter_pipeline.ledger.sources import AFTER_BILLING
    from meter_pipeline.ledger_hashers import hashers
    from meter_pipeline.vee import validate_billing_day

    data = work / "city"
    daily = interval >= 1440
    if daily:
        reads = _daily_registers(data, meters)
    elif kept is None:
        reads = simulated_city(data, meters, interval)
    else:
        data, counted = kept, kept / "reads"
        if not counted.exists():
            counted.write_text(str(simulated_city(data, meters, interval)))
        reads = int(counted.read_text())
    mine = replace(settings, home=work / "home", data=data, inbox=data / "inbox", database_url=database.url)
    mine.home.mkdir(parents=True)
    import_folder(database, data / "reference")
    verify_before_billing(database, DAY, settings=mine, clock=SYSTEM_CLOCK)
    calendar = mine.calendar()
    if daily:
        # The reads that opened the day came yesterday, and yesterday was opened by reads of its own: any day of a
        # utility but its first two.
        _hold_back(data, DAY)
        land_inbox(database, calendar, mine, clock=SYSTEM_CLOCK, run_id="bench")
        for earlier in _EARLIER:
            ingest_billing_day(database, calendar, earlier, settings=mine, clock=SYSTEM_CLOCK, run_id="bench")
            validate_billing_day(database, calendar, earlier, clock=SYSTEM_CLOCK)
            detect_billing_day(database, calendar, earlier, clock=SYSTEM_CLOCK)
        _release(data)
    read_head_ends(mine.head_ends)
    floors = {"land": floor.landing([path for path in sorted(mine.inbox.rglob("*")) if path.is_file()])}
    count: dict[str, Any] = {"shards": shards} if shards else {}
    watch, outcomes = Stopwatch(memory=True), dict[str, Any]()
    started = time.perf_counter()
    with watch.lap("land"):
        land_inbox(database, calendar, mine, clock=SYSTEM_CLOCK, run_id="bench")
    with watch.lap("ingest"):
        ingest_billing_day(database, calendar, DAY, settings=mine, clock=SYSTEM_CLOCK, run_id="bench")
    with watch.lap("validate"):
        outcomes["validate"] = validate_billing_day(database, calendar, DAY, clock=SYSTEM_CLOCK, **count)
    with watch.lap("flags"):
        detect_billing_day(database, calendar, DAY, clock=SYSTEM_CLOCK)
    # As the assets do it: what bills stand on is verified before them, content and all; what they are, after.
    with watch.lap("ledger"):
        verify_before_billing(database, DAY, settings=mine, clock=SYSTEM_CLOCK, hashers=hashers())
    with watch.lap("bill"):
        outcomes["bill"] = bill_billing_day(database, calendar, DAY, clock=SYSTEM_CLOCK, **count)
    with watch.lap("ledger"):
        done = checkpoint_billing_day(
            database, DAY, settings=mine, clock=SYSTEM_CLOCK, hashers=hashers(), sources=AFTER_BILLING
        )
    if done.verification.findings:
        raise RuntimeError(f"the ledger of the day does not verify: {done.verification.findings[:3]}")
    wall = time.perf_counter() - started
    floors |= floor.writing(database, DAY, work)
    totals = database.read(
        "SELECT (SELECT count(*) FROM billing.charge_day WHERE billing_day = $1) AS billed, "
        "(SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = 'raw.interval_day'::regclass) AS bytes",
        [DAY],
    ).to_dicts()[0]
    return document(
        "day",
        {"meters": meters, "interval": interval, "billing_day": DAY.isoformat(), "shards": shards or "chosen"},
        {
            "intervals": reads,
            "wall_s": round(wall, 3),
            "intervals_per_s": round(reads / wall),
            "peak_rss_mib": max(watch.peaks.values()),
            "stage_peak_mib": watch.peaks,
            "stage_s": {stage: round(seconds, 3) for stage, seconds in watch.seconds.items()},
            "stage_busy_cores": {
                stage: round(watch.busy[stage] / seconds, 2) for stage, seconds in watch.seconds.items()
            },
            "billed_service_points": totals["billed"],
            "floor_s": {stage: round(seconds, 3) for stage, seconds in floors.items()},
            "steps_s": {stage: outcome.seconds for stage, outcome in outcomes.items()},
            "bytes_per_interval": round(totals["bytes"] / reads, 2) if reads and not daily else None,
        },
        floor.ratios(watch.seconds, floors),
    )


def simulated_city(data: Path, meters: int, interval: int) -> int:
    """Write a clean city's day into a folder; returns its reads."""
    from meter_pipeline.simulator import Spec, simulate

    spec = Spec(
        meters=meters,
        days=1,
        interval_minutes=interval,
        start=DAY,
        seed=7,
        defects=False,
        mix="electricity",
        formats=("delimited",),
        registers=False,
        history_days=30,
    )
    return simulate(spec, data).reads


def _daily_registers(data: Path, meters: int) -> int:
    """A water utility that reads each meter once a day at midnight: three reads a meter, the last closes the day."""
    import json

    reference, inbox = data / "reference", data / "inbox" / "DAILY"
    for folder in (reference, data / "tariffs", data / "head_ends", inbox):
        folder.mkdir(parents=True, exist_ok=True)
    (data / "utility.toml").write_text('name = "Bench"\nzone = "America/Chicago"\ncurrency = "USD"\n')
    (data / "head_ends" / "daily.toml").write_text(
        'name = "DAILY"\nformat = "delimited"\ncommodity = "water"\nkind = "register"\nunit = "gal"\n'
        '[columns]\nmeter_id = "meter_id"\ntime = "read_at"\nvalue = "dial"\nsequence = "sequence"\n[constants]\nchannel = "R1"\n'
    )
    tariff = {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": "W-FLAT",
        "name": "Flat water",
        "commodity": "water",
        "currency": "USD",
        "unit": "kgal",
        "charges": [
            {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "9.50"},
            {
                "kind": "usage",
                "code": "WATER",
                "name": "Water",
                "tiers": [{"upto": 3, "rate": "4.10"}, {"rate": "6.20"}],
            },
        ],
    }
    (data / "tariffs" / "w-flat.json").write_text(json.dumps(tariff))
    number = pl.select(pl.int_range(meters, dtype=pl.Int64).alias("n"))["n"]
    ids = pl.DataFrame({"n": number}).with_columns(m=pl.format("W{}", pl.col("n").cast(pl.String).str.zfill(7)))
    plain = {
        "service_points": ids.select(
            service_point_id=pl.format("SP-{}", "m"),
            commodity=pl.lit("water"),
            premise_id=pl.format("PR-{}", "m"),
            route=pl.lit("R1"),
            customer_class=pl.lit("residential"),
            latitude=pl.lit(""),
            longitude=pl.lit(""),
            station_id=pl.lit(""),
            status=pl.lit("active"),
            valid_from=pl.lit("2020-01-01"),
            valid_to=pl.lit(""),
        ),
        "meters": ids.select(
            meter_id="m", commodity=pl.lit("water"), head_end=pl.lit("DAILY"), model=pl.lit(""), collector_id=pl.lit("")
        ),
        "channels": ids.select(
            meter_id="m",
            channel=pl.lit("R1"),
            kind=pl.lit("register"),
            unit=pl.lit("gal"),
            interval_minutes=pl.lit(""),
            flow=pl.lit("import"),
            multiplier=pl.lit("1"),
            dials=pl.lit("8"),
            decimals=pl.lit("0"),
            sums_to=pl.lit(""),
            billed=pl.lit("true"),
        ),
        "installations": ids.select(
            service_point_id=pl.format("SP-{}", "m"),
            meter_id="m",
            installed_at=pl.lit("2020-01-01T06:00:00Z"),
            removed_at=pl.lit(""),
            install_read=pl.lit(""),
            removal_read=pl.lit(""),
        ),
        "accounts": ids.select(
            account_id=pl.format("AC-{}", "m"),
            customer_class=pl.lit("residential"),
            opened=pl.lit("2020-01-01"),
            closed=pl.lit(""),
        ),
        "agreements": ids.select(
            account_id=pl.format("AC-{}", "m"),
            service_point_id=pl.format("SP-{}", "m"),
            tariff_id=pl.lit("W-FLAT"),
            cycle_id=pl.lit("MONTHLY"),
            valid_from=pl.lit("2020-01-01"),
            valid_to=pl.lit(""),
        ),
    }
    for table, frame in plain.items():
        frame.write_csv(reference / f"{table}.csv")
    (reference / "tariffs.csv").write_text(
        "tariff_id,commodity,version,valid_from,valid_to,document\nW-FLAT,water,1,2020-01-01,,w-flat.json\n"
    )
    (reference / "billing_cycles.csv").write_text("cycle_id,period_start,period_end\nMONTHLY,2026-10-01,2026-11-01\n")
    for index, day in enumerate((*_EARLIER, DAY)):
        dial = 100_000 + (pl.col("n") * 7919) % 500_000 + index * (20 + (pl.col("n") * 104_729) % 400)
        stamp = f"{day + timedelta(days=1)}T05:00:00Z"
        ids.select(meter_id="m", read_at=pl.lit(stamp), dial=dial, sequence=pl.lit(index + 1)).write_csv(
            inbox / f"daily_{day}.csv"
        )
    return meters


def _hold_back(data: Path, day: date) -> None:
    for path in (data / "inbox" / "DAILY").glob(f"*{day}*"):
        path.rename(data / path.name)


def _release(data: Path) -> None:
    for path in data.glob("daily_*.csv"):
        path.rename(data / "inbox" / "DAILY" / path.name)
