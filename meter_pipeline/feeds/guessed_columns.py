"""The table in an undeclared text: its encoding, delimiter, header, marks of numbers, and what its columns hold."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.feeds.times import StampParser, State
from meter_pipeline.ids import canonical_id
from meter_pipeline.units import UnitError, base_unit

#: names of columns by our field, the likeliest first
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "meter_id": (
        "meterid", "meter", "meternumber", "meterserial", "meterserialnumber", "serialnumber", "nmi", "mpan", "mprn", "esiid", "zaehlpunkt",
        "zahlpunkt", "zaehlpunktnummer", "zaehler", "zahler", "zaehlernummer", "meteringpoint", "messlokation", "pod", "cups", "ean", "userkey",
        "meterno", "messpunkt", "prm", "pdl", "cpe", "deviceid", "device", "endpointid", "messageid", "id",
    ),
    "channel": ("channel", "channelid", "suffix", "register", "registerid", "datastream", "readtype", "obis", "type"),
    "time": (
        "time", "timestamp", "datetime", "intervalstart", "readtime", "readat", "start", "starttime", "startdate", "beginn", "von", "from",
        "readdateandendtime", "local", "zeit", "zeitstempel", "date", "datum", "day", "usagedate", "intervalend", "end", "endtime", "ende",
        "readingtime", "ts", "stamp", "fecha", "fechahora", "horodate", "data", "readdate", "readingdate", "usagetime", "servicedate", "intervalstarttime",
        "localtime",
    ),
    "value": (
        "value", "kwh", "usage", "reading", "consumption", "consumed", "quantity", "read", "readvalue", "register", "dial", "wert", "verbrauch",
        "wh", "litres", "gallons", "m3", "energy", "messageconsumption",
    ),
    "unit": ("unit", "units", "uom", "einheit"),
    "quality": ("quality", "qualityflag", "q", "status", "flag", "messwert", "estimated", "estimatedflag", "quali"),
    "sequence": ("sequence", "seq", "sequencenumber"),
    "source_version": ("sourceversion", "version"),
    "interval_minutes": ("intervalminutes", "intervallength"),
    "dst": ("dst", "dstflag", "isdst", "clockchange", "zeitumstellung", "sommerzeit", "season", "timechange", "repeatedhour", "repeatedhourflag"),
    "period": ("hour", "hourending", "he", "period", "settlementperiod", "sp", "hr", "interval", "stunde", "hourofday", "hrending", "hourend", "hrend",
        "hora", "heure", "uur", "ora", "slot",
    ),
}  # fmt: skip
TIME_FORMATS: Final = (
    None, "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%y %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p", "%d-%b-%Y %H:%M", "%d-%b-%y %I.%M.%S.%f %p", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y%m%d",
    "%d-%b-%Y", "%b %d %Y", "%d-%b-%Y %I:%M:%S %p", "%d-%b-%Y %H:%M:%S", "%d %b %Y", "%d %b %Y %H:%M", "%m/%d/%y %H:%M", "%m/%d/%y %I:%M %p",
    "%a %b %d %Y %H:%M:%S", "%b %d, %Y %I:%M %p", "%m/%d/%y", "%m/%d/%y, %I:%M %p", "%m/%d/%Y, %I:%M %p", "%m/%d/%Y, %I:%M:%S %p",
    "%d/%m/%Y, %H:%M:%S", "%d/%m/%Y, %H:%M", "%b %d, %Y, %I:%M %p", "%b %d, %Y, %I:%M:%S %p",
)  # fmt: skip
#: rank of a column whose name says nothing of a field
UNNAMED: Final = 99
_CLOCKS: Final = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%H.%M")
_DELIMITERS: Final = ",;\t|"
_SAMPLE: Final = 500
_MOST: Final = 0.8
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|[+-]?\.[0-9]+", re.ASCII)
_COMMA: Final = re.compile(r"[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?", re.ASCII)
_GROUPS: Final = re.compile(r"[+-]?[0-9]{1,3}(?:([, '])[0-9]{3})+(?:\.[0-9]+)?", re.ASCII)
_UNIT_IN_NAME: Final = re.compile(
    r"[\[(/ ,_]?\b(G?Wh|kWh|MWh|kVArh|kVAh|kW|kVA|m3|m³|gal|gallons|litres|liters|CCF|CF|ft3|therms?|MJ|GJ|KGAL)\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Column:
    """A column's name and texts, and what they have in common."""

    name: str
    texts: list[str]
    numbers: bool = False
    decimals: bool = False

    @property
    def words(self) -> list[str]:
        """The distinct texts, in order."""
        return list(dict.fromkeys(text for text in self.texts if text))

    @property
    def small(self) -> bool:
        """Whole numbers of at most three digits: counters, hours and flags, not meters."""
        given = [text for text in self.texts if text]
        return bool(given) and all(text.isdigit() and len(text) <= 3 for text in given)


