"""The shape of a contract, and the columns that many tables share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Column:
    """One column: PostgreSQL type as the catalogue names it, meaning, bounds, and whether it may be null. Arrays are
    checked in the database."""

    type: str
    about: str
    nullable: bool = False
    at_least: int | None = None
    at_most: int | None = None
    one_of: tuple[str, ...] = ()
    pattern: str | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """One table: schema-qualified name, columns in order, natural key, what a row is, and lineage {column: upstream
    columns}."""

    table: str
    row: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    lineage: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def checked(self) -> tuple[str, ...]:
        """Columns a schema check reads: all but the arrays, whose length and element type the database itself holds."""
        return tuple(name for name, column in self.columns.items() if not column.type.endswith("[]"))


ID: Final = r"^[A-Z0-9-](?:[A-Z0-9 ._/-]{0,62}[A-Z0-9-])?$"

DAY: Final = Column("date", "billing day: local civil day of the utility")
METER: Final = Column("text", "meter", pattern=ID)
CHANNEL: Final = Column("text", "channel of the meter", pattern=ID)
UNIT: Final = Column(
    "text",
    "base unit",
    one_of=("kWh", "kVArh", "kVAh", "kW", "kVAr", "kVA", "V", "A", "pf", "m3", "gal", "ft3", "therm", "MJ", ""),
)
