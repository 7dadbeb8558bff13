"""Corrections of reference data: what a change reaches and costs before it is made, and making it.

Belongs here: impact, preview, approval and application of changed master data. The rows themselves are the reference
room's; validation and billing do the work of a day.
"""
