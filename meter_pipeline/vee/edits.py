"""Manual edits: a person overrides intervals, judged by the rules for manual override, kept beside the raw read,
applied with every validation.

An edited value is a final substitute by agreed method (AEMO flag F, method 16, reason 93); a slot whose read a person
refuses is estimated like any other. Edits are asked for through the same list as true-ups, so that the day is validated
and billed again by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.dated_thresholds import thresholds_on
from meter_pipeline.vee.loading import read_day, read_rows
from meter_pipeline.vee.registers import assemble
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, Role, Severity, codes, mask_of
from meter_pipeline.vee.rules.interval_rules import run_interval_rules, subject
from meter_pipeline.vee.rules.model import Bools, Ints, ValidatedMatrix
from meter_pipeline.vee.rules.statistics import row_statistics
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import edits as store
from meter_pipeline.vee.tables import true_up as requests

#: Quality of an edited value: final substitute, AEMO method 16 (agreed method), reason 93 (replaced interval)
EDITED: Final = quality.pack("F", 16, 93)


#: By row of a day's matrix: slots edited, by whom, and why
Applied: TypeAlias = dict[int, tuple[Bools, str, str]]


class EditError(ValueError):
    """An edit that cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Edited:
    """Result of an edit: its number, and the rules that hit without refusing it."""

    edit_id: int
    rules: list[str]


