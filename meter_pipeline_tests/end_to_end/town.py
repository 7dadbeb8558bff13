"""A few services in the test database with their own tariffs, meters and reads, run through the stages in their
order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline.vee import usage_report, validate_billing_day
from meter_pipeline.vee.tables import true_up
from meter_pipeline_tests.billing.support import add_cycle, add_tariff
from meter_pipeline_tests.vee.city import CALENDAR, City, StillClock

LONG_AGO = datetime(2020, 1, 1, 6, tzinfo=UTC)


def flat(tariff_id: str, commodity: str, unit: str, rate: str, **more: Any) -> dict[str, Any]:
    """One rate per unit: what is billed shows what was metered."""
    return {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": tariff_id,
        "name": tariff_id,
        "commodity": commodity,
        "currency": "USD",
        "unit": unit,
        "charges": [{"kind": "usage", "code": "USAGE", "name": "Usage", "rate": rate}],
    } | more


@dataclass
class Town:
    """Writes reference rows and raw reads, and runs days as the assets do."""

    database: Database

    def __post_init__(self) -> None:
        self.city = City(self.database)

    def tariff(self, document: Mapping[str, Any]) -> None:
        add_tariff(self.database, document)

    def cycle(self, *starts: date) -> None:
        add_cycle(self.database, *starts)

    def service(
        self,
        name: str,
        tariff_id: str | None,
        commodity: str = "electricity",
        *,
        status: str = "active",
        customer_class: str = "residential",
        since: date = date(2020, 1, 1),
    ) -> None:
        """A service point SP-name, with its account A-name where a tariff is given."""
        with self.database.connect() as c:
            c.execute(
                "INSERT INTO ref.service_points (service_point_id, commodity, premise_id, route, customer_class, status, "
                "valid_from) VALUES (%s, %s, 'P-1', 'R-1', %s, %s, %s)",
                (f"SP-{name}", commodity, customer_class, status, since),
            )
            if tariff_id is not None:
                c.execute("INSERT INTO ref.accounts VALUES (%s, %s, '2020-01-01', NULL)", (f"A-{name}", customer_class))
                c.execute(
                    "INSERT INTO ref.agreements VALUES (%s, %s, %s, 'C1', %s, NULL)",
                    (f"A-{name}", f"SP-{name}", tariff_id, since),
                )

    def meter(
        self,
        meter_id: str,
        point: str,
        *channels: Mapping[str, Any],
        commodity: str = "electricity",
        head_end: str = "AMI",
        installed: datetime = LONG_AGO,
        removed: datetime | None = None,
        install_read: str | None = None,
        removal_read: str | None = None,
    ) -> None:
        """A meter at SP-point with its channels (``interval`` and ``dial`` make them)."""
        with self.database.connect() as c:
            c.execute(
                "INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (meter_id, commodity, head_end),
            )
            for channel in channels:
                row: dict[str, object] = {"meter_id": meter_id, "flow": "import", "multiplier": 1, "billed": True}
                row |= dict.fromkeys(("sums_to", "interval_minutes", "dials", "decimals")) | dict(channel)
                names = ", ".join(row)
                c.execute(
                    f"INSERT INTO ref.channels ({names}) VALUES ({', '.join(f'%({n})s' for n in row)}) "
                    "ON CONFLICT DO NOTHING".encode(),
                    row,
                )
            c.execute(
                "INSERT INTO ref.installations VALUES (%s, %s, %s, %s, %s, %s)",
                (f"SP-{point}", meter_id, installed, removed, install_read, removal_read),
            )

    def read(self, meter_id: str, at: datetime, value: str, channel: str = "R1", unit: str = "kWh") -> None:
        """A register read; the value in the channel's base unit."""
        self.city.register(meter_id, (at, int(Decimal(value) * 1_000_000)), channel=channel, unit=unit)

    def run(self, *days: date, issue: bool = False) -> None:
        """Validate and bill days, then the days that reads ask to have again, until none asks; no check may fail."""
        for day in days:
            self._run(day)
        tried: set[tuple[date, bytes]] = set()
        while asked := {(d, e) for d, evidence in true_up.waiting(self.database) for e in evidence} - tried:
            tried |= asked
            for day in sorted({d for d, _ in asked}):
                self._run(day)
        if issue:
            for day in days:
                for cycle, _ in self.rows(
                    "SELECT cycle_id, 1 FROM ref.billing_cycles WHERE period_end = %s", day + timedelta(days=1)
                ):
                    issue_statements(self.database, CALENDAR, cycle, day + timedelta(days=1), clock=self.clock(day))

    def _run(self, day: date) -> None:
        # Drawing a day's three plots took a quarter of a town's processor time; vee, billing and defs draw them in
        # tests of their own.
        with mock.patch("meter_pipeline.vee.report.plots"), mock.patch("meter_pipeline.billing.report.plots"):
            self._stages(day)

    def _stages(self, day: date) -> None:
        validate_billing_day(self.database, CALENDAR, day, clock=self.clock(day))
        report = usage_report(self.database, CALENDAR, day)
        assert [c.name for c in report.checks if not c.passed] == [], day
        billed = bill_billing_day(self.database, CALENDAR, day, clock=self.clock(day))
        assert [c.name for c in billed.report().checks if not c.passed] == [], day

    @staticmethod
    def clock(day: date) -> StillClock:
        return StillClock(datetime(day.year, day.month, day.day, 18, tzinfo=UTC) + timedelta(days=1))

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.city.rows(query, *parameters)

    def usage(self, point: str) -> dict[date, Decimal]:
        """Validated usage of SP-point by day, in units."""
        found = self.rows(
            "SELECT billing_day, sum(quantity_micro)::bigint FROM vee.daily_usage WHERE service_point_id = %s GROUP BY 1",
            f"SP-{point}",
        )
        return {day: Decimal(0 if q is None else q).scaleb(-6) for day, q in sorted(found)}

    def billed(self, point: str) -> Decimal:
        """Usage on statements of A-point, in the tariff's unit."""
        [(q,)] = self.rows(
            "SELECT coalesce(sum(quantity), 0) FROM billing.statement_line JOIN billing.statement USING (statement_id) "
            "WHERE account_id = %s AND line_key LIKE 'USAGE%%'",
            f"A-{point}",
        )
        return Decimal(q)

    def exceptions(self, point: str) -> dict[str, list[date]]:
        """Kinds of exceptions of SP-point with their days."""
        found: dict[str, list[date]] = {}
        for kind, day in self.rows(
            "SELECT kind, billing_day FROM vee.exception WHERE service_point_id = %s ORDER BY 1, 2", f"SP-{point}"
        ):
            found.setdefault(kind, []).append(day)
        return found


def interval(minutes: int = 60, unit: str = "kWh", channel: str = "E1", **more: Any) -> dict[str, Any]:
    """An interval channel."""
    return {"channel": channel, "kind": "interval", "unit": unit, "interval_minutes": minutes} | more


def dial(unit: str = "kWh", channel: str = "R1", dials: int | None = 5, **more: Any) -> dict[str, Any]:
    """A register."""
    return {"channel": channel, "kind": "register", "unit": unit, "dials": dials, "decimals": 3} | more


def local(day: date, hour: int = 0, minute: int = 0) -> datetime:
    """An instant by the utility's clock."""
    return CALENDAR.bounds(day)[0] + timedelta(hours=hour, minutes=minute)
