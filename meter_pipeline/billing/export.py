"""Statements as files: CSV and Parquet.

A cell that a spreadsheet would take for a formula (it begins with =, +, -, @, tab or carriage return and is not a
number) gets an apostrophe in front (OWASP, CSV injection). Parquet is typed and stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import polars as pl

from meter_pipeline.money import money_text

_FORMULA: Final = r"^[=+\-@\t\r\n\u{FF1D}\u{FF0B}\u{FF0D}\u{FF20}]"
#: The same for Python, whose escapes for letters beyond ASCII are others.
_CELL: Final = "^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_NUMBER: Final = r"^[+-]?[0-9]+(\.[0-9]+)?$"


def safe_for_spreadsheets(frame: pl.DataFrame) -> pl.DataFrame:
    """Text cells that begin like a formula, with an apostrophe in front; numbers stay numbers."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(_FORMULA) & ~pl.col(name).str.contains(_NUMBER))
        .then(pl.concat_str([pl.lit("'"), pl.col(name)]))
        .otherwise(pl.col(name))
        .alias(name)
        for name in texts
    )


def safe_text(cell: str) -> str:
    """One cell, as ``safe_for_spreadsheets`` writes it."""
    return "'" + cell if re.match(_CELL, cell) and not re.match(_NUMBER, cell) else cell


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as .csv (safe for spreadsheets) or .parquet, amounts with their currency's decimals. Raises
    ValueError for another ending."""
    if {"amount", "currency"} <= set(frame.columns):
        shown = [money_text(a, c) for a, c in frame.select("amount", "currency").iter_rows()]
        frame = frame.with_columns(pl.Series("amount", shown, pl.String))
    if path.suffix == ".csv":
        safe_for_spreadsheets(frame).write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path, compression="zstd")
    else:
        raise ValueError(f"{path.name}: exports are .csv or .parquet")
