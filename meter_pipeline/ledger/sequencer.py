"""The sequencer: gives committed entries their place in the log, one process at a time.

Entries get their place after commit, because an identity column gaps on rollback and interleaves between writers. A
round takes every committed entry that has no place; what is still in flight gets its place in a later round, so nothing
waits for a stranger's long transaction and nothing is passed over. To find the missing ones without reading the whole
log, a round remembers the oldest transaction that was running: all entries of older ones are placed, so the next round
looks from there. Transaction ids mean something only on the server that gave them: after a restore elsewhere (another
system identifier, or a counter behind the remembered one) a round looks at everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from meter_pipeline.ledger import merkle
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tree import TreeBuilder, stored_reader

#: How long a round waits for another sequencer's, which takes milliseconds.
WAIT_S = 30.0


class SequencerBusyError(RuntimeError):
    """Another sequencer holds the log."""


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The log after a round: its ``origin``, ``size``, RFC 6962 ``root``, and how many entries the round ``added``."""

    origin: str
    size: int
    root: bytes
    added: int


def sequence(
    connection: store.Connection, *, origin_prefix: str = "meter-pipeline", sweep: bool = False, wait_s: float = WAIT_S
) -> TreeHead:
    """One round, in a transaction of its own on ``connection`` (which must not be inside one).

    ``sweep`` looks at every entry rather than the recent ones. Raises SequencerBusyError where another sequencer keeps
    the lock beyond ``wait_s``.
    """
    with connection.transaction():
        if not store.take_sequencer_lock(connection, wait_s):
            raise SequencerBusyError("another sequencer holds the log")
        origin = store.ensure_log(connection, origin_prefix)
        head = store.latest_head(connection)
        horizon, cluster_id = store.snapshot_horizon(connection)  # before the entries are read: it may only be too old
        size, root = (head.tree_size, head.root_hash) if head else (0, merkle.EMPTY_ROOT)
        known = head is not None and head.cluster_id == cluster_id and head.horizon <= horizon
        entries = store.unsequenced(connection, head.horizon if head is not None and known and not sweep else 0)
        if not entries:
            return TreeHead(origin, size, root, 0)
        growing = TreeBuilder(size, stored_reader(connection))
        growing.extend(leaf_hash for _, leaf_hash in entries)
        store.insert_leaves(connection, size, entries)
        store.insert_nodes(connection, growing.nodes)
        store.insert_head(connection, store.Head(growing.size, growing.root(), horizon, cluster_id))
        return TreeHead(origin, growing.size, growing.root(), len(entries))
