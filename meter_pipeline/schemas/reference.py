"""Reference data: one CSV per table, one table of schema ``ref`` each, effective-dated.

``valid_from`` is included, ``valid_to`` is not and empty means open. Dates are billing days; instants are UTC with a Z.
Column kinds: id (ASCII [A-Z0-9-]{1,64} after upper-casing), long_id (the same, with dots, slashes, underscores and
blanks inside), text, date, instant, decimal, integer, boolean, and
choice:a|b|c. A kind ending in ? may be empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Table:
    """One reference table: its columns and kinds in file order, its primary key, its references {column:
    table.column}.
    """

    columns: dict[str, str]
    key: tuple[str, ...]
    references: dict[str, str]
    about: str


COMMODITY: Final = "choice:electricity|water|gas"
#: Attributes of services that every tariff knows; reference/attribute_names.csv declares others.
ATTRIBUTES: Final = (
    "meter_size",
    "jurisdiction",
    "rate_code",
    "budget_per_day",
    "winter_average_per_day",
    "dwelling_units",
    "stormwater_units",
    "lamps",
    "solar_kw",
    "contract_kw",
    "tax_exempt",
    "totals_into",
    "deducts_from",
    "credits_to",
    "heat_zone",
)

TABLES: Final[dict[str, Table]] = {
    "weather_stations": Table(
        {"station_id": "id", "name": "text", "latitude": "decimal", "longitude": "decimal"},
        ("station_id",),
        {},
        "Where temperatures are measured.",
    ),
    "weather": Table(
        {
            "station_id": "id",
            "weather_day": "date",
            "temperature_min_c": "decimal",
            "temperature_max_c": "decimal",
            "temperature_mean_c": "decimal?",
        },
        ("station_id", "weather_day"),
        {"station_id": "weather_stations.station_id"},
        "Daily temperatures in degrees Celsius; the mean is (min + max) / 2 where a station reports none.",
    ),
    "holidays": Table(
        {"holiday": "date", "name": "text"},
        ("holiday",),
        {},
        "Days that tariffs and like-day estimation treat as holidays.",
    ),
    "service_points": Table(
        {
            "service_point_id": "long_id",
            "commodity": COMMODITY,
            "premise_id": "long_id",
            "route": "id",
            "customer_class": "choice:residential|commercial|industrial|municipal",
            "latitude": "decimal?",
            "longitude": "decimal?",
            "station_id": "id?",
            "status": "choice:active|inactive|disconnected",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("service_point_id", "valid_from"),
        {"station_id": "weather_stations.station_id"},
        "Where a service is delivered and metered. Status may change over time: one row per stretch.",
    ),
    "meters": Table(
        {"meter_id": "long_id", "commodity": COMMODITY, "head_end": "id", "model": "text?", "collector_id": "id?"},
        ("meter_id",),
        {},
        "A device. Its channels and installations are apart.",
    ),
    "meter_values": Table(
        {"meter_id": "long_id", "valid_from": "date", "valid_to": "date?", "head_end": "id?", "collector_id": "id?"},
        ("meter_id", "valid_from"),
        {"meter_id": "meters.meter_id"},
        "What of a meter is otherwise on a stretch of billing days: an empty value is as meters says.",
    ),
    "channels": Table(
        {
            "meter_id": "long_id",
            "channel": "id",
            "kind": "choice:interval|register",
            "unit": "text",
            "interval_minutes": "integer?",
            "flow": "choice:import|export|net|other",
            "multiplier": "decimal",
            "dials": "integer?",
            "decimals": "integer?",
            "sums_to": "id?",
            "billed": "boolean",
            "modulus": "decimal?",
        },
        ("meter_id", "channel"),
        {"meter_id": "meters.meter_id"},
        "What a meter measures. The sums_to of a register channel names the interval channel whose sum its difference must equal; dials and "
        "decimals are its digits before and after the point; multiplier applies to the dial (CT and PT ratio), not to intervals.",
    ),
    "channel_values": Table(
        {
            "meter_id": "long_id",
            "channel": "id",
            "valid_from": "date",
            "valid_to": "date?",
            "multiplier": "decimal?",
            "dials": "integer?",
            "decimals": "integer?",
            "flow": "choice:import|export|net|other?",
            "billed": "boolean?",
            "unit": "text?",
            "interval_minutes": "integer?",
            "sums_to": "id?",
        },
        ("meter_id", "channel", "valid_from"),
        {"meter_id": "meters.meter_id"},
        "What of a channel is otherwise on a stretch of billing days: an empty value is as channels says. The multiplier is that of the dial, "
        "or, for an interval channel, the factor of its intervals, which is 1 on other days.",
    ),
    "validation_thresholds": Table(
        {"threshold": "text", "valid_from": "date", "valid_to": "date?", "value": "decimal"},
        ("threshold", "valid_from"),
        {},
        "Thresholds of validation and estimation that are otherwise on a stretch of billing days.",
    ),
    "register_hours": Table(
        {
            "head_end": "id",
            "channel": "id",
            "days": "choice:all|workday|restday",
            "from_minute": "integer",
            "to_minute": "integer",
        },
        ("head_end", "channel", "days", "from_minute"),
        {},
        "Hours of local time that a time-of-use register of a head-end's meters counts, minutes after midnight, end excluded. Rest days are weekends "
        "and holidays.",
    ),
    "installations": Table(
        {
            "service_point_id": "long_id",
            "meter_id": "long_id",
            "installed_at": "instant",
            "removed_at": "instant?",
            "install_read": "decimal?",
            "removal_read": "decimal?",
        },
        ("meter_id", "installed_at"),
        {"meter_id": "meters.meter_id"},
        "Which meter stands at which service point, from when to when, with the billed register's dial at both ends.",
    ),
    "billing_cycles": Table(
        {"cycle_id": "id", "period_start": "date", "period_end": "date"},
        ("cycle_id", "period_start"),
        {},
        "Periods of a billing cycle, end excluded.",
    ),
    "tariffs": Table(
        {
            "tariff_id": "id",
            "commodity": COMMODITY,
            "version": "integer",
            "valid_from": "date",
            "valid_to": "date?",
            "document": "text",
        },
        ("tariff_id", "version"),
        {},
        "Versions of a tariff; document is a file under tariffs/ beside this table.",
    ),
    "accounts": Table(
        {
            "account_id": "long_id",
            "customer_class": "choice:residential|commercial|industrial|municipal",
            "opened": "date",
            "closed": "date?",
        },
        ("account_id",),
        {},
        "Who is billed, by a pseudonym: names and addresses stay in the customer system.",
    ),
    "account_values": Table(
        {
            "account_id": "long_id",
            "valid_from": "date",
            "valid_to": "date?",
            "customer_class": "choice:residential|commercial|industrial|municipal",
        },
        ("account_id", "valid_from"),
        {"account_id": "accounts.account_id"},
        "What of an account is otherwise on a stretch of billing days.",
    ),
    "agreements": Table(
        {
            "account_id": "long_id",
            "service_point_id": "long_id",
            "tariff_id": "id",
            "cycle_id": "id",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("service_point_id", "valid_from"),
        {"account_id": "accounts.account_id"},
        "Which account pays for which service point, on which tariff and cycle, from which billing day.",
    ),
    "attribute_names": Table(
        {"attribute": "text", "kind": "choice:count|text", "about": "text"},
        ("attribute",),
        {},
        "Attributes of services that the utility declares: counts of what is charged by the unit (equivalent residential units, carts, street lights by "
        "type), and texts that charges differ by.",
    ),
    "service_attributes": Table(
        {
            "service_point_id": "long_id",
            "attribute": "text",
            "value": "text",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("service_point_id", "attribute", "valid_from"),
        {},
        "What a tariff may ask of a service beyond its class, effective-dated.",
    ),
    "heat_contents": Table(
        {"zone_id": "text", "valid_from": "date", "valid_to": "date?", "therms_per_ccf": "decimal"},
        ("zone_id", "valid_from"),
        {},
        "Heat content of gas by zone, dated. A row comes before the list of the tariff document.",
    ),
    "revenue_accounts": Table(
        {
            "commodity": "choice:electricity|water|gas|*",
            "customer_class": "choice:residential|commercial|industrial|municipal|*",
            "component": "text",
            "revenue_account": "text",
            "receivable_account": "text",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("commodity", "customer_class", "component", "valid_from"),
        {},
        "Accounts of the general ledger that unbilled revenue is booked to. * stands for every other value: a row that names a component comes before one "
        "that names a commodity, and that before one that names a class.",
    ),
    "winter_average_rules": Table(
        {
            "customer_class": "choice:residential|commercial|industrial|municipal|*",
            "months": "text",
            "drop_high": "integer",
            "drop_low": "integer",
            "least_periods": "integer",
            "default_per_day": "decimal?",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("customer_class", "valid_from"),
        {},
        "How a service's winter average is worked out, by customer class; * is every class without a rule of its own.",
    ),
    "opening_balances": Table(
        {
            "service_point_id": "long_id",
            "account_id": "long_id",
            "tariff_id": "id",
            "kind": "choice:units|money|peak",
            "name": "text",
            "period_end": "date",
            "quantity": "decimal",
        },
        ("service_point_id", "account_id", "tariff_id", "kind", "name", "period_end"),
        {"account_id": "accounts.account_id"},
        "What bills of the old system hand on to the first bills here: credits for exports, in units or money, and the peaks that ratchets look back on.",
    ),
    "past_usage": Table(
        {
            "service_point_id": "long_id",
            "flow": "choice:import|export|net",
            "unit": "text",
            "period_start": "date",
            "period_end": "date",
            "quantity": "decimal",
        },
        ("service_point_id", "flow", "period_start"),
        {},
        "Usage that was billed before the first billing day, by service point and period: what the first months are compared with.",
    ),
    "id_spellings": Table(
        {"kind": "choice:account|meter|premise|service_point", "id": "long_id", "written": "text"},
        ("kind", "id"),
        {},
        "How the customer system writes an id whose letters are not all capitals: outputs and bills have it so. An import adds these rows itself.",
    ),
    "estimate_limits": Table(
        {
            "customer_class": "choice:residential|commercial|industrial|municipal|*",
            "commodity": "choice:electricity|water|gas|*",
            "cause": "choice:no_read|rejected|*",
            "most_bills": "integer",
            "action": "choice:hold|read_request",
            "count_on_bill": "boolean",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("customer_class", "commodity", "cause", "valid_from"),
        {},
        "How many estimated bills may follow each other, and what happens to the next. The rule of the period's last day holds; * is every other class, "
        "commodity or cause.",
    ),
    "leak_adjustment_rules": Table(
        {
            "customer_class": "choice:residential|commercial|industrial|municipal|*",
            "seasons": "text?",
            "normal_periods": "integer",
            "least_periods": "integer",
            "share_percent": "decimal",
            "sewer_codes": "text?",
            "sewer_share_percent": "decimal?",
            "months_between": "integer",
            "most_bills": "integer",
            "evidence": "text?",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("customer_class", "valid_from"),
        {},
        "What of a confirmed leak is forgiven, by customer class; * is every class without a rule of its own. The rule of the bill's last day holds.",
    ),
    "back_billing_rules": Table(
        {
            "commodity": "choice:electricity|water|gas|*",
            "customer_class": "choice:residential|commercial|industrial|municipal|*",
            "covers": "choice:corrections|corrections_and_reads",
            "charge_months": "integer?",
            "credit_months": "integer?",
            "unknown_beginning": "choice:last_good_test|half_since_test",
            "unknown_most_months": "integer?",
            "tolerance_percent": "decimal",
            "interest_percent": "decimal?",
            "day_count": "choice:actual/365|actual/360|30/360",
            "instalments": "choice:none|months|error_time",
            "instalment_months": "integer?",
            "waive_below": "decimal?",
            "source": "text",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("commodity", "customer_class", "valid_from"),
        {},
        "How far back a correction of issued bills may charge and credit, interest on refunds, instalments, and what is not charged. The rule that holds "
        "on the day of the correction; * is every other commodity or class.",
    ),
    "meter_tests": Table(
        {
            "meter_id": "long_id",
            "tested_on": "date",
            "percent_registration": "decimal",
            "wrong_since": "date?",
            "wrong_until": "date?",
            "evidence": "text",
        },
        ("meter_id", "tested_on"),
        {"meter_id": "meters.meter_id"},
        "Results of meter tests: what share of the quantity the meter registers, and since when where that is known. A test starts a correction of the "
        "meter's multiplier.",
    ),
    "zones": Table(
        {
            "zone_id": "id",
            "kind": "choice:district|pressure_zone|feeder|transformer|gas_gate",
            "commodity": COMMODITY,
            "name": "text",
            "parent_id": "id?",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("zone_id", "valid_from"),
        {},
        "Zones of the network whose supply is metered, in a tree: a zone holds the customers of the zones below it.",
    ),
    "zone_members": Table(
        {"service_point_id": "long_id", "zone_id": "id", "valid_from": "date", "valid_to": "date?"},
        ("service_point_id", "valid_from"),
        {},
        "Which zone a customer's service point draws from; one at a time, the smallest that it is known of.",
    ),
    "zone_supplies": Table(
        {
            "zone_id": "id",
            "service_point_id": "long_id",
            "direction": "choice:in|out",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("zone_id", "service_point_id", "valid_from"),
        {},
        "Meters of what a zone receives (in) and passes on (out); a meter between two zones is out of one and in of the other.",
    ),
    "zone_unmetered": Table(
        {
            "zone_id": "id",
            "purpose": "text",
            "quantity_per_day": "decimal",
            "unit": "text",
            "valid_from": "date",
            "valid_to": "date?",
        },
        ("zone_id", "purpose", "valid_from"),
        {},
        "Authorised use that no meter counts, as declared: flushing, fire fighting, street lights.",
    ),
}


@dataclass(frozen=True, slots=True)
class DatedRows:
    """A table whose rows hold from ``starts`` until ``ends`` (excluded, empty is open): rows of one ``group`` never
    overlap. ``identity``: what two rows have in common of which one is a correction of the other's dates."""

    group: tuple[str, ...]
    starts: str
    ends: str
    identity: tuple[str, ...]


