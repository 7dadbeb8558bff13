"""A municipality that never existed, with the truth about every defect it planted.

Belongs here: feeds, reference data and truth from a seed. Does not belong here: anything that reads them. No room of the product imports
this one; the command line, tests and benchmarks do.
"""

from meter_pipeline.simulator.simulate import SimulatedCity, simulate
from meter_pipeline.simulator.spec import DEMO, Spec

__all__ = ["DEMO", "SimulatedCity", "Spec", "simulate"]
