"""Comparing every account's results with the legacy batch's, figure by figure, and classifying each difference.

A result is one figure of one account on one billing day: a read, a usage, a determinant, a line or a total (LEVELS).
Its value is an integer: micro base units for quantities, millionths of the currency for money, so that no rounding
happens on the way to a comparison. Sources of the classes and tolerances: reference bill-to-bill practice of parallel
runs (usage to usage, charge to charge, total to total), tolerance zero on money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

import polars as pl

from meter_pipeline.schemas.tables.migration import DIFFERENCES

LEVELS: Final = ("read", "usage", "determinant", "line", "total")
MONEY_LEVELS: Final = ("line", "total")

MATCH: Final = "match"
#: Every class a pair of figures can fall in.
CLASSES: Final = (MATCH, *DIFFERENCES)
#: Classes that set the gate's clock back to zero. missing_legacy does not: the new side billed what legacy lost, and
# it is listed for people.
BLOCKING: Final = ("unexplained", "missing_new", "key_mismatch")

#: One row per figure. ``estimated``: an estimate is in it. ``exact``: the value before rounding, in millionths, where
# the side knows it.
RESULT: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "billing_day": pl.Date,
    "account_id": pl.String,
    "level": pl.String,
    "code": pl.String,
    "value": pl.Int64,
    "exact": pl.Int64,
    "estimated": pl.Boolean,
    "tariff_version": pl.Int32,
}
_KEY: Final = ("billing_day", "account_id", "level", "code")


@dataclass(frozen=True, slots=True)
class KnownDefect:
    """A defect of the legacy batch that is understood: which figures, how much money at most, who approved it, until
    when.

    ``codes`` are the codes it touches (empty: all of its levels). ``first_day``/``last_day`` bound it. Once ``expires``
    has passed, its differences are unexplained again: an ignore rule that never ends would guarantee a difference for
    ever.
    """

    defect_id: str
    levels: tuple[str, ...]
    codes: tuple[str, ...]
    most: int
    approver: str
    expires: datetime
    first_day: date | None = None
    last_day: date | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of equality. ``tolerance``: level or level:code -> largest difference (default 0; money is never given
    one).

    ``legacy_unit``: level or level:code -> the last place of the legacy batch's own rounding, in millionths (a cent is
    10_000).
    """

    tolerance: Mapping[str, int] = field(default_factory=dict)
    legacy_unit: Mapping[str, int] = field(default_factory=dict)
    defects: Sequence[KnownDefect] = ()

    def __post_init__(self) -> None:
        money = [key for key, most in self.tolerance.items() if key.split(":")[0] in MONEY_LEVELS and most]
        if money:
            raise ValueError(f"money has no tolerance: {', '.join(sorted(money))}")


@dataclass(frozen=True, slots=True)
class RoundingDrift:
    """Sums of rounding before the day: ``leant`` (account_id, code, leant) over ``days`` compared days.

    Rounding that leans one way for longer than its rule explains is an error of a cent a day. Three days in a row show
    it.
    """

    days: int = 0
    leant: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"account_id": pl.String, "code": pl.String, "leant": pl.Int64})
    )


@dataclass(slots=True)
class Comparison:
    """``pairs``: one row per figure with both values, difference (new - legacy), class and cause; its rows have no
    order. ``summary``: counts and money by level and class."""

    pairs: pl.DataFrame
    summary: pl.DataFrame

    def count(self, *classes: str) -> int:
        return self.pairs.filter(pl.col("class").is_in(classes)).height

    @property
    def both(self) -> pl.DataFrame:
        """The figures that both sides have: the only ones that are evidence of anything."""
        return self.pairs.filter(
            pl.col("new").is_not_null()
            & pl.col("legacy").is_not_null()
            & ~pl.col("class").is_in(("key_mismatch", "timing"))
        )

    @property
    def bills(self) -> int:
        """Accounts whose total of a day both sides have."""
        return self.both.filter(pl.col("level") == "total").height

    @property
    def blocking(self) -> int:
        return self.count(*BLOCKING)

    @property
    def net_money(self) -> int:
        """Sum of the totals' differences, millionths of the currency: offsetting errors hide in it, so look at
        absolute_money too."""
        return int(self.pairs.filter(pl.col("level") == "total")["difference"].sum() or 0)

    @property
    def absolute_money(self) -> int:
        return int(self.pairs.filter(pl.col("level") == "total")["difference"].abs().sum() or 0)


