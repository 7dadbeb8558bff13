"""Previews a correction: its exact effect, before anything is written.

In one transaction that is rolled back, the rows are written, the stages validate and bill the days again, and the
adjustments are computed. The result is stored under a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.adjustments import propose_late_changes
from meter_pipeline.billing.back_billing import tables as policies
from meter_pipeline.billing.day import bill_billing_day
from meter_pipeline.billing.part_of_day import validated_since_billed
from meter_pipeline.billing.several_days_checks import keep_several_days_checks
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.corrections import tables
from meter_pipeline.corrections.impact import ask, pairs_of, reaches_validation
from meter_pipeline.ledger.entries import canonical_json
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.one_transaction import OneTransaction, undone
from meter_pipeline.postgres.reading import expect_days
from meter_pipeline.reference import Fault, ReferenceRefused, history
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.reference.importing import RowChange, change_row, write_rows
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline.vee.day import validate_billing_day
from meter_pipeline.vee.part_of_day import touched_since
from meter_pipeline.vee.tables import true_up

#: Rounds of days that ask for other days: a read that closes a year asks for it at once.
_MOST_ROUNDS: Final = 20
_CENT: Final = Decimal("0.01")

Write = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Preview:
    """Result of a previewed correction. ``document``: the JSON of the command line; ``pairs``: service_point_id,
    billing_day; ``issued``: whether money of an issued statement changes; ``state``: the hash of the data it depends
    on."""

    digest: bytes
    document: dict[str, Any]
    changes: str
    pairs: pl.DataFrame
    issued: bool
    state: str


def preview_folder(
    database: Database,
    calendar: BillingCalendar,
    folder: Path,
    *,
    snapshot: Snapshot | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Preview:
    """Previews the import of a folder and stores the result under its digest. Raises ReferenceRefused where the
    import would."""
    rows, documents = read_folder(folder)

    def write(connection: Connection) -> object:
        return write_rows(connection, rows, documents, str(folder), snapshot=snapshot)

    return preview(database, calendar, write, str(folder), clock=clock)


def preview_row(
    database: Database, calendar: BillingCalendar, change: RowChange, *, clock: Clock = SYSTEM_CLOCK
) -> Preview:
    """Previews the end or removal of one row and stores the result under its digest. Raises ReferenceRefused where
    the change would."""

    def write(connection: Connection) -> object:
        return change_row(connection, change)

    source = f"{change.table} {' '.join(change.key)} {'removed' if change.on is None else f'ended on {change.on}'}"
    return preview(database, calendar, write, source, clock=clock)


def preview(
    database: Database, calendar: BillingCalendar, write: Write, source: str, *, clock: Clock = SYSTEM_CLOCK
) -> Preview:
    """Previews the changes that ``write`` makes to reference data in a connection's transaction."""
    with undone(database, "meter-pipeline correction") as tried, tried.connect() as session:
        mark = tables.reference_mark(session)
        write(session)
        made = _impact(tried, session, calendar, mark, clock)
    if made.document["changes"]:
        with database.connect("meter-pipeline correction") as connection:
            tables.keep(connection, _row(made, source, clock))
    return made


def _row(made: Preview, source: str, clock: Clock) -> dict[str, Any]:
    by_day: dict[str, list[str]] = {}
    for point, day in made.pairs.iter_rows():
        by_day.setdefault(day.isoformat(), []).append(point)
    return {
        "digest": made.digest,
        "source": source,
        "at": clock.now(),
        "state": bytes.fromhex(made.state),
        "changes": made.changes,
        "reached": by_day,
        "summary": json.loads(json.dumps(made.document, default=str)),
        "issued": made.issued,
    }


