"""A JSON document's records by the compiled loop (kernels_json.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from meter_pipeline.feeds import compiled
from meter_pipeline.feeds.absorb import is_utf8
from meter_pipeline.feeds.json_records import Wanted


def scanned_records(content: bytes, wanted: Wanted) -> bytes | None:
    """The records of a document as lines of text with tabs between the values; None where the slow way must read it:
    an unusual document, or a process that has not read enough to compile its loops."""
    scan, fast = compiled.kernel("scan_json_document", len(content))
    return records_by(scan, compiled.kernel("write_records", 0)[0], content, wanted) if fast else None


def records_by(scan: Callable[..., Any], write: Callable[..., Any], content: bytes, wanted: Wanted) -> bytes | None:
    """As ``scanned_records``, by given loops, compiled or not."""
    if not is_utf8(content):
        return None
    nodes: dict[tuple[str, ...], int] = {(): 0}
    for _, steps in wanted:
        for depth in range(1, len(steps) + 1):
            nodes.setdefault(steps[:depth], len(nodes))
    column = np.full(len(nodes), -1, np.int64)
    below = np.zeros((len(nodes), len(wanted)), np.uint8)
    for at, steps in wanted:
        column[nodes[steps]] = at
        for depth in range(len(steps) + 1):
            below[nodes[steps[:depth]], at] = 1
    paths = list(nodes)
    if any(column[nodes[path[:-1]]] >= 0 for path in paths if path):
        return None  # a key that is both a value and an object
    names = [(path[-1] if path else "").encode("utf-8") for path in paths]
    key_begin = np.cumsum([0, *map(len, names)]).astype(np.int64)
    parents = np.array([nodes[path[:-1]] if path else -1 for path in paths], np.int64)
    data: Any = np.frombuffer(content, np.uint8)
    most = content.count(b"{")
    begins = np.empty((len(wanted), most), np.int64)
    lengths = np.empty((len(wanted), most), np.int32)
    known: Any = np.frombuffer(b"".join(names) or b"\\0", np.uint8)
    rows = int(scan(data, data.size, known, key_begin, column, parents, below, begins, lengths))
    if rows < 0:
        return None
    begins, lengths = begins[:, :rows], lengths[:, :rows]
    size = int(lengths[begins >= 0].sum()) + rows * len(wanted)
    out = np.empty(max(size, 1), np.uint8)
    return out[: int(write(data, begins, lengths, rows, 9, out))].tobytes()
