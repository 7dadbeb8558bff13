"""Coverage-guided fuzzing of one target: ``python -m meter_pipeline_tests.fuzz.run NAME --work FOLDER --seconds N
[libFuzzer options]``.

Needs the extra ``fuzz`` (atheris). The inner loops run as plain Python, so that the fuzzer sees their branches, and are
compared with the compiled ones (with numba's bounds checks on). A broken promise is written to
``FOLDER/crashes/NAME-SIGNATURE`` once per signature (the kind of error and the lines of this package it passed) and the
fuzzing goes on; only what kills the process ends it. The corpus grows in ``FOLDER/corpus/NAME``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: targets whose inner loops are compared with the compiled ones
COMPILED = (
    "delimited", "jsonl", "nem12", "nem13", "beacon", "marks", "day_row", "values", "fixed", "nested", "json",
    "headings", "meter_columns", "positions",
)  # fmt: skip


def signature(error: BaseException) -> str:
    """What makes two crashes one: the error's type and the last lines of the package it passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "meter_pipeline" in frame.filename]
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-2:]]
    return hashlib.blake2b(f"{type(error).__name__} {where}".encode(), digest_size=6).hexdigest()


def compiled_loops() -> dict[str, Callable[..., Any]]:
    """The inner loops compiled with bounds checks, from modules that are not instrumented and are then forgotten."""
    os.environ["NUMBA_BOUNDSCHECK"] = "1"
    os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / "fuzz-numba-cache")
    loops = importlib.import_module("meter_pipeline.feeds.compiled")
    loops.warm()
    made = dict(loops._loops)
    for name in [
        name
        for name in sys.modules
        if name.split(".")[0] in ("meter_pipeline", "meter_pipeline_tests") and name != __name__
    ]:
        del sys.modules[name]
    return made


def main() -> None:
    reader = argparse.ArgumentParser()
    reader.add_argument("name")
    reader.add_argument("--work", type=Path, required=True)
    reader.add_argument("--seconds", type=int, default=60)
    reader.add_argument(
        "--cpu-seconds", type=int, default=0, help="stop after this much processor time (0: --seconds alone decides)"
    )
    given, rest = reader.parse_known_args()
    import atheris

    twins = compiled_loops() if given.name in COMPILED else {}
    with atheris.instrument_imports(include=["meter_pipeline"]):
        targets = importlib.import_module("meter_pipeline_tests.fuzz.targets")
        for module in (
            "delimited",
            "fixed_width",
            "jsonl",
            "json_document",
            "nem12",
            "nem13",
            "espi",
            "cmep",
            "wide_csv",
            "undeclared",
            "kernels",
            "kernels_json",
            "kernels_nem12",
        ):
            importlib.import_module(f"meter_pipeline.feeds.{module}")
    seeds = importlib.import_module("meter_pipeline_tests.fuzz.seeds")
    compiled: Any = importlib.import_module("meter_pipeline.feeds.compiled")
    compiled.COMPILE_FROM_BYTES = 1 << 62
    targets.TWINS.update(twins)
    target = targets.TARGETS[given.name]

    corpus, crashes = given.work / "corpus" / given.name, given.work / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for data in seeds.seeds(given.name):
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    words = given.work / f"{given.name}.dict"
    words.write_text(
        "".join(
            '"' + "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1", "replace")) + '"\n'
            for word in seeds.WORDS[given.name]
        )
    )

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    status = given.work / "status" / f"{given.name}-{os.getpid()}.json"
    status.parent.mkdir(exist_ok=True)
    known: set[str] = set()
    began, used = time.monotonic(), time.process_time()
    count = 0

    def say() -> None:
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        figures = {
            "executions": count,
            "wall_seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(time.process_time() - used, 1),
            "max_rss_mib": rss,
        }
        status.write_text(json.dumps({"target": given.name, **figures, "signatures": sorted(known)}))

    def once(data: bytes) -> None:
        nonlocal count
        count += 1
        if count % 256 == 0:
            say()
            if given.cpu_seconds and time.process_time() - used > given.cpu_seconds:
                os._exit(0)
        try:
            target(data, folder)
        except Exception as error:
            found = signature(error)
            if found not in known:
                known.add(found)
                (crashes / f"{given.name}-{found}").write_bytes(data)
                (crashes / f"{given.name}-{found}.txt").write_text("".join(traceback.format_exception(error))[-8000:])
                say()

    options = [
        f"-max_total_time={given.seconds}",
        "-rss_limit_mb=1536",
        "-timeout=300",
        "-max_len=4096",
        f"-dict={words}",
    ]
    options.append(f"-artifact_prefix={crashes}/{given.name}-native-")
    atheris.Setup([sys.argv[0], *options, *rest, str(corpus)], once)
    say()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
