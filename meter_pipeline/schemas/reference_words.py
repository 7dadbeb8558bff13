"""What each column of the reference tables means, in the words a data engineer or a billing analyst needs."""

from __future__ import annotations

from typing import Final

_FROM: Final = "first billing day it holds"
_TO: Final = "billing day from which it no longer holds; empty while it does"
_CLASS: Final = "class that thresholds, class profiles and tariffs go by"
_COMMODITY: Final = "electricity, water or gas"
_POINT: Final = "where the service is delivered and metered"
_METER: Final = "the device, as its head-end names it"

MEANINGS: Final[dict[str, dict[str, str]]] = {
    "weather_stations": {
        "station_id": "weather station",
        "name": "what people call it",
        "latitude": "degrees north; the nearest station serves a service point that names none",
        "longitude": "degrees east",
    },
    "weather": {
        "station_id": "weather station",
        "weather_day": "the station's day",
        "temperature_min_c": "lowest temperature of the day, °C",
        "temperature_max_c": "highest temperature of the day, °C",
        "temperature_mean_c": "mean of the day, °C; (min + max) / 2 where empty",
    },
    "holidays": {"holiday": "civil day in the utility's zone", "name": "what it is called"},
    "service_points": {
        "service_point_id": _POINT,
        "commodity": _COMMODITY,
        "premise_id": "the building or lot; service points of one premise share it",
        "route": "reading route, for grouping",
        "customer_class": _CLASS,
        "latitude": "degrees north; for the nearest weather station",
        "longitude": "degrees east",
        "station_id": "weather station to use; empty takes the nearest",
        "status": "active, inactive or disconnected: usage on the latter two is an exception",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "meters": {
        "meter_id": _METER,
        "commodity": _COMMODITY,
        "head_end": "head-end whose files carry its reads",
        "model": "make and model, for people",
        "collector_id": "radio collector it speaks through: silent together, they are one dropout",
    },
    "channels": {
        "meter_id": _METER,
        "channel": "what of the meter is measured, as its files name it (E1, B1, R1)",
        "kind": "interval: a value per slot; register: a dial",
        "unit": "unit its files are in; converted to a base unit",
        "interval_minutes": "length of an interval; empty for a register",
        "flow": "import is used, export is delivered back, net is import less export in each interval, other is not energy",
        "multiplier": "factor of the dial (CT and PT ratio), not of intervals",
        "dials": "digits before the point, for rollover; empty where unknown",
        "decimals": "digits after the point",
        "sums_to": "interval channel whose sum the dial's difference must equal",
        "billed": "whether the channel counts for the bill",
        "modulus": "where the dial starts again at 0, in its own unit; empty: after its last digit. The file may lack the column",
    },
    "channel_values": {
        "meter_id": _METER,
        "channel": "channel of the meter",
        "valid_from": "first billing day it holds",
        "valid_to": "billing day from which it no longer holds; empty while it does",
        "multiplier": "factor of the dial, or of the intervals of an interval channel (CT and PT ratio, pulse weight); empty: as channels says",
        "dials": "digits before the point; empty: as channels says",
        "decimals": "digits after the point; empty: as channels says",
        "flow": "direction on these days; empty: as channels says",
        "billed": "whether the channel counts for the bill on these days; empty: as channels says",
    },
    "register_hours": {
        "head_end": "head-end whose meters are programmed so",
        "channel": "register that counts these hours",
        "days": "all days, workdays, or rest days: weekends and holidays",
        "from_minute": "first minute after local midnight",
        "to_minute": "minute after local midnight at which it stops; 1440 is midnight",
    },
    "installations": {
        "service_point_id": _POINT,
        "meter_id": _METER,
        "installed_at": "instant from which the meter stands there, UTC",
        "removed_at": "instant at which it was taken away, UTC; empty while it stands",
        "install_read": "billed register's dial when it was installed",
        "removal_read": "billed register's dial when it was taken away",
    },
    "billing_cycles": {
        "cycle_id": "group of accounts billed on the same days",
        "period_start": "first billing day of the period",
        "period_end": "billing day after its last",
    },
    "tariffs": {
        "tariff_id": "tariff",
        "commodity": _COMMODITY,
        "version": "number of the version, from 1",
        "valid_from": _FROM,
        "valid_to": _TO,
        "document": "file under tariffs/ that says what it charges",
    },
    "accounts": {
        "account_id": "who is billed, by pseudonym",
        "customer_class": _CLASS,
        "opened": "first billing day of the account",
        "closed": "billing day from which it is closed; empty while open",
    },
    "agreements": {
        "account_id": "account that pays",
        "service_point_id": _POINT,
        "tariff_id": "tariff it is charged on",
        "cycle_id": "billing cycle it is billed in",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "attribute_names": {
        "attribute": "name: small letters, digits and _",
        "kind": "count (a number of units, at most six decimals) or text",
        "about": "what it says",
    },
    "service_attributes": {
        "service_point_id": _POINT,
        "attribute": "what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, "
        "stormwater_units, lamps, solar_kw (installed), contract_kw (agreed demand), tax_exempt (true: a certificate is on "
        "file), totals_into (its usage is billed at the service point named), deducts_from (its usage is taken off that of the service point named), "
        "credits_to (where the credit of its last bill goes: a service point of the account, or none), or a name of attribute_names",
        "value": "its value",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "revenue_accounts": {
        "commodity": "electricity, water or gas; * every other one",
        "customer_class": "class of the account; * every other one",
        "component": "component of the charge (energy, fixed, demand_flat, demand_tou, rider, tax, minimum, credit); * every other one",
        "revenue_account": "account that is credited, in the general ledger's own code",
        "receivable_account": "account of unbilled receivables that is debited",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "winter_average_rules": {
        "customer_class": "class of the account; * every other one",
        "months": "months whose billing periods count, by the month of a period's last day: numbers from 1 to 12, with blanks between",
        "drop_high": "how many of the highest periods are left out",
        "drop_low": "how many of the lowest periods are left out",
        "least_periods": "periods that must be left for an average; else the default holds",
        "default_per_day": "quantity a day, in the unit of the service's tariff, where too few periods are left; empty: none",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "opening_balances": {
        "service_point_id": _POINT,
        "account_id": "account that pays",
        "tariff_id": "tariff that it is charged on here",
        "kind": "units (credit in the tariff's unit), money (credit in the currency) or peak (highest demand of the period, kW)",
        "name": "units: the time-of-use period; peak: the demand register, as meter-pipeline tariffs explain names it; money: -",
        "period_end": "day after the last of the old bill's period",
        "quantity": "how much",
    },
    "id_spellings": {
        "kind": "what the id names",
        "id": "the id as it is kept here, in capitals",
        "written": "the id as the customer system writes it",
    },
    "estimate_limits": {
        "customer_class": "class of the account; * every other one",
        "commodity": "electricity, water or gas; * every other one",
        "cause": "no_read (nothing came), rejected (what came failed validation), or * (estimated bills of any cause count)",
        "most_bills": "how many estimated bills in a row are issued",
        "action": "the next one: hold (a case, and the bill waits for a read or a person) or read_request (it is issued, and a read is asked for)",
        "count_on_bill": "true: each estimated bill says how many there were in a row",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "leak_adjustment_rules": {
        "customer_class": "class of the account; * every other one",
        "seasons": "seasons whose bills are compared with each other: months with blanks between, seasons with / between, such as "
        "5 6 7 8 9 10 / 11 12 1 2 3 4; empty: all bills",
        "normal_periods": "how many earlier bills of the season the normal use is the mean of, the latest first",
        "least_periods": "how many of them there must be",
        "share_percent": "share of the use above normal that is forgiven, in percent",
        "sewer_codes": "codes of the tariff's sewer charges, with blanks between",
        "sewer_share_percent": "share of the use above normal that those charges do not count, in percent; empty: share_percent",
        "months_between": "months after a bill that was adjusted for a leak in which no other leak of the service is forgiven",
        "most_bills": "how many bills of one leak are adjusted, the first ones",
        "evidence": "what the customer must show, such as a repair receipt; empty: nothing",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "zones": {
        "zone_id": "zone of the network",
        "kind": "district (district metered area), pressure_zone, feeder, transformer or gas_gate",
        "commodity": _COMMODITY,
        "name": "what people call it",
        "parent_id": "the zone it is part of; empty at the top",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "zone_members": {
        "service_point_id": _POINT,
        "zone_id": "zone of the network",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "zone_supplies": {
        "zone_id": "zone of the network",
        "service_point_id": "where the supply meter stands",
        "direction": "in: delivered into the zone; out: passed on to another",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
    "zone_unmetered": {
        "zone_id": "zone of the network",
        "purpose": "what it is used for",
        "quantity_per_day": "quantity a day",
        "unit": "unit of the quantity, as meters use it",
        "valid_from": _FROM,
        "valid_to": _TO,
    },
}
