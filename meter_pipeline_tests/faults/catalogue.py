"""The list of kinds of fault: a name, how it is done, how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meter_pipeline_tests.faults.bench import Bench, Case

Strike = Callable[[Bench, int], Case]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind. ``many`` is how often the long suite does it, ``few`` how often the part in ``make test`` does."""

    name: str
    strike: Strike
    many: int
    few: int = 0


FAULTS: Final[list[Fault]] = []


def fault(name: str, many: int, few: int = 0) -> Callable[[Strike], Strike]:
    def keep(strike: Strike) -> Strike:
        FAULTS.append(Fault(name, strike, many, few))
        return strike

    return keep
