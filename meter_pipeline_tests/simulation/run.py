"""Play seeds: ``python -m meter_pipeline_tests.simulation.run [--first N] [--seeds N] [--json FILE]``; a failure prints its SEED, which replays it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from meter_pipeline_tests.simulation.world import histories


def main() -> int:
    reader = argparse.ArgumentParser()
    reader.add_argument("--first", type=int, default=0)
    reader.add_argument("--seeds", type=int, default=1000)
    reader.add_argument("--json", type=Path)
    given = reader.parse_args()
    began, counts = time.monotonic(), Counter[str]()
    for start in range(given.first, given.first + given.seeds, 500):
        try:
            counts += histories(range(start, min(start + 500, given.first + given.seeds)))
        except AssertionError as failure:
            print(failure, file=sys.stderr)
            return 1
        figures = {"first_seed": given.first, "seconds": round(time.monotonic() - began, 1), **dict(sorted(counts.items()))}
        if given.json is not None:
            given.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
