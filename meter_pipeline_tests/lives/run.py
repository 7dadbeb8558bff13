"""Play lives: ``python -m meter_pipeline_tests.lives.run [--small N] [--skip N] [--every K] [--long N] [--jobs N]
[--json FILE]``.

Small: orders of three account events between an issue and a seal, a city per order of those, whatever a life begins
with. Long: random histories of twelve events, each from its seed. A failure prints its history (and seed), which
``--only SCRIPT:BASE:EVENTS`` plays again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline_tests.lives.life import BASES, Life, events_of
from meter_pipeline_tests.lives.player import Played, histories, play
from meter_pipeline_tests.lives.stages import City
from meter_pipeline_tests.support import copy_database

#: Account events of a small history; with an issue and a seal it has five
SMALL = 3
LONG, LONG_STEPS = 50, 12


@dataclass(frozen=True)
class Plan:
    """A city to play: its script and its lives as (base, history); ``seed`` where they are random."""

    script: tuple[str, ...]
    lives: tuple[tuple[str, tuple[str, ...]], ...]
    seed: int | None = None


def small_scripts() -> list[tuple[str, ...]]:
    """Every order of an issue and a seal among three events; the second period's days go by at a place that changes
    from one to the next.
    """
    orders = sorted(set(permutations(("event",) * SMALL + ("issue", "seal"))))
    scripts = []
    for k, order in enumerate(orders):
        place = (0, len(order) // 2, len(order))[k % 3]
        loaded = ("loaded",) if k % 2 else ()
        scripts.append((*loaded, *order[:place], "advance", *order[place:]))
    return [
        *scripts,
        ("advance", "issue_second", "event", "issue", "event", "event"),
        ("event", "advance", "issue_second", "event", "seal", "event", "issue"),
    ]


def small_plans(every: int = 1) -> list[Plan]:
    """The exhaustive cities; ``every`` thins them out evenly."""
    lives = [(base, h) for base in BASES for h in histories(SMALL, base)]
    return [Plan(script, tuple(lives[k % every :: every])) for k, script in enumerate(small_scripts())]


def long_plan(seed: int, lives: int = LONG) -> Plan:
    """A city of random lives of twelve events, whose own events stand at random places."""
    chance = random.Random(seed)
    script = ["event"] * LONG_STEPS
    for event in ("issue", "seal", "advance"):
        script.insert(chance.randrange(len(script) + 1), event)
    if seed % 2:
        script.insert(0, "loaded")
    bases = [chance.choice(BASES) for _ in range(lives)]
    made = tuple((base, tuple(chance.choices(events_of(base), k=LONG_STEPS))) for base in bases)
    return Plan(tuple(script), made, seed)


@contextmanager
def server(where: Path | None = None) -> Iterator[tuple[Database, Database]]:
    """A scratch server and a migrated database to copy."""
    shm = Path("/dev/shm")
    home = Path(
        tempfile.mkdtemp(prefix="meter-pipeline-lives-", dir=where or (shm if os.access(shm, os.W_OK) else None))
    )
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    cluster.start("fsync=off", "full_page_writes=off", "max_wal_size=512MB")
    try:
        own = Database(cluster.url("postgres"))
        template = ensure_database(own, "template_lives")
        migrate(template)
        yield own, template
    finally:
        cluster.delete()
        shutil.rmtree(home, ignore_errors=True)


def play_plan(own: Database, template: Database, number: int, plan: Plan) -> Played:
    """Play a city in a database and a folder of its own."""
    name = f"city_{number}"
    copy_database(own, name, template.name)
    try:
        with tempfile.TemporaryDirectory(prefix="lives-") as folder:
            lives = [Life(k, base, history) for k, (base, history) in enumerate(plan.lives)]
            return play(City(own.sibling(name), Path(folder)), plan.script, lives)
    finally:
        with own.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _play(url: str, template: str, number: int, plan: Plan) -> Played:
    own = Database(url)
    return play_plan(own, own.sibling(template), number, plan)


def play_all(plans: Sequence[Plan], jobs: int, report: Path | None) -> dict[str, object]:
    """Play cities in some processes; failures go to stdout as they come."""
    began, lives, failed = time.monotonic(), 0, []
    with server() as (own, template), ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        jobs_of = {pool.submit(_play, own.url, template.name, k, plan): plan for k, plan in enumerate(plans)}
        for n, done in enumerate(as_completed(jobs_of), 1):
            plan, played = jobs_of[done], done.result()
            lives += played.lives
            seed = "" if plan.seed is None else f"seed {plan.seed}: "
            failed += [f"{seed}{f}" for f in played.failures]
            for f in played.failures[:20]:
                print(f"{seed}{f}", flush=True)
            print(
                f"{n}/{len(plans)} {' '.join(plan.script)}: {played.lives} lives, {len(played.failures)} failed, {played.seconds}",
                file=sys.stderr,
                flush=True,
            )
            figures: dict[str, object] = {
                "cities": n,
                "lives": lives,
                "failed": len(failed),
                "seconds": round(time.monotonic() - began),
            }
            if report is not None:
                report.write_text(json.dumps(figures | {"failures": failed}, indent=1) + "\n")
    return figures


def main() -> int:
    reader = argparse.ArgumentParser()
    reader.add_argument("--small", type=int, default=100, help="cities of small histories, at most")
    reader.add_argument("--skip", type=int, default=0, help="leave out so many cities of small histories first")
    reader.add_argument("--every", type=int, default=4, help="play every so manieth small history; 1 plays all 112,706")
    reader.add_argument("--long", type=int, default=10, help="cities of long random histories")
    reader.add_argument("--first-seed", type=int, default=0)
    reader.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    reader.add_argument("--json", type=Path)
    reader.add_argument("--only", help="SCRIPT:BASE:EVENTS, each list separated by commas")
    given = reader.parse_args()
    if given.only:
        script, base, events = given.only.split(":")
        plans = [Plan(tuple(script.split(",")), ((base, tuple(events.split(","))),))]
    else:
        plans = small_plans(given.every)[given.skip :][: given.small] + [
            long_plan(given.first_seed + k) for k in range(given.long)
        ]
    figures = play_all(plans, given.jobs, given.json)
    print(json.dumps(figures, indent=1))
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
