"""What is wrong with a folder of reference tables: which file, which line, why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: which file, which line (1 is the header), which column, why."""

    file: str
    line: int
    column: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {self.column}: {self.why}"
            if self.column
            else f"{self.file}:{self.line}: {self.why}"
        )


class ReferenceRefused(ValueError):
    """An import that was refused; ``faults`` names every reason."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(f"{len(faults)} faults; first: {faults[0]}")
        self.faults = faults
