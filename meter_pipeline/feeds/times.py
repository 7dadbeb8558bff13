"""Stamps: text of a file to UTC instants, strictly, each distinct text once.

Texts are grouped by shape (every digit as 0), each shape is understood once by a regular expression made from the
declared format, and the digits of all texts of a shape are read together as a byte matrix. Digits of other scripts,
blanks and signs therefore never match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

_MONTHS: Final = (
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
)
_TO_SHAPE: Final = bytes.maketrans(b"123456789", b"000000000")
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
#: ISO 8601 and forms that databases write: a blank for the T, up to nine digits of a second, a blank before the offset
_ISO: Final = re.compile(
    rb"(?:(?P<Y>0000)-(?P<m>00)-(?P<d>00)(?:[T ](?P<H>00):(?P<M>00)(?::(?P<S>00)(?:[.,](?P<f>0{1,9}))?)?"
    rb"(?: ?(?P<z>Z|UTC|GMT|[+-]00(?::?00)?))?)?)"
)
_ISO_BASIC: Final = re.compile(
    rb"(?P<Y>0000)(?P<m>00)(?P<d>00)T(?P<H>00)(?P<M>00)(?:(?P<S>00)(?:[.,](?P<f>0{1,9}))?)?(?P<z>Z|[+-]00(?::?00)?)?"
)
_FIXED: Final = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
#: time_format -> seconds of one unit, as a power of ten; a fraction may follow the point
EPOCHS: Final = {"epoch": 0, "epoch_ms": -3, "epoch_us": -6, "epoch_ns": -9}
#: time_format of a spreadsheet's serial days: local days since 1899-12-30, to the nearest second
EXCEL: Final = "excel"
_EXCEL_EPOCH_S: Final = -25_569 * 86_400
_LAST_S: Final = 7_258_118_400
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}(?:\.[0-9]{0,20})?")


class State(IntEnum):
    """Result of parsing a time stamp."""

    OK = 0
    BAD = 1
    MISSING_ZONE = 2
    NONEXISTENT = 3
    AMBIGUOUS = 4
    IMPLAUSIBLE = 5


@dataclass(slots=True)
class Instants:
    """UTC microseconds of each text, the later alternative where a local time comes twice (else the same), the State of
    each, and its seconds on the local clock where the text carries no offset (else 0)."""

    first: I64
    second: I64
    state: npt.NDArray[np.uint8]
    local: I64


class ZoneRules:
    """Offsets of a zone between 1970 and 2200, as arrays. ``zone`` is an IANA name or a fixed offset such as
    ``+10:00``; ValueError else."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        fixed = _FIXED.fullmatch(zone)
        if fixed:
            seconds = int(fixed[2]) * 3600 + int(fixed[3]) * 60
            self.offsets: I64 = np.array([-seconds if fixed[1] == "-" else seconds], np.int64)
            self.transitions: I64 = np.zeros(0, np.int64)
        else:
            self.transitions, self.offsets = _transitions(zone)
        before, after = self.offsets[:-1], self.offsets[1:]
        #: local times of transition i that need care are [begin, end): skipped when the offset grows, repeated when it
        # shrinks
        self.begin: I64 = self.transitions + np.minimum(before, after)
        self.end: I64 = self.transitions + np.maximum(before, after)

    def to_utc(self, local_s: I64) -> tuple[I64, I64, npt.NDArray[np.uint8]]:
        """UTC seconds of local seconds: first reading, second reading, State."""
        index = np.searchsorted(self.end, local_s, side="right")
        first = local_s - self.offsets[index]
        second = first.copy()
        state = np.zeros(local_s.shape, np.uint8)
        if self.transitions.size:
            inside = (index < self.transitions.size) & (
                local_s >= self.begin[np.minimum(index, self.transitions.size - 1)]
            )
            if inside.any():
                at = index[inside]
                grows = self.offsets[at + 1] > self.offsets[at]
                state[inside] = np.where(grows, State.NONEXISTENT, State.AMBIGUOUS)
                second[inside] = local_s[inside] - self.offsets[at + 1]
        return first, second, state


