"""What one bill hands on reaches the next, whatever the order in which they are issued, and whatever tariff or billing
cycle the service is moved to."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import propose_late_changes
from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.postgres.database import Database
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

#: Three periods of four days
STARTS = tuple(JULY + timedelta(days=4 * k) for k in range(4))
USE = {"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": "0.10"}
BASIC = {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "10.00"}


def plain(tariff_id: str, *charges: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A tariff without time of use."""
    document = native(tariff_id, charges=list(charges), **more)
    del document["time_of_use"]
    return document


def net(tariff_id: str, **sell: Any) -> dict[str, Any]:
    rules = {"rate": "0", "trueup_month": 4} | sell
    return plain(tariff_id, BASIC, USE, metering="net_metering", sell=rules)


def ratchet(tariff_id: str = "E-RAT") -> dict[str, Any]:
    demand = {
        "kind": "demand",
        "code": "DEM",
        "name": "Demand",
        "rate": "10.00",
        "ratchet": {"percent": 80, "months": 11},
    }
    return plain(tariff_id, USE, demand)


def sunny(day: date) -> bool:
    return day < STARTS[1]


def run(database: Database, *which: date) -> None:
    for day in which:
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)


def use(database: Database, point: str, *, exports: bool = False, peak: bool = False) -> None:
    """24 kWh a day for twelve days; exports of 48 kWh a day, or a peak of 100 kW, in the first period."""
    for day in days(STARTS[0], 12):
        hours = [1000] * 24
        if peak and day == STARTS[0] + timedelta(days=1):
            hours[12] = 100_000
        put_intervals(database, day, {point: hours})
        if exports:
            put_intervals(database, day, {point: [2000 if sunny(day) else 0] * 24}, flow="export")


def totals(database: Database) -> dict[str, Decimal]:
    found = database.read(
        "SELECT s.account_id || ' ' || s.period_start AS bill, (s.total + coalesce((SELECT sum(net) FROM billing.adjustment AS a "
        "WHERE a.statement_id = s.statement_id AND a.status = 'posted'), 0))::text AS total FROM billing.statement AS s ORDER BY 1"
    )
    return {bill: Decimal(total).normalize() for bill, total in found.iter_rows()}


def owed(account: str, *amounts: str) -> dict[str, Decimal]:
    return {f"{account} {start}": Decimal(a).normalize() for start, a in zip(STARTS, amounts, strict=False)}


def issue(database: Database, end: date, cycle: str = "C1") -> dict[str, int]:
    return issue_statements(database, CHICAGO, cycle, end, clock=CLOCK).exceptions


def test_a_bill_waits_for_the_one_before_it_and_follows_it_by_itself(database: Database) -> None:
    add_tariff(database, net("E-NEM"))
    add_cycle(database, *STARTS)
    use(database, add_service(database, 1, "E-NEM"), exports=True)
    run(database, *days(STARTS[0], 3), *days(STARTS[1], 4))
    assert issue(database, STARTS[1]) == {"days_missing": 1}
    assert issue(database, STARTS[2]) == {"earlier_statement": 1}
    assert totals(database) == {}
    run(database, STARTS[0] + timedelta(days=3))
    assert issue(database, STARTS[1]) == {}
    run(database, *days(STARTS[2], 4))
    assert issue(database, STARTS[3]) == {}
    # 96 kWh of credit cover the second period; the third is charged
    assert totals(database) == owed("A-001", "10", "10", "19.6")
    left = database.read("SELECT count(*) AS n FROM billing.statement_exception WHERE reason <> 'estimate_streak'")
    assert left["n"][0] == 0


def test_a_later_period_tries_the_earlier_one_first(database: Database) -> None:
    add_tariff(database, net("E-NEM"))
    add_cycle(database, *STARTS)
    use(database, add_service(database, 1, "E-NEM"), exports=True)
    run(database, *days(STARTS[0], 3), *days(STARTS[1], 4))
    issue(database, STARTS[1])
    run(database, STARTS[0] + timedelta(days=3))
    assert issue(database, STARTS[2]) == {}
    assert totals(database) == owed("A-001", "10", "10")


def test_what_waited_is_issued_by_the_next_run_of_any_day(database: Database) -> None:
    add_tariff(database, net("E-NEM"))
    add_cycle(database, *STARTS)
    use(database, add_service(database, 1, "E-NEM"))
    run(database, *days(STARTS[0], 3))
    issue(database, STARTS[1])
    run(database, STARTS[0] + timedelta(days=3))
    assert [done.issued for done in issue_waiting(database, CHICAGO, STARTS[1], clock=CLOCK)] == [1]
    assert issue_waiting(database, CHICAGO, STARTS[1], clock=CLOCK) == []


