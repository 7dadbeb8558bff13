"""Leak adjustments: the forgiven part of a confirmed leak, by dated rules, as an adjustment of its own reason.

Belongs here: rules, normal use, the request. Does not belong here: finding leaks (anomalies/), pricing and posting
(billing/).
"""
