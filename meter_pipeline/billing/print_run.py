"""A period's bills for a print vendor: one PDF, the same bills as JSON Lines, an index, and a manifest to check them
by.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from meter_pipeline.billing.bill_document import bill_documents
from meter_pipeline.billing.bill_pdf import write_pdf
from meter_pipeline.billing.bill_settings import read_bill_settings
from meter_pipeline.billing.export import safe_text
from meter_pipeline.billing.tables.bill_page import statements_of
from meter_pipeline.money import money_text
from meter_pipeline.page_formats import formats_of
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings

#: Layout of these files: a change of a field or its meaning is a new number.
FORMAT: Final = "meter-pipeline-bills/1"
_BATCH: Final = 500
_INDEX: Final = ("statement_id", "account_id", "premise_ids", "first_page", "pages", "due_on", "total", "currency")


def print_period(
    database: Database, deployment: Settings, cycle_id: str, period_end: date, folder: Path, *, page: str = "letter"
) -> dict[str, Any]:
    """Write bills.pdf, bills.jsonl, index.csv and manifest.json of a cycle's period into a folder; returns the
    manifest.

    ``period_end``: the day after the period's last. Raises ValueError where no statement of the period is issued.
    """
    names = statements_of(database, cycle_id, period_end)
    if not names:
        raise ValueError(f"no statement of cycle {cycle_id}, period ending {period_end}, is issued")
    settings, utility = read_bill_settings(deployment.data), deployment.utility()
    bills: list[dict[str, Any]] = []
    for start in range(0, len(names), _BATCH):
        bills += bill_documents(database, names[start : start + _BATCH], utility.name, utility.zone, settings)
    folder.mkdir(parents=True, exist_ok=True)
    pages = write_pdf(bills, folder / "bills.pdf", formats_of(deployment), page)
    with (folder / "bills.jsonl").open("w", encoding="utf-8") as lines:
        for bill in bills:
            lines.write(json.dumps({"format": FORMAT} | bill, default=_text, ensure_ascii=False) + "\n")
    _write_index(folder / "index.csv", bills, pages)
    currency = bills[0]["currency"]
    manifest = {
        "format": FORMAT,
        "cycle_id": cycle_id,
        "period_end": period_end.isoformat(),
        "bills": len(bills),
        "pages": sum(count for _, _, count in pages),
        "total": money_text(sum((Decimal(bill["total"]) for bill in bills), Decimal(0)), currency),
        "currency": currency,
        "sha256": {name: _sha256(folder / name) for name in ("bills.pdf", "bills.jsonl", "index.csv")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return manifest


def _write_index(path: Path, bills: Sequence[dict[str, Any]], pages: Sequence[tuple[str, int, int]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(_INDEX)
        for bill, (name, first, count) in zip(bills, pages, strict=True):
            premises = " ".join(dict.fromkeys(s["premise_id"] for s in bill["services"] if s["premise_id"]))
            row = (name, bill["account_id"], premises, first, count, bill["due_on"], bill["total"], bill["currency"])
            writer.writerow([safe_text(str(cell)) for cell in row])


def _text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
