"""``bench estimation``: how far estimates are from what the meter really read, by method and gap length, on real
series.

Series: two households of a year of hours (Green Button), one month of 5-minute solar export (NEM12) and a gas meter's
hours, from the folder of real files beside the project (METER_PIPELINE_FIXTURES overrides). Gaps are cut at random with
a fixed seed, within a day, with at least two weeks of history before them. Peers: flat_load is the average daily load
of the 28 days before, spread evenly; previous_day copies the day before. ``*_scaled`` is the same brought to the
register difference of the day, exactly, which is how estimates are stored wherever a register is read.

Error is the sum of absolute errors over the sum of what was really used in the gaps, so that hours without use do not
divide by nothing.
"""

from __future__ import annotations

import csv
import gzip
import os
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.support import document
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.estimation.history import day_class
from meter_pipeline.vee.estimation.methods import (
    Estimate,
    EstimateNeed,
    estimate,
    fill_adl,
    fill_days,
    fill_linear,
    like_day_order,
)
from meter_pipeline.vee.estimation.scaling import scale_rows
from meter_pipeline.vee.rules import thresholds as threshold_file
from meter_pipeline.vee.rules.model import VectorHistory

Ints = npt.NDArray[np.int64]
GAP_HOURS: Final = (0.5, 1, 2, 3, 4, 6, 8, 12, 18, 24)
_ROOT = Path(__file__).resolve().parent.parent


def run(gaps: int = 150, seed: int = 20, files: str = "") -> dict[str, Any]:
    """Errors over ``gaps`` random gaps for each series and length."""
    folder = Path(files or os.environ.get("METER_PIPELINE_FIXTURES") or _ROOT.parent / "shared" / "fixtures")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the real series are not there; --files names their folder")
    wrong: dict[str, dict[float, float]] = {}
    real: dict[str, dict[float, float]] = {}
    by_series: dict[str, dict[str, dict[str, float]]] = {}
    unscaled_off = 0
    for name, (minutes, days, first) in series(folder).items():
        own: dict[str, dict[str, float]] = {}
        for hours in GAP_HOURS:
            if hours * 60 < minutes:
                continue
            truth, found, off = _compare(
                days, first, minutes, hours, gaps, np.random.default_rng([seed, int(hours * 60), len(name)])
            )
            unscaled_off += off
            used = float(np.abs(truth).sum())
            for method, values in found.items():
                missed = float(np.abs(values - truth).sum())
                own.setdefault(method, {})[f"{hours:g}"] = round(missed / used, 4)
                # every series weighs the same, whatever its unit
                wrong.setdefault(method, {})[hours] = wrong.get(method, {}).get(hours, 0.0) + missed / used
                real.setdefault(method, {})[hours] = real.get(method, {}).get(hours, 0.0) + 1.0
        by_series[name] = own
    error = {m: {f"{h:g}": round(v / real[m][h], 4) for h, v in per.items()} for m, per in wrong.items()}
    ratios: dict[str, float | None] = {
        f"ladder_over_{peer}{suffix}_worst": round(
            max(error[f"ladder{suffix}"][h] / error[f"{peer}{suffix}"][h] for h in error[f"ladder{suffix}"]), 4
        )
        for peer in ("flat_load", "previous_day")
        for suffix in ("", "_scaled")
    }
    return document(
        "estimation",
        {"gaps": gaps, "seed": seed, "gap_hours": list(GAP_HOURS)},
        {"error": error, "by_series": by_series, "scaled_rows_off_register": unscaled_off},
        ratios,
    )


def series(folder: Path) -> dict[str, tuple[int, Ints, date]]:
    """The real series as (interval minutes, (days, slots) micro values with NO_VALUE, first day), on clocks that never
    change."""
    from meter_pipeline.feeds.head_ends import HeadEnd
    from meter_pipeline.feeds.registry import parse

    out: dict[str, tuple[int, Ints, date]] = {}
    green = {
        "household_coastal": "Coastal_Multi_Family_12hr_Jan_1_2011_to_Jan_1_2012_RetailCustomer_3.xml.gz",
        "household_desert": "Desert_Single_Family_Jan_1_2011_to_Jan_1_2012_RetailCustomer_7.xml.gz",
    }
    pacific, eastern = BillingCalendar("Etc/GMT+8"), BillingCalendar("Etc/GMT-10")
    for name, file in green.items():
        reads = parse(folder / "green_button" / file, HeadEnd("bench", "espi"), pacific).intervals
        out[name] = (
            60,
            *_days(reads["interval_start"].dt.epoch("us").to_numpy(), reads["value"].to_numpy(), 60, pacific),
        )
    reads = parse(folder / "nem12" / "Example_NEM12_month_solar.csv", HeadEnd("bench", "nem12"), eastern).intervals
    for channel in sorted(reads["channel"].unique().to_list()):
        own = reads.filter(reads["channel"] == channel)
        minutes = int(own["interval_minutes"][0])
        out[f"solar_{channel}"] = (
            minutes,
            *_days(own["interval_start"].dt.epoch("us").to_numpy(), own["value"].to_numpy(), minutes, eastern),
        )
    with gzip.open(folder / "gas_baseline" / "il-gas-hdd-only-hourly.csv.gz", "rt") as handle:
        rows = [
            (datetime.fromisoformat(r["start"]).timestamp(), r["value"]) for r in csv.DictReader(handle) if r["value"]
        ]
    central = BillingCalendar("Etc/GMT+6")
    at = np.array([int(t) * 1_000_000 for t, _ in rows], np.int64)
    out["gas"] = (60, *_days(at, np.array([round(float(v) * 1_000_000) for _, v in rows], np.int64), 60, central))
    return out


