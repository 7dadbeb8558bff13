"""Comparing a billing day and weighing the gate, with their figures stored: what the Dagster asset and the command line
call.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries
from meter_pipeline.migration import shadow, tables
from meter_pipeline.migration.comparison import MATCH, Comparison, KnownDefect, RoundingDrift, Rules, compare, coverage
from meter_pipeline.migration.gate import Event, Evidence, GateReport, LiveRun, Requirements, evaluate
from meter_pipeline.migration.results import new_results
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport

Mode = Literal["live", "replay", "legacy_twice"]
#: Legacy bills in cents, half up: the last place of its lines, in millionths of the currency. Its totals are sums of
# lines: they follow them.
LEGACY_UNIT: Final = {"line": 10_000}
#: The legacy batch is given until noon of the day after next (it is nightly, and sometimes a night late); then what it
# lacks is lost, not late.
GRACE: Final = timedelta(hours=60)
#: Days over which rounding is watched for leaning one way: the longest billing period.
DRIFT_DAYS: Final = 31


@dataclass(slots=True)
class ComparisonOutcome:
    """A billing day compared. ``coverage``: service points compared by stratum; ``seconds`` by step."""

    billing_day: date
    run_id: int
    comparison: Comparison
    source: str
    coverage: dict[str, int]

    def report(self) -> StageReport:
        c = self.comparison
        differences = c.pairs.filter(pl.col("class") != MATCH)
        worst = differences.sort(pl.col("difference").abs(), descending=True).head(50)
        return StageReport(
            rows=c.pairs.height,
            figures={
                "figures on both sides": c.both.height,
                "bills on both sides": c.bills,
                "differences": differences.height,
                "blocking": c.blocking,
                "net money (millionths)": c.net_money,
                "absolute money (millionths)": c.absolute_money,
                "our figures from": self.source,
            },
            tables={
                "by level and class": c.summary,
                "largest differences": worst,
                "coverage": pl.DataFrame({"stratum": list(self.coverage), "compared": list(self.coverage.values())}),
            },
            checks=(
                Check(
                    "nothing_unexplained",
                    c.blocking == 0,
                    f"{c.blocking} figures differ without an explanation",
                    {"blocking": c.blocking},
                ),
            ),
        )


def compare_billing_day(
    database: Database,
    day: date,
    *,
    mode: Mode = "live",
    second_run: pl.DataFrame | None = None,
    rules: Rules | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> ComparisonOutcome:
    """Compare every account's figures of a day with the legacy batch's and store what differs, with a ledger entry in
    the same transaction.

    Our figures are the shadow's while the stage is shadow, the pipeline's own after it. ``legacy_twice`` compares the
    legacy results with those of a second run of it (with themselves where none is given), to learn their noise before
    anything is blamed on the new side. ``rules`` replaces LEGACY_UNIT; the known defects come from the database in any
    case. Raises control.pause_check.PausedError where a pause is raised before it writes.
    """
    now = clock.now()
    source, ours = results_of(database)
    with database.connect("comparison") as connection:
        finished = tables.legacy_finished(connection, day)
        defects = [
            KnownDefect(r[0], tuple(r[1]), tuple(r[2]), r[3], r[4], r[5], r[6], r[7])
            for r in tables.known_defects(connection)
        ]
    with ours.connect("comparison") as connection:
        tariffs = tables.tariff_documents(connection)
    rules = rules or Rules(legacy_unit=LEGACY_UNIT)
    rules = Rules(rules.tolerance, rules.legacy_unit, defects)
    legacy, new, known, strata, drift = _figures(database, ours, day, mode, second_run)
    pending = not finished and now < datetime(day.year, day.month, day.day, tzinfo=now.tzinfo) + GRACE
    with ThreadPoolExecutor(1, "comparison-digest") as beside:
        hashed = beside.submit(_digest, new)
        result = compare(
            new,
            legacy,
            known_accounts=known,
            now=now,
            legacy_pending=frozenset({day}) if pending else frozenset(),
            rules=rules,
            drift=drift,
        )
    digest, seen = hashed.result(), coverage(result, strata)
    made_with = hashlib.sha256(f"{tariffs} {program()} {rules!r}".encode()).hexdigest()
    figures: dict[str, Any] = {
        "mode": mode,
        "at": now,
        "compared": result.both.height,
        "bills": result.bills,
        "blocking": result.blocking,
        "net": result.net_money,
        "absolute": result.absolute_money,
        "configuration": made_with,
        "cycle": ",".join(tables.cycles_closing(ours, day)) or None,
        "coverage": seen,
        "summary": result.summary.to_dicts(),
        "source": source,
        "sha256": digest,
    }
    before_writing(database, clock=clock)
    with database.connect("comparison") as connection:
        run_id = tables.write_comparison(connection, day, figures, result.pairs.filter(pl.col("class") != MATCH))
        entries.append(
            connection,
            "comparison",
            {
                "step": "compared",
                "billing_day": day,
                "mode": mode,
                "run": run_id,
                "compared": result.both.height,
                "bills": result.bills,
                "blocking": result.blocking,
                "net_money": result.net_money,
                "absolute_money": result.absolute_money,
                "configuration": made_with,
                "source": source,
                "results_sha256": digest,
            },
            clock=clock,
        )
        connection.commit()
    return ComparisonOutcome(day, run_id, result, source, seen)


def _digest(results: pl.DataFrame) -> bytes:
    """SHA-256 over our figures, sorted, as CSV."""
    return hashlib.sha256(results.sort("account_id", "level", "code").write_csv().encode()).digest()


@cache
def program() -> str:
    """Hash of the program and its rules as they lie on this machine: every source and threshold file, and a thresholds
    file given from outside."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".toml", ".sql")):
        digest.update(f"{path.relative_to(root)}\x1f".encode() + path.read_bytes())
    if given := os.environ.get("METER_PIPELINE_THRESHOLDS"):
        digest.update(Path(given).read_bytes())
    return digest.hexdigest()


