"""A head-end declared in TOML and served by a real local server: asked by the command and by Dagster, its day lands and
loads like any file's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
import typer
from typer.testing import CliRunner

from meter_pipeline.cli.pull import pull as command
from meter_pipeline.feeds import read_head_ends
from meter_pipeline.ingest import ingest_billing_day, land_inbox, pull
from meter_pipeline.ingest.tables import raw
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline_tests.ingest.support import CALENDAR, DAY, METERS, START, FixedClock, enrol

SECRET = "planted-secret"
DECLARED = Path(__file__).parents[2] / "data" / "head_ends" / "hes-api.toml"


class Office(BaseHTTPRequestHandler):
    """Serves a day's reads by pages of 50, for the meters that have reported so far; every third page stumbles once."""

    meters: ClassVar[list[str]] = []
    away: ClassVar[bool] = False
    seen: ClassVar[set[str]] = set()
    days: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        first = int(query.get("cursor", "0"))
        Office.days.append(query["day"])
        turn = f"{query['day']} {first}"
        stumble = first % 150 == 100 and turn not in Office.seen
        Office.seen.add(turn)
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            self.send_error(401)
            return
        if Office.away or stumble:
            self.send_error(500)
            return
        start = CALENDAR.bounds(date.fromisoformat(query["day"]))[0]
        reads = [
            {
                "meter": m,
                "channel": "E1",
                "start": (start + timedelta(minutes=15 * n)).isoformat(),
                "value": round(0.25 + n / 1000, 3),
                "seq": n + 1,
                "ver": 1,
                "q": "OK",
            }
            for m in Office.meters
            for n in range(slots(date.fromisoformat(query["day"])))
        ]
        limit = int(query["limit"])
        body = json.dumps(
            {"reads": reads[first : first + limit], "next": str(first + limit) if first + limit < len(reads) else None}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


class At(FixedClock):
    """A given wall time; retries do not wait."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        return


def slots(day: date) -> int:
    first, past = CALENDAR.bounds(day)
    return int((past - first) / timedelta(minutes=15))


@pytest.fixture
def city(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Office)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Office.meters, Office.away, Office.seen, Office.days = list(METERS), False, set(), []
    data = tmp_path / "data"
    (data / "head_ends").mkdir(parents=True)
    (data / "utility.toml").write_text('name = "Test"\nzone = "America/Chicago"\ncurrency = "USD"\n')
    text = (
        DECLARED.read_text()
        .replace("https://127.0.0.1:8443/reads", f"http://127.0.0.1:{server.server_port}/reads")
        .replace("page_size = 5000", "page_size = 50")
    )
    (data / "head_ends" / "hes-api.toml").write_text(text)
    for name, value in {
        "METER_PIPELINE_DATA": data,
        "METER_PIPELINE_HOME": tmp_path / "home",
        "METER_PIPELINE_INBOX": data / "inbox",
        "METER_PIPELINE_DATABASE_URL": database.url,
        "HES_API_TOKEN": SECRET,
    }.items():
        monkeypatch.setenv(name, str(value))
    enrol(database)
    with database.connect() as connection:
        connection.execute("UPDATE ref.meters SET head_end = 'HES-API'")
        connection.execute(
            "INSERT INTO ref.installations (service_point_id, meter_id, installed_at) SELECT 'SP-' || meter_id, meter_id, %s FROM ref.meters",
            (START - timedelta(days=90),),
        )
    yield load_settings()
    server.shutdown()
    server.server_close()


def cli(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_asks_lands_and_the_day_holds_every_digit(city: Settings, database: Database) -> None:
    said = cli("--day", DAY.isoformat(), "--land", "--json")
    assert said.exit_code == 0, said.output
    document = json.loads(said.stdout)
    [asked] = document["asked"]
    assert (asked["outcome"], asked["reads"], asked["ok"]) == ("pulled", len(METERS) * slots(DAY), True)
    assert asked["retries"] > 0
    assert document["landed"]["reads_rejected"] == 0
    outcome = ingest_billing_day(database, CALENDAR, DAY, settings=city)
    assert (outcome.accepted, outcome.balanced) == (len(METERS) * slots(DAY), True)
    [total] = database.read("SELECT sum(v)::bigint AS n FROM raw.interval_day, unnest(values) AS v")["n"].to_list()
    scale = database.read("SELECT DISTINCT scale FROM raw.interval_day").item()
    assert total == len(METERS) * sum(250 + n for n in range(slots(DAY))) * 10**scale // 1000
    again = json.loads(cli("--day", DAY.isoformat(), "--json").stdout)
    assert again["asked"][0]["outcome"] == "nothing new"
    assert [name for name in (city.inbox / "HES-API").iterdir() if not name.name.startswith(".")] == [
        city.inbox / asked["file"]
    ]
    (city.inbox / asked["file"]).unlink()
    cleared = json.loads(cli("--day", DAY.isoformat(), "--json").stdout)
    assert (cleared["asked"][0]["outcome"], list((city.inbox / "HES-API").iterdir())) == ("nothing new", [])


def test_a_token_that_is_missing_is_said_and_one_that_is_there_is_not(
    city: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HES_API_TOKEN", "wrong-secret")
    said = cli("--day", DAY.isoformat(), "--json")
    assert said.exit_code == 1
    assert "401" in said.stdout
    assert "wrong-secret" not in said.output
    monkeypatch.delenv("HES_API_TOKEN")
    assert "HES_API_TOKEN" in cli("--day", DAY.isoformat(), "--json").stdout


def test_a_missing_meter_is_asked_for_until_it_comes_or_five_days_are_over(city: Settings, database: Database) -> None:
    [head_end] = read_head_ends(city.head_ends).values()
    closed = START + timedelta(days=1, hours=1)

    def round_at(at: datetime) -> dict[date, tuple[int, str]]:
        outcome = pull.pull(database, CALENDAR, [head_end], city.inbox, clock=At(at))
        land_inbox(database, CALENDAR, city, clock=At(at))
        for asked in outcome.pulls:
            ingest_billing_day(database, CALENDAR, asked.day, settings=city, clock=At(at))
        return {asked.day: (asked.missing, asked.outcome) for asked in outcome.pulls}

    def open_at(at: datetime) -> bool:
        with database.connect() as connection:
            return raw.still_asked(connection, DAY, at, 5)

    Office.meters = METERS[:4]
    first = round_at(closed)
    assert len(first) == 5
    assert first[DAY] == (6, "pulled")
    assert round_at(closed + timedelta(hours=3))[DAY] == (2, "nothing new")
    assert open_at(closed + timedelta(hours=4))
    Office.away = True
    failed = round_at(closed + timedelta(days=1))[DAY]
    assert failed[0] == 2
    assert "500" in failed[1]
    Office.away, Office.meters = False, METERS[:5]
    assert round_at(closed + timedelta(days=2))[DAY] == (2, "pulled")
    assert DAY in round_at(closed + timedelta(days=4, hours=23))
    assert DAY not in round_at(closed + timedelta(days=5, hours=1)), "five days are over: the estimate may become final"
    assert not open_at(closed + timedelta(days=5, hours=1))
    assert open_at(closed + timedelta(days=4, hours=23, minutes=30))
    rows = database.read("SELECT count(*) AS n FROM raw.interval_day WHERE billing_day = $1", [DAY]).item()
    assert rows == 5


def test_days_that_closed_while_nobody_asked_are_caught_up_with(city: Settings, database: Database) -> None:
    [head_end] = read_head_ends(city.head_ends).values()
    Office.away = True
    pull.pull(database, CALENDAR, [head_end], city.inbox, clock=At(START + timedelta(days=1, hours=1)))
    late = START + timedelta(days=13, hours=1)
    asked = pull.pull(database, CALENDAR, [head_end], city.inbox, clock=At(late)).pulls
    assert [a.day for a in asked] == [DAY + timedelta(days=n) for n in range(1, 13)], (
        "days asked first five days ago are done; those never asked are not"
    )


def test_a_pull_that_is_over_holds_nobody(city: Settings, database: Database) -> None:
    """The server may take its time to see that a session was closed: the lock is given back before."""
    [head_end] = read_head_ends(city.head_ends).values()
    for _ in range(30):
        assert not pull.pull(database, CALENDAR, [head_end], city.inbox, days=[], clock=At(START)).postponed


def test_dagster_asks_and_lands_in_one_run(city: Settings, database: Database) -> None:
    from meter_pipeline.defs import jobs
    from meter_pipeline.defs.lib import partitions

    caches = (partitions.billing_days, partitions.billing_months, jobs.billing_day_job)
    for cached in caches:
        cached.cache_clear()
    try:
        from meter_pipeline.definitions import build_defs

        with dg.DagsterInstance.ephemeral() as instance:
            result = build_defs().resolve_job_def("pull_head_ends").execute_in_process(instance=instance)
            [made] = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey("pulled_days")]
        figures = {k: v.value for k, v in made.materialization.metadata.items()}
        assert (figures["days_asked"], figures["failed"]) == (5, 0)
        assert SECRET not in str(made)
        today = CALENDAR.day_of(datetime.now(UTC))
        with database.connect() as connection:
            assert {day for day, _ in raw.waiting_days(connection)} == {today - timedelta(days=n) for n in range(1, 6)}
    finally:
        for cached in caches:
            cached.cache_clear()
