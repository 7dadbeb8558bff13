"""The stage: a billing day's flags and cases, from the validated day to the queue.

Belongs here: reading a window, judging its last day, writing the result in one transaction with its ledger entry. Does not belong here:
detectors, SQL. Failure of this stage stops nothing: ingestion and the billing of accounts that are not held never wait for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.anomalies import facts as packing
from meter_pipeline.anomalies.cases import Case, CaseFlag, expired, fold, tolerance
from meter_pipeline.anomalies.detect import detect
from meter_pipeline.anomalies.facts import History
from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import CLASSES, WINDOW_DAYS, Window
from meter_pipeline.baselines import COEFFICIENTS, expected_usage
from meter_pipeline.baselines.weather import Service, serve
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.gate import before_writing
from meter_pipeline.ledger import entries
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.store import anomalies as store
from meter_pipeline.store.database import Database, Read

FLAG_SCHEMA: Final[dict[str, Any]] = {
    "expected": pl.Float64, "observed": pl.Float64, "confidence": pl.Float64, "billing_day": pl.Date, "kind": pl.String,
    "service_point_id": pl.String, "group_id": pl.String, "commodity": pl.String, "unit": pl.String, "severity": pl.String,
    "evidence": pl.String, "baseline_version": pl.String, "case_id": pl.String,
}  # fmt: skip


#: days of usage read in one query when many are to be packed: 100,000 points a day are 60 MB of it
_DAYS_AT_ONCE: Final = 8
_SIGNS: Final = {
    "reversed": packing.REVERSED, "register_back": packing.REGISTER_BACK, "outage": packing.OUTAGE, "off": packing.DISCONNECTED,
}  # fmt: skip


@dataclass(slots=True)
class AnomalyOutcome:
    """What a day's judgement found. ``weather`` is complete, partial or missing; missing delays the flags that need it, and only those."""

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
        figureless = pl.col("expected").is_null() & pl.col("observed").is_null() & ~pl.col("kind").str.starts_with("dropout")
        bare = self.flags.filter((pl.col("evidence").str.len_bytes() < 3) | figureless)
        unnamed = self.flags.filter(pl.col("kind").is_in([k for k, v in KINDS.items() if v.weather]) & pl.col("baseline_version").is_null())
        worst = self.flags.filter(pl.col("case_id").is_not_null()).sort("confidence", "service_point_id", descending=[True, False]).head(20)
        return StageReport(
            rows=self.flags.height,
            figures={
                "service points judged": self.points, "flags": self.flags.height, "cases opened": len(self.opened),
                "cases continued": len(self.continued), "cases expired": self.expired, "weather": self.weather,
                "baseline version": self.baseline_version or "none", **{f"flags: {kind}": n for kind, n in self.by_kind.items()},
            },
            tables={"for people": worst.select("kind", "service_point_id", "group_id", "severity", "confidence", "expected", "observed", "unit")},
            plots=self.plots,
            checks=[
                Check(
                    "every_flag_has_evidence", bare.height == 0 and unnamed.height == 0,
                    "Each flag names what was expected, what was observed and the baseline it used.",
                    {"without evidence": bare.height, "without baseline": unnamed.height},
                )
            ],
        )  # fmt: skip


