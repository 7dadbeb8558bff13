"""Corrections promise: in whatever order things happen, the accounts end with the money of a city that knew the truth
from the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.histories import SEALS, History, differing, histories, play, truth
from meter_pipeline_tests.support import copy_database

#: Every run of the tests plays one of so many histories of the city that is sealed within the period, and the slow test
#: all of every city.
SPREAD = 997


def _lived(server: Database, template: Database, folder: Path, seal: int | None, played: list[History]) -> list[str]:
    """What differs between the city that lived through some histories and the one that knew the truth."""
    names = [f"corrections_{kind}_{seal}_{len(played)}" for kind in ("truth", "lived")]
    try:
        owed = truth(copy_database(server, names[0], template.name), folder / "truth", played)
        found = play(copy_database(server, names[1], template.name), folder / "lived", seal, played)
    finally:
        with server.connect(autocommit=True) as connection:
            for name in names:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    return list(differing(seal, played, found, owed))


def test_the_money_is_that_of_a_city_that_knew_the_truth(server: Database, template: Database, tmp_path: Path) -> None:
    every = histories(2)
    kept = {  # these failed: a service that was not billed on a sealed day had no reason, which stopped everybody's correction
        "register day 0 day 1 seal day 2 issue [vacant] [ratio]",
        "interval day 0 day 1 seal day 2 issue [not_billed] [tariff]",
        "register day 0 day 1 seal [moved_out_later] day 2 [vacant] issue",
        "interval day 0 day 1 seal day 2 issue [ratio_since] [tariff]",
        "register day 0 day 1 seal day 2 issue [ratio] [ratio_since]",
        "interval day 0 day 1 seal [ratio] day 2 issue [class_since]",
        "register day 0 day 1 seal day 2 issue [class_since] [tariff]",
        "interval day 0 day 1 seal day 2 issue [class_since] [as_first_known]",
        "register day 0 [class_since] day 1 seal day 2 issue [moved_out_later]",
    }
    steps = ("day 0", "day 1", "seal", "day 2", "issue")
    played = [h for n, h in enumerate(every) if n % SPREAD == 0 or h.told(steps) in kept]
    assert kept <= {h.told(steps) for h in played}
    assert _lived(server, template, tmp_path, 2, played) == []


@pytest.mark.slow
@pytest.mark.parametrize("seal", SEALS)
def test_every_history(server: Database, template: Database, tmp_path: Path, seal: int | None) -> None:
    assert _lived(server, template, tmp_path, seal, histories(seal)) == []


def test_how_many_histories_there_are() -> None:
    assert [len(histories(seal)) for seal in SEALS] == [4320, 6048, 6048, 6048, 6048]
    assert len({(h.meter, h.kinds, h.places) for h in histories(None)}) == 4320
