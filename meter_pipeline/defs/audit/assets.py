"""The ledger's day: a signed checkpoint over everything the day changed, verified before anything stands on it."""

from datetime import date

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.stage_asset import stage_asset
from meter_pipeline.schemas.report import StageReport


def _observed(municipality: Municipality, report: StageReport) -> StageReport:
    """Keep the result of the check where the pause rule reads it: a ledger that does not verify raises the emergency
    pause by itself."""
    from meter_pipeline.control.watch import observe_ledger

    result = next(check for check in report.checks if check.name == "ledger_verifies")
    with municipality.database().connect("ledger check") as connection:
        observe_ledger(connection, ok=result.passed, detail=result.description, clock=municipality.clock())
        connection.commit()
    return report


def _ledger_before_billing(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline import deployed_versions
    from meter_pipeline.billing import validated_since_billed
    from meter_pipeline.ledger.day import verify_before_billing
    from meter_pipeline.ledger.versions import note
    from meter_pipeline.ledger_hashers import hashers

    database, settings, clock = municipality.database(), municipality.settings(), municipality.clock()
    note(database, deployed_versions.in_use(settings), clock=clock)
    return _observed(
        municipality,
        verify_before_billing(
            database,
            day,
            settings=settings,
            clock=clock,
            hashers=hashers(),
            points=validated_since_billed(database, day),
        ).report(),
    )


def ledger_before_billing() -> dg.AssetsDefinition:
    """Verify the ledger's entries of reads and validation before billing uses them."""
    return stage_asset(
        "ledger_before_billing",
        _ledger_before_billing,
        group=policy.AUDIT,
        description=(
            "The ledger verified before billing: entries since the last verification, and every read and validated row of the day against the leaf that "
            "was written with it. A row changed behind the ledger's back stops the day's billing here."
        ),
        deps=["validated_intervals"],
        checks={
            "ledger_verifies": "Every entry since the last verification hashes to its leaf, and the day's reads and validated rows are their leaves'."
        },
        table="ledger.leaf",
    )


def _ledger_checkpoint(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.billing import last_billed
    from meter_pipeline.ledger.day import checkpoint_billing_day
    from meter_pipeline.ledger.sources import AFTER_BILLING
    from meter_pipeline.ledger_hashers import hashers

    database, settings, clock = municipality.database(), municipality.settings(), municipality.clock()
    done = checkpoint_billing_day(
        database,
        day,
        settings=settings,
        clock=clock,
        hashers=hashers(),
        sources=AFTER_BILLING,
        points=last_billed(database, day),
    )
    return _observed(municipality, done.report())


def ledger_checkpoint() -> dg.AssetsDefinition:
    """Sequence the staged leaves, extend the tree, sign, verify."""
    return stage_asset(
        "ledger_checkpoint",
        _ledger_checkpoint,
        group=policy.AUDIT,
        description=(
            "A signed checkpoint of the append-only ledger after the day's work: the size and Merkle root that an auditor can hold us to, consistent with "
            "every checkpoint before it."
        ),
        # After the statements, so that a day's bills are in the day's own checkpoint. Not after anomaly_flags: a
        # detection that fails must not leave the day's bills unsigned. It is ready before billing is done, so that its
        # entry is in the same checkpoint on any day it does not.
        deps=["reconciled_billing", "statements"],
        checks={
            "ledger_verifies": "Every entry since the last verification hashes to its leaf, the tree extends the one signed before, charges are their leaves'."
        },
        table="ledger.checkpoint",
    )


def _close_report(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.reporting import write_day

    path, document = write_day(municipality.database(), municipality.settings(), day, municipality.clock())
    figures: dict[str, object] = {
        "report": dg.MetadataValue.path(str(path)),
        "at the finance desk": dg.MetadataValue.url(f"{policy.desk_url()}/reports/day/{day}"),
        "reconciliation checks open": document["open_joints"],
        "exceptions to work": len(document["cases"]),
        "bytes": path.stat().st_size,
    }
    return StageReport(rows=1, figures=figures)


def close_report() -> dg.AssetsDefinition:
    """The day in one file for people."""
    return stage_asset(
        "close_report",
        _close_report,
        group=policy.AUDIT,
        description=(
            "The billing day in one self-contained HTML file: figures, pictures, reconciliation, exceptions to work, the signed checkpoint. Kept below the "
            "home folder; the finance desk shows it."
        ),
        deps=["ledger_checkpoint", "statements"],
        checks={},
        table=None,
    )
