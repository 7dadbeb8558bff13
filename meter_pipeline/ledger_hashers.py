"""How the rows behind the ledger's leaves are hashed again, by encoding: what rooms know of their own rows, handed to
verification.
"""

from __future__ import annotations

from meter_pipeline.ledger.row_rules import RowRules


def hashers() -> RowRules:
    """Encoding -> (rows with the table's own columns -> Binary column of their leaves), with the merges and derived
    columns of tables. Imported when asked for."""
    from meter_pipeline.billing import leaves as billing
    from meter_pipeline.ingest import keys, merge_versions
    from meter_pipeline.ledger.erasure import salted_leaves
    from meter_pipeline.vee import leaves as vee

    return RowRules(
        {
            "mpi1": keys.interval_payload_hashes,
            "mpr1": keys.register_payload_hashes,
            "mp-vee-row/1": vee.validated_row_hashes,
            "mp-charge/1": billing.charge_leaves_1,
            "mp-charge/2": billing.charge_leaves,
            "mp-determinant/1": billing.determinant_leaves,
            "mp-statement/1": billing.statement_leaves,
            "mp-adjustment-line/1": billing.adjustment_line_leaves,
            "mp-salted/1": salted_leaves,
        },
        {"raw.interval_day": merge_versions.fold_intervals, "raw.register_read": merge_versions.fold_registers},
        {
            "raw.register_read": keys.wrong_keys,
            "vee.interval_day": vee.derived_columns,
            "vee.interval_day_version": vee.derived_columns,
            "billing.charge_day": billing.charge_totals,
            "billing.charge_day_version": billing.charge_totals,
            "billing.statement": billing.statement_totals,
        },
    )
