"""The ledger's leaves of billing's rows, made again from the rows as stored."""

from __future__ import annotations

import polars as pl

from meter_pipeline.ledger.digests import digests


def charge_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each row of billing.charge_day (encoding ``mp-charge/1``)."""
    from meter_pipeline.billing.day import charge_hashes

    return charge_hashes(rows)


def statement_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each statement (``mp-statement/1``): columns statement_id and lines, the canonical text of its lines
    (statements.line_hashes)."""
    texts = rows.select(
        pl.concat_str([pl.lit("mp-statement/1"), "statement_id", "lines"], separator="\x1e")
    ).to_series()
    return digests(texts)


def adjustment_line_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each line of an adjustment (``mp-adjustment-line/1``); amount as exact decimal text."""
    texts = rows.select(
        pl.concat_str(
            [
                pl.lit("mp-adjustment-line/1"),
                "adjustment_id",
                pl.col("line_no").cast(pl.String),
                "action",
                "service_point_id",
                "line_key",
                "amount",
            ],
            separator="\x1f",
        )
    ).to_series()
    return digests(texts)
