"""Unbilled revenue: the amount owed at a month's end for days served that are on no bill yet, and its journal.

Belongs here: the figures of a month's end, their movement since the month before, and the journal lines that book them.
Does not belong here: pricing (billing/), the seal itself (billing/close.py).
"""
