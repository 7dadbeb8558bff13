"""A supply balance promises: what a zone received, passed on and metered, to the millionth, by hand; and a side that is
not known is said by name and never filled in."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.anomalies import list_cases, show_case
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.supply_balance.balance import Balance, refresh
from meter_pipeline.supply_balance.candidates import candidates
from meter_pipeline.supply_balance.report import report
from meter_pipeline.supply_balance.zones import ZonesRefusedError
from meter_pipeline_tests.billing.support import CHICAGO, JULY, add_service, days, put_daily

JUNE = date(2026, 6, 1)
GALLON = Decimal("0.003785411784")


def zone(database: Database, name: str, parent: str | None = None, kind: str = "district") -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.zones VALUES (%s, %s, 'water', %s, %s, '2020-01-01', NULL)", (name, kind, name, parent)
        )


def member(database: Database, point: str, name: str) -> None:
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.zone_members VALUES (%s, %s, '2020-01-01', NULL)", (point, name))


def supply(database: Database, point: str, name: str, direction: str = "in") -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.zone_supplies VALUES (%s, %s, %s, '2020-01-01', NULL)", (name, point, direction)
        )


@pytest.fixture
def network(database: Database) -> Database:
    """A district of two customers with a pressure zone of one below it: 1000 m3 arrive at the district, of which 300 go
    on to the zone.
    """
    zone(database, "DMA-1")
    zone(database, "PZ-1", "DMA-1", "pressure_zone")
    for number, name in ((1, "DMA-1"), (2, "DMA-1"), (3, "PZ-1")):
        member(database, add_service(database, number, commodity="water", agreed=False), name)
    supply(database, "SP-901", "DMA-1")
    supply(database, "SP-902", "PZ-1")
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.zone_unmetered VALUES ('DMA-1', 'flushing', 2, 'kgal', '2020-01-01', NULL)")
    return database


def use(database: Database, day: date, **changes: int) -> None:
    """A day in cubic metres, but for a customer whose meter counts gallons."""
    used = {"SP-001": 400, "SP-003": 250, "SP-901": 1000, "SP-902": 300} | {
        k.replace("_", "-"): v for k, v in changes.items()
    }
    put_daily(database, day, {p: v * 10**6 for p, v in used.items()}, "m3", "water")
    put_daily(database, day, {"SP-002": 50_000 * 10**6}, "gal", "water")


def month(database: Database, of: date = JULY) -> Balance:
    return refresh(database, CHICAGO, of)


def test_a_network_by_hand(network: Database) -> None:
    use(network, JULY)
    found = month(network)
    rows = {row["zone_id"]: row for row in found.days.to_dicts()}
    gallons = int((50_000 * GALLON * 10**6).to_integral_value())
    flushing = int((2_000 * GALLON * 10**6).to_integral_value())
    assert rows["PZ-1"]["difference"] == 50 * 10**6, "300 in, 250 metered"
    assert rows["DMA-1"]["metered"] == 650 * 10**6 + gallons, "the customers of the zone below count too"
    assert rows["DMA-1"]["unmetered"] == flushing
    assert rows["DMA-1"]["difference"] == 350 * 10**6 - gallons - flushing
    (row,) = [m for m in found.months if m["zone_id"] == "DMA-1"]
    assert (row["days_known"], row["system_input"]) == (1, Decimal(1000))
    assert row["losses"] == row["system_input"] - row["billed_metered"] - row["unbilled_unmetered"]
    said = report(found)
    assert all(check.passed for check in said.checks)
    assert said.plots["losses by zone and day"][:4] == b"\x89PNG"


def test_a_meter_between_two_zones_is_out_of_one_and_in_of_the_other(network: Database) -> None:
    zone(network, "DMA-2")
    member(network, add_service(network, 4, commodity="water", agreed=False), "DMA-2")
    supply(network, "SP-903", "DMA-2")
    supply(network, "SP-903", "DMA-1", "out")
    use(network, JULY, SP_903=100, SP_004=90)
    rows = {row["zone_id"]: row for row in month(network).days.to_dicts()}
    assert rows["DMA-1"]["delivered_out"] == 100 * 10**6
    assert rows["DMA-2"]["difference"] == 10 * 10**6


def test_what_is_not_known_is_said_and_not_filled_in(network: Database) -> None:
    use(network, JULY)
    with network.connect() as connection:
        connection.execute("DELETE FROM vee.daily_usage WHERE service_point_id = 'SP-901'")
        connection.execute("UPDATE vee.daily_usage SET quantity_micro = NULL WHERE service_point_id = 'SP-003'")
    rows = {row["zone_id"]: row for row in month(network).days.to_dicts()}
    assert rows["DMA-1"]["missing"] == "supply meter SP-901 has no usage; no usage is known of SP-003"
    assert rows["PZ-1"]["missing"] == "no usage is known of SP-003"
    assert (rows["DMA-1"]["difference"], rows["DMA-1"]["delivered_in"], rows["PZ-1"]["metered"]) == (None, None, None)
    assert rows["PZ-1"]["delivered_in"] == 300 * 10**6, "what is known stands"


def test_a_supply_meter_that_reads_backwards_is_named(network: Database) -> None:
    use(network, JULY, SP_902=-12)
    rows = {row["zone_id"]: row for row in month(network).days.to_dicts()}
    assert rows["PZ-1"]["missing"].startswith("supply meter SP-902 reads backwards by 12 m3")
    assert rows["PZ-1"]["difference"] is None
    assert rows["DMA-1"]["difference"] is not None, "one meter stops one zone"


def test_a_supply_meter_whose_dial_went_back_is_named_though_its_day_is_estimated(network: Database) -> None:
    """Validation refuses the read and puts an estimate there: the zone is not balanced on it."""
    use(network, JULY)
    with network.connect() as connection:
        connection.execute(
            "INSERT INTO vee.exception (billing_day, kind, service_point_id, meter_id, channel, severity, detail, first_seen) "
            "VALUES (%s, 'DECREASE', 'SP-902', 'M-902', 'R1', 'fail', 'The register went back: 5 after 9', now())",
            (JULY,),
        )
    rows = {row["zone_id"]: row for row in month(network).days.to_dicts()}
    said = "supply meter SP-902 reads backwards (The register went back: 5 after 9): correct the read or the meter"
    assert (rows["PZ-1"]["missing"], rows["PZ-1"]["delivered_in"], rows["PZ-1"]["difference"]) == (said, None, None)
    assert rows["DMA-1"]["difference"] is not None


def test_estimates_are_the_uncertainty(network: Database) -> None:
    use(network, JULY)
    with network.connect() as connection:
        connection.execute(
            "UPDATE vee.daily_usage SET estimated_micro = 7000000 WHERE service_point_id IN ('SP-003', 'SP-902')"
        )
    rows = {row["zone_id"]: row for row in month(network).days.to_dicts()}
    assert rows["PZ-1"]["uncertain"] == 14 * 10**6
    assert rows["DMA-1"]["uncertain"] == 7 * 10**6, "its own supply was read"


def test_losses_outside_their_band_point_to_the_meter_that_stopped(network: Database) -> None:
    for day in days(JUNE, 20):
        use(network, day)
    assert month(network, JUNE).outside == []
    for day in days(JULY, 3):
        use(network, day, SP_001=0)
    (found,) = [o for o in month(network).outside if o["zone_id"] == "DMA-1"]
    assert found["excess_per_day"].quantize(Decimal(1)) == 400
    assert found["candidates"][0] == {
        "service_point_id": "SP-001",
        "kind": "stopped",
        "was": Decimal(400),
        "now": Decimal(0),
        "closes": Decimal(400),
        "leaves": Decimal(0),
    }
    with network.connect() as connection:
        case = show_case(connection, "supply-DMA-1-202607")
    assert (case["kind"], case["state"], case["hold"]) == ("zone_losses", "open", False)
    (flag,) = case["flags"]
    assert flag["evidence"]["candidates"][0]["service_point_id"] == "SP-001"
    assert flag["observed"] > flag["expected"]
    assert not [o for o in month(network).outside if o["zone_id"] == "PZ-1"]


@pytest.mark.parametrize(
    ("planted", "point", "kind"),
    [
        # of 400: none, a third, a tenth by a ratio that was entered wrong
        ({"SP_001": 0}, "SP-001", "stopped"),
        ({"SP_001": 270}, "SP-001", "bypass"),
        ({"SP_001": 40}, "SP-001", "ratio"),
        ({"SP_003": 25, "SP_902": 300}, "SP-003", "ratio"),
    ],
)
def test_the_planted_meter_comes_first(network: Database, planted: dict[str, int], point: str, kind: str) -> None:
    for day in days(JUNE, 20):
        use(network, day)
    month(network, JUNE)
    for day in days(JULY, 3):
        use(network, day, **planted)
    for outside in month(network).outside:
        assert (outside["candidates"][0]["service_point_id"], outside["candidates"][0]["kind"]) == (point, kind)
    with network.connect() as connection:
        assert list_cases(connection, {"kind": "zone_losses", "state": "open"})
    for day in days(JULY, 3):
        use(network, day)
    assert month(network).outside == []
    with network.connect() as connection:
        assert list_cases(connection, {"kind": "zone_losses", "state": "open"}) == [], "the meter was mended"


def test_a_meter_without_earlier_use_is_tried_with_common_ratios() -> None:
    found = candidates({"SP-1": Decimal(50)}, {"SP-1": Decimal(48), "SP-2": Decimal(40)}, Decimal(361))
    assert (found[0]["service_point_id"], found[0]["kind"], found[0]["closes"]) == ("SP-2", "ratio", 360)
    over = candidates({"SP-1": Decimal(50)}, {"SP-1": Decimal(500)}, Decimal(-449))
    assert (over[0]["kind"], over[0]["closes"], over[0]["leaves"]) == ("ratio", -450, -1)


def test_a_loop_of_zones_is_refused_by_name(network: Database, tmp_path: Path) -> None:
    with network.connect() as connection:
        connection.execute("UPDATE ref.zones SET parent_id = 'PZ-1' WHERE zone_id = 'DMA-1'")
    use(network, JULY)
    with pytest.raises(ZonesRefusedError, match="zones DMA-1 > PZ-1 > DMA-1 are a loop"):
        month(network)
    (tmp_path / "zones.csv").write_text(
        "zone_id,kind,commodity,name,parent_id,valid_from,valid_to\nA,district,water,a,B,2020-01-01,\nB,district,water,b,A,2020-01-01,\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert "zones A > B > A are a loop" in str(refused.value)


def test_a_meter_in_two_zones_at_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zone_members.csv").write_text(
        "service_point_id,zone_id,valid_from,valid_to\nSP-1,A,2020-01-01,\nSP-1,B,2021-01-01,\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert "overlaps the stretch that starts 2020-01-01 (line 2)" in str(refused.value)


def test_a_month_is_named_by_its_first_day(database: Database) -> None:
    with pytest.raises(ValueError, match="2026-07-02 is not the first day"):
        month(database, JULY + timedelta(days=1))
    assert month(database).months == []


def test_the_role_of_billing_may_balance(network: Database) -> None:
    privileges.apply(network)
    use(network, JULY)
    assert len(month(network.acting_as("meter_billing")).months) == 2
