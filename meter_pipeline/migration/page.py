"""The gate as one HTML page, which two people read before they sign.

It carries its style and picture inside it and no script, so that it opens anywhere; it is written beside and then
moved.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any, Final

from meter_pipeline.migration import tables
from meter_pipeline.migration.gate import GateReport
from meter_pipeline.migration.plots import gate_plot
from meter_pipeline.postgres.database import Database

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#1b1f23}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border-bottom:1px solid #d0d7de;padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}td.n{text-align:right}"
    ".met{color:#2a7f62}.open{color:#b3261e}code{font-size:.85em;word-break:break-all}img{max-width:100%}"
)


def write_page(database: Database, report: GateReport, stage: Mapping[str, Any], folder: Path) -> Path:
    """Write ``migration-gate.html`` into a folder; returns its path."""
    with database.connect("gate page") as connection:
        days = tables.latest_days(connection, 40)
        defects = tables.known_defects(connection)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "migration-gate.html"
    beside = folder / ".migration-gate.part"
    beside.write_text(page(report, stage, days, defects), "utf-8")
    beside.rename(path)
    return path


def page(
    report: GateReport, stage: Mapping[str, Any], days: Sequence[Mapping[str, Any]], defects: Sequence[Sequence[Any]]
) -> str:
    """The page's text. Everything that came from outside is escaped."""
    word, kind = ("green", "met") if report.green else ("shut", "open")
    bound = (
        "none yet"
        if report.error_bound is None
        else f"at most {report.error_bound:.2e} of bills wrong at 95 % (3 / {report.compared})"
    )
    picture = base64.b64encode(gate_plot(report)).decode()
    clock = "not running" if report.clock_started is None else f"since {report.clock_started:%Y-%m-%d %H:%M} UTC"
    conditions = _table(
        ("", "condition", "have", "needs"),
        [("met" if c.met else "open", c.name.replace("_", " "), c.have, c.need) for c in report.conditions],
    )
    compared = _table(
        ("billing day", "mode", "bills on both sides", "blocking", "sum of absolute differences", "net"),
        [
            (
                d["billing_day"],
                d["mode"],
                d["bills"],
                d["blocking"],
                _money(d["absolute_money"]),
                _money(d["net_money"]),
            )
            for d in days
        ],
    )
    known = _table(
        ("defect", "most a figure", "approved by", "expires"),
        [(d[0], _money(d[3]), d[4], f"{d[5]:%Y-%m-%d}") for d in defects],
    )
    where = f"Stage <b>{escape(str(stage['stage']))}</b>, routes {escape(', '.join(stage['routes']) or 'none')}, {int(stage['basis_points']) / 100:.2f} % by hash."
    return "\n".join(
        (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>Gate {word}</title><style>{_STYLE}</style>",
            f"<h1>The gate is <span class={kind}>{word}</span></h1>",
            f"<p>At {report.at:%Y-%m-%d %H:%M:%S} UTC. {where}</p>",
            f"<p>Clock: {escape(clock)}{escape('; last reset by ' + report.reset_by) if report.reset_by else ''}. Error bound: {escape(bound)}.</p>",
            f"<p>What is signed: <code>{report.sha256}</code></p>",
            f'<img alt="the gate" src="data:image/png;base64,{picture}">',
            conditions,
            "<h2>Days compared</h2>",
            compared,
            "<h2>Known legacy defects</h2>",
            known,
            "</html>",
        )
    )


def _money(millionths: int) -> str:
    return f"{millionths / 1_000_000:,.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        if isinstance(value, int | date):
            return f"<td class=n>{value}</td>"
        return f"<td class={value}>{value}</td>" if value in ("met", "open") else f"<td>{escape(str(value))}</td>"

    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join('<tr>' + ''.join(map(cell, row)) + '</tr>' for row in rows)}</table>"
