"""Dagster definitions for leaving a legacy batch: the comparison, and finance's jobs."""
