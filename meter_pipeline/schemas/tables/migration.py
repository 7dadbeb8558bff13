"""Contracts of schema ``migration``: the legacy batch's results, comparisons, the gate's reports, authority and
outbox.
"""

from __future__ import annotations

from typing import Final

from meter_pipeline.schemas.tables.shape import Column, Contract

#: Classes of a difference between the legacy batch and the pipeline
DIFFERENCES: Final = (
    "within_tolerance",
    "rounding",
    "timing",
    "missing_new",
    "missing_legacy",
    "duplicate_legacy",
    "estimate_vs_actual",
    "tariff_version",
    "known_legacy_defect",
    "key_mismatch",
    "unexplained",
)

CONTRACTS: Final[tuple[Contract, ...]] = (
    Contract(
        "migration.legacy_run",
        "a run of the legacy batch whose results were imported; a day without one is still under way",
        ("billing_day",),
        {
            "billing_day": Column("date", "billing day of the results"),
            "finished_at": Column("timestamp with time zone", "when the legacy batch finished it, UTC"),
            "imported_at": Column("timestamp with time zone", "when its results were imported, UTC"),
            "source": Column("text", "file or table they came from"),
            "figures": Column("bigint", "figures imported"),
            "content_sha256": Column("bytea", "SHA-256 over the figures, sorted"),
        },
        lineage={
            "figures": ("migration.legacy_result.value",),
            "content_sha256": ("migration.legacy_result.value",),
        },
    ),
    Contract(
        "migration.legacy_result",
        "what the legacy batch made of a billing day, figure by figure",
        ("billing_day", "account_id", "level", "code", "occurrence"),
        {
            "billing_day": Column("date", "billing day"),
            "account_id": Column("text", "account, as the side spells it"),
            "level": Column(
                "text",
                "read, usage, determinant, line or total",
                one_of=("read", "usage", "determinant", "line", "total"),
            ),
            "code": Column("text", "which figure of the level"),
            "value": Column("bigint", "the figure: micro base units, or millionths of the currency"),
            "exact": Column("bigint", "before rounding, millionths, where the side knows it", nullable=True),
            "estimated": Column("boolean", "whether an estimate is in it"),
            "tariff_version": Column("integer", "tariff version it was made with", nullable=True),
            "occurrence": Column("smallint", "1; more where the legacy batch has the same figure again"),
        },
        lineage={
            "account_id": ("ref.accounts.account_id",),
        },
    ),
    Contract(
        "migration.known_defect",
        "defects of the legacy batch that are understood. Each expires, so that no difference is ignored for ever",
        ("defect_id",),
        {
            "defect_id": Column("text", "name of the defect"),
            "levels": Column("text[]", "levels it touches"),
            "codes": Column("text[]", "codes it touches; empty: all"),
            "most": Column("bigint", "largest difference it explains, millionths"),
            "first_day": Column("date", "first billing day it explains, or null", nullable=True),
            "last_day": Column("date", "last billing day it explains, or null", nullable=True),
            "reason": Column("text", "what is wrong in the legacy batch"),
            "recorded_by": Column("control.person_name", "who recorded it"),
            "approver": Column("control.person_name", "who approved ignoring it"),
            "expires": Column("timestamp with time zone", "until when, UTC"),
        },
        lineage={
            "recorded_by": ("control.person.person",),
            "approver": ("control.person.person",),
        },
    ),
    Contract(
        "migration.comparison_run",
        "one comparison of a billing day: figures, blocking differences, money",
        ("run_id",),
        {
            "run_id": Column("bigint", "number of the comparison"),
            "billing_day": Column("date", "billing day compared"),
            "mode": Column(
                "text",
                "live; replay of a past day; or the legacy batch against itself",
                one_of=("live", "replay", "legacy_twice"),
            ),
            "compared_at": Column("timestamp with time zone", "when, UTC"),
            "compared": Column("bigint", "figures that both sides have"),
            "blocking": Column("bigint", "figures of a class that resets the gate"),
            "net_money": Column("bigint", "sum of the totals' differences, millionths of the currency"),
            "absolute_money": Column("bigint", "sum of their absolute differences"),
            "configuration": Column("text", "hash of tariffs, rules and code the day was made with"),
            "cycle_id": Column("text", "billing cycle a replay completes, or null", nullable=True),
            "coverage": Column("jsonb", "comparisons by stratum"),
            "summary": Column("jsonb", "figures and money by level and class"),
            "bills": Column("bigint", "accounts whose total both sides have"),
            "source": Column(
                "text",
                "where our figures came from: the pipeline's own tables or the shadow database",
                one_of=("pipeline", "shadow"),
            ),
            "results_sha256": Column(
                "bytea", "SHA-256 over our figures, sorted; null in runs before it was kept", nullable=True
            ),
        },
        lineage={
            "blocking": ("migration.comparison.class",),
            "net_money": ("migration.comparison.difference",),
            "absolute_money": ("migration.comparison.difference",),
            "configuration": ("ref.tariff_document.sha256", "migration.known_defect.most"),
            "cycle_id": ("ref.billing_cycles.cycle_id",),
            "results_sha256": ("billing.charge_day.amounts", "billing.determinant_day.energy"),
        },
    ),
    Contract(
        "migration.comparison",
        "the differences of the latest comparison of a billing day; a figure that matches is only counted",
        ("billing_day", "account_id", "level", "code"),
        {
            "billing_day": Column("date", "billing day"),
            "account_id": Column("text", "account"),
            "level": Column("text", "level of the figure", one_of=("read", "usage", "determinant", "line", "total")),
            "code": Column("text", "which figure"),
            "new_value": Column("bigint", "our figure, or null", nullable=True),
            "legacy_value": Column("bigint", "the legacy batch's, or null", nullable=True),
            "difference": Column("bigint", "new less legacy"),
            "class": Column(
                "text",
                "why they differ",
                one_of=DIFFERENCES,
            ),
            "cause": Column("text", "the defect, or that a total follows its lines", nullable=True),
            "run_id": Column("bigint", "comparison that found it"),
        },
        lineage={
            "new_value": (
                "vee.daily_usage.quantity_micro",
                "billing.determinant_day.energy",
                "billing.charge_day.total",
            ),
            "legacy_value": ("migration.legacy_result.value",),
            "difference": ("migration.comparison.new_value", "migration.comparison.legacy_value"),
        },
    ),
    Contract(
        "migration.event",
        "what reset the gate's clock: a pause, a changed configuration, a step of the migration",
        ("at", "what"),
        {
            "at": Column("timestamp with time zone", "when, UTC"),
            "what": Column("text", "what happened"),
        },
        lineage={
            "what": ("control.flag_change.value",),
        },
    ),
    Contract(
        "migration.gate_report",
        "every report of the gate that was made, by its hash: what two people sign is one of these",
        ("sha256",),
        {
            "sha256": Column("text", "hash of the document"),
            "at": Column("timestamp with time zone", "instant it speaks of, UTC"),
            "green": Column("boolean", "whether every condition was met"),
            "document": Column("jsonb", "the report"),
        },
        lineage={
            "green": ("migration.comparison_run.blocking", "migration.event.at", "control.emergency_pause.raised_at"),
            "document": ("migration.comparison_run.coverage",),
        },
    ),
    Contract(
        "migration.authority",
        "which side's bill is the customer's, record by record, decided in the transaction that wrote it",
        ("billing_day", "account_id"),
        {
            "billing_day": Column("date", "billing day"),
            "account_id": Column("text", "account"),
            "authority": Column("text", "the one side that counts", one_of=("legacy", "new")),
            "stage": Column("text", "stage of the migration it was decided under"),
            "flag_version": Column("bigint", "version of the stage flag it was decided under"),
            "payload_sha256": Column("bytea", "hash of what was written"),
            "decided_at": Column("timestamp with time zone", "when, UTC"),
        },
        lineage={
            "authority": ("control.flag.value", "ref.service_points.route"),
            "stage": ("control.flag.value",),
            "flag_version": ("control.flag.version",),
            "payload_sha256": ("billing.charge_day.amounts", "migration.legacy_result.value"),
        },
    ),
    Contract(
        "migration.outbox",
        "records for the other side, written in the transaction of the record itself and delivered after it: never two independent commits",
        ("outbox_id",),
        {
            "outbox_id": Column("bigint", "order of delivery"),
            "billing_day": Column("date", "billing day"),
            "account_id": Column("text", "account"),
            "side": Column("text", "the side it is for", one_of=("legacy", "new")),
            "payload": Column("jsonb", "the record"),
            "payload_sha256": Column("bytea", "hash of the record: a second delivery is recognised by it"),
            "written_at": Column("timestamp with time zone", "when, UTC"),
            "delivered_at": Column(
                "timestamp with time zone", "when the other side had it, UTC; null while it waits", nullable=True
            ),
            "attempts": Column("integer", "deliveries tried"),
        },
        lineage={
            "payload": ("billing.charge_day.amounts", "migration.legacy_result.value"),
            "payload_sha256": ("migration.authority.payload_sha256",),
        },
    ),
    Contract(
        "migration.customer_bill",
        "what the legacy batch billed a customer for a day while it had authority: the new side's copy, so that neither side lacks a record",
        ("billing_day", "account_id"),
        {
            "billing_day": Column("date", "billing day"),
            "account_id": Column("text", "account"),
            "payload": Column("jsonb", "the figures"),
            "payload_sha256": Column("bytea", "hash of the record"),
            "received_at": Column("timestamp with time zone", "when it was delivered, UTC"),
        },
        lineage={
            "payload": ("migration.outbox.payload",),
            "payload_sha256": ("migration.outbox.payload_sha256",),
        },
    ),
)
