"""Comparing a billing day and weighing the gate, with their figures stored: what the Dagster asset and the command line call.

Belongs here: gathering, storing, reporting. Does not belong here: classes (comparison.py) and conditions (gate.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.gate import before_writing
from meter_pipeline.ledger import entries
from meter_pipeline.migration.comparison import MATCH, Comparison, KnownDefect, Rules, compare
from meter_pipeline.migration.gate import Event, Evidence, GateReport, LiveRun, Requirements, evaluate
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.store import migration as store
from meter_pipeline.store.database import Database

Mode = Literal["live", "replay", "legacy_twice"]
#: Legacy bills in cents, half up: its own last place, in millionths of the currency.
LEGACY_UNIT = {"line": 10_000, "total": 10_000}
CHECKS = ("nothing_unexplained",)


@dataclass(slots=True)
class ComparisonOutcome:
    """A billing day compared."""

    billing_day: date
    run_id: int
    comparison: Comparison

    def report(self) -> StageReport:
        c = self.comparison
        differences = c.pairs.filter(pl.col("class") != MATCH)
        worst = differences.sort(pl.col("difference").abs(), descending=True).head(50)
        return StageReport(
            rows=c.pairs.height,
            figures={
                "figures compared": c.pairs.height, "differences": differences.height, "blocking": c.blocking,
                "net money (millionths)": c.net_money, "absolute money (millionths)": c.absolute_money,
            },
            tables={"by level and class": c.summary, "largest differences": worst},
            checks=(Check("nothing_unexplained", c.blocking == 0, f"{c.blocking} figures differ without an explanation", {"blocking": c.blocking}),),
        )  # fmt: skip


def compare_billing_day(
    database: Database, day: date, *, mode: Mode = "live", cycle_id: str | None = None, clock: Clock = SYSTEM_CLOCK
) -> ComparisonOutcome:
    """Compare every account's figures of a day with the legacy batch's and store what differs, with a ledger entry in the same transaction.

    ``legacy_twice`` compares the legacy results with themselves, to learn their noise (duplicates) before anything is blamed on the new side.
    """
    now = clock.now()
    with database.connect("comparison") as connection:
        finished = store.legacy_finished(connection, day)
        defects = [KnownDefect(r[0], tuple(r[1]), tuple(r[2]), r[3], r[4], r[5], r[6], r[7]) for r in store.known_defects(connection)]
        made_with = store.configuration(connection, day)
    legacy = store.legacy_results(database, day)
    new = legacy.unique(["account_id", "level", "code"], keep="first", maintain_order=True) if mode == "legacy_twice" else store.new_results(database, day)
    result = compare(
        new, legacy, known_accounts=store.known_accounts(database), now=now,
        legacy_pending=frozenset() if finished else frozenset({day}), rules=Rules(legacy_unit=LEGACY_UNIT, defects=defects),
    )  # fmt: skip
    summary = result.summary.to_dicts()
    figures: dict[str, Any] = {
        "mode": mode, "at": now, "compared": result.pairs.height, "blocking": result.blocking, "net": result.net_money,
        "absolute": result.absolute_money, "configuration": made_with, "cycle": cycle_id, "coverage": store.coverage(database, day), "summary": summary,
    }  # fmt: skip
    before_writing(database, clock=clock)
    with database.connect("comparison") as connection:
        run_id = store.write_comparison(connection, day, figures, result.pairs.filter(pl.col("class") != MATCH))
        entries.append(
            connection, "comparison",
            {"step": "compared", "billing_day": day, "mode": mode, "run": run_id, "compared": result.pairs.height, "blocking": result.blocking,
             "net_money": result.net_money, "absolute_money": result.absolute_money, "configuration": made_with},
            clock=clock,
        )  # fmt: skip
        connection.commit()
    return ComparisonOutcome(day, run_id, result)


def gate(database: Database, *, now: datetime | None = None, requirements: Requirements | None = None, clock: Clock = SYSTEM_CLOCK) -> GateReport:
    """Weigh all comparisons stored so far; the report is kept by its hash, since that is what two people sign."""
    at = now or clock.now()
    with database.connect("gate") as connection:
        report = evaluate(evidence(database, connection), at, requirements)
        store.save_report(connection, report.sha256, at, report.green, report.document())
        connection.commit()
    return report


def evidence(database: Database, connection: store.Connection) -> Evidence:
    """Everything the gate looks at, from what was stored."""
    runs = store.comparison_runs(connection)
    seen: Counter[str] = Counter()
    for run in runs:
        seen.update({str(name): int(count) for name, count in run["coverage"].items()})
    live = [
        LiveRun(r["compared_at"], r["billing_day"], r["compared"], r["blocking"], r["absolute_money"], r["configuration"]) for r in runs if r["mode"] == "live"
    ]
    replayed = [r for r in runs if r["mode"] == "replay"]
    latest = {r["billing_day"]: r for r in replayed}
    strata = database.read("SELECT DISTINCT commodity AS c, tariff_id AS t FROM ref.tariffs JOIN ref.agreements USING (tariff_id) ORDER BY 1, 2")
    return Evidence(
        live=live,
        events=[Event(at, what) for at, what in store.events(connection)],
        replayed_days=frozenset(latest),
        replayed_cycles=frozenset(f"{r['cycle_id']}:{r['billing_day']}" for r in replayed if r["cycle_id"]),
        replay_blocking=sum(int(r["blocking"]) for r in latest.values()),
        coverage=dict(seen),
        strata={"rate_class": strata["t"].unique(maintain_order=True).to_list(), "commodity": strata["c"].unique(maintain_order=True).to_list()},
    )