def test_a_ratchet_survives_a_change_of_cycle(database: Database) -> None:
    add_tariff(database, ratchet())
    add_cycle(database, *STARTS)
    add_cycle(database, *STARTS, cycle_id="C2")
    point = add_service(database, 1, "E-RAT", last=STARTS[1])
    add_service(database, 1, "E-RAT", first=STARTS[1], cycle="C2")
    use(database, point, peak=True)
    run(database, *days(STARTS[0], 12))
    issue(database, STARTS[1])
    assert issue(database, STARTS[2], "C2") == issue(database, STARTS[3], "C2") == {}
    assert totals(database) == owed("A-001", "1019.5", "809.6", "809.6")
    kinds = database.read("SELECT DISTINCT kind FROM billing.statement")["kind"].to_list()
    assert kinds == ["regular"], "another cycle is neither a first nor a final bill"


def test_credit_survives_a_change_of_tariff_at_a_period_s_edge_and_within_it(database: Database) -> None:
    for tariff_id in ("E-NEM", "E-NEM2"):
        add_tariff(database, net(tariff_id, yearend_rate="0.03"))
    add_cycle(database, *STARTS)
    for number, moved in ((1, STARTS[1]), (2, STARTS[1] + timedelta(days=2))):
        point = add_service(database, number, "E-NEM", last=moved)
        add_service(database, number, "E-NEM2", first=moved)
        use(database, point, exports=True)
    run(database, *days(STARTS[0], 12))
    for end in STARTS[1:]:
        assert issue(database, end) == {}
    assert totals(database) == owed("A-001", "10", "10", "19.6") | owed("A-002", "10", "10", "19.6")


def test_credit_is_paid_out_when_the_service_leaves_net_metering(database: Database) -> None:
    add_tariff(database, net("E-NEM", yearend_rate="0.03"))
    add_tariff(database, plain("E-FLAT", BASIC, USE))
    add_cycle(database, *STARTS)
    point = add_service(database, 1, "E-NEM", last=STARTS[1])
    add_service(database, 1, "E-FLAT", first=STARTS[1])
    use(database, point, exports=True)
    run(database, *days(STARTS[0], 12))
    for end in STARTS[1:]:
        issue(database, end)
    # 96 kWh at 0.03
    assert totals(database) == owed("A-001", "7.12", "19.6", "19.6")


def test_a_corrected_credit_corrects_the_bills_after_it(database: Database) -> None:
    add_tariff(database, net("E-NEM"))
    add_cycle(database, *STARTS)
    point = add_service(database, 1, "E-NEM")
    use(database, point, exports=True)
    run(database, *days(STARTS[0], 12))
    for end in STARTS[1:]:
        issue(database, end)
    # one day's exports were not 48 kWh but none: 48 kWh less credit, 4.80 more in the second period
    put_intervals(database, STARTS[0], {point: [0] * 24}, flow="export")
    run(database, STARTS[0])
    assert totals(database) == owed("A-001", "10", "14.8", "19.6")
    assert propose_late_changes(database, CHICAGO, clock=CLOCK) == []
    carried = database.read("SELECT carry_out FROM billing.effective_segment ORDER BY segment_start")[
        "carry_out"
    ].to_list()
    assert carried == [[48_000_000], [0], [0]]


def test_an_account_that_came_while_its_period_waited_is_issued_with_the_others(database: Database) -> None:
    """The second period is tried first and waits for the first one. The bills that followed left out who came
    meanwhile: the account had neither a bill nor a reason for none."""
    middle, end = JULY + timedelta(days=2), JULY + timedelta(days=4)
    add_tariff(database, native())
    add_cycle(database, JULY, middle, end)
    points = [add_service(database, 1)]

    def bill() -> None:
        for day in days(JULY, 4):
            here = points if day >= middle else points[:1]
            put_intervals(database, day, dict.fromkeys(here, [1000] * 24))
            bill_billing_day(database, CHICAGO, day, clock=CLOCK)

    bill()
    assert issue_statements(database, CHICAGO, "C1", end, clock=CLOCK).issued == 0
    points.append(add_service(database, 2, first=middle))
    bill()
    issue_statements(database, CHICAGO, "C1", middle, clock=CLOCK)
    found = database.read("SELECT account_id, period_start FROM billing.statement ORDER BY 1, 2").rows()
    assert found == [("A-001", JULY), ("A-001", middle), ("A-002", middle)]
