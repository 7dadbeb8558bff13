"""Whole-day usage of earlier days, a block of arrays a day. Estimates and high/low rules compare a day with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg

from meter_pipeline.postgres.array_bytes import listed, lists
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import is_undone, made_once, remembers
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.sharding import between
from meter_pipeline.vee.tables.past_usage import NO_PAST_USAGE
from meter_pipeline.vee.tables.validated import FORWARD_CODES, replace_rows


@dataclass(frozen=True, slots=True)
class UsageHistory:
    """Daily usage of earlier days: ``days`` oldest first; per day the hash of its keys and its arrays; ``keys`` by
    hash.

    ``quantity`` micro units with NO_VALUE for none; ``state`` bits WHOLE and FORWARD. A frame of ``keys`` has
    service_point_id, flow, unit. ``past``: periods billed before the first billing day (past_usage.py).
    """

    days: list[date]
    hashes: list[bytes]
    quantity: list[npt.NDArray[np.int64]]
    state: list[npt.NDArray[np.int16]]
    keys: dict[bytes, pl.DataFrame]
    past: pl.DataFrame = field(default_factory=lambda: NO_PAST_USAGE)

    def around(self, ids: pl.Series) -> UsageHistory:
        """The history of the service points from the first to the last of some sorted ids; nothing is copied."""
        nearby = {name: between(frame, ids) for name, frame in self.keys.items()}
        keys = {
            name: frame.slice(nearby[name][0], nearby[name][1] - nearby[name][0]) for name, frame in self.keys.items()
        }
        cut = [slice(*nearby[name]) for name in self.hashes]
        first, beyond = between(self.past, ids)
        return UsageHistory(
            self.days,
            self.hashes,
            [q[c] for q, c in zip(self.quantity, cut, strict=True)],
            [s[c] for s, c in zip(self.state, cut, strict=True)],
            keys,
            self.past.slice(first, beyond - first),
        )


_USAGE_BLOCK: Final = ("billing_day", "keys_hash", "quantity_micro", "state")


_USAGE_LISTS: Final = {"quantity_micro": pl.Int64, "state": pl.Int16}


WHOLE: Final = 1


FORWARD: Final = 2


def read_usage_history(database: Database, first: date, last: date) -> UsageHistory:
    """Daily usage of the city from ``first`` to ``last``, in bulk."""
    _write_postponed(database)
    frame = database.read(
        f"SELECT {listed(_USAGE_BLOCK, _USAGE_LISTS)} FROM vee.usage_block WHERE billing_day BETWEEN $1 AND $2 ORDER BY billing_day",
        (first, last),
    )
    frame = lists(frame, _USAGE_LISTS)
    hashes = frame["keys_hash"].to_list()
    keys: dict[bytes, pl.DataFrame] = {}
    for wanted in dict.fromkeys(hashes):
        found = database.read("SELECT service_point_id, flow, unit FROM vee.usage_keys WHERE keys_hash = $1", (wanted,))
        keys[wanted] = found.explode("service_point_id", "flow", "unit")  # as written: sorted
    return UsageHistory(
        frame["billing_day"].to_list(),
        hashes,
        [frame["quantity_micro"][k].to_numpy() for k in range(frame.height)],
        [frame["state"][k].to_numpy() for k in range(frame.height)],
        keys,
    )


def read_usage_of(database: Database, first: date, last: date, points: Sequence[str]) -> UsageHistory:
    """Daily usage of some service points from ``first`` to ``last``: as ``read_usage_history`` has it of the city, for
    days on which they have any."""
    frame = _rows_of(database, first, last, points)
    history = UsageHistory([], [], [], [], {})
    columns = _history_columns(frame)
    quantity, state = columns["quantity_micro"].to_numpy(), columns["state"].to_numpy()
    rows = frame.select("billing_day", "service_point_id", "flow", "unit").rows()
    names: dict[tuple[tuple[str, ...], ...], bytes] = {}
    at = 0
    for day, of_day in groupby(rows, key=itemgetter(0)):
        key = tuple(row[1:] for row in of_day)
        if key not in names:
            keys = frame[at : at + len(key)].select("service_point_id", "flow", "unit")
            names[key] = _keys_hash(keys)
            history.keys[names[key]] = keys
        history.days.append(day)
        history.hashes.append(names[key])
        history.quantity.append(quantity[at : at + len(key)])
        history.state.append(state[at : at + len(key)])
        at += len(key)
    return history


_ROWS: Final = (
    "SELECT billing_day, service_point_id, flow, unit, quantity_micro, estimated, missing, source, quality, meters FROM vee.daily_usage "
    "WHERE billing_day BETWEEN $1 AND $2 AND service_point_id = ANY(string_to_array($3, ',')) "
    'ORDER BY 1, 2, flow COLLATE "C", unit COLLATE "C"'
)
#: Service points whose usage a transaction that is undone keeps: each day of a correction looks at two months before
#: it, planned among as many partitions
_FEW_POINTS: Final = 200


def _rows_of(database: Database, first: date, last: date, points: Sequence[str]) -> pl.DataFrame:
    """Daily usage of some service points from ``first`` to ``last``, sorted by day and key."""
    if len(points) > _FEW_POINTS or not remembers(database):
        return database.read(_ROWS, (first, last, ",".join(points)))
    return _kept(database).setdefault(",".join(points), _KeptUsage()).rows(database, first, last, points)


@dataclass(slots=True)
class _KeptUsage:
    """Daily usage of some service points: ``frame`` has the rows of ``days``, and no row of others."""

    days: set[date] = field(default_factory=set)
    frame: pl.DataFrame | None = None

    def rows(self, database: Database, first: date, last: date, points: Sequence[str]) -> pl.DataFrame:
        """The rows of the days from ``first`` to ``last``; of those that are not at hand the stretch they lie in is
        read."""
        days = [first + timedelta(days=k) for k in range((last - first).days + 1)]
        absent = [day for day in days if day not in self.days]
        if absent:
            read = database.read(_ROWS, (absent[0], absent[-1], ",".join(points)))
            day, held = pl.col("billing_day"), read.clear() if self.frame is None else self.frame
            self.frame = pl.concat([held.filter(day < absent[0]), read, held.filter(day > absent[-1])])
            self.days.update(d for d in days if absent[0] <= d <= absent[-1])
        assert self.frame is not None  # noqa: S101 - of a range that is not empty
        return self.frame.filter(pl.col("billing_day").is_between(first, last))


def _kept(database: Database) -> dict[str, _KeptUsage]:
    """The usage that is kept, by the names of its service points."""
    return made_once(database, ("daily usage",), [], dict[str, _KeptUsage])


def usage_written(database: Database, day: date) -> None:
    """Drop what the session remembers of a day whose usage was written."""
    for kept in _kept(database).values():
        kept.days.discard(day)


def several_meters_of(database: Database, first: date, last: date, points: Sequence[str]) -> list[str]:
    """Those of some service points that had several meters on a day of a range, a day of an exchange included."""
    found = _rows_of(database, first, last, points).filter(pl.col("meters") > 1)
    return sorted(set(found["service_point_id"].to_list()))


def _keys_hash(keys: pl.DataFrame) -> bytes:
    joined = keys.select(pl.concat_str("service_point_id", "flow", "unit", separator="\x1f").str.join("\x1e")).item()
    return hashlib.sha256(joined.encode()).digest()


def _history_columns(usage: pl.DataFrame) -> pl.DataFrame:
    """quantity_micro with NO_VALUE for null, and state, of rows of usage."""
    whole = (pl.col("estimated") + pl.col("missing") == 0).cast(pl.Int16) * WHOLE
    forward = (
        (pl.col("source") != "interval") & (pl.col("quality").cast(pl.Int32) & 0xE000).is_in(FORWARD_CODES)
    ).cast(pl.Int16) * FORWARD
    return usage.select(pl.col("quantity_micro").fill_null(NO_VALUE), (whole + forward).cast(pl.Int16).alias("state"))


#: Entries of a day's block, by their place (from 1): quantity_micro and state
_Entries: TypeAlias = dict[int, tuple[int, int]]


def change_usage_history(
    database: Database, connection: psycopg.Connection[Any], day: date, usage: pl.DataFrame, points: Sequence[str]
) -> bool:
    """Bring the entries of some service points of a day's block to their usage (sorted by key); False, and nothing
    done, where they have other keys than the block has: then the whole block is to be written. A transaction that is
    undone writes them when somebody reads a block: a city's is a megabyte, and written whole each time."""
    row = connection.execute("SELECT keys_hash FROM vee.usage_block WHERE billing_day = %s", (day,)).fetchone()
    if row is None:
        return False
    places = _places(connection, bytes(row[0]), points)
    keys = usage.select("service_point_id", "flow", "unit").rows() if usage.height else []
    if [(point, flow, unit) for _, point, flow, unit in places] != keys:
        return False
    if not places:
        return True
    columns = _history_columns(usage)
    values = zip(columns["quantity_micro"].to_list(), columns["state"].to_list(), strict=True)
    entries = dict(zip([place for place, *_ in places], values, strict=True))
    if is_undone(database):
        _postponed(database).setdefault(day, {}).update(entries)
    else:
        _write_entries(connection, day, entries)
    return True


