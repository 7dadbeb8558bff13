"""A judged shard as a file, for the process that writes the day: what one worker made, another can read.

A file is one NumPy archive: the arrays and Arrow-encoded frames as members, everything else as one JSON member that
refers to them. It is not a pickle: the folder is shared between machines, and reading a file must not run what somebody
wrote into it. Only the classes named here are made, and only of the file whose hash the one who judged it left in the
database.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline.vee.estimation.multi_day_registers import OtherDay, Stretch
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.rules.model import RowContext, ValidatedMatrix
from meter_pipeline.vee.streaming import Judged, Piece
from meter_pipeline.vee.validate import Peers

_CLASSES: Final = {
    cls.__name__: cls for cls in (DayMatrix, DayRows, Judged, OtherDay, Piece, RowContext, Stretch, ValidatedMatrix)
}
_TREE: Final = "tree"


class ParcelError(ValueError):
    """A file that is not what this module writes: cut off, of another version, or somebody else's."""


def write(path: Path, piece: Piece) -> tuple[int, bytes]:
    """Write a piece; returns the file's size and SHA-256. The file appears under its name only when it is whole and on
    the disk."""
    parts: dict[str, Any] = {}
    tree = _tree(piece, parts)
    parts[_TREE] = np.frombuffer(json.dumps(tree, separators=(",", ":")).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w+b") as file:
        np.savez(file, **parts)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").digest()
    beside.rename(path)
    return size, digest


def read(path: Path, sha256: bytes) -> Piece:
    """Read the piece whose file has a hash. Raises FileNotFoundError, and ParcelError for anything but that file, whole
    and of this version."""
    content = path.read_bytes()
    if hashlib.sha256(content).digest() != sha256:
        raise ParcelError(f"{path.name}: not the file that was left")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            piece = _object(json.loads(parts[_TREE].tobytes()), parts)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise ParcelError(f"{path.name}: {error}") from error
    if not isinstance(piece, Piece):
        raise ParcelError(f"{path.name}: holds a {type(piece).__name__}")
    return piece


def _tree(value: Any, parts: dict[str, Any]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.ndarray):
        return {"a": _member(value, parts)}
    if isinstance(value, pl.DataFrame):
        buffer = io.BytesIO()
        value.write_ipc(buffer)
        return {"f": _member(np.frombuffer(buffer.getvalue(), np.uint8), parts)}
    if isinstance(value, pl.Series):
        return {"s": _tree(value.to_frame(), parts)}
    if isinstance(value, date):
        return {"d": value.isoformat()}
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Peers):
        return {"p": _tree(value.sums, parts)}
    if isinstance(value, dict):
        return {"m": [[_tree(k, parts), _tree(v, parts)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"t": [_tree(v, parts) for v in value]}
    if isinstance(value, list):
        return [_tree(v, parts) for v in value]
    if is_dataclass(value) and type(value).__name__ in _CLASSES:
        return {"c": type(value).__name__, "v": {f.name: _tree(getattr(value, f.name), parts) for f in fields(value)}}
    raise TypeError(f"a shard holds a {type(value).__name__}")


def _member(array: Any, parts: dict[str, Any]) -> str:
    name = f"m{len(parts)}"
    parts[name] = array
    return name


def _object(tree: Any, parts: Any) -> Any:
    if isinstance(tree, list):
        return [_object(v, parts) for v in tree]
    if not isinstance(tree, dict):
        return tree
    match tree:
        case {"c": name, "v": values}:
            return _CLASSES[name](**{k: _object(v, parts) for k, v in values.items()})
        case {"a": name}:
            return parts[name]
        case {"f": name}:
            return pl.read_ipc(io.BytesIO(parts[name].tobytes()))
        case {"s": frame}:
            return _object(frame, parts).to_series()
        case {"d": text}:
            return date.fromisoformat(text)
        case {"p": sums}:
            return Peers(sums=_object(sums, parts))
        case {"m": pairs}:
            return {_object(k, parts): _object(v, parts) for k, v in pairs}
        case {"t": values}:
            return tuple(_object(v, parts) for v in values)
        case _:
            raise ValueError(f"unknown member {list(tree)[:3]}")
