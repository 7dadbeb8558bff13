"""A study's report page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any

from meter_pipeline.plotting import small_png

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#14212b;max-width:62rem;margin:0 auto;padding:1.5rem}table{border-collapse:collapse;width:100%;"
    "font-variant-numeric:tabular-nums;font-size:.9rem}th,td{text-align:left;padding:.22rem .5rem;border-top:1px solid #e3e9ed}thead th{background:#f4f7f9}"
    ".n{text-align:right}h2{font-size:1.1rem;border-bottom:2px solid #c9d3da;margin-top:1.8rem}img{max-width:45rem;width:100%}.bad{color:#a3211a}"
)


def write_page(path: Path, document: Mapping[str, Any], utility: str) -> None:
    """Write the page of a study's document (figures.document)."""
    path.write_text(page(document, utility), encoding="utf-8")


def page(document: Mapping[str, Any], utility: str) -> str:
    """The page as text."""
    title = f"Rate study: {', '.join(document['proposed'])} in the place of {', '.join(document['replaces'])}"
    lost = document["reproduced"]["not_reproduced"]
    summary = (
        f"<p class=bad>{len(lost)} bills do not come out as billed and are left out.</p>"
        if lost
        else f"<p>Each of the {document['bills']:,} bills, priced again under the tariffs in force, comes out as billed, to the cent.</p>"
    )
    left = "".join(f"<li>{count:,} left out: {escape(why)}</li>" for why, count in document["left_out"].items())
    again = "".join(
        f"<li>{escape(n)} is counted again from intervals: {escape(w)}</li>"
        for n, w in document["from_intervals"].items()
    )
    elastic = document["proposed_revenue_with_elasticity"]
    assumed = (
        ""
        if elastic is None
        else f"<p>With an elasticity of {document['elasticity']}, an assumption of this study: {_cell(elastic)}.</p>"
    )
    return (
        f"<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(utility)}; billing periods that end after {document['first']} and by {document['past']}</p>{summary}"
        f"<ul>{left}{again}</ul>"
        f"<p>Billed {_cell(document['actual'])} {document['currency']}; proposed {_cell(document['proposed_revenue'])} "
        f"({document['difference_percent']} %).</p>{assumed}"
        f"{_figure(revenue_picture(document), 'Revenue by month, billed and proposed')}"
        f"{_table('By class', document['by_class'])}"
        f"{_figure(change_picture(document), 'Change of bills by percentile of accounts')}"
        f"{_table('Change of an account’s bills, by percentile of accounts', document['percentiles'])}"
        f"{_table('Accounts whose bills rise or fall by more than', document['shares'])}"
        f"{_table('Revenue by class, component and month', document['revenue'])}"
        f"{_table('The accounts affected most', document['most_affected'])}</body></html>"
    )


def _cell(value: Any) -> str:
    return (
        f"{value:,.2f}"
        if isinstance(value, Decimal)
        else f"{value:,}"
        if isinstance(value, int)
        else ""
        if value is None
        else escape(str(value))
    )


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th scope=col>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if isinstance(v, Decimal | int) else ''}>{_cell(v)}</td>" for v in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<h2>{escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure(png: bytes, title: str) -> str:
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"><figcaption>{escape(title)}</figcaption></figure>'


def revenue_picture(document: Mapping[str, Any]) -> bytes:
    """Revenue by month, billed and proposed, as PNG."""
    from matplotlib.figure import Figure

    months = sorted({row["month"] for row in document["revenue"]})
    sums = {
        name: [float(sum(row[name] for row in document["revenue"] if row["month"] == month)) for month in months]
        for name in ("actual", "proposed")
    }
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for at, (name, colour) in enumerate((("actual", "#35618f"), ("proposed", "#b3541e"))):
        axes.bar([k + 0.4 * at for k in range(len(months))], sums[name], 0.4, color=colour, label=name)
    axes.set_xticks([k + 0.2 for k in range(len(months))], months, rotation=45, ha="right")
    axes.legend(frameon=False)
    return small_png(figure)


def change_picture(document: Mapping[str, Any]) -> bytes:
    """The change of accounts' bills by percentile, a line for each class, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for customer_class in sorted({row["customer_class"] for row in document["percentiles"]}):
        rows = [
            r
            for r in document["percentiles"]
            if r["customer_class"] == customer_class and r["change_percent"] is not None
        ]
        axes.plot(
            [r["percentile"] for r in rows],
            [float(r["change_percent"]) for r in rows],
            marker="o",
            label=customer_class,
        )
    axes.axhline(0, color="#c9d3da")
    axes.set_xlabel("percentile of accounts")
    axes.set_ylabel("change, %")
    axes.legend(frameon=False)
    return small_png(figure)
