"""Head-end declarations: the sender of files, their format and how to read them. A new head-end of a known format is
a TOML file, no code."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from meter_pipeline.feeds.fetch_rules import Fetch, fault_of
from meter_pipeline.feeds.times import StampParser, zone_rules
from meter_pipeline.units import UnitError, base_unit

#: a quality in our words: flag, AEMO method, AEMO reason
QUALITY_WORD: Final = re.compile(r"([ASFEN])([0-9]{2})?(?::([0-9]{1,2}))?", re.ASCII)

FORMATS: Final = ("delimited", "fixed", "jsonl", "json", "nem12", "espi", "cmep", "wide_csv", "http")
#: which way a channel's energy flows: net is import less export in each interval
FLOWS: Final = ("import", "export", "net", "other")
#: how numbers of periods become times (Periods)
ORDERS: Final = ("elapsed", "clock", "from_stamp")
#: rounding of digits beyond a millionth of the base unit
ROUNDINGS: Final = ("half_even", "half_up")
#: meaning of a clock-change flag at a local time that comes twice: its first pass (summer time) or its second
PASSES: Final = ("first", "second")

#: fields that a column may carry beside the value
FIELDS: Final = (
    "meter_id", "channel", "time", "unit", "quality", "sequence", "source_version", "read_time", "interval_minutes",
    "period", "dst", "factor", "value",
)  # fmt: skip
#: fields of wide exports with a dial and a flow on each line (wide_csv.py)
WIDE_FIELDS: Final = (
    "meter_id", "quality", "flow", "flow_time", "flow_unit", "read", "read_time", "read_unit",
)  # fmt: skip
_CONSTANTS: Final = (*FIELDS[:9], "register_channel")
_OPTIONS: Final = (
    "skip_lines", "footer_lines", "ambiguous", "nonexistent", "max_line_bytes", "columns", "empty", "final_newline", "constant",
    "quoted_line_breaks", "superseded_share", "sheet", "member", "url", "token_env", "page_size",
)  # fmt: skip


class HeadEndError(ValueError):
    """A declaration that cannot be used; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Periods:
    """Numbers of periods or hours in place of a time of day. ``first``: the number of the day's first one.
    ``order``: elapsed counts through the civil day (1 to 23 in spring, 1 to 25 in autumn); clock is the local time
    of day; from_stamp counts intervals from the stamp itself, at any time of day."""

    first: int = 1
    order: str = "elapsed"


@dataclass(frozen=True, slots=True)
class DayColumns:
    """A day in a row. ``first``: the column of its first interval; ``count`` and ``step``: the number of intervals,
    and the number of columns from one to the next; ``quality``: the number of columns from a value to its quality
    (0: none); ``order``: as in Periods, clock where the columns make exactly 24 hours, else elapsed; ``second``: the
    number of the column with the second pass of the repeated hour (HE02X between HE02 and HE03), 0 where these are
    last."""

    first: str
    count: int
    step: int = 1
    quality: int = 0
    order: str = ""
    second: int = 0


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """One of several values in a row: its column, and what holds of it in place of the head-end's own. ``meter_id``:
    the meter whose column it is; ``*`` for both means every column that nothing else names, each called by its
    meter."""

    column: str
    channel: str
    unit: str | None = None
    flow: str | None = None
    quality: str | None = None
    meter_id: str | None = None


