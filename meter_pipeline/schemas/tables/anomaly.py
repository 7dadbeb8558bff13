"""Contracts of schema ``anomaly``: baselines, flags and cases."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import Contract

CONTRACTS: tuple[Contract, ...] = ()
