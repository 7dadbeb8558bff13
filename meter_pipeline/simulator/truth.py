"""The truth: every planted defect and every event that looks like one, by meter and time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from meter_pipeline.schemas.reads import UTC_US
from meter_pipeline.simulator.plan import BENIGN, Plan, PlantedDefect, affected
from meter_pipeline.simulator.registers import ExchangeDials
from meter_pipeline.simulator.spec import Spec, meter_id, service_point_id

#: One row per defect and meter. ``start`` and ``end`` are UTC, end excluded; ``billing_day`` to ``last_day`` both
# included; ``expected`` and : ``reported`` are the true and the reported quantity of the window in micro base units,
# where the defect changed a quantity.
TRUTH: Final[dict[str, Any]] = {
    "defect_id": pl.Int64,
    "kind": pl.String,
    "benign": pl.Boolean,
    "commodity": pl.String,
    "head_end": pl.String,
    "meter_id": pl.String,
    "service_point_id": pl.String,
    "channel": pl.String,
    "start": UTC_US,
    "end": UTC_US,
    "billing_day": pl.Date,
    "last_day": pl.Date,
    "expected": pl.Int64,
    "reported": pl.Int64,
    "detail": pl.String,
}
_REGISTER_KINDS: Final = frozenset({"rollover", "register_back", "missing_register", "wrong_multiplier"})
_MAIN: Final = {"electricity": "E1", "water": "W1", "gas": "G1"}


def truth_frame(
    spec: Spec,
    plan: Plan,
    notes: Mapping[int, Mapping[str, int | str]] | None = None,
    rollovers: list[tuple[str, int, Any]] | None = None,
    exchanged: list[ExchangeDials] | None = None,
    files: list[dict[str, Any]] | None = None,
) -> pl.DataFrame:
    """The truth about a city. ``notes`` are quantities and places found while feeds were written; ``rollovers`` what
    the dials really did (without them the planned ones stand); ``files`` whole files that are bad."""
    notes = notes or {}
    dials = {(e.commodity, e.index): e for e in exchanged or []}
    rows: list[dict[str, Any]] = []
    for story in plan.stories:
        if story.kind == "rollover" and rollovers is not None:
            continue
        facts = dict(notes.get(story.number, {}))
        expected, reported = facts.pop("expected", None), facts.pop("reported", None)
        detail: dict[str, Any] = {"amount": round(story.amount, 4), **facts}
        exchange = dials.get((story.commodity, story.index)) if story.kind.startswith("exchange") else None
        if exchange is not None:
            detail |= {"removal_read": exchange.removal_read, "install_read": exchange.install_read}
            detail["new_meter_id"] = meter_id(story.commodity, story.index, exchanged=True)
        members = affected(story)
        rows.extend(_row(spec, story, index, expected, reported, detail) for index in members)
        if not members:
            rows.append(_row(spec, story, None, expected, reported, detail))
    number = len(plan.stories)
    for commodity, index, day in rollovers or []:
        at = (day - spec.start).days
        story = PlantedDefect("rollover", commodity, "", index, at, at, number=number)
        rows.append(_row(spec, story, index, None, None, {}))
        number += 1
    for fact in files or []:
        at = fact["day"]
        story = PlantedDefect(fact["kind"], "electricity", fact["head_end"], -1, at, at, number=number)
        rows.append(_row(spec, story, None, None, None, {"file": fact["file"]}))
        number += 1
    return pl.DataFrame(rows, schema=TRUTH).sort(
        "billing_day", "kind", "commodity", "meter_id", "defect_id", nulls_last=True
    )


def _row(
    spec: Spec,
    story: PlantedDefect,
    index: int | None,
    expected: int | str | None,
    reported: int | str | None,
    detail: dict[str, Any],
) -> dict[str, Any]:
    first, last = spec.day(story.first), spec.day(min(story.last, spec.days - 1))
    start, end = spec.calendar.start_s(first), spec.calendar.start_s(spec.day(min(story.last, spec.days - 1) + 1))
    if story.first == story.last:
        step = 60 * (spec.interval_minutes if story.commodity == "electricity" else 60)
        seconds = spec.calendar.seconds(first)
        begin, stop = story.window(-(-seconds // step))
        start, end = start + begin * step, start + min(stop * step, seconds)
    group = index is not None and story.index_last >= 0
    return {
        "defect_id": story.number,
        "kind": story.kind,
        "benign": story.kind in BENIGN,
        "commodity": story.commodity,
        "head_end": story.head_end or None,
        "meter_id": None if index is None else meter_id(story.commodity, index),
        "service_point_id": None if index is None else service_point_id(story.commodity, index),
        "channel": "R1" if story.kind in _REGISTER_KINDS else _MAIN[story.commodity],
        "start": datetime.fromtimestamp(start, UTC),
        "end": datetime.fromtimestamp(end, UTC),
        "billing_day": first,
        "last_day": last,
        "expected": None if group or expected is None else int(expected),
        "reported": None if group or reported is None else int(reported),
        "detail": json.dumps(detail, sort_keys=True),
    }