def detect_billing_day(
    database: Database, calendar: BillingCalendar, day: date, *, clock: Clock = SYSTEM_CLOCK, limits: Thresholds = DEFAULT
) -> AnomalyOutcome:
    """Judge a validated billing day: write its flags (anomaly.flag), fold them into cases, expire what nobody touched, enter the ledger.

    Judging a day again gives the same flags, byte for byte, unless the day, its weather, the baselines or people's decisions changed; then the
    day's flags are replaced, and a case that no flag supports any more and nobody has touched goes with them. A day without weather is judged
    by what needs none.
    """
    days = calendar.days(day - timedelta(days=WINDOW_DAYS - 1), day)
    present = ensure_facts(database, days, refresh={day})
    with database.reader() as read:
        points = store.read_points(read, day, calendar.bounds(day)[1])
        version = store.baseline_version(read, day)
        packed, lists = store.read_facts(read, days[0], day)
        baselines = store.read_baselines(read, version) if version else pl.DataFrame()
        decided = store.decisions(read)
        holidays = store.read_holidays(read, days[0], day)
        stations, temperatures = store.read_stations(read), store.read_temperatures(read, days[0], day)
    found, judged, with_weather = [], 0, 0
    plots: dict[str, bytes] = {}
    layout = packed.filter(pl.col("billing_day") == day).select("commodity", "unit").sort("commodity", "unit") if present else pl.DataFrame()
    for commodity, unit in layout.iter_rows():
        history = packing.assemble(packed, lists, commodity, unit, days, day)
        placed = pl.DataFrame({"service_point_id": history.points}).join(points, on="service_point_id", how="left", maintain_order="left")
        weather = serve(placed, stations, temperatures, days)
        window = build_window(history, placed, weather, baselines, holidays, decided)
        frame = detect(window, limits)
        found.append(_named(frame, history, day, version))
        judged += window.points
        with_weather += int(weather.known_on(-1).sum())
        plots |= _plots(window, history, frame)
    flags = pl.concat(found) if found else pl.DataFrame(schema=FLAG_SCHEMA)
    weather_state = "complete" if with_weather == judged else "missing" if with_weather == 0 else "partial"
    return _write(database, day, flags.sort("kind", "service_point_id", "group_id", "unit"), judged, weather_state, version, clock, plots)


def ensure_facts(database: Database, days: Sequence[date], *, refresh: set[date]) -> bool:
    """Make the packed facts of the validated days that have none, and of those in ``refresh``. True where the last day has facts."""
    with database.reader() as read:
        kept = store.fact_days(read, days[0], days[-1])
        validated = store.validated_days(read, days[0], days[-1])
        wanted = sorted({d for d in validated if d not in kept or d in refresh} | (kept & refresh))
        for start in range(0, len(wanted), _DAYS_AT_ONCE):
            made = _read_facts(read, wanted[start : start + _DAYS_AT_ONCE])
            before_writing(database)
            with database.connect("meter-pipeline anomalies") as connection:
                for day, found in made.items():
                    store.lock_day(connection, day)
                    store.write_facts(connection, day, [packing.pack(f) for f in found])
    return days[-1] in validated


def _read_facts(read: Read, days: Sequence[date]) -> dict[date, list[packing.DayFacts]]:
    """What validated days say of every service point, from vee and ref."""
    usage = store.read_usage(read, days[0] - timedelta(days=1), days[-1])
    by_day = {key[0]: part for key, part in usage.partition_by("billing_day", as_dict=True).items()}
    signs: dict[date, dict[int, set[str]]] = {}
    for day, sign, point in store.read_signs(read, days[0], days[-1]).iter_rows():
        signs.setdefault(day, {}).setdefault(_SIGNS[sign], set()).add(point)
    hours = store.read_water_hours(read, days[0], days[-1]) if (usage["commodity"] == "water").any() else {}
    result: dict[date, list[packing.DayFacts]] = {}
    for day in days:
        mine, before = by_day.get(day), by_day.get(day - timedelta(days=1))
        paid = {} if before is None else dict(before.drop_nulls("account_id").select("service_point_id", "account_id").iter_rows())
        todays = {unit: flows for (of, unit), flows in hours.items() if of == day}
        result[day] = [] if mine is None else packing.day_facts(day, mine, todays, signs.get(day, {}), paid)
    return result


