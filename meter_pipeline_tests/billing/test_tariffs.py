"""Tariffs promise: published URDB rates priced to the cent, native ones read whole, and a refusal that names
the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing.load import LoadRefusedError, read_load
from meter_pipeline.billing.rate_calculator import price
from meter_pipeline.billing.tariffs import TariffRefusedError, load_tariff, parse_tariff
from meter_pipeline_tests.billing.support import native, raw
from meter_pipeline_tests.support import fixtures_dir


def year(scale: int, first: datetime = datetime(2018, 1, 1)) -> Iterator[str]:  # noqa: DTZ001 - a load in wall-clock time
    """The load of the fixtures' EXPECTED.json: 8,760 hours from a Monday."""
    yield "interval_start,kwh"
    for h in range(8760):
        shape = (
            1
            + 0.5 * math.sin(2 * math.pi * (h % 24 - 9) / 24)
            + 0.3 * math.cos(2 * math.pi * h / 8760)
            + ((h * 7919) % 1000) / 1000
        )
        yield f"{(first + timedelta(hours=h)).isoformat()},{scale * round(shape, 3)}"


@pytest.mark.oracle
def test_published_tariffs_cost_what_independent_calculators_say() -> None:
    folder = fixtures_dir()
    expected = json.loads((folder / "EXPECTED.json").read_text())["tariffs"]
    documents = [name for name in expected if name.endswith(".json")]
    assert documents
    for name in documents:
        figures = expected[name]
        document = price(load_tariff(folder / "tariffs" / name), read_load(year(figures["scale"])))
        for ours, theirs in (
            ("total", "annual"),
            ("energy", "energy"),
            ("demand_flat", "dc_fixed"),
            ("demand_tou", "dc_tou"),
            ("fixed", "fixed"),
        ):
            assert abs(float(document["annual"][ours]) - figures[theirs]) < 1e-6, (name, ours)
        assert [float(round(month["total"], 2)) for month in document["monthly"]] == figures["months"]


def test_the_order_of_intervals_is_irrelevant() -> None:
    rows = list(year(1))[:800]
    tariff = parse_tariff(raw(native()))
    assert price(tariff, read_load(rows)) == price(tariff, read_load([rows[0], *reversed(rows[1:])]))


URDB: dict[str, Any] = {
    "name": "tiered",
    "energyratestructure": [[{"max": 100, "rate": 0.1}, {"rate": 0.2, "adj": 0.01}]],
    "fixedchargefirstmeter": 5,
    "fixedchargeunits": "$/month",
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"energyratestructure": []}, "energyratestructure"),
        ({"energyratestructure": [[{"rate": 0.1}, {"rate": 0.2}]]}, "energyratestructure[0][0].max"),
        (
            {"energyratestructure": [[{"max": 100, "rate": 0.1}, {"max": 50, "rate": 0.2}, {"rate": 1}]]},
            "energyratestructure[0][1].max",
        ),
        ({"energyratestructure": [[{"rate": "dear"}]]}, "energyratestructure[0][0].rate"),
        ({"energyratestructure": [[{"rate": 1, "unit": "furlong"}]]}, "energyratestructure[0][0].unit"),
        ({"energyratestructure": [[{"rate": 1}], [{"rate": 2}]]}, "energyweekdayschedule"),
        ({"energyweekdayschedule": [[0] * 24] * 11}, "energyweekdayschedule"),
        ({"energyweekdayschedule": [[3] * 24] * 12}, "energyweekdayschedule[0][0]"),
        ({"demandratestructure": [[{"rate": 1}]], "demandrateunit": "hp"}, "demandrateunit"),
        ({"coincidentratestructure": [[{"rate": 1}]]}, "coincidentratestructure"),
        ({"fixedchargeunits": "$/fortnight"}, "fixedchargeunits"),
        ({"dgrules": "Barter"}, "dgrules"),
        ({"flatdemandstructure": [[{"rate": 1}]], "flatdemandunit": "kW daily"}, "flatdemandunit"),
        ({"demandratchetpercentage": [0.8] * 12, "lookbackpercent": 0.5}, "lookbackpercent"),
    ],
)
def test_a_urdb_rate_that_cannot_be_priced_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(TariffRefusedError) as refused:
        parse_tariff(raw(URDB | change))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"unit": "kgal"}, "unit"),
        ({"charges": []}, "charges"),
        ({"colour": "blue"}, "colour"),
        ({"charges": [{"kind": "usage", "code": "E", "name": "E", "rates": {"off-peak": 1}}]}, "charges[0].rates.peak"),
        ({"charges": [{"kind": "usage", "code": "E", "name": "E", "rate": 1, "tiers": []}]}, "charges[0]"),
        ({"charges": [{"kind": "tax", "code": "T", "name": "T", "percent": 5, "of": ["NONE"]}]}, "charges[0].of[0]"),
        ({"charges": [{"kind": "fixed", "code": "F", "name": "F", "amount": 1, "per": "week"}]}, "charges[0].per"),
        ({"rounding": {"places": 9}}, "rounding.places"),
        ({"metering": "net_metering"}, "sell"),
        ({"commodity": "gas", "unit": "therm", "time_of_use": None}, "heat_content"),
    ],
)
def test_a_native_tariff_that_cannot_be_priced_names_the_field(change: dict[str, Any], field: str) -> None:
    document = deepcopy(native()) | change
    if change.get("commodity") == "gas":
        document["charges"] = [{"kind": "usage", "code": "E", "name": "E", "rate": 1}]
    with pytest.raises(TariffRefusedError) as refused:
        parse_tariff(raw(document))
    assert refused.value.field == field