def results_of(database: Database) -> tuple[str, Database]:
    """Where our figures are: the shadow database while the stage is shadow, the pipeline's own after it (and before,
    for a trial)."""
    with database.connect("comparison") as connection:
        stage = flags.read(connection, STAGE).value["stage"]
    return ("shadow", shadow.database_of(database)) if stage == "shadow" else ("pipeline", database)


def _figures(
    database: Database, ours: Database, day: date, mode: Mode, second_run: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series, pl.DataFrame, RoundingDrift]:
    """Legacy figures, ours, accounts we know, strata, drift. The large ones are read at once: PostgreSQL and Arrow take
    a core each."""
    with ThreadPoolExecutor(2, "comparison-read") as beside:
        coming, strata = beside.submit(tables.legacy_results, database, day), beside.submit(tables.strata, ours, day)
        if mode == "legacy_twice":
            legacy = coming.result()
            new = (
                second_run
                if second_run is not None
                else legacy.unique(["account_id", "level", "code"], keep="first", maintain_order=True)
            )
            return legacy, new, legacy["account_id"].unique(), strata.result(), RoundingDrift()
        new = new_results(ours, day)
        days, leant = tables.drift(database, day, DRIFT_DAYS)
        return coming.result(), new, tables.known_accounts(ours), strata.result(), RoundingDrift(days, leant)


def gate(
    database: Database,
    *,
    now: datetime | None = None,
    requirements: Requirements | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> GateReport:
    """Weigh all comparisons stored so far; the report is kept by its hash, since that is what two people sign."""
    at = now or clock.now()
    with database.connect("gate") as connection:
        report = evaluate(evidence(database, connection), at, requirements)
        tables.save_report(connection, report.sha256, at, report.green, report.document())
        connection.commit()
    return report


def evidence(database: Database, connection: tables.Connection) -> Evidence:
    """Everything the gate looks at, from what was stored. Of a day replayed or compared several times only the last
    counts as coverage."""
    runs = tables.comparison_runs(connection)
    latest = {(r["mode"], r["billing_day"]): r for r in runs}
    seen: Counter[str] = Counter()
    for run in latest.values():
        seen.update({str(name): int(count) for name, count in run["coverage"].items()})
    live = [
        LiveRun(r["compared_at"], r["billing_day"], r["bills"], r["blocking"], r["absolute_money"], r["configuration"])
        for r in runs
        if r["mode"] == "live"
    ]
    replayed = [r for (mode, _), r in latest.items() if mode == "replay" and r["bills"]]
    source, ours = results_of(database)
    # A status asked for before the first shadow day has our own reference data to go by.
    ours = database if source == "shadow" and not shadow.exists(database) else ours
    strata = ours.read(
        "SELECT DISTINCT commodity AS c, tariff_id AS t FROM ref.tariffs JOIN ref.agreements USING (tariff_id) ORDER BY 1, 2"
    )
    return Evidence(
        live=live,
        events=[Event(at, what) for at, what in tables.events(connection)],
        replayed_days=frozenset(r["billing_day"] for r in replayed),
        replayed_cycles=frozenset(
            f"{cycle}:{r['billing_day']}"
            for r in latest.values()
            if r["bills"]
            for cycle in (r["cycle_id"] or "").split(",")
            if cycle
        ),
        replay_blocking=sum(int(r["blocking"]) for r in replayed),
        coverage=dict(seen),
        strata={
            "rate_class": strata["t"].unique(maintain_order=True).to_list(),
            "commodity": strata["c"].unique(maintain_order=True).to_list(),
        },
    )
