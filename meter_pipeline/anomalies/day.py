"""The stage: a billing day's flags and cases, from the validated day to the queue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

from meter_pipeline.anomalies import daily_features as packing
from meter_pipeline.anomalies.cases import Case, CaseFlag, expired, merge_into_cases
from meter_pipeline.anomalies.commodity_points import CommodityPoints, read_surroundings
from meter_pipeline.anomalies.hourly_dials import Floats, hourly_flows
from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.anomalies.tables import detection, exception_cases
from meter_pipeline.anomalies.thresholds import DEFAULT
from meter_pipeline.anomalies.window import WINDOW_DAYS
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import day_lock
from meter_pipeline.postgres.database import Database, Read
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.postgres.reading import reading
from meter_pipeline.schemas.report import Check, StageReport

#: Service points and their (points, hours) flows
Hours: TypeAlias = tuple[pl.Series, Floats]
FLAG_SCHEMA: Final[dict[str, Any]] = {
    "expected": pl.Float64,
    "observed": pl.Float64,
    "confidence": pl.Float64,
    "billing_day": pl.Date,
    "kind": pl.String,
    "service_point_id": pl.String,
    "group_id": pl.String,
    "commodity": pl.String,
    "unit": pl.String,
    "severity": pl.String,
    "evidence": pl.String,
    "baseline_version": pl.String,
    "case_id": pl.String,
}


#: columns of the shortest window: no rule counts more days without asking how many of them are known
_FEWEST_DAYS: Final = 21
_SIGNS: Final = {
    "reversed": packing.REVERSED,
    "register_back": packing.REGISTER_BACK,
    "outage": packing.OUTAGE,
    "off": packing.DISCONNECTED,
    "payer": packing.ACCOUNT_CHANGED,
}


@dataclass(slots=True)
class AnomalyOutcome:
    """Result of a day's detection. ``weather`` is complete, partial or missing; missing delays the flags that need it,
    and only those."""

    day: date
    points: int
    flags: pl.DataFrame
    opened: list[Case]
    continued: list[Case]
    expired: int
    weather: str
    baseline_version: str | None
    changed: bool
    plots: dict[str, bytes] = field(default_factory=dict)

    @property
    def by_kind(self) -> dict[str, int]:
        return dict(sorted(self.flags.group_by("kind").len().iter_rows()))

    def report(self) -> StageReport:
        """Figures, tables, plots and checks for whoever shows them."""
        # A silent meter has nothing observed; its evidence is how long it has been silent.
        figureless = (
            pl.col("expected").is_null()
            & pl.col("observed").is_null()
            & ~(pl.col("kind").str.starts_with("dropout") | (pl.col("kind") == "not_judged"))
        )
        bare = self.flags.filter((pl.col("evidence").str.len_bytes() < 3) | figureless)
        unnamed = self.flags.filter(
            pl.col("kind").is_in([k for k, v in KINDS.items() if v.weather]) & pl.col("baseline_version").is_null()
        )
        worst = (
            self.flags.filter(pl.col("case_id").is_not_null())
            .sort("confidence", "service_point_id", descending=[True, False])
            .head(20)
        )
        return StageReport(
            rows=self.flags.height,
            figures={
                "service points judged": self.points,
                "flags": self.flags.height,
                "cases opened": len(self.opened),
                "cases continued": len(self.continued),
                "cases expired": self.expired,
                "weather": self.weather,
                "baseline version": self.baseline_version or "none",
                **{f"flags: {kind}": n for kind, n in self.by_kind.items()},
            },
            tables={
                "for people": worst.select(
                    "kind", "service_point_id", "group_id", "severity", "confidence", "expected", "observed", "unit"
                )
            },
            plots=self.plots,
            checks=[
                Check(
                    "every_flag_has_evidence",
                    bare.height == 0 and unnamed.height == 0,
                    "Each flag names what was expected, what was observed and the baseline it used.",
                    {"without evidence": bare.height, "without baseline": unnamed.height},
                )
            ],
        )


def detect_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> AnomalyOutcome:
    """Judge a validated billing day: write its flags (anomaly.flag), add them to cases, expire untouched cases,
    enter the ledger.

    Judging a day again gives the same flags, byte for byte, unless the day, its weather, the baselines or people's
    decisions changed; then the day's flags are replaced, and a case that no flag supports any more and no person has
    touched goes with them. A day without weather is judged by what needs none.
    """
    days = calendar.days(day - timedelta(days=WINDOW_DAYS - 1), day)
    with (
        reading(database) as beside,
        ThreadPoolExecutor(1) as reader,
    ):  # reference data and baselines come while the day is packed
        surroundings = reader.submit(read_surroundings, beside.read, calendar, days)
        present = ensure_facts(database, calendar, days, refresh={day})
        packed, lists = detection.read_facts(database.read, days[0], day)
        days = _known(days, packed)
        given, version = surroundings.result()
        given = replace(given, days=days)
    found, points_checked, with_weather = [], 0, 0
    plots: dict[str, bytes] = {}
    layout = (
        packed.filter(pl.col("billing_day") == day).select("commodity", "unit").sort("commodity", "unit")
        if present
        else pl.DataFrame()
    )
    for commodity, unit in layout.iter_rows():
        city = CommodityPoints(packing.PackedDays(packed, lists, commodity, unit, days, day), given)
        frame = city.judge(DEFAULT)
        found.append(_named(frame, city.weeks, day, version))
        points_checked += city.points
        with_weather += int(city.weather_known().sum())
        plots |= _plots(city, frame)
    flags = pl.concat(found) if found else pl.DataFrame(schema=FLAG_SCHEMA)
    weather_state = "complete" if with_weather == points_checked else "missing" if with_weather == 0 else "partial"
    return _write(
        database,
        day,
        flags.sort("kind", "service_point_id", "group_id", "unit"),
        points_checked,
        weather_state,
        version,
        clock,
        plots,
    )


def _known(days: list[date], packed: pl.DataFrame) -> list[date]:
    """The days from the first that anything is kept of: a young city need not carry six empty weeks. At least as many
    as a rule counts in days."""
    first = packed["billing_day"].min() if packed.height else days[-1]
    return [d for i, d in enumerate(days) if d >= first or i >= len(days) - _FEWEST_DAYS]  # type: ignore[operator] # a date column's minimum


def ensure_facts(database: Database, calendar: BillingCalendar, days: Sequence[date], *, refresh: set[date]) -> bool:
    """Make the packed facts of the validated days that have none, and of those in ``refresh``. True where the last day
    has facts."""
    with database.reader() as read:
        kept = detection.fact_days(read, days[0], days[-1])
        validated = detection.validated_days(read, days[0], days[-1])
        for day in sorted({d for d in validated if d not in kept or d in refresh} | (kept & refresh)):
            facts = _read_facts(read, calendar, day)
            before_writing(database)
            with database.connect("meter-pipeline anomalies") as connection:
                day_lock.hold(connection, DayLock.DETECT, day)
                detection.write_facts(connection, day, [packing.pack(f) for f in facts])
    return days[-1] in validated


def _read_facts(read: Read, calendar: BillingCalendar, day: date) -> list[packing.DayFacts]:
    """Figures of every service point on a validated day, from vee and ref."""
    usage = detection.read_usage(read, day)
    if usage.is_empty():
        return []
    signs_by_kind = detection.read_signs(read, day).partition_by("sign", as_dict=True)
    signs = {_SIGNS[str(sign)]: part["service_point_id"] for (sign,), part in signs_by_kind.items()}
    water = usage.filter(pl.col("commodity") == "water")
    hours = detection.read_water_hours(read, day) if water.height else {}
    if water["register"].any():
        start_s, end_s = calendar.start_s(day), calendar.start_s(day + timedelta(days=1))
        dials = hourly_flows(detection.read_water_dials(read, day), start_s, end_s)
        hours = {unit: _beside(hours.get(unit), dials.get(unit)) for unit in {**hours, **dials}}
    return packing.day_facts(day, usage, hours, signs)


def _beside(first: Hours | None, second: Hours | None) -> Hours:
    """Hourly flows of two sets of service points as those of one."""
    if first is None or second is None:
        return first or second or (pl.Series([], dtype=pl.String), np.zeros((0, 0)))
    width = max(first[1].shape[1], second[1].shape[1])
    padded = [np.pad(flows, ((0, 0), (0, width - flows.shape[1])), mode="edge") for _, flows in (first, second)]
    return pl.concat([first[0], second[0]]), np.concatenate(padded)


def _named(frame: pl.DataFrame, weeks: packing.PackedDays, day: date, version: str | None) -> pl.DataFrame:
    """Findings with the names of their subjects: rows of anomaly.flag, without case."""
    ids = weeks.points[frame["row"].to_numpy()]
    is_group = frame["group"].is_not_null()
    return frame.select(
        "expected",
        "observed",
        "confidence",
        pl.lit(day).alias("billing_day"),
        "kind",
        pl.when(is_group)
        .then(pl.lit(""))
        .otherwise(pl.Series("id", ids.tolist(), dtype=pl.String))
        .alias("service_point_id"),
        pl.col("group").fill_null("").alias("group_id"),
        pl.lit(weeks.commodity).alias("commodity"),
        pl.lit(weeks.unit).alias("unit"),
        "severity",
        "evidence",
        pl.lit(version, pl.String).alias("baseline_version"),
        pl.lit(None, pl.String).alias("case_id"),
    )


def _plots(city: CommodityPoints, frame: pl.DataFrame) -> dict[str, bytes]:
    from meter_pipeline.anomalies.plots import flagged_points_png

    flagged_plot = flagged_points_png(city, frame)
    return {f"{city.weeks.commodity}: flags over weather": flagged_plot} if flagged_plot else {}


def _write(
    database: Database,
    day: date,
    flags: pl.DataFrame,
    points_checked: int,
    weather: str,
    version: str | None,
    clock: Clock,
    plots: dict[str, bytes],
) -> AnomalyOutcome:
    now = clock.now()
    before_writing(database, clock=clock)
    with database.connect("meter-pipeline anomalies") as connection:
        day_lock.hold(connection, DayLock.DETECT, day)
        exception_cases.lock_flag_cases(connection)
        before = exception_cases.day_cases(connection, day)
        related_rows = [
            CaseFlag(point or group, kind, severity, confidence, day)
            for point, group, kind, severity, confidence in flags.select(
                "service_point_id", "group_id", "kind", "severity", "confidence"
            ).iter_rows()
            if KINDS[kind].case
        ]
        subjects = sorted({f.subject for f in related_rows})
        stored = (
            {row["case_id"]: row for row in exception_cases.read_cases(connection, subjects=subjects)}
            if subjects
            else {}
        )
        merged, changed = merge_into_cases(related_rows, [_case(row) for row in stored.values()])
        located = _place(
            flags,
            [
                *(_case(r) for r in stored.values() if r["case_id"] not in {c.case_id for c in changed}),
                *changed,
                *merged,
            ],
        )
        digest = _digest(located)
        new = detection.run_hash(connection, day) != digest
        commodity = dict(flags.select(pl.concat_str("service_point_id", "group_id"), "commodity").iter_rows())
        exception_cases.upsert_cases(
            connection,
            [_row(c, now, None, commodity.get(c.subject, "")) for c in merged]
            + [_row(c, now, stored[c.case_id], "") for c in changed],
        )
        run = {
            "billing_day": day,
            "judged_at": now,
            "points": points_checked,
            "flags": located.height,
            "weather": weather,
            "baseline_version": version,
            "content_hash": digest,
        }
        if new:
            detection.write_flags(connection, day, located, run)
            touched = sorted({*before, *(c.case_id for c in merged), *(c.case_id for c in changed)})
            exception_cases.refresh_spans(connection, touched)
            exception_cases.drop_unflagged(connection, touched)
            body = {
                "billing_day": day.isoformat(),
                "flags": located.height,
                "cases_opened": len(merged),
                "cases_continued": len(changed),
                "weather": weather,
                "baseline_version": version,
                "content_hash": digest,
            }
            entries.append(connection, "flagged", body, leaves=_leaves(located) or None, clock=clock)
        rows = {row["case_id"]: row for row in exception_cases.open_before(connection, day)}
        closed = expired([_case(row) for row in rows.values()], day)
        exception_cases.upsert_cases(
            connection, [_row(c, now, rows[c.case_id] | {"decided_at": now}, "") for c in closed]
        )
        for case in closed:
            entries.append(
                connection,
                "flag_decided",
                {"case_id": case.case_id, "decision": "expired", "last_day": case.last_day.isoformat()},
                clock=clock,
            )
    return AnomalyOutcome(day, points_checked, located, merged, changed, len(closed), weather, version, new, plots)


def _place(flags: pl.DataFrame, cases: list[Case]) -> pl.DataFrame:
    """Flags with the case each belongs to: the newest case of its subject and family that covers the day."""
    if flags.is_empty():
        return flags
    of: dict[tuple[str, str], list[Case]] = {}
    for case in sorted(cases, key=lambda c: (c.first_day, c.case_id)):
        of.setdefault((case.subject, case.family), []).append(case)
    located = []
    for point, group, kind, day in flags.select("service_point_id", "group_id", "kind", "billing_day").iter_rows():
        mine = (
            [c for c in of.get((point or group, KINDS[kind].family), []) if c.first_day <= day <= c.last_day]
            if KINDS[kind].case
            else []
        )
        located.append(mine[-1].case_id if mine else None)
    return flags.with_columns(pl.Series("case_id", located, dtype=pl.String))


def _leaves(flags: pl.DataFrame) -> list[bytes]:
    """A hash of every flag's content, in order."""
    return [hashlib.sha256(repr(row).encode()).digest() for row in flags.drop("case_id").iter_rows()]


def _digest(flags: pl.DataFrame) -> bytes:
    return hashlib.sha256(b"mp-flags/1" + b"".join(_leaves(flags)) + repr(flags["case_id"].to_list()).encode()).digest()


def _case(row: dict[str, Any]) -> Case:
    return Case(**{name: row[name] for name in Case.__dataclass_fields__})


def _row(case: Case, now: datetime, stored: dict[str, Any] | None, commodity: str) -> dict[str, Any]:
    """A row of the queue: the case's own fields override those entered by people."""
    group = case.family == "dropout" and case.kind != "dropout_meter"
    base = stored or {
        "opened_at": now,
        "decided_at": None,
        "assigned_to": None,
        "decided_by": None,
        "reason": None,
        "commodity": commodity,
        "service_point_id": "" if group else case.subject,
    }
    return base | {name: getattr(case, name) for name in Case.__dataclass_fields__}
