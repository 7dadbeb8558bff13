"""A bill shows what its customer can check: reads with dates and multiplier, quantity times rate, days, earlier use,
messages and a due date; the PDF and the print vendor's files hold the same bills."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_document import bill_documents
from meter_pipeline.billing.bill_pdf import write_pdf
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.bill_settings import BillSettings, BillSettingsError, Message, read_bill_settings
from meter_pipeline.billing.print_run import print_period
from meter_pipeline.billing.render import bill_page
from meter_pipeline.page_formats import formats
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_intervals,
)

ZONE = "America/Chicago"
US = formats("en_US")
MIDDLE, END = JULY + timedelta(days=2), JULY + timedelta(days=4)
SETTINGS = BillSettings(
    due_days=20,
    pay_to=("Springfield", "1 Main Street"),
    contact="Questions: 555-0100",
    messages=(
        Message("Office closed on 4 July"),
        Message("Water main work", commodity="water"),
        Message("Too old", last=JULY),
    ),
)


def read_at(database: Database, when: datetime, dial: str) -> None:
    """A register read of meter M-1 in kWh."""
    day = (when - timedelta(hours=5, seconds=1)).date()
    with database.connect() as connection:
        connection.execute("SELECT raw.open_partition('raw.register_read', %s)", (day,))
        connection.execute("SELECT raw.attach_partition('raw.register_read', %s)", (day,))
        connection.execute(
            "INSERT INTO raw.register_read (read_at, value, source_version, billing_day, sequence, quality, meter_id, channel, unit, head_end, "
            "payload_hash, idempotency_key) VALUES (%s, %s, 1, %s, 1, 0, 'M-1', 'R1', 'kWh', 'HE', %s, %s)",
            (
                when,
                int(Decimal(dial) * 10**6),
                day,
                hashlib.sha256(dial.encode()).digest(),
                hashlib.sha256(str(when).encode()).digest(),
            ),
        )


@pytest.fixture
def bills(database: Database) -> list[dict[str, Any]]:
    """Two periods of a service whose register (multiplier 10) was read at their bounds; the days are marked as
    estimates, as days between two dials are."""
    add_tariff(database, native())
    add_cycle(database, JULY, MIDDLE, END)
    point = add_service(database, 1)
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES ('M-1', 'electricity', 'HE')")
        connection.execute(
            "INSERT INTO ref.installations (service_point_id, meter_id, installed_at) VALUES (%s, 'M-1', '2020-01-01')",
            (point,),
        )
        connection.execute(
            "INSERT INTO ref.channels (meter_id, channel, kind, unit, flow, multiplier, billed) VALUES ('M-1', 'R1', 'register', 'kWh', 'import', 10, true)"
        )
    for day, dial in ((JULY, "100"), (MIDDLE, "104.8"), (END, "114.4")):
        read_at(database, CHICAGO.bounds(day)[0].astimezone(UTC), dial)
    for number, day in enumerate(days(JULY, 4)):
        put_intervals(database, day, {point: [1000 if number < 2 else 2000] * 24}, estimated=24)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    for end in (MIDDLE, END):
        issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    names = ["A-001.C1.20260701.0", "A-001.C1.20260703.0", "nothing"]
    return bill_documents(database, names, "Springfield", ZONE, SETTINGS)


def test_a_bill_holds_what_its_customer_can_check(bills: list[dict[str, Any]]) -> None:
    first, second = bills
    assert (first["period_first"], first["period_last"], first["days"]) == (JULY, JULY + timedelta(days=1), 2)
    assert first["due_on"] == first["issued_on"] + timedelta(days=20)
    assert first["messages"] == ["Office closed on 4 July"]
    (service,) = second["services"]
    (read,) = service["reads"]
    assert read["previous"] == {"on": date(2026, 7, 2), "dial": "104.8", "estimated": False}
    assert read["present"] == {"on": date(2026, 7, 4), "dial": "114.4", "estimated": False}
    assert (read["multiplier"], read["difference"], service["quantity"]) == ("10", "96", "96")
    assert service["made_from"] == "Measured: the difference of two meter reads."
    assert service["comparison"]["last_period"] == {"days": 2, "quantity": "48", "per_day": "24"}
    assert service["comparison"]["last_year"] is None
    assert service["address"] == "[service address of premise P-1]"
    assert sum(Decimal(line["amount"]) for line in service["lines"]) == Decimal(str(second["total"]))
    priced = [line for line in service["lines"] if line["rate"] and line["rate"].endswith("a kWh")]
    assert priced
    for line in priced:
        assert abs(Decimal(line["quantity"]) * Decimal(line["rate"].split()[0]) - Decimal(line["amount"])) <= Decimal(
            "0.01"
        )


def test_the_page_shows_it_with_internal_ids_small(bills: list[dict[str, Any]]) -> None:
    page = bill_page(bills[1], US)
    for shown in (
        "104.8",
        "114.4",
        "96 kWh",
        "a kWh",
        "Please pay by",
        "Office closed on 4 July",
        "The period before: 48",
        "1 Main Street",
    ):
        assert shown in page, shown
    assert "readings are estimates" not in page
    assert page.index("SP-001") > page.index('class="small"'), "identifiers of ours stand in the small print"


def test_the_page_writes_dates_and_figures_by_the_locale_and_the_vendors_data_stay_iso(
    bills: list[dict[str, Any]],
) -> None:
    big = bills[1] | {"total": "1234567.50", "issued_on": date(2026, 10, 29), "due_on": date(2026, 11, 18)}
    american, german = bill_page(big, US), bill_page(big, formats("de_DE"))
    assert "Jul 3, 2026 to Jul 4, 2026, 2 days" in american
    assert "Issued Oct 29, 2026. Please pay by <strong>Nov 18, 2026</strong>." in american
    assert "1,234,567.50 USD" in american
    assert "03.07.2026 to 04.07.2026, 2 days" in german
    assert "1.234.567,50 USD" in german
    assert "104,8<br><small>02.07.2026</small>" in german
    rate = next(line["rate"] for line in big["services"][0]["lines"] if (line["rate"] or "").endswith("a kWh"))
    assert rate in american
    assert rate.replace(".", ",") in german
    for page in (american, german):
        assert not re.search(r"(?<![\w./-])\d{4}-\d{2}-\d{2}", page), "a date in ISO 8601 is left"
    assert big["services"][0]["reads"][0]["previous"]["dial"] == "104.8", "the bill's data stay as they are"


def test_the_pdf_is_the_same_every_time_and_one_bill_begins_on_a_page_of_its_own(
    bills: list[dict[str, Any]], tmp_path: Path
) -> None:
    named = [bill | {"utility": "Łódź & Sons <Water>"} for bill in bills]
    pages = write_pdf(named, tmp_path / "one.pdf", US)
    assert pages == [("A-001.C1.20260701.0", 1, 1), ("A-001.C1.20260703.0", 2, 1)]
    write_pdf(named, tmp_path / "two.pdf", US)
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF-")
    with pytest.raises(ValueError, match="page size 'A3' is not one of letter, A4"):
        write_pdf(named, tmp_path / "three.pdf", US, "A3")


def test_a_print_vendor_gets_bills_an_index_and_a_manifest_that_add_up(
    bills: list[dict[str, Any]], database: Database, tmp_path: Path
) -> None:
    (tmp_path / "utility.toml").write_text(f'name = "Springfield"\nzone = "{ZONE}"\ncurrency = "USD"\n')
    (tmp_path / "bill.toml").write_text('due_days = 10\n[[message]]\ntext = "Winter rates begin"\n')
    settings = Settings(tmp_path / "home", tmp_path, tmp_path / "inbox", None)
    manifest = print_period(database, settings, "C1", END, tmp_path / "out")
    written = [json.loads(line) for line in (tmp_path / "out" / "bills.jsonl").open()]
    assert (manifest["bills"], manifest["total"]) == (1, written[0]["total"])
    assert (written[0]["messages"], written[0]["format"]) == (["Winter rates begin"], "meter-pipeline-bills/1")
    for name, sha256 in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == sha256
    (row,) = csv.DictReader((tmp_path / "out" / "index.csv").open())
    assert (row["statement_id"], row["premise_ids"], row["first_page"], row["pages"]) == (
        "A-001.C1.20260703.0",
        "P-1",
        "1",
        "1",
    )
    with pytest.raises(ValueError, match="no statement of cycle C9"):
        print_period(database, settings, "C9", END, tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("due_days = 0", "due_days is 0"),
        ("due = 3", "unknown field 'due'"),
        ("[[message]]\ntext = ' '", "message 1 has no text"),
        ("[[message]]\ntext = 'x'\nfrom = 'soon'", "from is 'soon', not a date"),
        ("due_days = [", "bill.toml:"),
    ],
)
def test_a_wrong_bill_toml_is_refused_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bill.toml").write_text(text)
    with pytest.raises(BillSettingsError, match=said.replace(".", r"\.")):
        read_bill_settings(tmp_path)
    assert read_bill_settings(tmp_path / "nowhere") == BillSettings()