@dataclass(slots=True)
class Table:
    """The rows below a header."""

    names: list[str]
    columns: list[Column]
    body: list[list[str]]
    delimiter: str
    header: bool = True
    preamble: int = 0
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""
    lines: list[str] = field(default_factory=list)
    #: a row below the names with units alone
    units: list[str] = field(default_factory=list)


def plain(name: str) -> str:
    """A name's letters and digits, lower-case, without accents that keyboards write out."""
    lowered = name.lower().replace("ä", "ae").replace("ö", "oe").replace("ü", "ue").replace("ß", "ss")
    return re.sub(r"[^a-z0-9]", "", lowered)


def rank(name: str, field_name: str) -> int:
    """As ``named``, and beyond all of them for a name of something else."""
    found = named(name, field_name)
    return UNNAMED if found is None else found


def named(name: str, field_name: str) -> int | None:
    """How likely a name is that of a field: 0 for its likeliest name; None for a name of something else."""
    spellings = _NAMES[field_name]
    for bare in (plain(name), plain(name.rpartition(".")[2])):
        if bare in spellings:
            return spellings.index(bare)
    return None


def is_unit(word: str) -> bool:
    """Whether a word is a unit, and nothing beside it."""
    try:
        return bool(base_unit(word)[0])
    except UnitError:
        return False


def column_unit(text: str) -> str | None:
    """The unit that a text is, or that stands in a column's name; None for none."""
    if len(text.strip()) > 1 and is_unit(text):  # a column named v or A has values, not volts or amperes
        return text.strip()
    found = _UNIT_IN_NAME.search(text)
    return found[1] if found else None


