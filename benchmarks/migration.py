"""Leaving the legacy batch at 100,000 accounts: a day's comparison, publishing to both sides, and a rollback under
writers.

The tables are filled by SQL with rows of the sizes they have (reads, usage, determinants, lines and a total for each
account), and the legacy side gets the same figures with planted differences: a third of the lines a cent off, and some
of every other class. Timed in ``compare_s``: reading both sides from PostgreSQL, classifying, writing the differences,
the figures and the ledger entry, in one process after one day to warm up; the median of ``rounds``.
``compare_processor_s`` is this process's own part of it, the server's not. ``import_s`` is reading the legacy side's
CSV into the database, ``publish_s`` giving every bill its authority with the other side's copy in the outbox,
``deliver_s`` the outbox to the legacy side's files. ``rollback_s``: from the call to the commit while two writers
write.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.load import scratch
from benchmarks.support import document, peak_rss_mib
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.ledger.entries import canonical_json
from meter_pipeline.migration import dual_write
from meter_pipeline.migration.comparison import CLASSES, MATCH
from meter_pipeline.migration.day import compare_billing_day
from meter_pipeline.migration.legacy_import import import_results, read_csv
from meter_pipeline.migration.results import new_results
from meter_pipeline.migration.rollback import roll_back
from meter_pipeline.migration.sides import LegacyFolder, OurCopy
from meter_pipeline.postgres.database import Database
from meter_pipeline.units import from_micro

FIRST = date(2026, 10, 5)
_HERE = Path(__file__).parent
PARTITIONED = ("raw.register_read", "vee.daily_usage", "vee.register_day")


def run(accounts: int = 100_000, rounds: int = 3) -> dict[str, Any]:
    """Compare, publish, deliver and roll back for ``accounts``."""
    city, drop = scratch(1)
    database = city.database
    figures: dict[str, Any] = {}
    try:
        fill_city(database, accounts)
        for d in range(2):
            fill_day(database, accounts, d)
        with database.connect(autocommit=True) as connection:
            connection.execute("ANALYZE")
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            for d in range(2):
                _legacy(database, FIRST + timedelta(days=d), Path(folder) / "legacy.csv")
            figures["import_s"] = round((time.perf_counter() - begun) / 2, 3)
            compare_billing_day(database, FIRST)
            times, worked = [], []
            for _ in range(rounds):
                begun, process = time.perf_counter(), time.process_time()
                outcome = compare_billing_day(database, FIRST + timedelta(days=1))
                times.append(time.perf_counter() - begun)
                worked.append(time.process_time() - process)
            found = outcome.comparison
            figures |= {
                "figures": found.pairs.height,
                "compare_s": round(statistics.median(times), 3),
                "compare_slowest_s": round(max(times), 3),
            }
            figures["compare_processor_s"] = round(statistics.median(worked), 3)
            figures["differences"] = found.pairs.filter(pl.col("class") != MATCH).height
            figures["classes"] = {name: found.count(name) for name in CLASSES}
            figures |= _publish(database, Path(folder), accounts)
    finally:
        drop()
    figures["peak_rss_mib"] = peak_rss_mib()
    return document("migration", {"accounts": accounts, "rounds": rounds}, figures, {})


def fill_city(database: Database, accounts: int) -> None:
    """Reference data and tariffs of ``accounts``."""
    with database.connect() as connection:
        connection.execute(_filled("migration_city.sql", n=accounts))
        connection.commit()


def fill_day(database: Database, accounts: int, number: int, minutes: int = 1440) -> date:
    """What the stages would leave of the ``number``-th billing day from FIRST on; ``minutes`` 1500 for the day the
    clocks go back."""
    day = FIRST + timedelta(days=number)
    with database.connect() as connection:
        connection.execute("SELECT billing.ensure_partitions(%s)", (day,))
        for parent in PARTITIONED:
            connection.execute("SELECT raw.open_partition(%s, %s)", (parent, day))
            connection.execute("SELECT raw.attach_partition(%s, %s)", (parent, day))
        connection.execute(_filled("migration_day.sql", n=accounts, d=number, day=day, minutes=minutes))
        connection.commit()
    return day


def _filled(name: str, **values: int | date) -> bytes:
    """A file of SQL with :name put in; a cast's two colons are left alone."""
    return re.sub(r"(?<!:):([a-z]+)\b", lambda m: str(values[m[1]]), (_HERE / name).read_text("utf-8")).encode()


