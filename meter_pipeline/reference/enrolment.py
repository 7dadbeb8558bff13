"""Enrolment: the meters of a new head-end's file admitted as reference data, so that its reads have somewhere to go.

What a file cannot say is assumed, plainly and the same for every meter: one service point and one account a meter,
active and installed from the first read's billing day, on the tariff and cycle given. A meter of registers alone is
installed at its first read: what it counted before is not ours to bill. A known meter gets the channels it does not
have yet. A data engineer edits the rows afterwards by importing better ones.

Two channels of one meter, flow and unit that overlap in time with another interval length say the same energy twice
(Green Button files with hours and days of one usage point): the shorter intervals are billed, the others are kept.

A clock that was reset stamps some reads years away. Days before a gap of ``STRAY_GAP`` that hold less than
``STRAY_SHARE`` of a meter's reads start no installation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ids import MAX_ID_LENGTH, canonical_id
from meter_pipeline.reference.folder import Rows
from meter_pipeline.reference.learnt_dials import learnt_moduli
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.units import from_micro

#: Units whose sum is a quantity to bill; reactive, apparent, voltage and power-factor channels are kept and not billed.
BILLED_UNITS = frozenset({"kWh", "m3", "gal", "ft3", "therm", "MJ"})
#: What a tariff of each commodity can bill; gas by volume has its heat content.
_UNITS_OF: Final = {
    "electricity": frozenset({"kWh"}),
    "water": frozenset({"m3", "gal", "ft3"}),
    "gas": frozenset({"therm", "MJ", "m3", "gal", "ft3"}),
}
#: Reads before a silence of so long ...
STRAY_GAP: Final = timedelta(days=60)
#: ... that are less than this share of a meter's reads come from a clock that was reset.
STRAY_SHARE: Final = 0.05


class EnrolmentRefused(ValueError):
    """A file whose channels cannot be admitted as they are; the message names meter and channel."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What to enrol a file's meters on."""

    head_end: str
    tariff_id: str
    cycle_id: str
    commodity: str
    customer_class: str = "residential"


@dataclass(frozen=True, slots=True)
class KnownChannel:
    """A channel that reference data has already."""

    kind: str
    unit: str
    interval_minutes: int | None
    flow: str
    billed: bool


#: by meter and channel
KnownChannels = Mapping[str, Mapping[str, KnownChannel]]


def known_channels_of(channels: pl.DataFrame, parsed: ParsedFeed) -> KnownChannels:
    """Returns the rows of reference table ``channels`` for the meters of a file."""
    meters = pl.concat([parsed.intervals["meter_id"], parsed.registers["meter_id"]]).unique()
    found: dict[str, dict[str, KnownChannel]] = {}
    columns = "meter_id", "channel", "kind", "unit", "interval_minutes", "flow", "billed"
    for meter, channel, *rest in (
        channels.filter(pl.col("meter_id").is_in(meters.implode())).select(columns).iter_rows()
    ):
        found.setdefault(meter, {})[channel] = KnownChannel(*rest)
    return found


@dataclass(slots=True)
class EnrolledRows:
    """Rows to import, and notes on them for a person."""

    rows: Rows = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def flow_of(parsed: ParsedFeed, meter: str, channel: str, unit: str) -> str:
    """Which way a channel's energy flows: as the declaration or the file says it, else it is used. Units that are not
    billed are other."""
    if unit not in BILLED_UNITS:
        return "other"
    return parsed.flow(meter, channel) or "import"