def _write_entries(connection: psycopg.Connection[Any], day: date, entries: _Entries) -> None:
    """Write those entries of a day's block that are not as they are stored."""
    stored = connection.execute(
        "SELECT array(SELECT quantity_micro[n] FROM unnest(%(n)s::int[]) WITH ORDINALITY AS p (n, k) ORDER BY k), "
        "array(SELECT state[n]::int FROM unnest(%(n)s::int[]) WITH ORDINALITY AS p (n, k) ORDER BY k) "
        "FROM vee.usage_block WHERE billing_day = %(d)s",
        {"n": list(entries), "d": day},
    ).fetchone()
    assert stored is not None  # noqa: S101 - the row was read before
    sets, given = list[str](), list[Any]()
    for (place, entry), *old in zip(entries.items(), *stored, strict=True):
        if entry != tuple(old):
            sets += [f"quantity_micro[{place}] = %s", f"state[{place}] = %s"]
            given += entry
    if sets:
        connection.execute(
            f"UPDATE vee.usage_block SET {', '.join(sets)} WHERE billing_day = %s".encode(), (*given, day)
        )


def _postponed(database: Database) -> dict[date, _Entries]:
    """Entries of blocks that a transaction that is undone did not write yet, by day."""
    return made_once(database, ("entries of usage blocks",), [], dict[date, _Entries])


