"""The closed list of flag kinds, and the consequence of each.

A flag is a finding about one day; a case is what a person works on. Kinds of one family about one subject are one case:
a leak that turns out to drift is the same leak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["inform", "warn", "severe"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of flag.

    ``weather``: needs the day's temperature, so it waits where that is missing. ``case``: opens or joins a case.
    ``hold``: an undecided case holds the bill of the days it covers. ``expires``: days without a new flag after which
    an undecided case is closed as expired.
    """

    family: str
    severity: Severity
    about: str
    source: str
    weather: bool = False
    case: bool = True
    hold: bool = False
    expires: int = 60


KINDS: Final[dict[str, Kind]] = {
    "high": Kind(
        "residual",
        "inform",
        "usage beyond three standard deviations above what the weather asks for",
        "MISSION A2; residual of the weather model rather than of history, so that a cold snap is no anomaly",
        weather=True,
        case=False,
    ),
    "low": Kind(
        "residual",
        "inform",
        "usage beyond three standard deviations below what the weather asks for",
        "MISSION A2",
        weather=True,
        case=False,
    ),
    "spike": Kind(
        "spike",
        "warn",
        "a day at several times its expectation, far beyond the robust spread of the meter's own residuals",
        "high bill complaints start here: the high/low check of the VEE standards on weather residuals",
        weather=True,
        hold=True,
    ),
    "leak": Kind(
        "flow",
        "warn",
        "water flowed in every hour of the day, above what this meter is known to pass at all times",
        "Badger AquaCUE: at least 1 gal in every hour of the last 24, any zero hour clears; AquaHawk: no known continuous use",
    ),
    "leak_drift": Kind("flow", "warn", "a continuous flow that grows from day to day", "the same, with its trend"),
    "burst": Kind(
        "burst",
        "severe",
        "water at a rate this meter never sustained, for hours",
        "City of Allen TX: separate burst alert",
        hold=True,
    ),
    "tamper_fall": Kind(
        "tamper",
        "warn",
        "a sudden lasting fall against weather and neighbours that no move, vacancy or solar panel explains",
        "Detectent: combine signals and rank by value; a bypass leaves part of the load",
        weather=True,
    ),
    "usage_on_disconnected": Kind(
        "disconnected",
        "warn",
        "measured usage at a service point that is disconnected or inactive",
        "DASMMD: usage for inactive meters",
    ),
    "reverse": Kind(
        "reverse",
        "severe",
        "import ran backward over the day without generation",
        "AEMO reason 39: reverse energy observed",
        hold=True,
    ),
    "register_back": Kind(
        "register", "severe", "the register stands below its previous read", "AEMO reason 18", hold=True
    ),
    "outage_alone": Kind(
        "outage",
        "warn",
        "power-outage flags that none of the meter's neighbours has",
        "Detectent: outage flags as a tamper sign",
    ),
    "dropout_meter": Kind(
        "dropout",
        "warn",
        "one meter has sent nothing for days while its neighbours did",
        "ERCOT: five days of retries",
        expires=30,
    ),
    "dropout_collector": Kind(
        "dropout", "warn", "most meters behind one collector lack reads at once", "one cause, one case", expires=30
    ),
    "dropout_head_end": Kind(
        "dropout", "severe", "most meters of a head-end lack reads at once", "one cause, one case", expires=30
    ),
    "stuck": Kind(
        "stuck",
        "warn",
        "a meter that always counted counts nothing, day after day",
        "DASMMD: zero consumption for active meters",
    ),
    "solar_arrival": Kind("life", "inform", "export begins: panels, not tampering", "", case=False),
    "move": Kind("life", "inform", "nearly empty days, then another level; or the account changed", "", case=False),
    "vacant": Kind("life", "inform", "nearly nothing but not nothing for ten days: an empty building", "", case=False),
    "not_judged": Kind(
        "not_judged",
        "warn",
        "the service's data broke a detector: the day is not judged, the rest of the city is",
        "one record stops one person",
    ),
    "estimate_limit": Kind(
        "estimates",
        "warn",
        "more estimated bills in a row than the utility's limit allows: the bill waits for a read or a person",
        "reference/estimate_limits.csv; docs/finance.md",
        hold=True,
    ),
    "zone_losses": Kind(
        "supply",
        "warn",
        "a zone's losses left the band of its own history; the evidence names the meters whose correction would close the difference",
        "AWWA M36 on component analysis; docs/finance.md",
    ),
    "validation": Kind(
        "validation",
        "severe",
        "validation found data that the utility's policy does not bill unseen: the days wait until the data are right or a person releases them",
        "vee/rules/policy.toml, with the reason of each rule; docs/vee.md",
        hold=True,
    ),
}

SEVERITIES: Final = ("inform", "warn", "severe")


def case_kinds() -> tuple[str, ...]:
    """Kinds that go to people."""
    return tuple(name for name, kind in KINDS.items() if kind.case)