def admit(
    parsed: ParsedFeed,
    calendar: BillingCalendar,
    how: Enrolment,
    known_meters: frozenset[str],
    known_channels: KnownChannels | None = None,
) -> EnrolledRows:
    """Reference rows for every meter of a parsed file that is not known yet, and for the new channels of those that
    are; empty when nothing is new.

    A meter with several billed channels of one flow and interval length (E1 and E2) bills their sum. Raises
    EnrolmentRefused where one channel holds intervals and dials, or two units, and for a head-end whose name is no
    identifier (``ami_north``, from the name of its file).
    """
    if canonical_id(how.head_end) is None:
        wanted = re.sub(r"[^A-Z0-9-]", "-", how.head_end.upper())[:MAX_ID_LENGTH]
        raise EnrolmentRefused(
            f'the head-end\'s name {how.head_end} is not an identifier (letters, digits and dashes): give name = "{wanted}" '
            "in its declaration, and call its inbox folder so"
        )
    stretches = _channels(parsed, calendar)
    if not stretches.height:
        return EnrolledRows()
    _refuse_mixed(stretches)
    known = known_channels or {}
    learnt = learnt_moduli(parsed.registers, parsed.file_units)
    admitted = EnrolledRows()
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("service_points", "meters", "channels", "installations", "accounts", "agreements")
    }
    for (meter_id,), group in stretches.group_by(["meter_id"], maintain_order=True):
        meter = str(meter_id)
        new = [
            row
            for row in group.iter_rows(named=True)
            if row["channel"] not in known.get(meter, {}) and not (known_channels is None and meter in known_meters)
        ]
        if not new:
            continue
        first, first_read = _first(group)
        rows = list(_channel_rows(parsed, meter, new, group, known.get(meter, {}), admitted.notes))
        tables["channels"].extend(rows)
        admitted.notes.extend(_learn(rows, learnt))
        if meter not in known_meters:
            _refuse_other_commodity(meter, rows, how)
            _meter_rows(tables, meter, group, how, calendar, first, first_read)
        if any(row["strays"] for row in new):
            admitted.notes.append(
                f"meter {meter}: reads before {first} stand alone, as of a clock that was reset; installed from {first}"
            )
    if any(tables.values()):
        admitted.rows = {
            name: [tuple(row.get(column) for column in TABLES[name].columns) for row in table]
            for name, table in tables.items()
            if table
        }
    return admitted


def _refuse_other_commodity(meter: str, rows: list[dict[str, Any]], how: Enrolment) -> None:
    """A meter whose billed channels measure another quantity than its tariff bills: kWh on a gas tariff."""
    for row in rows:
        if row["billed"] and row["unit"] not in _UNITS_OF[how.commodity]:
            raise EnrolmentRefused(
                f"meter {meter} channel {row['channel']} measures {row['unit']}, and the tariff {how.tariff_id} is for "
                f"{how.commodity}: name a tariff of what the meter measures"
            )


def _refuse_mixed(stretches: pl.DataFrame) -> None:
    """One channel is one quantity: the same name for intervals and a dial, or for two units, is a declaration
    to mend.
    """
    twice = stretches.filter(pl.len().over("meter_id", "channel") > 1)
    if twice.height:
        meter, channel = twice.select("meter_id", "channel").row(0)
        raise EnrolmentRefused(
            f"channel {channel} of meter {meter} holds intervals and dials: give each its own channel in the declaration"
        )
    mixed = stretches.filter(pl.col("units").list.len() > 1)
    if mixed.height:
        meter, channel, units = mixed.select("meter_id", "channel", "units").row(0)
        names = " and ".join(sorted(units))
        raise EnrolmentRefused(
            f"channel {channel} of meter {meter} holds {names}: give each unit its own channel in the declaration"
        )


def _first(group: pl.DataFrame) -> tuple[date, datetime]:
    """Billing day and instant of a meter's first read that no reset clock stamped."""
    first: date = group["first_day"].min()  # type: ignore[assignment]  # a date column's minimum is a date
    instant: datetime = group["first"].min()  # type: ignore[assignment]
    return first, instant


