"""The fuzzer's plain mode finds no crash in a short while, and its seeds are honest files."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter_pipeline_tests.feeds import fuzz


@pytest.mark.parametrize("form", fuzz.SEEDS)
def test_seeds_are_honest(form: str, tmp_path: Path) -> None:
    for seed in fuzz.SEEDS[form]:
        feed = fuzz.once(form, seed, tmp_path)
        assert feed.rejects.height == 0
        assert feed.received > 0


@pytest.mark.parametrize("form", fuzz.SEEDS)
def test_mutations_never_break_a_parser(form: str) -> None:
    assert fuzz.plain(form, fuzz.SEEDS[form], 1.0) > 0
