"""History beside a day: like days brought to the day's own slots, daily totals by row, anchors at midnight.

Belongs here: turning frames of earlier days into aligned arrays. Does not belong here: reading them (store/validated.py), using them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import local_clock
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.model import DailyHistory


def day_class(day: date, holidays: Collection[date]) -> int:
    """0 for a working day, 1 for Saturday, Sunday and holidays: the like days of the field."""
    return int(day.weekday() >= 5 or day in holidays)


def like_days(day: date, holidays: Collection[date], back: int, available: Collection[date]) -> list[date]:
    """Earlier days of the day's own class, oldest first, of those available; a holiday itself is nobody's like working day
    (Itron IEE: public holidays are excluded)."""
    wanted = day_class(day, holidays)
    days = [day - timedelta(days=k) for k in range(back, 0, -1)]
    return [d for d in days if d in available and day_class(d, holidays) == wanted and (wanted or d not in holidays)]


def slot_map(zone: str, day: date, other: date, interval_minutes: int) -> npt.NDArray[np.int64]:
    """For each slot of ``day`` the slot of ``other`` at the same local clock time.

    The hour that comes twice in autumn maps to itself in order, or both times to the one there is; the hour that spring skips maps to the
    slot before it.
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


def align_daily(keys: pl.DataFrame, history: pl.DataFrame, days: Sequence[date], like: Sequence[bool]) -> DailyHistory:
    """Daily totals by row of ``keys`` (service_point_id, flow, unit): rows without history are NO_VALUE throughout.

    ``history``: service_point_id, flow, unit, billing_day, quantity_micro, whole.
    """
    rows = keys.height
    totals = np.full((rows, len(days)), NO_VALUE, np.int64)
    whole = np.zeros((rows, len(days)), np.bool_)
    if rows and history.height and len(days):
        on = ["service_point_id", "flow", "unit"]
        number = pl.DataFrame({"billing_day": list(days)}, schema={"billing_day": pl.Date}).with_row_index("day")
        joined = (
            history.filter(pl.col("quantity_micro").is_not_null())
            .join(number, on="billing_day")
            .join(keys.select(on).with_row_index("row"), on=on)
        )
        at = (joined["row"].to_numpy(), joined["day"].to_numpy())
        totals[at] = joined["quantity_micro"].to_numpy()
        whole[at] = joined["whole"].to_numpy()
    return DailyHistory(list(days), totals, whole, np.array(like, np.bool_))


def estimate_streaks(keys: pl.DataFrame, history: pl.DataFrame, day: date) -> npt.NDArray[np.int32]:
    """Days in a row, up to the day before, on which each row's service point was estimated or missing."""
    if not history.height or not keys.height:
        return np.zeros(keys.height, np.int32)
    on = ["service_point_id", "flow", "unit"]
    broken = (
        history.filter(pl.col("incomplete"))
        .sort(*on, "billing_day", descending=[False, False, False, True])
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over(on), age=(pl.lit(day) - pl.col("billing_day")).dt.total_days())
        .filter(pl.col("rank") == pl.col("age"))
        .group_by(on)
        .agg(pl.col("rank").max().alias("streak"))
    )
    return keys.select(on).join(broken, on=on, how="left", maintain_order="left")["streak"].fill_null(0).to_numpy().astype(np.int32)


def hour_shift(today: npt.NDArray[np.float64], usual: npt.NDArray[np.float64], interval_minutes: int, margin: float) -> int:
    """Whole hours (-3 to 3) by which today's load shape lags its usual shape; 0 unless the shift fits better by ``margin``.

    Both shapes are (slots,), on the same local clock. Compared by correlation over the slots both have.
    """
    step = 60 // interval_minutes if interval_minutes <= 60 else 0
    if step == 0 or today.size != usual.size or today.size < 8 * step:
        return 0

    def correlation(shift: int) -> float:
        k = shift * step
        a = today[k:] if k >= 0 else today[:k]
        b = usual[: usual.size - k] if k >= 0 else usual[-k:]
        a, b = a - a.mean(), b - b.mean()
        scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
        return float((a * b).sum()) / scale if scale > 0 else 0.0

    base = correlation(0)
    best = max((correlation(h), -abs(h), h) for h in (-3, -2, -1, 1, 2, 3))
    return best[2] if best[0] - base >= margin and best[0] > 0.8 else 0
