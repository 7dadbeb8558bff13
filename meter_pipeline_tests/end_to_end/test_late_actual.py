"""Late actuals take the place of a head-end's estimates by condition rank; only the days they touch are determined and
billed again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import ingest_billing_day, waiting_days
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.importing import import_rows
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.vee.tables.part_of_day import unvalidated_loads
from meter_pipeline_tests.end_to_end.utility import SmallUtility, days

MONDAY = date(2026, 7, 6)
END = MONDAY + timedelta(days=7)
WEDNESDAY = MONDAY + timedelta(days=2)
AMI = HeadEnd(
    "AMI",
    "delimited",
    interval_minutes=60,
    unit="kWh",
    quality_map={"A": "A", "E": "E52", "S": "S14"},
    constants={"channel": "E1"},
    columns={
        "meter_id": "meter",
        "time": "at",
        "value": "kwh",
        "sequence": "n",
        "quality": "q",
        "source_version": "version",
    },
)


def _file(
    path: Path, begin: datetime, end: datetime, said: dict[date, tuple[str, str]], version: int, zone: SmallUtility
) -> Path:
    """One read an hour; ``said`` gives value and quality of a billing day, one actual kWh otherwise."""
    lines = ["meter,at,kwh,n,q,version"]
    for n in range(int((end - begin).total_seconds()) // 3600):
        at = begin + timedelta(hours=n)
        kwh, flag = said.get(at.astimezone(ZoneInfo(zone.calendar.zone)).date(), ("1.000", "A"))
        lines.append(f"M-1,{at:%Y-%m-%dT%H:%M:%SZ},{kwh},{n + 1},{flag},{version}")
    path.write_text("\n".join(lines) + "\n")
    return path


def _on_a_weekly_cycle(database: Database) -> None:
    import_rows(database, {"billing_cycles": [("WEEK", MONDAY, END)]}, {}, "cycle")
    values = {
        "account_id": "AC-M-1",
        "service_point_id": "SP-M-1",
        "tariff_id": "FLAT-ELECTRICITY",
        "cycle_id": "WEEK",
        "valid_from": MONDAY,
    }
    import_rows(
        database,
        {"agreements": [tuple(values.get(column) for column in TABLES["agreements"].columns)]},
        {},
        "agreement",
    )


def test_a_late_actual_is_billed_for_its_day_and_a_newer_estimate_is_not(database: Database, tmp_path: Path) -> None:
    utility = SmallUtility.make(database, tmp_path, "America/Chicago")
    week = days(MONDAY, 7)
    begin, end = (
        at.astimezone(UTC) for at in (utility.calendar.bounds(MONDAY)[0], utility.calendar.bounds(week[-1])[1])
    )
    first = _file(tmp_path / "week.csv", begin, end, {WEDNESDAY: ("3.000", "E")}, 5, utility)
    utility.enrol(first, AMI, "electricity")
    _on_a_weekly_cycle(database)
    utility.land(first, AMI)
    for day in week:
        utility.run(day)
    issue_statements(database, utility.calendar, "WEEK", END, clock=SYSTEM_CLOCK)
    assert Decimal(utility.read("SELECT total::text AS t FROM billing.statement")["t"][0]) == Decimal("54.00"), (
        "6 x 24 + 72 kWh at 0.25"
    )
    untouched = "SELECT * FROM vee.interval_day WHERE billing_day <> '2026-07-08' ORDER BY billing_day"
    before = utility.read(untouched).rows()

    # the read itself comes at last, under an older version than the estimate that stood in for it
    wednesday, thursday = (at.astimezone(UTC) for at in utility.calendar.bounds(WEDNESDAY))
    late = utility.land(_file(tmp_path / "late.csv", wednesday, thursday, {WEDNESDAY: ("2.000", "A")}, 1, utility), AMI)
    assert late.days == [WEDNESDAY]
    reports = utility.run(WEDNESDAY)
    assert all(check.passed for check in reports["raw_reads"].checks)
    used = utility.read(
        "SELECT quantity_micro, raw.quality_flag(quality) AS flag FROM vee.daily_usage ORDER BY billing_day"
    ).rows()
    assert used == [(24_000_000, "A")] * 2 + [(48_000_000, "A")] + [(24_000_000, "A")] * 4
    assert utility.read("SELECT billing_day, meter_id, reason FROM vee.interval_day_version").rows() == [
        (WEDNESDAY, "M-1", "inputs")
    ]
    assert utility.read(untouched).rows() == before, "no other day was determined again"
    assert Decimal(utility.read("SELECT sum(net)::text AS n FROM billing.adjustment")["n"][0]) == Decimal("-6.00"), (
        "24 kWh that were never used"
    )

    # a newer estimate, and a newer substitute, change nothing that is billed
    for version, (value, flag) in enumerate((("9.000", "E"), ("8.000", "S")), 6):
        utility.land(
            _file(tmp_path / f"v{version}.csv", wednesday, thursday, {WEDNESDAY: (value, flag)}, version, utility), AMI
        )
        utility.run(WEDNESDAY)
    assert (
        utility.read("SELECT quantity_micro FROM vee.daily_usage WHERE billing_day = '2026-07-08'").item() == 48_000_000
    )
    assert utility.read("SELECT count(*) AS n, sum(net)::text AS net FROM billing.adjustment").row(0)[0] == 1
    assert (
        utility.read("SELECT count(*) AS n FROM raw.interval_payload WHERE billing_day = '2026-07-08'").item() == 4
    ), "what lost is kept"
    assert utility.read(untouched).rows() == before


def test_a_run_that_ends_after_loading_a_late_file_leaves_a_day_that_is_asked_for(
    database: Database, tmp_path: Path
) -> None:
    """The file waits no more and its reads are in no bill: the bill would be 48 kWh short."""
    utility = SmallUtility.make(database, tmp_path, "America/Chicago")
    week = days(MONDAY, 7)
    begin, end = (
        at.astimezone(UTC) for at in (utility.calendar.bounds(MONDAY)[0], utility.calendar.bounds(week[-1])[1])
    )
    first = _file(tmp_path / "week.csv", begin, end, {}, 1, utility)
    utility.enrol(first, AMI, "electricity")
    _on_a_weekly_cycle(database)
    utility.land(first, AMI)
    for day in week:
        utility.run(day)
    assert unvalidated_loads(database) == []
    wednesday, thursday = (at.astimezone(UTC) for at in utility.calendar.bounds(WEDNESDAY))
    utility.land(_file(tmp_path / "late.csv", wednesday, thursday, {WEDNESDAY: ("3.000", "A")}, 2, utility), AMI)
    assert [day for day, _ in waiting_days(database)] == [WEDNESDAY]
    ingest_billing_day(
        database, utility.calendar, WEDNESDAY, settings=utility.settings, clock=SYSTEM_CLOCK, run_id="killed"
    )
    assert waiting_days(database) == []
    assert [day for day, _ in unvalidated_loads(database)] == [WEDNESDAY]
    assert issue_statements(database, utility.calendar, "WEEK", END, clock=SYSTEM_CLOCK).issued == 0
    assert utility.read("SELECT reason, detail FROM billing.statement_exception").rows() == [
        ("true_up_waiting", "SP-M-1: 1 days from 2026-07-08 will be validated again")
    ]
    utility.run(WEDNESDAY)
    assert unvalidated_loads(database) == []
    assert issue_statements(database, utility.calendar, "WEEK", END, clock=SYSTEM_CLOCK).issued == 1
    total = utility.read("SELECT total::text AS t FROM billing.statement")["t"][0]
    assert Decimal(total) == Decimal("54.00"), "6 x 24 + 72 kWh at 0.25"
