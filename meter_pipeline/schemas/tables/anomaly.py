"""Contracts of schema ``anomaly``: baselines, flags and cases."""

from __future__ import annotations

from typing import Final

from meter_pipeline.schemas.tables.shape import DAY, ID, UNIT, Column, Contract

_POINT: Final = Column("text", "service point", pattern=ID)
_COMMODITY: Final = Column("text", "commodity", one_of=("electricity", "water", "gas"))
_SEVERITY: Final = Column("text", "severity", one_of=("inform", "warn", "severe"))
_VERSION: Final = Column("text", "baselines the day was judged by", nullable=True)
_FLOAT: Final = "double precision"

CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "anomaly.baseline",
        "what a service point is expected to use at a temperature, in one version",
        ("version", "service_point_id", "unit"),
        {
            "hdd_balance_f": Column(_FLOAT, "heating balance point, °F", nullable=True, at_least=-60, at_most=140),
            "cdd_balance_f": Column(_FLOAT, "cooling balance point, °F", nullable=True, at_least=-60, at_most=140),
            "intercept": Column(_FLOAT, "units a day whatever the weather"),
            "hdd_beta": Column(_FLOAT, "units per heating degree day °F", at_least=0),
            "cdd_beta": Column(_FLOAT, "units per cooling degree day °F", at_least=0),
            "weekend": Column(_FLOAT, "units more on weekends"),
            "holiday": Column(_FLOAT, "units more on holidays"),
            "r2": Column(_FLOAT, "share of the variance explained", nullable=True, at_most=1),
            "adj_r2": Column(_FLOAT, "R2 adjusted for the number of terms", nullable=True, at_most=1),
            "sigma": Column(_FLOAT, "residual standard deviation, units a day", nullable=True, at_least=0),
            "robust_sigma": Column(_FLOAT, "the same from the median absolute deviation", nullable=True, at_least=0),
            "low_f": Column(_FLOAT, "coldest day it may speak about, °F"),
            "high_f": Column(_FLOAT, "warmest day it may speak about, °F"),
            "days": Column("integer", "measured days it was fitted on", at_least=0),
            "hourly": Column("boolean", "degree hours rather than degree days"),
            "version": Column("text", "refit it belongs to"),
            "service_point_id": _POINT,
            "unit": UNIT,
            "commodity": _COMMODITY,
            "station_id": Column("text", "weather station", pattern=ID),
            "model": Column("text", "terms of the model", one_of=("hdd_cdd", "hdd", "cdd", "intercept")),
            "status": Column(
                "text",
                "own full year, own shorter, or its class's",
                one_of=("caltrack", "provisional", "class_profile"),
            ),
        },
        lineage={
            **dict.fromkeys(
                ("intercept", "hdd_beta", "cdd_beta", "sigma", "r2"),
                ("vee.daily_usage.quantity_micro", "anomaly.temperature.temperature_mean_c"),
            ),
            "days": ("vee.daily_usage.actual", "vee.daily_usage.slots_expected"),
            "station_id": ("ref.service_points.station_id", "ref.weather_stations.latitude"),
        },
    ),
    Contract(
        "anomaly.flag",
        "a finding about a service point (or a collector or head-end) on a billing day",
        ("billing_day", "kind", "service_point_id", "group_id", "unit"),
        {
            "expected": Column(_FLOAT, "what was expected, in unit", nullable=True),
            "observed": Column(_FLOAT, "what was observed, in unit", nullable=True),
            "confidence": Column(_FLOAT, "how sure the rule is", at_least=0, at_most=1),
            "billing_day": DAY,
            "kind": Column("text", "kind of finding"),
            "service_point_id": Column("text", "service point, empty for a group", pattern=rf"{ID}|^$"),
            "group_id": Column("text", "collector or head-end, empty for a service point"),
            "commodity": _COMMODITY,
            "unit": UNIT,
            "severity": _SEVERITY,
            "evidence": Column("jsonb", "the figures the rule looked at"),
            "baseline_version": _VERSION,
            "case_id": Column("text", "case it is part of", nullable=True),
        },
        lineage={
            "observed": ("vee.daily_usage.quantity_micro",),
            "expected": (
                "anomaly.baseline.intercept",
                "anomaly.baseline.hdd_beta",
                "anomaly.baseline.cdd_beta",
                "anomaly.temperature.temperature_mean_c",
            ),
            "evidence": (
                "vee.daily_usage.actual",
                "vee.interval_day.values",
                "vee.register_day.broken",
                "ref.service_points.status",
            ),
        },
    ),
    Contract(
        "anomaly.exception_case",
        "one matter about one subject, however many days it lasts",
        ("case_id",),
        {
            "first_day": Column("date", "first flagged billing day"),
            "last_day": Column("date", "last flagged billing day"),
            "days": Column("integer", "flagged billing days", at_least=1),
            "opened_at": Column("timestamp with time zone", "when it was opened"),
            "decided_at": Column("timestamp with time zone", "when it was decided or expired", nullable=True),
            "confidence": Column(_FLOAT, "highest confidence of its flags", at_least=0, at_most=1),
            "hold": Column("boolean", "whether the bill of its days waits"),
            "case_id": Column("text", "family, subject and the day it was opened with"),
            "family": Column("text", "kinds that are one matter"),
            "kind": Column("text", "kind of the latest flag"),
            "subject": Column("text", "service point, collector or head-end"),
            "service_point_id": Column("text", "service point, empty for a group", pattern=rf"{ID}|^$"),
            "commodity": _COMMODITY,
            "severity": _SEVERITY,
            "state": Column(
                "text", "where it stands", one_of=("open", "assigned", "confirmed", "dismissed", "expired")
            ),
            "assigned_to": Column("text", "who works on it", nullable=True),
            "decided_by": Column("text", "who decided", nullable=True),
            "reason": Column("text", "why", nullable=True),
        },
        lineage={
            "kind": ("anomaly.flag.kind",),
            "first_day": ("anomaly.flag.billing_day",),
            "last_day": ("anomaly.flag.billing_day",),
        },
    ),
    Contract(
        "anomaly.case_evidence",
        "what cases rest on that no flag of a day opened: limits on estimated bills, losses of zones",
        ("case_id", "billing_day"),
        {
            "case_id": Column("text", "case"),
            "billing_day": Column("date", "day it was found for"),
            "kind": Column("text", "kind of the case"),
            "unit": Column("text", "unit of the figures"),
            "expected": Column(_FLOAT, "what was expected", nullable=True),
            "observed": Column(_FLOAT, "what was found", nullable=True),
            "evidence": Column("jsonb", "figures and names"),
        },
        lineage={"evidence": ("billing.estimated_bill.in_a_row", "billing.zone_day.difference")},
    ),
    Contract(
        "anomaly.weather_day",
        "a station's temperatures on a day, from a weather file",
        ("station_id", "weather_day"),
        {
            "station_id": Column("text", "weather station", pattern=ID),
            "weather_day": Column("date", "day"),
            "temperature_min_c": Column(_FLOAT, "lowest, °C", at_least=-95, at_most=62),
            "temperature_max_c": Column(_FLOAT, "highest, °C", at_least=-95, at_most=62),
            "temperature_mean_c": Column(_FLOAT, "mean, °C", at_least=-95, at_most=62),
            "hours": Column("smallint", "hours it is made of", nullable=True, at_least=0, at_most=25),
            "hourly_c": Column("real[]", "the hours, °C", nullable=True),
            "source": Column("text", "file and format"),
            "loaded_at": Column("timestamp with time zone", "when it was loaded"),
        },
        lineage={
            **dict.fromkeys(
                ("temperature_min_c", "temperature_max_c", "temperature_mean_c"),
                (
                    "weather file",
                    "ref.weather.temperature_min_c",
                    "ref.weather.temperature_max_c",
                    "ref.weather.temperature_mean_c",
                ),
            ),
            "hourly_c": ("weather file",),
        },
    ),
)
