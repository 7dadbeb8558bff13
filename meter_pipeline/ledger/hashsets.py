"""Sets of hashes as arrays: which of a hundred thousand are not among another hundred thousand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meter_pipeline.ledger.merkle import HASH_SIZE

Hashes = npt.NDArray[np.uint8]


def of(flat: bytes) -> Hashes:
    """Hashes given end to end, as an array. Raises ValueError where a part of one is left."""
    return np.frombuffer(flat, np.uint8).reshape(-1, HASH_SIZE)


def same(some: Hashes, others: Hashes) -> bool:
    """Whether they are certainly the same hashes, each as often; False says nothing. One sort each, where asking for
    the absent both ways takes a sort and two searches."""
    return some.shape == others.shape and bool(
        (some[np.argsort(_words(some))] == others[np.argsort(_words(others))]).all()
    )


class Index:
    """Hashes in the order of their first eight bytes, sorted once, to ask for many times."""

    def __init__(self, hashes: Hashes) -> None:
        first = _words(hashes)
        order = np.argsort(first)
        self._hashes, self._sorted, self._first = hashes, hashes[order], first[order]

    def absent(self, wanted: Hashes) -> list[int]:
        """Rows of ``wanted``, by number, that are not here."""
        if not len(self._hashes):
            return list(range(len(wanted)))
        words = _words(wanted)
        # Looked for in their order, neighbours find their place in the same part of memory: a third of the time.
        order = np.argsort(words)
        at = np.minimum(np.searchsorted(self._first, words[order]), len(self._sorted) - 1)
        # Hashes that differ beyond their first eight bytes meet in the second look.
        unsure = np.sort(order[_whole(self._sorted[at]) != _whole(wanted[order])])
        if not len(unsure):
            return []
        every = {row.tobytes() for row in self._hashes}
        return [int(row) for row in unsure if wanted[row].tobytes() not in every]


def absent(wanted: Hashes, among: Hashes) -> list[int]:
    """Rows of ``wanted``, by number, that are no row of ``among``."""
    return Index(among).absent(wanted)


def _words(hashes: Hashes) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64).ravel()


def _whole(hashes: Hashes) -> npt.NDArray[np.void]:
    """One value a hash: compared as such they take a third of the time of their bytes."""
    return np.ascontiguousarray(hashes).view(f"V{HASH_SIZE}").ravel()
