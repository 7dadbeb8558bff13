"""The distinct texts of a column, each parsed one time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds.head_ends import QUALITY_WORD, IdRules
from meter_pipeline.feeds.rejects import Reason, shown
from meter_pipeline.feeds.times import StampParser, State
from meter_pipeline.ids import canonical_id
from meter_pipeline.quality import pack
from meter_pipeline.units import MAX_MICRO, MICRO, UnitError, base_unit, parse_reading, round_micro

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_SCALED_UNIT: Final = re.compile(r"10\^(-?[0-9]{1,2}) (\S+)", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(?:nan|inf|infinity|[0-9.]{1,40}e\+?[0-9]{3,})", re.ASCII | re.IGNORECASE)

Meaning = TypeVar("Meaning", bound=np.generic)


class GrowingArray(Generic[Meaning]):
    """An array that grows by doubling."""

    def __init__(self, dtype: type[Meaning]) -> None:
        self._store: npt.NDArray[Meaning] = np.zeros(64, dtype)
        self._size = 0

    def extend(self, values: npt.NDArray[Any]) -> None:
        need = self._size + values.size
        if need > self._store.size:
            larger = np.zeros(max(need, 2 * self._store.size), self._store.dtype)
            larger[: self._size] = self._store[: self._size]
            self._store = larger
        self._store[self._size : need] = values
        self._size = need

    @property
    def array(self) -> npt.NDArray[Meaning]:
        return self._store[: self._size]


class CodedColumn:
    """Texts numbered in order of appearance. A subclass parses new texts; ``bad`` is True for an invalid text."""

    def __init__(self) -> None:
        self._codes: dict[bytes, int] = {}
        self.texts: list[bytes] = []
        self._bad: GrowingArray[np.bool_] = GrowingArray(np.bool_)

    @property
    def bad(self) -> npt.NDArray[np.bool_]:
        return self._bad.array

    def code(self, text: bytes) -> int:
        """The number of one text."""
        found = self._codes.get(text)
        return found if found is not None else int(self.codes([text])[0])

    def codes(self, texts: list[bytes]) -> npt.NDArray[np.int32]:
        """Returns the numbers of texts; new ones are parsed together."""
        known = self._codes
        fresh: list[bytes] = []
        numbers = np.empty(len(texts), np.int32)
        for i, text in enumerate(texts):
            number = known.get(text)
            if number is None:
                number = len(known)
                known[text] = number
                fresh.append(text)
            numbers[i] = number
        if fresh:
            self.texts.extend(fresh)
            self._bad.extend(self.judge(fresh))
        return numbers

    def judge(self, fresh: list[bytes]) -> npt.NDArray[np.bool_]:
        """Store the meaning of new texts; True for texts without one."""
        raise AttributeError("a coded column of no kind")

    def reason(self, code: int) -> Reason | None:
        """Why a text is bad, or None."""
        raise AttributeError("a coded column of no kind")


#: Identifiers that are spelt as they are stored, one a line: nothing is left to judge. Of 36 letters it may be a UUID.
_CANONICAL: Final = re.compile(rb"[A-Z0-9-]{1,35}(?:\n[A-Z0-9-]{1,35})*")


class Ids(CodedColumn):
    """Identifiers in their canonical spelling, cleaned as the head-end declares. ``words`` maps the head-end's names
    to ours; where it has entries, a name outside it is invalid. Parts of an identifier in several columns are joined
    by dashes."""

    def __init__(self, field: str, rules: IdRules | None = None, words: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.field = field
        self.values: list[str] = []
        self._rules = rules if rules != IdRules() else None
        self._words = words

    def judge(self, fresh: list[bytes]) -> npt.NDArray[np.bool_]:
        joined = b"\n".join(fresh)
        if self._rules is None and not self._words and _CANONICAL.fullmatch(joined):
            self.values.extend(joined.decode("ascii").split("\n"))
            return np.zeros(len(fresh), np.bool_)
        found = [self._canonical(text.decode("utf-8", "replace")) for text in fresh]
        self.values.extend(value or "" for value in found)
        return np.array([value is None for value in found], np.bool_)

    def _canonical(self, text: str) -> str | None:
        text = text.replace("\x1f", "-")
        if self._words:
            text = self._words.get(text, "\x1f")  # which no identifier has
        return canonical_id(text if self._rules is None else cleaned_id(text, self._rules))

    def reason(self, code: int) -> Reason | None:
        if not self.bad[code]:
            return None
        text = self.texts[code]
        return Reason("bad_id", f"{self.field} {shown(text)}") if text else Reason("missing_field", self.field)


def cleaned_id(text: str, rules: IdRules) -> str:
    """A meter's name without the prefix and suffix that the head-end is declared to add."""
    for old, new in rules.replace.items():
        text = text.replace(old, new)
    text = text.translate({ord(letter): None for letter in rules.remove}).removeprefix(rules.prefix)
    return text.lstrip("0") or text[:1] if rules.strip_zeros else text