STRETCHES: Final[dict[str, DatedRows]] = {
    "service_points": DatedRows(("service_point_id",), "valid_from", "valid_to", ("service_point_id",)),
    "meter_values": DatedRows(("meter_id",), "valid_from", "valid_to", ("meter_id", "head_end", "collector_id")),
    "channel_values": DatedRows(
        ("meter_id", "channel"), "valid_from", "valid_to", ("meter_id", "channel", "multiplier")
    ),
    "validation_thresholds": DatedRows(("threshold",), "valid_from", "valid_to", ("threshold", "value")),
    "installations": DatedRows(("meter_id",), "installed_at", "removed_at", ("meter_id", "service_point_id")),
    "billing_cycles": DatedRows(("cycle_id",), "period_start", "period_end", ("cycle_id",)),
    "tariffs": DatedRows(("tariff_id",), "valid_from", "valid_to", ("tariff_id", "version")),
    "account_values": DatedRows(("account_id",), "valid_from", "valid_to", ("account_id", "customer_class")),
    "agreements": DatedRows(("service_point_id",), "valid_from", "valid_to", ("service_point_id", "account_id")),
    "service_attributes": DatedRows(
        ("service_point_id", "attribute"), "valid_from", "valid_to", ("service_point_id", "attribute")
    ),
    "heat_contents": DatedRows(("zone_id",), "valid_from", "valid_to", ("zone_id", "therms_per_ccf")),
    "winter_average_rules": DatedRows(("customer_class",), "valid_from", "valid_to", ("customer_class",)),
    "estimate_limits": DatedRows(
        ("customer_class", "commodity", "cause"), "valid_from", "valid_to", ("customer_class", "commodity", "cause")
    ),
    "leak_adjustment_rules": DatedRows(("customer_class",), "valid_from", "valid_to", ("customer_class",)),
    "back_billing_rules": DatedRows(
        ("commodity", "customer_class"), "valid_from", "valid_to", ("commodity", "customer_class")
    ),
    "zones": DatedRows(("zone_id",), "valid_from", "valid_to", ("zone_id",)),
    "zone_members": DatedRows(("service_point_id",), "valid_from", "valid_to", ("service_point_id", "zone_id")),
    "zone_supplies": DatedRows(
        ("zone_id", "service_point_id"), "valid_from", "valid_to", ("zone_id", "service_point_id")
    ),
    "zone_unmetered": DatedRows(("zone_id", "purpose"), "valid_from", "valid_to", ("zone_id", "purpose")),
    "revenue_accounts": DatedRows(
        ("commodity", "customer_class", "component"),
        "valid_from",
        "valid_to",
        ("commodity", "customer_class", "component"),
    ),
}
