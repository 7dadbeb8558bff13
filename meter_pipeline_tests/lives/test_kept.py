"""Lives that once failed, each the shortest of its kind, play right ever after."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.lives.life import Life
from meter_pipeline_tests.lives.player import play
from meter_pipeline_tests.lives.stages import City

#: A withdrawal without an edit: a step in which nothing happens to the life
_NOTHING: Final = "edit_withdrawn"
_SCRIPT: Final = ("loaded", "issue", "event", "event", "seal", "event", "event")
#: What happened, and what was wrong then
_LIVES: Final = {
    "a waiting correction is taken anew when the last day goes to another cycle: its money was right, and the law counted the "
    "day for both bills": ("interval", ("corrected_read", "cycle_change", _NOTHING, _NOTHING)),
    "a move after the issue: the correction asked for when the first moved day was billed again kept what was due then, so that "
    "the bill and its days were apart by the other day's charge": (
        "interval",
        ("move", _NOTHING, _NOTHING, _NOTHING),
    ),
    "a move is corrected after the seal, while a finding holds the other account's bill: the sealed row still names that account, "
    "and the law missed its bill": ("checked", ("misread", "move", "move_corrected", _NOTHING)),
    "a read is corrected after the seal and then the move: the correction that waits covers a day more than the bill": (
        "interval",
        ("move", "approve", "corrected_read", "move_corrected"),
    ),
}


def test_lives_that_failed_before(database: Database, tmp_path: Path) -> None:
    lives = [Life(3 * k, base, history) for k, (base, history) in enumerate(_LIVES.values())]
    played = play(City(database, tmp_path / "city"), _SCRIPT, lives)
    assert not played.failures, [str(f) for f in played.failures]
    assert not played.stopped
