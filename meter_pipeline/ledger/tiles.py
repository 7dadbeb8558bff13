"""The log on disk as C2SP tlog-tiles lays it out, so that public tools read it without our code or our database.

``checkpoint``, ``tile/<level>/<index>[.p/<width>]`` of up to 256 hashes, ``tile/entries/<index>[.p/<width>]`` of bodies
each led by its length in 16 bits. Full tiles never change; partial ones are kept for readers that hold an older
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable

from meter_pipeline.ledger import merkle

WIDTH = 256


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Where a tile lies: index in groups of three digits, all but the last led by x; ``.p/width`` where it is
    partial.
    """
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    path = f"tile/{level}/{'/'.join(reversed(groups))}"
    return path if width == WIDTH else f"{path}.p/{width}"


def tiles_of(size: int, since: int = 0) -> list[tuple[int, int, int]]:
    """(level, index, width) of the tiles of a tree that a tree of ``since`` leaves did not have in this form."""
    found = []
    level, now, before = 0, size, since
    while now:
        found += [(level, index, min(WIDTH, now - index * WIDTH)) for index in range(before // WIDTH, -(-now // WIDTH))]
        level, now, before = level + 1, now // WIDTH, before // WIDTH
    return found


def folder_reader(read_bytes: Callable[[str], bytes], size: int) -> merkle.NodeReader:
    """A NodeReader over published tiles of a log of ``size`` entries; ``read_bytes`` gets a path relative to
    the log.
    """
    tiles: dict[tuple[int, int], bytes] = {}

    def read(level: int, index: int) -> bytes:
        tile_level, above = divmod(level, 8)
        start, count = index << above, 1 << above
        tile = start // WIDTH
        if (tile_level, tile) not in tiles:
            width = min(WIDTH, (size >> (8 * tile_level)) - tile * WIDTH)
            tiles[tile_level, tile] = read_bytes(tile_path(tile_level, tile, width))
        offset = (start % WIDTH) * merkle.HASH_SIZE
        flat = tiles[tile_level, tile][offset : offset + count * merkle.HASH_SIZE]
        if len(flat) != count * merkle.HASH_SIZE:
            raise IndexError(f"the tile at level {tile_level} index {tile} is too short")
        return merkle.root_of_hashes(flat)

    return read
