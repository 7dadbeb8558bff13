"""The watch: compare the recorded evidence with the pause rules, and raise the pause where a rule is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import rules
from meter_pipeline.control.pause import WATCHER, PauseState, raise_pause
from meter_pipeline.control.rules import Finding, Observations, Thresholds
from meter_pipeline.control.tables import evidence, observations, pauses
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database


@dataclass(frozen=True, slots=True)
class WatchRound:
    """Result of one round of the watch."""

    seen: Observations
    findings: list[Finding]
    raised: list[PauseState]


def observe_breaker(connection: driver.Connection, name: str, *, is_open: bool, clock: Clock = SYSTEM_CLOCK) -> None:
    """Hand in a breaker's change of state, in the caller's transaction."""
    now = clock.now()
    observations.observe(connection, "breaker", name, now, {"open": is_open, "since": now.isoformat()})


def observe_ledger(connection: driver.Connection, *, ok: bool, detail: str, clock: Clock = SYSTEM_CLOCK) -> None:
    """Hand in the result of a verification of the ledger, in the caller's transaction."""
    observations.observe(connection, "ledger", "log", clock.now(), {"ok": ok, "detail": detail[:1500]})


def observe_writes(
    connection: driver.Connection, latencies_ms: Sequence[float], target_ms: float, *, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Hand in how long a load's batches took, in the caller's transaction: p95, and since when it has been over four
    times the target.

    Fewer than 20 batches have no 95th percentile worth the name: the slowest is taken.
    """
    if not latencies_ms:
        return
    now, ordered = clock.now(), sorted(latencies_ms)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    before = next((row["figures"].get("slow_since") for row in observations.observations(connection, "writes")), None)
    slow_since = (before or (now - timedelta(milliseconds=sum(ordered))).isoformat()) if p95 > 4 * target_ms else None
    observations.observe(
        connection,
        "writes",
        "ingest",
        now,
        {"p95_ms": f"{p95:.1f}", "target_ms": f"{target_ms:.1f}", "slow_since": slow_since},
    )


def look(connection: driver.Connection, limits: Thresholds, *, clock: Clock = SYSTEM_CLOCK) -> Observations:
    """Everything the rules need, as it stands now."""
    now = clock.now()
    since = pauses.last_resumed_at(connection)
    verified = evidence.last_verification(connection)
    return Observations(
        now=now,
        since=since,
        breakers=[rules.Breaker(*row) for row in evidence.open_breakers(connection)],
        rejections=[
            rules.Rejections(head_end, counts[0], counts[1], counts[2], counts[3], measure)
            for head_end, *measured in evidence.rejections(connection, now, limits.window, limits.baseline, since)
            for measure, counts in zip(evidence.MEASURES, measured, strict=True)
        ],
        control_totals=[rules.ControlTotal(*row) for row in evidence.unbalanced_files(connection, since)],
        verification=rules.Verification(*verified) if verified else None,
        variances=[rules.Variance(*row) for row in evidence.variances(connection)],
        answered=frozenset(evidence.answered_checks(connection)),
    )


def watch(database: Database, limits: Thresholds | None = None, *, clock: Clock = SYSTEM_CLOCK) -> WatchRound:
    """One round: look, decide, raise. Commits each raise; the same finding twice is raised once. Raises
    psycopg.Error.
    """
    limits = limits or rules.load_thresholds()
    with database.connect("pause-watch") as connection:
        _note_version(connection, limits, clock)
        _note_breakers(connection, clock)
        seen = look(connection, limits, clock=clock)
        connection.commit()
    findings = rules.evaluate(seen, limits)
    raised = [
        raise_pause(database, reason=f.reason, by=WATCHER, scope=f.scope, rule=f.rule, evidence=f.evidence, clock=clock)
        for f in findings
    ]
    return WatchRound(seen, findings, raised)


def _note_breakers(connection: driver.Connection, clock: Clock) -> None:
    """Keep since when a shared breaker has not been closed: half-open trials that fail start its own clock again and
    again."""
    known = {row["subject"]: row["figures"] for row in observations.observations(connection, "breaker")}
    for name, state in evidence.shared_breakers(connection):
        was_open = bool(known.get(name, {}).get("open"))
        if (state != "closed") != was_open:
            observe_breaker(connection, name, is_open=state != "closed", clock=clock)


def _note_version(connection: driver.Connection, limits: Thresholds, clock: Clock) -> None:
    """A thresholds file that comes into use goes on the ledger, once."""
    known = observations.observations(connection, "thresholds")
    if known and known[0]["figures"].get("stamp") == limits.stamp:
        return
    observations.observe(connection, "thresholds", "pause", clock.now(), {"stamp": limits.stamp})
    body = {"rules": "pause", "version": limits.version, "sha256": limits.sha256}
    entries.append(connection, "rule_version", body, clock=clock, actor=WATCHER)
