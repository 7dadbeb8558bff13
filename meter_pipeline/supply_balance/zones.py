"""The tree of zones: its faults, and the zones below each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any


class ZonesRefusedError(ValueError):
    """Zones that cannot be balanced; the message names them and the next step."""


def in_force(rows: Sequence[dict[str, Any]], day: date) -> list[dict[str, Any]]:
    """Rows that hold on a day."""
    return [r for r in rows if r["valid_from"] <= day and (r["valid_to"] is None or r["valid_to"] > day)]


def below(zones: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Each zone's own id and those of the zones below it. Raises ZonesRefusedError for a loop, a parent that is not
    there, or one of another commodity."""
    parents = {zone["zone_id"]: zone["parent_id"] for zone in zones}
    commodity = {zone["zone_id"]: zone["commodity"] for zone in zones}
    found: dict[str, set[str]] = {zone: {zone} for zone in parents}
    for zone in parents:
        path, at = [zone], parents[zone]
        while at is not None:
            if at in path:
                loop = " > ".join([*path[path.index(at) :], at])
                raise ZonesRefusedError(f"zones {loop} are a loop: correct parent_id in reference/zones.csv")
            if at not in parents:
                raise ZonesRefusedError(f"zone {path[-1]}: its parent {at} is no zone on the day")
            if commodity[at] != commodity[zone]:
                raise ZonesRefusedError(f"zone {zone} is of {commodity[zone]}, its parent {at} of {commodity[at]}")
            found[at].add(zone)
            path.append(at)
            at = parents[at]
    return found
