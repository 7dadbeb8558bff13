"""Which way an inner loop runs: as plain Python for a small file, compiled by numba for a large one.

Belongs here: that choice, and the compiler's quirks. Does not belong here: the loops (kernels.py, kernels_nem12.py).

A small file does not pay for the compiler: importing numba takes about a second, the first compilation of all loops about ten, once per machine
(it is cached beside the modules).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import FunctionType
from typing import Any, Final

from meter_pipeline.feeds.kernels import lookup, read_number, scan_delimited, scan_json_lines
from meter_pipeline.feeds.kernels_nem12 import scan_nem12

#: files at least this long are worth the compiler's start-up
COMPILE_FROM_BYTES: Final = 400_000

_LOOPS: Final[tuple[Any, ...]] = (read_number, lookup, scan_delimited, scan_json_lines, scan_nem12)
_loops: dict[str, Callable[..., Any]] = {}
_lock = Lock()


def kernel(name: str, size: int) -> tuple[Callable[..., Any], bool]:
    """A loop by name, compiled when ``size`` bytes are worth it. The flag says whether it takes a uint8 array (True) or bytes."""
    if size < COMPILE_FROM_BYTES:
        return next(loop for loop in _LOOPS if loop.__name__ == name), False
    with _lock:
        if not _loops:
            _compile()
    return _loops[name], True


def _compile() -> None:
    """Wrap the loops for the compiler. They call each other by name, so the compiled ones get a namespace of their own."""
    import numba

    for loop in _LOOPS:  # in order of use: a compiled loop may call only compiled ones
        twin = FunctionType(loop.__code__, {**loop.__globals__, **_loops}, loop.__name__, loop.__defaults__)
        twin.__module__, twin.__qualname__ = loop.__module__, loop.__qualname__
        _loops[loop.__name__] = numba.njit(cache=True, nogil=True)(twin)
