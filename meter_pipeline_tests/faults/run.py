"""The fault suite: ``python -m meter_pipeline_tests.faults.run [--json FILE] [--only WORDS] [--scale N]``; ``make
faults`` runs it whole.

Every kind as often as it says, each time with a seed of its own; a failure prints its SEED, and ``--only NAME --seed
SEED`` does it again. The figures go to a JSON file, from which ``--table`` makes the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from meter_pipeline_tests.faults import disks
from meter_pipeline_tests.faults.bench import Bench
from meter_pipeline_tests.faults.kinds import FAULTS, Fault

BEGIN, END = "<!-- fault table: made by `make faults` -->", "<!-- end of fault table -->"


def first_seed(fault: Fault) -> int:
    """Seeds of a kind begin at a number of its name's own."""
    return zlib.crc32(fault.name.encode()) % 100_000 * 100


def suite(
    times: Callable[[Fault], int], only: str = "", say: Callable[[str], None] = print, seed: int | None = None
) -> Iterator[dict[str, Any]]:
    """Every kind, ``times`` of it each; a row of figures a kind. Failures are rows too: ``failed`` names them."""
    bench = Bench()
    try:
        for fault in FAULTS:
            count = times(fault)
            if only not in fault.name or not count:
                continue
            first = first_seed(fault) if seed is None else seed
            row: dict[str, Any] = {
                "fault": fault.name,
                "injected": 0,
                "cases": 0,
                "acknowledged": 0,
                "lost": 0,
                "duplicated": 0,
                "recovery_s": 0.0,
                "failed": [],
            }
            row["seeds"] = [first, first + count - 1]
            began = time.monotonic()
            for number in range(first, first + count):
                bench.lost = bench.doubled = 0
                try:
                    case = fault.strike(bench, number)
                except Exception as error:  # a kind that fails is a row that says so
                    row["failed"].append(f"SEED={number}: {type(error).__name__}: {error}"[:600])
                    say("".join(traceback.format_exception(error))[-3000:])
                    bench.start()
                    continue
                finally:
                    row["lost"] += bench.lost
                    row["duplicated"] += bench.doubled
                row["cases"] += 1
                row["injected"] += case.injected
                row["acknowledged"] += case.acknowledged
                row["recovery_s"] = round(max(row["recovery_s"], case.recovery_s), 2)
            row["seconds"] = round(time.monotonic() - began, 1)
            yield row
            say(
                f"{row['fault']}: {row['injected']} injected in {row['cases']} cases, {row['seconds']} s{' FAILED' if row['failed'] else ''}"
            )
    finally:
        bench.close()


def table(rows: list[dict[str, Any]]) -> str:
    """The table of docs/reliability.md."""
    lines = [
        "| fault | injected | reads acknowledged | lost | duplicated | recovery, most | seeds |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {row['fault']} | {row['injected']} | {row['acknowledged']:,} | {row['lost']} | {row['duplicated']} | {row['recovery_s']:.2f} s "
        f"| {row['seeds'][0]} to {row['seeds'][1]} |"
        for row in rows
    ]
    total = {key: sum(row[key] for row in rows) for key in ("injected", "acknowledged", "lost", "duplicated")}
    lines.append(
        f"| **{len(rows)} kinds** | **{total['injected']:,}** | **{total['acknowledged']:,}** | **{total['lost']}** | **{total['duplicated']}** | | |"
    )
    return "\n".join(lines)


def main() -> int:
    reader = argparse.ArgumentParser()
    reader.add_argument("--json", type=Path)
    reader.add_argument("--only", default="")
    reader.add_argument("--seed", type=int)
    reader.add_argument("--scale", type=float, default=1.0)
    reader.add_argument("--table", type=Path, help="write the table of --json into this document")
    given = reader.parse_args()
    if given.table is not None:
        text = given.table.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        measured = json.loads(given.json.read_text())["rows"]
        given.table.write_text(f"{before}{BEGIN}\n{table(measured)}\n{END}{after}")
        return 0

    def say(text: str) -> None:
        print(text, flush=True)

    def times(fault: Fault) -> int:
        return 1 if given.seed is not None else max(1, round(fault.many * given.scale))

    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for row in chain(
        disks.suite(given.only, say) if given.seed is None else (), suite(times, given.only, say, given.seed)
    ):
        rows.append(row)
        figures = {
            "kinds": len(rows),
            "injected": sum(row["injected"] for row in rows),
            "acknowledged": sum(row["acknowledged"] for row in rows),
            "failed": [each for row in rows for each in row["failed"]],
        }
        if given.json is not None:
            given.json.write_text(json.dumps({**figures, "rows": rows}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    return 1 if figures.get("failed") else 0


if __name__ == "__main__":
    raise SystemExit(main())
