"""From a meter test to the correction that it starts: the channel's multiplier on the days on which it was wrong.

A meter that registers 80 of 100 units has counted each unit 0.8 times, so its multiplier is 100 / 80 times what the
records say. The correction is previewed and approved as every other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from meter_pipeline.billing.back_billing.rules import Rule, begins, chosen
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.corrections import tables
from meter_pipeline.corrections.preview import Preview, preview
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.reference import Fault, ReferenceRefused
from meter_pipeline.reference.importing import write_rows
from meter_pipeline.schemas.reference import TABLES

#: A multiplier has six decimals.
_STEP: Final = Decimal("0.000001")
_FOREVER: Final = date(9999, 12, 31)


@dataclass(frozen=True, slots=True)
class Proposed:
    """The correction that a meter test starts: ``rows`` of channel_values, the days [first, past) on which the meter
    was wrong, and ``why`` these days, in words."""

    first: date
    past: date
    rows: list[dict[str, Any]]
    why: str


def preview_meter_test(
    database: Database, calendar: BillingCalendar, meter_id: str, tested_on: date, *, clock: Clock = SYSTEM_CLOCK
) -> tuple[Proposed, Preview]:
    """The impact of the correction that a stored meter test starts, kept under its digest. Raises ReferenceRefused
    where there is no such test, or where it starts none."""
    with database.connect("meter-pipeline meter test") as connection:
        known = tables.meter_test(connection, meter_id, tested_on)
    if known is None:
        message = f"no test of {meter_id} on {tested_on}; import it first (reference/meter_tests.csv)"
        raise ReferenceRefused([Fault("meter_tests", 0, "", message)])
    rule = chosen(known.rules, known.commodity, known.customer_class, tested_on)
    try:
        proposed = propose(known, rule, calendar)
    except ValueError as error:
        raise ReferenceRefused([Fault("meter_tests", 0, "", str(error))]) from error
    columns = list(TABLES["channel_values"].columns)
    rows = {"channel_values": [tuple(row[c] for c in columns) for row in proposed.rows]}
    source = f"meter test {meter_id} {tested_on}: {known.percent.normalize():f} %, {proposed.why}"

    def write(connection: Connection) -> object:
        return write_rows(connection, rows, {}, source)

    return proposed, preview(database, calendar, write, source, clock=clock)


def propose(known: tables.MeterTest, rule: Rule | None, calendar: BillingCalendar) -> Proposed:
    """The rows of channel_values that set right what a test found wrong. Raises ValueError where it finds nothing
    wrong, the beginning is unknown and no rule says what is taken, or no factor makes the quantity."""
    tolerance = rule.tolerance_percent if rule is not None else Decimal(0)
    name = f"the test of {known.meter_id} on {known.tested_on}"
    if abs(known.percent - 100) <= tolerance:
        raise ValueError(f"{name} is good: {known.percent:f} % is within {tolerance:f} % of 100")
    if known.percent == 0:
        raise ValueError(
            f"{name} found it stopped: no factor of 0 makes the quantity; edit the reads (meter-pipeline vee edit)"
        )
    good_on, good = last_good(known, tolerance, calendar)
    if known.wrong_since is not None:
        first, why = known.wrong_since, f"wrong since {known.wrong_since}, as the test says"
    elif rule is None:
        raise ValueError(
            f"{name} does not say since when, and no back-billing rule for {known.commodity}, {known.customer_class} says what is taken: "
            "fill wrong_since, or add a rule to reference/back_billing_rules.csv"
        )
    else:
        first, reason = begins(rule, known.tested_on, good_on)
        why = f"beginning unknown: {reason} ({good}), by {rule.name}"
    past = known.wrong_until or known.tested_on
    if not first < past:
        raise ValueError(f"{name}: no day lies between {first} and {past}")
    rows = [row for channel, multiplier in known.channels for row in corrected(known, channel, multiplier, first, past)]
    if not rows:
        raise ValueError(f"{known.meter_id} has no channel that is billed")
    return Proposed(first, past, rows, why)


def last_good(known: tables.MeterTest, tolerance: Decimal, calendar: BillingCalendar) -> tuple[date, str]:
    """The day on which the meter was last known to be right, and how: its last good test, else its installation."""
    tests = [day for day, percent in known.earlier if abs(percent - 100) <= tolerance]
    installed = calendar.day_of(known.installed_at)
    if tests and max(tests) >= installed:
        return max(tests), "its last good test"
    return installed, "its installation"


def corrected(
    known: tables.MeterTest, channel: str, multiplier: Decimal, first: date, past: date
) -> list[dict[str, Any]]:
    """Rows of channel_values of a channel: those that stand, cut at both days, with the factor in between.

    ``multiplier``: what counts on days without a row: the dial's in channels, 1 for an interval channel.
    """
    factor = Decimal(100) / known.percent
    found: list[dict[str, Any]] = []
    at = first
    for row in sorted((r for r in known.values if r["channel"] == channel), key=lambda r: r["valid_from"]):
        start, end = row["valid_from"], row["valid_to"] or _FOREVER
        if end <= first or start >= past:
            continue
        if start < first:
            found.append(row | {"valid_to": first})
        if at < start:
            found.append(_row(known.meter_id, channel, at, start, multiplier * factor))
        own = multiplier if row["multiplier"] is None else row["multiplier"]
        inside = row | {"valid_from": max(start, first), "valid_to": min(end, past)}
        found.append(inside | {"multiplier": (own * factor).quantize(_STEP, ROUND_HALF_EVEN)})
        if end > past:
            found.append(row | {"valid_from": past})
        at = min(end, past)
    if at < past:
        found.append(_row(known.meter_id, channel, at, past, multiplier * factor))
    return found


def _row(meter_id: str, channel: str, first: date, past: date, multiplier: Decimal) -> dict[str, Any]:
    empty = dict.fromkeys(TABLES["channel_values"].columns)
    key_and_dates = {"meter_id": meter_id, "channel": channel, "valid_from": first, "valid_to": past}
    return empty | key_and_dates | {"multiplier": multiplier.quantize(_STEP, ROUND_HALF_EVEN)}
