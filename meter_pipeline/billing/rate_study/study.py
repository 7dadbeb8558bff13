"""A rate study: prices every bill of some periods under proposed tariffs and compares it with the bill as issued.

The study first prices each bill under the tariff it was billed with and compares it with the bill, to the millionth. A
bill that differs is left out of the figures and listed. The proposed tariffs are priced by the same functions from the
same positions; amounts that one bill passes to the next (credits, ratchets, the billing year) continue between the
proposed bills.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.bill_end import year_before
from meter_pipeline.billing.carried import Carry, no_segments
from meter_pipeline.billing.positions import lists, matrix
from meter_pipeline.billing.rate_study import tables
from meter_pipeline.billing.rate_study.positions import (
    PROPOSED,
    Change,
    counts_otherwise,
    from_intervals,
    proposed_reference,
    relaid,
    with_revisions,
)
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segment_positions import SegmentInputs, gather
from meter_pipeline.billing.segments import covered, stretches
from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.statements import Priced
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading
from meter_pipeline.sharding import KeyRange, key_ranges

#: Services priced together: 25,000 bills and their lines are some 200 MB.
SERVICES_PER_PART: Final = 25_000
_REVENUE: Final = ["customer_class", "commodity", "component", "month"]
_REVENUE_SCHEMA: Final = pl.Schema(
    {**dict.fromkeys(_REVENUE[:3], pl.String()), "month": pl.Date(), "actual": pl.Int64(), "proposed": pl.Int64()}
)
_BILL: Final = ["account_id", "service_point_id"]
_BILL_SCHEMA: Final = pl.Schema(
    {
        "account_id": pl.String(),
        "customer_class": pl.String(),
        "bills": pl.Int64(),
        "actual": pl.Int64(),
        "proposed": pl.Int64(),
        "elastic": pl.Int64(),
    }
)


#: One, as ratios of use count it.
UNIT: Final = 10**6


def _ratio(elasticity: Decimal, was: int, now: int) -> int:
    """Returns the remaining use of a bill, in millionths."""
    if was <= 0:
        return UNIT
    return max(0, int((1 + elasticity * (now - was) / was) * UNIT))


def _scaled(quantities: npt.NDArray[np.int64], ratio: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns quantities times ratio, rounded down, within 64 bits: whole units and the rest are computed
    separately."""
    whole, rest = np.divmod(quantities, UNIT)
    return whole * ratio[:, None] + rest * ratio[:, None] // UNIT


