"""The law of billing: for every service point and every day of its service, the validated usage is on a bill, accrued
in the open period, or waiting for a reason that a person can see, exact to the millionth. Usage of a supply meter that
a zone declares on the day, and that no account pays for, belongs to the zone (``supply``).

Computed with this room's own SQL (tables/); imports nothing of billing. A reason accounts for a limited quantity: a
revision for its own, a waiting correction for the quantity it would bill, an exception for the usage it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.revenue_assurance import tables
from meter_pipeline.revenue_assurance.result import Finding, LawResult, cents, text
from meter_pipeline.revenue_assurance.tables import waivers

#: Reasons of billing.exception_day that account for all usage of a service point's day, because no account is charged
#: for it
_WHOLE: Final = frozenset(
    {"no_agreement", "no_tariff", "tariff_refused", "no_period", "attribute_missing", "set_aside"}
)
#: Those that account for part of it: what registers count, or usage in the unit that they name
_REGISTER_PART, _UNIT_PART = "needs_intervals", "unit_mismatch"
#: The one by which billing sets a supply meter aside; it accounts for nothing unless a zone declares the meter
_SUPPLY: Final = "supply_meter"
#: The one that accounts for gas in these units, which no heat content turns into therms
_VOLUME_PART, _VOLUMES = "no_heat_content", frozenset({"m3", "gal", "ft3"})


def keep_law_of_day(database: Database, day: date, *, clock: Clock = SYSTEM_CLOCK) -> LawResult:
    """Evaluate the law of one billing day and store the result in billing.law_day, for pages that cannot wait for
    it."""
    result = law_of_day(database, day)
    row = {
        "day": day,
        "ok": result.ok,
        "service_points": result.service_points,
        "waiting": len(result.findings) - len(result.open) + len(result.bills_waiting),
        "open": len(result.open) + len(result.bills_open),
        "detail": result.sentence()[:2000],
        "at": clock.now(),
    }
    with database.connect("revenue assurance") as connection:
        tables.keep(connection, row)
    return result


def last_reports(connection: Connection, first: date, past: date) -> list[str]:
    """Returns the days of [first, past) on which the stored result of the law failed, or is missing."""
    return [
        f"{day} {report}" if ok is not None else f"{day} was never checked"
        for day, ok, report in tables.kept(connection, first, past)
        if not ok
    ]


def law_of_day(database: Database, day: date) -> LawResult:
    """Evaluate the law for one billing day and the bills that cover it."""
    return law_of_days(database, day, day + timedelta(days=1))


def law_of_month(database: Database, month: date) -> LawResult:
    """Evaluate the law for a month's billed days and the bills that cover any of them."""
    return law_of_days(database, month, (month + timedelta(days=31)).replace(day=1))


def last_day(database: Database) -> date | None:
    """Returns the last billed day."""
    with database.connect("revenue assurance") as connection:
        return tables.last_billed(connection)


def law_of_days(database: Database, first: date, past: date) -> LawResult:
    """Evaluate the law for the days in [first, past)."""
    with tables.one_moment(database) as (connection, beside), ThreadPoolExecutor(1, "law") as pool:
        money = pool.submit(tables.money_of_bills, beside, first, past)
        return _law(connection, first, past, money.result)


def law(connection: Connection, first: date, past: date) -> LawResult:
    """As ``law_of_days``, in the caller's transaction."""
    return _law(connection, first, past, partial(tables.money_of_bills, connection, first, past))


def _law(connection: Connection, first: date, past: date, money: Callable[[], list[dict[str, Any]]]) -> LawResult:
    """As ``law``. ``money``: returns tables.money_of_bills."""
    result = LawResult(first, past - timedelta(days=1))
    points: set[str] = set()
    day = first
    while day < past:
        _day(connection, day, result, points)
        day += timedelta(days=1)
    result.service_points = max(result.service_points, len(points))
    _bills(connection, first, past, result)
    _money(money(), result)
    _waived(connection, first, past, result)
    return result


