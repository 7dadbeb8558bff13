"""Contracts of schema ``migration``: the comparison with the legacy batch."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import DAY, Column, Contract

CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "migration.comparison",
        "a figure that differs from the legacy batch's",
        ("billing_day", "account_id", "level", "code"),
        {
            "billing_day": DAY,
            "account_id": Column("text", "account"),
            "level": Column("text", "level of the figure"),
            "code": Column("text", "which figure"),
            "new_value": Column("bigint", "our figure, or null", nullable=True),
            "legacy_value": Column("bigint", "the legacy batch's, or null", nullable=True),
            "difference": Column("bigint", "new less legacy"),
            "class": Column("text", "why they differ"),
            "cause": Column("text", "the defect, or that a total follows its lines", nullable=True),
            "run_id": Column("bigint", "comparison that found it"),
        },
        lineage={
            "new_value": ("vee.daily_usage.quantity_micro", "billing.determinant_day.energy", "billing.charge_day.total"),
            "difference": ("migration.comparison.new_value", "migration.comparison.legacy_value"),
        },
    ),
)
