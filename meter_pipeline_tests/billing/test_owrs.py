"""An Open Water Rate Specification file promises: what it publishes is what the native documents charge, and what they
cannot say is refused with the field and its line. Prices are those of published files of the specification's
collection."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_pipeline.billing.load import load_file
from meter_pipeline.billing.rate_calculator import price
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline.billing.tariffs.owrs import Imported, Season, import_owrs
from meter_pipeline_tests.billing.support import raw

#: Santa Monica, 2016: tiers of a bill of two months, their first units named
TIERED = b"""---
metadata:
  effective_date: 2016-03-01
  utility_name: "City of Santa Monica"
  bill_frequency: monthly
rate_structure:
  RESIDENTIAL_SINGLE:
    - tier_starts:
      - 0
      - 15
      - 41
      - 149
    - tier_prices:
      - 2.87
      - 4.29
      - 6.44
      - 10.07
    - commodity_charge: Tiered
    - bill: commodity_charge
"""
#: Alameda County, 2018: a service charge by meter size, a flat rate by place, bills of two months
PLACES = b"""metadata:
  utility_name: Alameda County Water District
  bill_frequency: Bi-Monthly
  bill_unit: ccf
rate_structure:
  RESIDENTIAL_SINGLE:
    service_charge:
      depends_on:
        - meter_size
      values:
        5/8": 52.33
        1|1/2": 151.59
    commodity_charge: flat_rate_commodity*usage_ccf
    flat_rate_commodity:
      depends_on:
        - city_limits
      values:
        inside_city: 4.249
        outside_city: 4.885
    fixed_drought_surcharge: 0
    variable_drought_surcharge: 0
    bill: service_charge+commodity_charge
  COMMERCIAL:
    service_charge: 10
    bill: service_charge
"""
#: Moulton Niguel, 2016: irrigation by budget, by water and meter size
BUDGET = b"""metadata:
  utility_name: Moulton Niguel Water District
  bill_frequency: monthly
rate_structure:
  IRRIGATION:
    - outdoor: "landscape_factor*ET*irr_area*0.62*(1/748)"
    - budget: "outdoor"
    - service_charge:
        depends_on: [water_type, meter_size]
        values:
          POTABLE|1": 17.83
          POTABLE|1_1/2": 59.42
          RECYCLED|1": 11.39
    - tier_starts:
      - 0
      - 100%
      - 125%
      - 150%
    - tier_prices:
        depends_on: water_type
        values:
          POTABLE: [1.70, 2.62, 4.38, 9.17]
          RECYCLED: [1.24, 1.74, 3.50, 8.29]
    - commodity_charge: Budget
    - bill: "commodity_charge+service_charge"
"""
SURCHARGED = b"""metadata:
  utility_name: Anytown
  bill_frequency: Monthly
  bill_unit: kgal
rate_structure:
  RESIDENTIAL_SINGLE:
    service_charge: 12.00
    flat_rate_commodity:
      depends_on: season
      values:
        summer: 4.00
        winter: 3.00
    commodity_charge: flat_rate_commodity*usage
    drought_rate: 0.50
    variable_drought_surcharge: drought_rate*usage
    utility_tax: commodity_charge*0.05
    sewer_charge: 3.00
    bill: service_charge+commodity_charge+variable_drought_surcharge+utility_tax+sewer_charge
"""
#: Calexico, 2008: tiers that bear their charge's name, and the parts that the specification's form writes into a class
FORM = b"""author_info:
  author:
  email:
metadata:
  effective_date: 08/01/2008
  utility_name: Calexico  City Of
  bill_frequency: Monthly
  unit_type: ccf
  prop_218_link:
rate_structure:
  RESIDENTIAL_SINGLE:
    service_charge: 43.89
    commodity_charge: Tiered
    tier_starts_commodity:
      - 0
      - 30
    tier_prices_commodity:
      - 0
      - 2.22
    variable_drought_surcharge: Tiered
    tier_starts_drought: [0, 11]
    tier_prices_drought: [0.10, 0.30]
    fixed_wastewater_charge: 7.50
    variable_wastewater_charge: 0
    bill: service_charge+commodity_charge+variable_drought_surcharge
