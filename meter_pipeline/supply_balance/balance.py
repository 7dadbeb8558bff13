"""The supply balance of a zone's day: delivered in - delivered out - metered - unmetered = difference, exact;
unknown quantities are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.supply_balance import tables
from meter_pipeline.supply_balance.candidates import candidates
from meter_pipeline.supply_balance.cases import put_cases
from meter_pipeline.supply_balance.zones import ZonesRefusedError, below, in_force
from meter_pipeline.units import base_unit

#: Cubic metres in a unit of volume (NIST SP 811)
_M3: Final = {"m3": Decimal(1), "gal": Decimal("0.003785411784"), "ft3": Decimal("0.028316846592")}
#: Days of its own history that a zone's band stands on, at least and at most
LEAST_HISTORY, MOST_HISTORY = 14, 60
_COLUMNS: Final = pl.Schema(
    {
        "billing_day": pl.Date(),
        "zone_id": pl.String(),
        "commodity": pl.String(),
        "unit": pl.String(),
        "delivered_in": pl.Int64(),
        "delivered_out": pl.Int64(),
        "metered": pl.Int64(),
        "unmetered": pl.Int64(),
        "difference": pl.Int64(),
        "uncertain": pl.Int64(),
        "supplies": pl.Int32(),
        "customers": pl.Int32(),
        "missing": pl.String(),
    }
)
#: Names in a list of missing data; the rest is counted
_NAMED: Final = 5


@dataclass(slots=True)
class Balance:
    """A month of zones. ``days``: billing.zone_day's rows; ``months``: analyst.zone_months' rows; ``outside``: zones
    whose losses left their own history's band, with the customers whose meters would account for it."""

    month: date
    days: pl.DataFrame
    months: list[dict[str, Any]] = field(default_factory=list)
    outside: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The JSON of the month's report: quantities are exact decimals."""
        return {"zones": self.months, "outside_band": self.outside}


@dataclass(slots=True)
class _Side:
    """One side of a zone's day: exact quantity in the zone's unit, the part that is uncertain, and what is missing."""

    quantity: Decimal = Decimal(0)
    uncertain: Decimal = Decimal(0)
    missing: list[str] = field(default_factory=list)


def balance_days(database: Database, calendar: BillingCalendar, first: date, past: date) -> pl.DataFrame:
    """The days of [first, past) that have validated usage, of every zone in force. Raises ZonesRefusedError."""
    reference = tables.reference(database, first, past)
    rows = []
    day = first
    while day < past:
        used = tables.usage(database, day)
        if used.height:
            served = tables.served(database, *calendar.bounds(day))
            rows += _day(reference, day, used, served, tables.backwards(database, day))
        day += timedelta(days=1)
    return pl.DataFrame(rows, schema=_COLUMNS, orient="row")


def _day(
    reference: dict[str, list[dict[str, Any]]],
    day: date,
    used: pl.DataFrame,
    served: set[str],
    backwards: Mapping[str, str],
) -> list[dict[str, Any]]:
    zones = in_force(reference["zones"], day)
    tree = below(zones)
    usage: dict[str, list[dict[str, Any]]] = {}
    for row in used.to_dicts():
        usage.setdefault(row["service_point_id"], []).append(row)
    members: dict[str, list[str]] = {}
    for row in in_force(reference["zone_members"], day):
        if row["zone_id"] not in tree:
            raise ZonesRefusedError(f"{row['service_point_id']} is in zone {row['zone_id']}, which is no zone on {day}")
        members.setdefault(row["zone_id"], []).append(row["service_point_id"])
    supplies = in_force(reference["zone_supplies"], day)
    declared = in_force(reference["zone_unmetered"], day)
    found = []
    for zone in zones:
        name = zone["zone_id"]
        mine = [s for s in supplies if s["zone_id"] == name]
        points = sorted(p for z in tree[name] for p in members.get(z, []))
        unit = _unit(
            zone["commodity"],
            [u["unit"] for p in [*points, *(s["service_point_id"] for s in mine)] for u in usage.get(p, [])],
        )
        sides = {
            way: _supplied([s["service_point_id"] for s in mine if s["direction"] == way], usage, unit, backwards)
            for way in ("in", "out")
        }
        if not any(s["direction"] == "in" for s in mine):
            sides["in"].missing.append("no supply meter is declared")
        metered = _customers(points, usage, served, unit)
        if not points:
            metered.missing.append("no customer is declared")
        unmetered = sum((_declared(d, unit) for z in tree[name] for d in declared if d["zone_id"] == z), Decimal(0))
        missing = [*sides["in"].missing, *sides["out"].missing, *metered.missing]
        known = {
            k: None if s.missing else _micro(s.quantity)
            for k, s in (("in", sides["in"]), ("out", sides["out"]), ("metered", metered))
        }
        complete = None not in known.values()
        authorised = _micro(unmetered)
        found.append(
            {
                "billing_day": day,
                "zone_id": name,
                "commodity": zone["commodity"],
                "unit": unit,
                "delivered_in": known["in"],
                "delivered_out": known["out"],
                "metered": known["metered"],
                "unmetered": authorised,
                "difference": _known(known["in"]) - _known(known["out"]) - _known(known["metered"]) - authorised
                if complete
                else None,
                "uncertain": _micro(sides["in"].uncertain + sides["out"].uncertain + metered.uncertain),
                "supplies": len(mine),
                "customers": len(points),
                "missing": "; ".join(missing),
            }
        )
    return found


