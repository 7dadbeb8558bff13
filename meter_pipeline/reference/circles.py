"""Refuses circular references among imported rows: a service point that is billed in itself, a register that must
add up to itself or to another register."""

from __future__ import annotations

from typing import Any

from meter_pipeline.postgres.driver import Connection
from meter_pipeline.reference import tables
from meter_pipeline.reference.faults import Fault
from meter_pipeline.schemas.reference import TABLES


def faults_of(connection: Connection, rows: dict[str, list[tuple[Any, ...]]]) -> list[Fault]:
    """A fault for each row of an import, written already, that closes a circle with what is stored."""
    return [*_billed_in_themselves(connection, rows), *_sums_of_registers(connection, rows)]


def _billed_in_themselves(connection: Connection, rows: dict[str, list[tuple[Any, ...]]]) -> list[Fault]:
    name = "service_attributes"
    lines = _lines(rows, name, ("service_point_id",))
    found = []
    for path, since in tables.billed_in_themselves(connection) if lines else []:
        line = min((lines[point,] for point in path if (point,) in lines), default=0)
        if line:
            way = " > ".join([*path, path[0]])
            why = f"{path[0]} is billed in itself from {since} ({way}): take one of these links out or end it earlier"
            found.append(Fault(f"{name}.csv", line, "value", why))
    return found


def _sums_of_registers(connection: Connection, rows: dict[str, list[tuple[Any, ...]]]) -> list[Fault]:
    found = []
    for name in ("channels", "channel_values"):
        lines = _lines(rows, name, ("meter_id", "channel"))
        for meter, channel, total in tables.sums_of_registers(connection, name) if lines else []:
            if (meter, channel) in lines:
                why = f"{total} is a register: name the interval channel that {channel} of {meter} must add up to"
                found.append(Fault(f"{name}.csv", lines[meter, channel], "sums_to", why))
    return found


def _lines(rows: dict[str, list[tuple[Any, ...]]], name: str, columns: tuple[str, ...]) -> dict[tuple[Any, ...], int]:
    """The first line of each value of some columns of a table's file."""
    at = [list(TABLES[name].columns).index(column) for column in columns]
    found: dict[tuple[Any, ...], int] = {}
    for line, row in enumerate(rows.get(name, []), start=2):
        found.setdefault(tuple(row[k] for k in at), line)
    return found
