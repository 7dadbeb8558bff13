"""Zones whose losses left their band, in the exception queue."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final

from meter_pipeline.anomalies.opened import Finding, close_case, open_case
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.postgres.driver import Connection

if TYPE_CHECKING:
    from meter_pipeline.supply_balance.balance import Balance

KIND: Final = "zone_losses"


def put_cases(connection: Connection, found: Balance, *, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """A case for each zone outside its band, its evidence brought up to date; cases of zones that are back within it
    are closed. In the caller's transaction. Returns the cases that are open for the month."""
    outside = {row["zone_id"]: row for row in found.outside}
    opened = []
    for zone, commodity, last in _zones(found):
        finding = _finding(found.month, zone, commodity, last, outside.get(zone))
        if zone in outside:
            open_case(connection, finding, clock=clock)
            opened.append(finding.case_id)
        else:
            close_case(connection, finding.case_id, "its losses are within its band", clock=clock)
    return opened


def _zones(found: Balance) -> list[tuple[str, str, date]]:
    """Zones of the month with their commodity and last day."""
    days = found.days.group_by("zone_id", "commodity").agg(last=found.days["billing_day"].max())
    return [(str(z), str(c), last) for z, c, last in days.sort("zone_id").iter_rows()]


def _finding(month: date, zone: str, commodity: str, last: date, row: dict[str, Any] | None) -> Finding:
    figures = row or {}
    return Finding(
        KIND,
        zone,
        f"{month:%Y%m}",
        "",
        commodity,
        month,
        last,
        unit="%",
        expected=float(figures["usual_percent"]) if figures else None,
        observed=float(figures["losses_percent"]) if figures else None,
        evidence={
            "room_percent": str(figures["room_percent"]),
            "excess_per_day": f"{figures['excess_per_day']} {figures['unit']}",
            "candidates": [{k: str(v) for k, v in c.items()} for c in figures["candidates"]],
        }
        if figures
        else {},
    )
