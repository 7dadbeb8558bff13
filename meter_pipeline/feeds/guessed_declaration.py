"""A declaration that is guessed from a file, with its open points."""

from __future__ import annotations

from dataclasses import dataclass, field

from meter_pipeline.feeds.head_ends import HeadEnd


@dataclass(slots=True)
class Guess:
    """A declaration and its open points: by key, a line for a person."""

    head_end: HeadEnd
    notes: dict[str, str] = field(default_factory=dict)
