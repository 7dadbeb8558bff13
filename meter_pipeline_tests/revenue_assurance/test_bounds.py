"""A cause explains no more than the amount it comes to: what a late change moved, what a correction makes of a bill. A
difference that is larger by a cent, or by a millionth of a unit, is open, in the law and in reconciliation."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide
from meter_pipeline.billing.bill_run import issue_statements, statement_checks
from meter_pipeline.postgres.database import Database
from meter_pipeline.revenue_assurance.law import law_of_days
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
    put_intervals,
)

END = JULY + timedelta(days=3)
SECOND = JULY + timedelta(days=1)
#: Harm to a day of the bill: a cent on its charge, and a millionth of a kWh of its usage
CENT = (
    f"UPDATE billing.charge_day SET total = total + 10000, amounts[1] = amounts[1] + 10000 WHERE billing_day = '{JULY}'"
)
MILLIONTH = f"UPDATE billing.determinant_day SET energy[1] = energy[1] + 1 WHERE billing_day = '{JULY}'"


def town(database: Database, sealed: bool = False) -> str:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    for day in days(JULY, 3):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    if sealed:
        with database.connect() as connection:
            connection.execute(
                "INSERT INTO billing.period (month, status, requested_by, requested_at, checklist, approved_by, sealed_at, control_totals, "
                "totals_sha256) VALUES (%s, 'sealed', 'ana', %s, '[]', 'ben', %s, '{}', %s)",
                (JULY, CLOCK.now(), CLOCK.now(), bytes(32)),
            )
    return point


def change(database: Database, point: str, value: int) -> None:
    put_intervals(database, SECOND, {point: [value] * 24})
    bill_billing_day(database, CHICAGO, SECOND, clock=CLOCK)


def note_only(database: Database, point: str, value: int) -> None:
    """The day moves, and its correction cannot be worked out yet: another day of the bill will be validated again."""
    with database.connect() as connection:
        true_up.ask(connection, [true_up.Request(JULY, JULY, bytes(32), 1)], CLOCK.now())
    change(database, point, value)


def said(database: Database) -> tuple[bool, set[str]]:
    """Whether the law holds, and the causes of the bill's lines against its days."""
    with database.connect() as connection:
        checks = statement_checks(connection, "C1", JULY, END)
    causes = {c for check, c in checks.select("joint", "cause").iter_rows() if check == "lines_to_statement"}
    return law_of_days(database, JULY, END).ok, causes - {"period_end", "late_actual_in_sealed_period"}


def harmed(database: Database, *harm: str) -> tuple[bool, set[str]]:
    with database.connect() as connection:
        for statement in harm:
            assert connection.execute(statement.encode()).rowcount == 1
    return said(database)


def one_adjustment(database: Database) -> tuple[str, str]:
    [row] = database.read("SELECT adjustment_id, status FROM billing.adjustment").rows()
    return row[0], row[1]


@pytest.mark.parametrize("harm", [CENT, MILLIONTH])
def test_a_late_change_explains_what_it_moved(database: Database, harm: str) -> None:
    point = town(database)
    note_only(database, point, 3000)
    assert said(database) == (True, {"adjusted"})
    ok, causes = harmed(database, harm)
    assert not ok
    assert causes == ({"open"} if harm == CENT else {"adjusted"}), "reconciliation of bills counts money"


def test_what_late_changes_move_adds_up(database: Database) -> None:
    point = town(database)
    note_only(database, point, 3000)
    change(database, point, 2500)
    assert said(database) == (True, {"adjusted"})
    [(usage, money)] = database.read("SELECT energy_moved, charge_moved FROM billing.late_change").rows()
    assert usage == 24 * 1_500_000
    assert money > 0
    change(database, point, 1000)
    assert said(database) == (True, {"none"})
    assert database.read("SELECT energy_moved, charge_moved FROM billing.late_change").rows() == [(0, 0)]


