"""Summary of several billing days for people: reads, validated intervals, bills. Shared by the demo and
``status``.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from meter_pipeline.cli.output import OUT, table
from meter_pipeline.money import money_text
from meter_pipeline.postgres.database import Database
from meter_pipeline.reporting import overview


def document(database: Database, first: date, last: date) -> dict[str, Any]:
    """The figures of the days first to last as one JSON document."""
    days = overview.billing_days(database, first, last)
    return {
        "first": first,
        "last": last,
        "arrivals": overview.arrivals(database),
        "reads": overview.files(database, first, last),
        "days": days,
        "usage": overview.usage(database, first, last),
        "flags": overview.flags(database, first, last),
        "statements": overview.statements(database, first, last),
        "waiting_bills": overview.waiting_bills(database, first, last),
        "waiting": [{"day": day, "reads": reads} for day, reads in overview.waiting_days(database)],
        "paused": overview.pauses(database),
    }


def show(found: dict[str, Any]) -> None:
    """Draw it in tables that fit a terminal."""
    OUT.print(
        f"Billing days {found['first']} to {found['last']} (--day and --to choose others); files, dead letters, pauses and what "
        "waits to be written are of all days",
        highlight=False,
    )
    if not any(row["accounts"] for row in found["days"]):
        OUT.print(
            f"None of these days is billed. Bill one: meter-pipeline run --day {found['first']}\n", highlight=False
        )
    reads = ["head_end", "files", "received", "accepted", "duplicate", "superseded", "rejected", "waiting"]
    rows = [[row[name] for name in reads] for row in found["reads"]]
    if rows:
        rows.append(["all", *(sum(int(row[n]) for row in rows) for n in range(1, len(reads)))])
    OUT.print(table("Reads by head-end and outcome", reads, rows, numbers=reads[1:]))
    arrivals = found["arrivals"]
    OUT.print(
        f"  {arrivals['files']} files landed, {arrivals['refused']} refused whole, {arrivals['duplicate_files']} known already under another name; "
        f"{arrivals['dead_letters']} dead letters ({arrivals['reads_rejected']} reads)\n",
        highlight=False,
    )
    names = ["billing_day", "hours", "actual", "estimated", "missing", "flags", "exceptions"]
    rows = [[f"{row[n]:g}" if n == "hours" else row[n] for n in names] for row in found["days"]]
    OUT.print(
        table("Billing days: intervals validated, and what people should look at", names, rows, numbers=names[1:])
    )
    names = ["billing_day", "accounts", "charged", "differences", "unexplained"]
    OUT.print(
        table(
            "Billing days: money and reconciliation",
            names,
            [[row[n] for n in names] for row in found["days"]],
            numbers=names[1:],
        )
    )
    if found["statements"]:
        names = ["cycle_id", "period_end", "issued", "total", "currency", "waiting"]
        rows = [
            [money_text(row[n], row["currency"], grouped=True) if n == "total" else row[n] for n in names]
            for row in found["statements"]
        ]
        OUT.print(
            table("Statements of the billing periods that ended", names, rows, numbers=["issued", "total", "waiting"])
        )
        example = next((row["example"] for row in found["statements"] if row["example"]), "")
        if example:
            OUT.print(
                f"  One of them as its customer sees it: meter-pipeline billing show {example} --html bill.html\n",
                highlight=False,
            )
    if found["waiting_bills"]:
        names = ["account_id", "cycle_id", "period_end", "reason", "detail"]
        rows = [[row[n] for n in names] for row in found["waiting_bills"]]
        OUT.print(table("Bills that wait, and for what", names, rows))
        waiting = sum(int(row["waiting"]) for row in found["statements"])
        if len(rows) == overview.MOST_WAITING:
            OUT.print(f"  the first {len(rows)} reasons; {waiting} accounts wait in these periods\n", highlight=False)
        OUT.print(
            "  What each reason waits for: docs/finance.md, Statements. A bill is tried again by every later run.\n",
            highlight=False,
        )
    usage = ["commodity", "flow", "unit", "service_points", "quantity"]
    OUT.print(table("Usage", usage, [[row[n] for n in usage] for row in found["usage"]], numbers=usage[3:]))
    flags = ["kind", "flags", "service_points"]
    if found["flags"]:
        OUT.print(
            table(
                "Flags for people to look at",
                flags,
                [[row[n] for n in flags] for row in found["flags"]],
                numbers=flags[1:],
            )
        )
    for pause in found["paused"]:
        OUT.print(
            f"[bold red]EMERGENCY_PAUSE[/] of {pause['scope']} {pause['target'] or ''} by {pause['raised_by']}: {pause['reason']}"
        )
    if found["waiting"]:
        OUT.print(
            "Waiting to be written: " + ", ".join(f"{w['day']} ({w['reads']})" for w in found["waiting"][:12]),
            highlight=False,
        )
