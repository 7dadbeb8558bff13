"""Which columns of an undeclared file are its time, how it is written, and in which zone."""

from __future__ import annotations

from typing import Any, Final

from meter_pipeline.feeds.guessed_columns import (
    UNNAMED,
    Column,
    Table,
    is_clock,
    is_number,
    named,
    plain,
    rank,
    stamp_fits,
    stamp_format,
)
from meter_pipeline.feeds.guessed_declaration import Guess
from meter_pipeline.feeds.guessed_shapes import (
    american,
    is_digit_stamp,
    numeric_stamp,
    period_column,
    rises_by_minutes,
    swapped_format,
)
from meter_pipeline.feeds.head_ends import Periods

_RANGES: Final = (" - ", " – ", " to ", "/", " bis ")


def guess_time(
    guess: Guess, table: Table, free: list[Column], columns: dict[str, str | tuple[str, ...]], zone: str | None
) -> dict[str, Any]:
    """The stamp's column or columns, and how it is written."""
    stamps = [(column, *stamp_format(column.texts)) for column in free]
    stamps = [
        each for each in stamps if each[1] and not (is_number(each[0], table) and named(each[0].name, "time") is None)
    ]
    stamps = stamps or [(column, *stamp_format(column.texts)) for column in free if is_digit_stamp(column)]
    if not stamps:
        for column in free:
            called = named(column.name, "time") is not None
            numeric = numeric_stamp(column) if called or rises_by_minutes(column) else None
            if numeric is not None:
                free.remove(column)
                columns["time"] = column.name
                guess.notes["stamp"] = "not in the file: ask whether a stamp names an interval's start or its end"
                return {"time_format": numeric} | _zone(guess, numeric != "excel", zone)
        return _range(guess, free, columns, zone)
    stamps.sort(key=lambda each: (named(each[0].name, "time") is None, named(each[0].name, "time") or 0))
    column, _, time_format, offset = stamps[0]
    free.remove(column)
    guessed: dict[str, Any] = {"time_format": time_format}
    only_dates = all(":" not in text and len(text) <= 11 for text in column.texts if text)
    clocks = [each for each in free if only_dates and not each.numbers and is_clock(each.texts)]
    clock = next(iter(clocks), None)
    period = period_column(free, column) if only_dates else None
    columns["time"] = column.name
    if clock is not None:
        for beside in clocks:  # the others say when an interval ends
            free.remove(beside)
        columns["time"] = (column.name, clock.name)
        twelve = is_clock(clock.texts) or ""
        twelve_hours = "%p" in twelve or american(zone)
        if time_format == "%d/%m/%Y" and twelve_hours and stamp_fits(column.texts, "%m/%d/%Y"):
            time_format = "%m/%d/%Y"  # hours of twelve are written where the month comes first
        guessed["time_format"] = f"{time_format or '%Y-%m-%d'} {twelve}"
    elif period is not None:
        free.remove(period)
        columns["period"] = period.name
        numbers = [int(text.strip("HEhe")) for text in period.texts if text.strip("HEhe").isdigit()]
        second = any(text[-1:] in ("X", "x", "*") for text in period.texts)
        first = min(numbers, default=1) if min(numbers, default=1) in (0, 1) else 1
        guessed["periods"] = Periods(first, "clock" if second else "elapsed")
        if second:
            guessed["options"] = {**guess.head_end.options, "ambiguous": "first"}
        most = max(numbers, default=24)
        guessed["interval_minutes"] = 60 if most <= 25 else 30 if most <= 50 else 15
        guess.notes["periods"] = "elapsed counts through the civil day (25 in autumn); clock is the local time of day"
    swapped = swapped_format(time_format)
    if swapped is not None and stamp_fits(column.texts, swapped):
        if clock is None and swapped.startswith("%m/") and american(zone):
            guessed["time_format"] = swapped
        guess.notes["time_format"] = "whether the day or the month comes first cannot be told from this file: ask"
    _flag(guess, column, free, columns, guessed)
    if plain(column.name) in ("intervalend", "end", "endtime", "readdateandendtime", "ende", "to", "bis"):
        guessed["stamp"] = "end"
    else:
        guess.notes["stamp"] = "not in the file: ask whether a stamp names an interval's start or its end"
    other = next(
        (each[0] for each in stamps[1:] if plain(each[0].name) in ("end", "endtime", "ende", "to", "bis")), None
    )
    if other is not None:
        guess.notes.pop("stamp", None)
    for each in stamps[1:]:
        if each[0] in free:
            free.remove(each[0])
    return guessed | _zone(guess, offset, zone)


def _flag(
    guess: Guess,
    stamp: Column,
    free: list[Column],
    columns: dict[str, str | tuple[str, ...]],
    made: dict[str, Any],
) -> None:
    """A column of two or three words that differ where stamps repeat: the clock-change flag."""
    for column in free:
        if rank(column.name, "dst") == UNNAMED or not 1 < len(column.words) <= 3:
            continue
        free.remove(column)
        columns["dst"] = column.name
        seen: dict[str, str] = {}
        found: dict[str, str] = {}
        for text, word in zip(stamp.texts, column.texts, strict=True):
            before = seen.setdefault(text, word)
            if before != word and not found:
                found = {before: "first", word: "second"}
        made["dst_map"] = found or {word: ("first", "second", "second")[at] for at, word in enumerate(column.words)}
        guess.notes["dst_map"] = "guessed from the order of the rows: first is summer time, second the hour again"
        return


def _zone(guess: Guess, offset: bool, zone: str | None) -> dict[str, Any]:
    if offset:
        return {}
    guess.notes["zone"] = "not in the file: ask in which zone its stamps are (a zone name, or +00:00 for UTC)"
    return {"zone": zone or "+00:00"}


def _range(
    guess: Guess, free: list[Column], columns: dict[str, str | tuple[str, ...]], zone: str | None
) -> dict[str, Any]:
    """A column of two stamps, start to end."""
    for column in free:
        for mark in _RANGES:
            if not column.texts or not all(mark in text for text in column.texts if text):
                continue
            known, time_format, offset = stamp_format([text.partition(mark)[0].strip() for text in column.texts])
            if known:
                free.remove(column)
                columns["time"] = column.name
                return {"time_format": time_format, "time_range": mark} | _zone(guess, offset, zone)
    return {}
