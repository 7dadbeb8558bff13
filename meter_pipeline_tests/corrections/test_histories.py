"""Corrections promise: in whatever order things happen, the accounts end with the money of a town that knew the truth
from the start."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.histories import PAIRS, orders, play, truth
from meter_pipeline_tests.support import copy_database

#: Orders that every run of the tests plays; the slow test plays all of them.
CHOSEN = (
    ("day 0", "day 1", "day 2", "issue", "correct 0", "correct 1"),
    ("day 0", "correct 0", "day 1", "day 2", "seal", "correct 1", "issue"),
    ("day 0", "day 1", "day 2", "issue", "correct 0", "seal", "correct 1"),
)


@pytest.fixture(scope="module")
def owed(
    server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Decimal]]:
    database = copy_database(server, "corrections_truth", template.name)
    yield truth(database, tmp_path_factory.mktemp("truth") / "town")
    with server.connect(autocommit=True) as connection:
        connection.execute("DROP DATABASE corrections_truth WITH (FORCE)")


def differing(found: dict[str, Decimal], owed: dict[str, Decimal]) -> dict[str, str]:
    of = {p: name for name, (p, _, _) in PAIRS.items()}
    accounts = sorted({*found, *owed})
    return {
        f"{of[a[3:]]} {a}": f"owes {owed.get(a)}, has {found.get(a)}" for a in accounts if found.get(a) != owed.get(a)
    }


@pytest.mark.parametrize("order", CHOSEN, ids=" ".join)
def test_the_money_is_that_of_a_town_that_knew_the_truth(
    database: Database, tmp_path: Path, order: tuple[str, ...], owed: dict[str, Decimal]
) -> None:
    assert differing(play(database, tmp_path / "town", order), owed) == {}


@pytest.mark.slow
@pytest.mark.parametrize("order", list(orders()), ids=" ".join)
def test_every_order(database: Database, tmp_path: Path, order: tuple[str, ...], owed: dict[str, Decimal]) -> None:
    assert differing(play(database, tmp_path / "town", order), owed) == {}


def test_how_many_histories_there_are() -> None:
    assert (len(PAIRS), len(set(orders())), len(PAIRS) * len(set(orders()))) == (49, 99, 4851)
