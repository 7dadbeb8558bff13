"""An independent calculator: what a native electricity tariff costs, one hour at a time, in fractions.

It knows nothing of the product: it reads the document as a person would, adds up hours in dictionaries and multiplies.
Months are calendar months, whole however few of their days the load has; seasons of the tariffs it is given change with
the month.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


#: what the service has that the tariffs of random_tariffs.py ask for
ATTRIBUTES: Final = {"contract_kw": "6.5", "solar_kw": "4.25", "rate_code": "B"}


@dataclass(frozen=True)
class Hour:
    """An hour of a load: its local start, what was taken and what was sent, in kWh, and kVArh."""

    start: datetime
    taken: Fraction
    sent: Fraction
    reactive: Fraction = Fraction(0)

    def measured(self, measure: str) -> Fraction:
        """kW, kVA or kVAr of the hour."""
        figures = {"kw": self.taken, "kvar": self.reactive}
        return figures[measure] if measure in figures else root(self.taken**2 + self.reactive**2)


def root(square: Fraction) -> Fraction:
    """A square root to sixty digits."""
    digits = Context(prec=60)
    return Fraction(digits.sqrt(digits.divide(Decimal(square.numerator), Decimal(square.denominator))))


def number(value: Any) -> Fraction:
    return Fraction(str(value))


def clock(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def period_of(document: dict[str, Any], start: datetime, holidays: set[date]) -> str:
    """The time-of-use period of an hour: the first rule that holds."""
    if "time_of_use" not in document:
        return "all"
    schedule = document["time_of_use"]
    holiday = start.date() in holidays
    for rule in schedule["rules"]:
        if "dates" in rule and start.date().isoformat() not in rule["dates"]:
            continue
        season = document.get("seasons", {}).get(rule.get("season"))
        if season is not None and start.month not in season["months"]:
            continue
        days = rule.get("days", "all")
        if days == "weekdays" and (start.weekday() > 4 or holiday):
            continue
        if days == "weekends" and start.weekday() < 5:
            continue
        if days == "holidays" and not holiday:
            continue
        if isinstance(days, list) and DAYS[start.weekday()] not in days:
            continue
        minute = start.hour * 60 + start.minute
        if clock(rule.get("from", "00:00")) <= minute < clock(rule.get("to", "24:00")):
            return str(rule["period"])
    return str(schedule["default"])


@dataclass
class Month:
    """What a month's hours add up to."""

    month: int
    days: set[date] = field(default_factory=set)
    taken: dict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    sent: dict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    peaks: dict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    daily: dict[date, dict[str, Fraction]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Fraction)))
    day_peaks: dict[str, dict[date, Fraction]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Fraction))
    )
    highest: Fraction = Fraction(0)
    reactive: Fraction = Fraction(0)

    def power_factor(self, places: int) -> Fraction:
        """The month's average, rounded half up."""
        used = sum(self.taken.values(), Fraction(0))
        if not used and not self.reactive:
            return Fraction(1)
        exact = used / root(used**2 + self.reactive**2)
        return Fraction(int(exact * 10**places * 2 + 1) // 2, 10**places)


@dataclass
class Account:
    """What one month leaves for the next."""

    units: dict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    money: Fraction = Fraction(0)
    peaks: list[dict[str, Fraction]] = field(default_factory=list)
    months: list[int] = field(default_factory=list)


def bills(document: dict[str, Any], hours: list[Hour], holidays: set[date]) -> list[dict[str, Fraction]]:
    """Every month's lines by code, and ``total``."""
    found: dict[tuple[int, int], Month] = {}
    demands = [c for c in document["charges"] if c["kind"] == "demand"]
    for hour in hours:
        month = found.setdefault((hour.start.year, hour.start.month), Month(hour.start.month))
        period = period_of(document, hour.start, holidays)
        month.days.add(hour.start.date())
        month.taken[period] += hour.taken
        month.sent[period] += hour.sent
        month.highest = max(month.highest, hour.taken)
        month.reactive += hour.reactive
        month.daily[hour.start.date()][period] += hour.taken
        for demand in demands:
            wanted = demand.get("months", range(1, 13))
            if hour.start.month in wanted and demand.get("period", period) == period:
                code = demand["code"]
                found_kw = hour.measured(demand.get("measure", "kw"))
                month.peaks[code] = max(month.peaks[code], found_kw)
                of_days = month.day_peaks[code]
                of_days[hour.start.date()] = max(of_days[hour.start.date()], found_kw)
                for measure in ("kw", "kva", "kvar"):
                    beside = f"{code} {measure}"
                    month.peaks[beside] = max(month.peaks[beside], hour.measured(measure))
    account = Account()
    return [bill(document, month, account) for month in found.values()]


def bill(document: dict[str, Any], month: Month, account: Account) -> dict[str, Fraction]:
    """One month's lines; what it leaves is written into the account."""
    periods = document["time_of_use"]["periods"] if "time_of_use" in document else ["all"]
    metering, sell = document.get("metering", "consumption"), document.get("sell", {})
    rollover = sell.get("rollover", "kwh")
    charged, left = dict(month.taken), dict(month.sent)
    if metering == "net_metering":
        for p in periods:
            balance = month.taken[p] - month.sent[p] - account.units[p]
            charged[p], left[p] = max(balance, Fraction(0)), max(-balance, Fraction(0))
    lines: dict[str, Fraction] = {}
    for charge in document["charges"]:
        lines[charge["code"]] = cost(document, charge, month, account, charged, left, lines)
    rates = {p: number(sell["rates"][p] if "rates" in sell else sell.get("rate", 0)) for p in periods}
    earned = sum((left.get(p, Fraction(0)) * rates[p] for p in periods), Fraction(0))
    if metering == "net_billing" and rollover != "money":
        lines["EXPORT"] = -earned
    if metering == "net_metering" and rollover == "none":
        lines["SURPLUS"] = -earned
    if rollover == "money" and metering != "consumption":
        pool = account.money + earned
        codes = {c["code"] for c in document["charges"] if sell.get("offsets") == "bill" or c["kind"] == "usage"}
        owed = sum((v for k, v in lines.items() if k in codes), Fraction(0))
        if sell.get("offsets") == "above_minimum":
            owed = min(
                [owed, *(room(c, lines, codes, len(month.days)) for c in document["charges"] if c["kind"] == "minimum")]
            )
        used = min(pool, max(owed, Fraction(0)))
        lines["CREDIT-USED"], account.money = -used, pool - used
    if metering == "net_metering" and rollover == "kwh":
        account.units = defaultdict(Fraction, {p: left[p] for p in periods})
        if month.month == int(sell.get("trueup_month", 12)):
            rate = number(sell.get("yearend_rate", 0))
            if sell.get("trueup") == "forfeit" or rate:
                if sell.get("trueup") != "forfeit":
                    lines["YEAR-END-CREDIT"] = -rate * sum(account.units.values(), Fraction(0))
                account.units = defaultdict(Fraction)
    account.peaks.append(dict(month.peaks) | {"": month.highest})
    account.months.append(month.month)
    return lines | {"total": sum(lines.values(), Fraction(0))}


def room(minimum: dict[str, Any], lines: dict[str, Fraction], energy: set[str], days: int) -> Fraction:
    """What credit may pay of energy while a minimum charge gets what it asks for."""
    counted = {*minimum.get("of", [code for code in lines if code != minimum["code"]]), minimum["code"]}
    per = {"month": Fraction(1), "day": Fraction(days), "year": Fraction(1, 12)}[minimum.get("per", "month")]
    above = sum((lines[code] for code in counted), Fraction(0)) - number(minimum["amount"]) * per
    return max(above, Fraction(0)) + sum((lines[code] for code in energy - counted), Fraction(0))


def cost(
    document: dict[str, Any],
    charge: dict[str, Any],
    month: Month,
    account: Account,
    charged: dict[str, Fraction],
    left: dict[str, Fraction],
    lines: dict[str, Fraction],
) -> Fraction:
    """One charge."""
    days = len(month.days)
    scope = charge.get("of", list(lines))
    base = sum((lines[c] for c in scope if c in lines), Fraction(0))
    if charge["kind"] == "fixed":
        per = charge.get("per", "month")
        amount, used = charge.get("amount"), sum(charged.values(), Fraction(0))
        for step in reversed(charge.get("steps", [])):
            if "upto" not in step or used <= number(step["upto"]):
                amount = step["amount"]
        times = number(ATTRIBUTES[charge["times"]]) if "times" in charge else Fraction(1)
        return number(amount) * times * {"month": Fraction(1), "day": Fraction(days), "year": Fraction(1, 12)}[per]
    if charge["kind"] == "demand":
        if not owed(document, charge, min(month.days)):
            return Fraction(0)
        return blocks(charge, billing_demand(charge, month, account))
    if charge["kind"] == "minimum":
        per = charge.get("per", "month")
        least = number(charge["amount"]) * {"month": Fraction(1), "day": Fraction(days), "year": Fraction(1, 12)}[per]
        return max(least - max(base, Fraction(0)), Fraction(0))
    if "power_factor" in charge:
        return base * short_of(charge["power_factor"], month)
    if "percent" in charge:
        exempt = "residential" in charge.get("exempt", [])
        base = min(base, number(charge["base_cap"])) if "base_cap" in charge else base
        found = Fraction(0) if exempt else base * number(charge["percent"]) / 100
        most = number(charge["cap"]) if "cap" in charge else abs(found)
        return max(min(found, most), -most)
    if charge.get("basis") == "imports":
        return sum(month.taken.values(), Fraction(0)) * number(charge["rate"])
    if charge["kind"] == "rider" and "by" in charge:
        return base * number(charge["by"]["values"][ATTRIBUTES[charge["by"]["attribute"]]]) / 100
    if "dated" in charge:
        found = Fraction(0)
        for day, taken in month.daily.items():
            since = [step for step in charge["dated"]["rates"] if step["from"] <= day.isoformat()]
            found += sum(taken.values(), Fraction(0)) * number(since[-1]["rate"])
        return found
    return usage(document, charge, month, account, charged, left)


def owed(document: dict[str, Any], charge: dict[str, Any], day: date) -> bool:
    """Whether a demand charge is owed in a day's month: in its months, and where its period can occur at all."""
    if day.month not in charge.get("months", range(1, 13)):
        return False
    if "time_of_use" in document:
        schedule = document["time_of_use"]
        calendar = [rule for rule in schedule["rules"] if "dates" not in rule]
        document = document | {"time_of_use": schedule | {"rules": calendar}}
    hours = [datetime(day.year, day.month, d, h) for d in range(1, 8) for h in range(24)]  # noqa: DTZ001 - wall-clock time
    every = {hour.date() for hour in hours}
    possible = {period_of(document, hour, holidays) for hour in hours for holidays in (set[date](), every)}
    return charge.get("period") is None or charge["period"] in possible


def billing_demand(charge: dict[str, Any], month: Month, account: Account) -> Fraction:
    """The month's peak, or the ratchet's share of an earlier one."""
    peak = month.peaks[charge["code"]]
    if "highest_days" in charge:
        count = min(int(charge["highest_days"]), len(month.days))
        peak = sum(sorted(month.day_peaks[charge["code"]].values(), reverse=True)[:count], Fraction(0)) / count
    if "power_factor" in charge:
        peak *= 1 + short_of(charge["power_factor"], month)
    if "at_least" in charge:
        other = charge["at_least"]
        peak = max(peak, month.peaks[f"{charge['code']} {other['measure']}"] * number(other["percent"]) / 100)
    if "above" in charge:
        peak = max(peak - month.peaks[f"{charge['code']} kw"] * number(charge["above"]["percent"]) / 100, Fraction(0))
    if "contract" in charge:
        agreed = number(ATTRIBUTES["contract_kw"]) * number(charge["contract"]["percent"]) / 100
        once = {k: v for k, v in charge.items() if k not in ("contract", "whole")}
        peak = max(billing_demand(once, month, account), agreed)
    if "whole" in charge:
        step, mode = number(charge["whole"]["step"]), charge["whole"]["mode"]
        once = {k: v for k, v in charge.items() if k not in ("contract", "whole")}
        steps = max(billing_demand(once, month, account), peak) / step
        return step * {"half_up": int(steps + Fraction(1, 2)), "up": -int(-steps // 1), "down": int(steps)}[mode]
    if "ratchet" not in charge or "contract" in charge:
        return peak
    ratchet = charge["ratchet"]
    reach = int(ratchet["months"])
    earlier = [(m, p) for m, p in zip(account.months, account.peaks, strict=True) if m >= month.month - reach]
    sources = ratchet.get("sources", range(1, 13))
    held = max((p.get(charge["code"], Fraction(0)) for m, p in earlier if m in sources), default=Fraction(0))
    return max(peak, held * number(ratchet["percent"]) / 100, number(ratchet.get("floor", 0)))


def short_of(rule: dict[str, Any], month: Month) -> Fraction:
    """What a low power factor adds to an amount, as a share of it."""
    found, target = month.power_factor(int(rule.get("places", 4))), number(rule["target"])
    if found >= target and not rule.get("credit"):
        return Fraction(0)
    if rule.get("rule", "ratio") == "ratio":
        return target / max(found, Fraction(1, 10 ** int(rule.get("places", 4)))) - 1
    return (target - found) * number(rule["percent"])


def blocks(charge: dict[str, Any], quantity: Fraction) -> Fraction:
    """Marginal blocks of a demand."""
    if "rate" in charge:
        return quantity * number(charge["rate"])
    found, lower = Fraction(0), Fraction(0)
    for tier in charge["tiers"]:
        upper = min(quantity, number(tier["upto"])) if "upto" in tier else quantity
        found += max(upper - lower, Fraction(0)) * number(tier["rate"])
        lower = max(lower, upper)
    return found


def usage(
    document: dict[str, Any],
    charge: dict[str, Any],
    month: Month,
    account: Account,
    charged: dict[str, Fraction],
    left: dict[str, Fraction],
) -> Fraction:
    """A charge on usage: each period's quantity through its tiers."""
    periods = document["time_of_use"]["periods"] if "time_of_use" in document else ["all"]
    if charge.get("basis") == "reactive":
        free = sum(month.taken.values(), Fraction(0)) * number(charge.get("above_percent", 0)) / 100
        return blocks(charge, max(month.reactive - free, Fraction(0)))
    if charge.get("restart") == "day":
        once = {k: v for k, v in charge.items() if k != "restart"}
        days = (Month(month.month, {day}, taken=used) for day, used in month.daily.items())
        return sum((usage(document, once, day, account, dict(day.taken), {}) for day in days), Fraction(0))
    counted = left if charge.get("basis") == "export" else charged
    if charge.get("basis") == "export" and document.get("sell", {}).get("rollover", "kwh") != "none":
        counted = month.sent
    quantities = {p: counted.get(p, Fraction(0)) * number(charge.get("factor", 1)) for p in periods}
    whole = sum(quantities.values(), Fraction(0))
    demands = [c for c in document["charges"] if c["kind"] == "demand" and "period" not in c]
    demand = billing_demand(demands[0], month, account) if len(demands) == 1 else month.highest
    served = len(month.days)
    sizes = {"daily": Fraction(served), "per_kw": demand, "load_factor": demand * served * Fraction(24, 100)}
    found = Fraction(0)
    for p, quantity in quantities.items():
        if "rate" in charge or "rates" in charge:
            found += quantity * number(charge["rate"] if "rate" in charge else charge["rates"][p])
            continue
        tiers = charge["tiers"] if "tiers" in charge else charge["periods"][p]
        allocation = charge.get("allocation", "pro_rata")
        fills = quantity if allocation == "by_period" else whole
        lower = Fraction(0)
        for tier in tiers:
            upper = fills
            if "upto" in tier:
                of = tier.get("of", "period")
                size = number(tier["upto"]) * sizes.get(of, Fraction(1))
                upper = min(fills, size)
            inside = max(upper - lower, Fraction(0))
            if allocation == "by_period":
                share = inside
            elif allocation == "reached":
                share = quantity if upper == fills and lower < fills else Fraction(0)
            else:
                share = quantity * inside / whole if whole else Fraction(0)
            found += share * number(tier["rate"])
            lower = max(lower, upper)
    return found
