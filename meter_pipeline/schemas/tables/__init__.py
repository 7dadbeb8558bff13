"""Contracts by database schema: one module each."""
