"""The archive: every file that ever arrived, compressed, under the hash of its own bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CHUNK: Final = 1 << 20


def hash_file(source: Path | int) -> bytes:
    """SHA-256 of a file's bytes; a descriptor is read from its beginning, wherever it stands."""
    digest = hashlib.sha256()
    for chunk in _chunks(source):
        digest.update(chunk)
    return digest.digest()


def _chunks(source: Path | int) -> Iterator[bytes]:
    """The bytes, a megabyte at a time. A descriptor is read by position: several readers share it."""
    if isinstance(source, int):
        at = 0
        while chunk := os.pread(source, CHUNK, at):
            yield chunk
            at += len(chunk)
    else:
        with source.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                yield chunk


def relative_path(sha256: bytes) -> str:
    """Where a file lies below the archive folder: two levels, so that no folder grows past 65,536 entries in
    practice.
    """
    name = sha256.hex()
    return f"{name[:2]}/{name}.zst"


def store(folder: Path, source: Path | int, sha256: bytes | None = None) -> bytes:
    """Keep a compressed copy of a file under its hash, which is returned; ``relative_path`` says where. A file whose
    hash is given may be there already, and is not read then. Synced to disk before it gets its name.

    Raises ValueError where the bytes no longer have the hash that is given: the file changed while it was read.
    """
    import pyarrow as pa

    if sha256 is not None and (folder / relative_path(sha256)).exists():
        return sha256
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, half = tempfile.mkstemp(dir=folder, prefix=".half-")
    os.close(descriptor)
    try:
        digest = hashlib.sha256()
        sink = pa.output_stream(half, compression="zstd")
        with sink:
            for chunk in _chunks(source):
                digest.update(chunk)
                sink.write(chunk)
        found = digest.digest()
        if sha256 not in (None, found):
            raise ValueError("the file changed while it was read")
        with Path(half).open("rb") as written:
            os.fsync(written.fileno())
        target = folder / relative_path(found)
        target.parent.mkdir(exist_ok=True)
        Path(half).replace(target)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise
    return found


def read_bytes(folder: Path, relative: str) -> bytes:
    """Bytes of an archived file."""
    import pyarrow as pa

    with pa.input_stream(str(folder / relative), compression="zstd") as source:
        return bytes(source.read())


def restore(folder: Path, relative: str, target: Path) -> None:
    """Write an archived file's bytes to a path."""
    import pyarrow as pa

    with pa.input_stream(str(folder / relative), compression="zstd") as source, target.open("wb") as sink:
        while chunk := source.read(CHUNK):
            sink.write(chunk)
