"""A utility with something for everybody at the desk: a bill and a correction of it, a held exception, dead letters;
and the desk itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb
from starlette.testclient import TestClient

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import request
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.app import build
from meter_pipeline.desk.web import Desk
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings
from meter_pipeline_tests.billing.support import CHICAGO, CLOCK, JULY, put_intervals
from meter_pipeline_tests.billing.test_corrections import STATEMENT, issued
from meter_pipeline_tests.end_to_end.utility import SmallUtility

HELD, LEAK = "spike-SP-001-20260702", "flow-SP-001-20260701"
ORIGIN = {"origin": "http://testserver"}
HEAD_END = """name = "NORTH"
format = "delimited"
commodity = "electricity"
interval_minutes = 60
unit = "kWh"
[columns]
meter_id = "meter_id"
channel = "channel"
sequence = "sequence"
time = "at"
value = "kwh"
"""
#: A good line, one whose value is no number, and one that is nobody's meter.
FILE = """meter_id,channel,at,kwh,sequence
N-1,E1,2026-07-01T05:00:00Z,1.250,1
N-1,E1,2026-07-01T06:00:00Z,<script>alert(1)</script>,2
N-9,E1,2026-07-01T05:00:00Z,1.000,1
"""


@dataclass(slots=True)
class Office:
    """The desk over a database, and tokens for whoever needs one."""

    utility: SmallUtility
    desk: Desk
    adjustment: str

    def client(self, person: str | None = None, **more: Any) -> TestClient:
        """A browser of a kind; logged in as ``person``."""
        client = TestClient(build(self.desk), follow_redirects=True, **more)
        if person is not None:
            assert (
                client.post("/login", data={"token": self.desk.access.issue(person)}, headers=ORIGIN).status_code == 200
            )
        return client

    def letters(self) -> dict[str, str]:
        """Key of a dead letter by its first reason's code."""
        frame = self.utility.read(
            "SELECT encode(dead_letter_key, 'hex') AS key, reasons -> 0 ->> 'code' AS code FROM raw.dead_letter"
        )
        return dict(zip(frame["code"].to_list(), frame["key"].to_list(), strict=True))


def furnish(database: Database, folder: Path) -> str:
    """Fill an office's database and folder; returns the adjustment that waits."""
    point = issued(database)
    put_intervals(database, JULY, {point: [500_000] * 24})
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    # Billing the day proposes the adjustment of the statement it changed; where it did not, somebody asks for it.
    request(
        database,
        CHICAGO,
        STATEMENT,
        reason="late_actual",
        evidence="1 July came late",
        requested_by="analyst",
        clock=CLOCK,
    )
    (adjustment,) = database.read("SELECT adjustment_id::text AS a FROM billing.adjustment WHERE status = 'requested'")[
        "a"
    ].to_list()
    add_case(database, HELD, "spike", "spike", day=date(2026, 7, 2), hold=True)
    add_case(database, LEAK, "flow", "leak", day=date(2026, 7, 1))
    utility = SmallUtility.make(database, folder, "America/Chicago")
    (utility.settings.head_ends / "north.toml").write_text(HEAD_END)
    north = read_head_ends(utility.settings.head_ends)["NORTH"]
    inbox = utility.settings.inbox / "NORTH"
    inbox.mkdir()
    first = inbox / "enrol.csv"
    first.write_text("".join(FILE.splitlines(keepends=True)[:2]))
    utility.enrol(first, north, "electricity")
    path = inbox / "day.csv"
    path.write_text(FILE)
    utility.land(path, north)
    return str(adjustment)


def open_office(database: Database, folder: Path, adjustment: str) -> Office:
    """The desk over a furnished database and folder."""
    data = folder / "data"
    settings = Settings(folder / "home", data, data / "inbox", database.url)
    utility = SmallUtility(database, settings, CHICAGO)
    return Office(utility, Desk(database, settings, Access(folder / "access")), adjustment)


def add_case(
    database: Database, case_id: str, family: str, kind: str, *, day: date, hold: bool = False, point: str = "SP-001"
) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO anomaly.exception_case (first_day, last_day, days, opened_at, confidence, hold, case_id, family, kind, subject, service_point_id, "
            "commodity, severity, state) VALUES (%(d)s, %(d)s, 1, %(at)s, 0.9, %(hold)s, %(id)s, %(family)s, %(kind)s, %(sp)s, %(sp)s, 'electricity', 'warn', 'open')",
            {
                "d": day,
                "at": datetime(2026, 7, 3, tzinfo=UTC),
                "hold": hold,
                "id": case_id,
                "family": family,
                "kind": kind,
                "sp": point,
            },
        )
        connection.execute(
            "INSERT INTO anomaly.flag (expected, observed, confidence, billing_day, kind, service_point_id, group_id, commodity, unit, severity, evidence, case_id) "
            "VALUES (20, 24, 0.9, %s, %s, %s, '', 'electricity', 'kWh', 'warn', %s, %s)",
            (day, kind, point, Jsonb({"robust_sigma": 1.5, "note": "<b>not bold</b>"}), case_id),
        )


def csrf_token(client: TestClient, page: str) -> str:
    """The CSRF token that a page's forms carry."""
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', client.get(page).text)
    assert found, page
    return found[1]


def post(client: TestClient, page: str, action: str, **fields: Any) -> Any:
    """Fill in a form of a page and send it as a browser would."""
    return client.post(action, data={"csrf_token": csrf_token(client, page), **fields}, headers=ORIGIN)


def days_of(first: date, count: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(count)]
