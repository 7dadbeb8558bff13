"""Usage billed before the first billing day: what high/low checks, estimates and baselines of the first months stand
on."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from meter_pipeline.anomalies.refit import refit_baselines
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline_tests.anomalies import streets
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, interval, local

LIVE = date(2026, 9, 1)
MONTHS = [date(2025, 9, 1), *(date(2025, m, 1) for m in (10, 11, 12)), *(date(2026, m, 1) for m in range(1, 10))]


def billed(database: Database, point: str, unit: str, *periods: tuple[date, date, str]) -> None:
    with database.connect() as c:
        for start, end, quantity in periods:
            c.execute(
                "INSERT INTO ref.past_usage VALUES (%s, 'import', %s, %s, %s, %s)",
                (f"SP-{point}", unit, start, end, quantity),
            )


def test_the_first_day_is_held_against_what_was_billed_before(database: Database) -> None:
    """31 kWh in August is one a day: 48 kWh on the first day are high, for a home without a past they are not. A day
    without reads is estimated at the home's own average, not at that of its class."""
    town = Town(database)
    town.tariff(flat("E", "electricity", "kWh", "0.10"))
    town.cycle(LIVE, date(2026, 10, 1))
    homes = [f"H{k}" for k in range(10)]
    for name in [*homes, "LOUD", "NEW", "SILENT"]:
        town.service(name, "E")
        town.meter(name, name, interval())
    for name in homes:
        billed(database, name, "MWh", (date(2026, 8, 1), LIVE, "0.744"))
    billed(database, "LOUD", "kWh", (date(2026, 8, 1), LIVE, "31"))
    billed(database, "SILENT", "kWh", (date(2026, 7, 15), LIVE, "96"))
    loads = {name: np.full(24, 1_000_000) for name in homes}
    loads |= {"LOUD": np.full(24, 2_000_000), "NEW": np.full(24, 2_000_000), "SILENT": np.full(24, NO_VALUE)}
    town.city.intervals(LIVE, loads, minutes=60)
    town.run(LIVE)
    flagged = "SELECT service_point_id FROM vee.daily_usage WHERE row_flags & (1::bigint << 8) <> 0"
    assert town.rows(flagged) == [("SP-LOUD",)]
    assert round(town.usage("SILENT")[LIVE], 3) == 2


def test_a_hand_read_meter_s_first_stretch_is_held_against_its_old_bills(database: Database) -> None:
    """3 m3 a month for a year: 40 in the first twenty days are high, 2 are not. The old bills were in ccf."""
    town = Town(database)
    town.tariff(flat("W", "water", "m3", "2.00"))
    town.cycle(LIVE, LIVE + timedelta(days=20))
    for name in ("WET", "DRY", "STRANGER"):
        town.service(name, "W", "water")
        town.meter(name, name, dial("m3"), commodity="water")
    for name in ("WET", "DRY"):
        billed(database, name, "ccf", *((a, b, "1.06") for a, b in pairwise(MONTHS)))
    for name, used in (("WET", "40"), ("DRY", "2"), ("STRANGER", "40")):
        town.read(name, local(LIVE), "100", unit="m3")
        town.read(name, local(LIVE + timedelta(days=20), 10), str(100 + Decimal(used)), unit="m3")
    town.run(LIVE + timedelta(days=5))
    assert town.exceptions("WET") == {"READ_HIGH": [LIVE + timedelta(days=5)]}
    assert town.exceptions("DRY") == {}
    assert "READ_HIGH" not in town.exceptions("STRANGER")
    [(detail,)] = town.rows("SELECT detail FROM vee.exception WHERE kind = 'READ_HIGH'")
    assert "usual in that time: 2.0" in detail


def test_a_year_of_daily_totals_makes_the_baseline_of_the_first_week(database: Database) -> None:
    """The same sixty days, fifty of them as past usage, give the same baselines; a month's total gives none."""
    days, known = 60, 50
    rng = np.random.default_rng(5)
    usage = np.round(rng.uniform(8, 20, (12, 1)) * rng.normal(1, 0.05, (12, days)), 3)
    city = streets.Streets("electricity", "kWh", usage)
    streets.write(database, city, streets.temperatures(days))
    whole = refit_baselines(database, streets.CALENDAR, clock=streets.StillClock(), as_of=streets.day(days))
    named = "SELECT service_point_id, status, days, intercept FROM anomaly.baseline WHERE version = %s ORDER BY 1"

    def fitted(version: str | None) -> tuple[list[str], list[int], list[float]]:
        """Status, days and intercept by service point."""
        with database.connect() as c:
            rows = c.execute(named, (version,)).fetchall()
        return [str(r[1]) for r in rows], [int(r[2]) for r in rows], [float(r[3]) for r in rows]

    with database.connect() as c:
        c.execute("DELETE FROM vee.daily_usage WHERE billing_day < %s", (streets.day(known),))
        c.execute("DELETE FROM anomaly.day_facts WHERE billing_day < %s", (streets.day(known),))
        c.execute(
            "INSERT INTO ref.past_usage SELECT service_point_id, 'import', 'kWh', %s, %s, 500 FROM ref.service_points",
            (streets.day(0) - timedelta(days=40), streets.day(0) - timedelta(days=9)),
        )
    short = refit_baselines(database, streets.CALENDAR, clock=streets.StillClock(), as_of=streets.day(days))
    assert max(fitted(short.version)[1]) < known
    with database.connect() as c:
        for p, point in enumerate(city.ids):
            c.cursor().executemany(
                "INSERT INTO ref.past_usage VALUES (%s, 'import', 'Wh', %s, %s, %s)",
                [(point, streets.day(d), streets.day(d + 1), round(usage[p, d] * 1000)) for d in range(known)],
            )
    again = refit_baselines(database, streets.CALENDAR, clock=streets.StillClock(), as_of=streets.day(days))
    before, after = fitted(whole.version), fitted(again.version)
    assert after[:2] == before[:2]
    assert np.allclose(after[2], before[2], rtol=1e-4)


def test_periods_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    (tmp_path / "past_usage.csv").write_text(
        "service_point_id,flow,unit,period_start,period_end,quantity\n"
        "SP-1,import,kWh,2026-07-01,2026-08-01,310\n"
        "SP-1,import,kWh,2026-07-31,2026-09-01,300\n"
        "SP-1,export,kWh,2026-08-01,2026-08-01,5\n"
        "SP-2,import,furlong,2026-07-01,2026-08-01,-3\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert [str(f) for f in refused.value.faults] == [
        "past_usage.csv:4: period_end: 2026-08-01 is not 1 to 400 days after period_start 2026-08-01; it is the day after the last",
        "past_usage.csv:5: quantity: -3 is below 0; only net may be",
        "past_usage.csv:5: unit: unknown unit 'furlong'",
        "past_usage.csv:3: period_start: 2026-07-31 lies in the period of line 2 of SP-1",
    ]
