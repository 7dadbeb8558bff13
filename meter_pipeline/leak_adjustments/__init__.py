"""Leak adjustments: what of a confirmed leak is forgiven, by dated rules, as an adjustment of its own reason.

Belongs here: rules, normal use, the request. Does not belong here: finding leaks (anomalies/), pricing and posting
(billing/).
"""
