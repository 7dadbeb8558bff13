"""Every page of the finance desk at 100,000 accounts: milliseconds from request to whole answer, through a real web
server on this machine.

The tables are filled by SQL with rows of the sizes they have: a statement with four lines an account, ``days`` billing
days of determinants, charges, validated and raw intervals, the ledger's entries with a leaf an account, an exception, a
dead letter and an adjustment for every account. Each page is asked for in the middle of its list, ``rounds`` times
after one to warm up; the figure is the median, and the slowest of all beside it.
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from benchmarks.load import scratch
from benchmarks.support import document
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.app import build
from meter_pipeline.desk.web import Desk, place
from meter_pipeline.ledger import entries
from meter_pipeline.ledger.day import checkpoint_billing_day
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings, load_settings

ROWS = Path(__file__).with_suffix(".sql")
FIRST = date(2026, 7, 1)
#: What every page must stay under.
LIMIT_MS = 200


def run(accounts: int = 100_000, days: int = 7, rounds: int = 15) -> dict[str, Any]:
    """Fill a scratch database for ``accounts`` and ask for every page."""
    city, drop = scratch(1)
    try:
        began = time.perf_counter()
        settings = replace(load_settings(), home=city.folder)
        fill(city.database, settings, accounts, days)
        filled = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as folder:
            pages = _measure(city.database, Path(folder), accounts, rounds)
    finally:
        drop()
    median = {name: round(statistics.median(times), 1) for name, times in pages.items()}
    figures = {
        "median_ms": median,
        "slowest_ms": {name: round(max(times), 1) for name, times in pages.items()},
        "worst_page_median_ms": max(median.values()),
        "pages_over_limit": sum(value > LIMIT_MS for value in median.values()),
        "fill_s": round(filled, 1),
    }
    return document("desk", {"accounts": accounts, "days": days, "rounds": rounds, "limit_ms": LIMIT_MS}, figures, {})


def _measure(database: Database, folder: Path, accounts: int, rounds: int) -> dict[str, list[float]]:
    settings = load_settings()
    desk = Desk(database, settings, Access(folder / "access"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(desk), log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    middle = accounts // 2
    point = f"SP-{middle:07}"
    bill = f"A-{middle:07}.C1.20260701.0"
    case = f"flow-SP-{middle:07}-20260702"
    letter = database.read(
        "SELECT encode(dead_letter_key, 'hex') AS k, first_seen FROM raw.dead_letter ORDER BY first_seen LIMIT 1 OFFSET $1",
        [middle],
    )
    asked = database.read(
        "SELECT adjustment_id, requested_at FROM billing.adjustment ORDER BY requested_at LIMIT 1 OFFSET $1", [middle]
    )
    adjustment, from_adjustment = asked["adjustment_id"][0], place(asked["requested_at"][0], asked["adjustment_id"][0])
    at = {"day": "2026-07-02", "letter": letter["k"][0]}
    from_case = place(
        database.read("SELECT last_day FROM anomaly.exception_case WHERE case_id = $1", [case])["last_day"][0], case
    )
    paths = {
        "overview": "/",
        "exceptions": "/exceptions",
        "exceptions, middle of the list": f"/exceptions?after={from_case}",
        "exceptions, filtered": "/exceptions?state=any&kind=leak&commodity=water&severity=severe",
        "exceptions of a point": f"/exceptions?service_point_id={point}",
        "exception": f"/exceptions/{case}",
        "exception's picture": f"/exceptions/{case}/usage.svg",
        "dead letters": "/dead-letters",
        "dead letters, middle of the list": f"/dead-letters?after={place(letter['first_seen'][0], letter['k'][0])}",
        "dead letters, filtered": "/dead-letters?reason=not_a_number&head_end=HE-3",
        "dead letter": f"/dead-letters/{at['letter']}",
        "pause": "/pause",
        "adjustments": "/adjustments",
        "adjustments, middle of the list": f"/adjustments?after={from_adjustment}",
        "adjustment": f"/adjustments/{adjustment}",
        "bills": "/bills",
        "bills of an account": f"/bills?q=A-{middle:07}",
        "bill": f"/bills/{bill}",
        "bill's line": f"/bills/{bill}/2",
        "intervals of a day": f"/usage/{point}/{at['day']}",
        "bill's proof": f"/bills/{bill}/proof",
        "months": "/months",
        "month": "/months/2026-07",
        "reports": "/reports",
    }
    found: dict[str, list[float]] = {name: [] for name in paths}
    try:
        with httpx.Client(base_url=base, timeout=60, follow_redirects=True) as client:
            assert (
                client.post("/login", data={"token": desk.access.issue("bench")}, headers={"origin": base}).status_code
                == 200
            )
            for name, path in paths.items():
                answer = client.get(path)
                assert answer.status_code == 200, (name, answer.status_code, answer.text[-400:])
            for _ in range(rounds):
                for name, path in paths.items():
                    began = time.perf_counter()
                    client.get(path)
                    found[name].append((time.perf_counter() - began) * 1000)
    finally:
        server.should_exit = True
        thread.join(10)
        desk.close()
    return found


def fill(database: Database, settings: Settings, accounts: int, days: int) -> None:
    """Rows for every table that a page reads, made by the server itself."""
    with database.connect() as connection:
        connection.execute("SET LOCAL synchronous_commit = off; SET LOCAL session_replication_role = replica")
        for day in range(days):
            connection.execute("SELECT billing.ensure_partitions('2026-07-01'::date + %s)", (day,))
            for parent in (
                "raw.interval_day",
                "raw.register_read",
                "vee.interval_day",
                "vee.daily_usage",
                "vee.register_day",
            ):
                connection.execute("SELECT raw.open_partition(%s, '2026-07-01'::date + %s)", (parent, day))
                connection.execute("SELECT raw.attach_partition(%s, '2026-07-01'::date + %s)", (parent, day))
        connection.execute(ROWS.read_text("utf-8").replace(":n", str(accounts)).replace(":days", str(days)).encode())
        connection.commit()
    _write_ledger(database, settings, days)
    with database.connect(autocommit=True) as connection:
        connection.execute("ANALYZE")


def _write_ledger(database: Database, settings: Settings, days: int) -> None:
    """One entry a day with a leaf an account, one for the bills, as the stages write them; and a signed checkpoint over
    them."""
    with database.connect("bench") as connection:
        for n in range(days):
            day = FIRST + timedelta(days=n)
            leaves = connection.execute(
                "SELECT payload_hash FROM raw.interval_day WHERE billing_day = %s ORDER BY meter_id", (day,)
            ).fetchall()
            entries.append(
                connection, "ingested", {"billing_day": day}, [bytes(leaf) for (leaf,) in leaves], actor="bench"
            )
        leaves = connection.execute("SELECT lines_sha256 FROM billing.statement ORDER BY statement_id").fetchall()
        entries.append(
            connection, "bill_issued", {"cycle_id": "C1"}, [bytes(leaf) for (leaf,) in leaves], actor="bench"
        )
        connection.commit()
    checkpoint_billing_day(database, FIRST, settings=settings)
