"""The law promises: it holds on every day of a city's ordinary and broken life. 300 service points, 35 days over the
autumn clock change, every defect that the simulator can plant, files in the order in which they come, a month sealed in
between; and what was billed of the points without a story is what the simulator measured."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from meter_pipeline.anomalies.day import detect_billing_day
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.billing.tables.statements import cycles_ending
from meter_pipeline.ingest import ingest_billing_day, land_inbox, waiting_days
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.revenue_assurance.law import law_of_day, law_of_days
from meter_pipeline.settings import Settings
from meter_pipeline.simulator import KINDS, Spec, daily_usage, simulate
from meter_pipeline.vee import validate_billing_day
from meter_pipeline.vee.tables.true_up import waiting as true_ups_waiting
from meter_pipeline_tests.support import FixedClock

#: 1 November 2026 has 25 hours in Chicago. CYCLE-2's period is 8 October to 8 November.
FIRST: Final = date(2026, 10, 8)
DAYS: Final = 35
SEALED: Final = date(2026, 10, 1)


class LivingCity:
    """A simulated city whose files come when they come, and the stages of each day as the assets call them."""

    def __init__(self, database: Database, folder: Path, spec: Spec) -> None:
        self.database, self.spec = database, spec
        self.city = folder / "city"
        simulate(spec, self.city)
        self.coming = self._files()
        inbox = folder / "inbox"
        inbox.mkdir()
        self.settings = Settings(folder / "home", self.city, inbox, database.url)
        self.settings.home.mkdir()
        self.calendar = spec.calendar
        self.clock = FixedClock(datetime(2026, 10, 1, tzinfo=UTC))
        import_folder(database, self.city / "reference")
        self.open_joints: dict[str, date] = {}

    def _files(self) -> dict[date, list[Path]]:
        coming: dict[date, list[Path]] = defaultdict(list)
        for path in sorted((self.city / "inbox").rglob("*")):
            if path.is_file():
                arrival = path.name.split("_", 1)[0]
                coming[date(int(arrival[:4]), int(arrival[4:6]), int(arrival[6:8]))].append(path)
        return coming

    def arrive(self, past: date) -> None:
        """Land what arrives before a day begins."""
        for day in sorted(d for d in self.coming if d <= past):
            for path in self.coming.pop(day):
                there = self.settings.inbox / path.relative_to(self.city / "inbox")
                there.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, there)
                os.utime(there, (time.time() - 60,) * 2)
        land_inbox(self.database, self.calendar, self.settings)

    def run(self, day: date) -> None:
        """A billing day, and the bills of the cycles that end with it."""
        if day < self.spec.start:
            ingest_billing_day(self.database, self.calendar, day, settings=self.settings, clock=self.clock)
            return
        ingest_billing_day(self.database, self.calendar, day, settings=self.settings, clock=self.clock)
        validate_billing_day(self.database, self.calendar, day, clock=self.clock)
        detect_billing_day(self.database, self.calendar, day, clock=self.clock)
        done = bill_billing_day(self.database, self.calendar, day, clock=self.clock)
        for joint, cause, detail in done.reconciliation.select("joint", "cause", "detail").iter_rows():
            if cause == "open":
                self.open_joints[f"{joint}: {detail}"] = day

    def issue(self, day: date) -> None:
        past = day + timedelta(days=1)
        for cycle in cycles_ending(self.database, past):
            issue_statements(self.database, self.calendar, cycle, past, clock=self.clock)
        issue_waiting(self.database, self.calendar, past, clock=self.clock)

    def settle(self, last: date) -> None:
        """Days up to ``last`` that wait for reads or true-ups, until none asks; each request once."""
        tried: set[Any] = set()
        while True:
            asked = {(day, str(e)) for day, found in true_ups_waiting(self.database) for e in found}
            asked |= {(day, str(e)) for day, e in waiting_days(self.database)}
            asked = {(day, e) for day, e in asked if day <= last} - tried
            if not asked:
                return
            tried |= asked
            for day in sorted({day for day, _ in asked}):
                self.run(day)

    def live(self) -> Iterator[date]:
        """Every day in its turn: what came by its night is landed, the day is run and whatever asks for another run."""
        for k in range(-1, self.spec.days):
            day = self.spec.start + timedelta(days=k)
            self.clock.at = self.calendar.bounds(day)[1] + timedelta(hours=8)
            self.arrive(day + timedelta(days=1))
            self.run(day)
            if k >= 0:
                self.settle(day)
                self.issue(day)
                yield day


def _seal(database: Database, month: date, at: datetime) -> None:
    with database.connect("test") as connection:
        connection.execute(
            "INSERT INTO billing.period (month, status, requested_by, requested_at, checklist, approved_by, sealed_at, control_totals, "
            "totals_sha256) VALUES (%s, 'sealed', 'ana', %s, '[]', 'ben', %s, '{}', %s)",
            (month, at, at, bytes(32)),
        )


@pytest.mark.slow
@pytest.mark.timeout(3600)  # three minutes on a quiet core
def test_the_law_holds_on_35_days_of_a_city_with_every_defect(database: Database, tmp_path: Path) -> None:
    spec = Spec(300, DAYS, 60, FIRST, seed=24, taken_over="CYCLE-1")
    city = LivingCity(database, tmp_path, spec)
    truth = pl.read_parquet(city.city / "truth.parquet")
    assert {kind.name for kind in KINDS} <= set(truth["kind"].unique().to_list()), "every kind of defect is planted"
    open_days: list[str] = []
    for day in city.live():
        verdict = law_of_day(database, day)
        if not verdict.ok:
            open_days.append(f"{day}: {verdict.sentence()}")
        if day == date(2026, 11, 6):
            _seal(database, SEALED, city.clock.now())
    city.clock.advance(20 * 86_400)
    city.arrive(spec.end + timedelta(days=40))
    city.settle(spec.end - timedelta(days=1))
    city.issue(spec.end - timedelta(days=1))
    whole = law_of_days(database, FIRST, spec.end)
    assert whole.ok, whole.sentence()
    assert not open_days
    assert not city.open_joints, city.open_joints
    assert whole.days == DAYS
    for unit, (validated, billed, accrued, waiting, supply) in whole.totals.items():
        assert validated == billed + accrued + waiting + supply, unit
    issued = database.read("SELECT count(*) AS n FROM billing.statement")["n"][0]
    assert issued > 100, "CYCLE-1 from the first day on, CYCLE-2 whole"
    assert not _off_the_truth(database, spec, truth)


def _off_the_truth(database: Database, spec: Spec, truth: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Billed usage of days of points without a story that is not what the simulator's meters measured."""
    measured, _ = daily_usage(spec)
    told = truth["service_point_id"].drop_nulls().unique().implode()
    measured = measured.filter(~pl.col("service_point_id").is_in(told), ~pl.col("channel").str.starts_with("B"))
    billed = database.read(
        "SELECT billing_day, service_point_id, source_quantity FROM billing.determinant_day WHERE source_unit <> ''"
    )
    both = measured.join(billed, on=["billing_day", "service_point_id"])
    assert both.height > 5000
    off = both.filter(pl.col("value").cast(pl.Int64) != pl.col("source_quantity"))
    return off.select("billing_day", "service_point_id", "value", "source_quantity").rows()
