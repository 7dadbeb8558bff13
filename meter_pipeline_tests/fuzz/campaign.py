"""A fuzzing campaign: every target in turn, a slice at a time, until the time is used up.

``python -m meter_pipeline_tests.fuzz.campaign --work FOLDER --seconds 7200 [--slice 300] [NAME ...]``. One line a slice
goes to ``FOLDER/campaign.jsonl``: target, executions, wall and processor seconds, peak resident memory, signatures of
broken promises. ``--report`` adds the lines up; ``--keep N`` reduces the corpora to what adds coverage and writes up to
N small inputs of each to ``corpus/``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from meter_pipeline_tests.fuzz import seeds
from meter_pipeline_tests.fuzz.targets import TARGETS


def one_slice(name: str, work: Path, seconds: int) -> dict[str, Any]:
    """Fuzz one target for a while, in a process of its own; its figures."""
    (work / "logs").mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "meter_pipeline_tests.fuzz.run",
        name,
        "--work",
        str(work),
        "--seconds",
        str(seconds),
    ]
    with (work / "logs" / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        code = process.wait()
    status = work / "status" / f"{name}-{process.pid}.json"
    figures: dict[str, Any] = (
        json.loads(status.read_text())
        if status.is_file()
        else {"target": name, "executions": 0, "wall_seconds": 0, "cpu_seconds": 0}
    )
    return figures | {
        "exit": code,
        "corpus": len(os.listdir(work / "corpus" / name)) if (work / "corpus" / name).is_dir() else 0,
    }


def campaign(work: Path, seconds: int, piece: int, names: list[str]) -> None:
    """Slices until the wall seconds of fuzzing add up to ``seconds``."""
    work.mkdir(parents=True, exist_ok=True)
    used = 0.0
    while used < seconds:
        for name in names:
            began = time.monotonic()
            figures = one_slice(name, work, piece)
            used += float(figures["wall_seconds"])
            with (work / "campaign.jsonl").open("a") as log:
                log.write(json.dumps(figures) + "\n")
            if used >= seconds:
                break
            time.sleep(max(0.0, 2 - (time.monotonic() - began)))


def report(work: Path) -> dict[str, Any]:
    """Executions and seconds per target over all slices."""
    total: dict[str, dict[str, Any]] = {}
    for line in (work / "campaign.jsonl").read_text().splitlines():
        row = json.loads(line)
        into = total.setdefault(
            row["target"],
            {"executions": 0, "wall_seconds": 0.0, "cpu_seconds": 0.0, "max_rss_mib": 0, "corpus": 0, "signatures": []},
        )
        for key in ("executions", "wall_seconds", "cpu_seconds"):
            into[key] = round(into[key] + row[key], 1)
        into["max_rss_mib"] = max(into["max_rss_mib"], row.get("max_rss_mib", 0))
        into["corpus"] = max(into["corpus"], row["corpus"])
        into["signatures"] = sorted({*into["signatures"], *row.get("signatures", [])})
    whole = {
        key: round(sum(row[key] for row in total.values()), 1) for key in ("executions", "wall_seconds", "cpu_seconds")
    }
    return {"targets": dict(sorted(total.items())), "total": whole}


def kept(name: str, work: Path, most: int) -> list[bytes]:
    """The corpus of a target, reduced by libFuzzer's merge to what adds coverage; the smallest ``most``."""
    with tempfile.TemporaryDirectory() as folder:
        reduced = Path(folder) / "reduced"
        reduced.mkdir()
        command = [
            sys.executable,
            "-m",
            "meter_pipeline_tests.fuzz.run",
            name,
            "--work",
            str(Path(folder) / "work"),
            "-merge=1",
            str(reduced),
        ]
        subprocess.run(
            [*command, str(work / "corpus" / name)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        found = sorted((path.read_bytes() for path in reduced.iterdir()), key=len)
    return found[:most]


def main() -> None:
    reader = argparse.ArgumentParser()
    reader.add_argument("names", nargs="*", default=[])
    reader.add_argument("--work", type=Path, required=True)
    reader.add_argument("--seconds", type=int, default=7200)
    reader.add_argument("--slice", type=int, default=300)
    reader.add_argument("--report", action="store_true")
    reader.add_argument("--keep", type=int, default=0)
    given = reader.parse_args()
    names = given.names or list(TARGETS)
    if given.report:
        print(json.dumps(report(given.work), indent=1))
    elif given.keep:
        for name in names:
            seeds.keep("corpus", name, kept(name, given.work, given.keep))
    else:
        campaign(given.work, given.seconds, given.slice, names)


if __name__ == "__main__":
    main()
