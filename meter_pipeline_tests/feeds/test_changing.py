"""A file that changes while it is read is held, and read when it is at rest: never half of it."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meter_pipeline.feeds.files import open_feed
from meter_pipeline.feeds.registry import parse
from meter_pipeline.feeds.rejects import FeedRefused, FileGrowing
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline_tests.feeds.test_hostile import CSV, GOOD, HEADER, UTC


def append(path: Path) -> None:
    with path.open("ab") as more:
        more.write(GOOD)


def replace_by_a_copy(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": append,
    "is cut": lambda path: os.truncate(path, 5),
    "is replaced": replace_by_a_copy,
    "is removed": lambda path: path.unlink(),
    "is touched": lambda path: os.utime(path, (1, 1)),
}


def read_while(path: Path, change: Callable[[Path], object], refusal: FeedRefused | None = None) -> None:
    with open_feed(path) as opened:
        opened.source.read(10)
        change(path)
        if refusal is not None:
            raise refusal


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_held(tmp_path: Path, change: str) -> None:
    path = tmp_path / "feed"
    path.write_bytes(HEADER + GOOD * 10)
    with pytest.raises(FileGrowing):
        read_while(path, CHANGES[change])


def test_a_file_that_looked_broken_because_it_was_still_written_is_held(tmp_path: Path) -> None:
    path = tmp_path / "feed"
    path.write_bytes(gzip.compress(HEADER + GOOD)[:-9])
    with pytest.raises(FileGrowing):
        read_while(path, append, FeedRefused("truncated_archive", "as it looked at first"))


def test_parsing_while_another_thread_writes_never_gives_half_a_file(tmp_path: Path) -> None:
    """A parse that comes through has read exactly the bytes of one moment, and one that met the writer is held. The
    writer is let run until it has been met: how soon the machine gives it a turn is not the product's affair (ten
    parses of a loaded machine met it not once)."""
    path = tmp_path / "feed"
    path.write_bytes(HEADER)
    stop = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(GOOD)

    writer = threading.Thread(target=write)
    writer.start()
    whole: list[ParsedFeed] = []
    held, until = 0, time.monotonic() + 60
    try:
        while not held and time.monotonic() < until:
            try:
                whole.append(parse(path, CSV, UTC))
            except FileGrowing:
                held += 1
    finally:
        stop.set()
        writer.join()
    assert held > 0
    written = path.read_bytes()
    for feed in whole:
        # A write over the edge of a page is seen in two steps (the file's size grows page by page), so that a moment's
        # last row may be a part of one.
        most = len(HEADER) + len(GOOD) * feed.received
        moments = range(max(len(HEADER), most - len(GOOD) + 1), most + 1)
        assert feed.sha256 in {hashlib.sha256(written[:length]).hexdigest() for length in moments}
