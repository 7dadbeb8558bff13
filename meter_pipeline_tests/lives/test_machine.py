"""Long random lives as a state machine over the real database and stages: hypothesis draws one step after the other and
shrinks what fails to the shortest life that does. The steps are those of the random histories of run.py, which plays
them side by side."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from psycopg import sql

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.lives.life import BASES, Life, events_of
from meter_pipeline_tests.lives.player import Game
from meter_pipeline_tests.lives.stages import City
from meter_pipeline_tests.support import copy_database

_ONCE = ("late_read", "tariff_amended", "tariff_change", "move", "cycle_change", "left")


def machine(server: Database, template: Database) -> type[RuleBasedStateMachine]:
    """Lives of one service point, each in a database of its own."""

    class Lives(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.name = f"life_{uuid.uuid4().hex[:12]}"
            copy_database(server, self.name, template.name)
            self.folder = tempfile.TemporaryDirectory(prefix="lives-")
            self.steps: list[str] = []
            self.happened: list[str] = []

        @initialize(
            base=st.sampled_from(BASES),
            number=st.integers(0, 5),
            late=st.booleans(),
            amended=st.booleans(),
            water=st.booleans(),
        )
        def begin(self, base: str, number: int, late: bool, amended: bool, water: bool) -> None:
            known = events_of(base)
            wanted = {"late_read": late, "tariff_amended": amended, "exchange_unit": water}
            self.known = known
            self.life = Life(number, base, tuple(e for e, is_so in wanted.items() if is_so and e in known))
            self.open = {e for e in known if e not in wanted or wanted[e]}
            self.game = Game(City(server.sibling(self.name), Path(self.folder.name) / "city"), [self.life])
            self.game.begin()

        @rule(data=st.data())
        def something_happens(self, data: Any) -> None:
            event = data.draw(st.sampled_from([e for e in self.known if e in self.open]))
            if event in _ONCE:
                self.open.discard(event)
            self.happened.append(event)
            self._take("event", event)

        @precondition(lambda self: "issue" not in self.steps)
        @rule()
        def the_first_period_is_issued(self) -> None:
            self._take("issue")

        @precondition(lambda self: "seal" not in self.steps)
        @rule()
        def the_month_is_sealed(self) -> None:
            self._take("seal")

        @precondition(lambda self: "advance" not in self.steps)
        @rule()
        def the_second_period_goes_by(self) -> None:
            self._take("advance")

        def _take(self, step: str, *events: str) -> None:
            self.steps.append(step)
            self.game.take(step, events)
            assert not self.game.silent, (self.steps, self.happened, self.game.silent)
            assert not self.game.city.stopped, "no account's history may stop the city's day"

        def teardown(self) -> None:
            try:
                if hasattr(self, "game"):
                    self.game.finish()
                    assert not self.game.failures(self.steps), (
                        self.steps,
                        self.happened,
                        self.game.failures(self.steps),
                    )
            finally:
                self.folder.cleanup()
                with server.connect(autocommit=True) as connection:
                    connection.execute(
                        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name))
                    )

    return Lives


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 64 steps of whole stages; two minutes on a quiet core
def test_lives_drawn_step_by_step_pay_what_they_owe(server: Database, template: Database) -> None:
    """Eight lives of eight steps; the seed of a failure is in hypothesis's own database and printed."""
    run_state_machine_as_test(
        machine(server, template),
        settings=settings(
            max_examples=8,
            stateful_step_count=8,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
