"""Corrections of reference data: preview the reach and cost of a change, and make it.

Belongs here: impact, preview, approval and application of changed master data. The rows themselves are the reference
room's; validation and billing do the work of a day.
"""
