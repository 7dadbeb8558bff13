"""No entry, no write: for each kind of record the change and its entry are one transaction, and where the ledger takes
no entry nothing changes.

Each step of a scenario is tried once for every kind of entry it writes, with the ledger refusing that kind: it must
fail and leave the tables it is about as they were. Then it is let through, and its entries must be of the transaction
that wrote its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline import deployed_versions
from meter_pipeline.anomalies import queue
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.close import approve_close, request_close
from meter_pipeline.control import flags, pause
from meter_pipeline.control.people import Refused
from meter_pipeline.ingest import dead_letters, land
from meter_pipeline.ingest.tables import dead_letters as letter_store
from meter_pipeline.ledger import checkpoints, entries, privileges
from meter_pipeline.ledger.kinds import KINDS
from meter_pipeline.ledger.versions import Version, note
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline_tests.billing import support as billing
from meter_pipeline_tests.desk.support import add_case
from meter_pipeline_tests.ingest import support as ingest
from meter_pipeline_tests.vee.city import City, Installed, load_curve
from meter_pipeline_tests.vee.test_day import DAY as VEE_DAY
from meter_pipeline_tests.vee.test_day import midnight, validate

pytestmark = pytest.mark.usefixtures("toy_feed")

CHECKED = {"ledger": "verified", "control_totals": "balance", "dead_letters": "none"}
SAVEPOINTS = 8
#: Kinds that a step here, or a test named here, shows.
shown: set[str] = set()
#: Tests of this file that this process ran before the last.
walked: set[str] = set()


@pytest.fixture(autouse=True)
def _walks(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    walked.add(request.node.name)


@dataclass(frozen=True)
class Step:
    """A change, the kinds of entry it writes, and the tables it is about."""

    kinds: tuple[str, ...]
    tables: tuple[str, ...]
    run: Callable[[], Any]


@contextmanager
def refusing(database: Database, kind: str) -> Iterator[None]:
    """The ledger takes no entry of a kind, as if the disk under it were full."""
    with database.connect("dba", autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.refuse_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no entry' USING ERRCODE = '42501'; END $$"
        )
        connection.execute(
            f"CREATE TRIGGER refuse_entry BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN (NEW.kind = '{kind}') EXECUTE FUNCTION refuse_entry()".encode()
        )
    try:
        yield
    finally:
        with database.connect("dba", autocommit=True) as connection:
            connection.execute("DROP FUNCTION public.refuse_entry CASCADE")


def contents(database: Database, tables: tuple[str, ...]) -> dict[str, str]:
    return {
        table: database.read(
            f"SELECT coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '') AS h FROM {table} AS t"
        )["h"][0]
        for table in tables
    }


def walk(database: Database, steps: list[Step]) -> None:
    """Each step refused for each kind it writes, then let through."""
    for step in steps:
        before = contents(database, step.tables)
        for kind in step.kinds:
            with refusing(database, kind), pytest.raises(Exception, match="no entry"):
                step.run()
            assert contents(database, step.tables) == before, f"{kind} was refused, and {step.tables} changed"
        last = database.read("SELECT coalesce(max(entry_id), 0) AS n FROM ledger.entry").item()
        step.run()
        after = contents(database, step.tables)
        assert all(after[table] != before[table] for table in step.tables), step
        rows = database.read("SELECT kind, xid::text AS xid FROM ledger.entry WHERE entry_id > $1", (last,))
        assert set(step.kinds) <= set(rows["kind"]), step
        for table in step.tables:
            written = database.read(
                f"SELECT DISTINCT xmin::text::bigint AS x FROM {table} WHERE age(xmin) < 2000000000"
            )["x"]
            # A row written under a savepoint carries its subtransaction's number, one of the next after the
            # transaction's own.
            assert any(0 <= one - int(xid) <= SAVEPOINTS for one in written for xid in rows["xid"]), (
                f"no row of {table} is of its entry's transaction"
            )
        shown.update(step.kinds)


def test_reads_in_duplicate_superseded_rejected_corrected_and_replayed(database: Database, tmp_path: Path) -> None:
    ingest.enrol(database)

    def landed(name: str, value: int, version: int, junk: tuple[str, ...] = ()) -> Callable[[], Any]:
        path = ingest.write_file(
            tmp_path, name, [ingest.Read("M-0", slot, value, version=version) for slot in range(4)], junk
        )
        return lambda: land(
            database,
            ingest.CALENDAR,
            path,
            ingest.NORTH,
            ingest.places(tmp_path),
            clock=ingest.CLOCK,
        )

    def load() -> None:
        ingest.load_day(database, tmp_path)

    def letter(raw: bytes) -> str:
        with database.connect() as connection:
            return next(one.key.hex() for one in letter_store.find(connection) if one.raw == raw)

    def replay() -> None:
        ends = {"NORTH": ingest.NORTH}
        dead_letters.replay(
            database,
            ingest.CALENDAR,
            ingest.places(tmp_path),
            ends,
            letter(b"oops"),
            by="clerk",
            clock=ingest.CLOCK,
        )

    file = ("raw.feed_file", "raw.feed_file_day")
    right = ingest.Read("M-1", 5, 2000).line().encode()
    walk(
        database,
        [
            Step(("received", "rejected"), (*file, "raw.dead_letter"), landed("a", 1000, 2, ("oops", "noise"))),
            Step(("ingested",), ("raw.interval_day", "raw.load_batch"), load),
            Step(("duplicate",), ("raw.feed_file_arrival",), landed("b", 1000, 2, ("oops", "noise"))),
            Step(
                ("corrected",),
                ("raw.dead_letter", "ledger.personal"),
                lambda: dead_letters.correct(database, letter(b"oops"), right, by="clerk", reason="cut short"),
            ),
            Step(("replayed",), ("raw.dead_letter",), replay),
            Step(
                ("dismissed",),
                ("raw.dead_letter",),
                lambda: dead_letters.dismiss(database, letter(b"noise"), by="clerk", reason="noise"),
            ),
            Step(
                ("erased",),
                ("raw.dead_letter",),
                lambda: dead_letters.erase(database, letter(b"noise"), by="privacy-1", reason="request 12"),
            ),
        ],
    )
    load()
    landed("older", 900, 1)()
    walk(database, [Step(("superseded",), ("raw.load_batch", "raw.interval_payload"), load)])
    landed("same again", 1000, 3)()
    load()
    assert database.read("SELECT count(*) AS n FROM ledger.entry WHERE kind = 'file_loaded'").item() >= 1
    shown.add("file_loaded")


def test_a_validated_day_and_its_estimates(database: Database) -> None:
    city = City(database)
    city.reference(Installed("M-1", "SP-1"))
    holed = load_curve(VEE_DAY)
    holed[40:44] = NO_VALUE
    city.intervals(VEE_DAY, {"M-1": holed})
    city.register(
        "M-1",
        (midnight(VEE_DAY), 5_000_000_000),
        (midnight(VEE_DAY + timedelta(days=1)), 5_000_000_000 + int(load_curve(VEE_DAY).sum())),
    )
    walk(database, [Step(("validated", "estimated"), ("vee.interval_day", "vee.daily_usage"), lambda: validate(city))])


def test_bills_adjustments_and_the_seal_of_a_period(database: Database) -> None:
    end = billing.JULY + timedelta(days=3)
    billing.add_tariff(database, billing.native())
    billing.add_cycle(database, billing.JULY, end)
    point = billing.add_service(database, 1)

    def bill(day: date) -> Any:
        return bill_billing_day(database, billing.CHICAGO, day, clock=billing.CLOCK, actor="analyst")

    def decided(adjustment_id: str, *, approve: bool) -> None:
        decide(database, adjustment_id, approve=approve, person="supervisor", clock=billing.CLOCK)

    for day in billing.days(billing.JULY, 3):
        billing.put_intervals(database, day, {point: [1000] * 24})
    walk(
        database,
        [
            Step(
                ("tariff_version", "billed", "reconciled"),
                ("billing.charge_day", "billing.determinant_day", "billing.tariff_version"),
                lambda: bill(billing.JULY),
            ),
        ],
    )
    for day in billing.days(billing.JULY, 3)[1:]:
        bill(day)
    walk(
        database,
        [
            Step(
                ("bill_issued",),
                ("billing.statement", "billing.statement_line"),
                lambda: issue_statements(database, billing.CHICAGO, "C1", end, clock=billing.CLOCK),
            ),
        ],
    )
    billing.put_intervals(database, billing.JULY, {point: [500_000] * 24})
    # the charge is written first, and the adjustment it asks for in a transaction of its own
    with refusing(database, "adjustment_requested"), pytest.raises(Exception, match="no entry"):
        bill(billing.JULY)
    walk(
        database,
        [
            Step(
                ("adjustment_requested",), ("billing.adjustment", "billing.adjustment_line"), lambda: bill(billing.JULY)
            )
        ],
    )
    name = database.read("SELECT adjustment_id FROM billing.adjustment").item()
    approve = Step(
        ("adjustment_approved", "adjustment_posted"), ("billing.adjustment",), lambda: decided(name, approve=True)
    )
    walk(database, [approve])
    billing.put_intervals(database, billing.JULY, {point: [900_000] * 24})
    bill(billing.JULY)
    waiting = database.read("SELECT adjustment_id FROM billing.adjustment WHERE status = 'requested'").item()
    walk(database, [Step(("adjustment_refused",), ("billing.adjustment",), lambda: decided(waiting, approve=False))])
    with database.connect() as connection:  # the rest of the month has nothing to bill: take its days from the last
        connection.execute(
            "INSERT INTO billing.charge_day SELECT d::date, service_point_id, account_id, tariff_id, tariff_version, cycle_id, period_start, stretch_start, days,"
            " energy_to_date, export_to_date, peaks_to_date, peak_at_to_date, register_days, budget_to_date, carry, history,"
            " array_fill(0::bigint, ARRAY[cardinality(amounts)]), 0"
            " FROM billing.charge_day, generate_series('2026-07-04'::date, '2026-07-31', interval '1 day') AS d WHERE billing_day = '2026-07-03'"
        )
    month = date(2026, 7, 1)
    request_close(database, month, person="accountant", clock=billing.CLOCK)
    walk(
        database,
        [
            Step(
                ("period_sealed",),
                ("billing.period",),
                lambda: approve_close(database, month, person="controller", clock=billing.CLOCK),
            )
        ],
    )


def test_pause_resume_flags_and_decisions_on_cases(database: Database) -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(pause.request_resume(database, reason="fixed", by="ann", checklist=CHECKED).request_id)

    def alone() -> None:
        with pytest.raises(Refused):
            pause.confirm_resume(database, asked[-1], by="ann")

    def decide_case() -> None:
        with database.connect() as connection:
            queue.decide(connection, {"case_id": "C-1"}, "dismissed", by="ann", reason="ice maker")

    flag = flags.Flag("stage", "off")
    add_case(database, "C-1", "leak", "leak", day=date(2026, 7, 1))
    walk(
        database,
        [
            Step(
                ("pause_set",),
                ("control.emergency_pause",),
                lambda: pause.raise_pause(database, reason="odd", by="ann"),
            ),
            Step(("pause_requested_resume",), ("control.dual_request",), ask),
            Step(("pause_refused",), ("control.refusal",), alone),
            Step(
                ("pause_cleared",),
                ("control.emergency_pause",),
                lambda: pause.confirm_resume(database, asked[-1], by="bob"),
            ),
            Step(
                ("flag_flipped",),
                ("control.flag_change",),
                lambda: flags.change(database, flag, "on", by="ann", reason="begin"),
            ),
            Step(("flag_decided",), ("anomaly.exception_case",), decide_case),
        ],
    )


def test_versions_of_the_program_its_rules_and_head_ends_once_each(database: Database, tmp_path: Path) -> None:
    seen = [
        deployed_versions.code(),
        Version("rule_version", "validation", {"sha256": "ab"}),
        Version("head_end_version", "north", {"sha256": "cd"}),
    ]
    walk(
        database,
        [
            Step(
                ("code_version", "rule_version", "head_end_version"),
                ("control.observation",),
                lambda: note(database, seen),
            )
        ],
    )
    assert note(database, seen) == []
    assert note(database, [*seen[:2], Version("head_end_version", "north", {"sha256": "ef"})]) == ["north"]
    body = deployed_versions.code().body
    assert len(str(body["lock_sha256"])) == 64
    assert body["version"]


def test_key_rotation_and_guards(database: Database, tmp_path: Path) -> None:
    with database.connect("test") as connection:
        entries.append(connection, "reconciled", {})
    first = checkpoints.checkpoint(database, home=tmp_path)
    with refusing(database, "key_rotation"), pytest.raises(Exception, match="no entry"):
        checkpoints.rotate_key(database, home=tmp_path, requested_by="operator-1")
    assert checkpoints.checkpoint(database, home=tmp_path).vkey == first.vkey, "no entry, and the old key goes on"
    assert checkpoints.rotate_key(database, home=tmp_path, requested_by="operator-1").vkey != first.vkey
    with refusing(database, "verified"), pytest.raises(Exception, match="no entry"):
        privileges.scheduled_check(database, roles=False)
    privileges.scheduled_check(database, roles=False)
    kinds = set(database.read("SELECT DISTINCT kind FROM ledger.entry")["kind"])
    assert kinds == {"reconciled", "privileges_checked", "key_rotation", "verified"}
    shown.update(kinds)


def test_every_kind_the_audit_names_was_shown() -> None:
    """Last in this file, of which it sums up the others: the kinds without a step here have their tests in
    their rooms.
    """
    if len(walked) < 6:
        pytest.skip("sums up the whole file, of which this process ran a part")
    elsewhere = {
        "reference_imported",
        "baselines_fitted",
        "flagged",
        "comparison",
        "migration_stage",
        "cutover_signed",
        "traffic_shifted",
    }
    assert shown | elsewhere == set(KINDS)
