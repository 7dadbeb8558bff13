"""Shards judged beforehand: taken where they were made of what is known now, judged again where anything changed or a
file is not whole."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.vee import VeeOutcome, parcel, validate_billing_day
from meter_pipeline.vee.edits import edit
from meter_pipeline.vee.rules import thresholds
from meter_pipeline.vee.spread import Beforehand, judge_step
from meter_pipeline_tests.defs.content import content
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 2, 3)
STEPS = 3


@pytest.fixture
def city(database: Database) -> City:
    """Nine meters with gaps, of which two need their peers; a register each."""
    city = City(database)
    city.reference(*(Installed(f"M-{k}", f"SP-{k}") for k in range(9)))
    curves = {f"M-{k}": load_curve(DAY, seed=k) for k in range(9)}
    for k in (2, 7):
        curves[f"M-{k}"][20:70] = np.iinfo(np.int64).min
    city.intervals(DAY, curves)
    for k in range(9):
        city.register(
            f"M-{k}", (CALENDAR.bounds(DAY)[0], 1_000_000 * k), (CALENDAR.bounds(DAY)[1], 40_000_000 + 1_000_000 * k)
        )
    return city


def judged(city: City, folder: Path, only: range = range(STEPS)) -> Beforehand:
    beforehand = Beforehand(folder, STEPS)
    for number in only:
        judge_step(city.database, CALENDAR, DAY, beforehand, number, clock=noon_after(DAY))
    return beforehand


def validate(city: City, beforehand: Beforehand | None = None) -> VeeOutcome:
    return validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY), beforehand=beforehand)


def unchanged(city: City) -> bool:
    """Whether a validation that is told of no shards finds nothing to change in what stands."""
    before = content(city.database)
    again = validate(city)
    return (again.inserted, again.updated) == (0, 0) and content(city.database) == before


def test_steps_leave_shards_that_the_stage_takes(city: City, tmp_path: Path) -> None:
    beforehand = judged(city, tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == STEPS
    assert judged(city, tmp_path) == beforehand  # a step done twice leaves the same files
    assert len(list(tmp_path.rglob("*.npz"))) == STEPS
    outcome = validate(city, beforehand)
    assert (outcome.shards_taken, outcome.inserted) == (STEPS, 9)
    assert outcome.estimated == 100
    assert unchanged(city)
    beforehand.clear(DAY)
    assert not any(tmp_path.iterdir())


def test_a_step_that_never_came_is_the_stages_own_work(city: City, tmp_path: Path) -> None:
    outcome = validate(city, judged(city, tmp_path, range(1, STEPS)))
    assert (outcome.shards_taken, outcome.inserted) == (STEPS - 1, 9)
    assert unchanged(city)


def _late_file(city: City) -> None:
    with city.database.connect() as connection:
        connection.execute(
            "INSERT INTO raw.feed_file (sha256, file_name, head_end, commodity, file_format, bytes, archive_path, landed_at, received, rejected, "
            "dead_letters) VALUES (sha256('f'), 'f', 'AMI', 'electricity', 'csv', 1, 'f', now(), 1, 0, 0)"
        )
        connection.execute(
            "INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, register_rows, duplicate_in_file, "
            "superseded_in_file, loaded_at) VALUES (sha256('f'), %s, 's', sha256('s'), 1, 1, 0, 0, 0, now())",
            (DAY,),
        )
        connection.commit()
    city.intervals(DAY, {"M-4": load_curve(DAY, seed=44)})


def _edit(city: City) -> None:
    edit(
        city.database, CALENDAR, "M-4", "E1", DAY, 11, [260_000], reason="seen on site", by="ann", clock=noon_after(DAY)
    )


def _register(city: City) -> None:
    with city.database.connect() as connection:
        connection.execute("UPDATE raw.register_read SET value = value + 7 WHERE meter_id = 'M-4'")
        connection.commit()


def _reference(city: City) -> None:
    with city.database.connect() as connection:
        connection.execute(
            "UPDATE ref.service_points SET customer_class = 'commercial' WHERE service_point_id = 'SP-4'"
        )
        connection.commit()


def _another_day(city: City, days: int) -> None:
    other = DAY + timedelta(days=days)
    city.intervals(other, {f"M-{k}": load_curve(other, seed=k) for k in range(9)})
    validate_billing_day(city.database, CALENDAR, other, clock=noon_after(other))


def _day_before(city: City) -> None:
    _another_day(city, -1)


def _day_after(city: City) -> None:
    _another_day(city, 1)


@pytest.mark.parametrize(
    ("change", "taken"),
    [(_late_file, 0), (_edit, 0), (_register, STEPS - 1), (_reference, 0), (_day_before, 0), (_day_after, 0)],
)
def test_what_changed_since_is_judged_again(
    city: City, tmp_path: Path, change: Callable[[City], Any], taken: int
) -> None:
    """A register concerns its own shard; a file, an edit, a class (whose numbers are the whole day's), a day beside it
    all of them."""
    beforehand = judged(city, tmp_path)
    change(city)
    outcome = validate(city, beforehand)
    assert outcome.shards_taken == taken
    assert unchanged(city)


class _Runs:
    def __reduce__(self) -> Any:
        return (print, ("somebody's code ran",))


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Runs()))


def _pickled_member(path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, tree=np.array([_Runs()], dtype=object))
    path.write_bytes(buffer.getvalue())


def _another_class(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, tree=np.frombuffer(b'{"c": "Popen", "v": {}}', np.uint8))


@pytest.mark.parametrize("spoil", [_torn, _empty, _pickled, _pickled_member, _another_class])
def test_a_file_that_is_not_whole_or_not_ours_runs_nothing_and_is_judged_again(
    city: City, tmp_path: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    beforehand = judged(city, tmp_path)
    for path in tmp_path.rglob("*.npz"):
        spoil(path)
        now = hashlib.sha256(path.read_bytes()).digest()
        with pytest.raises(parcel.ParcelError, match=path.name):
            parcel.read(path, now)
        with city.database.connect() as connection:  # even with a hash that somebody put on record
            connection.execute(
                "UPDATE vee.judged_shard SET file_sha256 = %s WHERE inputs = %s", (now, bytes.fromhex(path.stem))
            )
            connection.commit()
    outcome = validate(city, beforehand)
    assert (outcome.shards_taken, outcome.inserted) == (0, 9)
    assert "somebody's code" not in capsys.readouterr().out
    assert unchanged(city)


def test_a_file_that_somebody_else_put_there_is_not_taken(city: City, tmp_path: Path) -> None:
    """Whole, of this version, under the right name, with one value changed: its hash is not the one that the step left
    in the database."""
    beforehand = judged(city, tmp_path)
    with city.database.connect() as connection:
        noted = dict(
            connection.execute(
                "SELECT inputs, file_sha256 FROM vee.judged_shard WHERE billing_day = %s", (DAY,)
            ).fetchall()
        )
    for path in tmp_path.rglob("*.npz"):
        piece = parcel.read(path, noted[bytes.fromhex(path.stem)])
        piece.judged[0].validated.values[0, 0] += 1_000_000
        assert parcel.write(path, piece)[1] != noted[bytes.fromhex(path.stem)]
    assert validate(city, beforehand).shards_taken == 0
    assert unchanged(city)
    with city.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM vee.judged_shard").fetchone() == (0,)


def test_a_shift_of_the_fleets_clock_is_found_with_shards_judged_beforehand(city: City, tmp_path: Path) -> None:
    """What was judged beforehand knew of no shift: the day is gone through once more, by the stage."""
    few = replace(thresholds.default(), shift_min_rows=5)
    for day in (DAY - timedelta(days=k) for k in range(14, 0, -1)):
        city.intervals(day, {f"M-{k}": load_curve(day, seed=k) for k in range(9)})
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day), thresholds=few)
    city.intervals(DAY, {f"M-{k}": np.roll(load_curve(DAY, seed=k), 12) for k in range(9)})
    beforehand = Beforehand(tmp_path, STEPS)
    for number in range(STEPS):
        judge_step(city.database, CALENDAR, DAY, beforehand, number, clock=noon_after(DAY), thresholds=few)
    outcome = validate_billing_day(
        city.database, CALENDAR, DAY, clock=noon_after(DAY), thresholds=few, beforehand=beforehand
    )
    assert list(outcome.shifted_head_ends.values()) == [3]
    assert outcome.shards_taken == 0
    before = content(city.database)
    again = validate_billing_day(city.database, CALENDAR, DAY, clock=noon_after(DAY), thresholds=few)
    assert (again.inserted, again.updated) == (0, 0)
    assert content(city.database) == before
