"""Reports as bytes: delimited text, JSON Lines, NEM12 and CMEP.

Delimited rows that are plain (all intervals there, on the grid, not negative) are laid out as fixed-width records in
one array per file, which is what makes tens of millions of lines a second; the few others are written a line at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from meter_pipeline.simulator.city import Ints
from meter_pipeline.simulator.plan import PlantedDefect


@dataclass(frozen=True, slots=True)
class Style:
    """How a delimited head-end writes: ``stamp`` utc, offset (ISO with offset) or local (wall clock); ``end`` stamps
    name the interval's end."""

    header: str
    stamp: str
    end: bool
    decimals: int


STYLES = {
    "AMI": Style("meter_id,channel,interval_start,kwh,sequence,version,quality", "utc", end=False, decimals=3),
    "WATER": Style("meter_id,channel,local_time,gallons,sequence,version,quality", "local", end=False, decimals=1),
    "GAS": Style("meter_id,channel,interval_end,ccf,sequence,version,quality", "offset", end=True, decimals=3),
}


@lru_cache(maxsize=8192)
def stamp_text(second: int, zone: str, style: str) -> str:
    """An instant (unix seconds) in a head-end's style."""
    if style == "utc":
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    local = datetime.fromtimestamp(second, ZoneInfo(zone))
    return local.isoformat() if style == "offset" else local.strftime("%Y-%m-%d %H:%M:%S")


def decimal_text(quanta: int, decimals: int) -> str:
    """Quanta as a plain decimal with a fixed number of places."""
    sign, quanta = ("-", -quanta) if quanta < 0 else ("", quanta)
    whole, part = divmod(quanta, 10**decimals)
    return f"{sign}{whole}.{part:0{decimals}d}" if decimals else f"{sign}{whole}"


@lru_cache(maxsize=4)
def _common_texts(decimals: int) -> list[str]:
    return [decimal_text(k, decimals) for k in range(10_000)]


def decimal_texts(values: Ints, decimals: int) -> list[str]:
    """``decimal_text`` of many values: the common ones come from a table."""
    table = _common_texts(decimals)
    return [table[v] if 0 <= v < 10_000 else decimal_text(v, decimals) for v in values.tolist()]


@lru_cache(maxsize=16)
def _whole_numbers(limit: int) -> npt.NDArray[np.bytes_]:
    return np.array([b"%d" % k for k in range(limit)])


@lru_cache(maxsize=16)
def _fractions(decimals: int, tail: bytes) -> npt.NDArray[np.bytes_]:
    return np.array([b".%0*d%s" % (decimals, k, tail) for k in range(10**decimals)])


def plain_lines(prefixes: list[str], stamps: list[str], values: Ints, decimals: int, tail: str) -> Iterator[bytes]:
    """Lines ``prefix stamp value tail`` of whole rows: prefix and stamp hold their own delimiters; values are not
    negative.

    Blocks of bytes. Rows whose every value has one digit before the point come first: they share a width, which needs
    no second pass. In the others, values shorter than the longest leave NUL bytes in the array, taken out when the
    block is made.
    """
    end = tail.encode() + b"\n"
    stamp = np.array([s.encode() for s in stamps])
    scale = 10**decimals
    if scale == 1:
        raise ValueError("a plain line has decimals")
    lengths = {len(p) for p in prefixes}
    fits = values.max(axis=1, initial=0) < 10 * scale
    chosen = [(rows[at : at + 12_500], small) for rows, small in _halves(fits) for at in range(0, len(rows), 12_500)]
    for rows, small in chosen:
        part = values[rows] if len(rows) < len(values) else values
        prefix = np.array([prefixes[r].encode() for r in rows.tolist()])
        if small:
            number = _small(decimals, end)[part]
            record = np.dtype([("prefix", prefix.dtype), ("stamp", stamp.dtype), ("number", number.dtype)])
            records = np.empty(part.shape, record)
            records["number"] = number
        else:
            whole, fraction = np.divmod(part, scale)
            top = int(whole.max()) + 1
            text = _whole_numbers(1 << max(6, (top - 1).bit_length()))[whole] if top <= 1 << 20 else whole.astype("S")
            tails = _fractions(decimals, end)[fraction]
            record = np.dtype(
                [("prefix", prefix.dtype), ("stamp", stamp.dtype), ("whole", text.dtype), ("fraction", tails.dtype)]
            )
            records = np.empty(part.shape, record)
            records["whole"], records["fraction"] = text, tails
        records["prefix"], records["stamp"] = prefix[:, None], stamp[None, :]
        raw = records.tobytes()
        yield raw if small and len(lengths) == 1 else raw.replace(b"\0", b"")


def _halves(fits: npt.NDArray[np.bool_]) -> list[tuple[Ints, bool]]:
    """Row numbers that fit, then those that do not; empty halves left out."""
    both = [(np.flatnonzero(fits), True), (np.flatnonzero(~fits), False)]
    return [(rows, small) for rows, small in both if len(rows)]