@dataclass(frozen=True, slots=True)
class IdRules:
    """How meter ids are cleaned: letters taken out anywhere, a prefix and leading zeros taken off, letters replaced."""

    remove: str = ""
    prefix: str = ""
    strip_zeros: bool = False
    replace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Control:
    """Control totals: regular expressions with one group, searched in the lines of the file that hold no read; ``rows``
    finds how many reads the file holds, ``sum`` the sum of its values. ``rows_are`` is a number known beforehand."""

    rows: str | None = None
    sum: str | None = None
    rows_are: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """Where the version of a file's reads stands that carry none themselves, so that a correction outranks what it
    corrects: ``name`` and ``header`` are regular expressions with one group, whose digits are the version, searched in
    the file's name or in the lines that hold no read; ``arrival`` takes the second in which the file was landed."""

    name: str | None = None
    header: str | None = None
    arrival: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A field that stands beside the rows: a regular expression with one group, searched in the file's name, or in
    lines above the rows that it holds for (delimited text and spreadsheets), each of which ends what the one before it
    said."""

    name: str | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class HeadEnd:
    """One declared head-end; docs/feeds.md has an example of each field.

    ``zone`` is an IANA name, or a fixed offset as ``+10:00``; None where the format carries its own (ESPI, ISO stamps
    with an offset). ``stamp`` says whether a stamp names the interval's start, its end, or (ending) the local time of
    its start plus its length, as hour-ending reports do: in autumn 02:00 then comes twice. ``columns`` maps our field
    to the file's column, to a JSON key (nested ones with points), or to several that are put together; ``constants``
    gives a field that no column carries. Without a header a column is named by its number from 1. ``kind`` is interval
    or register. ``quality_map`` turns the file's own quality words into AEMO flag and method ("A", "S14"),
    ``channel_map`` its channels into ours, ``unit_map`` its units, ``dst_map`` its clock-change flags (first, second).
    ``flows`` says per channel (``*`` for every other one) whether it is import, export, net or other; ``dials`` how
    many digits a register shows before the point, ``moduli`` where it starts again at 0 if not after its last digit.
    ``skip`` and ``keep`` name, by column, texts of rows that hold no read, or that alone are this head-end's (``*`` at
    the end stands for anything; the column ``*`` is the line's beginning). ``elsewhere`` finds fields that no row has.
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
    time_range: str | None = None
    delimiter: str = ","
    quote: str = '"'
    decimal: str = "."
    thousands: str = ""
    trim: bool = True
    header: bool = True
    encoding: str = "utf-8"
    rounding: str | None = None
    average_power: bool = False
    earliest: date | None = None
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    quality_map: Mapping[str, str] = field(default_factory=dict)
    channel_map: Mapping[str, str] = field(default_factory=dict)
    unit_map: Mapping[str, str] = field(default_factory=dict)
    dst_map: Mapping[str, str] = field(default_factory=dict)
    flows: Mapping[str, str] = field(default_factory=dict)
    dials: Mapping[str, int] = field(default_factory=dict)
    moduli: Mapping[str, int | float] = field(default_factory=dict)
    nulls: tuple[str, ...] = ()
    skip: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    ids: IdRules = field(default_factory=IdRules)
    periods: Periods = field(default_factory=Periods)
    day_columns: DayColumns | None = None
    values: tuple[ValueColumn, ...] = ()
    control: Control = field(default_factory=Control)
    version: Version = field(default_factory=Version)
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    pattern: str = "*"
    fetch: Fetch | None = None

    @property
    def is_pulled(self) -> bool:
        """Whether its files are asked for rather than sent."""
        return self.format == "http" or self.fetch is not None


_TEXTS: Final = (
    "name", "format", "commodity", "zone", "stamp", "kind", "unit", "time_format", "time_range", "delimiter", "quote", "decimal",
    "thousands", "encoding", "rounding", "pattern",
)  # fmt: skip
_MAPS: Final = (
    "columns",
    "constants",
    "quality_map",
    "channel_map",
    "unit_map",
    "dst_map",
    "flows",
    "dials",
    "moduli",
    "skip",
    "keep",
)
_TABLES: Final[dict[str, type[Any]]] = {
    "ids": IdRules, "periods": Periods, "day_columns": DayColumns, "control": Control, "version": Version, "fetch": Fetch,
}  # fmt: skip
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(_TEXTS, (str,)),
    **dict.fromkeys((*_MAPS, *_TABLES, "elsewhere", "options"), (dict,)),
    "interval_minutes": (int,),
    "header": (bool,),
    "trim": (bool,),
    "average_power": (bool,),
    "earliest": (date,),
    "values": (list,),
    "nulls": (list,),
}
#: names of other tools and of older drafts for our keys, beside those that differ by a few letters
_ALSO_CALLED: Final = {
    "decimal_mark": "decimal", "decimal_separator": "decimal", "thousands_separator": "thousands", "separator": "delimiter", "sep": "delimiter",
    "timezone": "zone", "tz": "zone", "units": "unit", "skiprows": "options.skip_lines", "skip_rows": "options.skip_lines", "skip_lines": "options.skip_lines",
    "date_format": "time_format", "datetime_format": "time_format", "interval": "interval_minutes", "quotechar": "quote", "timestamp": "time",
    "meter": "meter_id", "date": "time",
}  # fmt: skip


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown key, with the nearest known key."""
    names = list(known)
    if name not in names and name in HeadEnd.__dataclass_fields__:
        return f"unknown key {name!r}; it stands at the top of the declaration, before any [table]"
    near = _ALSO_CALLED.get(name.lower()) or next(iter(get_close_matches(name.lower(), names, 1, 0.6)), None)
    return f"unknown key {name!r}" + (f"; did you mean {near}?" if near else f"; known are {', '.join(names)}")


def read_head_end(path: Path) -> HeadEnd:
    """Returns the declaration in a TOML file. Raises HeadEndError naming the field and its fault."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    raw.setdefault("name", path.stem)
    try:
        head_end = _declared(raw)
        check(head_end)
    except (HeadEndError, TypeError) as error:
        raise HeadEndError(f"{path.name}: {error}") from error
    return head_end


