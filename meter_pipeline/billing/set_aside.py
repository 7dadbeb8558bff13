"""One fault stops one service: a computation over many keys that goes on without those it fails for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import psycopg

from meter_pipeline.control.pause_check import Held

T = TypeVar("T")


@dataclass(slots=True)
class Apart(Generic[T]):
    """Results over the keys that could be computed, and by key why the others could not."""

    results: list[T] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


def apart(keys: Sequence[str], compute: Callable[[Sequence[str]], T]) -> Apart[T]:
    """``compute(keys)``; where it raises, of halves of the keys, until the faulty ones stand alone.

    A fault costs about twice the computation it is in, a computation without one nothing more. What does not come from
    a key (the server, a pause, memory) is raised.
    """
    found: Apart[T] = Apart()
    _try(list(keys), compute, found)
    return found


def _try(keys: list[str], compute: Callable[[Sequence[str]], T], found: Apart[T]) -> None:
    if not keys:
        return
    try:
        found.results.append(compute(keys))
    except (psycopg.Error, Held, MemoryError):
        raise
    except Exception as error:
        if len(keys) == 1:
            found.faults[keys[0]] = f"{type(error).__name__}: {error}"[:500]
            return
        half = len(keys) // 2
        _try(keys[:half], compute, found)
        _try(keys[half:], compute, found)
