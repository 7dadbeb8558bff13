"""Contracts of schema ``ledger``: the audit ledger."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import Contract

CONTRACTS: tuple[Contract, ...] = ()
