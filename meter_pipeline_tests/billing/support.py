"""A few streets of a city for billing tests: reference rows, validated intervals and daily usage, written as the stages
before would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from psycopg.types.json import Jsonb

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database

CHICAGO = BillingCalendar("America/Chicago")
JULY = date(2026, 7, 1)


class FixedClock:
    """A clock that stands still."""

    def __init__(self, now: datetime = datetime(2026, 8, 2, 6, tzinfo=UTC)) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        del seconds


CLOCK = FixedClock()


def native(tariff_id: str = "E-TOU", **changes: Any) -> dict[str, Any]:
    """A time-of-use tariff with a fixed charge, a rider, a minimum and a tax."""
    return {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": tariff_id,
        "name": "Time of use",
        "commodity": "electricity",
        "currency": "USD",
        "unit": "kWh",
        "time_of_use": {
            "periods": ["off-peak", "peak"],
            "default": "off-peak",
            "rules": [{"period": "peak", "days": "weekdays", "from": "14:00", "to": "19:00"}],
        },
        "charges": [
            {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "12.50"},
            {"kind": "usage", "code": "ENERGY", "name": "Energy", "rates": {"off-peak": "0.0912", "peak": "0.2140"}},
            {"kind": "rider", "code": "FUEL", "name": "Fuel", "rate": "0.00413"},
            {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": "15.00"},
            {"kind": "tax", "code": "TAX", "name": "City tax", "percent": "6.25"},
        ],
    } | changes


def raw(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def add_tariff(
    database: Database,
    document: Mapping[str, Any],
    version: int = 1,
    first: date = date(2020, 1, 1),
    last: date | None = None,
) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.tariffs VALUES (%s, %s, %s, %s, %s, 'x.json')",
            (document["tariff_id"], document["commodity"], version, first, last),
        )
        connection.execute(
            "INSERT INTO ref.tariff_document VALUES (%s, %s, %s, %s)",
            (document["tariff_id"], version, Jsonb(dict(document)), hashlib.sha256(raw(document)).digest()),
        )


def add_cycle(database: Database, *starts: date, cycle_id: str = "C1") -> None:
    with database.connect() as connection:
        for a, b in pairwise(starts):
            connection.execute("INSERT INTO ref.billing_cycles VALUES (%s, %s, %s)", (cycle_id, a, b))


def add_service(
    database: Database,
    number: int,
    tariff_id: str = "E-TOU",
    *,
    first: date = date(2020, 1, 1),
    last: date | None = None,
    account: str | None = None,
    cycle: str = "C1",
    commodity: str = "electricity",
    agreed: bool = True,
) -> str:
    """A service point with its meter, account and agreement; returns the service point."""
    point, account_id = f"SP-{number:03}", account or f"A-{number:03}"
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.accounts VALUES (%s, 'residential', '2020-01-01', NULL) ON CONFLICT DO NOTHING",
            (account_id,),
        )
        connection.execute(
            "INSERT INTO ref.service_points VALUES (%s, %s, %s, 'R1', 'residential', NULL, NULL, NULL, 'active', '2020-01-01', NULL) "
            "ON CONFLICT (service_point_id, valid_from) DO NOTHING",
            (point, commodity, f"P-{number}"),
        )
        if agreed:
            connection.execute(
                "INSERT INTO ref.agreements VALUES (%s, %s, %s, %s, %s, %s)",
                (account_id, point, tariff_id, cycle, first, last),
            )
    return point


def put_intervals(
    database: Database,
    day: date,
    values: Mapping[str, Sequence[int]],
    *,
    minutes: int = 60,
    unit: str = "kWh",
    estimated: int = 0,
    flow: str = "import",
) -> None:
    """Validated intervals of a day, in thousandths of the unit, replacing what stood there for these service points and
    this flow."""
    start = CHICAGO.bounds(day)[0]
    with database.connect() as connection:
        for table in ("vee.interval_day", "vee.daily_usage"):
            connection.execute("SELECT raw.open_partition(%s, %s)", (table, day))
            connection.execute("SELECT raw.attach_partition(%s, %s)", (table, day))
        for point, row in values.items():
            total, slots = sum(row) * 1000, len(row)
            connection.execute(
                "DELETE FROM vee.interval_day WHERE billing_day = %s AND service_point_id = %s AND flow = %s",
                (day, point, flow),
            )
            connection.execute(
                "DELETE FROM vee.daily_usage WHERE billing_day = %s AND service_point_id = %s AND flow = %s",
                (day, point, flow),
            )
            connection.execute(
                "INSERT INTO vee.interval_day (starts_at, total_micro, unscaled_micro, row_flags, billing_day, rules_version, first_slot, "
                "expected, actual, estimated, missing, interval_minutes, slots, scale, quality, billed, locked, service_point_id, meter_id, "
                "channel, unit, flow, head_end, input_hash, content_hash, values) VALUES (%s, %s, 0, 0, %s, 1, 0, %s, %s, %s, 0, %s, %s, 3, "
                "%s, true, false, %s, %s, %s, %s, %s, 'HE', %s, %s, %s)",
                (
                    start,
                    total,
                    day,
                    slots,
                    slots - estimated,
                    estimated,
                    minutes,
                    slots,
                    24576 if estimated else 0,
                    point,
                    "M" + point[2:],
                    "E1" if flow == "import" else "B1",
                    unit,
                    flow,
                    bytes(32),
                    bytes(32),
                    list(row),
                ),
            )
            connection.execute(
                "INSERT INTO vee.daily_usage VALUES (%s, 0, 0, %s, %s, %s, %s, 0, 1, 0, false, %s, %s, %s, 'interval', 'electricity', "
                "'residential')",
                (total, day, slots, slots - estimated, estimated, point, flow, unit),
            )


def put_daily(database: Database, day: date, quantities: Mapping[str, int], unit: str, commodity: str) -> None:
    """Usage known only as a day's total, in millionths of the unit."""
    with database.connect() as connection:
        connection.execute("SELECT raw.open_partition('vee.daily_usage', %s)", (day,))
        connection.execute("SELECT raw.attach_partition('vee.daily_usage', %s)", (day,))
        for point, quantity in quantities.items():
            connection.execute(
                "INSERT INTO vee.daily_usage VALUES (%s, 0, 0, %s, 1, 1, 0, 0, 1, 0, false, %s, 'import', %s, 'register', %s, 'residential') "
                "ON CONFLICT (billing_day, service_point_id, flow, unit) DO UPDATE SET quantity_micro = excluded.quantity_micro",
                (quantity, day, point, unit, commodity),
            )


def days(first: date, count: int) -> list[date]:
    return [first + timedelta(days=k) for k in range(count)]
