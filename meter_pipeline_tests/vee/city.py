"""A few streets of a city in the test database: reference rows and raw reads, written without the rooms that usually
do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.vectors import RAW_INTERVAL_DAY, write_matrices
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

ZONE = "America/Chicago"
CALENDAR = BillingCalendar(ZONE)


class StillClock:
    """A clock that stands at one instant."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        del seconds


def noon_after(day: date, days: int = 1) -> StillClock:
    """A clock at noon UTC some days after a billing day."""
    return StillClock(datetime(day.year, day.month, day.day, 18, tzinfo=UTC) + timedelta(days=days))


@dataclass
class Installed:
    """One meter at one service point, with its channels."""

    meter_id: str
    service_point_id: str
    installed_at: datetime = datetime(2025, 1, 1, 6, tzinfo=UTC)
    removed_at: datetime | None = None
    install_read: int | None = None
    removal_read: int | None = None
    interval_minutes: int | None = 15
    register: bool = True
    multiplier: int = 1
    dials: int | None = 6
    decimals: int = 3
    unit: str = "kWh"
    flow: str = "import"
    account: bool = True
    status: str = "active"
    customer_class: str = "residential"


@dataclass
class City:
    """Writes reference data and raw reads into a database."""

    database: Database
    meters: list[Installed] = field(default_factory=list)

    def reference(self, *meters: Installed, tariff: bool = True, cycle: bool = True) -> None:
        """Install meters; each service point gets an account, a tariff and a cycle unless told otherwise."""
        with self.database.connect() as c:
            if not self.meters:
                c.execute("INSERT INTO ref.accounts VALUES ('A-1', 'residential', '2020-01-01', NULL)")
                if tariff:
                    c.execute(
                        "INSERT INTO ref.tariffs (tariff_id, commodity, version, valid_from, document) VALUES ('T-1', 'electricity', 1, '2020-01-01', 't.json')"
                    )
                if cycle:
                    c.execute("INSERT INTO ref.billing_cycles VALUES ('C-1', '2020-01-01', '2030-01-01')")
            for m in meters:
                c.execute(
                    "INSERT INTO ref.service_points (service_point_id, commodity, premise_id, route, customer_class, status, valid_from) "
                    "VALUES (%s, 'electricity', 'P-1', 'R-1', %s, %s, '2020-01-01') ON CONFLICT (service_point_id, valid_from) DO NOTHING",
                    (m.service_point_id, m.customer_class, m.status),
                )
                c.execute(
                    "INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES (%s, 'electricity', 'AMI') ON CONFLICT DO NOTHING",
                    (m.meter_id,),
                )
                channel = (
                    "INSERT INTO ref.channels (meter_id, channel, kind, unit, interval_minutes, flow, multiplier, dials, decimals, sums_to, billed) "
                    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
                )
                if m.interval_minutes:
                    c.execute(
                        channel,
                        (m.meter_id, "E1", "interval", m.unit, m.interval_minutes, m.flow, 1, None, None, None, True),
                    )
                if m.register:
                    sums = "E1" if m.interval_minutes else None
                    c.execute(
                        channel,
                        (
                            m.meter_id,
                            "R1",
                            "register",
                            m.unit,
                            None,
                            m.flow,
                            m.multiplier,
                            m.dials,
                            m.decimals,
                            sums,
                            True,
                        ),
                    )
                c.execute(
                    "INSERT INTO ref.installations VALUES (%s, %s, %s, %s, %s, %s)",
                    (
                        m.service_point_id,
                        m.meter_id,
                        m.installed_at,
                        m.removed_at,
                        _dial(m.install_read),
                        _dial(m.removal_read),
                    ),
                )
                if m.account:
                    c.execute(
                        "INSERT INTO ref.agreements VALUES ('A-1', %s, 'T-1', 'C-1', '2020-01-01', NULL) ON CONFLICT (service_point_id, valid_from) DO NOTHING",
                        (m.service_point_id,),
                    )
                self.meters.append(m)

    def intervals(
        self,
        day: date,
        values: dict[str, Any],
        *,
        minutes: int = 15,
        quality: dict[str, Any] | None = None,
        unit: str = "kWh",
        offsets: dict[str, Any] | None = None,
    ) -> None:
        """Raw vectors of a day by meter: arrays of micro units with NO_VALUE for gaps. Replaces what the day has of
        these meters."""
        slots = CALENDAR.slots(day, minutes)
        names = sorted(values)
        matrix = np.stack([np.asarray(values[n], np.int64) for n in names])
        codes = np.where(matrix == NO_VALUE, np.uint16(5 << 13 | 0), np.uint16(0)).astype(np.uint16)
        codes[matrix == NO_VALUE] = 6 << 13
        for name, own in (quality or {}).items():
            codes[names.index(name)] = own
        behind = None
        if offsets:
            behind = np.zeros(matrix.shape, np.int16)
            for name, own in offsets.items():
                behind[names.index(name)] = own
        keys = pl.DataFrame(
            {
                "meter_id": names,
                "channel": ["E1"] * len(names),
                "unit": [unit] * len(names),
                "head_end": ["AMI"] * len(names),
                "source_version": [1] * len(names),
                "read_time": [None] * len(names),
                "payload_hash": [n.encode().ljust(32, b"\0") for n in names],
                "payloads": [1] * len(names),
            },
            schema_overrides={"read_time": pl.Datetime("us", "UTC"), "source_version": pl.Int64, "payloads": pl.Int16},
        )
        assert matrix.shape[1] == slots
        with self.database.connect() as c:
            for parent in ("raw.interval_day",):
                c.execute("SELECT raw.open_partition(%s::regclass, %s)", (parent, day))
                c.execute("SELECT raw.attach_partition(%s::regclass, %s)", (parent, day))
            c.execute("DELETE FROM raw.interval_day WHERE billing_day = %s AND meter_id = ANY(%s)", (day, names))
            m = DayMatrix(day, minutes, keys, matrix, codes, np.zeros(matrix.shape, np.int32), behind)
            write_matrices(c, RAW_INTERVAL_DAY, [m], CALENDAR.bounds(day)[0])

    def register(self, meter_id: str, *reads: tuple[datetime, int], channel: str = "R1", unit: str = "kWh") -> None:
        """Register reads of a meter: instants and dials in micro units."""
        with self.database.connect() as c:
            for at, value in reads:
                day = CALENDAR.day_of(at - timedelta(microseconds=1))
                c.execute("SELECT raw.open_partition('raw.register_read', %s)", (day,))
                c.execute("SELECT raw.attach_partition('raw.register_read', %s)", (day,))
                c.execute(
                    "INSERT INTO raw.register_read (read_at, value, source_version, billing_day, sequence, quality, meter_id, channel, unit, head_end, "
                    "payload_hash, idempotency_key) VALUES (%s, %s, 1, %s, 1, 0, %s, %s, %s, 'AMI', sha256(%s), raw.idempotency_key(%s, %s, 1))",
                    (at, value, day, meter_id, channel, unit, f"{meter_id}{at}".encode(), meter_id, at),
                )

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self.database.connect() as c:
            return c.execute(query.encode(), parameters).fetchall()


def _dial(micro: int | None) -> str | None:
    return None if micro is None else f"{micro / 1_000_000:.6f}"


def load_curve(day: date, minutes: int = 15, seed: int = 0, level: int = 250_000) -> npt.NDArray[np.int64]:
    """A plausible day: night low, evening peak, some noise; whole watt hours."""
    slots = CALENDAR.slots(day, minutes)
    t = np.linspace(0, 2 * np.pi, slots, endpoint=False)
    noise = np.random.default_rng(seed).normal(0, 0.08, slots)
    curve = level * (1.0 - 0.6 * np.cos(t) + 0.3 * np.sin(2 * t) + noise)
    return np.maximum(curve, level * 0.1).astype(np.int64) // 1000 * 1000
