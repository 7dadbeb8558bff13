"""Random tariffs and loads: every kind of charge, beside and inside each other."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from meter_pipeline_tests.billing.naive import Hour

HOLIDAYS = {date(2018, 1, 2), date(2018, 5, 3), date(2018, 12, 4)}
#: what the service of every random tariff has
ATTRIBUTES = {"customer_class": "residential", "contract_kw": "6.5", "solar_kw": "4.25", "rate_code": "B"}


def money(rng: random.Random, most: float, places: int = 5) -> str:
    return f"{rng.uniform(0.001, most):.{places}f}"


def schedule(rng: random.Random) -> dict[str, Any]:
    """Nothing, or seasons by month and rules in them."""
    if rng.random() < 0.25:
        return {}
    periods = ["off", "mid", "on"][: rng.choice((2, 3))]
    first = rng.randint(2, 6)
    seasons = {"summer": {"months": list(range(first, first + 4))}}
    rules = []
    for period in rng.sample(periods, len(periods)):
        for _ in range(rng.randint(0, 2)):
            begin = rng.randint(0, 20)
            rule: dict[str, Any] = {
                "period": period,
                "days": rng.choice(("all", "weekdays", "weekends", "holidays", ["mon", "wed", "sat"])),
                "from": f"{begin:02}:00",
                "to": f"{rng.randint(begin + 1, 24):02}:00",
            }
            if rng.random() < 0.4:
                rule["season"] = "summer"
            rules.append(rule)
    if rng.random() < 0.25:
        called = [f"2018-{month:02}-0{rng.randint(1, 3)}" for month in rng.sample(range(1, 13), 6)]
        rules.insert(
            0, {"period": rng.choice(periods), "dates": [*called, "2018-05-02"], "from": "15:00", "to": "19:00"}
        )
    return {"seasons": seasons, "time_of_use": {"periods": periods, "default": rng.choice(periods), "rules": rules}}


def ladder(rng: random.Random, base: int, of: str | None = None) -> list[dict[str, Any]]:
    limits = sorted(rng.sample(range(1, base), rng.randint(1, 3)))
    kind = {} if of is None else {"of": of}
    tiers: list[dict[str, Any]] = [{"upto": limit, "rate": money(rng, 0.4), **kind} for limit in limits]
    return [*tiers, {"rate": money(rng, 0.4)}]


def usage(rng: random.Random, code: str, periods: list[str]) -> dict[str, Any]:
    charge: dict[str, Any] = {"kind": "usage", "code": code, "name": code}
    if rng.random() < 0.3:
        charge["factor"] = rng.choice(("0.9", "1.05", "0.333"))
    kind = rng.choice(("rate", "rates", "tiers", "periods", "daily", "per_kw", "load_factor"))
    if kind == "rate":
        return charge | {"rate": money(rng, 0.4, rng.choice((3, 5, 8)))}
    if kind == "rates":
        return charge | {"rates": {p: money(rng, 0.4) for p in periods}}
    charge["allocation"] = rng.choice(("pro_rata", "by_period", "reached"))
    if kind == "periods":
        return charge | {"periods": {p: ladder(rng, 300) for p in periods}}
    of = {"daily": ("daily", 40), "per_kw": ("per_kw", 60), "load_factor": ("load_factor", 90)}.get(kind)
    return charge | {"tiers": ladder(rng, of[1], of[0]) if of else ladder(rng, 300)}


def demand(rng: random.Random, code: str, periods: list[str]) -> dict[str, Any]:
    charge: dict[str, Any] = {"kind": "demand", "code": code, "name": code}
    charge |= {"rate": money(rng, 12, 2)} if rng.random() < 0.6 else {"tiers": ladder(rng, 9)}
    if rng.random() < 0.4 and len(periods) > 1:
        charge["period"] = rng.choice(periods)
    if rng.random() < 0.2:
        charge["months"] = sorted(rng.sample(range(1, 13), 6))
    if rng.random() < 0.5:
        charge["ratchet"] = {"percent": rng.choice((50, 80, 100)), "months": rng.randint(0, 6)}
        if rng.random() < 0.3:
            charge["ratchet"]["floor"] = rng.randint(1, 5)
        if rng.random() < 0.3:
            charge["ratchet"]["sources"] = sorted(rng.sample(range(1, 13), 5))
    if rng.random() < 0.2:
        charge["contract"] = {"percent": rng.choice((60, "75.5", 100))}
    if rng.random() < 0.2:
        charge["whole"] = {"step": rng.choice((1, "0.1", "0.5")), "mode": rng.choice(("half_up", "up", "down"))}
    if "ratchet" not in charge and rng.random() < 0.4:
        charge["highest_days"] = rng.randint(2, 5)
    return charge


def fixed(rng: random.Random) -> dict[str, Any]:
    """An amount, by count or by steps of usage."""
    charge: dict[str, Any] = {"kind": "fixed", "code": "F", "name": "F", "per": rng.choice(("month", "day", "year"))}
    if rng.random() < 0.3:
        limits = sorted(rng.sample(range(1, 900), 2))
        return charge | {
            "steps": [*({"upto": k, "amount": money(rng, 30, 2)} for k in limits), {"amount": money(rng, 30, 2)}]
        }
    charge["amount"] = money(rng, 30, 2)
    return charge | ({"times": "solar_kw"} if rng.random() < 0.3 else {})


def discount(rng: random.Random, codes: list[str]) -> dict[str, Any]:
    """A percentage of the lines so far: taken off up to a cap, or by an attribute of the service."""
    rider: dict[str, Any] = {"kind": "rider", "code": "C", "name": "C", "of": codes}
    if rng.random() < 0.5:
        return rider | {"percent": f"-{money(rng, 40, 2)}", "cap": money(rng, 20, 2)}
    return rider | {"by": {"attribute": "rate_code", "values": {"A": 5, "B": money(rng, 9, 3), "*": 0}}}


def fuel(rng: random.Random) -> dict[str, Any]:
    """A factor that changes on the second day of a month."""
    steps = [{"from": "2015-01-01", "rate": money(rng, 0.05)}, {"from": "2018-05-03", "rate": money(rng, 0.05)}]
    steps.append({"from": f"2018-{rng.randint(6, 12):02}-02", "rate": money(rng, 0.05)})
    return {"kind": "rider", "code": "FU", "name": "FU", "dated": {"by": "service_date", "rates": steps}}


def low_power_factor(rng: random.Random) -> dict[str, Any]:
    rule: dict[str, Any] = {"target": rng.choice(("0.8", "0.9", "0.95", "1"))}
    if rng.random() < 0.5:
        rule |= {"rule": "points", "percent": rng.choice(("0.5", 1, "2.25"))}
    if rng.random() < 0.3:
        rule["credit"] = True
    return rule | ({"places": rng.randint(1, 4)} if rng.random() < 0.5 else {})


def measured(rng: random.Random, charges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The charges with blocks of each day and reactive energy among them: what net metering rules out."""
    counts_kw = any(t.get("of") in ("per_kw", "load_factor") for c in charges for t in c.get("tiers", []))
    changed = []
    for charge in charges:
        tiers = [t for ladder in charge.get("periods", {"": charge.get("tiers", [])}).values() for t in ladder]
        plain = charge["kind"] == "usage" and len(tiers) > 1 and not any("of" in t for t in tiers)
        if plain and "factor" not in charge and charge.get("basis") is None and rng.random() < 0.4:
            charge = charge | {"restart": "day"}
        if charge["kind"] == "demand" and rng.random() < 0.6:
            beside = () if "highest_days" in charge else ("above", "at_least", "power_factor")
            kind = rng.choice(("kva", "kvar", *beside))
            more: dict[str, dict[str, Any]] = {
                "kva": {"measure": "kva"},
                "kvar": {"measure": "kvar"},
                "above": {"measure": "kvar", "above": {"percent": rng.choice((30, 50, "48.4"))}},
                "at_least": {"at_least": {"percent": rng.choice((85, 90, 100)), "measure": "kva"}},
                "power_factor": {"power_factor": low_power_factor(rng)},
            }
            charge = charge | ({} if counts_kw and kind == "above" else more[kind])
        changed.append(charge)
    if rng.random() < 0.3:
        reactive = {
            "kind": "usage",
            "code": "Q",
            "name": "Q",
            "basis": "reactive",
            "above_percent": rng.choice((0, 40)),
        }
        changed.append(reactive | ({"rate": money(rng, 0.05)} if rng.random() < 0.6 else {"tiers": ladder(rng, 50)}))
    if rng.random() < 0.3:
        of = [c["code"] for c in changed if rng.random() < 0.6] or [changed[0]["code"]]
        rider = {"kind": "rider", "code": "PF", "name": "PF", "of": of, "power_factor": low_power_factor(rng)}
        changed.append(rider)
    return changed


