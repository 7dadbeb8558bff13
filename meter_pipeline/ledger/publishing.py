"""Writing the log to disk as tlog-tiles (tiles.py says the layout)."""

from __future__ import annotations

import struct
from pathlib import Path

from meter_pipeline.ledger import merkle, notes, tiles
from meter_pipeline.ledger.signer import write_atomically
from meter_pipeline.ledger.tables import entries


def publish(connection: entries.Connection, folder: Path, size: int, note: str) -> int:
    """Write the files that a reader of the checkpoint ``note`` of ``size`` entries still lacks; the checkpoint goes
    last.

    Returns how many files were written. Safe to repeat; a folder that was lost is written again whole.
    """
    since = _published(folder)
    if since > size:
        since = 0
    written = 0
    for level, index, width in tiles.tiles_of(size, since):
        start, end = index * tiles.WIDTH, index * tiles.WIDTH + width
        data = (
            entries.leaf_hashes(connection, start, end)
            if level == 0
            else entries.node_hashes(connection, 8 * level, start, end)
        )
        if len(data) != width * merkle.HASH_SIZE:
            raise IndexError(f"the log lacks part of tile level {level} index {index}")
        written += _write(folder / tiles.tile_path(level, index, width), data)
        if level == 0:
            written += _write(folder / tiles.tile_path("entries", index, width), _bundle(connection, start, end))
    write_atomically(folder / "checkpoint", note)
    return written + 1


def _published(folder: Path) -> int:
    try:
        return notes.parse_checkpoint(notes.parse_note((folder / "checkpoint").read_text("utf-8")).text).size
    except (FileNotFoundError, notes.NoteError):
        return 0


def _bundle(connection: entries.Connection, start: int, end: int) -> bytes:
    return b"".join([struct.pack(">H", len(body)) + body for body in entries.bodies(connection, start, end)])


def _write(path: Path, data: bytes) -> int:
    if path.exists() and path.read_bytes() == data:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.fresh")
    fresh.write_bytes(data)
    fresh.replace(path)
    return 1
