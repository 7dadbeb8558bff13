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
    made = Town(database)
    made.tariff(flat("E", "electricity", "kWh", "0.10"))
    made.cycle(DAY, DAYS[-1] + timedelta(days=1))
    for name in ("OK", "BAD"):
        made.service(name, "E")
        made.meter(f"I-{name}", name, interval(), dial(sums_to="E1", billed=False))
        made.meter(f"D-{name}", name, dial())
        made.read(f"D-{name}", local(DAY - timedelta(days=3)), "40.000")
    for day in DAYS:
        made.city.intervals(day, {f"I-{n}": np.full(24, 400_000, np.int64) for n in ("OK", "BAD")}, minutes=60)
    for name in ("OK", "BAD"):
        made.read(f"D-{name}", local(DAYS[1], 12), "100.000")
    return made


def held(town: Town) -> dict[str, str]:
    return dict(
        town.rows(
            "SELECT account_id, detail FROM billing.statement_exception WHERE reason = 'held' ORDER BY account_id"
        )
    )


def mentions(value: Any) -> bool:
    """Whether an argument holds a row of the service under test."""
    if isinstance(value, list | tuple):
        return any(mentions(part) for part in value)
    frame = value if isinstance(value, pl.DataFrame) else getattr(value, "keys", getattr(value, "frame", None))
    if not isinstance(frame, pl.DataFrame) or "service_point_id" not in frame.columns:
        return False
    return bool((frame["service_point_id"] == "SP-BAD").any())


def poisoned(step: Callable[..., Any], place: int) -> Callable[..., Any]:
    """The step, failing where the argument at ``place`` has a row of the service."""

    def fail(*arguments: Any, **named: Any) -> Any:
        if mentions(arguments[place]):
            raise ArithmeticError("a fault put into this step")
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


@pytest.mark.parametrize("step", STEPS, ids=[s.rsplit(".", 1)[1] for s in STEPS])
def test_a_fault_in_a_step_stops_its_service_alone(town: Town, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    room, name = step.rsplit(".", 1)
    module = __import__(room, fromlist=[name])
    monkeypatch.setattr(module, name, poisoned(getattr(module, name), STEPS[step]))
    town.run(*DAYS, issue=True)
    assert sum(town.usage("OK").values()) > Decimal("28.8")
    assert town.billed("OK") == sum(town.usage("OK").values())
    assert "SET_ASIDE" in town.exceptions("BAD")
    assert "SET_ASIDE" not in town.exceptions("OK")
    assert list(held(town)) == ["A-BAD"]
    [detail] = {d for (d,) in town.rows("SELECT detail FROM vee.exception WHERE kind = 'SET_ASIDE'")}
    assert detail == "ArithmeticError: a fault put into this step"
    # mended, the day is run again and the bill goes out
    monkeypatch.undo()
    town.run(*DAYS, issue=True)
    assert "SET_ASIDE" not in town.exceptions("BAD")
    assert (held(town), town.billed("BAD")) == ({}, town.billed("OK"))


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
