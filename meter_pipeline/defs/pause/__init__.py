"""Dagster definitions of EMERGENCY_PAUSE: the jobs that raise and resume it, the sensors that act on it."""
