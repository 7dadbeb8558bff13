"""How the rows behind the ledger's leaves are hashed again, by encoding: what rooms know of their own rows, handed to
verification.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl


def hashers() -> dict[str, Callable[[pl.DataFrame], pl.Series]]:
    """Encoding -> (rows with the table's own columns -> Binary column of their leaves). Imported when asked for."""
    from meter_pipeline.billing.leaves import adjustment_line_leaves, charge_leaves, statement_leaves
    from meter_pipeline.ingest import keys
    from meter_pipeline.ledger.erasure import salted_leaves

    return {
        "mpi1": keys.interval_payload_hashes,
        "mpr1": keys.register_payload_hashes,
        "mp-charge/1": charge_leaves,
        "mp-statement/1": statement_leaves,
        "mp-adjustment-line/1": adjustment_line_leaves,
        "mp-salted/1": salted_leaves,
    }
