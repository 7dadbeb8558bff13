"""Shared by all pull methods: fetched files, the reason why none came, and the secrets of a declaration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path


class PullError(RuntimeError):
    """The day could not be pulled; the message says why. What came so far is kept and the next pull goes on
    from there.
    """


class NotReadyError(RuntimeError):
    """The head-end is still preparing the report: the next pull collects it."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pulled day: the inbox file (None where the day was empty), its reads (0 where they were not counted), the pages
    asked for, the attempts beyond the first, and whether the file is a new one (its name is made of its content: the
    same answer is the same file)."""

    day: date
    path: Path | None
    reads: int
    pages: int
    retries: int
    new: bool = True


def secret(variable: str, head_end: str) -> str:
    """The value of an environment variable that a declaration names. Raises PullError where it has none."""
    value = os.environ.get(variable)
    if not value:
        raise PullError(f"{head_end}: the environment has no {variable}")
    return value
