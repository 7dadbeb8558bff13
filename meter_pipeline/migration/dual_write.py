"""Writing to both sides with one authority at a time: the authority is read in the transaction of the record, the other
side's copy goes by outbox.

There are never two independent commits. A crash between the commit and the delivery leaves the record in the outbox; a
delivery that is repeated is recognised by the record's hash. While live, the outbox towards legacy is the reverse sync:
after a rollback legacy has every record written while live.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE, Authority, authority, writes_legacy, writes_new
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries
from meter_pipeline.migration import tables
from meter_pipeline.migration.results import new_results
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport

#: Writes records to one side, idempotent by payload hash; raises where they are to be tried again.
Deliver = Callable[[Sequence["Record"]], None]

#: How long a deliverer waits for another one of the same side: a delivery of 5,000 records takes seconds.
WAIT_FOR_DELIVERER_S: Final = 60.0
_MONEY: Final = ("line", "total", "statement")
_ROW: Final = {"billing_day": pl.Date, "account_id": pl.String, "authority": pl.String, "payload_sha256": pl.Binary}


@dataclass(frozen=True, slots=True)
class Record:
    """An account's result of a billing day: plain JSON without floats."""

    billing_day: date
    account_id: str
    payload: Mapping[str, Any]

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(
            entries.canonical_json({"account": self.account_id, "day": self.billing_day, "payload": dict(self.payload)})
        ).digest()


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The authority over a record after it was written, and whether this call wrote it first (``fresh``)."""

    authority: Authority
    fresh: bool


@dataclass(slots=True)
class PublishResult:
    """A billing day's bills by the side that has the authority over them. ``sides``: accounts by side; ``sent``:
    records put in the outbox; ``waiting``: accounts whose side has no result yet; ``lost``: bills that are on one side
    and neither delivered to the other nor in the outbox."""

    billing_day: date
    stage: str
    sides: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    waiting: int = 0
    lost: int = 0

    def report(self) -> StageReport:
        figures: dict[str, Any] = {
            "stage": self.stage,
            "put in the outbox": self.sent,
            "waiting for their side's result": self.waiting,
        }
        figures |= {f"bills of the {side} side": count for side, count in self.sides.items()}
        words = f"{self.lost} bills are on one side only, and the outbox does not hold them"
        return StageReport(
            rows=sum(self.sides.values()),
            figures=figures,
            checks=(Check("both_sides_get_every_bill", self.lost == 0, words, {"lost": self.lost}),),
        )


def write(
    connection: tables.Connection, records: Sequence[tuple[Record, str | None]], *, clock: Clock = SYSTEM_CLOCK
) -> list[WriteResult]:
    """Record results (each with its route) in the caller's transaction, under the stage in force until it commits.

    The stage flag is locked for share, so a change of stage waits for this transaction and every record is written
    under exactly one stage. A record that was written before keeps its authority: a change of stage never changes which
    side billed a day.
    """
    value = flags.read(connection, STAGE, lock="share")
    sides = [authority(value.value, record.account_id, route) for record, route in records]
    return _write(connection, value, [record for record, _ in records], sides, clock)


def _write(
    connection: tables.Connection,
    value: flags.Value,
    records: Sequence[Record],
    sides: Sequence[Authority],
    clock: Clock,
) -> list[WriteResult]:
    if not records:
        return []
    stage, now = str(value.value["stage"]), clock.now()
    seals = [record.sha256 for record in records]
    rows = [(r.billing_day, r.account_id, side, seal) for r, side, seal in zip(records, sides, seals, strict=True)]
    kept = tables.put_authorities(connection, pl.DataFrame(rows, _ROW, orient="row"), stage, value.version, now)
    reached = {"legacy": writes_legacy(stage), "new": writes_new(stage)}
    sending = []
    done: list[WriteResult] = []
    for record, seal, side, fresh in zip(records, seals, kept["authority"], kept["fresh"], strict=True):
        other = "legacy" if side == "new" else "new"
        if reached[other]:
            sending.append(
                (
                    record.billing_day,
                    record.account_id,
                    other,
                    entries.canonical_json(dict(record.payload)).decode(),
                    seal,
                )
            )
        done.append(WriteResult(side, fresh))
    if sending:
        schema = {
            "billing_day": pl.Date,
            "account_id": pl.String,
            "side": pl.String,
            "payload": pl.String,
            "payload_sha256": pl.Binary,
        }
        tables.enqueue(connection, pl.DataFrame(sending, schema, orient="row"), now)
    return done


def publish_billing_day(database: Database, day: date, *, clock: Clock = SYSTEM_CLOCK) -> PublishResult:
    """Give every account's bill of a day its authority and send it to the other side; idempotent, in one transaction.

    An account of the new side gets the pipeline's lines (and those of its statement, where its period ends with the
    day), one of the legacy side the legacy batch's as imported; where its side has no result yet it waits for the next
    call. A bill that was published and has changed since keeps its authority and is sent again. In off and shadow
    nothing is published. Raises control.pause_check.PausedError where a pause is raised.
    """
    statements = tables.statement_results(database, day)
    ours = payloads(
        pl.concat([new_results(database, day).select(statements.columns), statements], how="vertical_relaxed")
    )
    theirs = payloads(tables.legacy_results(database, day))
    before_writing(database, clock=clock)
    with database.connect("publish") as connection:
        routes = tables.routes(connection)
        value = flags.read(connection, STAGE, lock="share")
        stage = str(value.value["stage"])
        done = PublishResult(day, stage)
        if not writes_new(stage):
            return done
        authorities = tables.authorities(connection, day)
        records, sides = [], []
        for account in sorted(ours.keys() | theirs.keys()):
            side: Authority = (
                authorities[account] if account in authorities else authority(value.value, account, routes.get(account))
            )
            payload = (ours if side == "new" else theirs).get(account)
            if payload is None:
                done.waiting += 1
                continue
            records.append(Record(day, account, payload))
            sides.append(side)
            done.sides[side] = done.sides.get(side, 0) + 1
        before = tables.outbox_size(connection)
        written = _write(connection, value, records, sides, clock)
        done.sent = tables.outbox_size(connection) - before
        done.lost = len(tables.undelivered(connection, day)) if writes_legacy(stage) else 0
        fresh = sum(w.fresh for w in written)
        if fresh or done.sent:
            body = {
                "billing_day": day,
                "step": "published",
                "stage": stage,
                "version": value.version,
                "bills": done.sides,
                "new": fresh,
                "sent": done.sent,
            }
            entries.append(connection, "migration_stage", body, [r.sha256 for r in records], clock=clock)
        connection.commit()
    return done


def payloads(results: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Each account's money figures of a RESULT frame as a record's payload: {"figures": [[level, code, millionths,
    estimated, tariff version]]}.

    An account without a total has no bill.
    """
    money = (
        results.filter(pl.col("level").is_in(_MONEY))
        .unique(["account_id", "level", "code"], keep="first")
        .sort("account_id", "level", "code")
    )
    found: dict[str, dict[str, Any]] = {}
    for account, *figure in money.select(
        "account_id", "level", "code", "value", "estimated", "tariff_version"
    ).iter_rows():
        found.setdefault(account, {"figures": []})["figures"].append(figure)
    return {
        account: payload
        for account, payload in found.items()
        if any(figure[0] == "total" for figure in payload["figures"])
    }


