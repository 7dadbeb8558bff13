"""The parser of each format, and the most likely format of an undeclared file."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import undeclared
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Limits, names_in_zip, open_feed
from meter_pipeline.feeds.guessed_declaration import Guess
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.headings import from_name
from meter_pipeline.feeds.members import parse_members
from meter_pipeline.feeds.rejects import FeedRefused, FileGrowing, Reason, Rejects
from meter_pipeline.feeds.versions import set_version
from meter_pipeline.schemas.reads import ParsedFeed


class Parser(Protocol):
    """The parse function of a format's module."""

    def __call__(
        self, path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS
    ) -> ParsedFeed: ...


#: format -> module. ``http`` head-ends leave their pages in the landing folder as JSON Lines.
MODULES: Final[dict[str, str]] = {
    "delimited": "delimited",
    "jsonl": "jsonl",
    "http": "jsonl",
    "json": "json_document",
    "fixed": "fixed_width",
    "nem12": "nem12",
    "espi": "espi",
    "cmep": "cmep",
    "wide_csv": "wide_csv",
}

#: other names people know a format by
ALIASES: Final[dict[str, str]] = {
    "nem13": "nem12",
    "green_button": "espi",
    "csv": "delimited",
    "beacon": "wide_csv",
    "mepmd01": "cmep",
}

_SNIFF_BYTES: Final = 65_536
_DOCUMENT_BYTES: Final = 1 << 20
_OTHER_FORM: Final = "not read; ask its sender for delimited text or JSON (docs/feeds.md, What is not read)"


def format_name(text: str) -> str:
    """A format's own name from that or an alias. Raises HeadEndError for an unknown one."""
    name = text.lower()
    name = ALIASES.get(name, name)
    if name not in MODULES:
        raise HeadEndError(f"format {text!r} is not one of {', '.join(sorted({*MODULES, *ALIASES}))}")
    return name


def parser(name: str) -> Parser:
    """The parser of a format, imported when first asked for."""
    return cast(Parser, import_module(f"meter_pipeline.feeds.{MODULES[name]}").parse)


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse one file: reads in UTC and micro base units, rejects with line, bytes and reasons.

    A file that is refused whole comes back with a single reject (line 1, no reads) and no reads at all: half a file is
    never loaded. Raises FileGrowing for a file that changed while it was read (try again when it is at rest),
    HeadEndError for a declaration that cannot be used, and FileNotFoundError.
    """
    try:
        reader = parser(format_name(head_end.format))
        member = head_end.options.get("member")
        if member is not None and names_in_zip(path):
            parsed = parse_members(
                path, str(member), limits, lambda one, name: reader(one, from_name(head_end, name), calendar, limits)
            )
        else:
            parsed = reader(path, from_name(head_end, path.name), calendar, limits)
    except FileGrowing:
        raise
    except FeedRefused as refused:
        return refused_feed(head_end.format, refused)
    try:
        set_version(parsed, head_end, path.name)
    except FeedRefused as refused:
        return refused_feed(head_end.format, refused)
    parsed.channel_flows = {each.channel: each.flow for each in head_end.values if each.flow} | dict(head_end.flows)
    parsed.channel_dials = dict(head_end.dials)
    parsed.channel_moduli = {channel: Decimal(str(modulus)) for channel, modulus in head_end.moduli.items()}
    return parsed


def refused_feed(file_format: str, refused: FeedRefused) -> ParsedFeed:
    """The result of a file that is refused whole."""
    rejects = Rejects()
    rejects.add(1, 0, refused.raw, [Reason(refused.code, refused.detail)], reads=0)
    return ParsedFeed(file_format, rejects=rejects.frame())


def sniff(path: Path) -> HeadEnd:
    """A declaration guessed from a file's beginning, good enough to look at it: as ``guess``, with a rounding."""
    found = guess(path, None).head_end
    return replace(found, rounding="half_even") if found.format != "nem12" else found


def guess(path: Path, zone: str | None = None, limits: Limits = DEFAULT_LIMITS) -> Guess:
    """A declaration guessed from a file's beginning, with its open points. ``zone``: of stamps that carry none.
    Nothing is ever loaded on a guess.

    Raises FeedRefused: empty_file, unknown_format, or what opening the file raises.
    """
    from meter_pipeline.feeds import spreadsheets

    if spreadsheets.is_spreadsheet(path):
        found = undeclared.delimited(spreadsheets.first_rows(path, limits), zone)
        found.notes["options.sheet"] = "the first sheet is read; options.sheet names another"
        return found
    member = next(iter(sorted(names_in_zip(path))), None) if len(names_in_zip(path)) > 1 else None
    with open_feed(path, replace(limits, block_bytes=_SNIFF_BYTES), member=member) as opened:
        head = opened.source.read(_SNIFF_BYTES)
        if head.lstrip()[:1] in (b"[", b"{"):  # a document is looked at whole, up to a size
            while len(head) < _DOCUMENT_BYTES and (more := opened.source.read(_SNIFF_BYTES)):
                head += more
    found = _guessed(head, opened.size, zone)
    if member is not None:
        pattern = f"*{Path(member).suffix}" if Path(member).suffix else member
        found.head_end = replace(found.head_end, options={**found.head_end.options, "member": pattern})
        found.notes["options.member"] = "the zip holds several files: those that match are read one after another"
    return found


def _guessed(head: bytes, size: int, zone: str | None) -> Guess:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise FeedRefused("empty_file", f"{size} bytes, no text")
    first = text.split(b"\n", 1)[0].strip()
    if text.startswith((b"100,NEM12", b"100,NEM13")):
        return Guess(HeadEnd("sniffed", "nem12"))
    if text.startswith(b"<"):
        return Guess(HeadEnd("sniffed", "espi"))
    if first.startswith(b"MEPMD01,"):
        return Guess(HeadEnd("sniffed", "cmep", zone="+00:00", stamp="end"))
    if text.startswith((b"UNA", b"UNB+")):
        raise FeedRefused("unknown_format", f"an EDIFACT message (MSCONS): {_OTHER_FORM}", head[:200])
    if text.startswith(b"/") and b"\n1-0:" in text.replace(b"\r", b""):
        raise FeedRefused("unknown_format", f"a P1 telegram (DSMR): {_OTHER_FORM}", head[:200])
    if text.startswith((b"{", b"[")):
        return _guessed_json(text, first, zone)
    return undeclared.delimited(head, zone)


def _guessed_json(text: bytes, first: bytes, zone: str | None) -> Guess:
    """JSON Lines, or a document."""
    rows: list[dict[str, Any]] = []
    for line in text.split(b"\n")[:200]:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    if rows and not any(isinstance(value, list) for value in rows[0].values()):
        try:
            return undeclared.json_lines(first, rows, zone)
        except FeedRefused:
            if len(rows) > 1:
                raise
    try:
        document = json.loads(text) if len(rows) < 2 else rows
    except (ValueError, RecursionError) as error:
        detail = "JSON that is no document of at most a megabyte: declare format json with the paths of its columns"
        raise FeedRefused("unknown_format", detail, text[:200]) from error
    return undeclared.json_document(document, zone)
