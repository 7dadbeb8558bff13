"""One block of a file after the inner loop: arrays, and the distinct texts of its columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds.files import Block

#: Slots of a dictionary at first, as a power of two: 200 kB for six columns, which stay in a core's own cache. Room for
#: every line of a block to be another text is 12 MB to clear, for each block of 8 MB.
_FIRST_BITS: Final = 13


@dataclass(slots=True)
class Scanned:
    """One scanned block, in the kernel's arrays."""

    block: Block
    rows: int
    codes: npt.NDArray[np.int32]
    mantissa: npt.NDArray[np.int64]
    decimals: npt.NDArray[np.int8]
    starts: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]
    texts: list[list[bytes]]

    def raw(self, row: int) -> bytes:
        """The bytes of a line, without its end."""
        begin = int(self.starts[row])
        end = int(self.starts[row + 1]) if row + 1 < self.rows else len(self.block.data)
        return self.block.data[begin:end].removesuffix(b"\n").removesuffix(b"\r")


@dataclass(slots=True)
class ScanBuffers:
    """Arrays for the scan of one block into ``kinds`` dictionary columns and ``values`` numbers."""

    block: Block
    kinds: int
    values: int = 1
    lines: int = 0
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds, values = self.kinds, self.values
        self.lines = rows = self.block.lines
        self.arrays = {
            "codes": np.empty((kinds, rows), np.int32),
            "mantissa": np.zeros((values, rows), np.int64),
            "decimals": np.empty((values, rows), np.int8),
            "starts": np.empty(rows, np.int64),
            "status": np.empty(rows, np.uint8),
            "table": np.full((kinds, 1 << min(max(6, (2 * rows).bit_length()), _FIRST_BITS)), -1, np.int32),
            "entry_begin": np.empty((kinds, rows), np.int64),
            "entry_length": np.empty((kinds, rows), np.int32),
            "counts": np.zeros(kinds, np.int32),
            "follows": np.empty((kinds, rows), np.int32),
            "last": np.full(kinds, -1, np.int32),
        }

    def scan(self, loop: Callable[..., Any], *options: Any) -> Scanned:
        """The block as ``loop`` reads it. Its dictionaries begin small, since most files repeat a few thousand texts;
        where they fill up, all of the block is read again with sixteen times the room."""
        while (rows := int(loop(*options, *self.arrays.values()))) < 0:
            self.arrays["table"] = np.full((self.kinds, self.arrays["table"].shape[1] << 4), -1, np.int32)
            self.arrays["counts"][:] = 0
            self.arrays["last"][:] = -1
        return self._scanned(rows)

    def _scanned(self, rows: int) -> Scanned:
        """The result, with the distinct texts taken out of the block."""
        made, data = self.arrays, self.block.data
        texts = []
        for k in range(self.kinds):
            count = made["counts"][k]
            spans = zip(made["entry_begin"][k, :count].tolist(), made["entry_length"][k, :count].tolist(), strict=True)
            texts.append([data[begin : begin + length] for begin, length in spans])
        return Scanned(
            self.block, rows, made["codes"], made["mantissa"], made["decimals"], made["starts"], made["status"], texts
        )