class StudyRefusedError(ValueError):
    """The study cannot be made; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Question:
    """The parameters of a study: changes of tariffs, the periods that end in (first, past], a customer class or None
    for all, and the elasticity: the share by which use falls when its average price rises by one, None for no change
    of use."""

    changes: Sequence[Change]
    first: date
    past: date
    customer_class: str | None = None
    elasticity: Decimal | None = None


@dataclass(slots=True)
class Study:
    """A study's figures, money in millionths. ``accounts``: account_id, customer_class, bills, actual, proposed,
    elastic; ``revenue``: by class, commodity, component and month; ``not_reproduced``: bills that the tariffs in
    force do not price as billed; ``left_out``: services without a figure, counted by reason; ``from_intervals``:
    tariffs whose determinants were computed again from intervals, and why."""

    question: Question
    currency: str
    accounts: pl.DataFrame
    revenue: pl.DataFrame
    bills: int = 0
    not_reproduced: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    from_intervals: dict[str, str] = field(default_factory=dict)

    def total(self, column: str) -> int:
        """A column of the accounts, summed."""
        return int(self.accounts[column].sum())


@dataclass(slots=True)
class _Sums:
    """The sums of the parts so far."""

    bills: list[pl.DataFrame] = field(default_factory=list)
    revenue: list[pl.DataFrame] = field(default_factory=list)
    count: int = 0
    not_reproduced: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str, count: int) -> None:
        if count:
            self.left_out[why] = self.left_out.get(why, 0) + count


def study(
    database: Database,
    calendar: BillingCalendar,
    question: Question,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Study:
    """Compute a study from stored data; writes nothing. ``progress``: called with the parts done and the number of
    parts.

    Memory is that of SERVICES_PER_PART services. Raises StudyRefusedError for an unknown tariff, another commodity or
    currency, a class or a tariff without accounts, or periods without bills.
    """
    with reading(database) as session:
        reference = load_reference(session, question.past)
        work = [part for change in question.changes for part in _parts(reference, question, change)]
        periods = tables.periods(session, question.first, question.past)
        sums = _Sums()
        why = {}
        for done, (change, cycle, within, mine) in enumerate(work):
            progress(done, len(work))
            olds = _versions(mine, change)
            otherwise = next(
                (reason for old in olds.values() if (reason := counts_otherwise(old, change.proposed))), None
            )
            if otherwise:
                why[change.replaces] = otherwise
            chain = _Chain(session, calendar, question, change, mine, olds, within, bool(otherwise), sums)
            for cycle_id, start, end in periods:
                if cycle_id == cycle:
                    chain.period(cycle_id, start, end)
        progress(len(work), len(work))
    if not sums.count:
        raise StudyRefusedError(
            f"--from --to: no bill of {', '.join(c.replaces for c in question.changes)} is issued in a period that ends after "
            f"{question.first} and by {question.past}"
        )
    accounts = _accounts(sums.bills)
    revenue = pl.concat(sums.revenue).group_by(_REVENUE).agg(pl.col("actual", "proposed").sum()).sort(_REVENUE)
    return Study(
        question,
        question.changes[0].proposed.currency,
        accounts,
        revenue,
        sums.count,
        sums.not_reproduced,
        sums.left_out,
        why,
    )


def _class_day(question: Question) -> date:
    """Returns the day whose customer class applies to the whole study: the last one."""
    return question.past - timedelta(days=1)


def _accounts(bills: Sequence[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat(bills).group_by("account_id", "customer_class")
    return whole.agg(pl.col("bills", "actual", "proposed", "elastic").sum()).sort("account_id")


def _parts(reference: Reference, question: Question, change: Change) -> list[tuple[Change, str, KeyRange, Reference]]:
    """The services of a change in parts of one billing cycle each. Raises StudyRefusedError."""
    replaced = reference.tariffs.filter(pl.col("tariff_id") == change.replaces)
    if not replaced.height:
        raise StudyRefusedError(
            f"--replaces {change.replaces}: no such tariff; `meter-pipeline reference show tariffs` lists them"
        )
    commodity = replaced["commodity"][0]
    if change.proposed.commodity != commodity:
        raise StudyRefusedError(f"commodity: {change.proposed.commodity}, but {change.replaces} is of {commodity}")
    olds = [reference.tariff(change.replaces, int(v)) for v in replaced["version"].to_list()]
    if any(old.currency != change.proposed.currency for old in olds):
        raise StudyRefusedError(f"currency: {change.proposed.currency}, but {change.replaces} is in {olds[0].currency}")
    on = reference.agreements.filter(
        (pl.col("tariff_id") == change.replaces)
        & (pl.col("valid_from") < question.past)
        & (pl.col("valid_to").is_null() | (pl.col("valid_to") > question.first))
    )
    if not on.height:
        raise StudyRefusedError(
            f"--replaces {change.replaces}: no account was on it between {question.first} and {question.past}"
        )
    if question.customer_class is not None:
        of_class = reference.classes(_class_day(question)).filter(pl.col("customer_class") == question.customer_class)
        on = on.join(of_class, on="account_id", how="semi")
        if not on.height:
            raise StudyRefusedError(
                f"--class {question.customer_class}: no account of the class is on {change.replaces}"
            )
    found = []
    for (cycle,), mine in sorted(on.group_by(["cycle_id"]), key=lambda item: str(item[0])):
        points = mine["service_point_id"].unique().sort().to_list()
        for within in key_ranges(points, SERVICES_PER_PART):
            inside = [p for p in points if (within.first or "") <= p and (within.past is None or p < within.past)]
            whole = reference.agreements.filter(pl.col("service_point_id").is_in(inside))
            # Who else was at the point stays in, so that first and final bills are told apart; other tariffs' periods
            # are not priced.
            people = pl.col("service_point_id").is_in(inside)
            part = replace(
                reference,
                agreements=whole,
                service_attributes=reference.service_attributes.filter(people),
                accounts=reference.accounts.join(whole, on="account_id", how="semi"),
            )
            found.append((change, str(cycle), within, part))
    return found


def _versions(reference: Reference, change: Change) -> dict[int, Tariff]:
    rows = reference.tariffs.filter(pl.col("tariff_id") == change.replaces)
    return {int(v): reference.tariff(change.replaces, int(v)) for v in rows["version"].to_list()}


@dataclass(slots=True)
class _Chain:
    """Some services' bills, one period after the other."""

    database: Database
    calendar: BillingCalendar
    question: Question
    change: Change
    reference: Reference
    olds: dict[int, Tariff]
    within: KeyRange
    again: bool
    sums: _Sums
    handed_on: pl.DataFrame = field(default_factory=no_segments)
    year: list[pl.DataFrame] = field(default_factory=list)
    read: dict[tuple[Any, ...], pl.DataFrame] = field(default_factory=dict)

    def period(self, cycle_id: str, start: date, end: date) -> None:
        """Price one period's bills both ways and add up."""
        self.read.clear()
        of_tariff = pl.col("tariff_id") == self.change.replaces
        runs = stretches(self.reference, cycle_id, start, end).filter(of_tariff)
        issued = tables.issued(self.database, cycle_id, start)
        waiting = runs.filter(~pl.col("account_id").is_in(issued))
        self.sums.leave_out("bill not issued", waiting["account_id"].n_unique())
        runs = runs.filter(pl.col("account_id").is_in(issued))
        if not runs.height:
            return
        base = self._priced(self.reference, covered(self.reference, runs), cycle_id, start, end)
        reference = proposed_reference(self.reference, self.change)
        inputs = self._inputs(reference, covered(reference, runs), cycle_id, start, end)
        proposed = self._price(inputs, end)
        self._hand_on(proposed, end)
        good = self._compare(base, cycle_id, start, proposed)
        elastic = self._elastic(inputs, base, proposed, end)
        self._add(base, proposed, elastic, good, end)

    def _priced(self, reference: Reference, wanted: pl.DataFrame, cycle_id: str, start: date, end: date) -> Priced:
        """Bills under the tariffs in force."""

        def stored(days: list[date]) -> pl.DataFrame:
            return self._positions(days, cycle_id, start)

        return self._price(gather(self.database, reference, wanted, cycle_id, start, stored), end)

    def _positions(self, days: list[date], cycle_id: str, start: date) -> pl.DataFrame:
        """Returns stored positions of some days of the period, which both the issued and the proposed bills are
        priced from."""
        key = (cycle_id, start, *days)
        if key not in self.read:
            rows = tables.positions(self.database, days, cycle_id, self.change.replaces, self.within)
            self.read[key] = with_revisions(self.database, rows, start, self.within, self.olds)
        return self.read[key]

    def _inputs(
        self, reference: Reference, wanted: pl.DataFrame, cycle_id: str, start: date, end: date
    ) -> SegmentInputs:
        """Returns the inputs of the proposed bills."""
        budgets = self.reference.service_attributes.filter(pl.col("attribute") == "budget_per_day")

        def counted(days: list[date]) -> pl.DataFrame:
            if self.again:
                mine = replace(reference, agreements=reference.agreements.filter(pl.col("cycle_id") == cycle_id))
                return from_intervals(self.database, self.calendar, mine, (start, end), days, self.within)
            known = self._positions(days, cycle_id, start)
            of_budget = budgets.filter(
                (pl.col("valid_from") < end) & (pl.col("valid_to").is_null() | (pl.col("valid_to") > start))
            )
            daily = (
                of_budget.sort("valid_from")
                .group_by("service_point_id")
                .agg(pl.col("value").last().alias("budget_per_day"))
            )
            return relaid(known, self.olds, self.change, daily)

        found = gather(self.database, reference, wanted, cycle_id, start, counted)
        new = self.change.proposed
        layouts = {**found.carry.layouts, (self.change.replaces, PROPOSED): new.layout}
        if self.handed_on.height:
            found = replace(found, carry=Carry(self.handed_on, layouts, start))
        if new.annual_minimum is not None and self.year:
            found = replace(found, rows=self._with_year(found.rows, start))
        return found

    def _with_year(self, rows: pl.DataFrame, start: date) -> pl.DataFrame:
        """Returns the billing year so far, from the proposed bills."""
        since = year_before(self.change.proposed, start)
        sums = (
            pl.concat(self.year)
            .filter(pl.col("period_start") > since)
            .group_by(_BILL)
            .agg(pl.col("total").sum().alias("year_lines"), pl.col("days").cast(pl.Int64).sum().alias("year_days"))
        )
        return rows.drop("year_lines", "year_days").join(sums, on=_BILL, how="left")

    @staticmethod
    def _price(inputs: SegmentInputs, end: date) -> Priced:
        accounts = inputs.rows["account_id"].unique().sort().to_list() if inputs.rows.height else []
        return inputs.price(accounts, end) if accounts else Priced.empty()

    def _hand_on(self, proposed: Priced, end: date) -> None:
        new = self.change.proposed
        if new.carries or new.ratchets():
            ended = proposed.segments.with_columns(pl.lit(end).alias("period_end")).select(self.handed_on.columns)
            self.handed_on = pl.concat([self.handed_on, ended.cast(self.handed_on.schema)])
        if new.annual_minimum is not None:
            self.year.append(
                proposed.segments.select(*_BILL, "total", "days", pl.col("segment_start").alias("period_start"))
            )

    def _compare(self, base: Priced, cycle_id: str, start: date, proposed: Priced) -> pl.DataFrame:
        """Returns bills that are reproduced and have a proposed price: _BILL. The others are listed."""
        billed = tables.billed(self.database, cycle_id, start, self.change.replaces)
        again = base.segments.group_by(_BILL).agg(pl.col("total").sum())
        both = again.join(billed, on=_BILL, how="inner")
        # A bill without lines (nothing used, no fixed charge) has no row there.
        absent = again.join(billed, on=_BILL, how="anti").with_columns(pl.lit(0, pl.Int64).alias("amount"))
        both = pl.concat([both, absent.select(both.columns)])
        off = both.filter(pl.col("total") != pl.col("amount")).sort(_BILL)
        self.sums.not_reproduced += [
            {
                "account_id": a,
                "service_point_id": p,
                "cycle_id": cycle_id,
                "period_start": start,
                "billed": amount,
                "priced": total,
            }
            for a, p, total, amount in off.select(*_BILL, "total", "amount").iter_rows()
        ]
        good = both.filter(pl.col("total") == pl.col("amount")).select(_BILL)
        for detail, count in base.refused.group_by("detail").len().iter_rows():
            self.sums.leave_out(f"tariff in force: {detail}", count)
        for detail, count in proposed.refused.group_by("detail").len().iter_rows():
            self.sums.leave_out(f"proposed: {detail}".replace(f"version {PROPOSED}", "as proposed"), count)
        there = proposed.segments.select(_BILL).unique()
        lost = good.join(there, on=_BILL, how="anti").join(proposed.refused, on="account_id", how="anti")
        self.sums.leave_out("a day under the proposed tariff cannot be counted", lost.height)
        return good.join(there, on=_BILL, how="semi")

    def _elastic(self, inputs: SegmentInputs, base: Priced, proposed: Priced, end: date) -> Priced | None:
        """Returns proposed bills with the use under the assumed elasticity: a bill that rises by a share changes its
        use by the elasticity times that share, never below zero. Peaks and exports stay."""
        if self.question.elasticity is None:
            return None
        was = base.segments.group_by(_BILL).agg(pl.col("total").sum().alias("was"))
        now = proposed.segments.group_by(_BILL).agg(pl.col("total").sum().alias("now"))
        both = was.join(now, on=_BILL)
        ratios = [_ratio(self.question.elasticity, a, b) for a, b in both.select("was", "now").iter_rows()]
        kept = both.select(_BILL).with_columns(pl.Series("ratio", ratios, pl.Int64))
        rows = inputs.rows.join(kept, on=_BILL, how="left", maintain_order="left")
        ratio = rows["ratio"].fill_null(UNIT).to_numpy()
        width = len(self.change.proposed.schedule.periods)
        moved = [
            lists(_scaled(matrix(rows[name], width), ratio)).alias(name)
            for name in ("energy_to_date", "before_energy_to_date")
        ]
        return self._price(replace(inputs, rows=rows.drop("ratio").with_columns(moved)), end)

    def _add(self, base: Priced, proposed: Priced, elastic: Priced | None, good: pl.DataFrame, end: date) -> None:
        month = (end - date.resolution).replace(day=1)
        classes = self.reference.classes(_class_day(self.question))
        commodity = self.change.proposed.commodity
        lines = []
        for name, priced in (("actual", base), ("proposed", proposed)):
            of_bills = priced.lines.join(good, on=_BILL, how="semi").join(classes, on="account_id")
            sums = of_bills.group_by("customer_class", "component").agg(pl.col("amount").sum().alias(name))
            other = "proposed" if name == "actual" else "actual"
            lines.append(
                sums.with_columns(
                    pl.lit(commodity).alias("commodity"), pl.lit(month).alias("month"), pl.lit(0, pl.Int64).alias(other)
                )
                .select(_REVENUE_SCHEMA.names())
                .cast(_REVENUE_SCHEMA)
            )
        self.sums.revenue += lines

        def totals(priced: Priced, name: str) -> pl.DataFrame:
            return priced.segments.group_by(_BILL).agg(pl.col("total").sum().alias(name))

        bills = good.select(_BILL).join(totals(base, "actual"), on=_BILL).join(totals(proposed, "proposed"), on=_BILL)
        bills = bills.join(totals(elastic or proposed, "elastic"), on=_BILL).join(classes, on="account_id")
        self.sums.count += bills.height
        summed = bills.group_by("account_id", "customer_class").agg(
            pl.len().cast(pl.Int64).alias("bills"), pl.col("actual", "proposed", "elastic").sum()
        )
        self.sums.bills.append(summed.select(_BILL_SCHEMA.names()).cast(_BILL_SCHEMA))
