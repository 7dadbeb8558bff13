"""Contracts of the tables that answer a month's questions: unbilled revenue and its journal, rate studies, supply
balances.
"""

from __future__ import annotations

from typing import Final

from meter_pipeline.schemas.tables.shape import DAY, ID, Column, Contract

_MONTH: Final = Column("date", "first day of the accounting month")
_COMPONENT: Final = Column("text", "component of the charge: energy, fixed, tax and so on")
_CLASS: Final = Column("text", "customer class of the account")
_COMMODITY: Final = Column("text", "electricity, water or gas")
_CURRENCY: Final = Column("text", "currency")
_STUDY: Final = Column("text", "rate study")

CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "billing.unbilled_month",
        "what an account owes at a month's end for a service and component, for days served that are on no bill posted by then",
        ("month", "account_id", "service_point_id", "commodity", "component", "currency", "source"),
        {
            "month": _MONTH,
            "account_id": Column("text", "account that pays", pattern=ID),
            "service_point_id": Column("text", "service point", pattern=ID),
            "customer_class": _CLASS,
            "commodity": _COMMODITY,
            "component": _COMPONENT,
            "currency": _CURRENCY,
            "source": Column(
                "text",
                "days: charged days that are on no bill; correction: adjustments of issued bills that are posted later",
                one_of=("days", "correction"),
            ),
            "days": Column("integer", "service days it is for; 0 for a correction", at_least=0),
            "first_day": Column("date", "the earliest of them"),
            "amount": Column("bigint", "millionths of the currency"),
        },
        {
            "amount": ("billing.charge_day.amounts", "billing.statement.posting_month"),
            "account_id": ("billing.charge_day.account_id",),
            "days": ("billing.charge_day.billing_day",),
        },
    ),
    Contract(
        "billing.unbilled_roll",
        "how a class's unbilled revenue of a component went from one month's end to the next; amounts in millionths of the currency",
        ("month", "customer_class", "commodity", "component", "currency"),
        {
            "month": _MONTH,
            "customer_class": _CLASS,
            "commodity": _COMMODITY,
            "component": _COMPONENT,
            "currency": _CURRENCY,
            "opening": Column("bigint", "unbilled at the end of the month before, as it was reported"),
            "restated": Column("bigint", "what became known later of days before the month"),
            "charged": Column("bigint", "charges of the month's days"),
            "corrected": Column("bigint", "adjustments of issued bills that arose, posted in this month or later"),
            "issued": Column("bigint", "statement and adjustment lines posted in the month"),
            "at_period_end": Column(
                "bigint",
                "part of issued that is in no day's charge: minimum charges, credits, ratchets, rounding and the taxes on them",
            ),
            "elsewhere": Column("bigint", "charged days that the legacy batch bills, while a migration is under way"),
            "closing": Column("bigint", "unbilled at the month's end"),
            "revenue_account": Column(
                "text", "account of the general ledger; null where none is declared", nullable=True
            ),
        },
        {
            "opening": ("billing.unbilled_month.amount",),
            "charged": ("billing.charge_day.amounts",),
            "issued": ("billing.statement_line.amount", "billing.adjustment_line.amount"),
            "closing": ("billing.unbilled_month.amount",),
            "revenue_account": ("ref.revenue_accounts.revenue_account",),
        },
    ),
    Contract(
        "billing.journal_line",
        "a line of the journal of unbilled revenue: the month's accrual, or the reversal of the one before",
        ("month", "line_no"),
        {
            "month": _MONTH,
            "line_no": Column("integer", "number of the line", at_least=1),
            "entry_date": Column("date", "day it is booked on"),
            "entry": Column("text", "accrual or reversal", one_of=("accrual", "reversal")),
            "account_code": Column("text", "account of the general ledger"),
            "debit": Column("numeric(20,2)", "debit"),
            "credit": Column("numeric(20,2)", "credit"),
            "currency": _CURRENCY,
            "description": Column("text", "what it is, in words"),
        },
        {
            "debit": ("billing.unbilled_month.amount", "ref.revenue_accounts.receivable_account"),
            "credit": ("billing.unbilled_month.amount", "ref.revenue_accounts.revenue_account"),
            "account_code": ("ref.revenue_accounts.revenue_account",),
        },
    ),
    Contract(
        "billing.rate_study",
        "a rate study that was kept: what was asked, and what the bills came to under the tariffs proposed",
        ("study_id",),
        {
            "study_id": _STUDY,
            "made_at": Column("timestamp with time zone", "when, UTC"),
            "made_by": Column("text", "who"),
            "first_day": Column("date", "billing periods that end after this day"),
            "past_day": Column("date", "and by this one"),
            "replaces": Column("text[]", "tariffs that are replaced"),
            "documents": Column("jsonb", "the documents proposed, in that order, as text"),
            "document_sha256": Column("bytea[]", "their SHA-256"),
            "elasticity": Column("numeric", "elasticity assumed, null for none", nullable=True),
            "currency": _CURRENCY,
            "accounts": Column("integer", "accounts with a figure", at_least=0),
            "bills": Column("integer", "their bills", at_least=0),
            "actual": Column("bigint", "what was billed, millionths"),
            "proposed": Column("bigint", "what would have been, millionths"),
            "not_reproduced": Column("integer", "bills that do not come out as billed and are left out", at_least=0),
            "left_out": Column("jsonb", "why other services have no figure, and how many"),
        },
        {"actual": ("billing.statement_line.amount",), "proposed": ("billing.charge_day.energy_to_date",)},
    ),
    Contract(
        "billing.rate_study_account",
        "an account's bills in a rate study",
        ("study_id", "account_id"),
        {
            "study_id": _STUDY,
            "account_id": Column("text", "account", pattern=ID),
            "customer_class": _CLASS,
            "bills": Column("integer", "bills of the study's periods", at_least=1),
            "actual": Column("bigint", "what was billed, millionths"),
            "proposed": Column("bigint", "what would have been, millionths"),
        },
        {"actual": ("billing.statement_line.amount",), "proposed": ("billing.charge_day.energy_to_date",)},
    ),
    Contract(
        "billing.rate_study_revenue",
        "revenue of a class and component in a month of a rate study",
        ("study_id", "customer_class", "commodity", "component", "month"),
        {
            "study_id": _STUDY,
            "customer_class": _CLASS,
            "commodity": _COMMODITY,
            "component": _COMPONENT,
            "month": Column("date", "month in which the billing periods end"),
            "actual": Column("bigint", "what was billed, millionths"),
            "proposed": Column("bigint", "what would have been, millionths"),
        },
        {"actual": ("billing.statement_line.amount",), "proposed": ("billing.charge_day.energy_to_date",)},
    ),
    Contract(
        "billing.zone_day",
        "a zone's supply balance on a billing day, in millionths of its unit; null where a side is not known",
        ("billing_day", "zone_id"),
        {
            "billing_day": DAY,
            "zone_id": Column("text", "zone of the network", pattern=ID),
            "commodity": _COMMODITY,
            "unit": Column("text", "m3 for water, else the unit of its meters"),
            "delivered_in": Column("bigint", "delivered into the zone", nullable=True),
            "delivered_out": Column("bigint", "passed on to other zones", nullable=True),
            "metered": Column("bigint", "metered at its customers, those of the zones below included", nullable=True),
            "unmetered": Column("bigint", "authorised use that no meter counts, as declared"),
            "difference": Column("bigint", "delivered_in - delivered_out - metered - unmetered", nullable=True),
            "uncertain": Column(
                "bigint",
                "the part of all sides that is estimated or a share of a register's reading of several days",
                at_least=0,
            ),
            "supplies": Column("integer", "supply meters of the day", at_least=0),
            "customers": Column("integer", "customers' service points of the day", at_least=0),
            "missing": Column("text", "what is not known, in words; empty where nothing is missing"),
        },
        {
            "delivered_in": ("vee.daily_usage.quantity_micro", "ref.zone_supplies.direction"),
            "metered": ("vee.daily_usage.quantity_micro", "ref.zone_members.zone_id"),
            "unmetered": ("ref.zone_unmetered.quantity_per_day",),
            "uncertain": ("vee.daily_usage.estimated_micro",),
        },
    ),
    Contract(
        "billing.estimated_bill",
        "services of a billing period without a read: how many such bills there were in a row, and what the limit does",
        ("account_id", "service_point_id", "cycle_id", "period_start"),
        {
            "account_id": Column("text", "account", pattern=ID),
            "service_point_id": Column("text", "service point", pattern=ID),
            "cycle_id": Column("text", "billing cycle", pattern=ID),
            "period_start": Column("date", "first day of the period"),
            "period_end": Column("date", "day after its last"),
            "cause": Column("text", "why it is estimated", one_of=("no_read", "rejected")),
            "in_a_row": Column("integer", "estimated bills in a row, this one included", at_least=1),
            "of_cause": Column("integer", "the latest of them that have its cause", at_least=1),
            "action": Column("text", "what the limit does", one_of=("none", "hold", "read_request")),
            "most_bills": Column("integer", "how many the rule allows", nullable=True),
            "shown": Column("boolean", "whether the bill says how many there were"),
            "rule": Column("text", "class, commodity, cause and first day of the rule; empty without one"),
            "noted_at": Column("timestamp with time zone", "when it was written"),
        },
        {
            "in_a_row": ("billing.determinant_day.estimated",),
            "cause": ("vee.exception.kind",),
            "action": ("ref.estimate_limits.action",),
        },
    ),
    Contract(
        "billing.leak_adjustment",
        "what an adjustment for a leak stands on: the confirmed case, normal use, the rule, and what the customer showed",
        ("adjustment_id",),
        {
            "adjustment_id": Column("text", "adjustment"),
            "case_id": Column("text", "confirmed leak"),
            "service_point_id": Column("text", "service point", pattern=ID),
            "period_start": Column("date", "first day of the bill's period"),
            "period_end": Column("date", "day after its last"),
            "unit": Column("text", "unit of the tariff"),
            "used": Column("bigint", "usage that the bill stands on, millionths of unit"),
            "normal": Column(
                "bigint", "normal use of as many days: the mean of the earlier bills that count", at_least=0
            ),
            "forgiven": Column("bigint", "usage above normal that is not charged", at_least=0),
            "sewer_forgiven": Column("bigint", "usage above normal that sewer charges do not count", at_least=0),
            "rule_class": Column("text", "customer class of the rule; * for all"),
            "rule_from": Column("date", "first day of the rule"),
            "periods": Column("text", "earlier bills with their days and quantities, and why one was left out: JSON"),
            "case_evidence": Column(
                "text", "days of the case with the figures that flagged them, who confirmed it and why: JSON"
            ),
            "shown": Column("text", "what the customer showed"),
        },
        {
            "used": ("billing.statement_segment.energy",),
            "normal": ("billing.statement_segment.energy", "ref.leak_adjustment_rules.normal_periods"),
            "forgiven": ("ref.leak_adjustment_rules.share_percent",),
            "sewer_forgiven": ("ref.leak_adjustment_rules.sewer_share_percent",),
            "case_evidence": ("anomaly.flag.evidence", "anomaly.exception_case.state"),
        },
    ),
    Contract(
        "billing.back_billing",
        "what the back-billing rule made of a correction of an issued bill, for each service on it: full amount = allowed + waived",
        ("adjustment_id", "service_point_id"),
        {
            "adjustment_id": Column("text", "the correction: cancel and rebill in full"),
            "service_point_id": Column("text", "service point", pattern=ID),
            "rule_commodity": Column("text", "commodity of the rule; * for all"),
            "rule_class": Column("text", "customer class of the rule; * for all"),
            "rule_from": Column("date", "first day of the rule"),
            "corrected_on": Column("date", "day from which the rule counts back"),
            "limit_day": Column(
                "date", "first day that may be charged or credited; null without a limit", nullable=True
            ),
            "full_amount": Column("numeric(20,6)", "what the correction comes to for the service: its lines"),
            "allowed": Column("numeric(20,6)", "what of it the rule allows"),
            "waived": Column(
                "numeric(20,6)", "what of it the rule does not allow: taken back by the policy adjustment"
            ),
            "interest": Column(
                "numeric(20,6)",
                "interest on the refund; negative where an earlier refund with interest is taken back",
            ),
            "why": Column("text", "how the amounts follow from the rule, in words"),
            "instalments": Column(
                "integer",
                "months of instalments that are offered for a charge; null for none",
                nullable=True,
                at_least=1,
            ),
            "policy_adjustment": Column(
                "text",
                "adjustment that takes back what is waived and credits interest; null where both are 0",
                nullable=True,
            ),
        },
        {
            "full_amount": ("billing.adjustment_line.amount",),
            "allowed": ("ref.back_billing_rules.charge_months", "ref.back_billing_rules.credit_months"),
            "waived": ("ref.back_billing_rules.waive_below",),
            "interest": ("ref.back_billing_rules.interest_percent",),
        },
    ),
    Contract(
        "billing.winter_average",
        "a service's winter average from a day on, and the billing periods that it stands on",
        ("effective", "service_point_id", "account_id"),
        {
            "effective": Column("date", "day from which it holds"),
            "service_point_id": Column("text", "service point", pattern=ID),
            "account_id": Column("text", "account", pattern=ID),
            "unit": Column("text", "unit of the tariff"),
            "per_day": Column("bigint", "average a day, millionths of unit; null where there is none", nullable=True),
            "source": Column(
                "text",
                "computed, default (too few periods), or none (too few, and no default)",
                one_of=("computed", "default", "none"),
            ),
            "periods": Column(
                "jsonb", "every billing period of the winter: its days, quantity, and why it was left out where it was"
            ),
        },
        {
            "per_day": ("billing.statement_segment.energy", "ref.winter_average_rules.months"),
            "periods": ("billing.statement_segment.energy", "anomaly.exception_case.state"),
        },
    ),
)
