"""Thresholds of the rules: versioned, hashed, read once."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from typing import Any

from meter_pipeline import units
from meter_pipeline.known_keys import refuse_unknown, unknown
from meter_pipeline.tolerances import RegisterTolerance


class ThresholdError(ValueError):
    """A thresholds file that lacks a value or holds one of the wrong kind."""


@dataclass(frozen=True)
class Thresholds:
    """Every number the rules use, under one version and hash.

    Quantities are micro base units, durations are in the unit of the name. ``digest`` is the SHA-256 of the file's
    bytes: it goes into the store and the ledger with each validated day.
    """

    version: int
    digest: str
    snap_seconds: int
    register_boundary_seconds: int
    range_per_hour: dict[tuple[str, str], int]
    range_default: int
    spike_percent: float
    spike_floor_share: float
    consecutive_hours: float
    consecutive_intervals: int
    zero_hours: float
    high_low_days: int
    high_low_min_days: int
    high_ratio: float
    low_ratio: float
    high_low_sigmas: float
    sum_register_units: int
    interval_resolution: int
    multiplier_ratios: tuple[float, ...]
    multiplier_within: float
    linear_hours: float
    like_days: int
    like_days_min: int
    like_days_back: int
    proxy_days: int
    proxy_celsius: float
    adl_days: int
    profile_min_rows: int
    max_missing_share: float
    prolonged_days: int
    final_after_days: int
    rollover_share: float
    reverse_micro: int
    boundary_hours: float
    gap_factor: float
    overdue_factor: float
    outage_share: float
    batch_reads_max: int
    high_floor_share: float
    class_ratio: float
    history_reads: int
    zero_reads: int
    zero_days: int
    gap_hours: float
    shift_min_rows: int
    shift_ratio: float

    def consecutive_needed(self, interval_minutes: int) -> int:
        """Equal values in a row that make a stuck channel."""
        return max(self.consecutive_intervals, round(self.consecutive_hours * 60 / interval_minutes))

    @property
    def register_tolerance(self) -> RegisterTolerance:
        """How far intervals and their register may be apart."""
        return RegisterTolerance(self.sum_register_units, self.interval_resolution)

    def limit_per_hour(self, customer_class: str, unit: str) -> int:
        """Largest plausible flow in micro base units an hour."""
        return self.range_per_hour.get((customer_class, unit), self.range_default)


def _micro(text: str) -> int:
    return units.to_micro(Decimal(text))


def _refuse_unknown(doc: dict[str, Any]) -> None:
    """Refuse keys that nothing reads. Classes of customers are the utility's own. Raises ValueError."""
    shipped = tomllib.loads(resources.files(__package__).joinpath("thresholds.toml").read_text("utf-8"))
    refuse_unknown({name: table for name, table in doc.items() if name != "range"}, shipped)
    for klass, limits in doc.get("range", {}).items():
        for unit in limits if isinstance(limits, dict) else ():
            if unit not in units.COMMODITY_OF_UNIT:
                raise ValueError(f"range: {klass}: {unknown(unit, units.COMMODITY_OF_UNIT)}")


def _put(doc: dict[str, Any], name: str, text: str) -> None:
    """Put a value of the same kind in the place of the one that a name with dots says. Raises ValueError."""
    *path, last = name.split(".")
    table: Any = doc
    for part in path:
        table = table.get(part) if isinstance(table, dict) else None
    old = table.get(last) if isinstance(table, dict) else None
    if path[:1] == ["range"] and len(path) == 2:
        old = doc["range"].setdefault(path[1], {}).get(last, "")
        table = doc["range"][path[1]]
    if not path or old is None or isinstance(old, (dict, list)):
        raise ValueError(f"{name} is no threshold with one value")
    value = Decimal(text)
    if isinstance(old, int) and value != int(value):
        raise ValueError(f"{name} is a whole number, not {text}")
    table[last] = format(value.normalize(), "f") if isinstance(old, str) else type(old)(value)


