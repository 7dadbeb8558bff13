"""The pause at a stage's own batch boundary: asked on a connection of its own before each thing a stage writes.

A stage computes for seconds and writes in one transaction. A pause raised while it computes must not be followed by its
writes, and waiting in the open transaction would keep its locks for as long as people need. So the stage gives up
(``PausedError``): the transaction is undone as a whole, and the stage is run again from its start after the resume, on
what is there by then.
"""

from __future__ import annotations

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause import PauseState, is_paused
from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession


class PausedError(RuntimeError):
    """A pause holds all work: nothing of this stage's transaction was written. ``state`` says which pause."""

    def __init__(self, state: PauseState) -> None:
        super().__init__(f"{state.words()} Nothing of this stage was written; it may be run again after the resume.")
        self.state = state


def before_writing(database: Database, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Return where work may write, raise PausedError where a pause holds all of it or the flag cannot be read.

    About 4 ms, nearly all of it the new connection: a stage asks a few times a day, and a kept one would be idle in
    between. Where everything is one transaction it is asked there, and not at all where that is undone.
    """
    if isinstance(database, ReadSession) and database.shared:
        if not database.undone and (pause := is_paused(database.connect())) is not None:
            raise PausedError(pause)
        return
    # By its URL alone: a reading session is read-only, and is the stage's own.
    with PauseProbe(Database(database.url, database.role), application_name="stage-pause", clock=clock) as probe:
        state = probe.check()
    if state is not None:
        raise PausedError(state)