class Stamps(CodedColumn):
    """Instants. An ambiguous local time is not invalid here: the order of the file may resolve it."""

    _CODES: Final = {
        State.BAD: "bad_time",
        State.MISSING_ZONE: "missing_zone",
        State.NONEXISTENT: "nonexistent_time",
        State.IMPLAUSIBLE: "implausible_time",
    }

    def __init__(self, field: str, parser: StampParser) -> None:
        super().__init__()
        self.field = field
        self.parser = parser
        self._first: GrowingArray[np.int64] = GrowingArray(np.int64)
        self._second: GrowingArray[np.int64] = GrowingArray(np.int64)
        self._state: GrowingArray[np.uint8] = GrowingArray(np.uint8)

    @property
    def first(self) -> npt.NDArray[np.int64]:
        return self._first.array

    @property
    def second(self) -> npt.NDArray[np.int64]:
        return self._second.array

    @property
    def state(self) -> npt.NDArray[np.uint8]:
        return self._state.array

    def judge(self, fresh: list[bytes]) -> npt.NDArray[np.bool_]:
        found = self.parser.parse(fresh)
        self._first.extend(found.first)
        self._second.extend(found.second)
        self._state.extend(found.state)
        return np.asarray((found.state != State.OK) & (found.state != State.AMBIGUOUS))

    def reason(self, code: int) -> Reason | None:
        if not self.bad[code]:
            return None
        text = self.texts[code].replace(b"\x1f", b" ")
        if not text:
            return Reason("missing_field", self.field)
        return Reason(self._CODES[State(int(self.state[code]))], f"{self.field} {shown(text)}")


#: between a unit and the factor of a row, and between a power and the minutes it is the average of; the sign before
#: them is a control character, so that no unit column can forge one
TIMES: Final = b"\x1fx "
OVER: Final = b"\x1fover "
_TIMES: Final = re.compile(r"(.*?)\x1fx ([^\x1f]*)(\x1fover .*)?")
_OVER: Final = re.compile(r"(.*?)\x1fover ([0-9]{1,4})")
_ENERGY: Final = {"kW": "kWh", "kVAr": "kVArh", "kVA": "kVAh"}


def unit_factor(spelling: str) -> tuple[str, Fraction]:
    """Returns base unit and exact factor of a spelling, also of one scaled by a power of ten as in Green Button
    (``10^-3 therm``), by a row's own factor, or of power averaged over minutes (which is energy)."""
    over = _OVER.fullmatch(spelling)
    if over is not None:
        base, factor = unit_factor(over[1])
        if base not in _ENERGY or not 1 <= int(over[2]) <= 1440:
            raise UnitError(f"{shown(over[1])} over {over[2]} minutes is no energy")
        return _ENERGY[base], factor * Fraction(int(over[2]), 60)
    times = _TIMES.fullmatch(spelling)
    if times is not None:
        base, factor = unit_factor(times[1])
        own = parse_reading(times[2])
        if not 0 < own <= 10**6 or own.denominator > 10**9:
            raise UnitError(f"factor {shown(times[2])}")
        return base, factor * own
    scaled = _SCALED_UNIT.fullmatch(spelling)
    if scaled is None:
        return base_unit(spelling)
    base, factor = base_unit(scaled[2])
    return base, factor * Fraction(10) ** int(scaled[1])


