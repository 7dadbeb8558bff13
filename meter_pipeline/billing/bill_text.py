"""A bill's dates, quantities and amounts as its customer reads them, by the utility's locale: for page and PDF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meter_pipeline.page_formats import PageFormats

_BILL_DAYS: Final = ("period_first", "period_last", "issued_on", "due_on")
_LINE_FIGURES: Final = ("quantity", "rate", "amount")
_READ_FIGURES: Final = ("multiplier", "difference")
_USAGE_FIGURES: Final = ("quantity", "per_day")


def bill_text(bill: Mapping[str, Any], shown: PageFormats) -> dict[str, Any]:
    """A bill (``bill_documents``) whose days and figures are text as the locale writes them; identifiers stay, and so
    does ``daily``, which is drawn."""
    days = {name: shown.day(bill[name]) for name in _BILL_DAYS}
    services = [_service(service, shown) for service in bill["services"]]
    return {**bill, **days, "total": shown.figure(bill["total"]), "services": services}


def _service(service: Mapping[str, Any], shown: PageFormats) -> dict[str, Any]:
    return {
        **_figures(service, _USAGE_FIGURES, shown),
        "reads": [_read(read, shown) for read in service["reads"]],
        "lines": [_figures(line, _LINE_FIGURES, shown) for line in service["lines"]],
        "comparison": {
            which: earlier and _figures(earlier, _USAGE_FIGURES, shown)
            for which, earlier in service["comparison"].items()
        },
    }


def _read(read: Mapping[str, Any], shown: PageFormats) -> dict[str, Any]:
    dials = {
        which: dial and {**_figures(dial, ("dial",), shown), "on": shown.day(dial["on"])}
        for which in ("previous", "present")
        for dial in (read[which],)
    }
    return {**_figures(read, _READ_FIGURES, shown), **dials}


def _figures(row: Mapping[str, Any], names: tuple[str, ...], shown: PageFormats) -> dict[str, Any]:
    return {**row, **{name: row[name] and shown.figure(row[name]) for name in names}}
