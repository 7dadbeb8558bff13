"""Which columns of a row make which field of a read: one column, several put together, or text that the declaration
fixes; one value in a row, several, or a day of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from meter_pipeline.feeds.coded_columns import OVER, TIMES
from meter_pipeline.feeds.head_ends import DayColumns, HeadEnd, HeadEndError, ValueColumn
from meter_pipeline.feeds.stamp_rules import JOIN, StampParts

#: fields of a read that are texts of a dictionary
CODED_FIELDS: Final = (
    "meter_id",
    "channel",
    "time",
    "unit",
    "quality",
    "sequence",
    "source_version",
    "read_time",
    "interval_minutes",
)
#: most columns that a row plan may read
MAX_SOURCES: Final = 60

#: number of a source, or fixed text
Part = int | bytes


@dataclass(frozen=True, slots=True)
class Source:
    """A column: by name (or number, or JSON path), and how many columns to the right of that."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Number:
    """One value of a row, and the fields that are its own."""

    source: Source
    fields: dict[str, tuple[Part, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows that are not this head-end's reads, by the text of a source: those that match where ``keep`` is false, those
    that do not where it is true."""

    source: int
    words: tuple[str, ...]
    keep: bool

    def drops(self, text: bytes) -> bool:
        """Whether a row with this text is passed over."""
        return matches(text.decode("utf-8", "replace"), self.words) != self.keep


@dataclass(frozen=True, slots=True)
class RowPlan:
    """How a row becomes reads: dictionary columns, the fields made of them, values, ignored columns."""

    sources: tuple[Source, ...]
    fields: dict[str, tuple[Part, ...]]
    numbers: tuple[Number, ...]
    filters: tuple[Filter, ...]
    stamp: StampParts
    #: an empty value is no read; ``beyond_day``: only where the day has no such interval
    empty_is_nothing: bool = False
    beyond_day: bool = False
    skips_nonexistent: bool = False

    @property
    def varying(self) -> tuple[str, ...]:
        """The fields that differ from row to row or from value to value."""
        own = {name for number in self.numbers for name in number.fields}
        return tuple(name for name in CODED_FIELDS if name in self.fields or name in own)

    def parts(self, name: str, number: Number) -> tuple[Part, ...]:
        """Returns the columns that make a field of one value."""
        return number.fields.get(name) or self.fields[name]


def matches(text: str, words: Iterable[str]) -> bool:
    """Whether a text is one of some words; ``*`` at the end of a word stands for anything."""
    return any(text.startswith(word[:-1]) if word.endswith("*") else text == word for word in words)


class _Columns:
    """Numbers the sources of a plan."""

    def __init__(self) -> None:
        self.found: dict[Source, int] = {}

    def number(self, name: str, offset: int = 0) -> int:
        return self.found.setdefault(Source(name, offset), len(self.found))

    def numbers(self, given: str | tuple[str, ...]) -> tuple[int, ...]:
        return tuple(self.number(name) for name in ((given,) if isinstance(given, str) else given))


def plan_of(head_end: HeadEnd) -> RowPlan:
    """The plan of a declaration. Raises HeadEndError for one that names no value, meter or time."""
    columns = _Columns()
    declared = head_end.columns
    if not head_end.values and head_end.day_columns is None and "value" not in declared:
        raise HeadEndError(f"{head_end.name}: columns: value is not mapped")
    fields: dict[str, tuple[Part, ...]] = {}
    for name in CODED_FIELDS:
        if name in declared and name not in ("time", "unit"):
            fields[name] = _joined(columns.numbers(declared[name]))
    stamp = StampParts()
    of_a_day = head_end.day_columns is not None or "period" in declared or "dst" in declared
    if "time" in declared or ("time" in head_end.constants and of_a_day):
        own = columns.numbers(declared.get("time", ()))
        fields["time"], stamp = _stamp(columns, head_end, own)
    unit = _unit(columns, head_end, None)
    if any(isinstance(part, int) for part in unit):
        fields["unit"] = unit
    filters = [
        Filter(columns.number(name), words, keep)
        for table, keep in ((head_end.skip, False), (head_end.keep, True))
        for name, words in table.items()
        if name != "*"
    ]
    numbers = tuple(_numbers(columns, head_end, fields))
    taken = [number.source.name for number in numbers if number.source in columns.found]
    values = [number.source for number in numbers]
    if taken or len(set(values)) != len(values):
        name = taken[0] if taken else next(each.name for each in values if values.count(each) > 1)
        raise HeadEndError(
            f"{head_end.name}: columns: {name!r} is declared twice, for a value and a field or for two values"
        )
    if len(columns.found) > MAX_SOURCES and head_end.day_columns is None:
        raise HeadEndError(f"{head_end.name}: columns: more than {MAX_SOURCES}")
    return RowPlan(
        tuple(columns.found),
        fields,
        numbers,
        tuple(filters),
        stamp,
        head_end.options.get("empty", "skip" if head_end.values else "reject") == "skip",
        head_end.day_columns is not None,
        head_end.options.get("nonexistent") == "skip",
    )


def _joined(own: tuple[Part, ...]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for part in own:
        parts += [JOIN, part] if parts else [part]
    return tuple(parts)


def _stamp(columns: _Columns, head_end: HeadEnd, own: tuple[int, ...]) -> tuple[tuple[Part, ...], StampParts]:
    """The stamp's parts in the order of stamp_rules: its own columns, the period, the flag. The period of a day's
    column is put in for each value (_numbers)."""
    # A date in the file's name, or above the rows, stands before the rows' times.
    before = [head_end.constants["time"].encode("utf-8")] if "time" in head_end.constants else []
    parts = list(_joined((*before, *own)))
    period = "period" in head_end.columns
    flag = "dst" in head_end.columns
    for name in ("period", "dst"):
        if name in head_end.columns:
            numbers = columns.numbers(head_end.columns[name])
            if len(numbers) != 1:
                raise HeadEndError(f"{head_end.name}: columns: {name}: one column is wanted")
            parts += [JOIN, numbers[0]]
    return tuple(parts), StampParts(len(before) + len(own), period or head_end.day_columns is not None, flag)


def _unit(columns: _Columns, head_end: HeadEnd, own: str | None) -> tuple[Part, ...]:
    """The unit's parts: its word, a row's factor, the minutes that power is the average of. One fixed text where no
    column varies."""
    parts: list[Part] = []
    if own is None and "unit" in head_end.columns:
        parts += columns.numbers(head_end.columns["unit"])[:1]
    else:
        parts.append((own if own is not None else head_end.unit or "").encode("utf-8"))
    if "factor" in head_end.columns:
        parts += [TIMES, columns.numbers(head_end.columns["factor"])[0]]
    if head_end.average_power:
        parts.append(OVER)
        if "interval_minutes" in head_end.columns:
            parts += columns.numbers(head_end.columns["interval_minutes"])[:1]
        else:
            parts.append(str(head_end.interval_minutes).encode())
    return tuple(parts)


def constant_unit(head_end: HeadEnd) -> str | None:
    """The unit of a head-end whose rows do not vary it, with the minutes of an average."""
    if head_end.unit is None:
        return None
    return b"".join(part for part in _unit(_Columns(), head_end, None) if isinstance(part, bytes)).decode()


def _numbers(columns: _Columns, head_end: HeadEnd, fields: dict[str, tuple[Part, ...]]) -> Iterable[Number]:
    """The values of a row."""
    if head_end.day_columns is not None:
        day = head_end.day_columns
        for k in range(day.count):
            own: dict[str, tuple[Part, ...]] = {}
            time = list(fields["time"]) if "time" in fields else []
            # Behind the stamp's own parts stands the period.
            at = 2 * (len(_own(head_end)) + ("time" in head_end.constants)) - 1
            own["time"] = (*time[:at], JOIN, str(_period_of(k, day, head_end)).encode(), *time[at:])
            if day.quality:
                own["quality"] = (columns.number(day.first, k * day.step + day.quality),)
            yield Number(Source(day.first, k * day.step), own)
    elif head_end.values:
        for each in head_end.values:
            yield _number(columns, head_end, each, fields)
    else:
        value = head_end.columns["value"]
        if not isinstance(value, str):
            raise HeadEndError(f"{head_end.name}: columns: value: one column is wanted; [[values]] takes several")
        yield Number(Source(value))


def _period_of(place: int, day: DayColumns, head_end: HeadEnd) -> int:
    """The number (from 1) of the interval in a day's column at a place (from 0). Second passes of the repeated hour are
    counted behind the 24th hour, wherever their columns stand."""
    if not day.second:
        return place + 1
    whole = 1440 // (head_end.interval_minutes or 60)
    extra = day.count - whole
    if place < day.second - 1:
        return place + 1
    return whole + place - day.second + 2 if place < day.second - 1 + extra else place + 1 - extra


def _own(head_end: HeadEnd) -> tuple[str, ...]:
    time = head_end.columns.get("time", ())
    return (time,) if isinstance(time, str) else time


def _number(columns: _Columns, head_end: HeadEnd, value: ValueColumn, fields: dict[str, tuple[Part, ...]]) -> Number:
    own: dict[str, tuple[Part, ...]] = {"channel": (value.channel.encode("utf-8"),)}
    if value.meter_id is not None:
        own["meter_id"] = (value.meter_id.encode("utf-8"),)
    if any(each.unit is not None for each in head_end.values):
        own["unit"] = _unit(columns, head_end, value.unit)
    if value.quality is not None:
        own["quality"] = (columns.number(value.quality),)
    elif "quality" not in fields and any(each.quality is not None for each in head_end.values):
        own["quality"] = (_actual(head_end).encode("utf-8"),)
    return Number(Source(value.column), own)


def _actual(head_end: HeadEnd) -> str:
    """The head-end's word for an actual value: that of its constant, or the one its map turns into A."""
    given = head_end.constants.get("quality", "")
    return given or next((word for word, ours in head_end.quality_map.items() if ours == "A"), "")
