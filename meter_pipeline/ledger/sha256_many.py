"""SHA-256 of very many short messages: what a tree of hundreds of thousands of leaves is made of.

Belongs here: the compiled loop. Does not belong here: trees. Imported only for levels of merkle.MANY nodes and more: hashlib spends more time on
making an object for each call than on hashing 33 or 65 bytes, but compiling takes seconds once (numba keeps the result on disk).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final

import numba
import numpy as np


def _fraction(prime: int, root: int) -> int:
    """The first 32 bits of the fractional part of a prime's square or cube root (FIPS 180-4, sections 4.2.2 and 5.3.3), in integers."""
    scaled = prime << (32 * root)
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**root <= scaled else (low, middle - 1)
    return low & 0xFFFFFFFF


_PRIMES: Final = [p for p in range(2, 312) if all(p % q for q in range(2, int(p**0.5) + 1))]
_ROUND: Final = np.array([_fraction(p, 3) for p in _PRIMES], np.uint32)
_INITIAL: Final = np.array([_fraction(p, 2) for p in _PRIMES[:8]], np.uint32)
u32: Final = np.uint32


def prefixed(prefix: int, flat: bytes, width: int) -> bytes:
    """SHA-256 of ``prefix`` (one byte) and each ``width`` bytes of ``flat`` (32 or 64), end to end; on every core."""
    rows = np.frombuffer(flat, np.uint8).reshape(-1, width)
    out = np.empty((len(rows), 32), np.uint8)
    cores = len(os.sched_getaffinity(0))
    cuts = [len(rows) * part // cores for part in range(cores + 1)]
    with ThreadPoolExecutor(cores) as pool:  # the compiled loop holds no GIL
        list(pool.map(lambda part: _run(np.uint8(prefix), rows[part[0] : part[1]], out[part[0] : part[1]]), pairwise(cuts)))
    return out.tobytes()


@numba.njit(inline="always")
def _rotated(x, n):  # type: ignore[no-untyped-def]  # compiled
    return u32((x >> u32(n)) | (x << u32(32 - n)))


@numba.njit(nogil=True, cache=True)
def _compress(state, w):  # type: ignore[no-untyped-def]  # compiled
    for t in range(16, 64):
        x, y = w[t - 15], w[t - 2]
        s0 = _rotated(x, 7) ^ _rotated(x, 18) ^ u32(x >> u32(3))
        s1 = _rotated(y, 17) ^ _rotated(y, 19) ^ u32(y >> u32(10))
        w[t] = u32(w[t - 16] + s0 + w[t - 7] + s1)
    a, b, c, d, e, f, g, h = state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
    for t in range(64):
        t1 = u32(h + (_rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)) + ((e & f) ^ (~e & g)) + _ROUND[t] + w[t])
        t2 = u32((_rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e, d, c, b, a = g, f, e, u32(d + t1), c, b, a, u32(t1 + t2)
    for t, more in enumerate((a, b, c, d, e, f, g, h)):
        state[t] = u32(state[t] + more)


@numba.njit(nogil=True, cache=True)
def _run(prefix, rows, out):  # type: ignore[no-untyped-def]  # compiled
    n, width = rows.shape
    blocks = 1 if width == 32 else 2
    message = np.zeros(128, np.uint8)
    message[0] = prefix
    message[width + 1] = 0x80
    bits = (width + 1) * 8
    message[blocks * 64 - 2] = bits >> 8
    message[blocks * 64 - 1] = bits & 255
    w = np.empty(64, np.uint32)
    state = np.empty(8, np.uint32)
    for i in range(n):
        message[1 : width + 1] = rows[i]
        state[:] = _INITIAL
        for block in range(blocks):
            for t in range(16):
                at = block * 64 + t * 4
                w[t] = u32((u32(message[at]) << u32(24)) | (u32(message[at + 1]) << u32(16)) | (u32(message[at + 2]) << u32(8)) | u32(message[at + 3]))
            _compress(state, w)
        for t in range(8):
            out[i, 4 * t] = (state[t] >> u32(24)) & u32(255)
            out[i, 4 * t + 1] = (state[t] >> u32(16)) & u32(255)
            out[i, 4 * t + 2] = (state[t] >> u32(8)) & u32(255)
            out[i, 4 * t + 3] = state[t] & u32(255)
