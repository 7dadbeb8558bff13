"""What a case does to a bill, and what a decision does to the next day: a held statement waits and the others go out,
kinds without the policy hold nothing, a decision lets the bill go and moves the meter's thresholds."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from meter_pipeline.anomalies import KINDS, decide, detect_billing_day, refit_baselines
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.anomalies.streets import CALENDAR, StillClock, Streets, day, temperatures, write
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

STILL = StillClock()
END = JULY + timedelta(days=3)


def test_only_the_held_account_s_statement_waits_and_a_decision_lets_it_go(database: Database) -> None:
    """One meter runs backward (holds), one collector's reads stop (holds nothing): of three accounts two are billed,
    then the third."""
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    points = [add_service(database, n) for n in range(3)]
    for at in days(JULY, 3):
        last = at == END - timedelta(days=1)
        put_intervals(database, at, {p: [-50 if last and n == 0 else 100 + n] * 24 for n, p in enumerate(points)})
        bill_billing_day(database, CHICAGO, at, clock=CLOCK)
        detect_billing_day(database, CHICAGO, at, clock=CLOCK)
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO anomaly.exception_case SELECT first_day, last_day, days, opened_at, decided_at, confidence, %s, 'stuck-x', 'stuck', 'stuck', "
            "%s, %s, commodity, 'warn', state FROM anomaly.exception_case WHERE kind = 'reverse'",
            (KINDS["stuck"].hold, points[1], points[1]),
        )
    held = issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert (held.issued, held.exceptions) == (2, {"held": 1})
    assert database.read("SELECT count(*) AS n FROM billing.charge_day")["n"][0] == 9, "no day's charge waits"
    with database.connect() as connection:
        assert (
            decide(connection, {"kind": "reverse"}, "confirmed", by="ann", reason="turned round", clock=CLOCK).released
            == 1
        )
    after = issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert (after.issued, after.already, after.exceptions) == (1, 2, {})


def test_a_dismissal_widens_the_meter_s_own_thresholds_from_the_next_day(database: Database) -> None:
    rng = np.random.default_rng(3)
    t = temperatures(101)
    usage = np.round(10 + 0.5 * np.maximum(60 - t, 0) + rng.normal(0, 0.5, (20, 101)), 3)
    usage[4, 99] *= 9
    usage[[4, 5], 100] = 10 + 0.5 * max(60 - t[100], 0) + np.array([1.42, 1.7])  # 3.4 and 3.3 sigma of their own
    streets = Streets("electricity", "kWh", usage)
    write(database, streets, t)
    refit_baselines(database, CALENDAR, clock=STILL, as_of=day(99))
    detect_billing_day(database, CALENDAR, day(99), clock=STILL)
    high = {"SP-E004", "SP-E005"}

    def told() -> set[str]:
        flags = detect_billing_day(database, CALENDAR, day(100), clock=STILL).flags
        return high & set(flags.filter(flags["kind"] == "high")["service_point_id"])

    assert told() == high
    with database.connect() as connection:
        decide(
            connection,
            {"kind": "spike", "service_point_id": "SP-E004"},
            "dismissed",
            by="ann",
            reason="pool filled",
            clock=STILL,
        )
    assert told() == {"SP-E005"}
