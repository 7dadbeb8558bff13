"""A migration of ten days from shadow to complete, time injected: every planted difference classified right,
unexplained ones reset the clock, the gate opens when it should and not a second before, and at the end neither side
lacks a bill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from psycopg import sql

from benchmarks.migration import FIRST, fill_city, fill_day
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.control.people import Refused
from meter_pipeline.migration import cutover, dual_write, shadow, tables
from meter_pipeline.migration.comparison import Rules
from meter_pipeline.migration.day import LEGACY_UNIT, Mode, compare_billing_day, gate
from meter_pipeline.migration.defects import record
from meter_pipeline.migration.gate import COVERAGE, GateReport, Requirements
from meter_pipeline.migration.guard import guard
from meter_pipeline.migration.legacy_import import import_results
from meter_pipeline.migration.page import write_page
from meter_pipeline.migration.results import new_results
from meter_pipeline.migration.sides import LegacyFolder, OurCopy
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.support import FixedClock

ACCOUNTS = 120
REPLAYED = 31
CALENDAR = BillingCalendar("America/Chicago")
#: Everything as in production, but for a city of 120: three days of it cannot bound errors at one in ten thousand, and
# one account in a hundred is rare.
NEEDS = Requirements(largest_rate=1e-2, coverage=COVERAGE)
RULES = Rules(tolerance={"determinant": 20_000}, legacy_unit=LEGACY_UNIT)
Plant = Callable[[pl.DataFrame], pl.DataFrame]
Key = tuple[str, str, str]


def account(n: int) -> str:
    return f"A-{n:07d}"


def change(n: int, amount: int, *, level: str = "line", suffix: str = "ENERGY", **columns: Any) -> Plant:
    """Change a figure of an account and, where it is a line, the total with it; other columns of both as given."""

    def plant(frame: pl.DataFrame) -> pl.DataFrame:
        one = (pl.col("account_id") == account(n)) & (pl.col("level") == level) & pl.col("code").str.ends_with(suffix)
        if level == "line":
            one |= (pl.col("account_id") == account(n)) & (pl.col("level") == "total")
        return frame.with_columns(
            value=pl.when(one).then(pl.col("value") + amount).otherwise("value"),
            **{
                name: pl.when(one).then(pl.lit(value)).otherwise(pl.col(name)).cast(frame.schema[name])
                for name, value in columns.items()
            },
        )

    return plant


def drop(n: int, level: str) -> Plant:
    return lambda frame: frame.filter(~((pl.col("account_id") == account(n)) & (pl.col("level") == level)))


def more(n: int, **columns: Any) -> Plant:
    """The account's total once more, changed as given."""

    def plant(frame: pl.DataFrame) -> pl.DataFrame:
        again = frame.filter((pl.col("account_id") == account(n)) & (pl.col("level") == "total"))
        changed = again.with_columns(**{k: pl.lit(v) for k, v in columns.items()})
        return pl.concat([frame, changed.select(pl.col(name).cast(kind) for name, kind in frame.schema.items())])

    return plant


@dataclass
class Move:
    """The utility on its way: both databases, the clock, and what was told of each day."""

    database: Database
    folder: Path
    clock: FixedClock
    reports: list[GateReport] = field(default_factory=list)

    def fill(self, number: int, where: Database) -> date:
        return fill_day(where, ACCOUNTS, number, 1500 if FIRST + timedelta(days=number) == date(2026, 11, 1) else 1440)

    def legacy(self, day: date, ours: Database, *plants: Plant) -> None:
        frame = new_results(ours, day)
        for plant in plants:
            frame = plant(frame)
        import_results(self.database, day, frame, finished_at=self.clock.now(), source="night", clock=self.clock)

    def compare(self, day: date, mode: Mode = "live") -> dict[Key, str]:
        """The classes of everything that differs."""
        outcome = compare_billing_day(self.database, day, mode=mode, rules=RULES, clock=self.clock)
        assert (
            outcome.comparison.pairs.height == outcome.comparison.pairs.unique(["account_id", "level", "code"]).height
        )
        rows = (
            outcome.comparison.pairs.filter(pl.col("class") != "match")
            .select("account_id", "level", "code", "class")
            .iter_rows()
        )
        return {(a, level, code.split(":")[-1]): name for a, level, code, name in rows}

    def weigh(self, seconds: float = 0.0) -> GateReport:
        return gate(
            self.database, now=self.clock.now() + timedelta(seconds=seconds), requirements=NEEDS, clock=self.clock
        )

    def sign(self, stage: str, points: int, routes: list[str] | None = None) -> None:
        value = {"stage": stage, "routes": routes or [], "basis_points": points}
        report = self.weigh()
        assert report.green, [c for c in report.conditions if not c.met]
        asked = cutover.request_step(self.database, value, report.sha256, by="ops", reason="next", clock=self.clock)
        cutover.confirm_step(
            self.database, asked.request_id, report.sha256, by="controller", reason="looked", clock=self.clock
        )


