"""The 75 migrations of release 0.2.0 that 0101 to 0112 replaced, as they were."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(folder: Path) -> Path:
    """A folder of them below ``folder``."""
    into = folder / "old_chain"
    with tarfile.open(Path(__file__).with_name("old_chain.tar.xz")) as packed:
        packed.extractall(into, filter="data")
    return into
