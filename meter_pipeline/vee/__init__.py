"""VEE: validation, estimation, editing. A raw billing day becomes validated intervals and daily usage, every value with
its quality.

Belongs here: the public names of the room. ``validate_billing_day`` is the stage; ``validate_matrix`` the pure function
under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.vee.dated_thresholds import register_tolerance_on
    from meter_pipeline.vee.day import validate_billing_day
    from meter_pipeline.vee.explain import explain_day
    from meter_pipeline.vee.part_of_day import touched_since
    from meter_pipeline.vee.report import usage_report
    from meter_pipeline.vee.rules.policy import PolicyError
    from meter_pipeline.vee.rules.thresholds import ThresholdError, Thresholds
    from meter_pipeline.vee.several_days import validate_billing_days
    from meter_pipeline.vee.summary import VeeOutcome
    from meter_pipeline.vee.validate import validate_matrix

__all__ = [
    "PolicyError",
    "ThresholdError",
    "Thresholds",
    "VeeOutcome",
    "explain_day",
    "register_tolerance_on",
    "touched_since",
    "usage_report",
    "validate_billing_day",
    "validate_billing_days",
    "validate_matrix",
]

__getattr__ = attach(
    __name__,
    {
        "day": ("validate_billing_day",),
        "dated_thresholds": ("register_tolerance_on",),
        "explain": ("explain_day",),
        "part_of_day": ("touched_since",),
        "report": ("usage_report",),
        "rules.policy": ("PolicyError",),
        "rules.thresholds": (
            "ThresholdError",
            "Thresholds",
        ),
        "several_days": ("validate_billing_days",),
        "summary": ("VeeOutcome",),
        "validate": ("validate_matrix",),
    },
)