def _known(value: int | None) -> int:
    assert value is not None  # noqa: S101 - asked before
    return value


def _unit(commodity: str, units: list[str]) -> str:
    """Volumes of water are balanced in cubic metres, other commodities in their meters' unit."""
    if commodity == "water":
        return "m3"
    distinct = sorted(set(units))
    if len(distinct) > 1 and not set(distinct) <= set(_M3):
        raise ZonesRefusedError(f"meters of one zone count in {' and '.join(distinct)}, which have no common unit")
    return "m3" if len(distinct) > 1 else distinct[0] if distinct else {"electricity": "kWh", "gas": "ft3"}[commodity]


def _converted(micro: int, unit: str, to: str) -> Decimal:
    if unit == to:
        return Decimal(micro)
    if unit not in _M3 or to not in _M3:
        raise ZonesRefusedError(f"{unit} cannot be turned into {to}")
    return Decimal(micro) * _M3[unit] / _M3[to]


def _supplied(
    points: list[str], usage: dict[str, list[dict[str, Any]]], unit: str, backwards: Mapping[str, str]
) -> _Side:
    """Returns the usage of supply meters. ``backwards``: meters whose reads validation refused, with its detail:
    their usage is an estimate, which cannot show losses."""
    side = _Side()
    for point in points:
        rows = usage.get(point, [])
        if point in backwards:
            side.missing.append(
                f"supply meter {point} reads backwards ({backwards[point]}): correct the read or the meter"
            )
            continue
        if not rows or any(r["unknown"] for r in rows):
            side.missing.append(f"supply meter {point} has no usage")
            continue
        negative = [
            r
            for r in rows
            if (r["flow"] == "import" and r["quantity"] < 0) or (r["flow"] == "export" and r["quantity"] > 0)
        ]
        if negative:
            row = negative[0]
            amount = format(abs(Decimal(row["quantity"]).scaleb(-6)).normalize(), "f")
            side.missing.append(
                f"supply meter {point} reads backwards by {amount} {row['unit']}: declare the direction, or correct the meter"
            )
            continue
        for row in rows:
            side.quantity += _converted(row["quantity"], row["unit"], unit)
            side.uncertain += _converted(row["uncertain"], row["unit"], unit)
    return side


def _customers(points: list[str], usage: dict[str, list[dict[str, Any]]], served: set[str], unit: str) -> _Side:
    """Returns import less export of a zone's customers. A point without a meter has no usage; a point with a meter
    and without known usage is missing."""
    side = _Side()
    unknown = []
    for point in points:
        rows = usage.get(point, [])
        if any(r["unknown"] for r in rows) or (not rows and point in served):
            unknown.append(point)
            continue
        for row in rows:
            sign = -1 if row["flow"] == "export" else 1
            side.quantity += sign * _converted(row["quantity"], row["unit"], unit)
            side.uncertain += _converted(row["uncertain"], row["unit"], unit)
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        side.missing.append(f"no usage is known of {', '.join(unknown[:_NAMED])}{more}")
    return side


def _declared(row: dict[str, Any], unit: str) -> Decimal:
    base, factor = base_unit(row["unit"])
    micro = Decimal(row["quantity_per_day"]) * factor.numerator * 10**6 / factor.denominator
    return _converted(1, base, unit) * micro


