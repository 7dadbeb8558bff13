"""A mapping's declaration: the exports, their code tables, and how each reference table comes of them.

[sources.services]                # an export: the one file of the folder that matches
file = "SERV*.csv"
delimiter = "|"

[codes.class]                     # a code table: the export's word = ours
R1 = "residential"

[[tables.accounts]]               # rows of a reference table; a table may have several such parts
from = "services"
unique = true                     # the listing repeats an account on every line
where = { STATUS = ["A", "F*"] }
joins = [{ source = "premises", on = { PREM = "PREM_NO" } }]

[tables.accounts.columns]         # column of the table = column of the export, or how it is made
account_id = "ACCT"
customer_class = { column = "RATE", codes = "class" }
opened = { column = "MOVE_IN", format = "%m/%d/%Y", empty = ["00/00/0000"] }
closed = { constant = "" }
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from meter_pipeline.schemas.reference import TABLES

FORMATS: Final = ("delimited", "fixed", "spreadsheet")
_PLACE: Final = re.compile(r"([1-9][0-9]{0,5})-([1-9][0-9]{0,5})", re.ASCII)


class MappingError(ValueError):
    """A mapping that cannot be used; the message names file, table and key."""


@dataclass(frozen=True, slots=True)
class Source:
    """An export. ``file``: a pattern that exactly one file of the folder matches. ``columns`` names the columns of a
    file without a header: by number from 1 where it is delimited, by first and last letter (``"1-12"``) where it is
    fixed.
    ``skip``: rows that are none, by the text of a column (``*`` at the end stands for anything)."""

    file: str
    format: str = "delimited"
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    skip_lines: int = 0
    footer_lines: int = 0
    sheet: str = ""
    columns: Dictionary[str, str] = field(default_factory=dict)
    skip: Dictionary[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """How a value is made: of one column, several put together with ``join``, or a constant. Then, in this order: texts
    of ``empty`` are none; letters are replaced, a ``prefix`` and leading zeros taken off; ``codes`` (a code table) or
    ``map`` turns it into our word, ``default`` any other, and an empty one; ``format`` reads a date or an instant of
    local time (of ``zone``, or the utility's); ``decimal`` is the decimal mark."""

    column: tuple[str, ...] = ()
    constant: str | None = None
    join: str = "-"
    empty: tuple[str, ...] = ()
    replace: Dictionary[str, str] = field(default_factory=dict)
    prefix: str = ""
    strip_zeros: bool = False
    codes: str = ""
    map: Dictionary[str, str] = field(default_factory=dict)
    default: str | None = None
    format: str = ""
    zone: str = ""
    decimal: str = "."


@dataclass(frozen=True, slots=True)
class Join:
    """Another source whose one row with the same key stands beside each row; its columns are named ``source.COLUMN``.
    ``on``: our column = its column. ``optional``: rows without a partner stay, its columns empty."""

    source: str
    on: Dictionary[str, str]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one reference table from one source."""

    table: str
    source: str
    columns: Dictionary[str, Cell]
    where: Dictionary[str, tuple[str, ...]] = field(default_factory=dict)
    joins: tuple[Join, ...] = ()
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Mapping:
    """Everything that the files of a mapping folder declare."""

    sources: Dictionary[str, Source]
    codes: Dictionary[str, Dictionary[str, str]]
    parts: tuple[Part, ...]


def read_mapping(folder: Path) -> Mapping:
    """The mapping in the TOML files of a folder, which may name each other's sources and code tables. Raises
    MappingError."""
    sources: dict[str, Source] = {}
    codes: dict[str, dict[str, str]] = {}
    parts: list[Part] = []
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise MappingError(f"{folder} holds no mapping (*.toml): docs/mapping.md shows one")
    for path in files:
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
            _known("", raw, ("sources", "codes", "tables"))
            for name, given in raw.get("sources", {}).items():
                if name in sources:
                    raise MappingError(f"sources.{name}: declared twice")
                sources[name] = _source(name, given)
            for name, given in raw.get("codes", {}).items():
                codes[name] = {str(word): str(ours) for word, ours in given.items()}
            for table, given in raw.get("tables", {}).items():
                parts += [_part(table, part) for part in (given if isinstance(given, list) else [given])]
        except (MappingError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MappingError(f"{path.name}: {error}") from error
    mapping = Mapping(sources, codes, tuple(parts))
    _check(mapping)
    return mapping


def _source(name: str, raw: Any) -> Source:
    given: Source = _made(f"sources.{name}", Source, raw)
    if given.format not in FORMATS:
        raise MappingError(f"sources.{name}: format must be one of {', '.join(FORMATS)}")
    if len(given.delimiter) != 1 or len(given.quote) > 1:
        raise MappingError(f"sources.{name}: delimiter and quote are one letter each")
    try:
        codecs.lookup(given.encoding)
    except LookupError as error:
        raise MappingError(f"sources.{name}: encoding: {error}") from error
    if given.format == "fixed" and not given.columns:
        raise MappingError(f'sources.{name}: columns: give each column\'s first and last letter, such as "1-12"')
    for column, place in given.columns.items():
        match = _PLACE.fullmatch(place) if given.format == "fixed" else re.fullmatch(r"[1-9][0-9]{0,3}", place)
        if match is None or (given.format == "fixed" and int(match[1]) > int(match[2])):
            raise MappingError(f"sources.{name}: columns: {column}: {place!r} is not a place")
    return given


def _part(table: str, raw: Any) -> Part:
    where = f"tables.{table}"
    if table not in TABLES:
        raise MappingError(f"{where}: no such reference table{_near(table, TABLES)}")
    if not isinstance(raw, dict):
        raise MappingError(f"{where}: a table is wanted")
    _known(where, raw, ("from", "columns", "where", "joins", "unique"))
    columns = raw.get("columns", {})
    _known(f"{where}.columns", columns, TABLES[table].columns)
    cells = {column: _cell(f"{where}.columns.{column}", given) for column, given in columns.items()}
    missing = [name for name, kind in TABLES[table].columns.items() if name not in cells and not kind.endswith("?")]
    if missing:
        raise MappingError(f"{where}.columns: {', '.join(missing)}: not mapped")
    joins = tuple(_made(f"{where}.joins", Join, each) for each in raw.get("joins", []))
    if "from" not in raw:
        raise MappingError(f"{where}: from: name its source")
    return Part(table, raw["from"], cells, _texts(raw.get("where", {})), joins, bool(raw.get("unique", False)))


def _cell(where: str, raw: Any) -> Cell:
    if isinstance(raw, str):
        return Cell((raw,))
    if isinstance(raw, list):
        return Cell(tuple(map(str, raw)))
    given: Cell = _made(where, Cell, raw)
    if bool(given.column) == (given.constant is not None):
        raise MappingError(f"{where}: give either column or constant")
    if given.codes and given.map:
        raise MappingError(f"{where}: give either codes or map")
    if given.zone:
        try:
            ZoneInfo(given.zone)
        except (KeyError, ValueError) as error:
            raise MappingError(f"{where}: zone {given.zone!r} is none") from error
    return given


def _made(where: str, kind: type[Any], raw: Any) -> Any:
    """A table as its own class. Raises MappingError for unknown or missing keys and wrong types."""
    if not isinstance(raw, dict):
        raise MappingError(f"{where}: a table is wanted")
    known = {each.name: str(each.type) for each in fields(kind)}
    _known(where, raw, known)
    made: dict[str, Any] = {}
    for key, value in raw.items():
        if known[key].startswith("tuple"):
            made[key] = tuple(map(str, value if isinstance(value, list) else [value]))
        elif known[key].startswith("Dictionary[str, tuple"):
            made[key] = _texts(value)
        elif known[key].startswith("Dictionary"):
            made[key] = {str(word): str(ours) for word, ours in value.items()}
        else:
            wanted = {"int": int, "bool": bool}.get(known[key], str)
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
                raise MappingError(f"{where}.{key}: {value!r} is not {wanted.__name__}")
            made[key] = value
    try:
        return kind(**made)
    except TypeError as error:
        raise MappingError(f"{where}: {str(error).split('argument: ')[-1]} is missing") from error


def _texts(raw: Any) -> dict[str, tuple[str, ...]]:
    return {str(key): tuple(map(str, value if isinstance(value, list) else [value])) for key, value in raw.items()}


def _known(where: str, given: Any, known: Any) -> None:
    for key in given:
        if key not in known:
            raise MappingError(f"{where + ': ' if where else ''}unknown key {key!r}{_near(key, known)}")


def _near(key: str, known: Any) -> str:
    near = get_close_matches(key, list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _check(mapping: Mapping) -> None:
    """Names of sources and code tables that are not declared."""
    for part in mapping.parts:
        for name in (part.source, *[join.source for join in part.joins]):
            if name not in mapping.sources:
                raise MappingError(f"tables.{part.table}: no source {name!r}{_near(name, mapping.sources)}")
        for column, cell in part.columns.items():
            if cell.codes and cell.codes not in mapping.codes:
                where = f"tables.{part.table}.columns.{column}"
                raise MappingError(f"{where}: no code table {cell.codes!r}{_near(cell.codes, mapping.codes)}")
