"""What is declared of a file's meters: found by looking them up, whatever else a city declares."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.ingest.known_channels import Declared

_METERS = st.text(alphabet="ABZ09-", min_size=1, max_size=4)


@given(
    st.lists(st.tuples(_METERS, st.sampled_from(["E1", "B1", "R1"])), unique=True, max_size=40),
    st.sets(_METERS, max_size=20),
)
def test_a_files_meters_are_found_as_a_join_finds_them(declared: list[tuple[str, str]], asked: set[str]) -> None:
    frame = pl.DataFrame(
        [(meter, channel, "interval", "Wh" if channel == "B1" else "kWh", 15) for meter, channel in declared],
        schema={
            "meter_id": pl.String,
            "channel": pl.String,
            "kind": pl.String,
            "unit": pl.String,
            "interval_minutes": pl.Int32,
        },
        orient="row",
    )
    found = Declared.of(frame).of_meters(pl.Series("meter_id", sorted(asked, reverse=True), dtype=pl.String))
    wanted = frame.filter(pl.col("meter_id").is_in(sorted(asked))).sort("meter_id", "channel")
    assert (
        found.sort("meter_id", "channel").select("meter_id", "channel").rows()
        == wanted.select("meter_id", "channel").rows()
    )
    assert set(found["declared_unit"]) <= {"kWh"}


def test_a_unit_that_nobody_knows_stands_as_it_is_spelled() -> None:
    frame = pl.DataFrame(
        {"meter_id": ["M"], "channel": ["1"], "kind": ["interval"], "unit": ["furlong"], "interval_minutes": [15]}
    )
    assert Declared.of(frame).of_meters(pl.Series(["M"]))["declared_unit"].to_list() == ["furlong"]
