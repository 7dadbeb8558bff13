"""Reconciliation: each stage of a billing day against the one before, every difference with a named cause or open.

Belongs here: the joints, the closed list of causes. Does not belong here: SQL (store/billing_joints.py).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.bind import EXCEPTIONS

#: Joints in the order in which data flows.
JOINTS: Final[dict[str, str]] = {
    "file_to_reads": "reads received in a file against accepted + duplicate + superseded + rejected",
    "reads_to_validated": "channel-days read against channel-days validated",
    "intervals_to_register": "validated intervals against the register's difference",
    "validated_to_determinants": "validated usage against usage in determinants, in the meter's unit",
    "determinants_to_lines": "services with determinants against services charged",
    "lines_to_total": "the sum of a day's lines against the day's total",
    "lines_to_statement": "the days' charges against the statement",
    "statement_to_ledger": "statements issued against leaves recorded in the ledger",
}
DAY_JOINTS: Final = tuple(JOINTS)[:6]

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
    "late_actual_in_sealed_period": "the day is sealed; the correction stands in the open period",
    **EXCEPTIONS,
}
SCHEMA: Final = pl.Schema({
    "joint": pl.String(), "subject": pl.String(), "unit": pl.String(), "cause": pl.String(), "expected": pl.Decimal(30, 6),
    "actual": pl.Decimal(30, 6), "items": pl.Int64(), "detail": pl.String(),
})  # fmt: skip


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row") if rows else pl.DataFrame(schema=SCHEMA)


def _row(
    joint: str, unit: str, cause: str, expected: Decimal | int, actual: Decimal | int, items: int, subject: str = "all", detail: str = ""
) -> dict[str, Any]:
    return {
        "joint": joint, "subject": subject, "unit": unit, "cause": cause, "expected": Decimal(expected), "actual": Decimal(actual),
        "items": items, "detail": detail,
    }  # fmt: skip


def micro(value: int) -> Decimal:
    """Millionths as an exact decimal."""
    return Decimal(value).scaleb(-6)


def file_rows(files: pl.DataFrame) -> list[dict[str, Any]]:
    """One row per file and day."""
    rows = []
    for subject, received, accounted, loaded in files.iter_rows():
        cause = "not_loaded" if not loaded else "none" if received == accounted else "open"
        rows.append(_row("file_to_reads", "reads", cause, received, accounted or 0, 1, subject))
    return rows


def channel_rows(counted: pl.DataFrame) -> list[dict[str, Any]]:
    """Channel-days by cause."""
    return [_row("reads_to_validated", "channel-days", c, e, a, max(e, a)) for c, e, a in counted.iter_rows()]


def register_rows(compared: pl.DataFrame) -> list[dict[str, Any]]:
    """Intervals against registers by unit and cause."""
    return [_row("intervals_to_register", u, c, micro(e), micro(a), n) for u, c, e, a, n in compared.iter_rows()]


def usage_rows(daily: pl.DataFrame, determinants: pl.DataFrame, exceptions: pl.DataFrame) -> list[dict[str, Any]]:
    """Validated usage against determinants, service point by service point, summed by unit and cause."""
    wanted = daily.group_by("service_point_id", "unit", "flow").agg(pl.col("quantity").sum())
    held = pl.concat([
        determinants.select("service_point_id", unit="source_unit", flow=pl.lit("import"), held="source_quantity"),
        determinants.select("service_point_id", unit="source_unit", flow=pl.lit("export"), held="source_export"),
    ]).filter((pl.col("unit") != "") & ((pl.col("flow") == "import") | (pl.col("held") != 0)))  # fmt: skip
    why = exceptions.filter(pl.col("reason") != "no_usage").group_by("service_point_id").agg(pl.col("reason").sort().first())
    joined = (
        wanted.join(held, on=["service_point_id", "unit", "flow"], how="full", coalesce=True)
        .with_columns(pl.col("quantity").fill_null(0), pl.col("held").fill_null(0))
        .join(why, on="service_point_id", how="left")
        .with_columns(
            pl.when(pl.col("quantity") == pl.col("held")).then(pl.lit("none")).otherwise(pl.col("reason").fill_null("open")).alias("cause")
        )
    )
    summed = joined.group_by("unit", "cause").agg(pl.col("quantity").sum(), pl.col("held").sum(), pl.len()).sort("unit", "cause")
    return [_row("validated_to_determinants", u, c, micro(q), micro(h), n) for u, c, q, h, n in summed.iter_rows()]


def line_rows(determinants: pl.DataFrame, charges: pl.DataFrame, exceptions: pl.DataFrame, currency: str) -> list[dict[str, Any]]:
    """Services charged against services with determinants; lines against totals."""
    why = exceptions.filter(pl.col("reason") == "attribute_missing").select("service_point_id").unique()
    uncharged = determinants.join(charges, on="service_point_id", how="anti")
    named = uncharged.join(why, on="service_point_id", how="semi").height
    rows = [_row("determinants_to_lines", "services", "none", charges.height, charges.height, charges.height)]
    if named:
        rows.append(_row("determinants_to_lines", "services", "attribute_missing", named, 0, named))
    if uncharged.height > named:
        rows.append(_row("determinants_to_lines", "services", "open", uncharged.height - named, 0, uncharged.height - named))
    lines, total = int(charges["amounts"].list.sum().sum() or 0), int(charges["total"].sum() or 0)
    wrong = int((charges["amounts"].list.sum() != charges["total"]).sum())
    rows.append(_row("lines_to_total", currency, "open" if wrong else "none", micro(lines), micro(total), wrong or charges.height))
    return rows


def day_reconciliation(
    files: pl.DataFrame, channels: pl.DataFrame, registers: pl.DataFrame, daily: pl.DataFrame, determinants: pl.DataFrame,
    charges: pl.DataFrame, exceptions: pl.DataFrame, currency: str,
) -> pl.DataFrame:  # fmt: skip
    """All joints of a billing day as rows of billing.reconciliation, sorted."""
    rows = [
        *file_rows(files), *channel_rows(channels), *register_rows(registers), *usage_rows(daily, determinants, exceptions),
        *line_rows(determinants, charges, exceptions, currency),
    ]  # fmt: skip
    return _frame(rows).sort("joint", "subject", "unit", "cause")


def statement_reconciliation(statements: pl.DataFrame, cycle_id: str, currency: str) -> pl.DataFrame:
    """The days' charges against the statements, and statements against ledger leaves.

    ``statements``: total, accrued, and by cause what the end of the period added (period_end, credit, ratchet), in millionths. What those
    do not explain is open.
    """
    causes = {"period_end": "period_end", "credit": "net_metering_credit", "ratchet": "ratchet"}
    explained = statements.with_columns((pl.col("total") - pl.col("accrued") - pl.sum_horizontal(*causes)).alias("open"))
    agreed = int(statements["accrued"].sum())
    rows = [_row("lines_to_statement", currency, "none", micro(agreed), micro(agreed), statements.height, cycle_id)]
    for column, cause in (*causes.items(), ("open", "open")):
        touched = explained.filter(pl.col(column) != 0)
        if touched.height:
            rows.append(_row("lines_to_statement", currency, cause, 0, micro(int(touched[column].sum())), touched.height, cycle_id))
    rows.append(_row("statement_to_ledger", "statements", "none", statements.height, statements["lines_sha256"].len(), statements.height, cycle_id))
    return _frame(rows).sort("joint", "cause")
