"""Flags that go to people: what usage should not look like, and the queue in which somebody decides. This module is the
room's public API."""

from meter_pipeline.anomalies.cases import Case, CaseFlag, expired, fold, tolerance
from meter_pipeline.anomalies.day import AnomalyOutcome, detect_billing_day
from meter_pipeline.anomalies.detect import detect
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
    "detect",
    "detect_billing_day",
    "expired",
    "fold",
    "list_cases",
    "load_weather",
    "plot_case",
    "refit_baselines",
    "show_case",
    "tolerance",
    "waiting_days",
    "weather_day",
]
