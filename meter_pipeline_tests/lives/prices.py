"""The tariffs that lives are billed on, and the document of each as the product reads it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from meter_pipeline_tests.lives.model import Rates


def _d(text: str) -> Decimal:
    return Decimal(text)


_ONE = ((None, _d("1.00")),)
#: Tariffs by id; AMENDED-n gets its second version when step n amends it.
TARIFFS: Final[dict[str, tuple[Rates, ...]]] = {
    "E-FLAT": (Rates(_d("30.00"), _ONE),),
    "E-TIER": (Rates(_d("15.00"), ((_d("30"), _d("1.00")), (None, _d("2.00")))),),
    "E-MIN": (Rates(_d("0"), _ONE, _d("60.00")),),
    "E-OTHER": (Rates(_d("12.00"), ((None, _d("3.00")),)),),
    "E-NET": (Rates(_d("12.00"), _ONE, bought=_d("0.30")),),
    "E-DEMAND": (Rates(_d("12.00"), _ONE, demand=_d("5.00"), ratchet=_d("0.8")),),
    "E-WHOLE": (Rates(_d("12.00"), _ONE, demand=_d("5.00"), ratchet=_d("0.8"), whole=True),),
    "E-TOP": (Rates(_d("12.00"), _ONE, demand=_d("5.00"), highest_days=2),),
    "W-FLAT": (Rates(_d("30.00"), ((None, _d("2.00")),)),),
    "W-OTHER": (Rates(_d("12.00"), ((None, _d("3.00")),)),),
}
AMENDED: Final = {
    "E": (Rates(_d("30.00"), _ONE), Rates(_d("30.00"), ((None, _d("2.00")),), first_day=2)),
    "W": (Rates(_d("30.00"), ((None, _d("2.00")),)), Rates(_d("30.00"), ((None, _d("4.00")),), first_day=2)),
}
#: Tariffs of the lives that begin with a base, taken in turn
OF_BASE: Final = {
    "interval": ("E-FLAT", "E-TIER", "E-MIN"),
    "register": ("E-FLAT", "E-TIER", "E-MIN"),
    "net": ("E-NET",),
    "demand": ("E-DEMAND", "E-WHOLE", "E-TOP"),
    "checked": ("E-FLAT", "E-TIER", "E-MIN"),
}


def document(tariff_id: str, rates: Rates) -> dict[str, Any]:
    """A tariff as the product reads it."""
    water = tariff_id.startswith("W")
    usage: dict[str, Any] = {"kind": "usage", "code": "USE", "name": "Usage"}
    if len(rates.tiers) == 1:
        usage["rate"] = str(rates.tiers[0][1])
    else:
        usage["tiers"] = [
            {"rate": str(rate)} if limit is None else {"upto": str(limit), "rate": str(rate)}
            for limit, rate in rates.tiers
        ]
    charges: list[dict[str, Any]] = [usage]
    if rates.fixed:
        charges.insert(0, {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": str(rates.fixed)})
    if rates.demand:
        demand: dict[str, Any] = {"kind": "demand", "code": "DEM", "name": "Demand", "rate": str(rates.demand)}
        if rates.highest_days > 1:
            demand["highest_days"] = rates.highest_days
        else:
            demand["ratchet"] = {"percent": int(rates.ratchet * 100), "months": 11}
        charges.append(demand)
    if rates.minimum:
        charges.append({"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": str(rates.minimum)})
    more: dict[str, Any] = {}
    if rates.bought is not None:
        more |= {"metering": "net_metering", "sell": {"yearend_rate": str(rates.bought), "trueup_month": 7}}
    if rates.whole:
        more["proration"] = {"demand": "none"}
    return {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": tariff_id,
        "name": tariff_id,
        "commodity": "water" if water else "electricity",
        "currency": "USD",
        "unit": "m3" if water else "kWh",
        "charges": charges,
    } | more
