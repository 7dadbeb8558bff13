"""Why a 300 record of a NEM12 file is refused: every reason, where the scan only says that there is one."""

from __future__ import annotations

import re
from typing import Final

from meter_pipeline.feeds.coded_columns import Stamps, Units
from meter_pipeline.feeds.nem12_parts import BlockDetails, RecordTails
from meter_pipeline.feeds.rejects import Reason, shown

_METHOD: Final = re.compile(r"[ASFENV](?:[0-9]{2})?", re.ASCII)


def refusal_of(
    raw: bytes, details: BlockDetails | None, expected: int, dates: Stamps, units: Units, tails: RecordTails
) -> list[Reason]:
    """Every reason a 300 record is refused for. ``details``: the 200 record it stands under; ``expected``: the values
    of its day, 0 where the 200 record does not say."""
    reasons: list[Reason] = []
    if details is None:
        reasons.append(Reason("bad_record", "a 300 record without a 200 record"))
    elif details.refused:
        reasons.append(Reason("bad_record", f"the 200 record at line {details.line} was refused"))
    if any(c < 32 or c == 127 for c in raw):
        reasons.append(Reason("control_character", shown(raw)))
    try:
        fields = [field.strip(" ") for field in raw.decode("utf-8").split(",")]
    except UnicodeDecodeError:
        return [*reasons, Reason("wrong_encoding", shown(raw))]
    date = dates.reason(dates.code(fields[1].encode())) if len(fields) > 1 else Reason("truncated_row", "no date")
    if date is not None:
        reasons.append(date)
    if details is None or not expected:
        return reasons
    values = fields[2 : 2 + expected]
    numbers = next((i for i, text in enumerate(values) if _METHOD.fullmatch(text)), len(values))
    if len(fields) < 2 + expected + 1 or numbers < expected:
        found = min(numbers, len(values))
        code = "truncated_row" if len(fields) < 2 + expected + 1 else "value_count"
        return [*reasons, Reason(code, f"{found} values, {expected} expected")]
    for at, text in enumerate(values, 1):
        value = units.exact(details.unit, text)
        if isinstance(value, Reason):
            reasons.append(Reason(value.code, f"interval {at}: {value.detail}"))
    tail = tails.code(",".join(fields[2 + expected :]).encode())
    reasons.extend(tails.reasons[tail])
    if not reasons:
        reasons.append(Reason("bad_number", "a value of more than 18 digits"))
    return reasons
