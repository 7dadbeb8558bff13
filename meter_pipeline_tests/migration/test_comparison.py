"""Comparison promises: every figure has exactly one class, each planted difference the right one, and money has no
tolerance."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.migration.comparison import (
    BLOCKING,
    CLASSES,
    RARE,
    RESULT,
    KnownDefect,
    RoundingDrift,
    Rules,
    compare,
    coverage,
)

DAY = date(2026, 11, 2)
NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
ACCOUNTS = pl.Series(["A1", "A2", "A3"])


def figures(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {"billing_day": DAY, "account_id": "A1", "level": "line", "code": "energy", "value": 12_340_000}
    base |= {"exact": None, "estimated": False, "tariff_version": 1}
    return pl.DataFrame([base | row for row in rows], schema=RESULT)


RULES = Rules(
    tolerance={"determinant:demand": 10_000},
    legacy_unit={"line": 10_000},
    defects=[KnownDefect("LEG-7", ("line",), ("surcharge",), 500_000, "controller", NOW + timedelta(days=30))],
)
CASES: list[tuple[str, dict[str, Any] | None, list[dict[str, Any]]]] = [
    ("match", {}, [{}]),
    (
        "within_tolerance",
        {"level": "determinant", "code": "demand", "value": 5_000_000},
        [{"level": "determinant", "code": "demand", "value": 5_010_000}],
    ),
    ("rounding", {"value": 12_344_600, "exact": 12_344_600}, [{"value": 12_340_000}]),
    ("missing_new", None, [{}]),
    ("missing_legacy", {}, []),
    ("duplicate_legacy", {}, [{}, {}]),
    ("estimate_vs_actual", {"estimated": True}, [{"value": 13_000_000}]),
    ("tariff_version", {"tariff_version": 2}, [{"value": 13_000_000}]),
    ("known_legacy_defect", {"code": "surcharge"}, [{"code": "surcharge", "value": 12_840_000}]),
    ("key_mismatch", None, [{"account_id": "A-9"}]),
    ("unexplained", {"exact": 12_340_000}, [{"value": 12_350_000}]),
    ("unexplained", {}, [{"value": 12_360_000}]),
    ("rounding", {}, [{"value": 12_350_000}]),
    ("unexplained", {"code": "surcharge"}, [{"code": "surcharge", "value": 12_840_001}]),
]


@pytest.mark.parametrize(("expected", "new", "legacy"), CASES)
def test_each_planted_difference_has_its_class(
    expected: str, new: dict[str, Any] | None, legacy: list[dict[str, Any]]
) -> None:
    result = compare(
        figures(*([new] if new is not None else [])), figures(*legacy), known_accounts=ACCOUNTS, now=NOW, rules=RULES
    )
    assert result.pairs["class"].to_list() == [expected]
    assert result.blocking == (expected in BLOCKING)


def test_rounding_that_leans_one_way_for_three_days_is_an_error_of_a_cent_a_day() -> None:
    """Each night rounds by half a cent, our own position by one over any stretch: after two days of +1 a third is more
    than rounding explains."""

    def third(leant: int, days: int) -> list[str]:
        before = pl.DataFrame({"account_id": ["A1"], "code": ["energy"], "leant": [leant]})
        drift = RoundingDrift(days, before)
        return (
            compare(
                figures({}), figures({"value": 12_330_000}), known_accounts=ACCOUNTS, now=NOW, rules=RULES, drift=drift
            )
            .pairs["class"]
            .to_list()
        )

    assert third(0, 0) == ["rounding"]
    assert third(10_000, 1) == ["rounding"]
    assert third(20_000, 2) == ["unexplained"]
    assert third(-10_000, 2) == ["rounding"]


def test_only_what_both_sides_have_is_evidence() -> None:
    new = figures({}, {"account_id": "A2"}, {"level": "total", "code": "total"})
    result = compare(new, figures({}, {"level": "total", "code": "total"}), known_accounts=ACCOUNTS, now=NOW)
    assert (result.pairs.height, result.both.height, result.bills) == (3, 2, 1)


def test_a_rate_class_that_legacy_does_not_bill_is_not_covered() -> None:
    strata = pl.DataFrame(
        {"service_point_id": ["SP-1", "SP-2"], "rate_class": ["RES", "TOU"], "commodity": ["water", "electricity"]}
    )
    strata = strata.with_columns(**{name: pl.lit(name == "exchange") for name in RARE})
    new = figures({"code": "SP-1:energy"}, {"code": "SP-2:energy", "account_id": "A2"})
    result = compare(new, figures({"code": "SP-1:energy"}), known_accounts=ACCOUNTS, now=NOW)
    assert coverage(result, strata) == {"commodity:water": 1, "exchange": 1, "rate_class:RES": 1}


def test_results_of_a_legacy_run_still_under_way_are_timing_not_loss() -> None:
    result = compare(figures({}), figures(), known_accounts=ACCOUNTS, now=NOW, legacy_pending=frozenset({DAY}))
    assert result.pairs["class"].to_list() == ["timing"]


def test_an_expired_defect_explains_nothing() -> None:
    new, legacy = figures({"code": "surcharge"}), figures({"code": "surcharge", "value": 12_840_000})
    late = compare(new, legacy, known_accounts=ACCOUNTS, now=NOW + timedelta(days=31), rules=RULES)
    assert late.pairs["class"].to_list() == ["unexplained"]


def test_a_total_follows_its_explained_lines_and_only_exactly() -> None:
    new = figures(
        {"estimated": True}, {"code": "fixed", "value": 1}, {"level": "total", "code": "total", "value": 20_000_000}
    )
    legacy = figures(
        {"value": 13_000_000}, {"code": "fixed", "value": 1}, {"level": "total", "code": "total", "value": 20_660_000}
    )
    result = compare(new, legacy, known_accounts=ACCOUNTS, now=NOW, rules=RULES)
    total = result.pairs.filter(pl.col("level") == "total")
    assert total["class"].to_list() == ["estimate_vs_actual"]
    assert total["cause"].to_list() == ["follows its lines"]
    off = legacy.with_columns(value=pl.when(pl.col("level") == "total").then(20_660_001).otherwise("value"))
    assert compare(new, off, known_accounts=ACCOUNTS, now=NOW, rules=RULES).count("unexplained") == 1


def test_offsetting_errors_hide_in_the_net_but_not_in_the_absolute() -> None:
    new = figures(*({"account_id": a, "level": "total", "code": "total", "value": 100} for a in ("A1", "A2")))
    legacy = figures(
        *({"account_id": a, "level": "total", "code": "total", "value": v} for a, v in (("A1", 90), ("A2", 110)))
    )
    result = compare(new, legacy, known_accounts=ACCOUNTS, now=NOW)
    assert (result.net_money, result.absolute_money) == (0, 20)


def test_money_is_refused_a_tolerance() -> None:
    with pytest.raises(ValueError, match="money has no tolerance"):
        Rules(tolerance={"line": 1})


rows = st.lists(
    st.fixed_dictionaries(
        {
            "account_id": st.sampled_from(["A1", "A2", "A3", "A9"]),
            "level": st.sampled_from(["usage", "line", "total"]),
            "code": st.sampled_from(["energy", "fixed"]),
            "value": st.integers(-(10**7), 10**7),
            "estimated": st.booleans(),
            "tariff_version": st.sampled_from([1, 2, None]),
        }
    ),
    max_size=12,
)


@given(rows, rows, st.randoms())
def test_every_figure_has_one_class_in_any_order(
    new: list[dict[str, Any]], legacy: list[dict[str, Any]], order: Any
) -> None:
    unique = list({(r["account_id"], r["level"], r["code"]): r for r in new}.values())
    result = compare(figures(*unique), figures(*legacy), known_accounts=ACCOUNTS, now=NOW, rules=RULES)
    keys = {(r["account_id"], r["level"], r["code"]) for r in [*unique, *legacy]}
    assert result.pairs.height == len(keys)
    assert set(result.pairs["class"].to_list()) <= set(CLASSES)
    assert int(result.summary["figures"].sum()) == len(keys)
    order.shuffle(unique)
    order.shuffle(legacy)
    again = compare(figures(*unique), figures(*legacy), known_accounts=ACCOUNTS, now=NOW, rules=RULES)
    key = ["billing_day", "account_id", "level", "code"]
    assert again.pairs.sort(key).equals(result.pairs.sort(key))
    assert again.summary.equals(result.summary)
