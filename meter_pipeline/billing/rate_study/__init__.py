"""Rate studies: a city's bills priced again under proposed tariffs, beside the issued bills.

Belongs here: which bills, the positions they are priced from, what the difference comes to. Does not belong here:
pricing itself (billing/statements.py), reading tariff documents (billing/tariffs/).
"""
