"""Open a head-end's file: plain, gzip or zip, under size limits, hashed while it is read, in blocks of whole lines.

Memory stays bounded whatever the file: a block is a few MiB, a longer line is skipped and reported with its first
bytes. Files are read, not mapped: a mapped file that is cut while we read it kills the process with SIGBUS.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Protocol, cast

import numpy as np

from meter_pipeline.feeds.rejects import FeedRefused, FileGrowing, shown

GZIP_MAGIC: Final = b"\x1f\x8b"
ZIP_MAGIC: Final = b"PK\x03\x04"
ZIP_EMPTY_MAGIC: Final = b"PK\x05\x06"
_NESTED: Final = (
    GZIP_MAGIC,
    ZIP_MAGIC,
    ZIP_EMPTY_MAGIC,
    b"BZh",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_CHUNK: Final = 1 << 20
_LINE_END: Final = 10
#: A zip's directory is read whole before its entries can be counted, at about 15 bytes of memory a byte. The 64
# entries allowed need a few KiB.
_MAX_DIRECTORY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps for one file. Defaults: a line of 1 MiB holds a month of NEM12; a city's day of a million meters is 4 GiB of
    text; plain text from meters compresses 5 to 60 times, DEFLATE itself stops at 1032."""

    max_line_bytes: int = 1 << 20
    max_bytes: int = 8 << 30
    max_ratio: int = 200
    ratio_from_bytes: int = 16 << 20
    max_members: int = 64
    block_bytes: int = 8 << 20
    max_document_bytes: int = 1 << 30


DEFAULT_LIMITS: Final = Limits()


class Source(Protocol):
    """Decompressed bytes, in order."""

    def read(self, size: int) -> bytes: ...


@dataclass(slots=True)
class OpenFeedFile:
    """An open feed file. ``sha256`` (of the bytes on disk) is set when the file has been read to its end and found
    unchanged."""

    path: Path
    source: Source
    member: str | None = None
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file: ``offset`` of its first byte in the (decompressed) file, 1-based number of its first line,
    and how many they are (a last one without its line end is one)."""

    data: bytes
    offset: int
    first_line: int
    lines: int


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line beyond the cap: where it began, how long it was, its first bytes."""

    head: bytes
    offset: int
    line: int
    length: int


class _Hashing:
    """The file's own bytes, hashed and counted as they pass. More of them than the file had at first is growth, at
    once: a file that is written as fast as it is read would otherwise never end."""

    def __init__(self, raw: IO[bytes], path: Path, size: int) -> None:
        self._raw, self._path, self._size = raw, path, size
        self.digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        self.digest.update(data)
        self.count += len(data)
        if self.count > self._size:
            raise FileGrowing(f"{self._path.name} grew beyond its {self._size} bytes while it was read")
        return data


class _Plain:
    def __init__(self, raw: _Hashing, limits: Limits) -> None:
        self._raw, self._limits, self._seen = raw, limits, 0

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._seen += len(data)
        if self._seen > self._limits.max_bytes:
            raise FeedRefused("archive_too_large", f"more than {self._limits.max_bytes} bytes")
        return data


class _Capped:
    """Counts decompressed bytes against the limits."""

    def __init__(self, limits: Limits, compressed: int) -> None:
        self._limits, self._compressed, self._out = limits, max(compressed, 1), 0

    def check(self, data: bytes) -> bytes:
        if self._out == 0 and data.startswith(_NESTED):
            raise FeedRefused("nested_archive", "the archive holds another archive", data[:64])
        self._out += len(data)
        if self._out > self._limits.max_bytes:
            raise FeedRefused("archive_too_large", f"more than {self._limits.max_bytes} bytes when decompressed")
        if self._out > self._limits.ratio_from_bytes and self._out > self._limits.max_ratio * self._compressed:
            raise FeedRefused("archive_ratio", f"more than {self._limits.max_ratio} bytes from each compressed byte")
        return data


