"""Sections of the month's report beside the days: unbilled revenue, zones, winter averages, units, estimates, leaks;
and their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.postgres.database import Database
from meter_pipeline.reporting import tables
from meter_pipeline.reporting.drawing import columns_svg
from meter_pipeline.supply_balance import balance
from meter_pipeline.supply_balance.report import daily_losses
from meter_pipeline.unbilled import month as unbilled
from meter_pipeline.unbilled.report import steps
from meter_pipeline.winter_average import tables as winter
from meter_pipeline.winter_average.report import bands, day_after

_ALWAYS: Final = ("opening", "charged", "issued", "closing")
#: Title and SVG of each picture of a section
Pictures = dict[str, list[tuple[str, str]]]


def sections(database: Database, month: date) -> dict[str, Any]:
    """The sections of a month's report, as plain data; ``rules`` says which of the month's rules are in force."""
    effective = day_after(month)
    last = effective - timedelta(days=1)
    return {
        "leaks": tables.leak_adjustments(database, month),
        "estimated": tables.estimated_bills(database, month, last),
        "units": tables.unit_charges(database, month, last),
        "winter": {"effective": effective, "classes": winter.by_class(database, effective)},
        "rules": tables.rules_in_force(database, last),
        "unbilled": unbilled.read(database, month),
        "balance": balance.read(database, month),
    }


def moves_shown(document: Mapping[str, Any]) -> list[str]:
    """Columns of the movement of unbilled revenue: the four that every month has, and those that are not all zero."""
    found = document["unbilled"]
    return [move for move in found.moves if move in _ALWAYS or found.roll[move].abs().sum()]


def pictures(database: Database, document: Mapping[str, Any], currency: str) -> Pictures:
    """Pictures of each section that has something to show."""
    label = deployments_formats().short_day
    return {
        "unbilled": [("How it moved", columns_svg(steps(document["unbilled"]), currency))]
        if document["unbilled"].roll.height
        else [],
        "balance": [
            (
                f"Losses of zone {zone} by billing day, {unit}",
                columns_svg([(label(day), loss) for day, loss in values], unit),
            )
            for zone, unit, values in daily_losses(document["balance"])
        ],
        "winter": _winter(database, document["winter"]["effective"]),
        "units": _one("Charged in the month", [(r["name"], float(r["amount"])) for r in document["units"]], currency),
        "estimated": _one("Bills by how many follow each other", _in_a_row(document["estimated"]), "bills"),
        "leaks": [
            (f"Used, normal and forgiven, {unit}", columns_svg(_leaks(document["leaks"], unit), unit))
            for unit in sorted({row["unit"] for row in document["leaks"]})
        ],
    }


def _one(title: str, values: Sequence[tuple[str, float]], unit: str) -> list[tuple[str, str]]:
    return [(title, columns_svg(values, unit))] if values else []


def _winter(database: Database, effective: date) -> list[tuple[str, str]]:
    averages = winter.kept(database, effective)
    found = []
    for unit in sorted(set(averages["unit"].to_list())):
        found += _one(
            f"Services by average, up to so many {unit} a day",
            [(label, float(n)) for label, n in bands(averages.filter(averages["unit"] == unit)["per_day"])],
            "services",
        )
    return found


def _in_a_row(estimated: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    bills = Counter[int]()
    for row in estimated:
        bills[row["in_a_row"]] += int(row["bills"])
    return [(f"{n} in a row", float(bills[n])) for n in sorted(bills)]


def _leaks(leaks: Sequence[Mapping[str, Any]], unit: str) -> list[tuple[str, float]]:
    mine = [row for row in leaks if row["unit"] == unit]
    return [(name, sum(float(row[name]) for row in mine)) for name in ("used", "normal", "forgiven")]
