"""One tariff on one load: what ``meter-pipeline tariffs price`` prints.

Amounts are exact (12 decimals), not rounded by line: published figures are compared with them to the cent. Months are
those of the load.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from meter_pipeline.billing.fixed_point import quotient, same_scale, scaled
from meter_pipeline.billing.pricing import EXACT_PLACES, Position, amounts
from meter_pipeline.billing.tariffs.fields import TariffRefusedError
from meter_pipeline.billing.tariffs.model import DemandCharge, Tariff

#: Quantities of a load are kept to a billionth of a kWh: spreadsheets and programs write 601.1999999999999 for 601.2.
LOAD_SCALE: Final = 10**9
COMPONENTS: Final = ("energy", "demand_flat", "demand_tou", "fixed", "minimum", "tax", "total")


class LoadRefusedError(ValueError):
    """A load that can't be read; the message names line and column."""


@dataclass(frozen=True, slots=True)
class Load:
    """Interval starts in local wall-clock time and their kWh in 1/LOAD_SCALE; net exports are negative."""

    local: tuple[datetime, ...]
    kwh: tuple[int, ...]
    interval_minutes: int


def _stamp(text: str, zone: ZoneInfo | None, line: int) -> tuple[datetime, datetime]:
    """Wall clock and a sortable instant. With an offset and a zone given it is converted; without a zone it is read as
    written."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise LoadRefusedError(f"load.interval_start: line {line}: {text[:40]!r} is not an ISO time") from error
    if moment.tzinfo is None:
        return moment, moment.replace(tzinfo=UTC)
    local = moment.astimezone(zone) if zone is not None else moment
    return local.replace(tzinfo=None), moment.astimezone(UTC)


def _quantity(text: str, line: int) -> int:
    try:
        value = Decimal(text.strip()) if text.isascii() and "_" not in text else None
    except ArithmeticError:
        value = None
    if value is None or not value.is_finite() or abs(value) > 10**9:
        raise LoadRefusedError(f"load.kwh: line {line}: {text[:40]!r} is not a number of kWh")
    return int((value * LOAD_SCALE).quantize(Decimal(1), ROUND_HALF_EVEN))


def read_load(lines: Iterable[str], zone: str | None = None) -> Load:
    """A load from CSV lines with columns interval_start and kwh, in any order of rows. Raises LoadRefusedError.

    Stamps with an offset are converted to ``zone`` where one is given; stamps without one are local wall-clock times.
    """
    rows = csv.DictReader(lines)
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    if "interval_start" not in names or "kwh" not in names:
        raise LoadRefusedError("load: needs the columns interval_start and kwh")
    info = ZoneInfo(zone) if zone else None
    read: list[tuple[datetime, datetime, int]] = []
    for line, row in enumerate(rows, start=2):
        local, instant = _stamp(row[names["interval_start"]] or "", info, line)
        read.append((instant, local, _quantity(row[names["kwh"]] or "", line)))
    if len(read) < 2:
        raise LoadRefusedError("load: needs at least two intervals to tell their length")
    read.sort(key=lambda r: r[0])
    steps = [b[0] - a[0] for a, b in pairwise(read)]
    shortest = min((s for s in steps if s > timedelta(0)), default=timedelta(hours=1))
    minutes = shortest // timedelta(minutes=1)
    if shortest != timedelta(minutes=minutes) or not 1 <= minutes <= 60 or 60 % minutes:
        raise LoadRefusedError(
            f"load.interval_start: intervals of {shortest} are not 1 to 60 minutes that divide an hour"
        )
    for k, step in enumerate(steps):
        # A wall clock that is set back writes its hour twice; any other repetition is a row too many.
        if step == timedelta(0) and not (info is not None and _ambiguous(read[k][1], info)):
            raise LoadRefusedError(f"load.interval_start: {read[k][1].isoformat()} comes twice")
    return Load(tuple(r[1] for r in read), tuple(r[2] for r in read), int(minutes))


def _ambiguous(local: datetime, zone: ZoneInfo) -> bool:
    return local.replace(tzinfo=zone, fold=0).utcoffset() != local.replace(tzinfo=zone, fold=1).utcoffset()


def load_file(path: Path, zone: str | None = None) -> Load:
    """As read_load, from a file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return read_load(file, zone)


