"""The first page: billing days, and work that waits for people; and the close reports."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from starlette.responses import HTMLResponse, Response

from meter_pipeline.control import pause as emergency
from meter_pipeline.desk import tables
from meter_pipeline.desk.web import DeskRequest, FormError, NotFoundError, day_of

#: A report brings its own style and pictures inside it and may load nothing and run nothing.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def overview(ask: DeskRequest) -> Response:
    before = day_of(ask.query["before"]) if ask.query.get("before") else None
    with ask.desk.reading() as connection:
        waiting = tables.overview(connection)
        days = tables.billing_days(connection, before)
        state = emergency.status(connection, history=0)
    return ask.show("overview.html", waiting=waiting, days=days, pause=state, most=tables.COUNTED, before=before)


def reports(ask: DeskRequest) -> Response:
    """Close reports, newest first: at most a year of days, and every month."""
    found: dict[str, list[str]] = {}
    for kind, length in (("day", 10), ("month", 7)):
        names = sorted((p.stem.removeprefix(f"{kind}-") for p in _folder(ask).glob(f"{kind}-*.html")), reverse=True)
        found[kind] = [name for name in names if len(name) == length][:366]
    return ask.show("reports.html", days=found["day"], months=found["month"])


def report(ask: DeskRequest) -> Response:
    kind, of = ask.path["kind"], ask.path["of"]
    if kind not in ("day", "month"):
        raise NotFoundError("There is no such report.")
    try:
        date.fromisoformat(of if kind == "day" else f"{of}-01")
    except ValueError:
        raise FormError(f"{of[:40]!r} is no {kind}") from None
    path = _folder(ask) / f"{kind}-{of}.html"
    if not path.is_file():
        raise NotFoundError(f"No close report of {of} has been written yet: meter-pipeline report --{kind} {of}")
    return HTMLResponse(path.read_bytes(), headers={"content-security-policy": REPORT_POLICY})


def _folder(ask: DeskRequest) -> Path:
    return ask.desk.settings.home / "reports"


PAGES = [("/", overview, ("GET",)), ("/reports", reports, ("GET",)), ("/reports/{kind}/{of}", report, ("GET",))]
