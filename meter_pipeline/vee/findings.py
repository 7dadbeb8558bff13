"""Findings of validation that go to people or stop a bill: the day's exceptions, each with the action the policy gives
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.units import from_micro
from meter_pipeline.vee import account_mapping
from meter_pipeline.vee.loading import DayInputs
from meter_pipeline.vee.registers.usage import RegisterUsage
from meter_pipeline.vee.rules import row_rules
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity, codes
from meter_pipeline.vee.rules.model import ValidatedMatrix
from meter_pipeline.vee.rules.policy import DayPolicy
from meter_pipeline.vee.tables import validated

_COLUMNS: Final = ("kind", "service_point_id", "meter_id", "channel", "severity", "detail")
#: Row rules whose finding is the account mapping's own exception
_ELSEWHERE: Final = ("REFERENCE",)
_NOTHING: Final = {c: pl.lit("").alias(c) for c in ("meter_id", "channel")}


def _severity(code: str) -> str:
    rule = ROW_RULES.get(code) or INTERVAL_RULES[code]
    return rule.severity.get(Role.INITIAL, Severity.INFORM).name.lower()


def _frame(rows: list[tuple[str, str, str, str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(_COLUMNS, pl.String), orient="row")


def row_findings(v: ValidatedMatrix, policy: DayPolicy) -> pl.DataFrame:
    """Findings about the channel-days of a matrix: rows that a listed rule hit, and rows without a service point.

    Columns kind, service_point_id, meter_id, channel, severity, detail.
    """
    orphan = v.keys.filter(~pl.col("has_point")).select(
        pl.lit("NO_SERVICE_POINT").alias("kind"),
        "service_point_id",
        "meter_id",
        "channel",
        pl.lit("fail").alias("severity"),
        pl.lit(account_mapping.KINDS["NO_SERVICE_POINT"]).alias("detail"),
    )
    names = v.keys.select("service_point_id", "meter_id", "channel")
    found: list[tuple[str, str, str, str, str, str]] = []
    for i in np.flatnonzero((v.row_flags & policy.listed_rows) != 0):
        key = names.row(int(i))
        hits = codes(ROW_RULES, int(v.row_flags[i]) & policy.listed_rows)
        found += [(c, *key, _severity(c), _detail(c, v, int(i))) for c in hits if c not in _ELSEWHERE]
    listed = np.int32(policy.listed_intervals)
    for i in np.flatnonzero((v.flags & listed).any(axis=1)) if listed else ():
        key = names.row(int(i))
        for code in codes(INTERVAL_RULES, int(np.bitwise_or.reduce(v.flags[i])) & int(listed)):
            slots = np.flatnonzero(v.flags[i] & np.int32(INTERVAL_RULES[code].mask))
            detail = f"{slots.size} intervals from slot {int(slots[0]) + 1}: {INTERVAL_RULES[code].about}"
            found.append((code, *key, _severity(code), detail))
    return pl.concat([_frame(found), orphan])


def _detail(code: str, v: ValidatedMatrix, i: int) -> str:
    if code in ("SUM_CHECK", "INFEASIBLE", "MULTIPLIER") and v.difference[i] != NO_VALUE:
        return f"intervals {int(v.total[i])} against register {int(v.difference[i])} micro {v.keys['unit'][i]}"
    if code in ("NO_DATA", "NOT_ESTIMATED"):
        return f"{int(v.estimated[i])} of {int(v.expected[i])} slots estimated, {int(v.missing[i])} null"
    if code in ("STUCK", "ESTIMATE_SUSPECT", "INACTIVE"):
        return f"{ROW_RULES[code].about} The day is {from_micro(int(v.total[i]))} {v.keys['unit'][i]}."
    return ROW_RULES[code].about


#: Rules of registers whose findings are reported though they neither hold a bill nor open a case
_TOLD: Final = row_rules.ROLLOVER.mask | row_rules.READ_ERROR.mask


def register_findings(of_registers: RegisterUsage, only: pl.DataFrame, policy: DayPolicy) -> list[pl.DataFrame]:
    """Findings about meters that are read by their register alone; ``only``: the registers' rows, in the order of the
    usage.
    """
    flags = of_registers.frame["row_flags"].to_numpy()
    listed = policy.listed_rows | _TOLD
    names = only.select("service_point_id", "meter_id", "channel", "unit")
    found: list[tuple[str, str, str, str, str, str]] = []
    for i in np.flatnonzero(((flags & listed) != 0) | of_registers.silent):
        *key, unit = names.row(int(i))
        put = of_registers.frame["quantity_micro"][int(i)]
        day = "nothing is known of the day" if put is None else f"the day is put at {from_micro(put)} {unit}"
        silent = row_rules.READ_GAP.mask if of_registers.silent[i] else 0
        for code in codes(ROW_RULES, int(flags[i]) & (listed | silent)):
            if code not in _ELSEWHERE:
                detail = of_registers.details.get(int(i), {}).get(code, ROW_RULES[code].about.rstrip("."))
                found.append((code, key[0], key[1], key[2], _severity(code), f"{detail}; {day}"))
    return [_frame(found)]


def day_findings(
    read: DayInputs,
    unexpected: Sequence[pl.DataFrame],
    of_rows: Sequence[pl.DataFrame],
    usage: pl.DataFrame,
    policy: DayPolicy,
    now: datetime,
) -> pl.DataFrame:
    """All exceptions of a day, one row per kind and row, sorted by key: the columns of vee.exception.

    ``unexpected``: raw channels that no shard expected; ``of_rows``: ``row_findings`` and ``register_findings``;
    ``usage``: the day's.
    """
    aside = _set_aside(read)
    strangers = _strangers(read, unexpected).filter(~pl.col("meter_id").is_in(aside["meter_id"].implode()))
    parts = [_account_faults(read, usage), strangers, _transferred(read), aside, *of_rows]
    every = pl.concat(parts, how="vertical_relaxed")
    actions = {code: policy.action(code) for code in every["kind"].unique().to_list()}
    return (
        every.with_columns(
            billing_day=pl.lit(read.day, pl.Date),
            first_seen=pl.lit(now),
            detail=pl.col("detail").fill_null(""),
            action=pl.col("kind").replace_strict(actions, default="bill", return_dtype=pl.String),
        )
        .unique(["kind", "service_point_id", "meter_id", "channel"], keep="first", maintain_order=True)
        .sort("kind", "service_point_id", "meter_id", "channel")
        .select(validated.EXCEPTION)
    )


def joined(exceptions: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """The exceptions of a part of a day with those of the rest as stored, sorted by key."""
    rest = others.select(pl.col(c).cast(t) for c, t in exceptions.schema.items())
    return pl.concat([exceptions, rest]).sort("kind", "service_point_id", "meter_id", "channel")


def _set_aside(read: DayInputs) -> pl.DataFrame:
    """Services of which a step could not work out the day, by meter, with the reason."""
    rows = [
        ("SET_ASIDE", point, meter, "", "fail", read.aside[point]) for point, meter in read.meters_aside.iter_rows()
    ]
    return _frame(sorted(rows))


def queued(exceptions: pl.DataFrame, policy: DayPolicy) -> pl.DataFrame:
    """The exceptions of a day that go to the exception queue: those of service points that are known."""
    opening = [c for c in exceptions["kind"].unique().to_list() if policy.opens_case(c)]
    return exceptions.filter((pl.col("service_point_id") != "") & pl.col("kind").is_in(opening))


def _account_faults(read: DayInputs, usage: pl.DataFrame) -> pl.DataFrame:
    used = usage["service_point_id"].unique().implode() if usage.height else pl.Series([], dtype=pl.String).implode()
    severity = pl.when(pl.col("kind") == "SUPPLY_METER").then(pl.lit("inform")).otherwise(pl.lit("fail"))
    return read.account_faults.filter(pl.col("service_point_id").is_in(used)).select(
        "kind", "service_point_id", *_NOTHING.values(), severity.alias("severity"), "detail"
    )


def _strangers(read: DayInputs, unexpected: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Raw channels that reference data does not expect, or not in this interval length."""
    names = ["meter_id", "channel", "unit", "interval_minutes", "declared"]
    # a meter that moved lies in two shards
    every = pl.concat([read.strangers.select(names), *(u.select(names) for u in unexpected)]).unique().sort(names)
    return every.select(
        pl.when("declared").then(pl.lit("INTERVAL_SIZE")).otherwise(pl.lit("UNKNOWN_METER")).alias("kind"),
        pl.lit("").alias("service_point_id"),
        "meter_id",
        "channel",
        pl.lit("fail").alias("severity"),
        pl.format("{} minutes, unit {}", "interval_minutes", "unit").alias("detail"),
    )


def _transferred(read: DayInputs) -> pl.DataFrame:
    """Meters that moved between service points within the day."""
    start_s, end_s = int(read.start.timestamp()), int(read.end.timestamp())
    moved = (
        read.windows.filter(pl.col("billed") & ((pl.col("begin_s") > start_s) | (pl.col("end_s") < end_s)))
        .group_by("meter_id", "channel")
        .agg(
            pl.col("service_point_id").n_unique().alias("points"),
            pl.col("service_point_id").unique().sort().str.join(" ").alias("detail"),
        )
        .filter(pl.col("points") > 1)
    )
    return moved.select(
        pl.lit("TRANSFERRED").alias("kind"),
        pl.lit("").alias("service_point_id"),
        "meter_id",
        "channel",
        pl.lit("inform").alias("severity"),
        "detail",
    )
