"""Head-ends: who sends files, in which format, and how to read them. A new head-end of a known format is a file here,
not code.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from meter_pipeline.feeds.times import StampParser, zone_rules
from meter_pipeline.units import UnitError, base_unit

#: a quality in our words: flag, AEMO method, AEMO reason
QUALITY_WORD: Final = re.compile(r"([ASFEN])([0-9]{2})?(?::([0-9]{1,2}))?", re.ASCII)

FORMATS = ("delimited", "jsonl", "nem12", "espi", "cmep", "wide_csv", "http")

#: which way a channel's energy flows: net is import less export in each interval
FLOWS: Final = ("import", "export", "net", "other")


class HeadEndError(ValueError):
    """A declaration that cannot be used; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class HeadEnd:
    """One declared head-end.

    ``zone`` is an IANA name, or a fixed offset as ``+10:00``; None where the format carries its own (ESPI, ISO stamps
    with an offset). ``stamp`` says whether a stamp names the interval's start or its end. ``columns`` maps our field
    (meter_id, channel, time, value, unit, sequence, quality, source_version, read_time) to the file's column (or JSON
    key); ``constants`` gives a field that no column carries. Without a header a column is named by its number from 1.
    ``kind`` is interval or register. ``quality_map`` turns the file's own quality words into AEMO flag and method ("A",
    "S14"). ``flows`` says per channel (``*`` for every other one) whether it is import, export, net or other;
    ``dials`` how many digits a register shows before the point.
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
    flows: dict[str, str] = field(default_factory=dict)
    dials: dict[str, int] = field(default_factory=dict)
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    pattern: str = "*"


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(
        (
            "name",
            "format",
            "commodity",
            "zone",
            "stamp",
            "kind",
            "unit",
            "time_format",
            "delimiter",
            "encoding",
            "pattern",
        ),
        (str,),
    ),
    **dict.fromkeys(("columns", "constants", "quality_map", "flows", "dials", "options"), (dict,)),
    "interval_minutes": (int,),
    "header": (bool,),
}


def read_head_end(path: Path) -> HeadEnd:
    """The declaration in a TOML file. Raises HeadEndError naming what is wrong with which field."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    known = {each.name: each for each in fields(HeadEnd)}
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise HeadEndError(f"{path.name}: unknown field {', '.join(unknown)}")
    raw.setdefault("name", path.stem)
    for name, value in raw.items():
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and bool not in _TYPES[name]):
            raise HeadEndError(
                f"{path.name}: {name}: {value!r} is not {' or '.join(kind.__name__ for kind in _TYPES[name])}"
            )
    for name in ("columns", "constants", "quality_map"):
        if any(isinstance(value, dict | list) for value in raw.get(name, {}).values()):
            raise HeadEndError(f"{path.name}: {name}: a value is not text")
        raw[name] = {key: str(value) for key, value in raw.get(name, {}).items()}
    try:
        head_end = HeadEnd(**raw)
    except TypeError as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    try:
        check(head_end)
    except HeadEndError as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    return head_end


def check(head_end: HeadEnd) -> None:
    """Raise HeadEndError for a declaration that no file could be read with."""
    if head_end.format not in FORMATS:
        raise HeadEndError(f"format {head_end.format!r} is none of {', '.join(FORMATS)}")
    for name, allowed in (("stamp", ("start", "end")), ("kind", ("interval", "register"))):
        if getattr(head_end, name) not in allowed:
            raise HeadEndError(f"{name} must be one of {', '.join(allowed)}")
    if head_end.unit is not None:
        try:
            base_unit(head_end.unit)
        except UnitError as error:
            raise HeadEndError(f"unit: {error}") from error
    if head_end.zone is not None:
        try:
            zone_rules(head_end.zone)
        except ValueError as error:
            raise HeadEndError(f"zone: {error}") from error
    try:
        StampParser(None, head_end.time_format)
    except ValueError as error:
        raise HeadEndError(str(error)) from error
    try:
        codecs.lookup(head_end.encoding)
    except LookupError as error:
        raise HeadEndError(f"encoding: {error}") from error
    if head_end.interval_minutes is not None and not 1 <= head_end.interval_minutes <= 1440:
        raise HeadEndError("interval_minutes must be 1 to 1440")
    if len(head_end.delimiter) != 1 or not head_end.delimiter.isascii() or head_end.delimiter in '"\r\n':
        raise HeadEndError("delimiter must be one ASCII character")
    for channel, flow in head_end.flows.items():
        if flow not in FLOWS:
            raise HeadEndError(f"flows: {channel}: {flow!r} is none of {', '.join(FLOWS)}")
    for channel, digits in head_end.dials.items():
        if not isinstance(digits, int) or isinstance(digits, bool) or not 1 <= digits <= 12:
            raise HeadEndError(f"dials: {channel}: {digits!r} is not a number of digits, 1 to 12")
    for word, ours in head_end.quality_map.items():
        if not QUALITY_WORD.fullmatch(ours):
            raise HeadEndError(
                f"quality_map: {word}: {ours!r} is not a flag A, S, F, E or N, an AEMO method, and a reason after a colon"
            )


def read_head_ends(directory: Path) -> dict[str, HeadEnd]:
    """Every declaration of a directory by name. Two of one name are refused."""
    found: dict[str, HeadEnd] = {}
    for path in sorted(directory.glob("*.toml")):
        head_end = read_head_end(path)
        if head_end.name in found:
            raise HeadEndError(f"{path.name}: a second head-end called {head_end.name}")
        found[head_end.name] = head_end
    return found
