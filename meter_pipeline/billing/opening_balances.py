"""Credits and peaks of the old system's bills, as the first bills here carry them in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl

from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tables import opening
from meter_pipeline.billing.tariffs import Tariff, TariffRefusedError
from meter_pipeline.postgres.database import Database


def opening_segments(
    database: Database, reference: Reference, points: Sequence[str], before: date, schema: pl.Schema
) -> pl.DataFrame:
    """What bills of the old system left some service points by a day, as rows of carried.no_segments (``schema``).

    Periods and registers are found by their names in the tariff's version of the old period's end, else its first one;
    what has no such name there is left out, which the import refuses.
    """
    by_segment: dict[tuple[str, str, str, date], list[dict[str, Any]]] = {}
    for row in opening.balances(database, points, before):
        key = (row["service_point_id"], row["account_id"], row["tariff_id"], row["period_end"])
        by_segment.setdefault(key, []).append(row)
    rows = []
    for (point, account, tariff_id, end), parts in sorted(by_segment.items()):
        found = _tariff(reference, tariff_id, end)
        if found is None:
            continue
        version, tariff = found
        periods, registers = tariff.layout
        by = {(part["kind"], part["name"]): int(part["micro"]) for part in parts}
        rows.append(
            {
                "service_point_id": point,
                "account_id": account,
                "tariff_id": tariff_id,
                "tariff_version": version,
                "period_end": end,
                "segment_end": end,
                "peaks": [by.get(("peak", name), 0) for name in registers],
                "carry_out": [by.get(("units", name), 0) for name in periods],
                "credit_out": sum(micro for (kind, _), micro in by.items() if kind == "money"),
            }
        )
    return pl.DataFrame(rows, schema=schema)


def _tariff(reference: Reference, tariff_id: str, end: date) -> tuple[int, Tariff] | None:
    versions = reference.tariffs.filter(pl.col("tariff_id") == tariff_id).sort("valid_from")
    begun = versions.filter(pl.col("valid_from") <= end)
    order = [*reversed(begun["version"].to_list()), *versions["version"].to_list()]
    for version in order:
        try:
            return int(version), reference.tariff(tariff_id, int(version))
        except TariffRefusedError:
            continue
    return None