def _declared(raw: dict[str, Any]) -> HeadEnd:
    """A head-end of a declaration's tables, each of its declared kind. Raises HeadEndError."""
    known = [each.name for each in fields(HeadEnd)]
    for name, value in raw.items():
        if name not in known:
            raise HeadEndError(unknown_key(name, known))
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and bool not in _TYPES[name]):
            kinds = " or ".join(kind.__name__ for kind in _TYPES[name])
            raise HeadEndError(f"{name}: {value!r} is not {kinds}")
    values = dict(raw)
    for name in _MAPS:
        if name in raw:
            values[name] = {key: _entry(name, key, value) for key, value in raw[name].items()}
    for name, kind in _TABLES.items():
        if name in raw:
            values[name] = _table(name, kind, raw[name])
    if "elsewhere" in raw:
        values["elsewhere"] = {
            key: _table(f"elsewhere: {key}", Elsewhere, each) for key, each in raw["elsewhere"].items()
        }
    if "nulls" in raw:
        values["nulls"] = tuple(str(word) for word in raw["nulls"])
    if "values" in raw:
        values["values"] = tuple(_table("values", ValueColumn, each) for each in raw["values"])
    return HeadEnd(**values)


def _entry(table: str, key: str, value: Any) -> Any:
    """One entry of a table: text, several texts, or a number of digits."""
    if table in ("dials", "moduli"):
        return value
    several = value if isinstance(value, list) else [value]
    if table in ("columns", "skip", "keep") and all(isinstance(each, str | int) for each in several) and several:
        texts = tuple(str(each) for each in several)
        return texts if table != "columns" or len(texts) > 1 else texts[0]
    if isinstance(value, dict | list):
        raise HeadEndError(f"{table}: {key}: a value is not text")
    return str(value)


