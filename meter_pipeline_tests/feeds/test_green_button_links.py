"""Green Button: direction of flow, and no fall-back where a link or a reading type is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.registry import parse
from meter_pipeline.schemas.reads import ParsedFeed

HEAD_END = HeadEnd("GB", "espi")
BASE = "https://dc.example.org/RetailCustomer/3/UsagePoint/1"


def reading_type(link: str, flow: str = "", uom: int = 72, length: int = 3600) -> str:
    said = f"<flowDirection>{flow}</flowDirection>" if flow else ""
    return (
        f'<entry><link rel="self" href="{link}"/><content><ReadingType><intervalLength>{length}</intervalLength>'
        f"{said}<uom>{uom}</uom></ReadingType></content></entry>"
    )


def meter_reading(name: str, *related: str, point: str = BASE) -> str:
    links = "".join(f'<link rel="related" href="{link}"/>' for link in related)
    own = f'<link rel="self" href="{point}/MeterReading/{name}"/>'
    return f"<entry>{own}{links}<content><MeterReading/></content></entry>"


def block(name: str, value: int = 30, duration: int = 3600, point: str = BASE) -> str:
    return (
        f'<entry><link rel="self" href="{point}/MeterReading/{name}/IntervalBlock/1"/><content><IntervalBlock>'
        f"<IntervalReading><timePeriod><duration>{duration}</duration><start>1794290400</start></timePeriod>"
        f"<value>{value}</value></IntervalReading></IntervalBlock></content></entry>"
    )


def reading(tmp_path: Path, *entries: str, head_end: HeadEnd = HEAD_END) -> ParsedFeed:
    path = tmp_path / "feed.xml"
    path.write_text(f'<feed xmlns="http://www.w3.org/2005/Atom">{"".join(entries)}</feed>')
    return parse(path, head_end, BillingCalendar("America/Chicago"))


def codes(feed: ParsedFeed) -> list[str]:
    return [reason["code"] for reasons in feed.rejects["reasons"].to_list() for reason in reasons]


@pytest.mark.parametrize(
    ("direction", "flow"),
    [
        ("", "import"),
        ("0", "import"),
        ("1", "import"),
        ("4", "net"),
        ("19", "export"),
        ("15", "other"),
        ("20", "other"),
    ],
)
def test_the_reading_type_says_which_way_the_energy_flows(tmp_path: Path, direction: str, flow: str) -> None:
    feed = reading(
        tmp_path, reading_type("/ReadingType/A", direction), meter_reading("B1", "/ReadingType/A"), block("B1")
    )
    assert feed.flow("3-1", "B1") == flow
    assert feed.intervals["value"].to_list() == [30_000]


def test_a_reading_type_that_is_not_in_the_file_is_never_replaced_by_another(tmp_path: Path) -> None:
    feed = reading(
        tmp_path,
        reading_type("/ReadingType/A"),
        meter_reading("X", "/ReadingType/A"),
        block("X"),
        meter_reading("Y", "/ReadingType/THERMS"),
        block("Y"),
        meter_reading("Z"),
        block("Z"),
        block("NOWHERE"),
    )
    assert feed.intervals["channel"].to_list() == ["X"]
    assert codes(feed) == ["no_reading_type"] * 3


def test_a_link_that_two_reading_types_claim_names_neither(tmp_path: Path) -> None:
    types = reading_type("/ReadingType/A"), reading_type("/ReadingType/A", uom=169)
    feed = reading(tmp_path, *types, meter_reading("X", "/ReadingType/A"), block("X"))
    assert codes(feed) == ["no_reading_type"]


def test_two_quantities_under_one_constant_channel_are_refused(tmp_path: Path) -> None:
    """Import and export of one usage point under ``constants.channel`` would be added."""
    declared = HeadEnd("GB", "espi", constants={"channel": "E1"})
    feed = reading(
        tmp_path,
        reading_type("/ReadingType/F", "1"),
        reading_type("/ReadingType/R", "19"),
        meter_reading("F", "/ReadingType/F"),
        block("F"),
        meter_reading("R", "/ReadingType/R"),
        block("R"),
        head_end=declared,
    )
    assert feed.intervals.height == 1
    assert codes(feed) == ["mixed_channel"]


def test_a_document_of_usage_summaries_is_refused(tmp_path: Path) -> None:
    point = f'<entry><link rel="self" href="{BASE}"/><content><UsagePoint/></content></entry>'
    summary = f'<entry><link rel="self" href="{BASE}/UsageSummary/1"/><content><UsageSummary/></content></entry>'
    feed = reading(tmp_path, point, summary)
    assert (codes(feed), feed.received) == (["no_reads"], 0)


@pytest.mark.parametrize(("qualifier", "usage"), [("0", True), ("2", True), ("12", True), ("8", False), ("9", False)])
def test_a_maximum_or_minimum_is_no_usage(tmp_path: Path, qualifier: str, usage: bool) -> None:
    """The highest quarter hour of each hour, in Wh, was read as the hour's energy."""
    said = f"<dataQualifier>{qualifier}</dataQualifier><uom>"
    typed = reading_type("/ReadingType/A").replace("<uom>", said)
    feed = reading(tmp_path, typed, meter_reading("X", "/ReadingType/A"), block("X"))
    assert feed.intervals["value"].to_list() == ([30_000] if usage else [])
    assert codes(feed) == ([] if usage else ["bad_unit"])
