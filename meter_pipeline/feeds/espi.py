"""Green Button: NAESB ESPI readings in an Atom feed.

The document is never held: a parser target keeps the short texts it needs and counts depth, so neither a large file nor
a hostile one costs memory. A DTD, an entity or an external reference is refused where it is declared (defusedxml).

Names. The meter is the usage point: owner and usage point of the MeterReading's link joined by a dash
(``RetailCustomer/3/UsagePoint/1`` is ``3-1``), since usage points of different customers are often all called 1; ``_ .
: ~`` in them become dashes. The channel is the link's MeterReading. ``constants.meter_id`` and ``constants.channel`` of
the head-end override both.

Durations. Up to a day a reading is an interval of its own length. A reading of a civil day that is 23 or 25 hours long,
in a channel of days, is an interval of 1440 minutes: it is that day's. Longer than a day (monthly billing blocks) is
consumption over a period: it is kept in ``periods`` as stated, and ``registers`` gets the dial that would have shown
it, starting at 0 with the file's first period of the channel. Billing takes differences of that dial like any other's,
prorated by day inside a billing cycle. The dial is the file's own: a provider that sends overlapping windows must send
the whole history each time, or windows that abut. Neighbouring periods whose ends miss each other by at most two hours
(local months written in UTC across a clock change) share the later one's start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.coded_columns import Units
from meter_pipeline.feeds.espi_atom import AtomEntry, Reading, Target, read_target
from meter_pipeline.feeds.files import DEFAULT_LIMITS, Limits, fetch_ranges, limits_of, open_feed
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.rejects import FeedRefused, Reason, Rejects, shown
from meter_pipeline.feeds.times import StampParser
from meter_pipeline.ids import canonical_id
from meter_pipeline.quality import ESPI_CODES, from_espi, pack
from meter_pipeline.schemas.reads import INTERVAL_READS, PERIOD_READS, REGISTER_READS, ParsedFeed

#: ESPI UomType -> spelling and power of ten (NAESB REQ.21, IEEE 2030.5 UomType)
UOM: Final[dict[str, tuple[str, int]]] = {
    "5": ("A", 0),
    "29": ("V", 0),
    "31": ("MJ", -6),
    "38": ("W", 0),
    "42": ("m3", 0),
    "61": ("VA", 0),
    "63": ("VAr", 0),
    "65": ("pf", 0),
    "71": ("VAh", 0),
    "72": ("Wh", 0),
    "73": ("VArh", 0),
    "119": ("ft3", 0),
    "128": ("gal", 0),
    "134": ("L", 0),
    "169": ("therm", 0),
}


DAY_S: Final = 86_400


#: how far local months written in UTC may miss each other
SEAM_S: Final = 7_200


#: dataQualifier of extremes and thresholds (ESPI DataQualifierKind): the highest of an hour is no usage of it
_EXTREMES: Final = frozenset({"5", "7", "8", "9", "16", "17", "23", "24", "25"})


_CUMULATIVE: Final = ("1", "3")  # bulk quantity, cumulative: the value is a dial


#: ESPI FlowDirectionType (NAESB REQ.21): 1 forward, delivered to the customer; 19 reverse, received from the customer;
#: 4 net, forward less reverse. 0 and absent are forward, as every sender of plain consumption means them; the quadrants
#: and sums of quadrants are kept and not billed.
FLOWS: Final = {"": "import", "0": "import", "1": "import", "4": "net", "19": "export"}


_LINK: Final = re.compile(r"(?:/(?P<owner>[^/]+))?/UsagePoint/(?P<point>[^/]+)/MeterReading/(?P<reading>[^/]+)$")


_WHOLE: Final = re.compile(r"-?[0-9]{1,15}", re.ASCII)


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse an ESPI document to interval reads, register reads and periods. Raises FeedRefused for one that is not safe
    or not well-formed."""
    limits = limits_of(head_end.options, limits)
    with open_feed(path, limits) as opened:
        target = read_target(opened, limits)
    if not target.entries:
        raise FeedRefused("unknown_format", "no usage point, meter reading or interval block in the document")
    if not any(entry.readings for entry in target.entries):
        raise FeedRefused("no_reads", "the document holds no interval reading; usage summaries alone are no reads")
    reader = Reader(head_end, calendar, target)
    parsed = reader.read()
    if reader.refused:
        raws = fetch_ranges(path, limits, [(reading.begin, reading.end) for reading, _ in reader.refused])
        rejects = Rejects()
        for reading, reasons in reader.refused:
            rejects.add(reading.line, reading.begin, raws.get(reading.begin, b""), reasons)
        parsed.rejects = rejects.frame()
    parsed.sha256 = opened.sha256
    return parsed


