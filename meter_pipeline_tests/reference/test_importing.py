"""Reference data promises: the SQL tables are the declared ones; an import is whole or nothing, and names every
fault.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import ReferenceRefused, import_folder, read_folder
from meter_pipeline.reference.history import RECORD_TIME
from meter_pipeline.reference.tables import read_table
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.schemas.reference_words import MEANINGS
from meter_pipeline_tests.reference.rows import end_row, remove_row

SMALL = {
    "meters": "meter_id,commodity,head_end,model,collector_id\nm1,electricity,AMI,,\nM2,water,AMR,,C1\n",
    "channels": "meter_id,channel,kind,unit,interval_minutes,flow,multiplier,dials,decimals,sums_to,billed\n"
    "M1,E1,interval,kWh,15,import,1,,,,true\nM2,R,register,L,,import,1,6,0,,true\n",
    "accounts": "account_id,customer_class,opened,closed\nA1,residential,2020-01-01,\n",
    "agreements": "account_id,service_point_id,tariff_id,cycle_id,valid_from,valid_to\n"
    "A1,SP1,T1,C1,2026-01-01,2026-06-01\nA1,SP1,T1,C1,2026-06-01,\n",
    "tariffs": "tariff_id,commodity,version,valid_from,valid_to,document\nT1,electricity,1,2020-01-01,,t1.json\n",
    "installations": "service_point_id,meter_id,installed_at,removed_at,install_read,removal_read\nSP1,M1,2026-01-01T06:00:00Z,,0.000,\n",
}


def document(rate: str) -> str:
    """The smallest tariff: one rate."""
    return '{"energyratestructure": [[{"rate": %s}]]}' % rate  # noqa: UP031 - braces


def folder(tmp_path: Path, **changes: str) -> Path:
    made = tmp_path / "reference"
    shutil.rmtree(made, ignore_errors=True)
    (made / "tariffs").mkdir(parents=True)
    (made / "tariffs" / "t1.json").write_text(document("0.1234567890123456789"))
    for name, text in (SMALL | changes).items():
        (made / f"{name}.csv").write_text(text, encoding="utf-8")
    return made


def test_every_declared_column_is_in_the_database_with_a_comment(database: Database) -> None:
    found = database.read(
        "SELECT c.relname AS t, a.attname AS c, col_description(c.oid, a.attnum) AS note, a.attnotnull AS required "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE n.nspname = 'ref' AND c.relkind = 'r' AND a.attnum > 0 ORDER BY 1, a.attnum"
    )
    columns: dict[str, list[str]] = {t: [] for t in TABLES}
    for table, column, note, required in found.iter_rows():
        assert note, f"{table}.{column} has no comment"
        if table in TABLES and column not in RECORD_TIME:
            columns[table].append(column)
            assert note == MEANINGS[table][column]
            assert required == (not TABLES[table].columns[column].endswith("?")), f"{table}.{column}"
    assert columns == {name: list(table.columns) for name, table in TABLES.items()}


def test_an_import_is_read_back_as_it_was_and_twice_is_once(database: Database, tmp_path: Path) -> None:
    assert import_folder(database, folder(tmp_path))["meters"] == 2
    assert import_folder(database, folder(tmp_path))["meters"] == 2
    assert read_table(database, "meters")["meter_id"].to_list() == ["M1", "M2"]
    assert str(read_table(database, "channels")["multiplier"][0]) == "1.000000"
    with database.connect() as connection:
        assert (
            scalar(connection, "SELECT body->'energyratestructure'->0->0->>'rate' FROM ref.tariff_document")
            == "0.1234567890123456789"
        )


def test_a_tariff_that_cannot_be_priced_is_refused_with_its_line(database: Database, tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "tariffs" / "t1.json").write_text('{"energyratestructure": [[\n {"rate": "dear"}]]}')
    with pytest.raises(
        ReferenceRefused, match=r"tariffs/t1.json:2: energyratestructure\[0\]\[0\].rate: not a plain decimal"
    ):
        import_folder(database, made)


@pytest.mark.parametrize(
    ("table", "text", "fault"),
    [
        ("meters", "meter_id,commodity\nM1,electricity\n", "meters.csv:1: head_end: column missing"),
        ("meters", SMALL["meters"] + "M1,gas,AMI,,\n", "meters.csv:4: meter_id: the key of line 2 again"),
        ("meters", SMALL["meters"] + "Ｍ３,gas,AMI,,\n", "is not an id"),
        ("meters", SMALL["meters"] + "M3,steam,AMI,,\n", "'steam' is not one of electricity, water, gas"),
        ("channels", SMALL["channels"] + "M9,E1,interval,kWh,15,import,1,,,,true\n", "M9 is not in meters.csv"),
        ("channels", SMALL["channels"] + "M1,E2,interval,furlong,15,import,1,,,,true\n", "unknown unit 'furlong'"),
        ("channels", SMALL["channels"] + "M1,E2,interval,kWh,15,import,NaN,,,,true\n", "not a plain decimal number"),
        ("channels", SMALL["channels"] + "M2,R2,register,L,,import,1,6,0,R,true\n", "sums_to: R is a register"),
        (
            "agreements",
            SMALL["agreements"] + "A1,SP1,T1,C1,2026-07-01,\n",
            "overlaps the stretch that starts 2026-06-01",
        ),
        ("installations", SMALL["installations"] + "SP1,M2,2026-01-01T06:00:00,,,\n", "has no zone"),
        ("tariffs", SMALL["tariffs"] + "T2,electricity,1,2020-01-01,,gone.json\n", "no file tariffs/gone.json"),
        (
            "accounts",
            "account_id,customer_class,opened,closed\nA1,residential,2020-02-30,\n",
            "accounts.csv:2: opened: ",
        ),
    ],
)
def test_a_fault_is_named_with_its_line_and_nothing_is_loaded(
    database: Database, tmp_path: Path, table: str, text: str, fault: str
) -> None:
    with pytest.raises(ReferenceRefused) as refused:
        import_folder(database, folder(tmp_path, **{table: text}))
    assert any(fault in str(f) for f in refused.value.faults), [str(f) for f in refused.value.faults]
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ref.meters") == 0


def test_every_fault_is_named_not_only_the_first(tmp_path: Path) -> None:
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(folder(tmp_path, meters=SMALL["meters"] + "M3,steam,A I,,\nM4\n"))
    assert len(refused.value.faults) == 3


AGREEMENTS = "account_id,service_point_id,tariff_id,cycle_id,valid_from,valid_to\n"


def agreements(database: Database) -> list[tuple[str, str]]:
    frame = read_table(database, "agreements").sort("service_point_id", "valid_from")
    return [(account, str(first)) for account, first in frame.select("account_id", "valid_from").iter_rows()]


def two_accounts(tmp_path: Path, moved: str, *more: str) -> Path:
    rows = [f"A1,SP1,T1,C1,2020-01-01,{moved}", f"A2,SP1,T1,C1,{moved},", *more]
    accounts = SMALL["accounts"] + "A2,residential,2020-01-01,\n"
    return folder(tmp_path, accounts=accounts, agreements=AGREEMENTS + "\n".join(rows) + "\n")


def test_a_corrected_date_takes_the_place_of_the_row_it_corrects(database: Database, tmp_path: Path) -> None:
    import_folder(database, two_accounts(tmp_path, "2026-09-03"))
    import_folder(database, two_accounts(tmp_path, "2026-09-02"))
    assert agreements(database) == [("A1", "2020-01-01"), ("A2", "2026-09-02")], (
        "one open agreement, from the right day"
    )


def test_an_overlap_with_a_stored_row_is_refused_with_both_rows_named(database: Database, tmp_path: Path) -> None:
    import_folder(database, two_accounts(tmp_path, "2026-09-03"))
    some = folder(tmp_path, accounts=SMALL["accounts"], agreements=AGREEMENTS + "A1,SP1,T1,C1,2026-09-01,\n")
    with pytest.raises(ReferenceRefused) as refused:
        import_folder(database, some)
    said = [str(f) for f in refused.value.faults]
    assert any("A1 from 2026-09-01 (line 2)" in f and "A2 from 2026-09-03 (stored)" in f for f in said), said
    assert any("reference remove agreements SP1 2026-09-03" in f for f in said), said
    assert agreements(database) == [("A1", "2020-01-01"), ("A2", "2026-09-03")], "nothing was imported"


def test_a_file_of_some_rows_replaces_none_that_it_leaves_out(database: Database, tmp_path: Path) -> None:
    import_folder(database, two_accounts(tmp_path, "2026-09-03", "A1,SP9,T1,C1,2020-01-01,"))
    some = folder(tmp_path, accounts=SMALL["accounts"], agreements=AGREEMENTS + "A1,SP9,T1,C1,2026-01-01,\n")
    with pytest.raises(ReferenceRefused, match="in force at the same time"):
        import_folder(database, some)


def test_no_writer_can_store_two_rows_of_one_place_in_force_together(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    for statement in (
        "INSERT INTO ref.agreements VALUES ('A1', 'SP1', 'T1', 'C1', '2025-01-01', NULL)",
        "INSERT INTO ref.installations VALUES ('SP2', 'M1', '2026-02-01T00:00:00Z', NULL, NULL, NULL)",
        "INSERT INTO ref.tariffs VALUES ('T1', 'electricity', 2, '2021-01-01', NULL, 't1.json')",
    ):
        with pytest.raises(psycopg.errors.ExclusionViolation), database.connect() as connection:
            connection.execute(statement.encode())


def test_a_row_is_ended_or_taken_out_by_a_person_and_the_ledger_says_so(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    end_row(database, "agreements", ["sp1", "2026-06-01"], "2026-07-01", by="ana", why="moved out")
    remove_row(database, "installations", ["M1", "2026-01-01T06:00:00Z"], by="ana", why="typed twice")
    assert read_table(database, "agreements")["valid_to"].cast(str).to_list()[-1] == "2026-07-01"
    assert not read_table(database, "installations").height
    with database.connect() as connection:
        bodies = connection.execute(
            "SELECT convert_from(body, 'UTF8') FROM ledger.entry WHERE kind = 'reference_imported'"
        )
        assert sum('"reason":"moved out"' in body or '"reason":"typed twice"' in body for (body,) in bodies) == 2
    for bad in (["SP1"], ["SP1", "1999-01-01"], ["SP1", "yesterday"]):
        with pytest.raises(ReferenceRefused):
            remove_row(database, "agreements", bad, by="ana", why="x")
    with pytest.raises(ReferenceRefused):
        end_row(database, "agreements", ["SP1", "2026-06-01"], "2026-05-01", by="ana", why="x")


def used_version(database: Database) -> None:
    """Something was billed with version 1 of T1."""
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO billing.tariff_version SELECT tariff_id, version, sha256, 'native', 'T', 'electricity', 'USD', 'kWh', '{all}', '{}', '{}', "
            "'{}', '{}', '{}', '{}', '2 half_up', now() FROM ref.tariff_document"
        )


def test_a_document_that_bills_were_made_with_cannot_change_under_its_version(
    database: Database, tmp_path: Path
) -> None:
    import_folder(database, folder(tmp_path))
    used_version(database)
    made = folder(tmp_path)
    (made / "tariffs" / "t1.json").write_text(" " + document("0.1234567890123456789"))
    import_folder(database, made)  # the same document in other bytes
    (made / "tariffs" / "t1.json").write_text(document("0.2"))
    with pytest.raises(ReferenceRefused, match=r"tariffs/t1.json.*T1 version 1 was billed with.*next version"):
        import_folder(database, made)
    (made / "tariffs" / "t1.json").write_text(document("0.1234567890123456789"))
    (made / "tariffs" / "t1-v2.json").write_text(document("0.2"))
    versions = "T1,electricity,1,2020-01-01,2026-07-01,t1.json\nT1,electricity,2,2026-07-01,,t1-v2.json\n"
    (made / "tariffs.csv").write_text(SMALL["tariffs"].splitlines()[0] + "\n" + versions)
    import_folder(database, made)
    with database.connect() as connection:
        rates = connection.execute(
            "SELECT version, body->'energyratestructure'->0->0->>'rate' FROM ref.tariff_document ORDER BY 1"
        ).fetchall()
    assert rates == [(1, "0.1234567890123456789"), (2, "0.2")]


@pytest.mark.parametrize("meter", ["", "a1", "A" * 65, "A1 ", "A1\n", "Ä1", "A#1"])
def test_the_database_itself_refuses_what_is_no_id(database: Database, tmp_path: Path, meter: str) -> None:
    import_folder(database, folder(tmp_path))
    copied = (
        "INSERT INTO ref.meters (meter_id, commodity, head_end) SELECT %s, commodity, head_end FROM ref.meters LIMIT 1"
    )
    with database.connect() as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(copied, (meter,))
        connection.rollback()
        assert connection.execute(copied, ("A" * 64,)).rowcount == 1
