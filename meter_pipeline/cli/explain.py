"""meter-pipeline explain LINE_ID: the tariff line, quantities and reads behind a line of a bill."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

import typer

from meter_pipeline.billing.explain import explain
from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.money import money_text
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.reporting import overview
from meter_pipeline.settings import load_settings


def _render(document: Any) -> None:
    line, tariff, determinant = document["line"], document["tariff"] or {}, document["determinant"] or {}
    OUT.print(
        f"[bold]{line['name']}[/]  {line['amount']} {line['currency']}  ({line['segment_start']} to {line['segment_end']})",
        highlight=False,
    )
    OUT.print(
        f"tariff {tariff.get('subject')}, {tariff.get('name')}; rounding {tariff.get('rounding')}", highlight=False
    )
    OUT.print(
        f"{determinant.get('intervals', 0)} intervals, {determinant.get('estimated', 0)} of them estimated",
        highlight=False,
    )
    OUT.print(
        table(
            None,
            ["day", "amount", "source", "estimated"],
            [
                (d["day"], d["amount"], f"{int(d['source_micro']) / 1e6:,.3f} {d['source_unit']}", d["estimated"])
                for d in document["days"]
            ],
            numbers=["amount", "source", "estimated"],
        )
    )
    OUT.print(
        table(
            None,
            ["day", "payload of", "SHA-256"],
            [(p["day"], p["subject"], p["payload_sha256"]) for p in document["payloads"]],
        )
    )
    if document["winter_average"] is not None:
        _render_winter(document["winter_average"])
    for entry in document["ledger"]:
        OUT.print(
            f"ledger {entry['subject']} ({entry['kind']}), leaf {entry['leaf']}, {entry['leaf_hash']}", highlight=False
        )
    if "reference" in document:
        _render_reference(document["reference"])
    for adjustment in document["adjustments"]:
        OUT.print(
            f"adjusted by {adjustment['subject']}: {adjustment['action']} {adjustment['amount']} ({adjustment['status']})",
            highlight=False,
        )
    for each in document["policy"]:
        OUT.print(
            f"back-billing of {each['adjustment_id']} by rule {each['rule']}: full {each['full']}, allowed {each['allowed']}, "
            f"waived {each['waived']}, interest {each['interest']}: {each['why']}",
            highlight=False,
        )


def _render_winter(found: dict[str, Any]) -> None:
    OUT.print(f"winter average {found['value']} a day from {found['valid_from']} ({found['source']})", highlight=False)
    rows = [(p["from"], p["to"], p["days"], p["quantity"], p["left_out"] or "counts") for p in found["periods"]]
    if rows:
        OUT.print(table(None, ["from", "to", "days", found["unit"], "in the average"], rows, numbers=["days"]))


def _render_reference(found: dict[str, Any]) -> None:
    OUT.print(f"reference data as known at {found['as_of']}", highlight=False)
    for name, rows in found["rows"].items():
        columns = list(rows[0])
        OUT.print(table(name, columns, [[str(row[c]) if row[c] is not None else "" for c in columns] for row in rows]))


def _instant(text: str | None) -> datetime | None:
    """The instant that --as-of names; None for the statement's own, or where it is not given."""
    if text is None or text == "issued":
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        problem(f"--as-of {text} is not an instant with its zone", "for instance 2026-11-01T12:00:00Z, or: issued")
    return found


def _with_decimals(document: dict[str, Any]) -> dict[str, Any]:
    """The explanation with every amount as its currency has it."""
    currency = document["line"]["currency"]

    def shown(row: dict[str, Any]) -> dict[str, Any]:
        return row | {n: money_text(str(row[n]), currency) for n in ("amount", "total") if row.get(n) is not None}

    return document | {
        "line": shown(document["line"]),
        "statement": shown(document["statement"]),
        "days": [shown(day) for day in document["days"]],
        "adjustments": [shown(adjustment) for adjustment in document["adjustments"]],
    }


def _waits(database: Database, line_id: str) -> str:
    """Why the statement that a line would be of waits, in words; empty where it does not."""
    parts = line_id.split(".")
    if len(parts) < 3 or len(parts[2]) != 8 or not parts[2].isdecimal():
        return ""
    start = date.fromisoformat(f"{parts[2][:4]}-{parts[2][4:6]}-{parts[2][6:]}")
    return "; ".join(
        f"{reason}: {detail}" for reason, detail in overview.waiting_bill(database, parts[0], parts[1], start)
    )


def explain_command(
    line_id: Annotated[str, typer.Argument(help="STATEMENT_ID.LINE_NO, for example A-001.C1.20260701.0.3")],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Also the reference rows as known then: an instant with its zone, or 'issued'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Explain a bill's line: tariff version, determinants, intervals, estimates, payload hashes, ledger entries.

    Examples:
      meter-pipeline explain A-001.C1.20260701.0.3
      meter-pipeline explain A-001.C1.20260701.0.3 --as-of issued
    """
    instant = _instant(as_of)
    database = open_database(load_settings())
    document = explain(database, line_id)
    if document is None:
        waits = _waits(database, line_id)
        if waits:
            problem(
                f"no line {line_id}: the statement waits ({waits})",
                "What waits: meter-pipeline exceptions list; meter-pipeline status",
            )
        problem(f"no line {line_id}", "List a statement's lines with: meter-pipeline billing show STATEMENT_ID")
    document = _with_decimals(document)
    if as_of is not None:
        from meter_pipeline.corrections.as_known import reference_rows

        document["reference"] = reference_rows(database, line_id, instant)
    emit(document, as_json, _render)
