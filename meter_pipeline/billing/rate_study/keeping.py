"""Studies that are kept: for the council's record, and for analysts."""

from __future__ import annotations

import hashlib

from meter_pipeline.billing.rate_study import tables
from meter_pipeline.billing.rate_study.study import Study
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger.entries import canonical_json
from meter_pipeline.postgres.database import Database


def keep_study(database: Database, found: Study, by: str, clock: Clock = SYSTEM_CLOCK) -> str:
    """Keep a study under a person's name; its id. The id is made of the question, the person and the time."""
    question, now = found.question, clock.now()
    request = {
        "first": question.first,
        "past": question.past,
        "replaces": [change.replaces for change in question.changes],
        "documents": [change.proposed.digest for change in question.changes],
        "by": by,
        "at": now,
        "v": "mp-rate-study/1",
    }
    study_id = f"RS-{hashlib.sha256(canonical_json(request)).hexdigest()[:12].upper()}"
    row = {
        "study_id": study_id,
        "made_at": now,
        "made_by": by,
        "first": question.first,
        "past": question.past,
        "replaces": [change.replaces for change in question.changes],
        "documents": [change.raw.decode("utf-8", "replace") for change in question.changes],
        "sha256": [change.proposed.digest for change in question.changes],
        "elasticity": question.elasticity,
        "currency": found.currency,
        "accounts": found.accounts.height,
        "bills": found.bills,
        "actual": found.total("actual"),
        "proposed": found.total("proposed"),
        "not_reproduced": len(found.not_reproduced),
        "left_out": found.left_out,
    }
    with database.connect("rate study") as connection:
        tables.keep(connection, row, found.accounts.drop("elastic"), found.revenue)
    return study_id
