"""The rollback guard of a migration: evaluates the rollback triggers and rolls back when one is met."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.control.tables import evidence, metrics, observations, pauses
from meter_pipeline.migration import tables
from meter_pipeline.migration.rollback import RollbackFacts, RolledBack, roll_back, triggers
from meter_pipeline.postgres.database import Database

GUARD: Final = "migration-guard"
#: Stages in which the new side has authority, so that there is something to take back.
GUARDED: Final = ("live", "ramp_down")
#: Feeds come nightly: an hour's window would be empty at noon and hold everything at three.
WINDOW: Final = timedelta(hours=24)
BASELINE: Final = timedelta(days=7)
#: A billing day is billed by noon of the next (field practice), and seven hours of the schedule's own slack lie before
# that.
LAG_LIMIT: Final = timedelta(hours=12)


def look(connection: tables.Connection, calendar: BillingCalendar, *, clock: Clock = SYSTEM_CLOCK) -> RollbackFacts:
    """Returns the figures that the triggers need. Comparisons from before the stage began belong to the gate, not to
    the guard."""
    now = clock.now()
    value = flags.read(connection, STAGE)
    money, missing = _differences(connection, value.changed_at)
    verified = evidence.last_verification(connection)
    rows = evidence.rejections(connection, now, WINDOW, BASELINE, None)
    shares = [_shares([counts[at] for _, *counts in rows]) for at in range(len(evidence.MEASURES))]
    opened = [since for _, since in evidence.open_breakers(connection)]
    return RollbackFacts(
        unexplained_money=money,
        missing_new=missing,
        ledger_verifies=verified is None or verified[0],
        dead_letter_share=shares[0][0],
        dead_letter_share_7_days=shares[0][1],
        refused=tuple((measure, *share) for measure, share in zip(evidence.MEASURES[1:], shares[1:], strict=True)),
        breaker_open_s=max(((now - since).total_seconds() for since in opened), default=0.0),
        slow_p95_for_s=_slow(observations.observations(connection, "writes")),
        lag_s=_lag(metrics.latest_billed_day(connection), calendar, now),
        lag_limit_s=LAG_LIMIT.total_seconds(),
        paused=bool(pauses.active_pauses(connection)),
    )


def guard(database: Database, calendar: BillingCalendar, *, clock: Clock = SYSTEM_CLOCK) -> RolledBack | None:
    """Run one round. In the stages live and ramp_down, roll back when any trigger is met; in other stages, do nothing.
    Commits."""
    with database.connect("migration-guard") as connection:
        if flags.read(connection, STAGE).value["stage"] not in GUARDED:
            return None
        pulled = triggers(look(connection, calendar, clock=clock))
    return roll_back(database, pulled, by=GUARD, clock=clock) if pulled else None


def _differences(connection: tables.Connection, since: datetime | None) -> tuple[int, int]:
    """Returns unexplained money (sum of absolute differences of lines and totals) and the number of results missing on
    our side, by the last live comparison of each day."""
    latest: dict[date, Any] = {}
    for run in tables.comparison_runs(connection):
        if run["mode"] == "live" and (since is None or run["compared_at"] >= since):
            latest[run["billing_day"]] = run["summary"]
    rows = [row for summary in latest.values() for row in summary]
    money = sum(
        int(r["absolute"])
        for r in rows
        if r["class"] in ("unexplained", "key_mismatch") and r["level"] in ("line", "total")
    )
    return money, sum(int(r["figures"]) for r in rows if r["class"] == "missing_new")


def _shares(counts: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Returns the rejected share of received reads over all head-ends, in the window and in the days before it."""
    received, rejected, received_before, rejected_before = (sum(row[at] for row in counts) for at in range(4))
    return _share(received, rejected), _share(received_before, rejected_before)


def _share(received: int, rejected: int) -> float:
    # What was rejected may have been received before the window began: a share is never more than one.
    return rejected / max(received, rejected) if rejected else 0.0


def _slow(rows: list[dict[str, Any]]) -> float:
    """Returns how long the p95 of writes has been above its limit, as the last load reported."""
    since = [(row["observed_at"], row["figures"].get("slow_since")) for row in rows]
    return max(((at - datetime.fromisoformat(began)).total_seconds() for at, began in since if began), default=0.0)


def _lag(latest: date | None, calendar: BillingCalendar, now: datetime) -> float:
    """Returns the seconds since the end of the first closed day that is not billed; 0 where every closed day is billed
    or no day was."""
    if latest is None:
        return 0.0
    return max(0.0, (now - calendar.bounds(latest + timedelta(days=1))[1]).total_seconds())
