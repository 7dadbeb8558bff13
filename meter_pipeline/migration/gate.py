"""The gate of the cut-over: 72 continuous hours without an unexplained difference, plus replay and coverage, as one
report with a hash.

Why more than 72 hours: three days see a tenth of a month's billing cycles. The utility anchor for parallel running is a
full month of bill cycles and the first three of the next; so replay is asked for beside the live clock, and coverage of
rare events (clock change, exchange, rollover).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

#: Hours of live comparison without a reset: the mission's own figure.
LIVE_HOURS: Final = 72
#: A live comparison older than this does not count as continuous: a nightly batch, a late one, and two hours of slack.
LONGEST_SILENCE: Final = timedelta(hours=26)
#: A billing day is live when it is compared before noon of the day after next anywhere on Earth: 60 hours after its
#: end by the legacy batch's grace, and 14 for the zone. Later it is a replay of what is known already.
LIVE_WITHIN: Final = timedelta(hours=74)
#: Days to replay: the longest month.
REPLAY_DAYS: Final = 31
REPLAY_CYCLES: Final = 3
#: Each stratum must have been compared at least so often; fewer and its first failure would be the customers' to find.
COVERAGE: Final[dict[str, int]] = {
    "rate_class": 30,
    "commodity": 100,
    "clock_change": 2,
    "estimated": 30,
    "exchange": 3,
    "rollover": 1,
    "net_metering": 3,
    "final_bill": 1,
}
#: Zero mismatches in n comparisons bound the rate by 3/n at 95 % (rule of three): one in 10,000 needs 30,000.
LARGEST_RATE: Final = 1 / 10_000
#: A report older than this is not evidence of now.
FRESH: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Requirements:
    """Conditions of the gate; changing one is a configuration change and resets the clock."""

    live_hours: int = LIVE_HOURS
    longest_silence: timedelta = LONGEST_SILENCE
    replay_days: int = REPLAY_DAYS
    replay_cycles: int = REPLAY_CYCLES
    coverage: Mapping[str, int] = field(default_factory=lambda: dict(COVERAGE))
    largest_rate: float = LARGEST_RATE


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One comparison of live results: when it ended, how many bills both sides had, how many figures of a blocking
    class, under which configuration.

    Bills and not figures are counted for the bound on errors: the figures of a bill are wrong together. A billing day
    compared again adds no hours and no bills: what counts is its last comparison.
    """

    at: datetime
    billing_day: date
    compared: int
    blocking: int
    absolute_money: int
    configuration: str

    @property
    def live(self) -> bool:
        """Whether the day was recent when it was compared."""
        return self.at - datetime.combine(self.billing_day, time(), UTC) - timedelta(days=1) <= LIVE_WITHIN


@dataclass(frozen=True, slots=True)
class Event:
    """Something that resets the clock: an emergency pause, a changed rule, tariff, threshold, stage or code version."""

    at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All the gate looks at. ``coverage``: stratum ("rate_class:RES-TOU", "commodity:water", "exchange") -> comparisons
    seen, live and replayed. ``strata``: the strata the reference data has, by family, so that a rate class that is not
    compared is missed by name."""

    live: Sequence[LiveRun] = ()
    events: Sequence[Event] = ()
    replayed_days: frozenset[date] = frozenset()
    replayed_cycles: frozenset[str] = frozenset()
    replay_blocking: int = 0
    coverage: Mapping[str, int] = field(default_factory=dict)
    strata: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of the gate, in words and figures."""

    name: str
    met: bool
    have: str
    need: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate at an instant. ``clock_started``: since when the live comparison has run without a reset (None: it has
    not)."""

    at: datetime
    green: bool
    clock_started: datetime | None
    reset_by: str | None
    compared: int
    error_bound: float | None
    conditions: tuple[Condition, ...]

    @property
    def sha256(self) -> str:
        """Hash of the whole report. Two people sign this hash."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "at": self.at.astimezone(UTC).isoformat(),
            "green": self.green,
            "clock_started": self.clock_started.astimezone(UTC).isoformat() if self.clock_started else None,
            "reset_by": self.reset_by,
            "compared": self.compared,
            "error_bound": None if self.error_bound is None else f"{self.error_bound:.9f}",
            "conditions": [asdict(condition) for condition in self.conditions],
        }

    def fresh(self, now: datetime) -> bool:
        return timedelta(0) <= now - self.at <= FRESH


