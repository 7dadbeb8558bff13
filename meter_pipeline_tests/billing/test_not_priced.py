"""What cannot be priced holds its own bill under a name, and nobody else's; what looks as if it could not be, can."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
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
    put_daily,
    put_intervals,
)
from meter_pipeline_tests.billing.test_cut_bills import energy, flat

END = JULY + timedelta(days=3)
DEMAND = {"kind": "demand", "code": "D", "name": "Demand", "rate": "10.00"}


def waiting(database: Database) -> list[tuple[str, str]]:
    found = database.read("SELECT reason, detail FROM billing.statement_exception ORDER BY 1, 2")
    return list(found.iter_rows())


def totals(database: Database) -> dict[str, Decimal]:
    found = database.read("SELECT account_id, total::text FROM billing.statement ORDER BY 1")
    return {account: Decimal(total) for account, total in found.iter_rows()}


@pytest.mark.parametrize("minutes", [10, 60])
def test_a_quarter_hour_demand_is_not_made_of_other_intervals(database: Database, minutes: int) -> None:
    add_tariff(database, flat("E-15", DEMAND, demand_minutes=15))
    add_tariff(database, flat("E-ANY", DEMAND))
    add_cycle(database, JULY, END)
    held, other = add_service(database, 1, "E-15"), add_service(database, 2, "E-ANY")
    for day in days(JULY, 3):
        put_intervals(database, day, {p: [1000] * (1440 // minutes) for p in (held, other)}, minutes=minutes)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {"A-002": Decimal(10 * 60 // minutes)}
    assert waiting(database) == [
        ("not_charged", f"SP-001: demand_interval 15 minutes from {minutes}-minute intervals from 2026-07-01, 3 days")
    ]


def test_the_demand_of_meters_with_other_interval_lengths_is_added_up(database: Database) -> None:
    """Ten kW on an hourly meter and ten on a quarter-hour one, in the same hour: twenty."""
    add_tariff(database, flat("E-ANY", DEMAND))
    add_cycle(database, JULY, JULY + timedelta(days=1))
    point = add_service(database, 1, "E-ANY")
    put_intervals(database, JULY, {point: [1000] * 12 + [10_000] + [1000] * 11})
    with database.connect() as connection:
        # The service point's second meter, whose usage of the day is added to the first's.
        connection.execute("UPDATE vee.interval_day SET meter_id = 'M-OTHER' WHERE service_point_id = %s", (point,))
        connection.execute(
            "CREATE TEMP TABLE kept AS SELECT * FROM vee.interval_day WHERE service_point_id = %s", (point,)
        )
        connection.execute("CREATE TABLE public.kept AS SELECT * FROM kept")
    put_intervals(database, JULY, {point: [250] * 48 + [2500] * 4 + [250] * 44}, minutes=15)
    with database.connect() as connection:
        connection.execute("INSERT INTO vee.interval_day SELECT * FROM public.kept")
        connection.execute("DROP TABLE public.kept")
        connection.execute("UPDATE vee.daily_usage SET quantity_micro = 2 * quantity_micro")
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", JULY + timedelta(days=1), clock=CLOCK)
    assert totals(database) == {"A-001": Decimal("200.00")}


def test_a_day_between_two_versions_holds_the_bill(database: Database) -> None:
    add_tariff(database, flat("E-TOU", energy("0.10")), 1, last=JULY + timedelta(days=1))
    add_tariff(database, flat("E-TOU", energy("0.10")), 2, first=JULY + timedelta(days=2))
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    for day in days(JULY, 3):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {}
    assert waiting(database) == [("not_charged", "SP-001: no_tariff E-TOU from 2026-07-02, 1 days")]


def seasonal(**changes: Any) -> dict[str, Any]:
    """Water at 4.00 in one half of the year and 6.00 in the other."""
    schedule = {
        "periods": ["low", "high"],
        "default": "low",
        "rules": [{"period": "high", "season": "high", "days": "all"}],
    }
    rates = {"kind": "usage", "code": "W", "name": "Water", "rates": {"low": "4.00", "high": "6.00"}}
    seasons = {"high": {"from": "07-01", "to": "12-31"}}
    return native(
        "W-SEA", commodity="water", unit="kgal", seasons=seasons, time_of_use=schedule, charges=[rates], **changes
    )


def test_a_seasonal_water_rate_is_billed_from_daily_dials(database: Database) -> None:
    add_tariff(database, seasonal())
    first, end = date(2026, 6, 1), date(2026, 8, 1)
    add_cycle(database, first, JULY, end)
    point = add_service(database, 1, "W-SEA", commodity="water")
    for day in days(first, 61):
        put_daily(database, day, {point: 100_000_000}, "gal", "water")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    for last in (JULY, end):
        assert issue_statements(database, CHICAGO, "C1", last, clock=CLOCK).issued == 1
    found = database.read("SELECT total::text AS t FROM billing.statement ORDER BY period_start")["t"].to_list()
    assert [Decimal(t) for t in found] == [Decimal("12.00"), Decimal("18.60")], "30 and 31 days of 100 gallons"


def test_a_heat_content_that_begins_too_late_holds_the_bill(database: Database) -> None:
    heat = [{"from": "2026-07-02", "therms_per_ccf": "1.03"}]
    add_tariff(database, flat("G-STD", energy("1.00"), commodity="gas", unit="therm", heat_content=heat))
    add_cycle(database, JULY, END)
    point = add_service(database, 1, "G-STD", commodity="gas")
    for day in days(JULY, 3):
        put_daily(database, day, {point: 100_000_000}, "ft3", "gas")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {}
    why = "SP-001: no_heat_content G-STD: heat content begins on 2026-07-02 from 2026-07-01, 1 days"
    assert waiting(database) == [("not_charged", why)]


def test_a_figure_that_fits_no_amount_sets_one_service_aside(database: Database) -> None:
    """A rate of a thousand million a kWh on an ordinary meter: its amount fits no column, its neighbour's does."""
    add_tariff(database, flat("E-TOU", energy("1000000000")))
    add_cycle(database, JULY, END)
    broken, sound = add_service(database, 1), add_service(database, 2)
    for day in days(JULY, 3):
        put_intervals(database, day, {broken: [10_000_000] * 24, sound: [0] * 23 + [1]})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {"A-002": Decimal(3_000_000)}
    assert {reason for reason, _ in waiting(database)} == {"days_missing", "not_charged"}


