"""The rules that raise the emergency pause: pure functions from observations to findings.

Every rule uses only observations from after people last ended a pause, so that evidence they have resumed from does not
raise it again.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from meter_pipeline.control.pause import ALL, Scope
from meter_pipeline.known_keys import refuse_unknown

DEFAULT_FILE: Final = Path(__file__).with_name("thresholds.toml")


class ThresholdError(ValueError):
    """A thresholds file that cannot be used; names the file and the field."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits in force. Times in minutes, hours and days as named; shares between 0 and 1."""

    version: str
    sha256: str
    breaker_open: timedelta
    window: timedelta
    baseline: timedelta
    minimum_reads: int
    minimum_files: int
    minimum_bytes: int
    factor: Decimal
    share: Decimal
    ceiling: Decimal
    control_total_reads: int
    ledger_pause: bool
    ledger_stale: timedelta
    variance_share: Decimal
    variance_units: Decimal

    @property
    def stamp(self) -> str:
        """Version and start of the file's hash, as evidence names them."""
        return f"{self.version}+{self.sha256[:12]}"


def load_thresholds(path: Path = DEFAULT_FILE) -> Thresholds:
    """Read a thresholds file. Raises ThresholdError naming the field that is missing or out of bounds."""
    content = path.read_bytes()
    try:
        raw = tomllib.loads(content.decode("utf-8"))
        refuse_unknown(raw, tomllib.loads(DEFAULT_FILE.read_text("utf-8")))
        thresholds = Thresholds(
            version=str(raw["version"]),
            sha256=hashlib.sha256(content).hexdigest(),
            breaker_open=timedelta(minutes=raw["breaker"]["open_minutes"]),
            window=timedelta(minutes=raw["dead_letters"]["window_minutes"]),
            baseline=timedelta(days=raw["dead_letters"]["baseline_days"]),
            minimum_reads=int(raw["dead_letters"]["minimum_reads"]),
            minimum_files=int(raw["dead_letters"].get("minimum_files", 3)),
            minimum_bytes=int(raw["dead_letters"].get("minimum_bytes", 1_000_000)),
            factor=Decimal(raw["dead_letters"]["factor"]),
            share=Decimal(raw["dead_letters"]["share"]),
            ceiling=Decimal(raw["dead_letters"]["ceiling"]),
            control_total_reads=int(raw["control_totals"]["reads"]),
            ledger_pause=bool(raw["ledger"]["pause"]),
            ledger_stale=timedelta(hours=raw["ledger"]["stale_hours"]),
            variance_share=Decimal(raw["reconciliation"]["share"]),
            variance_units=Decimal(raw["reconciliation"]["minimum_units"]),
        )
    except KeyError as error:
        raise ThresholdError(f"{path}: {error.args[0]} is missing") from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ThresholdError(f"{path}: {error}") from error
    positive = {
        "breaker.open_minutes": thresholds.breaker_open > timedelta(0),
        "dead_letters.window_minutes": thresholds.window > timedelta(0),
        "dead_letters.baseline_days": thresholds.baseline >= thresholds.window,
        "dead_letters.factor": thresholds.factor > 1,
        "dead_letters.share": 0 < thresholds.share <= 1,
        "dead_letters.ceiling": thresholds.share <= thresholds.ceiling <= 1,
        "control_totals.reads": thresholds.control_total_reads >= 0,
        "reconciliation.share": 0 <= thresholds.variance_share < 1,
    }
    if wrong := [name for name, good in positive.items() if not good]:
        raise ThresholdError(f"{path}: {', '.join(wrong)} out of bounds")
    return thresholds


@dataclass(frozen=True, slots=True)
class Breaker:
    """A circuit breaker that is not closed, and since when (UTC)."""

    name: str
    open_since: datetime


@dataclass(frozen=True, slots=True)
class Rejections:
    """Reads, files or bytes (``measure``) received and rejected from one head-end: in the window, and in the
    baseline days before it. A file that was refused as a whole has no reads to count."""

    head_end: str
    received: int
    rejected: int
    baseline_received: int
    baseline_rejected: int
    measure: str = "reads"


@dataclass(frozen=True, slots=True)
class ControlTotal:
    """A loaded file's reads: received, and accounted for as accepted, duplicate, superseded or rejected."""

    file: str
    head_end: str
    received: int
    accounted: int


@dataclass(frozen=True, slots=True)
class Verification:
    """The latest verification of the ledger."""

    ok: bool
    at: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class Variance:
    """Differences at a check without a named cause: sums of absolute differences, and the check's whole quantity in
    ``unit``."""

    billing_day: str
    joint: str
    unit: str
    unexplained: Decimal
    whole: Decimal


