"""The tariffs of the simulated utility: URDB documents for plain electricity rates, native ones for the rest."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

#: tariff -> (commodity, class it is for); the version in force from the first of the month after the city's first day
# is 3 % dearer
TARIFFS: Final = {
    "E-RES": "electricity",
    "E-TOU": "electricity",
    "E-NEM": "electricity",
    "E-COM": "electricity",
    "W-STD": "water",
    "G-STD": "gas",
}
#: Tariffs of what no meter counts
UNIT_TARIFFS: Final = {"E-LIGHT": "electricity", "W-STORM": "water"}
_SUMMER: Final = range(5, 9)  # June to September


def next_month(day: date) -> date:
    """The first of the month after a day."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _rate(tenths_of_mills: int, version: int) -> float:
    """Returns a rate per kWh from hundred-thousandths of a dollar, higher in the second version."""
    return round(tenths_of_mills * (103 if version == 2 else 100) / 100) / 100_000


def _schedule(hours: dict[int, tuple[int, int]]) -> list[list[int]]:
    """12 x 24 periods: {period: (first hour, hour after)} over period 0; summer months add 2."""
    rows = []
    for month in range(12):
        row = [0] * 24
        for period, (start, end) in hours.items():
            row[start:end] = [period] * (end - start)
        rows.append([p + 2 for p in row] if month in _SUMMER else row)
    return rows


def _urdb(name: str, sector: str, start: date, **fields: Any) -> dict[str, Any]:
    return {
        "items": [
            {
                "label": name.lower(),
                "utility": "Cedar Fork Municipal Utilities",
                "name": name,
                "sector": sector,
                "servicetype": "Bundled",
                "startdate": (start - date(1970, 1, 1)).days * 86_400,
                "country": "USA",
                **fields,
            }
        ]
    }


def _native(
    tariff_id: str, name: str, commodity: str, unit: str, charges: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    tax = {"kind": "tax", "code": "CITY-TAX", "name": "City utility tax", "percent": "4.5", "exempt": ["municipal"]}
    return {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": tariff_id,
        "name": name,
        "commodity": commodity,
        "currency": "USD",
        "unit": unit,
        "rounding": {"places": 2, "mode": "half_up"},
        "proration": {"fixed": "days", "tiers": "days", "demand": "days", "minimum": "days"},
        **more,
        "charges": [*charges, tax],
    }


def document(tariff_id: str, version: int, start: date) -> dict[str, Any]:
    """Returns the tariff document of a version. Raises KeyError for an unknown tariff."""
    dearer = version == 2

    charges: list[dict[str, Any]]

    def money(cheap: str, dear: str) -> str:
        return dear if dearer else cheap

    if tariff_id == "E-RES":
        flat = [[0] * 24 for _ in range(12)]
        tiers = [
            {"unit": "kWh", "max": 500, "rate": _rate(9_800, version)},
            {"unit": "kWh", "max": 1_000, "rate": _rate(11_900, version)},
            {"unit": "kWh", "rate": _rate(14_200, version)},
        ]
        return _urdb(
            "Residential tiered",
            "Residential",
            start,
            energyratestructure=[tiers],
            energyweekdayschedule=flat,
            energyweekendschedule=flat,
            fixedchargefirstmeter=12.5,
            fixedchargeunits="$/month",
        )
    if tariff_id in ("E-TOU", "E-COM"):
        commercial = tariff_id == "E-COM"
        rates = (8_200, 15_400, 8_900, 21_800) if commercial else (8_700, 17_600, 9_300, 25_400)
        fields: dict[str, Any] = {
            "energyratestructure": [[{"unit": "kWh", "rate": _rate(r, version)}] for r in rates],
            "energyweekdayschedule": _schedule({1: (15, 20)}),
            "energyweekendschedule": _schedule({}),
            "fixedchargefirstmeter": 48.0 if commercial else 14.0,
            "fixedchargeunits": "$/month",
        }
        if commercial:
            fields |= {
                "flatdemandunit": "kW",
                "flatdemandstructure": [[{"rate": _rate(650_000, version)}]],
                "flatdemandmonths": [0] * 12,
                "demandrateunit": "kW",
                "demandratestructure": [[{"rate": 0}], [{"rate": _rate(420_000, version)}]],
                "demandweekdayschedule": [[1 if 15 <= h < 20 else 0 for h in range(24)]] * 12,
                "demandweekendschedule": [[0] * 24] * 12,
            }
        return _urdb(
            "Commercial time of use with demand" if commercial else "Residential time of use",
            "Commercial" if commercial else "Residential",
            start,
            **fields,
        )
    if tariff_id == "E-NEM":
        charges = [
            {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "16.00"},
            {"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": money("0.11200", "0.11536")},
            {"kind": "minimum", "code": "MIN", "name": "Minimum charge", "amount": "18.00"},
        ]
        return _native(
            tariff_id,
            "Residential net billing",
            "electricity",
            "kWh",
            charges,
            metering="net_billing",
            sell={"rate": money("0.0410", "0.0402")},
        )
    if tariff_id == "W-STD":
        charges = [
            {
                "kind": "fixed",
                "code": "BASIC",
                "name": "Basic service",
                "by": {"attribute": "customer_class", "values": {"residential": "9.80", "*": "24.00"}},
            },
            {
                "kind": "usage",
                "code": "WATER",
                "name": "Water",
                "tiers": [
                    {"upto": 4, "rate": money("3.15", "3.24")},
                    {"upto": 10, "rate": money("4.60", "4.74")},
                    {"rate": money("6.85", "7.06")},
                ],
            },
            {"kind": "usage", "code": "SEWER", "name": "Sewer", "rate": money("4.10", "4.22"), "factor": "0.9"},
        ]
        return _native(tariff_id, "Water and sewer", "water", "kgal", charges)
    if tariff_id == "G-STD":
        charges = [
            {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "11.25"},
            {
                "kind": "usage",
                "code": "GAS",
                "name": "Gas",
                "tiers": [{"upto": 40, "rate": money("0.8420", "0.8673")}, {"rate": money("0.7950", "0.8189")}],
            },
            {"kind": "rider", "code": "PGA", "name": "Purchased gas adjustment", "rate": money("0.0360", "0.0410")},
        ]
        heat = [{"from": "2020-01-01", "therms_per_ccf": "1.027"}]
        return _native(tariff_id, "Gas", "gas", "therm", charges, heat_content=heat)
    if tariff_id == "E-LIGHT":
        charges = [
            _by_unit("LED-40", "40 W LED lights", money("5.10", "5.25"), "lamp_led_40"),
            _by_unit("HPS-100", "100 W sodium lights", money("8.40", "8.65"), "lamp_hps_100"),
        ]
        return _native(tariff_id, "Street lights", "electricity", "kWh", charges)
    if tariff_id == "W-STORM":
        charges = [_by_unit("STORM", "Stormwater", money("7.35", "7.57"), "eru")]
        return _native(tariff_id, "Stormwater", "water", "kgal", charges)
    raise KeyError(tariff_id)


def _by_unit(code: str, name: str, amount: str, counted: str) -> dict[str, Any]:
    return {"kind": "fixed", "code": code, "name": name, "amount": amount, "times": counted, "without": 0}
