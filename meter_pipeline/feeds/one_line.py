"""One line of a file by itself, as a corrected dead letter comes back: the declaration that reads it, and the lines of
the file that it leans on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from meter_pipeline.feeds.fixed_width import record_of
from meter_pipeline.feeds.head_ends import Control, HeadEnd, Version
from meter_pipeline.feeds.headings import from_name
from meter_pipeline.feeds.row_plan import matches, plan_of
from meter_pipeline.feeds.versions import digits_of

#: formats whose lines mean nothing without the names above them
_HEADED: Final = ("delimited", "wide_csv")


def line_declaration(head_end: HeadEnd, name: str, whole: bytes) -> HeadEnd:
    """The declaration of one line of a file called ``name``: what the file's name and its other lines say is fixed, its
    totals and its footer are not looked for. Raises FeedRefused where the name does not say what it should."""
    declared = from_name(head_end, name)
    version = head_end.version
    constants = dict(declared.constants)
    if version.name is not None:
        constants["source_version"] = str(digits_of(version.name, (name,), "the file's name"))
    elif version.header is not None:
        lines = [line for line in whole.decode(head_end.encoding, "replace").splitlines() if line]
        constants["source_version"] = str(digits_of(version.header, lines, "the file"))
    options = {key: value for key, value in declared.options.items() if key != "footer_lines"}
    fixed = Version(arrival=version.arrival)
    return replace(declared, constants=constants, version=fixed, control=Control(), options=options)


def lines_above(head_end: HeadEnd, file_format: str, whole: bytes, number: int) -> bytes:
    """What of a file must stand before one of its lines (numbered from 1): a preamble and the header, the headings that
    hold for it, the records above it in a route file."""
    lines = whole.split(b"\n")[: max(number - 1, 0)]
    if file_format == "fixed":
        kept = _records(head_end, lines)
    elif file_format in _HEADED:
        kept = _header(head_end, lines) if head_end.header else lines[: int(head_end.options.get("skip_lines", 0))]
        kept += _headings(head_end, lines[len(kept) :])
    else:
        return b""
    return b"".join(line + b"\n" for line in kept)


def _header(head_end: HeadEnd, lines: list[bytes]) -> list[bytes]:
    """The lines to the header."""
    skip = int(head_end.options.get("skip_lines", 0))
    passed = head_end.skip.get("*", ())
    patterns = [re.compile(str(place.heading).encode()) for place in head_end.elsewhere.values() if place.heading]
    for at, line in enumerate(lines[skip:], skip):
        text = line.rstrip(b"\r")
        beside = not text.strip() or text.lower().startswith((b"sep=", b'"sep='))
        beside = beside or any(pattern.search(text) for pattern in patterns)
        if not beside and not (passed and matches(text.decode("utf-8", "replace"), passed)):
            return lines[: at + 1]
    return lines


def _headings(head_end: HeadEnd, lines: list[bytes]) -> list[bytes]:
    """The last line of each heading."""
    found: dict[int, bytes] = {}
    for place in head_end.elsewhere.values():
        pattern = re.compile(str(place.heading).encode())
        for at in range(len(lines) - 1, -1, -1):
            if pattern.search(lines[at].rstrip(b"\r")):
                found[at] = lines[at]
                break
    return [found[at] for at in sorted(found)]


def _records(head_end: HeadEnd, lines: list[bytes]) -> list[bytes]:
    """The last record of each kind in a route file, in their order."""
    plan = plan_of(head_end)
    kinds = {record_of(source.name).encode() for source in plan.sources} - {b""}
    found: dict[int, bytes] = {}
    for kind in kinds:
        for at in range(len(lines) - 1, -1, -1):
            if lines[at].startswith(kind):
                found[at] = lines[at]
                break
    return [found[at] for at in sorted(found)]
