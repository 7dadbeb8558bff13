"""The ledger's entry for what billing wrote of a day, with the rows that it took the place of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA, DayCharges
from meter_pipeline.billing.leaves import charge_leaves, charge_leaves_1, determinant_leaves
from meter_pipeline.billing.tables import adjustments, days
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

#: Charges and determinants of some service points as they stood; determinants None where none was written
Stood: TypeAlias = Callable[[Sequence[str]], tuple[pl.DataFrame, pl.DataFrame | None]]

_NO_CHARGES: Final = CHARGE_SCHEMA.to_frame()
_NO_DETERMINANTS: Final = DETERMINANT_SCHEMA.to_frame()


@dataclass(frozen=True, slots=True)
class Before:
    """A day before it is written: its ``rows``, and the ``amounts`` of the statements that it belongs to, each of some
    service points."""

    rows: Stood
    amounts: Callable[[Sequence[str]], adjustments.Amounts]

    @classmethod
    def committed(cls, session: Database, day: date) -> Before:
        """Read when it is asked for, by a session that sees what was committed."""

        def amounts(points: Sequence[str]) -> adjustments.Amounts:
            with session.connect("billing before") as earlier:
                return adjustments.amounts(earlier, day, points)

        return cls(lambda points: _rows(session, day, points), amounts)

    @classmethod
    def read_stored(
        cls, session: Database, connection: Connection, day: date, points: Sequence[str], *, rows: bool = True
    ) -> Before:
        """Read now, of some service points; without the rows where no entry is made of them."""
        charges, determinants = _rows(session, day, points) if rows else (_NO_CHARGES, _NO_DETERMINANTS)
        usage, charged = adjustments.amounts(connection, day, points)

        def stood(some: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
            mine = pl.col("service_point_id").is_in(list(some))
            return charges.filter(mine), determinants.filter(mine)

        def amounts(some: Sequence[str]) -> adjustments.Amounts:
            mine = set(some)
            return (
                {key: value for key, value in usage.items() if key[0] in mine},
                {key: value for key, value in charged.items() if key[1] in mine},
            )

        return cls(stood, amounts)


def _rows(session: Database, day: date, points: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    charges = days.read_day(session, "charge_day", day, CHARGE_SCHEMA.names(), points)
    determinants = days.read_day(session, "determinant_day", day, DETERMINANT_SCHEMA.names(), points)
    return charges, determinants.cast(DETERMINANT_SCHEMA)


@dataclass(frozen=True, slots=True)
class Written:
    """What the transaction wrote of a day: the service points whose rows changed, and how many rows of each table took
    the place of others, by the table that keeps those."""

    day: date
    points: Sequence[str]
    replaced: Mapping[str, int]


def billed_entry(
    stood: Stood | None,
    result: DayCharges,
    written: Written,
    at: datetime,
    actor: str,
    hashes: tuple[list[bytes], list[bytes]] | None = None,
) -> ledger.Entry:
    """The ledger's entry for what was written; leaves are the written charges, then the written determinants
    (``hashes``: those of all of them, where they are at hand; without them no determinant was written).

    Behind them stand the leaves of the rows that these took the place of: as many as ``retired`` says, rows no more.
    ``stood`` has those rows; None for a day that had none.
    """
    charges, changed = result.charges, written.points
    leaves, determinants = hashes or (charge_leaves(charges).to_list(), [])
    if stood is not None:
        some = set(changed)
        charges = charges.filter(pl.col("service_point_id").is_in(changed))
        leaves = _of(some, result.charges, leaves)
        determinants = _of(some, result.determinants, determinants) if hashes else []
    gone: list[bytes] = []
    if stood is not None:
        charged, determined = stood(changed)
        # A row billed before mp-charge/2 has a leaf of the older encoding.
        gone = [*charge_leaves(charged).to_list(), *charge_leaves_1(charged).to_list()]
        if hashes and determined is not None:
            gone += determinant_leaves(determined).to_list()
    body: dict[str, Any] = {
        "billing_day": written.day,
        "services": charges.height,
        "total_micro": int(charges["total"].sum() or 0),
        "changed": len(changed),
        "determinants": len(determinants),
        "all_determinants": stood is None,
        "retired": len(gone),
    }
    if stood is not None:
        body["replaced"] = dict(written.replaced)
    return ledger.encode("billed", body, b"".join([*leaves, *determinants, *gone]) or None, at=at, actor=actor)


def _of(written: set[str], rows: pl.DataFrame, hashes: Sequence[bytes]) -> list[bytes]:
    """Of the hashes of some rows, in their order, those of the services that were written."""
    points = rows["service_point_id"].to_list()
    return [leaf for point, leaf in zip(points, hashes, strict=True) if point in written]
