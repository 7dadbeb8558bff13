"""The ledger's leaves of billing's rows, made again from the rows as stored, and the columns that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from meter_pipeline.ledger.digests import digests
from meter_pipeline.ledger.leaf_columns import CHARGE_1, CHARGE_2, DETERMINANT_1


def _texts(rows: pl.DataFrame, tag: str, columns: Sequence[str]) -> pl.Series:
    """Tag and columns joined by unit separators; whole numbers in decimal, lists joined by commas."""
    parts = [_text(rows, name) for name in columns]
    return rows.select(pl.concat_str([pl.lit(tag), *parts], separator="\x1f")).to_series()


def _text(rows: pl.DataFrame, name: str) -> pl.Expr:
    """A column's texts. One of dates or numbers that is the same in all rows, as most of a day's are, is written out
    for one of them only."""
    kind = rows.schema[name]
    if isinstance(kind, pl.List):
        return pl.col(name).cast(pl.List(pl.String)).list.join(",")
    column = rows[name]
    if kind != pl.String and rows.height > 1 and not column.null_count() and column.min() == column.max():
        return pl.lit(column.head(1).cast(pl.String)[0])
    return pl.col(name).cast(pl.String)


def charge_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each row of billing.charge_day (encoding ``mp-charge/2``)."""
    return digests(_texts(rows, "mp-charge/2", CHARGE_2))


def charge_leaves_1(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each row of billing.charge_day as it was made before ``mp-charge/2`` (encoding ``mp-charge/1``)."""
    return digests(_texts(rows, "mp-charge/1", CHARGE_1))


def determinant_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each row of billing.determinant_day, in the order of its columns (encoding ``mp-determinant/1``)."""
    return digests(_texts(rows, "mp-determinant/1", DETERMINANT_1))


def charge_totals(rows: pl.DataFrame) -> list[str]:
    """Charges whose total is not the sum of their amounts, a text for each row."""
    summed = rows.with_columns(made=pl.col("amounts").list.sum())
    wrong = summed.filter(pl.col("total") != pl.col("made"))
    return [
        f"{point} on {day}: total is {total} millionths, its amounts give {made}"
        for point, day, total, made in wrong.select("service_point_id", "billing_day", "total", "made").iter_rows()
    ]


def statement_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each statement (``mp-statement/1``): columns statement_id and lines, the canonical text of its lines
    (statements.line_hashes)."""
    texts = rows.select(
        pl.concat_str([pl.lit("mp-statement/1"), "statement_id", "lines"], separator="\x1e")
    ).to_series()
    return digests(texts)


def statement_totals(rows: pl.DataFrame) -> list[str]:
    """Statements whose total or number of lines is not that of their lines, a text for each row. Money in
    millionths."""
    wrong = rows.filter((pl.col("total") != pl.col("line_total")) | (pl.col("said_lines") != pl.col("line_count")))
    return [
        f"{name}: total is {total} millionths of {recorded} lines, its {count} lines give {made}"
        for name, total, recorded, count, made in wrong.select(
            "statement_id", "total", "said_lines", "line_count", "line_total"
        ).iter_rows()
    ]


def adjustment_line_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each line of an adjustment (``mp-adjustment-line/1``); amount as exact decimal text."""
    columns = ("adjustment_id", "line_no", "action", "service_point_id", "line_key", "amount")
    return digests(_texts(rows, "mp-adjustment-line/1", columns))