def both(n: int, name: str) -> dict[Key, str]:
    return {(account(n), "line", "ENERGY" if n % 2 == 0 else "WATER"): name, (account(n), "total", "total"): name}


def code(n: int) -> str:
    return "ENERGY" if n % 2 == 0 else "WATER"


def plants_of_every_explained_class() -> tuple[list[Plant], dict[Key, str]]:
    plants = [
        change(10, 10_000),
        change(12, 300_000, estimated=True),
        change(14, 500_000, tariff_version=2),
        more(16),
        drop(18, "total"),
        change(20, 250_000, suffix="FIXED"),
        change(22, 15_000, level="determinant", suffix="demand:max"),
    ]
    expected = (
        both(10, "rounding")
        | both(12, "estimate_vs_actual")
        | both(14, "tariff_version")
        | {
            (account(16), "total", "total"): "duplicate_legacy",
            (account(18), "total", "total"): "missing_legacy",
            (account(20), "line", "FIXED"): "known_legacy_defect",
            (account(20), "total", "total"): "known_legacy_defect",
            (account(22), "determinant", "max"): "within_tolerance",
        }
    )
    return plants, expected


@pytest.fixture
def move(database: Database, server: Database, tmp_path: Path) -> Iterator[Move]:
    """Thirty-one days replayed in the shadow, the defect on record, the stage shadow."""
    clock = FixedClock(datetime(2026, 11, 5, 12, tzinfo=UTC))
    shadow.prepare(database)
    own = database.sibling(database.name + shadow.SUFFIX)
    for one in (database, own):
        fill_city(one, ACCOUNTS)
    cutover.step(
        database, {"stage": "shadow", "routes": [], "basis_points": 0}, by="ops", reason="parallel run", clock=clock
    )
    made = Move(database, tmp_path, clock)
    expires = clock.now() + timedelta(days=60)
    record(
        database,
        "LEG-FIXED",
        levels=["line"],
        codes=["SP-0000020:FIXED"],
        most=250_000,
        by="ops",
        approver="controller",
        reason="old price",
        expires=expires,
        clock=clock,
    )
    for number in range(REPLAYED):
        day = made.fill(number, own)
        made.legacy(day, shadow.database_of(database))
        assert made.compare(day, "replay") == {}
    yield made
    with server.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(own.name)))


