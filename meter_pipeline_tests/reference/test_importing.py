"""Reference data promises: the SQL tables are the declared ones; an import is whole or nothing, and names every fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import ReferenceRefused, import_folder, read_folder
from meter_pipeline.reference.tables import read_table
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.schemas.reference_words import MEANINGS

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


def folder(tmp_path: Path, **changes: str) -> Path:
    made = tmp_path / "reference"
    shutil.rmtree(made, ignore_errors=True)
    (made / "tariffs").mkdir(parents=True)
    (made / "tariffs" / "t1.json").write_text('{"rate": 0.1234567890123456789}')
    for name, text in (SMALL | changes).items():
        (made / f"{name}.csv").write_text(text, encoding="utf-8")
    return made


def test_every_declared_column_is_in_the_database_with_a_comment(database: Database) -> None:
    found = database.read(
        "SELECT c.relname AS t, a.attname AS c, col_description(c.oid, a.attnum) AS note, a.attnotnull AS required "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE n.nspname = 'ref' AND c.relkind = 'r' AND a.attnum > 0 ORDER BY 1, a.attnum"
    )
    columns = {t: [] for t in TABLES} | {}
    for table, column, note, required in found.iter_rows():
        assert note, f"{table}.{column} has no comment"
        if table in TABLES:
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
        assert scalar(connection, "SELECT body->>'rate' FROM ref.tariff_document") == "0.1234567890123456789"


@pytest.mark.parametrize(
    ("table", "text", "fault"),
    [
        ("meters", "meter_id,commodity\nM1,electricity\n", "meters.csv:1: head_end: column missing"),
        ("meters", SMALL["meters"] + "M1,gas,AMI,,\n", "meters.csv:4: meter_id: the key of line 2 again"),
        ("meters", SMALL["meters"] + "Ｍ３,gas,AMI,,\n", "is not an id"),
        ("meters", SMALL["meters"] + "M3,steam,AMI,,\n", "'steam' is none of electricity, water, gas"),
        ("channels", SMALL["channels"] + "M9,E1,interval,kWh,15,import,1,,,,true\n", "M9 is not in meters.csv"),
        ("channels", SMALL["channels"] + "M1,E2,interval,furlong,15,import,1,,,,true\n", "unknown unit 'furlong'"),
        ("channels", SMALL["channels"] + "M1,E2,interval,kWh,15,import,NaN,,,,true\n", "not a plain decimal number"),
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