def decoded(head: bytes) -> tuple[str, str]:
    """A file's beginning as text, and its encoding."""
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark):
            return head[: len(head) // 2 * 2].decode("utf-16", "replace"), name
    try:
        return head.removeprefix(codecs.BOM_UTF8).decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if error.start > len(head) - 4:  # the last letter was cut
            return head[: error.start].removeprefix(codecs.BOM_UTF8).decode("utf-8"), "utf-8"
    return head.decode("cp1252", "replace"), "cp1252"


def read_table(head: bytes) -> Table:
    """The table of a file's beginning. Raises FeedRefused(unknown_format) for text without one."""
    text, encoding = decoded(head)
    lines = text.splitlines()[:2000]
    if len(head) >= 65_536 and len(lines) > 2:
        lines = lines[:-1]
    first = next((line for line in lines if line.strip()), "")
    fixed = re.fullmatch(r'"?sep=(.)"?', first.strip())
    if fixed:
        lines = lines[lines.index(first) + 1 :]
    best: tuple[int, int, str] = (0, 0, "")
    for mark in fixed[1] if fixed else _DELIMITERS:
        counts = Counter(len(row) for row in _split(lines, mark) if len(row) > 1)
        if counts:
            width, times = max(counts.items(), key=lambda each: (each[1], each[0]))
            best = max(best, (times, width, mark))
    if not best[2]:
        raise FeedRefused("unknown_format", f"no delimiter in the first line: {shown(first)}", head[:200])
    _, width, delimiter = best
    rows = _split(lines, delimiter)
    start = _header_at(rows, width)
    names = [name.strip() for name in rows[start]]
    body = [[cell.strip() for cell in row] for row in rows[start + 1 :] if len(row) == width][:_SAMPLE]
    header = (
        not any(_NUMBER.fullmatch(name) or stamp_format([name])[0] for name in names if name) or len(set(names)) > 23
    )
    preamble = sum(1 for line in lines[:start] if line.strip()) if start else 0
    preamble = start if preamble else 0
    while header and names and not names[-1] and all(not row[len(names) - 1] for row in body):
        names.pop()
    if not header:
        body = [names, *body]
        names = [str(i + 1) for i in range(len(names))]
    units = body.pop(0) if header and body and _is_units_row(body[0]) else []
    columns = [Column(name, [row[i] for row in body]) for i, name in enumerate(names)]
    table = Table(names, columns, body, delimiter, header, preamble, encoding, lines=lines, units=units)
    _marks(table)
    judge_columns(table)
    return table


def _header_at(rows: list[list[str]], width: int) -> int:
    """The row of names: the first of the table's width whose cells are all filled and differ, where the one below it
    has a number or a stamp; else the first of that width (a preamble may be as wide as the table)."""
    wide = [at for at, row in enumerate(rows) if len(row) == width]
    for at in wide[:60]:
        names = [name.strip() for name in rows[at]]
        while names and not names[-1]:
            names.pop()
        below = [cell.strip() for cell in rows[at + 1]] if at + 1 < len(rows) else []
        if at + 2 < len(rows) and _is_units_row(below):
            below = [cell.strip() for cell in rows[at + 2]]
        holds = any(_NUMBER.fullmatch(cell) or _COMMA.fullmatch(cell) for cell in below if cell)
        if len(names) > 1 and all(names) and len(set(names)) == len(names) and len(below) == width and holds:
            return at
    return wide[0]


def _is_units_row(row: list[str]) -> bool:
    """Whether a row has nothing but units."""
    given = [cell for cell in row if cell]
    return bool(given) and all(is_unit(cell) and not cell.isdigit() for cell in given)


def judge_columns(table: Table) -> None:
    """Say of each column whether it holds numbers, and with decimals."""
    for column in table.columns:
        column.numbers = is_number(column, table)
        column.decimals = any(table.decimal in text for text in column.texts)


def _split(lines: list[str], delimiter: str) -> list[list[str]]:
    """Rows as csv has them; a line that it refuses is one field."""
    rows: list[list[str]] = []
    for line in lines:
        try:
            rows.extend(csv.reader([line], delimiter=delimiter, skipinitialspace=True) if line.strip() else [[]])
        except csv.Error:
            rows.append([line])
    return rows


def _marks(table: Table) -> None:
    """Decimal and thousands marks, by the columns that are numbers in one way only."""
    for column in table.columns:
        given = [text for text in column.texts if text]
        if not given or stamp_format(given[:50])[0]:
            continue
        commas = [text for text in given if _COMMA.fullmatch(text)]
        if table.delimiter != "," and any("," in text for text in commas) and len(commas) >= _MOST * len(given):
            table.decimal = ","
            if any("." in text for text in commas):
                table.thousands = "."
        grouped = [match for text in given if (match := _GROUPS.fullmatch(text)) and match[1] != table.delimiter]
        if table.decimal == "." and grouped and any("." in text for text in given):
            table.thousands = grouped[0][1]


def is_number(column: Column, table: Table, empty_too: bool = False) -> bool:
    """Whether most texts of a column are numbers. ``empty_too``: a column of nothing counts."""
    given = [text for text in column.texts if text]
    if not given:
        return empty_too and bool(column.texts)

    def fits(text: str) -> bool:
        if text.endswith("-"):
            text = text[:-1]
        if text.startswith("(") and text.endswith(")"):
            text = text[1:-1]
        if table.thousands:
            text = text.replace(table.thousands, "")
        return bool(_NUMBER.fullmatch(text.replace(table.decimal, ".") if table.decimal != "." else text))

    return sum(map(fits, given)) >= _MOST * len(given)


def is_name(column: Column) -> bool:
    """Whether most texts of a column may be identifiers and none is a stamp or a unit."""
    given = [text for text in column.texts if text]
    if not given or stamp_format(given[:50])[0] or all(map(is_unit, column.words[:20])):
        return False
    good = sum(canonical_id(re.sub(r"[ _./:'=\"]", "-", text)) is not None for text in given)
    return good >= _MOST * len(given)


def stamp_format(texts: list[str]) -> tuple[bool, str | None, bool]:
    """Whether texts are stamps, in which format, and whether they carry an offset. Most texts must fit; a few may be
    bad. Of two formats that fit, the one under which more texts are dates (31/10 is no 31st month)."""
    raw = [text.encode() for text in texts[:_SAMPLE] if text]
    best: tuple[int, str | None, bool] | None = None
    for candidate in TIME_FORMATS:
        states = StampParser(None, candidate).parse(raw).state.tolist()
        good = sum(state != State.BAD for state in states)
        if raw and good >= _MOST * len(raw) and (best is None or good > best[0]):
            best = good, candidate, State.OK in states
    return (True, best[1], best[2]) if best else (False, None, False)


def stamp_fits(texts: list[str], time_format: str) -> bool:
    """Whether all texts are stamps of a format."""
    states = StampParser(None, time_format).parse([text.encode() for text in texts if text]).state.tolist()
    return bool(states) and State.BAD not in states


def is_clock(texts: list[str]) -> str | None:
    """The format of a column of times of day, or None."""
    given = [text for text in texts if text]
    for candidate in _CLOCKS:
        states = StampParser(None, candidate).parse([text.encode() for text in given]).state
        if given and State.BAD not in states.tolist():
            return candidate
    return None
