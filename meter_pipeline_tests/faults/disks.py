"""Disks that are full: the server's data, or its log, on a small tmpfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from meter_pipeline_tests.faults.bench import Bench


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A tmpfs of so many MiB. Raises PermissionError where it cannot be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="meter-pipeline-disk-"))
    folder.chmod(0o711)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        folder.rmdir()
        raise PermissionError(done.stderr.decode(errors="replace").strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def filled(folder: Path) -> Path:
    """A ballast that leaves no room."""
    ballast = folder / "ballast"
    room = os.statvfs(folder)
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_frsize - 65_536, 4096))
        file.seek(0, os.SEEK_END)
        while True:
            file.write(b"x" * 65_536)
            file.flush()
    return ballast


def data_full(seed: int) -> dict[str, Any]:
    """The data's disk fills in the middle of a run; nothing is acknowledged that is not there, and all goes on once
    there is room."""
    with small_disk(400) as disk:
        bench = Bench("wal_keep_size=0", "max_wal_size=64MB", "min_wal_size=32MB", data_on=disk)
        try:
            with bench.case(seed, 3) as case:
                ballast: list[Path] = []

                def fill() -> None:
                    ballast.append(filled(disk))
                    case.injected += 1

                with case.at_batch(case.rng.randint(0, 2), fill):
                    try:
                        case.run()
                    except (psycopg.Error, OSError) as error:
                        case.errors.append(type(error).__name__)
                for path in ballast:
                    path.unlink(missing_ok=True)
                bench.start()
                for _ in range(100):
                    try:
                        case.reckon()
                        break
                    except psycopg.OperationalError:
                        time.sleep(0.2)
                return {
                    "injected": case.injected,
                    "acknowledged": case.acknowledged,
                    "recovery_s": round(case.recovery_s, 2),
                    "errors": case.errors,
                }
        finally:
            bench.close()


def wal_full(seed: int) -> dict[str, Any]:
    """The log's disk fills: the server stops itself. What was acknowledged is there when it is back."""
    with small_disk(160) as disk:
        bench = Bench("max_wal_size=48MB", "min_wal_size=32MB")
        try:
            bench.cluster.stop("fast")
            wal, owner = bench.cluster.data / "pg_wal", bench.cluster.data.stat()
            shutil.copytree(wal, disk / "pg_wal")
            shutil.rmtree(wal)
            wal.symlink_to(disk / "pg_wal")
            for path in (disk, *disk.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid)
            bench.start()
            with bench.case(seed, 3) as case:
                ballast: list[Path] = []

                def fill() -> None:
                    ballast.append(filled(disk))
                    case.injected += 1
                    with (
                        contextlib.suppress(psycopg.Error),
                        case.database.connect("chaos", autocommit=True) as connection,
                    ):
                        connection.execute(
                            "CREATE TABLE public.ballast AS SELECT repeat(md5(n::text), 100) FROM generate_series(1, 20000) AS n"
                        )

                with case.at_batch(case.rng.randint(0, 2), fill):
                    try:
                        case.run()
                    except (psycopg.Error, OSError) as error:
                        case.errors.append(type(error).__name__)
                for path in ballast:
                    path.unlink(missing_ok=True)
                bench.start()
                time.sleep(0.5)
                case.reckon()
                return {
                    "injected": case.injected,
                    "acknowledged": case.acknowledged,
                    "recovery_s": round(case.recovery_s, 2),
                    "errors": case.errors,
                }
        finally:
            bench.close()


def suite(only: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Both, where a disk can be mounted."""
    rows = []
    for name, strike, first, count in (
        ("disk of the data full (tmpfs)", data_full, 501, 3),
        ("disk of the log full (tmpfs)", wal_full, 601, 3),
    ):
        if only not in name:
            continue
        row: dict[str, Any] = {
            "fault": name,
            "injected": 0,
            "cases": 0,
            "acknowledged": 0,
            "lost": 0,
            "duplicated": 0,
            "recovery_s": 0.0,
            "failed": [],
            "seeds": [first, first + count - 1],
        }
        for seed in range(first, first + count):
            try:
                figures = strike(seed)
            except PermissionError as error:
                say(f"{name}: left out, no disk can be mounted here: {error}")
                break
            except Exception as error:  # a kind that fails is a row that says so
                row["failed"].append(f"SEED={seed}: {type(error).__name__}: {error}"[:600])
                say(f"{name}: SEED={seed}: {error}")
                continue
            row["cases"] += 1
            row["injected"] += figures["injected"]
            row["acknowledged"] += figures["acknowledged"]
            row["recovery_s"] = max(row["recovery_s"], figures["recovery_s"])
        if row["cases"] or row["failed"]:
            rows.append(row)
            say(f"{name}: {row['injected']} injected")
    return rows
