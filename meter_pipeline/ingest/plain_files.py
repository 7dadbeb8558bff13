"""Files of the inbox, opened once and below their folder's handle: plain files only, whatever is put in their place.

The inbox is written by others. A symbolic link in it was read through, and the signing key stood in a dead letter. So
a file is opened by its name below the handle of its head-end's folder, following no link; hashing, archiving and the
dead letter of a refused file all read that one handle, and the parser is given a path below the folder's handle and
must have read the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A named pipe would be waited for, without O_NONBLOCK.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Bytes a file's name may have on Linux.
_NAME_MOST: Final = 255
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotPlain(OSError):
    """The entry is not a plain file with one name (a link, a pipe, a folder); the message names its type. It is not
    read."""


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A name of the inbox as (head-end's folder)/(name), with what ``os.lstat`` says of it. ``fault``: why it is not
    read, or None."""

    path: str
    size: int
    modified_ns: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class PlainFile:
    """An open plain file. ``source`` is its descriptor; ``path`` names it for parsers; ``size`` and ``modified_ns``
    are those it was opened with."""

    source: int
    path: Path
    size: int
    modified_ns: int

    def unchanged(self) -> bool:
        """Whether the file has the size and time it was opened with."""
        now = os.fstat(self.source)
        return (now.st_size, now.st_mtime_ns) == (self.size, self.modified_ns)

    def beginning(self, most: int) -> bytes:
        """Its first bytes."""
        return os.pread(self.source, most, 0)


def fault_of(found: os.stat_result) -> str | None:
    """Returns the reason why a directory entry is not read: its type, or that it has other names (hard links)."""
    for is_it, words in _KINDS:
        if is_it(found.st_mode):
            return f"{words}: only plain files are read"
    if not stat.S_ISREG(found.st_mode):
        return "no plain file: only plain files are read"
    if found.st_nlink > 1:
        return f"{found.st_nlink} names on the disk (hard links): copy or move the file into the inbox"
    return None


def entries(inbox: Path) -> list[InboxEntry]:
    """All names of an inbox's folders, sorted; hidden and half-written names are left out. Names are as the system
    gives them (bytes that are no UTF-8 as surrogates): ``shown`` is for people and tables."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for folder in _listed(inbox):
            found += _of_folder(inbox, folder)
    return found


def _of_folder(inbox: Path, folder: str) -> list[InboxEntry]:
    try:
        above = os.lstat(inbox / folder)
        if stat.S_ISLNK(above.st_mode):
            return [InboxEntry(folder, 0, 0, "a symbolic link: a head-end's folder must be a folder")]
        if not stat.S_ISDIR(above.st_mode):
            return []
        names = _listed(inbox / folder)
    except OSError as error:
        return [InboxEntry(folder, 0, 0, error.strerror or "cannot be read")]
    found = []
    for name in names:
        if name.endswith((".part", ".tmp")):
            continue
        with contextlib.suppress(FileNotFoundError):  # taken away since it was listed
            look = os.lstat(inbox / folder / name)
            if not stat.S_ISDIR(look.st_mode):
                found.append(InboxEntry(f"{folder}/{name}", look.st_size, look.st_mtime_ns, fault_of(look)))
    return found


def _listed(folder: Path) -> list[str]:
    return sorted((name for name in os.listdir(folder) if not name.startswith(".")), key=os.fsencode)


def shown(name: str) -> str:
    """A name as text for people, tables and the ledger: a backslash doubled, and bytes that are no UTF-8 and characters
    that could steer a terminal escaped. Different names stay different."""
    text = os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """A character that cannot be shown. Those from 0x80 to 0x9f have four digits: two are a byte that is no UTF-8."""
    code = ord(character)
    return f"\\u{code:04x}" if 0x80 <= code < 0xA0 else character.encode("unicode_escape").decode()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[PlainFile]:
    """Open the plain file ``path``, whose folder may be no link either. Raises NotPlain, OSError."""
    with contextlib.ExitStack() as stack:
        folder = _open(stack, path.parent, _FOLDER)
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        _refuse(found, path)
        source = _open(stack, path.name, _FILE, folder)
        now = os.fstat(source)
        _refuse(now, path)
        if (now.st_dev, now.st_ino) != (found.st_dev, found.st_ino):
            raise NotPlain(f"{shown(path.name)} was replaced while it was opened")
        yield PlainFile(source, _for_parsers(stack, folder, source, path), now.st_size, now.st_mtime_ns)


def _open(stack: contextlib.ExitStack, path: Path | str, how: int, folder: int | None = None) -> int:
    descriptor = os.open(path, how, dir_fd=folder)
    stack.callback(os.close, descriptor)
    return descriptor


def _refuse(found: os.stat_result, path: Path) -> None:
    if fault := fault_of(found):
        raise NotPlain(f"{shown(path.name)} is {fault}" if found.st_nlink < 2 else f"{shown(path.name)} has {fault}")


def _short_name(name: str) -> str:
    """The escaped name of a copy, which the file system takes: escaping makes a name up to ten times as long."""
    text = shown(name)
    if len(os.fsencode(text)) <= _NAME_MOST:
        return text
    ends = "".join(part for part in Path(text).suffixes[-2:] if len(part) < 16)
    return f"{text[:60]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ends}"


def _for_parsers(stack: contextlib.ExitStack, folder: int, source: int, path: Path) -> Path:
    """A path by which parsers open the file again: below the folder's handle, so that no folder above is looked up
    again. A name that is no text gets a copy under its escaped name, because parsers quote names."""
    if shown(path.name) != path.name.replace("\\", "\\\\"):
        private = stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-pipeline-name-"))
        copy = Path(private) / _short_name(path.name)
        with open(os.dup(source), "rb") as whole, copy.open("wb") as target:
            shutil.copyfileobj(whole, target, 1 << 20)
        return copy
    below = Path(f"/proc/self/fd/{folder}")
    return below / path.name if below.exists() else path
