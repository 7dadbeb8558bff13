"""Revenue assurance: is every unit that was validated on a bill, accrued, or waiting under a reason that a person can
see?

Belongs here: the law of a billing day and of a month, computed from the tables alone. Does not belong here: anything
that billing does; this room imports none of it, so that a fault there cannot hide itself here.
"""
