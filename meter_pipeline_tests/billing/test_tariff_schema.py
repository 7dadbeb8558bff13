"""The published JSON schema takes what the reader takes; a member nobody understands is refused with its path, wherever
it stands."""

from __future__ import annotations

import ast
import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline_tests.billing import random_tariffs
from meter_pipeline_tests.billing.support import raw
from meter_pipeline_tests.billing.test_shared_riders import FUEL

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "tariff.schema.json").read_text())
RIDER: dict[str, Any] = json.loads((ROOT / "docs" / "rider.schema.json").read_text())
DOCUMENTS = [*(ROOT / "data" / "tariffs").glob("*.json"), *(ROOT / "docs" / "tariff-gallery").glob("*.json")]
FULL: dict[str, Any] = {
    "schema": "meter_pipeline.tariff/1",
    "tariff_id": "T",
    "name": "Everything",
    "commodity": "electricity",
    "currency": "USD",
    "unit": "kWh",
    "rounding": {"places": 2, "mode": "half_even", "of": "bill"},
    "proration": {"fixed": "days", "tiers": "none"},
    "seasons": {"summer": {"months": [6, 7]}, "winter": {"from": "11-01", "to": "02-28"}},
    "time_of_use": {
        "periods": ["off", "on"],
        "default": "off",
        "rules": [{"period": "on", "season": "summer", "days": ["mon"], "from": "08:00", "to": "24:00"}],
    },
    "holidays": {"names": ["nerc", "veterans"], "dates": ["2026-03-02"], "observed": "nearest"},
    "metering": "net_metering",
    "sell": {"rates": {"off": "0.01", "on": 0.02}, "rollover": "money", "offsets": "bill", "trueup_month": 4, "trueup": "pay"},
    "budget": {"monthly_percent": [100] * 12},
    "annual_minimum": "100",
    "notes": ["a note"],
    "charges": [
        {
            "kind": "usage",
            "code": "E",
            "name": "E",
            "demand": "D",
            "tiers": [
                {"upto": 10, "of": "daily", "rate": "0.1", "within": {"upto": 200, "of": "per_kw"}},
                {"upto": 100, "of": "per_kw", "rate": "0.2"},
                {"rate": 1},
            ],
        },
        {"kind": "usage", "code": "B", "name": "B", "by": {"attribute": "rate_code", "values": {"A": {"rates": {"off": 1, "on": 2}}, "*": {"rate": 3}}}},
        {"kind": "usage", "code": "P", "name": "P", "periods": {"off": [{"rate": 1}], "on": [{"rate": 2}]}},
        {"kind": "fixed", "code": "F", "name": "F", "by": {"attribute": "meter_size", "values": {"1": "3.00", "*": 4}}, "times": "lamps", "without": 0},
        {"kind": "demand", "code": "D", "name": "D", "tiers": [{"upto": 5, "rate": 1}, {"rate": 2}],
         "ratchet": [{"percent": 80, "months": 11, "floor": 1, "sources": [6, 7]}, {"percent": [50] * 12, "months": 3}]},
        {"kind": "minimum", "code": "M", "name": "M", "amount": "5", "of": ["E"], "rounding": {"places": 3}},
        {"kind": "rider", "code": "R", "name": "R", "percent": 2, "of": ["E"]},
        {"kind": "tax", "code": "T", "name": "T", "percent": "6.25", "jurisdiction": "CITY", "exempt": ["municipal"],
         "base_cap": 900,
            "certificate": True, "cap": "40"},
        {"kind": "rider", "code": "FUEL", "name": "Fuel", "dated": {"by": "bill_date", "rates": [{"from": "2026-01-01", "rate": "0.01"}]}},
        {"kind": "demand", "code": "DD", "name": "D", "rate": 1, "per": "day"},
        {"kind": "demand", "code": "DC", "name": "D", "rate": 1, "hours": ["2026-07-15T17:00"]},
        {"kind": "minimum", "code": "MK", "name": "M", "amount": 2, "per": "kw", "demand": "D", "of": ["E"]},
    ],
}  # fmt: skip


