"""A corrected tariff document promises: it takes the place of the wrong one on the same days as its next version, with
its money previewed and approved by two people; what was billed with the wrong one stays as it was."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections.apply import approve, import_folder, request
from meter_pipeline.corrections.as_known import reference_rows
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.corrections.reproduce import reproduce
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import ReferenceRefused
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, town
from meter_pipeline_tests.lives.model import Rates
from meter_pipeline_tests.lives.prices import document

DAYS = [FIRST + timedelta(days=k) for k in range(6)]
ROW = {"tariff_id": "E-FLAT", "commodity": "electricity", "valid_from": date(2015, 1, 1), "document": "flat.json"}


def published(city: Town, version: int, rate: str, **more: Any) -> Path:
    """A folder with one version of the flat tariff."""
    folder = city.folder_of({"tariffs": [ROW | {"version": version} | more]})
    (folder / "tariffs").mkdir()
    body = document("E-FLAT", Rates(Decimal(0), ((None, Decimal(rate)),)))
    (folder / "tariffs" / "flat.json").write_text(json.dumps(body))
    return folder


def test_a_wrong_price_is_corrected_for_all_of_its_days(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    city.days(DAYS)
    city.issue("C1", PERIODS[0][1])
    with pytest.raises(ReferenceRefused, match="give its row the next version number and the same dates"):
        import_folder(database, city.calendar, published(city, 1, "0.12"), clock=city.clock)
    employ(database)
    corrected = published(city, 2, "0.12")
    seen = preview_folder(database, city.calendar, corrected, clock=city.clock)
    assert (seen.document["days"], seen.document["service_points"], seen.issued) == (6, 3, True)
    assert {a["account_id"]: (a["old"], a["new"]) for a in seen.document["money"]["accounts"]} == {
        "AC-A": ("14.40", "17.28"),
        "AC-B": ("14.40", "17.28"),
        "AC-R": ("6.00", "7.20"),
    }
    with pytest.raises(ReferenceRefused, match="two people"):
        import_folder(database, city.calendar, corrected, clock=city.clock)
    asked = request(database, seen.digest, by="ana", reason="the council's sheet says 0.12", clock=city.clock)
    assert approve(database, asked.request_id, by="ben", reason="sheet seen", clock=city.clock).days == DAYS
    city.settle()
    for _, adjustment in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    city.issue("C1", PERIODS[1][1])
    assert city.owed() == {"AC-A": Decimal("17.28"), "AC-B": Decimal("17.28"), "AC-R": Decimal("7.2")}
    assert city.law(FIRST, PERIODS[1][1]).ok
    names = [f"AC-A.C1.{first:%Y%m%d}.0" for first, _ in PERIODS]
    assert [reproduce(database, city.calendar, name).identical for name in names] == [True, True]
    then, now = (reference_rows(database, f"{name}.1")["rows"]["tariffs"] for name in names)
    assert ([row["version"] for row in then], [row["version"] for row in now]) == ([1], [2])
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ref.tariff_document WHERE tariff_id = 'E-FLAT'") == 2
    assert import_folder(database, city.calendar, corrected, clock=city.clock).days == []


def test_a_version_on_other_days_takes_no_place(database: Database, tmp_path: Path) -> None:
    city = town(database, tmp_path / "town")
    for more in ({"valid_from": FIRST}, {"valid_to": DAYS[2]}):
        with pytest.raises(ReferenceRefused, match="in force at the same time"):
            import_folder(database, city.calendar, published(city, 2, "0.12", **more), clock=city.clock)
