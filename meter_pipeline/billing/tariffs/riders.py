"""Riders that several tariffs share, declared once: ``meter_pipeline.rider/1``.

A rider document holds charges; each version of it says from which day it holds. A tariff names the rider where its
charges stand among its own: ``{"kind": "shared", "rider": "FUEL"}``. The versions of a rider become one charge whose
price changes on those days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from meter_pipeline.billing.tariffs.fields import Field, TariffRefusedError, parse_document
from meter_pipeline.billing.tariffs.model import ByAttribute, Charge, FixedCharge, PercentCharge, UsageCharge
from meter_pipeline.billing.tariffs.native_charges import read_charge
from meter_pipeline.billing.tariffs.schedules import RuleSchedule

SCHEMA: Final = "meter_pipeline.rider/1"
#: Charges a rider may hold. Demand and minimum charges stand on what a tariff itself measures.
KINDS: Final = ("usage", "fixed", "rider", "tax")
BY: Final = ("service_date", "bill_date")
#: Before its first version a rider costs nothing.
_BEFORE: Final = date.min


@dataclass(frozen=True, slots=True)
class Rider:
    """A version of a rider: from ``valid_from`` on, by the day of service or the day the bill's period ends."""

    rider_id: str
    valid_from: date
    by: str
    commodity: str
    unit: str
    currency: str
    charges: Field


def is_rider(document: Any) -> bool:
    """Whether a JSON value says that it is a rider."""
    return isinstance(document, dict) and document.get("schema") == SCHEMA


@lru_cache(maxsize=1024)
def parse_rider(raw: bytes) -> Rider:
    """A rider's version from its document. Raises TariffRefusedError naming the field."""
    document = parse_document(raw)
    root = Field("", document)
    if not is_rider(document):
        raise TariffRefusedError("schema", f"must be {SCHEMA}")
    root.only("schema", "rider_id", "name", "commodity", "unit", "currency", "valid_from", "by", "charges", "notes")
    root["name"].text()
    for note in root["notes"].list() if "notes" in root else ():
        note.text()
    charges = root["charges"]
    known: list[str] = []
    for field in charges.list(at_least=1):
        field["kind"].choice(*KINDS)
        for key in ("by", "dated", "times"):
            if key in field:
                raise field[key].refuse("is not for a rider: its versions say what changes, and when")
        known.append(_check(field, known))
    return Rider(
        root["rider_id"].text(),
        root["valid_from"].day(),
        root.get("by", "service_date").choice(*BY),
        root["commodity"].choice("electricity", "water", "gas"),
        root["unit"].text(),
        root["currency"].text(),
        charges,
    )


def _check(field: Field, known: list[str]) -> str:
    """Reads a charge as a tariff with the periods and codes that it names would; returns its code."""
    named = [key for member in ("rates", "periods") if member in field for key, _ in field[member].items()]
    others = [of.text() for of in field["of"].list()] if "of" in field else []
    return read_charge(field, RuleSchedule(tuple(dict.fromkeys(named)) or ("all",)), [], [*known, *others]).code


def shared_charges(
    field: Field, riders: Sequence[Rider], of: dict[str, str], schedule: RuleSchedule, known: list[str]
) -> list[Charge]:
    """The charges that a tariff takes from a rider, in the rider's order. ``field``: the entry that names it; ``of``:
    commodity, unit and currency of the tariff; ``known``: codes before them."""
    field.only("kind", "rider")
    name = field["rider"].text()
    versions = sorted((r for r in riders if r.rider_id == name), key=lambda r: r.valid_from)
    if not versions:
        raise field["rider"].refuse(
            f"no document of the rider {name}: it stands beside the tariff's, or in tariffs.csv"
        )
    for version, following in pairwise(versions):
        if version.valid_from == following.valid_from:
            raise field["rider"].refuse(f"{name} has two versions from {version.valid_from}")
        if version.by != following.by:
            raise field["rider"].refuse(f"{name} goes by {version.by} and, from {following.valid_from}, {following.by}")
    read: list[list[Charge]] = []
    for version in versions:
        for member, value in of.items():
            if getattr(version, member) != value:
                why = f"{name} from {version.valid_from} is in {getattr(version, member)}, the tariff in {value}"
                raise field["rider"].refuse(why)
        read.append(_read(version, schedule, known))
    codes = [[c.code for c in charges] for charges in read]
    for version, found in zip(versions, codes, strict=True):
        if found != codes[0]:
            why = f"{name} from {version.valid_from} has the charges {', '.join(found)}, before {', '.join(codes[0])}"
            raise field["rider"].refuse(f"{why}: another charge is another rider")
    since = [version.valid_from for version in versions]
    return [_merged(field, versions[0].by, since, list(charges)) for charges in zip(*read, strict=True)]


def _read(version: Rider, schedule: RuleSchedule, known: list[str]) -> list[Charge]:
    found: list[Charge] = []
    for member in version.charges.list():
        charge = read_charge(member, schedule, [], [*known, *(c.code for c in found)])
        if charge.code in known or charge.code in {c.code for c in found}:
            raise member["code"].refuse("is used twice")
        tiers = [t for v in charge.ladders for p in v for t in p] if isinstance(charge, UsageCharge) else []
        if any(t.basis.startswith("per_kw") or t.within for t in tiers):
            raise member["code"].refuse("counts blocks by the demand of one tariff, which a rider does not know")
        found.append(charge)
    return found


def _merged(field: Field, by: str, since: list[date], versions: list[Charge]) -> Charge:
    """One charge of what several versions of it say, the first of them after days on which it cost nothing."""
    variants = ByAttribute(by, tuple(day.isoformat() for day in (_BEFORE, *since)))
    first = versions[0]
    plain = [_without_price(v) for v in versions]
    if any(p != plain[0] for p in plain):
        raise field["rider"].refuse(
            f"{first.code} differs between versions in more than its price: give it another code"
        )
    if isinstance(first, UsageCharge):
        ladders = [v.ladders[0] for v in versions if isinstance(v, UsageCharge)]
        if len({tuple(len(p) for p in ladder) for ladder in ladders}) > 1:
            raise field["rider"].refuse(f"{first.code} has another number of blocks in another version")
        nothing = tuple(tuple(replace(tier, rate=Decimal(0)) for tier in period) for period in ladders[0])
        return replace(first, ladders=(nothing, *ladders), variants=variants)
    if isinstance(first, FixedCharge):
        amounts = [v.amounts[0] for v in versions if isinstance(v, FixedCharge)]
        return replace(first, amounts=(Decimal(0), *amounts), variants=variants)
    assert isinstance(first, PercentCharge)  # noqa: S101 - KINDS has no other
    percents = [v.percent for v in versions if isinstance(v, PercentCharge)]
    return replace(first, percents=(Decimal(0), *percents), variants=variants)


def _without_price(charge: Charge) -> Charge:
    """A charge but for its price and name."""
    if isinstance(charge, UsageCharge):
        return replace(charge, ladders=(), name="")
    if isinstance(charge, FixedCharge):
        return replace(charge, amounts=(), name="")
    assert isinstance(charge, PercentCharge)  # noqa: S101 - KINDS has no other
    return replace(charge, percent=Decimal(0), name="")
