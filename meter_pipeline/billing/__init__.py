"""From validated usage to money: tariffs, determinants, charges, statements, reconciliation, adjustments, month-end
close.

Belongs here: the room's public names. The billing day's asset calls ``bill_billing_day``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.billing.day import BillingOutcome, bill_billing_day
    from meter_pipeline.billing.part_of_day import last_billed, validated_since_billed
    from meter_pipeline.billing.several_days import bill_billing_days

__all__ = ["BillingOutcome", "bill_billing_day", "bill_billing_days", "last_billed", "validated_since_billed"]

__getattr__ = attach(
    __name__,
    {
        "day": (
            "BillingOutcome",
            "bill_billing_day",
        ),
        "part_of_day": ("last_billed", "validated_since_billed"),
        "several_days": ("bill_billing_days",),
    },
)
