"""Keys of settings files held against a file that ships with the package: a misspelt one is refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


def unknown(name: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown key: the nearest known one, or all of them."""
    names = list(known)
    near = get_close_matches(name, names, 1)
    return f"unknown key {name!r}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}")


def refuse_unknown(given: Mapping[str, Any], shipped: Mapping[str, Any], where: str = "") -> None:
    """Refuse a key that the shipped file does not have, at any depth. Raises ValueError."""
    for name, value in given.items():
        if name not in shipped:
            raise ValueError(f"{where}{unknown(name, shipped)}")
        if isinstance(value, Mapping) and isinstance(shipped[name], Mapping):
            refuse_unknown(value, shipped[name], f"{where}{name}: ")
