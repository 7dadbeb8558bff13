"""Supply balance by zone: what a part of the network received, passed on and metered, and what is left.

Belongs here: zones and their days and months. Does not belong here: usage (vee/), which losses are real and which
apparent: people say that.
"""