@lru_cache(maxsize=16)
def _small(decimals: int, end: bytes) -> npt.NDArray[np.bytes_]:
    scale = 10**decimals
    return np.array([b"%d.%0*d%s" % (k // scale, decimals, k % scale, end) for k in range(10 * scale)])


@dataclass(frozen=True, slots=True)
class ReadLine:
    """One delimited read before it is text, with the story that spoils it, if any."""

    meter_id: str
    channel: str
    second: int
    value: str
    sequence: int
    version: int
    quality: str
    story: PlantedDefect | None = None


def special_lines(lines: Iterable[ReadLine], zone: str, style: Style) -> Iterator[tuple[bytes, ReadLine]]:
    """Lines a row at a time, spoiled where a story says so."""
    for line in lines:
        yield _spoil(line, zone, style), line


def _spoil(line: ReadLine, zone: str, style: Style) -> bytes:
    kind = line.story.kind if line.story else ""
    meter, value, second, stamp_style = line.meter_id, line.value, line.second, style.stamp
    if kind == "unknown_meter":
        meter = meter[0] + "9" + meter[2:]
    if kind == "future_time":
        second += 400 * 86_400
    stamp = stamp_text(second, zone, stamp_style)
    if kind == "bad_missing_zone":
        stamp = stamp.rstrip("Z")
    value = {"bad_nan": "NaN", "bad_huge": "1e999", "bad_text": "OVERLOAD"}.get(kind, value)
    text = f"{meter},{line.channel},{stamp},{value},{line.sequence},{line.version},{line.quality}\n"
    if kind == "bad_truncated_row":
        text = text[: text.index(stamp) + len(stamp) - 4] + "\n"
    if kind == "bad_encoding":
        return text.encode().replace(b",", b",\xff\xfe", 1)
    return text.encode()


def json_pieces(meter: str, channel: str, sequence: int, version: int, quality: str) -> tuple[str, str]:
    """The text before the stamp and after the value of a read as a JSON object; between them stands
    ``","value":``.
    """
    return (
        f'{{"meter":"{meter}","channel":"{channel}","start":"',
        f',"unit":"kWh","seq":{sequence},"ver":{version},"q":"{quality}"}}',
    )


def json_lines(lines: Iterable[ReadLine], zone: str) -> Iterator[bytes]:
    """JSON Lines, an object per read."""
    stamps: dict[int, str] = {}
    for line in lines:
        stamp = stamps.get(line.second)
        if stamp is None:
            stamp = stamps[line.second] = stamp_text(line.second, zone, "utc")
        before, after = json_pieces(line.meter_id, line.channel, line.sequence, line.version, line.quality)
        yield f'{before}{stamp}","value":{line.value}{after}\n'.encode()


def nem12(
    blocks: Iterable[tuple[str, str, Ints, npt.NDArray[np.bool_] | None]], day: date, interval_minutes: int
) -> Iterator[bytes]:
    """A NEM12 file of one fixed-offset day: per channel (meter, suffix, values in Wh, missing). Missing intervals are
    null by 400 records."""
    created = datetime.combine(day + timedelta(days=1), datetime.min.time()) + timedelta(hours=2, minutes=15)
    yield f"100,NEM12,{created:%Y%m%d%H%M},MDP,CFMU\n".encode()
    for meter, suffix, values, missing in blocks:
        yield f"200,{meter},E1B1,{suffix},{suffix},N1,{meter},kWh,{interval_minutes},\n".encode()
        text = ",".join(decimal_texts(values, 3))
        gaps = missing is not None and bool(missing.any())
        quality = "V" if gaps else "A"
        yield f"300,{day:%Y%m%d},{text},{quality},,,{created:%Y%m%d%H%M%S},\n".encode()
        if gaps and missing is not None:
            edges = np.flatnonzero(np.diff(missing.astype(np.int8))) + 1
            for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(missing)], strict=True):
                yield f"400,{start + 1},{stop},{'N' if missing[start] else 'A'},,\n".encode()
    yield b"900\n"


def cmep(blocks: Iterable[tuple[str, list[int], Ints]], day: date, interval_minutes: int) -> Iterator[bytes]:
    """CMEP MEPMD01 records: per meter (id, unix seconds of the interval ends, values in Wh), stamps in UTC."""
    created = datetime.combine(day + timedelta(days=1), datetime.min.time()) + timedelta(hours=8)
    stamps: dict[int, str] = {}
    hours, minutes = divmod(interval_minutes, 60)
    for meter, ends, values in blocks:
        if not ends:
            continue
        triplets = []
        for second, value in zip(ends, decimal_texts(values, 3), strict=True):
            stamp = stamps.get(second)
            if stamp is None:
                stamp = stamps[second] = datetime.fromtimestamp(second, UTC).strftime("%Y%m%d%H%M")
            triplets.append(f"{stamp},R,{value}")
        head = f"MEPMD01,19970819,CFMU,CFMU-{meter},CFMU,,{created:%Y%m%d%H%M},{meter},OK,E,KWH,1.0,0000{hours:02d}{minutes:02d},{len(ends)},"
        yield (head + ",".join(triplets) + "\n").encode()