@pytest.mark.parametrize("harm", [CENT, MILLIONTH])
@pytest.mark.parametrize("decision", [None, True, False])
def test_a_correction_explains_what_it_comes_to(database: Database, decision: bool | None, harm: str) -> None:
    point = town(database)
    change(database, point, 30_000)
    name, status = one_adjustment(database)
    assert status == "requested"
    if decision is not None:
        decide(database, name, approve=decision, person="carol", clock=CLOCK)
    assert said(database) == (True, {"adjustment_refused" if decision is False else "adjusted"})
    ok, causes = harmed(database, harm)
    assert not ok
    assert harm == MILLIONTH or causes == {"open"}


def test_a_change_on_top_of_a_correction_that_waits_is_explained_by_both(database: Database) -> None:
    point = town(database)
    change(database, point, 30_000)
    note_only(database, point, 31_000)
    assert said(database) == (True, {"adjusted"})
    assert harmed(database, CENT) == (False, {"open"})


def test_a_correction_of_a_sealed_day_explains_what_the_day_keeps_and_no_more(database: Database) -> None:
    point = town(database, sealed=True)
    change(database, point, 1100)
    assert one_adjustment(database)[1] == "posted"
    assert said(database)[0]
    with database.connect() as connection:
        connection.execute("ALTER TABLE billing.charge_day DISABLE TRIGGER USER")
        connection.execute("SET session_replication_role = replica")
        connection.execute(CENT.encode())
    assert said(database) == (False, {"open"})


def test_a_correction_of_before_these_figures_were_kept_explains_its_net(database: Database) -> None:
    point = town(database)
    change(database, point, 30_000)
    with database.connect() as connection:
        connection.execute("UPDATE billing.adjustment SET sealed_days_due = NULL, period_end_due = NULL")
    assert said(database) == (True, {"adjusted"})
    more = CENT.replace("10000", "10000000")
    assert harmed(database, more) == (False, {"open"})


def test_the_day_of_a_corrected_move_is_on_somebody_s_bill(database: Database) -> None:
    """The bill of the first two days is out; the third turns out to be the same account's."""
    point = town(database)
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.accounts VALUES ('A-002', 'residential', '2020-01-01', NULL)")
        connection.execute("UPDATE ref.agreements SET valid_to = %s", (JULY + timedelta(days=2),))
        connection.execute(
            "INSERT INTO ref.agreements SELECT 'A-002', service_point_id, tariff_id, cycle_id, valid_to, NULL FROM ref.agreements"
        )
    last = JULY + timedelta(days=2)
    bill_billing_day(database, CHICAGO, last, clock=CLOCK)
    waiting = database.read("SELECT account_id, reason FROM billing.statement_exception").rows()
    assert waiting == [("A-002", "days_missing")], "whose bill of the period was never issued is on the list"
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert law_of_days(database, JULY, END).ok
    assert _paid(database, "A-001") + _paid(database, "A-002") > 0
    with database.connect() as connection:
        connection.execute("DELETE FROM ref.agreements WHERE account_id = 'A-002'")
        connection.execute("UPDATE ref.agreements SET valid_to = NULL")
    bill_billing_day(database, CHICAGO, last, clock=CLOCK)
    assert law_of_days(database, JULY, END).ok
    assert _paid(database, "A-002") == 0, point


def _paid(database: Database, account: str) -> float:
    [(paid,)] = database.read(
        "SELECT (sum(s.total) + coalesce(sum(a.net), 0))::float8 FROM billing.statement AS s LEFT JOIN (SELECT statement_id, sum(net) AS net "
        "FROM billing.adjustment WHERE status = 'posted' GROUP BY 1) AS a USING (statement_id) WHERE account_id = $1",
        [account],
    ).rows()
    return float(paid)


def test_a_day_that_an_issued_bill_leaves_out_is_open(database: Database) -> None:
    town(database)
    day = date(2026, 7, 3)
    with database.connect() as connection:
        connection.execute("UPDATE billing.statement_segment SET segment_end = %s", (day,))
    result = law_of_days(database, day, END)
    assert [f.why for f in result.open] == ["charged to A-001, whose bill of the period is issued without the day"]
