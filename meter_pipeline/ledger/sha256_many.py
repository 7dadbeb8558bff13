"""SHA-256 of very many short messages, for a tree of hundreds of thousands of leaves.

Sixteen messages are hashed side by side, one in each lane of the processor's vector registers, as multi-buffer SHA-256
does: every step of the algorithm is a loop over the lanes, which the compiler turns into vector instructions. Measured
on one core: 6 million leaves a second, where one message after another gave 1 million.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final

import numba
import numpy as np


def _fraction(prime: int, root: int) -> int:
    """The first 32 bits of the fractional part of a prime's square or cube root (FIPS 180-4, sections 4.2.2 and 5.3.3),
    in integers."""
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
#: Messages side by side: two AVX2 registers of 32-bit words, or one of AVX-512.
LANES: Final = 16
#: Fewer messages than this are not worth another thread.
_THREADED: Final = 50_000


def prefixed(prefix: int, flat: bytes, width: int) -> bytes:
    """SHA-256 of ``prefix`` (one byte) and each ``width`` bytes of ``flat`` (32 or 64), end to end; on every core."""
    rows = np.frombuffer(flat, np.uint8).reshape(-1, width)
    out = np.empty((len(rows), 32), np.uint8)
    cores = len(os.sched_getaffinity(0)) if len(rows) >= _THREADED else 1
    if cores == 1:
        _run(np.uint8(prefix), rows, out)
        return out.tobytes()
    cuts = [len(rows) * part // cores for part in range(cores + 1)]
    with ThreadPoolExecutor(cores) as pool:  # the compiled loop holds no GIL
        list(
            pool.map(
                lambda part: _run(np.uint8(prefix), rows[part[0] : part[1]], out[part[0] : part[1]]), pairwise(cuts)
            )
        )
    return out.tobytes()


@numba.njit(inline="always")
def _rotated(x, n):  # type: ignore[no-untyped-def]  # compiled
    return u32((x >> u32(n)) | (x << u32(32 - n)))


@numba.njit(nogil=True, cache=True)
def _compress(state, turning, w):  # type: ignore[no-untyped-def]  # compiled
    for t in range(16, 64):
        for lane in range(LANES):
            x, y = w[t - 15, lane], w[t - 2, lane]
            s0 = _rotated(x, 7) ^ _rotated(x, 18) ^ u32(x >> u32(3))
            s1 = _rotated(y, 17) ^ _rotated(y, 19) ^ u32(y >> u32(10))
            w[t, lane] = u32(w[t - 16, lane] + s0 + w[t - 7, lane] + s1)
    turning[:] = state
    for t in range(64):
        # The eight working words change places every round; here the places turn and the words stay.
        a, b, c, d = turning[(64 - t) & 7], turning[(65 - t) & 7], turning[(66 - t) & 7], turning[(67 - t) & 7]
        e, f, g, h = turning[(68 - t) & 7], turning[(69 - t) & 7], turning[(70 - t) & 7], turning[(71 - t) & 7]
        constant, word = _ROUND[t], w[t]
        for lane in range(LANES):
            x, y = e[lane], a[lane]
            t1 = u32(
                h[lane]
                + (_rotated(x, 6) ^ _rotated(x, 11) ^ _rotated(x, 25))
                + ((x & f[lane]) ^ (~x & g[lane]))
                + constant
                + word[lane]
            )
            t2 = u32(
                (_rotated(y, 2) ^ _rotated(y, 13) ^ _rotated(y, 22))
                + ((y & b[lane]) ^ (y & c[lane]) ^ (b[lane] & c[lane]))
            )
            d[lane] = u32(d[lane] + t1)
            h[lane] = u32(t1 + t2)
    for k in range(8):
        for lane in range(LANES):
            state[k, lane] = u32(state[k, lane] + turning[k, lane])


@numba.njit(nogil=True, cache=True)
def _run(prefix, rows, out):  # type: ignore[no-untyped-def]  # compiled
    n, width = rows.shape
    blocks = 1 if width == 32 else 2
    bits = (width + 1) * 8
    message = np.zeros((LANES, 128), np.uint8)
    message[:, 0] = prefix
    message[:, width + 1] = 0x80
    message[:, blocks * 64 - 2] = bits >> 8
    message[:, blocks * 64 - 1] = bits & 255
    w = np.empty((64, LANES), np.uint32)
    state = np.empty((8, LANES), np.uint32)
    turning = np.empty((8, LANES), np.uint32)
    for first in range(0, n, LANES):
        filled = min(LANES, n - first)  # the last lanes may hold old contents; they are not read
        for lane in range(filled):
            for k in range(width):
                message[lane, 1 + k] = rows[first + lane, k]
        for k in range(8):
            for lane in range(LANES):
                state[k, lane] = _INITIAL[k]
        for block in range(blocks):
            for t in range(16):
                at = block * 64 + t * 4
                for lane in range(LANES):
                    w[t, lane] = u32(
                        (u32(message[lane, at]) << u32(24))
                        | (u32(message[lane, at + 1]) << u32(16))
                        | (u32(message[lane, at + 2]) << u32(8))
                        | u32(message[lane, at + 3])
                    )
            _compress(state, turning, w)
        for lane in range(filled):
            for k in range(8):
                word = state[k, lane]
                out[first + lane, 4 * k] = (word >> u32(24)) & u32(255)
                out[first + lane, 4 * k + 1] = (word >> u32(16)) & u32(255)
                out[first + lane, 4 * k + 2] = (word >> u32(8)) & u32(255)
                out[first + lane, 4 * k + 3] = word & u32(255)