class _Gzip:
    """gzip members one after the other, decompressed a bounded piece at a time; a missing end mark is an error, never
    an end."""

    def __init__(self, raw: _Hashing, limits: Limits, compressed: int) -> None:
        self._raw = raw
        self._capped = _Capped(limits, compressed)
        self._engine = zlib.decompressobj(31)
        self._pending = b""
        self._done = False

    def read(self, size: int) -> bytes:
        while not self._done:
            if not self._pending:
                self._pending = self._raw.read(_CHUNK)
                if not self._pending:
                    raise FeedRefused("truncated_archive", "the gzip data stops before its end mark")
            try:
                out = self._engine.decompress(self._pending, size)
            except zlib.error as error:
                raise FeedRefused("bad_archive", f"gzip: {error}") from error
            self._pending = self._engine.unconsumed_tail
            if self._engine.eof:
                rest = (self._engine.unused_data or self._raw.read(_CHUNK)).lstrip(b"\0")
                if not rest:
                    rest = self._raw.read(_CHUNK).lstrip(b"\0")
                if rest:
                    self._engine, self._pending = zlib.decompressobj(31), rest
                else:
                    self._done = True
            if out:
                return self._capped.check(out)
        return b""


class _SmallReads:
    """A zip file for ``zipfile`` to find its directory in: one that claims to be huge is refused before it is read."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.most: int | None = _MAX_DIRECTORY
        self.seek, self.tell, self.seekable, self.close = raw.seek, raw.tell, raw.seekable, raw.close

    def read(self, size: int = -1) -> bytes:
        if self.most is not None and size > self.most:
            raise FeedRefused("archive_members", f"a directory of {size} bytes, at most {self.most}")
        return self._raw.read(size)


class _Member:
    def __init__(self, member: IO[bytes], limits: Limits, compressed: int) -> None:
        self._member = member
        self._capped = _Capped(limits, compressed)

    def read(self, size: int) -> bytes:
        try:
            data = self._member.read(size)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise FeedRefused("bad_archive", f"zip: {error}") from error
        except EOFError as error:
            raise FeedRefused("truncated_archive", "the zip entry stops before its end") from error
        return self._capped.check(data) if data else data


class _Transcoded:
    """Text of another declared encoding, as UTF-8. Offsets then count UTF-8 bytes."""

    def __init__(self, source: Source, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._encoding = encoding
        self._ended = False

    def read(self, size: int) -> bytes:
        while not self._ended:
            data = self._source.read(size)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=self._ended).encode("utf-8")
            except UnicodeError as error:
                raise FeedRefused("wrong_encoding", f"not {self._encoding}: {shown(str(error))}") from error
            if text:
                return text
        return b""


def names_in_zip(path: Path) -> set[str]:
    """Names of the files in a zip, but for what macOS adds; none for a file that is no zip or whose directory claims to
    be huge."""
    try:
        with path.open("rb") as raw:
            if raw.read(4) != ZIP_MAGIC:
                return set()
            with zipfile.ZipFile(cast(IO[bytes], _SmallReads(raw))) as archive:
                return {
                    entry.filename
                    for entry in archive.infolist()
                    if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
                }
    except (FeedRefused, OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError):
        return set()


def _choose_member(archive: zipfile.ZipFile, limits: Limits, member: str | None) -> zipfile.ZipInfo:
    """The one file of a zip, or the one of a name. Names are judged although nothing is ever extracted: a hostile
    archive is refused as such.
    """
    entries = archive.infolist()
    if len(entries) > limits.max_members:
        raise FeedRefused("archive_members", f"{len(entries)} entries, at most {limits.max_members}")
    files: list[zipfile.ZipInfo] = []
    names: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        mode = entry.external_attr >> 16
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
            raise FeedRefused("archive_path", f"entry {shown(name)} leads out of the archive")
        if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode)):
            raise FeedRefused("archive_path", f"entry {shown(name)} is a link or a device")
        if name in names:
            raise FeedRefused("archive_members", f"entry {shown(name)} occurs twice")
        names.add(name)
        if entry.flag_bits & 0x1:
            raise FeedRefused("bad_archive", f"entry {shown(name)} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FeedRefused(
                "bad_archive",
                f"entry {shown(name)} is compressed by method {entry.compress_type}, neither stored nor deflated",
            )
        if not entry.filename:  # also what zipfile makes of a name that begins with a NUL
            raise FeedRefused("archive_path", "an entry without a name")
        if not entry.is_dir() and parts[0] != "__MACOSX":
            files.append(entry)
    if member is not None:
        files = [entry for entry in files if entry.filename == member]
    if len(files) != 1:
        detail = f"{len(files)} files in the archive; a feed is one file, or options.member says which"
        raise FeedRefused("archive_members", detail)
    chosen = files[0]
    if chosen.file_size > limits.max_bytes:
        raise FeedRefused("archive_too_large", f"{chosen.file_size} bytes declared")
    if chosen.file_size > limits.ratio_from_bytes and chosen.file_size > limits.max_ratio * max(
        chosen.compress_size, 1
    ):
        raise FeedRefused("archive_ratio", f"{chosen.file_size} bytes declared from {chosen.compress_size}")
    return chosen


def _snapshot(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def open_feed(
    path: Path,
    limits: Limits = DEFAULT_LIMITS,
    encoding: str = "utf-8",
    as_is: bool = False,
    member: str | None = None,
) -> Iterator[OpenFeedFile]:
    """Open a feed file for one reading from start to end. ``as_is``: an archive's own bytes, for a document that is one
    inside (a spreadsheet). ``member``: the one of a zip's files to read.

    Raises FeedRefused for what is not a regular file or not a safe archive, FileGrowing (also at the end of the
    with-block) when size, time of change or identity moved meanwhile, or when fewer or more bytes came than the file
    had at the start.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FeedRefused("not_a_file", f"{path.name}: {error.strerror}") from error
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        raise FeedRefused("not_a_file", f"{path.name} is not a regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as raw:
        hashing = _Hashing(raw, path, before.st_size)
        magic = b"" if as_is else os.pread(descriptor, 4, 0)
        opened = OpenFeedFile(path, _Plain(hashing, limits), size=before.st_size)
        archive: zipfile.ZipFile | None = None
        if magic.startswith(GZIP_MAGIC):
            opened.source = _Gzip(hashing, limits, before.st_size)
        elif magic in (ZIP_MAGIC, ZIP_EMPTY_MAGIC):
            while hashing.read(_CHUNK):
                pass
            try:
                small = _SmallReads(raw)
                archive = zipfile.ZipFile(cast(IO[bytes], small))
                small.most = None
                chosen = _choose_member(archive, limits, member)
                opened.source = _Member(archive.open(chosen), limits, chosen.compress_size)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, UnicodeError, EOFError, OSError) as error:
                raise FeedRefused("bad_archive", f"zip: {shown(str(error))}") from error
            opened.member = chosen.filename
        if encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii"):
            opened.source = _Transcoded(opened.source, encoding)
        try:
            yield opened
        except FeedRefused:  # a file still being written looks cut or malformed: say so instead
            _check_unchanged(path, descriptor, before, before.st_size)
            raise
        finally:
            if archive is not None:
                archive.close()
        while archive is None and hashing.read(_CHUNK):  # bytes after the end mark belong to the hash too
            pass
        _check_unchanged(path, descriptor, before, hashing.count)
        opened.sha256 = hashing.digest.hexdigest()


