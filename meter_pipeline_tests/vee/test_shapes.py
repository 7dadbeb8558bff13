"""The sums of a day's shape in one compiled pass are those that NumPy makes of whole rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.rules.statistics import summed_shapes


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, -4]), st.sampled_from([0.0, 0.003, 0.5]))
def test_sums_and_shares(seed: int, least: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(least, 10 ** int(rng.integers(1, 12)), (60, 96))
    values[rng.random(values.shape) < missing] = NO_VALUE
    values[3] = 0
    rows = np.flatnonzero(rng.random(60) < 0.7).astype(np.int64)
    own = values[rows]
    own = own[(own != NO_VALUE).all(axis=1)]
    totals = own.sum(axis=1)
    plain = (totals > 0) & (own >= 0).all(axis=1)
    members, profile, count, shares = summed_shapes(values, rows)
    assert (members, count) == (len(own), plain.sum())
    np.testing.assert_array_equal(profile, own.sum(axis=0))
    np.testing.assert_array_equal(shares, (own[plain] * 1_000_000 // np.maximum(totals[plain, None], 1)).sum(axis=0))
