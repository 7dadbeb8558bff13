"""Record time promises: nothing is overwritten, what was known at an instant is read back, each changed row is a leaf
of the ledger."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import ReferenceRefused, history, import_folder
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline_tests.reference.rows import end_row, remove_row
from meter_pipeline_tests.reference.test_importing import AGREEMENTS, SMALL, document, folder

RATIO_TEN = SMALL["channels"].replace("import,1,6", "import,10,6")


def sets(database: Database) -> list[tuple[datetime, int, str]]:
    with database.connect() as connection:
        return connection.execute("SELECT known_from, rows, made_by FROM ref.change_set ORDER BY known_from").fetchall()


def multipliers(database: Database, instant: datetime) -> list[str]:
    return [str(row["multiplier"].normalize()) for row in history.rows_as_of(database, "channels", instant)]


def test_a_changed_row_keeps_what_was_known_before_and_the_ledger_has_a_leaf_for_each_row(
    database: Database, tmp_path: Path
) -> None:
    import_folder(database, folder(tmp_path))
    import_folder(database, folder(tmp_path, channels=RATIO_TEN), by="ana", why="the nameplate says 10")
    (first, rows, _), (second, corrected, by) = sets(database)
    assert rows == 2 + 2 + 1 + 2 + 1 + 1 + 1 + 1, "each row, the tariff document, and the spelling of an id"
    assert (corrected, by) == (1, "ana")
    assert multipliers(database, first - timedelta(microseconds=1)) == []
    assert multipliers(database, first) == ["1", "1"]
    assert multipliers(database, second - timedelta(microseconds=1)) == ["1", "1"]
    assert multipliers(database, second) == ["1", "1E+1"]
    with database.connect() as connection:
        count, leaf = connection.execute(
            "SELECT leaf_count, leaves FROM ledger.entry JOIN ref.change_set ON ledger_entry = entry_id WHERE known_from = %s",
            (second,),
        ).fetchone() or (0, b"")
        table, old, new, now = connection.execute("SELECT * FROM ref.changes_at(%s)", (second,)).fetchone() or ()
    assert (count, bytes(leaf)) == (1, bytes(now))
    assert (table, old["multiplier"], new["multiplier"]) == ("channels", 1, 10)


def test_the_same_import_again_writes_nothing(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    before = everything(database)
    import_folder(database, folder(tmp_path))
    assert everything(database) == before


def everything(database: Database) -> list[Any]:
    with database.connect() as connection:
        return [
            connection.execute(f"SELECT t::text FROM {name} AS t ORDER BY 1".encode()).fetchall()
            for name in ("ref.change_set", "ref.import", "ledger.entry", *(f"ref.{t}" for t in TABLES))
        ]


def test_a_row_ended_or_taken_out_stays_known_as_of_before(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    end_row(database, "agreements", ["SP1", "2026-06-01"], "2026-07-01", by="ana", why="moved out")
    remove_row(database, "installations", ["M1", "2026-01-01T06:00:00Z"], by="ben", why="typed twice")
    (first, *_), (ended, *_), (removed, _, by) = sets(database)
    assert [r["valid_to"] for r in history.rows_as_of(database, "agreements", first)] == [date(2026, 6, 1), None]
    assert history.rows_as_of(database, "agreements", ended)[1]["valid_to"] == date(2026, 7, 1)
    assert len(history.rows_as_of(database, "installations", ended)) == 1
    assert (history.rows_as_of(database, "installations", removed), by) == ([], "ben")


def test_a_row_whose_start_was_corrected_is_one_change(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    moved = SMALL["agreements"].replace("2026-06-01", "2026-05-28")
    rows, documents = read(folder(tmp_path, agreements=moved))
    with database.connect() as connection:
        from meter_pipeline.reference.importing import write_rows

        write_rows(connection, rows, documents, "folder")
        found = history.changes(connection)
        connection.rollback()
    assert [(c.table, c.key, c.columns, c.starts) for c in found] == [
        ("agreements", ("SP1", "2026-01-01"), ("valid_to",), "2026-01-01"),
        ("agreements", ("SP1", "2026-06-01"), ("valid_from",), "2026-05-28"),
    ]


def read(made: Path) -> Any:
    from meter_pipeline.reference import read_folder

    return read_folder(made)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ref.channels_version SET multiplier = 2",
        "DELETE FROM ref.channels_version",
        "TRUNCATE ref.channels_version",
        "TRUNCATE ref.channels CASCADE",
    ],
)
def test_what_was_known_is_never_changed(database: Database, tmp_path: Path, statement: str) -> None:
    import_folder(database, folder(tmp_path))
    import_folder(database, folder(tmp_path, channels=RATIO_TEN))
    with pytest.raises(psycopg.errors.RaiseException, match="never changed"), database.connect() as connection:
        connection.execute(statement.encode())


def test_a_row_changed_behind_the_import_is_found(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    import_folder(database, folder(tmp_path, channels=RATIO_TEN))
    with database.connect() as connection:
        assert history.unproven(connection) == []
        connection.execute("UPDATE ref.channels SET multiplier = 3 WHERE meter_id = 'M2'")
        connection.commit()
        assert [why for _, why in history.unproven(connection)] == ["rows changed without a ledger entry"]
        connection.execute("SET session_replication_role = replica")  # a superuser past the triggers
        connection.execute("UPDATE ref.meters SET head_end = 'OTHER' WHERE meter_id = 'M1'")
        connection.commit()
        assert len(history.unproven(connection)) == 2


def snapshot(share: str, *tables: str) -> Snapshot:
    day = date(2026, 9, 1)
    return Snapshot(frozenset(tables), day, datetime(2026, 9, 1, 5, tzinfo=UTC), Decimal(share))


def test_a_snapshot_ends_what_is_not_in_it_and_is_refused_where_too_much_is_missing(
    database: Database, tmp_path: Path
) -> None:
    import_folder(
        database,
        folder(tmp_path, agreements=SMALL["agreements"] + "A1,SP2,T1,C1,2026-01-01,\nA1,SP3,T1,C1,2026-10-01,\n"),
    )
    part = folder(tmp_path, agreements=AGREEMENTS + "A1,SP1,T1,C1,2026-06-01,\n")
    with pytest.raises(ReferenceRefused, match="would end 2 of 3 rows; if it is whole, import it with --confirm-ended"):
        import_folder(database, part, snapshot=snapshot("0.05", "agreements"))
    import_folder(database, part, snapshot=snapshot("1", "agreements"))
    rows = history.rows_as_of(database, "agreements", sets(database)[-1][0])
    assert [(r["service_point_id"], str(r["valid_from"]), str(r["valid_to"])) for r in rows] == [
        ("SP1", "2026-01-01", "2026-06-01"),  # ended before: a full export may leave it out
        ("SP1", "2026-06-01", "None"),
        ("SP2", "2026-01-01", "2026-09-01"),
    ], "one that begins after the snapshot is taken out"


def test_a_snapshot_of_rows_without_an_end_takes_them_out(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    part = folder(tmp_path, channels="\n".join(SMALL["channels"].splitlines()[:2]) + "\n")
    import_folder(database, part, snapshot=snapshot("0.5", "channels"))
    assert [r["meter_id"] for r in history.rows_as_of(database, "channels", sets(database)[-1][0])] == ["M1"]
    (part / "channels.csv").unlink()
    with pytest.raises(ReferenceRefused, match=r"channels.csv.*a snapshot needs the table's file"):
        import_folder(database, part, snapshot=snapshot("0.5", "channels"))


def test_record_times_only_grow_and_one_transaction_has_one(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    with database.connect() as connection:
        connection.execute("UPDATE ref.change_set SET known_from = known_from + interval '1 hour'")
        connection.execute("UPDATE ref.meters SET model = 'X'")
        connection.execute("UPDATE ref.meters SET model = 'Y'")
        connection.execute("DELETE FROM ref.installations")
        found = {
            t
            for (t,) in connection.execute(
                "SELECT known_from FROM ref.meters UNION SELECT known_until FROM ref.installations_version"
            )
        }
        later = scalar(connection, "SELECT max(known_from) FROM ref.change_set")
        assert len(found) == 1
        assert found.pop() > later
        assert scalar(connection, "SELECT count(*) FROM ref.meters_version") == 2, "the state between is no version"


def test_a_document_under_a_version_nothing_was_billed_with_keeps_its_old_text(
    database: Database, tmp_path: Path
) -> None:
    import_folder(database, folder(tmp_path))
    made = folder(tmp_path)
    (made / "tariffs" / "t1.json").write_text(document("0.2"))
    import_folder(database, made)
    first, second = (t for t, *_ in sets(database))
    rate = [
        history.rows_as_of(database, "tariff_document", t)[0]["body"]["energyratestructure"][0][0]["rate"]
        for t in (first, second)
    ]
    assert [str(r) for r in rate] == ["0.12345678901234568", "0.2"]


@pytest.mark.parametrize("table", [*TABLES, "tariff_document"])
def test_every_table_keeps_every_column_of_its_versions(database: Database, table: str) -> None:
    """On a new table or column: its migration calls ref.keep_history(table)."""
    with database.connect() as connection:
        columns = connection.execute(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attname) FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
            "WHERE c.relnamespace = 'ref'::regnamespace AND c.relname::text IN (%(t)s::text, %(t)s::text || '_version') AND a.attnum > 0 AND NOT a.attisdropped "
            "GROUP BY 1 ORDER BY 1",
            {"t": table},
        ).fetchall()
    (_, now), (_, kept) = columns
    assert set(kept) == {*now, "known_until"}
    assert history.rows_as_of(database, table, datetime.now(UTC)) == []


def test_a_column_added_later_changes_no_leaf_from_before(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    with database.connect() as connection:
        connection.execute("ALTER TABLE ref.channels ADD COLUMN accuracy numeric DEFAULT 0.5")
        connection.execute("SELECT ref.keep_history('channels')")
        connection.commit()
        assert history.unproven(connection) == []
    import_folder(database, folder(tmp_path, channels=RATIO_TEN))
    with database.connect() as connection:
        assert history.unproven(connection) == []
        connection.execute("SET session_replication_role = replica")
        # The row of the first import: its leaf is from before the column, which nothing holds there.
        connection.execute("UPDATE ref.channels SET accuracy = 2 WHERE meter_id = 'M1'")
        assert history.unproven(connection) == []
        connection.execute("UPDATE ref.channels SET accuracy = 2 WHERE meter_id = 'M2'")
        assert [why for _, why in history.unproven(connection)] == ["ref.channels M2 R"]


def test_leaves_of_entries_that_name_no_columns_are_over_those_their_tables_had(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter_pipeline.ledger.reference_rows.body_of_changes", lambda _: {})
    import_folder(database, folder(tmp_path))
    monkeypatch.undo()
    with database.connect() as connection:
        connection.execute("ALTER TABLE ref.channels ADD COLUMN accuracy numeric DEFAULT 0.5")
        connection.execute("SELECT ref.keep_history('channels')")
        assert history.unproven(connection) == []


def test_a_session_in_another_time_zone_computes_the_same_leaves(database: Database, tmp_path: Path) -> None:
    import_folder(database, folder(tmp_path))
    with database.connect() as connection:
        connection.execute("SET TimeZone = 'America/Chicago'")
        assert history.unproven(connection) == []
