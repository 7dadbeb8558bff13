"""Play seeds: ``python -m meter_pipeline_tests.simulation.run [--first N] [--seeds N] [--jobs N] [--json FILE]``; a
failure prints its SEED, which replays it. ``--jobs`` processes share them, one a core by default."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from meter_pipeline_tests.simulation.world import histories

#: Seeds a process plays between two reports
SHARE = 500


def main() -> int:
    reader = argparse.ArgumentParser()
    reader.add_argument("--first", type=int, default=0)
    reader.add_argument("--seeds", type=int, default=1000)
    reader.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    reader.add_argument("--json", type=Path)
    given = reader.parse_args()
    began, counts, past = time.monotonic(), Counter[str](), given.first + given.seeds
    shares = [range(start, min(start + SHARE, past)) for start in range(given.first, past, SHARE)]
    # spawned, not forked: Polars has threads
    with (
        ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("histories", total=given.seeds)
        for done in as_completed([pool.submit(histories, share) for share in shares]):
            try:
                counts += done.result()
            except AssertionError as failure:
                print(failure, file=sys.stderr)
                pool.shutdown(wait=False, cancel_futures=True)
                return 1
            progress.update(bar, completed=counts["histories"])
            seconds = round(time.monotonic() - began, 1)
            figures = {
                "first_seed": given.first,
                "jobs": given.jobs,
                "seconds": seconds,
                **dict(sorted(counts.items())),
            }
            if given.json is not None:
                given.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