@pytest.mark.parametrize(("from_minute", "billed"), [(840, True), (780, False)])
def test_peak_and_off_peak_dials_are_billed_without_intervals(
    database: Database, from_minute: int, billed: bool
) -> None:
    """Ten kWh a day on the peak dial and twenty on the other, 1 to 3 July, Wednesday to Friday, the third a holiday on
    which only the off-peak dial counts. A dial that counts from 13:00 on fits no period of a tariff whose peak begins
    at 14:00."""
    add_tariff(
        database,
        native(charges=[{"kind": "usage", "code": "E", "name": "E", "rates": {"off-peak": "0.12", "peak": "0.48"}}]),
    )
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    hours = [("P1", "workday", from_minute, 1140), ("P2", "restday", 0, 1440)]
    hours += [("P2", "workday", 0, from_minute), ("P2", "workday", 1140, 1440)]
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.meters VALUES ('M-001', 'electricity', 'HE', NULL, NULL)")
        connection.execute("INSERT INTO ref.holidays VALUES ('2026-07-03', 'Independence Day, observed')")
        for channel, kind, begins, ends in hours:
            connection.execute(
                "INSERT INTO ref.register_hours VALUES ('HE', %s, %s, %s, %s)", (channel, kind, begins, ends)
            )
    for k, day in enumerate(days(JULY, 3)):
        used = {"P1": 0 if k == 2 else 10_000_000, "P2": 30_000_000 if k == 2 else 20_000_000}
        put_daily(database, day, {point: 30_000_000}, "kWh", "electricity")
        with database.connect() as connection:
            connection.execute("SELECT raw.open_partition('vee.register_day', %s)", (day,))
            connection.execute("SELECT raw.attach_partition('vee.register_day', %s)", (day,))
            for channel, quantity in used.items():
                connection.execute(
                    "INSERT INTO vee.register_day (quantity_micro, usage_micro, gap_seconds, causes, billing_day, reads, closed, broken, "
                    "service_point_id, meter_id, channel, unit) VALUES (%s, %s, 0, 1, %s, 2, true, false, %s, 'M-001', %s, 'kWh')",
                    (quantity, quantity, day, point, channel),
                )
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    # 20 kWh at 0.48 on the peak dial, 40 + 30 at 0.12 on the other: 9.60 + 8.40.
    assert totals(database) == ({"A-001": Decimal("18.00")} if billed else {})
    assert [reason for reason, _ in waiting(database)] == ([] if billed else ["not_charged"])


def test_a_yearly_fee_of_a_published_rate_is_billed_by_the_month(database: Database) -> None:
    """100 dollars a year once stopped the day for everybody; its neighbour's tariff cannot be read and is set aside."""
    published: dict[str, Any] = {
        "tariff_id": "E-URDB",
        "commodity": "electricity",
        "name": "x",
        "energyratestructure": [[{"rate": 0.1}]],
    }
    document = {k: v for k, v in published.items() if k not in ("tariff_id", "commodity")}
    document |= {"fixedchargefirstmeter": 100, "fixedchargeunits": "$/year"}
    add_tariff(database, published)
    add_tariff(database, {"tariff_id": "E-BAD", "commodity": "electricity", "schema": "meter_pipeline.tariff/1"})
    with database.connect() as connection:
        connection.execute("UPDATE ref.tariff_document SET body = %s WHERE tariff_id = 'E-URDB'", (Jsonb(document),))
    add_cycle(database, JULY, END)
    points = [add_service(database, 1, "E-URDB"), add_service(database, 2, "E-BAD")]
    for day in days(JULY, 3):
        put_intervals(database, day, {point: [1000] * 24 for point in points})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {"A-001": Decimal("15.53")}, "8.33 and 72 kWh at 0.10"
    assert {reason for reason, _ in waiting(database)} == {"days_missing", "not_charged"}
