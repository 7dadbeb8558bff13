"""Staging: the parsed reads of a file, by billing day, waiting on disk between landing and loading.

A staged file is a cache: its bytes follow from the archived feed file, so it is not synced to disk, and one that is
lost or torn is noticed by its hash and made again from the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl


@dataclass(frozen=True, slots=True)
class StagedDay:
    """The reads of one file on one billing day: ``intervals`` a vector frame, ``registers`` one row a reading; both
    sorted by key."""

    intervals: pl.DataFrame
    registers: pl.DataFrame

    @property
    def content_sha256(self) -> bytes:
        """SHA-256 over the payload hashes of the intervals, then of the registers, in row order."""
        digest = hashlib.sha256()
        for frame in (self.intervals, self.registers):
            digest.update(len(frame).to_bytes(8, "big"))
            if frame.height:
                digest.update(b"".join(frame["payload_hash"].to_list()))
        return digest.digest()


def relative_path(sha256: bytes, day: date) -> str:
    """Where the staged reads of a file and day lie below the staging folder."""
    return f"{day:%Y-%m-%d}/{sha256.hex()}"


def write(folder: Path, sha256: bytes, day: date, staged: StagedDay) -> str:
    """Write a staged day; returns its path below the folder. A reader sees all of it or nothing."""
    path = relative_path(sha256, day)
    for kind, frame in (("intervals", staged.intervals), ("registers", staged.registers)):
        if not frame.height:
            continue
        target = folder / f"{path}.{kind}.arrow"
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, half = tempfile.mkstemp(dir=target.parent, prefix=".half-")
        os.close(descriptor)
        try:
            frame.write_ipc(half, compression="uncompressed")
            Path(half).replace(target)
        except BaseException:
            Path(half).unlink(missing_ok=True)
            raise
    return path


def read(folder: Path, path: str) -> StagedDay:
    """Read a staged day back. A part that is not there is empty; a torn one raises polars' ComputeError or OSError."""
    frames = []
    for kind in ("intervals", "registers"):
        target = folder / f"{path}.{kind}.arrow"
        frames.append(pl.read_ipc(target) if target.exists() else pl.DataFrame())
    return StagedDay(*frames)


def remove(folder: Path, path: str) -> None:
    """Forget a staged day once it is loaded. Missing files are fine."""
    for kind in ("intervals", "registers"):
        with contextlib.suppress(OSError):
            (folder / f"{path}.{kind}.arrow").unlink()
    with contextlib.suppress(OSError):
        (folder / path).parent.rmdir()