@dataclass(slots=True)
class Channel:
    """Where readings belong and how their values are scaled."""

    meter_id: str
    channel: str
    unit: int
    length: int | None
    cumulative: bool
    flow: str = "import"


@dataclass(slots=True)
class Period:
    """Consumption over more than a day, in Unix seconds and micro base units."""

    start: int
    end: int
    value: int
    quality: int
    line: int


class Reader:
    """Resolves the links of a document and makes its reads."""

    def __init__(self, head_end: HeadEnd, calendar: BillingCalendar, target: Target) -> None:
        self._head_end = head_end
        self._calendar = calendar
        self._units = Units(head_end.rounding)
        self._roundings: dict[tuple[str, str], Fraction] = {}
        self._types = _by_link(target.entries, "ReadingType")
        self._readings = _by_link(target.entries, "MeterReading")
        #: the meter reading that holds a block whose own links do not lie below it
        self._holders = {link: entry for entry in self._readings.values() for link in entry.related}
        self._quantities: dict[tuple[str, str], tuple[str, ...]] = {}
        self._blocks = [entry for entry in target.entries if entry.readings]
        self.refused: list[tuple[Reading, list[Reason]]] = []
        stamp = StampParser("+00:00").parse([re.sub(r"\.[0-9]+", "", target.updated).encode("utf-8", "replace")])
        self._version = int(stamp.first[0]) // 1_000_000 if stamp.state[0] == 0 else 0
        self._intervals: list[tuple[Any, ...]] = []
        self._registers: list[tuple[Any, ...]] = []
        self._periods: dict[tuple[str, str, int], list[tuple[Period, Reading]]] = {}

    def read(self) -> ParsedFeed:
        """The frames."""
        parsed = ParsedFeed("espi")
        for block in self._blocks:
            channel = self._channel(block)
            if isinstance(channel, list):
                self.refused.extend((reading, channel) for reading in block.readings)
                continue
            key = channel.meter_id, channel.channel
            parsed.file_units.setdefault(key, self._units.spelling[channel.unit])
            parsed.flows[key] = channel.flow
            for reading in block.readings:
                reasons = self._take(reading, channel)
                if reasons:
                    self.refused.append((reading, reasons))
        stated: list[tuple[Any, ...]] = []
        for (meter_id, channel_id, unit), periods in self._periods.items():
            self._dial(meter_id, channel_id, unit, periods, stated)
        parsed.intervals = _frame(self._intervals, INTERVAL_READS)
        parsed.registers = _frame(self._registers, REGISTER_READS)
        parsed.periods = _frame(stated, PERIOD_READS)
        parsed.roundings = self._roundings
        return parsed

    def _channel(self, block: AtomEntry) -> Channel | list[Reason]:
        """The channel of a block, or why it has none."""
        below = block.own.rpartition("/IntervalBlock")[0] or block.up.rpartition("/IntervalBlock")[0] or block.up
        reading = self._readings.get(below) or self._holders.get(block.own) or self._holders.get(block.up)
        if reading is None:
            return [Reason("no_reading_type", f"no meter reading under the link {shown(below)}")]
        key = reading.own
        found = [self._types[link] for link in reading.related if link in self._types]
        if not found:  # another reading's type may be of another unit: 30 of an unknown unit are not 30 Wh
            named = [link for link in reading.related if "/ReadingType/" in link]
            detail = f"{shown(named[0])} is not in the file" if named else f"{shown(key)} names none"
            return [Reason("no_reading_type", detail)]
        if any(each.texts != found[0].texts for each in found[1:]):
            return [Reason("no_reading_type", f"{shown(key)} names several that differ")]
        texts = found[0].texts
        reasons: list[Reason] = []
        spelling, power = UOM.get(texts.get("uom", ""), ("", 0))
        if not spelling:
            reasons.append(Reason("bad_unit", f"uom {shown(texts.get('uom', ''))}"))
        if texts.get("dataQualifier") in _EXTREMES:
            detail = f"dataQualifier {texts['dataQualifier']}: a maximum, minimum or threshold is no usage"
            reasons.append(Reason("bad_unit", detail))
        multiplier = texts.get("powerOfTenMultiplier", "") or "0"
        if not re.fullmatch(r"-?[0-9]{1,2}", multiplier, re.ASCII) or abs(int(multiplier)) > 12:
            reasons.append(Reason("bad_unit", f"powerOfTenMultiplier {shown(multiplier)}"))
            multiplier = "0"
        power += int(multiplier)
        link = _LINK.search(key)
        point = link["point"] if link else ""
        joined = f"{link['owner']}-{point}" if link and link["owner"] else point
        constants = self._head_end.constants
        meter_id = canonical_id(constants.get("meter_id") or re.sub(r"[_.:~]", "-", joined))
        channel_id = canonical_id(constants.get("channel") or re.sub(r"[_.:~]", "-", link["reading"] if link else "1"))
        if meter_id is None or channel_id is None:
            reasons.append(Reason("bad_id", f"link {shown(key)}"))
        if reasons or meter_id is None or channel_id is None:
            return reasons
        unit = self._units.code((f"10^{power} {spelling}" if power else spelling).encode())
        length = texts.get("intervalLength", "")
        flow = FLOWS.get(texts.get("flowDirection", ""), "other")
        quantity = flow, spelling, length, texts.get("accumulationBehaviour", "")
        if self._quantities.setdefault((meter_id, channel_id), quantity) != quantity:
            return [Reason("mixed_channel", f"{shown(key)}: channel {channel_id} holds another quantity already")]
        return Channel(
            meter_id,
            channel_id,
            unit,
            int(length) if _WHOLE.fullmatch(length) else None,
            texts.get("accumulationBehaviour") in _CUMULATIVE,
            self._head_end.flows.get(channel_id, flow),
        )

    def _take(self, reading: Reading, channel: Channel) -> list[Reason]:
        """Keep one reading, or say why not."""
        reasons: list[Reason] = []
        value = self._units.exact(channel.unit, reading.value)
        rounded = self._units.rounded
        if isinstance(value, Reason):
            reasons.append(value)
        start = int(reading.start) if _WHOLE.fullmatch(reading.start) else -1
        if not 0 <= start < 7_258_118_400:
            reasons.append(Reason("bad_time", f"start {shown(reading.start)}"))
        given = reading.duration or (str(channel.length) if channel.length else "")
        duration = int(given) if _WHOLE.fullmatch(given) else -1
        if not (0 < duration <= 400 * DAY_S or (duration == 0 and channel.cumulative)):
            reasons.append(Reason("bad_interval", f"duration {shown(given)}"))
        quality = pack("A")
        if reading.quality:
            if reading.quality.isascii() and reading.quality.isdigit() and int(reading.quality[:4]) in ESPI_CODES:
                quality = from_espi(int(reading.quality))
            else:
                reasons.append(Reason("bad_quality", f"quality {shown(reading.quality)}"))
        if reasons or isinstance(value, Reason):
            return reasons
        base = self._units.base[channel.unit]
        if rounded:
            key = channel.meter_id, channel.channel
            self._roundings[key] = self._roundings.get(key, Fraction(0)) + rounded
        if channel.cumulative:
            self._registers.append(
                (
                    channel.meter_id,
                    channel.channel,
                    (start + duration) * 1_000_000,
                    value,
                    base,
                    0,
                    quality,
                    self._version,
                    None,
                    reading.line,
                )
            )
            return []
        minutes = self._minutes(start, duration, channel)
        if minutes is not None:
            self._intervals.append(
                (
                    channel.meter_id,
                    channel.channel,
                    start * 1_000_000,
                    minutes,
                    value,
                    base,
                    0,
                    quality,
                    self._version,
                    None,
                    reading.line,
                )
            )
            return []
        if duration <= DAY_S:
            return [Reason("bad_interval", f"duration {duration} s is not whole minutes")]
        period = Period(start, start + duration, value, quality, reading.line)
        self._periods.setdefault((channel.meter_id, channel.channel, channel.unit), []).append((period, reading))
        return []

    def _minutes(self, start: int, duration: int, channel: Channel) -> int | None:
        """Length of an interval in minutes, 1440 for a civil day of any length, None where there is no interval."""
        if duration == DAY_S:
            return 1440
        if abs(duration - DAY_S) <= SEAM_S:
            if channel.length == DAY_S:
                return 1440
            day = self._calendar.day_of(datetime.fromtimestamp(start, UTC))
            if self._calendar.start_s(day) == start and self._calendar.seconds(day) == duration:
                return 1440
        if duration < DAY_S and duration % 60 == 0:
            return duration // 60
        return None

    def _dial(
        self,
        meter_id: str,
        channel: str,
        unit: int,
        periods: list[tuple[Period, Reading]],
        stated: list[tuple[Any, ...]],
    ) -> None:
        """Register reads of a dial that shows the periods of one channel, and the periods as stated."""
        base = self._units.base[unit]
        periods.sort(key=lambda each: (each[0].start, each[0].end))
        kept: list[Period] = []
        for period, reading in periods:
            if kept and period.start < kept[-1].end - SEAM_S:
                self.refused.append((reading, [Reason("bad_interval", "the period overlaps the one before it")]))
                continue
            kept.append(period)
        dial = 0

        def read(at: int, quality: int, line: int) -> None:
            self._registers.append(
                (meter_id, channel, at * 1_000_000, dial, base, 0, quality, self._version, None, line)
            )

        for i, period in enumerate(kept):
            stated.append(
                (
                    meter_id,
                    channel,
                    period.start * 1_000_000,
                    period.end * 1_000_000,
                    period.value,
                    None,
                    base,
                    period.quality,
                    self._version,
                    None,
                    period.line,
                )
            )
            if i == 0 or abs(period.start - kept[i - 1].end) > SEAM_S:
                read(period.start, period.quality, period.line)
            dial += period.value
            following = kept[i + 1].start if i + 1 < len(kept) else None
            end = following if following is not None and abs(following - period.end) <= SEAM_S else period.end
            read(end, period.quality, period.line)


def _by_link(entries: list[AtomEntry], kind: str) -> dict[str, AtomEntry]:
    """Entries of a kind by their own link. A link that two different entries claim names neither."""
    found: dict[str, AtomEntry] = {}
    claimed_twice: set[str] = set()
    for entry in entries:
        if entry.kind == kind:
            other = found.setdefault(entry.own, entry)
            if (other.texts, other.related) != (entry.texts, entry.related):
                claimed_twice.add(entry.own)
    return {link: entry for link, entry in found.items() if link not in claimed_twice}


def _frame(rows: list[tuple[Any, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    raw = {name: pl.Int64 if isinstance(dtype, pl.Datetime) else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=raw, orient="row").with_columns(
        pl.col(name).cast(dtype) for name, dtype in schema.items()
    )
