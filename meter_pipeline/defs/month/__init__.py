"""Dagster definitions of the month's reports: unbilled revenue, the supply balance."""
