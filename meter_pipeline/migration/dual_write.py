"""Writing to both sides with one authority at a time: the authority is read in the transaction of the record, the other side's copy goes by outbox.

Belongs here: recording a result, delivering the outbox. Does not belong here: which side has authority (stages.py) and what a record means.

There are never two independent commits. A crash between the commit and the delivery leaves the record in the outbox; a delivery that is repeated is
recognised by the record's hash. While live, the outbox towards legacy is the reverse sync: after a rollback legacy has every record written while live.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.ledger import entries
from meter_pipeline.migration.flag import STAGE
from meter_pipeline.migration.stages import Authority, authority, writes_legacy, writes_new
from meter_pipeline.store import migration as store
from meter_pipeline.store.database import Database

#: Takes the records of one side and makes them so there, idempotent by payload hash; raises to have them tried again.
Deliver = Callable[[Sequence["Record"]], None]


@dataclass(frozen=True, slots=True)
class Record:
    """An account's result of a billing day: plain JSON without floats."""

    billing_day: date
    account_id: str
    payload: Mapping[str, Any]

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(entries.canonical_json({"account": self.account_id, "day": self.billing_day, "payload": dict(self.payload)})).digest()


@dataclass(frozen=True, slots=True)
class Written:
    """What writing did: the authority of the record now, and whether it was new."""

    authority: Authority
    fresh: bool


def write(connection: store.Connection, records: Sequence[tuple[Record, str | None]], *, clock: Clock = SYSTEM_CLOCK) -> list[Written]:
    """Record results (each with its route) in the caller's transaction, under the stage in force until it commits.

    The stage flag is locked for share, so a flip waits for this transaction and every record was written under exactly one stage. A record that
    was written before keeps the authority it was given then: a flip never changes whose bill a day was.
    """
    value = flags.read(connection, STAGE, lock="share")
    stage = str(value.value["stage"])
    now = clock.now()
    done: list[Written] = []
    for record, route in records:
        side = authority(value.value, record.account_id, route)
        seal = record.sha256
        before = store.put_authority(connection, record.billing_day, record.account_id, side, stage, value.version, seal, now)
        kept: Authority = side if before is None else "new" if before[0] == "new" else "legacy"
        for other in ("legacy", "new"):
            wanted = writes_legacy(stage) if other == "legacy" else writes_new(stage)
            if wanted and other != kept:
                store.enqueue(connection, record.billing_day, record.account_id, other, dict(record.payload), seal, now)
        if kept == "new" and writes_legacy(stage):
            # Reverse sync: legacy must hold every record written while the new side is live.
            store.enqueue(connection, record.billing_day, record.account_id, "legacy", dict(record.payload), seal, now)
        done.append(Written(kept, before is None))
    return done


def deliver(database: Database, sides: Mapping[str, Deliver], *, most: int = 1000, clock: Clock = SYSTEM_CLOCK) -> int:
    """Deliver one batch of the outbox; returns how many records were delivered. A side that fails keeps its records for the next call."""
    delivered = 0
    with database.connect("outbox") as connection:
        rows = store.waiting(connection, most)
        for side, call in sides.items():
            mine = [row for row in rows if row[3] == side]
            if not mine:
                continue
            ids = [row[0] for row in mine]
            try:
                call([Record(row[1], row[2], row[4]) for row in mine])
            except Exception:
                store.mark_attempt(connection, ids)
                continue
            store.mark_delivered(connection, ids, clock.now())
            delivered += len(ids)
        connection.commit()
    return delivered
