"""The diagram of the tables: which table is computed from which, as an SVG that any browser draws.

A column holds a database schema, or those that lie side by side; reads and reference data go in at the left, bills and
evidence come out at the right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape
from typing import Final

#: Schemas of each column, from left to right, and a colour for each.
COLUMNS: Final = (("ref", "control"), ("raw",), ("vee",), ("anomaly",), ("billing",), ("migration", "ledger"))
_COLOURS: Final = {
    "ref": "#4c6a92",
    "control": "#8a6d3b",
    "raw": "#2f7d6d",
    "vee": "#6b5b95",
    "anomaly": "#b5533c",
    "billing": "#2d6cb5",
    "migration": "#7a7a52",
    "ledger": "#5a5a5a",
}
_WIDTH, _HEIGHT, _APART, _STEP, _TOP = 158, 24, 250, 34, 60


def draw(edges: Iterable[tuple[str, str]]) -> str:
    """The SVG of (source, table) pairs of names with their schemas. Raises KeyError for a schema without a column."""
    edges = sorted(set(edges))
    places = _places(edges)
    height = max(y for _, y in places.values()) + _HEIGHT + 20
    width = (len(COLUMNS) - 1) * _APART + _WIDTH + 80
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n',
        "<title>Tables, and what each is computed from</title>\n",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n',
        '<marker id="end" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">',
        '<path d="M0 0 L6 3 L0 6 z" fill="#666666"/></marker>\n',
    ]
    for source, table in edges:
        colour = _COLOURS[source.split(".")[0]]
        line = _line(places[source], places[table])
        said = escape(f"{table} is computed from {source}")
        parts.append(
            f'<path d="{line}" fill="none" stroke="{colour}" stroke-opacity="0.6" marker-end="url(#end)">'
            f"<title>{said}</title></path>\n"
        )
    for name, (x, y) in places.items():
        schema, table = name.split(".")
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" fill="{_COLOURS[schema]}"/>'
            f'<text x="{x + 8}" y="{y + 16}" fill="#ffffff">{escape(table)}</text>\n'
        )
    for number, schemas in enumerate(COLUMNS):
        for schema in schemas:
            top = min((y for name, (_, y) in places.items() if name.startswith(f"{schema}.")), default=_TOP)
            parts.append(
                f'<text x="{20 + number * _APART}" y="{top - 8}" font-size="13" font-weight="bold" '
                f'fill="{_COLOURS[schema]}">{schema}</text>\n'
            )
    return "".join([*parts, "</svg>\n"])


def _places(edges: list[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Left upper corner of each table. In its schema a table stands near the tables of other columns it has to do with.

    Each round sorts a schema's tables by the mean height of their neighbours in the round before.
    """
    column = {schema: number for number, schemas in enumerate(COLUMNS) for schema in schemas}
    near: dict[str, list[str]] = defaultdict(list)
    for source, table in edges:
        near[source].append(table)
        near[table].append(source)
    beside = {
        name: [other for other in others if column[other.split(".")[0]] != column[name.split(".")[0]]]
        for name, others in near.items()
    }
    height = {name: float(position) for position, name in enumerate(sorted(near))}
    found: dict[str, tuple[int, int]] = {}
    for _ in range(8):
        for number, schemas in enumerate(COLUMNS):
            y = _TOP
            for schema in schemas:
                for name in sorted((n for n in near if n.startswith(f"{schema}.")), key=lambda n: (height[n], n)):
                    found[name] = (20 + number * _APART, y)
                    y += _STEP
                y += _STEP
        height = {
            name: sum(found[other][1] for other in others) / len(others) if others else float(found[name][1])
            for name, others in beside.items()
        }
    lowest: dict[int, int] = defaultdict(int)
    for x, y in found.values():
        lowest[x] = max(lowest[x], y)
    tallest = max(lowest.values())
    return {name: (x, y + (tallest - lowest[x]) // 2) for name, (x, y) in sorted(found.items())}


def _line(source: tuple[int, int], table: tuple[int, int]) -> str:
    """A curve from the source's right side to the table's left, or from right to right within a column."""
    middle = _HEIGHT // 2
    x, y, to_y = source[0] + _WIDTH, source[1] + middle, table[1] + middle
    if source[0] == table[0]:
        out = x + 14 + min(50, abs(to_y - y) // 6)
        return f"M{x} {y} C{out} {y} {out} {to_y} {x} {to_y}"
    to_x = table[0] if table[0] > source[0] else table[0] + _WIDTH
    from_x = x if table[0] > source[0] else source[0]
    half = (from_x + to_x) // 2
    return f"M{from_x} {y} C{half} {y} {half} {to_y} {to_x} {to_y}"