def deliver(database: Database, sides: Mapping[str, Deliver], *, most: int = 1000, clock: Clock = SYSTEM_CLOCK) -> int:
    """Deliver one batch of the outbox to each side; returns how many records were delivered. A side that fails keeps
    its records for the next call.

    One deliverer at a time for a side, whoever it is (the guard's job, an operator): the others wait for it, so that an
    older bill never arrives after a newer one of the same account.
    """
    return sum(_deliver_to(database, side, call, most, clock) for side, call in sides.items())


def _deliver_to(database: Database, side: str, call: Deliver, most: int, clock: Clock) -> int:
    with database.connect("outbox") as connection:
        if not tables.take_side(connection, side, WAIT_FOR_DELIVERER_S):
            return 0
        rows = tables.waiting(connection, most, side)
        if not rows:
            return 0
        ids = [row[0] for row in rows]
        try:
            call([Record(row[1], row[2], row[4]) for row in rows])
        except Exception:
            tables.mark_attempt(connection, ids)
            connection.commit()
            return 0
        tables.mark_delivered(connection, ids, clock.now())
        connection.commit()
        return len(ids)


def deliver_all(
    database: Database, sides: Mapping[str, Deliver], *, most: int = 5000, clock: Clock = SYSTEM_CLOCK
) -> dict[str, int]:
    """Deliver until nothing waits or nothing more is taken. Returns the delivered records, and those waiting by
    side."""
    total = 0
    while done := deliver(database, sides, most=most, clock=clock):
        total += done
    with database.connect("outbox") as connection:
        counts = tables.outbox_counts(connection)
    return {
        "delivered": total,
        "legacy_waiting": counts.get("legacy_waiting", 0),
        "new_waiting": counts.get("new_waiting", 0),
    }