def edit(
    database: Database,
    calendar: BillingCalendar,
    meter_id: str,
    channel: str,
    day: date,
    first_slot: int,
    values: Sequence[int | None],
    *,
    reason: str,
    by: str,
    propose: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> Edited:
    """Put ``values`` (micro units, None: refuse the read) in the place of the slots from ``first_slot`` (1-based) on.

    The channel's whole day is judged by the manual override rules with the edit in it. Raises EditError where a rule
    fails the edited slots, where the meter has no such channel on the day, or the slots lie outside it. Writes the
    edit, a ledger entry and the request to validate the day again in one transaction; with ``propose`` the day is asked
    for when another person approves (register_edits.approve).
    """
    t = thresholds_on(database, day)
    now = clock.now()
    if not reason.strip():
        raise EditError("an edit needs its reason")
    with reading(database) as session:
        read = read_day(session, calendar, day, t, now, one_shard=0)
        points = read.expected.filter(pl.col("meter_id") == meter_id)["service_point_id"].implode()
        judged, _ = read_rows(
            session, calendar, read, read.expected.filter(pl.col("service_point_id").is_in(points)), t
        )
        found = [
            (rows, int(at))
            for rows in judged
            for at in np.flatnonzero(
                rows.keys.select((pl.col("meter_id") == meter_id) & (pl.col("channel") == channel))
                .to_series()
                .to_numpy()
            )
        ]
    if not found:
        raise EditError(f"{meter_id} has no interval channel {channel} installed on {day}")
    rows, at = found[0]
    slots = rows.matrix.slots
    if not values or first_slot < 1 or first_slot - 1 + len(values) > slots:
        raise EditError(f"slots {first_slot} to {first_slot + len(values) - 1} are not all within 1 to {slots}")
    micro = np.array([NO_VALUE if v is None else v for v in values], np.int64)
    span = slice(first_slot - 1, first_slot - 1 + len(values))
    hits = _judge(rows, at, span, micro, t)
    with database.connect("vee edit") as connection:
        by = decisions.entitled(connection, by, decisions.EDITS)
        number = store.insert(
            connection,
            day,
            meter_id,
            channel,
            rows.matrix.interval_minutes,
            first_slot,
            micro.tolist(),
            rules=hits,
            rules_version=t.version,
            reason=reason.strip(),
            by=by,
            now=now,
            proposed=propose,
        )
        body = {
            "edit_id": number,
            "billing_day": day.isoformat(),
            "meter_id": meter_id,
            "channel": channel,
            "first_slot": first_slot,
            "slots": len(values),
            "rules": hits,
            "rules_version": t.version,
            "reason": reason.strip(),
            "edited_by": by,
            "proposed": propose,
        }
        leaf = hashlib.sha256(
            b"mp-edit/1"
            + f"{number}\x1f{day}\x1f{meter_id}\x1f{channel}\x1f{first_slot}\x1f".encode()
            + micro.tobytes()
        ).digest()
        ledger.append(connection, "corrected", body, [leaf], clock=clock, actor=by)
        if not propose:
            touched = requests.points_of(connection, meter_id)
            requests.ask(connection, [requests.Request(day, day, leaf, 1, touched)], now)
    return Edited(number, hits)


def _judge(rows: assemble.DayRows, at: int, span: slice, micro: Ints, t: Thresholds) -> list[str]:
    only = np.array([at])
    context = rows.context.take(only)
    values, marks = rows.matrix.values[only].copy(), rows.matrix.quality[only].copy()
    values[0, span] = micro
    marks[0, span] = np.where(micro == NO_VALUE, np.uint16(quality.MISSING), np.uint16(quality.ACTUAL))
    day = DayMatrix(
        rows.matrix.billing_day,
        rows.matrix.interval_minutes,
        pl.DataFrame(),
        values,
        marks,
        np.zeros(values.shape, np.int32),
    )
    subject_result = subject(day, context, row_statistics(values, context.first, context.last), t)
    flags = run_interval_rules(subject_result, Role.MANUAL)[0, span]
    failing = mask_of(INTERVAL_RULES, Severity.FAIL, Role.MANUAL) & ~INTERVAL_RULES["GAP"].mask
    refused = sorted({c for f in flags for c in codes(INTERVAL_RULES, int(f) & failing)})
    if refused:
        raise EditError("refused by " + ", ".join(f"{c} ({INTERVAL_RULES[c].about.rstrip('.')})" for c in refused))
    return sorted({c for f in flags for c in codes(INTERVAL_RULES, int(f)) if c != "GAP"})


def withdraw(database: Database, edit_id: int, *, by: str, clock: Clock = SYSTEM_CLOCK) -> date:
    """Take an edit back: the raw read stands again. Returns the day, which is asked for. Raises EditError where it does
    not stand."""
    now = clock.now()
    with database.connect("vee edit") as connection:
        by = decisions.entitled(connection, by, decisions.EDITS)
        found = store.withdraw(connection, edit_id, by, now)
        if found is None:
            raise EditError(f"edit {edit_id} does not stand")
        day, meter_id, channel = found
        leaf = hashlib.sha256(f"mp-edit-withdrawn/1\x1f{edit_id}".encode()).digest()
        body = {
            "edit_id": edit_id,
            "billing_day": day.isoformat(),
            "meter_id": meter_id,
            "channel": channel,
            "withdrawn_by": by,
        }
        ledger.append(connection, "corrected", body, [leaf], clock=clock, actor=by)
        touched = requests.points_of(connection, meter_id)
        requests.ask(connection, [requests.Request(day, day, leaf, 1, touched)], now)
    return day


def apply(edits: pl.DataFrame, rows: assemble.DayRows) -> Applied:
    """Put standing edits into a day's rows (their matrix is copied, the raw one stays); by row: slots edited, who, and
    why."""
    found: Applied = {}
    mine = edits.filter(pl.col("interval_minutes") == rows.matrix.interval_minutes)
    if not mine.height:
        return found
    index = (
        rows.keys.select("meter_id", "channel")
        .with_row_index("row")
        .join(mine.select("meter_id", "channel").unique(), on=["meter_id", "channel"])
    )
    at = {(m, c): int(r) for r, m, c in index.iter_rows()}
    raw = rows.matrix.values
    rows.matrix.values, rows.matrix.quality = rows.matrix.values.copy(), rows.matrix.quality.copy()
    for e in mine.iter_rows(named=True):
        row = at.get((e["meter_id"], e["channel"]))
        if row is None:
            continue
        micro = np.array(e["values"], np.int64)
        first = e["first_slot"] - 1
        span = slice(first, min(first + micro.size, rows.matrix.slots))
        micro = micro[: span.stop - first]
        rows.matrix.values[row, span] = micro
        rows.matrix.quality[row, span] = np.where(micro == NO_VALUE, np.uint16(quality.MISSING), np.uint16(EDITED))
        slots = found[row][0] if row in found else np.zeros(rows.matrix.slots, np.bool_)
        slots[span] = True
        found[row] = (slots, e["edited_by"], f"edit {e['edit_id']}: {e['reason']}")
    for row in found:
        _doubt_register(rows, row, raw[row])
    return found


def _doubt_register(rows: assemble.DayRows, row: int, raw: Ints) -> None:
    """Leave a row's register out where it counted just what a person refuses: a meter that stood still, or was tested
    on a bench, did so in both. Scaled to that register, the estimates would be the refused reads again (0.00 kWh of a
    meter that was replaced because it had stopped)."""
    context = rows.context
    refused = (raw != NO_VALUE) & (rows.matrix.values[row] == NO_VALUE)
    difference = int(context.register_difference[row])
    if difference == NO_VALUE or not refused.any():
        return
    counted = int(raw[raw != NO_VALUE].sum())
    if abs(counted - difference) <= int(context.register_tolerance[row]):
        context.register_difference[row] = NO_VALUE
        context.register_doubted[row] = True
        context.tou_program[row] = -1
        context.register_flags[row] |= rr.REGISTER_DOUBTED.mask


def mark(v: ValidatedMatrix, edited: Applied) -> None:
    """Say of edited slots that a person edited them, and not that the head-end estimated them."""
    for row, (slots, _, _) in edited.items():
        v.flags[row, slots] = (v.flags[row, slots] & ~np.int32(INTERVAL_RULES["SOURCE_ESTIMATE"].mask)) | np.int32(
            INTERVAL_RULES["EDITED"].mask
        )


def authors(edited: Applied, v: ValidatedMatrix) -> pl.DataFrame:
    """Who stands behind edited rows: service_point_id, meter_id, channel, said, by."""
    names = v.keys.select("service_point_id", "meter_id", "channel")
    found = [(*names.row(row), reason, by) for row, (_, by, reason) in sorted(edited.items())]
    return pl.DataFrame(found, schema=dict.fromkeys((*names.columns, "said", "by"), pl.String), orient="row")
