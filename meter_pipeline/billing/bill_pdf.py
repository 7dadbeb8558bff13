"""Bills as PDF, one or a whole run in one file for a print vendor: letter or A4 pages, each bill on pages of
its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from meter_pipeline.billing.bill_text import bill_text
from meter_pipeline.page_formats import PageFormats

#: Page sizes by name: Letter for US print vendors, A4 elsewhere.
PAGES: Final = ("letter", "A4")


def write_pdf(
    bills: Sequence[dict[str, Any]], path: Path, shown: PageFormats, page: str = "letter"
) -> list[tuple[str, int, int]]:
    """Write bills (``bill_documents``) to one PDF, dates and figures as the locale writes them; returns for each its
    statement, first page and number of pages.

    The same bills give the same bytes. Raises ValueError for a page size that is none.
    """
    from reportlab.lib import pagesizes
    from reportlab.platypus import PageBreak, SimpleDocTemplate

    if page not in PAGES:
        raise ValueError(f"page size {page!r} is not one of {', '.join(PAGES)}")
    size = pagesizes.LETTER if page == "letter" else pagesizes.A4
    story: list[Any] = []
    marks: list[_Mark] = []
    for number, bill in enumerate(bills):
        if number:
            story.append(PageBreak())
        marks.append(_Mark(bill["statement_id"]))
        story += [_flowable(marks[-1]), *_story(bill_text(bill, shown), size[0] - 108)]
    margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 54)
    author = bills[0]["utility"] if bills else ""
    title = f"{author}: {len(bills)} bills" if bills else "no bills"
    document = SimpleDocTemplate(str(path), pagesize=size, invariant=1, title=title, author=author, **margins)
    document.build(story, canvasmaker=_numbered(marks))
    starts = [mark.page for mark in marks] + [document.page + 1]
    return [(mark.name, mark.page, after - mark.page) for mark, after in zip(marks, starts[1:], strict=True)]


class _Mark:
    """Where a bill begins: filled in when its first page is laid out."""

    def __init__(self, name: str) -> None:
        self.name, self.page = name, 0


def _flowable(mark: _Mark) -> Any:
    from reportlab.platypus import Flowable

    class Begins(Flowable):  # type: ignore[misc]  # reportlab has no types
        """Takes no room; notes the page it falls on."""

        def wrap(self, *_: Any) -> tuple[int, int]:
            return 0, 0

        def draw(self) -> None:
            mark.page = self.canv.getPageNumber()

    return Begins()


def _numbered(marks: Sequence[_Mark]) -> Any:
    """A canvas that writes each page's foot: the bill it belongs to, and the page of that bill."""
    from reportlab.pdfgen.canvas import Canvas

    class Numbered(Canvas):  # type: ignore[misc]  # reportlab has no types
        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            begun = [mark for mark in marks if 0 < mark.page <= self.getPageNumber()]
            if begun:
                self.setFont("Bill", 7)
                self.setFillGray(0.4)
                self.drawString(54, 30, f"Statement {begun[-1].name}, page {self.getPageNumber() - begun[-1].page + 1}")
            super().showPage()

    return Numbered


