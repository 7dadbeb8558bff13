"""Exports of a customer system, as they are, turned into the folder of reference tables (mapping/*.toml).

Belongs here: what a mapping declares, reading exports with their line numbers, and making tables of them. What a table
must be is reference/'s to say, and so is importing the folder.
"""

from meter_pipeline.mapping.declaration import Mapping, MappingError, read_mapping
from meter_pipeline.mapping.tables import MappedTables, make_tables

__all__ = ["MappedTables", "Mapping", "MappingError", "make_tables", "read_mapping"]
