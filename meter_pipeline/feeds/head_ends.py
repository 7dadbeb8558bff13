"""Head-ends: who sends files, in which format, and how to read them. A new head-end of a known format is a file here, not code.

Belongs here: the declaration's shape and its reading from ``head_ends/*.toml``. Does not belong here: the formats themselves.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from meter_pipeline.units import UnitError, base_unit

FORMATS = ("delimited", "jsonl", "nem12", "espi", "cmep", "wide_csv", "http")


class HeadEndError(ValueError):
    """A declaration that cannot be used; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class HeadEnd:
    """One declared head-end.

    ``zone`` is an IANA name, or a fixed offset as ``+10:00``; None where the format carries its own (ESPI, ISO stamps with an offset).
    ``stamp`` says whether a stamp names the interval's start or its end. ``columns`` maps our field (meter_id, channel, time, value, unit,
    sequence, quality, source_version, read_time) to the file's column (or JSON key); ``constants`` gives a field that no column carries.
    ``kind`` is interval or register. ``quality_map`` turns the file's own quality words into AEMO flag and method ("A", "S14").
    """

    name: str
    format: str
    commodity: str = "electricity"
    zone: str | None = None
    stamp: str = "start"
    kind: str = "interval"
    interval_minutes: int | None = None
    unit: str | None = None
    time_format: str | None = None
    delimiter: str = ","
    header: bool = True
    encoding: str = "utf-8"
    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    quality_map: dict[str, str] = field(default_factory=dict)
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    pattern: str = "*"


def read_head_end(path: Path) -> HeadEnd:
    """The declaration in a TOML file. Raises HeadEndError naming what is wrong with which field."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    known = set(HeadEnd.__dataclass_fields__)
    unknown = sorted(set(raw) - known)
    if unknown:
        raise HeadEndError(f"{path.name}: unknown field {', '.join(unknown)}")
    raw.setdefault("name", path.stem)
    try:
        head_end = HeadEnd(**raw)
    except TypeError as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    if head_end.format not in FORMATS:
        raise HeadEndError(f"{path.name}: format {head_end.format!r} is none of {', '.join(FORMATS)}")
    for name, allowed in (("stamp", ("start", "end")), ("kind", ("interval", "register"))):
        if getattr(head_end, name) not in allowed:
            raise HeadEndError(f"{path.name}: {name} must be one of {', '.join(allowed)}")
    if head_end.unit is not None:
        try:
            base_unit(head_end.unit)
        except UnitError as error:
            raise HeadEndError(f"{path.name}: unit: {error}") from error
    if head_end.zone is not None and not head_end.zone.startswith(("+", "-")):
        try:
            ZoneInfo(head_end.zone)
        except (KeyError, ValueError) as error:
            raise HeadEndError(f"{path.name}: zone: unknown time zone {head_end.zone!r}") from error
    return head_end


def read_head_ends(directory: Path) -> dict[str, HeadEnd]:
    """Every declaration of a directory by name. Two of one name are refused."""
    found: dict[str, HeadEnd] = {}
    for path in sorted(directory.glob("*.toml")):
        head_end = read_head_end(path)
        if head_end.name in found:
            raise HeadEndError(f"{path.name}: a second head-end called {head_end.name}")
        found[head_end.name] = head_end
    return found
