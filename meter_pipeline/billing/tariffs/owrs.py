"""The Open Water Rate Specification (California Data Collaborative): its YAML files become native tariff documents.

One document for each customer class, and for each combination of values of the fields its prices depend on other than
the meter size (inside and outside the city, potable and recycled): an agreement names the one that holds. What a
document cannot say is refused with the field and its line. ``tier_starts`` name the first unit of a tier (Santa
Monica's 0, 15, 41, 149 are its published 0-14, 15-40, 41-148 and 149 on), so a tier ends one unit before the next
starts; a start in percent is of the service's own budget.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any, Final

from meter_pipeline.billing.tariffs import owrs_members
from meter_pipeline.billing.tariffs.owrs_file import OwrsFile, definitions_of, keys_of, read

_UNITS: Final = {
    "ccf": "ccf",
    "hcf": "ccf",
    "kgal": "kgal",
    "tgal": "kgal",
    "gal": "gal",
    "gallon": "gal",
    "gallons": "gal",
    "m3": "m3",
}


#: Bills a year
_FREQUENCY: Final = {
    "monthly": 12,
    "bimonthly": 6,
    "bi-monthly": 6,
    "quarterly": 4,
    "annually": 1,
    "yearly": 1,
    "1": 12,
    "2": 6,
    "3": 4,
}


_USAGE: Final = re.compile(r"usage(_[a-z0-9]+)?")


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


_METER: Final = "meter_size"


#: Words by which a definition says that its tiers are its prices
_TIERED: Final = frozenset({"tiered", "budget"})


@dataclass(frozen=True, slots=True)
class Season:
    """A season's first and last day, MM-DD, both included: OWRS names seasons and does not date them."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A native document made of an OWRS file: its class, the values of fields it is for, and what was left aside."""

    document: dict[str, Any]
    customer_class: str
    values: Mapping[str, str]
    notes: tuple[str, ...]


def import_owrs(raw: bytes, *, tariff_id: str, seasons: Mapping[str, Season] | None = None) -> list[Imported]:
    """Native documents of an OWRS file; their ids begin with ``tariff_id``. ``seasons``: by the names the file gives
    them, lower case.

    Raises TariffRefusedError, naming the field and its line.
    """
    file = read(raw)
    found = []
    for customer_class, given in file.root["rate_structure"].items():
        path = f"rate_structure.{customer_class}"
        definitions = definitions_of(file, given, path)
        if not definitions:
            continue
        reader = _Class(file, path, definitions, dict(seasons or {}))
        for values in reader.combinations():
            name = "-".join([tariff_id, customer_class, *values.values()])
            document, notes = reader.document(
                re.sub(r"[^A-Z0-9]+", "-", name.upper()).strip("-")[:64], customer_class, values
            )
            found.append(Imported(document, customer_class, values, notes))
    if not found:
        raise file.refuse("rate_structure", "has no class with a bill")
    return found