def _story(bill: dict[str, Any], width: float) -> list[Any]:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph, Spacer

    sheet = _styles()
    plain, heading = sheet["BodyText"], sheet["Heading3"]
    big = ParagraphStyle("total", parent=sheet["Heading1"], spaceBefore=2)
    small = ParagraphStyle("small", parent=plain, fontSize=7, textColor="#555555")
    addresses = dict.fromkeys(s["address"] for s in bill["services"] if s["address"])
    kind = "" if bill["kind"] == "regular" else f" ({bill['kind'].replace('_', ' ')} bill)"
    story: list[Any] = [
        Paragraph(_text(bill["utility"]), sheet["Heading2"]),
        Paragraph("<br/>".join(_text(t) for t in (f"Account {bill['account_id']}", *addresses)), plain),
        Paragraph(_text(f"{bill['period_first']} to {bill['period_last']}, {bill['days']} days{kind}"), plain),
        Paragraph(_text(f"{bill['total']} {bill['currency']}"), big),
        Paragraph(f"Issued {bill['issued_on']}. Please pay by <b>{bill['due_on']}</b>.", plain),
    ]
    story += [Paragraph(_text(text), plain) for text in bill["messages"]]
    for service in bill["services"]:
        title = (service["commodity"].capitalize() or "Service") + (
            f", {service['address']}" if service["address"] else ""
        )
        story.append(Paragraph(_text(title), heading))
        if service["reads"]:
            rows = [["Meter", "Previous read", "Present read", "Multiplier", "Difference"]]
            rows += [
                [
                    r["meter_id"],
                    _dial(r["previous"]),
                    _dial(r["present"]),
                    r["multiplier"],
                    f"{r['difference']} {r['unit']}" if r["difference"] else "",
                ]
                for r in service["reads"]
            ]
            story.append(_table(rows, width, [0.26, 0.24, 0.24, 0.1, 0.16], 3))
        rows = [["Charge", "Quantity", "Rate", "Amount"]]
        rows += [
            [n["name"], f"{n['quantity']} {n['unit']}" if n["quantity"] else "", n["rate"] or "", n["amount"]]
            for n in service["lines"]
        ]
        story += [
            Spacer(1, 4),
            _table(rows, width, [0.42, 0.2, 0.2, 0.18], 1),
            Paragraph(_text(_usage(service)), plain),
        ]
    story += [Paragraph(_text("Pay to: " + ", ".join(bill["pay_to"])), plain)] if bill["pay_to"] else []
    story += [Paragraph(_text(bill["contact"]), plain)] if bill["contact"] else []
    names = ", ".join(s["service_point_id"] for s in bill["services"])
    return [*story, Paragraph(_text(f"Statement {bill['statement_id']}; services {names}"), small)]


def _usage(service: dict[str, Any]) -> str:
    text = f"{service['quantity']} {service['unit']} in {service['days']} days, {service['per_day']} a day. {service['made_from']}"
    for which, words in (("last_period", "The period before"), ("last_year", "A year before")):
        earlier = service["comparison"][which]
        if earlier:
            text += f" {words}: {earlier['quantity']} {service['unit']} in {earlier['days']} days, {earlier['per_day']} a day."
    return text


def _dial(read: dict[str, Any] | None) -> str:
    if read is None:
        return ""
    return f"{read['dial']}  ({read['on']}{', estimated' if read['estimated'] else ''})"


def _table(rows: list[list[str]], width: float, shares: Sequence[float], numbers_from: int) -> Any:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph, Table, TableStyle

    cell = ParagraphStyle("cell", parent=_styles()["BodyText"], fontSize=8, leading=10, spaceBefore=0)
    right = ParagraphStyle("number", parent=cell, alignment=2)
    cells = [[Paragraph(_text(t), cell if k < numbers_from else right) for k, t in enumerate(row)] for row in rows]
    table = Table(cells, colWidths=[width * share for share in shares], repeatRows=1)
    table.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, "#cccccc"), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _text(value: str) -> str:
    """Plain text as reportlab's markup takes it."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@cache
def _styles() -> Any:
    """Reportlab's sample styles in a font that has every letter of a name; its built-in ones have Latin-1 only."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.pdfbase.pdfmetrics import registerFont, registerFontFamily
    from reportlab.pdfbase.ttfonts import TTFont

    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise ValueError("matplotlib, whose font the bills are set in, is not installed")
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    registerFont(TTFont("Bill", str(folder / "DejaVuSans.ttf")))
    registerFont(TTFont("Bill-Bold", str(folder / "DejaVuSans-Bold.ttf")))
    registerFontFamily("Bill", normal="Bill", bold="Bill-Bold", italic="Bill", boldItalic="Bill-Bold")
    sheet = getSampleStyleSheet()
    for name, style in sheet.byName.items():
        style.fontName = "Bill-Bold" if name.startswith(("Heading", "Title")) else "Bill"
    sheet["BodyText"].fontSize = 9
    return sheet
