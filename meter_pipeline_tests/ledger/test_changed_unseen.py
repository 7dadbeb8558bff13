"""Numbers that a bill stands on, changed by whoever may write the table: both verifiers find every one."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.ledger import checkpoints
from meter_pipeline.ledger.day import verify_before_billing
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger.verification import verify
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import history
from meter_pipeline_tests.retention.test_days import CLOCK, DAYS, City
from meter_pipeline_tests.support import ROOT, copy_database

DAY = DAYS[1].isoformat()


@pytest.fixture(scope="module")
def city(server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    """Forty meters over three days, billed, with their statements, under a checkpoint."""
    name = f"unseen_{uuid.uuid4().hex[:12]}"
    made = City(copy_database(server, name, template.name), tmp_path_factory.mktemp("unseen"))
    made.build()
    correct(made)
    cycle = made.one("SELECT cycle_id FROM ref.billing_cycles WHERE period_end = %s LIMIT 1", DAYS[2])
    issue_statements(made.database, made.calendar, cycle, DAYS[2], clock=CLOCK)
    checkpoints.checkpoint(made.database, home=made.settings.home)
    yield made
    with server.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def correct(made: City) -> None:
    """A service turns out, after its days were billed, to be another account's: its rows of two days are replaced."""
    with made.database.connect("test") as connection:
        connection.execute(
            "UPDATE ref.agreements SET account_id = (SELECT max(account_id) FROM ref.accounts) "
            "WHERE service_point_id = (SELECT min(service_point_id) FROM billing.charge_day)"
        )
        history.record(connection, {}, source="test", reason="the wrong account", by="test")
        connection.commit()
    made.run(DAYS[1])
    made.run(DAYS[2])


def inside(city: City) -> set[str]:
    return {f.check for f in verify(city.database, home=city.settings.home, full=True, hashers=hashers()).findings}


def outside(city: City, folder: Path, *more: str) -> dict[str, Any]:
    if not folder.exists():
        export(city.database, folder)
    key = next((city.settings.home / "ledger").glob("*.vkeys")).read_text().split()[0]
    command = [sys.executable, str(ROOT / "tools" / "verify_ledger.py"), str(folder), "--vkey", key, "--json", *more]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return found


def change(city: City, *statements: str) -> None:
    with city.database.connect("dba") as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount != 0
        connection.commit()


def test_an_untouched_city_verifies_inside_and_outside(city: City, tmp_path: Path) -> None:
    done = verify(city.database, home=city.settings.home, full=True, hashers=hashers())
    assert done.findings == []
    assert done.checked["content of vee.interval_day"] == done.checked["rows of vee.interval_day"] > 0
    found = outside(city, tmp_path / "export")
    assert found["findings"] == []
    assert found["checked"]["rows of vee.interval_day"] == done.checked["rows of vee.interval_day"]


READ = f"SELECT min(meter_id) FROM raw.interval_day WHERE billing_day = '{DAY}' AND payloads = 1"
#: Name of a row -> how it is found.
ROWS = {
    "read": (f"billing_day = '{DAY}' AND meter_id", READ),
    "charge": (
        f"billing_day = '{DAY}' AND service_point_id",
        f"SELECT min(service_point_id) FROM billing.charge_day WHERE billing_day = '{DAY}'",
    ),
    "bill": ("statement_id", "SELECT min(statement_id) FROM billing.statement"),
}


def where_of(city: City, row: str) -> str:
    """The condition that finds a row, with its key written out: what is done to the row does not move it."""
    column, query = ROWS[row]
    return f"{column} = '{city.one(query)}'"