def shown_unit(spelling: str) -> str:
    """A spelling for people: the unit's own word, with a row's factor, without the minutes of an average."""
    return spelling.partition("\x1fover ")[0].replace("\x1f", " ")


class Rounded:
    """The effect of rounding on some values: ``numerator`` / ``below`` is the stored value less the file's own, in
    micro base units."""

    __slots__ = ("below", "numerator")

    def __init__(self, numerator: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> None:
        self.numerator, self.below = numerator, below


_INT64: Final = 2**62


def _limit(ratio: Fraction, most: int) -> int:
    """Returns the largest mantissa whose micro base units are in range and whose product fits 64 bits; 0 where it is
    unknown."""
    if ratio.denominator > _INT64 or ratio.numerator > _INT64:
        return 0
    return min(most * ratio.denominator // ratio.numerator, 10**18, _INT64 // ratio.numerator)


class Units(CodedColumn):
    """Units, with the exact conversion from (mantissa, decimals) to micro base units for each. ``rounding``: the
    head-end's declaration for digits beyond a millionth (None: they are refused); ``words`` maps its units to ours;
    ``most``: the largest value allowed, in micro base units."""

    #: decimals a plain number may have
    PLACES: Final = 19

    def __init__(
        self, rounding: str | None = None, words: Mapping[str, str] | None = None, most: int = MAX_MICRO
    ) -> None:
        super().__init__()
        self.rounding = rounding
        self._most = most
        self.base: list[str] = []
        self.factor: list[Fraction] = []
        self.spelling: list[str] = []
        #: difference made by the last rounding of ``exact``, in micro base units
        self.rounded = Fraction(0)
        self._words = words
        self._multiply: list[list[int]] = []
        self._divide: list[list[int]] = []
        self._limit: list[list[int]] = []

    def judge(self, fresh: list[bytes]) -> npt.NDArray[np.bool_]:
        bad: list[bool] = []
        for text in fresh:
            spelling = text.decode("utf-8", "replace")
            if self._words:
                word, mark, rest = spelling.partition("\x1f")
                spelling = self._words.get(word, word) + mark + rest
            try:
                base, factor = unit_factor(spelling)
                bad.append(False)
            except UnitError:
                base, factor = "", Fraction(1)
                bad.append(True)
            self.base.append(base)
            self.factor.append(factor)
            self.spelling.append(spelling)
            ratios = [factor * MICRO / Fraction(10) ** places for places in range(self.PLACES)]
            self._multiply.append([ratio.numerator for ratio in ratios])
            self._divide.append([min(ratio.denominator, _INT64) for ratio in ratios])
            self._limit.append([_limit(ratio, self._most) for ratio in ratios])
        return np.array(bad, np.bool_)

    def micro(
        self, unit: npt.NDArray[np.int32] | int, mantissa: npt.NDArray[np.int64], decimals: npt.NDArray[np.int8]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Rounded | None]:
        """Returns micro base units, where they are exact (or rounded as declared) and in range, and the effect of
        rounding."""
        # numpy's take costs a fifth of an index by two arrays: 0.4 s of a day of 10 million reads.
        places = np.maximum(decimals, 0).astype(np.intp)
        tables = [np.array(table, np.int64) for table in (self._multiply, self._divide, self._limit)]
        if isinstance(unit, int):
            multiply, divide, limit = (table[unit] for table in tables)
            where = places
        else:
            multiply, divide, limit = (table.ravel() for table in tables)
            where = unit * np.intp(self.PLACES) + places
        good = decimals >= 0
        least = int(limit.min())
        in_range = mantissa.size and -least <= int(mantissa.min()) and int(mantissa.max()) <= least
        if not in_range:
            good &= np.abs(mantissa) <= limit.take(where)
        safe = mantissa if good.all() else np.where(good, mantissa, 0)
        value = safe * multiply.take(where)
        below = divide.take(where)
        if (below == 1).all():
            return value, good, None
        quotient = value // below
        rest = value - quotient * below
        if self.rounding is None:
            return quotient, good & (rest == 0), None
        if not rest.any():
            return quotient, good, None
        twice = rest * 2
        halves = (quotient & 1).astype(np.bool_) if self.rounding == "half_even" else quotient >= 0
        up = (twice > below) | ((twice == below) & halves)
        return quotient + up, good, Rounded(np.where(up, below - rest, -rest), below)

    def exact(self, unit: int, text: str) -> int | Reason:
        """Returns micro base units of one number, by exact fractions; ``rounded`` has the effect of rounding."""
        self.rounded = Fraction(0)
        if not text:
            return Reason("missing_value", "the reading is empty")
        try:
            number = parse_reading(text)
        except UnitError:
            return Reason("not_finite" if _NOT_FINITE.fullmatch(text) else "bad_number", shown(text))
        exact = number * self.factor[unit] * MICRO
        if abs(exact) > self._most:
            return Reason("out_of_range", f"{shown(text)} {shown_unit(self.spelling[unit])}")
        try:
            value = round_micro(exact, self.rounding)
        except UnitError:
            detail = f"{shown(text)} {shown_unit(self.spelling[unit])}: declare rounding"
            return Reason("too_fine", detail)
        self.rounded = value - exact
        return value

    def reason(self, code: int) -> Reason | None:
        return Reason("bad_unit", shown(self.texts[code].replace(b"\x1f", b" "))) if self.bad[code] else None


class Qualities(CodedColumn):
    """Quality words as packed codes. ``mapping`` maps the head-end's words to ours (``*``: every other word); without
    one, AEMO flags and methods are read directly.

    Ours: a flag letter A, S, F, E or N, an AEMO method of two digits, and after a colon an AEMO reason: ``A``, ``S14``,
    ``F14:76``.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        super().__init__()
        self._mapping = dict(mapping)
        self._values: GrowingArray[np.uint16] = GrowingArray(np.uint16)

    @property
    def values(self) -> npt.NDArray[np.uint16]:
        return self._values.array

    def judge(self, fresh: list[bytes]) -> npt.NDArray[np.bool_]:
        found = [self._pack(text.decode("utf-8", "replace")) for text in fresh]
        self._values.extend(np.array([code or 0 for code in found], np.uint16))
        return np.array([code is None for code in found], np.bool_)

    def _pack(self, word: str) -> int | None:
        if self._mapping:
            ours = self._mapping.get(word, self._mapping.get("*"))
            if ours is None:
                return None
            word = ours
        return quality_code(word)

    def reason(self, code: int) -> Reason | None:
        return Reason("bad_quality", shown(self.texts[code])) if self.bad[code] else None


def quality_code(word: str) -> int | None:
    """Returns the packed code of one of our words (``A``, ``S14``, ``F14:76``; empty is actual), or None."""
    if not word:
        return pack("A")
    match = QUALITY_WORD.fullmatch(word)
    if match is None:
        return None
    try:
        return pack(match[1], int(match[2]) if match[2] else None, int(match[3]) if match[3] else None)
    except ValueError:
        return None


class Integers(CodedColumn):
    """Whole numbers within bounds; an empty text is ``empty``."""

    def __init__(self, field: str, low: int, high: int, code: str = "bad_integer", empty: int | None = 0) -> None:
        super().__init__()
        self.field, self._low, self._high, self._code, self._empty = field, low, high, code, empty
        self._values: GrowingArray[np.int64] = GrowingArray(np.int64)

    @property
    def values(self) -> npt.NDArray[np.int64]:
        return self._values.array

    def judge(self, fresh: list[bytes]) -> npt.NDArray[np.bool_]:
        found: list[int | None] = []
        for text in fresh:
            word = text.decode("utf-8", "replace")
            value = self._empty if not word else (int(word) if _INTEGER.fullmatch(word) else None)
            found.append(value if value is not None and self._low <= value <= self._high else None)
        self._values.extend(np.array([value or 0 for value in found], np.int64))
        return np.array([value is None for value in found], np.bool_)

    def reason(self, code: int) -> Reason | None:
        return Reason(self._code, f"{self.field} {shown(self.texts[code])}") if self.bad[code] else None
