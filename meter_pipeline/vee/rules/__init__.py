"""Validation rules, their catalogue and their thresholds."""