@pytest.mark.timeout(600)
def test_ten_days_from_shadow_to_complete(move: Move) -> None:
    database, clock = move.database, move.clock
    ours, own = shadow.database_of(database), database.sibling(database.name + shadow.SUFFIX)
    explained, classes = plants_of_every_explained_class()
    blocking: list[tuple[list[Plant], dict[Key, str]]] = [
        ([change(2, 1_000_000)], both(2, "unexplained")),
        ([more(3, code="surcharge")], {(account(3), "total", "surcharge"): "missing_new"}),
        ([more(4, account_id="OLD-4")], {("OLD-4", "total", "total"): "key_mismatch"}),
    ]
    # Days 1 to 3, shadow: each has something that blocks, and the clock never starts.
    for number, (plants, expected) in enumerate(blocking):
        clock.at = datetime(2026, 11, 6, 12, tzinfo=UTC) + timedelta(days=number)
        day = move.fill(REPLAYED + number, own)
        move.legacy(day, ours, *plants)
        assert move.compare(day) == expected
        report = move.weigh()
        assert (report.green, report.clock_started) == (False, None)
        assert report.reset_by == f"{len(expected)} blocking differences on {day}"
    # Day 4: the first clean one starts the clock; legacy still has authority when both sides are written.
    clock.advance(86_400)
    day = move.fill(REPLAYED + 3, own)
    move.legacy(day, ours, change(6, 10_000))
    assert move.compare(day) == both(6, "rounding")
    started = clock.now()
    assert move.weigh().clock_started == started
    cutover.step(
        database,
        {"stage": "dual_write", "routes": [], "basis_points": 0},
        by="ops",
        reason="three days seen",
        clock=clock,
    )
    legacy = LegacyFolder(move.folder / "to_legacy")
    sides: dict[str, Callable[[Sequence[dual_write.Record]], None]] = {
        "legacy": legacy,
        "new": OurCopy(database, clock),
    }
    published: list[date] = []

    def live(number: int, plants: list[Plant], expected: dict[Key, str]) -> None:
        """A day of dual write and after: billed by the pipeline's own tables, compared, published, delivered; no
        trigger is pulled."""
        clock.at = datetime(2026, 11, 6, 12, tzinfo=UTC) + timedelta(days=number)
        day = move.fill(REPLAYED + number, database)
        if number == 5:
            waiting = move.compare(day)
            assert set(waiting.values()) == {"timing"}, "legacy has not run: late, not lost, and no evidence either"
            assert move.weigh().clock_started == started
        move.legacy(day, database, *plants)
        assert move.compare(day) == expected
        assert move.weigh().clock_started == started, "what is explained resets nothing"
        done = dual_write.publish_billing_day(database, day, clock=clock)
        assert (done.lost, done.waiting) == (0, 1 if number == 4 else 0), (
            "a bill of which legacy lost the total waits for it"
        )
        dual_write.deliver_all(database, sides, clock=clock)
        assert guard(database, CALENDAR, clock=clock) is None
        published.append(day)

    # Day 5: every class that explains itself; day 6: legacy is late.
    live(4, explained, classes)
    live(5, [], {})
    # Day 7: 72 hours, and not a second less.
    clock.at = datetime(2026, 11, 12, 12, tzinfo=UTC)
    early = move.weigh(-1)
    assert [c.name for c in early.conditions if not c.met] == ["live_hours"]
    live(6, [], {})
    report = move.weigh()
    assert report.green
    assert report.error_bound == pytest.approx(3 / report.compared)
    with pytest.raises(Refused) as refused:
        cutover.step(
            database, {"stage": "live", "routes": ["R-1"], "basis_points": 0}, by="ops", reason="alone", clock=clock
        )
    assert refused.value.code == "needs_two"
    move.sign("live", 0, ["R-1"])
    live(7, [], {})
    move.sign("live", 1_000, ["R-1"])
    live(8, [], {})
    move.sign("live", 5_000, ["R-1"])
    move.sign("live", 10_000, ["R-1"])
    live(9, [], {})
    move.sign("ramp_down", 10_000)
    page = write_page(database, move.weigh(), cutover.peek(database).value, move.folder)
    assert "The gate is <span class=met>green</span>" in page.read_text("utf-8")
    move.sign("complete", 10_000)
    with pytest.raises(Refused):
        cutover.step(
            database, {"stage": "dual_write", "routes": [], "basis_points": 0}, by="ops", reason="back", clock=clock
        )
    # Day 11: the new side alone; legacy gets nothing more.
    after = move.fill(REPLAYED + 10, database)
    assert dual_write.publish_billing_day(database, after, clock=clock).sides == {"new": ACCOUNTS}
    _nothing_is_lost(database, legacy, published)


def _nothing_is_lost(database: Database, folder: LegacyFolder, published: list[date]) -> None:
    """One authority a bill; the other side's copy of every bill delivered; authority moved by route, then by share, and
    never back."""
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM migration.outbox WHERE delivered_at IS NULL") == 0
        assert tables.undelivered(connection) == []
        rows = connection.execute(
            "SELECT a.billing_day, a.account_id, a.authority, a.payload_sha256, b.payload_sha256 FROM migration.authority a "
            "LEFT JOIN migration.customer_bill b USING (billing_day, account_id) WHERE a.stage <> 'complete'"
        ).fetchall()
        signed = scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind = 'cutover_signed'")
    held = folder.figures()
    for day, name, side, seal, copy in rows:
        if side == "legacy":
            assert copy == seal, "what legacy billed is kept here"
        else:
            assert held[str(day), name], "what we billed is with legacy"
    by_day = {day: sum(r[2] == "new" for r in rows if r[0] == day) for day in published}
    shares = [by_day[day] for day in published]
    assert shares[:3] == [0, 0, 0]
    assert shares[3] == ACCOUNTS // 10, "one route of ten"
    assert shares[3] < shares[4] < ACCOUNTS
    assert shares[5] == ACCOUNTS
    assert signed == 6


def test_a_change_of_tariff_or_of_what_is_ignored_resets_the_clock(database: Database, tmp_path: Path) -> None:
    """The gate's evidence is of one configuration: another tariff document, another known defect, and it begins anew;
    so does a pause."""
    from meter_pipeline.control import pause

    clock = FixedClock(datetime(2026, 10, 6, 12, tzinfo=UTC))
    fill_city(database, ACCOUNTS)
    move = Move(database, tmp_path, clock)

    def day(number: int) -> GateReport:
        made = move.fill(number, database)
        move.legacy(made, database)
        assert move.compare(made) == {}
        report = move.weigh()
        clock.advance(86_400)
        return report

    first = day(0)
    assert day(1).clock_started == first.at
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.tariff_document VALUES ('W-STD', 2, '{}', sha256('two'))")
    third = day(2)
    assert third.clock_started == third.at
    assert "configuration changed" in str(third.reset_by)
    assert day(3).clock_started == third.at
    pause.raise_pause(database, reason="stop", by="ops", clock=clock)
    clock.advance(60)
    report = move.weigh()
    assert report.clock_started is None
    assert "emergency pause" in str(report.reset_by)