def compare(
    new: pl.DataFrame,
    legacy: pl.DataFrame,
    *,
    known_accounts: pl.Series,
    now: datetime,
    legacy_pending: frozenset[date] = frozenset(),
    rules: Rules | None = None,
    drift: RoundingDrift | None = None,
) -> Comparison:
    """Compare two RESULT frames of any number of billing days; each figure gets exactly one class.

    ``known_accounts``: accounts of the reference data; a legacy key outside them is a key mismatch, never quietly
    dropped. ``legacy_pending``: days whose legacy run has not finished within its grace, whose missing results are
    timing. ``now`` decides which known defects have expired. ``drift``: what rounding has added up to on the days
    before. Raises ValueError for a level that is none.
    """
    rules = rules or Rules()
    drift = drift or RoundingDrift()
    for side in (new, legacy):
        unknown = set(side["level"].unique().to_list()) - set(LEVELS)
        if unknown:
            raise ValueError(f"unknown level {', '.join(sorted(unknown))}")
    same, pairs = _paired(new, legacy, known_accounts)
    pairs = pairs.with_columns(
        difference=pl.col("new").fill_null(0) - pl.col("legacy").fill_null(0),
        pending=pl.col("billing_day").is_in(list(legacy_pending)),
    )
    pairs = pairs.join(drift.leant, on=["account_id", "code"], how="left").with_columns(pl.col("leant").fill_null(0))
    pairs = pairs.with_columns(_rule("tolerance", rules.tolerance, 0), _rule("unit", rules.legacy_unit, 0))
    both = pl.col("new").is_not_null() & pl.col("legacy").is_not_null()
    # The legacy figure is ours, rounded the legacy way: half up at its own last place. Where we keep no figure before
    # rounding, one unit, if the days before do not lean: each night rounds by half a unit at most, and our own position
    # by one over any stretch of days.
    unit = pl.when(pl.col("unit") > 0).then(pl.col("unit")).otherwise(1)
    rounded = ((pl.col("new_exact").abs() + unit // 2) // unit * unit) * pl.col("new_exact").sign()
    level_headed = 2 * (pl.col("difference") + pl.col("leant")).abs() <= unit * (drift.days + 3)
    rounds = pl.when(pl.col("new_exact").is_not_null()).then(pl.col("legacy") == rounded).otherwise(level_headed)
    defect = _defect(rules.defects, now)
    classified = pairs.with_columns(defect_id=defect).with_columns(
        pl.when((pl.col("legacy_count") > 0) & ~pl.col("known"))
        .then(pl.lit("key_mismatch"))
        .when((pl.col("legacy_count") > 1) & (pl.col("legacy_same") | (pl.col("difference") == 0)))
        .then(pl.lit("duplicate_legacy"))
        .when(both & (pl.col("difference") == 0))
        .then(pl.lit(MATCH))
        .when(pl.col("new").is_null())
        .then(pl.lit("missing_new"))
        .when(pl.col("legacy").is_null() & pl.col("pending"))
        .then(pl.lit("timing"))
        .when(pl.col("legacy").is_null())
        .then(pl.lit("missing_legacy"))
        .when(pl.col("difference").abs() <= pl.col("tolerance"))
        .then(pl.lit("within_tolerance"))
        .when((pl.col("unit") > 0) & (pl.col("difference").abs() <= pl.col("unit")) & rounds)
        .then(pl.lit("rounding"))
        .when(pl.col("new_estimated") != pl.col("legacy_estimated"))
        .then(pl.lit("estimate_vs_actual"))
        .when(
            pl.col("new_version").is_not_null()
            & pl.col("legacy_version").is_not_null()
            & (pl.col("new_version") != pl.col("legacy_version"))
        )
        .then(pl.lit("tariff_version"))
        .when(pl.col("defect_id").is_not_null())
        .then(pl.lit("known_legacy_defect"))
        .otherwise(pl.lit("unexplained"))
        .alias("class")
    )
    explained = _totals_follow_lines(classified)
    differing = explained.select(
        *_KEY,
        "new",
        "legacy",
        "difference",
        "class",
        cause=pl.when(pl.col("class") == "known_legacy_defect")
        .then(pl.col("defect_id"))
        .when(pl.col("follows"))
        .then(pl.lit("follows its lines")),
    ).sort(_KEY)
    pairs = pl.concat(
        [
            differing,
            same.select(
                *_KEY,
                "new",
                "legacy",
                difference=pl.lit(0, pl.Int64),
                **{"class": pl.lit(MATCH)},
                cause=pl.lit(None, pl.String),
            ),
        ]
    )
    return Comparison(pairs, summarise(pairs))


def summarise(pairs: pl.DataFrame) -> pl.DataFrame:
    """Figures, net and absolute difference by level and class, most severe first."""
    order = {name: n for n, name in enumerate(reversed(CLASSES))}
    return (
        pairs.group_by("level", "class")
        .agg(figures=pl.len().cast(pl.Int64), net=pl.col("difference").sum(), absolute=pl.col("difference").abs().sum())
        .sort(pl.col("class").replace_strict(order, return_dtype=pl.Int32), "level")
    )


#: Strata that a service point is in or not, beside its rate class and commodity.
RARE: Final = ("clock_change", "estimated", "exchange", "rollover", "net_metering", "final_bill")


def coverage(result: Comparison, strata: pl.DataFrame) -> dict[str, int]:
    """Service points whose lines both sides have, by stratum. ``strata``: service_point_id, rate_class, commodity and a
    boolean for each of RARE.

    A rate class that the legacy batch bills by hand and is not imported is not covered, however often the new side
    billed it.
    """
    lines = result.both.filter(pl.col("level") == "line")
    compared = lines.select(
        pl.col("code").str.split_exact(":", 1).struct.field("field_0").alias("service_point_id")
    ).unique()
    seen = strata.join(compared, on="service_point_id", how="semi")
    counts = {
        f"{family}:{name}": n
        for family in ("rate_class", "commodity")
        for name, n in seen.group_by(family).len().drop_nulls().iter_rows()
    }
    counts |= {name: int(seen[name].sum()) for name in RARE}
    return {name: int(n) for name, n in sorted(counts.items()) if n}


def _paired(new: pl.DataFrame, legacy: pl.DataFrame, known_accounts: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Figures that are the same on both sides, once on each, of an account we know; and every other pair with what its
    class depends on.

    Nine figures in ten are the same, and need none of what a difference does: over all of them, grouping and joining by
    four columns of text took 3 s for 100,000 accounts. Keys meet by a hash of 64 bits, looked at again where they met;
    should two keys ever share one, all go the long way.
    """
    ours, theirs = _sided(new, "new"), _sided(legacy, "legacy")
    met = ours.join(theirs.rename({name: f"{name}_" for name in _KEY}), on="key", how="inner")
    equal = (
        (pl.col("new") == pl.col("legacy"))
        & ~pl.col("new_twice")
        & ~pl.col("legacy_twice")
        & pl.all_horizontal(pl.col(name) == pl.col(f"{name}_") for name in _KEY)
    )
    strangers = theirs.select(pl.col("account_id").unique()).filter(
        ~pl.col("account_id").is_in(known_accounts.implode())
    )
    same = met.filter(equal).join(strangers, on="account_id", how="anti") if strangers.height else met.filter(equal)
    rest = [side.join(same.select("key"), on="key", how="anti") for side in (ours, theirs)]
    pairs = _sides(rest[0], "new").join(_sides(rest[1], "legacy"), on=_KEY, how="full", coalesce=True)
    return same, pairs.with_columns(
        pl.col("new_count", "legacy_count").fill_null(0),
        known=~pl.col("account_id").is_in(strangers["account_id"].implode()),
    )


def _sided(frame: pl.DataFrame, side: str) -> pl.DataFrame:
    key = pl.struct(_KEY).hash()
    return frame.with_columns(pl.col("value").alias(side), key=key).with_columns(
        pl.col("key").is_duplicated().alias(f"{side}_twice")
    )


def _sides(frame: pl.DataFrame, side: str) -> pl.DataFrame:
    # A figure that came twice is compared by its smallest value, whichever of the two came first.
    ordered = frame.sort("value", "exact", "tariff_version", nulls_last=True)
    return ordered.group_by(_KEY).agg(
        pl.col("value").first().alias(side),
        pl.len().cast(pl.Int64).alias(f"{side}_count"),
        (pl.col("value").n_unique() == 1).alias(f"{side}_same"),
        pl.col("exact").first().alias(f"{side}_exact"),
        pl.col("estimated").any().alias(f"{side}_estimated"),
        pl.col("tariff_version").first().alias(f"{side}_version"),
    )


def _rule(name: str, by: Mapping[str, int], default: int) -> pl.Expr:
    exact = {key: value for key, value in by.items() if ":" in key}
    level = {key: value for key, value in by.items() if ":" not in key}
    both = pl.concat_str("level", pl.lit(":"), "code")
    return pl.coalesce(
        both.replace_strict(exact, default=None, return_dtype=pl.Int64) if exact else pl.lit(None, pl.Int64),
        pl.col("level").replace_strict(level, default=default, return_dtype=pl.Int64)
        if level
        else pl.lit(default, pl.Int64),
    ).alias(name)


def _defect(defects: Sequence[KnownDefect], now: datetime) -> pl.Expr:
    """The first defect in force that covers a figure."""
    found = pl.lit(None, pl.String)
    for defect in reversed([d for d in defects if d.expires > now]):
        covers = pl.col("level").is_in(defect.levels) & (pl.col("difference").abs() <= defect.most)
        if defect.codes:
            covers &= pl.col("code").is_in(defect.codes)
        if defect.first_day is not None:
            covers &= pl.col("billing_day") >= defect.first_day
        if defect.last_day is not None:
            covers &= pl.col("billing_day") <= defect.last_day
        found = pl.when(covers).then(pl.lit(defect.defect_id)).otherwise(found)
    return found


def _totals_follow_lines(pairs: pl.DataFrame) -> pl.DataFrame:
    """A total whose difference is exactly the sum of its lines' explained differences has their class, not a mystery of
    its own."""
    order = {name: n for n, name in enumerate(CLASSES)}
    lines = (
        pairs.filter(pl.col("level") == "line")
        .with_columns(severity=pl.col("class").replace_strict(order, return_dtype=pl.Int32))
        .group_by("billing_day", "account_id")
        .agg(
            line_difference=pl.col("difference").sum(),
            severity=pl.col("severity").filter(pl.col("difference") != 0).max(),
        )
        .with_columns(level=pl.lit("total"))
    )
    joined = pairs.join(lines, on=["billing_day", "account_id", "level"], how="left")
    follows = (
        pl.col("class").is_in(["unexplained", "estimate_vs_actual"])
        & pl.col("severity").is_not_null()
        & (pl.col("difference") == pl.col("line_difference"))
    ).fill_null(False)
    names = {n: name for name, n in order.items()}
    theirs = pl.col("severity").replace_strict(names, default=None, return_dtype=pl.String)
    return joined.with_columns(follows=follows).with_columns(
        pl.when(pl.col("follows")).then(theirs).otherwise(pl.col("class")).alias("class")
    )
