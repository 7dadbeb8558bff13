"""A statement as a page a customer could be sent: one self-contained HTML file, usage plot included."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import polars as pl

from meter_pipeline.billing import plots
from meter_pipeline.billing.reconcile import micro
from meter_pipeline.billing.tables.statements import read_statement, statement_days
from meter_pipeline.postgres.database import Database

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Statement {{ head.statement_id }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem } .total { font-size: 1.6rem; font-weight: 600 }
table { border-collapse: collapse; width: 100% } th, td { padding: .3rem .4rem; text-align: left; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } small { color: #555 } img { max-width: 100% }
@media print { body { margin: 0 } }
</style></head><body>
<h1>{{ utility }}</h1>
<p>Account {{ head.account_id }}<br>{{ head.period_start }} to {{ last_day }}{% if head.kind != "regular" %} ({{ head.kind.replace("_", " ") }} bill){% endif %}</p>
<p class="total">{{ total }} {{ head.currency }}</p>
{% for service in services %}
<h2>Service {{ service.id }}</h2>
<table><thead><tr><th>Charge</th><th class="n">Quantity</th><th class="n">Amount</th></tr></thead><tbody>
{% for line in service.lines %}<tr><td>{{ line.name }}<br><small>{{ line.line_id }}</small></td>
<td class="n">{{ line.quantity }}</td><td class="n">{{ line.amount }}</td></tr>
{% endfor %}</tbody></table>
{% if service.plot %}<p><img alt="Usage by day at {{ service.id }}, {{ service.total }}" src="data:image/png;base64,{{ service.plot }}"></p>{% endif %}
<p><small>{{ service.total }} over {{ service.days }} days. {{ service.estimates }}</small></p>
{% endfor %}
<p><small>Statement {{ head.statement_id }}. Each line can be traced to the meter reads behind it by its number.</small></p>
</body></html>
"""


def _trimmed(text: str | None, unit: str) -> str:
    if text is None:
        return ""
    value = Decimal(text)
    return f"{value:,.3f}".rstrip("0").rstrip(".") + (f" {unit}" if unit else "")


def _service(
    point: str, lines: pl.DataFrame, segments: pl.DataFrame, days: pl.DataFrame, statement_id: str
) -> dict[str, Any]:
    unit = segments["unit"][0] if segments.height else ""
    quantities = [float(micro(q or 0)) for q in days["quantity"].to_list()]
    names = [f"{d.day}." if k else f"{d:%d.%m.}" for k, d in enumerate(days["billing_day"].to_list())]
    estimated, slots = int(segments["estimated"].sum() or 0), int(segments["slots"].sum() or 0)
    return {
        "id": point,
        "plot": base64.b64encode(plots.daily_usage(names, quantities, unit)).decode() if quantities else "",
        "total": _trimmed(str(micro(int(days["quantity"].sum() or 0))), unit),
        "days": days.height,
        "estimates": f"{estimated} of {slots} readings are estimates." if estimated else "All readings are actual.",
        "lines": [
            {
                "name": r["name"],
                "quantity": _trimmed(r["quantity"], r["unit"]),
                "amount": f"{Decimal(r['amount']):,.2f}",
                "line_id": f"{statement_id}.{r['line_no']}",
            }
            for r in lines.to_dicts()
        ],
    }


def statement_page(database: Database, statement_id: str, utility: str) -> str | None:
    """The HTML page of an issued statement, or None where there is none."""
    from jinja2 import Environment

    head, lines, segments = read_statement(database, statement_id)
    if not head.height:
        return None
    row = head.to_dicts()[0]
    days = statement_days(database, statement_id)
    services = [
        _service(
            point,
            lines.filter(pl.col("service_point_id") == point),
            segments.filter(pl.col("service_point_id") == point),
            days.filter(pl.col("service_point_id") == point),
            statement_id,
        )
        for point in segments["service_point_id"].unique(maintain_order=True).to_list()
    ]
    last_day = pl.Series([row["period_end"]]).dt.offset_by("-1d")[0]
    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        head=row, utility=utility, total=f"{Decimal(row['total']):,.2f}", services=services, last_day=last_day
    )
