"""Attributes of services in a folder of reference tables: declared names, and counts that are numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from meter_pipeline.reference.faults import Fault
from meter_pipeline.schemas.reference import ATTRIBUTES, TABLES

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,8}(\.[0-9]{1,6})?", re.ASCII)
#: Those of ATTRIBUTES that are counts
_COUNTS = ("dwelling_units", "stormwater_units", "lamps", "solar_kw", "contract_kw")


def check_attributes(
    rows: Mapping[str, list[tuple[Any, ...]]], lines: Mapping[str, list[int]], faults: list[Fault]
) -> None:
    """Names that are no names or stand for an attribute that every tariff knows; attributes of services that the
    folder's own attribute_names.csv does not declare; counts that are no numbers. Where the folder has no such file,
    the database compares with what is stored."""
    kinds: dict[str, str] = {}
    for row, line in zip(rows.get("attribute_names", []), lines.get("attribute_names", []), strict=True):
        name = dict(zip(TABLES["attribute_names"].columns, row, strict=True))
        if not _NAME.fullmatch(name["attribute"]):
            why = f"{name['attribute'][:40]!r} is not a name: small letters, digits and _, at most 40"
            faults.append(Fault("attribute_names.csv", line, "attribute", why))
        elif name["attribute"] in ATTRIBUTES:
            why = f"{name['attribute']} is an attribute that every tariff knows: leave it out"
            faults.append(Fault("attribute_names.csv", line, "attribute", why))
        kinds[name["attribute"]] = name["kind"]
    known = "attribute_names" in rows
    for row, line in zip(rows.get("service_attributes", []), lines.get("service_attributes", []), strict=True):
        named = dict(zip(TABLES["service_attributes"].columns, row, strict=True))
        name = named["attribute"]
        if known and name not in ATTRIBUTES and name not in kinds:
            why = f"{str(name)[:40]!r} of {named['service_point_id']} is not declared in attribute_names.csv"
            faults.append(Fault("service_attributes.csv", line, "attribute", why))
        counted = name in _COUNTS or kinds.get(name) == "count"
        if counted and not _COUNT.fullmatch(str(named["value"])):
            why = f"{name} of {named['service_point_id']} is {str(named['value'])[:40]!r}, not a count"
            faults.append(Fault("service_attributes.csv", line, "value", why))
