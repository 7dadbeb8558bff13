"""Winter averages: a service's water use of the winter months, by which its sewer charge is capped or set.

Belongs here: working them out from issued bills by dated rules, and what each stands on. Does not belong here: pricing
by them (billing/): it takes them as the service attribute winter_average_per_day.
"""
