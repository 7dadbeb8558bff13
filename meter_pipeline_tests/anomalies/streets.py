"""Some streets of validated days in the test database, written without the rooms that usually do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database

CALENDAR = BillingCalendar("America/Chicago")
FIRST = date(2025, 1, 1)


class StillClock:
    """A clock that stands at one instant."""

    def now(self) -> datetime:
        return datetime(2026, 6, 1, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        del seconds


@dataclass
class Streets:
    """Daily usage (points, days) in whole units from FIRST, with what a test wants to spoil. Actual share per day in
    ``coverage``."""

    commodity: str
    unit: str
    usage: npt.NDArray[np.float64]
    status: str = "active"
    hours: npt.NDArray[np.float64] | None = None  # (points, days, 24)
    coverage: npt.NDArray[np.float64] = field(init=False)
    account: npt.NDArray[np.str_] = field(init=False)

    def __post_init__(self) -> None:
        points, days = self.usage.shape
        self.coverage = np.ones((points, days))
        self.account = np.array([[f"ACC-{p}"] * days for p in range(points)], dtype="<U16")

    @property
    def ids(self) -> list[str]:
        return [f"SP-{self.commodity[0].upper()}{p:03d}" for p in range(self.usage.shape[0])]


def temperatures(days: int, seed: int = 1) -> npt.NDArray[np.float64]:
    """(days,) °F: all of a year's weather every fifty days, so that a short history has seen it."""
    rng = np.random.default_rng(seed)
    return 55 + 20 * np.sin(2 * np.pi * np.arange(days) / 50) + rng.normal(0, 4, days)


def write(
    database: Database, streets: Streets, degrees: npt.NDArray[np.float64] | None, *, weather_until: int | None = None
) -> None:
    """Reference rows, weather and validated days."""
    days = streets.usage.shape[1]
    with database.connect() as connection:
        run = connection.execute
        run(
            "CREATE TABLE IF NOT EXISTS vee.daily_usage_all PARTITION OF vee.daily_usage FOR VALUES FROM ('2024-01-01') TO ('2028-01-01')"
        )
        run(
            "CREATE TABLE IF NOT EXISTS vee.interval_day_all PARTITION OF vee.interval_day FOR VALUES FROM ('2024-01-01') TO ('2028-01-01')"
        )
        run(
            "CREATE TABLE IF NOT EXISTS vee.register_day_all PARTITION OF vee.register_day FOR VALUES FROM ('2024-01-01') TO ('2028-01-01')"
        )
        run("INSERT INTO ref.weather_stations VALUES ('KMUN', 'Field', 41.9, -87.6) ON CONFLICT DO NOTHING")
        with connection.cursor() as cursor:
            for p, point in enumerate(streets.ids):
                cursor.execute(
                    "INSERT INTO ref.service_points (service_point_id, commodity, premise_id, route, customer_class, station_id, status, valid_from) "
                    "VALUES (%s, %s, %s, 'R1', 'residential', 'KMUN', %s, '2020-01-01')",
                    (point, streets.commodity, f"PR-{point}", streets.status),
                )
                meter = f"M-{point}"
                cursor.execute(
                    "INSERT INTO ref.meters VALUES (%s, %s, 'AMI', null, %s)",
                    (meter, streets.commodity, f"COL-{p // 10}"),
                )
                cursor.execute(
                    "INSERT INTO ref.installations (service_point_id, meter_id, installed_at) VALUES (%s, %s, '2020-01-01T06:00Z')",
                    (point, meter),
                )
            if degrees is not None:
                shown = degrees[: weather_until or days]
                cursor.executemany(
                    "INSERT INTO ref.weather VALUES ('KMUN', %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    [
                        (FIRST + timedelta(days=d), *(round((float(f) - 32) / 1.8 + k, 4) for k in (-5, 5, 0)))
                        for d, f in enumerate(shown)
                    ],
                )
        write_days(connection, streets, range(days))


def write_days(connection: Any, streets: Streets, which: range) -> None:
    """(Re)write validated days."""
    slots = 24
    with connection.cursor() as cursor:
        for d in which:
            day = FIRST + timedelta(days=d)
            cursor.execute(
                "DELETE FROM vee.daily_usage WHERE billing_day = %s AND commodity = %s", (day, streets.commodity)
            )
            rows = []
            for p, point in enumerate(streets.ids):
                actual = round(slots * streets.coverage[p, d])
                quantity = None if np.isnan(streets.usage[p, d]) else round(float(streets.usage[p, d]) * 1e6)
                rows.append(
                    (
                        quantity,
                        day,
                        slots,
                        actual,
                        slots - actual,
                        point,
                        streets.unit,
                        streets.commodity,
                        str(streets.account[p, d]),
                    )
                )
            cursor.executemany(
                "INSERT INTO vee.daily_usage (quantity_micro, estimated_micro, row_flags, billing_day, slots_expected, actual, estimated, missing, "
                "meters, quality, exchange, service_point_id, flow, unit, source, commodity, customer_class, account_id) "
                "VALUES (%s, 0, 0, %s, %s, %s, 0, %s, 1, 0, false, %s, 'import', %s, 'interval', %s, 'residential', %s)",
                rows,
            )
            if streets.hours is not None:
                cursor.execute("DELETE FROM vee.interval_day WHERE billing_day = %s", (day,))
                cursor.executemany(
                    "INSERT INTO vee.interval_day (starts_at, total_micro, unscaled_micro, row_flags, billing_day, rules_version, first_slot, "
                    "expected, actual, estimated, missing, interval_minutes, slots, scale, quality, billed, locked, service_point_id, meter_id, "
                    "channel, unit, flow, head_end, input_hash, content_hash, values) VALUES (%s, 0, 0, 0, %s, 1, 0, 24, %s, 0, %s, 60, 24, 3, 0, "
                    "true, false, %s, %s, 'W1', %s, 'import', 'AMI', %s, %s, %s)",
                    [
                        (
                            CALENDAR.bounds(day)[0],
                            day,
                            round(24 * streets.coverage[p, d]),
                            24 - round(24 * streets.coverage[p, d]),
                            point,
                            f"M-{point}",
                            streets.unit,
                            bytes(32),
                            bytes(32),
                            [round(v * 1000) for v in streets.hours[p, d].tolist()],
                        )
                        for p, point in enumerate(streets.ids)
                    ],
                )


def day(index: int) -> date:
    """The billing day of a column."""
    return FIRST + timedelta(days=index)
