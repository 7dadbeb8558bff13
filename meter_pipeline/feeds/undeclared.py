"""A mapping of columns guessed from a file's first lines, for ``feeds inspect`` of a file nobody declared.

Columns are recognised by their header, else by what they hold: the first column of stamps is the time, the first of
identifiers that are not plain numbers the meter, the first of numbers the value. A local time without a declared zone
is read as UTC and the report says so.
"""

from __future__ import annotations

import csv
import json
import re
from typing import Final

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.feeds.times import StampParser, State
from meter_pipeline.ids import canonical_id
from meter_pipeline.units import UnitError, base_unit, parse_decimal

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "meter_id": (
        "meterid",
        "meter",
        "meternumber",
        "meterserial",
        "meterserialnumber",
        "serialnumber",
        "nmi",
        "userkey",
        "deviceid",
        "device",
    ),
    "channel": ("channel", "channelid", "suffix", "register", "registerid", "datastream"),
    "time": (
        "time",
        "timestamp",
        "datetime",
        "intervalstart",
        "readtime",
        "readat",
        "start",
        "starttime",
        "intervalend",
        "end",
        "readingtime",
        "ts",
    ),
    "value": (
        "value",
        "kwh",
        "usage",
        "reading",
        "consumption",
        "quantity",
        "read",
        "register",
        "wh",
        "litres",
        "gallons",
        "m3",
        "energy",
    ),
    "unit": ("unit", "units", "uom"),
    "quality": ("quality", "qualityflag", "status", "flag"),
    "sequence": ("sequence", "seq", "sequencenumber"),
    "source_version": ("sourceversion", "version"),
    "interval_minutes": ("intervalminutes", "intervallength"),
}
_TIME_FORMATS: Final = (
    None,
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%Y%m%d%H%M%S",
    "%Y%m%d%H%M",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d-%m-%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
)
_BEACON: Final = {"Meter_ID", "Read_Time", "Read", "Flow_Time", "Flow"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_name(names: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for ours, spellings in _NAMES.items():
        for spelling in spellings:
            match = next((name for name in names if _plain(name) == spelling and name not in columns.values()), None)
            if match is not None:
                columns[ours] = match
                break
    return columns


def _time_format(texts: list[str]) -> tuple[bool, str | None, bool]:
    """Whether texts are stamps, in which format, and whether they carry an offset. Most texts must fit; a few may be
    bad."""
    raw = [text.encode() for text in texts if text]
    for candidate in _TIME_FORMATS:
        states = StampParser(None, candidate).parse(raw).state
        good = int((states != State.BAD).sum())
        if raw and good * 10 >= len(raw) * 8:
            return True, candidate, bool((states == State.OK).any())
    return False, None, False


def _is_number(text: str) -> bool:
    try:
        parse_decimal(text)
    except UnitError:
        return False
    return True


def delimited(head: bytes) -> HeadEnd:
    """A declaration for delimited text. Raises FeedRefused(unknown_format) when no time, meter and value can be told."""
    lines = [line for line in head.decode("utf-8", "replace").splitlines()[:2000] if line.strip()]
    delimiter = max(",;\t|", key=lambda mark: lines[0].count(mark))
    if not lines[0].count(delimiter):
        raise FeedRefused("unknown_format", f"no delimiter in the first line: {shown(lines[0])}", head[:200])
    rows = list(csv.reader(lines[:-1] if len(lines) > 2 else lines, delimiter=delimiter))
    names, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if set(names) >= _BEACON:
        return HeadEnd("sniffed", "wide_csv", commodity="water", zone="+00:00")
    header = not any(_is_number(name) for name in names)
    if not header:
        body = [names, *body]
        names = [str(i + 1) for i in range(len(names))]
    columns = _by_name(names) if header else {}
    values = {name: [row[i] for row in body] for i, name in enumerate(names)}
    stamps = {name: _time_format(texts) for name, texts in values.items() if any(texts)}
    if "time" not in columns or not stamps.get(columns["time"], (False,))[0]:
        found = next(
            (name for name in names if stamps.get(name, (False,))[0] and not _mostly(values[name], _is_number)), None
        )
        columns.pop("time", None)
        if found is not None:
            columns["time"] = found
    taken = set(columns.values())
    if "meter_id" not in columns:
        found = next(
            (
                n
                for n in names
                if n not in taken
                and _mostly(values[n], lambda t: canonical_id(t) is not None)
                and not _falling(values[n])
            ),
            None,
        )
        if found is not None:
            columns["meter_id"] = found
            taken.add(found)
    if "value" not in columns:
        found = next((name for name in names if name not in taken and _mostly(values[name], _is_number)), None)
        if found is not None:
            columns["value"] = found
    missing = [name for name in ("meter_id", "time", "value") if name not in columns]
    if missing:
        raise FeedRefused(
            "unknown_format", f"no column looks like {', '.join(missing)}: declare a head-end", head[:200]
        )
    _, time_format, offset = stamps[columns["time"]]
    unit = next((name for name in (columns["value"],) if _is_unit(name)), "")
    kind = "register" if _looks_like_dials(body, names, columns) else "interval"
    return HeadEnd(
        "sniffed",
        "delimited",
        zone=None if offset else "+00:00",
        kind=kind,
        unit=unit,
        time_format=time_format,
        delimiter=delimiter,
        header=header,
        columns=columns,
        stamp="end" if _plain(columns["time"]) in ("intervalend", "end") else "start",
    )


def _mostly(texts: list[str], rule: object) -> bool:
    given = [text for text in texts if text]
    return bool(given) and callable(rule) and sum(bool(rule(text)) for text in given) * 10 >= len(given) * 8


def _falling(texts: list[str]) -> bool:
    """A column of numbers with decimals holds quantities, not meters."""
    return any("." in text for text in texts)


def _is_unit(name: str) -> bool:
    try:
        return bool(base_unit(name)[0])
    except UnitError:
        return False


def _looks_like_dials(body: list[list[str]], names: list[str], columns: dict[str, str]) -> bool:
    """Whether the values of each meter never fall, nearly: a register, not intervals."""
    meter, value = names.index(columns["meter_id"]), names.index(columns["value"])
    last: dict[str, float] = {}
    up = down = 0
    for row in body:
        if not _is_number(row[value]):
            continue
        number = float(row[value])
        before = last.get(row[meter])
        if before is not None:
            up += number > before
            down += number < before
        last[row[meter]] = number
    return up >= 10 and down * 50 <= up


def json_lines(first: bytes) -> HeadEnd:
    """A declaration for JSON Lines from its first object. Raises FeedRefused(unknown_format)."""
    try:
        row = json.loads(first)
    except ValueError as error:
        raise FeedRefused("unknown_format", "neither JSON Lines nor any other known format", first[:200]) from error
    if not isinstance(row, dict):
        raise FeedRefused("unknown_format", "a line of JSON that is not an object", first[:200])
    columns = _by_name(list(row))
    missing = [name for name in ("meter_id", "time", "value") if name not in columns]
    if missing:
        raise FeedRefused("unknown_format", f"no key looks like {', '.join(missing)}: declare a head-end", first[:200])
    known, time_format, offset = _time_format([str(row[columns["time"]])])
    if not known:
        raise FeedRefused("unknown_format", f"time {shown(str(row[columns['time']]))}: declare a head-end", first[:200])
    return HeadEnd(
        "sniffed", "jsonl", zone=None if offset else "+00:00", unit="", time_format=time_format, columns=columns
    )
