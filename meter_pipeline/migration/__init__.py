"""Leaving the legacy batch: shadow, comparison, dual write, cut-over. Public names; the rest is the room's own."""
