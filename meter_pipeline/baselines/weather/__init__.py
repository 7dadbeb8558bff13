"""Temperatures: weather files of any common format, days without gaps, and the station that serves a service point."""

from meter_pipeline.baselines.weather.formats import DAILY, FORMATS, HOURLY, WeatherError, read_weather, recognise
from meter_pipeline.baselines.weather.series import coverage, daily, hourly_grid, hours_of_days
from meter_pipeline.baselines.weather.stations import Service, kilometres, ranked_stations, serve, with_fallback

__all__ = [
    "DAILY",
    "FORMATS",
    "HOURLY",
    "Service",
    "WeatherError",
    "coverage",
    "daily",
    "hourly_grid",
    "hours_of_days",
    "kilometres",
    "ranked_stations",
    "read_weather",
    "recognise",
    "serve",
    "with_fallback",
]
