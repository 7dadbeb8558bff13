"""Opening balances in a folder of reference tables: each names a period or a register of its tariff."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff, says_rider, shares_riders
from meter_pipeline.reference.faults import Fault
from meter_pipeline.schemas.reference import TABLES

_FILE = "opening_balances.csv"


def check_balances(
    rows: Mapping[str, list[tuple[Any, ...]]],
    lines: Mapping[str, list[int]],
    documents: Mapping[tuple[str, int], bytes],
    faults: list[Fault],
) -> None:
    """Balances below nothing, of a tariff that the folder does not have, or of a name that its tariff does not have."""
    if not rows.get("opening_balances"):
        return
    names = _names(documents)
    for row, line in zip(rows["opening_balances"], lines["opening_balances"], strict=True):
        named = dict(zip(TABLES["opening_balances"].columns, row, strict=True))
        if named["quantity"] < 0:
            faults.append(Fault(_FILE, line, "quantity", f"{named['quantity']} is below 0"))
        known = names.get(named["tariff_id"])
        if known is None:
            why = f"{named['tariff_id']} is not in this folder's tariffs.csv: import them together"
            faults.append(Fault(_FILE, line, "tariff_id", why))
        elif named["kind"] != "money" and named["name"] not in known[named["kind"]]:
            there = ", ".join(sorted(known[named["kind"]])) or "none"
            why = f"{named['tariff_id']} has no {named['kind']} {named['name'][:40]!r}; it has {there}"
            faults.append(Fault(_FILE, line, "name", why))


def _names(documents: Mapping[tuple[str, int], bytes]) -> dict[str, dict[str, set[str]]]:
    """By tariff the names of its periods (units) and demand registers (peak), of all its versions."""
    riders = tuple(body for _, body in sorted(documents.items()) if says_rider(body))
    found: dict[str, dict[str, set[str]]] = {}
    for (tariff_id, _), body in documents.items():
        if says_rider(body):
            continue
        with suppress(TariffRefusedError):
            periods, registers = parse_tariff(body, riders if shares_riders(body) else ()).layout
            of = found.setdefault(tariff_id, {"units": set(), "peak": set()})
            of["units"] |= set(periods)
            of["peak"] |= set(registers)
    return found
