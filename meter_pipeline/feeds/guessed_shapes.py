"""Shapes of undeclared files that are told by content: digits that are a date, numbers of hours, qualities between a
day's values, pairs in a document's lists; and what a first reading with a guess teaches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from meter_pipeline.feeds.guessed_columns import (
    Column,
    Table,
    column_unit,
    is_number,
    judge_columns,
    named,
    plain,
    stamp_format,
)
from meter_pipeline.feeds.head_ends import DayColumns, HeadEnd
from meter_pipeline.feeds.json_records import expand, path_of
from meter_pipeline.ids import canonical_id
from meter_pipeline.schemas.reads import ParsedFeed

#: A date, a minute or a second in digits alone: 20261110, 202611100015, 20261110001500
_DIGITS: Final = re.compile(r"(?:19|20)[0-9]{6}(?:[0-9]{4}(?:[0-9]{2})?)?", re.ASCII)
_PERIOD: Final = re.compile(r"(?:HE)?([0-9]{1,3})[X*]?", re.IGNORECASE | re.ASCII)
_FEWEST_PERIODS: Final = 12
_MOST_PERIODS: Final = 100
#: words that programs write for a number that is none
_NOT_NUMBERS: Final = ("nan", "null", "none", "n/a", "na", "#n/a", "-")
_DAY_COUNTS: Final = (24, 25, 48, 50, 96, 100)
_SAMPLE: Final = 500
#: formats of numeric stamps, and the numbers of the years 2000 to 2100 in them
_NUMERIC_STAMPS: Final = (
    ("epoch_ms", 946_684_800_000, 4_102_444_800_000),
    ("epoch", 946_684_800, 4_102_444_800),
    ("excel", 36_526, 73_051),
)
#: rises that make a dial of a series: so many where it stands this many times above its advance, or so many anyway
_FEWEST_STEPS, _DIAL_OVER_ADVANCE, _MANY_STEPS = 10, 100, 100
_FEWEST_DAY_COLUMNS: Final = 23


def is_digit_stamp(column: Column) -> bool:
    """Whether every text is a date written in digits alone."""
    given = [text for text in column.texts if text]
    return bool(given) and all(_DIGITS.fullmatch(text) for text in given) and stamp_format(given[:50])[0]


def american(zone: str | None) -> bool:
    """Whether dates of a zone are written with the month first, where a file does not show it."""
    return zone is not None and zone.startswith(("America/", "US/", "Pacific/Honolulu"))


def rises_by_minutes(column: Column) -> bool:
    """Whether a column's numbers rise or fall by whole minutes of seconds: Unix time, whatever it is called."""
    given = [text for text in column.texts if text]
    if len(given) < _FEWEST_PERIODS or not all(text.isdigit() and 10 <= len(text) <= 13 for text in given):
        return False
    numbers = [int(text) for text in given]
    step = 60_000 if len(given[0]) == 13 else 60
    steps = {after - before for before, after in pairwise(numbers)}
    return steps != {0} and all(each % step == 0 for each in steps)


def period_column(free: list[Column], dates: Column) -> Column | None:
    """The column of numbers of hours or periods beside a column of dates: by its name, else one of small numbers that
    rise by one within a date."""
    by_name = next((each for each in free if each is not dates and named(each.name, "period") is not None), None)
    if by_name is not None:
        return by_name
    for column in free:
        found = [_PERIOD.fullmatch(text) for text in column.texts if text]
        numbers = [int(match[1]) for match in found if match]
        if column is dates or len(numbers) < _FEWEST_PERIODS or len(numbers) < len(found):
            continue
        pairs = list(zip(dates.texts, dates.texts[1:], numbers, numbers[1:], strict=False))
        steps = [after - before for day, next_day, before, after in pairs if day == next_day]
        if max(numbers) <= _MOST_PERIODS and steps and all(step in (0, 1) for step in steps) and any(steps):
            return column
    return None


def day_with_qualities(table: Table, free: list[Column]) -> DayColumns | None:
    """A day in a row with a quality behind every value: the first value's column and how many there are."""
    columns = [column for column in table.columns if column in free]
    for start in range(max(len(columns) - 2 * _DAY_COUNTS[0] + 1, 0)):
        count = 0
        for value, quality in zip(columns[start::2], columns[start + 1 :: 2], strict=False):
            if not value.numbers or quality.numbers or any(len(word) > 10 for word in quality.words):
                break
            count += 1
        count = max((n for n in _DAY_COUNTS if n <= count), default=0)
        if count and named(columns[start].name, "meter_id") is None:
            for column in columns[start : start + 2 * count]:
                free.remove(column)
            return DayColumns(columns[start].name, count, step=2, quality=1)
    return None


def looks_like_dials(values: Column, meters: Column | None, head_end: HeadEnd) -> bool:
    """Whether the values of each meter never fall, nearly: a register, not intervals. A short series must also stand
    far above what it advances by, as a dial does that has counted for years."""
    last: dict[str, float] = {}
    lowest: dict[str, float] = {}
    up = down = 0
    for at, text in enumerate(values.texts):
        try:
            number = float(text.replace(head_end.thousands or "\0", "").replace(head_end.decimal, "."))
        except ValueError:
            continue
        owner = meters.texts[at] if meters is not None else ""
        before = last.get(owner)
        if before is not None:
            up += number > before
            down += number < before
        last[owner] = number
        lowest[owner] = min(number, lowest.get(owner, number))
    never_falls = up >= _FEWEST_STEPS and down * 50 <= up
    far_above = all(low >= _DIAL_OVER_ADVANCE * (last[owner] - low) for owner, low in lowest.items())
    return never_falls and (far_above or up >= _MANY_STEPS)


