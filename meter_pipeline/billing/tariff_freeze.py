"""Tariff versions on their first use: their documents are kept from then on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tariffs import Tariff, parse_rider, shares_riders
from meter_pipeline.clock import Clock
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.driver import Connection


def freeze_versions(
    connection: Connection, tariffs: Mapping[tuple[str, int], Tariff], reference: Reference, clock: Clock, actor: str
) -> None:
    """Tariff versions on their first use, and the riders they share: from now on their documents may not change."""
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        if (tariff_id, version) in reference.frozen:
            continue
        rule = tariff.rounding
        row = {
            "tariff_id": tariff_id,
            "version": version,
            "document_sha256": reference.hashes[tariff_id, version],
            "source": tariff.source,
            "name": tariff.name,
            "commodity": tariff.commodity,
            "currency": tariff.currency,
            "unit": tariff.unit,
            "periods": list(tariff.schedule.periods),
            "registers": [r.name for r in tariff.registers],
            "line_keys": [line.key for line in tariff.lines],
            "line_names": [line.name for line in tariff.lines],
            "line_components": [line.component for line in tariff.lines],
            "day_keys": list(tariff.day_keys),
            "day_components": [
                next(line.component for line in tariff.lines if line.day_key == key) for key in tariff.day_keys
            ],
            "rounding": f"{2 if rule.places is None else rule.places} {rule.mode}",
        }
        _freeze(connection, row, clock, actor)
    if any(shares_riders(reference.documents[key]) for key in tariffs if key in reference.documents):
        for key in sorted(reference.riders):
            if key not in reference.frozen:
                _freeze(connection, _rider_row(reference, *key), clock, actor)


def _rider_row(reference: Reference, rider_id: str, version: int) -> dict[str, Any]:
    """A rider's version: its lines are those of the tariffs that share it."""
    rider = parse_rider(reference.documents[rider_id, version])
    lists = ("periods", "registers", "line_keys", "line_names", "line_components", "day_keys", "day_components")
    return {
        "tariff_id": rider_id,
        "version": version,
        "document_sha256": reference.hashes[rider_id, version],
        "source": "native",
        "name": rider_id,
        "commodity": rider.commodity,
        "currency": rider.currency,
        "unit": rider.unit,
        **{name: list[str]() for name in lists},
        "rounding": "of the tariff",
    }


def _freeze(connection: Connection, row: dict[str, Any], clock: Clock, actor: str) -> None:
    if days.write_tariff(connection, row, clock.now()):
        body = {"tariff_id": row["tariff_id"], "version": row["version"], "sha256": row["document_sha256"]}
        ledger.append(connection, "tariff_version", body, clock=clock, actor=actor)
