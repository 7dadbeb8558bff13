"""Contracts of schema ``billing``: determinants, lines, statements, reconciliation."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import Contract

CONTRACTS: tuple[Contract, ...] = ()