def build_window(
    history: History, placed: pl.DataFrame, weather: Service, baselines: pl.DataFrame, holidays: set[date], decided: dict[str, tuple[int, int]]
) -> Window:
    """The detectors' window of one commodity and unit. ``placed`` has the points' reference data in the history's order."""
    size = history.points.size
    mine = baselines.filter(pl.col("unit") == history.unit) if baselines.height else baselines
    coefficients, provisional = _coefficients(history, mine)
    weekend = np.array([d.weekday() >= 5 for d in history.days])
    holiday = np.array([d in holidays for d in history.days])
    expected = expected_usage(
        coefficients, weather.temperatures_f, station=weather.station, weekend=weekend, holiday=holiday,
        within_f=(coefficients["low_f"], coefficients["high_f"]),
    )  # fmt: skip
    head_end, head_ends = _codes(placed["head_end"])
    collector, collectors = _codes(placed["collector_id"])
    route, _ = _codes(placed["route"])
    classes = _classes(placed)
    # validation replaces what ran backward by estimates: that is not a silence
    reversed_days = history.has(packing.REVERSED)
    coverage = np.where(reversed_days, np.nan, history.coverage) if reversed_days.any() else history.coverage
    tolerances = np.ones(size)
    if decided:
        tolerances = np.array([tolerance(*decided.get(p, (0, 0))) for p in history.points.tolist()])
    return Window(
        day=history.days[-1], commodity=history.commodity, unit=history.unit, usage=history.usage, coverage=coverage,
        customer_class=classes, expected=expected, sigma=np.nan_to_num(coefficients["sigma"]),
        robust=np.nan_to_num(coefficients["robust_sigma"]), provisional=provisional, disconnected=history.has(packing.DISCONNECTED),
        account_changed=history.has(packing.ACCOUNT_CHANGED), head_end=head_end, collector=collector, head_ends=head_ends, collectors=collectors,
        neighbourhood=route * len(CLASSES) + classes, export=history.export, night=history.night, sustained=history.sustained,
        outage=history.has(packing.OUTAGE), register_back=history.has(packing.REGISTER_BACK)[:, -1],
        reverse_reported=history.has(packing.REVERSED)[:, -1], tolerance=tolerances,
    )  # fmt: skip


