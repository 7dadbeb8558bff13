"""Identifiers: the one rule by which a text may name a meter, a channel, a service point or an account.

An identifier is 1 to 64 ASCII letters, digits and dashes, upper-cased; dots, slashes, underscores and blanks may stand
inside. Anything else is refused, never normalised: NFKC
turns the full-width ``ＭＴＲ１`` into ``MTR1``, which is another customer's bill (Unicode TS 39). A UUID in its
36-character form is the one spelling that is rewritten: its dashes stand at fixed places, so dropping them loses
nothing and makes it the 32-character form of the same UUID.
"""

from __future__ import annotations

import re
from typing import Final

MAX_ID_LENGTH: Final = 64

# Stored upper-cased: schemas/tables/shape.py and the tables' constraints have the same pattern without a-z.
_ID: Final = re.compile(r"[A-Za-z0-9-](?:[A-Za-z0-9 ._/-]{0,62}[A-Za-z0-9-])?", re.ASCII)
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)


def canonical_id(text: str) -> str | None:
    """The identifier in its one spelling, or None for a text that cannot be one.

    Blanks around it, signs of a formula, NUL, look-alikes and a trailing newline all make it None.
    """
    if len(text) == 36 and _UUID.fullmatch(text):
        return text.replace("-", "").upper()
    return text.upper() if _ID.fullmatch(text) else None
