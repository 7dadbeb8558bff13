"""Supply balance by zone: the volumes that a part of the network received, passed on and metered, and the rest.

Belongs here: zones and their days and months. Does not belong here: usage (vee/), which losses are real and which
apparent: people say that.
"""