def _channel_rows(
    parsed: ParsedFeed,
    meter: str,
    new: list[dict[str, Any]],
    group: pl.DataFrame,
    known: Mapping[str, KnownChannel],
    notes: list[str],
) -> Iterable[dict[str, Any]]:
    """Rows of the table channels. A longer interval length beside a shorter one of the same flow is kept, not
    billed.
    """
    flows = {row["channel"]: flow_of(parsed, meter, row["channel"], row["unit"]) for row in group.iter_rows(named=True)}
    intervals = [row for row in group.iter_rows(named=True) if row["kind"] == "interval"]
    for row in new:
        channel, unit, minutes = row["channel"], row["unit"], row["interval_minutes"]
        billed = unit in BILLED_UNITS and flows[channel] != "other"
        if billed and row["kind"] == "interval":
            finer = _finer(row, intervals, flows, known)
            if finer is not None:
                billed = False
                notes.append(_repeats(meter, row, finer))
        yield {
            "meter_id": meter,
            "channel": channel,
            "kind": row["kind"],
            "unit": unit,
            "interval_minutes": minutes,
            "flow": flows[channel],
            "multiplier": Decimal(1),
            "dials": parsed.channel_dials.get(channel, parsed.channel_dials.get("*")),
            "modulus": parsed.channel_moduli.get(channel, parsed.channel_moduli.get("*")),
            "billed": billed,
            "valid_from": group["first_day"].min(),
        }


def _learn(rows: list[dict[str, Any]], learnt: Mapping[tuple[str, str], Decimal]) -> Iterable[str]:
    """Put down where registers start again at 0 that the declaration says nothing of; yields a line on each."""
    for row in rows:
        modulus = learnt.get((row["meter_id"], row["channel"]))
        if modulus is not None and row["dials"] is None and row["modulus"] is None:
            row["modulus"] = modulus
            message = f"meter {row['meter_id']}: channel {row['channel']} went from its highest dial to 0 in this file"
            yield f"{message}: it starts again after {modulus:f} {row['unit']}"


def _finer(
    row: dict[str, Any],
    intervals: list[dict[str, Any]],
    flows: Mapping[str, str],
    known: Mapping[str, KnownChannel],
) -> dict[str, Any] | None:
    """A channel of the same flow and unit with shorter intervals over the same days, in the file or known already."""
    flow = flows[row["channel"]]
    for other in intervals:
        overlaps = other["first_day"] <= row["last_day"] and row["first_day"] <= other["last_day"]
        same = flows[other["channel"]] == flow and other["unit"] == row["unit"]
        if same and overlaps and other["interval_minutes"] < row["interval_minutes"]:
            return other
    for channel, each in known.items():
        same = each.billed and (each.flow, each.unit, each.kind) == (flow, row["unit"], "interval")
        if same and each.interval_minutes is not None and each.interval_minutes < row["interval_minutes"]:
            return {"channel": channel, "interval_minutes": each.interval_minutes}
    return None


def _repeats(meter: str, row: dict[str, Any], finer: dict[str, Any]) -> str:
    """One line on a channel that is kept and not billed."""
    message = f"meter {meter}: channel {row['channel']} ({row['interval_minutes']} minutes) repeats {finer['channel']} "
    message += f"({finer['interval_minutes']} minutes): kept, not billed"
    if "total" in finer:
        sums = f"{from_micro(row['total'])} and {from_micro(finer['total'])} {row['unit']}"
        message += f"; their sums in the file are {sums}"
    return message


