"""Reads that come after the bill: one read makes one adjustment, sealed days reach the bill that is still open, and
what only waits for a decision does not count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide, propose_late_changes, request
from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.billing.close import checklist
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.vee.tables import true_up
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
    put_intervals,
)

WATER = native(
    "W-STD",
    commodity="water",
    unit="m3",
    charges=[
        {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "30.00"},
        {"kind": "usage", "code": "WATER", "name": "Water", "rate": "2.00"},
    ],
)
del WATER["time_of_use"]
FIRST, END = JULY, JULY + timedelta(days=8)
NOW = datetime(2026, 8, 1, tzinfo=UTC)


def metered(database: Database, *starts: date) -> str:
    add_tariff(database, WATER)
    add_cycle(database, *(starts or (FIRST, END)))
    return add_service(database, 1, "W-STD", commodity="water")


def bill(database: Database, point: str, which: Sequence[date], cubic_metres: str) -> list[str]:
    """Bill days with so much water each; the adjustments that were made."""
    made = []
    for day in which:
        put_daily(database, day, {point: int(Decimal(cubic_metres) * 10**6)}, "m3", "water")
        made += bill_billing_day(database, CHICAGO, day, clock=CLOCK).adjustments
    return made


def ask(database: Database, point: str, which: Sequence[date]) -> None:
    """Have days validated again, as the read that closes them does."""
    asked = [true_up.Request(day, which[-1], bytes(31) + bytes([k]), 1, (point,)) for k, day in enumerate(which)]
    with database.connect() as connection:
        true_up.ask(connection, asked, NOW)


def validated(database: Database, day: date) -> None:
    with database.connect() as connection:
        true_up.done(connection, day, true_up.pending(connection, day), NOW)


def issue(database: Database, end: date = END) -> dict[str, int]:
    return issue_statements(database, CHICAGO, "C1", end, clock=CLOCK).exceptions


def adjustments(database: Database) -> list[tuple[str, str]]:
    found = database.read(
        "SELECT status, net::text AS net FROM billing.adjustment ORDER BY requested_at, adjustment_id"
    )
    return [(status, f"{Decimal(net):.0f}") for status, net in found.iter_rows()]


def owed(database: Database) -> Decimal:
    """What the statements say in the books."""
    with database.connect() as connection:
        posted = "(SELECT coalesce(sum(net), 0) FROM billing.adjustment WHERE status = 'posted')"
        return Decimal(scalar(connection, f"SELECT sum(total) + {posted} FROM billing.statement")).normalize()


def test_one_read_over_an_issued_month_is_one_adjustment_judged_as_one(database: Database) -> None:
    point = metered(database)
    bill(database, point, days(FIRST, 8), "1")
    assert issue(database) == {}
    ask(database, point, days(FIRST, 8))
    made = []
    for day in days(FIRST, 8):
        validated(database, day)
        made += bill(database, point, [day], "10")
    assert len(made) == 1
    assert adjustments(database) == [("requested", "144")], "8 x 9 x 2.00, above the threshold: a person decides"
    assert owed(database) == 46


def test_days_that_are_validated_together_and_billed_one_by_one_make_one_adjustment(database: Database) -> None:
    point = metered(database)
    bill(database, point, days(FIRST, 8), "1")
    issue(database)
    for day in days(FIRST, 8):
        put_daily(database, day, {point: 10 * 10**6}, "m3", "water")
    made = [bill_billing_day(database, CHICAGO, day, clock=CLOCK).adjustments for day in days(FIRST, 8)]
    assert [len(m) for m in made] == [0] * 7 + [1]
    assert adjustments(database) == [("requested", "144")]


def test_a_day_that_is_asked_for_keeps_only_its_own_bill(database: Database) -> None:
    point = metered(database)
    other = add_service(database, 2, "W-STD", commodity="water")
    for p in (point, other):
        bill(database, p, days(FIRST, 8), "1")
    ask(database, point, days(FIRST, 2))
    assert issue(database) == {"true_up_waiting": 1}
    assert database.read("SELECT account_id FROM billing.statement")["account_id"].to_list() == ["A-002"]
    for day in days(FIRST, 2):
        validated(database, day)
        bill(database, point, [day], "10")
    assert [done.issued for done in issue_waiting(database, CHICAGO, END, clock=CLOCK)] == [1]
    assert adjustments(database) == []
    assert owed(database) == 46 + 30 + 2 * 26, "the bill was made from the read, not corrected by it"


def test_a_waiting_adjustment_does_not_count_and_a_newer_read_takes_its_place(database: Database) -> None:
    point = metered(database)
    bill(database, point, days(FIRST, 8), "1")
    issue(database)
    bill(database, point, [FIRST], "31")
    first = f"A-001.C1.{FIRST:%Y%m%d}.0.A1"
    assert adjustments(database) == [("requested", "60")]
    bill(database, point, [FIRST], "30")
    assert adjustments(database) == [("superseded", "60"), ("requested", "58")]
    assert owed(database) == 46, "nothing is posted yet"
    decide(database, first[:-1] + "2", approve=False, person="ben", clock=CLOCK)
    assert owed(database) == 46, "a refusal leaves the books as issued"
    assert propose_late_changes(database, CHICAGO, clock=CLOCK) == []
    assert bill(database, point, [FIRST], "30") == [], "what was refused is not asked for again by itself"
    again = request(
        database, CHICAGO, first[:-3], reason="correction", evidence="read again", requested_by="ana", clock=CLOCK
    )
    assert again is not None
    decide(database, again, approve=True, person="ben", clock=CLOCK)
    assert owed(database) == 104


def test_a_proposal_that_is_right_again_leaves_the_queue(database: Database) -> None:
    point = metered(database)
    bill(database, point, days(FIRST, 8), "1")
    issue(database)
    bill(database, point, [FIRST], "31")
    bill(database, point, [FIRST], "1")
    assert adjustments(database) == [("superseded", "60")]
    assert owed(database) == 46
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ledger.entry WHERE kind = 'adjustment_refused'") == 1


def seal_july(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO billing.period (month, status, requested_by, requested_at, approved_by, sealed_at, totals_sha256) "
            "VALUES ('2026-07-01', 'sealed', 'ana', now(), 'ben', now(), sha256(''))"
        )


def test_reads_for_a_sealed_month_are_on_the_bill_of_the_open_period(database: Database) -> None:
    start, end = date(2026, 7, 29), date(2026, 8, 4)
    point = metered(database, start, end)
    bill(database, point, days(start, 3), "1")
    seal_july(database)
    bill(database, point, days(start, 3), "2.5")
    bill(database, point, days(date(2026, 8, 1), 3), "2.5")
    assert issue(database, end) == {}
    assert owed(database) == 60, "30 + 6 x 2.5 x 2.00"
    checks = database.read(
        "SELECT cause, (actual - expected)::text AS d FROM billing.reconciliation WHERE joint = 'lines_to_statement'"
    )
    assert dict(checks.iter_rows()) == {"none": "0.000000", "late_actual_in_sealed_period": "9.000000"}
    segment = database.read("SELECT energy FROM billing.statement_segment")["energy"].to_list()
    assert segment == [[15_000_000]]
    # the same again after the bill: an adjustment, and taken back
    bill(database, point, [start], "3")
    bill(database, point, [start], "2.5")
    assert adjustments(database) == [("posted", "1"), ("posted", "-1")]


def test_a_correction_of_a_sealed_day_that_is_taken_back_is_undone(database: Database) -> None:
    start, end = date(2026, 7, 28), date(2026, 8, 1)
    point = metered(database, start, end)
    bill(database, point, days(start, 4), "1")
    issue(database, end)
    seal_july(database)
    bill(database, point, [start], "2")
    bill(database, point, [start], "1")
    kept = database.read(
        "SELECT (determinants ->> 'source_quantity')::bigint AS q FROM billing.determinant_revision ORDER BY revision"
    )
    assert kept["q"].to_list() == [2_000_000, 1_000_000]
    assert adjustments(database) == [("posted", "2"), ("posted", "-2")]


def test_a_move_into_sealed_days_is_billed_to_the_new_account(database: Database) -> None:
    start, end = date(2026, 7, 30), date(2026, 8, 3)
    point = metered(database, start, end)
    bill(database, point, days(start, 4)[:2], "1")
    seal_july(database)
    bill(database, point, days(start, 4)[2:], "1")
    with database.connect() as connection:
        connection.execute("UPDATE ref.agreements SET valid_to = %s", (date(2026, 7, 31),))
        connection.execute("INSERT INTO ref.accounts VALUES ('A-NEW', 'residential', '2026-07-31', NULL)")
        connection.execute(
            "INSERT INTO ref.agreements VALUES ('A-NEW', %s, 'W-STD', 'C1', '2026-07-31', NULL)", (point,)
        )
    bill(database, point, days(start, 4)[1:], "1")
    assert issue(database, end) == {}
    found = database.read("SELECT account_id, total::text AS total FROM billing.statement ORDER BY 1")
    assert {a: Decimal(t) for a, t in found.iter_rows()} == {"A-001": Decimal("9.50"), "A-NEW": Decimal("28.50")}


def test_a_service_whose_day_does_not_reconcile_is_not_corrected(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, JULY + timedelta(days=2))
    point = add_service(database, 1)
    for day in days(JULY, 2):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", JULY + timedelta(days=2), clock=CLOCK)
    put_intervals(database, JULY, {point: [2000] * 24})
    with database.connect() as connection:
        connection.execute(
            "UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 1 WHERE billing_day = %s", (JULY,)
        )
    done = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    assert "open" in done.reconciliation["cause"].to_list()
    assert (done.adjustments, adjustments(database)) == ([], [])
    # nor does the clean run of another day post what that day changed
    assert bill_billing_day(database, CHICAGO, JULY + timedelta(days=1), clock=CLOCK).adjustments == []
    [point_of_list] = [p for p in checklist(database, JULY) if "late change" in p["point"]]
    assert not point_of_list["ok"]
    waits = database.read("SELECT DISTINCT waits_for FROM billing.late_change")["waits_for"].to_list()
    assert waits == [f"reconciliation of {JULY} is open: validated_to_determinants of {point}"]
    put_intervals(database, JULY, {point: [2000] * 24})
    assert len(bill_billing_day(database, CHICAGO, JULY, clock=CLOCK).adjustments) == 1


def test_a_statement_is_never_cancelled_because_a_day_cannot_be_priced(database: Database) -> None:
    point = metered(database)
    bill(database, point, days(FIRST, 8), "1")
    issue(database)
    with database.connect() as connection:  # past the guards: a document that is not the one bills were made with
        connection.execute("ALTER TABLE ref.tariff_document DISABLE TRIGGER keep_used_document")
        connection.execute("UPDATE ref.tariff_document SET sha256 = sha256('other')")
    assert bill(database, point, [FIRST, END - timedelta(days=1)], "2") == []
    assert adjustments(database) == []
    assert owed(database) == 46
    [why] = database.read("SELECT DISTINCT waits_for FROM billing.late_change")["waits_for"].to_list()
    assert "cannot be priced" in why
    with database.connect() as connection:
        connection.execute(
            "UPDATE ref.tariff_document AS d SET sha256 = v.document_sha256 FROM billing.tariff_version AS v"
        )
    assert len(bill(database, point, [FIRST, END - timedelta(days=1)], "2")) == 1
    assert owed(database) == 50
