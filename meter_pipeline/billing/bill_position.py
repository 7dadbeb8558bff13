"""How far services have come in their billing periods: the arrays that prices are a function of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final

import numpy as np

from meter_pipeline.billing.fixed_point import Whole
from meter_pipeline.billing.tariffs.model import ByAttribute

#: Decimals of the currency in stored amounts, and in exact ones.
MONEY_PLACES: Final = 6
EXACT_PLACES: Final = 12
#: Quantities are millionths of the tariff's unit, demand millionths of a kW.
QUANTITY_SCALE: Final = 10**6


class MissingAttributeError(ValueError):
    """A service lacks an attribute its tariff needs; ``rows`` says which."""

    def __init__(self, attribute: str, rows: Whole) -> None:
        super().__init__(f"{len(rows)} services have no usable {attribute}")
        self.attribute = attribute
        self.rows = rows


@dataclass(slots=True)
class PeriodPosition:
    """How far n services have come in their billing periods.

    ``energy`` (n, periods) and ``export`` in 1/``scale`` of the tariff's unit, never negative; ``peaks`` (n, registers)
    in 1/``scale`` kW; ``days`` (n,) served so far of ``period_days``, the first of them day ``first_day`` (0: the
    period's own first); ``season_days`` (n, seasons) those of them in each season of the schedule (None: it has one);
    ``surplus`` (n, periods) exports that nothing was set against, ``imports`` what was taken before any was;
    ``register_days`` (n, registers) those of them in a register's season; ``history`` the highest peak of a ratchet's
    look-back; ``months`` (n,) the calendar month that ratchets read; ``budget`` (n,) the cumulative budget and
    ``winter_average`` (n,) the average a day, both in 1/``scale``, -1 where there is none; ``service_day`` and
    ``bill_day`` (n,) the day and the period's end by which dated rates are chosen, as proleptic ordinals;
    ``attributes`` name -> (n,) array of text.
    """

    energy: Whole
    days: Whole
    period_days: Whole
    first_day: Whole | None = None
    season_days: Whole | None = None
    export: Whole | None = None
    surplus: Whole | None = None
    imports: Whole | None = None
    peaks: Whole | None = None
    register_days: Whole | None = None
    history: Whole | None = None
    months: Whole | None = None
    budget: Whole | None = None
    winter_average: Whole | None = None
    service_day: Whole | None = None
    bill_day: Whole | None = None
    attributes: Mapping[str, Whole] = field(default_factory=dict)
    scale: int = QUANTITY_SCALE

    @property
    def size(self) -> int:
        return int(self.energy.shape[0])


def variant_index(variants: ByAttribute, position: PeriodPosition) -> Whole | None:
    """Which variant of a charge each service has; None where there is one. Raises MissingAttributeError."""
    if variants.attribute is None:
        return None
    if variants.dated:
        return _dated_index(variants, position)
    given = position.attributes.get(variants.attribute)
    if given is None:
        given = np.full(position.size, "", dtype=object)
    index = np.full(position.size, -1, np.int64)
    for k, key in enumerate(variants.keys):
        index[given == key] = k
    if "*" in variants.keys:
        index[index < 0] = variants.keys.index("*")
    if (index < 0).any():
        raise MissingAttributeError(variants.attribute, np.flatnonzero(index < 0))
    return index


def _dated_index(variants: ByAttribute, position: PeriodPosition) -> Whole:
    """Which of some dated rates holds for each service."""
    days = position.service_day if variants.attribute == "service_date" else position.bill_day
    since = np.array([date.fromisoformat(key).toordinal() for key in variants.keys], np.int64)
    at = np.full(position.size, 0, np.int64) if days is None else np.asarray(days)
    index = np.searchsorted(since, at, side="right") - 1
    if (index < 0).any():
        raise MissingAttributeError(f"rate before {variants.keys[0]}", np.flatnonzero(index < 0))
    return index


def count_of(position: PeriodPosition, name: str, without: Decimal | None = None) -> Whole:
    """(n,): a count of each service, in millionths. One that has none declared counts ``without``; where that is None,
    raises MissingAttributeError for such services."""
    given = position.attributes.get(name)
    if given is None:
        if without is None and position.size:
            raise MissingAttributeError(name, np.arange(position.size))
        given = np.full(position.size, "", dtype=object)
    if without is not None:
        given = np.where(given == "", str(without), given)
    known = {text: _millionths(text) for text in set(given.tolist())}
    counts = np.array([known[text] for text in given.tolist()], np.int64)
    if (counts < 0).any():
        raise MissingAttributeError(name, np.flatnonzero(counts < 0))
    return counts


def _millionths(text: str) -> int:
    try:
        value = Decimal(text)
    except ArithmeticError:
        return -1
    return int(value * 10**6) if 0 <= value < 10**9 else -1
