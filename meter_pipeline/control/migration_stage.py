"""The stages of leaving the legacy batch, as an explicit state machine, who has authority over an account in each, and
the flag that holds the stage.

off -> shadow -> dual_write -> live -> ramp_down -> complete, one step at a time forward; back to any earlier stage but
off while the legacy side is still written (until complete). Live shifts traffic by cohort: whole routes first, then a
stable hash percent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

from meter_pipeline.control.flags import Flag

STAGES: Final = ("off", "shadow", "dual_write", "live", "ramp_down", "complete")
Authority = Literal["legacy", "new"]

#: The flag's value before anything was decided.
START: Final[dict[str, Any]] = {"stage": "off", "routes": [], "basis_points": 0}


def check_step(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why a step is not allowed, in words, or None.

    Forward: the next stage only. Back: any earlier stage from dual_write, live and ramp_down (never from complete:
    legacy is no longer written). Cohorts may only be named in live and after, and only grow while live goes forward.
    """
    shape = _shape(after)
    if shape:
        return shape
    here, there = STAGES.index(str(before["stage"])), STAGES.index(str(after["stage"]))
    cohort = bool(after["routes"]) or int(after["basis_points"]) > 0
    if there > here + 1:
        return f"{before['stage']} goes to {STAGES[here + 1]} first"
    if here == len(STAGES) - 1 and there < here:
        return "complete is final: the legacy side has not been written since"
    if after["stage"] in ("off", "shadow", "dual_write") and cohort:
        return f"in {after['stage']} legacy has authority over every account: no cohort may be named"
    if after["stage"] in ("ramp_down", "complete") and int(after["basis_points"]) != 10_000:
        return f"{after['stage']} is for everyone: basis_points must be 10000"
    return None


def needs_two(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two people must take a step: all that makes us bill customers that we did not bill before, ``off`` among
    them, where no migration is under way and every bill is ours. Giving authority back to legacy is one person's, at
    once.
    """
    here, there = STAGES.index(str(before["stage"])), STAGES.index(str(after["stage"]))
    if there != here and STAGES[there] == "off":
        return True
    if there != here:
        return there > here and STAGES[there] in ("live", "ramp_down", "complete")
    return int(after["basis_points"]) > int(before["basis_points"]) or bool(
        set(after["routes"]) - set(before["routes"])
    )


def authority(value: Mapping[str, Any], account_id: str, route: str | None) -> Authority:
    """Which side's result is the customer's bill. Exactly one, whatever happens."""
    stage = value["stage"]
    if stage in ("off", "shadow", "dual_write"):
        return "legacy"
    if stage in ("ramp_down", "complete"):
        return "new"
    if route is not None and route in value["routes"]:
        return "new"
    return "new" if cohort_point(account_id) < int(value["basis_points"]) else "legacy"


def bills_customers(value: Mapping[str, Any], account_id: str, route: str | None) -> bool:
    """Whether the pipeline's statement is the one the customer gets. In off there is no migration under way: no one
    else would bill."""
    return value["stage"] == "off" or authority(value, account_id, route) == "new"


def who_bills(value: Mapping[str, Any]) -> str:
    """Who bills the customers under a value, in words."""
    stage = value["stage"]
    if stage == "off":
        return "we bill every account: no migration is under way, and the legacy batch must not bill"
    if stage in ("shadow", "dual_write"):
        return "the legacy batch bills every account"
    if stage in ("ramp_down", "complete"):
        return "we bill every account"
    routes = f"routes {', '.join(value['routes'])} and " if value["routes"] else ""
    return f"we bill {routes}{int(value['basis_points']) / 100:.2f} % of accounts, the legacy batch the others"


def cohort_point(account_id: str) -> int:
    """Place of an account in [0, 10000): stable for ever, so that a growing percent only adds accounts."""
    return int.from_bytes(hashlib.sha256(b"cohort\x1f" + account_id.encode()).digest()[:4], "big") % 10_000


def writes_legacy(stage: str) -> bool:
    """Whether the legacy side still receives every record."""
    return stage in ("off", "shadow", "dual_write", "live", "ramp_down")


def writes_new(stage: str) -> bool:
    """Whether the new side writes authoritative tables at all; in shadow it writes only shadow and audit tables."""
    return stage in ("dual_write", "live", "ramp_down", "complete")


def _shape(value: Mapping[str, Any]) -> str | None:
    if set(value) != {"stage", "routes", "basis_points"}:
        return "a stage value has stage, routes and basis_points"
    if value["stage"] not in STAGES:
        return f"{value['stage']!r} is not one of {', '.join(STAGES)}"
    routes, points = value["routes"], value["basis_points"]
    if not isinstance(routes, list) or not all(isinstance(r, str) for r in routes) or sorted(set(routes)) != routes:
        return "routes must be a sorted list without repeats"
    if not isinstance(points, int) or isinstance(points, bool) or not 0 <= points <= 10_000:
        return "basis_points must be 0 to 10000"
    return None


#: The stage in force: one row, changed on the record, with two people where a step gives the new side more authority.
STAGE: Final = Flag("migration_stage", START, check_step, needs_two)
