"""Public names of a room, imported when they are first used.

A command that prints three lines must not import Polars, NumPy and pyarrow because its room's ``__init__`` names a
stage: with plain imports `meter-pipeline pause status` took 2.6 s of processor time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """A module ``__getattr__`` (PEP 562) for ``package``: ``modules`` maps a submodule to the names it gives. A name
    must not be that of a submodule, which Python would find first."""
    home = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
