"""One service's fault in any step of validation sets that service aside under its reason; every other service's day
goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.set_aside import MOST_FAULTS, apart, without_faults
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, interval, local

DAY = date(2026, 9, 10)
DAYS = [DAY + timedelta(days=k) for k in range(3)]


@pytest.fixture
def town(database: Database) -> Town:
    """An interval meter with a register and a dial alone, each twice: SP-OK and SP-BAD."""
    return made_town(database, "OK", "BAD")


def made_town(database: Database, *names: str) -> Town:
    """A town in which each service has an interval meter with a register, and a dial that was read two times."""
    made = Town(database)
    made.tariff(flat("E", "electricity", "kWh", "0.10"))
    made.cycle(DAY, DAYS[-1] + timedelta(days=1))
    for name in names:
        made.service(name, "E")
        made.meter(f"I-{name}", name, interval(), dial(sums_to="E1", billed=False))
        made.meter(f"D-{name}", name, dial())
        made.read(f"D-{name}", local(DAY - timedelta(days=3)), "40.000")
    for day in DAYS:
        made.city.intervals(day, {f"I-{name}": np.full(24, 400_000, np.int64) for name in names}, minutes=60)
    for name in names:
        made.read(f"D-{name}", local(DAYS[1], 12), "100.000")
    return made


def held(town: Town) -> dict[str, str]:
    return dict(
        town.rows(
            "SELECT account_id, detail FROM billing.statement_exception WHERE reason = 'held' ORDER BY account_id"
        )
    )


def mentions(value: Any, service_point: str) -> bool:
    """Whether an argument holds a row of a service."""
    if isinstance(value, list | tuple):
        return any(mentions(part, service_point) for part in value)
    frame = value if isinstance(value, pl.DataFrame) else getattr(value, "keys", getattr(value, "frame", None))
    if not isinstance(frame, pl.DataFrame) or "service_point_id" not in frame.columns:
        return False
    return bool((frame["service_point_id"] == service_point).any())


def poisoned(step: Callable[..., Any], place: int, service_point: str, said: str) -> Callable[..., Any]:
    """The step, failing where the argument at ``place`` has a row of the service."""

    def fail(*arguments: Any, **named: Any) -> Any:
        if mentions(arguments[place], service_point):
            raise ArithmeticError(said)
        return step(*arguments, **named)

    return fail


STEPS = {
    "meter_pipeline.vee.registers.assemble.with_units": 0,
    "meter_pipeline.vee.registers.assemble.day_windows": 0,
    "meter_pipeline.vee.registers.series.register_series": 0,
    "meter_pipeline.vee.registers.assemble.expected_rows": 0,
    "meter_pipeline.vee.registers.assemble.slot_windows": 0,
    "meter_pipeline.vee.registers.assemble.attach_registers": 0,
    "meter_pipeline.vee.estimation.time_of_use.attach": 0,
    "meter_pipeline.vee.estimation.multi_day_registers.find": 0,
    "meter_pipeline.vee.day.validate_matrix": 1,
    "meter_pipeline.vee.registers.read_rules.judge": 1,
    "meter_pipeline.vee.day.register_usage": 1,
    "meter_pipeline.vee.registers.true_up.find": 4,
    "meter_pipeline.vee.findings.register_findings": 1,
    "meter_pipeline.vee.findings.row_findings": 0,
    "meter_pipeline.vee.output_frames.input_hashes": 0,
    "meter_pipeline.vee.output_frames.content_hashes": 0,
    "meter_pipeline.vee.output_frames.interval_keys": 0,
    "meter_pipeline.vee.output_frames.interval_usage": 0,
    "meter_pipeline.vee.output_frames.class_sums": 0,
    "meter_pipeline.vee.output_frames.daily_usage": 0,
    "meter_pipeline.vee.writing.from_matrix": 0,
    "meter_pipeline.vee.tables.validated.write_intervals": 2,
    "meter_pipeline.vee.tables.validated.first_rows": 3,
}


def test_a_fault_in_a_step_stops_its_service_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One service for each step, whose rows make that step fail: all of them in the same days."""
    faults = {f"{number:02}": step for number, step in enumerate(STEPS)}
    town = made_town(database, "OK", *faults)
    for name, step in faults.items():
        room, function = step.rsplit(".", 1)
        module = __import__(room, fromlist=[function])
        poison = poisoned(getattr(module, function), STEPS[step], f"SP-{name}", f"a fault in {step}")
        monkeypatch.setattr(module, function, poison)
    town.run(*DAYS, issue=True)
    assert sum(town.usage("OK").values()) > Decimal("28.8")
    assert town.billed("OK") == sum(town.usage("OK").values())
    assert "SET_ASIDE" not in town.exceptions("OK")
    assert list(held(town)) == [f"A-{name}" for name in faults]
    details = town.rows("SELECT DISTINCT service_point_id, detail FROM vee.exception WHERE kind = 'SET_ASIDE'")
    assert dict(details) == {f"SP-{name}": f"ArithmeticError: a fault in {step}" for name, step in faults.items()}
    assert len(details) == len(faults)
    # mended, the days are run again and the bills go out
    monkeypatch.undo()
    town.run(*DAYS, issue=True)
    assert held(town) == {}
    for name in faults:
        assert "SET_ASIDE" not in town.exceptions(name)
        assert town.billed(name) == town.billed("OK")


