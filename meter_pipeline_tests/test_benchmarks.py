"""Every benchmark that the documents name runs, small, and prints the contract's document. How fast is for the
benchmarks themselves to say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.postgres.database import Database

SMALL: dict[str, dict[str, Any]] = {
    "anomalies": {"meters": 40, "days": 120, "day_meters": 40},
    "backlog": {"meters": 60, "days": 2, "outage_s": 0.5, "good": 960, "bad": 1000},
    "baselines": {"meters": 64, "repeats": 1, "peer_meters": 1},
    "billing": {"accounts": 20, "rounds": 1, "pysam_rounds": 1, "days": 3, "timed": 1},
    "cli": {"rounds": 1},
    "correction": {"meters": 12, "days": 3, "accounts": 4, "document_days": 2},
    "day": {"meters": 30, "warm": False},
    "day of registers": {"meters": 30, "interval": 1440, "warm": False},
    "desk": {"accounts": 40, "days": 2, "rounds": 1},
    "feeds": {"meters": 20, "channels": 10, "repeats": 1},
    "late": {"meters": 30, "touched": 3},
    "ledger": {"meters": 200, "rounds": 1, "day_rounds": 1},
    "load": {"meters": 100, "sample": 960, "rounds": 1},
    "migration": {"accounts": 20, "rounds": 1},
    "month": {"accounts": 100},
    "probe": {"meters": 100, "idle_s": 0.2, "days": 1, "rounds": 1, "most_added_ms": 1},
    "rate_study": {"accounts": 10, "periods": 2},
    "scale": {"sizes": "20"},
}


@pytest.mark.parametrize("bench", SMALL)
def test_a_benchmark_runs_and_prints_its_document(
    bench: str, server: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", server.url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path))
    name = bench.split()[0]
    document = importlib.import_module(f"benchmarks.{name}").run(**SMALL[bench])
    assert set(document) == {"bench", "config", "figures", "ratios", "machine"}
    assert (document["bench"], bool(document["figures"]), document["machine"]["cores"] > 0) == (name, True, True)
    json.dumps(document, allow_nan=False)
    if name == "month":  # each part beside its own answer by hand
        parts = [part for part in document["figures"].values() if isinstance(part, dict)]
        assert [part.get("off", part.get("cents_off")) for part in parts] == [0] * 7, parts
        assert all(part["answers"] for part in parts), parts
    if name in ("day", "scale"):  # the floor of the same work stands beside it
        figures = document["figures"] if name == "day" else document["figures"]["runs"][0]
        ours = sum(figures["stage_s"].values())
        floor = sum(figures["floor_s"].values())
        # the figures are rounded to a millisecond, and so small a city's floor is some twenty of them
        assert document["ratios"]["ours_over_floor"] == pytest.approx(ours / floor, rel=0.3)
        assert set(figures["floor_s"]) == set(figures["stage_s"])
