"""A Green Button document as its entries: parser events to the links and short texts that readings need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import ParseError

from meter_pipeline.feeds.files import Limits
from meter_pipeline.feeds.rejects import FeedRefused, shown

MAX_DEPTH: Final = 64


MAX_TEXT: Final = 512


_CHUNK: Final = 65_536


_MAX_TOKEN: Final = 1 << 20


_KEPT: Final = frozenset(
    (
        "start",
        "duration",
        "value",
        "quality",
        "uom",
        "powerOfTenMultiplier",
        "intervalLength",
        "accumulationBehaviour",
        "dataQualifier",
        "flowDirection",
        "updated",
    )
)


@dataclass(slots=True)
class Reading:
    """One IntervalReading, as text, and where it stands."""

    start: str
    duration: str
    value: str
    quality: str
    line: int
    begin: int
    end: int


@dataclass(slots=True)
class AtomEntry:
    """One Atom entry: its links and its content."""

    own: str = ""
    up: str = ""
    related: list[str] = field(default_factory=list)
    kind: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)


class Target:
    """Parser events to entries."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.entries: list[AtomEntry] = []
        self.updated = ""
        self._path: list[str] = []
        self._entry = AtomEntry()
        self._reading: dict[str, str] | None = None
        self._place = (0, 0)
        self._text: list[str] | None = None
        self._size = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise FeedRefused("too_deep", f"elements nested deeper than {MAX_DEPTH}")
        self._text = [] if name in _KEPT else None
        self._size = 0
        if name == "entry":
            self._entry = AtomEntry()
        elif name == "link" and "entry" in self._path:
            self._link(attributes)
        elif name in ("UsagePoint", "MeterReading", "ReadingType", "IntervalBlock") and not self._entry.kind:
            self._entry.kind = name
        elif name == "IntervalReading":
            self._reading = {}
            self._place = (self.parser.CurrentLineNumber, self.parser.CurrentByteIndex)

    def _link(self, attributes: dict[str, str]) -> None:
        href = attributes.get("href", "")[:2048].rstrip("/")
        match attributes.get("rel"):
            case "self":
                self._entry.own = href
            case "up":
                self._entry.up = href
            case "related" if len(self._entry.related) < 1000:
                self._entry.related.append(href)

    def data(self, text: str) -> None:
        if self._text is not None and self._size <= MAX_TEXT:
            self._text.append(text)
            self._size += len(text)

    def end(self, tag: str) -> None:
        name = self._path.pop()
        text = "".join(self._text).strip()[: MAX_TEXT + 1] if self._text is not None else ""
        self._text = None
        if self._reading is not None:
            if name == "IntervalReading":
                self._finish_reading()
            elif name in ("start", "duration", "value", "quality"):
                self._reading.setdefault(name, text)
        elif name == "entry":
            if self._entry.kind:
                self.entries.append(self._entry)
            self._entry = AtomEntry()
        elif self._entry.kind == "ReadingType" and name in _KEPT:
            self._entry.texts.setdefault(name, text)
        elif name == "updated" and self._path == ["feed"]:
            self.updated = text

    def _finish_reading(self) -> None:
        found = self._reading or {}
        self._reading = None
        line, begin = self._place
        end = self.parser.CurrentByteIndex + len("</IntervalReading>")
        start, duration, value, quality = (found.get(name, "") for name in ("start", "duration", "value", "quality"))
        self._entry.readings.append(Reading(start, duration, value, quality, line, begin, end))

    def close(self) -> Target:
        return self


def read_target(opened: Any, limits: Limits) -> Target:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    target = Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    target.parser = parser.parser
    fed = 0
    try:
        while chunk := opened.source.read(_CHUNK):
            fed += len(chunk)
            if fed > limits.max_document_bytes:
                raise FeedRefused("archive_too_large", f"a document of more than {limits.max_document_bytes} bytes")
            parser.feed(chunk)
            if fed - parser.parser.CurrentByteIndex > _MAX_TOKEN:
                raise FeedRefused("line_too_long", f"a tag or attribute of more than {_MAX_TOKEN} bytes")
        if not fed:
            raise FeedRefused("empty_file", "0 bytes")
        parser.close()
    except DefusedXmlException as error:
        raise FeedRefused("forbidden_markup", shown(str(error))) from error
    except (ParseError, ValueError, LookupError) as error:
        raise FeedRefused("bad_document", shown(str(error))) from error
    return target
