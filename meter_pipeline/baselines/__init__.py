"""Weather-dependent usage: degree days, and change-point fits for a whole city at once. This module is the
room's public API."""

from meter_pipeline.baselines.degree_days import (
    BALANCE_POINTS_F,
    celsius,
    cooling_degree_days,
    degree_hours,
    fahrenheit,
    heating_degree_days,
    sums,
)
from meter_pipeline.baselines.files import DailyPair, FileError, read_pair
from meter_pipeline.baselines.group import LAG_DAYS, STATUSES, GroupFit, fit_group, training_days
from meter_pipeline.baselines.model import MIN_OWN_DAYS, MODELS, Fit, FitOptions, NoModelError, options_for
from meter_pipeline.baselines.predict import (
    COEFFICIENTS,
    ClassMeans,
    Profiles,
    class_profiles,
    expected_usage,
    known_range,
    scaled_profile,
)
from meter_pipeline.baselines.single import fit_best, fit_known
from meter_pipeline.baselines.station_fit import CityFit, fit_station

__all__ = [
    "BALANCE_POINTS_F",
    "COEFFICIENTS",
    "LAG_DAYS",
    "MIN_OWN_DAYS",
    "MODELS",
    "STATUSES",
    "CityFit",
    "ClassMeans",
    "DailyPair",
    "FileError",
    "Fit",
    "FitOptions",
    "GroupFit",
    "NoModelError",
    "Profiles",
    "celsius",
    "class_profiles",
    "cooling_degree_days",
    "degree_hours",
    "expected_usage",
    "fahrenheit",
    "fit_best",
    "fit_group",
    "fit_known",
    "fit_station",
    "heating_degree_days",
    "known_range",
    "options_for",
    "read_pair",
    "scaled_profile",
    "sums",
    "training_days",
]
