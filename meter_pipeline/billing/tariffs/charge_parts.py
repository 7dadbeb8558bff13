"""Parts that several kinds of charges of a native tariff share: codes, rounding, tiers, power factor."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from meter_pipeline.billing.tariffs.fields import Field, TariffRefusedError
from meter_pipeline.billing.tariffs.model import (
    ROUNDING_MODES,
    TIER_BASES,
    Ladder,
    PowerFactorRule,
    Register,
    Rounding,
    Tier,
)
from meter_pipeline.billing.tariffs.schedules import RuleSchedule

_CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}", re.ASCII)
#: kWh that one kW makes in a day, by percent of load factor
_LOAD_FACTOR: Final = Decimal("0.24")


def read_rounding(field: Field) -> Rounding:
    """How a line becomes money, as a ``rounding`` member says."""
    field.only("places", "mode", "of")
    return Rounding(
        field["places"].integer(0, 6),
        field.get("mode", "half_up").choice(*ROUNDING_MODES),
        field.get("of", "line").choice("line", "bill"),
    )


def own_rounding(field: Field) -> Rounding | None:
    """A charge's own rounding; None: the tariff's."""
    return read_rounding(field["rounding"]) if "rounding" in field else None


def read_code(field: Field) -> str:
    """A charge's code."""
    text = field["code"].text()
    if not _CODE.fullmatch(text):
        raise field["code"].refuse("must be up to 32 of A-Z, 0-9 and -")
    return text


def read_ladder(field: Field) -> Ladder:
    """Tiers; each kind of limit rises by itself."""
    tiers: list[Tier] = []
    rows = field.list(at_least=1)
    for k, row in enumerate(rows):
        row.only("upto", "rate", "of", "within")
        upto = row["upto"].decimal(Decimal(0)) if "upto" in row else None
        if (upto is None) != (k == len(rows) - 1):
            raise TariffRefusedError(f"{row.path}.upto", "every tier but the last has a limit, the last has none")
        basis, upto = _limit(row, upto)
        # Blocks of several kinds may follow each other (kWh, then hours' use); each kind rises by itself.
        previous = next((t.upto for t in reversed(tiers) if t.basis == basis), None)
        if upto is not None and previous is not None and upto <= previous:
            raise row["upto"].refuse(f"must be above the tier before ({previous})")
        within = None
        if "within" in row:
            row["within"].only("upto", "of")
            inner, most = _limit(row["within"], row["within"]["upto"].decimal(Decimal(0)))
            within = (most or Decimal(0), inner)
        tiers.append(Tier(upto, row["rate"].decimal(), basis, within))
    return tuple(tiers)


def _limit(row: Field, upto: Decimal | None) -> tuple[str, Decimal | None]:
    """A tier's basis and limit; a load factor in percent is so many kWh a kW and day."""
    basis = row.get("of", "period").choice(*TIER_BASES, "load_factor")
    if basis != "load_factor":
        return basis, upto
    return "per_kw_daily", None if upto is None else upto * _LOAD_FACTOR


def kvarh_register(schedule: RuleSchedule, registers: list[Register]) -> int:
    """The register that adds up all kVArh."""
    for k, register in enumerate(registers):
        if register.measure == "kvarh":
            return k
    registers.append(Register("kvarh total", schedule, None, daily=True, measure="kvarh"))
    return len(registers) - 1


def read_power_factor(field: Field, schedule: RuleSchedule, registers: list[Register]) -> PowerFactorRule:
    """What a low power factor costs."""
    field.only("target", "rule", "percent", "places", "credit")
    target = field["target"].decimal(Decimal("0.01"))
    if target > 1:
        raise field["target"].refuse("is a power factor like 0.90, at most 1")
    rule = field.get("rule", "ratio").choice("ratio", "points")
    if (rule == "points") != ("percent" in field):
        raise field.get("percent").refuse(
            "is what each hundredth below the target costs: for the rule points, and no other"
        )
    percent = field["percent"].decimal(Decimal(0)) if rule == "points" else Decimal(0)
    places = field.get("places", Decimal(4)).integer(1, 6)
    credit = field.get("credit", False).flag()
    return PowerFactorRule(target, rule, percent, places, kvarh_register(schedule, registers), credit)
