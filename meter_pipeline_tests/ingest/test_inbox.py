"""The inbox: files are read a few at once and made known one after another, in the order of their names."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import threading
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import parse as parse_feed
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import inbox, land_inbox, new_files, plain_files
from meter_pipeline.plotting import MOST_BYTES
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline.simulator import Spec, simulate

DAY = date(2026, 10, 28)


class Pauses:
    """No pause for the first ``free`` questions, then one that never ends."""

    def __init__(self, free: int) -> None:
        self.free = free

    def check(self, commodity: str | None = None, head_end: str | None = None) -> Any:
        self.free -= 1
        return None if self.free >= 0 else object()


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    """Six files of two meters each, and the third again under a name that comes last."""
    data = tmp_path / "data"
    simulate(
        Spec(
            meters=12,
            days=1,
            start=DAY,
            seed=3,
            defects=False,
            mix="electricity",
            formats=("delimited",),
            registers=False,
            meters_per_file=2,
        ),
        data,
    )
    files = sorted((data / "inbox" / "AMI").iterdir())
    assert len(files) == 6
    shutil.copy(files[2], files[2].with_name("zz_again.csv"))
    found = replace(load_settings(), home=tmp_path / "home", data=data, inbox=data / "inbox", database_url=database.url)
    found.home.mkdir()
    import_folder(database, data / "reference")
    return found


def test_files_read_at_once_are_made_known_in_the_order_of_their_names(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is not read before the second has been: it is registered first all the same, and so it stands in
    the ledger."""
    second_read = threading.Event()
    names = sorted(path.name for path in (settings.inbox / "AMI").iterdir())

    def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
        if path.name == names[0]:
            assert second_read.wait(20), "files are not read at once"
        found = parse_feed(path, head_end, calendar)
        if path.name == names[1]:
            second_read.set()
        return found

    monkeypatch.setattr("meter_pipeline.feeds.parse", parse)
    outcome = land_inbox(database, settings.calendar(), settings)
    assert [Path(one.file_name).name for one in outcome.landed] == names
    assert [one.duplicate for one in outcome.landed] == [False] * 6 + [True]
    assert not outcome.postponed
    picture = outcome.report().plots["reads by file"]
    assert picture.startswith(b"\x89PNG")
    assert len(picture) <= MOST_BYTES
    with database.connect(autocommit=True) as connection:
        entered = connection.execute("SELECT file_name FROM raw.feed_file ORDER BY ledger_entry").fetchall()
    assert [Path(name).name for (name,) in entered] == names[:6]


