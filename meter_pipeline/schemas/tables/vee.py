"""Contracts of schema ``vee``: validated intervals and usage."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import Contract

CONTRACTS: tuple[Contract, ...] = ()
