"""Which meter would account for a zone's loss beyond its band: one that stopped, one that is bypassed, one with a wrong
ratio."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

#: Ratios by which a meter is commonly read wrong: a digit, twelve for an unread inch, CT and PT ratios, gallons for
#: hundreds of cubic feet and their inverses.
RATIOS: Final = tuple(
    Decimal(text)
    for text in ("2", "3", "4", "5", "6", "7.48051948", "10", "12", "20", "40", "60", "80", "100", "748.051948", "1000")
)
#: Share of its usual use up to which a meter counts as stopped, and by which use may miss a ratio
_STOPPED, _NEAR = Decimal("0.02"), Decimal("0.05")
MOST: Final = 5


def candidates(was: Mapping[str, Decimal], now: Mapping[str, Decimal], excess: Decimal) -> list[dict[str, Any]]:
    """Service points whose correction is nearest to the ``excess`` loss a day, the nearest first.

    ``was`` and ``now``: use a day before and in the month, in millionths of the zone's unit. Each has ``kind``
    (stopped, bypass, ratio, over: it counts more than before), ``was``, ``now``, ``closes`` (what the meter would have
    counted more, a day, less where it counts too much) and ``leaves`` (what of the excess would be left). A meter
    without earlier use is tried with every common ratio."""
    found = [_changed(point, was[point], now.get(point, Decimal(0))) for point in was]
    for point in now.keys() - was.keys():
        tried = [now[point] * (ratio - 1) for ratio in RATIOS] + [now[point] * (1 / ratio - 1) for ratio in RATIOS]
        closes = min(tried, key=lambda correction: abs(correction - excess))
        found.append(_told(point, "ratio", Decimal(0), now[point], closes))
    near = [row | {"leaves": row["closes"] - excess} for row in found if row["closes"] * excess > 0]
    return sorted(near, key=lambda row: (abs(row["leaves"]), row["service_point_id"]))[:MOST]


def _changed(point: str, was: Decimal, now: Decimal) -> dict[str, Any]:
    kind = "over" if now > was else "bypass"
    if was > 0 and now <= was * _STOPPED:
        kind = "stopped"
    elif (
        was > 0
        and now > 0
        and any(abs(larger / ratio - smaller) <= smaller * _NEAR for larger, smaller, ratio in _ways(was, now))
    ):
        kind = "ratio"
    return _told(point, kind, was, now, was - now)


def _ways(was: Decimal, now: Decimal) -> list[tuple[Decimal, Decimal, Decimal]]:
    larger, smaller = max(was, now), min(was, now)
    return [(larger, smaller, ratio) for ratio in RATIOS]


def _told(point: str, kind: str, was: Decimal, now: Decimal, closes: Decimal) -> dict[str, Any]:
    return {"service_point_id": point, "kind": kind, "was": was, "now": now, "closes": closes}
