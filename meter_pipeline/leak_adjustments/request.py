"""Computes and requests the bill adjustments of a confirmed leak."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from meter_pipeline.anomalies import QueueError, show_case
from meter_pipeline.billing.adjustments import Beside, request_on_top
from meter_pipeline.billing.proposals import AdjustmentError, Proposal, at_usage
from meter_pipeline.billing.usage_change import UsageChange
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.leak_adjustments import tables
from meter_pipeline.leak_adjustments.rules import (
    Forgiven,
    LeakRefusedError,
    Rule,
    chosen,
    forgive,
    months_apart,
    quantity,
)
from meter_pipeline.postgres.database import Database

#: Families of cases that say that water ran away
LEAKS: Final = ("flow", "burst")


@dataclass(frozen=True, slots=True)
class BillOfLeak:
    """A bill of the leak's period. ``why``: the reason it is not adjusted; otherwise ``forgiven`` and ``proposal`` are
    the adjustment."""

    bill: dict[str, Any]
    why: str = ""
    rule: Rule | None = None
    forgiven: Forgiven | None = None
    proposal: Proposal | None = None

    def document(self) -> dict[str, Any]:
        """As printed: exact decimals as text."""
        shown: dict[str, Any] = {
            "statement_id": self.bill["statement_id"],
            "period_start": self.bill["period_start"],
            "period_end": self.bill["period_end"],
            "unit": self.bill["unit"],
            "used": quantity(self.bill["quantity"]),
            "why_not": self.why,
        }
        if self.forgiven is not None and self.proposal is not None and self.rule is not None:
            shown |= {
                "normal": quantity(self.forgiven.normal),
                "forgiven": quantity(self.forgiven.water),
                "sewer_forgiven": quantity(self.forgiven.sewer),
                "net": quantity(self.proposal.net),
                "rule": f"class {self.rule.customer_class} from {self.rule.valid_from}",
                "periods": self.forgiven.periods,
            }
        return shown


@dataclass(frozen=True, slots=True)
class Leak:
    """A confirmed leak with the bills of its period, the earliest first."""

    case: dict[str, Any]
    bills: list[BillOfLeak]

    @property
    def adjusted(self) -> list[BillOfLeak]:
        """The bills that are adjusted."""
        return [bill for bill in self.bills if not bill.why]


def preview(database: Database, calendar: BillingCalendar, case_id: str) -> Leak:
    """Returns the adjustments of a leak, exact to the cent, and writes nothing. Raises LeakRefusedError."""
    try:
        with database.connect("leak adjustment", autocommit=True) as connection:
            case = show_case(connection, case_id)
    except QueueError as error:
        raise LeakRefusedError(f"{error}: meter-pipeline exceptions list --all --kind leak shows their ids") from error
    if case["family"] not in LEAKS:
        raise LeakRefusedError(f"{case_id} is a case of {case['kind']}, not of a leak")
    if case["state"] != "confirmed":
        raise LeakRefusedError(f"{case_id} is {case['state']}: confirm it first (meter-pipeline exceptions confirm)")
    point = case["service_point_id"]
    every = tables.bills(database, point)
    reached = [b for b in every if b["first_day"] <= case["last_day"] and b["past_day"] > case["first_day"]]
    if not reached:
        raise LeakRefusedError(
            f"no bill of {point} holds a day from {case['first_day']} to {case['last_day']}: wait until it is issued"
        )
    rules, standing = tables.rules(database), tables.made(database, point)
    leaks = tables.leaks(database, point, case_id)
    count, found = sum(1 for adjustment in standing if adjustment["case_id"] == case_id), []
    for bill in reached:
        try:
            rule = chosen(rules, bill["customer_class"], _last_day(bill))
            _allowed(rule, bill, case_id, standing, count)
            earlier = [
                b for b in every if b["account_id"] == bill["account_id"] and b["period_end"] < bill["period_end"]
            ]
            forgiven = forgive(rule, bill, earlier, leaks, case["first_day"])
            proposal = at_usage(database, calendar, bill["statement_id"], _change(rule, point, forgiven))
            if not proposal.lines.height:
                raise LeakRefusedError("no charge of the bill depends on the use that is forgiven")
        except (LeakRefusedError, AdjustmentError) as refusal:
            found.append(BillOfLeak(bill, str(refusal)))
            continue
        count += 1
        found.append(BillOfLeak(bill, "", rule, forgiven, proposal))
    return Leak(case, found)


def _last_day(bill: dict[str, Any]) -> date:
    return date.fromordinal(bill["period_end"].toordinal() - 1)


def _allowed(rule: Rule, bill: dict[str, Any], case_id: str, standing: list[dict[str, Any]], count: int) -> None:
    for adjustment in standing:
        if adjustment["statement_id"] == bill["statement_id"]:
            raise LeakRefusedError(f"{adjustment['adjustment_id']} adjusts it already ({adjustment['status']})")
        if adjustment["case_id"] != case_id and not months_apart(
            adjustment["period_end"], bill["period_end"], rule.months_between
        ):
            raise LeakRefusedError(
                f"{adjustment['adjustment_id']} forgave another leak less than {rule.months_between} months apart"
            )
    if count >= rule.most_bills:
        raise LeakRefusedError(f"the rule adjusts {rule.most_bills} bills of a leak")


def _change(rule: Rule, point: str, forgiven: Forgiven) -> UsageChange:
    used = forgiven.used
    return UsageChange(point, used, used - forgiven.water, rule.sewer_codes, used - forgiven.sewer)


def apply(
    database: Database,
    calendar: BillingCalendar,
    case_id: str,
    *,
    shown: str,
    requested_by: str,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[Leak, list[str]]:
    """Request the adjustments of a confirmed leak, all of them or none. Returns their figures and their ids. Up to the
    threshold they are posted now; above it a second person decides.

    ``shown``: the evidence that the customer presented. Raises LeakRefusedError where no bill is adjusted, and Refused
    for a person who may not request.
    """
    leak = preview(database, calendar, case_id)
    if not leak.adjusted:
        raise LeakRefusedError("; ".join(f"{b.bill['statement_id']}: {b.why}" for b in leak.bills))
    wanted = next((b.rule.evidence for b in leak.adjusted if b.rule is not None and b.rule.evidence), "")
    if wanted and not shown.strip():
        raise LeakRefusedError(f"the rule asks for evidence: {wanted}. Say what the customer showed")
    names = []
    with database.connect("leak adjustment") as connection:
        for bill in leak.adjusted:
            assert bill.proposal is not None  # noqa: S101 - of a bill that is adjusted
            names.append(
                request_on_top(
                    connection,
                    calendar,
                    bill.proposal,
                    evidence=_evidence(leak.case, bill, shown),
                    requested_by=requested_by,
                    beside=Beside("billing.leak_adjustment", ("adjustment_id",), [_row(leak.case, bill, shown)]),
                    clock=clock,
                )
            )
    return leak, names


def _evidence(case: dict[str, Any], bill: BillOfLeak, shown: str) -> str:
    """The adjustment's evidence in one line."""
    assert bill.forgiven is not None and bill.rule is not None  # noqa: S101, PT018 - of a bill that is adjusted
    unit, forgiven = bill.bill["unit"], bill.forgiven
    return (
        f"{case['kind']} {case['case_id']}, {case['first_day']} to {case['last_day']}, confirmed by {case['decided_by']}"
        f"{': ' + case['reason'] if case['reason'] else ''}; used {quantity(forgiven.used)} {unit}, normal "
        f"{quantity(forgiven.normal)}, forgiven {quantity(forgiven.water)}, sewer {quantity(forgiven.sewer)}; rule of class "
        f"{bill.rule.customer_class} from {bill.rule.valid_from}; shown: {shown.strip() or 'nothing'}"
    )[:2000]


