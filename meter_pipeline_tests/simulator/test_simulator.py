"""The simulator promises: a seed gives the same bytes whatever the chunks, registers add up, and every defect
is named.
"""

from __future__ import annotations

import filecmp
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.reference.folder import read_folder
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.simulator import (
    DEMO,
    KINDS,
    Plan,
    Spec,
    daily_usage,
    day_matrix,
    register_frames,
    simulate,
)
from meter_pipeline.simulator.effects import chunk_day
from meter_pipeline.simulator.spec import service_point_id
from meter_pipeline.simulator.usage import share_out

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    simulate(DEMO, out)
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_committed_municipality_is_what_the_simulator_writes(demo: Path) -> None:
    for part in ("reference", "tariffs", "head_ends"):
        names = sorted(p.name for p in (demo / part).iterdir())
        # The municipality also shows how a head-end that is asked is declared; nothing simulated comes from it.
        assert sorted(p.name for p in (DATA / part).iterdir() if p.name != "hes-api.toml") == names
        _, different, odd = filecmp.cmpfiles(DATA / part, demo / part, names, shallow=False)
        assert different == []
        assert odd == []
    assert (DATA / "utility.toml").read_bytes() == (demo / "utility.toml").read_bytes()


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    spec = Spec(meters=120, days=2, seed=5)
    simulate(spec, tmp_path / "a")
    simulate(spec, tmp_path / "b")
    simulate(replace(spec, seed=6), tmp_path / "c")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


def test_how_meters_are_cut_into_files_changes_no_read_and_no_truth(tmp_path: Path) -> None:
    spec = Spec(meters=160, days=3, seed=8)
    simulate(spec, tmp_path / "one")
    simulate(replace(spec, meters_per_file=17), tmp_path / "many")

    def lines(folder: Path) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for path in (folder / "inbox").rglob("*"):
            if path.is_file() and "resend" not in path.name:  # a file sent twice holds what the file held
                found.setdefault(path.parent.name, []).extend(path.read_bytes().split(b"\n"))
        headers = (b"meter_id,", b"100,NEM12", b"900")
        return {
            name: sorted(line for line in rows if line and not line.startswith(headers)) for name, rows in found.items()
        }

    assert lines(tmp_path / "one") == lines(tmp_path / "many")
    one, many = (pl.read_parquet(tmp_path / name / "truth.parquet").drop("detail") for name in ("one", "many"))
    assert one.equals(many)
    assert files_of(tmp_path / "one" / "reference") == files_of(tmp_path / "many" / "reference")


def test_a_folder_that_is_not_a_simulation_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "precious.csv").write_text("kept")
    with pytest.raises(ValueError, match="choose another folder"):
        simulate(Spec(meters=4, days=1), tmp_path)
    assert (tmp_path / "inbox" / "precious.csv").read_text() == "kept"


