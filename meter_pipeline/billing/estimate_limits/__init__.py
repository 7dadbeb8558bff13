"""Limits on estimated bills in a row: dated rules, the count, and what happens to the next one."""
