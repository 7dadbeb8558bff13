"""Flags of unusual usage, and the queue in which people decide on them. This module is the
room's public API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.anomalies.cases import Case, CaseFlag, expired, merge_into_cases, tolerance
    from meter_pipeline.anomalies.day import AnomalyOutcome, detect_billing_day
    from meter_pipeline.anomalies.kinds import KINDS
    from meter_pipeline.anomalies.plots import case_png, plot_case
    from meter_pipeline.anomalies.queue import FILTERS, Decided, QueueError, decide, list_cases, show_case
    from meter_pipeline.anomalies.refit import RefitOutcome, refit_baselines
    from meter_pipeline.anomalies.thresholds import Thresholds
    from meter_pipeline.anomalies.weather import WeatherDay, WeatherLoaded, load_weather, waiting_days, weather_day
    from meter_pipeline.anomalies.window import Window

__all__ = [
    "FILTERS",
    "KINDS",
    "AnomalyOutcome",
    "Case",
    "CaseFlag",
    "Decided",
    "QueueError",
    "RefitOutcome",
    "Thresholds",
    "WeatherDay",
    "WeatherLoaded",
    "Window",
    "case_png",
    "decide",
    "detect_billing_day",
    "expired",
    "list_cases",
    "load_weather",
    "merge_into_cases",
    "plot_case",
    "refit_baselines",
    "show_case",
    "tolerance",
    "waiting_days",
    "weather_day",
]

__getattr__ = attach(
    __name__,
    {
        "cases": (
            "Case",
            "CaseFlag",
            "expired",
            "merge_into_cases",
            "tolerance",
        ),
        "day": (
            "AnomalyOutcome",
            "detect_billing_day",
        ),
        "kinds": ("KINDS",),
        "plots": (
            "case_png",
            "plot_case",
        ),
        "queue": (
            "Decided",
            "FILTERS",
            "QueueError",
            "decide",
            "list_cases",
            "show_case",
        ),
        "refit": (
            "RefitOutcome",
            "refit_baselines",
        ),
        "thresholds": ("Thresholds",),
        "weather": (
            "WeatherDay",
            "WeatherLoaded",
            "load_weather",
            "waiting_days",
            "weather_day",
        ),
        "window": ("Window",),
    },
)
