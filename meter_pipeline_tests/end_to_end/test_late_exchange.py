"""A meter exchange that is recorded after its week was billed: the days are validated anew and the difference becomes
one adjustment."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.importing import import_rows
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline_tests.end_to_end.utility import SmallUtility, days

MONDAY = date(2026, 7, 6)
END = MONDAY + timedelta(days=7)
AMI = HeadEnd(
    "AMI",
    "delimited",
    interval_minutes=60,
    unit="kWh",
    columns={"meter_id": "meter", "time": "at", "value": "kwh", "sequence": "n"},
    constants={"channel": "E1"},
)


def _file(path: Path, meter: str, begin: datetime, end: datetime, kwh: str) -> Path:
    hours = int((end - begin).total_seconds()) // 3600
    lines = [f"{meter},{begin + timedelta(hours=n):%Y-%m-%dT%H:%M:%SZ},{kwh},{n + 1}" for n in range(hours)]
    path.write_text("\n".join(["meter,at,kwh,n", *lines]) + "\n")
    return path


def _row(table: str, **values: object) -> tuple[object, ...]:
    return tuple(values.get(column) for column in TABLES[table].columns)


@pytest.mark.slow
def test_a_week_billed_from_estimates_is_adjusted_by_what_the_new_meter_read(
    database: Database, tmp_path: Path
) -> None:
    utility = SmallUtility.make(database, tmp_path, "America/Chicago")
    week = days(MONDAY, 7)
    begin, end = (
        utility.calendar.bounds(MONDAY)[0].astimezone(UTC),
        utility.calendar.bounds(week[-1])[1].astimezone(UTC),
    )
    swap = begin + timedelta(days=2, hours=12)
    old = _file(tmp_path / "old.csv", "M-OLD", begin, swap, "1.000")
    utility.enrol(old, AMI, "electricity")
    import_rows(database, {"billing_cycles": [("WEEK", MONDAY, END)]}, {}, "cycle")
    agreement = {
        "account_id": "AC-M-OLD",
        "service_point_id": "SP-M-OLD",
        "tariff_id": "FLAT-ELECTRICITY",
        "cycle_id": "WEEK",
        "valid_from": MONDAY,
    }
    import_rows(database, {"agreements": [_row("agreements", **agreement)]}, {}, "agreement")
    utility.land(old, AMI)
    for day in week:
        utility.run(day)
    issue_statements(database, utility.calendar, "WEEK", END, clock=SYSTEM_CLOCK)
    assert utility.read("SELECT sum(estimated) AS n, sum(quantity_micro)::bigint AS used FROM vee.daily_usage").row(
        0
    ) == (108, 168_000_000)
    assert Decimal(utility.read("SELECT total::text AS t FROM billing.statement")["t"][0]) == Decimal("42.00")

    # weeks later the work order is typed in: since Wednesday noon another meter stood there, and it read twice as much
    installed = [
        _row("installations", service_point_id="SP-M-OLD", meter_id="M-OLD", installed_at=begin, removed_at=swap),
        _row("installations", service_point_id="SP-M-OLD", meter_id="M-NEW", installed_at=swap),
    ]
    channel = _row(
        "channels",
        meter_id="M-NEW",
        channel="E1",
        kind="interval",
        unit="kWh",
        interval_minutes=60,
        flow="import",
        multiplier=Decimal(1),
        billed=True,
    )
    meter = _row("meters", meter_id="M-NEW", commodity="electricity", head_end="AMI")
    import_rows(database, {"meters": [meter], "channels": [channel], "installations": installed}, {}, "exchange")
    late = utility.land(_file(tmp_path / "new.csv", "M-NEW", swap, end, "2.000"), AMI)
    touched = sorted(late.days)
    assert touched == week[2:]
    for day in touched:
        utility.run(day)

    usage = utility.read(
        "SELECT quantity_micro, estimated, meters, exchange FROM vee.daily_usage ORDER BY billing_day"
    ).rows()
    assert usage == [(24_000_000, 0, 1, False)] * 2 + [(36_000_000, 0, 2, True)] + [(48_000_000, 0, 1, False)] * 4
    kept = utility.read(
        "SELECT billing_day, meter_id, estimated, reason FROM vee.interval_day_version ORDER BY billing_day"
    ).rows()
    assert kept == [(week[2], "M-OLD", 12, "inputs")] + [(day, "M-OLD", 24, "withdrawn") for day in week[3:]]
    net = utility.read("SELECT sum(net)::text AS net FROM billing.adjustment")["net"][0]
    assert Decimal(net) == Decimal("27.00"), "108 hours of one kWh more at 0.25"
    before = utility.read("SELECT count(*) AS n FROM billing.adjustment")["n"][0]
    for day in touched:
        utility.run(day)
    assert utility.read("SELECT count(*) AS n FROM billing.adjustment")["n"][0] == before, (
        "the same days again adjust nothing"
    )
    assert utility.read("SELECT count(*) AS n FROM vee.interval_day_version")["n"][0] == 5