@dataclass(frozen=True, slots=True)
class Observations:
    """The input of the rules, read at ``now``. ``since``: when people last ended a pause."""

    now: datetime
    since: datetime | None = None
    breakers: Sequence[Breaker] = ()
    rejections: Sequence[Rejections] = ()
    control_totals: Sequence[ControlTotal] = ()
    verification: Verification | None = None
    variances: Sequence[Variance] = ()
    #: variances of pauses people have ended, as (billing day, joint, unit, unexplained): a table of results keeps no
    # time to compare with
    answered: frozenset[tuple[str, str, str, Decimal]] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason to pause: the rule, the scope, a sentence, and the figures (plain JSON, no floats)."""

    rule: str
    scope: Scope
    reason: str
    evidence: dict[str, Any]


def evaluate(seen: Observations, limits: Thresholds) -> list[Finding]:
    """Returns every finding, in a fixed order, with its evidence and thresholds."""
    found = [
        *breaker_open(seen, limits),
        *dead_letter_burst(seen, limits),
        *control_total(seen, limits),
        *ledger(seen, limits),
        *variance(seen, limits),
    ]
    return [Finding(f.rule, f.scope, f.reason, f.evidence | {"thresholds": limits.stamp}) for f in found]


def breaker_open(seen: Observations, limits: Thresholds) -> list[Finding]:
    """A breaker open longer than its limit: the database or a head-end does not recover."""
    found = []
    for breaker in sorted(seen.breakers, key=lambda b: b.name):
        opened = max(breaker.open_since, seen.since or breaker.open_since)
        if seen.now - opened > limits.breaker_open:
            minutes = int(limits.breaker_open.total_seconds() // 60)
            evidence = {"breaker": breaker.name, "open_since": breaker.open_since.isoformat(), "limit_minutes": minutes}
            found.append(
                Finding(
                    "breaker_open",
                    ALL,
                    f"circuit breaker {breaker.name} has been open for more than {minutes} minutes",
                    evidence,
                )
            )
    return found


def dead_letter_burst(seen: Observations, limits: Thresholds) -> list[Finding]:
    """Rejected reads, files and bytes of the window against the seven days before, by head-end. Findings at several
    head-ends pause all work.

    Fires at the measure's minimum and ``share``, where the share is over ``factor`` times the baseline's (any baseline
    share counts where the baseline is empty), or over ``ceiling`` whatever the baseline.
    """
    by_head_end: dict[str, Finding] = {}
    for one in sorted(seen.rejections, key=lambda r: r.head_end):
        found = _burst(one, limits)
        if found is not None:
            by_head_end.setdefault(one.head_end, found)
    bursts = list(by_head_end.values())
    if len(bursts) < 2:
        return bursts
    reason = f"{len(bursts)} head-ends at once: " + "; ".join(f.reason for f in bursts)
    return [Finding("dead_letter_burst", ALL, reason[:2000], {"head_ends": [f.evidence for f in bursts]})]


def _burst(one: Rejections, limits: Thresholds) -> Finding | None:
    minimum = {"reads": limits.minimum_reads, "files": limits.minimum_files, "bytes": limits.minimum_bytes}
    if one.rejected < minimum[one.measure]:
        return None
    # What was rejected may have been received before the window began: a share is never more than one.
    share = Decimal(one.rejected) / max(one.received, one.rejected)
    before = Decimal(one.baseline_rejected) / max(one.baseline_received, one.baseline_rejected, 1)
    if share < limits.ceiling and not (share >= limits.share and share > limits.factor * before):
        return None
    evidence = {
        "head_end": one.head_end,
        "measure": one.measure,
        "received": one.received,
        "rejected": one.rejected,
        "share": f"{share:.5f}",
        "baseline_received": one.baseline_received,
        "baseline_rejected": one.baseline_rejected,
        "baseline_share": f"{before:.5f}",
        "window_minutes": int(limits.window.total_seconds() // 60),
        "baseline_days": limits.baseline.days,
    }
    words = (
        f"{share:.2%} of the {one.measure} from {one.head_end} were rejected, against {before:.2%} in the "
        f"{limits.baseline.days} days before"
    )
    return Finding("dead_letter_burst", Scope("head_end", one.head_end), words, evidence)


def control_total(seen: Observations, limits: Thresholds) -> list[Finding]:
    """A loaded file whose reads do not add up: reads were lost or counted twice, so all writing stops."""
    broken = sorted(
        (t for t in seen.control_totals if abs(t.received - t.accounted) > limits.control_total_reads),
        key=lambda t: t.file,
    )
    if not broken:
        return []
    files = [
        {"file": t.file, "head_end": t.head_end, "received": t.received, "accounted": t.accounted} for t in broken[:20]
    ]
    worst = broken[0]
    words = (
        f"{len(broken)} files do not add up; {worst.file}: received {worst.received}, accounted for {worst.accounted}"
    )
    return [Finding("control_total", ALL, words, {"files": files, "broken": len(broken)})]


def ledger(seen: Observations, limits: Thresholds) -> list[Finding]:
    """A ledger that does not verify: all writing stops until a person has found the cause."""
    last = seen.verification
    if not limits.ledger_pause or last is None or last.ok or (seen.since is not None and last.at <= seen.since):
        return []
    return [
        Finding(
            "ledger",
            ALL,
            f"the ledger does not verify: {last.detail}"[:2000],
            {"verified_at": last.at.isoformat(), "detail": last.detail},
        )
    ]


def variance(seen: Observations, limits: Thresholds) -> list[Finding]:
    """Differences without a named cause over their share of a billing day's quantity. Absolute differences: opposite
    errors do not cancel."""
    over = [
        v
        for v in sorted(seen.variances, key=lambda v: (v.billing_day, v.joint, v.unit))
        if (v.billing_day, v.joint, v.unit, v.unexplained) not in seen.answered
        and v.unexplained >= limits.variance_units
        and v.unexplained > limits.variance_share * abs(v.whole)
    ]
    if not over:
        return []
    worst = max(over, key=lambda v: v.unexplained)
    checks = [
        {
            "billing_day": v.billing_day,
            "joint": v.joint,
            "unit": v.unit,
            "unexplained": str(v.unexplained),
            "whole": str(v.whole),
        }
        for v in over[:200]
    ]
    words = f"{worst.unexplained} {worst.unit} at {worst.joint} on {worst.billing_day} have no named cause, of {worst.whole}"
    return [Finding("variance", ALL, words, {"joints": checks})]
