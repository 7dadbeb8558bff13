"""Agreement with NREL-PySAM's Utilityrate5, to the cent in every month, on a generated family of tariffs.

PySAM counts in doubles; a month's bill may differ from ours by rounding noise far below a cent. Where PySAM is known to
be odd (reference: ssc cmod_utilityrate5.cpp) the family stays away and docs/tariffs.md says why: time-of-use surplus
under net metering rolls to the period of the same time of day, kWh/kW tiers select bands instead of setting limits, net
billing fills tiers hour by hour, and the annual minimum is measured before top-ups.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from meter_pipeline.billing.load import read_load
from meter_pipeline.billing.rate_calculator import price
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline_tests.billing.support import raw

pytestmark = pytest.mark.oracle
Utilityrate5 = pytest.importorskip("PySAM.Utilityrate5", reason="the pysam extra is not installed")

NO_LIMIT = 1e38
FEATURES = ("tiers", "tou", "demand_flat", "demand_tou", "ratchet", "minimum", "net_metering", "net_billing")
FAMILY = [
    ("tiers",),
    ("tou",),
    ("tiers", "tou"),
    ("demand_flat",),
    ("tou", "demand_tou"),
    ("tiers", "tou", "demand_flat", "demand_tou"),
    ("demand_flat", "ratchet"),
    ("minimum",),
    ("tiers", "minimum", "demand_flat"),
    ("net_metering",),
    ("tiers", "net_metering", "minimum"),
    ("net_billing",),
    ("tou", "net_billing"),
    ("tou", "net_billing", "demand_tou"),
    ("tiers", "daily"),
]


def tariff_of(features: tuple[str, ...], rng: np.random.Generator) -> dict[str, Any]:
    """A URDB rate with the given features and random figures."""
    periods = 3 if "tou" in features else 1
    unit = "kWh daily" if "daily" in features else "kWh"
    limits = (
        sorted(rng.choice(np.arange(5, 40), 2, replace=False).tolist())
        if "daily" in features
        else [300, int(rng.integers(400, 900))]
    )
    structure = []
    for _ in range(periods):
        tiers = (
            [{"max": m, "unit": unit, "rate": round(float(rng.random()) / 4, 5)} for m in limits]
            if "tiers" in features
            else []
        )
        tiers.append(
            {"unit": unit, "rate": round(float(rng.random()) / 3, 5), "adj": round(float(rng.random()) / 100, 5)}
        )
        structure.append([tier | {"sell": 0.0351} if "net_billing" in features else tier for tier in tiers])
    schedule = [[(h // 6 + m // 6) % periods for h in range(24)] for m in range(12)]
    document: dict[str, Any] = {
        "name": " ".join(features),
        "energyratestructure": structure,
        "energyweekdayschedule": schedule,
        "energyweekendschedule": [[0] * 24] * 12,
        "fixedchargefirstmeter": round(float(rng.random()) * 20, 2),
        "fixedchargeunits": "$/month",
    }
    if "demand_flat" in features:
        document["flatdemandstructure"] = [[{"max": 2, "rate": 3.21}, {"rate": 7.654}]]
        document["flatdemandmonths"] = [0] * 12
    if "demand_tou" in features:
        document["demandratestructure"] = [
            [{"max": 1.5, "rate": 1.5}, {"rate": 1.75}],
            [{"max": 1.5, "rate": 2.25}, {"rate": 4.125}],
        ]
        document["demandweekdayschedule"] = [[1 if 12 <= h < 18 else 0 for h in range(24)]] * 12
        document["demandweekendschedule"] = [[0] * 24] * 12
    if "minimum" in features:
        document |= {"mincharge": 95.5, "minchargeunits": "$/month"}
    if "ratchet" in features:
        document |= {"lookbackpercent": 0.9, "lookbackrange": 11}
    if "net_metering" in features:
        document["dgrules"] = "Net Metering"
    if "net_billing" in features:
        document["dgrules"] = "Net Billing Hourly"
    return document


def matrix(structure: list[list[dict[str, Any]]], months: list[int] | None = None) -> list[list[float]]:
    rows = []
    for p, tiers in enumerate(structure if months is None else [structure[m] for m in months]):
        for t, tier in enumerate(tiers):
            rows.append([p + (months is None), t + 1, tier.get("max", NO_LIMIT), tier["rate"] + tier.get("adj", 0)])
    return rows


def pysam_bill(document: dict[str, Any], load: list[float], generation: list[float]) -> list[float]:
    """PySAM's bill of each month of the first year."""
    model = Utilityrate5.new()
    rates = model.ElectricityRates
    unit = 2 if document["energyratestructure"][0][0]["unit"] == "kWh daily" else 0
    sell = document["energyratestructure"][0][0].get("sell", 0.0)
    weekday = [[p + 1 for p in row] for row in document["energyweekdayschedule"]]
    weekend = [[p + 1 for p in row] for row in document["energyweekendschedule"]]
    option = {"Net Metering": 0, "Net Billing Hourly": 2}.get(document.get("dgrules", ""), 0)
    energy = [[p, t, top, unit, rate, sell] for p, t, top, rate in matrix(document["energyratestructure"])]
    demand = "flatdemandstructure" in document or "demandratestructure" in document
    rates.assign(
        {
            "en_electricity_rates": 1,
            "ur_metering_option": option,
            "ur_monthly_fixed_charge": document["fixedchargefirstmeter"],
            "ur_monthly_min_charge": document.get("mincharge", 0.0),
            "ur_annual_min_charge": 0.0,
            "ur_ec_tou_mat": energy,
            "ur_ec_sched_weekday": weekday,
            "ur_ec_sched_weekend": weekend,
            "ur_en_ts_sell_rate": 0,
            "ur_en_ts_buy_rate": 0,
            "ur_nm_yearend_sell_rate": 0.0,
            "ur_nm_credit_month": 11,
            "ur_nm_credit_rollover": 1,
            "ur_dc_enable": int(demand),
        }
    )
    if demand:
        tou = document.get("demandratestructure", [[{"rate": 0.0}]])
        flat = document.get("flatdemandstructure", [[{"rate": 0.0}]])
        rates.assign(
            {
                "ur_dc_tou_mat": matrix(tou),
                "ur_dc_flat_mat": matrix(flat, document.get("flatdemandmonths", [0] * 12)),
                "ur_dc_sched_weekday": [
                    [p + 1 for p in r] for r in document.get("demandweekdayschedule", [[0] * 24] * 12)
                ],
                "ur_dc_sched_weekend": [
                    [p + 1 for p in r] for r in document.get("demandweekendschedule", [[0] * 24] * 12)
                ],
            }
        )
    if "lookbackpercent" in document:
        rates.assign(
            {
                "ur_enable_billing_demand": 1,
                "ur_billing_demand_minimum": 0.0,
                "ur_billing_demand_lookback_period": document["lookbackrange"],
                "ur_billing_demand_lookback_percentages": [[100 * document["lookbackpercent"], 1]] * 12,
                "ur_dc_billing_demand_periods": [[1, 1]],
                "ur_yearzero_usage_peaks": [0.0] * 12,
            }
        )
    model.Lifetime.assign({"analysis_period": 1, "inflation_rate": 0.0, "system_use_lifetime_output": 0})
    model.SystemOutput.assign({"gen": generation, "degradation": [0.0]})
    model.Load.assign({"load": load})
    model.execute()
    return list(model.Outputs.year1_monthly_utility_bill_w_sys)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("features", FAMILY, ids=" ".join)
def test_every_month_agrees_to_the_cent(features: tuple[str, ...], seed: int) -> None:
    rng = np.random.default_rng([seed, FAMILY.index(features)])
    hour = np.arange(8760)
    load = np.round(0.9 + 2 * rng.random(8760) + 0.5 * np.cos(2 * np.pi * hour / 8760), 3)
    sun = np.maximum(np.sin(2 * np.pi * (hour % 24 - 6) / 24), 0) * (1.2 - np.cos(2 * np.pi * hour / 8760))
    solar = (
        np.round(2.2 * sun * rng.random(8760), 3) if {"net_metering", "net_billing"} & set(features) else np.zeros(8760)
    )
    document = tariff_of(features, rng)
    first = datetime(2018, 1, 1)  # noqa: DTZ001 - a load in wall-clock time
    rows = [
        f"{(first + timedelta(hours=int(h))).isoformat()},{net:.3f}" for h, net in zip(hour, load - solar, strict=True)
    ]
    ours = price(parse_tariff(raw(document)), read_load(["interval_start,kwh", *rows]))
    theirs = pysam_bill(document, load.tolist(), solar.tolist())
    assert [float(m["total"]) for m in ours["monthly"]] == pytest.approx(theirs, abs=0.005)
