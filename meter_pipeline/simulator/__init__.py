"""A municipality that never existed, with the truth about every defect it planted.

Belongs here: feeds, reference data and truth from a seed. Does not belong here: anything that reads them. No room of
the product imports this one; the command line, tests and benchmarks do.
"""

from meter_pipeline.simulator.in_memory import (
    DAILY_USAGE,
    daily_usage,
    day_matrix,
    register_frames,
)
from meter_pipeline.simulator.plan import BENIGN, KINDS, Plan
from meter_pipeline.simulator.simulate import SimulatedCity, simulate
from meter_pipeline.simulator.spec import DEMO, Spec
from meter_pipeline.simulator.truth import TRUTH

__all__ = [
    "BENIGN",
    "DAILY_USAGE",
    "DEMO",
    "KINDS",
    "TRUTH",
    "Plan",
    "SimulatedCity",
    "Spec",
    "daily_usage",
    "day_matrix",
    "register_frames",
    "simulate",
]