#: What FULL's net metering rules out: reactive energy, blocks of each day, a shared rider.
MEASURED: dict[str, Any] = {k: v for k, v in FULL.items() if k not in ("metering", "sell", "charges", "time_of_use")} | {
    "demand_minutes": 30,
    "charges": [
        {"kind": "usage", "code": "B", "name": "B", "restart": "day", "tiers": [{"upto": 5, "rate": 1}, {"rate": 2}]},
        {"kind": "usage", "code": "L", "name": "L", "demand": "D",
         "tiers": [{"upto": 30, "of": "load_factor", "rate": 1, "within": {"upto": 50, "of": "load_factor"}}, {"rate": 2}]},
        {"kind": "usage", "code": "Q", "name": "Q", "basis": "reactive", "rate": "0.02", "above_percent": 40},
        {"kind": "usage", "code": "WA", "name": "WA", "basis": "winter_average_cap", "rate": 1, "month_days": "30.42"},
        {"kind": "demand", "code": "D", "name": "D", "rate": 1},
        {"kind": "demand", "code": "V", "name": "V", "rate": 1, "measure": "kva", "period": "all"},
        {"kind": "demand", "code": "R", "name": "R", "rate": 1, "measure": "kvar", "above": {"percent": 50}},
        {"kind": "demand", "code": "A", "name": "A", "rate": 1, "at_least": {"percent": 90, "measure": "kva"},
         "power_factor": {"target": "0.90", "rule": "points", "percent": 1, "places": 2}},
        {"kind": "shared", "rider": "FUEL"},
        {"kind": "tax", "code": "DT", "name": "DT", "dated": {"by": "bill_date", "percents": [{"from": "2026-01-01", "percent": 5}]}},
        {"kind": "rider", "code": "PF", "name": "PF", "of": ["A"], "power_factor": {"target": "0.85"}},
    ],
}  # fmt: skip
RIDERS = (raw(FUEL),)


def valid(value: Any, schema: Any = SCHEMA) -> bool:
    """Whether a value is what a schema says, of the keywords that ours has; numbers and booleans are not mixed up."""
    if "$ref" in schema:
        return valid(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    if "oneOf" in schema:
        return sum(valid(value, one) for one in schema["oneOf"]) == 1
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
    }
    if not isinstance(value, kinds[schema["type"]]) or isinstance(value, bool):
        return False
    match value:
        case str():
            return len(value) >= schema.get("minLength", 0) and re.search(schema.get("pattern", ""), value) is not None
        case list():
            fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            return fits and all(valid(item, schema["items"]) for item in value)
        case dict():
            others = schema.get("additionalProperties", False)
            members = schema.get("properties", {})
            return all(name in value for name in schema.get("required", [])) and all(
                valid(inner, members.get(name, others)) if members.get(name, others) else False
                for name, inner in value.items()
            )
        case _:
            return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a document with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from objects(inner, f"{path}.{key}" if path else key)
    if isinstance(value, list):
        for k, inner in enumerate(value):
            yield from objects(inner, f"{path}[{k}]")


#: Objects whose members are names that a document chooses.
NAMED = ("seasons", "rates", "periods", "values")


@pytest.mark.parametrize("whole", [FULL, MEASURED])
def test_an_unknown_member_is_refused_with_its_path_wherever_it_stands(whole: dict[str, Any]) -> None:
    parse_tariff(raw(whole), RIDERS)
    tried = 0
    for path, _ in objects(whole):
        document = copy.deepcopy(whole)
        holder = dict(objects(document))[path]
        if path.rsplit(".", 1)[-1] in ("seasons", "values"):
            continue
        holder["colour"] = "blue"
        with pytest.raises(TariffRefusedError) as refused:
            parse_tariff(raw(document), RIDERS)
        assert refused.value.field == (f"{path}.colour" if path else "colour")
        tried += 1
    assert tried >= 25


def test_an_unknown_member_of_a_rider_is_refused_with_its_path() -> None:
    """Its charges are read where a tariff shares them: the path is the rider's own."""
    for path, _ in objects(FUEL):
        document = copy.deepcopy(FUEL)
        dict(objects(document))[path]["colour"] = "blue"
        with pytest.raises(TariffRefusedError) as refused:
            parse_tariff(raw(MEASURED), (raw(document),))
        assert refused.value.field == (f"{path}.colour" if path else "colour")
    schema = json.loads((ROOT / "docs" / "rider.schema.json").read_text())
    assert valid(FUEL, schema)
    assert not valid(FUEL | {"colour": "blue"}, schema)


