"""Faults of people, time and files: pauses, clocks, files that come again, torn or growing."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import threading
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from meter_pipeline.control.pause import CHECKLIST, confirm_resume, raise_pause, request_resume
from meter_pipeline.feeds import HeadEnd
from meter_pipeline.feeds import parse as parse_feed
from meter_pipeline.feeds.rejects import FileGrowing
from meter_pipeline.ingest import land
from meter_pipeline_tests.faults.bench import Bench, Case, parse
from meter_pipeline_tests.faults.catalogue import fault
from meter_pipeline_tests.ingest.support import places
from meter_pipeline_tests.simulation.contents import CALENDAR, CONTENTS, NORTH, content, payloads


@fault("pause raised in the middle of a run", 12, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:

        def pause() -> None:
            raise_pause(case.database, reason="fault suite", by="ann")
            case.injected += 1
            threading.Timer(0.4, resume).start()

        def resume() -> None:
            asked = request_resume(
                case.database, reason="looked", by="ann", checklist=dict.fromkeys(CHECKLIST, "looked")
            )
            confirm_resume(case.database, asked.request_id, by="ben")

        with case.at_batch(case.rng.randint(0, 2), pause):
            case.try_run()
        timer = next((each for each in threading.enumerate() if isinstance(each, threading.Timer)), None)
        if timer is not None:
            timer.join()
        case.reckon()
    return case


@fault("wall clock jumps an hour", 10, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:

        def jump() -> None:
            case.clock.jump_s += case.rng.choice((-3600.0, 3600.0))
            case.injected += 1

        with case.at_batch(case.rng.randint(0, 3), jump):
            case.try_run()
        case.reckon()
    return case


@fault("the same file again, under other names", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        number = case.rng.randrange(CONTENTS)
        for name in ("file", "other", "third"):
            case.land(number, name=name)
            if case.rng.random() < 0.5:
                case.run()
        case.injected += 2
        case.reckon()
    return case


@fault("corrections in any order", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 0) as case:
        numbers = case.rng.sample(range(CONTENTS), 6)
        for at in range(0, 6, 2):
            case.land(*numbers[at : at + 2])
            case.run()
        case.injected += 6
        case.reckon()
    return case


@fault("a value no table takes, among good ones", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    poisoned = [number for number in range(CONTENTS) if any(payload.poison for payload in payloads(number))]
    with bench.case(seed) as case:
        number = case.rng.choice(poisoned)
        case.land(number)
        case.injected += sum(payload.poison for payload in payloads(number))
        case.reckon()
    return case


@fault("staged reads lost", 15, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        shutil.rmtree(case.folder / "staging", ignore_errors=True)
        case.injected += 1
        case.reckon()
    return case


@fault("staged reads torn", 15)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        for path in (case.folder / "staging").glob("*/*.arrow"):
            body = path.read_bytes()
            path.write_bytes(body[: case.rng.randrange(len(body))])
            case.injected += 1
        case.reckon()
    return case


_CSV: Final = HeadEnd(
    "C", "delimited", interval_minutes=60, unit="kWh", zone="UTC", columns={"meter_id": "m", "time": "t", "value": "v"}
)


@fault("file cut short, or growing while it is read", 15, 1)
def _(bench: Bench, seed: int) -> Case:
    """A truncated archive is refused whole and registers no reads; a growing file is held."""
    with bench.case(seed) as case:
        path = case.folder / "cut.csv.gz"
        whole = gzip.compress(b"m,t,v\n" + b"M-0,2024-03-10T08:00:00Z,1\n" * 50)
        path.write_bytes(whole[: case.rng.randrange(20, len(whole) - 1)])
        landed = land(case.database, CALENDAR, path, _CSV, places(case.folder), parse=parse_feed, clock=case.clock)
        assert landed.refused is not None
        assert landed.received == 0
        case.sent[landed.sha256] = []
        growing = case.folder / "growing.csv"
        growing.write_bytes(b"m,t,v\n" + b"M-0,2024-03-10T08:00:00Z,1\n" * 10)

        def parse_while(path: Path, head_end: HeadEnd, calendar: Any) -> Any:
            parsed = parse_feed(path, head_end, calendar)
            with path.open("ab") as more:
                more.write(b"M-0,2024-03-10T09:00:00Z,1\n")
            return parsed

        with pytest.raises((ValueError, FileGrowing)):
            land(case.database, CALENDAR, growing, _CSV, places(case.folder), parse=parse_while, clock=case.clock)
        case.injected += 2
        case.reckon()
    return case


@fault("landing killed between archive and register", 15)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        number = case.rng.randrange(CONTENTS)
        case.failpoint("raw.feed_file", "57P01", [1])
        path = case.folder / f"file-{number}-9"
        path.write_bytes(content(number)[0])
        with contextlib.suppress(psycopg.Error):
            land(case.database, CALENDAR, path, NORTH, places(case.folder), parse=parse, clock=case.clock)
        case.clear_failpoint("raw.feed_file")
        case.land(number)
        case.reckon()
    return case