@pytest.mark.parametrize(
    ("table", "row", "deed", "check"),
    [
        ("raw.interval_day", "read", "values[10] = 99999", "row"),
        ("raw.interval_day", "read", "qualities = array_fill(0::smallint, ARRAY[slots + 1])", "row"),
        ("vee.interval_day", "read", "flags = array_fill(0, ARRAY[slots - 1])", "row"),
        ("raw.interval_day", "read", "values[10] = 99999, payloads = 2", "merged row"),
        ("vee.interval_day", "read", "values[10] = 99999", "row"),
        ("vee.interval_day", "read", "total_micro = total_micro + 1", "derived column"),
        ("vee.interval_day", "read", "account_id = 'A-0000999'", "row"),
        ("billing.charge_day", "charge", "total = total + 1", "derived column"),
        ("billing.charge_day", "charge", "export_to_date = array_append(export_to_date, 5)", "row without leaf"),
        ("billing.charge_day", "charge", "budget_to_date = budget_to_date + 1", "row without leaf"),
        ("billing.determinant_day", "charge", "energy = array_append(energy, 5)", "row without leaf"),
        ("billing.determinant_day", "charge", "source_quantity = source_quantity + 1", "row without leaf"),
        ("billing.statement", "bill", "total = total * 100", "derived column"),
        ("billing.statement", "bill", "lines = lines + 1", "derived column"),
    ],
)
def test_a_changed_number_is_found(city: City, tmp_path: Path, table: str, row: str, deed: str, check: str) -> None:
    where = where_of(city, row)
    change(
        city,
        f"CREATE TABLE public.kept AS SELECT * FROM {table} WHERE {where}",
        f"UPDATE {table} SET {deed} WHERE {where}",
    )
    try:
        assert check in inside(city)
        assert check in {f["check"] for f in outside(city, tmp_path / "export")["findings"]}
    finally:
        change(
            city,
            f"DELETE FROM {table} WHERE {where}",
            f"INSERT INTO {table} SELECT * FROM public.kept",
            "DROP TABLE public.kept",
        )
    assert inside(city) == set()


@pytest.mark.parametrize(
    ("table", "row", "deed", "check"),
    [
        ("raw.interval_day", "read", "values[10] = NULL", "row"),
        ("billing.charge_day", "charge", "amounts = array_append(amounts, NULL)", "row without leaf"),
        ("billing.charge_day", "charge", "amounts = ARRAY[amounts]", None),
    ],
)
def test_an_array_that_cannot_be_read_is_named_with_its_table_and_day(
    city: City, tmp_path: Path, table: str, row: str, deed: str, check: str | None
) -> None:
    where = where_of(city, row)
    change(
        city,
        f"CREATE TABLE public.kept AS SELECT * FROM {table} WHERE {where}",
        f"UPDATE {table} SET {deed} WHERE {where}",
    )
    try:
        with pytest.raises(
            ValueError, match=rf"{table} {DAY}: a row was changed by hand: column {deed.split(' ')[0].split('[')[0]}"
        ):
            inside(city)
        if check is not None:
            assert check in {f["check"] for f in outside(city, tmp_path / "export")["findings"]}
    finally:
        change(
            city,
            f"DELETE FROM {table} WHERE {where}",
            f"INSERT INTO {table} SELECT * FROM public.kept",
            "DROP TABLE public.kept",
        )


