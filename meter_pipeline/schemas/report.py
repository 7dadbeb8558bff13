"""A stage's report of a billing day: figures, tables, plots, and whether its invariants held. Dagster gets it from
defs/lib/report_metadata.py, to people by the CLI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl


@dataclass(slots=True)
class Check:
    """One invariant of a day: its name, whether it held, and the figures that show it."""

    name: str
    passed: bool
    description: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StageReport:
    """One stage's day: rows written, figures, tables (frames), plots (PNG bytes under 20 kB by title), checks."""

    rows: int
    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    checks: Sequence[Check] = ()