def tariff(rng: random.Random) -> dict[str, Any]:
    """A native electricity tariff."""
    members = schedule(rng)
    periods = members["time_of_use"]["periods"] if members else ["all"]
    charges: list[dict[str, Any]] = []
    if rng.random() < 0.7:
        charges.append(fixed(rng))
    charges += [usage(rng, f"E{k}", periods) for k in range(rng.randint(1, 2))]
    schedule_of = members.get("time_of_use", {"default": "all", "rules": []})
    calendar = {schedule_of["default"], *(rule["period"] for rule in schedule_of["rules"] if "dates" not in rule)}
    charges += [demand(rng, f"D{k}", [p for p in periods if p in calendar]) for k in range(rng.randint(0, 2))]
    metering = rng.choice(("consumption", "consumption", "net_metering", "net_billing"))
    if metering != "net_metering" and rng.random() < 0.6:
        charges = measured(rng, charges)
    if metering != "net_metering" and rng.random() < 0.3:
        charges.append(fuel(rng))
    if rng.random() < 0.2:
        charges.append({"kind": "rider", "code": "NB", "name": "NB", "rate": money(rng, 0.05), "basis": "imports"})
    if rng.random() < 0.3:
        charges.append(discount(rng, [c["code"] for c in charges]))
    if rng.random() < 0.3:
        charges.append(
            {"kind": "rider", "code": "R", "name": "R", "percent": money(rng, 9, 3), "of": [charges[0]["code"]]}
        )
    if rng.random() < 0.5:
        of = [c["code"] for c in charges if rng.random() < 0.8] or [charges[0]["code"]]
        per = rng.choice(("month", "day"))
        charges.append({"kind": "minimum", "code": "M", "name": "M", "amount": money(rng, 90, 2), "of": of, "per": per})
    if rng.random() < 0.6:
        tax = {"kind": "tax", "code": "T", "name": "T", "percent": money(rng, 9, 3)}
        tax |= {"base_cap": money(rng, 60, 2)} if rng.random() < 0.2 else {}
        charges.append(tax | ({"exempt": ["residential"]} if rng.random() < 0.2 else {}))
    if metering != "consumption":
        rollover = rng.choice(("kwh", "money", "none")) if metering == "net_metering" else rng.choice(("kwh", "money"))
        sell: dict[str, Any] = {"rollover": rollover, "trueup_month": rng.randint(1, 12)}
        sell |= {"rate": money(rng, 0.1)} if rng.random() < 0.6 else {"rates": {p: money(rng, 0.1) for p in periods}}
        if rollover == "kwh" and metering == "net_metering" and rng.random() < 0.6:
            sell |= {"yearend_rate": money(rng, 0.06)} if rng.random() < 0.7 else {"trueup": "forfeit"}
        if rollover == "money":
            sell["offsets"] = rng.choice(("energy", "bill", "above_minimum"))
        members |= {"metering": metering, "sell": sell}
    head = {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": "T",
        "name": "T",
        "commodity": "electricity",
        "currency": "USD",
    }
    return head | {"unit": "kWh"} | members | {"charges": charges}


def load(rng: random.Random, solar: bool) -> list[Hour]:
    """One to three whole days at the beginning of some months of 2018, in tenths of a watt-hour."""
    hours = []
    for month in sorted(rng.sample(range(1, 13), rng.randint(2, 5))):
        first, scale = datetime(2018, month, 1), rng.choice((1, 3, 8))  # noqa: DTZ001 - wall-clock time
        for h in range(24 * rng.randint(1, 3)):
            taken = Fraction(rng.randint(0, 10_000 * scale), 10_000)
            sent = Fraction(rng.randint(0, 20_000 * scale), 10_000) if solar and 8 <= h % 24 < 17 else Fraction(0)
            reactive = Fraction(rng.randint(0, 12_000 * scale), 10_000)
            hours.append(Hour(first + timedelta(hours=h), taken, sent, reactive))
    return hours
