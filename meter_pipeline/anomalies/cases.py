"""From flags to cases: which findings are one matter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final, Literal

from meter_pipeline.anomalies.kinds import KINDS, SEVERITIES

State = Literal["open", "assigned", "confirmed", "dismissed", "expired"]
UNDECIDED: Final = ("open", "assigned")
#: A flag within this many days of a case's days is the same matter.
FOLD_DAYS: Final = 10
#: After a dismissal the same family about the same subject is quiet for this long, unless it turns more severe.
QUIET_DAYS: Final = 30
#: A dismissal widens the meter's thresholds by a quarter, a confirmation takes a tenth back.
WIDER, NARROWER, WIDEST = 1.25, 0.9, 3.0


@dataclass(frozen=True, slots=True)
class Case:
    """One matter about one subject (a service point, collector or head-end) from its first to its last flagged day."""

    case_id: str
    subject: str
    family: str
    kind: str
    severity: str
    confidence: float
    state: State
    hold: bool
    first_day: date
    last_day: date
    days: int


@dataclass(frozen=True, slots=True)
class CaseFlag:
    """The fields of a flag by which flags are joined to cases."""

    subject: str
    kind: str
    severity: str
    confidence: float
    day: date


def merge_into_cases(flags: list[CaseFlag], cases: list[Case]) -> tuple[list[Case], list[Case]]:
    """Put a day's flags into the cases of their subjects: (new cases, changed cases).

    ``cases`` are all cases of the flags' subjects. A flag joins the case of its family whose days lie within FOLD_DAYS
    of it, whatever that case's state: a confirmed leak that still runs is the same leak, and a dismissed matter stays
    dismissed for QUIET_DAYS unless a more severe kind turns up. Otherwise it opens a case. The same flags in the same
    order always give the same cases; a day flagged again adds nothing.
    """
    known: dict[tuple[str, str], list[Case]] = {}
    for case in sorted(cases, key=lambda c: (c.first_day, c.case_id)):
        known.setdefault((case.subject, case.family), []).append(case)
    made: dict[str, Case] = {}
    changed: dict[str, Case] = {}
    for flag in sorted(flags, key=lambda f: (f.day, f.subject, f.kind)):
        kind = KINDS[flag.kind]
        if not kind.case:
            continue
        mine = known.setdefault((flag.subject, kind.family), [])
        at = next((i for i in range(len(mine) - 1, -1, -1) if _belongs(flag, mine[i])), None)
        if at is None:
            case = Case(
                case_id=f"{kind.family}-{flag.subject}-{flag.day:%Y%m%d}",
                subject=flag.subject,
                family=kind.family,
                kind=flag.kind,
                severity=flag.severity,
                confidence=flag.confidence,
                state="open",
                hold=kind.hold,
                first_day=flag.day,
                last_day=flag.day,
                days=1,
            )
            mine.append(case)
            made[case.case_id] = case
            continue
        case = _joined(flag, mine[at])
        mine[at] = case
        (made if case.case_id in made else changed)[case.case_id] = case
    return list(made.values()), list(changed.values())


def _belongs(flag: CaseFlag, case: Case) -> bool:
    if case.first_day <= flag.day <= case.last_day:
        return True
    reach = QUIET_DAYS if case.state == "dismissed" else FOLD_DAYS
    if case.state == "dismissed" and SEVERITIES.index(flag.severity) > SEVERITIES.index(case.severity):
        return False
    if case.state == "expired":
        reach = 0
    return case.first_day - timedelta(days=FOLD_DAYS) <= flag.day <= case.last_day + timedelta(days=reach)


def _joined(flag: CaseFlag, case: Case) -> Case:
    """The case with the flag in it. The kind follows the latest day, so that a leak found to drift is called so."""
    severity = max(case.severity, flag.severity, key=SEVERITIES.index)
    newest = flag.day >= case.last_day
    inside = case.first_day <= flag.day <= case.last_day
    return replace(
        case,
        kind=flag.kind if newest and flag.kind != case.kind else case.kind,
        severity=severity,
        confidence=max(case.confidence, flag.confidence),
        hold=case.hold or (KINDS[flag.kind].hold and case.state in UNDECIDED),
        first_day=min(case.first_day, flag.day),
        last_day=max(case.last_day, flag.day),
        days=case.days if inside else case.days + 1,
    )


def expired(cases: list[Case], today: date) -> list[Case]:
    """Undecided cases whose kind has not been flagged for its time: closed as expired, their hold released."""
    return [
        replace(case, state="expired", hold=False)
        for case in cases
        if case.state in UNDECIDED and (today - case.last_day).days > KINDS[case.kind].expires
    ]


def tolerance(confirmed: int, dismissed: int) -> float:
    """How much wider than usual a meter's thresholds are after so many decisions about it, between 0.8 and 3."""
    return float(min(max(WIDER**dismissed * NARROWER**confirmed, 0.8), WIDEST))
