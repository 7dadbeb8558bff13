"""The demo city's network: zones with supply meters, services that no meter counts, and the rules finance asks for
every month.

Supply meters are register meters read at each local midnight. What they count is what the customers' meters below them
measured, the declared use without a meter, and losses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np

from meter_pipeline.simulator.effects import DayRows
from meter_pipeline.simulator.feeds_out import Inbox, file_name, write_midnight_reads
from meter_pipeline.simulator.registers import RegisterReads
from meter_pipeline.simulator.spec import DECIMALS, REGISTER_HEAD_END, UNIT, Spec
from meter_pipeline.simulator.weather import STATIONS

Row = tuple[Any, ...]
_OPENED: Final = "2015-01-01"
_DIALS: Final = 9


class SupplyMeter(NamedTuple):
    """A supply meter, what lies behind it, and what is lost behind it.

    ``zones``: whose customers it serves; ``passes_on``: supply meters behind it; ``lost``: thousandths of the
    customers' use; ``unmetered``: the declared use a day behind it, in quanta of the feed (Wh, 0.1 gal, 0.1 ft3).
    """

    name: str
    commodity: str
    zones: tuple[str, ...]
    passes_on: tuple[str, ...]
    lost: int
    unmetered: int


#: zone_id, kind, commodity, name, parent_id
ZONES: Final[tuple[Row, ...]] = (
    ("E-CITY", "feeder", "electricity", "Cedar Fork substation", None),
    ("E-NORTH", "feeder", "electricity", "Feeder north", "E-CITY"),
    ("E-SOUTH", "feeder", "electricity", "Feeder south", "E-CITY"),
    ("W-CITY", "pressure_zone", "water", "Water works", None),
    ("W-NORTH", "district", "water", "District north", "W-CITY"),
    ("W-SOUTH", "district", "water", "District south", "W-CITY"),
    ("G-CITY", "gas_gate", "gas", "City gate", None),
)
#: Meters that lie behind another one come first. District south receives its water through district north.
SUPPLY_METERS: Final = (
    SupplyMeter("E-NORTH", "electricity", ("E-NORTH",), (), 31, 48_000),
    SupplyMeter("E-SOUTH", "electricity", ("E-SOUTH",), (), 38, 0),
    SupplyMeter("E-SUB", "electricity", (), ("E-NORTH", "E-SOUTH"), 12, 0),
    SupplyMeter("W-SOUTH", "water", ("W-SOUTH",), (), 97, 0),
    SupplyMeter("W-WORKS", "water", ("W-NORTH",), ("W-SOUTH",), 64, 2_500),
    SupplyMeter("G-GATE", "gas", ("G-CITY",), (), 9, 0),
)
#: zone_id, supply meter, direction
_SUPPLIES: Final = (
    ("E-CITY", "E-SUB", "in"),
    ("E-NORTH", "E-NORTH", "in"),
    ("E-SOUTH", "E-SOUTH", "in"),
    ("W-CITY", "W-WORKS", "in"),
    ("W-NORTH", "W-WORKS", "in"),
    ("W-NORTH", "W-SOUTH", "out"),
    ("W-SOUTH", "W-SOUTH", "in"),
    ("G-CITY", "G-GATE", "in"),
)
#: service point, commodity, account, tariff, {attribute: count}: what is billed by the unit
_UNIT_SERVICES: Final[tuple[tuple[str, str, str, str, dict[str, str]], ...]] = (
    ("SP-LIGHTS1", "electricity", "A-0000070", "E-LIGHT", {"lamp_led_40": "18", "lamp_hps_100": "6"}),
    ("SP-STORM1", "water", "A-0000002", "W-STORM", {"eru": "1"}),
    ("SP-STORM2", "water", "A-0000053", "W-STORM", {"eru": "12.5"}),
    ("SP-STORM3", "water", "A-0000070", "W-STORM", {"eru": "34"}),
)
_LOOK_UP: Final = {"electricity": "E", "water": "W", "gas": "G"}


def zone_of(spec: Spec, commodity: str, index: int) -> str:
    """The zone of a customer's service point: the lower half of each commodity's numbers lies in the north."""
    if commodity == "gas":
        return "G-CITY"
    side = "NORTH" if index < spec.counts[commodity] // 2 else "SOUTH"
    return f"{_LOOK_UP[commodity]}-{side}"


@dataclass(slots=True)
class Network:
    """The dials of the supply meters. ``count`` every chunk of a day, then ``read`` the day."""

    spec: Spec
    used: Counter[str] = field(default_factory=Counter)
    dials: Counter[str] = field(default_factory=Counter)

    def count(self, rows: DayRows) -> None:
        """Add what a chunk's meters measured to its zones, those that were taken out that day too, export taken off."""
        traits = rows.traits
        # A meter that runs backwards counts what is used below nothing: the supply meter sees the use.
        net = np.abs(rows.import_total) * traits.multiplier - rows.export_total
        for exchange in rows.exchanges:
            net[exchange.index - traits.first] += (
                exchange.old_measured * traits.multiplier[exchange.index - traits.first]
            )
        for row, quanta in enumerate(net.tolist()):
            self.used[zone_of(self.spec, rows.segment.commodity, traits.first + row)] += quanta

    def read(self, inbox: Inbox, day: date, *, opening: bool = False) -> None:
        """Write the dials at the end of a day, a file a commodity. ``opening``: of the day before the first."""
        supplied: dict[str, int] = {}
        for meter in SUPPLY_METERS:
            below = sum(self.used[zone] for zone in meter.zones) + sum(supplied[name] for name in meter.passes_on)
            lost_of = sum(self.used[zone] for zone in meter.zones) or below
            supplied[meter.name] = below + lost_of * meter.lost // 1000 + (0 if opening else meter.unmetered)
            self.dials[meter.name] += supplied[meter.name]
        self.used.clear()
        for commodity, head_end in REGISTER_HEAD_END.items():
            names = [m.name for m in SUPPLY_METERS if m.commodity == commodity]
            reads = RegisterReads.at(
                [f"M-{name}" for name in names], [self.dials[n] for n in names], self.spec.calendar.seconds(day)
            )
            name = file_name(f"{head_end}-SUPPLY", "register", day, 0, clock="0130")
            write_midnight_reads(inbox, head_end, name, commodity, day, reads)