def _day(connection: Connection, day: date, result: LawResult, points: set[str]) -> None:
    sums, others = tables.examine_day(connection, day)
    if not sums and not others:
        return
    result.days += 1
    result.service_points = max(result.service_points, sum(s["points"] for s in sums) + len(others))
    points |= {row["service_point_id"] for row in others}
    for s in sums:
        _add(
            result,
            s["unit"],
            s["used"],
            billed=s["used"] if s["billed"] else 0,
            accrued=0 if s["billed"] else s["used"],
        )
    names = [row["service_point_id"] for row in others]
    if not tables.day_is_billed(connection, day):
        for row in others:
            if row["metered"]:
                result.findings.append(_waiting(row, day, "day_not_billed"))
                _add(result, row["usage_unit"], row["used"], waiting=row["used"])
        return
    usage: dict[str, list[dict[str, Any]]] = {}
    for part in tables.usage_of(connection, day, names):
        usage.setdefault(part["service_point_id"], []).append(part)
    reasons = tables.reasons_of(connection, day, names)
    for row in others:
        judged = judge(row, day, usage.get(row["service_point_id"], []), reasons.get(row["service_point_id"], []))
        result.findings += [f for f in judged if not f.ok or f.waiting or f.why]
        result.supply_meters += all(f.ok for f in judged) and _is_supply(row, reasons.get(row["service_point_id"], []))
        for f in judged:
            _add(result, f.unit, f.validated, billed=f.billed, accrued=f.accrued, waiting=f.waiting, supply=f.supply)
    for point, account, cycle, start in tables.unbilled_accounts(connection, day):
        why = f"the period of {cycle} from {start} was billed without account {account}, and no reason is given"
        result.findings.append(Finding(point, day, 0, 0, 0, 0, "", why, False))


def _add(
    result: LawResult,
    unit: str,
    validated: int,
    *,
    billed: int = 0,
    accrued: int = 0,
    waiting: int = 0,
    supply: int = 0,
) -> None:
    sums = result.totals.setdefault(unit or "", [0, 0, 0, 0, 0])
    for k, value in enumerate((validated, billed, accrued, waiting, supply)):
        sums[k] += value


def _waiting(row: dict[str, Any], day: date, why: str) -> Finding:
    return Finding(row["service_point_id"], day, row["used"], 0, 0, row["used"], row["usage_unit"] or "", why, True)


def judge(row: dict[str, Any], day: date, usage: list[dict[str, Any]], reasons: list[tuple[str, str]]) -> list[Finding]:
    """Returns the findings of a service point's day whose figures are not equal: one finding a unit of usage.

    ``row``: of tables.examine_day; ``usage``: its validated usage by unit, flow and source; ``reasons``: the exceptions
    that people see.
    """
    if row["revision"] == {}:  # a sealed day for which nobody is charged any more: its row is what was
        row = row | dict.fromkeys(("account_id", "source_unit", "other_unit", "revision"))
        row |= {"bills": 0, "charged": False}
    faults = _faults(row, usage, reasons)
    now = _revised(row) or row
    billed_now, charged = row["bills"] > 0, row["charged"]
    total, before = _quantities(now), _quantities(row)
    units = sorted({(u["unit"], u["flow"]) for u in usage} | set(total))
    found: list[Finding] = []
    for unit, flow in units:
        parts = [u for u in usage if (u["unit"], u["flow"]) == (unit, flow)]
        validated = sum(u["quantity_micro"] or 0 for u in parts)
        stands = total.get((unit, flow), 0)
        billed, accrued, waiting, why = 0, 0, 0, []
        if billed_now:
            billed = stands
        elif charged and row["revision"] is not None:
            accrued = before.get((unit, flow), 0)
            waiting = stands - accrued
            why.append("late_actual_in_sealed_period")
        elif charged and row["left_out"]:
            waiting = stands
            why.append("late_change")
        elif charged:
            accrued = stands
        elif stands:
            waiting = stands
            why.append("late_actual_in_sealed_period" if row["revision"] is not None else _first(reasons))
        left = validated - billed - accrued - waiting
        supply = left if _is_supply(row, reasons) and not row["charged"] else 0
        left -= supply
        excused, by = _excused(left, parts, unit, row, reasons)
        wrong = [] if left == excused else [f"{text(left - excused)} {unit} of validated usage is in no determinant"]
        if excused:
            waiting += excused
            why.append(by)
        wrong += [f for f in faults if flow == "import"]
        export = f"{unit} exported" if flow == "export" else unit
        detail = "; ".join(wrong or [w for w in why if w])
        point = row["service_point_id"]
        found.append(Finding(point, day, validated, billed, accrued, waiting, export, detail, not wrong, supply))
    if not found:
        # without a meter nothing is to be counted: what is charged (street lights, stormwater) waits for nothing
        unmetered = row["charged"] and {reason for reason, _ in reasons} == {"no_usage"}
        why_not = "" if faults or unmetered or _is_supply(row, reasons) else _first(reasons)
        found = [Finding(row["service_point_id"], day, 0, 0, 0, 0, "", "; ".join(faults) or why_not, not faults)]
    return found


def _is_supply(row: dict[str, Any], reasons: list[tuple[str, str]]) -> bool:
    """Whether a zone declares the meter on the day, no account pays for it, and billing treated it as a supply
    meter."""
    return bool(row["supply_meter"]) and _SUPPLY in {reason for reason, _ in reasons}


def _revised(row: dict[str, Any]) -> dict[str, Any] | None:
    """A sealed day's later determinants."""
    revision: dict[str, Any] | None = row["revision"]
    return revision