@given(first=st.integers(0, 250), size=st.integers(1, 60), day=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_any_meters_day_is_the_same_whatever_is_drawn_with_it(first: int, size: int, day: int) -> None:
    spec = Spec(meters=700, days=4, seed=11)
    segment = spec.segments[0]
    plan = Plan(spec)
    last = min(first + size, segment.last)
    if last <= first:
        return
    alone = chunk_day(spec, plan, segment, first, last, spec.day(day))
    together = chunk_day(spec, plan, segment, segment.first, segment.last, spec.day(day))
    rows = {(m, c): together.values[k] for k, (m, c) in enumerate(zip(together.ids, together.channels, strict=True))}
    for k, key in enumerate(zip(alone.ids, alone.channels, strict=True)):
        assert (rows[key] == alone.values[k]).all()


@given(
    st.lists(
        st.tuples(st.integers(-10_000, 10_000_000), st.lists(st.integers(0, 10**9), min_size=7, max_size=7)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_intervals_sum_to_their_total_exactly(rows: list[tuple[int, list[int]]]) -> None:
    totals = np.array([t for t, _ in rows], np.int64)
    weights = np.array([w for _, w in rows], np.float64)
    shared = share_out(totals, weights)
    assert (shared.sum(axis=1) == totals).all()
    assert ((shared >= 0) | (totals[:, None] < 0)).all()


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("America/Chicago", date(2026, 10, 31)),
        ("Europe/Berlin", date(2026, 3, 28)),
        ("Australia/Lord_Howe", date(2026, 10, 3)),
    ],
)
def test_registers_equal_the_intervals_on_days_of_any_length(zone: str, start: date) -> None:
    spec = Spec(meters=60, days=3, zone=zone, start=start, interval_minutes=30, defects=False)
    frames, _ = register_frames(spec)
    dial = {(r["meter_id"], r["channel"]): r["value"] for r in frames[0].to_dicts()}
    multiplier = _multipliers(spec)
    for index in range(spec.days):
        day = spec.day(index)
        reads = {(r["meter_id"], r["channel"]): r for r in frames[index + 1].to_dicts()}
        for matrix in day_matrix(spec, day):
            assert matrix.slots == spec.calendar.slots(day, matrix.interval_minutes)
            for row, key in enumerate(matrix.keys.iter_rows(named=True)):
                register = (key["meter_id"], "R2" if key["channel"] == "B1" else "R1")
                used = (reads[register]["value"] - dial[register]) * multiplier[key["meter_id"]]
                assert used == int(matrix.values[row].sum())
                assert reads[register]["read_at"] == spec.calendar.bounds(day)[1]
                dial[register] = reads[register]["value"]


def _multipliers(spec: Spec) -> dict[str, int]:
    from meter_pipeline.simulator.reference_tables import reference_rows

    return {r[0]: int(r[6]) for r in reference_rows(spec, Plan(spec), [])["channels"] if r[2] == "register"}


def test_intervals_and_registers_disagree_only_where_the_truth_says_so() -> None:
    spec = Spec(meters=1500, days=4, seed=21)
    plan = Plan(spec)
    frames, registers = register_frames(spec, plan)
    told: set[tuple[str, date]] = set()
    for story in plan.stories:
        for index in range(story.index, story.index_last) if story.index_last >= 0 else [story.index]:
            # a missing or wrong dial spoils the next day's difference too
            for number in range(story.first, min(story.last, spec.days - 1) + 2):
                told.add((service_point_id(story.commodity, index), spec.day(number)))
    told |= {(service_point_id(c, i), day) for c, i, day in registers.rollovers}
    multiplier = _multipliers(Spec(meters=1500, days=4, seed=21, defects=False))
    dial = {(r["meter_id"], r["channel"]): r["value"] for r in frames[0].to_dicts()}
    agreed, caught = 0, set()
    for index in range(spec.days):
        day = spec.day(index)
        reads = {(r["meter_id"], r["channel"]): r["value"] for r in frames[index + 1].to_dicts()}
        for matrix in day_matrix(spec, day, plan):
            for row, key in enumerate(matrix.keys.iter_rows(named=True)):
                register = (key["meter_id"], "R2" if key["channel"] == "B1" else "R1")
                if register not in reads or register not in dial:
                    assert (key["service_point_id"], day) in told
                    continue
                used = (reads[register] - dial[register]) * multiplier[
                    key["meter_id"].replace("5", "0", 1) if key["meter_id"][1] == "5" else key["meter_id"]
                ]
                values = matrix.values[row]
                if (values != NO_VALUE).all() and used == int(values.sum()):
                    agreed += 1
                else:
                    assert (key["service_point_id"], day) in told
                    caught.add(key["service_point_id"])
        dial = reads
    assert agreed > 5000
    must_show = (
        "spike",
        "gap_interval",
        "gap_hours",
        "gap_day",
        "dropout_meter",
        "test_mode",
        "pulse_overflow",
        "negative",
    )
    wanted = [s for s in plan.stories if s.kind in must_show]
    assert {service_point_id(s.commodity, s.index) for s in wanted} <= caught


def test_the_first_register_file_holds_the_dials_of_the_first_midnight(demo: Path) -> None:
    midnight = DEMO.calendar.bounds(DEMO.start)[0].strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    for head_end in ("REG-E", "REG-W", "REG-G"):
        first = min((demo / "inbox" / head_end).iterdir(), key=lambda p: p.name)
        stamps = {line.split(b",")[2] for line in first.read_bytes().splitlines()[1:]}
        assert stamps == {midnight}


def test_reference_data_passes_the_importer_and_covers_every_meter_of_the_feeds(demo: Path) -> None:
    rows, documents = read_folder(demo / "reference")
    meters = {r[0] for r in rows["meters"]}
    seen = {
        line.split(b",")[0].decode()
        for p in (demo / "inbox" / "GAS").iterdir()
        for line in p.read_bytes().splitlines()[1:]
    }
    assert seen <= meters
    assert len(rows["service_points"]) > 200
    assert {t for t, _ in documents} == {r[0] for r in rows["tariffs"]}


def test_every_story_of_the_plan_is_in_the_truth_with_its_own_place(demo: Path) -> None:
    truth = pl.read_parquet(demo / "truth.parquet")
    kinds = set(truth["kind"])
    planned = {k.name for k in KINDS} - {"rollover"}
    assert planned <= kinds
    assert {
        "rollover",
        "outage",
        "dropout_collector",
        "dropout_head_end",
        "hour_shift",
        "duplicate_file",
        "empty_file",
        "garbage_file",
    } <= kinds
    assert truth.filter(pl.col("start") >= pl.col("end")).is_empty()
    assert truth.filter(pl.col("billing_day") < DEMO.start).is_empty()
    for row in truth.filter(pl.col("kind").str.starts_with("bad_")).iter_rows(named=True):
        detail = json.loads(row["detail"])
        line = next(p for p in (demo / "inbox").rglob(detail["file"])).read_bytes().split(b"\n")[detail["line"] - 1]
        assert row["meter_id"].encode() in line.replace(b"\xff\xfe", b"")


def test_the_page_about_the_simulator_names_every_kind(demo: Path) -> None:
    page = (DATA.parent / "docs" / "simulator.md").read_text("utf-8")
    assert [k for k in sorted(set(pl.read_parquet(demo / "truth.parquet")["kind"])) if f"`{k}`" not in page] == []


def test_at_most_one_story_befalls_a_service_point() -> None:
    plan = Plan(Spec(meters=5000, days=30, seed=3))
    single = [(s.commodity, s.index) for s in plan.stories if s.index_last < 0 and s.index >= 0]
    assert max(Counter(single).values()) == 1


def test_a_clean_city_has_no_truth_and_no_gap() -> None:
    spec = Spec(meters=200, days=2, defects=False)
    assert Plan(spec).stories == []
    for matrix in day_matrix(spec, spec.start):
        assert (matrix.values != NO_VALUE).all()
        assert (matrix.values >= 0).all()
        assert matrix.offsets is None


def test_a_meter_exchange_counts_every_unit_once(demo: Path) -> None:
    truth = pl.read_parquet(demo / "truth.parquet").filter(pl.col("kind").str.starts_with("exchange"))
    installations = pl.read_csv(
        demo / "reference/installations.csv", schema_overrides={"install_read": pl.String, "removal_read": pl.String}
    )
    assert truth.height >= 5
    for row in truth.iter_rows(named=True):
        detail = json.loads(row["detail"])
        old, new = detail["old_measured"], detail["new_measured"]
        if row["kind"] == "exchange":
            assert old + new == row["expected"]
        elif row["kind"] == "exchange_overlap":
            assert old + new >= row["expected"]
        else:
            assert old + new <= row["expected"]
        both = installations.filter(pl.col("service_point_id") == row["service_point_id"]).sort("installed_at")
        assert both["meter_id"].to_list() == [row["meter_id"], detail["new_meter_id"]]
        removed, placed = both["removed_at"][0], both["installed_at"][1]
        order = {"exchange": removed == placed, "exchange_overlap": placed < removed, "exchange_gap": removed < placed}
        assert order[row["kind"]]
        assert Decimal(both["removal_read"][0]) >= 0


def test_daily_usage_agrees_with_the_intervals() -> None:
    spec = Spec(meters=150, days=3, seed=9)
    frame, truth = daily_usage(spec)
    assert truth.height > 20
    moved = truth.filter(
        pl.col("kind").str.contains(
            "exchange|spike|negative|consecutive|test_mode|overflow|truncated|hour_shift|bad_|dropout|unknown|future|duplicate"
        )
    )["meter_id"].to_list()
    compared = 0
    for index in range(spec.days):
        day = spec.day(index)
        of_day = frame.filter((pl.col("billing_day") == day) & ~pl.col("meter_id").is_in(moved))
        value = {(r["meter_id"], r["channel"]): r for r in of_day.iter_rows(named=True)}
        for matrix in day_matrix(spec, day):
            present = matrix.values != NO_VALUE
            sums = np.where(present, matrix.values, 0).sum(axis=1)
            for row, key in enumerate(matrix.keys.iter_rows(named=True)):
                daily = value.get((key["meter_id"], key["channel"]))
                if daily is None or (key["channel"] == "B1" and not present[row].all()):
                    continue
                assert (daily["value"] or 0) == int(sums[row])
                assert daily["reads"] == int(present[row].sum())
                compared += 1
    assert compared > 200


def test_late_data_comes_in_later_files_and_not_in_the_first(demo: Path) -> None:
    truth = pl.read_parquet(demo / "truth.parquet").filter(
        (pl.col("kind") == "late") & (pl.col("commodity") == "electricity")
    )
    meter, day = truth["meter_id"][0], truth["billing_day"][0]
    holding = [
        p.name
        for p in (demo / "inbox").rglob(f"*_{day:%Y%m%d}_*")
        if meter.encode() in p.read_bytes() and "REG-" not in p.name
    ]
    assert len(holding) == 1
    assert "late-" in holding[0]
    assert datetime.strptime(holding[0][:8], "%Y%m%d").replace(tzinfo=UTC).date() > day + timedelta(days=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"meters": 0},
        {"days": 0},
        {"interval_minutes": 7},
        {"mix": "village"},
        {"zone": "Mars/Olympus"},
        {"formats": ("nem12",)},
    ],
)
def test_a_city_that_cannot_be_simulated_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Spec(**({"meters": 10, "days": 1} | wrong))  # type: ignore[arg-type]


