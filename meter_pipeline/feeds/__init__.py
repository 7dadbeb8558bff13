"""Wire formats to canonical reads.

Belongs here: bytes a head-end sent, read strictly, to frames of schemas/reads.py and a list of what could not be read and why. Does not belong
here: the database, reference data (whether a meter is known), validation of values against each other.

The way in is ``registry.parse(path, head_end, calendar)``.
"""
