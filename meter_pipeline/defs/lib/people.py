"""Who acts in a job of the Launchpad, where a name is typed."""

from collections.abc import Sequence

from meter_pipeline.control import decisions
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality


def acting(municipality: Municipality, about: tuple[str, str], by: str, code: str, duties: Sequence[str]) -> str:
    """The person in their one spelling: entitled, and proven by a code once the register names a person. ``about``: the
    action and its object. Raises Refused, on record."""
    database = municipality.acting_as(policy.PEOPLE_ROLE).database()
    proof = decisions.Proof(code=code or None)
    return decisions.admit(database, *about, by, duties, proof, clock=municipality.clock())
