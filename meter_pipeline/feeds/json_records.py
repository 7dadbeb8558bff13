"""Records in a JSON document: the values below some paths, lists on the way gone through."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from meter_pipeline.feeds.rejects import FeedRefused

#: (number of the column, keys that are still to be followed)
Wanted = list[tuple[int, tuple[str, ...]]]

#: the step below a list of plain values that stands for the number of each, from 1
NUMBER: Final = "#"
_POINT: Final = re.compile(r"(?<!\\)\.")


def steps_of(path: str) -> tuple[str, ...]:
    """The keys of a path; a point that belongs to a key has a backslash before it."""
    return tuple(step.replace("\\.", ".") for step in _POINT.split(path))


def path_of(steps: tuple[str, ...]) -> str:
    """The path of keys, as ``steps_of`` reads it."""
    return ".".join(step.replace(".", "\\.") for step in steps)


def by_position(wanted: Wanted) -> bool:
    """Whether some path takes elements of lists by their place, or their numbers."""
    return any(step == NUMBER or step.isdigit() for _, steps in wanted for step in steps)


@dataclass(slots=True)
class Records:
    """Records column by column: the values of each column, all of one length."""

    count: int = 0
    columns: dict[int, list[Any]] = field(default_factory=dict)

    def append(self, other: Records) -> None:
        """Add records below these; a column that one of the two lacks is empty there."""
        for at in self.columns.keys() | other.columns.keys():
            column = self.columns.get(at)
            if column is None:
                column = self.columns[at] = [None] * self.count
            column += other.columns.get(at) or [None] * other.count
        self.count += other.count


def expand(node: Any, wanted: Wanted) -> Records:
    """The records below a node."""
    if isinstance(node, list):
        return _listed(node, wanted)
    if not isinstance(node, dict):
        return Records(1)
    groups: dict[str, Wanted] = {}
    for at, steps in wanted:
        groups.setdefault(steps[0], []).append((at, steps[1:]))
    fixed: dict[int, Any] = {}
    lists: list[Records] = []
    columns: dict[int, list[Any]] = {}
    for step, group in groups.items():
        value = node.get(step)
        for at, rest in group:
            if isinstance(value, list) and rest in ((), (NUMBER,)):
                columns[at] = value if not rest else list(map(str, range(1, len(value) + 1)))
            elif not rest:
                fixed[at] = value
        deeper = [(at, rest) for at, rest in group if rest and rest != (NUMBER,)]
        if deeper and isinstance(value, dict | list):
            below = expand(value, deeper)
            if isinstance(value, list) or below.count != 1:
                lists.append(below)
            else:
                fixed |= {at: column[0] for at, column in below.columns.items()}
    if columns:
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise FeedRefused("bad_document", f"lists side by side of {' and '.join(map(str, sorted(lengths)))} values")
        lists.append(Records(lengths.pop(), dict(columns)))
    if len(lists) > 1:
        raise FeedRefused("bad_document", "two lists of reads side by side: declare a head-end for each")
    found = lists[0] if lists else Records(1)
    for at, value in fixed.items():
        found.columns[at] = [value] * found.count
    return found


def _listed(nodes: list[Any], wanted: Wanted) -> Records:
    """The records of a list's elements: at once where each element is one record of plain values. A list of plain
    values whose places are wanted is one record."""
    if nodes and not any(isinstance(node, dict | list) for node in nodes) and by_position(wanted):
        places = [(at, int(steps[0])) for at, steps in wanted if len(steps) == 1 and steps[0].isdigit()]
        return Records(1, {at: [nodes[place]] for at, place in places if place < len(nodes)})
    plain = all(len(steps) == 1 for _, steps in wanted) and all(type(node) is dict for node in nodes)
    if plain:
        columns = {at: [node.get(steps[0]) for node in nodes] for at, steps in wanted}
        if not any(type(value) is list for column in columns.values() for value in column):
            return Records(len(nodes), columns)
    found = Records()
    for node in nodes:
        found.append(expand(node, wanted))
    return found