@lru_cache(maxsize=64)
def _transitions(zone: str) -> tuple[I64, I64]:
    """Every change of offset of a zone: found by sampling half-days, then halving; a zone file's own footer rule is
    thereby honoured too."""
    try:
        info = ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {zone!r}") from error

    def offset(second: int) -> int:
        delta = datetime.fromtimestamp(second, UTC).astimezone(info).utcoffset() or timedelta(0)
        return int(delta.total_seconds())

    step = 4 * 86400
    start = int(datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()) - 2 * 86400
    stop = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
    transitions: list[int] = []
    offsets = [offset(start)]
    low = start
    for high in range(start + step, stop, step):
        if offset(high) != offsets[-1]:
            left, right = low, high
            while right - left > 1:
                middle = (left + right) // 2
                left, right = (middle, right) if offset(middle) == offsets[-1] else (left, middle)
            transitions.append(right)
            offsets.append(offset(high))
        low = high
    return np.array(transitions, np.int64), np.array(offsets, np.int64)


@lru_cache(maxsize=64)
def zone_rules(zone: str) -> ZoneRules:
    """The rules of a zone, made once."""
    return ZoneRules(zone)


#: Names of zones that exports write behind a stamp, as hours from UTC: those of North America, Europe and Australia
#: that mean one offset (IST and CST of China do not stand for themselves).
_ZONE_NAMES: Final[dict[bytes, float]] = {
    b"UTC": 0, b"GMT": 0, b"Z": 0,
    b"AST": -4, b"ADT": -3, b"EST": -5, b"EDT": -4, b"CST": -6, b"CDT": -5, b"MST": -7, b"MDT": -6, b"PST": -8, b"PDT": -7,
    b"AKST": -9, b"AKDT": -8, b"HST": -10, b"NST": -3.5, b"NDT": -2.5,
    b"WET": 0, b"WEST": 1, b"BST": 1, b"CET": 1, b"CEST": 2, b"MEZ": 1, b"MESZ": 2, b"EET": 2, b"EEST": 3,
    b"AEST": 10, b"AEDT": 11, b"ACST": 9.5, b"ACDT": 10.5, b"AWST": 8, b"NZST": 12, b"NZDT": 13,
}  # fmt: skip

_DIRECTIVES: Final = {
    "Y": rb"(?P<Y>0000)",
    "y": rb"(?P<y>00)",
    "j": rb"(?P<j>000)",
    "M": rb"(?P<M>00)",
    "S": rb"(?P<S>00)",
    "f": rb"(?P<f>0{1,9})",
    "z": rb"(?P<z>Z|[+-]00:?00)",
    "Z": b"(?P<Z>" + b"|".join(sorted(_ZONE_NAMES, reverse=True)) + b")",
    "b": rb"(?P<b>[A-Za-z]{3})",
    "B": rb"(?P<b>[A-Za-z]{3,9})",
    "a": rb"[A-Za-z]{2,3}",
    "A": rb"[A-Za-z]{6,9}",
    "p": rb"(?P<p>[AaPp]\.?[Mm]\.?)",
    "%": rb"%",
}


@dataclass(frozen=True, slots=True)
class _Format:
    """A strptime format as a regular expression over shapes, and the digits that must stand where it has
    literal ones.
    """

    pattern: re.Pattern[bytes]
    literals: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, time_format: str) -> _Format:
        """Month, day and hour may have one digit where no digit follows directly. ValueError for an unknown
        directive.
        """
        pieces: list[bytes] = []
        literals: list[tuple[str, int]] = []
        i = 0
        while i < len(time_format):
            letter = time_format[i]
            if letter != "%":
                if letter.isascii() and letter.isdigit():  # a shape has 0 for every digit: the digit itself is compared
                    literals.append((f"L{len(literals)}", ord(letter)))
                    pieces.append(f"(?P<{literals[-1][0]}>0)".encode())
                else:
                    pieces.append(re.escape(letter.encode()))
                i += 1
                continue
            directive = time_format[i + 1 : i + 2]
            i += 2
            if directive in ("m", "d", "H", "I"):
                alone = time_format[i : i + 1] not in ("%",) and not time_format[i : i + 1].isdigit()
                pieces.append(f"(?P<{directive}>0{{1,2}})".encode() if alone else f"(?P<{directive}>00)".encode())
            elif directive == "T":
                pieces.append(rb"(?P<H>0{1,2}):(?P<M>00):(?P<S>00)")
            elif directive in _DIRECTIVES:
                pieces.append(_DIRECTIVES[directive])
            else:
                raise ValueError(
                    f"time_format: %{directive} is not supported (Y y m d j b B a A H I M S f p z Z T are)"
                )
        try:
            return cls(re.compile(b"".join(pieces)), tuple(literals))
        except re.error as error:
            raise ValueError(f"time_format: {error}") from error


