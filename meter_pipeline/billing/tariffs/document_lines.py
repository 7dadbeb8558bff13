"""Where each member of a JSON document stands: its line, so that a refusal can name it."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Final

_BLANK: Final = re.compile(r"[ \t\r\n]*")


class _Scanner:
    """One pass over a document that is known to be JSON."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[str, int] = {}
        self.decoder = json.JSONDecoder()

    def blank(self, at: int) -> int:
        found = _BLANK.match(self.text, at)
        return found.end() if found else at

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def value(self, at: int, path: str) -> int:
        at = self.blank(at)
        self.lines.setdefault(path, self.line(at))
        if self.text[at] == "{":
            return self.members(at + 1, path)
        if self.text[at] == "[":
            return self.entries(at + 1, path)
        return self.decoder.raw_decode(self.text, at)[1]

    def members(self, at: int, path: str) -> int:
        at = self.blank(at)
        while self.text[at] != "}":
            if self.text[at] == ",":
                at = self.blank(at + 1)
            begun = at
            key, at = scanstring(self.text, at + 1)
            inner = f"{path}.{key}" if path else key
            self.lines[inner] = self.line(begun)
            at = self.blank(self.value(self.blank(at) + 1, inner))
        return at + 1

    def entries(self, at: int, path: str) -> int:
        at, k = self.blank(at), 0
        while self.text[at] != "]":
            if self.text[at] == ",":
                at = self.blank(at + 1)
            at, k = self.blank(self.value(at, f"{path}[{k}]")), k + 1
        return at + 1


def line_of(raw: bytes, path: str) -> int:
    """The line of a member (``charges[2].rate``), or of the nearest one around it that is there; 1 where the document
    can't be read."""
    scanner = _Scanner(raw.decode("utf-8-sig", errors="replace"))
    try:
        scanner.value(0, "")
    except (ValueError, IndexError, RecursionError):
        return 1
    lowered = {name.lower(): line for name, line in scanner.lines.items()}
    wanted = path.lower()
    while wanted and wanted not in lowered:
        wanted = re.sub(r"(\[[0-9]+\]|\.?[^.\[\]]+)$", "", wanted)
    return lowered.get(wanted, 1)
