"""Every kind of fault, in the order of the table of docs/reliability.md."""

from __future__ import annotations

from importlib import import_module

from meter_pipeline_tests.faults.catalogue import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]

for _room in ("processes", "refusals", "network", "input", "ledger"):
    import_module(f"meter_pipeline_tests.faults.kinds_{_room}")