def _days(at_us: Ints, values: Ints, minutes: int, calendar: BillingCalendar) -> tuple[Ints, date]:
    ordinal, slot, _ = calendar.locate(at_us, minutes)
    first = int(ordinal.min())
    days = np.full((int(ordinal.max()) - first + 1, 1440 // minutes), NO_VALUE, np.int64)
    days[ordinal - first, slot] = values
    return days, date.fromordinal(first)


class _Loader:
    """History cut from the series itself, as the store would give it: whole actual days only."""

    def __init__(self, days: Ints, first: date, targets: Ints, back: int) -> None:
        self.all, self.first, self.targets, self.back = days, first, targets, back

    def edges(self, rows: Ints) -> tuple[Ints, Ints]:
        nothing = np.full(self.all.shape[1], NO_VALUE, np.int64)
        before = np.stack([self.all[self.targets[r] - 1] if self.targets[r] else nothing for r in rows])
        after = np.stack(
            [self.all[self.targets[r] + 1] if self.targets[r] + 1 < len(self.all) else nothing for r in rows]
        )
        return before, after

    def days(self, rows: Ints) -> VectorHistory:
        # candidates differ by row here, so each row's like days are put side by side, nearest last
        depth = 8
        slots = self.all.shape[1]
        values = np.full((depth, rows.size, slots), NO_VALUE, np.int64)
        for k, r in enumerate(rows):
            t = int(self.targets[r])
            kind = day_class(self.first + timedelta(days=t), ())
            like = [
                d
                for d in range(t - 1, max(t - self.back, 0) - 1, -1)
                if day_class(self.first + timedelta(days=d), ()) == kind
            ][:depth]
            for place, d in enumerate(like):
                values[depth - 1 - place, k] = self.all[d]
        whole = (values != NO_VALUE).all(axis=2, keepdims=True) & np.ones(values.shape, np.bool_)
        names = [self.first + timedelta(days=int(k)) for k in range(depth)]
        return VectorHistory(names, values, whole, np.ones(depth, np.bool_), np.full(depth, np.nan))


def _compare(
    days: Ints, first: date, minutes: int, hours: float, gaps: int, rng: np.random.Generator
) -> tuple[Ints, dict[str, Ints], int]:
    """What was really used in random gaps, what each method says, and rows whose scaled sum is off the register (none,
    or it is broken)."""
    t = threshold_file.default()
    slots = days.shape[1]
    width = round(hours * 60 / minutes)
    whole = (days != NO_VALUE).all(axis=1)
    candidates = [d for d in range(14, len(days) - 1) if whole[d] and whole[d - 1] and days[d].sum() > 0]
    targets = rng.choice(np.array(candidates), gaps)
    starts = rng.integers(0, slots - width + 1, gaps)
    slot = np.arange(slots)
    missing = (slot >= starts[:, None]) & (slot < starts[:, None] + width)
    actual = days[targets]
    values = np.where(missing, NO_VALUE, actual)
    recent = np.stack([_mean_day(days[max(d - 28, 0) : d], whole[max(d - 28, 0) : d]) for d in targets])
    need = EstimateNeed(
        values,
        missing,
        ~missing,
        np.zeros(gaps, np.int32),
        np.full(gaps, slots, np.int32),
        recent,
        np.zeros(values.shape, np.int64),
        np.full(gaps, NO_VALUE, np.int64),
        np.ones(gaps, np.bool_),
        np.zeros(gaps, np.bool_),
    )
    loader, number = _Loader(days, first, targets, t.like_days_back), np.arange(gaps)
    no_register = np.zeros(gaps, np.bool_)
    found = {"ladder": estimate(need, number, loader, minutes, t, no_register).values}
    before, after = loader.edges(number)
    linear = _blank(need)
    fill_linear(need, before, after, slots * 3, True, linear)
    found["linear"] = linear.values
    like = _blank(need)
    history = loader.days(number)
    fill_days(need, history, like_day_order(history, gaps), t.like_days, t.like_days_min, 15, True, like)
    fill_adl(need, like)
    found["like_days"] = like.values
    adl = _blank(need)
    fill_adl(need, adl)
    found["flat_load"] = adl.values
    found["previous_day"] = np.where(missing, days[targets - 1], NO_VALUE)
    residual = np.where(missing, actual, 0).sum(axis=1)
    off = 0
    for method in list(found):
        scaled = scale_rows(np.where(missing, found[method], 0), missing, residual)
        off += int((np.where(missing, scaled, 0).sum(axis=1) != residual).sum())
        found[f"{method}_scaled"] = scaled
    return actual[missing], {m: v[missing] for m, v in found.items()}, off


def _mean_day(days: Ints, whole: npt.NDArray[np.bool_]) -> int:
    return int(days[whole].sum()) // max(int(whole.sum()), 1) if whole.any() else NO_VALUE


def _blank(need: EstimateNeed) -> Estimate:
    rows, slots = need.values.shape
    return Estimate(np.full((rows, slots), NO_VALUE, np.int64), np.zeros((rows, slots), np.uint8), [""] * rows)


#: Names of the ladder's own methods, for readers of the document
