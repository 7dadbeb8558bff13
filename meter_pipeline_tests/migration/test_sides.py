"""Each side promises: what is delivered twice is there once, the last words on a bill are what stands, and legacy can
read its own layout back."""

from __future__ import annotations

import sqlite3
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.migration import put_stage
from meter_pipeline.migration import dual_write, sides
from meter_pipeline.migration.dual_write import Record
from meter_pipeline.migration.sides import LegacyFolder, LegacyTable, OurCopy
from meter_pipeline.postgres.database import Database
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.migration.legacy_batch import LegacyBatch

DAY = date(2026, 11, 6)


def bill(account: str, cents: int) -> Record:
    figures = [["line", "SP-1:BASIC", cents * 10_000, False, 1], ["total", "total", cents * 10_000, False, None]]
    return Record(DAY, account, {"figures": figures})


def test_a_bill_changed_and_changed_back_reaches_legacy_each_time(database: Database, tmp_path: Path) -> None:
    """A, B, A: the outbox keeps all three, the folder ends at A, and a delivery nobody noted changes nothing."""
    put_stage(database, "live", 10_000)
    folder = LegacyFolder(tmp_path / "to_legacy")
    for cents in (100, 200, 200, 100):
        with database.connect() as connection:
            dual_write.write(connection, [(bill("A-1", cents), None)])
        dual_write.deliver_all(database, {"legacy": folder})
    assert len(list(folder.folder.glob("*.csv"))) == 3
    folder([bill("A-1", 100)])
    assert len(list(folder.folder.glob("*.csv"))) == 3, "the same batch again is recognised"
    assert Decimal(folder.figures()[str(DAY), "A-1"][1][2]) == 1


@pytest.mark.parametrize("account", [f"A-{n}" for n in range(4)])
def test_a_delivery_that_died_half_noted_never_stands_over_a_newer_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: str
) -> None:
    """The file was there and its number was not: the next batch, with more in it, came under the same number, and
    legacy read the two in the order of their hashes."""
    folder = LegacyFolder(tmp_path)
    folder([bill(account, 50)])
    put = sides._put
    with monkeypatch.context() as patch:

        def dying(path: Path, text: str) -> None:
            if path.name == ".last":
                raise OSError("the process died")
            put(path, text)

        patch.setattr(sides, "_put", dying)
        with pytest.raises(OSError, match="died"):
            folder([bill(account, 100)])
    folder([bill(account, 100), bill(account, 175)])
    assert Decimal(folder.figures()[str(DAY), account][1][2]) == Decimal("1.75")
    assert len(list(tmp_path.glob("*.csv"))) == 3
    folder([bill(account, 175)])
    assert len(list(tmp_path.glob("*.csv"))) == 3


def test_legacy_takes_our_bills_over_from_the_folder(tmp_path: Path) -> None:
    """The reverse sync ends in the legacy batch's own tables: after it, it has each bill to the cent."""
    simulate(Spec(meters=4, days=1, start=DAY, seed=1, defects=False), tmp_path / "city")
    batch = LegacyBatch(tmp_path / "city", tmp_path / "legacy.sqlite")
    folder = LegacyFolder(tmp_path / "to_legacy")
    folder([bill("A-1", 100), bill("A-2", 250)])
    folder([bill("A-1", 175)])
    assert batch.take_over(folder.folder) == 6
    held = {
        account: {code: Decimal(value) for _, code, value in figures} for account, figures in batch.bills(DAY).items()
    }
    batch.close()
    one, two = Decimal("1.75"), Decimal("2.50")
    assert held == {"A-1": {"SP-1:BASIC": one, "total": one}, "A-2": {"SP-1:BASIC": two, "total": two}}
    assert sqlite3.connect(tmp_path / "legacy.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_table_of_legacy_holds_the_last_words_once(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(
            "CREATE SCHEMA legacy; CREATE TABLE legacy.bill (billing_day date, account_id text, level text, code text, value numeric, "
            "estimated boolean, tariff_version integer)"
        )
    table = LegacyTable(database, "legacy.bill")
    for _ in range(2):
        table([bill("A-1", 100), bill("A-1", 175), bill("A-2", 250)])
    found = database.read("SELECT account_id, value::text AS value FROM legacy.bill WHERE level = 'total' ORDER BY 1")
    assert [(account, Decimal(value)) for account, value in found.iter_rows()] == [
        ("A-1", Decimal("1.75")),
        ("A-2", Decimal("2.5")),
    ]


def test_what_legacy_bills_is_kept_here(database: Database) -> None:
    put_stage(database, "dual_write")
    with database.connect() as connection:
        dual_write.write(connection, [(bill("A-1", 100), None), (bill("A-2", 5), None)])
    dual_write.deliver_all(database, {"new": OurCopy(database)})
    kept = database.read(
        "SELECT account_id, (payload->'figures'->1->>2)::bigint AS total FROM migration.customer_bill ORDER BY 1"
    )
    assert kept.rows() == [("A-1", 1_000_000), ("A-2", 50_000)]
