"""Contracts of schema ``billing``: determinants, charges, what could not be billed."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import DAY, ID, Column, Contract

DETERMINANT_DAY = Contract(
    "billing.determinant_day",
    "What a service point used on a billing day, as its tariff counts it. Depends on that day's usage alone.",
    ("billing_day", "service_point_id"),
    {
        "billing_day": DAY,
        "service_point_id": Column("text", "service point", pattern=ID),
        "account_id": Column("text", "account that pays", pattern=ID),
        "tariff_id": Column("text", "tariff", pattern=ID),
        "tariff_version": Column("integer", "version in force on the day"),
        "cycle_id": Column("text", "billing cycle", pattern=ID),
        "period_start": Column("date", "first day of the billing period"),
        "period_end": Column("date", "day after the period's last"),
        "stretch_start": Column("date", "first day in the period of this account and tariff at the service point"),
        "unit": Column("text", "unit of energy and export"),
        "source_unit": Column("text", "base unit of the meter; empty where no usage came"),
        "source_quantity": Column("bigint", "validated usage in millionths of source_unit"),
        "source_export": Column("bigint", "validated exports in millionths of source_unit"),
        "other_unit": Column("text", "second base unit of the day, after an exchange of meters; else empty"),
        "other_quantity": Column("bigint", "validated usage in millionths of other_unit"),
        "other_export": Column("bigint", "validated exports in millionths of other_unit"),
        "energy": Column("bigint[]", "usage per time-of-use period, millionths of unit"),
        "export": Column("bigint[]", "exports likewise"),
        "peaks": Column(
            "bigint[]",
            "what each register measured, millionths of kW, kVA, kVAr or kVArh, or of the unit in a block of the day",
        ),
        "peak_at": Column("bigint[]", "when each began: UTC Unix seconds, 0 for none"),
        "slots": Column("integer", "intervals it is the sum of; 1 for a day's total", at_least=0),
        "estimated": Column("integer", "how many of them are estimates", at_least=0),
        "missing": Column("integer", "how many had no value", at_least=0),
        "interval_minutes": Column("smallint", "length of an interval; 0 for a day's total", at_least=0),
    },
    {
        "source_quantity": ("vee.interval_day.values", "vee.daily_usage.quantity_micro"),
        "energy": ("vee.interval_day.values",),
        "export": ("vee.interval_day.values",),
        "peaks": ("vee.interval_day.values",),
        "tariff_version": ("ref.tariffs.version",),
        "account_id": ("ref.agreements.account_id",),
    },
)

CHARGE_DAY = Contract(
    "billing.charge_day",
    "What a billing day cost, and the position in the billing period after it. Amounts are millionths of the currency, rounded by the line's own rule.",
    ("billing_day", "service_point_id"),
    {
        "billing_day": DAY,
        "service_point_id": Column("text", "service point", pattern=ID),
        "account_id": Column("text", "account that pays", pattern=ID),
        "tariff_id": Column("text", "tariff", pattern=ID),
        "tariff_version": Column("integer", "version in force on the day"),
        "cycle_id": Column("text", "billing cycle", pattern=ID),
        "period_start": Column("date", "first day of the billing period"),
        "stretch_start": Column("date", "first day in the period of this account and tariff at the service point"),
        "days": Column("integer", "days of the stretch so far, this one included", at_least=1),
        "energy_to_date": Column("bigint[]", "usage of the stretch so far per period: the tier's position"),
        "export_to_date": Column("bigint[]", "exports of the stretch so far"),
        "peaks_to_date": Column("bigint[]", "highest demand of the stretch so far per register"),
        "peak_at_to_date": Column("bigint[]", "when each began, UTC Unix seconds"),
        "register_days": Column("bigint[]", "days so far in each register's season"),
        "budget_to_date": Column("bigint", "budget allotted so far, millionths of the unit"),
        "carry": Column("bigint[]", "net metering credit carried into the period, per period"),
        "history": Column("bigint[]", "highest peak of a ratchet's look-back per register"),
        "amounts": Column("bigint[]", "amount of each day line (billing.tariff_version.day_keys)"),
        "total": Column("bigint", "their sum"),
    },
    {
        "amounts": ("billing.determinant_day.energy", "billing.determinant_day.peaks", "ref.tariff_document.body"),
        "total": ("billing.charge_day.amounts",),
        "energy_to_date": ("billing.determinant_day.energy",),
    },
)

EXCEPTION_DAY = Contract(
    "billing.exception_day",
    "What a billing day could not bill, or billed without usage: a closed list of reasons.",
    ("billing_day", "service_point_id", "reason", "detail"),
    {
        "billing_day": DAY,
        "service_point_id": Column("text", "service point", pattern=ID),
        "account_id": Column("text", "account, where one is known", pattern=ID, nullable=True),
        "reason": Column("text", "one of billing.service_agreements.EXCEPTIONS"),
        "detail": Column("text", "what exactly"),
    },
    {},
)

CONTRACTS: tuple[Contract, ...] = (
    DETERMINANT_DAY,
    CHARGE_DAY,
    EXCEPTION_DAY,
    Contract(
        "billing.statement",
        "a bill: an account, a billing period, a revision",
        ("statement_id",),
        {
            "statement_id": Column("text", "ACCOUNT.CYCLE.PERIODSTART.REVISION"),
            "account_id": Column("text", "account"),
            "cycle_id": Column("text", "billing cycle"),
            "period_start": Column("date", "first day"),
            "period_end": Column("date", "day after the last"),
            "revision": Column("integer", "0, and one more for each rebill", at_least=0),
            "kind": Column("text", "whether the account's service begins or ends in the period"),
            "posting_month": Column("date", "accounting month it is posted in"),
            "currency": Column("text", "currency"),
            "total": Column("numeric(20,6)", "sum of its lines"),
            "accrued": Column("numeric(20,6)", "sum of its days' charges: the rest is owed only at a period's end"),
            "lines": Column("integer", "number of lines", at_least=0),
            "lines_sha256": Column("bytea", "SHA-256 over the canonical bytes of its lines: its leaf in the ledger"),
            "issued_at": Column("timestamp with time zone", "when it was issued, UTC"),
            "period_end_due": Column(
                "numeric(20,6)", "what the end of the period added to its days: minimum charges and the taxes on them"
            ),
            "credit_carried": Column("numeric(20,6)", "what credit carried in from the period before took off"),
            "ratchet_due": Column("numeric(20,6)", "what demand of earlier months added"),
            "year_end_due": Column(
                "numeric(20,6)",
                "what the end of a billing year added: the annual minimum, less what is paid for credit left over",
            ),
            "sealed_days_due": Column(
                "numeric(20,6)",
                "what later reads of days in a sealed month changed; the days keep their sealed charges",
                nullable=True,
            ),
            "ledger_entry": Column(
                "bigint",
                "entry of the ledger that holds its leaf; null for statements issued before this column",
                nullable=True,
            ),
            "ledger_leaf": Column("integer", "number of the leaf in it, from 0", nullable=True),
        },
        lineage={
            "total": ("billing.statement_line.amount",),
            "accrued": ("billing.charge_day.amounts",),
            "period_start": ("ref.billing_cycles.period_start",),
            "period_end": ("ref.billing_cycles.period_end",),
            "account_id": ("ref.agreements.account_id",),
            "lines_sha256": ("billing.statement_line.amount", "billing.statement_line.quantity"),
        },
    ),
    Contract(
        "billing.period",
        "an accounting month",
        ("month",),
        {
            "month": Column("date", "first day of the month"),
            "status": Column("text", "open, closing (asked, waiting for a second person), sealed"),
            "requested_by": Column("text", "who asked for the close", nullable=True),
            "requested_at": Column("timestamp with time zone", "when, UTC", nullable=True),
            "checklist": Column("jsonb", "what was checked: each point with its result", nullable=True),
            "approved_by": Column("text", "who approved it: another person", nullable=True),
            "sealed_at": Column("timestamp with time zone", "when it was sealed, UTC", nullable=True),
            "control_totals": Column("jsonb", "counts and sums of what it holds", nullable=True),
            "totals_sha256": Column("bytea", "SHA-256 of the control totals' canonical bytes", nullable=True),
            "signature": Column("bytea", "signature over totals_sha256, where a signer was given", nullable=True),
            "ledger_entry": Column("bigint", "entry of the ledger that records the seal", nullable=True),
        },
        lineage={
            "checklist": (
                "billing.charge_day.billing_day",
                "billing.reconciliation.cause",
                "billing.statement.lines_sha256",
                "billing.adjustment.status",
            ),
            "control_totals": ("billing.charge_day.total", "billing.statement.total"),
        },
    ),
)