#: What somebody does to rows as a whole -> which checks find it.
DEEDS = {
    "two meters' reads exchanged": (
        "raw.interval_day",
        (
            f"UPDATE raw.interval_day a SET values = b.values FROM raw.interval_day b WHERE a.billing_day = '{DAY}' AND b.billing_day = a.billing_day "
            "AND a.payloads = 1 AND b.payloads = 1 AND a.values <> b.values AND a.slots = b.slots"
        ),
        "row",
    ),
    "a day's charges in the place of another's": (
        "billing.charge_day",
        (
            f"UPDATE billing.charge_day a SET amounts = b.amounts, total = b.total FROM billing.charge_day b WHERE a.billing_day = '{DAY}' "
            f"AND b.billing_day = '{DAYS[0]}' AND a.service_point_id = b.service_point_id AND a.amounts <> b.amounts"
        ),
        "row without leaf",
    ),
    "a charge nobody wrote": (
        "billing.charge_day",
        (
            "INSERT INTO billing.charge_day SELECT billing_day, service_point_id || '-9', account_id, tariff_id, tariff_version, cycle_id, period_start, "
            "stretch_start, days, energy_to_date, export_to_date, peaks_to_date, peak_at_to_date, register_days, budget_to_date, carry, history, amounts, "
            f"total FROM billing.charge_day WHERE billing_day = '{DAY}' LIMIT 1"
        ),
        "row without leaf",
    ),
    "a validated day taken away": (
        "vee.interval_day",
        f"DELETE FROM vee.interval_day WHERE billing_day = '{DAY}' AND meter_id = ({READ})",
        "leaf without row",
    ),
    "a segment of a bill taken away": (
        "billing.statement_segment",
        "DELETE FROM billing.statement_segment WHERE statement_id = (SELECT min(statement_id) FROM billing.statement_segment)",
        "content",
    ),
    "a register's day changed": ("vee.register_day", "UPDATE vee.register_day SET reads = reads + 1", "content"),
    "a day's usage changed": (
        "vee.daily_usage",
        (
            "UPDATE vee.daily_usage SET quantity_micro = coalesce(quantity_micro, 0) + 1000000 WHERE (billing_day, service_point_id) = "
            "(SELECT billing_day, service_point_id FROM vee.daily_usage WHERE source = 'register' LIMIT 1)"
        ),
        "content",
    ),
    "a day's usage taken away": (
        "vee.daily_usage",
        "DELETE FROM vee.daily_usage WHERE billing_day = (SELECT min(billing_day) FROM vee.daily_usage)",
        "content",
    ),
    "usage of a day that was never validated": (
        "vee.daily_usage",
        (
            'INSERT INTO vee.daily_usage SELECT (jsonb_populate_record(t, \'{"billing_day": "2026-03-20"}\')).* FROM vee.daily_usage AS t '
            f"WHERE billing_day = '{DAY}' LIMIT 1"
        ),
        "row without leaf",
    ),
    "a replaced charge changed": (
        "billing.charge_day_version",
        "UPDATE billing.charge_day_version SET amounts = array_append(amounts, 0)",
        "row without leaf",
    ),
    "a replaced charge's total": (
        "billing.charge_day_version",
        "UPDATE billing.charge_day_version SET total = total + 1",
        "derived column",
    ),
    "a replaced determinant taken away": (
        "billing.determinant_day_version",
        "DELETE FROM billing.determinant_day_version WHERE version_id = (SELECT min(version_id) FROM billing.determinant_day_version)",
        "leaf without row",
    ),
    "a replaced charge kept twice": (
        "billing.charge_day_version",
        (
            "INSERT INTO billing.charge_day_version OVERRIDING SYSTEM VALUE SELECT billing_day, service_point_id, account_id, tariff_id, tariff_version, cycle_id, "
            "period_start, stretch_start, days, energy_to_date, export_to_date, peaks_to_date, peak_at_to_date, register_days, budget_to_date, carry, history, "
            "amounts, total, version_id + 1000, replaced_by FROM billing.charge_day_version"
        ),
        "row without leaf",
    ),
    "a bill's name of a line": (
        "billing.statement_line",
        "UPDATE billing.statement_line SET name = name || ' (reduced)'",
        "content",
    ),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_rows_exchanged_inserted_or_taken_away_are_found(city: City, tmp_path: Path, deed: str) -> None:
    table, statement, check = DEEDS[deed]
    if "2026-03-20" in statement:
        change(
            city,
            f"CREATE TABLE IF NOT EXISTS {table}_20260320 PARTITION OF {table} FOR VALUES FROM ('2026-03-20') TO ('2026-03-21')",
        )
    change(city, f"CREATE TABLE public.kept AS SELECT * FROM {table}", statement)
    try:
        assert check in inside(city)
        assert check in {f["check"] for f in outside(city, tmp_path / "export")["findings"]}
    finally:
        kept = f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM public.kept"
        change(city, f"WITH gone AS (DELETE FROM {table}) SELECT 1", kept, "DROP TABLE public.kept")
    assert inside(city) == set()


def test_a_read_that_claims_several_payloads_is_billed_to_nobody(city: City) -> None:
    """The read changed between validation and billing says that it was merged, so that its own hash is not
    asked for.
    """
    where = where_of(city, "read")
    change(
        city,
        f"CREATE TABLE public.kept AS SELECT * FROM raw.interval_day WHERE {where}",
        f"UPDATE raw.interval_day SET values = array(SELECT v + 20 FROM unnest(values) v), payloads = 2 WHERE {where}",
    )
    try:
        done = verify_before_billing(city.database, DAYS[1], settings=city.settings, clock=CLOCK, hashers=hashers())
        assert {f.check for f in done.verification.findings} == {"merged row"}
    finally:
        change(
            city,
            f"DELETE FROM raw.interval_day WHERE {where}",
            "INSERT INTO raw.interval_day SELECT * FROM public.kept",
            "DROP TABLE public.kept",
        )


def test_the_auditors_program_takes_no_encoding_from_the_export(city: City, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert outside(city, folder)["ok"]
    path = folder / "rows" / "raw" / "raw.interval_day" / f"{DAY}.jsonl"
    head, *rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    head["encoding"], head["hash_column"], head["folded"] = None, "payload_hash", True
    rows[0]["values"][9] = 99999
    path.write_text("\n".join(map(json.dumps, [head, *rows])) + "\n", "utf-8")
    reseal(folder)
    assert {f["check"] for f in outside(city, folder)["findings"]} >= {"row"}


def test_a_day_that_the_export_leaves_out_is_said_and_found_by_who_asks_for_it(city: City, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export(city.database, folder, days=DAYS[:1])
    assert (outside(city, folder)["ok"], outside(city, folder)["days_without_rows"][-1]) == (True, DAYS[2].isoformat())
    assert not outside(city, folder, "--every-day")["ok"]
    assert outside(city, folder, "--day", DAYS[0].isoformat())["ok"]
    assert not outside(city, folder, "--day", DAY)["ok"]


def test_a_partition_taken_away_whole_is_found_in_an_export_of_everything(city: City, tmp_path: Path) -> None:
    change(
        city,
        f"CREATE TABLE public.kept AS SELECT * FROM vee.interval_day WHERE billing_day = '{DAY}'",
        f"DELETE FROM vee.interval_day WHERE billing_day = '{DAY}'",
    )
    try:
        assert "leaf without row" in inside(city)
        assert "leaf without row" in {f["check"] for f in outside(city, tmp_path / "export")["findings"]}
    finally:
        change(city, "INSERT INTO vee.interval_day SELECT * FROM public.kept", "DROP TABLE public.kept")


#: Table partitioned by day -> what is changed in a partition while it is detached, and which check finds it.
PARTITIONED = {
    "raw.interval_day": ("values[5] = coalesce(values[5], 0) + 7", "row"),
    "raw.register_read": ("value = value + 7", "row"),
    "vee.interval_day": ("values[5] = coalesce(values[5], 0) + 7", "row"),
    "vee.register_day": ("reads = reads + 7", "content"),
    "vee.daily_usage": ("estimated_micro = estimated_micro + 7", "content"),
}


def partition_of(city: City, table: str) -> tuple[str, str]:
    """The partition of the second day, and its bounds as SQL."""
    name = f"{table}_{DAYS[1]:%Y%m%d}"
    bounds = city.one("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = %s::regclass", name)
    return name, bounds


@pytest.mark.parametrize("table", PARTITIONED)
@pytest.mark.parametrize("how", ["detached, changed, attached", "another table attached in its place"])
def test_a_swapped_partition_is_found(city: City, tmp_path: Path, table: str, how: str) -> None:
    change_of, check = PARTITIONED[table]
    partition, bounds = partition_of(city, table)
    where = f"ctid = (SELECT min(ctid) FROM {partition}{' WHERE payloads = 1 AND values IS NOT NULL' if 'raw.i' in table else ''})"
    detach = f"ALTER TABLE {table} DETACH PARTITION {partition}"
    if how == "detached, changed, attached":
        made = [
            f"CREATE TABLE public.kept AS SELECT * FROM {partition}",
            detach,
            f"UPDATE {partition} SET {change_of} WHERE {where}",
            f"ALTER TABLE {table} ATTACH PARTITION {partition} {bounds}",
        ]
        undone = [
            f"DELETE FROM {partition}",
            f"INSERT INTO {partition} SELECT * FROM public.kept",
            "DROP TABLE public.kept",
        ]
    else:
        other = f"{partition}_other"
        made = [
            f"CREATE TABLE {other} (LIKE {partition} INCLUDING ALL)",
            f"INSERT INTO {other} SELECT * FROM {partition}",
            f"UPDATE {other} SET {change_of} WHERE {where.replace(partition, other)}",
            detach,
            f"ALTER TABLE {table} ATTACH PARTITION {other} {bounds}",
        ]
        undone = [
            f"ALTER TABLE {table} DETACH PARTITION {other}",
            f"ALTER TABLE {table} ATTACH PARTITION {partition} {bounds}",
            f"DROP TABLE {other}",
        ]
    change(city, *made)
    try:
        assert check in inside(city)
        if how == "detached, changed, attached":
            assert check in {f["check"] for f in outside(city, tmp_path / "export")["findings"]}
    finally:
        change(city, *undone)
    assert inside(city) == set()


def test_two_days_partitions_exchanged_are_found(city: City, tmp_path: Path) -> None:
    """The rows of two days change places, each with the other's date."""
    table = "billing.charge_day"
    change(
        city,
        f"CREATE TABLE public.kept AS SELECT * FROM {table}",
        f"DELETE FROM {table} WHERE billing_day IN ('{DAYS[0]}', '{DAYS[1]}')",
        f"UPDATE public.kept SET billing_day = CASE billing_day WHEN '{DAYS[0]}' THEN date '{DAYS[1]}' WHEN '{DAYS[1]}' THEN date '{DAYS[0]}' ELSE billing_day END",
        f"INSERT INTO {table} SELECT * FROM public.kept WHERE billing_day <> '{DAYS[2]}'",
    )
    try:
        assert inside(city) >= {"row without leaf", "leaf without row"}
        found = {f["check"] for f in outside(city, tmp_path / "export")["findings"]}
        assert found >= {"row without leaf", "leaf without row"}
    finally:
        change(
            city,
            f"DELETE FROM {table} WHERE billing_day <> '{DAYS[2]}'",
            f"UPDATE public.kept SET billing_day = CASE billing_day WHEN '{DAYS[0]}' THEN date '{DAYS[1]}' WHEN '{DAYS[1]}' THEN date '{DAYS[0]}' ELSE billing_day END",
            f"INSERT INTO {table} SELECT * FROM public.kept WHERE billing_day <> '{DAYS[2]}'",
            "DROP TABLE public.kept",
        )
    assert inside(city) == set()


def reseal(folder: Path) -> None:
    """Write the manifest's hashes anew, as whoever made the export can."""
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def test_an_export_ends_at_a_checkpoint(city: City, tmp_path: Path) -> None:
    from meter_pipeline.ledger import entries

    with city.database.connect("test") as connection:
        entries.append(connection, "verified", {"step": "after the last checkpoint"})
        connection.commit()
    assert export(city.database, tmp_path / "without").unsigned == 1

    def sign() -> object:
        return checkpoints.checkpoint(city.database, home=city.settings.home)

    assert export(city.database, tmp_path / "export", checkpoint=sign).unsigned == 0
    found = outside(city, tmp_path / "export")
    assert found["ok"]
    assert "entries after the last checkpoint" not in found["checked"]


def test_a_changed_row_of_reference_data_is_found(city: City, tmp_path: Path) -> None:
    """Each deed with the triggers off, so that no version is kept."""
    deeds = {
        "UPDATE ref.channels SET multiplier = multiplier * 10 WHERE ctid = (SELECT min(ctid) FROM ref.channels)": (
            "row without leaf"
        ),
        "DELETE FROM ref.agreements WHERE ctid = (SELECT min(ctid) FROM ref.agreements)": "leaf without row",
        "INSERT INTO ref.accounts SELECT account_id || '9', customer_class, opened, closed, known_from FROM ref.accounts LIMIT 1": (
            "row without leaf"
        ),
        "UPDATE ref.billing_cycles_version SET period_end = period_end + 1": "row without leaf",
        "INSERT INTO ref.holidays (holiday, name) VALUES ('2031-01-01', 'from before history')": "content",
        "UPDATE ref.change_set SET rows = rows + 1": "derived column",
    }
    for number, (deed, check) in enumerate(deeds.items()):
        table = deed.split()[2 if deed.startswith(("DELETE", "INSERT")) else 1]
        change(city, f"CREATE TABLE public.kept AS SELECT * FROM {table}", deed)
        try:
            assert check in inside(city), deed
            if table != "ref.change_set":
                assert check in {f["check"] for f in outside(city, tmp_path / f"export{number}")["findings"]}, deed
        finally:
            change(city, f"DELETE FROM {table}")
            change(city, f"INSERT INTO {table} SELECT * FROM public.kept", "DROP TABLE public.kept")
    assert inside(city) == set()


def test_the_auditors_program_knows_every_reference_table(database: Database) -> None:
    """On a new reference table: enter it in REFERENCE of tools/verify_ledger.py, with its key and columns."""
    from meter_pipeline.ledger.tables import reference_rows

    told = {name: tuple(key) for name, (key, _) in auditors().REFERENCE.items()}
    with database.connect() as connection:
        assert told == {table.name: table.key for table in reference_rows.history_tables(connection)}


def test_the_auditors_program_prints_json_as_the_server_does(database: Database) -> None:
    texts = [
        '{"bb": 1, "a": "\\u00e9\\u0001\\"\\\\/", "é": [1.50, -0.0, 1e-7, 12345678901234567890.10, null, true], "c": {}}',
        '{"old": null, "new": {"x": [], "yy": "tab\\tline\\nü\\u007f"}, "table": "t"}',
    ]
    with database.connect() as connection:
        for text in texts:
            row = connection.execute("SELECT %s::jsonb::text", (text,)).fetchone()
            assert row is not None
            assert auditors().jsonb_text(json.loads(row[0], parse_float=decimal.Decimal)) == row[0]


def auditors() -> Any:
    """The auditor's program as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("verify_ledger", ROOT / "tools" / "verify_ledger.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
