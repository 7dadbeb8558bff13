"""Stages promise: one step at a time, two people for more authority, one authority per account, and a cohort that only
grows with its percent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.control.migration_stage import (
    STAGES,
    START,
    authority,
    check_step,
    cohort_point,
    needs_two,
    who_bills,
)


def at(stage: str, points: int | None = None, routes: list[str] | None = None) -> dict[str, Any]:
    return {
        "stage": stage,
        "routes": routes or [],
        "basis_points": (10_000 if stage in ("ramp_down", "complete") else 0) if points is None else points,
    }


def test_forward_is_one_step_and_complete_is_final() -> None:
    for here in STAGES:
        for there in STAGES:
            step = STAGES.index(there) - STAGES.index(here)
            allowed = check_step(at(here), at(there)) is None
            assert allowed == (step <= 1 and not (here == "complete" and step < 0)), (here, there)


@pytest.mark.parametrize(
    "value",
    [
        {"stage": "live"},
        at("sideways"),
        at("live", 10_001),
        at("live", 5, ["B", "A"]),
        at("shadow", 5),
        at("ramp_down", 9_999),
        at("live", True),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_words(value: dict[str, Any]) -> None:
    assert check_step(at("live"), value)


def test_more_authority_needs_two_people_and_less_needs_one() -> None:
    assert needs_two(at("dual_write"), at("live", 100))
    assert needs_two(at("live", 100), at("live", 200))
    assert needs_two(at("live", 100), at("live", 100, ["R1"]))
    assert not needs_two(at("live", 200), at("dual_write"))
    assert not needs_two(START, at("shadow"))
    for here in ("shadow", "dual_write", "live", "ramp_down"):
        assert needs_two(at(here), START), "off makes us bill everyone"


def test_every_value_says_who_bills() -> None:
    assert who_bills(START) == "we bill every account: no migration is under way, and the legacy batch must not bill"
    assert who_bills(at("dual_write")) == "the legacy batch bills every account"
    assert who_bills(at("live", 250)) == "we bill 2.50 % of accounts, the legacy batch the others"
    assert who_bills(at("complete")) == "we bill every account"


@given(st.text("ABCDEFGH0123456789", min_size=1, max_size=12), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_cohort_only_grows_with_its_percent(account: str, a: int, b: int) -> None:
    low, high = sorted((a, b))
    if authority(at("live", low), account, None) == "new":
        assert authority(at("live", high), account, None) == "new"
    assert authority(at("live", 10_000), account, None) == "new"
    assert authority(at("live", 0), account, None) == "legacy"


def test_hash_percent_is_even() -> None:
    points = [cohort_point(f"AC-{n:06d}") for n in range(20_000)]
    assert abs(sum(p < 1_000 for p in points) - 2_000) < 200
