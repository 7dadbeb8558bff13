"""Shapes: the columns, types and bounds of every frame and table.

Belongs here: plain declarations that any room may import. Does not belong here: code that reads, writes or computes.
"""