def _check_unchanged(path: Path, descriptor: int, before: os.stat_result, count: int) -> None:
    after = os.fstat(descriptor)
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError as error:
        raise FileGrowing(f"{path.name} was removed or renamed while it was read") from error
    if not _snapshot(before) == _snapshot(after) == _snapshot(named) or count != before.st_size:
        raise FileGrowing(
            f"{path.name} changed while it was read: {before.st_size} bytes at first, {named.st_size} at last, {count} read"
        )


def line_blocks(source: Source, limits: Limits = DEFAULT_LIMITS) -> Iterator[Block | LongLine]:
    """Cut a source into blocks of whole lines; lines beyond the cap come as LongLine in their place.

    A UTF-8 byte-order mark is dropped (offsets still count it). Raises FeedRefused for a UTF-16 or UTF-32 mark: such a
    file must be declared.
    """
    carry = rest = b""
    offset, line = 0, 1
    first = True
    while True:
        chunk, rest = rest or source.read(limits.block_bytes), b""
        if first and chunk:
            first = False
            while len(chunk) < 4 and (more := source.read(limits.block_bytes)):
                chunk += more
            if chunk.startswith(_UTF16_MARKS):
                detail = "the file starts with a UTF-16 or UTF-32 mark: declare encoding"
                raise FeedRefused("wrong_encoding", detail, chunk[:64])
            if chunk.startswith(codecs.BOM_UTF8):
                chunk, offset = chunk[3:], 3
                if not chunk:
                    continue
        if not chunk:
            break
        cut = chunk.rfind(b"\n") + 1
        if cut:
            data = b"".join((carry, memoryview(chunk)[:cut]))
            # 0.4 ms a megabyte; bytes.count, which looks for each line end by itself, 0.9
            lines = int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LINE_END))
            yield Block(data, offset, line, lines)
            offset += len(data)
            line += lines
            carry = chunk[cut:]
        else:
            carry += chunk
        if len(carry) > limits.max_line_bytes:
            long_line, rest = _skip_line(source, carry, offset, line, limits)
            carry = b""
            yield long_line
            offset += long_line.length
            line += 1
    if carry:
        yield Block(carry, offset, line, 1)


