"""A declaration guessed from a file's first lines, for ``feeds inspect`` of an undeclared file and for ``feeds guess``.

Columns are recognised by what they hold, and by their header where several hold the like. What a file cannot say (its
time zone, which end of an interval a stamp names, what its words mean) is guessed too, and said in ``notes``. Nothing
is ever loaded on a guess.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from meter_pipeline.feeds.guessed_columns import (
    Column,
    Table,
    column_unit,
    is_name,
    is_unit,
    judge_columns,
    named,
    plain,
    rank,
    read_table,
)
from meter_pipeline.feeds.guessed_declaration import Guess
from meter_pipeline.feeds.guessed_shapes import (
    day_columns,
    is_meter_name,
    looks_like_dials,
    pairs_in_lists,
)
from meter_pipeline.feeds.guessed_times import guess_time
from meter_pipeline.feeds.head_ends import Elsewhere, HeadEnd, IdRules, ValueColumn
from meter_pipeline.feeds.json_records import expand, path_of
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.ids import canonical_id
from meter_pipeline.units import UnitError, base_unit

_BEACON: Final = {"Meter_ID", "Read_Time", "Read", "Flow_Time", "Flow"}


#: quality words whose meaning is the same wherever they were seen
_QUALITIES: Final = {
    "A": "A", "OK": "A", "VAL": "A", "ACTUAL": "A", "VALID": "A", "MEASURED": "A", "REAL": "A", "R": "A", "W": "A", "0": "A",
    "E": "E", "EST": "E", "ESTIMATED": "E", "ESTIMATE": "E", "1": "E", "S": "S", "SUB": "S", "SUBSTITUTED": "S", "N": "N",
}  # fmt: skip


#: records of a document that are looked at
_SAMPLE: Final = 500


#: a line above rows that names their meter
_HEADING: Final = r'(?i)^"?(?:meter|device|serial|nmi|esiid|mpan|pod)[a-z #.]*"?[:;,\t] *"?([A-Z0-9-]{3,})'


_EXPORT: Final = ("export", "received", "feedin", "generation", "einspeisung", "returned", "teruglevering", "reverse")


def delimited(head: bytes, zone: str | None = None) -> Guess:
    """A declaration for delimited text. Raises FeedRefused(unknown_format) when no time, meter and value can be
    recognised.
    """
    table = read_table(head)
    if set(table.names) >= _BEACON:
        return Guess(HeadEnd("sniffed", "wide_csv", commodity="water", zone=zone or "+00:00"))
    guess = Guess(
        HeadEnd(
            "sniffed",
            "delimited",
            delimiter=table.delimiter,
            header=table.header,
            encoding=table.encoding,
            decimal=table.decimal,
            thousands=table.thousands,
            options={"skip_lines": table.preamble} if table.preamble else {},
        )
    )
    if table.units:
        guess.head_end = replace(guess.head_end, skip={"*": (table.delimiter.join(table.units) + "*",)})
        guess.notes["skip"] = "the row below the header that names units"
    if table.preamble:
        guess.notes["options.skip_lines"] = "lines before the header; check that the next file has as many"
    return _mapped(guess, table, zone)


def json_lines(first: bytes, rows: list[dict[str, Any]] | None = None, zone: str | None = None) -> Guess:
    """A declaration for JSON Lines from its first objects. Raises FeedRefused(unknown_format)."""
    if rows is None:
        try:
            row = json.loads(first)
        except ValueError as error:
            raise FeedRefused("unknown_format", "neither JSON Lines nor any other known format", first[:200]) from error
        if not isinstance(row, dict):
            raise FeedRefused("unknown_format", "a line of JSON that is not an object", first[:200])
        rows = [row]
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    body = [[row.get(name, "") for name in names] for row in flat]
    table = Table(names, [Column(name, [row[i] for row in body]) for i, name in enumerate(names)], body, "\n")
    judge_columns(table)
    return _mapped(Guess(HeadEnd("sniffed", "jsonl")), table, zone)


def json_document(document: Any, zone: str | None = None) -> Guess:
    """A declaration for a JSON document, by the longest list of objects in it. Raises FeedRefused(unknown_format)."""
    lists: dict[tuple[str, ...], int] = {}
    leaves: dict[tuple[str, ...], tuple[str, ...]] = {}
    _walk(document, (), (), lists, leaves)
    pairs = None if lists else pairs_in_lists(document, leaves)
    if pairs is not None:
        return _mapped(Guess(HeadEnd("sniffed", "json")), pairs, zone)
    if not lists:
        raise FeedRefused(
            "unknown_format", "JSON without a list of objects: declare format json with the paths of its columns"
        )
    longest = max(lists, key=lambda path: (lists[path], len(path)))
    wanted = [path for path, above in leaves.items() if longest[: len(above)] == above]
    records = expand(document, list(enumerate(wanted)))
    names = [path_of(path) for path in wanted]
    columns = [
        Column(name, ["" if value is None else str(value) for value in records.columns.get(at, [])[:_SAMPLE]])
        for at, name in enumerate(names)
    ]
    body = [list(row) for row in zip(*[column.texts for column in columns], strict=True)]
    table = Table(names, columns, body, "\n")
    judge_columns(table)
    return _mapped(Guess(HeadEnd("sniffed", "json")), table, zone)


def _walk(
    node: Any,
    path: tuple[str, ...],
    above: tuple[str, ...],
    lists: dict[tuple[str, ...], int],
    leaves: dict[tuple[str, ...], tuple[str, ...]],
) -> None:
    """The lists of objects below a node by path with their lengths, and the plain values with the list that they are
    in.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            if "." not in key:
                _walk(value, (*path, key), above, lists, leaves)
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        lists[path] = lists.get(path, 0) + len(node)
        for element in node[:_SAMPLE]:
            _walk(element, path, path, lists, leaves)
    elif path and not isinstance(node, list | bool) and node is not None:
        leaves.setdefault(path, above)