def _micro(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_EVEN))


def refresh(database: Database, calendar: BillingCalendar, month: date) -> Balance:
    """Compute and store the balance of a month's days. Open a case for each zone whose losses left its band, and
    close the case of a zone whose losses returned. Raises ZonesRefusedError, and ValueError where ``month`` is not
    the first day of a month."""
    if month.day != 1:
        raise ValueError(f"{month} is not the first day of a month")
    past = (month + timedelta(days=31)).replace(day=1)
    frame = balance_days(database, calendar, month, past)
    with database.connect("supply balance") as connection:
        tables.replace(connection, month, past, frame)
    found = read(database, month)
    with database.connect("supply balance") as connection:
        put_cases(connection, found)
    return found


def read(database: Database, month: date) -> Balance:
    """Returns the stored balance of a month."""
    past = (month + timedelta(days=31)).replace(day=1)
    frame = tables.days(database, month, past)
    return Balance(month, frame, tables.months(database, month), outside_band(database, month, frame))


def outside_band(database: Database, month: date, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Returns zones whose losses of the month, in percent of the quantity delivered, differ from the median of their
    own earlier days by more than three times the median distance (and a point of a percent); with the excess a day
    and the customers whose fall in usage is nearest to it: a stopped meter, a bypass, a wrong ratio (candidates.py)."""
    zones = frame.filter(pl.col("difference").is_not_null())["zone_id"].unique().sort().to_list()
    if not zones:
        return []
    before = tables.history(database, zones, month - timedelta(days=MOST_HISTORY), month)
    found = []
    for zone in zones:
        applicable = [
            _share(d, of)
            for d, of in before.filter(pl.col("zone_id") == zone).select("difference", "delivered").iter_rows()
            if of > 0
        ]
        mine = frame.filter((pl.col("zone_id") == zone) & pl.col("difference").is_not_null())
        delivered = int((mine["delivered_in"] - mine["delivered_out"]).sum())
        if len(applicable) < LEAST_HISTORY or delivered <= 0:
            continue
        middle = _median(applicable)
        room = max(3 * _median([abs(h - middle) for h in applicable]), Decimal(1))
        now = _share(int(mine["difference"].sum()), delivered)
        if abs(now - middle) > room:
            excess = Decimal(delivered) * (now - middle) / 100 / mine.height
            nearest = _candidates(database, month, zone, mine, excess)
            found.append(
                {
                    "zone_id": zone,
                    "losses_percent": now,
                    "usual_percent": middle,
                    "room_percent": room,
                    "excess_per_day": Decimal(_micro(excess)).scaleb(-6),
                    "unit": mine["unit"][0],
                    "candidates": nearest,
                }
            )
    return found


def _share(part: int, whole: int) -> Decimal:
    return (Decimal(part) * 100 / Decimal(whole)).quantize(Decimal("0.01"))


def _median(values: list[Decimal]) -> Decimal:
    ordered = sorted(values)
    n = len(ordered)
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


def _candidates(
    database: Database, month: date, zone: str, mine: pl.DataFrame, excess: Decimal
) -> list[dict[str, Any]]:
    """Customers whose correction is nearest to the excess loss a day, the nearest first."""
    past = (month + timedelta(days=31)).replace(day=1)
    reference = tables.reference(database, month, past)
    day = mine["billing_day"].max()
    assert isinstance(day, date)  # noqa: S101 - a date column
    tree = below(in_force(reference["zones"], day))
    points = [
        r["service_point_id"] for r in in_force(reference["zone_members"], day) if r["zone_id"] in tree.get(zone, set())
    ]
    unit = mine["unit"][0]
    was, now = (
        _by_point(tables.means(database, points, first, until), unit)
        for first, until in ((month - timedelta(days=MOST_HISTORY), month), (month, past))
    )
    return [
        {k: v if isinstance(v, str) else Decimal(_micro(v)).scaleb(-6) for k, v in row.items()}
        for row in candidates(was, now, excess)
    ]


def _by_point(means: pl.DataFrame, unit: str) -> dict[str, Decimal]:
    """Use a day by service point, in millionths of a unit."""
    found: dict[str, Decimal] = {}
    for point, of, mean in means.iter_rows():
        found[point] = found.get(point, Decimal(0)) + _converted(mean, of, unit)
    return found
