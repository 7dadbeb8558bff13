"""The columns of each leaf encoding, in the order in which they are hashed.

They are evidence: a list never changes. An encoding that needs other columns gets a list of its own.
"""

from typing import Final

#: mp-charge/1: rows of billing.charge_day that were billed before mp-charge/2.
CHARGE_1: Final = (
    "billing_day",
    "service_point_id",
    "account_id",
    "tariff_id",
    "tariff_version",
    "days",
    "energy_to_date",
    "peaks_to_date",
    "amounts",
)
#: mp-charge/2: every column of billing.charge_day except ``total``, which is the sum of the amounts.
CHARGE_2: Final = (
    "billing_day",
    "service_point_id",
    "account_id",
    "tariff_id",
    "tariff_version",
    "cycle_id",
    "period_start",
    "stretch_start",
    "days",
    "energy_to_date",
    "export_to_date",
    "peaks_to_date",
    "peak_at_to_date",
    "register_days",
    "budget_to_date",
    "carry",
    "history",
    "amounts",
)
#: mp-determinant/1: every column of billing.determinant_day.
DETERMINANT_1: Final = (
    "billing_day",
    "service_point_id",
    "account_id",
    "tariff_id",
    "tariff_version",
    "cycle_id",
    "period_start",
    "period_end",
    "stretch_start",
    "unit",
    "source_unit",
    "source_quantity",
    "source_export",
    "other_unit",
    "other_quantity",
    "other_export",
    "energy",
    "export",
    "peaks",
    "peak_at",
    "slots",
    "estimated",
    "missing",
    "interval_minutes",
)