"""
DOCUMENTS = {"tiered": TIERED, "places": PLACES, "budget": BUDGET, "surcharged": SURCHARGED, "form": FORM}


def only(source: bytes, **given: object) -> Imported:
    (made,) = import_owrs(source, tariff_id="W", **given)  # type: ignore[arg-type]  # the seasons of one test
    return made


def month(
    made: Imported, used: str, tmp_path: Path, unit: str = "ccf", day: date = date(2026, 7, 1), **attributes: str
) -> Decimal:
    """What a calendar month's use comes to."""
    load = tmp_path / "load.csv"
    load.write_text(
        f"interval_start,{unit}\n{day:%Y-%m-%d}T00:00:00,{used}\n"
        + "".join(f"{day:%Y-%m}-{k:02}T00:00:00,0\n" for k in range(2, 31 if day.month != 2 else 29))
    )
    found = price(parse_tariff(raw(made.document)), load_file(load, None), attributes=attributes)
    return Decimal(str(found["monthly"][0]["total"]))


def test_a_tier_starts_with_the_unit_that_it_names(tmp_path: Path) -> None:
    made = only(TIERED)
    (charge,) = made.document["charges"]
    assert charge["tiers"] == [
        {"upto": "14", "rate": "2.87"},
        {"upto": "40", "rate": "4.29"},
        {"upto": "148", "rate": "6.44"},
        {"rate": "10.07"},
    ]
    # 14 units at 2.87 and one at 4.29
    assert month(made, "15", tmp_path) == Decimal("44.47")


def test_each_place_is_a_document_and_a_bill_of_two_months_is_a_sixth_of_a_year() -> None:
    made = import_owrs(PLACES, tariff_id="W")
    assert [m.document["tariff_id"] for m in made] == [
        "W-RESIDENTIAL-SINGLE-INSIDE-CITY",
        "W-RESIDENTIAL-SINGLE-OUTSIDE-CITY",
        "W-COMMERCIAL",
    ]
    service, use = made[1].document["charges"]
    assert service["per"] == "year"
    assert service["by"] == {"attribute": "meter_size", "values": {"5/8": "313.98", "1-1/2": "909.54"}}
    assert use["tiers"] == [{"rate": "4.885"}]
    assert all(parse_tariff(raw(m.document)).unit == "ccf" for m in made)


def test_budgets_and_fields_that_go_together(tmp_path: Path) -> None:
    potable, recycled = import_owrs(BUDGET, tariff_id="W")
    assert (potable.values, recycled.values) == ({"water_type": "POTABLE"}, {"water_type": "RECYCLED"})
    use, service = potable.document["charges"]
    assert use["tiers"][0] == {"upto": "1", "of": "budget", "rate": "1.70"}
    assert service["by"]["values"] == {"1": "17.83", "1-1/2": "59.42"}
    # A budget of one unit a day, of 30 days: 30 at 1.70, 7.5 at 2.62, the rest of 40 at 4.38, and the service charge.
    found = month(potable, "40", tmp_path, meter_size="1", budget_per_day="1")
    tiers = 30 * Decimal("1.70") + Decimal("7.5") * Decimal("2.62") + Decimal("2.5") * Decimal("4.38")
    assert found == Decimal("17.83") + tiers


def test_seasons_drought_a_share_of_a_charge_and_sewer(tmp_path: Path) -> None:
    seasons = {"summer": Season("05-01", "10-31"), "winter": Season("11-01", "04-30")}
    made = only(SURCHARGED, seasons=seasons)
    assert [c["code"] for c in made.document["charges"]] == [
        "SERVICE-CHARGE",
        "FLAT-RATE-COMMODITY",
        "DROUGHT-RATE",
        "COMMODITY-CHARGE-SHARE",
        "SEWER-CHARGE",
    ]
    assert made.document["charges"][2]["component"] == "rider"
    assert month(made, "10", tmp_path, "kgal") == Decimal("62.00"), "12 + 40 + 5 + 2 + 3 in summer"
    assert month(made, "10", tmp_path, "kgal", date(2026, 2, 1)) == Decimal("51.50"), "12 + 30 + 5 + 1.50 + 3 in winter"


