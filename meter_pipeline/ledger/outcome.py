"""Findings of a verification of the ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from meter_pipeline.ledger.checkpoints import WitnessSeen

#: More findings than this say nothing new: a rewritten entry early in the log breaks every root after it.
FINDINGS_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be; ``index`` is the place in the log, where it has one."""

    check: str
    detail: str
    index: int | None = None


@dataclass(slots=True)
class VerifyOutcome:
    """What was verified. ``start`` is the place verification began at, ``checked`` counts what was looked at by
    name.
    """

    origin: str | None
    start: int
    size: int
    root: bytes
    findings: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    witness: WitnessSeen | None = None
    bypass: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def first_bad_index(self) -> int | None:
        return min((finding.index for finding in self.findings if finding.index is not None), default=None)

    def find(self, check: str, detail: str, index: int | None = None) -> None:
        """Note a finding, up to FINDINGS_LIMIT of them."""
        if len(self.findings) < FINDINGS_LIMIT:
            self.findings.append(Finding(check, detail, index))

    def add(self, other: VerifyOutcome) -> None:
        """Add the findings and counts of another verification after the ones that are here."""
        for finding in other.findings:
            self.find(finding.check, finding.detail, finding.index)
        self.checked.update(other.checked)

    def put_first(self, other: VerifyOutcome) -> None:
        """Add the findings and counts of another verification, its findings first."""
        self.findings = [*other.findings, *self.findings][:FINDINGS_LIMIT]
        self.checked.update(other.checked)

    def document(self) -> dict[str, Any]:
        """For ``--json`` and for metadata."""
        return {
            "ok": self.ok,
            "origin": self.origin,
            "from": self.start,
            "size": self.size,
            "root": self.root.hex(),
            "first_bad_index": self.first_bad_index,
            "findings": [
                {"check": finding.check, "index": finding.index, "detail": finding.detail} for finding in self.findings
            ],
            "checked": dict(self.checked),
            "last_witness": None
            if self.witness is None
            else {"name": self.witness.name, "size": self.witness.size, "at": self.witness.at},
            "bypass": list(self.bypass),
        }