def _skip_line(source: Source, carry: bytes, offset: int, line: int, limits: Limits) -> tuple[LongLine, bytes]:
    """Read on to the end of a line that is too long, keeping its head only; returns it and what follows it in the last
    chunk read."""
    head = carry[:4096]
    length = len(carry)
    del carry
    while chunk := source.read(limits.block_bytes):
        cut = chunk.find(b"\n") + 1
        if cut:
            return LongLine(head, offset, line, length + cut), chunk[cut:]
        length += len(chunk)
    return LongLine(head, offset, line, length), b""


def whole_document(source: Source, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Everything, for the formats that are one document. Raises FeedRefused beyond ``max_document_bytes``."""
    pieces: list[bytes] = []
    total = 0
    while piece := source.read(limits.block_bytes):
        total += len(piece)
        if total > limits.max_document_bytes:
            raise FeedRefused("archive_too_large", f"a document of more than {limits.max_document_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def limits_of(options: Mapping[str, str | int | float | bool], limits: Limits) -> Limits:
    """The caps, with the line length a head-end declares for itself (``options.max_line_bytes``)."""
    own = options.get("max_line_bytes")
    return replace(limits, max_line_bytes=int(own)) if own else limits


def fetch_lines(path: Path, encoding: str, limits: Limits, offsets: Sequence[int]) -> dict[int, bytes]:
    """Lines by offset, by a second reading of the file: for the few that only the whole file could refuse."""
    wanted = deque(sorted(offsets))
    found: dict[int, bytes] = {}
    with open_feed(path, limits, encoding) as opened:
        for piece in line_blocks(opened.source, limits):
            if isinstance(piece, LongLine):
                continue
            while wanted and wanted[0] < piece.offset + len(piece.data):
                begin = wanted.popleft() - piece.offset
                end = piece.data.find(b"\n", begin)
                found[begin + piece.offset] = piece.data[begin : end if end >= 0 else None].removesuffix(b"\r")
    return found


#: Bytes that ``fetch_ranges`` returns of one range
MOST_RANGE_BYTES: Final = 4096


def fetch_ranges(path: Path, limits: Limits, ranges: Sequence[tuple[int, int]]) -> dict[int, bytes]:
    """Stretches of a (decompressed) file by where they begin, at most MOST_RANGE_BYTES of each, by a second reading."""
    wanted = deque(sorted({(begin, min(end, begin + MOST_RANGE_BYTES)) for begin, end in ranges}))
    found: dict[int, bytes] = {}
    window, offset = b"", 0
    with open_feed(path, limits) as opened:
        while wanted and (piece := opened.source.read(limits.block_bytes)):
            window += piece
            while wanted and wanted[0][1] <= offset + len(window):
                begin, end = wanted.popleft()
                found[begin] = window[begin - offset : end - offset]
            keep = wanted[0][0] - offset if wanted else len(window)
            cut = max(min(keep, len(window)), 0)
            window, offset = window[cut:], offset + cut
        for begin, end in wanted:
            found[begin] = window[max(begin - offset, 0) : max(end - offset, 0)]
    return found
