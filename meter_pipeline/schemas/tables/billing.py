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
        "energy": Column("bigint[]", "usage per time-of-use period, millionths of unit"),
        "export": Column("bigint[]", "exports likewise"),
        "peaks": Column("bigint[]", "highest demand per register, millionths of a kW"),
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
)  # fmt: skip

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
)  # fmt: skip

EXCEPTION_DAY = Contract(
    "billing.exception_day",
    "What a billing day could not bill, or billed without usage: a closed list of reasons.",
    ("billing_day", "service_point_id", "reason", "detail"),
    {
        "billing_day": DAY,
        "service_point_id": Column("text", "service point", pattern=ID),
        "account_id": Column("text", "account, where one is known", pattern=ID, nullable=True),
        "reason": Column("text", "one of billing.bind.EXCEPTIONS"),
        "detail": Column("text", "what exactly"),
    },
    {
    },
)  # fmt: skip

CONTRACTS: tuple[Contract, ...] = (DETERMINANT_DAY, CHARGE_DAY, EXCEPTION_DAY)