@dataclass(slots=True)
class _Class:
    """One customer class of a file."""

    file: OwrsFile
    path: str
    definitions: dict[str, Any]
    seasons: dict[str, Season]
    used: set[str] = field(default_factory=set)

    def combinations(self) -> list[dict[str, str]]:
        """Every combination of values of the fields that prices depend on, but for the meter size and the season."""
        values: dict[str, list[str]] = {}
        for name, given in self.definitions.items():
            if isinstance(given, dict) and "depends_on" in given:
                fields, rows = self.table(name)
                for keys in rows:
                    for of, value in zip(fields, keys, strict=True):
                        if of not in (_METER, "season") and value not in values.setdefault(of, []):
                            values[of].append(value)
        return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]

    def table(self, name: str) -> tuple[list[str], dict[tuple[str, ...], Any]]:
        """A definition by its fields: their names, and what holds for each combination of their values."""
        given, path = self.definitions[name], f"{self.path}.{name}"
        extra = owrs_members.unknown_in_definition(given)
        if extra is not None:
            raise self.file.refuse(f"{path}.{extra}", "is not known; a definition by fields has depends_on and values")
        depends = given["depends_on"]
        fields = [str(f) for f in depends] if isinstance(depends, list) else [str(depends)]
        if not isinstance(given.get("values"), dict) or not given["values"]:
            raise self.file.refuse(f"{path}.values", f"is missing: what holds for each {' and '.join(fields)}")
        rows: dict[tuple[str, ...], Any] = {}
        for key, rate in given["values"].items():
            values = keys_of(key, len(fields))
            if values is None:
                raise self.file.refuse(
                    f"{path}.values.{key}", f"does not name {len(fields)} values, one for each of {', '.join(fields)}"
                )
            rows[tuple(values)] = rate
        return fields, rows

    def rows_of(self, name: str, chosen: Mapping[str, str]) -> dict[tuple[str, str], Any]:
        """What a definition is for the chosen values, by season and meter size ('*' where it depends on neither)."""
        given = self.definitions[name]
        self.used.add(name)
        if not (isinstance(given, dict) and "depends_on" in given):
            return {("*", "*"): given}
        fields, rows = self.table(name)
        found = {}
        for keys, value in rows.items():
            at = dict(zip(fields, keys, strict=True))
            if all(at[f] == chosen[f] for f in fields if f in chosen):
                found[at.get("season", "*").lower(), at.get(_METER, "*")] = value
        if not found:
            attributes = ", ".join(f"{k} {v}" for k, v in chosen.items())
            raise self.file.refuse(f"{self.path}.{name}.values", f"has none for {attributes}")
        return found

    def document(
        self, tariff_id: str, customer_class: str, chosen: Mapping[str, str]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The native document for the chosen values, and what was left aside."""
        self.used = {"bill"}
        metadata = self.file.root["metadata"]
        says = next((name for name in ("bill_unit", "unit_type") if metadata.get(name)), "bill_unit")
        unit = str(metadata.get(says) or "ccf").lower()
        if unit not in _UNITS:
            raise self.file.refuse(f"metadata.{says}", f"is {unit}; known are {', '.join(sorted(_UNITS))}")
        frequency = str(metadata.get("bill_frequency") or "").lower()
        if frequency not in _FREQUENCY:
            raise self.file.refuse(
                "metadata.bill_frequency", f"is {frequency or 'missing'}; known are {', '.join(sorted(_FREQUENCY))}"
            )
        if "bill" not in self.definitions:
            raise self.file.refuse(f"{self.path}.bill", "is missing: what the bill is the sum of")
        builder = _Builder(self, chosen, _FREQUENCY[frequency])
        for term in _terms(str(self.definitions["bill"])):
            builder.add(term, f"{self.path}.bill")
        if not builder.charges:
            builder.charges.append({"kind": "fixed", "code": "SERVICE", "name": "Service charge", "amount": "0"})
        document: dict[str, Any] = {
            "schema": "meter_pipeline.tariff/1",
            "tariff_id": tariff_id,
            "name": " ".join(
                [str(metadata.get("utility_name") or "").strip(), customer_class, *chosen.values()]
            ).strip(),
            "commodity": "water",
            "currency": "USD",  # the Open Water Rate Specification is of US utilities
            "unit": _UNITS[unit],
        }
        if builder.by_season:
            document |= self._dated(builder.by_season)
        document["charges"] = builder.charges
        left, unknown = owrs_members.idle(self.definitions, self.used)
        if unknown:
            raise self.file.refuse(
                f"{self.path}.{unknown[0]}",
                "is used by nothing: neither the bill nor what it is made of names it; take it out, or add it to the bill",
            )
        return document, tuple(f"{self.path}.{name} is not part of the bill" for name in left)

    def _dated(self, names: Sequence[str]) -> dict[str, Any]:
        for name in names:
            if name not in self.seasons:
                raise self.file.refuse(
                    self.path, f"season {name} has no dates in the document; say them with --season {name}=MM-DD:MM-DD"
                )
        return {
            "seasons": {n: {"from": self.seasons[n].first, "to": self.seasons[n].last} for n in names},
            "time_of_use": {
                "periods": list(names),
                "default": names[0],
                "rules": [{"period": n, "season": n, "days": "all"} for n in names],
            },
        }


def _terms(text: str) -> list[str]:
    """The terms of a sum, quotes and blanks off. Brackets are kept with their term."""
    depth, terms, current = 0, list[str](), ""
    for c in text.strip().strip('"').strip("'"):
        depth += (c == "(") - (c == ")")
        if c == "+" and depth == 0:
            terms.append(current)
            current = ""
        else:
            current += c
    return [t.strip() for t in [*terms, current] if t.strip()]


@dataclass(slots=True)
class _Builder:
    """The charges of one document, in the order of the bill's sum."""

    of: _Class
    chosen: Mapping[str, str]
    bills_a_year: int
    charges: list[dict[str, Any]] = field(default_factory=list)
    codes: dict[str, list[str]] = field(default_factory=dict)
    by_season: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def add(self, term: str, at: str) -> None:
        """One term of a sum: a number, a definition's name, or a product."""
        number = _number(term)
        if number is not None:
            self._fixed(term.upper(), {("*", "*"): term}, at)
            return
        if "*" in term:
            self._product(term, at)
            return
        if not _NAME.fullmatch(term) or term not in self.of.definitions:
            raise self.of.file.refuse(at, f"{term} is defined nowhere in the class")
        if term in self.open:
            raise self.of.file.refuse(at, f"{term} is defined by itself")
        self.open.append(term)
        self._definition(term, f"{self.of.path}.{term}")
        self.open.pop()

    def _definition(self, name: str, at: str) -> None:
        before = len(self.charges)
        rows = self.of.rows_of(name, self.chosen)
        texts = {str(v).strip().lower() for v in rows.values() if not isinstance(v, (list, dict))}
        if texts & _TIERED:
            self._tiers(name, at)
        elif all(_number(v) is not None for v in rows.values()):
            self._fixed(name, rows, at)
        elif len(rows) == 1 and isinstance(next(iter(rows.values())), str):
            for term in _terms(next(iter(rows.values()))):
                self.add(term, at)
        else:
            raise self.of.file.refuse(at, "is neither an amount, a sum, Tiered nor Budget")
        self.codes[name] = [c["code"] for c in self.charges[before:]]

    def _product(self, term: str, at: str) -> None:
        """rate * usage; or a share of a charge that stands before it."""
        parts = [p.strip() for p in term.strip("()").split("*")]
        usage = [p for p in parts if _USAGE.fullmatch(p.lower())]
        rest = [p for p in parts if p not in usage]
        if len(parts) == 2 and len(usage) == 1:
            rate = rest[0]
            rows = {("*", "*"): rate} if _number(rate) is not None else self._rows(rate, at)
            if any(_number(v) is None for v in rows.values()):
                raise self.of.file.refuse(at, f"{rate} is not a rate")
            self._usage(
                _code(rate if _number(rate) is None else "usage"), {k: [{"rate": str(v)}] for k, v in rows.items()}, at
            )
            return
        share = next((_number(p) for p in parts if _number(p) is not None), None)
        base = next((p for p in parts if p in self.codes), None)
        if len(parts) == 2 and share is not None and base is not None:
            code = self._new(_code(f"{base}-SHARE"))
            percent = format((share * 100).normalize(), "f")
            self.charges.append(
                {
                    "kind": "rider",
                    "code": code,
                    "name": f"{percent} % of {base}",
                    "percent": percent,
                    "of": self.codes[base],
                }
            )
            return
        raise self.of.file.refuse(
            at, f"{term}: only a rate times the usage, or a share of a charge before it, can be priced"
        )

    def _rows(self, name: str, at: str) -> dict[tuple[str, str], Any]:
        if name not in self.of.definitions:
            raise self.of.file.refuse(at, f"{name} is defined nowhere in the class")
        return self.of.rows_of(name, self.chosen)

    def _tiers(self, name: str, at: str) -> None:
        # Newer files name the tiers after their charge: tier_starts_commodity for commodity_charge.
        charge = re.sub(r"^(fixed|variable)_|_(sur)?charge$", "", name)
        named = f"tier_starts_{charge}" in self.of.definitions
        first, paying = (f"{n}_{charge}" if named else n for n in ("tier_starts", "tier_prices"))
        for needed in (first, paying):
            if needed not in self.of.definitions:
                raise self.of.file.refuse(f"{self.of.path}.{needed}", f"is missing: {name} is tiered")
        starts, prices = (self.of.rows_of(n, self.chosen) for n in (first, paying))
        self.of.used |= {"budget", f"budget_{charge}"} & set(self.of.definitions)
        keys = sorted({*starts, *prices})
        exact = {k for k in keys if "*" not in k} or set(keys)
        ladders = {}
        for key in sorted(exact):
            mine, paid = _fitting(starts, key), _fitting(prices, key)
            if not isinstance(mine, list) or not isinstance(paid, list) or len(mine) != len(paid):
                raise self.of.file.refuse(
                    f"{self.of.path}.{paying}", f"has not one price for each of {first} ({' '.join(key)})"
                )
            ladders[key] = self._ladder(mine, paid, first, paying)
        self._usage(_code(name), ladders, at)

    def _ladder(self, starts: Sequence[str], prices: Sequence[str], first: str, paying: str) -> list[dict[str, Any]]:
        """Tiers of the definitions ``first`` (units at which each starts) and ``paying`` (their prices)."""
        path = f"{self.of.path}.{first}"
        limits: list[dict[str, str]] = []
        for k, start in enumerate(starts):
            percent = start.endswith("%")
            value = _number(start.rstrip("%"))
            if value is None:
                raise self.of.file.refuse(
                    f"{path}[{k}]",
                    f"{start} is neither a number nor a percentage of the budget; a service has one budget (budget_per_day)",
                )
            if k == 0:
                if value != 0:
                    raise self.of.file.refuse(f"{path}[0]", f"is {start}: the first tier starts at 0")
                continue
            if percent:
                limits.append({"upto": format((value / 100).normalize(), "f"), "of": "budget"})
            else:
                limits.append({"upto": format(value - 1, "f")})
        kinds = {limit.get("of", "period") for limit in limits}
        if len(kinds) > 1:
            raise self.of.file.refuse(path, "mixes units and percentages of the budget")
        values = [Decimal(limit["upto"]) for limit in limits]
        if any(b <= a for a, b in zip([Decimal(0), *values], values, strict=False)):
            raise self.of.file.refuse(path, "do not rise")
        found = []
        for k, price in enumerate(prices):
            if _number(price) is None:
                raise self.of.file.refuse(f"{self.of.path}.{paying}[{k}]", f"{price} is not a price")
            found.append((limits[k] if k < len(limits) else {}) | {"rate": str(price)})
        return found

    def _usage(self, code: str, ladders: Mapping[tuple[str, str], list[dict[str, Any]]], at: str) -> None:
        """A usage charge by season and meter size."""
        names = [s for s, _ in ladders if s != "*"]
        for season in names:
            if season not in self.by_season:
                self.by_season.append(season)
        if all(_number(t["rate"]) == 0 for ladder in ladders.values() for t in ladder):
            return
        sizes = sorted({m for _, m in ladders if m != "*"})
        charge: dict[str, Any] = {"kind": "usage", "code": self._new(code), "name": code.replace("-", " ").capitalize()}
        if "DROUGHT" in code:
            charge["component"] = "rider"
        if sizes:
            charge["by"] = {"attribute": _METER, "values": {m: self._priced(ladders, m, at) for m in sizes}}
        else:
            charge |= self._priced(ladders, "*", at)
        self.charges.append(charge)

    def _priced(self, ladders: Mapping[tuple[str, str], list[dict[str, Any]]], size: str, at: str) -> dict[str, Any]:
        mine = {s: ladder for (s, m), ladder in ladders.items() if m in (size, "*")}
        if "*" in mine:
            return {"tiers": mine["*"]}
        if not mine:
            raise self.of.file.refuse(at, f"has no price for meter size {size}")
        return {"periods": mine}

    def _fixed(self, name: str, rows: Mapping[tuple[str, str], Any], at: str) -> None:
        if any(season != "*" for season, _ in rows):
            raise self.of.file.refuse(at, "a fixed charge by season cannot be priced")
        if all(_number(v) == 0 for v in rows.values()):
            return
        per = {"per": "month"} if self.bills_a_year == 12 else {"per": "year"}
        times = 1 if self.bills_a_year == 12 else self.bills_a_year
        amounts = {m: format(_exact(v) * times, "f") for (_, m), v in rows.items()}
        code = self._new(_code(name))
        charge: dict[str, Any] = {"kind": "fixed", "code": code, "name": code.replace("-", " ").capitalize(), **per}
        charge |= (
            {"amount": amounts["*"]} if list(amounts) == ["*"] else {"by": {"attribute": _METER, "values": amounts}}
        )
        self.charges.append(charge)

    def _new(self, code: str) -> str:
        """A code that no charge has yet."""
        taken = {c["code"] for c in self.charges}
        return next(c for c in (code, *(f"{code}-{n}" for n in range(2, 100))) if c not in taken)


def _fitting(rows: Mapping[tuple[str, str], Any], key: tuple[str, str]) -> Any:
    return next((rows[k] for k in (key, (key[0], "*"), ("*", key[1]), ("*", "*")) if k in rows), None)


def _code(name: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "-", name.upper()).strip("-") or "CHARGE"


def _number(value: Any) -> Decimal | None:
    if not isinstance(value, str):
        return None
    try:
        found = Decimal(value.strip().lstrip("$"))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _exact(value: Any) -> Decimal:
    found = _number(value)
    assert found is not None  # noqa: S101 - asked before
    return found
