"""A day's or a month's close report: the document, and the one HTML file made of it.

The file carries its style and pictures inside it and no script: it opens anywhere, in years, without us. It is written
beside and then moved, so that a reader never sees half a report; written again it replaces itself, and says when.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from meter_pipeline.billing import close as closing
from meter_pipeline.billing.plots import reconciliation_waterfall
from meter_pipeline.billing.reconcile import CAUSES
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger.checkpoints import with_cosignatures
from meter_pipeline.ledger.tables import entries
from meter_pipeline.page_formats import formats, formats_of
from meter_pipeline.postgres.database import Database
from meter_pipeline.reporting import month_sections, overview, tables
from meter_pipeline.reporting.drawing import columns_svg
from meter_pipeline.revenue_assurance.law import law_of_days
from meter_pipeline.settings import Settings

_TEMPLATES: Final = Path(__file__).parent
_READS: Final = ("received", "accepted", "duplicate", "superseded", "rejected", "waiting")


def day_document(database: Database, settings: Settings, day: date, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """All that the day's report says, as plain data."""
    document = _common(database, settings, day, day, clock)
    document |= {"kind": "day", "of": day.isoformat(), "day": overview.billing_days(database, day, day)[0]}
    return document


def month_document(database: Database, settings: Settings, month: date, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """All that the month's report says: every day in a line, the close's checklist, the seal where there is one."""
    last = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    document = _common(database, settings, month, last, clock)
    with database.connect("close report") as connection:
        sealed = tables.period(connection, month)
    document |= {
        "kind": "month",
        "of": f"{month:%Y-%m}",
        "checklist": closing.checklist(database, month),
        "period": sealed,
        "adjustments": tables.adjustments(database, month),
        "days": [d for d in overview.billing_days(database, month, last) if d["payloads"] or d["accounts"]],
    }
    return document | month_sections.sections(database, month)


def _common(database: Database, settings: Settings, first: date, last: date, clock: Clock) -> dict[str, Any]:
    reads = overview.files(database, first, last)
    reconciliation_checks = tables.reconciliation_checks(database, first, last).to_dicts()
    with database.connect("close report") as connection:
        latest = entries.latest_checkpoint(connection)
        note = with_cosignatures(connection, latest.tree_size, latest.note) if latest else None
    return {
        "utility": settings.utility().name,
        "first": first,
        "last": last,
        "written_at": clock.now(),
        "reads": reads,
        "reads_total": {name: sum(int(r[name]) for r in reads) for name in ("files", *_READS)},
        "usage": overview.usage(database, first, last),
        "flags": overview.flags(database, first, last),
        "charges": tables.charges(database, first, last),
        "joints": [j | {"meaning": CAUSES.get(j["cause"], "")} for j in reconciliation_checks],
        "law": law_of_days(database, first, last + timedelta(days=1)),
        "open_joints": sum(1 for j in reconciliation_checks if j["cause"] in ("open", "not_loaded")),
        "cases": tables.cases(database, first, last),
        "case_counts": tables.case_counts(database, first, last),
        "dead_letters": tables.letters(database, first, last),
        "statements": tables.statements(database, first, last),
        "statements_waiting": tables.waiting_statements(database, first, last),
        "pauses": overview.pauses(database),
        "checkpoint": {"size": latest.tree_size, "note": note} if latest else None,
    }


def write_day(
    database: Database, settings: Settings, day: date, clock: Clock = SYSTEM_CLOCK
) -> tuple[Path, dict[str, Any]]:
    """Write a billing day's report below the home folder; returns its path and its document."""
    document = day_document(database, settings, day, clock)
    history = tables.history(database, day)
    label = formats_of(settings).day
    load = tables.load(database, day)
    pictures = [
        (
            "Reads received by billing day",
            columns_svg([(label(h["day"]), h["received"]) for h in history], "reads", label(day)),
        ),
        (
            "Charged by billing day",
            columns_svg([(label(h["day"]), h["charged"]) for h in history], _currency(document), label(day)),
        ),
    ]
    pictures += [
        (
            f"Load by hour, meters read whole, {unit}",
            columns_svg([(f"{r['hour']:02}", r["value"]) for r in load if r["unit"] == unit], unit),
        )
        for unit in sorted({row["unit"] for row in load})
    ]
    return _write(settings, document, pictures, _waterfall(database, day, day)), document


def write_month(
    database: Database, settings: Settings, month: date, clock: Clock = SYSTEM_CLOCK
) -> tuple[Path, dict[str, Any]]:
    """Write an accounting month's report below the home folder; returns its path and its document."""
    document = month_document(database, settings, month, clock)
    days: Sequence[Mapping[str, Any]] = document["days"]
    label = formats_of(settings).day
    pictures = [
        (
            "Charged by billing day",
            columns_svg([(label(d["billing_day"]), float(d["charged"] or 0)) for d in days], _currency(document)),
        ),
        (
            "Intervals estimated by billing day",
            columns_svg([(label(d["billing_day"]), int(d["estimated"])) for d in days], "intervals"),
        ),
    ]
    drawn = month_sections.pictures(database, document, _currency(document))
    shown = {"drawn": drawn, "moves": month_sections.moves_shown(document)}
    waterfall = _waterfall(database, document["first"], document["last"])
    return _write(settings, document | shown, pictures, waterfall), document


def _currency(document: Mapping[str, Any]) -> str:
    return ", ".join(sorted({c["currency"] for c in document["charges"]})) or "money"


def _waterfall(database: Database, first: date, last: date) -> str | None:
    reconciliation_checks = tables.reconciliation_checks(database, first, last)
    if not reconciliation_checks.height:
        return None
    return base64.b64encode(
        reconciliation_waterfall(reconciliation_checks, "Reconciliation: rows by check and cause")
    ).decode()


def _write(
    settings: Settings, document: Mapping[str, Any], pictures: Sequence[tuple[str, str]], waterfall: str | None
) -> Path:
    text = (
        _environment(settings.utility().locale)
        .get_template("close.html")
        .render(r=document, pictures=pictures, waterfall=waterfall)
    )
    folder = settings.home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document['kind']}-{document['of']}.html"
    descriptor, beside = tempfile.mkstemp(dir=folder, prefix=".writing-", suffix=".html")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(beside).replace(path)
    return path


@cache
def _environment(locale: str) -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = formats(locale)
    templates.filters.update(
        n=shown.number, exact=shown.number, day=shown.day, month=shown.month, when=shown.when, sentence=shown.text
    )
    templates.filters["short"] = lambda value: "" if value is None else shown.number(round(Decimal(value), 3))
    templates.filters["cents"] = lambda text: "" if text is None else shown.money(round(Decimal(text), 2))
    return templates
