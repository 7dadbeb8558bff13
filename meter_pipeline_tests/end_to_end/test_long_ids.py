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
from meter_pipeline.billing.tables.spellings import spellings
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.web import Desk, path_part
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.ids import canonical_id
from meter_pipeline.outbound import records
from meter_pipeline.outbound.contracts import OUTPUTS
from meter_pipeline.outbound.deliveries import deliver
from meter_pipeline.outbound.templates import plain_template
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline_tests.desk.support import HEAD_END, Office
from meter_pipeline_tests.end_to_end.utility import SmallUtility

DAY = date(2026, 7, 1)
#: As the customer system writes them; the tables that name them write them in another way.
WRITTEN_POINT, WRITTEN_METER, WRITTEN_ACCOUNT = (
    "12/4.07 River St_Apt 3",
    "Sensus_A.0017/b",
    "04-1123.07/2 " + "x" * 49 + ".9",
)
POINT, METER, ACCOUNT = WRITTEN_POINT.upper(), WRITTEN_METER.upper(), WRITTEN_ACCOUNT.upper()
STATEMENT = f"{ACCOUNT}.MONTHLY.20260701.0"


@pytest.fixture
def city(database: Database, tmp_path: Path) -> SmallUtility:
    """One service, its reference tables and a day of its reads as files."""
    utility = SmallUtility.make(database, tmp_path, "America/Chicago")
    rows = {
        "service_points": f"service_point_id,commodity,premise_id,route,customer_class,latitude,longitude,station_id,status,valid_from,valid_to\n"
        f"{WRITTEN_POINT},electricity,{WRITTEN_POINT},R1,residential,,,,active,2020-01-01,\n",
        "meters": f"meter_id,commodity,head_end,model,collector_id\n{WRITTEN_METER},electricity,NORTH,,\n",
        "channels": "meter_id,channel,kind,unit,interval_minutes,flow,multiplier,dials,decimals,sums_to,billed\n"
        f"{METER},E1,interval,kWh,60,import,1,,,,true\n",
        "installations": "service_point_id,meter_id,installed_at,removed_at,install_read,removal_read\n"
        f"{POINT},{METER},2020-01-01T06:00:00Z,,,\n",
        "accounts": f"account_id,customer_class,opened,closed\n{WRITTEN_ACCOUNT},residential,2020-01-01,\n",
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
    assert (bill["account_id"], bill["services"][0]["service_point_id"]) == (WRITTEN_ACCOUNT, WRITTEN_POINT)
    assert bill["services"][0]["address"] == f"[service address of premise {WRITTEN_POINT}]"
    (row,) = csv.DictReader((tmp_path / "print" / "index.csv").open())
    assert (row["statement_id"], row["account_id"]) == (STATEMENT, WRITTEN_ACCOUNT)
    (line,) = records.statements(database, "MONTHLY", date(2026, 7, 2))
    assert (line["account_id"], line["service_point_id"], line["line_id"]) == (ACCOUNT, POINT, f"{STATEMENT}.1")
    (read,) = records.reads(database, [(METER, DAY)], "America/Chicago")
    assert (read["meter_id"], read["service_point_id"], read["account_id"]) == (METER, POINT, ACCOUNT)
    plain = plain_template(OUTPUTS["reads"])
    sent = deliver(database, plain, "R1", [read], tmp_path / "out", by="ana")
    assert sent.path is not None
    told = json.loads(sent.path.read_text())
    assert [told[f] for f in ("meter_id", "service_point_id", "account_id")] == [
        WRITTEN_METER,
        WRITTEN_POINT,
        WRITTEN_ACCOUNT,
    ]
    assert deliver(database, plain, "R1", [read], tmp_path / "out", by="ana").records == 0, (
        "the same record is sent one time"
    )
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


def test_an_id_that_is_written_otherwise_later(city: SmallUtility) -> None:
    """A customer system that turns its ids to capitals gets capitals back; importing the same again writes nothing."""
    folder = city.settings.data / "reference"
    held = {(r["kind"], r["written"]) for r in city.database.rows("SELECT kind, written FROM ref.id_spellings")}
    assert held == {
        ("account", WRITTEN_ACCOUNT),
        ("meter", WRITTEN_METER),
        ("premise", WRITTEN_POINT),
        ("service_point", WRITTEN_POINT),
    }
    before = city.database.rows("SELECT count(*) AS n FROM ledger.entry")
    import_folder(city.database, folder)
    assert city.database.rows("SELECT count(*) AS n FROM ledger.entry") == before
    (folder / "accounts.csv").write_text(
        f"account_id,customer_class,opened,closed\n{ACCOUNT},residential,2020-01-01,\n"
    )
    import_folder(city.database, folder)
    assert spellings(city.database, [ACCOUNT, POINT, METER]) == {
        ("meter", METER): WRITTEN_METER,
        ("premise", POINT): WRITTEN_POINT,
        ("service_point", POINT): WRITTEN_POINT,
    }


@pytest.mark.parametrize("text", [" A", "A ", ".A", "A/", "A,B", "A\x1fB", "Ａ", "", "A" * 65])
def test_what_is_no_identifier(text: str) -> None:
    assert canonical_id(text) is None
