"""SHA-256 of very many messages: OpenSSL's, called from a compiled loop that holds no lock of Python.

A call of hashlib costs 0.5 us before it hashes the first byte, and a message has to be an object of its own. Here
messages lie in arrays. Measured on one core with the processor's SHA instructions: 8 to 9 million leaves or nodes of a
tree a second, where hashlib gives 1 million; rows of 1,400 bytes 0.8 us each. An own loop over the lanes of vector
registers took as long for trees, and ten seconds to compile.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import binding
from numba import types

#: Fewer messages than this are not worth another thread.
_THREADED: Final = 50_000
#: Room for OpenSSL's SHA256_CTX, which has 112 bytes
_CONTEXT: Final = 256
_CALLS: Final = ("SHA256_Init", "SHA256_Update", "SHA256_Final")


def _openssl() -> ctypes.CDLL | None:
    """The OpenSSL that Python's hashlib uses, or the system's; None where neither can be called: a Python that has it
    built in shows no name of it."""
    import _hashlib

    # Looking for the system's starts ldconfig, so that comes second.
    for find in (lambda: getattr(_hashlib, "__file__", None), lambda: ctypes.util.find_library("crypto")):
        try:
            library = ctypes.CDLL(name) if (name := find()) else None
        except OSError:
            continue
        if library is not None and all(hasattr(library, call) for call in _CALLS):
            return library
    return None


_LIBRARY: Final = _openssl()
if _LIBRARY is not None:
    for call in _CALLS:
        binding.add_symbol(f"meter_pipeline_{call}", ctypes.cast(getattr(_LIBRARY, call), ctypes.c_void_p).value)
_init = types.ExternalFunction("meter_pipeline_SHA256_Init", types.int32(types.intp))
_update = types.ExternalFunction("meter_pipeline_SHA256_Update", types.int32(types.intp, types.intp, types.uintp))
_final = types.ExternalFunction("meter_pipeline_SHA256_Final", types.int32(types.intp, types.intp))


def of_rows(parts: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]) -> npt.NDArray[np.uint8]:
    """SHA-256 of each message: its bytes in the first part, then those in the next ones. A part is all messages' bytes,
    and where each one's begin and end (one number more than messages). Returns a row of 32 bytes a message."""
    out = np.empty((len(parts[0][1]) - 1, 32), np.uint8)
    if _LIBRARY is None:
        whole = [(data.tobytes(), bounds.tolist()) for data, bounds in parts]
        for row in range(len(out)):
            message = b"".join([data[bounds[row] : bounds[row + 1]] for data, bounds in whole])
            out[row] = np.frombuffer(hashlib.sha256(message).digest(), np.uint8)
        return out
    begins = np.stack([data.ctypes.data + bounds[:-1] for data, bounds in parts])
    sizes = np.stack([np.diff(bounds) for _, bounds in parts])
    _hash_rows(begins, sizes, out)
    return out


def prefixed(prefix: int, flat: bytes, width: int) -> bytes:
    """SHA-256 of ``prefix`` (one byte) and each ``width`` bytes of ``flat``, end to end; on every core."""
    if _LIBRARY is None:
        first, sha = bytes([prefix]), hashlib.sha256
        return b"".join([sha(first + flat[at : at + width]).digest() for at in range(0, len(flat), width)])
    rows = np.frombuffer(flat, np.uint8).reshape(-1, width)
    out = np.empty((len(rows), 32), np.uint8)
    cores = len(os.sched_getaffinity(0)) if len(rows) >= _THREADED else 1
    if cores == 1:
        _hash_prefixed(prefix, rows, out)
        return out.tobytes()
    cuts = [len(rows) * part // cores for part in range(cores + 1)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda cut: _hash_prefixed(prefix, rows[cut[0] : cut[1]], out[cut[0] : cut[1]]), pairwise(cuts)))
    return out.tobytes()


def _compiled(signature: Any) -> Callable[[Any], Any]:
    """Compiles a loop; leaves it where OpenSSL cannot be called, since it could not be linked."""
    made: Callable[[Any], Any] = numba.njit(signature, nogil=True, cache=True)
    return made if _LIBRARY is not None else lambda loop: loop


_ROWS: Final[Any] = types.void(types.int64[:, ::1], types.int64[:, ::1], types.uint8[:, ::1])
_PREFIXED: Final[Any] = types.void(types.int64, types.Array(types.uint8, 2, "C", readonly=True), types.uint8[:, ::1])


@_compiled(_ROWS)
def _hash_rows(begins, sizes, out):  # type: ignore[no-untyped-def]  # compiled
    context = np.zeros(_CONTEXT, np.uint8)
    state, into = context.ctypes.data, out.ctypes.data
    for row in range(out.shape[0]):
        _init(state)
        for part in range(begins.shape[0]):
            _update(state, begins[part, row], sizes[part, row])
        _final(into + 32 * row, state)


@_compiled(_PREFIXED)
def _hash_prefixed(prefix, rows, out):  # type: ignore[no-untyped-def]  # compiled
    context, first = np.zeros(_CONTEXT, np.uint8), np.full(1, prefix, np.uint8)
    state, begin, data, into = context.ctypes.data, first.ctypes.data, rows.ctypes.data, out.ctypes.data
    width = rows.shape[1]
    for row in range(rows.shape[0]):
        _init(state)
        _update(state, begin, 1)
        _update(state, data + width * row, width)
        _final(into + 32 * row, state)
