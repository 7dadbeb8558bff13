"""Estimates of missing intervals, from the meter's own history, scaled to its register."""
