"""Manual edits of register reads: a person corrects, refuses or adds a read; the raw read stays stored beside it.

An edit works like an edit of intervals: the rules for manual override check it, a second person approves it where
required, and it is in force until it is withdrawn. Every day between the reads around it is requested again, so that
usage, findings and bills are updated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.units import MAX_DIAL_MICRO, MICRO, UnitError, base_unit, from_micro, parse_decimal
from meter_pipeline.vee.dated_thresholds import thresholds_on
from meter_pipeline.vee.edits import EditError
from meter_pipeline.vee.estimation.past_usage import PastStretches
from meter_pipeline.vee.registers import assemble, read_window, series
from meter_pipeline.vee.registers.read_rules import stretches
from meter_pipeline.vee.registers.reads import Step
from meter_pipeline.vee.registers.true_up import first_whole_day
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.catalogue import ROW_RULES
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import edits as store
from meter_pipeline.vee.tables import true_up as requests

#: A read this close to the instant that was named is the one that is meant, in seconds
NAMED_WITHIN_S = 60
_WRONG = {Step.DIALS: rr.DIALS, Step.DECREASE: rr.DECREASE, Step.READ_ERROR: rr.READ_ERROR}


@dataclass(frozen=True, slots=True)
class EditedRead:
    """Result of an edit of a register read: its number, its instant, rules that flagged without refusing it, and the
    days that will run again (none while it is a proposal)."""

    edit_id: int
    read_at: datetime
    rules: list[str]
    days: list[date]


@dataclass(frozen=True, slots=True)
class _Register:
    """One register around an instant: its windows of the day, and its reads in force (meter_id, channel, at, value)."""

    day: date
    windows: pl.DataFrame
    reads: pl.DataFrame
    span: tuple[int, int]

    def instants(self) -> list[int]:
        return sorted(self.reads["at"].to_list())


def edit_read(
    database: Database,
    calendar: BillingCalendar,
    meter_id: str,
    channel: str,
    at: datetime,
    shown: int | None,
    *,
    reason: str,
    by: str,
    propose: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> EditedRead:
    """Replace the read of a register at an instant by ``shown`` (micro base units, None: refuse the read).

    Raises EditError where the meter has no such register, where there is no read to refuse, or where a rule refuses the
    value among the reads around it. Writes the edit, a ledger entry and the requests to validate the days between the
    reads around it, in one transaction; with ``propose`` the days are requested when another person approves.
    """
    t = thresholds_on(database, calendar.day_of(at - timedelta(microseconds=1)))
    if not reason.strip():
        raise EditError("an edit needs its reason")
    with reading(database) as session:
        register = _register(session, calendar, meter_id, channel, at)
        when = _meant(register, at, refused=shown is None)
        hits = [] if shown is None else _judge(session, register, when, shown, t)
    moment = datetime.fromtimestamp(when, UTC)
    now = clock.now()
    with database.connect("vee edit") as connection:
        by = decisions.entitled(connection, by, decisions.EDITS)
        number = store.insert_read(
            connection,
            moment,
            calendar.day_of(moment - timedelta(microseconds=1)),
            meter_id,
            channel,
            shown,
            rules=hits,
            rules_version=t.version,
            reason=reason.strip(),
            by=by,
            now=now,
            proposed=propose,
        )
        body = {
            "edit_id": number,
            "read_at": moment.isoformat(),
            "meter_id": meter_id,
            "channel": channel,
            "value": None if shown is None else str(from_micro(shown)),
            "rules": hits,
            "rules_version": t.version,
            "reason": reason.strip(),
            "edited_by": by,
            "proposed": propose,
        }
        encoded = f"{number}\x1f{moment.isoformat()}\x1f{meter_id}\x1f{channel}\x1f{shown}"
        leaf = hashlib.sha256(b"mp-register-edit/1" + encoded.encode()).digest()
        ledger.append(connection, "corrected", body, [leaf], clock=clock, actor=by)
        days = [] if propose else _days(database, calendar, register, when)
        _ask(connection, register, days, leaf, now)
    return EditedRead(number, moment, hits, days)


def dial_micro(database: Database, meter_id: str, channel: str, text: str) -> int:
    """Returns a dial value, given in its own unit, in micro base units. Raises EditError for text that is not a
    number, a value that the dial cannot show, or a meter without such a register."""
    spelled = store.declared_unit(database, meter_id, channel)
    if spelled is None:
        raise EditError(f"{meter_id} has no register {channel}")
    try:
        micro = Fraction(parse_decimal(text)) * base_unit(spelled)[1] * MICRO
    except UnitError as error:
        raise EditError(str(error)) from error
    if micro.denominator != 1 or not 0 <= micro <= MAX_DIAL_MICRO:
        raise EditError(f"{text} {spelled} is nothing a dial shows: not below zero, and no finer than a millionth")
    return int(micro)


def approve(
    database: Database, calendar: BillingCalendar, edit_id: int, *, by: str, clock: Clock = SYSTEM_CLOCK
) -> list[date]:
    """Approve a proposed edit, of intervals or of a register read. Returns the days requested. Raises EditError
    where no edit waits, or the same person proposed it."""
    now = clock.now()
    leaf = hashlib.sha256(f"mp-edit-approved/1\x1f{edit_id}".encode()).digest()
    with database.connect("vee edit") as connection:
        by = decisions.entitled(connection, by, decisions.EDITS)
        interval = store.approve(connection, edit_id, by, now)
        register = None if interval is not None else store.approve_read(connection, edit_id, by, now)
        if interval is not None:
            day, meter_id, channel = interval
            days = [day]
            requests.ask(
                connection, [requests.Request(day, day, leaf, 1, requests.points_of(connection, meter_id))], now
            )
        elif register is not None:
            at, meter_id, channel = register
            asked = _again(database, connection, calendar, register, leaf, now)
            if asked is None:
                raise EditError(f"{meter_id} has no register {channel} installed at {at:%Y-%m-%d %H:%M} UTC any more")
            days = asked
        else:
            raise EditError(
                f"edit {edit_id} does not wait for approval by {by}: it stands already, or {by} proposed it"
            )
        body = {"edit_id": edit_id, "meter_id": meter_id, "channel": channel, "approved_by": by}
        ledger.append(connection, "corrected", body, [leaf], clock=clock, actor=by)
    return days


def withdraw(
    database: Database, calendar: BillingCalendar, edit_id: int, *, by: str, clock: Clock = SYSTEM_CLOCK
) -> list[date] | None:
    """Withdraw an edit of a register read: the raw read counts again. Returns the days requested, None where the
    number is no edit of a register read in force."""
    now = clock.now()
    leaf = hashlib.sha256(f"mp-edit-withdrawn/1\x1f{edit_id}".encode()).digest()
    with database.connect("vee edit") as connection:
        by = decisions.entitled(connection, by, decisions.EDITS)
        found = store.withdraw_read(connection, edit_id, by, now)
        if found is None:
            return None
        at, meter_id, channel = found
        body = {
            "edit_id": edit_id,
            "read_at": at.isoformat(),
            "meter_id": meter_id,
            "channel": channel,
            "withdrawn_by": by,
        }
        ledger.append(connection, "corrected", body, [leaf], clock=clock, actor=by)
        return _again(database, connection, calendar, found, leaf, now) or []


def _again(
    database: Database,
    connection: store.Connection,
    calendar: BillingCalendar,
    edit: tuple[datetime, str, str],
    leaf: bytes,
    now: datetime,
) -> list[date] | None:
    """Request the days that depend on a read. None where the register is at no service point then: when its removal
    was entered, these days were requested."""
    at, meter_id, channel = edit
    with reading(database) as session:
        register = _installed(session, calendar, meter_id, channel, at)
    if register is None:
        return None
    days = _days(database, calendar, register, int(at.timestamp()))
    _ask(connection, register, days, leaf, now)
    return days


def _register(session: Database, calendar: BillingCalendar, meter_id: str, channel: str, at: datetime) -> _Register:
    """As ``_installed``. Raises EditError where the register is at no service point."""
    register = _installed(session, calendar, meter_id, channel, at)
    if register is None:
        day = calendar.day_of(at - timedelta(microseconds=1))
        raise EditError(f"{meter_id} has no register {channel} installed on {day}")
    return register


def _installed(
    session: Database, calendar: BillingCalendar, meter_id: str, channel: str, at: datetime
) -> _Register | None:
    """A register with the reads around an instant; None where it is at no service point on the day that the instant
    closes."""
    from meter_pipeline.vee.tables import day_inputs

    day = calendar.day_of(at - timedelta(microseconds=1))
    start, end = (int(moment.timestamp()) for moment in calendar.bounds(day))
    own = assemble.with_units(day_inputs.read_installations(session, day, *calendar.bounds(day), meter_id))
    windows = assemble.day_windows(own, start, end)
    mine = (pl.col("kind") == "register") & (pl.col("channel") == channel)
    if not windows.filter(mine).height:
        return None
    reads = read_window.reads_around(session, day, start, end, windows, [meter_id], before=3).reads
    return _Register(day, windows, reads.filter(pl.col("channel") == channel), read_window.near_span(start, end))


def _meant(register: _Register, at: datetime, *, refused: bool) -> int:
    """Returns the instant an edit applies to: that of a read close to the given one, otherwise the given one."""
    named = int(at.timestamp())
    near = [i for i in register.instants() if abs(i - named) <= NAMED_WITHIN_S]
    if near:
        return min(near, key=lambda i: (abs(i - named), i))
    if refused:
        known = ", ".join(f"{datetime.fromtimestamp(i, UTC):%Y-%m-%d %H:%M} UTC" for i in register.instants()[-5:])
        raise EditError(f"there is no read within a minute of that instant to refuse; reads stand at {known or 'none'}")
    return named


def _judge(session: Database, register: _Register, when: int, shown: int, t: Thresholds) -> list[str]:
    """Returns the rules that flag the value among its neighbours. Raises EditError for rules that refuse it."""
    name = register.windows.filter(pl.col("kind") == "register").row(0, named=True)
    ours = pl.DataFrame(
        {
            "meter_id": [name["meter_id"]],
            "channel": [register.reads["channel"][0] if register.reads.height else name["channel"]],
        }
    ).with_columns(at=pl.lit(when, pl.Int64), value=pl.lit(shown, pl.Int64))
    columns = ["meter_id", "channel", "at", "value"]
    without = register.reads.filter(pl.col("at") != when).select(columns)
    within = {"": register.span}
    before = series.register_series(register.windows, register.reads.select(columns), t, within)
    after = series.register_series(
        register.windows, pl.concat([without, ours.select(columns)], how="vertical_relaxed"), t, within
    )
    known = {
        (int(s), int(i))
        for s, i, c in zip(before.reads.series, before.reads.at, before.found.cause, strict=True)
        if c in _WRONG
    }
    new = [
        (Step(int(c)), int(i))
        for s, i, c in zip(after.reads.series, after.reads.at, after.found.cause, strict=True)
        if c in _WRONG and (int(i) == when or (int(s), int(i)) not in known)
    ]
    if new:
        raise EditError(
            "refused by "
            + ", ".join(
                f"{_WRONG[step].code} of the read at {datetime.fromtimestamp(i, UTC):%Y-%m-%d %H:%M} UTC "
                f"({_WRONG[step].about.rstrip('.')})"
                for step, i in new
            )
        )
    klass = store.customer_class(session, name["service_point_id"], register.day)
    limit = t.limit_per_hour(klass, name["unit"])
    at = np.arange(after.frame.height)
    floor = np.full(at.size, limit * t.high_floor_share / 3600)
    found = stretches(after, at, np.ones(at.size, np.bool_), floor, t, PastStretches.none(at.size))
    hits = set()
    for k in np.flatnonzero((found.opens == when) | (found.closes == when)):
        if found.amount[k] != NO_VALUE and found.amount[k] > limit * found.elapsed[k] / 3600:
            raise EditError(
                f"refused by READ_IMPOSSIBLE ({ROW_RULES['READ_IMPOSSIBLE'].about.rstrip('.')}: "
                f"{from_micro(int(found.amount[k]))} {name['unit']} in {found.elapsed[k] / 86_400:.2f} days)"
            )
        if found.usual[k] > 0 and found.amount[k] > t.high_ratio * found.usual[k] + floor[0] * found.elapsed[k]:
            hits.add("READ_HIGH")
    return sorted(hits)


def _days(database: Database, calendar: BillingCalendar, register: _Register, when: int) -> list[date]:
    """Returns validated days whose usage may depend on the read at an instant: those between the second reads before
    and after it, and those estimated from them."""
    before = [i for i in register.instants() if i < when]
    after = [i for i in register.instants() if i > when]

    def day_at(i: int) -> date:
        return calendar.day_of(datetime.fromtimestamp(i, UTC))

    near = timedelta(days=read_window.NEAR_DAYS)
    first = day_at(before[-2]) if len(before) > 1 else register.day - near
    last = day_at(after[1]) if len(after) > 1 else register.day + near
    with reading(database) as session:
        days = requests.validated_days(session, max(first, first_whole_day(session)), last)
    return sorted({*days, register.day})


def _ask(connection: store.Connection, register: _Register, days: list[date], leaf: bytes, now: datetime) -> None:
    points = tuple(register.windows["service_point_id"].unique().to_list())
    requests.ask(connection, [requests.Request(d, register.day, leaf, 1, points) for d in days], now)