def numeric_stamp(column: Column) -> str | None:
    """Unix time or a spreadsheet's serial days, by the size of the numbers of a column that is called a time."""
    try:
        numbers = [float(text) for text in column.texts if text]
    except ValueError:
        return None
    for time_format, least, most in _NUMERIC_STAMPS:
        if numbers and all(least <= number < most for number in numbers):
            return time_format
    return None


def day_columns(
    table: Table, free: list[Column], columns: dict[str, str | tuple[str, ...]], made: dict[str, Any]
) -> DayColumns | None:
    """A long run of neighbouring numbers: a day in a row."""
    best: list[Column] = []
    run: list[Column] = []
    for column in table.columns:
        is_meter = named(column.name, "meter_id") is not None
        if column in free and not is_meter and is_number(column, table, empty_too=True):
            run.append(column)
            best = run if len(run) > len(best) else best
        else:
            run = []
    while best and best[-1].name == "":
        best = best[:-1]
    if len(best) < _FEWEST_DAY_COLUMNS:
        return day_with_qualities(table, free)
    skip = len(best) - max((n for n in (24, 25, 48, 50, 96, 100, 144, 288, 300) if n <= len(best)), default=len(best))
    best = best[:-skip] if skip and plain(best[-1].name) in ("total", "sum", "summe") else best
    for column in best:
        free.remove(column)
    ends = plain(best[0].name) in ("0030", "0100", "0015", "030", "100", "015", "1", "he1", "he01")
    if ends and plain(best[0].name) not in ("1", "he1", "he01"):
        made["stamp"] = "end"
    return DayColumns(best[0].name, len(best))


def swapped_format(time_format: str | None) -> str | None:
    """A format with its day and month the other way round; None where it has no such numbers."""
    if time_format is None or "%d" not in time_format or "%m" not in time_format or time_format.startswith("%Y"):
        return None
    return time_format.replace("%d", "%?").replace("%m", "%d").replace("%?", "%m")


def is_meter_name(column: Column) -> bool:
    """Whether a column of numbers may be called by its meter."""
    words = ("value", "unit", "channel", "period")
    return (
        canonical_id(column.name) is not None
        and (any(letter.isdigit() for letter in column.name) or column.name.lower().startswith("meter "))
        and column_unit(column.name) is None
        and all(named(column.name, word) is None for word in words)
    )


def pairs_in_lists(document: Any, leaves: dict[tuple[str, ...], tuple[str, ...]]) -> Table | None:
    """The table of a document whose longest list holds short lists, such as pairs of a time and a value; its columns
    are named by their places. ``leaves``: the paths of plain values above it."""
    lists: dict[tuple[str, ...], list[Any]] = {}
    _lists_of_lists(document, (), lists)
    if not lists:
        return None
    path = max(lists, key=lambda each: len(lists[each]))
    width = min(len(element) for element in lists[path])
    wanted = [*((*path, str(place)) for place in range(width)), *(leaf for leaf, above in leaves.items() if not above)]
    records = expand(document, list(enumerate(wanted)))
    texts = [
        ["" if value is None else str(value) for value in records.columns.get(at, [])[:_SAMPLE]]
        for at in range(len(wanted))
    ]
    names = [path_of(each) for each in wanted]
    columns = [Column(name, column) for name, column in zip(names, texts, strict=True)]
    columns[0].name = names[0]
    table = Table(names, columns, [list(row) for row in zip(*texts, strict=True)], "\n")
    judge_columns(table)
    return table


def _lists_of_lists(node: Any, path: tuple[str, ...], found: dict[tuple[str, ...], list[Any]]) -> None:
    """Lists below a node whose elements are lists of plain values."""
    if isinstance(node, dict):
        for key, value in node.items():
            _lists_of_lists(value, (*path, key), found)
    elif isinstance(node, list) and node and all(isinstance(each, list) and 1 < len(each) <= 8 for each in node):
        values = [value for each in node for value in each]
        if not any(isinstance(value, dict | list) for value in values):
            found[path] = node


def read_again(
    head_end: HeadEnd, notes: dict[str, str], parsed: ParsedFeed, read: Callable[[HeadEnd], ParsedFeed]
) -> tuple[HeadEnd, ParsedFeed]:
    """A guess as a first reading corrects it, and the file read with it: values that are too fine are rounded, words
    that are no number stand for no value, and lines without a value are no reads."""
    before = head_end
    reasons = [reason for each in parsed.rejects["reasons"].to_list() for reason in each]
    codes = {reason["code"] for reason in reasons}
    if "too_fine" in codes:
        head_end = replace(head_end, rounding="half_even")
        notes["rounding"] = "values are finer than a millionth of their unit"
    refused = {reason["detail"].strip("'") for reason in reasons if reason["code"] in ("not_finite", "bad_number")}
    words = sorted(word for word in refused if word.lower() in _NOT_NUMBERS)
    if words:
        head_end = replace(head_end, nulls=tuple(words))
        notes["nulls"] = "words that stand for no value: ask whether they mean that"
    if "missing_value" in codes or words:
        head_end = replace(head_end, options={**head_end.options, "empty": "skip"})
        notes["options.empty"] = "lines without a value are taken for no reads"
    return (head_end, parsed) if head_end is before else (head_end, read(head_end))
