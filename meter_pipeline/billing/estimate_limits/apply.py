"""Before a period's bills are issued: count its estimated bills and apply the limits."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from meter_pipeline.anomalies.opened import Finding, close_case, open_case
from meter_pipeline.billing.estimate_limits import tables
from meter_pipeline.billing.estimate_limits.rules import limit_action
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

KIND = "estimate_limit"


def apply_limits(
    database: Database, cycle_id: str, period_start: date, period_end: date, *, clock: Clock = SYSTEM_CLOCK
) -> int:
    """Count the estimated bills of a period and keep them; open a case that holds a bill beyond its limit, and close
    one whose service was read since. Commits. Returns the bills that are held or for which a read is asked.

    An issued bill keeps the row it was issued with. Without rules nothing is done.
    """
    rules = tables.rules(database)
    if not rules:
        return 0
    period = {"cycle_id": cycle_id, "period_start": period_start, "period_end": period_end}
    last = period_end - timedelta(days=1)
    with database.connect("estimate limits") as connection:
        found = tables.estimated(connection, cycle_id, period_start, period_end)
        rows: list[dict[str, Any]] = []
        for service in found:
            if service["issued"]:
                continue
            cause = "rejected" if service["rejected"] else "no_read"
            earlier = tables.before(connection, service["account_id"], service["service_point_id"], period_start)
            causes = [cause, *(c for _, c in earlier)]
            of_cause = next((k for k, c in enumerate(causes) if c != cause), len(causes))
            limit = limit_action(rules, service, cause, len(causes), of_cause, last)
            rows.append(
                period
                | {k: service[k] for k in ("account_id", "service_point_id", "commodity")}
                | {
                    "cause": cause,
                    "in_a_row": len(causes),
                    "of_cause": of_cause,
                    "action": limit.action,
                    "most_bills": limit.most_bills,
                    "shown": limit.shown,
                    "rule": limit.rule,
                }
            )
        standing = {(s["account_id"], s["service_point_id"]) for s in found}
        gone = [service for service in tables.kept(connection, cycle_id, period_start) if service not in standing]
        tables.forget(connection, cycle_id, period_start, gone)
        tables.keep(connection, rows, clock.now())
        on_hold = {row["service_point_id"] for row in rows if row["action"] == "hold"}
        for row in rows:
            finding = _finding(row, last)
            if row["action"] == "hold":
                open_case(connection, finding, clock=clock)
            elif row["service_point_id"] not in on_hold:
                close_case(connection, finding.case_id, "the limit is not passed", clock=clock)
        for account, point in gone:
            if point not in on_hold:
                row = period | {"account_id": account, "service_point_id": point}
                close_case(connection, _finding(row, last).case_id, "a read came", clock=clock)
    return sum(1 for row in rows if row["action"] != "none")


def forget_removed_periods(connection: Connection, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Take out the estimated bills of periods that reference data does not have any more, and close the cases that hold
    them. Bills that are out keep theirs."""
    for row in tables.of_removed_periods(connection):
        tables.forget(connection, row["cycle_id"], row["period_start"], [(row["account_id"], row["service_point_id"])])
        last = row["period_end"] - timedelta(days=1)
        close_case(connection, _finding(row, last).case_id, "the billing period was removed", clock=clock)


def _finding(row: dict[str, Any], last: date) -> Finding:
    names = ("account_id", "cycle_id", "cause", "in_a_row", "of_cause", "most_bills", "rule")
    return Finding(
        KIND,
        row["service_point_id"],
        f"{row['period_start']:%Y%m%d}",
        row["service_point_id"],
        row.get("commodity", ""),
        row["period_start"],
        last,
        hold=True,
        unit="bills",
        expected=row.get("most_bills"),
        observed=row.get("in_a_row"),
        evidence={name: row[name] for name in names if name in row},
    )
