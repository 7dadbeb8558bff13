"""One fault stops one service: a computation over many keys that goes on without those it fails for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from meter_pipeline.control.pause_check import PausedError

T = TypeVar("T")
#: More faults than this in one computation are no matter of single services: something is wrong with all of them, and
# the first fault is raised
MOST_FAULTS: Final = 100


#: In a town of no more services than this all of them may be faulty
FEW: Final = 10
#: Packages whose errors are about the database, never about one key
_DATABASE: Final = ("psycopg", "psycopg_pool", "adbc_driver_manager", "adbc_driver_postgresql")


def of_a_key(error: Exception) -> bool:
    """Whether an error may come from one key's data, rather than from the server, the machine or a pause."""
    package = type(error).__module__.partition(".")[0]
    return package not in _DATABASE and not isinstance(error, PausedError | MemoryError | OSError)


@dataclass(slots=True)
class SetAsideResult(Generic[T]):
    """Results over the keys that could be computed, and by key why the others could not."""

    results: list[T] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


def of_a_row(error: Exception) -> bool:
    """Whether an error of writing may come from one key's rows: what the database says of their values, or as
    ``of_a_key``.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"DataError", "IntegrityError"}) or of_a_key(error)


def apart(
    keys: Sequence[str], compute: Callable[[Sequence[str]], T], of_key: Callable[[Exception], bool] = of_a_key
) -> SetAsideResult[T]:
    """``compute(keys)``; where it raises, of halves of the keys, until the faulty ones stand alone.

    A fault costs about twice the computation it is in, a computation without one nothing more. What does not come from
    a key (the server, a pause, memory) is raised.
    """
    found: SetAsideResult[T] = SetAsideResult()
    _try(list(keys), compute, found, of_key)
    return found


def without_faults(
    keys: Sequence[str], compute: Callable[[Sequence[str]], T], of_key: Callable[[Exception], bool] = of_a_key
) -> tuple[T, dict[str, str]]:
    """``compute`` over all keys it does not fail for, at once, and by key why it fails for the others. The last call is
    the one whose result is returned."""
    try:
        return compute(keys), {}
    except Exception as error:
        if not of_key(error):
            raise
        faults = apart(keys, compute, of_key).faults
        if not faults or len(faults) == len(keys) > FEW:
            raise
    return compute([key for key in keys if key not in faults]), faults


def _try(
    keys: list[str],
    compute: Callable[[Sequence[str]], T],
    found: SetAsideResult[T],
    of_key: Callable[[Exception], bool],
) -> None:
    if not keys:
        return
    try:
        found.results.append(compute(keys))
    except Exception as error:
        if not of_key(error):
            raise
        if len(keys) == 1:
            if len(found.faults) == MOST_FAULTS:
                raise
            found.faults[keys[0]] = f"{type(error).__name__}: {error}"[:500]
            return
        half = len(keys) // 2
        _try(keys[:half], compute, found, of_key)
        _try(keys[half:], compute, found, of_key)
