"""Who may stop and start the work: the emergency pause, feature flags, dual control, the rules that raise the pause by
themselves, alerts, metrics.

Belongs here: what must hold whatever drives the work (Dagster, the CLI, a test). Does not belong here: Dagster (defs/),
SQL (control/tables/flags.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.control.pause import PauseState, is_paused
    from meter_pipeline.control.probe import PauseProbe

__all__ = ["PauseProbe", "PauseState", "is_paused"]

__getattr__ = attach(
    __name__,
    {
        "pause": (
            "PauseState",
            "is_paused",
        ),
        "probe": ("PauseProbe",),
    },
)
