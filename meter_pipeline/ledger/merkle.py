"""RFC 6962 Merkle trees: roots, inclusion and consistency proofs, and their verification.

A leaf's hash is SHA-256(0x00 || data), an inner node's SHA-256(0x01 || left || right): the prefixes keep a node from
passing for a leaf (RFC 6962 section 2.1). A tree of n leaves splits at the largest power of two below n, which is the
same as pairing neighbours level by level and carrying an odd last node up unchanged: the form used here, because it
runs over flat buffers.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:  # the signer's process folds nothing and must start fast
    import numpy as np
    import numpy.typing as npt

HASH_SIZE: Final = 32
#: From so many hashes on the compiled loop of sha256_many.py makes them: loading it costs half a second, a million
# hashlib calls one.
MANY: Final = 200_000
#: A batch of so many leaves is folded by itself: put together with others each level is copied pair by pair.
_BY_ITSELF: Final = 20_000
#: The same where the process has loaded numba already, as a billing day's has.
MANY_LOADED: Final = 128
#: MTH of the empty tree (RFC 6962 section 2.1).
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

#: Leaves of one batch: a list of 32-byte hashes, an (n, 32) uint8 array, or the hashes end to end.
Leaves: TypeAlias = "Sequence[bytes] | npt.NDArray[np.uint8] | bytes"
#: hash of the complete subtree (level, index), which covers leaves [index * 2**level, (index + 1) * 2**level)
NodeReader: TypeAlias = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf that holds ``data``."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node over two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def concatenated(leaves: Leaves) -> bytes:
    """Leaves end to end. Raises ValueError where one is not 32 bytes, so that a hexadecimal digest never passes for a
    hash."""
    if isinstance(leaves, (bytes, bytearray, memoryview)):
        flat = bytes(leaves)
    elif hasattr(leaves, "dtype"):
        array: Any = leaves
        if array.dtype != "uint8" or array.ndim != 2 or array.shape[1] != HASH_SIZE:
            raise ValueError(f"leaves must be an (n, {HASH_SIZE}) uint8 array, not {array.dtype} {array.shape}")
        flat = array.tobytes()
    else:
        if any(len(leaf) != HASH_SIZE for leaf in leaves):
            raise ValueError(f"every leaf must be {HASH_SIZE} bytes")
        flat = b"".join(leaves)
    if len(flat) % HASH_SIZE:
        raise ValueError(f"{len(flat)} bytes are not a whole number of {HASH_SIZE}-byte leaves")
    return flat


def compiled(hashes: int) -> bool:
    """Whether the compiled loop pays for so many hashes. The answer changes the time, never the hashes."""
    return hashes >= MANY or (hashes >= MANY_LOADED and "numba" in sys.modules)


def leaf_level(flat: bytes) -> bytes:
    """Leaf hashes, end to end, of leaves whose data are 32-byte hashes, end to end."""
    if compiled(len(flat) // HASH_SIZE):
        from meter_pipeline.ledger import sha256_many

        return sha256_many.prefixed(0, flat, HASH_SIZE)
    sha = hashlib.sha256
    return b"".join([sha(b"\x00" + flat[at : at + HASH_SIZE]).digest() for at in range(0, len(flat), HASH_SIZE)])


def parent_level(flat: bytes) -> bytes:
    """One level up: neighbours paired, an odd last node carried."""
    whole = len(flat) // 64 * 64
    if compiled(len(flat) // HASH_SIZE):
        from meter_pipeline.ledger import sha256_many

        return sha256_many.prefixed(1, flat[:whole], 2 * HASH_SIZE) + flat[whole:]
    sha = hashlib.sha256
    return b"".join([sha(b"\x01" + flat[at : at + 64]).digest() for at in range(0, whole, 64)]) + flat[whole:]


def root_of_hashes(flat: bytes) -> bytes:
    """The root over leaf hashes given end to end (already hashed with the leaf prefix)."""
    if not flat:
        return EMPTY_ROOT
    while len(flat) > HASH_SIZE:
        flat = parent_level(flat)
    return flat


def fold_root(leaves: Leaves) -> bytes:
    """The RFC 6962 root of a batch whose leaves' data are 32-byte payload hashes, in the order given."""
    return root_of_hashes(leaf_level(concatenated(leaves)))


