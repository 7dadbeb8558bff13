"""Dagster definitions of anomalies: weather, baselines, flags, and the exception queue's jobs."""