def _row(case: dict[str, Any], bill: BillOfLeak, shown: str) -> dict[str, Any]:
    """Returns the row of billing.leak_adjustment without the name of the adjustment."""
    assert bill.forgiven is not None and bill.rule is not None  # noqa: S101, PT018 - of a bill that is adjusted
    flags = [
        {
            "day": str(f["billing_day"]),
            "kind": f["kind"],
            "observed": f.get("observed"),
            "expected": f.get("expected"),
            "unit": f.get("unit"),
            "figures": f.get("evidence"),
        }
        for f in case["flags"]
    ]
    return {
        "case_id": case["case_id"],
        "service_point_id": case["service_point_id"],
        "period_start": bill.bill["period_start"],
        "period_end": bill.bill["period_end"],
        "unit": bill.bill["unit"],
        "used": bill.forgiven.used,
        "normal": bill.forgiven.normal,
        "forgiven": bill.forgiven.water,
        "sewer_forgiven": bill.forgiven.sewer,
        "rule_class": bill.rule.customer_class,
        "rule_from": bill.rule.valid_from,
        "periods": json.dumps(bill.forgiven.periods, sort_keys=True),
        "case_evidence": json.dumps(
            {
                "kind": case["kind"],
                "first_day": str(case["first_day"]),
                "last_day": str(case["last_day"]),
                "confirmed_by": case["decided_by"],
                "reason": case["reason"] or "",
                "flags": flags,
            },
            sort_keys=True,
        ),
        "shown": shown.strip(),
    }
