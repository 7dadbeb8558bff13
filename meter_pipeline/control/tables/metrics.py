"""Figures for the metrics: one small query each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]
Rows: TypeAlias = list[tuple[tuple[str, ...], float]]

#: name, help, labels, tables it needs, query giving the labels' values and then the figure
_FIGURES: Final[Sequence[tuple[str, str, list[str], tuple[str, ...], str]]] = (
    (
        "paused",
        "1 for each pause in force, by scope and target",
        ["scope", "target", "rule"],
        ("control.emergency_pause",),
        "SELECT scope, coalesce(target, ''), coalesce(rule, ''), 1 FROM control.emergency_pause WHERE state = 'paused'",
    ),
    (
        "pause_seconds",
        "Seconds the longest pause has been in force; 0 when none is",
        [],
        ("control.emergency_pause",),
        "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(raised_at)), 0) FROM control.emergency_pause WHERE state = 'paused'",
    ),
    (
        "refusals",
        "Steering actions refused so far",
        ["code"],
        ("control.refusal",),
        "SELECT code, count(*) FROM control.refusal GROUP BY 1",
    ),
    (
        "runs_alive",
        "Runs with a heartbeat in the last minute, by whether they wait for a pause",
        ["waiting"],
        ("control.presence",),
        """SELECT CASE WHEN waiting_since IS NULL THEN 'no' ELSE 'yes' END, count(*) FROM control.presence
           WHERE ended_at IS NULL AND seen_at > clock_timestamp() - interval '1 min' GROUP BY 1""",
    ),
    (
        "breaker_open",
        "1 while a circuit breaker is not closed",
        ["breaker", "state"],
        ("raw.breaker",),
        "SELECT name, state, (state <> 'closed')::int FROM raw.breaker",
    ),
    (
        "dead_letters",
        "Dead letters by status",
        ["head_end", "status"],
        ("raw.dead_letter",),
        "SELECT head_end, status, count(*) FROM raw.dead_letter GROUP BY 1, 2",
    ),
    (
        "reads",
        "Reads of the files landed in the last 24 hours",
        ["head_end", "outcome"],
        ("raw.control_total",),
        """SELECT head_end, o.outcome, sum(o.reads) FROM raw.control_total, LATERAL (VALUES ('received', received), ('accepted', accepted),
             ('duplicate', duplicate), ('superseded', superseded), ('rejected', rejected), ('waiting', waiting)) o (outcome, reads)
           WHERE landed_at > clock_timestamp() - interval '24 h' GROUP BY 1, 2""",
    ),
    (
        "files_unbalanced",
        "Loaded files whose control totals do not add up",
        [],
        ("raw.control_total",),
        "SELECT count(*) FROM raw.control_total WHERE NOT balanced AND waiting = 0",
    ),
    (
        "writers",
        "Connections of the pipeline's writers by what they wait for",
        ["state", "wait"],
        (),
        """SELECT coalesce(state, ''), coalesce(wait_event_type || ':' || wait_event, ''), count(*) FROM pg_stat_activity
           WHERE datname = current_database() AND application_name LIKE 'ingest%%' GROUP BY 1, 2""",
    ),
    (
        "alerts_waiting",
        "Alerts that a channel has not taken",
        [],
        ("control.notification",),
        "SELECT count(*) FROM control.notification WHERE next_attempt_at IS NOT NULL",
    ),
    (
        "ledger_unverified_seconds",
        "Seconds since the ledger last verified; -1 when it never has or the last verification failed",
        [],
        ("control.observation",),
        """SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - observed_at) FROM control.observation
           WHERE kind = 'ledger' AND subject = 'log' AND (figures ->> 'ok')::boolean), -1)""",
    ),
)


def figures(connection: Connection) -> Iterator[tuple[str, str, list[str], Rows]]:
    """(name, help, labels, [(label values, figure)]) for every figure whose tables this database has."""
    for name, about, labels, needs, query in _FIGURES:
        if all(
            connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,) for table in needs
        ):
            rows = connection.execute(query.replace("%%", "%").encode()).fetchall()
            yield name, about, labels, [(tuple(str(v) for v in row[:-1]), float(row[-1])) for row in rows]


def latest_billed_day(connection: Connection) -> date | None:
    """The latest billing day with charges."""
    if connection.execute("SELECT to_regclass('billing.charge_day') IS NULL").fetchone() == (True,):
        return None
    row = connection.execute("SELECT max(billing_day) FROM billing.charge_day").fetchone()
    return row[0] if row else None
