"""Validates some service points of a billing day that was validated before, and leaves all others as stored.

The tables, the exceptions and the ledger's entry have the same content as after a run of the whole day. The movement of
the classes is taken from the whole day's stored values (vee.class_movement). Where that is not sufficient the whole day
is validated: ``WholeDayNeededError`` has the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.vectors import to_matrices
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.estimation.methods import CLASS_PROFILE
from meter_pipeline.vee.loading import Touched
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES
from meter_pipeline.vee.rules.interval_rules import code_table
from meter_pipeline.vee.rules.model import ValidatedMatrix
from meter_pipeline.vee.rules.movement import ClassMovement
from meter_pipeline.vee.rules.statistics import summed_shapes
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import part_of_day as store
from meter_pipeline.vee.tables import true_up

#: Row rules of days on which a channel's row is not the whole of what its meter read
_CUT: Final = rr.EXCHANGE.mask | rr.METERLESS_GAP.mask
_GROUP: Final = ("head_end", "unit", "flow", "interval_minutes")


#: A smaller day is validated whole in less time than it takes to find out what of it is touched
LEAST_ROWS: Final = 5_000
#: Where more than one in so many is touched, the whole day costs about the same
LARGEST_SHARE: Final = 20


def touched_since(database: Database, day: date) -> Touched | None:
    """Returns the part of a validated day to validate again: meters with new reads, and the service points that
    requests name. None where that is the whole day, or where no request exists and a person runs it. Requests of
    billing alone name no service point to validate."""
    with database.connect("vee") as connection:
        found = store.wanted(connection, day)
        named = [points for points in found.requests if points is not None]
        if "" in found.meters or len(named) < len(found.requests) or not (found.meters or named or found.billed):
            return None
        judged = {point for several in named for point in several}
        if found.meters or judged:
            judged |= set(store.set_aside(connection, day))
    return _worth(Touched(tuple(sorted(judged)), tuple(sorted(found.meters)), tuple(found.billed)), found.rows)


def _worth(touched: Touched, rows: int) -> Touched | None:
    if rows and not (touched.service_points or touched.meters):
        return touched
    small = rows < LEAST_ROWS or (len(touched.service_points) + len(touched.meters)) * LARGEST_SHARE > rows
    return None if small else touched


class WholeDayNeededError(Exception):
    """Some service points of a day cannot be validated alone; the message has the reason."""


@dataclass(frozen=True, slots=True)
class PartOfDay:
    """The part of a day to validate, and the stored rest of the day. ``replaced``: the stored rows of the part, as
    matrices."""

    day: date
    touched: Touched
    others: store.OtherRows
    movement: ClassMovement
    groups: pl.DataFrame
    exceptions: pl.DataFrame
    replaced: list[DayMatrix]

    def other_exceptions(self) -> pl.DataFrame:
        """Returns the day's exceptions of service points outside the part."""
        mine = pl.col("service_point_id").is_in(list(self.touched.service_points)) | (
            (pl.col("service_point_id") == "") & pl.col("meter_id").is_in(list(self.touched.meters))
        )
        return self.exceptions.filter(~mine)

    def whole_shapes(self, made: pl.DataFrame) -> pl.DataFrame:
        """Returns the load shapes of the day's head-ends (columns of vee.group_day) with the part's new rows.

        ``made``: ``output_frames.added_shapes`` of the part. Sums are exact, so that the earlier rows can be
        subtracted. Raises WholeDayNeededError where a row's value as read is not stored.
        """
        if self.groups.filter(pl.col("shifted_hours") != 0).height:
            raise WholeDayNeededError("a head-end's clock was off on the day")
        made_of_nothing = self.groups.clear()
        by_shape: dict[tuple[str, str, str, int], list[np.ndarray]] = {}
        for sign, frame in (
            (1, self.groups),
            (-1, self._shapes_before()),
            (1, made if made.width else made_of_nothing),
        ):
            for *key, members, profile, shape, shaped in frame.select(
                *_GROUP, "members", "profile", "shape", "shape_members"
            ).iter_rows():
                figures = [np.array([members, shaped]), np.array(profile, np.int64), np.array(shape, np.int64)]
                now = by_shape.setdefault((key[0], key[1], key[2], int(key[3])), [f * 0 for f in figures])
                for k, figure in enumerate(figures):
                    now[k] = now[k] + sign * figure
        schema = made.schema if made.width else self.groups.schema
        rows = [
            (self.day, *key, int(count[0]), profile.tolist(), shape.tolist(), int(count[1]), 0)
            for key, (count, profile, shape) in sorted(by_shape.items(), key=lambda item: (item[0][3], *item[0][:3]))
            if count[0]
        ]
        names = ["billing_day", *_GROUP, "members", "profile", "shape", "shape_members", "shifted_hours"]
        if not rows:
            return pl.DataFrame(schema=schema)
        found = pl.DataFrame(rows, schema=names, orient="row")
        return found.select(pl.col(c).cast(t) for c, t in schema.items())

    def _shapes_before(self) -> pl.DataFrame:
        """Returns the part's share of the stored shapes."""
        found = []
        for matrix in self.replaced:
            keys = matrix.keys
            whole = (keys["expected"].to_numpy() == matrix.slots) & (keys["first_slot"].to_numpy() == 0)
            cut = (keys["row_flags"].cast(pl.Int64).to_numpy() & _CUT) != 0
            read = keys["actual"].to_numpy() == matrix.slots
            # a slot without a read says that the channel's day was not whole as read
            gap = _flagged(keys["flags"], INTERVAL_RULES["GAP"].mask)
            if (whole & ~(read & ~cut) & ~gap).any():
                raise WholeDayNeededError("intervals that came whole were replaced when the day was last validated")
            counted = keys.select(*_GROUP[:3]).with_row_index("row").filter(pl.Series(whole & read & ~cut))
            for (head_end, unit, flow), part in counted.group_by(*_GROUP[:3]):
                rows = part["row"].to_numpy().astype(np.int64)
                members, profile, count, shares = summed_shapes(matrix.values, rows)
                minutes = matrix.interval_minutes
                found.append((head_end, unit, flow, minutes, members, profile.tolist(), shares.tolist(), count))
        return pl.DataFrame(
            found,
            schema={
                **dict.fromkeys(_GROUP[:3], pl.String),
                "interval_minutes": pl.Int16,
                "members": pl.Int64,
                "profile": pl.List(pl.Int64),
                "shape": pl.List(pl.Int64),
                "shape_members": pl.Int64,
            },
            orient="row",
        )


