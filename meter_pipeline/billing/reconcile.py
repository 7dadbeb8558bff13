"""Reconciliation: each stage of a billing day against the one before, every difference with a named cause or open.

Belongs here: the joints, the closed list of causes. Does not belong here: SQL (store/billing_joints.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.bind import EXCEPTIONS

#: Joints in the order in which data flows: each side is read from the tables named, never from what the stage has in hand.
JOINTS: Final[dict[str, str]] = {
    "file_to_reads": "reads landed in a file (raw.feed_file_day) against the outcomes of its committed batches (raw.load_batch)",
    "reads_to_validated": "channel-days read (raw.interval_day) against channel-days validated (vee.interval_day)",
    "intervals_to_register": "validated intervals (vee.interval_day) against the register's own reads (raw.register_read)",
    "validated_to_determinants": "validated usage (vee.daily_usage) against usage in determinants (billing.determinant_day), in the meter's unit",
    "determinants_to_lines": "usage in determinants (billing.determinant_day) against how far the priced positions moved (billing.charge_day)",
    "lines_to_total": "the sum of a stored day's lines against its total",
    "lines_to_statement": "the stored charges of a period's days (billing.charge_day) against the statement's lines (billing.statement_line)",
    "statement_to_ledger": "statements in the store, hashed again from their lines, against the leaves in the ledger (ledger.entry)",
}
DAY_JOINTS: Final = tuple(JOINTS)[:6]
STATEMENT_JOINTS: Final = tuple(JOINTS)[6:]
#: Joints whose figures are millionths; the others count.
_MICRO: Final = frozenset(JOINTS) - {"file_to_reads", "reads_to_validated", "statement_to_ledger"}

#: The closed list of causes. ``none`` agrees; ``open`` is an exception for people.
CAUSES: Final[dict[str, str]] = {
    "none": "the two sides agree",
    "open": "nobody knows yet: an exception for people",
    "not_loaded": "the file is staged and its load has not finished",
    "unknown_channel": "no reference data for the channel",
    "not_installed": "the meter stood at no service point on the day",
    "validation_exception": "validation refused it and says why in its own exception",
    "wholly_estimated": "no read came; every interval is an estimate",
    "within_tolerance": "within two register units times the multiplier",
    "intervals_missing": "intervals that stayed null",
    "estimated": "estimates that could not be scaled to the register",
    "sum_check_failed": "validation's sum check failed; the case is in its queue",
    "superseded_by_intervals": "a daily total of usage that intervals already carry",
    "period_end": "owed only at a period's end: minimum charges and the taxes on them",
    "net_metering_credit": "credit carried in from the period before",
    "ratchet": "billing demand set by an earlier month's peak",
    "year_end": "owed only at a billing year's end: the annual minimum, less what is paid for credit left over",
    "adjusted": "late data moved the days after the statement was issued; an adjustment of it stands beside it",
    "late_actual_in_sealed_period": "the day is sealed; the correction stands in the open period",
    **EXCEPTIONS,
}
SCHEMA: Final = pl.Schema({
    "joint": pl.String(), "subject": pl.String(), "unit": pl.String(), "cause": pl.String(), "expected": pl.Decimal(30, 6),
    "actual": pl.Decimal(30, 6), "items": pl.Int64(), "detail": pl.String(),
})  # fmt: skip


def micro(value: int) -> Decimal:
    """Millionths as an exact decimal."""
    return Decimal(value).scaleb(-6)


def table(found: Mapping[str, Sequence[Sequence[Any]]]) -> pl.DataFrame:
    """Rows of billing.reconciliation, sorted, from each joint's rows (subject, unit, cause, expected, actual, items, detail).

    Raises ValueError for a joint or a cause that is in neither closed list.
    """
    rows = []
    for joint, sides in found.items():
        for subject, unit, cause, expected, actual, items, detail in sides:
            if joint not in JOINTS or cause not in CAUSES:
                raise ValueError(f"{joint}: {cause} is not in the closed list")
            figure = micro if joint in _MICRO else Decimal
            rows.append({
                "joint": joint, "subject": subject, "unit": unit, "cause": cause, "expected": figure(int(expected)), "actual": figure(int(actual)),
                "items": items, "detail": detail or "",
            })  # fmt: skip
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row") if rows else pl.DataFrame(schema=SCHEMA)
    return frame.sort("joint", "subject", "unit", "cause")


def statement_rows(sums: pl.DataFrame, cycle_id: str) -> list[tuple[Any, ...]]:
    """lines_to_statement of a period's statements.

    ``sums``: per statement, in millionths, the days' charges as they stand (charged), its lines (lines), its total, what the end of the period
    added by cause (period_end, credit, ratchet, year_end), and whether an adjustment stands beside it (adjusted). What the causes do not
    explain is open.
    """
    currency = sums["currency"][0] if sums.height else ""
    causes = {"period_end": "period_end", "credit": "net_metering_credit", "ratchet": "ratchet", "year_end": "year_end"}
    left = sums.with_columns((pl.col("lines") - pl.col("charged") - pl.sum_horizontal(*causes)).alias("left")).with_columns(
        pl.when((pl.col("left") == 0) & (pl.col("lines") == pl.col("total"))).then(pl.lit("none"))
        .when(pl.col("adjusted") & (pl.col("lines") == pl.col("total"))).then(pl.lit("adjusted")).otherwise(pl.lit("open")).alias("cause")
    )  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for cause in ("none", "adjusted", "open"):
        part = left.filter(pl.col("cause") == cause)
        if part.height:
            named = " ".join(part["statement_id"].sort()[:5].to_list()) if cause == "open" else ""
            charged = int(part["charged"].sum())
            rows.append((cycle_id, currency, cause, charged, charged + int(part["left"].sum()), part.height, named))
    for column, cause in causes.items():
        touched = left.filter(pl.col(column) != 0)
        if touched.height:
            rows.append((cycle_id, currency, cause, 0, touched[column].sum(), touched.height, ""))
    return rows


def ledger_rows(statements: pl.DataFrame, leaves: Sequence[bytes], cycle_id: str) -> list[tuple[Any, ...]]:
    """statement_to_ledger of a period, by key and by payload hash.

    ``statements``: statement_id, lines_sha256 (the hash it was issued under), now_sha256 (hashed again from its lines as stored), claimed (the
    hash at the place in the ledger that the statement names). ``leaves``: every leaf of the period's bill_issued entries.
    """
    recorded = pl.DataFrame({"lines_sha256": pl.Series(leaves, dtype=pl.Binary)}).group_by("lines_sha256").len("leaves")
    both = statements.join(recorded, on="lines_sha256", how="full", coalesce=True).with_columns(
        pl.when(pl.col("statement_id").is_null()).then(pl.lit("leaf without statement"))
        .when(pl.col("leaves").is_null()).then(pl.lit("statement without leaf"))
        .when(pl.col("leaves") > 1).then(pl.lit("leaf twice"))
        .when(pl.col("now_sha256") != pl.col("lines_sha256")).then(pl.lit("lines are not those issued"))
        .when(pl.col("claimed").is_not_null() & (pl.col("claimed") != pl.col("lines_sha256"))).then(pl.lit("the place it names holds another leaf"))
        .otherwise(pl.lit("")).alias("wrong")
    )  # fmt: skip
    agreed = both.filter(pl.col("wrong") == "")
    rows: list[tuple[Any, ...]] = [(cycle_id, "statements", "none", agreed.height, agreed.height, agreed.height, "")] if agreed.height else []
    wrong = both.filter(pl.col("wrong") != "").sort("wrong", "statement_id")
    if wrong.height:
        named = [f"{w}: {s or h.hex()[:16]}" for w, s, h in wrong.select("wrong", "statement_id", "lines_sha256").head(5).iter_rows()]
        there = wrong.filter(pl.col("statement_id").is_not_null()).height
        proved = int(wrong.filter((pl.col("wrong") == "leaf without statement") | (pl.col("wrong") == "leaf twice"))["leaves"].sum() or 0)
        rows.append((cycle_id, "statements", "open", there, proved, wrong.height, "; ".join(named)))
    return rows
