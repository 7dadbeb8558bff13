"""Winter averages by rule: which bills count, which are left out and why, and the average of the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.postgres.database import Database
from meter_pipeline.winter_average import tables
from meter_pipeline.winter_average.rules import Rule, WinterAverageRefusedError, rule_of

SCHEMA: Final = pl.Schema(
    {
        "effective": pl.Date(),
        "service_point_id": pl.String(),
        "account_id": pl.String(),
        "unit": pl.String(),
        "per_day": pl.Int64(),
        "source": pl.String(),
        "periods": pl.String(),
    }
)


def compute(database: Database, effective: date) -> pl.DataFrame:
    """The averages that hold from a day on, from bills of the year before it: billing.winter_average's rows.

    Raises WinterAverageRefusedError where a class has no rule or a rule cannot be read.
    """
    rules = {row["customer_class"]: rule_of(row) for row in tables.rules(database, effective)}
    if not rules:
        raise WinterAverageRefusedError(
            f"no rule is in force on {effective}: add one to reference/winter_average_rules.csv"
        )
    since = (
        effective.replace(year=effective.year - 1)
        if (effective.month, effective.day) != (2, 29)
        else date(effective.year - 1, 3, 1)
    )
    billed = tables.periods(database, since, effective)
    leaks: dict[str, list[tuple[date, date, str]]] = {}
    for point, first, last, case in tables.leaks(database, since, effective):
        leaks.setdefault(point, []).append((first, last, case))
    rows = []
    for (point, account), part in sorted(
        billed.group_by(["service_point_id", "account_id"]), key=lambda item: str(item[0])
    ):
        customer_class = str(part["customer_class"][0])
        rule = rules.get(customer_class, rules.get("*"))
        if rule is None:
            raise WinterAverageRefusedError(
                f"class {customer_class} has no rule, and there is none for *: add one to reference/winter_average_rules.csv"
            )
        per_day, source, periods = average(rule, part.to_dicts(), leaks.get(str(point), []))
        rows.append((effective, point, account, part["unit"][-1], per_day, source, json.dumps(periods, sort_keys=True)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def average(
    rule: Rule, billed: Sequence[Mapping[str, Any]], leaks: Sequence[tuple[date, date, str]]
) -> tuple[int | None, str, list[dict[str, Any]]]:
    """Average a day in millionths, where it comes from, and every period with why it was left out.

    ``billed``: period_start, period_end, first_day, past_day, days, quantity (millionths), estimated and unit of each.
    The periods left are averaged by their days together, rounded half to even.
    """
    periods = []
    unit = billed[-1]["unit"] if billed else ""
    for row in billed:
        last = date.fromordinal(row["period_end"].toordinal() - 1)
        leak = next((case for a, b, case in leaks if a < row["past_day"] and b >= row["first_day"]), None)
        why = ""
        if last.month not in rule.months:
            why = "not a month that counts"
        elif row["unit"] != unit:
            why = f"counted in {row['unit']}"
        elif row["estimated"]:
            why = "no read"
        elif leak is not None:
            why = f"confirmed leak, case {leak}"
        periods.append(
            {
                "from": str(row["first_day"]),
                "to": str(row["past_day"]),
                "days": row["days"],
                "quantity": _text(row["quantity"]),
                "left_out": why,
            }
        )
    kept = [k for k, period in enumerate(periods) if not period["left_out"]]
    ordered = sorted(kept, key=lambda k: (Decimal(billed[k]["quantity"]) / billed[k]["days"], k))
    low = ordered[: rule.drop_low] if len(ordered) > rule.drop_low + rule.drop_high else []
    high = (
        ordered[len(ordered) - rule.drop_high :]
        if rule.drop_high and len(ordered) > rule.drop_low + rule.drop_high
        else []
    )
    for dropped, why in ((low, "lowest"), (high, "highest")):
        for k in dropped:
            periods[k]["left_out"] = why
    left = [k for k in kept if not periods[k]["left_out"]]
    if len(left) < rule.least:
        if rule.default is None:
            return None, "none", periods
        return _micro(rule.default * 10**6), "default", periods
    days = sum(billed[k]["days"] for k in left)
    return _micro(Decimal(sum(billed[k]["quantity"] for k in left)) / days), "computed", periods


def _micro(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_EVEN))


def _text(micro: int) -> str:
    return format(Decimal(micro).scaleb(-6), "f")


def refresh(database: Database, effective: date) -> pl.DataFrame:
    """Work out the averages of an effective day and keep them."""
    found = compute(database, effective)
    with database.connect("winter averages") as connection:
        tables.replace(connection, effective, found)
    return found


def write_attributes(database: Database, path: Path, found: pl.DataFrame, effective: date) -> int:
    """Write service_attributes.csv rows that put the averages in the place of those in force on the effective day; how
    many averages. Import the file's folder to have them: what was in force before ends on the day."""
    stored = tables.attributes(database, effective)
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["service_point_id", "attribute", "value", "valid_from", "valid_to"])
        for point, per_day in (
            found.filter(pl.col("per_day").is_not_null()).select("service_point_id", "per_day").iter_rows()
        ):
            before = stored.get(point)
            if before is not None and before[1] < effective:
                writer.writerow([point, "winter_average_per_day", before[0], before[1], effective])
            writer.writerow([point, "winter_average_per_day", _text(per_day), effective, ""])
            written += 1
    return written
