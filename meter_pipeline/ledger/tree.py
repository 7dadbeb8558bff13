"""The Merkle tree of the log, stored in the database: reads nodes for a proof, adds nodes when entries arrive."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from meter_pipeline.ledger import merkle
from meter_pipeline.ledger.tables import entries


def stored_reader(connection: entries.Connection) -> merkle.NodeReader:
    """Returns a NodeReader over ledger.leaf and ledger.node.

    Levels 0, 8, 16 ... are stored; a level between is computed from at most 128 stored hashes. Raises IndexError for a
    node that is not stored.
    """

    @lru_cache(maxsize=4096)
    def read(level: int, index: int) -> bytes:
        base, above = level // 8 * 8, level % 8
        start, count = index << above, 1 << above
        end = start + count
        flat = (
            entries.node_hashes(connection, base, start, end) if base else entries.leaf_hashes(connection, start, end)
        )
        if len(flat) != count * merkle.HASH_SIZE:
            raise IndexError(f"the log's tree lacks part of level {base} at {start}")
        return merkle.root_of_hashes(flat)

    return read


class TreeBuilder:
    """A tree that takes leaf hashes in order and keeps only its right edge. Completed subtrees of 256, 65536 ... leaves
    are returned in ``nodes`` (level, index, hash)."""

    def __init__(self, size: int, read: merkle.NodeReader | None) -> None:
        self.size = size
        self.nodes: list[tuple[int, int, bytes]] = []
        self._edge: list[tuple[int, bytes]] = []  # (level, hash), largest subtree first
        if size:
            assert read is not None  # noqa: S101 - a tree with leaves comes with a way to read them
            self._edge = [(level, read(level, index)) for level, index in merkle.cover(0, size)]

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Append leaf hashes."""
        for leaf in hashes:
            level, node = 0, leaf
            while self._edge and self._edge[-1][0] == level:
                node = merkle.node_hash(self._edge.pop()[1], node)
                level += 1
                if level % 8 == 0:
                    self.nodes.append((level, self.size >> level, node))
            self._edge.append((level, node))
            self.size += 1

    def root(self) -> bytes:
        """Returns the root over all leaves."""
        if not self._edge:
            return merkle.EMPTY_ROOT
        result = self._edge[-1][1]
        for _, node in reversed(self._edge[:-1]):
            result = merkle.node_hash(node, result)
        return result
