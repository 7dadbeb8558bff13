"""Reach of a change of reference data: one declared table, column -> stages that read it -> days that its change
touches.

A test runs each stage as a database role that may read the declared columns and no others, so that a column which a
stage begins to read fails it until it is declared here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Days(Enum):
    """Which billing days a changed value of a column touches."""

    HELD = "every day on which the row holds"
    MOVED = "the days between the old and the new date, to the end of their billing period"
    INSTALLED = "the day of the installation"
    REMOVED = "the day of the removal"
    NONE = "none: no stage that makes quantities or money reads it"


VALIDATE, BILL, DETECT = "validate", "bill", "detect"


@dataclass(frozen=True, slots=True)
class Reach:
    """The stages that read a column, and the days that a change of it touches."""

    stages: tuple[str, ...]
    days: Days


_BOTH: Final = Reach((VALIDATE, BILL), Days.HELD)
_BOTH_DATES: Final = Reach((VALIDATE, BILL), Days.MOVED)
_VALIDATE: Final = Reach((VALIDATE,), Days.HELD)
_BILL: Final = Reach((BILL,), Days.HELD)
_DETECT: Final = Reach((DETECT,), Days.NONE)
_NOTHING: Final = Reach((), Days.NONE)

#: table -> column -> what it reaches. A new row and one that was taken out reach what their columns reach together.
REACHES: Final[dict[str, dict[str, Reach]]] = {
    "weather_stations": {
        "station_id": _DETECT,
        "name": _NOTHING,
        "latitude": _DETECT,
        "longitude": _DETECT,
    },
    "weather": {
        # A day's temperature chooses the days that an estimate of a later day may stand on: final estimates stay as
        # they are, so that a corrected temperature moves no bill.
        "station_id": _DETECT,
        "weather_day": Reach((VALIDATE, DETECT), Days.NONE),
        "temperature_min_c": Reach((VALIDATE, DETECT), Days.NONE),
        "temperature_max_c": Reach((VALIDATE, DETECT), Days.NONE),
        "temperature_mean_c": Reach((VALIDATE, DETECT), Days.NONE),
    },
    "holidays": {"holiday": _BOTH, "name": _NOTHING},
    "service_points": {
        "service_point_id": _BOTH,
        "commodity": _VALIDATE,
        "premise_id": _NOTHING,
        "route": _NOTHING,
        "customer_class": _VALIDATE,
        "latitude": _DETECT,
        "longitude": _DETECT,
        "station_id": _DETECT,
        "status": _BOTH,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
    },
    "meters": {
        "meter_id": _BOTH,
        "commodity": _VALIDATE,
        "head_end": _BOTH,
        "model": _NOTHING,
        "collector_id": _DETECT,
    },
    "meter_values": {
        "meter_id": _BOTH,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
        "head_end": _BOTH,
        "collector_id": _DETECT,
    },
    "channels": {
        "meter_id": _BOTH,
        "channel": _BOTH,
        "kind": _BOTH,
        "unit": _VALIDATE,
        "interval_minutes": _VALIDATE,
        "flow": _BOTH,
        "multiplier": _BOTH,
        "dials": _VALIDATE,
        "decimals": _BOTH,
        "sums_to": _BOTH,
        "billed": _BOTH,
        "modulus": _VALIDATE,
    },
    "channel_values": {
        "meter_id": _BOTH,
        "channel": _BOTH,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
        "multiplier": _BOTH,
        "dials": _VALIDATE,
        "decimals": _BOTH,
        "flow": _BOTH,
        "billed": _BOTH,
        "unit": _VALIDATE,
        "interval_minutes": _VALIDATE,
        "sums_to": _BOTH,
    },
    "validation_thresholds": {
        "threshold": _BOTH,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
        "value": _BOTH,
    },
    "register_hours": {
        "head_end": _BOTH,
        "channel": _BOTH,
        "days": _BOTH,
        "from_minute": _BOTH,
        "to_minute": _BOTH,
    },
    "installations": {
        "service_point_id": _BOTH,
        "meter_id": _BOTH,
        "installed_at": _BOTH_DATES,
        "removed_at": _BOTH_DATES,
        "install_read": Reach((VALIDATE, BILL), Days.INSTALLED),
        "removal_read": Reach((VALIDATE, BILL), Days.REMOVED),
    },
    "billing_cycles": {
        "cycle_id": _BOTH,
        "period_start": _BOTH,
        "period_end": _BOTH,
    },
    "tariffs": {
        "tariff_id": _BOTH,
        "commodity": _BILL,
        "version": _BOTH,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
        "document": _NOTHING,
    },
    "tariff_document": {"tariff_id": _BILL, "version": _BILL, "body": _BILL, "sha256": _BILL},
    "accounts": {
        "account_id": _BOTH,
        "customer_class": _BILL,
        "opened": _BOTH_DATES,
        "closed": _BOTH_DATES,
    },
    "account_values": {
        "account_id": _BILL,
        "valid_from": Reach((BILL,), Days.MOVED),
        "valid_to": Reach((BILL,), Days.MOVED),
        "customer_class": _BILL,
    },
    "agreements": {
        "account_id": _BOTH,
        "service_point_id": _BOTH,
        "tariff_id": _BOTH,
        "cycle_id": _BOTH,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
    },
    "attribute_names": dict.fromkeys(("attribute", "kind", "about"), _NOTHING),
    "service_attributes": {
        "service_point_id": _BILL,
        "attribute": _BILL,
        "value": _BILL,
        "valid_from": Reach((BILL,), Days.MOVED),
        "valid_to": Reach((BILL,), Days.MOVED),
    },
    "heat_contents": {
        "zone_id": _BILL,
        "valid_from": Reach((BILL,), Days.MOVED),
        "valid_to": Reach((BILL,), Days.MOVED),
        "therms_per_ccf": _BILL,
    },
    # Where money is booked to and which zone is balanced: no quantity and no bill stands on these.
    "revenue_accounts": dict.fromkeys(
        ("commodity", "customer_class", "component", "revenue_account", "receivable_account", "valid_from", "valid_to"),
        _NOTHING,
    ),
    # A winter average reaches a bill as a service attribute, when it is imported.
    "winter_average_rules": dict.fromkeys(
        (
            "customer_class",
            "months",
            "drop_high",
            "drop_low",
            "least_periods",
            "default_per_day",
            "valid_from",
            "valid_to",
        ),
        _NOTHING,
    ),
    "opening_balances": dict.fromkeys(
        ("service_point_id", "account_id", "tariff_id", "kind", "name", "period_end", "quantity"), _BILL
    ),
    # What days are compared with before there is usage of their own; estimates that were made stay as they are.
    "past_usage": dict.fromkeys(
        ("service_point_id", "flow", "unit", "period_start", "period_end", "quantity"),
        Reach((VALIDATE, DETECT), Days.NONE),
    ),
    # How a page and an output write a name; no figure stands on it.
    "id_spellings": dict.fromkeys(("kind", "id", "written"), _NOTHING),
    # Which bills wait, not what they say.
    "estimate_limits": dict.fromkeys(
        ("customer_class", "commodity", "cause", "most_bills", "action", "count_on_bill", "valid_from", "valid_to"),
        Reach((BILL,), Days.NONE),
    ),
    # A rule reaches a bill when a person asks for a leak's adjustment.
    "leak_adjustment_rules": dict.fromkeys(
        (
            "customer_class",
            "seasons",
            "normal_periods",
            "least_periods",
            "share_percent",
            "sewer_codes",
            "sewer_share_percent",
            "months_between",
            "most_bills",
            "evidence",
            "valid_from",
            "valid_to",
        ),
        _NOTHING,
    ),
    # What of a correction is charged, not what the days come to; it holds for corrections made later.
    "back_billing_rules": dict.fromkeys(
        (
            "commodity",
            "customer_class",
            "covers",
            "charge_months",
            "credit_months",
            "unknown_beginning",
            "unknown_most_months",
            "tolerance_percent",
            "interest_percent",
            "day_count",
            "instalments",
            "instalment_months",
            "waive_below",
            "source",
            "valid_from",
            "valid_to",
        ),
        Reach((BILL,), Days.NONE),
    ),
    # A test reaches a day by the multiplier that is corrected for it.
    "meter_tests": dict.fromkeys(
        ("meter_id", "tested_on", "percent_registration", "wrong_since", "wrong_until", "evidence"), _NOTHING
    ),
    "zones": dict.fromkeys(("zone_id", "kind", "commodity", "name", "parent_id", "valid_from", "valid_to"), _NOTHING),
    "zone_members": dict.fromkeys(("service_point_id", "zone_id", "valid_from", "valid_to"), _NOTHING),
    # A supply meter needs no account: its usage waits for one on days for which no zone declares it.
    "zone_supplies": {
        "zone_id": _NOTHING,
        "service_point_id": _BOTH,
        "direction": _NOTHING,
        "valid_from": _BOTH_DATES,
        "valid_to": _BOTH_DATES,
    },
    "zone_unmetered": dict.fromkeys(
        ("zone_id", "purpose", "quantity_per_day", "unit", "valid_from", "valid_to"), _NOTHING
    ),
}


def days_of(table: str, columns: tuple[str, ...]) -> frozenset[Days]:
    """The kinds of days that changed columns of a row touch. Dates that moved together with a value that the whole row
    is about touch every day of both rows."""
    found = {REACHES[table][column].days for column in columns} - {Days.NONE}
    return frozenset({Days.HELD} if Days.HELD in found else found)
