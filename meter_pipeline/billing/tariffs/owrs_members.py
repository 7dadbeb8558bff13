"""Which members an Open Water Rate Specification file may have: any other is refused with its path, so that a misspelt
name cannot leave a charge out of the bill.

A class's definitions have names of the writer's choice. One is understood where the bill is made of it, directly or
through another; the names that the specification's own form writes into every class may stand unused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

_ROOT: Final = frozenset({"author_info", "metadata", "rate_structure"})
_SECTIONS: Final[dict[str, frozenset[str]]] = {
    "author_info": frozenset({"author", "email", "phone"}),
    "metadata": frozenset(
        {
            *("effective_date", "utility_name", "utility_id", "bill_frequency"),
            *("bill_unit", "unit_type", "prop_218_link"),
        }
    ),
}
_TABLE: Final = frozenset({"depends_on", "values"})
_FORM: Final = re.compile(
    r"(service_charge|commodity_charge|(fixed|variable)_(drought_sur|wastewater_)charge"
    r"|(tier_starts|tier_prices|flat_rate|budget|indoor|outdoor|gpcd|landscape_factor)(_(commodity|drought|wastewater))?"
    r"|hhsize|days_in_period|et_amount|irr_area)"
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def unknown_member(root: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first member outside the classes that the specification does not have: its path and what is known there."""
    for name in root:
        if name not in _ROOT:
            return name, f"is not known; a file has {', '.join(sorted(_ROOT))}"
    for section, known in _SECTIONS.items():
        members = root.get(section)
        for name in members if isinstance(members, Mapping) else ():
            if name not in known:
                return f"{section}.{name}", f"is not known; {section} has {', '.join(sorted(known))}"
    return None


def unknown_in_definition(given: Any) -> str | None:
    """A member of a definition that is neither depends_on nor values."""
    if not isinstance(given, Mapping):
        return None
    return next((name for name in given if name not in _TABLE), None)


def idle(definitions: Mapping[str, Any], used: Collection[str]) -> tuple[list[str], list[str]]:
    """Definitions other than 0 that the bill is not made of, through ``used`` or what these are made of: those of the
    specification's form, and those whose names it does not know."""
    reached, waiting = set(used), list(used)
    while waiting:
        for word in _words(definitions.get(waiting.pop())):
            if word in definitions and word not in reached:
                reached.add(word)
                waiting.append(word)
    apart = sorted(name for name, value in definitions.items() if name not in reached and not _nothing(value))
    return [n for n in apart if _FORM.fullmatch(n)], [n for n in apart if not _FORM.fullmatch(n)]


def _words(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return set().union(*map(_words, value.values()))
    if isinstance(value, list):
        return set().union(*map(_words, value))
    return set(_WORD.findall(value)) if isinstance(value, str) else set()


def _nothing(value: Any) -> bool:
    """Whether a definition is empty or 0, in all its cases."""
    if isinstance(value, Mapping):
        return all(_nothing(member) for name, member in value.items() if name != "depends_on")
    if isinstance(value, list):
        return all(_nothing(member) for member in value)
    return value is None or re.fullmatch(r"\$?0*(\.0*)?", str(value)) is not None
