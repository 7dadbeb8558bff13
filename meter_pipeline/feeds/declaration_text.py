"""A declaration as TOML text, and the change that each reject reason asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Final

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.rejects import REASONS

_WIDTH: Final = 100
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")

#: Change to a declaration by reject reason; the other reasons only the sender can correct
ADVICE: Final[dict[str, str]] = {
    "bad_time": 'time_format must fit this stamp; a date and a time apart are time = ["Date", "Time"]; start to end in one column is time_range',
    "missing_zone": "declare zone, a zone name or an offset such as +10:00",
    "ambiguous_time": 'a clock-change flag is columns.dst with [dst_map]; options.ambiguous = "first" or "second" settles the rest',
    "nonexistent_time": 'options.nonexistent = "forward", "back" or "skip"; or the zone is not that of the stamps',
    "implausible_time": "earliest is later than this stamp; or the meter's clock was reset",
    "bad_number": "decimal and thousands are the marks of numbers; totals and notes go into [skip]",
    "missing_value": 'options.empty = "skip" if a line without a value is no read',
    "too_fine": 'rounding = "half_even" rounds to a millionth and keeps the sum of the rounding',
    "out_of_range": "the column of the value, or the unit, is another one",
    "bad_id": "[ids] takes off a prefix, zeros and letters; [channel_map] turns the sender's channels into ours",
    "missing_field": "the column is empty here: [skip] rows like this one, or give the field in [constants]",
    "bad_unit": "[unit_map] turns the sender's unit into one of ours: kWh, gal, m3, CCF, 10 CF, therm",
    "bad_quality": "[quality_map] gives this word a meaning: A actual, E estimated, S14 substituted, N none",
    "bad_interval": 'declare interval_minutes, or kind = "register" where the value is a dial',
    "bad_header": "skip_lines, delimiter and the names in [columns] must be those of the file",
    "truncated_row": "rows like this one go into [skip], or options.footer_lines; line ends inside quotes need options.quoted_line_breaks",
    "too_many_fields": "delimiter or quote is another one",
    "bad_quoting": 'quote is another mark ("" for none), or options.quoted_line_breaks = true',
    "bad_json": 'columns names a key that is an object or a list here: use a path (Message.ID), or format = "json"',
    "bad_document": "format, or the paths of [columns], are those of another document",
    "wrong_encoding": 'encoding = "cp1252" or "utf-16" are the usual others',
    "archive_members": 'options.member names the files of the zip to read, as "*.csv"',
    "no_heading": "[elsewhere] looks for it with a regular expression in the file's name, or in lines above the rows",
    "control_total": "the file was cut, or [columns] and [day_columns] read other rows than the file counts",
    "unknown_format": "format is another one; docs/feeds.md says what is read",
    "spreadsheet": "options.sheet names the sheet; a file with a password cannot be read",
    "no_reading_type": "the sender left out what the readings are: ask for the file again",
    "bad_integer": "the column of sequence, version or interval length is another one",
}


def advice(code: str) -> str:
    """Returns the advice for a reason: change the declaration, or ask the sender."""
    return ADVICE.get(code, f"{REASONS.get(code, code)}: ask the sender for the line as it should be")


def toml_text(head_end: HeadEnd, notes: Mapping[str, str]) -> str:
    """A declaration as TOML, without values that are the defaults, each note as a comment above its key or table."""
    top: list[str] = []
    tables: list[str] = []
    left = dict(notes)
    for each in fields(HeadEnd):
        value = getattr(head_end, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if value == default or value is None:
            continue
        if each.name == "values":
            tables += _commented(left.pop("values", None))
            for column in value:
                tables += ["[[values]]", *_entries(asdict(column)), ""]
        elif isinstance(value, Mapping) or hasattr(value, "__dataclass_fields__"):
            given = dict(value) if isinstance(value, Mapping) else asdict(value)
            own = {key: left.pop(f"{each.name}.{key}", None) for key in given}
            tables += [*_commented(left.pop(each.name, None)), f"[{each.name}]", *_entries(given, own), ""]
        else:
            top += [*_commented(left.pop(each.name, None)), f"{each.name} = {_value(value)}"]
    for key, note in left.items():
        top += _commented(f"{key}: {note}")
    return "\n".join([*top, "", *tables]).rstrip() + "\n"


def _entries(given: Mapping[str, Any], notes: Mapping[str, str | None] | None = None) -> list[str]:
    lines: list[str] = []
    for key, value in given.items():
        if value in (None, "", {}, 0, False):
            continue
        lines += _commented((notes or {}).get(key))
        lines.append(f"{key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)} = {_value(value)}")
    return lines


def _commented(note: str | None) -> list[str]:
    if note is None:
        return []
    lines = [""]
    for word in note.split():
        if len(lines[-1]) + len(word) + 1 > _WIDTH:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"#{line}" for line in lines]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_entries(value))} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
