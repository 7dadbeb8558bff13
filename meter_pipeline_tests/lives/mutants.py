"""Faults put into the product on purpose, each of which the lives must find. The list is kept: a fault that was found
once is looked for ever after."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import polars as pl
import pytest

from meter_pipeline.anomalies.validation import tables as findings
from meter_pipeline.billing import day as billing_day
from meter_pipeline.billing import day_shards, determinants, reprice
from meter_pipeline.billing.tables import adjustments, days, statements, usage
from meter_pipeline.ingest import merge_versions
from meter_pipeline.vee.registers import true_up
from meter_pipeline.vee.tables import day_inputs, edits
from meter_pipeline_tests.lives.life import day_of

Patch = Callable[[pytest.MonkeyPatch], None]


def _wrapped(module: Any, name: str, change: Callable[..., Any]) -> Patch:
    """Replace a function by ``change(original, *args)``."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **named: change(original, *args, **named))

    return patch


def _dropped_segment(original: Any, *args: Any, **named: Any) -> pl.DataFrame:
    """A period that a change cuts is priced again without its last part."""
    found: pl.DataFrame = original(*args, **named)
    key = ["account_id", "service_point_id"]
    return found.filter((pl.len().over(key) == 1) | (pl.col("segment_start") < pl.col("segment_start").max().over(key)))


def _doubled_day(original: Any, bound: Any, calendar: Any, day: Any, *args: Any, **named: Any) -> Any:
    """The third day counts twice."""
    found = original(bound, calendar, day, *args, **named)
    if day == day_of(2):
        for group in found.groups:
            group.energy *= 2
    return found


def _forgotten_revision(original: Any, held: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """What came for a sealed day is not priced."""
    return held


def _lost_carry(original: Any, *args: Any, **named: Any) -> dict[Any, int]:
    """Later days keep the position they had before an earlier day moved."""
    return {}


def _unnoticed_change(original: Any, *args: Any, **named: Any) -> int:
    """No bill hears of a day that moved."""
    return 0


def _swapped_order(original: Any, payloads: pl.DataFrame) -> pl.DataFrame:
    """The oldest version of a read wins."""
    turned: pl.DataFrame = original(payloads.with_columns(-pl.col("source_version")))
    return turned.with_columns(-pl.col("source_version"))


def _dropped_register(original: Any, *args: Any, **named: Any) -> pl.DataFrame:
    """On a day of intervals and a register, the register's part is left out."""
    found: pl.DataFrame = original(*args, **named)
    return found.filter(pl.col("quantity") >= 40_000_000) if "quantity" in found.columns else found


def _factor_of_one(original: Any, unit: str, tariff: Any, day: Any) -> Fraction:
    """Gallons are billed as if they were cubic metres."""
    return Fraction(1)


def _deaf_true_up(original: Any, *args: Any, **named: Any) -> list[Any]:
    """A closing read asks for no day again."""
    return []


def _ignored_edit(original: Any, *args: Any, **named: Any) -> pl.DataFrame:
    """What a person put in the place of a read is not used."""
    found: pl.DataFrame = original(*args, **named)
    return found.clear()


def _lost_carry_out(original: Any, *args: Any, **named: Any) -> pl.DataFrame:
    """No bill knows what the ones before it hand on."""
    found: pl.DataFrame = original(*args, **named)
    return found.clear()


def _patch_ignored_read_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that a person put in the place of a register's is not used."""
    monkeypatch.setattr(day_inputs, "STANDS", "false")


def _kept_hold(original: Any, *args: Any, **named: Any) -> None:
    """A release releases nothing."""


def _patch_narrow_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the bills that cover a day hear that it moved, not the one it belongs to now."""
    covering, _ = adjustments._STATEMENTS_OF_DAY.split("UNION ALL")
    monkeypatch.setattr(adjustments, "_STATEMENTS_OF_DAY", covering)


def _kept_customer(original: Any, connection: Any, day: Any, rows: Any, *args: Any) -> Any:
    """A sealed day of a customer who had left stays charged."""
    return original(connection, day, [row for row in rows if row[1] != "null"], *args)


def _half_a_correction(original: Any, effective: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """A correction bills the new lines and takes the old ones not back."""
    found: pl.DataFrame = original(effective, now)
    return found.filter(pl.col("action") == "rebill")


def _patch_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    from meter_pipeline.billing import proposals as room

    _wrapped(room, "difference", _half_a_correction)(monkeypatch)


#: Name of the fault -> how it is put in, and a history that meets it (script, first meter, events)
MUTANTS: Final[dict[str, tuple[Patch, tuple[str, ...], str, tuple[str, ...]]]] = {
    "dropped segment": (_wrapped(reprice, "segments", _dropped_segment), ("issue", "event", "event"), "interval", ("tariff_change", "approve")),
    "doubled day": (_wrapped(day_shards, "day_determinants", _doubled_day), ("event", "issue"), "interval", ("edit",)),
    "forgotten revision": (_wrapped(reprice, "_with_revisions", _forgotten_revision), ("seal", "event", "issue"), "interval", ("corrected_read",)),
    "swapped order": (_wrapped(merge_versions, "_ranked", _swapped_order), ("event", "issue"), "interval", ("corrected_read",)),
    "lost carry": (_wrapped(billing_day, "carry_forward", _lost_carry), ("advance", "event", "issue"), "interval", ("corrected_read",)),
    "unnoticed change": (_wrapped(adjustments, "note_late_changes", _unnoticed_change), ("issue", "event"), "interval", ("edit",)),
    "dropped register": (_wrapped(usage, "read_daily", _dropped_register), ("event", "issue"), "register", ("exchange_kind",)),
    "factor of one": (_wrapped(determinants, "conversion", _factor_of_one), ("event", "issue"), "interval", ("exchange_unit",)),
    "deaf true-up": (_wrapped(true_up, "find", _deaf_true_up), ("by_itself", "issue", "event"), "register", ("corrected_read",)),
    "ignored edit": (_wrapped(edits, "standing", _ignored_edit), ("event", "issue"), "interval", ("edit",)),
    "lost credit": (_wrapped(statements, "earlier_segments", _lost_carry_out), ("event", "issue"), "net", ("approve",)),
    "lost peak": (_wrapped(statements, "earlier_segments", _lost_carry_out), ("event", "issue"), "demand", ("approve",)),
    "ignored read edit": (_patch_ignored_read_edit, ("event", "issue"), "register", ("register_edit",)),
    "kept hold": (_wrapped(findings, "release", _kept_hold), ("event", "event", "issue"), "checked", ("misread", "release")),
    "narrow note": (_patch_narrow_note, ("event", "issue", "event"), "interval", ("move", "move_corrected")),
    "kept customer": (_wrapped(days, "next_revisions", _kept_customer), ("issue", "seal", "event"), "interval", ("left",)),
    "half a correction": (_patch_difference, ("issue", "event"), "interval", ("edit",)),
}  # fmt: skip
