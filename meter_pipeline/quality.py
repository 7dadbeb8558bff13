"""The quality code of a value: one 16-bit number, lossless both ways to AEMO and to Green Button.

Layout, low bits first: reason + 1 in 7 bits (0: none given), method index in 6 bits (0: none), AEMO flag in 3 bits. An
actual value without a method or reason is 0. Sources: AEMO MDFF v2.6 quality flags and methods; ESPI QualityOfReading
(NAESB REQ.21).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

#: A actual, S substituted, F final substituted, E forward estimate, N null, V variable (never stored), and M: no read
# ever came
FLAGS: Final = ("A", "S", "F", "E", "N", "V", "M")
AEMO_METHODS: Final = (
    *range(11, 26),
    *range(51, 60),
    *(61, 62, 63, 64, 65, 66, 67, 68, 69),
    *range(71, 76),
)
#: ESPI codes that no AEMO flag and method say: kept as methods of their own so that a Green Button file round-trips
ESPI_CODES: Final = (0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
_METHOD_INDEX: Final[dict[tuple[str, int], int]] = {
    **{("aemo", m): i + 1 for i, m in enumerate(AEMO_METHODS)},
    **{("espi", c): i + 1 + len(AEMO_METHODS) for i, c in enumerate(ESPI_CODES)},
}
_METHODS: Final[dict[int, tuple[str, int]]] = {i: k for k, i in _METHOD_INDEX.items()}

_ESPI_FLAG: Final = {
    0: "A",
    7: "S",
    8: "S",
    9: "S",
    10: "A",
    11: "S",
    12: "E",
    13: "S",
    14: "A",
    15: "S",
    16: "A",
    17: "A",
    18: "A",
    19: "A",
}


class Quality(NamedTuple):
    """A quality code in words: flag letter, AEMO method (11 to 75) or None, AEMO reason (0 to 99) or None, ESPI code or
    None."""

    flag: str
    method: int | None = None
    reason: int | None = None
    espi: int | None = None


def pack(flag: str, method: int | None = None, reason: int | None = None, espi: int | None = None) -> int:
    """The code, 0 to 65535. Raises ValueError for a flag, method or reason that no list has, or for both a method and
    an ESPI code."""
    if flag not in FLAGS:
        raise ValueError(f"unknown quality flag {flag!r}")
    if method is not None and espi is not None:
        raise ValueError("a value has an AEMO method or an ESPI code, not both")
    index = 0
    if method is not None:
        index = _METHOD_INDEX.get(("aemo", method), 0)
        if not index:
            raise ValueError(f"unknown AEMO method {method}")
    elif espi is not None:
        index = _METHOD_INDEX.get(("espi", espi), 0)
        if not index:
            raise ValueError(f"unknown ESPI quality {espi}")
    if reason is not None and not 0 <= reason <= 99:
        raise ValueError(f"AEMO reason {reason} is not in 0 to 99")
    return FLAGS.index(flag) << 13 | index << 7 | (0 if reason is None else reason + 1)


def unpack(code: int) -> Quality:
    """Returns the parts of a code. Raises ValueError for one that pack never makes."""
    flag_index, index, reason = code >> 13, code >> 7 & 63, code & 127
    if not 0 <= code <= 0xFFFF or flag_index >= len(FLAGS) or reason > 100 or (index and index not in _METHODS):
        raise ValueError(f"not a quality code: {code}")
    family, number = _METHODS[index] if index else ("", 0)
    return Quality(
        FLAGS[flag_index],
        number if family == "aemo" else None,
        reason - 1 if reason else None,
        number if family == "espi" else None,
    )


def unpack_all() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Of each of the 65,536 codes: the place of its flag in FLAGS, its reason (-1: none), and whether pack makes it."""
    codes = np.arange(1 << 16)
    flag, method, reason = codes >> 13, codes >> 7 & 63, codes & 127
    valid = (flag < len(FLAGS)) & (reason <= 100) & ((method == 0) | np.isin(method, list(_METHODS)))
    return flag, reason - 1, valid


def from_espi(code: int) -> int:
    """The code of an ESPI QualityOfReading. 0 (valid) stays apart from a file that gives no quality at all."""
    return pack(_ESPI_FLAG[code], espi=code)


def to_espi(code: int) -> int:
    """ESPI QualityOfReading of any code: the one it came with, or the nearest for a code of AEMO's or of ours."""
    quality = unpack(code)
    if quality.espi is not None:
        return quality.espi
    if quality.flag == "A":
        return 0
    if quality.flag == "E":
        return 12
    if quality.method in (17, 54, 69):
        return 9
    if quality.method in (13, 14, 15, 20, 22, 23, 51, 61):
        return 8
    if quality.method in (16, 55, 64, 67, 74):
        return 7
    return 11


ACTUAL: Final = pack("A")
MISSING: Final = pack("M")


#: Condition-code rank by flag: a lower one never replaces a higher one, whatever its version or read time (Oracle MDM
# "Final Measurement : Replacement"; AEMO's order of A and F before S before E). A final substitution stands beside an
# actual: it is how a source takes an actual back, so between those two the version decides. A null
# missing read and no value.
_RANKS: Final = {"M": 0, "N": 1, "E": 2, "S": 3, "V": 3, "F": 4, "A": 4}
_RANK_OF: Final = np.array([*(_RANKS[flag] for flag in FLAGS), 0], np.int8)
_RANK_OF_NULL: Final = 1


def condition_rank(codes: npt.NDArray[Any], null: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Rank of each quality code, 0 (no read) to 4 (actual, final substitution); a value that is ``null`` has rank 1 at
    most. Any shape."""
    rank: npt.NDArray[np.int8] = (
        _RANK_OF[codes.view(np.uint16) >> 13] if codes.dtype.itemsize == 2 else _RANK_OF[codes >> 13]
    )
    lowered: npt.NDArray[np.int8] = np.where(null, np.minimum(rank, _RANK_OF_NULL), rank)
    return lowered


def flag_of(code: int) -> str:
    """The flag letter of a code, for tables and plots."""
    return FLAGS[code >> 13]