def _flat(row: dict[str, Any], above: str = "") -> dict[str, str]:
    """An object's plain values by path."""
    found: dict[str, str] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{path_of((key,))}.")
        elif not isinstance(value, list | bool) and value is not None:
            found[f"{above}{path_of((key,))}"] = str(value)
    return found


def _mapped(guess: Guess, table: Table, zone: str | None) -> Guess:
    """The columns of a table, each recognised once."""
    free = list(table.columns)
    columns: dict[str, str | tuple[str, ...]] = {}
    guessed_time = guess_time(guess, table, free, columns, zone)
    _coded(guess, free, columns)
    day = day_columns(table, free, columns, guessed_time)
    if day is not None:
        count = day.count
        minutes = {23: 60, 24: 60, 25: 60, 46: 30, 48: 30, 50: 30, 92: 15, 96: 15, 100: 15}.get(
            count, max(1440 // count, 1)
        )
        guessed_time |= {"day_columns": day, "interval_minutes": minutes}
        if "unit" not in columns:
            guessed_time["unit"] = ""
            guess.notes["unit"] = "not in the file: kWh, gal, m3, CCF, therm, ..."
    meter = _meter(free, columns)
    if meter is not None:
        _ids(guess, meter)
    matrix = day is None and meter is None and _meter_columns(guess, table, free, columns, guessed_time)
    channels = next((len(each.words) for each in table.columns if each.name == columns.get("channel")), 0)
    if meter is None and not matrix and table.header and channels <= 1:
        _meter_beside(guess, table, guessed_time)
    values = [] if day is not None or matrix else _values(guess, free, columns, guessed_time)
    missing = [] if "time" in columns else ["time"]
    has_meter = "meter_id" in columns or "meter_id" in guessed_time.get("constants", {}) or "elsewhere" in guessed_time
    missing += [] if has_meter or matrix else ["meter_id"]
    missing += [] if values or day is not None or matrix or "value" in columns else ["value"]
    if missing:
        what = "column" if guess.head_end.format == "delimited" else "key"
        raise FeedRefused("unknown_format", f"no {what} looks like {', '.join(missing)}: declare a head-end")
    guessed_time["columns"] = columns
    guess.head_end = replace(guess.head_end, **guessed_time)
    _kind(guess, table)
    _unread(guess, table)
    return guess


def _unread(guess: Guess, table: Table) -> None:
    """Name the columns with something in them that the declaration leaves out: one may be a factor, or what is
    billed."""
    declared = guess.head_end
    if any(each.column == "*" for each in declared.values):
        return
    read = {name for given in declared.columns.values() for name in ((given,) if isinstance(given, str) else given)}
    read |= {each.column for each in declared.values}
    names = [column.name for column in table.columns]
    if declared.day_columns is not None and declared.day_columns.first in names:
        first = names.index(declared.day_columns.first)
        read |= set(names[first : first + declared.day_columns.count * declared.day_columns.step])
    left = [column.name for column in table.columns if column.name not in read and column.words]
    if left:
        guess.notes["columns"] = f"columns that are not read: {', '.join(map(shown, left[:12]))}"


def _meter_columns(
    guess: Guess, table: Table, free: list[Column], columns: dict[str, str | tuple[str, ...]], made: dict[str, Any]
) -> bool:
    """Whether each column of numbers is a meter, by its name: a table of a time and meters."""
    numbers = [column for column in free if column.numbers]
    plain_names = all(is_meter_name(column) for column in numbers)
    if len(numbers) < 2 or not plain_names or not table.header or {"unit", "channel"} & columns.keys():
        return False
    made["values"] = (ValueColumn("*", "E1", meter_id="*"),)
    written = {unit for unit in table.units if unit}
    made["unit"] = written.pop() if len(written) == 1 else ""
    if not made["unit"]:
        guess.notes["unit"] = "not in the file: kWh, gal, m3, CCF, therm, ..."
    guess.notes["values"] = "each column is taken for a meter: name those that are in [[values]] where some are not"
    return True


def _meter_beside(guess: Guess, table: Table, made: dict[str, Any]) -> None:
    """A meter that no column names: in lines above the rows, or unknown."""
    if guess.head_end.format == "delimited" and any(re.search(_HEADING, line) for line in table.lines[:_SAMPLE]):
        made["elsewhere"] = {"meter_id": Elsewhere(heading=_HEADING)}
        guess.notes["elsewhere"] = "the meter is looked for in the lines above its rows"
        return
    made["constants"] = {"meter_id": "METER-1"}
    guess.notes["constants.meter_id"] = (
        "no column looks like a meter: give its id here, name its column, or say in [elsewhere] where it stands"
    )


def _coded(guess: Guess, free: list[Column], columns: dict[str, str | tuple[str, ...]]) -> None:
    """Columns of few words: units, qualities, channels, sequence and version."""
    for name in ("unit", "quality", "sequence", "source_version", "interval_minutes", "channel"):
        found = [column for column in free if named(column.name, name) is not None]
        if name == "unit":
            # one letter is a quality as often as amperes, volts or watts
            found = found or [
                each for each in free if each.words and all(is_unit(w) and len(w) > 1 for w in each.words)
            ]
        if name == "channel" and not found:
            found = [
                each
                for each in free
                if is_name(each) and 1 < len(each.words) <= 8 and named(each.name, "meter_id") is None
            ]
            found = [each for each in found if any(_says_flow(word) for word in each.words)]
        if name in ("sequence", "source_version", "interval_minutes"):
            found = [each for each in found if all(text.isdigit() for text in each.texts if text)]
        if not found:
            continue
        column = found[0]
        for other in found[1:]:
            column = other if rank(other.name, name) < rank(column.name, name) else column
        free.remove(column)
        columns[name] = column.name
        if name == "quality":
            guess.head_end = replace(guess.head_end, quality_map=_qualities(guess, column))
            if not guess.head_end.quality_map:
                del columns[name]
        if name == "channel":
            _channels(guess, column)
        if name == "unit":
            unknown = [word for word in column.words if not is_unit(word)]
            if unknown:
                guess.notes["unit_map"] = f"units without a known meaning: {', '.join(map(shown, unknown[:8]))}"


def _says_flow(word: str) -> bool:
    return any(hint in plain(word) for hint in ("import", "export", "consumption", "deliver", "bezug", *_EXPORT))


def _channels(guess: Guess, column: Column) -> None:
    """A map where the words are no identifiers, and flows where they say so."""
    flows: dict[str, str] = {}
    words: dict[str, str] = {}
    for number, word in enumerate(column.words, 1):
        export = any(hint in plain(word) for hint in _EXPORT)
        words[word] = f"{'B' if export else 'E'}{number}"
        if export:
            flows[words[word]] = "export"
    if any(_says_flow(word) or canonical_id(word) is None for word in column.words):
        guess.head_end = replace(guess.head_end, channel_map=words, flows=flows)
        guess.notes["channel_map"] = "guessed from the words: check which way each flows"


def _qualities(guess: Guess, column: Column) -> dict[str, str]:
    known = {word: _QUALITIES[word.upper()] for word in column.words if word.upper() in _QUALITIES}
    unknown = [word for word in column.words if word.upper() not in _QUALITIES]
    if unknown:
        guess.notes["quality_map"] = f"ask what these mean: {', '.join(map(shown, unknown[:8]))}"
    else:
        guess.notes["quality_map"] = "guessed: A actual, E estimated, S substituted, N none; ask the sender"
    if unknown and known:
        known |= dict.fromkeys(unknown, "E")
    return known


def _meter(free: list[Column], columns: dict[str, str | tuple[str, ...]]) -> Column | None:
    """The meter's column: by its name, else the first of identifiers."""
    by_name = [column for column in free if named(column.name, "meter_id") is not None and is_name(column)]
    by_content = [column for column in free if is_name(column) and not column.decimals and not column.small]
    found = (
        min(by_name, key=lambda each: named(each.name, "meter_id") or 0) if by_name else next(iter(by_content), None)
    )
    if found is not None:
        free.remove(found)
        columns["meter_id"] = found.name
    return found


def _ids(guess: Guess, meter: Column) -> None:
    """Returns the characters to remove or replace to make identifiers of a meter's texts."""
    refused = "".join(text for text in meter.texts if canonical_id(text) is None)
    signs = sorted({letter for letter in refused if not (letter.isalnum() or letter in "-._/ ")})
    if signs:
        replaced = {sign: "-" for sign in signs if sign == ":"}
        taken_out = "".join(sign for sign in signs if sign not in replaced)
        guess.head_end = replace(guess.head_end, ids=IdRules(taken_out, replace=replaced))
        guess.notes["ids"] = "signs that an identifier cannot have: check that no two meters become one"


def _values(
    guess: Guess, free: list[Column], columns: dict[str, str | tuple[str, ...]], made: dict[str, Any]
) -> list[ValueColumn]:
    """The value's column, or several that each name a unit."""
    numbers = [column for column in free if column.numbers]
    if not numbers:
        return []
    with_unit = [column for column in numbers if column_unit(column.name)]
    if len(with_unit) > 1 and "unit" not in columns and "channel" not in columns:
        values = []
        for number, column in enumerate(with_unit, 1):
            export = any(hint in plain(column.name) for hint in _EXPORT)
            flow = "export" if export else None
            values.append(ValueColumn(column.name, f"{'X' if export else 'E'}{number}", column_unit(column.name), flow))
        guess.notes["values"] = "one value a row was found in each of these columns: take out those that are not billed"
        made["values"] = tuple(values)
        return values
    by_name = [column for column in numbers if named(column.name, "value") is not None]
    best = with_unit[:1] or sorted(by_name, key=lambda each: named(each.name, "value") or 0)[:1]
    column = (best or [each for each in numbers if each.decimals] or numbers)[0]
    columns["value"] = column.name
    if "unit" not in columns:
        made["unit"] = column_unit(column.name) or ""
        if not made["unit"]:
            guess.notes["unit"] = "not in the file: kWh, gal, m3, CCF, therm, ..."
    return []


def _kind(guess: Guess, table: Table) -> None:
    """Dials rise and never fall; power becomes energy."""
    declared = guess.head_end
    value = declared.columns.get("value")
    meter = declared.columns.get("meter_id")
    if declared.values or isinstance(value, str):
        names = [each.column for each in declared.values] or [str(value)]
        series = next((column for column in table.columns if column.name == names[0]), None)
        owner = next((column for column in table.columns if column.name == meter), None)
        if series is not None and looks_like_dials(series, owner, declared):
            guess.head_end = declared = replace(declared, kind="register")
            guess.notes["kind"] = "the values of a meter never fall: dials; take this line out if they are intervals"
            guess.notes.pop("stamp", None)
    unit = declared.unit or ""
    try:
        power = base_unit(unit)[0] in ("kW", "kVA", "kVAr")
    except UnitError:
        power = False
    if power and declared.kind == "interval":
        guess.notes["average_power"] = "values are power: average_power = true and interval_minutes make energy of them"
