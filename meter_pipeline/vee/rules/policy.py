"""Action on the bill when a validation rule hits: the shipped policy and a utility's own, by rule and day."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, get_args

from meter_pipeline.vee.rules import interval_rules, row_rules
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity, mask_of

Action = Literal["hold", "estimate", "bill"]
ACTIONS: Final = get_args(Action)
#: Row rules whose values an estimate may replace. A register that disagrees by a power of ten is itself in doubt, and
#: gives no estimate.
ESTIMATED_ROWS: Final = frozenset({"SUM_CHECK"})
#: Row rules that say that intervals were missing: those are estimated in any case
_MISSING: Final = frozenset({"NO_DATA", "GAPS", "NOT_ESTIMATED", "PROLONGED_ESTIMATION"})
FILE_NAME: Final = "validation_policy.toml"
_KEYS: Final = {"rule", "action", "case", "from", "to", "why"}

_FILLED: Final = (interval_rules, row_rules)  # importing them fills the catalogue


class PolicyError(ValueError):
    """A policy file that cannot be used; the message names the file, the rule and the change to make."""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One rule's action on the days from ``first`` to ``past`` (excluded; None: open)."""

    rule: str
    action: Action
    case: bool
    first: date | None
    past: date | None
    why: str

    def holds_on(self, day: date) -> bool:
        """Whether the entry is in force on a day."""
        return (self.first is None or self.first <= day) and (self.past is None or day < self.past)


@dataclass(frozen=True, slots=True)
class DayPolicy:
    """The policy of one billing day.

    ``row_action`` and ``interval_action``: action by code of the rules that are listed; ``cases``: codes that open a
    case. ``listed_rows`` and ``listed_intervals``: bits of the rules whose hits become exceptions of the day.
    ``estimate_intervals``: bits of interval rules whose hits are replaced by an estimate beyond those of severity
    ``fail``; ``estimate_off_register``: whether a row that misses its register is estimated from it.
    """

    row_action: dict[str, Action]
    interval_action: dict[str, Action]
    cases: frozenset[str]
    listed_rows: int
    listed_intervals: int
    estimate_intervals: int
    estimate_off_register: bool

    def action(self, code: str) -> Action:
        """Returns the action for a finding of a rule, or of a reference exception."""
        return self.row_action.get(code) or self.interval_action.get(code) or "bill"

    def opens_case(self, code: str) -> bool:
        """Whether a finding goes to the exception queue."""
        return code in self.cases

    @property
    def estimates_more(self) -> int:
        """A number that is 0 where only values of severity ``fail`` are estimated: it goes into the hash of what a row
        is made from.
        """
        return self.estimate_intervals << 1 | int(self.estimate_off_register)


@dataclass(frozen=True, slots=True)
class Policies:
    """All entries of a utility. ``digest``: SHA-256 of the files they were read from, in hex."""

    entries: tuple[PolicyEntry, ...]
    digest: str

    def on(self, day: date) -> DayPolicy:
        """The policy in force on a billing day; an entry of the utility stands before a shipped one, a later before an
        earlier.
        """
        chosen = {entry.rule: entry for entry in self.entries if entry.holds_on(day)}
        rows: dict[str, Action] = {c: e.action for c, e in chosen.items() if c in ROW_RULES}
        intervals: dict[str, Action] = {c: e.action for c, e in chosen.items() if c in INTERVAL_RULES}
        cases = frozenset(c for c, e in chosen.items() if e.case or e.action == "hold")
        failing = mask_of(ROW_RULES, Severity.FAIL, Role.INITIAL)
        listed = failing | sum(ROW_RULES[c].mask for c in rows if c in cases and not ROW_RULES[c].mask & failing)
        refused = mask_of(INTERVAL_RULES, Severity.FAIL, Role.INITIAL)
        more = sum(INTERVAL_RULES[c].mask for c, a in intervals.items() if a == "estimate")
        return DayPolicy(
            rows,
            intervals,
            cases,
            listed,
            sum(INTERVAL_RULES[c].mask for c in intervals if c in cases),
            more & ~refused,
            rows.get("SUM_CHECK") == "estimate",
        )


def _entry(raw: Any, where: str) -> PolicyEntry:
    if not isinstance(raw, dict):
        raise PolicyError(f"{where}: [[policy]] is a table with rule, action and why")
    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise PolicyError(f"{where}: no key {', '.join(unknown)}; there are {', '.join(sorted(_KEYS))}")
    rule, action = str(raw.get("rule", "")), str(raw.get("action", ""))
    where = f"{where}: {rule or 'a policy without rule'}"
    if rule not in ROW_RULES and rule not in INTERVAL_RULES:
        raise PolicyError(f"{where}: no such rule; meter-pipeline vee rules lists them")
    if action not in ACTIONS:
        raise PolicyError(f"{where}: action {action!r} is not one of {', '.join(ACTIONS)}")
    refusing = rule in INTERVAL_RULES and INTERVAL_RULES[rule].severity.get(Role.INITIAL) == Severity.FAIL
    if refusing and action == "bill":
        raise PolicyError(f"{where}: a value that fails it is no usage; say estimate or hold")
    if rule in ROW_RULES and action == "estimate" and rule not in ESTIMATED_ROWS | _MISSING:
        raise PolicyError(f"{where}: nothing to estimate from; say hold or bill")
    days = [raw.get("from"), raw.get("to")]
    if any(d is not None and type(d) is not date for d in days):
        raise PolicyError(f"{where}: from and to are dates, such as 2027-01-01")
    if not str(raw.get("why", "")).strip():
        raise PolicyError(f"{where}: why is missing; the reason stands beside the rule for whoever asks")
    return PolicyEntry(rule, action, bool(raw.get("case", False)), days[0], days[1], str(raw["why"]).strip())  # type: ignore[arg-type]  # checked above


def parse(content: bytes, name: str) -> tuple[PolicyEntry, ...]:
    """Entries of a policy file. Raises PolicyError naming the file and the rule."""
    try:
        doc = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"{name}: {error}") from error
    unknown = sorted(set(doc) - {"version", "policy"})
    if unknown:
        raise PolicyError(f"{name}: no key {', '.join(unknown)}; it holds [[policy]] tables")
    return tuple(_entry(raw, name) for raw in doc.get("policy", []))


def load(folder: Path | None = None) -> Policies:
    """The shipped policy with that of a utility's data folder before it, where it has one. Raises PolicyError."""
    content = resources.files(__package__).joinpath("policy.toml").read_bytes()
    entries = parse(content, "policy.toml")
    digest = hashlib.sha256(content)
    own = folder / FILE_NAME if folder is not None else None
    if own is not None and own.exists():
        mine = own.read_bytes()
        entries += parse(mine, str(own))
        digest.update(mine)
    return Policies(entries, digest.hexdigest())


@lru_cache(maxsize=1)
def default() -> Policies:
    """The policy the package ships."""
    return load()