def test_what_the_database_says_of_one_row_sets_its_service_aside(town: Town) -> None:
    """The day is stored already, so that rows are compared and replaced, and one of the new ones is refused."""
    town.run(DAY)
    before = town.usage("OK")[DAY]
    with town.database.connect() as connection:
        connection.execute(
            "ALTER TABLE vee.daily_usage ADD CONSTRAINT refused CHECK (service_point_id <> 'SP-BAD' OR quantity_micro < 11000000) NOT VALID"
        )
        connection.execute(
            "ALTER TABLE vee.interval_day ADD CONSTRAINT refused CHECK (meter_id <> 'I-BAD' OR total_micro < 11000000) NOT VALID"
        )
    for name in ("OK", "BAD"):
        town.city.intervals(DAY, {f"I-{name}": np.full(24, 500_000, np.int64)}, minutes=60)
    town.run(DAY)
    assert town.usage("OK")[DAY] == before + Decimal("2.4")
    assert "SET_ASIDE" in town.exceptions("BAD")
    assert "SET_ASIDE" not in town.exceptions("OK")
    [detail] = {d for (d,) in town.rows("SELECT detail FROM vee.exception WHERE kind = 'SET_ASIDE'")}
    assert detail.startswith("CheckViolation: ")
    assert "refused" in detail


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "UPDATE ref.channels SET unit = 'furlong' WHERE meter_id = 'I-BAD' AND channel = 'E1'",
            "unknown unit 'furlong'",
        ),
        ("UPDATE ref.channels SET multiplier = 900000000000 WHERE meter_id = 'D-BAD'", "beyond 64 bits"),
    ],
)
def test_reference_data_that_cannot_be_worked_with_stops_its_service_alone(town: Town, broken: str, said: str) -> None:
    with town.database.connect() as connection:
        connection.execute(broken.encode())
    town.run(*DAYS, issue=True)
    assert town.billed("OK") == sum(town.usage("OK").values())
    assert list(held(town)) == ["A-BAD"]
    assert {said in d for (d,) in town.rows("SELECT detail FROM vee.exception WHERE kind = 'SET_ASIDE'")} == {True}


def test_a_meter_that_was_put_back_within_the_day_stops_its_service_alone(town: Town) -> None:
    with town.database.connect() as connection:
        connection.execute("UPDATE ref.installations SET removed_at = %s WHERE meter_id = 'I-BAD'", (local(DAY, 9),))
        back: datetime = local(DAY, 12)
        connection.execute("INSERT INTO ref.installations VALUES ('SP-BAD', 'I-BAD', %s, NULL, NULL, NULL)", (back,))
    town.run(DAY)
    assert set(town.exceptions("BAD")) == {"SET_ASIDE"}
    assert town.usage("OK")[DAY] > Decimal("9.6")


def test_a_fault_of_everything_is_no_matter_of_single_services() -> None:
    def broken(keys: list[str]) -> int:
        raise ArithmeticError(f"{len(keys)} keys")

    with pytest.raises(ArithmeticError):
        apart([str(k) for k in range(MOST_FAULTS + 1)], broken)  # type: ignore[arg-type]  # a list is a sequence
    found, faults = without_faults(["a", "b", "c"], lambda keys: "".join(keys) if "b" not in keys else 1 // 0)
    assert (found, faults) == ("ac", {"b": "ZeroDivisionError: integer division or modulo by zero"})
