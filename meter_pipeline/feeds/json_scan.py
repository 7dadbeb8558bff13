"""A JSON document's records by the compiled loop (kernels_json.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds import compiled
from meter_pipeline.feeds.absorb import is_utf8
from meter_pipeline.feeds.json_records import NUMBER, Wanted
from meter_pipeline.feeds.kernels_json import OVERFLOW

#: Numbers of values that the loop writes, and places of values that it finds; longer lists are read the slow way.
_NUMBERS: Final = 20_000
_PLACES: Final = 1000


@dataclass(frozen=True, slots=True)
class Loops:
    """The loops, compiled or not."""

    scan: Callable[..., Any]
    write: Callable[..., Any]
    unescape: Callable[..., Any]


def scanned_records(content: bytes, wanted: Wanted, decimal: str = ".") -> bytes | None:
    """The records of a document as lines of text with tabs between the values; None where the slow way must read it:
    an unusual document, or a process that has not read enough to compile its loops."""
    scan, fast = compiled.kernel("scan_json_document", len(content))
    if not fast or len(decimal) != 1 or not decimal.isascii():
        return None
    loops = Loops(scan, compiled.kernel("write_records", 0)[0], compiled.kernel("unescaped", 0)[0])
    return records_by(loops, content, wanted, decimal)


@dataclass(frozen=True, slots=True)
class _Tree:
    """The wanted paths as the loop takes them."""

    names: list[bytes]
    parents: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    below: npt.NDArray[np.uint8]
    number: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]


def _tree(wanted: Wanted) -> _Tree | None:
    """None where the loop does not read such paths."""
    nodes: dict[tuple[str, ...], int] = {(): 0}
    keys = [(at, steps[:-1] if steps[-1] == NUMBER else steps) for at, steps in wanted]
    if any(NUMBER in steps or not steps for _, steps in keys):
        return None
    for _, steps in keys:
        for depth in range(1, len(steps) + 1):
            nodes.setdefault(steps[:depth], len(nodes))
    column, number = (np.full(len(nodes), -1, np.int64) for _ in range(2))
    below = np.zeros((len(nodes), len(wanted)), np.uint8)
    places: list[tuple[int, int, int]] = []
    for (at, steps), (_, whole) in zip(keys, wanted, strict=True):
        (number if whole != steps else column)[nodes[steps]] = at
        for depth in range(len(steps) + 1):
            below[nodes[steps[:depth]], at] = 1
        if steps[-1].isdigit():
            if not steps[-1].isascii() or int(steps[-1]) >= _PLACES:
                return None
            places.append((nodes[steps[:-1]], int(steps[-1]), at))
    place = np.full((len(nodes), 1 + max((k for _, k, _ in places), default=-1)), -1, np.int64)
    for node, k, at in places:
        place[node, k] = at
    paths = list(nodes)
    if any(column[nodes[path[:-1]]] >= 0 for path in paths if path):
        return None  # a key that is both a value and an object
    names = [(path[-1] if path else "").encode("utf-8") for path in paths]
    parents = np.array([nodes[path[:-1]] if path else -1 for path in paths], np.int64)
    return _Tree(names, parents, column, below, number, place)


def records_by(loops: Loops, content: bytes, wanted: Wanted, decimal: str = ".") -> bytes | None:
    """As ``scanned_records``, by given loops."""
    tree = _tree(wanted)
    if tree is None or not is_utf8(content):
        return None
    data: Any = np.frombuffer(content, np.uint8)
    if b"\\" in content:
        plain = np.empty(data.size, np.uint8)
        data = plain[: int(loops.unescape(data, data.size, plain))]
    size = data.size
    number_at = np.zeros(1, np.int64)
    if tree.number.max() >= 0:
        texts = [b"%d" % k for k in range(1, _NUMBERS + 1)]
        number_at = np.cumsum([size, *map(len, texts)]).astype(np.int64)
        data = np.concatenate([data, np.frombuffer(b"".join(texts), np.uint8)])
    known: Any = np.frombuffer(b"".join(tree.names) or b"\0", np.uint8)
    key_begin = np.cumsum([0, *map(len, tree.names)]).astype(np.int64)
    objects, lists, values = content.count(b"{"), content.count(b"["), content.count(b",")
    room = [objects] if not (lists and _counts_values(tree)) else []
    for most in (*room, objects + lists + values // max(len(wanted) - 1, 1), objects + lists + values):
        begins = np.empty((len(wanted), most), np.int64)
        lengths = np.empty((len(wanted), most), np.int32)
        options = (tree.column, tree.parents, tree.below, tree.number, tree.place, number_at, begins, lengths)
        rows = int(loops.scan(data, size, known, key_begin, *options))
        if rows != OVERFLOW:
            break
    if rows < 0:
        return None
    begins, lengths = begins[:, :rows], lengths[:, :rows]
    out = np.empty(max(int(lengths[begins >= 0].sum()) + rows * len(wanted), 1), np.uint8)
    return out[: int(loops.write(data, begins, lengths, rows, 9, ord(decimal), out))].tobytes()


def _counts_values(tree: _Tree) -> bool:
    """Whether values or places of lists are records."""
    return bool(tree.number.max() >= 0 or tree.place.shape[1] > 0)
