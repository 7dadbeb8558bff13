"""The pause raises itself at its limits, not before, names its evidence, and does not raise again what people have
answered for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.control import rules
from meter_pipeline.control.pause import ALL, Scope
from meter_pipeline.control.rules import Breaker, ControlTotal, Observations, Rejections, Variance, Verification
from meter_pipeline.ledger.entries import canonical_json

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = rules.load_thresholds()


def test_nothing_seen_is_nothing_found() -> None:
    assert rules.evaluate(Observations(NOW), LIMITS) == []


def test_a_breaker_is_given_its_limit_and_no_more() -> None:
    at = NOW - LIMITS.breaker_open
    assert rules.breaker_open(Observations(NOW, breakers=[Breaker("store", at)]), LIMITS) == []
    (found,) = rules.breaker_open(Observations(NOW, breakers=[Breaker("store", at - timedelta(seconds=1))]), LIMITS)
    assert found.scope == ALL
    assert found.evidence["breaker"] == "store"


@pytest.mark.parametrize(
    ("received", "rejected", "before", "fires"),
    [
        (100_000, 199, 0, False),  # one meter's bad clock, even in a week without any
        (100_000, 499, 0, False),  # under half a percent
        (100_000, 500, 0, True),
        (100_000, 2_000, 700, False),  # 2 % after a week of 0.7 %: under three times
        (100_000, 2_101, 700, True),
        (1_000, 200, 20_000, True),  # one in five, however bad the week before
    ],
)
def test_dead_letters_are_measured_against_the_week_before(
    received: int, rejected: int, before: int, fires: bool
) -> None:
    seen = Observations(NOW, rejections=[Rejections("HE-1", received, rejected, 100_000, before)])
    assert bool(rules.dead_letter_burst(seen, LIMITS)) is fires


@pytest.mark.parametrize(
    ("measure", "received", "rejected", "before", "fires"),
    [
        ("files", 12, 12, 0, True),  # a column was renamed: a head-end's whole night refused
        ("files", 12, 2, 0, False),  # a file or two under a wrong name
        ("files", 100, 3, 0, True),
        ("files", 1_000, 3, 0, False),  # under half a percent
        ("bytes", 50_000_000, 40_000_000, 0, True),  # one file, but most of what came
        ("bytes", 50_000_000, 900_000, 0, False),
    ],
)
def test_files_refused_whole_are_measured_too(
    measure: str, received: int, rejected: int, before: int, fires: bool
) -> None:
    whole = {"files": 1_000, "bytes": 10**9}[measure]
    seen = Observations(NOW, rejections=[Rejections("HE-1", received, rejected, whole, before, measure)])
    assert bool(rules.dead_letter_burst(seen, LIMITS)) is fires


def test_one_head_end_makes_one_finding_whatever_it_is_measured_in() -> None:
    seen = Observations(NOW, rejections=[Rejections("HE-1", 900, 900, 0, 0, m) for m in ("reads", "files")])
    (found,) = rules.dead_letter_burst(seen, LIMITS)
    assert found.evidence["measure"] == "reads"


def test_one_head_end_is_held_alone_and_several_hold_all() -> None:
    bad = [Rejections(f"HE-{n}", 1000, 900, 0, 0) for n in range(2)]
    (one,) = rules.dead_letter_burst(Observations(NOW, rejections=bad[:1]), LIMITS)
    assert one.scope == Scope("head_end", "HE-0")
    (both,) = rules.dead_letter_burst(Observations(NOW, rejections=bad), LIMITS)
    assert both.scope == ALL
    assert len(both.evidence["head_ends"]) == 2


def test_one_lost_read_breaks_a_control_total() -> None:
    whole, short = ControlTotal("a.csv", "HE-1", 96, 96), ControlTotal("b.csv", "HE-1", 96, 95)
    assert rules.control_total(Observations(NOW, control_totals=[whole]), LIMITS) == []
    (found,) = rules.control_total(Observations(NOW, control_totals=[whole, short]), LIMITS)
    assert found.evidence["files"] == [{"file": "b.csv", "head_end": "HE-1", "received": 96, "accounted": 95}]


def test_a_ledger_that_fails_after_the_resume_pauses_again() -> None:
    failed = Verification(False, NOW, "leaf 7 differs")
    assert rules.ledger(Observations(NOW, verification=failed), LIMITS)
    assert rules.ledger(Observations(NOW, since=NOW, verification=failed), LIMITS) == []
    assert rules.ledger(Observations(NOW, since=NOW - timedelta(hours=1), verification=failed), LIMITS)
    assert rules.ledger(Observations(NOW, verification=Verification(True, NOW, "")), LIMITS) == []


def test_a_variance_is_measured_by_share_and_size() -> None:
    def fires(unexplained: str, whole: str) -> bool:
        return bool(
            rules.variance(
                Observations(
                    NOW,
                    variances=[Variance("2026-02-28", "raw to validated", "kWh", Decimal(unexplained), Decimal(whole))],
                ),
                LIMITS,
            )
        )

    assert not fires("9.999", "10")
    assert not fires("250", "100000")
    assert fires("250.001", "100000")
    assert fires("250.001", "-100000")


def test_a_variance_people_have_answered_for_is_quiet_until_it_changes() -> None:
    one = Variance("2026-02-28", "raw to validated", "kWh", Decimal(50), Decimal(100))
    answered = frozenset({("2026-02-28", "raw to validated", "kWh", Decimal("50.000000"))})
    assert rules.variance(Observations(NOW, variances=[one], answered=answered), LIMITS) == []
    grown = Variance("2026-02-28", "raw to validated", "kWh", Decimal(51), Decimal(100))
    assert rules.variance(Observations(NOW, variances=[grown], answered=answered), LIMITS)


counts = st.integers(0, 10**9)


@given(counts, counts, counts, counts)
def test_every_finding_can_go_on_the_ledger(received: int, rejected: int, before: int, rejected_before: int) -> None:
    """Whatever the figures: plain JSON without floats, a reason within the table's bounds, the thresholds named."""
    seen = Observations(
        NOW,
        breakers=[Breaker("store", NOW - timedelta(days=1))],
        rejections=[Rejections("HE-1", received, rejected, before, rejected_before)],
        control_totals=[ControlTotal("f", "HE-1", received, rejected)],
        verification=Verification(False, NOW, "x" * 5000),
        variances=[Variance("2026-02-28", "j", "kWh", Decimal(received), Decimal(before))],
    )
    for found in rules.evaluate(seen, LIMITS):
        canonical_json(found.evidence)
        assert 0 < len(found.reason) <= 2000
        assert found.evidence["thresholds"] == LIMITS.stamp


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    text = rules.DEFAULT_FILE.read_text()
    for wrong, named in [
        (text.replace('factor = "3"', 'factor = "1"'), "dead_letters.factor"),
        (text.replace("open_minutes", "minutes"), "open_minutes"),
    ]:
        path = tmp_path / "t.toml"
        path.write_text(wrong)
        with pytest.raises(rules.ThresholdError, match=named):
            rules.load_thresholds(path)
