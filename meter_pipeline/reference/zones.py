"""Zones in a folder of reference tables: a tree on every day, customers and supply meters of zones that are there, and
declared use that can be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from meter_pipeline.reference.faults import Fault
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.units import UnitError, base_unit

Row = dict[str, Any]
#: Units that the zones of a commodity are balanced in, of those that units.base_unit returns
_UNITS: Final = {"electricity": {"kWh"}, "water": {"m3", "gal", "ft3"}, "gas": {"m3", "gal", "ft3"}}


def check_zones(rows: Mapping[str, list[tuple[Any, ...]]], lines: Mapping[str, list[int]], faults: list[Fault]) -> None:
    """Name what could not be balanced: a zone that lies in itself, in one that is not there or in one of another
    commodity; customers and supply meters of unknown zones or service points; a point that is both in one zone;
    declared use below 0 or in a unit of another commodity."""
    zones = _named("zones", rows, lines)
    _check_tree(zones, faults)
    points = {row["service_point_id"] for row in _named("service_points", rows, lines)}
    commodities = {zone["zone_id"]: zone["commodity"] for zone in zones}
    members = _named("zone_members", rows, lines)
    supplies = _named("zone_supplies", rows, lines)
    unmetered = _named("zone_unmetered", rows, lines)
    for table, table_rows in (("zone_members", members), ("zone_supplies", supplies), ("zone_unmetered", unmetered)):
        for row in table_rows:
            if "zones" in rows and row["zone_id"] not in commodities:
                faults.append(Fault(f"{table}.csv", row["line"], "zone_id", f"{row['zone_id']} is not in zones.csv"))
            point = row.get("service_point_id")
            if point is not None and "service_points" in rows and point not in points:
                faults.append(
                    Fault(f"{table}.csv", row["line"], "service_point_id", f"{point} is not in service_points.csv")
                )
    _check_both(members, supplies, faults)
    _check_unmetered(unmetered, commodities, faults)


def _named(name: str, rows: Mapping[str, list[tuple[Any, ...]]], lines: Mapping[str, list[int]]) -> list[Row]:
    columns = [*TABLES[name].columns, "line"]
    return [
        dict(zip(columns, (*row, line), strict=True))
        for row, line in zip(rows.get(name, []), lines.get(name, []), strict=True)
    ]


def _check_tree(zones: Sequence[Row], faults: list[Fault]) -> None:
    """The tree of each day on which a zone's row begins or ends; a fault is named for the first of its days."""
    reported: set[int] = set()
    turns = {z["valid_from"] for z in zones} | {z["valid_to"] for z in zones if z["valid_to"] is not None}
    for day in sorted(turns):
        here = {z["zone_id"]: z for z in zones if _holds(z, day)}
        for name, zone in here.items():
            why = _wrong_parent(name, here, day)
            if why and zone["line"] not in reported:
                reported.add(zone["line"])
                faults.append(Fault("zones.csv", zone["line"], "parent_id", why))


def _wrong_parent(name: str, here: Mapping[str, Row], day: date) -> str:
    path, at = [name], here[name]["parent_id"]
    if at is not None and at not in here:
        return f"{at} is not a zone of this file on {day}: zones.csv has the whole tree, with the zones that are stored already"
    if at is not None and here[at]["commodity"] != here[name]["commodity"]:
        return f"{name} is of {here[name]['commodity']}, its parent {at} of {here[at]['commodity']}"
    while at is not None and at not in path:
        path.append(at)
        at = here[at]["parent_id"] if at in here else None
    return f"zones {' > '.join([*path, name])} are a loop" if at == name else ""


def _holds(row: Row, day: date) -> bool:
    return bool(row["valid_from"] <= day and (row["valid_to"] is None or row["valid_to"] > day))


def _check_both(members: Sequence[Row], supplies: Sequence[Row], faults: list[Fault]) -> None:
    """A meter that supplies a zone and is a customer of the same zone would be counted on both sides."""
    by_key: dict[tuple[str, str], list[Row]] = {}
    for row in members:
        by_key.setdefault((row["service_point_id"], row["zone_id"]), []).append(row)
    for row in supplies:
        for member in by_key.get((row["service_point_id"], row["zone_id"]), []):
            if _holds(row, member["valid_from"]) or _holds(member, row["valid_from"]):
                why = f"{row['service_point_id']} is a customer of {row['zone_id']} too (zone_members.csv, line {member['line']})"
                faults.append(Fault("zone_supplies.csv", row["line"], "service_point_id", why))


def _check_unmetered(unmetered: Sequence[Row], commodities: Mapping[str, str], faults: list[Fault]) -> None:
    for row in unmetered:
        if row["quantity_per_day"] < 0:
            why = f"{row['quantity_per_day']} is below 0"
            faults.append(Fault("zone_unmetered.csv", row["line"], "quantity_per_day", why))
        try:
            base, _ = base_unit(row["unit"])
        except UnitError as error:
            faults.append(Fault("zone_unmetered.csv", row["line"], "unit", str(error)))
            continue
        commodity = commodities.get(row["zone_id"])
        if commodity is not None and base not in _UNITS[commodity]:
            why = f"{row['unit']} does not count {commodity}, which zone {row['zone_id']} is of"
            faults.append(Fault("zone_unmetered.csv", row["line"], "unit", why))