def test_a_member_that_stands_twice_is_refused() -> None:
    """The last of two rates would be billed and the first would be lost."""
    for text in (
        b'{"energyratestructure": [[{"rate": 0.1, "rate": 0.2}]]}',
        b'{"schema": "meter_pipeline.tariff/1", "charges": [], "charges": []}',
    ):
        with pytest.raises(TariffRefusedError, match=r"(rate|charges): stands twice"):
            parse_tariff(text)


def test_what_is_not_a_number_is_refused() -> None:
    for text in (
        b'{"energyratestructure": [[{"rate": NaN}]]}',
        b'{"energyratestructure": [[{"rate": 1e999}]]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ):
        with pytest.raises(TariffRefusedError):
            parse_tariff(text)


@pytest.mark.parametrize(
    "row",
    [
        "2018-01-01T00:00:00,NaN",
        "2018-01-01T00:00:00,1_000",
        "yesterday,1",
        "2018-01-01T00:00:00,1\n2018-01-01T00:00:00,1",
    ],
)
def test_a_load_that_cannot_be_read_says_where(row: str) -> None:
    with pytest.raises(LoadRefusedError, match=r"load\."):
        read_load(["interval_start,kwh", "2018-01-01T01:00:00,1", "2018-01-01T02:00:00,1", *row.split("\n")])


def test_missing_intervals_of_a_load_are_told() -> None:
    tariff = parse_tariff(raw(URDB))
    rows = [f"2018-01-01T0{h}:00:00,1" for h in (0, 1, 5)]
    assert price(tariff, read_load(["interval_start,kwh", *rows]))["notes"] == [
        "load: 3 60-minute intervals between the first and the last are missing and count as no use"
    ]
    days = [f"2018-03-{d},1" for d in (10, 11, 14)]
    assert "2 days" in price(tariff, read_load(["interval_start,kwh", *days], "America/Chicago"))["notes"][0]
    whole = ["2018-03-11T01:00:00,1", "2018-03-11T03:00:00,1"]
    assert not price(tariff, read_load(["interval_start,kwh", *whole], "America/Chicago"))["notes"]


def test_a_stamp_that_clocks_skip_is_named() -> None:
    rows = [f"2018-03-11T0{h}:00:00,1" for h in (1, 2, 3)]
    with pytest.raises(LoadRefusedError, match="line 3: clocks in America/Chicago skip 2018-03-11T02:00:00"):
        read_load(["interval_start,kwh", *rows], "America/Chicago")
    assert not read_load(["interval_start,kwh", *rows]).missing


def test_tier_boundaries_are_exact() -> None:
    tariff = parse_tariff(raw(URDB))
    for kwh, cost in (("100", "10"), ("100.000001", "10.00000021"), ("99.999999", "9.9999999")):
        load = read_load(["interval_start,kwh", f"2018-01-01T00:00:00,{kwh}", "2018-01-01T01:00:00,0"])
        assert price(tariff, load)["annual"]["energy"] == Decimal(cost)


def test_a_month_is_local_where_stamps_carry_an_offset() -> None:
    load = read_load(["interval_start,kwh", "2018-02-01T05:00:00Z,1", "2018-02-01T06:00:00Z,2"], "America/Chicago")
    assert [m["month"] for m in price(parse_tariff(raw(URDB)), load)["monthly"]] == ["2018-01", "2018-02"]
