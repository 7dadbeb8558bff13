"""Previews promise: the figures of a correction are exact before it is made, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.one_transaction import OneTransaction, undone
from meter_pipeline.vee.part_of_day import touched_since
from meter_pipeline.vee.tables import usage_history
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, agreement, channel, town

DAYS = [FIRST + timedelta(days=k) for k in range(6)]


@contextmanager
def each_day_reads_for_itself(database: Database, application_name: str) -> Iterator[OneTransaction]:
    """As ``undone``, of a transaction that remembers nothing of what it read."""
    with undone(database, application_name) as tried:
        yield replace(tried, memory=None)


def everything(database: Database) -> dict[str, Any]:
    """Every row of every table of the pipeline, but sequences and the kept previews."""
    with database.connect() as connection:
        names = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('ref', 'raw', 'vee', 'billing', 'ledger', 'anomaly') "
            "AND tablename <> 'correction' ORDER BY 1"
        ).fetchall()
        return {n: connection.execute(f"SELECT t::text FROM {n} AS t ORDER BY 1".encode()).fetchall() for (n,) in names}


@pytest.mark.parametrize("alone", [False, True])
def test_a_ratio_is_previewed_to_the_cent_and_comes_out_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """``alone``: the corrected service point is judged and billed alone, as in a city that is large enough."""
    if alone:
        monkeypatch.setattr("meter_pipeline.vee.part_of_day.LEAST_ROWS", 0)
        monkeypatch.setattr("meter_pipeline.vee.part_of_day.LARGEST_SHARE", 1)
    city = town(database, tmp_path / "town")
    city.days(DAYS[:4])
    city.issue("C1", PERIODS[0][1])
    assert city.owed()["AC-R"] == Decimal(4)  # 4 days x 10 kWh x 0.10
    before = everything(database)
    folder = city.folder_of({"channels": [channel("R", 20)]})
    made = preview_folder(database, city.calendar, folder, clock=city.clock)
    assert everything(database) == before
    found = made.document
    assert found["changes"] == [
        {
            "table": "channels",
            "key": "MR R1",
            "column": "multiplier",
            "old": Decimal("1.000000"),
            "new": Decimal("20.000000"),
            "valid_from": None,
        }
    ]
    assert (found["days"], found["service_points"]) == (4, 1)
    assert found["statements"] == {"open": 1, "issued": 1, "sealed_months": []}
    assert found["money"]["accounts"] == [{"account_id": "AC-R", "old": "4.00", "new": "80.00", "difference": "76.00"}]
    assert made.issued
    other = city.folder_of({"channels": [channel("R", 5)]})
    with ThreadPoolExecutor(2) as people:  # two previews at once: each as if it were alone
        both = people.map(lambda f: preview_folder(database, city.calendar, f, clock=city.clock), [folder, other])
        again, beside = both
    assert again.digest == made.digest
    assert beside.document["money"]["difference"] == "16.00"
    assert everything(database) == before
    done = import_folder(database, city.calendar, folder, clock=city.clock)
    assert done.days == DAYS[:4]
    city.settle()
    assert city.owed()["AC-R"] == Decimal(80)
    assert import_folder(database, city.calendar, folder, clock=city.clock).days == []


def test_a_preview_of_parts_of_days_is_that_of_whole_days(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of intervals and of a register, a register that intervals are held to and do not add up to, a tariff, a
    move and agreements that begin and end within the days: the same digest and money, whether services are worked out
    alone or with their city, and whether the days share what they read or each reads for itself."""
    city = town(database, tmp_path / "town")
    city.refer({"channels": [channel("R", meter_id="MA", channel="R1", billed=False)]})
    edges = [city.calendar.bounds(FIRST)[0], *(city.calendar.bounds(day)[1] for day in DAYS[:5])]
    city.read([("REGISTER-KWH", "MA", "R1", edge, str(30 * k), 1) for k, edge in enumerate(edges)])
    city.days(DAYS[:5])
    city.issue("C1", PERIODS[0][1])

    def value(meter: str, name: str, day: int, **said: Any) -> dict[str, Any]:
        return {"meter_id": meter, "channel": name, "valid_from": DAYS[day]} | said

    corrections = [
        {"channel_values": [value("MB", "E1", 1, multiplier=3)]},
        {"channel_values": [value("MB", "E1", 0, multiplier=2), value("MR", "R1", 2, multiplier=4)]},
        {"channel_values": [value("MA", "R1", 1, sums_to="E1")]},
        {"channels": [channel("R", 7), channel("R", meter_id="MA", channel="R1", billed=False, sums_to="E1")]},
        {"agreements": [agreement("A", tariff_id="E-DEAR"), agreement("R", account_id="AC-X")]},
        {"agreements": [agreement("B", valid_to=DAYS[2]), agreement("B", tariff_id="E-DEAR", valid_from=DAYS[3])]},
    ]
    folders = [city.folder_of(rows) for rows in corrections]
    whole = [preview_folder(database, city.calendar, folder, clock=city.clock) for folder in folders]
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LEAST_ROWS", 0)
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LARGEST_SHARE", 1)
    before = everything(database)
    for folder, made in zip(folders, whole, strict=True):
        alone = preview_folder(database, city.calendar, folder, clock=city.clock)
        assert (alone.document, alone.digest) == (made.document, made.digest)
        with monkeypatch.context() as changed:
            changed.setattr("meter_pipeline.corrections.preview.undone", each_day_reads_for_itself)
            apart = preview_folder(database, city.calendar, folder, clock=city.clock)
        assert (apart.document, apart.digest) == (made.document, made.digest)
    assert everything(database) == before
    # By hand: 4 days x 24 kWh x 2 more; 5 x 24 and 3 x 10 x 3; nothing; 5 x 10 x 6; 120 kWh x 0.20 and 3 + 2 fixed;
    # 48 kWh x 0.20 and 2 fixed, less 24 x 0.10 of the day that no account pays for.
    differences = ["19.20", "21.00", "0.00", "30.00", "29.00", "9.20"]
    assert [made.document["money"]["difference"] for made in whole] == differences