def test_supply_meters_count_what_the_zones_customers_used_and_what_is_lost(tmp_path: Path) -> None:
    spec = Spec(meters=160, days=2, seed=8, defects=False, network=True)
    simulate(spec, tmp_path)
    dials = pl.concat(pl.read_csv(p) for p in sorted((tmp_path / "inbox" / "REG-W").glob("*SUPPLY*"))).sort("read_at")
    moved = {
        meter: Decimal(str(part["dial"][-1])) - Decimal(str(part["dial"][0]))
        for (meter,), part in dials.group_by("meter_id")
    }
    used = {"W-NORTH": [0, 0], "W-SOUTH": [0, 0]}
    for index in range(spec.days):
        (hourly,) = [m for m in day_matrix(spec, spec.day(index)) if m.interval_minutes == 60]
        for row, (point, unit) in enumerate(hourly.keys.select("service_point_id", "unit").iter_rows()):
            if unit == "gal":
                zone = "W-NORTH" if int(point[-7:]) < spec.counts["water"] // 2 else "W-SOUTH"
                used[zone][index] += int(hourly.values[row].sum()) // 100_000  # tenths of a gallon
    south = [u + u * 97 // 1000 for u in used["W-SOUTH"]]
    # District north passes the south's water on and flushes 250 gallons a day.
    north = [u + u * 64 // 1000 + s + 2_500 for u, s in zip(used["W-NORTH"], south, strict=True)]
    assert moved == {"M-W-SOUTH": Decimal(sum(south)) / 10, "M-W-WORKS": Decimal(sum(north)) / 10}
    read_folder(tmp_path / "reference")
    with pytest.raises(ValueError, match="at least 130 meters"):
        Spec(meters=20, days=1, network=True)
