"""The contract of each output: its fields, what they mean, and its version. schemas/OUTPUT-VERSION.json says the same
for readers that are no Python; a test holds both together and keeps a published version from changing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``kind``: text, date, decimal or integer. ``summed``: whether the manifest holds its sum."""

    kind: str
    about: str
    nullable: bool = False
    summed: bool = False
    one_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """``key``: the fields that name a record within its scope."""

    name: str
    version: int
    about: str
    key: tuple[str, ...]
    fields: dict[str, Field]

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one record, as a JSON Lines file holds it: dates as ISO 8601, decimals as text, exact."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"{self.name}, version {self.version}",
            "description": self.about,
            "type": "object",
            "additionalProperties": False,
            "required": list(self.fields),
            "properties": {name: _property(field) for name, field in self.fields.items()},
            "key": list(self.key),
        }


def _property(field: Field) -> dict[str, Any]:
    kind = {"integer": "integer"}.get(field.kind, "string")
    found: dict[str, Any] = {"type": [kind, "null"] if field.nullable else kind, "description": field.about}
    if field.kind == "date":
        found["format"] = "date"
    if field.kind == "decimal":
        found["pattern"] = r"^-?[0-9]+(\.[0-9]+)?$"
    if field.one_of:
        found["enum"] = list(field.one_of)
    return found


_SEQUENCE: Final = {
    "sequence": Field("integer", "1 when it is sent first; a number more for each correction of the same record"),
}
_SERVICE: Final = {
    "account_id": Field("text", "account"),
    "service_point_id": Field("text", "service point"),
}
_LINE: Final = {
    **_SERVICE,
    "statement_id": Field("text", "statement"),
    "line_id": Field("text", "statement or adjustment and line number; meter-pipeline explain takes it"),
    "cycle_id": Field("text", "billing cycle"),
    "period_first": Field("date", "first day of the billing period"),
    "period_last": Field("date", "last day of the billing period"),
    "tariff_id": Field("text", "tariff"),
    "tariff_version": Field("integer", "version of the tariff"),
    "line_key": Field("text", "line of the tariff version"),
    "name": Field("text", "name of the charge"),
    "component": Field("text", "energy, demand, fixed, minimum or tax"),
    "quantity": Field("decimal", "quantity charged", nullable=True, summed=True),
    "unit": Field("text", "unit of the quantity"),
    "amount": Field("decimal", "amount, exact", summed=True),
    "currency": Field("text", "ISO 4217 currency"),
    "posting_month": Field("date", "first day of the month it is posted in"),
}

OUTPUTS: Final[dict[str, Output]] = {
    output.name: output
    for output in (
        Output(
            "reads",
            1,
            "The read of each meter that was asked for, at the date asked for.",
            ("meter_id", "channel", "read_date"),
            {
                "meter_id": Field("text", "meter, as asked for"),
                "channel": Field("text", "register; empty where the meter has none"),
                "service_point_id": Field("text", "service point it is installed at on the date", nullable=True),
                "account_id": Field("text", "account served on the date", nullable=True),
                "route": Field("text", "route of the service point", nullable=True),
                "cycle_id": Field("text", "billing cycle on the date", nullable=True),
                "read_date": Field("date", "date asked for"),
                "read_on": Field("date", "day that the read closes; for an estimate the date asked for", nullable=True),
                "dial": Field("decimal", "what the dial shows, in the register's unit", nullable=True, summed=True),
                "unit": Field("text", "unit of the dial", nullable=True),
                "multiplier": Field("decimal", "dial times multiplier is the quantity", nullable=True),
                "status": Field("text", "read, estimated or missing", one_of=("read", "estimated", "missing")),
                "reason": Field("text", "why it is estimated or missing; empty for a read"),
                **_SEQUENCE,
            },
        ),
        Output(
            "read_requests",
            1,
            "Meters whose read the utility must get: a limit on estimated bills asks for it.",
            ("meter_id", "period_last"),
            {
                "meter_id": Field("text", "meter that stands there on the period's last day"),
                **_SERVICE,
                "route": Field("text", "route of the service point", nullable=True),
                "cycle_id": Field("text", "billing cycle"),
                "period_last": Field("date", "last day of the billing period without a read"),
                "cause": Field(
                    "text", "no_read, or rejected: what came failed validation", one_of=("no_read", "rejected")
                ),
                "in_a_row": Field("integer", "estimated bills in a row"),
                "most_bills": Field("integer", "how many the limit allows"),
                **_SEQUENCE,
            },
        ),
        Output(
            "determinants",
            1,
            "Billing determinants of each service of a cycle's period, as its statement stands on them.",
            ("service_point_id", "tariff_id", "tariff_version", "first", "determinant"),
            {
                **_SERVICE,
                "statement_id": Field("text", "statement"),
                "cycle_id": Field("text", "billing cycle"),
                "tariff_id": Field("text", "tariff"),
                "tariff_version": Field("integer", "version of the tariff"),
                "first": Field("date", "first day"),
                "last": Field("date", "last day"),
                "determinant": Field("text", "energy/PERIOD or demand/REGISTER of the tariff"),
                "quantity": Field("decimal", "quantity, exact", summed=True),
                "unit": Field("text", "unit of the quantity; kW for demand"),
                "status": Field(
                    "text", "actual, or estimated where an estimate is in it", one_of=("actual", "estimated")
                ),
                **_SEQUENCE,
            },
        ),
        Output(
            "statements", 1, "Every line of the statements of a cycle's period.", ("line_id",), {**_LINE, **_SEQUENCE}
        ),
        Output(
            "adjustments",
            1,
            "Every line of the adjustments posted in a month. A cancelled line's quantity and amount are negative.",
            ("line_id",),
            {
                **_LINE,
                "adjustment_id": Field("text", "adjustment"),
                "action": Field("text", "cancel or rebill", one_of=("cancel", "rebill")),
                "reason": Field("text", "why"),
                **_SEQUENCE,
            },
        ),
        Output(
            "journal",
            1,
            "The journal of a month's unbilled revenue, once the month is sealed.",
            ("line_no",),
            {
                "month": Field("date", "first day of the month"),
                "line_no": Field("integer", "number of the line"),
                "entry_date": Field("date", "day it is booked on"),
                "entry": Field("text", "accrual or reversal"),
                "account_code": Field("text", "account of the general ledger"),
                "debit": Field("decimal", "debit", summed=True),
                "credit": Field("decimal", "credit", summed=True),
                "currency": Field("text", "ISO 4217 currency"),
                "description": Field("text", "what it is, in words"),
                **_SEQUENCE,
            },
        ),
    )
}