@dataclass(slots=True)
class Month:
    """A month's determinants in 1/LOAD_SCALE: per period net, imports and exports; per register its peak and days in
    season."""

    name: str
    month: int
    days: int
    net: list[int]
    imports: list[int]
    exports: list[int]
    peaks: list[int]
    register_days: list[int]


def _windows(load: Load, minutes: int | None) -> tuple[list[int], int]:
    """kWh summed over demand windows, one per interval (repeated), and the windows per hour."""
    if minutes is None or minutes <= load.interval_minutes:
        return list(load.kwh), 60 // load.interval_minutes
    if minutes % load.interval_minutes or 60 % minutes:
        raise TariffRefusedError(
            "demandwindow", f"{minutes} minutes can't be made of {load.interval_minutes} minute intervals"
        )
    sums: dict[datetime, int] = {}
    keys = [t.replace(minute=t.minute // minutes * minutes, second=0) for t in load.local]
    for key, kwh in zip(keys, load.kwh, strict=True):
        sums[key] = sums.get(key, 0) + kwh
    return [sums[k] for k in keys], 60 // minutes


def months_of(tariff: Tariff, load: Load) -> list[Month]:
    """Determinants of every calendar month the load touches."""
    windows, per_hour = _windows(load, tariff.demand_minutes)
    months: dict[tuple[int, int], Month] = {}
    days: dict[tuple[int, int], set[Any]] = {}
    periods, registers = len(tariff.schedule.periods), len(tariff.registers)
    placed: dict[tuple[int, bool, int], Any] = {}
    for local, kwh, window in zip(load.local, load.kwh, windows, strict=True):
        key = local.year, local.month
        month = months.get(key)
        if month is None:
            month = months[key] = Month(
                f"{key[0]:04}-{key[1]:02}",
                key[1],
                0,
                [0] * periods,
                [0] * periods,
                [0] * periods,
                [0] * registers,
                [0] * registers,
            )
            days[key] = set()
        days[key].add(local.date())
        moment = (local.toordinal(), False, local.hour * 60 + local.minute)
        if moment not in placed:
            placed[moment] = (
                tariff.schedule.period(local, False),
                [r for r, register in enumerate(tariff.registers) if register.holds(local, False)],
            )
        period, held = placed[moment]
        month.net[period] += kwh
        if kwh >= 0:
            month.imports[period] += kwh
        else:
            month.exports[period] -= kwh
        for r in held:
            month.peaks[r] = max(month.peaks[r], window * per_hour)
    for key, month in months.items():
        month.days = len(days[key])
        month.register_days = [sum(r.in_season(d) for d in days[key]) for r in tariff.registers]
    return list(months.values())


def _netted(tariff: Tariff, months: Sequence[Month]) -> tuple[list[list[int]], list[list[int]]]:
    """Use and export per month and period under the tariff's metering rule; net metering rolls a period's surplus to
    the next month."""
    if tariff.metering in ("net_billing", "buy_all_sell_all"):
        return [m.imports for m in months], [m.exports for m in months]
    use: list[list[int]] = []
    surplus: list[list[int]] = []
    carry = [0] * len(tariff.schedule.periods)
    rolls = tariff.metering == "net_metering" and (tariff.sell is None or tariff.sell.rollover == "kwh")
    for month in months:
        net = [n - c for n, c in zip(month.net, carry, strict=True)]
        use.append([max(n, 0) for n in net])
        surplus.append([max(-n, 0) for n in net])
        carry = surplus[-1] if rolls else carry
    return use, surplus


def _history(tariff: Tariff, months: Sequence[Month]) -> list[list[int]]:
    """For each month the highest peak of the months a ratchet looks back on."""
    look = max((c.ratchet.months for c in tariff.charges if isinstance(c, DemandCharge) and c.ratchet), default=0)
    return [
        [max((m.peaks[r] for m in months[max(0, k - look) : k]), default=0) for r in range(len(tariff.registers))]
        for k in range(len(months))
    ]


def price(tariff: Tariff, load: Load) -> dict[str, Any]:
    """The contract's document: monthly and annual energy, demand, fixed, minimum, tax and total, as exact decimals.

    Raises TariffRefusedError where the tariff needs more than a load (attributes of a service), naming the field.
    """
    if tariff.commodity != "electricity":
        raise TariffRefusedError("commodity", f"a load in kWh can't be priced by a {tariff.commodity} tariff")
    if tariff.attributes:
        raise TariffRefusedError("charges.by", f"needs the service's {', '.join(sorted(tariff.attributes))}")
    months = months_of(tariff, load)
    use, surplus = _netted(tariff, months)
    size = len(months)
    # A month that the load covers in part is still a month: days are prorated in billing, not here.
    whole = np.array([m.days for m in months], np.int64)
    position = Position(
        energy=np.array(use, dtype=object),
        export=np.array(surplus, dtype=object),
        days=whole,
        period_days=whole.copy(),
        peaks=np.array([m.peaks for m in months], dtype=object).reshape(size, -1),
        register_days=np.array([m.register_days for m in months], np.int64).reshape(size, -1),
        history=np.array(_history(tariff, months), dtype=object).reshape(size, -1),
        months=np.array([m.month for m in months], np.int64),
        scale=LOAD_SCALE,
        attributes={"customer_class": np.array([""] * size, dtype=object)},
    )
    matrix = amounts(tariff, position, exact=True, closing=True)
    rows = []
    for k in range(size):
        row: dict[str, int] = dict.fromkeys(COMPONENTS, 0)
        for line, amount in zip(tariff.lines, matrix[k], strict=True):
            row[_column(line.component)] += int(amount)
        row["total"] = sum(row.values())
        rows.append(row)
    _money_credits(tariff, surplus, rows)
    _year_end(tariff, surplus, rows)
    monthly = [
        {
            "month": m.name,
            "energy_kwh": _decimal(sum(m.net), LOAD_SCALE),
            **{c: _decimal(row[c], 10**EXACT_PLACES) for c in COMPONENTS},
        }
        for m, row in zip(months, rows, strict=True)
    ]
    annual = {c: _decimal(sum(row[c] for row in rows), 10**EXACT_PLACES) for c in COMPONENTS}
    lines = [
        {
            "line": line.key,
            "name": line.name,
            "component": line.component,
            "amount": _decimal(sum(int(a) for a in matrix[:, k]), 10**EXACT_PLACES),
        }
        for k, line in enumerate(tariff.lines)
    ]
    return {
        "tariff": tariff.name,
        "source": tariff.source,
        "monthly": monthly,
        "annual": annual,
        "lines": lines,
        "notes": list(tariff.notes),
        "refused": None,
    }


def _column(component: str) -> str:
    # Riders on usage and export credits are part of what energy costs; the contract has no column of their own for
    # them.
    return component if component in COMPONENTS else "energy"


def _decimal(number: int, scale: int) -> Decimal:
    value = Decimal(number) / scale
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def _money_credits(tariff: Tariff, surplus: Sequence[Sequence[int]], rows: Sequence[dict[str, int]]) -> None:
    """Net metering with credits in money: exports earn the sell rate, credits pay energy of this month and later ones."""
    sell = tariff.sell
    if tariff.metering != "net_metering" or sell is None or sell.rollover != "money":
        return
    rates, places = same_scale(list(sell.rates))
    pool = 0
    for row, left in zip(rows, surplus, strict=True):
        earned = sum(kwh * rate for kwh, rate in zip(left, rates, strict=True))
        pool += int(quotient(np.array([earned * 10**EXACT_PLACES], dtype=object), LOAD_SCALE * 10**places)[0])
        applied = min(pool, max(row["energy"], 0))
        pool -= applied
        row["energy"] -= applied
        row["total"] -= applied


def _year_end(tariff: Tariff, surplus: Sequence[Sequence[int]], rows: Sequence[dict[str, int]]) -> None:
    """The annual minimum against the year's bills, and what is paid for the credits left over."""
    if tariff.annual_minimum is not None:
        number, places = scaled(tariff.annual_minimum)
        short = number * 10 ** (EXACT_PLACES - places) - sum(row["total"] for row in rows)
        if short > 0:
            rows[-1]["minimum"] += short
            rows[-1]["total"] += short
    sell = tariff.sell
    if tariff.metering == "net_metering" and sell is not None and sell.rollover == "kwh" and sell.yearend_rate:
        number, places = scaled(sell.yearend_rate)
        paid = sum(surplus[-1]) * number * 10**EXACT_PLACES // (LOAD_SCALE * 10**places)
        rows[-1]["energy"] -= paid
        rows[-1]["total"] -= paid