def _impact(tried: OneTransaction, session: Connection, calendar: BillingCalendar, mark: str, clock: Clock) -> Preview:
    """Run every day that the written rows change, and compare."""
    changed = history.changes(session)
    changes = tables.rows_as_json(session)
    pairs = pairs_of(session, calendar, changed, tables.stored_days(session))
    refuse_archived(session, pairs)
    points = pairs["service_point_id"].unique().sort().to_list()
    days: list[date] = pairs["billing_day"].unique().sort().to_list()
    first = days[0] if days else None
    state = state_of(session, mark, points, first)
    waiting, issued, sealed = tables.statements(session, pairs)
    before = tables.money(session, points, first) if first else {}
    corrected_on = calendar.day_of(clock.now())
    policies_by_point = policies.of_points(session, points, first) if first else []
    known = {(day, evidence) for day, several in true_up.waiting(tried) for evidence in several}
    # Asked for as an import asks: no day's charges are then carried into one that is billed again anyhow.
    ask(session, pairs, changed, hashlib.sha256(mark.encode()).digest(), corrected_on, clock.now())
    again, unchecked = days, dict[date, set[str]]()
    coming = true_up.validated_anyway(tried)
    if reaches_validation(changed):
        coming |= {
            day: frozenset(some) for day, some in pairs.group_by("billing_day").agg("service_point_id").iter_rows()
        }
    for _ in range(_MOST_ROUNDS):
        expect_days(tried, again)
        for day in again:
            coming.pop(day, None)
            validate_billing_day(tried, calendar, day, clock=clock, only=touched_since(tried, day))
            billed = bill_billing_day(tried, calendar, day, clock=clock, only=validated_since_billed(tried, day))
            unchecked.setdefault(day, set()).update(billed.unchecked)
        true_ups = {(day, evidence) for day, several in true_up.waiting(tried) for evidence in several} - known
        known |= true_ups
        again = sorted({day for day, _ in true_ups})
        if not again:
            break
    keep_several_days_checks(tried, calendar, {day: sorted(points) for day, points in unchecked.items()})
    if days:
        propose_late_changes(tried, calendar, clock=clock)
    after = tables.money(session, points, first) if first else {}
    rules = (
        [each for each in policies.of_points(session, points, first) if each not in policies_by_point] if first else []
    )
    bills_waiting = tables.bills_waiting(session, points) if points else []
    document: dict[str, Any] = {
        "changes": [cell for change in changed for cell in _cells(change)],
        "days": len(days),
        "service_points": len(points),
        "first_day": first,
        "last_day": days[-1] if days else None,
        "statements": {"open": waiting, "issued": issued, "sealed_months": [f"{m:%Y-%m}" for m in sealed]},
        "money": _money(before, after),
        "corrected_on": corrected_on,
        "policy": [_policy(each) for each in rules],
        "waiting": [{"statement_id": name, "why": why} for name, why in bills_waiting],
        "refused": None,
    }
    moved = any(before.get(a, (0, 0))[0] != after.get(a, (0, 0))[0] for a in {*before, *after})
    # What a rule waives of an issued bill is money too, also where nothing is left to charge.
    by_two = moved or bool(bills_waiting) or bool(rules)
    over = {"changes": changes, "document": json.loads(json.dumps(document, default=str)), "state": state}
    digest = hashlib.sha256(canonical_json(over)).digest()
    return Preview(digest, {"digest": digest.hex(), **document}, changes, pairs, by_two, state)


def state_of(connection: Connection, mark: str, points: list[str], first: date | None) -> str:
    """Returns the SHA-256, in hex, over the data that a preview depends on."""
    return hashlib.sha256(f"{mark}|{tables.state(connection, points, first)}".encode()).hexdigest()


def refuse_archived(connection: Connection, pairs: pl.DataFrame) -> None:
    """Raise ReferenceRefused where a change concerns archived days."""
    archived = tables.archived_days(connection)
    if not archived or not pairs.height:
        return
    gone = sorted(set(archived) & set(pairs["billing_day"].unique().to_list()))
    if gone:
        why = f"the change reaches {len(gone)} archived days ({gone[0]} to {gone[-1]}); bring them back first: meter-pipeline partitions restore"
        raise ReferenceRefused([Fault("the folder", 0, "", why)])


def _cells(change: history.Change) -> list[dict[str, Any]]:
    """Returns a changed row for the command line: a line a changed column; one line for a new or removed row."""
    head = {"table": change.table, "key": " ".join(change.key)}
    if change.old is None or change.new is None:
        shown = {"column": None, "old": change.old, "new": change.new}
        return [{**head, **shown, "valid_from": change.starts}]
    return [
        {
            **head,
            "column": column,
            "old": change.old.get(column),
            "new": change.new.get(column),
            "valid_from": change.starts,
        }
        for column in change.columns
    ]


def _policy(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the back-billing result of a bill's correction for the command line."""
    amounts = {"full": row["full_amount"], **{name: row[name] for name in ("allowed", "waived", "interest")}}
    return {
        "statement_id": row["adjustment_id"].rsplit(".", 1)[0],
        "account_id": row["account_id"],
        "service_point_id": row["service_point_id"],
        "rule": f"{row['rule_commodity']}, {row['rule_class']} from {row['rule_from']}",
        **{name: _plain(amount) for name, amount in amounts.items()},
        "instalments": row["instalments"],
        "why": row["why"],
    }


def _money(before: dict[str, tuple[Any, Any]], after: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Returns the old and new amount of each changed account, and the totals."""
    accounts, old_sum, new_sum = [], Decimal(0), Decimal(0)
    for account in sorted({*before, *after}):
        old, new = (sum((Decimal(x) for x in side.get(account, ())), Decimal(0)) for side in (before, after))
        old_sum, new_sum = old_sum + old, new_sum + new
        if old != new:
            accounts.append(
                {"account_id": account, "old": _plain(old), "new": _plain(new), "difference": _plain(new - old)}
            )
    return {
        "accounts": accounts,
        "old": _plain(old_sum),
        "new": _plain(new_sum),
        "difference": _plain(new_sum - old_sum),
    }


def _plain(amount: Decimal) -> str:
    """Formats an amount with at least two decimals and no trailing zeros beyond them."""
    short = amount.normalize()
    exponent = short.as_tuple().exponent
    return format(short.quantize(_CENT) if isinstance(exponent, int) and exponent > -2 else short, "f")