def test_a_whole_day_of_a_preview_sees_the_usage_that_parts_of_days_before_it_came_to(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts keep the entries of a day's block of usage back until somebody reads a block."""
    city = town(database, tmp_path / "town")
    city.days(DAYS[:5])
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LEAST_ROWS", 0)
    monkeypatch.setattr("meter_pipeline.vee.part_of_day.LARGEST_SHARE", 1)
    # The third day, and the last one, are run whole.
    monkeypatch.setattr(
        "meter_pipeline.corrections.preview.touched_since",
        lambda session, day: None if day in (DAYS[2], DAYS[4]) else touched_since(session, day),
    )
    read = usage_history.read_usage_history
    seen: dict[date, list[tuple[str, int | None]]] = {}

    def looked_at(session: Database, first: date, last: date) -> usage_history.UsageHistory:
        found = read(session, first, last)
        for day, name, quantity in zip(found.days, found.hashes, found.quantity, strict=True):
            stored = session.read(
                "SELECT service_point_id, quantity_micro FROM vee.daily_usage WHERE billing_day = $1 "
                'ORDER BY service_point_id, flow COLLATE "C", unit COLLATE "C"',
                (day,),
            ).rows()
            assert list(zip(found.keys[name]["service_point_id"], quantity.tolist(), strict=True)) == stored
            seen[day] = stored
        return found

    monkeypatch.setattr("meter_pipeline.vee.streaming.usage_history.read_usage_history", looked_at)
    made = preview_folder(database, city.calendar, city.folder_of({"channels": [channel("R", 20)]}), clock=city.clock)
    assert made.document["money"]["difference"] == "95.00"
    assert {day: dict(rows)["SP-R"] for day, rows in seen.items()} == dict.fromkeys(DAYS[:4], 200 * 10**6)
