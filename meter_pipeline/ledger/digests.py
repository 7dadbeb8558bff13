"""SHA-256 of a column of texts: what a table's leaves are made of.

Belongs here: the hash of each row's canonical text.
Does not belong here: the canonical texts themselves (the room that writes the rows), hashes inside the tree (merkle.py).
"""

from __future__ import annotations

import hashlib

import polars as pl


def digests(texts: pl.Series) -> list[bytes]:
    """The SHA-256 of each text's UTF-8 bytes, in order."""
    return [hashlib.sha256(text).digest() for text in texts.cast(pl.Binary).to_list()]
