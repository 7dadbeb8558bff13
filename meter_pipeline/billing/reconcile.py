"""Reconciliation: compares each stage of a billing day with the one before; every difference has a named cause or is
open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.service_agreements import EXCEPTIONS

#: Days in a row of nothing but estimates that are reported. A lost message is mended by the next collection within two
# days; the third says that a person has to look. Our figure: rules for utilities limit estimated bills (commonly two
# in a row), which is months later.
STREAK_DAYS: Final = 3
#: Checks in the order in which data flows: each side is read from the tables named, never from what the stage has in
# hand.
CHECKS: Final[dict[str, str]] = {
    "file_to_reads": "reads landed in a file (raw.feed_file_day) against the outcomes of its committed batches (raw.load_batch)",
    "reads_to_validated": "channel-days read (raw.interval_day) against channel-days validated (vee.interval_day)",
    "intervals_to_register": "validated intervals (vee.interval_day) against the register's own reads (raw.register_read)",
    "registers_to_usage": "what registers without intervals were put at, and their reads (vee.register_day), against their services' usage (vee.daily_usage)",
    "validated_to_determinants": "validated usage (vee.daily_usage) against usage in determinants (billing.determinant_day), in the meter's unit",
    "determinants_to_lines": "usage in determinants (billing.determinant_day) against how far the priced positions moved (billing.charge_day)",
    "lines_to_total": "the sum of a stored day's lines against its total",
    "lines_to_statement": "the stored charges of a period's days (billing.charge_day) against the statement's lines (billing.statement_line)",
    "statement_to_ledger": "statements in the store, hashed again from their lines, against the leaves in the ledger (ledger.entry)",
}
STATEMENT_CHECKS: Final = ("lines_to_statement", "statement_to_ledger")
DAY_CHECKS: Final = tuple(check for check in CHECKS if check not in STATEMENT_CHECKS)
#: Checks whose figures are millionths; the others count.
_MICRO: Final = frozenset(CHECKS) - {"file_to_reads", "reads_to_validated", "statement_to_ledger"}

#: The closed list of causes. ``none`` agrees; ``open`` is an exception for people.
CAUSES: Final[dict[str, str]] = {
    "none": "the two sides agree",
    "open": "not explained yet: an exception for people; the bill and the corrections of its service wait",
    "not_loaded": "the file is staged and its load has not finished",
    "unknown_channel": "no reference data for the channel",
    "not_installed": "the meter stood at no service point on the day",
    "validation_exception": "validation refused it and says why in its own exception",
    "wholly_estimated": "no read came; every interval is an estimate",
    "within_tolerance": "within two register units times the multiplier",
    "day_edge": "no more than the intervals that reach over midnight, where clocks change by half an hour",
    "intervals_missing": "intervals that stayed null leave the sum below the register by exactly what validation found",
    "estimated": "estimates that could not be scaled to the register, up to what they add to the day",
    "sum_check_failed": "validation's sum check failed by exactly this; the case is in its queue",
    "superseded_by_intervals": "a daily total of usage that intervals already carry",
    "period_end": "owed only at a period's end: minimum charges and the taxes on them",
    "net_metering_credit": "credit carried in from the period before",
    "ratchet": "billing demand set by an earlier month's peak",
    "year_end": "owed only at a billing year's end: the annual minimum, less what is paid for credit left over",
    "adjusted": "late data moved the days after the statement was issued; an adjustment of it stands beside it",
    "adjustment_refused": "late data moved the days after the statement was issued; a person refused its adjustment",
    "late_actual_in_sealed_period": "the day is sealed; the statement of its period, or an adjustment of it, bills the later read",
    **EXCEPTIONS,
}
SCHEMA: Final = pl.Schema(
    {
        "joint": pl.String(),
        "subject": pl.String(),
        "unit": pl.String(),
        "cause": pl.String(),
        "expected": pl.Decimal(30, 6),
        "actual": pl.Decimal(30, 6),
        "items": pl.Int64(),
        "detail": pl.String(),
    }
)
NO_ROWS: Final = pl.DataFrame(schema=SCHEMA)


def micro(value: int) -> Decimal:
    """Millionths as an exact decimal."""
    return Decimal(value).scaleb(-6)


def table(found: Mapping[str, Sequence[Sequence[Any]]]) -> pl.DataFrame:
    """Returns rows of billing.reconciliation, sorted, from each check's rows (subject, unit, cause, expected, actual,
    items, detail).

    Raises ValueError for a check or a cause outside the closed lists.
    """
    rows = []
    for joint, sides in found.items():
        for subject, unit, cause, expected, actual, items, detail in sides:
            if joint not in CHECKS or cause not in CAUSES:
                raise ValueError(f"{joint}: {cause} is not in the closed list")
            figure = micro if joint in _MICRO else Decimal
            rows.append(
                {
                    "joint": joint,
                    "subject": subject,
                    "unit": unit,
                    "cause": cause,
                    "expected": figure(int(expected)),
                    "actual": figure(int(actual)),
                    "items": items,
                    "detail": detail or "",
                }
            )
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row") if rows else NO_ROWS
    return frame.sort("joint", "subject", "unit", "cause")


def usage_rows(
    wanted: pl.DataFrame, stored: pl.DataFrame, excused: pl.DataFrame, revised: pl.DataFrame | None = None
) -> list[tuple[Any, ...]]:
    """The check validated_to_determinants of a day, by service point, the meter's unit and cause.

    ``wanted``: service_point_id, unit, flow, quantity. ``stored``: determinants with source_unit, source_quantity and
    source_export, and with those of the day's other unit. ``excused``: service_point_id and the reason for missing
    usage; it explains usage that is missing completely and no other difference. ``revised``: determinants stored beside
    a sealed day; they explain a difference where they equal the validated usage. Where they state that no account is
    charged for the day any more, its reason explains the difference.
    """
    net = wanted.filter(pl.col("flow") == "net")["service_point_id"].unique()
    bills = _netted(_by_flow(stored, "held"), net, "held")
    both = _netted(wanted, net, "quantity").join(
        bills, on=["service_point_id", "unit", "flow"], how="full", coalesce=True
    )
    later = stored.clear() if revised is None else revised
    gone = later.filter(pl.col("source_unit") == "")["service_point_id"]
    # A revision that does not name a unit has none of it.
    none = pl.col("service_point_id").is_in(later["service_point_id"].to_list())
    both = both.join(
        _netted(_by_flow(later, "later"), net, "later"), on=["service_point_id", "unit", "flow"], how="left"
    ).with_columns(
        pl.when(pl.col("later").is_null() & none).then(0).otherwise(pl.col("later")).alias("later"),
        pl.col("quantity").fill_null(0).alias("expected"),
        pl.col("held").fill_null(0).alias("actual"),
    )
    named = both.join(excused, on="service_point_id", how="left").with_columns(
        pl.when(pl.col("expected") == pl.col("actual"))
        .then(pl.lit("none"))
        .when(pl.col("expected") == pl.col("later"))
        .then(pl.lit("late_actual_in_sealed_period"))
        .when((pl.col("actual") == 0) | pl.col("service_point_id").is_in(gone.implode()))
        .then(pl.col("reason").fill_null("open"))
        .otherwise(pl.lit("open"))
        .alias("cause")
    )
    return _by_cause(named, "unit")


def _netted(rows: pl.DataFrame, points: pl.Series, name: str) -> pl.DataFrame:
    """Returns usage of service points with a net channel as one row a unit, imports less exports: validation stores
    it as net, the determinants as an import and an export."""
    if not len(points):
        return rows
    mine = pl.col("service_point_id").is_in(points.implode())
    signed = pl.when(pl.col("flow") == "export").then(-pl.col(name)).otherwise(pl.col(name))
    folded = rows.filter(mine).group_by("service_point_id", "unit").agg(signed.sum().alias(name))
    return pl.concat(
        [rows.filter(~mine), folded.with_columns(flow=pl.lit("net")).select(rows.columns).cast(rows.schema)]
    )


def _by_flow(determinants: pl.DataFrame, name: str) -> pl.DataFrame:
    """Returns usage and exports of determinants as rows, in the day's unit and in its other one: service_point_id,
    unit, flow and the quantity under ``name``."""
    sides = (
        ("import", "source_unit", "source_quantity", pl.lit(True)),
        ("import", "other_unit", "other_quantity", pl.lit(True)),
        ("export", "source_unit", "source_export", pl.col("source_export") != 0),
        ("export", "other_unit", "other_export", pl.col("other_export") != 0),
    )
    return pl.concat(
        determinants.filter(pl.col(unit) != "", counts).select(
            "service_point_id", unit=unit, flow=pl.lit(flow), **{name: column}
        )
        for flow, unit, column, counts in sides
    )


def charged_rows(
    stored: pl.DataFrame, charges: pl.DataFrame, prior_day: pl.DataFrame, older: pl.DataFrame, excused: pl.DataFrame
) -> list[tuple[Any, ...]]:
    """The check determinants_to_lines of a day: usage against the change of the stored positions since the day before,
    in the tariff's unit.

    ``prior_day``: positions of the day before; ``older``: the last positions of services that have none then.
    ``excused``: uncharged marks services whose charge an exception refuses.
    """
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    behind = pl.concat([prior_day, older]).rename({"reached": "reached_before", "sent": "sent_before"})
    moved = (
        charges.select(*key, "reached", "sent")
        .join(behind, on=key, how="left")
        .select(
            "service_point_id",
            (pl.col("reached") - pl.col("reached_before").fill_null(0)).alias("moved"),
            (pl.col("sent") - pl.col("sent_before").fill_null(0)).alias("sent_moved"),
        )
    )
    refused = excused.filter(pl.col("uncharged")).select("service_point_id", pl.col("reason").alias("refused"))
    both = (
        stored.join(moved, on="service_point_id", how="left")
        .join(refused, on="service_point_id", how="left")
        .with_columns(
            pl.when(pl.col("moved").is_null() & pl.col("refused").is_not_null())
            .then(pl.col("refused"))
            .when((pl.col("energy") == pl.col("moved")) & (pl.col("export") == pl.col("sent_moved")))
            .then(pl.lit("none"))
            .otherwise(pl.lit("open"))
            .alias("cause"),
            pl.col("energy").alias("expected"),
            pl.col("moved").fill_null(0).alias("actual"),
        )
    )
    return _by_cause(both, "unit")


def line_rows(charges: pl.DataFrame) -> list[tuple[Any, ...]]:
    """The check lines_to_total of a day, by service point and currency."""
    return _by_cause(
        charges.with_columns(
            pl.when(pl.col("lines") == pl.col("total")).then(pl.lit("none")).otherwise(pl.lit("open")).alias("cause"),
            pl.col("lines").alias("expected"),
            pl.col("total").alias("actual"),
        ),
        "currency",
    )


def _by_cause(compared: pl.DataFrame, unit: str) -> list[tuple[Any, ...]]:
    """Returns sums and counts by unit and cause; for an open cause one row for each service, whose bill waits."""
    subject = pl.when(pl.col("cause") == "open").then("service_point_id").otherwise(pl.lit("all")).alias("subject")
    found = (
        compared.group_by(subject, unit, "cause")
        .agg(pl.col("expected", "actual").cast(pl.Int128).sum(), pl.len().alias("items"))
        .sort(unit, "cause", "subject")
    )
    return [(*row, "") for row in found.select("subject", unit, "cause", "expected", "actual", "items").iter_rows()]


def statement_rows(sums: pl.DataFrame, cycle_id: str) -> list[tuple[Any, ...]]:
    """The check lines_to_statement of a period's statements.

    ``sums``: per statement, in millionths, the days' stored charges (charged), its lines (lines), its total, the
    amounts the end of the period added by cause (period_end, credit, ratchet, year_end), and the change by later reads
    of sealed days (sealed_days). Beside it: ``moved``, the change of the charges by late changes without an adjustment
    yet; ``posted``, ``asked`` and ``refused``, the net of its posted adjustments, of the waiting one and of the refused
    one; and ``*_due``, the amounts that days of sealed months and the period's end add to the charges in the statement
    as each adjustment corrects it (null without one). ``room``: the tolerance for adjustments from before those figures
    were stored. A difference that these amounts do not explain is open.
    """
    currency = sums["currency"][0] if sums.height else ""
    causes = {
        "period_end": "period_end",
        "credit": "net_metering_credit",
        "ratchet": "ratchet",
        "year_end": "year_end",
        "sealed_days": "late_actual_in_sealed_period",
    }
    at_end = pl.sum_horizontal(*causes)
    # What the books say, less what the days were charged before they moved.
    books = pl.col("lines") + pl.col("posted") - pl.col("charged") + pl.col("moved")

    def explained(net: pl.Expr, due: str) -> pl.Expr:
        return (books + net - pl.coalesce(due, at_end)).abs() <= pl.col("room")

    nothing = pl.lit(0, pl.Int64)
    left = sums.with_columns((pl.col("lines") - pl.col("charged") - at_end).alias("left")).with_columns(
        pl.when(pl.col("lines") != pl.col("total"))
        .then(pl.lit("open"))
        .when((pl.col("left") == 0) & explained(nothing, "posted_due"))
        .then(pl.lit("none"))
        .when(explained(nothing, "posted_due"))
        .then(pl.lit("adjusted"))
        .when(pl.col("asked").is_not_null() & explained(pl.col("asked"), "asked_due"))
        .then(pl.lit("adjusted"))
        .when(pl.col("refused").is_not_null() & explained(pl.col("refused"), "refused_due"))
        .then(pl.lit("adjustment_refused"))
        .otherwise(pl.lit("open"))
        .alias("cause")
    )
    rows: list[tuple[Any, ...]] = []
    for cause in ("none", "adjusted", "adjustment_refused", "open"):
        part = left.filter(pl.col("cause") == cause)
        if part.height:
            named = " ".join(part["statement_id"].sort()[:5].to_list()) if cause == "open" else ""
            charged = int(part["charged"].sum())
            rows.append((cycle_id, currency, cause, charged, charged + int(part["left"].sum()), part.height, named))
    for column, cause in causes.items():
        touched = left.filter(pl.col(column) != 0)
        if touched.height:
            rows.append((cycle_id, currency, cause, 0, touched[column].sum(), touched.height, ""))
    return rows


def ledger_rows(statements: pl.DataFrame, leaves: Sequence[bytes], cycle_id: str) -> list[tuple[Any, ...]]:
    """The check statement_to_ledger of a period, by key and by payload hash.

    ``statements``: statement_id, lines_sha256 (the hash at issue), now_sha256 (hashed again from its stored lines),
    claimed (the hash at the position in the ledger that the statement names). ``leaves``: every leaf of the period's
    bill_issued entries.
    """
    recorded = pl.DataFrame({"lines_sha256": pl.Series(leaves, dtype=pl.Binary)}).group_by("lines_sha256").len("leaves")
    both = statements.join(recorded, on="lines_sha256", how="full", coalesce=True).with_columns(
        pl.when(pl.col("statement_id").is_null())
        .then(pl.lit("leaf without statement"))
        .when(pl.col("leaves").is_null())
        .then(pl.lit("statement without leaf"))
        .when(pl.col("leaves") > 1)
        .then(pl.lit("leaf twice"))
        .when(pl.col("now_sha256") != pl.col("lines_sha256"))
        .then(pl.lit("lines are not those issued"))
        .when(pl.col("claimed").is_not_null() & (pl.col("claimed") != pl.col("lines_sha256")))
        .then(pl.lit("the place it names holds another leaf"))
        .otherwise(pl.lit(""))
        .alias("wrong")
    )
    agreed = both.filter(pl.col("wrong") == "")
    rows: list[tuple[Any, ...]] = (
        [(cycle_id, "statements", "none", agreed.height, agreed.height, agreed.height, "")] if agreed.height else []
    )
    wrong = both.filter(pl.col("wrong") != "").sort("wrong", "statement_id")
    if wrong.height:
        named = [
            f"{w}: {s or h.hex()[:16]}"
            for w, s, h in wrong.select("wrong", "statement_id", "lines_sha256").head(5).iter_rows()
        ]
        there = wrong.filter(pl.col("statement_id").is_not_null()).height
        proved = int(
            wrong.filter((pl.col("wrong") == "leaf without statement") | (pl.col("wrong") == "leaf twice"))[
                "leaves"
            ].sum()
            or 0
        )
        rows.append((cycle_id, "statements", "open", there, proved, wrong.height, "; ".join(named)))
    return rows
