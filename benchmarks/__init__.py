"""Headline figures, each beside its peers and the floor in the same run. ``meter-pipeline bench NAME --json``
runs one.
"""
