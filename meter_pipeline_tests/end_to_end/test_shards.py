"""The number of shards is a matter of memory and time: whatever it is, every table holds the
same bytes and the ledger the same leaves.

The city has every kind of defect the simulator plants, so that estimates stand on peers in other shards, and a second
day, which has a history.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from meter_pipeline.anomalies import detect_billing_day
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.ingest import ingest_billing_day, land_inbox
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import load_settings
from meter_pipeline.sharding import cuts
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.defs.content import content
from meter_pipeline_tests.support import copy_database

FIRST = date(2026, 10, 28)
DAYS = (FIRST, FIRST + timedelta(days=1))


def test_one_four_and_sixteen_shards_leave_the_same_bytes(
    server: Database, template: Database, database: Database, tmp_path: Path
) -> None:
    """Two days of a city with defects, three times."""
    data = tmp_path / "data"
    simulate(Spec(meters=160, days=len(DAYS), start=FIRST, seed=11), data)
    found: dict[str, Any] = {}
    for name, shards in (("1", 1), ("4", 4), ("16", 16)):
        own = copy_database(server, f"{database.name}_{len(found)}", template.name)
        settings = replace(load_settings(), home=tmp_path / name, data=data, inbox=data / "inbox", database_url=own.url)
        settings.home.mkdir()
        clock, calendar = SYSTEM_CLOCK, settings.calendar()
        import_folder(own, data / "reference")
        land_inbox(own, calendar, settings, clock=clock)
        for day in DAYS:
            ingest_billing_day(own, calendar, day, settings=settings, clock=clock)
            outcome = validate_billing_day(own, calendar, day, clock=clock, shards=shards)
            detect_billing_day(own, calendar, day, clock=clock)
            bill_billing_day(own, calendar, day, clock=clock, shards=shards)
        assert outcome.methods.get("S57") or outcome.estimated > 100, "the city must need estimates"
        again = validate_billing_day(own, calendar, DAYS[-1], clock=clock, shards=5)
        assert again.unchanged == again.rows - again.withdrawn
        assert again.inserted == again.updated == 0
        found[name] = content(own)
    for name in found:
        assert found[name] == found["1"], name


def test_cuts_part_no_id_and_lose_no_row() -> None:
    """Every row in one range, ranges in order, as many as asked for where there are enough ids, and few enough rows in
    each."""
    ids = pl.Series([f"SP{n // 3:05d}" for n in range(1000)])
    for rows, shards in ((100, 0), (1, 0), (5000, 0), (100, 7), (100, 400)):
        found = cuts(ids, rows, shards)
        assert [first for first, _ in found[1:]] == [past for _, past in found[:-1]]
        assert (found[0][0], found[-1][1]) == (0, 1000)
        assert all(ids[first - 1] != ids[first] for first, _ in found[1:])
        if not shards:
            assert max(past - first for first, past in found) <= rows + 2
        elif shards == 7:
            assert len(found) == 7
    assert cuts(pl.Series([], dtype=pl.String), 10) == [(0, 0)]
