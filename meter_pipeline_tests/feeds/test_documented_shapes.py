"""Every example of docs/feeds.md: its file read with its declaration gives what stands below it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import read_head_end
from meter_pipeline.feeds.inspect import inspect

PAGE: Final = Path(__file__).parents[2] / "docs" / "feeds.md"
_EXAMPLE: Final = re.compile(
    r"```(?P<kind>csv|jsonl|json)\n(?P<file>.*?)```\n+```toml\n(?P<toml>.*?)```\n+```text\n(?P<said>.*?)```", re.DOTALL
)


def examples() -> list[tuple[str, str, str, str]]:
    """(name, file, declaration, what is said of it) of each example, named by its heading and number."""
    page = PAGE.read_text("utf-8")
    found = []
    for match in _EXAMPLE.finditer(page):
        heading = page[: match.start()].rpartition("\n### ")[2].partition("\n")[0]
        found.append((heading, (match["file"], match["toml"], match["said"])))
    return [(f"{heading} {number}", *rest) for number, (heading, rest) in enumerate(found)]


def test_the_page_has_its_examples() -> None:
    assert len(examples()) >= 17
    page = PAGE.read_text("utf-8")
    blocks = sum(page.count(f"```{kind}\n") for kind in ("csv", "jsonl", "json"))
    assert len(examples()) == blocks


@pytest.mark.parametrize(("name", "file", "toml", "said"), examples(), ids=lambda text: text if len(text) < 90 else "")
def test_an_example_gives_what_the_page_says(tmp_path: Path, name: str, file: str, toml: str, said: str) -> None:
    feed, declared = tmp_path / "feed", tmp_path / "shape.toml"
    feed.write_text(file, "utf-8")
    declared.write_text(toml, "utf-8")
    report = inspect(feed, read_head_end(declared), BillingCalendar("America/Chicago"))
    assert report["rejected"] == []
    lines = []
    for channel in report["channels"]:
        first = channel["first"].isoformat().replace("+00:00", "Z")
        minutes = "-" if channel["interval_minutes"] is None else channel["interval_minutes"]
        shown = (channel["meter_id"], channel["channel"], channel["unit"], minutes, channel["readings"], channel["sum"])
        lines.append(" ".join(map(str, (*shown, first))))
    assert "\n".join(lines) + "\n" == said
