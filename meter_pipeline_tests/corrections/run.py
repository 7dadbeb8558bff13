"""Play histories of corrections: ``python -m meter_pipeline_tests.corrections.run [--slices N] [--skip N] [--most N]
[--jobs N] [--alone] [--json FILE]``.

All 28,512 histories of two corrections (histories.py): five cities, each cut into slices that are played side by side.
A slice holds every so manieth history of its city, so that each has all kinds and orders. A history that fails is
printed in words. ``--alone``: service points are judged and billed alone, as in a city that is large enough for it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from meter_pipeline.postgres.database import Database
from meter_pipeline.vee import part_of_day
from meter_pipeline_tests.corrections.histories import SEALS, differing, histories, play, truth
from meter_pipeline_tests.lives.run import server
from meter_pipeline_tests.support import copy_database, drop_database

#: Of a city of 6,048: 756 histories a slice, 25 to 45 s
SLICES = 8


@dataclass(frozen=True)
class Slice:
    """Every ``of``-th history from the ``first`` one on of the city whose month is sealed at ``seal``."""

    seal: int | None
    first: int
    of: int


@dataclass(frozen=True)
class Outcome:
    """How many histories a slice played, what differed in which, a line each, and the seconds it took."""

    histories: int
    failures: tuple[str, ...]
    seconds: float


def every_slice(of: int) -> list[Slice]:
    """Slices of all cities; each round of five is a slice of every city."""
    return [Slice(seal, first, of) for first in range(of) for seal in SEALS]


def play_slice(own: Database, template: Database, number: int, part: Slice) -> Outcome:
    """Play a slice and its truth, in two databases that are dropped again."""
    began = time.monotonic()
    played = histories(part.seal)[part.first :: part.of]
    names = [f"{kind}_{number}" for kind in ("truth", "lived")]
    try:
        with tempfile.TemporaryDirectory(prefix="corrections-") as work:
            folder = Path(work)
            owed = truth(copy_database(own, names[0], template.name), folder / "truth", played)
            found = play(copy_database(own, names[1], template.name), folder / "lived", part.seal, played)
    finally:
        for name in names:
            drop_database(own, name)
    failures = tuple(differing(part.seal, played, found, owed))
    return Outcome(len(played), failures, round(time.monotonic() - began, 1))


def _play(url: str, template: str, number: int, part: Slice, alone: bool) -> Outcome:
    own = Database(url)
    if alone:
        part_of_day.LEAST_ROWS, part_of_day.LARGEST_SHARE = 0, 1  # type: ignore[misc]
    return play_slice(own, own.sibling(template), number, part)


def play_all(parts: list[Slice], jobs: int, report: Path | None, alone: bool = False) -> dict[str, object]:
    """Play slices in some processes; failures go to stdout as they come."""
    began, count, failed = time.monotonic(), 0, list[str]()
    figures: dict[str, object] = {}
    with server() as (own, template), ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        of = {pool.submit(_play, own.url, template.name, k, part, alone): part for k, part in enumerate(parts)}
        for n, done in enumerate(as_completed(of), 1):
            part = of[done]
            try:
                outcome = done.result()
            except Exception as error:
                outcome = Outcome(0, (f"{part} was stopped by {type(error).__name__}: {error}",), 0)
            count += outcome.histories
            failed += outcome.failures
            for failure in outcome.failures[:20]:
                print(failure, flush=True)
            told = f"{n}/{len(parts)} {part}: {outcome.histories} histories, {len(outcome.failures)} failed, {outcome.seconds} s"
            print(told, file=sys.stderr, flush=True)
            seconds = round(time.monotonic() - began)
            figures = {"slices": n, "histories": count, "failed": len(failed), "seconds": seconds}
            if report is not None:
                report.write_text(json.dumps(figures | {"failures": failed}, indent=1) + "\n")
    return figures


def main() -> int:
    reader = argparse.ArgumentParser()
    reader.add_argument("--slices", type=int, default=SLICES, help="slices a city is cut into")
    reader.add_argument("--skip", type=int, default=0, help="leave out so many slices first")
    reader.add_argument("--most", type=int, default=5 * SLICES, help="slices to play, at most")
    reader.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    reader.add_argument("--alone", action="store_true", help="judge and bill service points alone")
    reader.add_argument("--json", type=Path)
    given = reader.parse_args()
    figures = play_all(every_slice(given.slices)[given.skip :][: given.most], given.jobs, given.json, given.alone)
    print(json.dumps(figures, indent=1))
    return 1 if figures.get("failed") else 0


if __name__ == "__main__":
    raise SystemExit(main())
