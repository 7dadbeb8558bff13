"""``bench late``: a late file for a few meters of a city whose billing day is validated, billed and on the ledger.

``--touched`` meters (50 of 100,000) are held back when the day is first run; their file then comes, and the stages run
again. Timed is stage time, from validation to the signed checkpoint: ``late_s`` by stage, ``whole_s`` the same of
the first run, ``wall_s`` the sum for the late file. ``ratios.late_over_whole``: the late file's share of a day.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.day import DAY, roomy, simulated_city
from benchmarks.support import Stopwatch, document
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import Settings, load_settings


def run(
    meters: int = 10_000, touched: int = 50, interval: int = 15, keep: bool = False, city: str = ""
) -> dict[str, Any]:
    """Bill a day of ``meters`` meters without ``touched`` of them, then take their late file."""
    settings = load_settings()
    base = open_database(settings)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    work = Path(tempfile.mkdtemp(prefix="late-", dir=roomy(settings)))
    try:
        migrate(database)
        kept = Path(city) / f"{meters}x{interval}" if city else work / "source"
        if not (kept / "reads").exists():
            reads = simulated_city(kept, meters, interval)
            (kept / "reads").write_text(str(reads))
        shutil.copytree(kept, work / "city")
        mine = replace(
            settings, home=work / "home", data=work / "city", inbox=work / "city" / "inbox", database_url=database.url
        )
        mine.home.mkdir(parents=True)
        import_folder(database, mine.data / "reference")
        return _run(database, mine, meters, touched, keep)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
            with base.connect(autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _run(database: Database, mine: Settings, meters: int, touched: int, keep: bool) -> dict[str, Any]:
    late = _hold_back(mine, touched)
    _landed(database, mine)
    whole = _stages(database, mine)
    late.rename(mine.inbox / late.parent.name / late.name)
    _landed(database, mine)
    again = _stages(database, mine)
    wall = sum(again.seconds.values())
    return document(
        "late",
        {"meters": meters, "touched": touched, "billing_day": DAY.isoformat()},
        {
            "wall_s": round(wall, 3),
            "late_s": {stage: round(seconds, 3) for stage, seconds in again.seconds.items()},
            "whole_s": {stage: round(seconds, 3) for stage, seconds in whole.seconds.items()},
        }
        | ({"database": database.url, "work": str(mine.home.parent)} if keep else {}),
        {"late_over_whole": round(wall / sum(whole.seconds.values()), 3)},
    )


def _landed(database: Database, mine: Settings) -> None:
    from meter_pipeline.ingest import ingest_billing_day, land_inbox

    land_inbox(database, mine.calendar(), mine, clock=SYSTEM_CLOCK, run_id="bench")
    ingest_billing_day(database, mine.calendar(), DAY, settings=mine, clock=SYSTEM_CLOCK, run_id="bench")


def _stages(database: Database, mine: Settings) -> Stopwatch:
    """Validation to checkpoint, as the assets run them."""
    from meter_pipeline.anomalies import detect_billing_day
    from meter_pipeline.billing import bill_billing_day, last_billed, validated_since_billed
    from meter_pipeline.ledger.day import checkpoint_billing_day, verify_before_billing
    from meter_pipeline.ledger.sources import AFTER_BILLING
    from meter_pipeline.ledger_hashers import hashers
    from meter_pipeline.vee import touched_since, validate_billing_day

    calendar, watch = mine.calendar(), Stopwatch()
    stages: list[tuple[str, Callable[[], Any]]] = [
        ("validate", lambda: validate_billing_day(database, calendar, DAY, only=touched_since(database, DAY))),
        ("flags", lambda: detect_billing_day(database, calendar, DAY, clock=SYSTEM_CLOCK)),
        (
            "ledger",
            lambda: verify_before_billing(
                database, DAY, settings=mine, hashers=hashers(), points=validated_since_billed(database, DAY)
            ),
        ),
        ("bill", lambda: bill_billing_day(database, calendar, DAY, only=validated_since_billed(database, DAY))),
        (
            "ledger",
            lambda: checkpoint_billing_day(
                database,
                DAY,
                settings=mine,
                hashers=hashers(),
                sources=AFTER_BILLING,
                points=last_billed(database, DAY),
            ),
        ),
    ]
    for stage, call in stages:
        with watch.lap(stage):
            call()
    return watch


def _hold_back(mine: Settings, touched: int) -> Path:
    """Take the rows of the first file's last ``touched`` meters out of the inbox; the file that they come in later."""
    first = min(path for path in mine.inbox.rglob("*") if path.is_file())
    header, *lines = first.read_text("utf-8").splitlines(keepends=True)
    meters = [line.split(",", 1)[0] for line in lines]
    held = set(sorted(set(meters))[-touched:])
    first.write_text(header + "".join(line for line, meter in zip(lines, meters, strict=True) if meter not in held))
    aside = mine.home / first.parent.name / f"late_{first.name}"
    aside.parent.mkdir()
    aside.write_text(header + "".join(line for line, meter in zip(lines, meters, strict=True) if meter in held))
    return aside
