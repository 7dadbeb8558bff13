"""History beside a day: like days brought to the day's own slots, daily totals by row, anchors at midnight."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import local_clock
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.estimation import past_usage
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Ints
from meter_pipeline.vee.tables.usage_history import WHOLE, UsageHistory

#: A meter's place. The next meter at it continues its history.
_PLACE: Final = ("service_point_id", "channel", "flow", "unit")
_Place: TypeAlias = tuple[str, ...]
#: By day: the channel's total, and whether it was wholly actual
_Totals: TypeAlias = dict[date, tuple[int, bool]]


def day_class(day: date, holidays: Collection[date]) -> int:
    """0 for a working day, 1 for Saturday, Sunday and holidays: the like days of the field."""
    return int(day.weekday() >= 5 or day in holidays)


def like_days(day: date, holidays: Collection[date], back: int, available: Collection[date]) -> list[date]:
    """Earlier days of the day's own class, oldest first, of those available; a holiday is no
    day (Itron IEE: public holidays are excluded)."""
    wanted = day_class(day, holidays)
    days = [day - timedelta(days=k) for k in range(back, 0, -1)]
    return [d for d in days if d in available and day_class(d, holidays) == wanted and (wanted or d not in holidays)]


def slot_map(zone: str, day: date, other: date, interval_minutes: int) -> npt.NDArray[np.int64]:
    """For each slot of ``day`` the slot of ``other`` at the same local clock time.

    The hour that comes twice in autumn maps to itself in order, or both times to the one there is; the hour that spring
    skips maps to the slot before it.
    """

    def labels(of: date) -> list[tuple[int, int]]:
        seen: dict[int, int] = {}
        out = []
        for moment in local_clock(zone, of, interval_minutes):
            minute = moment.hour * 60 + moment.minute
            seen[minute] = seen.get(minute, -1) + 1
            out.append((minute, seen[minute]))
        return out

    theirs = {label: k for k, label in enumerate(labels(other))}
    first: dict[int, int] = {}
    for (minute, _), k in theirs.items():
        first.setdefault(minute, k)
    out, previous = [], 0
    for minute, turn in labels(day):
        found = theirs.get((minute, turn), first.get(minute, previous))
        out.append(found)
        previous = found
    return np.array(out, np.int64)


def _positions(keys: pl.DataFrame, history: UsageHistory) -> dict[bytes, Ints]:
    """Position of each row of ``keys`` in the lists of the history, by list; -1 where a list lacks it."""
    on = ["service_point_id", "flow", "unit"]
    wanted = keys.select(on)
    out: dict[bytes, Ints] = {}
    for name, frame in history.keys.items():
        if frame.height == wanted.height and frame.equals(wanted):
            out[name] = np.arange(wanted.height)
        else:
            found = wanted.join(frame.with_row_index("at"), on=on, how="left", maintain_order="left")["at"]
            out[name] = found.cast(pl.Int64).fill_null(-1).to_numpy()
    return out


def align_daily(keys: pl.DataFrame, history: UsageHistory, days: Sequence[date], like: Sequence[bool]) -> DailyHistory:
    """Daily totals by row of ``keys`` (service_point_id, flow, unit): NO_VALUE where a day or a row has no history.
    Days before the first billing day are those of past usage, where it was imported."""
    totals = np.full((keys.height, len(days)), NO_VALUE, np.int64)
    whole = np.zeros((keys.height, len(days)), np.bool_)
    column = {d: k for k, d in enumerate(days)}
    positions = _positions(keys, history) if keys.height else {}
    for d, name, quantity, state in zip(history.days, history.hashes, history.quantity, history.state, strict=True):
        # a list may hold none of these service points: a head-end that is new has no history at all
        if d in column and keys.height and quantity.size:
            at = positions[name]
            totals[:, column[d]] = np.where(at >= 0, quantity[at], NO_VALUE)
            whole[:, column[d]] = (at >= 0) & ((state[at] & WHOLE) != 0)
    past_usage.fill_days(totals, whole, days, keys, history.past)
    return DailyHistory(list(days), totals, whole, np.array(like, np.bool_))


def own_daily(
    keys: pl.DataFrame, present: pl.DataFrame, past: pl.DataFrame, days: Sequence[date]
) -> tuple[Ints, Bools]:
    """Daily totals of single channels, for rows of service points that have or had several meters: as ``align_daily``,
    (rows, days) each.

    ``keys``: the rows (service_point_id, meter_id, channel, flow, unit); ``present``: all expected rows of their
    service points; ``past``: validated totals of channels on earlier days (the same columns, billing_day, total_micro,
    whole). Before a meter's first day the days of the meter it replaced count: the one of the same channel and flow
    that stopped counting when it began. Where several could be that one, none counts: a new meter beside others has
    no history.
    """
    totals = np.full((keys.height, len(days)), NO_VALUE, np.int64)
    whole = np.zeros((keys.height, len(days)), np.bool_)
    column = {d: k for k, d in enumerate(days)}
    by_service: dict[_Place, dict[str, _Totals]] = {}
    for *place, meter, day, total, actual in past.select(
        *_PLACE, "meter_id", "billing_day", "total_micro", "whole"
    ).iter_rows():
        by_service.setdefault(tuple(place), {}).setdefault(meter, {})[day] = (total, actual)
    here: dict[_Place, set[str]] = {}
    for *place, meter in present.select(*_PLACE, "meter_id").iter_rows():
        here.setdefault(tuple(place), set()).add(meter)
    for row, (*place, meter) in enumerate(keys.select(*_PLACE, "meter_id").iter_rows()):
        meters = by_service.get(tuple(place), {})
        for day, (total, actual) in _with_predecessor(meter, meters, here.get(tuple(place), set())).items():
            if day in column:
                totals[row, column[day]], whole[row, column[day]] = total, actual
    return totals, whole


def _with_predecessor(meter: str, meters: dict[str, _Totals], here: set[str]) -> _Totals:
    """What a meter was put at by day, with the days of the one meter it replaced before its own. ``meters``: all that
    counted at its place; ``here``: those that do now."""
    mine = meters.get(meter, {})
    begins = min(mine, default=date.max)
    older = [m for m in sorted(meters) if m not in here and max(meters[m]) < begins]
    if len(older) != 1:
        return mine
    stopped = max(meters[older[0]])
    newer = [m for m in here if min(meters.get(m, {}), default=date.max) > stopped]
    if newer != [meter]:
        return mine
    return {d: t for d, t in meters[older[0]].items() if d < begins} | mine


def own_streaks(totals: Ints, whole: Bools) -> npt.NDArray[np.int32]:
    """Days in a row up to the last of ``own_daily`` that were estimated: as ``estimate_streaks``."""
    broken = (totals == NO_VALUE) | whole
    rows, days = totals.shape
    found = np.where(broken.any(axis=1), broken[:, ::-1].argmax(axis=1), days) if days else np.zeros(rows)
    return found.astype(np.int32)


def whole_points(history: UsageHistory, day: date) -> pl.Series:
    """Service points of which everything was wholly actual on a day of the history; none where it does not have the
    day."""
    if day not in history.days:
        return pl.Series("service_point_id", [], dtype=pl.String)
    at = history.days.index(day)
    points, whole = history.keys[history.hashes[at]]["service_point_id"], pl.Series((history.state[at] & WHOLE) != 0)
    return points if whole.all() else points.filter(whole & ~points.is_in(points.filter(~whole).implode()))


def estimate_streaks(keys: pl.DataFrame, history: UsageHistory, day: date) -> npt.NDArray[np.int32]:
    """Days in a row, up to the day before, on which each row's service point was estimated or missing."""
    streak = np.zeros(keys.height, np.int32)
    unbroken = np.ones(keys.height, np.bool_)
    positions = _positions(keys, history) if keys.height else {}
    expected = day
    for d, name, state in zip(reversed(history.days), reversed(history.hashes), reversed(history.state), strict=True):
        expected -= timedelta(days=1)
        if d != expected or not unbroken.any() or not state.size:
            break
        at = positions[name]
        unbroken &= (at >= 0) & ((state[at] & WHOLE) == 0)
        streak += unbroken
    return streak