def planted(results: pl.DataFrame) -> pl.DataFrame:
    """The same results as a legacy batch would have them: a third of the lines a cent off (their totals follow), some
    of every other class."""
    number = pl.col("number")
    line, total = (pl.col("level") == "line") & ~pl.col("code").str.contains("FIXED|BASIC"), pl.col("level") == "total"
    cent = (
        pl.when((line | total) & (number % 3 == 0))
        .then(pl.when(number % 2 == 0).then(10_000).otherwise(-10_000))
        .otherwise(0)
    )
    other = pl.when((line | total) & (number % 1000 == 1)).then(1_000_000).otherwise(0)
    frame = results.with_columns(number=pl.col("account_id").str.slice(2).cast(pl.Int64)).with_columns(
        value=pl.col("value") + cent + other,
        estimated=pl.when(number % 1000 == 1).then(~pl.col("estimated")).otherwise(pl.col("estimated")),
        account_id=pl.when(number % 1000 == 2)
        .then(pl.lit("OLD-") + pl.col("account_id"))
        .otherwise(pl.col("account_id")),
    )
    lost = frame.filter(~((number % 1000 == 4) & total))
    return pl.concat([lost, lost.filter(total & (number % 1000 == 5))]).drop("number")


def _legacy(database: Database, day: date, path: Path) -> None:
    frame = planted(new_results(database, day))
    texts = pl.Series([format(from_micro(v), "f") for v in frame["value"].to_list()])
    frame.select(
        "account_id", "level", "code", value=texts, estimated="estimated", tariff_version="tariff_version"
    ).write_csv(path)
    import_results(database, day, read_csv(path, day), finished_at=datetime.now(UTC), source=path.name)


def put_stage(database: Database, name: str, points: int = 0) -> None:
    """Set the stage past the people who would sign; for benchmarks and tests."""
    value = {"stage": name, "routes": [], "basis_points": points}
    with database.connect() as connection:
        flags.ensure(connection, STAGE, by="bench")
        connection.execute(
            "UPDATE control.flag SET value = %s::jsonb, version = version + 1 WHERE flag = %s",
            (canonical_json(value).decode(), STAGE.name),
        )
        connection.commit()


def _publish(database: Database, folder: Path, accounts: int) -> dict[str, Any]:
    put_stage(database, "live", 5_000)
    day = FIRST + timedelta(days=1)
    begun = time.perf_counter()
    done = dual_write.publish_billing_day(database, day)
    published = time.perf_counter() - begun
    begun = time.perf_counter()
    delivered = dual_write.deliver_all(
        database, {"legacy": LegacyFolder(folder / "to_legacy"), "new": OurCopy(database)}
    )
    delivery = time.perf_counter() - begun
    stop = threading.Event()
    writers = [threading.Thread(target=_write, args=(database, k, stop)) for k in range(2)]
    for writer in writers:
        writer.start()
    time.sleep(0.5)
    back = roll_back(database, ["measured"], by="bench")
    stop.set()
    for writer in writers:
        writer.join()
    return {
        "published": sum(done.sides.values()),
        "publish_s": round(published, 3),
        "delivered": delivered["delivered"],
        "deliver_s": round(delivery, 3),
        "rollback_s": round(back.seconds, 4) if back else None,
    }


def _write(database: Database, seed: int, stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        records = [(dual_write.Record(FIRST, f"W{seed}-{number}-{k}", {"figures": []}), None) for k in range(200)]
        with database.connect("bench writer") as connection:
            dual_write.write(connection, records)
            connection.commit()
        number += 1
