"""Dead letters as people work them, on files of real formats: the command and the Dagster jobs correct, replay once,
and dismiss; archives that are bombs or thieves cost only themselves on the real way in."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from meter_pipeline.cli import dead_letters as command
from meter_pipeline.feeds import parse, read_head_ends
from meter_pipeline.ingest import ingest_billing_day, land_inbox, waiting_days
from meter_pipeline.ingest.tables import raw
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline_tests.ingest.support import CALENDAR, METERS, enrol
from meter_pipeline_tests.support import fixtures_dir

NORTH = """name = "NORTH"
format = "delimited"
interval_minutes = 15
unit = "kWh"
[columns]
meter_id = "meter"
channel = "channel"
time = "start"
value = "kwh"
"""
HEADER = b"meter,channel,start,kwh\n"
GOOD = b"".join(f"{m},E1,2024-03-11T{h:02d}:00:00Z,1.250\n".encode() for m in METERS for h in range(8, 12))


@pytest.fixture
def city(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    data = tmp_path / "data"
    (data / "head_ends").mkdir(parents=True)
    (data / "utility.toml").write_text('name = "Test"\nzone = "America/Chicago"\ncurrency = "USD"\n')
    (data / "head_ends" / "north.toml").write_text(NORTH)
    (data / "head_ends" / "mdp.toml").write_text('name = "MDP"\nformat = "nem12"\nzone = "+10:00"\n')
    for name, value in {
        "METER_PIPELINE_DATA": data,
        "METER_PIPELINE_HOME": tmp_path / "home",
        "METER_PIPELINE_INBOX": data / "inbox",
        "METER_PIPELINE_DATABASE_URL": database.url,
    }.items():
        monkeypatch.setenv(name, str(value))
    return load_settings()


def drop(city: Settings, head_end: str, name: str, content: bytes) -> None:
    (city.inbox / head_end).mkdir(parents=True, exist_ok=True)
    (city.inbox / head_end / name).write_bytes(content)


def take_in(city: Settings, database: Database) -> Any:
    return land_inbox(database, CALENDAR, city)


def load_all(city: Settings, database: Database) -> None:
    for day, _ in waiting_days(database):
        assert ingest_billing_day(database, CALENDAR, day, settings=city).balanced


def cli(*arguments: str, code: int = 0) -> Any:
    said = CliRunner().invoke(command.app, [*arguments, "--json"])
    assert said.exit_code == code, said.output
    return json.loads(said.stdout) if said.stdout.strip() else None


def enrol_what_is_in(database: Database, city: Settings, path: Path) -> tuple[int, int]:
    """Enrol the meters of a NEM12 file; its reads and the sum of their micro units."""
    parsed = parse(path, read_head_ends(city.head_ends)["MDP"], CALENDAR)
    with database.connect() as connection:
        for meter, channel, unit, minutes in (
            parsed.intervals.select("meter_id", "channel", "unit", "interval_minutes").unique().iter_rows()
        ):
            connection.execute(
                "INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES (%s, 'electricity', 'MDP') ON CONFLICT DO NOTHING",
                (meter,),
            )
            connection.execute(
                "INSERT INTO ref.channels (meter_id, channel, kind, unit, interval_minutes, flow, multiplier, billed) "
                "VALUES (%s, %s, 'interval', %s, %s, 'import', 1, true)",
                (meter, channel, unit, minutes),
            )
    return parsed.intervals.height, int(parsed.intervals["value"].sum())


def test_a_spoiled_day_of_a_real_nem12_file_is_corrected_by_command_and_comes_back_once(
    city: Settings, database: Database
) -> None:
    path = fixtures_dir() / "nem12" / "Example_NEM12_actual_interval.csv"
    reads, total = enrol_what_is_in(database, city, path)
    whole = path.read_bytes()
    line = next(each for each in whole.split(b"\n") if each.startswith(b"300,"))
    spoiled = line.replace(b",", b",x", 3).replace(b",x", b",", 1)
    drop(city, "MDP", "spoiled.csv", whole.replace(line, spoiled, 1))
    landed = take_in(city, database).landed
    assert [f.dead_letters for f in landed] == [1]
    load_all(city, database)
    listed = cli("list")
    [letter] = listed["dead_letters"]
    assert letter["raw"].encode() == spoiled.rstrip(b"\r")
    assert bytes.fromhex(letter["raw_hex"]) == spoiled.rstrip(b"\r")
    assert letter["reasons"]
    key = letter["key"][:10]
    assert cli("show", key)["line"] == letter["line"]
    assert cli("replay", key, "--by", "ann", code=1)["replayed"][0]["rejected"], "as it came it is still at fault"
    cli(
        "correct",
        key,
        "--content",
        line.rstrip(b"\r").decode(),
        "--by",
        "ann",
        "--reason",
        "two values spoiled on the line",
    )
    first = cli("replay", key, "--by", "ann")["replayed"][0]
    assert (first["already"], first["rejected"], first["reads"]) == (False, [], letter["reads"])
    for _ in range(3):
        assert cli("replay", key, "--by", "bob")["replayed"][0]["already"] is True
        load_all(city, database)
    stored = database.read("SELECT count(*)::bigint AS n, (sum(value) * 1000000)::bigint AS total FROM raw.interval")
    assert stored.row(0) == (reads, total)
    assert cli("list", "--status", "open")["dead_letters"] == []
    cli("dismiss", key, "--by", "ann", "--reason", "late", code=1)


def test_the_jobs_do_what_the_command_does(city: Settings, database: Database) -> None:
    from meter_pipeline.defs.ingest import dead_letter_jobs as jobs
    from meter_pipeline.defs.lib.resources import Municipality

    enrol(database)
    drop(
        city,
        "NORTH",
        "a.csv.gz",
        gzip.compress(HEADER + GOOD + b"M-0,E1,not a time \x1b[31m,1.0\nM-9,E1,2024-03-11T09:00:00Z,1.0\nnoise\n"),
    )
    take_in(city, database)

    def run(name: str, **config: Any) -> tuple[bool, dict[str, Any]]:
        job = next(j for j in jobs.JOBS if j.name == f"dead_letters_{name}")
        [op] = [node.name for node in job.all_node_defs]
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                run_config={"ops": {op: {"config": config}}},
                resources={"municipality": Municipality(database_url=database.url)},
                instance=instance,
                raise_on_error=False,
            )
        said: dict[str, Any] = {}
        for event in result.all_events:
            if event.event_type_value == "STEP_OUTPUT":
                said = {k: getattr(v, "records", None) or v.value for k, v in event.step_output_data.metadata.items()}
        return result.success, said

    ok, said = run("list")
    assert (ok, said["open"]) == (True, 3)
    rows = {record.data["begins"].split(",")[0]: record.data for record in said["oldest"]}
    assert set(rows) == {"M-0", '{"meter_id":"M-9"', "noise"}
    assert "\x1b" not in rows["M-0"]["begins"]
    time, noise = (str(rows[name]["key"]) for name in ("M-0", "noise"))
    assert run("list", status="opne")[0] is False
    ok, said = run("show", key=time)
    assert (ok, said["status"], said["line"]) == (True, "open", 2 + GOOD.count(b"\n"))
    assert run("replay", key=time, by="ann")[0] is False, "still at fault"
    assert (
        run(
            "correct",
            key=time,
            content="M-0,E1,2024-03-11T13:00:00Z,1.0",
            by="ann",
            reason="stamp lost at the collector",
        )[0]
        is True
    )
    for turn in ((1, 0), (0, 1)):
        said = run("replay", key=time, by="ann")[1]
        assert (said["replayed"], said["done before"]) == turn
    enrol(database, ["M-9"])
    assert run("replay", all_with_reason="unknown_meter", by="ann")[1]["replayed"] == 1
    assert run("dismiss", key=noise, by="ann", reason=" ")[0] is False
    assert run("dismiss", key=noise, by="ann", reason="line noise")[0] is True
    assert run("replay", key=noise, by="ann")[0] is False
    assert run("replay", by="ann")[0] is False
    load_all(city, database)
    assert database.read("SELECT count(*) AS n FROM raw.interval").item() == GOOD.count(b"\n") + 2
    assert database.read("SELECT status, count(*)::int AS n FROM raw.dead_letter GROUP BY 1 ORDER BY 1").rows() == [
        ("dismissed", 1),
        ("replayed", 2),
    ]


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_payload_of_an_unknown_meter_shows_the_file_s_line_and_no_value_as_null(
    city: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(database)
    lines = b"STRANGER,E1,2024-03-11T08:00:00Z,1.250\n"
    drop(city, "NORTH", "north.csv", HEADER + GOOD + lines)
    take_in(city, database)
    number = (HEADER + GOOD).count(b"\n") + 1
    listed = json.loads(CliRunner().invoke(command.app, ["list", "--json"]).stdout)
    (letter,) = listed["dead_letters"]
    shown = CliRunner().invoke(command.app, ["show", letter["key"], "--json"])
    document = json.loads(shown.stdout)
    assert document["file_line"] == lines.decode().strip()
    assert "-2147483648" not in document["raw"]
    values = json.loads(document["raw"])["values"]
    assert [v for v in values if v is not None] == [1250]
    said = CliRunner().invoke(command.app, ["show", letter["key"]]).stdout
    assert f"line {number} of the file:" in said
    assert "STRANGER,E1,2024-03-11T08:00:00Z,1.250" in said
    # What is shown is what a person corrects: with another meter it is taken.
    corrected = document["raw"].replace("STRANGER", METERS[0])
    options = ["--content", corrected, "--reason", "mistyped", "--by", "ann"]
    assert CliRunner().invoke(command.app, ["correct", letter["key"], *options]).exit_code == 0
    done = CliRunner().invoke(command.app, ["replay", letter["key"], "--by", "ann", "--json"])
    assert json.loads(done.stdout)["replayed"][0]["reads"] == 1


def test_archives_that_are_bombs_or_thieves_cost_only_themselves(city: Settings, database: Database) -> None:
    enrol(database)
    halves = GOOD.split(b"M-3", 1)[0], b"M-3" + GOOD.split(b"M-3", 1)[1]
    bad = {
        "a-bomb.csv.gz": (gzip.compress(b"0" * 40_000_000), "archive_ratio"),
        "b-bomb.zip": (zipped({"a.csv": b"0" * 40_000_000}), "archive_ratio"),
        "c-thief.zip": (zipped({"../../etc/a.csv": HEADER + GOOD}), "archive_path"),
        "d-many.zip": (zipped({f"{n}.csv": HEADER for n in range(70)}), "archive_members"),
        "e-nested.zip": (zipped({"a.csv": gzip.compress(HEADER + GOOD)}), "nested_archive"),
        "f-cut.csv.gz": (gzip.compress(HEADER + GOOD * 50)[:-20], "truncated_archive"),
    }
    for name, (content, _) in bad.items():
        drop(city, "NORTH", name, content)
    drop(city, "NORTH", "g.csv.gz", gzip.compress(HEADER + halves[0]))
    drop(city, "NORTH", "h.zip", zipped({"day.csv": HEADER + halves[1]}))
    for turn in range(2):
        landed = {f.file_name.split("/")[1]: f for f in take_in(city, database).landed}
        if turn == 0:
            assert {name: str(landed[name].refused).split(":")[0] for name in bad} == {
                name: code for name, (_, code) in bad.items()
            }
    load_all(city, database)
    assert database.read("SELECT count(*) AS n FROM raw.interval").item() == GOOD.count(b"\n")
    assert database.read("SELECT count(*) AS n FROM raw.dead_letter").item() == len(bad)
    with database.connect() as connection:
        paths = [path for (path,) in connection.execute("SELECT archive_path FROM raw.feed_file")]
        assert raw.control_totals(connection)["balanced"].all()
    assert len(set(paths)) == len(bad) + 2
    sizes = [(city.archive / path).stat().st_size for path in paths]
    assert sum(sizes) < 1_000_000, "a bomb is archived as it came, never unpacked"