def network_rows() -> dict[str, list[Row]]:
    """Reference rows of the network and of the month's rules, cells as text in the order of schemas/reference.py."""
    found: dict[str, list[Row]] = {
        "zones": [(*zone, _OPENED, None) for zone in ZONES],
        "zone_supplies": [(zone, f"SP-{meter}", way, _OPENED, None) for zone, meter, way in _SUPPLIES],
        "zone_unmetered": [
            ("E-NORTH", "street lights", "48", "kWh", _OPENED, None),
            ("W-NORTH", "flushing", "250", "gal", _OPENED, None),
        ],
        "zone_members": [],
        "meters": [],
        "channels": [],
        "installations": [],
        "service_points": [],
        "agreements": [],
        "service_attributes": [],
    }
    for meter in SUPPLY_METERS:
        name, commodity = f"M-{meter.name}", meter.commodity
        decimals = str(DECIMALS[commodity])
        found["service_points"].append(_point(f"SP-{meter.name}", commodity))
        found["meters"].append((name, commodity, REGISTER_HEAD_END[commodity], "SUPPLY", None))
        found["channels"].append(
            (name, "R1", "register", UNIT[commodity], None, "import", "1", str(_DIALS), decimals, None, "true", None)
        )
        found["installations"].append((f"SP-{meter.name}", name, "2015-06-01T15:00:00Z", None, None, None))
    for point, commodity, account, tariff, counts in _UNIT_SERVICES:
        found["service_points"].append(_point(point, commodity))
        found["agreements"].append((account, point, tariff, "CYCLE-2", _OPENED, None))
        found["service_attributes"] += [(point, name, count, _OPENED, None) for name, count in counts.items()]
    return found | _rules()


def _rules() -> dict[str, list[Row]]:
    return {
        "attribute_names": [
            ("eru", "count", "equivalent residential units of impervious area"),
            ("lamp_hps_100", "count", "street lights, 100 W sodium"),
            ("lamp_led_40", "count", "street lights, 40 W LED"),
        ],
        "revenue_accounts": [
            ("electricity", "*", "*", "4400", "1310", _OPENED, None),
            ("water", "*", "*", "4610", "1310", _OPENED, None),
            ("gas", "*", "*", "4810", "1310", _OPENED, None),
            ("*", "*", "tax", "2410", "1310", _OPENED, None),
        ],
        "winter_average_rules": [
            ("residential", "12 1 2 3", "1", "0", "2", "0.145", _OPENED, None),
            ("*", "12 1 2 3", "0", "0", "2", "0.9", _OPENED, None),
        ],
        "estimate_limits": [
            ("*", "*", "no_read", "2", "read_request", "true", _OPENED, None),
            ("*", "*", "rejected", "3", "hold", "true", _OPENED, None),
        ],
        "leak_adjustment_rules": [
            (
                "residential",
                "5 6 7 8 9 10 / 11 12 1 2 3 4",
                "3",
                "1",
                "50",
                "SEWER",
                "100",
                "24",
                "2",
                "repair receipt",
                _OPENED,
                None,
            )
        ],
    }


def members(spec: Spec, commodity: str, points: dict[int, str]) -> Iterator[Row]:
    """Rows of zone_members for service points by their number."""
    for index, point in points.items():
        yield point, zone_of(spec, commodity, index), _OPENED, None


def _point(name: str, commodity: str) -> Row:
    place = ("41.6000", "-93.6000", STATIONS[0])
    return (name, commodity, f"P-{name[3:]}", "R-CITY", "municipal", *place, "active", _OPENED, None)
