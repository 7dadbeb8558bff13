"""Numbers as head-ends write them, as a number with a point and nothing between its digits."""

from __future__ import annotations

from typing import Final

#: letters of typeset numbers, and the plain ones
_TYPESET: Final = {0x2212: "-", 0xA0: " ", 0x202F: " "}


def plain_number(text: str, decimal: str, thousands: str) -> str:
    """A number's text with a point for its decimal mark and no thousands marks; unchanged where a mark stands where
    none may (1.23 with thousands marked by points), so that it is refused as it is. A minus may stand behind the number
    (SAP) or be U+2212, and a thousands mark that is a blank may be one that does not break (U+00A0, U+202F)."""
    if not text.isascii():
        text = text.translate(_TYPESET)
    if text.endswith("-") and text[:1].isdigit():
        text = f"-{text[:-1].rstrip()}"
    whole, mark, rest = text.partition(decimal)
    if thousands:
        groups = whole.lstrip("+-").split(thousands)
        if len(groups) > 1 and (not groups[0] or any(len(each) != 3 for each in groups[1:])):
            return text + "?"
        whole = whole.replace(thousands, "")
    if decimal != "." and "." in whole + rest:
        return text + "?"
    return f"{whole}.{rest}" if mark else whole