def _write_postponed(database: Database) -> None:
    postponed = _postponed(database)
    if not postponed:
        return
    with database.connect("usage history") as connection:
        for day, entries in postponed.items():
            _write_entries(connection, day, entries)
    postponed.clear()


#: What ``_places`` found last: the keys that a hash is over never change, and a correction's days have the same
_FOUND: Final[dict[tuple[bytes, tuple[str, ...]], list[tuple[int, str, str, str]]]] = {}
_MOST_FOUND: Final = 64


def _places(
    connection: psycopg.Connection[Any], keys_hash: bytes, points: Sequence[str]
) -> list[tuple[int, str, str, str]]:
    """Places (from 1) of some service points among the keys of a block, with point, flow and unit."""
    key = keys_hash, tuple(points)
    if key not in _FOUND:
        stored = connection.execute(
            "SELECT u.n, u.point, u.flow, u.unit FROM vee.usage_keys AS k, unnest(k.service_point_id, k.flow, k.unit) WITH ORDINALITY "
            "AS u (point, flow, unit, n) WHERE k.keys_hash = %s AND u.point = ANY(%s) ORDER BY u.n",
            (keys_hash, list(points)),
        ).fetchall()
        if not stored or len(points) > _MOST_FOUND:
            return stored
        if len(_FOUND) >= _MOST_FOUND:
            _FOUND.clear()
        _FOUND[key] = stored
    return _FOUND[key]


def write_usage_history(
    database: Database, connection: psycopg.Connection[Any], day: date, usage: pl.DataFrame
) -> None:
    """Copy a day's usage (sorted by key) into its block; nothing is written where it is the same."""
    _postponed(database).pop(day, None)
    if not usage.height:
        connection.execute("DELETE FROM vee.usage_block WHERE billing_day = %s", (day,))
        return
    keys_hash = _keys_hash(usage)
    if not connection.execute("SELECT FROM vee.usage_keys WHERE keys_hash = %s", (keys_hash,)).rowcount:
        connection.execute(
            "INSERT INTO vee.usage_keys SELECT %s, array_agg(service_point_id ORDER BY n), array_agg(flow ORDER BY n), array_agg(unit ORDER BY n) "
            'FROM (SELECT service_point_id, flow, unit, row_number() OVER (ORDER BY service_point_id, flow COLLATE "C", unit COLLATE "C") AS n '
            "FROM vee.daily_usage WHERE billing_day = %s) AS u ON CONFLICT DO NOTHING",
            (keys_hash, day),
        )
    block = _history_columns(usage).select(
        pl.lit(day, pl.Date).alias("billing_day").first(),
        pl.lit(keys_hash).alias("keys_hash").first(),
        pl.col("quantity_micro").implode(),
        pl.col("state").implode(),
    )
    replace_rows(connection, "vee.usage_block", day, block, _USAGE_BLOCK, ("billing_day",))
