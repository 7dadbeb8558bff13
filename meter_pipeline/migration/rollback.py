"""Automatic rollback: decides from measurements whether authority goes back to legacy, while both sides go on being
written.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.ledger import entries
from meter_pipeline.migration import tables
from meter_pipeline.postgres.database import Database

#: Dead letters against the 7-day rate, and as a share of all payloads: three times is a burst, half a percent is too
# many whatever was before.
DEAD_LETTER_TIMES: Final = 3.0
DEAD_LETTER_SHARE: Final = 0.005
BREAKER_OPEN_S: Final = 300.0
#: p95 of a write above four times the 50 ms target for a quarter of an hour: customers' other work is being slowed.
SLOW_P95_S: Final = 0.2
SLOW_FOR_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class RollbackFacts:
    """What the other rooms report at an instant. Rates are shares of payloads; times are seconds; money is millionths
    of the currency."""

    unexplained_money: int = 0
    missing_new: int = 0
    ledger_verifies: bool = True
    dead_letter_share: float = 0.0
    dead_letter_share_7_days: float = 0.0
    #: files and bytes refused whole, which hold no payloads that could be counted: (measure, share, share of 7 days)
    refused: tuple[tuple[str, float, float], ...] = ()
    breaker_open_s: float = 0.0
    slow_p95_for_s: float = 0.0
    lag_s: float = 0.0
    lag_limit_s: float = 12 * 3600.0
    paused: bool = False


def _burst(share: float, before: float) -> bool:
    return (share > DEAD_LETTER_TIMES * before and before > 0) or share > DEAD_LETTER_SHARE


def triggers(seen: RollbackFacts) -> list[str]:
    """Every trigger that is pulled, in words; empty when none is."""
    pulled = []
    if seen.unexplained_money:
        pulled.append(f"unexplained money difference of {seen.unexplained_money} millionths")
    if seen.missing_new:
        pulled.append(f"{seen.missing_new} results missing on the new side")
    if not seen.ledger_verifies:
        pulled.append("the ledger does not verify")
    if _burst(seen.dead_letter_share, seen.dead_letter_share_7_days):
        pulled.append(
            f"dead letters at {seen.dead_letter_share:.2%} against {seen.dead_letter_share_7_days:.2%} over 7 days"
        )
    refused = [
        f"{what} at {now:.2%} against {before:.2%} over 7 days"
        for what, now, before in seen.refused
        if _burst(now, before)
    ]
    if refused:
        pulled.append(f"refused {', '.join(refused)}")
    if seen.breaker_open_s > BREAKER_OPEN_S:
        pulled.append(f"circuit breaker open for {seen.breaker_open_s:.0f} s")
    if seen.slow_p95_for_s > SLOW_FOR_S:
        pulled.append(f"write p95 above {SLOW_P95_S * 1000:.0f} ms for {seen.slow_p95_for_s:.0f} s")
    if seen.lag_s > seen.lag_limit_s:
        pulled.append(f"billing day {seen.lag_s / 3600:.1f} h behind, {seen.lag_limit_s / 3600:.1f} h allowed")
    if seen.paused:
        pulled.append("emergency pause is raised")
    return pulled


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A rollback that happened: from which stage to which, why, and how long it took."""

    before: dict[str, Any]
    after: dict[str, Any]
    reasons: list[str]
    seconds: float


def roll_back(
    database: Database, reasons: list[str], *, by: str, to: str = "dual_write", clock: Clock = SYSTEM_CLOCK
) -> RolledBack | None:
    """Give authority back to legacy: the stage flag goes to ``to``, both sides are still written. None when legacy has
    it already.

    Waits only for the records being written at this instant, which keep the authority they were written under.
    """
    started = perf_counter()
    with database.connect("rollback") as connection:
        flags.ensure(connection, STAGE, by=by, clock=clock)
        before = flags.read(connection, STAGE, lock="update")
        if before.value["stage"] not in ("live", "ramp_down") and not (
            to == "shadow" and before.value["stage"] == "dual_write"
        ):
            return None
        after: dict[str, Any] = {"stage": to, "routes": [], "basis_points": 0}
        words = "; ".join(reasons)
        flags.change_in(connection, STAGE, after, by=by, reason=words[:2000] or "rollback", clock=clock)
        entries.append(
            connection,
            "migration_stage",
            {"from": before.value, "to": after, "reason": words, "by": by, "automatic": True},
            clock=clock,
            actor=by,
        )
        tables.note_event(connection, clock.now(), f"rollback to {to}")
        connection.commit()
    return RolledBack(dict(before.value), after, reasons, perf_counter() - started)
