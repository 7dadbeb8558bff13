"""A day's flags on a real database: 100,000 service points with full history, from reading the validated day to the
committed flags.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.day import DAY, _daily_registers
from meter_pipeline.anomalies import daily_features as packing
from meter_pipeline.anomalies import detect_billing_day, refit_baselines
from meter_pipeline.anomalies.tables import detection
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import load_settings

#: Sixty days make a model of one's own, three weeks before a refit teach nothing, eight weeks are looked at.
_HISTORY = 100


def time_stage(meters: int, seed: int, repeats: int = 3) -> dict[str, float]:
    """Median seconds of the stage, of the refit before it, and flags raised."""
    settings = load_settings()
    base = open_database(settings)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=settings.home))
    try:
        migrate(database)
        _daily_registers(work, meters)
        import_folder(database, work / "reference")
        _fill(database, seed)
        calendar = settings.calendar()
        began = time.perf_counter()
        refit_baselines(database, calendar, as_of=DAY, clock=SYSTEM_CLOCK)
        refit = time.perf_counter() - began
        walls = []
        for _ in range(repeats):
            began = time.perf_counter()
            outcome = detect_billing_day(database, calendar, DAY, clock=SYSTEM_CLOCK)
            walls.append(time.perf_counter() - began)
        assert outcome.points == meters
        assert outcome.weather == "complete"
        return {
            "day_stage_s": round(statistics.median(walls), 3),
            "refit_s": round(refit, 3),
            "stage_flags": outcome.flags.height,
        }
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _fill(database: Database, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = database.read("SELECT service_point_id FROM ref.service_points ORDER BY 1")["service_point_id"].to_list()
    days = [DAY - timedelta(days=back) for back in range(_HISTORY, -1, -1)]
    degrees_c = 12 + 9 * np.sin(2 * np.pi * np.arange(len(days)) / 50) + rng.normal(0, 2, len(days))
    weather = pl.DataFrame(
        {
            "station_id": "BENCH",
            "weather_day": days,
            "temperature_min_c": degrees_c - 5,
            "temperature_max_c": degrees_c + 5,
            "temperature_mean_c": degrees_c,
            "hours": 24,
        }
    )
    level, slope = rng.uniform(40, 400, len(ids)), rng.uniform(0, 6, len(ids))
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.weather_stations VALUES ('BENCH', 'Field', 41.9, -87.6)")
        detection.write_weather(connection, weather, "bench", SYSTEM_CLOCK.now())
        for day, degree in zip(days, degrees_c, strict=True):
            usage = np.round((level + slope * max(degree - 10, 0)) * rng.normal(1, 0.07, len(ids)), 3)
            if day < DAY:
                facts = packing.DayFacts(
                    day,
                    "water",
                    "gal",
                    ids,
                    usage.astype(np.float32),
                    np.full(len(ids), 100, np.uint8),
                    np.zeros(len(ids), np.uint8),
                )
                detection.write_facts(connection, day, [packing.pack(facts)])
        connection.execute(
            f"CREATE TABLE vee.daily_usage_bench PARTITION OF vee.daily_usage FOR VALUES FROM ('{DAY - timedelta(days=1)}') TO ('{DAY + timedelta(days=1)}')".encode()
        )
        rows = pl.DataFrame({"quantity_micro": np.round(usage * 1e6).astype(np.int64), "service_point_id": ids})
        with connection.cursor().copy(
            "COPY vee.daily_usage (quantity_micro, service_point_id, estimated_micro, row_flags, billing_day, slots_expected, actual, estimated, missing, "
            "meters, quality, exchange, flow, unit, source, commodity, customer_class) FROM STDIN (FORMAT csv)"
        ) as copy:
            fixed = {
                "a": 0,
                "b": 0,
                "c": DAY.isoformat(),
                "d": 1,
                "e": 1,
                "f": 0,
                "g": 0,
                "h": 1,
                "i": 0,
                "j": False,
                "k": "import",
                "l": "gal",
                "m": "register",
                "n": "water",
                "o": "residential",
            }
            copy.write(rows.with_columns(**{k: pl.lit(v) for k, v in fixed.items()}).write_csv(include_header=False))
        connection.execute("ANALYZE vee.daily_usage")
