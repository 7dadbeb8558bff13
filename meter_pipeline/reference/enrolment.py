"""Enrolment: the meters of a new head-end's file admitted as reference data, so that its reads have somewhere to go.

What a file cannot say is assumed, plainly and the same for every meter: one service point and one account a meter,
active and installed from the first read's billing day, on the tariff and cycle given. A meter of registers alone is
installed at its first read: what it counted before is not ours to bill. A data engineer edits the rows afterwards by
importing better ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.reference.folder import Rows
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.units import COMMODITY_OF_UNIT

#: Units whose sum is a quantity to bill; reactive, apparent, voltage and power-factor channels are kept and not billed.
BILLED_UNITS = frozenset({"kWh", "m3", "gal", "ft3", "therm", "MJ"})


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What to enrol a file's meters on."""

    head_end: str
    tariff_id: str
    cycle_id: str
    commodity: str
    customer_class: str = "residential"


def flow_of(channel: str, unit: str) -> str:
    """Import, export or other, from the channel's name: AEMO's B channels flow to the grid, its E channels from it
    (MDFF suffix list)."""
    if unit not in BILLED_UNITS:
        return "other"
    return "export" if unit == "kWh" and channel[:1] == "B" else "import"


def enrol(parsed: ParsedFeed, calendar: BillingCalendar, how: Enrolment, known_meters: frozenset[str]) -> Rows:
    """Reference rows for every meter of a parsed file that is not known yet; empty when all are.

    A meter with several billed channels of one flow (E1 and E2) bills their sum. Periods of the cycle are calendar
    months from the first read to a month past the last.
    """
    stretches = _channels(parsed, calendar).filter(~pl.col("meter_id").is_in(list(known_meters)))
    if not stretches.height:
        return {}
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("service_points", "meters", "channels", "installations", "accounts", "agreements")
    }
    for (meter_id,), group in stretches.group_by(["meter_id"], maintain_order=True):
        meter = str(meter_id)
        first: date = group["first_day"].min()  # type: ignore[assignment]  # a date column's minimum is a date
        commodity = next((COMMODITY_OF_UNIT[u] for u in group["unit"] if u in BILLED_UNITS), how.commodity)
        if how.commodity in ("water", "gas"):
            commodity = how.commodity
        service_point, account = f"SP-{meter}"[:32], f"AC-{meter}"[:32]
        rows["service_points"].append(
            {
                "service_point_id": service_point,
                "commodity": commodity,
                "premise_id": f"PR-{meter}"[:32],
                "route": how.head_end.upper()[:32],
                "customer_class": how.customer_class,
                "status": "active",
                "valid_from": first,
            }
        )
        rows["meters"].append({"meter_id": meter, "commodity": commodity, "head_end": how.head_end.upper()})
        rows["channels"].extend(
            {
                "meter_id": meter,
                "channel": channel,
                "kind": kind,
                "unit": unit,
                "interval_minutes": minutes,
                "flow": flow_of(channel, unit),
                "multiplier": Decimal(1),
                "billed": unit in BILLED_UNITS,
            }
            for channel, kind, unit, minutes in group.select("channel", "kind", "unit", "interval_minutes").iter_rows()
        )
        installed = group["first"].min() if set(group["kind"]) == {"register"} else calendar.bounds(first)[0]
        rows["installations"].append({"service_point_id": service_point, "meter_id": meter, "installed_at": installed})
        rows["accounts"].append({"account_id": account, "customer_class": how.customer_class, "opened": first})
        rows["agreements"].append(
            {
                "account_id": account,
                "service_point_id": service_point,
                "tariff_id": how.tariff_id,
                "cycle_id": how.cycle_id,
                "valid_from": first,
            }
        )
    return {
        name: [tuple(row.get(column) for column in TABLES[name].columns) for row in table]
        for name, table in rows.items()
    }


def cycle_periods(parsed: ParsedFeed, calendar: BillingCalendar, cycle_id: str) -> Rows:
    """Calendar-month periods of a cycle over a file's days, one month past the last."""
    stretches = _channels(parsed, calendar)
    if not stretches.height:
        return {}
    first: date = stretches["first_day"].min()  # type: ignore[assignment]
    last: date = stretches["last_day"].max()  # type: ignore[assignment]
    start = first.replace(day=1)
    periods = []
    while start <= last:
        end = (start + timedelta(days=32)).replace(day=1)
        periods.append((cycle_id, start, end))
        start = end
    return {"billing_cycles": periods}


def _channels(parsed: ParsedFeed, calendar: BillingCalendar) -> pl.DataFrame:
    """meter_id, channel, kind, unit, interval_minutes, first_day, last_day of every channel in the file, sorted."""
    frames = []
    for frame, kind, instant in (
        (parsed.intervals, "interval", "interval_start"),
        (parsed.registers, "register", "read_at"),
    ):
        if not frame.height:
            continue
        minutes = pl.col("interval_minutes").min().cast(pl.Int64) if kind == "interval" else pl.lit(None, pl.Int64)
        frames.append(
            frame.group_by("meter_id", "channel").agg(
                pl.lit(kind).alias("kind"),
                pl.col("unit").first(),
                minutes.alias("interval_minutes"),
                pl.col(instant).min().alias("first"),
                pl.col(instant).max().alias("last"),
            )
        )
    if not frames:
        return pl.DataFrame(schema={"meter_id": pl.String, "first_day": pl.Date, "last_day": pl.Date})
    days: Mapping[str, pl.Expr] = {
        f"{end}_day": pl.col(end).dt.convert_time_zone(calendar.zone).dt.date() for end in ("first", "last")
    }
    return pl.concat(frames).with_columns(**days).sort("meter_id", "channel")