def fold_roots(flat: bytes, counts: Sequence[int]) -> list[bytes]:
    """fold_root of many batches at once: their payload hashes end to end, ``counts`` of each. Level by level over all
    of them together, because a batch of a few hundred leaves is too short for the compiled loop. Raises ValueError
    where the counts are not of ``flat``."""
    if sum(counts) * HASH_SIZE != len(flat):
        raise ValueError(f"{len(flat)} bytes are not {sum(counts)} hashes")
    if not compiled(sum(counts)) or max(counts, default=0) >= _BY_ITSELF:
        ends = [HASH_SIZE * end for end in accumulate(counts, initial=0)]
        batches = [(flat[start:end], count) for (start, end), count in zip(pairwise(ends), counts, strict=True)]
        if not compiled(sum(counts)):
            return [fold_root(batch) for batch, _ in batches]
        small = [batch for batch, count in batches if count < _BY_ITSELF]
        together = iter(fold_roots(b"".join(small), [count for count in counts if count < _BY_ITSELF]))
        return [fold_root(batch) if count >= _BY_ITSELF else next(together) for batch, count in batches]
    import numpy as np

    from meter_pipeline.ledger import sha256_many

    level = np.frombuffer(leaf_level(flat), np.uint8).reshape(-1, HASH_SIZE)
    sizes = np.asarray(counts, np.int64)
    while sizes.max(initial=0) > 1:
        starts, pairs = np.cumsum(sizes) - sizes, sizes // 2
        above = sizes - pairs
        place = np.cumsum(above) - above
        within = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        left = np.repeat(starts, pairs) + 2 * within
        made = sha256_many.prefixed(1, np.concatenate((level[left], level[left + 1]), axis=1).tobytes(), 2 * HASH_SIZE)
        up = np.empty((int(above.sum()), HASH_SIZE), np.uint8)
        up[np.repeat(place, pairs) + within] = np.frombuffer(made, np.uint8).reshape(-1, HASH_SIZE)
        odd = (sizes & 1) == 1
        up[(place + above - 1)[odd]] = level[(starts + sizes - 1)[odd]]
        level, sizes = up, above
    roots = iter(level)
    return [next(roots).tobytes() if count else EMPTY_ROOT for count in counts]


def root(data: Sequence[bytes]) -> bytes:
    """The RFC 6962 root over leaves of any length."""
    return root_of_hashes(b"".join([leaf_hash(item) for item in data]))


def reader_of(flat: bytes) -> NodeReader:
    """A NodeReader over leaf hashes given end to end; each level is made once, when first asked for."""
    levels = [flat]

    def read(level: int, index: int) -> bytes:
        while len(levels) <= level:
            below = levels[-1]
            levels.append(parent_level(below[: len(below) // 64 * 64]))
        node = levels[level][index * HASH_SIZE : (index + 1) * HASH_SIZE]
        if len(node) != HASH_SIZE:
            raise IndexError(f"no complete node at level {level} index {index}")
        return node

    return read


def subtree_root(read: NodeReader, start: int, end: int) -> bytes:
    """MTH over leaves [start, end) from complete subtrees; ``start`` must be where RFC 6962 would split (a multiple of
    a power of two not below the length), as it is in every call a proof makes."""
    parts = [read(level, index) for level, index in cover(start, end)]
    result = parts.pop()
    while parts:
        result = node_hash(parts.pop(), result)
    return result


def cover(start: int, end: int) -> list[tuple[int, int]]:
    """The complete subtrees, largest first, that make up leaves [start, end)."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        found.append((level, start >> level))
        start += 1 << level
    return found


def tree_root(read: NodeReader, size: int) -> bytes:
    """The root of the first ``size`` leaves."""
    return subtree_root(read, 0, size) if size else EMPTY_ROOT


def inclusion_proof(read: NodeReader, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1, from the leaf's sibling up to the root's child. Raises IndexError
    outside the tree."""
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            path.append(subtree_root(read, split, end))
            end = split
        else:
            path.append(subtree_root(read, start, split))
            start = split
    return path[::-1]


def consistency_proof(read: NodeReader, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2; empty where the sizes are equal or the old tree was empty.

    Raises IndexError where the old tree is the larger.
    """
    if not 0 <= old <= new:
        raise IndexError(f"a tree of {new} cannot extend one of {old}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, end = 0, new
    whole = True  # the old tree's root is still a node on the way down, so the verifier knows it already
    while old != end:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if old <= split:
            path.append(subtree_root(read, split, end))
            end = split
        else:
            path.append(subtree_root(read, start, split))
            start, whole = split, False
    if not whole:
        path.append(subtree_root(read, start, end))
    return path[::-1]


class ProofError(ValueError):
    """A proof does not prove its claim."""


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2). Raises ProofError where its shape
    is wrong.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    _check_hashes([leaf, *proof])
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the proof is too long")
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    return result


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], expected: bytes) -> None:
    """Raises ProofError unless ``leaf`` (a leaf hash) is at ``index`` of the tree of ``size`` leaves whose root is
    ``expected``."""
    if root_from_inclusion(index, size, leaf, proof) != expected:
        raise ProofError("the proof leads to another root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ProofError unless the tree of ``new`` leaves extends the tree of ``old`` (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= new:
        raise ProofError(f"a tree of {new} cannot extend one of {old}")
    _check_hashes([old_root, new_root, *proof])
    if old == new or old == 0:
        if proof:
            raise ProofError("the proof should be empty")
        if old == new and old_root != new_root:
            raise ProofError("two roots for one size")
        if old == 0 and old_root != EMPTY_ROOT:
            raise ProofError("the empty tree has another root")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofError("the proof is empty")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_found = new_found = path[0]
    for step in path[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if node & 1 or node == last:
            old_found, new_found = node_hash(step, old_found), node_hash(step, new_found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_found = node_hash(new_found, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    if old_found != old_root:
        raise ProofError("the proof starts from another old root")
    if new_found != new_root:
        raise ProofError("the proof leads to another new root")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(item) != HASH_SIZE for item in hashes):
        raise ProofError(f"every hash must be {HASH_SIZE} bytes")
