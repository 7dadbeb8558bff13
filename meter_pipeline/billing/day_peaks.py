"""Contents of demand registers after a day: the highest peak, the sum of the days' peaks, or the highest days'
peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from meter_pipeline.billing.tariffs.model import Register

Numbers = npt.NDArray[np.int64]


def after_day(
    registers: Sequence[Register], before: tuple[Numbers, Numbers], of_day: tuple[Numbers, Numbers]
) -> tuple[Numbers, Numbers]:
    """(n, registers): what registers hold and since when (seconds, 0: nothing yet), from those of the day before and
    the day's own.

    A register of rank k takes the day's peak where that is above its own, or what the register of rank k - 1 gives up
    to a higher day.
    """
    peak, since = before
    peaks, at = of_day
    if not registers:
        return peak, since
    daily = np.array([register.daily for register in registers], np.bool_)
    after = np.where(daily, peak + peaks, np.maximum(peak, peaks))
    moment = np.where(peaks > peak, at, since)
    for r, register in enumerate(registers):
        if register.rank > 1:
            pushed = peaks[:, r] > peak[:, r - 1]
            after[:, r] = np.where(pushed, peak[:, r - 1], after[:, r])
            moment[:, r] = np.where(pushed, since[:, r - 1], moment[:, r])
    return after, moment
