"""Tariff versions on their first use: their documents are kept from then on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.clock import Clock
from meter_pipeline.ledger import entries as ledger


def freeze_versions(
    connection: Any, tariffs: Mapping[tuple[str, int], Tariff], reference: Reference, clock: Clock, actor: str
) -> None:
    """Tariff versions on their first use: from now on their documents may not change."""
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
        if days.write_tariff(connection, row, clock.now()):
            body = {"tariff_id": tariff_id, "version": version, "sha256": row["document_sha256"]}
            ledger.append(connection, "tariff_version", body, clock=clock, actor=actor)
