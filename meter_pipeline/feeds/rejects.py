"""Rejected lines: reason codes, and the builder of the rejects frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import polars as pl

from meter_pipeline.schemas.reads import REJECTS

#: Every code a parser may give, with its meaning. Never renamed; new ones are added.
REASONS: Final[dict[str, str]] = {
    # the whole file
    "empty_file": "the file holds no bytes, or nothing but blank lines",
    "not_a_file": "a symbolic link, directory, device or pipe was given in place of a regular file",
    "file_growing": "the file changed while it was read; it is held, not loaded",
    "wrong_encoding": "the bytes are not text in the declared encoding",
    "unknown_format": "no declared format matches the file's first bytes",
    "bad_header": "the header is missing or lacks a declared column",
    "missing_end": "the file stops before its own end record: it may have been cut",
    "bad_archive": "the archive cannot be opened or lies about its contents",
    "truncated_archive": "the compressed data ends before its end mark",
    "archive_too_large": "decompressed size beyond the cap",
    "archive_ratio": "compression ratio beyond the cap: a bomb, or nothing a meter ever sent",
    "archive_members": "the archive holds none or several files, or more entries than the cap",
    "archive_path": "an entry's name is absolute, climbs out of the archive, or is a link",
    "nested_archive": "an archive inside the archive",
    "bad_document": "the document is not well-formed",
    "forbidden_markup": "the document declares a DTD, an entity or an external reference",
    "too_deep": "elements nested beyond the cap",
    # one line or element
    "line_too_long": "the line is longer than the cap; only its first bytes are kept",
    "control_character": "a NUL or another control character",
    "bad_quoting": "a quote is opened and not closed in the same line, or text follows a closing quote",
    "truncated_row": "fewer fields than the header declares",
    "too_many_fields": "more fields than the header declares",
    "bad_json": "the line is not one JSON object of plain values",
    "duplicate_key": "a key occurs twice in one JSON object",
    "bad_record": "a record of an unknown kind or out of place",
    "value_count": "the number of values differs from what the interval length demands",
    "missing_field": "a field that must be given is absent or empty",
    "missing_value": "the reading itself is empty",
    "bad_number": "not a plain decimal number",
    "not_finite": "NaN, infinity, or an exponent that amounts to it",
    "too_fine": "finer than a millionth of the base unit, so it cannot be held exactly",
    "out_of_range": "beyond the range of a meter",
    "bad_id": "an identifier with characters outside A-Z, 0-9 and -, or longer than 64",
    "bad_time": "not an instant in the declared form, or a date that does not exist",
    "missing_zone": "a time without offset from a head-end that declares no zone",
    "ambiguous_time": "a local time of the repeated hour, and the file does not say which of the two",
    "nonexistent_time": "a local time of the hour the clocks skipped",
    "implausible_time": "before the head-end's declared earliest day: a clock that was reset",
    "control_total": "the file's own control total is not what its rows hold",
    "superseded_share": "too many reads name the interval of another read of the same file with another value",
    "no_heading": "the file's name or its headings lack a field that the head-end looks for there",
    "no_version": "the file's name or header lacks the version that the head-end declares",
    "spreadsheet": "the file is a spreadsheet and cannot be read as one",
    "bad_unit": "a unit that is not declared",
    "bad_quality": "a quality word without a meaning",
    "bad_integer": "a sequence, version or interval length that is not a whole number in range",
    "bad_interval": "an interval length outside 1 to 1440 minutes",
    "no_reading_type": "readings whose reading type is not in the file, so that their unit is unknown",
    "mixed_channel": "two different quantities under one channel",
    "no_reads": "the file holds no reads, only other records",
}

#: Bytes kept of a rejected line. A dead letter must be readable and must not be a way to fill the disk.
MAX_RAW_BYTES: Final = 65_536


class Reason(NamedTuple):
    """One reason: a code of REASONS and the detail."""

    code: str
    detail: str


class FeedRefused(Exception):
    """The whole file is refused, for one named reason."""

    def __init__(self, code: str, detail: str, raw: bytes = b"") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.raw = raw[:MAX_RAW_BYTES]


class FileGrowing(FeedRefused):
    """The file changed while it was read: nothing was loaded, and it should be read again once it is at rest."""

    def __init__(self, detail: str) -> None:
        super().__init__("file_growing", detail)


def shown(raw: bytes | str, width: int = 60) -> str:
    """A hostile text made safe to print: ASCII, escaped, short."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return ascii(text[:width]) + ("..." if len(text) > width else "")


class Rejects:
    """Collects rejected payloads in any order; ``frame`` sorts them by place."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, bytes, int]] = []
        self._reasons: list[list[Reason]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, line: int, byte_offset: int, raw: bytes, reasons: Iterable[Reason], reads: int = 1) -> None:
        """One payload: its 1-based line, its offset in the (decompressed) file, its bytes, every reason, the reads it
        held."""
        self._rows.append((line, byte_offset, bytes(raw[:MAX_RAW_BYTES]), reads))
        self._reasons.append(list(reasons))

    def frame(self) -> pl.DataFrame:
        """A frame of REJECTS, by line and offset."""
        if not self._rows:
            return pl.DataFrame(schema=REJECTS)
        line, offset, raw, reads = zip(*self._rows, strict=True)
        flat = [(i, reason.code, reason.detail) for i, reasons in enumerate(self._reasons) for reason in reasons]
        number, code, detail = zip(*flat, strict=True)
        reasons = (
            pl.DataFrame(
                {"row": pl.Series(number, dtype=pl.Int64), "code": pl.Series(code), "detail": pl.Series(detail)}
            )
            .group_by("row", maintain_order=True)
            .agg(pl.struct("code", "detail").alias("reasons"))
        )
        if reasons.height != len(self._rows):
            raise AssertionError("a rejected payload without a reason")
        columns = {"line": line, "byte_offset": offset, "raw": raw, "reads": reads}
        series = {name: pl.Series(name, column, dtype=REJECTS[name]) for name, column in columns.items()}
        series["reasons"] = reasons["reasons"]
        return pl.DataFrame({name: series[name] for name in REJECTS}).sort("line", "byte_offset", maintain_order=True)
