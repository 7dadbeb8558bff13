"""Owners, kinds and freshness of each asset: one table for all, applied over the finished assets.

The pool of the emergency pause (policy.POOL) belongs to an asset's step and is set where the step is made. A test
checks that every step has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.partitions import billing_days, billing_months


@dataclass(frozen=True, slots=True)
class AssetPolicy:
    """Policy of an asset. ``late`` names its freshness policy in ``_freshness``; None where it has none."""

    owners: list[str]
    kinds: frozenset[str]
    late: str | None = "day"


def _of(owners: list[str], *kinds: str, late: str | None = "day") -> AssetPolicy:
    return AssetPolicy(owners, frozenset(kinds), late)


#: First part of an asset's key -> its policy. An asset that is not here does not load.
POLICIES: Final[Mapping[str, AssetPolicy]] = MappingProxyType(
    {
        "reference": _of(policy.DATA, "csv", "postgres", late=None),
        "pulled_days": _of(policy.DATA, "http", "file", late="files"),
        "feed_files": _of(policy.DATA, "file", "postgres", late="files"),
        "raw_reads": _of(policy.DATA, "polars", "postgres"),
        "validated_intervals": _of(policy.ANALYSTS, "polars", "postgres"),
        "daily_usage": _of(policy.ANALYSTS, "polars", "postgres"),
        "weather": _of(policy.ANALYSTS, "csv", "postgres"),
        "baselines": _of(policy.ANALYSTS, "polars", "postgres", late="week"),
        "anomaly_flags": _of(policy.ANALYSTS, "polars", "postgres"),
        "ledger_before_billing": _of(policy.AUDITORS, "postgres"),
        "reconciled_billing": _of(policy.FINANCE, "polars", "postgres"),
        "statements": _of(policy.FINANCE, "polars", "postgres"),
        "unbilled_revenue": _of(policy.FINANCE, "polars", "postgres", late="month"),
        "supply_balance": _of(policy.DATA, "polars", "postgres", late="month"),
        "winter_averages": _of(policy.FINANCE, "polars", "postgres", late=None),
        "leak_adjustments": _of(policy.FINANCE, "polars", "postgres", late="month"),
        "estimated_bills": _of(policy.FINANCE, "polars", "postgres", late="month"),
        "unit_charges": _of(policy.FINANCE, "polars", "postgres", late="month"),
        "rate_study": _of(policy.FINANCE, "polars", "postgres", late=None),
        "month_end_close": _of(policy.FINANCE, "postgres", late="month"),
        "ledger_checkpoint": _of(policy.AUDITORS, "postgres"),
        "close_report": _of(policy.FINANCE, "html"),
        "shadow_billing": _of(policy.DATA, "polars", "postgres", late=None),
        "migration_comparison": _of(policy.FINANCE, "polars", "postgres", late=None),
        "published_bills": _of(policy.FINANCE, "postgres", late=None),
    }
)


def applied(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets with their owners, kinds and freshness policy. Raises KeyError for one that POLICIES does not name."""
    return [asset.map_asset_specs(_applied) for asset in assets]


def _applied(spec: dg.AssetSpec) -> dg.AssetSpec:
    policy = POLICIES[spec.key.path[0]]
    return spec.replace_attributes(
        owners=policy.owners,
        kinds=set(policy.kinds),
        freshness_policy=None if policy.late is None else _freshness(policy.late),
    )


def _freshness(late: str) -> dg.FreshnessPolicy:
    match late:
        case "day":
            return policy.freshness(billing_days().timezone)
        case "month":
            return policy.month_end(billing_months().timezone)
        case "files":
            return policy.DAILY_FILES
        case "week":
            return policy.WEEKLY_REFIT
    raise ValueError(f"no freshness policy is called {late!r}")
