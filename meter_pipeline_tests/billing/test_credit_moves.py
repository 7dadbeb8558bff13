"""Credit for exports when an account moves: it goes to the new service point, is paid out or is forfeited, as the
tariff says; where it could go to several, the last bill waits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import propose_late_changes
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.tables.statements import left_credit
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
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
    raw,
)

#: Three periods of four days; the account leaves on the third day of the first.
STARTS = tuple(JULY + timedelta(days=4 * k) for k in range(4))
LEFT = STARTS[0] + timedelta(days=2)


def tariff(tariff_id: str = "SUN", **sell: Any) -> dict[str, Any]:
    """Energy at 0.10; exports at 0.05 where they become money; the true-up month is far."""
    rules = {"rate": "0.05", "trueup_month": 4} | sell
    document = native(
        tariff_id,
        metering="net_metering",
        sell=rules,
        charges=[{"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": "0.10"}],
    )
    del document["time_of_use"]
    return document


def moves(database: Database, at: int, *documents: Mapping[str, Any], begins: date = LEFT, more: int = 0) -> None:
    """Account A-{at} leaves SP-{at} on the third day, where 48 kWh a day were exported and 24 used, and takes service
    at the next service point (24 kWh a day); ``more``: others that it has all along."""
    for document in documents:
        add_tariff(database, document)
    one, two = documents[0]["tariff_id"], documents[-1]["tariff_id"]
    account = f"A-{at}"
    old = add_service(database, at, one, account=account, last=LEFT)
    new = add_service(database, at + 1, two, account=account, first=begins)
    held = [add_service(database, at + 2 + k, two, account=account) for k in range(more)]
    for day in days(STARTS[0], 12):
        points = [*([old] if day < LEFT else []), *([new] if day >= begins else []), *held]
        put_intervals(database, day, {p: [1000] * 24 for p in points})
        if day < LEFT:
            put_intervals(database, day, {old: [2000] * 24}, flow="export")


def bills(database: Database) -> dict[tuple[str, int], dict[str, str]]:
    """Lines of every statement by service point and period, and what each leaves."""
    for k in range(3):
        for day in days(STARTS[k], 4):
            bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        issue_statements(database, CHICAGO, "C1", STARTS[k + 1], clock=CLOCK)
    return billed(database)


def billed(database: Database) -> dict[tuple[str, int], dict[str, str]]:
    found: dict[tuple[str, int], dict[str, str]] = {}
    rows = database.read(
        "SELECT l.service_point_id, s.period_start, l.line_key, l.amount::text AS amount FROM billing.statement_line AS l "
        "JOIN billing.statement AS s USING (statement_id) ORDER BY 1, 2, 3"
    )
    for point, start, key, amount in rows.iter_rows():
        found.setdefault((point, STARTS.index(start)), {})[key.split("/")[0]] = str(
            Decimal(amount).quantize(Decimal("0.01"))
        )
    return found


def of(found: Mapping[tuple[str, int], dict[str, str]], point: int) -> dict[int, dict[str, str]]:
    """Bills of one service point by period."""
    return {period: lines for (name, period), lines in found.items() if name == f"SP-{point:03}"}


def waits(database: Database) -> list[str]:
    found = database.read(
        "SELECT reason || ' ' || detail AS said FROM billing.statement_exception WHERE reason <> 'estimate_streak' ORDER BY 1"
    )
    return [str(said) for said in found["said"].to_list()]


def test_credit_goes_where_the_tariff_says(database: Database) -> None:
    """Every account leaves 48 kWh; the new place uses 48 kWh in the rest of that period, then 96 in each."""
    add_cycle(database, *STARTS)
    close = {"on_close": "forfeit"}
    moves(database, 10, tariff("UNITS", on_move="move", **close))
    moves(database, 20, tariff("MONEY", rollover="money", on_move="move", on_close="pay"))
    moves(database, 30, tariff("EARLY", on_move="move", **close), begins=LEFT - timedelta(days=1))
    moves(database, 40, tariff("PAY", on_move="pay", yearend_rate="0.03", **close))
    moves(database, 50, tariff("NONE", on_move="forfeit", yearend_rate="0.03"))
    moves(database, 60, tariff("PAYM", on_move="pay", rollover="money", **close))
    moves(
        database,
        70,
        tariff("KWH", on_move="move", on_close="pay", yearend_rate="0.03"),
        tariff("CENTS", rollover="money"),
    )
    moves(database, 80, tariff("ASK", on_move="move", **close), more=1)
    found = bills(database)
    # 48 kWh against 48; then 96 x 0.10
    assert of(found, 10) == {}
    assert of(found, 11) == {1: {"ENERGY": "9.60"}, 2: {"ENERGY": "9.60"}}
    # 48 kWh earn 2.40, against 4.80
    assert of(found, 21)[0] == {"ENERGY": "4.80", "CREDIT-USED": "-2.40"}
    assert of(found, 21)[1] == {"ENERGY": "9.60"}
    # The new place was there a day before the old one ended: 3 x 2.40, and its next bill takes the credit in.
    assert of(found, 31) == {0: {"ENERGY": "7.20"}, 1: {"ENERGY": "4.80"}, 2: {"ENERGY": "9.60"}}
    # 48 x 0.03 paid; nothing; the money paid
    assert of(found, 40) == {0: {"YEAR-END-CREDIT": "-1.44"}}
    assert of(found, 50) == {}
    assert of(found, 60) == {0: {"YEAR-END-CREDIT": "-2.40"}}
    for point in (41, 51, 61):
        assert of(found, point)[0] == {"ENERGY": "4.80"}
    # Units do not become money by themselves: paid as on a final bill
    assert of(found, 70) == {0: {"YEAR-END-CREDIT": "-1.44"}}
    assert of(found, 71)[0] == {"ENERGY": "4.80"}
    # Two places could take it
    assert of(found, 81) == of(found, 82) == {}
    [said] = {said for said in waits(database) if "earlier_statement" not in said}
    assert said == (
        "not_charged credit_move: SP-080 leaves a credit of 48 kWh that could go to SP-081 or SP-082: name one of the "
        "account's as credits_to of SP-080 in service_attributes.csv, or none"
    )
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.service_attributes VALUES ('SP-080', 'credits_to', 'SP-082', '2026-01-01', NULL)"
        )
    for end in STARTS[1:]:
        issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    found = billed(database)
    # SP-082 was there before: its next bill takes the 48 kWh in.
    assert of(found, 81) == {0: {"ENERGY": "4.80"}, 1: {"ENERGY": "9.60"}, 2: {"ENERGY": "9.60"}}
    assert of(found, 82) == {0: {"ENERGY": "9.60"}, 1: {"ENERGY": "4.80"}, 2: {"ENERGY": "9.60"}}
    assert waits(database) == []
    open_checks = database.read("SELECT count(*) AS n FROM billing.reconciliation WHERE cause = 'open'")
    assert open_checks["n"][0] == 0


def test_credit_that_nobody_takes_in_is_listed(database: Database) -> None:
    """Carried on where the account is gone; taken in at the new place; carried on although there is a new place."""
    add_cycle(database, *STARTS)
    add_tariff(database, tariff("GONE", trueup="carry"))
    point = add_service(database, 1, "GONE", account="A-1", last=LEFT)
    moves(database, 10, tariff("UNITS", on_move="move", on_close="forfeit"))
    moves(database, 20, tariff("MONEY", rollover="money", trueup="carry"))
    for day in days(STARTS[0], 2):
        put_intervals(database, day, {point: [1000] * 24})
        put_intervals(database, day, {point: [2000] * 24}, flow="export")
    bills(database)
    assert left_credit(database).select("service_point_id", "left_on", "units", "money", "other_service").rows() == [
        ("SP-001", LEFT, "48.000000", "0.000000", ""),
        ("SP-020", LEFT, "0.000000", "2.400000", "SP-021"),
    ]


def test_a_tariff_that_changes_in_the_last_period_hands_its_credit_on(database: Database) -> None:
    """24 kWh left over on the first day are set against the 24 kWh of the second, on another tariff, before the account
    leaves: nothing is paid out (0.72 at 0.03), nothing charged (2.40)."""
    add_cycle(database, *STARTS)
    for name in ("OLD", "NEW"):
        add_tariff(database, tariff(name, on_close="pay", yearend_rate="0.03"))
    second = STARTS[0] + timedelta(days=1)
    point = add_service(database, 1, "OLD", account="A-1", last=second)
    add_service(database, 1, "NEW", account="A-1", first=second, last=LEFT)
    for day in days(STARTS[0], 4):
        if day < LEFT:
            put_intervals(database, day, {point: [1000] * 24})
        if day < second:
            put_intervals(database, day, {point: [2000] * 24}, flow="export")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issue_statements(database, CHICAGO, "C1", STARTS[1], clock=CLOCK).issued == 1
    assert billed(database) == {}


def test_a_correction_of_the_last_bill_reaches_the_new_service_point(database: Database) -> None:
    """Another billing cycle at the new place, so that its bill is another statement: 24 kWh more exported on the first
    day take 2.40 off it."""
    add_tariff(database, tariff(on_move="move", on_close="forfeit"))
    add_cycle(database, *STARTS)
    add_cycle(database, LEFT, *STARTS[2:], cycle_id="C2")
    add_service(database, 1, "SUN", account="A-1", last=LEFT)
    add_service(database, 2, "SUN", account="A-1", first=LEFT, cycle="C2")
    for day in days(STARTS[0], 8):
        put_intervals(database, day, {("SP-001" if day < LEFT else "SP-002"): [1000] * 24})
        if day < LEFT:
            put_intervals(database, day, {"SP-001": [2000] * 24}, flow="export")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issue_statements(database, CHICAGO, "C2", STARTS[2], clock=CLOCK).exceptions == {"earlier_statement": 1}
    assert issue_statements(database, CHICAGO, "C1", STARTS[1], clock=CLOCK).issued == 1
    # (6 days x 24 kWh - 48 kWh) x 0.10
    totals = database.read("SELECT total::text AS total FROM billing.statement ORDER BY cycle_id")["total"].to_list()
    assert totals == ["0.000000", "9.600000"]
    put_intervals(database, STARTS[0], {"SP-001": [3000] * 24}, flow="export")
    bill_billing_day(database, CHICAGO, STARTS[0], clock=CLOCK)
    propose_late_changes(database, CHICAGO, clock=CLOCK)
    net = database.read("SELECT sum(net)::text AS net FROM billing.adjustment WHERE status = 'posted'")["net"][0]
    assert Decimal(net) == Decimal("-2.40")


@pytest.mark.parametrize(
    ("sell", "field"),
    [
        ({"on_move": "move"}, "sell.on_move"),
        ({"on_close": "pay"}, "sell.on_close"),
        ({"on_move": "pay", "rollover": "none"}, "sell.on_move"),
        ({"on_close": "carry"}, "sell.on_close"),
    ],
)
def test_a_policy_that_leaves_something_open_is_refused(sell: dict[str, str], field: str) -> None:
    with pytest.raises(TariffRefusedError) as refused:
        parse_tariff(raw(tariff(**sell)))
    assert refused.value.field == field