def parse(content: bytes, dated: Sequence[tuple[str, str]] = ()) -> Thresholds:
    """Thresholds from the bytes of a TOML file. ``dated``: names with dots and values that take the place of the
    file's; they are in the digest too. Raises ThresholdError naming the missing or wrong threshold."""
    try:
        doc: dict[str, Any] = tomllib.loads(content.decode())
        for name, value in dated:
            _put(doc, name, value)
        _refuse_unknown(doc)
        ranges: dict[str, Any] = doc["range"]
        estimation, register, high_low = doc["estimation"], doc["register"], doc["high_low"]
        return Thresholds(
            version=int(doc["version"]),
            digest=hashlib.sha256(content + b"".join(f"\n{n}={v}".encode() for n, v in sorted(dated))).hexdigest(),
            snap_seconds=int(doc["clock"]["snap_seconds"]),
            register_boundary_seconds=int(doc["clock"]["register_boundary_seconds"]),
            range_per_hour={
                (klass, unit): _micro(limit)
                for klass, table in ranges.items()
                if isinstance(table, dict)
                for unit, limit in table.items()
            },
            range_default=_micro(ranges["default"]),
            spike_percent=float(doc["spike"]["percent"]),
            spike_floor_share=float(doc["spike"]["floor_share_of_limit"]),
            consecutive_hours=float(doc["consecutive"]["hours"]),
            consecutive_intervals=int(doc["consecutive"]["intervals"]),
            zero_hours=float(doc["consecutive"]["zero_hours"]),
            high_low_days=int(high_low["history_days"]),
            high_low_min_days=int(high_low["min_days"]),
            high_ratio=float(high_low["high_ratio"]),
            low_ratio=float(high_low["low_ratio"]),
            high_low_sigmas=float(high_low["sigmas"]),
            sum_register_units=int(doc["sum_check"]["register_units"]),
            interval_resolution=_micro(doc["sum_check"]["interval_resolution"]),
            multiplier_ratios=tuple(float(r) for r in doc["sum_check"]["multiplier_suspects"]["ratios"]),
            multiplier_within=float(doc["sum_check"]["multiplier_suspects"]["within"]),
            linear_hours=float(estimation["linear_hours"]),
            like_days=int(estimation["like_days"]),
            like_days_min=int(estimation["like_days_min"]),
            like_days_back=int(estimation["like_days_back"]),
            proxy_days=int(estimation["proxy_days"]),
            proxy_celsius=float(estimation["proxy_celsius"]),
            adl_days=int(estimation["adl_days"]),
            profile_min_rows=int(estimation["profile_min_rows"]),
            max_missing_share=float(estimation["max_missing_share"]),
            prolonged_days=int(estimation["prolonged_days"]),
            final_after_days=int(estimation["final_after_days"]),
            rollover_share=float(register["rollover_share"]),
            reverse_micro=_micro(register["reverse_units"]),
            boundary_hours=float(register["boundary_hours"]),
            gap_factor=float(register["gap_factor"]),
            overdue_factor=float(register["overdue_factor"]),
            outage_share=float(register["outage_share"]),
            batch_reads_max=int(register["batch_reads_max"]),
            high_floor_share=float(register["high_floor_share"]),
            class_ratio=float(register["class_ratio"]),
            history_reads=int(register["history_reads"]),
            zero_reads=int(register["zero_reads"]),
            zero_days=int(register["zero_days"]),
            gap_hours=float(register["gap_hours"]),
            shift_min_rows=int(doc["shift"]["min_rows"]),
            shift_ratio=float(doc["shift"]["ratio"]),
        )
    except KeyError as error:
        raise ThresholdError(f"thresholds lack {error.args[0]!r}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ArithmeticError, TypeError, ValueError) as error:
        raise ThresholdError(f"thresholds cannot be read: {error}") from error


@lru_cache(maxsize=64)
def in_force(dated: tuple[tuple[str, str], ...]) -> Thresholds:
    """The thresholds the package ships, with dated values in the place of some. Raises ThresholdError."""
    return parse(resources.files(__package__).joinpath("thresholds.toml").read_bytes(), dated)


def default() -> Thresholds:
    """The thresholds the package ships."""
    return in_force(())
