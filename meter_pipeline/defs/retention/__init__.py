"""Dagster definitions of the days that leave the database."""