#: A URDB rate with every structure of version 8 that holds objects, as the API answers and as one item of it.
URDB: dict[str, Any] = {
    "label": "539f6a23ec4f024411ec8bdb",
    "name": "x",
    "energyratestructure": [
        [{"rate": 0.1, "max": 100, "unit": "kWh", "adj": 0.01, "sell": 0.02}, {"rate": 0.2, "sell": 0.02}],
        [{"rate": 0.3, "max": 100}, {"rate": 0.4}],
    ],
    "energyweekdayschedule": [[0] * 12 + [1] * 12] * 12,
    "energyweekendschedule": [[0] * 24] * 12,
    "flatdemandstructure": [[{"rate": 1, "max": 10}, {"rate": 2, "adj": 0.5}]],
    "flatdemandmonths": [0] * 12,
    "demandratestructure": [[{"rate": 1}], [{"rate": 2, "max": 5, "unit": "kW"}, {"rate": 3}]],
    "demandweekdayschedule": [[0] * 12 + [1] * 12] * 12,
    "demandweekendschedule": [[0] * 24] * 12,
}


@pytest.mark.parametrize("whole", [URDB, {"items": [URDB]}], ids=["item", "answer"])
def test_an_unknown_member_of_a_urdb_rate_is_refused_with_its_path(whole: dict[str, Any]) -> None:
    parse_tariff(raw(whole))
    tried = 0
    for path, _ in objects(whole):
        document = copy.deepcopy(whole)
        dict(objects(document))[path]["colour"] = "blue"
        with pytest.raises(TariffRefusedError) as refused:
            parse_tariff(raw(document))
        place = path.removeprefix("items[0]").removeprefix(".")
        assert refused.value.field == (f"{place}.colour" if place else "colour")
        tried += 1
    assert tried >= 10


def test_the_schema_takes_what_the_reader_takes() -> None:
    for path in DOCUMENTS:
        document = json.loads(path.read_text())
        if "schema" in document:
            assert valid(document), path
    assert valid({k: v for k, v in FULL.items() if k not in ("time_of_use", "metering", "sell")} | {"whole_units": 1})
    assert valid(FULL)
    assert valid(MEASURED)
    water = {k: v for k, v in FULL.items() if k in ("schema", "tariff_id", "name", "currency")} | {
        "commodity": "water",
        "unit": "gal",
    }
    water |= {
        "whole_units": {"step": 1000, "mode": "half_up"},
        "charges": [{"kind": "usage", "code": "W", "name": "W", "rate": 1}],
    }
    assert parse_tariff(raw(water)).whole_mode == "half_up"
    assert valid(water)
    water["whole_units"]["colour"] = "blue"
    assert not valid(water)
    with pytest.raises(TariffRefusedError, match=r"whole_units\.colour"):
        parse_tariff(raw(water))
    for seed in range(200):
        assert valid(random_tariffs.tariff(random.Random(seed))), seed


def test_every_member_that_the_reader_takes_stands_in_the_schema() -> None:
    """The schema, by which editors complete a document, lacked ``without``."""
    native = [*(ROOT / "meter_pipeline" / "billing" / "tariffs").glob("native*.py")]
    calls = (
        node
        for path in native
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "only"
    )
    read = {
        n.value for call in calls for n in ast.walk(call) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    written = {name for document in (SCHEMA, RIDER) for name in members(document)}
    assert {"without", "times", "rate"} <= read
    assert read <= written


def members(schema: Any) -> Iterator[str]:
    """Names of the members that a schema allows anywhere."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        for value in schema.values():
            yield from members(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from members(value)


def test_the_schema_refuses_an_unknown_member_too() -> None:
    for whole in (FULL, MEASURED):
        for path, _ in objects(whole):
            document = copy.deepcopy(whole)
            if path.rsplit(".", 1)[-1] in NAMED:
                continue
            dict(objects(document))[path]["colour"] = "blue"
            assert not valid(document), path