def hour_shift(
    today: npt.NDArray[np.float64], usual: npt.NDArray[np.float64], interval_minutes: int, ratio: float
) -> int:
    """Whole hours (-3 to 3) by which today's load shape lags its usual shape; 0 unless that explains it ``ratio`` times
    better.

    Both shapes are (slots,), on the same local clock. Compared is what is left unexplained, 1 - r squared, over the
    slots both have: a difference of correlations would ask the same of a flat fleet as of a peaked one.
    """
    step = 60 // interval_minutes if interval_minutes <= 60 else 0
    if step == 0 or today.size != usual.size or today.size < 8 * step:
        return 0

    def unexplained(shift: int) -> float:
        k = shift * step
        a = today[k:] if k >= 0 else today[:k]
        b = usual[: usual.size - k] if k >= 0 else usual[-k:]
        a, b = a - a.mean(), b - b.mean()
        scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
        alike = float((a * b).sum()) / scale if scale > 0 else 0.0
        return 1.0 - alike * alike if alike > 0 else 1.0

    best = min((unexplained(h), abs(h), h) for h in (-3, -2, -1, 1, 2, 3))
    # nothing is explained better than to a ten-thousandth: two flat lines are alike however they are laid
    return best[2] if unexplained(0) >= ratio * max(best[0], 1e-4) else 0
