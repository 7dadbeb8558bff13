"""Identifiers as utilities have them promise: dots, slashes, underscores and blanks inside, unchanged from the files to
the bill, the outputs and the desk's addresses."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.print_run import print_period
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.web import Desk, path_part
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.ids import canonical_id
from meter_pipeline.outbound import records
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline_tests.desk.support import HEAD_END, Office
from meter_pipeline_tests.end_to_end.utility import SmallUtility

DAY = date(2026, 7, 1)
POINT, METER, ACCOUNT = "12/4.07 RIVER ST_APT 3", "SENSUS_A.0017/B", "04-1123.07/2 " + "X" * 49 + ".9"
STATEMENT = f"{ACCOUNT}.MONTHLY.20260701.0"


@pytest.fixture
def city(database: Database, tmp_path: Path) -> SmallUtility:
    """One service, its reference tables and a day of its reads as files."""
    utility = SmallUtility.make(database, tmp_path, "America/Chicago")
    rows = {
        "service_points": f"service_point_id,commodity,premise_id,route,customer_class,latitude,longitude,station_id,status,valid_from,valid_to\n"
        f"{POINT},electricity,{POINT},R1,residential,,,,active,2020-01-01,\n",
        "meters": f"meter_id,commodity,head_end,model,collector_id\n{METER},electricity,NORTH,,\n",
        "channels": "meter_id,channel,kind,unit,interval_minutes,flow,multiplier,dials,decimals,sums_to,billed\n"
        f"{METER},E1,interval,kWh,60,import,1,,,,true\n",
        "installations": "service_point_id,meter_id,installed_at,removed_at,install_read,removal_read\n"
        f"{POINT},{METER},2020-01-01T06:00:00Z,,,\n",
        "accounts": f"account_id,customer_class,opened,closed\n{ACCOUNT},residential,2020-01-01,\n",
        "billing_cycles": "cycle_id,period_start,period_end\nMONTHLY,2026-07-01,2026-07-02\n",
        "agreements": "account_id,service_point_id,tariff_id,cycle_id,valid_from,valid_to\n"
        f"{ACCOUNT},{POINT},FLAT-ELECTRICITY,MONTHLY,2020-01-01,\n",
    }
    folder = utility.settings.data / "reference"
    for name, text in rows.items():
        (folder / f"{name}.csv").write_text(text)
    import_folder(database, folder)
    (utility.settings.head_ends / "north.toml").write_text(HEAD_END)
    north = read_head_ends(utility.settings.head_ends)["NORTH"]
    path = utility.settings.inbox / "day.csv"
    start = utility.calendar.bounds(DAY)[0]
    lines = [f"{METER},E1,{start + timedelta(hours=k):%Y-%m-%dT%H:%M:%SZ},2.000,1" for k in range(24)]
    path.write_text("meter_id,channel,at,kwh,sequence\n" + "\n".join(lines) + "\n")
    utility.land(path, north)
    utility.run(DAY)
    issue_statements(database, utility.calendar, "MONTHLY", date(2026, 7, 2))
    return utility


def test_from_files_to_the_bill_the_outputs_and_the_desk(city: SmallUtility, tmp_path: Path) -> None:
    database = city.database
    assert len(ACCOUNT) == 64
    assert database.rows("SELECT statement_id, total::text AS total FROM billing.statement") == [
        {"statement_id": STATEMENT, "total": "12.000000"}
    ]
    print_period(database, city.settings, "MONTHLY", date(2026, 7, 2), tmp_path / "print")
    assert (tmp_path / "print" / "bills.pdf").read_bytes()[:5] == b"%PDF-"
    (bill,) = [json.loads(line) for line in (tmp_path / "print" / "bills.jsonl").read_text().splitlines()]
    assert (bill["account_id"], bill["services"][0]["service_point_id"]) == (ACCOUNT, POINT)
    (row,) = csv.DictReader((tmp_path / "print" / "index.csv").open())
    assert (row["statement_id"], row["account_id"]) == (STATEMENT, ACCOUNT)
    (line,) = records.statements(database, "MONTHLY", date(2026, 7, 2))
    assert (line["account_id"], line["service_point_id"], line["line_id"]) == (ACCOUNT, POINT, f"{STATEMENT}.1")
    (read,) = records.reads(database, [(METER, DAY)], "America/Chicago")
    assert (read["meter_id"], read["service_point_id"], read["account_id"]) == (METER, POINT, ACCOUNT)
    desk = Desk(database, city.settings, Access(tmp_path / "access"))
    client = Office(city, desk, "").client("ana")
    for page in (
        f"/bills/{path_part(STATEMENT)}",
        f"/bills/{path_part(STATEMENT)}/1",
        f"/usage/{path_part(POINT)}/{DAY}",
    ):
        shown = client.get(page)
        assert shown.status_code == 200, page
        assert POINT in shown.text
    desk.close()


@pytest.mark.parametrize("text", [" A", "A ", ".A", "A/", "A,B", "A\x1fB", "Ａ", "", "A" * 65])
def test_what_is_no_identifier(text: str) -> None:
    assert canonical_id(text) is None