def _quantities(row: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Determinants by unit and flow, in millionths of the meter's own unit."""
    found = {}
    for unit, used, sent in (
        (row.get("source_unit"), row.get("source_quantity"), row.get("source_export")),
        (row.get("other_unit"), row.get("other_quantity"), row.get("other_export")),
    ):
        if unit:
            found[unit, "import"] = int(used or 0)
            if sent:
                found[unit, "export"] = int(sent)
    return found


def _first(reasons: list[tuple[str, str]]) -> str:
    return ", ".join(sorted({reason for reason, _ in reasons}))


def _excused(
    left: int, parts: list[dict[str, Any]], unit: str, row: dict[str, Any], reasons: list[tuple[str, str]]
) -> tuple[int, str]:
    """Returns the quantity without determinant that a reason accounts for, and the reason."""
    if not left:
        return 0, ""
    names = {reason for reason, _ in reasons}
    whole = sorted(names & _WHOLE)
    if whole and not row["charged"]:
        return left, whole[0]
    if _UNIT_PART in names and any(r == _UNIT_PART and d.startswith(f"{unit} ") for r, d in reasons):
        counted = sum(u["quantity_micro"] or 0 for u in parts)
        return (left if left <= counted else 0), _UNIT_PART
    if _VOLUME_PART in names and unit in _VOLUMES:
        return (left if left == sum(u["quantity_micro"] or 0 for u in parts) else 0), _VOLUME_PART
    if _REGISTER_PART in names:
        registers = sum(
            int((u["quantity_micro"] if u["source"] == "register" else u["register_micro"]) or 0) for u in parts
        )
        return (left if left == registers else 0), _REGISTER_PART
    return 0, ""


def _faults(row: dict[str, Any], usage: list[dict[str, Any]], reasons: list[tuple[str, str]]) -> list[str]:
    """Returns faults of a service point's day that do not depend on its usage."""
    found = []
    known = any(u["quantity_micro"] is not None for u in usage)
    if _SUPPLY in {reason for reason, _ in reasons} and not row["supply_meter"]:
        found.append("set aside as a supply meter, while no zone declares it on the day or an account pays for it")
    if row["agreements"] > 1:
        found.append(f"{row['agreements']} agreements hold on the day")
    if row["bills"] > 1:
        found.append(f"on {row['bills']} bills")
    revision = _revised(row)
    account = revision["account_id"] if revision else row["account_id"]
    if row["payer"] is None and account is not None:
        found.append(f"charged to {account}, who has no agreement on the day")
    elif row["payer"] is not None and account is not None and account != row["payer"] and row["agreements"] == 1:
        found.append(f"charged to {account}, while {row['payer']} has the agreement")
    if row["payer"] is not None and account is None and not reasons:
        found.append("not billed, and no reason is given")
    if row["payer"] is None and known and not reasons:
        found.append("used without an agreement, and no reason is given")
    if row["payer"] is not None and account is not None and not known and not reasons:
        found.append("no usage is known, and no reason is given")
    if row["account_id"] is not None and not row["charged"] and revision is None and not reasons:
        found.append("not charged, and no reason is given")
    if row["charged"] and row["left_out"] and not row["correction"] and revision is None:
        found.append(f"charged to {account}, whose bill of the period is issued without the day")
    if row["charged"] and (row["moved"] != row["energy"] or row["sent_moved"] != row["export"]):
        found.append(
            f"its position moved by {text(row['moved'] or 0)}, its determinants are {text(row['energy'] or 0)}"
        )
    if row["charged"] and row["total"] != row["lines"]:
        found.append("the day's lines are not its total")
    if row["charged"] and not row["other_unit"] and row["factor"] is not None:
        room = 0 if row["factor"] == 1 else row["periods"]
        for source, priced in ((row["source_quantity"], row["energy"]), (row["source_export"], row["export"])):
            if abs(source * row["factor"] - priced) > room:
                found.append(f"{text(source)} {row['source_unit']} became {text(priced)} {row['unit']}")
    return found


def _bills(connection: Connection, first: date, past: date, result: LawResult) -> None:
    """Returns bills whose quantity differs from that of their days, unless a waiting change accounts for exactly the
    difference."""
    off = tables.bills_off_their_days(connection, first, past)
    if not off:
        return
    names = sorted({row["statement_id"] for row in off})
    moved = tables.late_changes(connection, names)
    corrections: dict[str, list[dict[str, Any]]] = {}
    for row in tables.corrections_waiting(connection, names):
        corrections.setdefault(row["statement_id"], []).append(row)
    for row in off:
        difference = f"{text(row['now'] - row['billed'])} {row['unit']}"
        name = f"{row['statement_id']} {row['service_point_id']}"
        key = (row["statement_id"], row["service_point_id"])
        # What the days were before they moved: billed, or asked for by a correction.
        before = row["now"] - moved.get(key, 0)
        why = _correction(row, before, corrections.get(row["statement_id"], []))
        if key in moved and (why is not None or before == row["billed"]):
            why = "late_change" if why is None else f"late_change, {why}"
        if why is not None:
            result.bills_waiting.append(f"{name}: {difference} ({why})")
        elif row["now"] == row["billed"]:
            result.bills_open.append(
                f"{name}: covers {row['days']} days, {row['days_known']} of them have determinants"
            )
        else:
            result.bills_open.append(
                f"{name}: stands on {text(row['billed'])} {row['unit']}, its days on {text(row['now'])}"
                + (f", of which late changes explain {text(moved[key])}" if key in moved else "")
            )


def _correction(row: dict[str, Any], before: int, corrections: Iterable[dict[str, Any]]) -> str | None:
    """Returns the correction that waits, or was refused, and would bill exactly the quantity of the days ``before``
    their last change."""
    by_name: dict[str, tuple[str, int, bool]] = {}
    for a in corrections:
        mine = a["energy"] if a["service_point_id"] == row["service_point_id"] else 0
        status, energy, restated = by_name.get(a["adjustment_id"], (a["status"], 0, a["restated"]))
        by_name[a["adjustment_id"]] = (status, energy + mine, restated)
    for name, (status, energy, restated) in by_name.items():
        if restated and energy in (before, row["now"]):
            return f"{name} was refused" if status == "refused" else f"{name} waits for a decision"
    return None


def _money(found: Iterable[dict[str, Any]], result: LawResult) -> None:
    """Returns bills whose money differs from their days' charges and the amounts of the period's end."""
    for row in found:
        name = row["statement_id"]
        if row["total"] != row["lines"]:
            result.bills_open.append(f"{name}: its lines are {cents(row['lines'])}, its total {cents(row['total'])}")
            continue
        if row["off_its_lines"]:
            result.bills_open.append(f"{name}: an adjustment is not the sum of its lines")
            continue
        books, due = row["lines"] + row["posted"], row["at_end"] if row["posted_due"] is None else row["posted_due"]
        message = f"{name}: bills {cents(books)}, its days and period end are {cents(row['charged'] + due)}"
        # What its days were charged before they moved.
        left = books - row["charged"] + row["moved"]
        late = f"late_change of {cents(row['moved'])}" if row["noted"] else ""
        if abs(left - due) <= row["room"] or row["revised"]:
            if late:
                result.bills_waiting.append(f"{message} ({late})")
        elif row["asked"] is not None and _explains(row, left, "asked"):
            what = f"an adjustment of {cents(row['asked'])} waits for a decision"
            result.bills_waiting.append(f"{message} ({', '.join(w for w in (what, late) if w)})")
        elif row["refused"] is not None and _explains(row, left, "refused"):
            result.bills_waiting.append(f"{message} (an adjustment of {cents(row['refused'])} was refused)")
        else:
            result.bills_open.append(message)


def _waived(connection: Connection, first: date, past: date, result: LawResult) -> None:
    """Checks back-billing results of corrections: full amount = allowed + waived, and each equals its lines."""
    for row in waivers.waivers(connection, first, past):
        name = f"{row['adjustment_id']} {row['service_point_id']}"
        wrong = [
            f"{name}: {what} {cents(lines)}, its rule {cents(by_rule)}"
            for what, lines, by_rule in (
                ("corrects", row["corrected"], row["full_amount"]),
                ("corrects", row["allowed"] + row["waived"], row["full_amount"]),
                ("waives", row["taken_back"], row["waived"]),
                ("credits interest of", row["credited"], row["interest"]),
            )
            if lines != by_rule
        ]
        if row["status"] != row["policy_status"]:
            wrong.append(f"{name}: is {row['status']}, what is waived of it {row['policy_status']}")
        result.bills_open += wrong
        if not wrong and row["status"] != "refused":
            result.waived.append(
                f"{name}: {cents(row['full_amount'])} corrected, {cents(row['allowed'])} allowed, {cents(row['waived'])} waived, "
                f"interest {cents(row['interest'])}"
            )
    result.bills_open += [
        f"{name}: waives without a rule" for name in waivers.waivers_without_rule(connection, first, past)
    ]


def _explains(row: dict[str, Any], left: Decimal, which: str) -> bool:
    """Whether a waiting or refused adjustment would make the bill equal to its days' charges now, or before their
    last change."""
    due = row["at_end"] if row[f"{which}_due"] is None else row[f"{which}_due"]
    off = left + row[which] - due
    return bool(min(abs(off), abs(off - row["moved"])) <= row["room"])