def _meter_rows(
    tables: dict[str, list[dict[str, Any]]],
    meter: str,
    group: pl.DataFrame,
    how: Enrolment,
    calendar: BillingCalendar,
    first: date,
    first_read: datetime,
) -> None:
    """A new meter's service point, account, agreement and installation."""
    service_point, account = derived_id("SP", meter), derived_id("AC", meter)
    tables["service_points"].append(
        {
            "service_point_id": service_point,
            "commodity": how.commodity,
            "premise_id": derived_id("PR", meter),
            "route": how.head_end.upper()[:MAX_ID_LENGTH],
            "customer_class": how.customer_class,
            "status": "active",
            "valid_from": first,
        }
    )
    tables["meters"].append({"meter_id": meter, "commodity": how.commodity, "head_end": how.head_end.upper()})
    installed = first_read if set(group["kind"]) == {"register"} else calendar.bounds(first)[0]
    tables["installations"].append({"service_point_id": service_point, "meter_id": meter, "installed_at": installed})
    tables["accounts"].append({"account_id": account, "customer_class": how.customer_class, "opened": first})
    tables["agreements"].append(
        {
            "account_id": account,
            "service_point_id": service_point,
            "tariff_id": how.tariff_id,
            "cycle_id": how.cycle_id,
            "valid_from": first,
        }
    )


def derived_id(prefix: str, meter: str) -> str:
    """An identifier made of a meter's: ``SP-M1``. Where that is too long its end is a hash of the whole, since two
    meters whose names differ in their last letters must not share an account."""
    whole = f"{prefix}-{meter}"
    if len(whole) <= MAX_ID_LENGTH:
        return whole
    return f"{whole[: MAX_ID_LENGTH - 17]}-{hashlib.sha256(meter.encode()).hexdigest()[:16].upper()}"


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
    """meter_id, channel, kind, unit, units, interval_minutes (the commonest), total, first, last, first_day, last_day
    and strays of every channel in the file, sorted. Strays are counted in ``strays`` and in nothing else."""
    frames = []
    for frame, kind, instant in (
        (parsed.intervals, "interval", "interval_start"),
        (parsed.registers, "register", "read_at"),
    ):
        if not frame.height:
            continue
        kept, strays = _without_strays(frame, instant)
        minutes = (
            pl.col("interval_minutes").mode().min().cast(pl.Int64) if kind == "interval" else pl.lit(None, pl.Int64)
        )
        found = kept.group_by("meter_id", "channel").agg(
            pl.lit(kind).alias("kind"),
            pl.col("unit").first(),
            pl.col("unit").unique().alias("units"),
            minutes.alias("interval_minutes"),
            pl.col("value").cast(pl.Int128).sum().alias("total"),
            pl.col(instant).min().alias("first"),
            pl.col(instant).max().alias("last"),
        )
        frames.append(found.join(strays, on="meter_id", how="left").with_columns(pl.col("strays").fill_null(0)))
    if not frames:
        return pl.DataFrame(schema={"meter_id": pl.String, "first_day": pl.Date, "last_day": pl.Date})
    days: Mapping[str, pl.Expr] = {
        f"{end}_day": pl.col(end).dt.convert_time_zone(calendar.zone).dt.date() for end in ("first", "last")
    }
    return pl.concat(frames).with_columns(**days).sort("meter_id", "channel")


def _without_strays(frame: pl.DataFrame, instant: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The reads but those of a clock that was reset, and how many of those each meter has (meter_id, strays)."""
    days = frame.group_by("meter_id", day=pl.col(instant).dt.truncate("1d")).len("reads").sort("meter_id", "day")
    gap = pl.col("day") - pl.col("day").shift(1).over("meter_id") > STRAY_GAP
    share = pl.col("reads").cum_sum().over("meter_id") - pl.col("reads")
    begins = (gap & (share < STRAY_SHARE * pl.col("reads").sum().over("meter_id"))).fill_null(value=False)
    first = days.with_columns(begins=begins).filter("begins").group_by("meter_id").agg(begin=pl.col("day").max())
    if not first.height:
        return frame, pl.DataFrame(schema={"meter_id": pl.String, "strays": pl.UInt32})
    joined = frame.join(first, on="meter_id", how="left", maintain_order="left")
    stray = (pl.col(instant) < pl.col("begin")).fill_null(value=False)
    counted = joined.filter(stray).group_by("meter_id").len("strays")
    return joined.filter(~stray).drop("begin"), counted