class StampParser:
    """Parses the stamps of one head-end.

    ``time_format`` is None for ISO 8601 (a date alone is its midnight), a name of EPOCHS for Unix time, ``excel`` for
    serial days, or a strptime format. ``zone`` is None where every stamp must carry an offset. ``or_iso``: a stamp that
    does not fit the format may be ISO 8601 (a spreadsheet's own dates). 24:00 is the midnight that ends its date. Years
    1970 to 2199; digits of a second beyond the sixth are cut.
    """

    def __init__(self, zone: str | None, time_format: str | None = None, or_iso: bool = False) -> None:
        self.rules = zone_rules(zone) if zone else None
        self.time_format = time_format
        iso = [_Format(_ISO), _Format(_ISO_BASIC)]
        self._formats: list[_Format] = []
        if time_format is None:
            self._formats = iso
        elif time_format not in EPOCHS and time_format != EXCEL:
            self._formats = [_Format.of(time_format), *(iso if or_iso else [])]
        elif or_iso:
            self._formats = iso

    def parse(self, texts: list[bytes]) -> Instants:
        """The instants of texts, in their order."""
        size = len(texts)
        zeros = [np.zeros(size, np.int64) for _ in range(3)]
        result = Instants(zeros[0], zeros[1], np.full(size, State.BAD, np.uint8), zeros[2])
        shapes: dict[bytes, list[int]] = {}
        if any(not text.isascii() for text in texts):
            # Browsers write 12:00 AM with U+202F since 2023, spreadsheets U+00A0.
            texts = [text.replace(b"\xe2\x80\xaf", b" ").replace(b"\xc2\xa0", b" ") for text in texts]
        for i, text in enumerate(texts):
            shapes.setdefault(text.translate(_TO_SHAPE), []).append(i)
        for shape, members in shapes.items():
            index = np.array(members, np.int64)
            if (self.time_format in EPOCHS or self.time_format == EXCEL) and _DECIMAL.fullmatch(shape):
                self._decimal([texts[i] for i in members], index, result)
                continue
            for each in self._formats:
                match = each.pattern.fullmatch(shape)
                if match:
                    digits = np.frombuffer(b"".join([texts[i] for i in members]), np.uint8)
                    self._read(match, each.literals, digits.reshape(len(members), len(shape)), index, result)
                    break
        return result

    def _decimal(self, texts: list[bytes], index: I64, result: Instants) -> None:
        """Unix time or serial days with or without a fraction; each distinct text once."""
        numbers = [Decimal(text.decode("ascii")) for text in texts]
        if self.time_format == EXCEL:
            seconds = [int((number * 86_400).to_integral_value()) + _EXCEL_EPOCH_S for number in numbers]
            local = np.array([at if 0 <= at < _LAST_S else -1 for at in seconds], np.int64)
            self._place(local, np.zeros(local.size, np.int64), local >= 0, index, result)
            return
        power = 6 + EPOCHS[str(self.time_format)]
        micros = [int(number.scaleb(power)) for number in numbers]
        fit = np.array([at if 0 <= at < _LAST_S * 1_000_000 else -1 for at in micros], np.int64)
        result.first[index] = result.second[index] = fit
        result.state[index[fit >= 0]] = State.OK

    def _place(self, local: I64, fraction: I64, good: npt.NDArray[np.bool_], index: I64, result: Instants) -> None:
        """Local seconds as instants, by the head-end's zone."""
        if self.rules is None:
            first = second = local
            state = np.full(index.size, State.MISSING_ZONE, np.uint8)
        else:
            first, second, state = self.rules.to_utc(local)
        result.first[index] = first * 1_000_000 + fraction
        result.second[index] = second * 1_000_000 + fraction
        result.state[index] = np.where(good, state, np.uint8(State.BAD))
        result.local[index] = local

    def _read(
        self,
        match: re.Match[bytes],
        literals: tuple[tuple[str, int], ...],
        digits: npt.NDArray[np.uint8],
        index: I64,
        result: Instants,
    ) -> None:
        groups = match.groupdict()

        def number(name: str, default: int = 0) -> I64:
            if groups.get(name) is None:
                return np.full(index.size, default, np.int64)
            begin, end = match.span(name)
            value = np.zeros(index.size, np.int64)
            for column in range(begin, end):
                value = value * 10 + (digits[:, column].astype(np.int64) - 48)
            return value

        year = number("Y") if groups.get("Y") else number("y") + 2000
        month = np.full(index.size, _month(groups["b"]), np.int64) if groups.get("b") is not None else number("m", 1)
        day, minute, second = number("d", 1), number("M"), number("S")
        if groups.get("I") is not None:
            twelve = number("I")
            hour = twelve % 12 + (12 if (groups.get("p") or b"")[:1].upper() == b"P" else 0)
            good = (twelve >= 1) & (twelve <= 12)
        else:
            hour = number("H")
            good = (hour < 24) | ((hour == 24) & (minute == 0) & (second == 0))
        fraction = np.zeros(index.size, np.int64)
        if groups.get("f") is not None:
            begin, end = match.span("f")
            places = end - begin
            fraction = number("f") * 10 ** (6 - places) if places <= 6 else number("f") // 10 ** (places - 6)
            good &= (hour < 24) | (fraction == 0)
        good &= (
            (year >= _FIRST_YEAR) & (year <= _LAST_YEAR) & (month >= 1) & (month <= 12) & (minute < 60) & (second < 60)
        )
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        lengths = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
        last = lengths[np.clip(month, 0, 12)] + (leap & (month == 2))
        good &= (day >= 1) & (day <= last)
        for name, digit in literals:
            good &= digits[:, match.start(name)] == digit
        date = _days(year, month, day)
        if groups.get("j") is not None:
            of_year = number("j")
            good &= (of_year >= 1) & (of_year <= 365 + leap)
            date = date + of_year - 1
        local = date * 86400 + hour * 3600 + minute * 60 + second
        zone, named = groups.get("z"), groups.get("Z")
        if zone is None and named is None:
            self._place(local, fraction, good, index, result)
            return
        offset = np.full(index.size, int(_ZONE_NAMES[named] * 3600) if named is not None else 0, np.int64)
        if zone is not None and zone not in (b"Z", b"UTC", b"GMT"):
            begin, end = match.span("z")
            columns = [at for at in range(begin + 1, end) if zone[at - begin : at - begin + 1] == b"0"]
            value = [digits[:, at].astype(np.int64) - 48 for at in columns]
            hours = value[0] * 10 + value[1]
            minutes = value[2] * 10 + value[3] if len(value) == 4 else np.zeros(index.size, np.int64)
            good &= (hours <= 23) & (minutes <= 59)
            offset = (hours * 3600 + minutes * 60) * (-1 if zone[:1] == b"-" else 1)
        result.first[index] = result.second[index] = (local - offset) * 1_000_000 + fraction
        result.state[index] = np.where(good, np.uint8(State.OK), np.uint8(State.BAD))


def _month(name: bytes) -> int:
    """1 to 12 of an English month's name, whole or its first three letters; 0 for another word."""
    word = name.decode("ascii").upper()
    for number, whole in enumerate(_MONTHS, 1):
        if word in (whole, whole[:3]):
            return number
    return 0


def _days(year: I64, month: I64, day: I64) -> I64:
    """Days since 1970-01-01 of proleptic Gregorian dates (months counted from March, so that the leap day comes
    last).
    """
    shifted = np.where(month <= 2, year - 1, year)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return np.asarray(era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468, np.int64)
