"""The published list of rules: code, bit, severity by role, source.

A bit position, once published, keeps its meaning for ever: stored flags of past days are read with it. New rules take
the next free bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final


class Severity(IntEnum):
    """How much a hit weighs. ``fail`` on an interval means the value is not used; on a row, that a person must look."""

    INFORM = 0
    WARN = 1
    FAIL = 2


class Role(StrEnum):
    """Which data is being judged: reads as they first come, a person's own edit, or our estimates (field: VEE groups by
    role)."""

    INITIAL = "initial"
    MANUAL = "manual"
    ESTIMATE = "estimate"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: ``code`` is its public name, ``bit`` its place in the flags, ``severity`` by the roles it runs in.

    ``terminates``: a hit ends the row's validation, because nothing later would mean anything (unknown meter, wrong
    unit). ``check`` is None for rules whose hits are found elsewhere (register reads, estimation) and only recorded
    under this code.
    """

    code: str
    bit: int
    severity: Mapping[Role, Severity]
    source: str
    about: str
    terminates: bool = False
    check: Callable[..., Any] | None = None

    @property
    def mask(self) -> int:
        return 1 << self.bit


#: Rules of single intervals (int32 flags) and of rows (int64 flags), by code.
INTERVAL_RULES: Final[dict[str, Rule]] = {}
ROW_RULES: Final[dict[str, Rule]] = {}
INTERVAL_BITS: Final = 31
ROW_BITS: Final = 63


def everywhere(severity: Severity) -> dict[Role, Severity]:
    """The same severity in every role."""
    return dict.fromkeys(Role, severity)


def register(registry: dict[str, Rule], limit: int, rule: Rule) -> Rule:
    """Add a rule to a list. Raises ValueError where its code or bit is taken or out of range."""
    if rule.code in registry or any(rule.bit == other.bit for other in registry.values()) or not 0 <= rule.bit < limit:
        raise ValueError(f"rule {rule.code} (bit {rule.bit}) does not fit the published list")
    registry[rule.code] = rule
    return rule


def mask_of(registry: Mapping[str, Rule], severity: Severity, role: Role) -> int:
    """All bits of a list that weigh at least ``severity`` in a role."""
    return sum(rule.mask for rule in registry.values() if rule.severity.get(role, Severity.INFORM) >= severity)


def codes(registry: Mapping[str, Rule], flags: int) -> list[str]:
    """Names of the rules in a flags number, in bit order."""
    return [rule.code for rule in sorted(registry.values(), key=lambda r: r.bit) if flags & rule.mask]
