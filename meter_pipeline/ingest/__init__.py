"""Canonical frames into the raw store, exactly once: packing, landing, writing, and what could not be written."""
