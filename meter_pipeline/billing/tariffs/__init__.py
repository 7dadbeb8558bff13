"""Tariff documents: URDB version 8 and the native schema, read into one priced form or refused with the field named.

Belongs here: the way in. Does not belong here: arithmetic over accounts (billing/pricing.py).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from meter_pipeline.billing.tariffs import native, urdb
from meter_pipeline.billing.tariffs.document_lines import line_of
from meter_pipeline.billing.tariffs.fields import TariffRefusedError, parse_document
from meter_pipeline.billing.tariffs.model import Tariff, TariffLine
from meter_pipeline.billing.tariffs.riders import SCHEMA as RIDER_SCHEMA
from meter_pipeline.billing.tariffs.riders import Rider, is_rider, parse_rider

__all__ = [
    "Rider",
    "Tariff",
    "TariffLine",
    "TariffRefusedError",
    "line_of",
    "load_tariff",
    "parse_rider",
    "parse_tariff",
    "says_rider",
    "shares_riders",
]


def says_rider(raw: bytes) -> bool:
    """Whether a document's bytes name the schema of riders."""
    return RIDER_SCHEMA.encode() in raw


def shares_riders(raw: bytes) -> bool:
    """Whether a tariff's bytes may name a shared rider."""
    return b'"shared"' in raw


@lru_cache(maxsize=1024)
def parse_tariff(raw: bytes, riders: tuple[bytes, ...] = ()) -> Tariff:
    """The tariff of a document's bytes; ``riders``: documents of the riders it may share. Raises
    TariffRefusedError(field, why). Pure, and remembered: a tariff is parsed once a process."""
    document = parse_document(raw)
    digest = hashlib.sha256(raw).digest()
    try:
        if is_rider(document):
            raise TariffRefusedError("schema", "is a rider, which tariffs share; an agreement names a tariff")
        if native.is_native(document):
            return native.read(document, digest, [parse_rider(rider) for rider in riders])
        if not urdb.is_urdb(document):
            why = "neither a URDB rate nor a native tariff (no energyratestructure, no schema)"
            raise TariffRefusedError("document", why)
        item = document
        if "items" in document:
            if len(document["items"]) != 1 or not isinstance(document["items"][0], dict):
                raise TariffRefusedError("items", f"must hold one rate, holds {len(document['items'])}")
            for name in document:
                if name != "items":
                    raise TariffRefusedError(name, "stands beside items, which hold the rate: it is read by nothing")
            item = document["items"][0]
        return urdb.read(item, digest)
    except TariffRefusedError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise TariffRefusedError("document", str(error)) from error


def load_tariff(path: Path) -> Tariff:
    """The tariff of a file; the riders it shares are the rider documents beside it. Raises TariffRefusedError, also
    where the file can't be read."""
    try:
        raw = path.read_bytes()
        others = sorted(path.parent.glob("*.json")) if shares_riders(raw) else []
        beside = [(other.name, body) for other in others if says_rider(body := other.read_bytes())]
    except OSError as error:
        raise TariffRefusedError("document", f"can't be read: {error.strerror}") from error
    for name, body in beside:
        try:
            parse_rider(body)
        except TariffRefusedError as error:
            raise TariffRefusedError(f"{name}:{line_of(body, error.field)}: {error.field}", error.why) from error
    return parse_tariff(raw, tuple(body for _, body in beside))
