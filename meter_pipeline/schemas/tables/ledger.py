"""Contracts of schema ``ledger``: the audit ledger."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import Column, Contract

CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "ledger.leaf",
        "an entry's place in the log",
        ("leaf_index",),
        {
            "leaf_index": Column("bigint", "place in the log, from 0, no gaps", at_least=0),
            "entry_id": Column("bigint", "the entry at this place"),
            "leaf_hash": Column("bytea", "RFC 6962 leaf hash of its body"),
        },
        lineage={
            "entry_id": ("ledger.entry.entry_id",),
            "leaf_hash": ("ledger.entry.leaf_hash", "raw.interval_day.payload_hash", "vee.interval_day.content_hash"),
        },
    ),
    Contract(
        "ledger.checkpoint",
        "a signed head of the ledger's tree",
        ("tree_size",),
        {
            "tree_size": Column("bigint", "entries covered", at_least=0),
            "note": Column("text", "the signed note, as published"),
            "key_id": Column("text", "first four bytes of the key's id, hex"),
            "signed_at": Column("timestamp with time zone", "server clock when it was stored, UTC"),
        },
        lineage={
            "tree_size": ("ledger.leaf.leaf_index",),
            "note": ("ledger.leaf.leaf_hash",),
        },
    ),
)
