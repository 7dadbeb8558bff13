"""Control totals: a file's own counts and sums, compared with the reads of it.

A file whose own count or sum is not what its rows hold was cut, doubled or declared wrongly (fifty periods of a day
read under one date are one read and 49 losses), so it is refused whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.plain_numbers import plain_number
from meter_pipeline.feeds.rejects import FeedRefused, shown
from meter_pipeline.feeds.rows import RowReader, Rows
from meter_pipeline.units import UnitError, parse_reading


def check_totals(head_end: HeadEnd, reader: RowReader, rows: Rows, noted: Sequence[str]) -> None:
    """Hold the control totals that a head-end declares against its rows. ``noted`` are the lines without reads.

    Rows count whether their reads were accepted or rejected. The sum is compared where nothing was rejected: it is then
    that of the file's own numbers, before conversion and rounding. Raises FeedRefused.
    """
    control = head_end.control
    if control.rows_are is not None and control.rows_are != reader.rows:
        raise FeedRefused("control_total", f"{control.rows_are} rows are declared, {reader.rows} are in the file")
    if control.rows is not None:
        stated = _found(head_end, control.rows, noted, "rows")
        if stated != reader.rows:
            raise FeedRefused("control_total", f"the file says {stated} rows, {reader.rows} are in it")
    if control.sum is not None:
        stated = _found(head_end, control.sum, noted, "sum")
        own = reader.file_sum(rows)
        if stated != own and not len(reader.rejects):
            raise FeedRefused("control_total", f"the file says a sum of {float(stated)}, its rows have {float(own)}")


def _found(head_end: HeadEnd, pattern: str, noted: Sequence[str], what: str) -> Fraction:
    """The first number that a pattern finds in the lines without reads."""
    for line in noted:
        match = re.search(pattern, line)
        if match is not None and match[1] is not None:
            try:
                return parse_reading(plain_number(match[1].strip(), head_end.decimal, head_end.thousands))
            except UnitError as error:
                raise FeedRefused("control_total", f"{what}: {shown(match[1])} is no number") from error
    raise FeedRefused("control_total", f"no line of the file holds the declared control {what}")