def test_a_pause_raised_while_files_are_read_holds_those_that_are_not_known_yet(
    database: Database, settings: Settings
) -> None:
    """Files read ahead but not registered when the pause comes are held, and landed whole the next time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inbox, "PauseProbe", lambda *_, **__: contextlib.nullcontext(Pauses(4)))
        first = land_inbox(database, settings.calendar(), settings)
    assert len(first.landed) == 1
    assert len(first.postponed) == 6
    again = land_inbox(database, settings.calendar(), settings)
    assert len(again.landed) == 6
    files = [path for path in (settings.inbox / "AMI").iterdir() if path.name != "zz_again.csv"]
    lines = sum(len(path.read_text().splitlines()) - 1 for path in files)
    assert sum(one.received for one in (*first.landed, *again.landed) if not one.duplicate) == lines > 0


def test_a_file_that_is_another_for_the_time_it_is_parsed_is_not_known_by_its_bytes(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and time are put back, so that only the hash of what was parsed tells. The file is held, and landed when it
    is itself again."""
    victim = min((settings.inbox / "AMI").iterdir())
    own, stamp = victim.read_bytes(), victim.stat()
    other = own.replace(b"1", b"2")
    assert other != own

    def put(content: bytes) -> None:
        victim.write_bytes(content)
        os.utime(victim, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
        if path.name != victim.name:
            return parse_feed(path, head_end, calendar)
        put(other)
        try:
            return parse_feed(path, head_end, calendar)
        finally:
            put(own)

    with monkeypatch.context() as patch:
        patch.setattr("meter_pipeline.feeds.parse", parse)
        outcome = land_inbox(database, settings.calendar(), settings)
    assert [Path(name).name for name, _ in outcome.postponed] == [victim.name]
    assert [Path(one.file_name).name for one in land_inbox(database, settings.calendar(), settings).landed] == [
        victim.name
    ]


def names_held(database: Database, settings: Settings) -> dict[str, str]:
    return dict(land_inbox(database, settings.calendar(), settings).postponed)


def test_a_name_that_is_no_utf_8_costs_nothing_and_is_shown_escaped(database: Database, settings: Settings) -> None:
    box = settings.inbox / "AMI"
    os.rename(os.fsencode(min(box.iterdir())), os.fsencode(box) + b"/caf\xe9\x1b[31m.csv")
    outcome = land_inbox(database, settings.calendar(), settings)
    assert not outcome.postponed
    assert "AMI/caf\\xe9\\x1b[31m.csv" in [one.file_name for one in outcome.landed]
    assert sum(one.received for one in outcome.landed) > 0
    assert all(one.refused is None for one in outcome.landed)
    assert new_files(database, settings.inbox) == [], "and it is known by its name the next time"
    longest = min(path for path in box.iterdir() if "caf" not in path.name)
    longest.rename(Path(os.fsdecode(os.fsencode(box) + b"/" + b"\xe9" * 251 + b".csv")))
    outcome = land_inbox(database, settings.calendar(), settings)
    assert ("AMI/" + "\\xe9" * 251 + ".csv", True) in [(one.file_name, one.duplicate) for one in outcome.landed]
    os.mkdir(os.fsencode(settings.inbox) + b"/\xff")
    (Path(os.fsdecode(os.fsencode(settings.inbox) + b"/\xff")) / "x.csv").write_text("x")
    assert names_held(database, settings) == {"\\xff/x.csv": "no head-end \\xff is declared"}


def test_only_plain_files_are_read(database: Database, settings: Settings, tmp_path: Path) -> None:
    """A link to a key was read through, and the key's bytes stood in a dead letter and in the archive."""
    secret = tmp_path / "secret.key"
    secret.write_text("PRIVATE KEY planted-55")
    box = settings.inbox / "AMI"
    (box / "link.csv").symlink_to(secret)
    os.link(secret, box / "hard.csv")
    os.mkfifo(box / "pipe.csv")
    (settings.inbox / "LINKED").symlink_to(tmp_path)
    (box / "loop.csv").symlink_to("loop.csv")
    devices = {}
    if os.geteuid() == 0:
        os.mknod(box / "zero.csv", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        devices["AMI/zero.csv"] = "a device: only plain files are read"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(box / "s.csv"))
    held = names_held(database, settings)
    listener.close()
    assert held == {
        **devices,
        "AMI/link.csv": "a symbolic link: only plain files are read",
        "AMI/loop.csv": "a symbolic link: only plain files are read",
        "AMI/hard.csv": "2 names on the disk (hard links): copy or move the file into the inbox",
        "AMI/pipe.csv": "a named pipe: only plain files are read",
        "AMI/s.csv": "a socket: only plain files are read",
        "LINKED": "a symbolic link: a head-end's folder must be a folder",
    }
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM raw.dead_letter").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM raw.feed_file").fetchone() == (6,)
    stored = b"".join(path.read_bytes() for path in settings.archive.rglob("*") if path.is_file())
    assert b"planted-55" not in stored


def test_a_link_put_in_a_files_place_while_it_is_parsed_is_not_read(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.key"
    secret.write_text("PRIVATE KEY planted-77\n" * 50)
    victim = min((settings.inbox / "AMI").iterdir())

    def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
        if path.name == victim.name:
            victim.unlink()
            victim.symlink_to(secret)
        return parse_feed(path, head_end, calendar)

    monkeypatch.setattr("meter_pipeline.feeds.parse", parse)
    land_inbox(database, settings.calendar(), settings)
    letters = database.read("SELECT raw FROM raw.dead_letter")["raw"].to_list()
    assert not any(b"planted-77" in bytes(letter) for letter in letters)
    copies = list(settings.archive.rglob("*.zst"))
    assert len(copies) == 6


def test_a_file_that_a_parser_ends_on_costs_only_itself(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = min((settings.inbox / "AMI").iterdir())

    def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
        if path.name == victim.name:
            raise IndexError("list index out of range")
        return parse_feed(path, head_end, calendar)

    monkeypatch.setattr("meter_pipeline.feeds.parse", parse)
    outcome = land_inbox(database, settings.calendar(), settings)
    assert len(outcome.landed) == 6
    assert outcome.postponed == [(f"AMI/{victim.name}", "could not be read: IndexError: list index out of range")]


@pytest.mark.parametrize(
    "name", ["a.csv", "with blank.csv", "back\\slash.csv", "caf\udce9.csv", "new\nline.csv", "é.csv"]
)
def test_shown_names_are_text_and_tell_names_apart(name: str) -> None:
    shown = plain_files.shown(name)
    assert shown.isprintable()
    assert shown.encode() != plain_files.shown(name + "x").encode()
    assert plain_files.shown("caf\udce9") != plain_files.shown("caf\\xe9")
    assert plain_files.shown("\udc85") != plain_files.shown("\x85")