def _classes(placed: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    code = {name: i for i, name in enumerate(CLASSES)}
    return placed["customer_class"].replace_strict(code, default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()


def _coefficients(history: History, baselines: pl.DataFrame) -> tuple[dict[str, Any], Any]:
    """(points,) coefficients in the history's order; NaN and provisional where the version has no row for a point."""
    names = (*COEFFICIENTS, "low_f", "high_f")
    size = history.points.size
    if baselines.is_empty():
        return {name: np.full(size, np.nan) for name in names}, np.ones(size, bool)
    joined = pl.DataFrame({"service_point_id": history.points}).join(
        baselines.select("service_point_id", "status", *names), on="service_point_id", how="left", maintain_order="left"
    )
    coefficients = {name: joined[name].cast(pl.Float64).fill_null(np.nan).to_numpy().copy() for name in names}
    return coefficients, (joined["status"].fill_null("class_profile") == "class_profile").to_numpy()


def _codes(column: pl.Series) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Codes into the sorted distinct names, -1 for null."""
    names = sorted(column.drop_nulls().unique().to_list())
    if not names:
        return np.full(len(column), -1, np.int64), names
    return column.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy(), names


def _named(frame: pl.DataFrame, history: History, day: date, version: str | None) -> pl.DataFrame:
    """Findings with the names of their subjects: rows of anomaly.flag, without case."""
    ids = history.points[frame["row"].to_numpy()] if frame.height else np.array([], str)
    is_group = frame["group"].is_not_null()
    return frame.select(
        "expected",
        "observed",
        "confidence",
        pl.lit(day).alias("billing_day"),
        "kind",
        pl.when(is_group).then(pl.lit("")).otherwise(pl.Series("id", ids, dtype=pl.String)).alias("service_point_id"),
        pl.col("group").fill_null("").alias("group_id"),
        pl.lit(history.commodity).alias("commodity"),
        pl.lit(history.unit).alias("unit"),
        "severity",
        "evidence",
        pl.lit(version, pl.String).alias("baseline_version"),
        pl.lit(None, pl.String).alias("case_id"),
    )


def _plots(window: Window, history: History, frame: pl.DataFrame) -> dict[str, bytes]:
    from meter_pipeline.anomalies.plots import flagged_points_png

    made = flagged_points_png(window, history, frame)
    return {f"{window.commodity}: flags over weather": made} if made else {}


def _write(
    database: Database, day: date, flags: pl.DataFrame, judged: int, weather: str, version: str | None, clock: Clock, plots: dict[str, bytes]
) -> AnomalyOutcome:
    now = clock.now()
    before_writing(database, clock=clock)
    with database.connect("meter-pipeline anomalies") as connection:
        store.lock_day(connection, day)
        store.lock_cases(connection)
        before = store.day_cases(connection, day)
        told = [
            CaseFlag(point or group, kind, severity, confidence, day)
            for point, group, kind, severity, confidence in flags.select(
                "service_point_id", "group_id", "kind", "severity", "confidence"
            ).iter_rows()
            if KINDS[kind].case
        ]
        subjects = sorted({f.subject for f in told})
        stored = {row["case_id"]: row for row in store.read_cases(connection, subjects=subjects)} if subjects else {}
        made, changed = fold(told, [_case(row) for row in stored.values()])
        placed = _place(flags, [*(_case(r) for r in stored.values() if r["case_id"] not in {c.case_id for c in changed}), *changed, *made])
        digest = _digest(placed)
        new = store.run_hash(connection, day) != digest
        commodity = dict(flags.select(pl.concat_str("service_point_id", "group_id"), "commodity").iter_rows())
        store.upsert_cases(
            connection,
            [_row(c, now, None, commodity.get(c.subject, "")) for c in made] + [_row(c, now, stored[c.case_id], "") for c in changed],
        )
        run = {
            "billing_day": day, "judged_at": now, "points": judged, "flags": placed.height, "weather": weather, "baseline_version": version,
            "content_hash": digest,
        }  # fmt: skip
        if new:
            store.write_flags(connection, day, placed, run)
            touched = sorted({*before, *(c.case_id for c in made), *(c.case_id for c in changed)})
            store.refresh_spans(connection, touched)
            store.drop_unflagged(connection, touched)
            body = {
                "billing_day": day.isoformat(), "flags": placed.height, "cases_opened": len(made), "cases_continued": len(changed),
                "weather": weather, "baseline_version": version, "content_hash": digest,
            }  # fmt: skip
            entries.append(connection, "flagged", body, leaves=_leaves(placed) or None, clock=clock)
        rows = {row["case_id"]: row for row in store.open_before(connection, day)}
        closed = expired([_case(row) for row in rows.values()], day)
        store.upsert_cases(connection, [_row(c, now, rows[c.case_id] | {"decided_at": now}, "") for c in closed])
        for case in closed:
            entries.append(connection, "flag_decided", {"case_id": case.case_id, "decision": "expired", "last_day": case.last_day.isoformat()}, clock=clock)
    return AnomalyOutcome(day, judged, placed, made, changed, len(closed), weather, version, new, plots)


def _place(flags: pl.DataFrame, cases: list[Case]) -> pl.DataFrame:
    """Flags with the case each belongs to: the newest case of its subject and family that covers the day."""
    if flags.is_empty():
        return flags
    of: dict[tuple[str, str], list[Case]] = {}
    for case in sorted(cases, key=lambda c: (c.first_day, c.case_id)):
        of.setdefault((case.subject, case.family), []).append(case)
    placed = []
    for point, group, kind, day in flags.select("service_point_id", "group_id", "kind", "billing_day").iter_rows():
        mine = [c for c in of.get((point or group, KINDS[kind].family), []) if c.first_day <= day <= c.last_day] if KINDS[kind].case else []
        placed.append(mine[-1].case_id if mine else None)
    return flags.with_columns(pl.Series("case_id", placed, dtype=pl.String))


def _leaves(flags: pl.DataFrame) -> list[bytes]:
    """A hash of every flag's content, in order."""
    return [hashlib.sha256(repr(row).encode()).digest() for row in flags.drop("case_id").iter_rows()]


def _digest(flags: pl.DataFrame) -> bytes:
    return hashlib.sha256(b"mp-flags/1" + b"".join(_leaves(flags)) + repr(flags["case_id"].to_list()).encode()).digest()


def _case(row: dict[str, Any]) -> Case:
    return Case(**{name: row[name] for name in Case.__dataclass_fields__})


def _row(case: Case, now: datetime, stored: dict[str, Any] | None, commodity: str) -> dict[str, Any]:
    """A row of the queue: the case's own fields over what people put there."""
    group = case.family == "dropout" and case.kind != "dropout_meter"
    base = stored or {
        "opened_at": now, "decided_at": None, "assigned_to": None, "decided_by": None, "reason": None, "commodity": commodity,
        "service_point_id": "" if group else case.subject,
    }  # fmt: skip
    return base | {name: getattr(case, name) for name in Case.__dataclass_fields__}
