"""Parts of several days, one after the other in one transaction.

A correction of a few service points reaches hundreds of days. Of what one of them costs, connections, commits and what
a new session reads of the catalogue are more than half; days of one transaction share them. It commits or it leaves
nothing, so that a run that was killed begins again where the last one committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Generic, TypeVar

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.one_transaction import OneTransaction, together

Part = TypeVar("Part")
Outcome = TypeVar("Outcome")

#: Days that share a transaction: it holds its locks for some seconds, and takes about twenty a day
MOST_DAYS: Final = 31


class NotTogetherError(Exception):
    """A day that cannot share a transaction with others; the message says why."""


@dataclass(frozen=True, slots=True)
class Stage(Generic[Part, Outcome]):
    """A stage of several days. ``part_of`` says which part of a day is run, None for the whole; ``run`` runs it;
    ``begin`` locks what the days of a transaction share, before anything else is read in it; ``ends`` says whether the
    days that follow need what came of a day committed."""

    part_of: Callable[[Database, date], Part | None]
    run: Callable[[Database, date, Part | None], Outcome]
    begin: Callable[[OneTransaction, Sequence[date]], object]
    ends: Callable[[Outcome, Sequence[date]], bool]


def in_turn(database: Database, days: Sequence[date], stage: Stage[Part, Outcome]) -> Iterator[tuple[date, Outcome]]:
    """Run each day for its part, in order, and yield its result when it is committed.

    Neighbours that have a part share a transaction. A day of which the whole is run has its own.
    """
    left = list(days)
    while left:
        shared, apart = _shared(database, left[:MOST_DAYS], stage)
        yield from shared
        left = left[len(shared) :]
        if apart:
            yield left[0], stage.run(database, left[0], stage.part_of(database, left[0]))
            left = left[1:]


def _shared(
    database: Database, days: Sequence[date], stage: Stage[Part, Outcome]
) -> tuple[list[tuple[date, Outcome]], bool]:
    """The first of some days that can share a transaction, committed; and whether the next is to be run apart. Those of
    a transaction in which one could not are run again without it."""
    if len(days) < 2 or stage.part_of(database, days[0]) is None:
        return [], bool(days)
    done: list[tuple[date, Outcome]] = []
    try:
        with together(database, "several days") as opened:
            session = opened.remembering() if _hold_reference(opened) else opened
            stage.begin(session, days)
            for day in days:
                part = stage.part_of(session, day)
                if part is None:
                    return done, True
                outcome = stage.run(session, day, part)
                done.append((day, outcome))
                if stage.ends(outcome, days[len(done) :]):
                    break
    except NotTogetherError:
        return _shared(database, days[: len(done)], stage)[0], True
    return done, False


def _hold_reference(session: Database) -> bool:
    """Keep reference data as it is until the transaction ends, so that its days may read it one time. False, without a
    wait, where a change of it is under way: each day then reads for itself."""
    found = session.rows(
        "SELECT pg_try_advisory_xact_lock_shared(hashtextextended('meter_pipeline reference data', 0)) AS held"
    )
    return bool(found[0]["held"])
