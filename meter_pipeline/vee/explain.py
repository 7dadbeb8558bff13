"""A meter's day interval by interval: raw read, rules that hit, estimate and its method."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.partitions import ARCHIVED, archived_in, reading_with_archive
from meter_pipeline.postgres.vectors import RAW_INTERVAL_DAY, to_matrices
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.units import from_micro
from meter_pipeline.vee.dated_thresholds import thresholds_on
from meter_pipeline.vee.estimation.methods import METHOD_NAMES
from meter_pipeline.vee.registers import assemble, series
from meter_pipeline.vee.registers.reads import STEP_ABOUT, Step
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES, codes
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import day_inputs, validated
from meter_pipeline.vee.tables import edits as edit_store

#: Days around the day whose register reads are shown
NEAR = timedelta(days=2)
#: Meaning of quality flags, for people
FLAG_WORDS = {
    "A": "actual",
    "S": "substituted",
    "F": "final substitute",
    "E": "forward estimate",
    "N": "null",
    "V": "variable",
    "M": "nothing came",
}


#: AEMO reasons that our own estimates and edits give, in words (MDFF v2.6, reason codes)
REASON_WORDS = {
    1: "meter exchanged",
    18: "reading below previous",
    39: "reverse energy",
    45: "failed to validate",
    74: "above what the register bears out",
    78: "head-end has no value",
    80: "short interval",
    85: "nothing came",
    86: "clock error",
    90: "test mode",
    93: "replaced by a person",
    95: "pulse overflow",
    96: "beyond limits",
}


_METHODS = {**METHOD_NAMES, 16: "agreed by a person", 63: "mean of the class", 65: "average daily load", 68: "nothing"}


def quality_words(code: int) -> dict[str, Any]:
    """A quality code in words: flag, AEMO method and reason, ESPI code, and how an estimate was made."""
    word = quality.unpack(code)
    return {
        "flag": word.flag,
        "meaning": FLAG_WORDS[word.flag],
        "method": word.method,
        "method_name": _METHODS.get(word.method or 0),
        "reason": word.reason,
        "reason_name": REASON_WORDS.get(word.reason if word.reason is not None else -1),
        "espi": quality.to_espi(code),
    }


def explain_day(database: Database, calendar: BillingCalendar, meter_id: str, day: date) -> dict[str, Any]:
    """Everything known of a meter's billing day.

    ``channels``: one per validated channel and service point with its rules, register, versions and ``intervals``
    (slot, local and UTC start, raw value and quality, rules, final value and quality). ``registers``: each register
    read around the day with the cause of its step. ``usage``: what the day of its service points was put at. ``found``
    is False where neither raw nor validated data exist. Quantities are exact decimals.
    """
    t = thresholds_on(database, day)
    with _session(database, meter_id, day) as session:
        raw_frame = validated.read_vectors(session, RAW_INTERVAL_DAY, day, [meter_id])
        final_frame = validated.read_vectors(session, validated.INTERVAL_DAY, day, [meter_id])
        versions = validated.read_version_history(session, day, meter_id)
        registers = _registers(session, calendar, meter_id, day, t)
        exceptions = validated.read_exceptions(session, day, meter_id)
        edits = edit_store.of_meter(session, day, meter_id)
        register_edits = edit_store.reads_of_meter(session, day - NEAR, day + NEAR, meter_id)
        usage = validated.meter_usage(session, day, meter_id)
    raw = {
        (m.keys["channel"][i], m.interval_minutes): (m, i)
        for m in (to_matrices(raw_frame) if raw_frame.height else [])
        for i in range(m.rows)
    }
    channels = []
    seen = set()
    for m in to_matrices(final_frame) if final_frame.height else []:
        for i in range(m.rows):
            key = (m.keys["channel"][i], m.interval_minutes)
            seen.add(key)
            own = versions.filter(versions["channel"] == key[0]).to_dicts() if versions.height else []
            channels.append(_channel(calendar, day, m, i, raw.get(key), own))
    unused = [
        {"channel": channel, "interval_minutes": minutes, "reads": int((m.values[i] != NO_VALUE).sum())}
        for (channel, minutes), (m, i) in raw.items()
        if (channel, minutes) not in seen
    ]
    return {
        "meter_id": meter_id,
        "billing_day": day,
        "zone": calendar.zone,
        "hours": calendar.seconds(day) / 3600,
        "found": bool(raw or channels or registers),
        "channels": channels,
        "registers": registers,
        "raw_not_used": unused,
        "exceptions": exceptions.to_dicts(),
        "edits": edits.to_dicts(),
        "register_edits": [
            e | {"value": None if e["value"] is None else from_micro(e["value"])} for e in register_edits.to_dicts()
        ],
        "usage": [
            {
                "service_point_id": u["service_point_id"],
                "flow": u["flow"],
                "unit": u["unit"],
                "source": u["source"],
                "meters": u["meters"],
                "quantity": None if u["quantity_micro"] is None else from_micro(u["quantity_micro"]),
                "quality": quality_words(u["quality"] & 0xFFFF),
                "rules": codes(ROW_RULES, u["row_flags"]),
            }
            for u in usage.to_dicts()
        ],
        "rules_version": t.version,
        "rules_sha256": t.digest,
    }


def _session(database: Database, meter_id: str, day: date) -> AbstractContextManager[Database]:
    """A session that also sees the meter's rows of archived days: the day's own, and register reads around it."""
    with database.connect("explain") as connection:
        days = archived_in(connection, day - NEAR, day + NEAR)
    wanted = [(d, "raw.register_read") for d in days] + [
        (day, table) for table in ARCHIVED if day in days and table != "raw.register_read"
    ]
    return reading_with_archive(database, wanted, (), [meter_id])


def _decimal(value: int) -> Decimal | None:
    return None if value == NO_VALUE else from_micro(int(value))


def _channel(
    calendar: BillingCalendar,
    day: date,
    m: DayMatrix,
    i: int,
    raw: tuple[DayMatrix, int] | None,
    versions: list[dict[str, Any]],
) -> dict[str, Any]:
    keys = m.keys.row(i, named=True)
    flags = keys["flags"] or [0] * m.slots
    start = datetime.fromtimestamp(calendar.start_s(day), UTC)
    zone = ZoneInfo(calendar.zone)
    same = raw is not None and raw[0].slots == m.slots
    intervals = []
    for slot in range(m.slots):
        at = start + timedelta(minutes=slot * m.interval_minutes)
        came = raw[0].values[raw[1], slot] if raw is not None and same else NO_VALUE
        came_code = raw[0].quality[raw[1], slot] if raw is not None and same else quality.MISSING
        final = int(m.values[i, slot])
        intervals.append(
            {
                "slot": slot + 1,
                "start": at,
                "local": at.astimezone(zone).strftime("%H:%M %z"),
                "raw": _decimal(int(came)),
                "raw_quality": quality.flag_of(int(came_code)),
                "rules": codes(INTERVAL_RULES, int(flags[slot])),
                "final": _decimal(final),
                "quality": quality_words(int(m.quality[i, slot])),
                "replaced": final not in (int(came), NO_VALUE),
            }
        )
    difference = keys["register_difference_micro"]
    return {
        "channel": keys["channel"],
        "service_point_id": keys["service_point_id"],
        "unit": keys["unit"],
        "flow": keys["flow"],
        "interval_minutes": m.interval_minutes,
        "account_id": keys["account_id"],
        "tariff_id": keys["tariff_id"],
        "cycle_id": keys["cycle_id"],
        "expected": keys["expected"],
        "actual": keys["actual"],
        "estimated": keys["estimated"],
        "missing": keys["missing"],
        "total": from_micro(keys["total_micro"]),
        "register_difference": None if difference is None else from_micro(difference),
        "estimated_before_scaling": from_micro(keys["unscaled_micro"]),
        "locked": keys["locked"],
        "version": keys["version"],
        "rules": [
            {"code": c, "about": ROW_RULES[c].about, "source": ROW_RULES[c].source}
            for c in codes(ROW_RULES, keys["row_flags"])
        ],
        "anchors": keys["notes"],
        "earlier_versions": [{**v, "total": from_micro(v.pop("total_micro"))} for v in versions],
        "content_hash": keys["content_hash"],
        "intervals": intervals,
    }


def _registers(
    session: Database, calendar: BillingCalendar, meter_id: str, day: date, t: Thresholds
) -> list[dict[str, Any]]:
    start, end = calendar.bounds(day)
    own = day_inputs.read_installations(session, day, start, end, meter_id)
    if not own.height:
        return []
    windows = assemble.day_windows(assemble.with_units(own), int(start.timestamp()), int(end.timestamp()))
    reads = day_inputs.read_registers(session, day - NEAR, day + NEAR, [meter_id])
    within = {"": (calendar.start_s(day - NEAR), calendar.start_s(day + NEAR + timedelta(days=1)))}
    registers = series.register_series(windows, reads, t, within)
    out = []
    for k, row in enumerate(registers.frame.iter_rows(named=True)):
        mine = np.flatnonzero(registers.reads.series == row["series"])
        out.append(
            {
                "channel": row["channel"],
                "service_point_id": row["service_point_id"],
                "unit": row["unit"],
                "register_only": row["register_only"],
                "used_in_day": _decimal(int(registers.use.quantity[k])),
                "closed": bool(registers.use.closed[k]),
                "reads": [
                    {
                        "at": datetime.fromtimestamp(int(registers.reads.at[r]), UTC),
                        "local": datetime.fromtimestamp(int(registers.reads.at[r]), ZoneInfo(calendar.zone)).strftime(
                            "%Y-%m-%d %H:%M:%S %z"
                        ),
                        "dial": from_micro(int(registers.reads.as_read[r])),
                        "consumed": _decimal(int(registers.found.consumed[r])),
                        "step": Step(int(registers.found.cause[r])).name.lower(),
                        "about": STEP_ABOUT[Step(int(registers.found.cause[r]))],
                    }
                    for r in mine
                ],
            }
        )
    return out