def _table(name: str, kind: type[Any], raw: Any) -> Any:
    """A table of a declaration as its own class. Raises HeadEndError for an unknown or missing key or a wrong type."""
    if not isinstance(raw, dict):
        raise HeadEndError(f"{name}: a table is wanted")
    known = {each.name: str(each.type) for each in fields(kind)}
    for key, value in raw.items():
        if key not in known:
            raise HeadEndError(f"{name}: {unknown_key(key, known)}")
        wanted = {"str": str, "int": int, "bool": bool, "tuple": list}.get(re.split(r"\W", known[key])[0], dict)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise HeadEndError(f"{name}: {key}: {value!r} is not {wanted.__name__}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()})
    except TypeError as error:
        missing = [each for each in known if each not in raw]
        raise HeadEndError(f"{name}: give {missing[0] if missing else 'every key'}") from error


def check(head_end: HeadEnd) -> None:
    """Raise HeadEndError for a declaration that no file could be read with."""
    if head_end.format not in FORMATS:
        raise HeadEndError(f"format {head_end.format!r} is not one of {', '.join(FORMATS)}")
    _check_keys("columns", head_end.columns, WIDE_FIELDS if head_end.format == "wide_csv" else FIELDS)
    _check_keys("constants", head_end.constants, _CONSTANTS)
    _check_keys("options", head_end.options, _OPTIONS)
    _check_words(head_end)
    _check_searches(head_end)
    _check_marks(head_end)
    for spelling in [head_end.unit, *head_end.unit_map.values(), *[each.unit for each in head_end.values]]:
        if spelling is not None:
            try:
                base_unit(spelling)
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
    if head_end.fetch is not None and (fault := fault_of(head_end.fetch)) is not None:
        raise HeadEndError(f"fetch: {fault}")
    _check_shape(head_end)


def _check_keys(table: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise HeadEndError(f"{table}: {unknown_key(key, known)}")


def _check_words(head_end: HeadEnd) -> None:
    """Words that must be one of a list."""
    for name, words in (("stamp", ("start", "end", "ending")), ("kind", ("interval", "register"))):
        if getattr(head_end, name) not in words:
            raise HeadEndError(f"{name} must be one of {', '.join(words)}")
    if head_end.rounding is not None and head_end.rounding not in ROUNDINGS:
        raise HeadEndError(f"rounding must be one of {', '.join(ROUNDINGS)}")
    chosen: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("ambiguous", ("order", "first", "second")),
        ("nonexistent", ("refuse", "forward", "back", "skip")),
        ("empty", ("reject", "skip")),
    )
    for name, allowed in chosen:
        if head_end.options.get(name, allowed[0]) not in allowed:
            raise HeadEndError(f"options.{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}")
    for name in ("skip_lines", "footer_lines", "max_line_bytes", "columns"):
        number = head_end.options.get(name, 0)
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise HeadEndError(f"options.{name}: {number!r} is not a whole number")
    share = head_end.options.get("superseded_share", 0)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise HeadEndError("options.superseded_share must be 0 to 1")
    flows = [*head_end.flows.items(), *[(each.channel, each.flow) for each in head_end.values if each.flow]]
    for channel, flow in flows:
        if flow not in FLOWS:
            raise HeadEndError(f"flows: {channel}: {flow!r} is not one of {', '.join(FLOWS)}")
    for channel, digits in head_end.dials.items():
        if not isinstance(digits, int) or isinstance(digits, bool) or not 1 <= digits <= 12:
            raise HeadEndError(f"dials: {channel}: {digits!r} is not a number of digits, 1 to 12")
    for channel, modulus in head_end.moduli.items():
        if not isinstance(modulus, int | float) or isinstance(modulus, bool) or not 0 < modulus <= 10**12:
            raise HeadEndError(f"moduli: {channel}: {modulus!r} is not a number above 0 where the dial starts again")
    for word, ours in head_end.quality_map.items():
        if not QUALITY_WORD.fullmatch(ours):
            raise HeadEndError(
                f"quality_map: {word}: {ours!r} is not a flag A, S, F, E or N, an AEMO method, and a reason after a colon"
            )
    for word, which in head_end.dst_map.items():
        if which not in PASSES:
            raise HeadEndError(f"dst_map: {word}: {which!r} is neither first (summer time) nor second")


def _check_searches(head_end: HeadEnd) -> None:
    """Check the regular expressions and the fields that may have one."""
    searched = [("control", which, getattr(head_end.control, which)) for which in ("rows", "sum")]
    searched += [("version", which, getattr(head_end.version, which)) for which in ("name", "header")]
    for ours, place in head_end.elsewhere.items():
        if ours not in FIELDS[:9]:
            raise HeadEndError(f"elsewhere: {unknown_key(ours, FIELDS[:9])}")
        if (place.name is None) == (place.heading is None):
            raise HeadEndError(f"elsewhere: {ours}: give either name or heading")
        if (ours in head_end.columns and ours != "time") or ours in head_end.constants:
            raise HeadEndError(f"elsewhere: {ours}: it is declared in columns or constants too")
        if place.heading is not None and head_end.format != "delimited":
            raise HeadEndError(f"elsewhere: {ours}: heading is for format delimited")
        searched.append(("elsewhere", ours, place.name if place.heading is None else place.heading))
    for table, which, pattern in searched:
        try:
            groups = re.compile(pattern).groups if pattern is not None else 1
        except re.error as error:
            raise HeadEndError(f"{table}: {which}: {error}") from error
        if groups != 1:
            raise HeadEndError(f"{table}: {which}: a regular expression with one group is wanted")


def _check_marks(head_end: HeadEnd) -> None:
    """Single letters that split lines and numbers."""
    if len(head_end.delimiter) != 1 or not head_end.delimiter.isascii() or head_end.delimiter in '"\r\n':
        raise HeadEndError("delimiter must be one ASCII character")
    for name in ("quote", "decimal", "thousands"):
        mark = getattr(head_end, name)
        if len(mark) > 1 or not mark.isascii() or mark in ("\r", "\n") or mark.isalnum():
            raise HeadEndError(f"{name} must be one ASCII mark")
    if head_end.quote == head_end.delimiter:
        raise HeadEndError("quote must be another mark than the delimiter")
    if not head_end.decimal or head_end.decimal == head_end.thousands or head_end.decimal in "+-":
        raise HeadEndError("decimal must be a mark other than thousands, + and -")


def _check_shape(head_end: HeadEnd) -> None:
    """Keys that need each other."""
    if head_end.values and (head_end.day_columns or "value" in head_end.columns):
        raise HeadEndError("values: a row has either [[values]], [day_columns] or columns.value")
    if head_end.day_columns and "value" in head_end.columns:
        raise HeadEndError("day_columns: leave columns.value out")
    orders = head_end.periods.order, head_end.day_columns.order if head_end.day_columns else ""
    if orders[0] not in ORDERS or orders[1] not in ("", *ORDERS):
        raise HeadEndError(f"order must be {', '.join(ORDERS[:-1])} or {ORDERS[-1]}")
    if any(each.column == "*" for each in head_end.values) and (
        len(head_end.values) > 1 or not head_end.header or head_end.values[0].meter_id != "*"
    ):
        raise HeadEndError('values: column "*" stands alone, below a header, with meter_id = "*"')
    if head_end.day_columns:
        day = head_end.day_columns
        if not 1 <= day.count <= 1500 or not 1 <= day.step <= 10 or not 0 <= day.quality < 10:
            raise HeadEndError("day_columns: count must be 1 to 1500, step 1 to 10, quality 0 to 9")
        if day.second and (day.order != "clock" or not 1 < day.second <= day.count):
            raise HeadEndError('day_columns: second: a number of a column of the day, with order = "clock"')
        minutes = day.count * (head_end.interval_minutes or 24 * 60)
        if minutes < 23 * 60 and day.order != "from_stamp":
            raise HeadEndError(
                f"day_columns: {day.count} of {head_end.interval_minutes} minutes are {minutes / 60:g} hours, no day"
            )
    counted = "period" in head_end.columns or head_end.day_columns is not None
    if counted and head_end.interval_minutes is None:
        raise HeadEndError("interval_minutes: declare it where periods are counted")
    if counted and head_end.zone is None and "from_stamp" not in orders:
        raise HeadEndError("zone: declare it where periods are counted")
    if "dst" in head_end.columns and not head_end.dst_map:
        raise HeadEndError("dst_map: declare which words of the column mean first (summer time) and second")
    if head_end.stamp == "ending" and head_end.interval_minutes is None:
        raise HeadEndError("interval_minutes: declare it where stamps are those of hours ending")
    minutes_known = head_end.interval_minutes is not None or "interval_minutes" in head_end.columns
    if head_end.average_power and not minutes_known:
        raise HeadEndError("average_power: declare interval_minutes, by which power becomes energy")


def read_head_ends(directory: Path) -> dict[str, HeadEnd]:
    """Every declaration of a directory by name. Two of one name are refused."""
    found: dict[str, HeadEnd] = {}
    for path in sorted(directory.glob("*.toml")):
        head_end = read_head_end(path)
        if head_end.name in found:
            raise HeadEndError(f"{path.name}: a second head-end called {head_end.name}")
        found[head_end.name] = head_end
    return found
