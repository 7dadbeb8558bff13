"""A run that ends after a day was validated again and before it was billed again: no bill goes out without the day, and
the day is asked for. The same where it ends between loading reads and validating them (test_late_actual.py has reads
from a file)."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np

from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.tables.part_of_day import unbilled_validations
from meter_pipeline.postgres.database import Database
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.end_to_end.town import Town, flat, interval
from meter_pipeline_tests.vee.city import CALENDAR

FIRST = date(2026, 6, 1)
PAST = FIRST + timedelta(days=3)


def test_a_bill_waits_for_a_day_that_was_validated_and_not_billed_since(database: Database) -> None:
    town = Town(database)
    town.tariff(flat("E", "electricity", "kWh", "0.10"))
    town.cycle(FIRST, PAST)
    town.service("A", "E")
    town.meter("A", "A", interval())
    days = [FIRST + timedelta(days=k) for k in range(3)]
    for day in days:
        town.city.intervals(day, {"A": np.full(24, 1_000_000)}, minutes=60)
    town.run(*days)
    assert unbilled_validations(database) == []
    town.city.intervals(FIRST, {"A": np.full(24, 2_000_000)}, minutes=60)
    validate_billing_day(database, CALENDAR, FIRST, clock=town.clock(PAST))
    assert [day for day, _ in unbilled_validations(database)] == [FIRST]
    assert issue_statements(database, CALENDAR, "C1", PAST, clock=town.clock(PAST)).issued == 0
    assert town.rows("SELECT reason, detail FROM billing.statement_exception") == [
        ("true_up_waiting", "SP-A: 1 days from 2026-06-01 will be billed again")
    ]
    town.run(FIRST)
    assert unbilled_validations(database) == []
    assert issue_statements(database, CALENDAR, "C1", PAST, clock=town.clock(PAST)).issued == 1
    assert town.rows("SELECT total FROM billing.statement") == [(Decimal("9.600000"),)]
