"""The billing calendar: civil days in the utility's zone, as UTC instants.

A billing day runs from local midnight to the next and lasts 23, 24 or 25 hours (23.5 or 24.5 on Lord Howe Island). All
arithmetic is done on UTC instants: subtracting two local times of one zone in Python ignores the offset change between
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SECOND_US = 1_000_000


@lru_cache(maxsize=4096)
def _midnight_utc_s(zone: str, ordinal: int) -> int:
    local = datetime.combine(date.fromordinal(ordinal), time(0), tzinfo=ZoneInfo(zone))
    return int(local.timestamp())


class BillingCalendar:
    """Billing days of one utility.

    ``zone`` is an IANA name; a fixed offset such as AEST is given as ``Etc/GMT-10``. Raises ValueError for an unknown
    zone.
    """

    def __init__(self, zone: str) -> None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"unknown time zone {zone!r}") from error
        self.zone = zone

    def start_s(self, day: date) -> int:
        """Unix seconds at which the billing day begins."""
        return _midnight_utc_s(self.zone, day.toordinal())

    def bounds(self, day: date) -> tuple[datetime, datetime]:
        """The half-open UTC range [start, end) of a billing day."""
        start, end = self.start_s(day), self.start_s(day + timedelta(days=1))
        return datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)

    def seconds(self, day: date) -> int:
        """Length of the billing day: 82,800, 86,400 or 90,000 in most zones."""
        return self.start_s(day + timedelta(days=1)) - self.start_s(day)

    def slots(self, day: date, interval_minutes: int) -> int:
        """Number of intervals that start in the day: 96 quarter-hours, 92 or 100 when clocks change.

        Rounded up where the day is not a whole number of intervals (hourly on Lord Howe's 23.5 h day: 24). A channel of
        whole days has one, also on the day of 25 hours.
        """
        if interval_minutes == 1440:
            return 1
        return -(-self.seconds(day) // (interval_minutes * 60))

    def day_of(self, instant: datetime) -> date:
        """The billing day that holds an instant (which must carry a zone)."""
        if instant.tzinfo is None:
            raise ValueError("a naive timestamp has no billing day")
        return instant.astimezone(ZoneInfo(self.zone)).date()

    def days(self, first: date, last: date) -> list[date]:
        """Every billing day from first to last, both included."""
        return [date.fromordinal(n) for n in range(first.toordinal(), last.toordinal() + 1)]

    def locate(
        self, instants_us: npt.NDArray[np.int64], interval_minutes: npt.NDArray[np.int64] | int, tolerance_s: int = 0
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Billing day (as proleptic ordinal), slot and offset in seconds of each interval start.

        ``instants_us``: (n,) UTC microseconds since 1970. The offset is how far the start lies behind its slot's own
        start: 0 on the grid; up to ``tolerance_s`` seconds early is counted to the next slot with a negative offset, so
        that a clock three seconds slow does not put the first interval of a day into the day before.
        """
        import numpy as np  # 0.1 s that the command line's help does without

        seconds = np.floor_divide(instants_us, SECOND_US)
        shifted = seconds + tolerance_s
        if shifted.size == 0:
            empty = np.zeros(0, np.int32)
            return empty, empty, empty
        first = date.fromordinal(int(shifted.min() // 86400) + 719163 - 1)
        last = date.fromordinal(int(shifted.max() // 86400) + 719163 + 2)
        ordinals = np.arange(first.toordinal(), last.toordinal() + 1, dtype=np.int32)
        starts = np.array([_midnight_utc_s(self.zone, int(o)) for o in ordinals], np.int64)
        index = np.searchsorted(starts, shifted, side="right") - 1
        step = np.asarray(interval_minutes, np.int64) * 60
        into = shifted - starts[index]
        slot = into // step
        offset = into - slot * step - tolerance_s
        return ordinals[index], slot.astype(np.int32), offset.astype(np.int32)


def closed_day(read_at: datetime, zone: ZoneInfo) -> date:
    """The billing day that a register read closes: at midnight, the day before."""
    return (read_at.astimezone(zone) - timedelta(seconds=1)).date()


def local_clock(zone: str, day: date, interval_minutes: int) -> Sequence[datetime]:
    """Local start time of every slot of a billing day, in order; 02:00 is missing in spring and comes twice in
    autumn.
    """
    calendar = BillingCalendar(zone)
    start = calendar.start_s(day)
    info = ZoneInfo(zone)
    return [
        datetime.fromtimestamp(start + k * interval_minutes * 60, info)
        for k in range(calendar.slots(day, interval_minutes))
    ]
