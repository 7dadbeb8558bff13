"""An agreement that is entered after its days were billed, with an account of another billing cycle: the account gets
its bill, whichever days of the period it is for, and who was billed before gets the money back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meter_pipeline.corrections.apply import approve, import_folder, request
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.defs.billing.assets import _statements
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.corrections.test_apply import employ
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, agreement

DAYS = [FIRST + timedelta(days=k) for k in range(6)]
#: A day of 24 kWh at 0.10
DAY = Decimal("2.4")


class TwoCycles(Town):
    """The register's account is billed in C2, of the same periods; at B stands a meter that no account pays for."""

    def begin(self) -> None:
        super().begin()
        self.refer(
            {
                "billing_cycles": [{"cycle_id": "C2", "period_start": a, "period_end": b} for a, b in PERIODS],
                "agreements": [agreement("R", cycle_id="C2")],
            }
        )

    def bills(self, days: Sequence[date]) -> None:
        """What the asset of statements does after each of some days."""
        here = SimpleNamespace(database=lambda: self.database, calendar=lambda: self.calendar, clock=lambda: self.clock)
        for day in days:
            report = _statements(here, day, "run")  # type: ignore[arg-type]  # what it asks of a municipality
            assert all(check.passed for check in report.checks), [check.description for check in report.checks]

    def enter(self, *agreements: dict[str, Any], issued: bool = False) -> None:
        """Agreements come late, by two people where they reach issued money: the days that they ask for are billed
        again, and each day's statements follow."""
        folder = self.folder_of({"agreements": agreements})
        if issued:
            employ(self.database)
            seen = preview_folder(self.database, self.calendar, folder, clock=self.clock)
            asked = request(self.database, seen.digest, by="ana", reason="a tenant", clock=self.clock)
            approve(self.database, asked.request_id, by="ben", reason="seen", clock=self.clock)
        else:
            import_folder(self.database, self.calendar, folder, clock=self.clock)
        self.bills(self.settle())

    def of(self, account: str) -> list[tuple[str, date, str]]:
        with self.database.connect() as connection:
            rows = connection.execute(
                "SELECT cycle_id, period_start, total::numeric(10, 2)::text FROM billing.statement WHERE account_id = %s ORDER BY 2",
                (account,),
            ).fetchall()
        return [(c, d, t) for c, d, t in rows]


def two_cycles(database: Database, folder: Path) -> TwoCycles:
    city = TwoCycles(database, folder)
    city.begin()
    return city


@pytest.mark.parametrize("stretch", [(1, 2), (1, 5)], ids=["its middle", "two"])
def test_an_account_of_another_cycle_that_came_late_is_billed(
    database: Database, tmp_path: Path, stretch: tuple[int, int]
) -> None:
    """No day of C2 is a period's last one where the stretch is in its middle, and no account of C2 waits."""
    city = two_cycles(database, tmp_path / "town")
    city.remove("agreements", ("SP-B", "2015-01-01"))
    for day in DAYS:
        city.days([day])
        city.bills([day])
    assert len(city.of("AC-A")) == len(city.of("AC-R")) == 2
    first, past = stretch
    city.enter(
        agreement(
            "X", service_point_id="SP-B", cycle_id="C2", valid_from=DAYS[first], valid_to=DAYS[0] + timedelta(past)
        )
    )
    wanted = [("C2", FIRST, min(past, 3) - first), ("C2", PERIODS[1][0], past - 3)]
    assert city.of("AC-X") == [(c, d, f"{DAY * n:.2f}") for c, d, n in wanted if n > 0]
    assert city.owed()["AC-X"] == DAY * (past - first)
    held = city.law(DAYS[0], DAYS[-1] + timedelta(days=1))
    assert held.ok, held.open


def test_days_that_go_to_a_late_account_of_another_cycle_leave_the_bill_they_stood_on(
    database: Database, tmp_path: Path
) -> None:
    """A tenant of two days was not known: who was billed for them gets 4.80 back, the tenant's bill is 4.80."""
    city = two_cycles(database, tmp_path / "town")
    for day in DAYS:
        city.days([day])
        city.bills([day])
    assert city.owed()["AC-B"] == 6 * DAY
    city.enter(
        agreement("B", valid_to=DAYS[0]),
        agreement("X", service_point_id="SP-B", cycle_id="C2", valid_from=DAYS[0], valid_to=DAYS[2]),
        agreement("B", valid_from=DAYS[2]),
        issued=True,
    )
    for adjustment, _ in city.waiting_adjustments():
        city.decide(adjustment, approve=True)
    assert city.of("AC-X") == [("C2", FIRST, "4.80")]
    assert city.owed() == {"AC-A": 6 * DAY, "AC-B": 4 * DAY, "AC-R": Decimal(6), "AC-X": 2 * DAY}
    held = city.law(DAYS[0], DAYS[-1] + timedelta(days=1))
    assert held.ok, held.open