def test_tiers_that_bear_the_name_of_their_charge(tmp_path: Path) -> None:
    made = only(FORM)
    assert made.notes == ("rate_structure.RESIDENTIAL_SINGLE.fixed_wastewater_charge is not part of the bill",)
    # 29 of 35 units are in the service charge, 6 at 2.22; 10 of them at 0.10 and 25 at 0.30 for the drought.
    assert month(made, "35", tmp_path) == Decimal("43.89") + Decimal("13.32") + Decimal("1.00") + Decimal("7.50")


REFUSED = [
    (FORM.replace(b"unit_type: ccf", b"unit_type: cords"), "metadata.unit_type: is cords"),
    (FORM.replace(b"      - 2.22\n", b""), "tier_prices_commodity: has not one price for each of tier_starts_commodity"),
    (FORM.replace(b"variable_wastewater_charge: 0", b"sewer_rate: 2.10*usage_ccf"),
     "sewer_rate: is used by nothing: neither the bill nor what it is made of names it"),
    (FORM.replace(b"unit_type", b"bil_unit"), "metadata.bil_unit: is not known; metadata has bill_frequency, bill_unit"),
    (TIERED.replace(b"      - 41\n", b"      - indoor\n"), "tier_starts[2]: indoor is neither a number nor a percentage"),
    (TIERED.replace(b"      - 0\n", b"      - 1\n"), "tier_starts[0]: is 1: the first tier starts at 0 (line 9)"),
    (TIERED.replace(b"      - 41\n", b"      - 9\n"), "tier_starts: do not rise"),
    (TIERED.replace(b"      - 41\n", b"      - 150%\n"), "tier_starts: mixes units and percentages"),
    (TIERED.replace(b"      - 10.07\n", b""), "tier_prices: has not one price for each of tier_starts"),
    (TIERED.replace(b"monthly", b"fortnightly"), "metadata.bill_frequency: is fortnightly"),
    (TIERED.replace(b"bill: commodity_charge", b"bill: commodity_charge+tax"), "tax is defined nowhere in the class"),
    (PLACES.replace(b"bill_unit: ccf", b"bill_unit: cords"), "metadata.bill_unit: is cords"),
    (BUDGET.replace(b"POTABLE|1\": 17.83", b"POTABLE: 17.83"), "does not name 2 values, one for each of water_type, meter_size (line 11)"),
    (SURCHARGED, "season summer has no dates in the document"),
    (SURCHARGED.replace(b"drought_rate*usage", b"drought_rate*usage*2"), "only a rate times the usage"),
    (SURCHARGED.replace(b"sewer_charge: 3.00", b"sewer_charge: sewer_charge+1"), "sewer_charge is defined by itself"),
    (b"metadata: [", "document: is not YAML"),
    (b"a: 1", "rate_structure: is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), REFUSED, ids=[said[:24] for _, said in REFUSED])
def test_what_cannot_be_said_is_refused_by_name(source: bytes, said: str) -> None:
    with pytest.raises(TariffRefusedError) as error:
        import_owrs(source, tariff_id="W")
    assert said in str(error.value)


def test_the_command_writes_documents_or_nothing(tmp_path: Path) -> None:
    from meter_pipeline.cli.tariffs import app

    file = tmp_path / "rates.owrs"
    file.write_bytes(PLACES)
    done = CliRunner().invoke(
        app, ["import", str(file), "--format", "owrs", "--id", "W", "--out", str(tmp_path / "made"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "made").iterdir())) == 3
    file.write_bytes(SURCHARGED)
    done = CliRunner().invoke(app, ["import", str(file), "--id", "W", "--out", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "--season summer=MM-DD:MM-DD" in done.output
    assert not (tmp_path / "none").exists()