def evaluate(evidence: Evidence, now: datetime, requirements: Requirements | None = None) -> GateReport:
    """Weigh the evidence. The gate is green when every condition is met; nothing outweighs anything."""
    needs = requirements or Requirements()
    started, reset_by = live_clock(evidence, now, needs)
    counted = [run for run in evidence.live if started is not None and started <= run.at <= now]
    # One comparison for each billing day, its last: repeating one adds neither hours nor bills.
    days = {run.billing_day: run for run in sorted(counted, key=lambda run: run.at) if run.live and run.compared}
    # A day is 24 hours; that of a clock change is an hour more or less, and three of them are 72 within an hour.
    hours = 0.0 if started is None else min((now - started) / timedelta(hours=1), 24.0 * len(days))
    compared = sum(run.compared for run in days.values())
    bound = 3 / compared if compared else None
    money = sum(run.absolute_money for run in counted if run.blocking)
    few = bound is not None and bound <= needs.largest_rate
    conditions = [
        Condition(
            "live_hours",
            hours >= needs.live_hours,
            f"{hours:.1f} h of {len(days)} billing days",
            f"{needs.live_hours} h without a reset",
        ),
        Condition(
            "error_bound", few, "none" if bound is None else f"{bound:.2e}", f"at most {needs.largest_rate:.2e} (3/n)"
        ),
        Condition(
            "replayed_days",
            len(evidence.replayed_days) >= needs.replay_days,
            str(len(evidence.replayed_days)),
            str(needs.replay_days),
        ),
        Condition(
            "replayed_cycles",
            len(evidence.replayed_cycles) >= needs.replay_cycles,
            str(len(evidence.replayed_cycles)),
            str(needs.replay_cycles),
        ),
        Condition("replay_clean", evidence.replay_blocking == 0, f"{evidence.replay_blocking} blocking", "none"),
        Condition("unexplained_money", money == 0, str(money), "0"),
    ]
    for family, least in sorted(needs.coverage.items()):
        members = [f"{family}:{name}" for name in evidence.strata.get(family, ())] or [family]
        short = {m: evidence.coverage.get(m, 0) for m in members if evidence.coverage.get(m, 0) < least}
        have = "all seen" if not short else ", ".join(f"{m} {n}" for m, n in sorted(short.items())[:8])
        conditions.append(Condition(f"coverage_{family}", not short, have, f"at least {least} each"))
    return GateReport(now, all(c.met for c in conditions), started, reset_by, compared, bound, tuple(conditions))


def live_clock(evidence: Evidence, now: datetime, needs: Requirements) -> tuple[datetime | None, str | None]:
    """Since when live comparison has been continuous, and the event that reset it last.

    The clock starts at the first clean comparison of a live billing day after the last reset. Resets: a comparison with
    a blocking difference, an event, a change of configuration between two comparisons, a silence longer than allowed. A
    comparison in which the legacy side had nothing is silence, and so is the comparison of a day that is no longer
    live.
    """
    started: datetime | None = None
    reason: str | None = None
    previous: LiveRun | None = None
    moments: list[tuple[datetime, int, LiveRun | Event]] = [
        (run.at, 1, run) for run in evidence.live if run.at <= now and ((run.compared and run.live) or run.blocking)
    ]
    moments += [(event.at, 0, event) for event in evidence.events if event.at <= now]
    for at, _, moment in sorted(moments, key=lambda m: (m[0], m[1])):
        if isinstance(moment, Event):
            started, reason = None, f"{moment.what} at {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            continue
        if previous is not None and at - previous.at > needs.longest_silence:
            started, reason = None, f"no comparison from {previous.at:%Y-%m-%d %H:%M} to {at:%Y-%m-%d %H:%M} UTC"
        if previous is not None and previous.configuration != moment.configuration:
            started, reason = None, f"configuration changed before {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        previous = moment
        if moment.blocking:
            started, reason = None, f"{moment.blocking} blocking differences on {moment.billing_day}"
        elif started is None:
            started = at
    if previous is not None and now - previous.at > needs.longest_silence:
        return None, f"no comparison since {previous.at:%Y-%m-%d %H:%M} UTC"
    return started, reason
