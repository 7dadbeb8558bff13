"""Everything fuzzing ever found stays found: seeds, kept corpus and crashes go through their targets; mutated seeds
never break one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from meter_pipeline_tests.fuzz import seeds
from meter_pipeline_tests.fuzz.targets import TARGETS

_WORDS = [b",", b"\n", b'"', b"\0", b"\xff", b"NaN", b"1e999", b"-", b"9" * 19, b"{", b"}", b"</"]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_corpus_and_crashes(name: str, tmp_path: Path) -> None:
    for data in seeds.seeds(name):
        TARGETS[name](data, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name: str, tmp_path: Path) -> None:
    source = random.Random(name)
    known = seeds.seeds(name)
    for _ in range(40):
        data = bytearray(source.choice(known))
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data) + 1)
            data[at : at + source.randint(0, 8)] = source.choice(_WORDS)
        TARGETS[name](bytes(data), tmp_path)


def test_every_target_has_words_to_begin_with() -> None:
    assert set(seeds.WORDS) == set(TARGETS)
