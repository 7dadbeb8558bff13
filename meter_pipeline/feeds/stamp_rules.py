"""Stamps that are made of more than one text: date and time apart, a period's number in place of a time, a flag that
says which pass of a repeated hour a row is, two ends of an interval in one text, and the hour that clocks skip.

The texts of a row are joined by ``JOIN`` (a control character, which no field can hold) in the order: the stamp's own
columns, the period, the flag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.times import I64, Instants, StampParser, State

#: between the texts that make one field
JOIN: Final = b"\x1f"
MINUTE_S: Final = 60
#: a period's number, with or without a word before it: 7, 07, HE07, Hour 7, P48; a mark behind it, as grid operators
#: write it (02X, 2*), is the second pass of the repeated hour
_PERIOD: Final = re.compile(rb"[A-Za-z]{0,8}[ .#-]?([0-9]{1,4})(?:\.0{1,3})?([Xx*])?")


@dataclass(frozen=True, slots=True)
class StampParts:
    """Parts of a joined stamp: the number of its own columns, and whether a period and a flag follow."""

    own: int = 1
    period: bool = False
    flag: bool = False


class StampRules(StampParser):
    """Parses joined stamps of one head-end. ``or_iso`` as in StampParser."""

    def __init__(self, head_end: HeadEnd, parts: StampParts, or_iso: bool = False) -> None:
        super().__init__(head_end.zone, head_end.time_format, or_iso)
        self._parts = parts
        self._range = head_end.time_range.encode("utf-8") if head_end.time_range else None
        self._end = head_end.stamp != "start"
        self._ending = head_end.stamp == "ending"
        self._first_period = head_end.periods.first
        order = head_end.periods.order
        if head_end.day_columns is not None:
            day, minutes = head_end.day_columns, head_end.interval_minutes or 0
            self._first_period = 1
            order = day.order or ("clock" if day.count * minutes == 1440 else "elapsed")
        self._elapsed, self._from_stamp = order == "elapsed", order == "from_stamp"
        self._step_s = (head_end.interval_minutes or 0) * MINUTE_S
        self._passes = {word.encode("utf-8"): which for word, which in head_end.dst_map.items()}
        self._earliest: int | None = None
        if head_end.earliest is not None:
            midnight = datetime.combine(head_end.earliest, time(), UTC)
            self._earliest = int(midnight.timestamp()) * 1_000_000
        self._nonexistent = str(head_end.options.get("nonexistent", "refuse"))

    def parse(self, texts: list[bytes]) -> Instants:
        """The instants of joined texts, in their order."""
        parts = self._parts
        split = [text.split(JOIN) for text in texts]
        width = parts.own + parts.period + parts.flag
        whole = [each if len(each) == width else [b""] * width for each in split]
        own = [self._of_range(b" ".join(each[: parts.own])) for each in whole]
        found = super().parse(own)
        if parts.period:
            found = self._with_periods(found, [each[parts.own] for each in whole])
        elif self._ending:
            self._start_of_ending(found)
        if parts.flag:
            self._settle(found, [each[-1] for each in whole])
        self._skipped_hour(found)
        if self._earliest is not None:
            stray = (found.first < self._earliest) & np.isin(found.state, (State.OK, State.AMBIGUOUS))
            found.state[stray] = State.IMPLAUSIBLE
        return found

    def _of_range(self, text: bytes) -> bytes:
        """The end of an interval that the head-end's stamps name, where one text gives both."""
        if self._range is None:
            return text
        start, mark, end = text.partition(self._range)
        if not mark:
            return b""
        return end.strip() if self._end else start.strip()

    def _with_periods(self, dates: Instants, texts: list[bytes]) -> Instants:
        """The start (or, for end stamps, the end) of the numbered period of each date's civil day, or counted from each
        stamp. A number beyond the day is NONEXISTENT."""
        matches = [_PERIOD.fullmatch(text) for text in texts]
        number = np.array([int(match[1]) if match else -1 for match in matches], np.int64) - self._first_period
        if self._from_stamp:
            behind = number * self._step_s * 1_000_000
            state = np.where(number >= 0, dates.state, np.uint8(State.BAD))
            return Instants(dates.first + behind, dates.second + behind, state, dates.local)
        midnight = dates.local
        good = (
            (dates.state != State.BAD) & (dates.state != State.MISSING_ZONE) & (midnight % 86_400 == 0) & (number >= 0)
        )
        if self.rules is None:
            return dates
        behind = number * self._step_s
        if self._elapsed:
            start, _, _ = self.rules.to_utc(midnight)
            end, _, _ = self.rules.to_utc(midnight + 86_400)
            first = second = start + behind
            state = np.where(first < end, np.uint8(State.OK), np.uint8(State.NONEXISTENT))
            length = np.full(number.size, self._step_s)
        else:
            # Beyond 24 hours of clock time stand the second passes of the repeated hour, where the day has one.
            local = midnight + np.minimum(behind, 86_399)
            first, second, state = self.rules.to_utc(local)
            state = np.where(behind < 86_400, state, np.uint8(State.NONEXISTENT))
            self._second_passes(midnight, behind, first, second, state)
            marked = np.array([match is not None and match[2] is not None for match in matches], bool)
            good &= ~marked | (state == State.AMBIGUOUS)
            first = np.where(marked, second, first)
            state = np.where(marked, np.uint8(State.OK), state)
            length = np.full(number.size, self._step_s)
        if self._elapsed:
            good &= np.array([match is None or match[2] is None for match in matches], bool)
        if self._end and not self._ending:
            first, second = first + length, second + length
        state = np.where(good, state, np.uint8(State.BAD))
        return Instants(first * 1_000_000, second * 1_000_000, state, midnight)

    def _start_of_ending(self, found: Instants) -> None:
        """The starts of intervals whose local end is written: the label less the length, on the local clock."""
        labelled = ~np.isin(found.state, (State.BAD, State.MISSING_ZONE))
        found.first -= self._step_s * 1_000_000
        found.second -= self._step_s * 1_000_000
        if self.rules is None:
            return
        local = labelled & (found.local != 0)
        first, second, state = self.rules.to_utc(found.local[local] - self._step_s)
        found.first[local], found.second[local], found.state[local] = first * 1_000_000, second * 1_000_000, state

    def _second_passes(self, midnight: I64, behind: I64, first: I64, second: I64, state: npt.NDArray[np.uint8]) -> None:
        """Clock columns beyond the 24th hour, in place: the k-th of them is the k-th interval of the repeated hour."""
        assert self.rules is not None  # noqa: S101 - the caller has asked
        beyond = np.flatnonzero(behind >= 86_400)
        for at in beyond.tolist():
            inside = np.flatnonzero((self.rules.begin >= midnight[at]) & (self.rules.begin < midnight[at] + 86_400))
            for index in inside.tolist():
                repeated = self.rules.offsets[index] > self.rules.offsets[index + 1]
                local = int(self.rules.begin[index]) + int(behind[at]) - 86_400
                if repeated and local < int(self.rules.end[index]):
                    instant = local - int(self.rules.offsets[index + 1])
                    first[at] = second[at] = instant
                    state[at] = State.OK

    def _settle(self, found: Instants, flags: list[bytes]) -> None:
        """Repeated local times by the row's flag; a word that no ``dst_map`` has makes such a stamp bad."""
        for at in np.flatnonzero(found.state == State.AMBIGUOUS).tolist():
            which = self._passes.get(flags[at])
            if which == "second":
                found.first[at] = found.second[at]
            found.state[at] = State.OK if which is not None else State.BAD

    def _skipped_hour(self, found: Instants) -> None:
        """Stamps of the hour that clocks skip, as the head-end declares: forward reads them by the clock before the
        change, back by the clock after it."""
        if self._nonexistent not in ("forward", "back"):
            return
        skipped = found.state == State.NONEXISTENT
        if self._parts.period and self._elapsed:
            return
        if self._nonexistent == "back":
            found.first[skipped] = found.second[skipped]
        found.state[skipped] = State.OK
