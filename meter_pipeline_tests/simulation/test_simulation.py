"""Simulated histories keep every invariant, a seed is a history, and the simulation notices each safeguard that is
missing."""

from __future__ import annotations

import os

import pytest

from meter_pipeline_tests.simulation.mutations import MUTATIONS, Mutation, switched_off
from meter_pipeline_tests.simulation.world import histories, history, installed


def test_histories_keep_every_invariant() -> None:
    first = int(os.environ.get("SIMULATION_FIRST_SEED", "1000000"))
    counts = histories(range(first, first + int(os.environ.get("SIMULATION_SEEDS", "120"))))
    assert counts["reads acknowledged"] > 0
    assert counts["fault: server killed"] > 0
    assert counts["fault: reply of COMMIT lost"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 0.2 s a history
def test_thousands_of_histories_keep_every_invariant() -> None:
    assert histories(range(2_000_000, 2_003_000))["histories"] == 3000


@pytest.mark.parametrize("seed", [7, 44, 106])
def test_a_seed_is_a_history(seed: int) -> None:
    with installed():
        one, other = history(seed), history(seed)
    assert one.snapshot() == other.snapshot()
    assert one.server.batches == other.server.batches
    assert one.scheduler.now == other.scheduler.now


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.safeguard)
def test_a_missing_safeguard_is_noticed(mutation: Mutation) -> None:
    def play() -> None:
        for seed in (mutation.seed, *range(200)):
            history(seed, mutation.trouble)

    with installed(), switched_off(mutation), pytest.raises(AssertionError, match="SEED="):
        play()
