"""The product as a life sees it: reference imports, files in the inbox, the stages of a day, statements, decisions.

The one module of this room that names the product's functions.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from meter_pipeline.anomalies import queue
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide, request
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.tables.released_bills import released_bills
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ingest import ingest_billing_day, land_inbox, waiting_days
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.importing import import_rows
from meter_pipeline.revenue_assurance.law import law_of_days
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.settings import Settings
from meter_pipeline.vee import register_edits, validate_billing_day
from meter_pipeline.vee.tables.true_up import waiting as true_ups_waiting
from meter_pipeline_tests.lives.model import Rates
from meter_pipeline_tests.lives.prices import document
from meter_pipeline_tests.reference.rows import remove_row
from meter_pipeline_tests.support import FixedClock

_HEAD_END = """name = "{name}"
format = "delimited"
commodity = "{commodity}"
kind = "{kind}"
unit = "{unit}"
{minutes}
[columns]
meter_id = "m"
channel = "c"
time = "t"
value = "v"
source_version = "ver"
"""
_UNITS = {"KWH": ("electricity", "kWh"), "GAL": ("water", "gal"), "M3": ("water", "m3")}
_ZONE = "America/Chicago"


@dataclass
class City:
    """A utility with a database of its own. ``stopped``: joints that were open, and so would have stopped a day for
    everybody, with the first day."""

    database: Database
    folder: Path
    stopped: dict[str, date] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data = self.folder / "data"
        (data / "head_ends").mkdir(parents=True)
        (data / "utility.toml").write_text(
            f'name = "Lives"\nzone = "{_ZONE}"\ncurrency = "USD"\nfirst_billing_day = "2026-01-01"\n'
        )
        for kind in ("interval", "register"):
            for key, (commodity, unit) in _UNITS.items():
                name = f"{kind}-{key}".upper()
                minutes = "interval_minutes = 60" if kind == "interval" else ""
                text = _HEAD_END.format(name=name, kind=kind, commodity=commodity, unit=unit, minutes=minutes)
                (data / "head_ends" / f"{name.lower()}.toml").write_text(text)
                (data / "inbox" / name).mkdir(parents=True)
        self.settings = Settings(self.folder / "home", data, data / "inbox", self.database.url)
        self.settings.home.mkdir()
        self.calendar = BillingCalendar(_ZONE)
        self.clock = FixedClock(datetime(2026, 2, 20, 12, tzinfo=UTC))
        self.files = 0
        self.zone = _ZONE

    # what arrives

    def refer(
        self, rows: Mapping[str, Sequence[Mapping[str, Any]]], documents: Mapping[tuple[str, int], bytes] | None = None
    ) -> None:
        """Import reference rows given by column; a later row of a key replaces an earlier one."""
        given: dict[str, list[tuple[Any, ...]]] = {}
        for name, table in TABLES.items():
            if name in rows:
                last = {tuple(r[c] for c in table.key): r for r in rows[name]}
                given[name] = [tuple(r.get(c) for c in table.columns) for r in last.values()]
        import_rows(self.database, given, dict(documents or {}), "lives")

    def tariffs(self, versions: Mapping[str, Sequence[Rates]], first: date) -> None:
        """Import every version of some tariffs; a version ends where the next begins. ``first``: the day numbered 0."""
        rows, documents = [], {}
        for tariff_id, several in versions.items():
            for k, rates in enumerate(several):
                begins = date(2015, 1, 1) if k == 0 else first + timedelta(days=rates.first_day)
                ends = first + timedelta(days=several[k + 1].first_day) if k + 1 < len(several) else None
                body = document(tariff_id, rates)
                rows.append(
                    {
                        "tariff_id": tariff_id,
                        "commodity": body["commodity"],
                        "version": k + 1,
                        "valid_from": begins,
                        "valid_to": ends,
                        "document": f"{tariff_id.lower()}-v{k + 1}.json",
                    }
                )
                documents[tariff_id, k + 1] = json.dumps(body).encode()
        self.refer({"tariffs": rows}, documents)

    def read(self, reads: Iterable[tuple[str, str, str, datetime, str, int]]) -> None:
        """Files of reads (head-end, meter, channel, instant, value, version) into the inbox, landed."""
        frame = pl.DataFrame(
            list(reads),
            schema={
                "h": pl.String,
                "m": pl.String,
                "c": pl.String,
                "t": pl.Datetime("us", "UTC"),
                "v": pl.String,
                "ver": pl.Int64,
            },
            orient="row",
        )
        for (head_end,), part in frame.group_by("h"):
            self.files += 1
            path = self.settings.inbox / str(head_end) / f"{self.files:04}.csv"
            part.drop("h").with_columns(pl.col("t").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)
            os.utime(path, (time.time() - 60,) * 2)
        if frame.height:
            land_inbox(self.database, self.calendar, self.settings)

    def edits(self, made: Sequence[tuple[str, str, date, int, int]], withdrawn: Sequence[str]) -> None:
        """Edits as the command writes them (meter, channel, day, slot from 1, value in millionths); withdrawals by
        meter.
        """
        now = self.clock.now()
        with self.database.connect("lives") as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO vee.edit (billing_day, meter_id, channel, interval_minutes, first_slot, values, rules, rules_version, reason, "
                "edited_by, edited_at) VALUES (%s, %s, %s, 60, %s, %s, '{}', 1, 'read on site', 'ana', %s)",
                [(day, meter, channel, slot, [value], now) for meter, channel, day, slot, value in made],
            )
            cursor.execute(
                "UPDATE vee.edit SET withdrawn_by = 'ben', withdrawn_at = %s WHERE meter_id = ANY(%s) AND withdrawn_at IS NULL",
                (now, list(withdrawn)),
            )

    def read_edits(self, made: Sequence[tuple[str, str, datetime, str]], withdrawn: Sequence[str]) -> None:
        """A person's reads in the place of registers' (meter, channel, instant, dial); withdrawals, by meter, come
        first.
        """
        standing = self.database.read(
            "SELECT edit_id, meter_id FROM vee.register_edit WHERE withdrawn_at IS NULL ORDER BY 1"
        )
        for number, meter in standing.iter_rows():
            if meter in set(withdrawn):
                register_edits.withdraw(self.database, self.calendar, number, by="ben", clock=self.clock)
        for meter, channel, at, shown in made:
            dial = register_edits.dial_micro(self.database, meter, channel, shown)
            register_edits.edit_read(
                self.database,
                self.calendar,
                meter,
                channel,
                at,
                dial,
                reason="read on site",
                by="ana",
                clock=self.clock,
            )

    def remove(self, table: str, key: Sequence[str]) -> None:
        """A person takes a reference row out."""
        remove_row(self.database, table, list(key), by="ana", why="entered wrong")

    def release(self, service_points: Sequence[str] | None) -> None:
        """A person releases what holds the bills of some service points, or of all."""
        query = "SELECT DISTINCT case_id, service_point_id FROM anomaly.bill_hold ORDER BY 1"
        held = [
            c for c, point in self.database.read(query).iter_rows() if service_points is None or point in service_points
        ]
        if held:
            with self.database.connect("lives") as connection:
                queue.decide(
                    connection, {"case_id": held}, "dismissed", by="carol", reason="seen on site", clock=self.clock
                )

    # what the product does

    def load(self, days: Iterable[date]) -> None:
        """Load what has landed of some days."""
        for day in days:
            self._ingest(day)

    def run_day(self, day: date, *, bill: bool = True) -> None:
        """The stages of a day, as the assets call them."""
        self._ingest(day)
        if not bill:
            return
        began = time.monotonic()
        validate_billing_day(self.database, self.calendar, day, clock=self.clock)
        self._watch("validate", began)
        began = time.monotonic()
        done = bill_billing_day(self.database, self.calendar, day, clock=self.clock)
        self._watch("bill", began)
        for joint, cause, detail in done.reconciliation.select("joint", "cause", "detail").iter_rows():
            if cause == "open":
                self.stopped.setdefault(f"{joint}: {detail}", day)

    def _ingest(self, day: date) -> None:
        began = time.monotonic()
        ingest_billing_day(self.database, self.calendar, day, settings=self.settings, clock=self.clock)
        self._watch("ingest", began)

    def _watch(self, what: str, began: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0) + time.monotonic() - began

    def settle(self) -> list[date]:
        """Days that wait for reads or true-ups, until none asks; each request once."""
        tried: set[Any] = set()
        ran: list[date] = []
        while True:
            asked: set[Any] = {(day, e) for day, evidence in true_ups_waiting(self.database) for e in evidence}
            asked |= {(day, str(n)) for day, n in waiting_days(self.database)}
            if not asked - tried:
                return ran
            days = sorted({day for day, _ in asked - tried})
            tried |= asked
            for day in days:
                self.run_day(day)
            ran += days

    def released_days(self) -> list[date]:
        """Days that are asked for because bills or corrections are held no more."""
        return [day for day, _ in released_bills(self.database)]

    def issue(self, cycle: str, period_end: date) -> None:
        began = time.monotonic()
        issue_statements(self.database, self.calendar, cycle, period_end, clock=self.clock)
        self._watch("issue", began)

    def seal(self, month: date) -> None:
        """Seal a month as two people would, whatever its checklist says: a life may be sealed at any moment."""
        with self.database.connect("lives") as connection:
            connection.execute(
                "INSERT INTO billing.period (month, status, requested_by, requested_at, checklist, approved_by, sealed_at, control_totals, "
                "totals_sha256) VALUES (%s, 'sealed', 'ana', %s, '[]', 'ben', %s, '{}', %s)",
                (month, self.clock.now(), self.clock.now(), bytes(32)),
            )

    def waiting_adjustments(self) -> list[tuple[str, str]]:
        """Adjustments that wait for a decision: account and id."""
        frame = self.database.read(
            "SELECT account_id, adjustment_id FROM billing.adjustment WHERE status = 'requested' ORDER BY 2"
        )
        return list(frame.iter_rows())

    def decide(self, adjustment_id: str, approve: bool) -> None:
        decide(self.database, adjustment_id, approve=approve, person="carol", clock=self.clock)

    def refused_statements(self) -> list[str]:
        frame = self.database.read(
            "SELECT DISTINCT statement_id FROM billing.adjustment WHERE status = 'refused' ORDER BY 1"
        )
        return [str(s) for s in frame["statement_id"]]

    def ask(self, statement_id: str) -> None:
        request(
            self.database,
            self.calendar,
            statement_id,
            reason="correction",
            evidence="asked again",
            requested_by="ana",
            clock=self.clock,
        )

    def law(self, first: date, past: date) -> Any:
        return law_of_days(self.database, first, past)

    def paid(self) -> dict[tuple[str, str, date], Decimal]:
        """What the statements and the posted adjustments of them come to, by account, cycle and period."""
        frame = self.database.read(
            "SELECT s.account_id, s.cycle_id, s.period_start, (sum(s.total) + coalesce(sum(a.net), 0))::text AS paid FROM billing.statement AS s "
            "LEFT JOIN (SELECT statement_id, sum(net) AS net FROM billing.adjustment WHERE status = 'posted' GROUP BY 1) AS a USING (statement_id) "
            "GROUP BY 1, 2, 3"
        )
        return {(a, c, p): Decimal(t) for a, c, p, t in frame.iter_rows()}
