"""A town of a few accounts for corrections: hourly meters and a manual register, flat prices, periods of three days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline_tests.lives.model import Rates
from meter_pipeline_tests.lives.stages import City

FIRST = date(2026, 1, 5)
#: Three days a period, two periods.
PERIODS = ((FIRST, FIRST + timedelta(days=3)), (FIRST + timedelta(days=3), FIRST + timedelta(days=6)))
FLAT = Rates(Decimal(0), ((None, Decimal("0.10")),))
DEAR = Rates(Decimal(3), ((None, Decimal("0.30")),))


class Town(City):
    """``a`` and ``b`` have hourly meters of 1 kWh an hour (24 a day); ``r`` a register that counts 10 a day."""

    def begin(self) -> None:
        self.tariffs({"E-FLAT": [FLAT], "E-DEAR": [DEAR]}, FIRST)
        self.refer(
            {
                "billing_cycles": [{"cycle_id": "C1", "period_start": a, "period_end": b} for a, b in PERIODS],
                "service_points": [point(p) for p in "ABR"],
                "meters": [
                    {
                        "meter_id": f"M{p}",
                        "commodity": "electricity",
                        "head_end": "REGISTER-KWH" if p == "R" else "INTERVAL-KWH",
                    }
                    for p in "ABR"
                ],
                "channels": [channel(p) for p in "ABR"],
                "installations": [
                    {
                        "service_point_id": f"SP-{p}",
                        "meter_id": f"M{p}",
                        "installed_at": self.calendar.bounds(FIRST)[0],
                        "install_read": 0 if p == "R" else None,
                    }
                    for p in "ABR"
                ],
                "accounts": [
                    {"account_id": f"AC-{p}", "customer_class": "residential", "opened": date(2015, 1, 1)}
                    for p in "ABRX"
                ],
                "agreements": [agreement(p) for p in "ABR"],
            }
        )

    def reads(self, days: Sequence[date]) -> None:
        """Every read of some days: hours of the interval meters, the dial at the end of each day."""
        found: list[tuple[str, str, str, datetime, str, int]] = []
        for day in days:
            start, end = self.calendar.bounds(day)
            for p in "AB":
                hours = int((end - start).total_seconds() // 3600)
                found += [("INTERVAL-KWH", f"M{p}", "E1", start + timedelta(hours=h), "1", 1) for h in range(hours)]
            found.append(("REGISTER-KWH", "MR", "R1", end, str(10 * ((day - FIRST).days + 1)), 1))
        self.read(found)

    def days(self, days: Sequence[date]) -> None:
        self.reads(days)
        for day in days:
            self.run_day(day)
        self.settle()

    def owed(self) -> dict[str, Decimal]:
        """By account: statements with what was posted to them, and the charges of days on no statement. A sealed day's
        charge stands where nobody is charged for the day any more, and is owed by nobody."""
        with self.database.connect() as connection:
            rows = connection.execute(
                "SELECT account_id, sum(x) FROM (SELECT account_id, total AS x FROM billing.statement UNION ALL "
                "SELECT account_id, net FROM billing.adjustment WHERE status IN ('requested', 'posted') UNION ALL "
                "SELECT account_id, total / 1000000.0 FROM billing.charge_day AS c WHERE NOT EXISTS (SELECT FROM billing.segment_in_effect AS g "
                "WHERE g.service_point_id = c.service_point_id AND c.billing_day >= g.segment_start AND c.billing_day < g.segment_end) "
                "AND (SELECT r.determinants FROM billing.determinant_revision AS r WHERE r.billing_day = c.billing_day AND r.service_point_id = "
                "c.service_point_id ORDER BY r.revision DESC LIMIT 1) IS DISTINCT FROM 'null') AS every "
                "GROUP BY 1 ORDER BY 1"
            ).fetchall()
        return {account: amount.normalize() for account, amount in rows if amount}

    def folder_of(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
        """A folder of some tables, as a customer system exports them."""
        import csv

        self.files += 1
        made = self.folder / f"export-{self.files}"
        made.mkdir()
        for name, table in rows.items():
            with (made / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(TABLES[name].columns)
                writer.writerows([text(row.get(c)) for c in TABLES[name].columns] for row in table)
        return made


def text(value: Any) -> str:
    if value is None:
        return ""
    return (
        str(value).lower()
        if isinstance(value, bool)
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
    )


def point(p: str, **more: Any) -> dict[str, Any]:
    return {
        "service_point_id": f"SP-{p}",
        "commodity": "electricity",
        "premise_id": f"PR-{p}",
        "route": "R1",
        "customer_class": "residential",
        "status": "active",
        "valid_from": date(2015, 1, 1),
    } | more


def channel(p: str, multiplier: int = 1, **more: Any) -> dict[str, Any]:
    register = p == "R"
    return {
        "meter_id": f"M{p}",
        "channel": "R1" if register else "E1",
        "kind": "register" if register else "interval",
        "unit": "kWh",
        "interval_minutes": None if register else 60,
        "flow": "import",
        "multiplier": multiplier,
        "dials": 6 if register else None,
        "billed": True,
    } | more


def agreement(p: str, **more: Any) -> dict[str, Any]:
    return {
        "account_id": f"AC-{p}",
        "service_point_id": f"SP-{p}",
        "tariff_id": "E-FLAT",
        "cycle_id": "C1",
        "valid_from": date(2015, 1, 1),
    } | more


def town(database: Database, folder: Path) -> Town:
    made = Town(database, folder)
    made.begin()
    return made