def _flagged(flags: pl.Series, mask: int) -> np.ndarray:
    """Returns by row whether any of its slots has a rule's bit."""
    return np.array([any(bits & mask for bits in row) if row is not None else False for row in flags.to_list()], bool)


def read_part(
    session: Database, calendar: BillingCalendar, day: date, only: Touched, t: Thresholds, *, final: bool
) -> PartOfDay:
    """Returns the part of a day around some service points and meters, and the stored rest.

    Raises WholeDayNeededError where a run of the whole day would change the rest.
    """
    touched = _closed(session, calendar, day, only)
    points = touched.service_points
    if not points:
        raise WholeDayNeededError("the meters stand at no service point on the day")
    stored = store.class_movement(session, day)
    if stored is None:
        raise WholeDayNeededError("the day was not validated whole yet")
    others = store.other_rows(session, day, points, final=final)
    if others.rows and others.rules != (t.version, t.version):
        raise WholeDayNeededError("the thresholds have another version than the day was validated under")
    if others.finality_differs:
        raise WholeDayNeededError("the day's estimates become final")
    frame = store.vectors_of(session, day, points)
    part = PartOfDay(
        day,
        touched,
        others,
        ClassMovement.read(stored),
        store.groups(session, day),
        store.exceptions(session, day),
        to_matrices(frame) if frame.height else [],
    )
    if (part.other_exceptions()["kind"] == "NO_SERVICE_POINT").any():
        raise WholeDayNeededError("a meter stands at a service point without a record")
    return part


def _closed(session: Database, calendar: BillingCalendar, day: date, only: Touched) -> Touched:
    """Returns the service points and meters, and all that share a meter or a service point with them on the day."""
    start, past = calendar.bounds(day)
    points, meters = set(only.service_points), set(only.meters)
    while True:
        more = set(store.meters_at(session, start, past, sorted(points))) if points else set()
        meters |= more
        found = set(store.points_of(session, start, past, sorted(meters))) if meters else set()
        found |= set(store.stored_points(session, day, sorted(meters))) if meters else set()
        if found <= points:
            return Touched(tuple(sorted(points)), tuple(sorted(meters)))
        points |= found


def looked_at(
    session: Database, connection: Connection, day: date
) -> tuple[list[tuple[date, bytes]], list[tuple[int, str]]]:
    """What asks for a day and is looked at by a run that begins now: requests (read_day, evidence) and touches."""
    waiting, touches = true_up.pending(connection, day), store.touches(connection, day)
    asked = store.asked(session)
    if asked is None:
        return waiting, touches
    known = [request for request in waiting if (day, *request) in asked.requests]
    return known, [touch for touch in touches if touch[0] in asked.touches]


def refuse_profiles(validated: Iterable[ValidatedMatrix]) -> None:
    """Raise WholeDayNeededError where an estimate uses its class's load shape of the day."""
    table = code_table("estimate")
    for v in validated:
        rows = np.flatnonzero(v.estimated > 0)
        codes = v.quality[rows]
        used = np.unique(codes[table[codes] & (v.values[rows] != NO_VALUE)])
        if any(quality.unpack(int(code)).method == CLASS_PROFILE for code in used):
            raise WholeDayNeededError("an estimate stands on the shape of its class")


def refuse_others(points: Sequence[str]) -> None:
    """Raise WholeDayNeededError where the figures of some register-only meters depend on other meters."""
    if points:
        raise WholeDayNeededError(f"the usage of {points[0]} stands on other registers of its class or head-end")
