"""A small utility for end-to-end tests: a folder with its own zone and head-ends, a database, and the stages called in
order as the assets do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.registry import parse
from meter_pipeline.ingest.landing import FileFolders, Landed, land
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.reference.enrolment import Enrolment, admit, cycle_periods
from meter_pipeline.reference.importing import import_rows
from meter_pipeline.reference.tables import read_table
from meter_pipeline.schemas.report import StageReport
from meter_pipeline.settings import Settings

FLAT = {
    "electricity": ("kWh", "0.25"),
    "water": ("m3", "2.00"),
    "gas": ("therm", "1.10"),
}


def flat_tariff(commodity: str) -> dict[str, Any]:
    """One rate, no fixed charge: what is billed shows what was measured."""
    unit, rate = FLAT[commodity]
    document: dict[str, Any] = {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": f"FLAT-{commodity.upper()}",
        "name": f"Flat {commodity}",
        "commodity": commodity,
        "currency": "USD",
        "unit": unit,
        "rounding": {"places": 6, "mode": "half_up"},
        "charges": [{"kind": "usage", "code": "USAGE", "name": "Usage", "rate": rate}],
    }
    if unit == "therm":
        document["heat_content"] = [{"from": "1980-01-01", "therms_per_ccf": "1.000"}]
    return document


@dataclass(slots=True)
class SmallUtility:
    """A utility of its own: ``settings.data`` is its folder, every stage writes to ``database``."""

    database: Database
    settings: Settings
    calendar: BillingCalendar
    landed: list[Landed] = field(default_factory=list)

    @classmethod
    def make(cls, database: Database, folder: Path, zone: str) -> SmallUtility:
        """An empty utility with a flat tariff for each commodity, in force since 1990."""
        data = folder / "data"
        (data / "reference").mkdir(parents=True)
        (data / "tariffs").mkdir()
        (data / "head_ends").mkdir()
        (data / "inbox").mkdir()
        (data / "utility.toml").write_text(
            f'name = "Small"\nzone = "{zone}"\ncurrency = "USD"\nfirst_billing_day = "2000-01-01"\n'
        )
        rows = ["tariff_id,commodity,version,valid_from,valid_to,document"]
        for commodity in FLAT:
            name = f"flat-{commodity}.json"
            (data / "tariffs" / name).write_text(json.dumps(flat_tariff(commodity)))
            rows.append(f"FLAT-{commodity.upper()},{commodity},1,1990-01-01,,{name}")
        (data / "reference" / "tariffs.csv").write_text("\n".join(rows) + "\n")
        settings = Settings(folder / "home", data, data / "inbox", database.url)
        settings.home.mkdir()
        import_folder(database, data / "reference")
        return cls(database, settings, BillingCalendar(zone))

    def enrol(self, path: Path, head_end: HeadEnd, commodity: str) -> None:
        """Admit the meters of a file on the flat tariff of its commodity."""
        parsed = parse(path, head_end, self.calendar)
        known = frozenset(read_table(self.database, "meters")["meter_id"].to_list())
        how = Enrolment(head_end.name.upper(), f"FLAT-{commodity.upper()}", "MONTHLY", commodity)
        rows = admit(parsed, self.calendar, how, known).rows
        if rows:
            import_rows(self.database, cycle_periods(parsed, self.calendar, "MONTHLY") | rows, {}, path.name)

    def land(self, path: Path, head_end: HeadEnd) -> Landed:
        """Land one file."""
        done = land(
            self.database,
            self.calendar,
            path,
            head_end,
            FileFolders(self.settings.archive, self.settings.staging),
            parse=parse,
            clock=SYSTEM_CLOCK,
        )
        self.landed.append(done)
        return done

    def run(self, day: date) -> dict[str, StageReport]:
        """Every stage of a billing day, in the order of the assets; reports by stage."""
        from meter_pipeline.billing import bill_billing_day
        from meter_pipeline.ingest import ingest_billing_day
        from meter_pipeline.vee import validate_billing_day

        reports = {
            "raw_reads": ingest_billing_day(
                self.database, self.calendar, day, settings=self.settings, clock=SYSTEM_CLOCK, run_id="test"
            ).report()
        }
        reports["validated_intervals"] = validate_billing_day(
            self.database, self.calendar, day, clock=SYSTEM_CLOCK
        ).report()
        reports["reconciled_billing"] = bill_billing_day(self.database, self.calendar, day, clock=SYSTEM_CLOCK).report()
        return reports

    def touched(self) -> list[date]:
        """Every billing day that landed files touch."""
        return sorted({day for landed in self.landed for day in landed.days})

    def run_touched(self) -> dict[date, dict[str, StageReport]]:
        return {day: self.run(day) for day in self.touched()}

    def run_span(self) -> None:
        """Every billing day from the first touched to the last, as the schedule runs them, then those that register
        reads ask to have again."""
        from meter_pipeline.vee.tables.true_up import waiting

        touched = self.touched()
        for day in self.calendar.days(touched[0], touched[-1]):
            self.run(day)
        seen: set[date] = set()
        while asked := [day for day, _ in waiting(self.database) if day not in seen]:
            for day in asked:
                self.run(day)
            seen |= set(asked)

    def read(self, query: str) -> pl.DataFrame:
        return self.database.read(query)


def days(first: date, count: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(count)]
