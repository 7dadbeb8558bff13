"""Packing puts every read of a file into its slot, whatever the file's order, and accounts for those that share one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ingest import pack
from meter_pipeline.quality import MISSING
from meter_pipeline.quality import pack as quality
from meter_pipeline.schemas.reads import INTERVAL_READS, NO_VALUE, UTC_US, DayMatrix

CHICAGO = BillingCalendar("America/Chicago")


def frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    plain = {
        "channel": "E1",
        "interval_minutes": 15,
        "unit": "kWh",
        "sequence": 0,
        "quality": 0,
        "source_version": 1,
        "read_time": None,
    }
    return pl.DataFrame([{**plain, "line": n, **row} for n, row in enumerate(rows, 1)], schema=INTERVAL_READS)


reads = st.lists(
    st.fixed_dictionaries(
        {
            "meter_id": st.sampled_from(["M-1", "M-2", "M-30"]),
            "channel": st.sampled_from(["E1", "B1"]),
            "interval_minutes": st.sampled_from([15, 60]),
            "interval_start": st.integers(0, 60 * 48).map(
                lambda m: datetime(2024, 3, 9, 12, tzinfo=UTC) + timedelta(minutes=m)
            ),
            "value": st.one_of(st.none(), st.integers(0, 5)),
            "sequence": st.integers(0, 2),
            "source_version": st.sampled_from([1, 2, 10**15]),
        }
    ),
    min_size=1,
    max_size=60,
)


def everything(matrices: list[DayMatrix]) -> list[tuple[object, ...]]:
    return [
        (
            m.billing_day,
            m.interval_minutes,
            m.keys.drop("first_line").rows(),
            m.values.tolist(),
            m.quality.tolist(),
            m.sequence.tolist(),
            None if m.offsets is None else m.offsets.tolist(),
        )
        for m in matrices
    ]


@given(reads, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_lines_does_not_matter(rows: list[dict[str, object]], rng: object) -> None:
    one = frame(rows).sort("meter_id", "channel", "source_version", "interval_minutes", "interval_start")
    order = list(range(one.height))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shuffled = one[order]
    before = pack.SORTED_ENOUGH
    try:
        pack.SORTED_ENOUGH = 0  # type: ignore[misc]  # never the unsorted way
        packed = pack.pack_intervals(one, CHICAGO)
        pack.SORTED_ENOUGH = 10**9  # type: ignore[misc]  # always
        again = pack.pack_intervals(shuffled, CHICAGO)
    finally:
        pack.SORTED_ENOUGH = before  # type: ignore[misc]
    assert everything(packed) == everything(again)
    counted = [sum(int(m.keys[c].sum()) for m in packed) for c in ("received", "duplicate", "superseded")]
    kept = sum(int(((m.values != NO_VALUE) | (m.quality != MISSING)).sum()) for m in packed)
    assert counted[0] == one.height == kept + counted[1] + counted[2]


@pytest.mark.parametrize(
    ("zone", "day", "minutes", "slots"),
    [
        ("America/Chicago", date(2024, 3, 10), 15, 92),
        ("Europe/Berlin", date(2024, 10, 27), 15, 100),
        ("Australia/Lord_Howe", date(2024, 4, 7), 30, 49),
    ],
)
def test_days_on_which_clocks_change(zone: str, day: date, minutes: int, slots: int) -> None:
    calendar = BillingCalendar(zone)
    start, end = calendar.bounds(day)
    count = int((end - start) / timedelta(minutes=minutes))
    rows = [
        {
            "meter_id": "M",
            "interval_start": start + n * timedelta(minutes=minutes),
            "interval_minutes": minutes,
            "value": n,
        }
        for n in range(-1, count + 1)
    ]
    matrices = pack.pack_intervals(frame(rows), calendar)
    assert [m.billing_day for m in matrices] == [day - timedelta(days=1), day, day + timedelta(days=1)]
    assert matrices[1].values.tolist() == [list(range(slots))]


def test_a_slow_clock_keeps_its_first_interval_and_its_offset() -> None:
    start = CHICAGO.bounds(date(2024, 5, 1))[0]
    [matrix] = pack.pack_intervals(
        frame([{"meter_id": "M", "interval_start": start - timedelta(seconds=3), "value": 7}]), CHICAGO
    )
    assert matrix.billing_day == date(2024, 5, 1)
    assert matrix.values[0, 0] == 7
    assert matrix.offsets is not None
    assert matrix.offsets[0, 0] == -3


def test_the_later_read_of_a_slot_is_kept_and_the_others_counted() -> None:
    at = CHICAGO.bounds(date(2024, 5, 1))[0]
    rows = [
        {"meter_id": "M", "interval_start": at, "value": v, "sequence": s} for v, s in ((1, 5), (2, 6), (2, 6), (9, 5))
    ]
    [matrix] = pack.pack_intervals(frame(rows), CHICAGO)
    assert (matrix.values[0, 0], matrix.sequence[0, 0]) == (2, 6)
    assert matrix.keys.select("received", "duplicate", "superseded", "conflicts").row(0) == (4, 1, 2, 0)


def test_a_null_read_keeps_its_quality() -> None:
    at = CHICAGO.bounds(date(2024, 5, 1))[0]
    [matrix] = pack.pack_intervals(
        frame([{"meter_id": "M", "interval_start": at, "value": None, "quality": quality("N")}]), CHICAGO
    )
    assert matrix.values[0, 0] == NO_VALUE
    assert matrix.quality[0, 0] == quality("N")


def test_a_midnight_register_read_closes_the_day_before() -> None:
    midnight = CHICAGO.bounds(date(2024, 5, 1))[0]
    days = pack.register_days(pl.Series([midnight, midnight + timedelta(seconds=1)], dtype=UTC_US), CHICAGO)
    assert days.to_list() == [date(2024, 4, 30), date(2024, 5, 1)]
    assert np.array_equal(pack.register_days(pl.Series([], dtype=UTC_US), CHICAGO).to_numpy(), [])
