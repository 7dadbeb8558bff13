"""Chooses how an inner loop runs: as plain Python for a small file, compiled by numba for a large one.

Plain Python reads about 3 MB a second. The compiler costs a process about 1.5 s when its cache is filled, and 5 s more
the first time on a machine (measured on two cores), so the first 4 MB of a process are read without it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import FunctionType
from typing import Any, Final

from meter_pipeline.feeds.kernels import lookup, read_number, read_short, scan_delimited, scan_json_lines
from meter_pipeline.feeds.kernels_json import (
    hex_code,
    number_end,
    plain_list,
    scan_json_document,
    string_end,
    unescaped,
    word_end,
    write_records,
)
from meter_pipeline.feeds.kernels_nem12 import scan_nem12

#: bytes that a process reads before the compiler's start-up is worth it
COMPILE_FROM_BYTES: Final = 4_000_000

_LOOPS: Final[tuple[Any, ...]] = (
    read_number, read_short, lookup, scan_delimited, scan_json_lines, scan_nem12, number_end, string_end, word_end, plain_list, scan_json_document,
    write_records, hex_code, unescaped,
)  # fmt: skip
_loops: dict[str, Callable[..., Any]] = {}
_lock = Lock()
_read = 0


def kernel(name: str, size: int) -> tuple[Callable[..., Any], bool]:
    """Returns a loop by name for ``size`` bytes, compiled after the process has read COMPILE_FROM_BYTES. The flag tells
    whether the loop takes a uint8 array (True) or bytes."""
    global _read
    if not _loops:
        with _lock:
            _read += size
            if not _loops and _read >= COMPILE_FROM_BYTES:
                _compile()
        if not _loops:
            return next(loop for loop in _LOOPS if loop.__name__ == name), False
    return _loops[name], True


def warm() -> None:
    """Compile (or load from the cache) now, for a process that will read large files."""
    with _lock:
        if not _loops:
            _compile()


def _compile() -> None:
    """Compile the loops with numba. They call each other by name, so the compiled ones get their own namespace."""
    import numba

    compiled: dict[str, Callable[..., Any]] = {}
    for loop in _LOOPS:  # in order of use: a compiled loop may call only compiled ones
        twin = FunctionType(loop.__code__, {**loop.__globals__, **compiled}, loop.__name__, loop.__defaults__)
        twin.__module__, twin.__qualname__ = loop.__module__, loop.__qualname__
        try:
            compiled[loop.__name__] = numba.njit(cache=True, nogil=True)(twin)
        except (
            RuntimeError
        ):  # neither the package's folder nor the user's cache can be written: compile for this process only
            compiled[loop.__name__] = numba.njit(nogil=True)(twin)
    _loops.update(compiled)
