"""Random tariffs on random loads cost what an independent calculator says, in every month and to the cent.

``METER_PIPELINE_RANDOM_TARIFFS`` sets how many are tried (60; a release tries 3,000) and a failure prints the
seed that makes it again.
"""

from __future__ import annotations

import json
import os
import random
from decimal import Decimal
from fractions import Fraction

import pytest

from meter_pipeline.billing.load import read_load
from meter_pipeline.billing.synthetic_account import price_months
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline_tests.billing import naive, random_tariffs

COUNT = int(os.environ.get("METER_PIPELINE_RANDOM_TARIFFS", "60"))
FIRST = int(os.environ.get("METER_PIPELINE_RANDOM_SEED", "1"))


def exact(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def lines_of(seed: int) -> tuple[list[dict[str, Fraction]], list[dict[str, Fraction]]]:
    """A seed's months by code: as the independent calculator and as the product have them."""
    rng = random.Random(seed)
    document = random_tariffs.tariff(rng)
    hours = random_tariffs.load(rng, solar=rng.random() < 0.5)
    theirs = naive.bills(document, hours, random_tariffs.HOLIDAYS)
    rows = [f"{h.start.isoformat()},{exact(h.taken)},{exact(h.sent)},{exact(h.reactive)}" for h in hours]
    load = read_load(["interval_start,kwh,export_kwh,kvarh", *rows])
    tariff = parse_tariff(json.dumps(document).encode())
    months = price_months(
        tariff, load, holidays=frozenset(random_tariffs.HOLIDAYS), attributes=random_tariffs.ATTRIBUTES
    )
    ours = []
    for month in months:
        found: dict[str, Fraction] = {}
        for key, amount in month.priced.lines.select("line_key", "amount").iter_rows():
            code = key.split("/")[0]
            found[code] = found.get(code, Fraction(0)) + Fraction(int(amount), 10**12)
        ours.append(found | {"total": sum(found.values(), Fraction(0))})
    return theirs, ours


@pytest.mark.oracle
def test_random_tariffs_cost_what_an_independent_calculator_says() -> None:
    for seed in range(FIRST, FIRST + COUNT):
        theirs, ours = lines_of(seed)
        assert len(theirs) == len(ours), f"seed {seed}"
        for k, (expected, found) in enumerate(zip(theirs, ours, strict=True)):
            for code in expected.keys() | found.keys():
                apart = expected.get(code, Fraction(0)) - found.get(code, Fraction(0))
                # Tier limits are rounded down to a billionth of a kWh, shares to 10**-12 of the currency.
                assert abs(apart) < Fraction(1, 10**6), f"seed {seed}, month {k}, {code}: {float(apart)}"
