"""The city of ``bench month`` and its answers by hand: water for every account, known by a formula, so that each figure
can be worked out again without the product.

Twelve billing periods of one day, the 15th of each month of a year; four in a row from 2026-07-15 on; then the days to
the month's end, in which half of the accounts have a bill. Every hundredth account has a confirmed leak in June, every
fiftieth is estimated on all bills.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from psycopg import sql

from meter_pipeline.anomalies.tables.exception_cases import upsert_cases
from meter_pipeline.postgres.copy_binary import copy_frame
from meter_pipeline.postgres.database import Database

JULY: Final = date(2026, 7, 1)
BILLED: Final = [date(2025 + (m > 12), (m - 1) % 12 + 1, 15) for m in range(7, 19)]
#: Bills that follow each other without a gap, for the limits on estimates
IN_A_ROW: Final = [date(2026, 7, 15) + timedelta(days=k) for k in range(4)]
OPEN: Final = [date(2026, 7, 19) + timedelta(days=k) for k in range(13)]
#: Where the period of cycle C2 is cut; C1's goes on to the end.
CUT, END = date(2026, 7, 27), date(2026, 8, 19)
ZONES: Final = 20
LEAK_PERIOD: Final = 11
_OLD: Final = date(2020, 1, 1)

BASIC, STORM, SEWER, FACTOR = Fraction("6.20"), Fraction("7.35"), Fraction("3.00"), Fraction("0.9")
LIMIT, LOW, HIGH = 5_000, Fraction("2.00"), Fraction("4.00")
#: What the study proposes for the upper tier
PROPOSED: Final = Fraction("4.60")


def tariff(name: str = "W-STD", high: Fraction = HIGH) -> dict[str, Any]:
    """Basic charge, two tiers, sewer by nine tenths of the water, stormwater by the unit."""
    return {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": name,
        "name": "Water",
        "commodity": "water",
        "currency": "USD",
        "unit": "kgal",
        "charges": [
            {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "6.20"},
            {"kind": "fixed", "code": "STORM", "name": "Stormwater", "amount": "7.35", "times": "eru"},
            {
                "kind": "usage",
                "code": "WATER",
                "name": "Water",
                "tiers": [{"upto": 5, "rate": "2.00"}, {"rate": f"{float(high):.2f}"}],
            },
            {"kind": "usage", "code": "SEWER", "name": "Sewer", "rate": "3.00", "factor": "0.9"},
        ],
    }


class MonthCity:
    """``accounts`` of them; arrays go by account. ``eru``: stormwater units, in hundredths."""

    def __init__(self, accounts: int) -> None:
        self.n = np.arange(accounts, dtype=np.int64)
        text = pl.Series(self.n).cast(pl.String).str.zfill(7)
        self.points, self.accounts = ("SP-" + text).to_list(), ("A-" + text).to_list()
        self.eru = 100 + 25 * (self.n % 13)
        self.leaks = np.flatnonzero(self.n % 100 == 7)
        self.estimated = self.n % 50 == 3
        self.second_cycle = self.n % 2 == 1
        self.zone = self.n % ZONES

    def used(self, day: date) -> npt.NDArray[np.int64]:
        """Gallons of each account on a day. All are multiples of 120, so that halves and thirds of them are whole."""
        k = BILLED.index(day) if day in BILLED else 12 + (day - IN_A_ROW[0]).days
        base = 1_200 + 120 * ((self.n * 37 + k * 11) % 60)
        if day in OPEN:
            return np.asarray(base // 120 * 12, np.int64)
        return np.asarray(np.where((k == LEAK_PERIOD) & (self.n % 100 == 7), base + 12_000, base), np.int64)

    # -- what goes into the database ---------------------------------------------------------------------------------

    def put_reference(self, database: Database) -> None:
        """Who is served by what, the zones, and the rules of the month."""
        n = len(self.n)
        supply = [f"SP-ZONE{z:02}" for z in range(ZONES)] + ["SP-WORKS"]
        every = [*self.points, *supply]
        frames: dict[str, dict[str, Any]] = {
            "accounts": {"account_id": self.accounts, "customer_class": ["residential"] * n, "opened": [_OLD] * n},
            "service_points": {
                "service_point_id": every,
                "commodity": ["water"] * len(every),
                "premise_id": every,
                "route": ["R1"] * len(every),
                "customer_class": ["residential"] * n + ["municipal"] * len(supply),
                "status": ["active"] * len(every),
                "valid_from": [_OLD] * len(every),
            },
            "agreements": {
                "account_id": self.accounts,
                "service_point_id": self.points,
                "tariff_id": ["W-STD"] * n,
                "cycle_id": ["C2" if second else "C1" for second in self.second_cycle],
                "valid_from": [_OLD] * n,
            },
            "attribute_names": {"attribute": ["eru"], "kind": ["count"], "about": ["stormwater units"]},
            "service_attributes": {
                "service_point_id": self.points,
                "attribute": ["eru"] * n,
                "value": [f"{e / 100:.2f}" for e in self.eru.tolist()],
                "valid_from": [_OLD] * n,
            },
            "zones": {
                "zone_id": ["CITY", *(f"ZONE{z:02}" for z in range(ZONES))],
                "kind": ["pressure_zone", *["district"] * ZONES],
                "commodity": ["water"] * (ZONES + 1),
                "name": ["works", *["district"] * ZONES],
                "parent_id": [None, *["CITY"] * ZONES],
                "valid_from": [_OLD] * (ZONES + 1),
            },
            "zone_members": {
                "service_point_id": self.points,
                "zone_id": [f"ZONE{z:02}" for z in self.zone.tolist()],
                "valid_from": [_OLD] * n,
            },
            "zone_supplies": {
                "zone_id": [*(f"ZONE{z:02}" for z in range(ZONES)), "CITY"],
                "service_point_id": supply,
                "direction": ["in"] * (ZONES + 1),
                "valid_from": [_OLD] * (ZONES + 1),
            },
        }
        raw = json.dumps(tariff())
        rules = (
            "INSERT INTO ref.tariffs VALUES ('W-STD', 'water', 1, '2020-01-01', NULL, 'x.json')",
            "INSERT INTO ref.zone_unmetered VALUES ('CITY', 'flushing', 500, 'gal', '2020-01-01', NULL)",
            "INSERT INTO ref.winter_average_rules VALUES ('*', '12 1 2 3', 1, 0, 2, 0.25, '2020-01-01', NULL)",
            "INSERT INTO ref.estimate_limits VALUES ('*', '*', '*', 3, 'read_request', true, '2020-01-01', NULL)",
            "INSERT INTO ref.leak_adjustment_rules VALUES ('*', NULL, 3, 2, 50, 'SEWER', 100, 12, 1, 'receipt', '2020-01-01', NULL)",
            "INSERT INTO ref.revenue_accounts VALUES ('*', '*', '*', '4610', '1310', '2020-01-01', NULL)",
        )
        periods = [(c, day, day + timedelta(days=1)) for c in ("C1", "C2") for day in (*BILLED, *IN_A_ROW)]
        periods += [("C1", OPEN[0], END), ("C2", OPEN[0], CUT), ("C2", CUT, END)]
        with database.connect("bench") as connection:
            for table, columns in frames.items():
                dates: dict[str, Any] = {c: pl.Date for c in ("opened", "valid_from") if c in columns}
                frame = pl.DataFrame(columns, schema_overrides=dates)
                copy_frame(connection, sql.Identifier("ref", table), frame, frame.columns)
            for rule in rules:
                connection.execute(rule.encode())
            digest = hashlib.sha256(raw.encode()).digest()
            connection.execute("INSERT INTO ref.tariff_document VALUES ('W-STD', 1, %s::jsonb, %s)", (raw, digest))
            for row in periods:
                connection.execute("INSERT INTO ref.billing_cycles VALUES (%s, %s, %s)", row)

    def put_day(self, database: Database, day: date) -> None:
        """A day's validated usage, as validation leaves registers' days, the supply meters' too."""
        supplied = self.supplied(day)
        points = [*self.points, *(f"SP-ZONE{z:02}" for z in range(ZONES)), "SP-WORKS"]
        gallons = np.concatenate([self.used(day), supplied, [self.works(day)]])
        estimated = np.concatenate([self.estimated, np.zeros(ZONES + 1, np.bool_)])
        usage = pl.DataFrame({"service_point_id": points, "quantity_micro": gallons * 10**6}).with_columns(
            estimated_micro=pl.when(pl.Series(estimated)).then("quantity_micro").otherwise(0),
            row_flags=pl.lit(0, pl.Int64),
            billing_day=pl.lit(day),
            slots_expected=pl.lit(1, pl.Int32),
            actual=(~pl.Series(estimated)).cast(pl.Int32),
            estimated=pl.Series(estimated).cast(pl.Int32),
            missing=pl.lit(0, pl.Int32),
            meters=pl.lit(1, pl.Int16),
            quality=pl.lit(0, pl.Int16),
            exchange=pl.lit(False),
            flow=pl.lit("import"),
            unit=pl.lit("gal"),
            source=pl.lit("register"),
            commodity=pl.lit("water"),
            customer_class=pl.lit("residential"),
        )
        with database.connect("bench") as connection:
            connection.execute("SELECT raw.open_partition('vee.daily_usage', %s)", (day,))
            connection.execute("SELECT raw.attach_partition('vee.daily_usage', %s)", (day,))
            copy_frame(connection, sql.Identifier("vee", f"daily_usage_{day:%Y%m%d}"), usage, usage.columns)

    def put_leaks(self, database: Database) -> list[str]:
        """Confirmed leaks on the day of June's bills; their case ids."""
        day = BILLED[LEAK_PERIOD]
        at = datetime(2026, 6, 20, tzinfo=UTC)
        fixed = {
            "first_day": day, "last_day": day, "days": 1, "opened_at": at, "decided_at": at, "confidence": 0.9, "hold": False,
            "family": "flow", "kind": "leak", "commodity": "water", "severity": "warn", "state": "confirmed", "assigned_to": None,
            "decided_by": "reviewer", "reason": "toilet valve",
        }  # fmt: skip
        names = {f"flow-{self.points[n]}-{day:%Y%m%d}": self.points[n] for n in self.leaks.tolist()}
        with database.connect("bench") as connection:
            upsert_cases(
                connection, [fixed | {"case_id": c, "subject": p, "service_point_id": p} for c, p in names.items()]
            )
        return list(names)

    # -- the answers, by hand ----------------------------------------------------------------------------------------

    def supplied(self, day: date) -> npt.NDArray[np.int64]:
        """Gallons that each zone receives: what its customers use and a twentieth."""
        return np.bincount(self.zone, self.used(day), ZONES).astype(np.int64) * 21 // 20

    def works(self, day: date) -> int:
        """Gallons that leave the works: the zones', and one part in a hundred."""
        return int(self.supplied(day).sum()) * 101 // 100 + 500

    def bill(self, n: int, gallons: int, high: Fraction = HIGH) -> Fraction:
        """A bill of a whole period, each line rounded to the cent."""
        return (
            _cent(BASIC)
            + self.stormwater(n)
            + _water(Fraction(gallons), Fraction(LIMIT), high)
            + _sewer(Fraction(gallons))
        )

    def stormwater(self, n: int) -> Fraction:
        """An account's stormwater charge of a whole period."""
        return _cent(STORM * int(self.eru[n]) / 100)

    def leak_net(self, n: int) -> Fraction:
        """What a leak's adjustment takes off June's bill: half of the water above the mean of the three bills before,
        and all of it for sewer."""
        used = [int(self.used(day)[n]) for day in BILLED]
        excess = used[LEAK_PERIOD] - Fraction(sum(used[LEAK_PERIOD - 3 : LEAK_PERIOD]), 3)
        water, sewer = used[LEAK_PERIOD] - excess / 2, used[LEAK_PERIOD] - excess
        was = Fraction(used[LEAK_PERIOD])
        limit = Fraction(LIMIT)
        return _water(water, limit) - _water(was, limit) + _sewer(sewer) - _sewer(was)

    def unbilled(self) -> list[Fraction]:
        """Each account's charges of July on no bill: the position that its open period has on the last day, each
        line to the cent. Basic charge, stormwater and the tier's limit are earned day by day."""
        whole = np.add.reduce([self.used(day) for day in OPEN])
        late = np.add.reduce([self.used(day) for day in OPEN if day >= CUT])
        found = []
        for n, second in enumerate(self.second_cycle.tolist()):
            first = CUT if second else OPEN[0]
            share = Fraction((date(2026, 8, 1) - first).days, (END - first).days)
            gallons, limit = Fraction(int(late[n] if second else whole[n])), LIMIT * share
            daily = _cent(BASIC * share) + _cent(STORM * int(self.eru[n]) / 100 * share)
            found.append(daily + _water(gallons, limit) + _sewer(gallons))
        return found

    def winter(self) -> list[int]:
        """Each account's winter average a day, in millionths of a thousand gallons: without the highest of four bills;
        without a read, the default."""
        used = np.stack([self.used(day) for day in BILLED if day.month in (12, 1, 2, 3)])
        low = (used.sum(axis=0) - used.max(axis=0)) * 1000
        return [250_000 if e else int(v) // 3 for v, e in zip(low.tolist(), self.estimated.tolist(), strict=True)]

    def difference(self, day: date) -> dict[str, int]:
        """Each zone's losses of a day in millionths of a cubic metre, each side rounded alone, half to even."""
        supplied, used = self.supplied(day), np.bincount(self.zone, self.used(day), ZONES).astype(np.int64)
        found = {f"ZONE{z:02}": _m3(int(supplied[z])) - _m3(int(used[z])) for z in range(ZONES)}
        return found | {"CITY": _m3(self.works(day)) - _m3(int(used.sum())) - _m3(500)}


def _cent(amount: Fraction) -> Fraction:
    """Rounded to the cent, half up (amounts are above 0)."""
    return Fraction(int(amount * 100 + Fraction(1, 2)), 100)


def _water(gallons: Fraction, limit: Fraction, high: Fraction = HIGH) -> Fraction:
    """The charge for water, each tier to the cent."""
    low = min(gallons, limit)
    return _cent(LOW * low / 1000) + _cent(high * (gallons - low) / 1000)


def _sewer(gallons: Fraction) -> Fraction:
    return _cent(SEWER * FACTOR * gallons / 1000)


def _m3(gallons: int) -> int:
    return round(Fraction(gallons * 3_785_411_784, 10**6))
