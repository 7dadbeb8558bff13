"""Wire formats to canonical reads.

Belongs here: bytes a head-end sent, read strictly, to frames of schemas/reads.py and rejected lines with
reasons. Does not belong here: the database, reference data (whether a meter is known), validation of values against
each other.

The way in is ``parse(path, head_end, calendar)``.
"""

from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError, read_head_end, read_head_ends
from meter_pipeline.feeds.registry import parse, sniff
from meter_pipeline.feeds.rejects import FeedRefused, FileGrowing

__all__ = ["FeedRefused", "FileGrowing", "HeadEnd", "HeadEndError", "parse", "read_head_end", "read_head_ends", "sniff"]
