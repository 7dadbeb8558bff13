"""Dual write promises: one authority a record for ever, nothing lost on either side however often delivery fails, and a
rollback that legacy survives."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.control.people import Refused
from meter_pipeline.ledger.entries import canonical_json
from meter_pipeline.migration import cutover, dual_write, tables
from meter_pipeline.migration.dual_write import Record
from meter_pipeline.migration.gate import Condition, GateReport
from meter_pipeline.migration.rollback import RollbackFacts, roll_back, triggers
from meter_pipeline.migration.sides import LegacyFolder
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.support import FixedClock

DAY = date(2026, 11, 2)
NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)


def record(n: int, amount: int = 100) -> Record:
    return Record(DAY, f"AC-{n:04d}", {"total": amount + n})


def stage(database: Database, name: str, points: int | None = None) -> None:
    """Put the migration where a test needs it, past the people who would sign."""
    everyone = 10_000 if name in ("ramp_down", "complete") else 0
    value: dict[str, Any] = {"stage": name, "routes": [], "basis_points": everyone if points is None else points}
    with database.connect() as connection:
        flags.ensure(connection, STAGE, by="test")
        connection.execute(
            "UPDATE control.flag SET value = %s::jsonb, version = version + 1 WHERE flag = %s",
            (canonical_json(value).decode(), STAGE.name),
        )


def write(database: Database, *records: Record) -> list[dual_write.WriteResult]:
    with database.connect() as connection:
        return dual_write.write(connection, [(r, None) for r in records])


class Side:
    """A side that keeps what it is given, idempotent by hash, and fails when told to."""

    def __init__(self) -> None:
        self.held: dict[tuple[date, str], bytes] = {}
        self.fail = False

    def __call__(self, records: Sequence[Record]) -> None:
        if self.fail:
            raise ConnectionError("away")
        for each in records:
            self.held[each.billing_day, each.account_id] = each.sha256


@pytest.mark.parametrize(
    ("name", "points", "authority"),
    [("off", 0, "legacy"), ("shadow", 0, "legacy"), ("dual_write", 0, "legacy"), ("live", 10_000, "new")],
)
def test_each_stage_has_one_authority(database: Database, name: str, points: int, authority: str) -> None:
    stage(database, name, points)
    assert [w.authority for w in write(database, record(1))] == [authority]


def test_a_record_keeps_the_authority_it_was_written_under(database: Database) -> None:
    stage(database, "live", 10_000)
    assert write(database, record(1))[0].authority == "new"
    assert roll_back(database, ["drill"], by="test") is not None
    again = write(database, record(1))[0]
    assert (again.authority, again.fresh) == ("new", False)
    assert write(database, record(2))[0].authority == "legacy"


def test_after_a_rollback_legacy_has_every_record_written_while_live(database: Database) -> None:
    stage(database, "live", 5_000)
    legacy, new = Side(), Side()
    records = [record(n) for n in range(200)]
    written = write(database, *records)
    done = roll_back(database, ["drill"], by="test")
    assert done is not None
    assert done.seconds < 5
    legacy.fail = True
    dual_write.deliver(database, {"legacy": legacy, "new": new})
    legacy.fail = False
    while dual_write.deliver(database, {"legacy": legacy, "new": new}, most=37):
        pass
    sides = {r.account_id: w.authority for r, w in zip(records, written, strict=True)}
    assert {"legacy", "new"} == set(sides.values())
    for each in records:
        held = {"legacy": legacy.held.get((DAY, each.account_id)), "new": new.held.get((DAY, each.account_id))}
        # The authority holds it by the write itself; the other side by the outbox.
        assert held["legacy"] == each.sha256 or sides[each.account_id] == "legacy"
        assert held["new"] == each.sha256 or sides[each.account_id] == "new"


def test_a_flip_in_the_middle_of_writing_leaves_one_authority_a_record(database: Database) -> None:
    stage(database, "live", 10_000)
    failures: list[BaseException] = []

    def writer(seed: int) -> None:
        order = list(range(60))
        random.Random(seed).shuffle(order)
        try:
            for n in order:
                write(database, record(n))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    assert roll_back(database, ["drill in the middle"], by="test") is not None
    for thread in threads:
        thread.join()
    assert not failures
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM migration.authority") == 60
        wrong = "SELECT count(*) FROM migration.authority WHERE (authority = 'new') <> (stage = 'live')"
        assert scalar(connection, wrong) == 0
        unsent = (
            "SELECT count(*) FROM migration.authority a WHERE NOT EXISTS (SELECT FROM migration.outbox o WHERE o.account_id = a.account_id "
            "AND o.billing_day = a.billing_day AND o.side <> a.authority)"
        )
        assert scalar(connection, unsent) == 0


def test_nothing_is_left_behind_when_the_writing_transaction_fails(database: Database) -> None:
    stage(database, "live", 10_000)
    connection = database.connect()
    dual_write.write(connection, [(record(1), None)])
    connection.rollback()  # the bill itself failed
    connection.close()
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM migration.outbox") == 0
        assert scalar(connection, "SELECT count(*) FROM migration.authority") == 0


@pytest.mark.parametrize(
    "seen",
    [
        RollbackFacts(unexplained_money=1),
        RollbackFacts(missing_new=1),
        RollbackFacts(ledger_verifies=False),
        RollbackFacts(dead_letter_share=0.006, dead_letter_share_7_days=0.01),
        RollbackFacts(dead_letter_share=0.004, dead_letter_share_7_days=0.001),
        RollbackFacts(breaker_open_s=301),
        RollbackFacts(slow_p95_for_s=901),
        RollbackFacts(lag_s=13 * 3600),
        RollbackFacts(paused=True),
    ],
)
def test_every_trigger_pulls_alone_and_calm_pulls_none(seen: RollbackFacts) -> None:
    assert len(triggers(seen)) == 1
    assert triggers(RollbackFacts(dead_letter_share=0.002, dead_letter_share_7_days=0.001)) == []


def green(at: datetime, *, is_green: bool = True) -> GateReport:
    return GateReport(at, is_green, at, None, 100_000, 3e-5, (Condition("live_hours", is_green, "72", "72"),))


def keep(database: Database, report: GateReport) -> str:
    with database.connect() as connection:
        tables.save_report(connection, report.sha256, report.at, report.green, report.document())
    return report.sha256


LIVE = {"stage": "live", "routes": [], "basis_points": 100}


def test_cut_over_takes_two_people_and_one_fresh_green_report(database: Database) -> None:
    stage(database, "dual_write")
    clock = FixedClock(NOW)
    report = keep(database, green(NOW))
    with pytest.raises(Refused, match=r"."):
        cutover.step(database, LIVE, by="ops", reason="alone", clock=clock)
    asked = cutover.request_step(database, LIVE, report, by="ops", reason="first percent", clock=clock)
    with pytest.raises(Refused) as same:
        cutover.confirm_step(database, asked.request_id, report, by="ops", reason="me again", clock=clock)
    assert same.value.code == "same_person"
    other = keep(database, green(NOW.replace(minute=1)))
    with pytest.raises(Refused) as differs:
        cutover.confirm_step(database, asked.request_id, other, by="controller", reason="signed", clock=clock)
    assert differs.value.code == "digest_differs"
    done = cutover.confirm_step(database, asked.request_id, report, by="controller", reason="signed", clock=clock)
    assert done.value == LIVE
    with pytest.raises(Refused):
        cutover.confirm_step(database, asked.request_id, report, by="controller", reason="signed twice", clock=clock)
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind = 'cutover_signed'") == 1


@pytest.mark.parametrize("here", ["shadow", "dual_write", "live"])
def test_leaving_the_migration_makes_us_bill_and_takes_two_people_over_a_green_report(
    database: Database, here: str
) -> None:
    stage(database, here, 100 if here == "live" else None)
    clock = FixedClock(NOW)
    off = {"stage": "off", "routes": [], "basis_points": 0}
    with pytest.raises(Refused) as alone:
        cutover.step(database, off, by="ana", reason="done", clock=clock)
    assert alone.value.code == "needs_two"
    shut = keep(database, green(NOW, is_green=False))
    with pytest.raises(Refused) as refused:
        cutover.request_step(database, off, shut, by="ana", reason="done", clock=clock)
    assert refused.value.code == "not_green"
    report = keep(database, green(NOW.replace(minute=2)))
    clock.at = NOW.replace(minute=3)
    asked = cutover.request_step(database, off, report, by="ana", reason="done", clock=clock)
    done = cutover.confirm_step(database, asked.request_id, report, by="ben", reason="signed", clock=clock)
    assert done.value == off


@pytest.mark.parametrize(
    ("report_at", "is_green", "code"), [(NOW.replace(hour=10), True, "stale_report"), (NOW, False, "not_green")]
)
def test_a_stale_or_red_report_is_refused_and_the_refusal_recorded(
    database: Database, report_at: datetime, is_green: bool, code: str
) -> None:
    stage(database, "dual_write")
    report = keep(database, green(report_at, is_green=is_green))
    with pytest.raises(Refused) as refused:
        cutover.request_step(database, LIVE, report, by="ops", reason="now", clock=FixedClock(NOW))
    assert refused.value.code == code
    with database.connect() as connection:
        recorded = (
            "SELECT count(*) FROM ledger.entry WHERE kind = 'migration_stage' AND convert_from(body, 'UTF8') LIKE %s"
        )
        assert scalar(connection, recorded, (f"%{code}%",)) == 1


@pytest.mark.parametrize("most", [1, 10])
def test_two_deliverers_never_overtake_each_other(database: Database, tmp_path: Path, most: int) -> None:
    """The guard's job each minute, and an operator: the legacy side ends with the newer bill, whoever is slower."""
    stage(database, "live", 10_000)

    def bill(total: int) -> Record:
        return Record(DAY, "AC-0001", {"figures": [["total", "total", total, False, None]]})

    write(database, bill(10_000_000))
    write(database, bill(20_000_000))
    side, entered = LegacyFolder(tmp_path), threading.Event()

    def slow(records: Sequence[Record]) -> None:
        entered.set()
        time.sleep(0.7)
        side(records)

    first = threading.Thread(target=lambda: dual_write.deliver(database, {"legacy": slow}, most=most))
    first.start()
    assert entered.wait(10)
    dual_write.deliver(database, {"legacy": side}, most=most)
    first.join()
    assert side.figures() == {(str(DAY), "AC-0001"): [("total", "total", "20", "false", "")]}


def test_a_side_that_is_away_does_not_keep_the_other_from_its_records(database: Database) -> None:
    stage(database, "dual_write")
    write(database, *(record(n) for n in range(3)))
    away, other = Side(), Side()
    away.fail = True
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO migration.outbox (billing_day, account_id, side, payload, payload_sha256, written_at) "
            "SELECT billing_day, account_id, 'legacy', payload, payload_sha256, written_at FROM migration.outbox"
        )
    assert dual_write.deliver(database, {"legacy": away, "new": other}, most=3) == 3
    assert len(other.held) == 3
