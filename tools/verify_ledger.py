#!/usr/bin/env python3
"""Verify an export of the audit ledger, offline, trusting neither the program that wrote it nor its database.

One file, the standard library and ``cryptography``; it shares no code with meter_pipeline. Give it the export and what
you hold yourself:

    python verify_ledger.py EXPORT --vkey LOG.vkey [--checkpoint FILE ...] [--witness-vkey FILE ...] [--require-witness]
        [--tsa-ca FILE] [--json]

    python verify_ledger.py EXPORT --vkey LOG.vkey --day DAY ...
        only the rows of these billing days; --every-day: none may be missing

    python verify_ledger.py --proof PROOF.json --vkey LOG.vkey
        one read or bill, from its row to a signed checkpoint

``--vkey`` is the log's verifier key as you were given it when the log began (one ``name+id+key`` line; a later key is
believed only if the one before handed over to it inside the log). ``--checkpoint`` are checkpoints you kept: the log
must still contain exactly what they said.

What is checked: the export's own hashes; places contiguous from 0; each entry's leaf hash and the root at the size of
every checkpoint, recomputed; signatures; your own checkpoints and witnesses; each batch's root from its payload hashes;
control totals; two names under dual control; every row against its leaf and every leaf against its row, rows of known
encodings re-encoded and hashed (a bill from its lines); erasures; guards.

Exit 0: everything holds. Exit 1: something does not; the first bad place in the log is named. Exit 2: wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import decimal
import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# kind -> the two fields that must name two different people
DUAL = {
    "adjustment_approved": ("requested_by", "approved_by"),
    "pause_cleared": ("requested_by", "confirmed_by"),
    "cutover_signed": ("requested_by", "approved_by"),
}
# source of rows -> (kinds whose every leaf has a row, kinds whose leaves may be a row's)
SOURCES: dict[str, tuple[set[str], set[str]]] = {
    "raw": ({"ingested", "superseded"}, {"duplicate"}),
    "validated": ({"validated"}, set()),
    "dead letters": ({"rejected"}, set()),
    "charges": ({"billed"}, set()),
    "statements": ({"bill_issued"}, set()),
    "adjustments": ({"adjustment_requested"}, {"adjustment_posted"}),
    "reference": ({"reference_imported"}, set()),
}
# sources that are matched as a whole, not by billing day
WHOLE = {"dead letters", "adjustments", "reference"}
# source -> table -> (column with the row's leaf or None, encodings of that leaf, newest first). It stands here and is
# not read from the export: nothing that decides what is checked may come from the thing that is checked.
TABLES: dict[str, dict[str, tuple[str | None, tuple[str, ...]]]] = {
    "raw": {
        "raw.interval_day": ("payload_hash", ("mpi1",)),
        "raw.interval_payload": ("payload_hash", ("mpi1",)),
        "raw.register_read": ("payload_hash", ("mpr1",)),
        "raw.register_payload": ("payload_hash", ("mpr1",)),
    },
    "validated": {
        "vee.interval_day": ("content_hash", ("mp-vee-row/1",)),
        "vee.interval_day_version": ("content_hash", ("mp-vee-row/1",)),
    },
    "dead letters": {"raw.dead_letter": ("leaf", ("mp-salted/1",))},
    "charges": {
        "billing.charge_day": (None, ("mp-charge/2", "mp-charge/1")),
        "billing.determinant_day": (None, ("mp-determinant/1",)),
    },
    "statements": {"billing.statement": ("lines_sha256", ("mp-statement/1",))},
    "adjustments": {"billing.adjustment_line": (None, ("mp-adjustment-line/1",))},
    "reference": {},
}
# reference tables that keep their history: table -> (key, columns that leaves are over where their entry names none).
# The earlier rows of NAME are in NAME_version.
REFERENCE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accounts": (
        ("account_id",),
        (
            "account_id",
            "customer_class",
            "opened",
            "closed",
            "known_from",
        ),
    ),
    "agreements": (
        (
            "service_point_id",
            "valid_from",
        ),
        (
            "account_id",
            "service_point_id",
            "tariff_id",
            "cycle_id",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "billing_cycles": (
        (
            "cycle_id",
            "period_start",
        ),
        (
            "cycle_id",
            "period_start",
            "period_end",
            "known_from",
        ),
    ),
    "channel_values": (
        (
            "meter_id",
            "channel",
            "valid_from",
        ),
        (
            "meter_id",
            "channel",
            "valid_from",
            "valid_to",
            "multiplier",
            "dials",
            "decimals",
            "flow",
            "billed",
            "unit",
            "interval_minutes",
            "sums_to",
            "known_from",
        ),
    ),
    "channels": (
        (
            "meter_id",
            "channel",
        ),
        (
            "meter_id",
            "channel",
            "kind",
            "unit",
            "interval_minutes",
            "flow",
            "multiplier",
            "dials",
            "decimals",
            "sums_to",
            "billed",
            "modulus",
            "known_from",
        ),
    ),
    "holidays": (
        ("holiday",),
        (
            "holiday",
            "name",
            "known_from",
        ),
    ),
    "installations": (
        (
            "meter_id",
            "installed_at",
        ),
        (
            "service_point_id",
            "meter_id",
            "installed_at",
            "removed_at",
            "install_read",
            "removal_read",
            "known_from",
        ),
    ),
    "meters": (
        ("meter_id",),
        (
            "meter_id",
            "commodity",
            "head_end",
            "model",
            "collector_id",
            "known_from",
        ),
    ),
    "register_hours": (
        (
            "head_end",
            "channel",
            "days",
            "from_minute",
        ),
        (
            "head_end",
            "channel",
            "days",
            "from_minute",
            "to_minute",
            "known_from",
        ),
    ),
    "revenue_accounts": (
        (
            "commodity",
            "customer_class",
            "component",
            "valid_from",
        ),
        (
            "commodity",
            "customer_class",
            "component",
            "revenue_account",
            "receivable_account",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "service_attributes": (
        (
            "service_point_id",
            "attribute",
            "valid_from",
        ),
        (
            "service_point_id",
            "attribute",
            "value",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "service_points": (
        (
            "service_point_id",
            "valid_from",
        ),
        (
            "service_point_id",
            "commodity",
            "premise_id",
            "route",
            "customer_class",
            "latitude",
            "longitude",
            "station_id",
            "status",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "tariff_document": (
        (
            "tariff_id",
            "version",
        ),
        (
            "tariff_id",
            "version",
            "body",
            "sha256",
            "known_from",
        ),
    ),
    "tariffs": (
        (
            "tariff_id",
            "version",
        ),
        (
            "tariff_id",
            "commodity",
            "version",
            "valid_from",
            "valid_to",
            "document",
            "known_from",
        ),
    ),
    "weather": (
        (
            "station_id",
            "weather_day",
        ),
        (
            "station_id",
            "weather_day",
            "temperature_min_c",
            "temperature_max_c",
            "temperature_mean_c",
            "known_from",
        ),
    ),
    "weather_stations": (
        ("station_id",),
        (
            "station_id",
            "name",
            "latitude",
            "longitude",
            "known_from",
        ),
    ),
    "winter_average_rules": (
        (
            "customer_class",
            "valid_from",
        ),
        (
            "customer_class",
            "months",
            "drop_high",
            "drop_low",
            "least_periods",
            "default_per_day",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "zone_members": (
        (
            "service_point_id",
            "valid_from",
        ),
        (
            "service_point_id",
            "zone_id",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "zone_supplies": (
        (
            "zone_id",
            "service_point_id",
            "valid_from",
        ),
        (
            "zone_id",
            "service_point_id",
            "direction",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "zone_unmetered": (
        (
            "zone_id",
            "purpose",
            "valid_from",
        ),
        (
            "zone_id",
            "purpose",
            "quantity_per_day",
            "unit",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "zones": (
        (
            "zone_id",
            "valid_from",
        ),
        (
            "zone_id",
            "kind",
            "commodity",
            "name",
            "parent_id",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "attribute_names": (
        ("attribute",),
        (
            "attribute",
            "kind",
            "about",
            "known_from",
        ),
    ),
    "estimate_limits": (
        (
            "customer_class",
            "commodity",
            "cause",
            "valid_from",
        ),
        (
            "customer_class",
            "commodity",
            "cause",
            "most_bills",
            "action",
            "count_on_bill",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "leak_adjustment_rules": (
        (
            "customer_class",
            "valid_from",
        ),
        (
            "customer_class",
            "seasons",
            "normal_periods",
            "least_periods",
            "share_percent",
            "sewer_codes",
            "sewer_share_percent",
            "months_between",
            "most_bills",
            "evidence",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "back_billing_rules": (
        ("commodity", "customer_class", "valid_from"),
        (
            "commodity",
            "customer_class",
            "covers",
            "charge_months",
            "credit_months",
            "unknown_beginning",
            "unknown_most_months",
            "tolerance_percent",
            "interest_percent",
            "day_count",
            "instalments",
            "instalment_months",
            "waive_below",
            "source",
            "valid_from",
            "valid_to",
            "known_from",
        ),
    ),
    "account_values": (
        ("account_id", "valid_from"),
        ("account_id", "valid_from", "valid_to", "customer_class", "known_from"),
    ),
    "validation_thresholds": (
        ("threshold", "valid_from"),
        ("threshold", "valid_from", "valid_to", "value", "known_from"),
    ),
    "heat_contents": (
        ("zone_id", "valid_from"),
        ("zone_id", "valid_from", "valid_to", "therms_per_ccf", "known_from"),
    ),
    "meter_values": (
        ("meter_id", "valid_from"),
        ("meter_id", "valid_from", "valid_to", "head_end", "collector_id", "known_from"),
    ),
    "meter_tests": (
        ("meter_id", "tested_on"),
        (
            "meter_id",
            "tested_on",
            "percent_registration",
            "wrong_since",
            "wrong_until",
            "evidence",
            "known_from",
        ),
    ),
    "id_spellings": (("kind", "id"), ("kind", "id", "written", "known_from")),
    "past_usage": (
        ("service_point_id", "flow", "period_start"),
        ("service_point_id", "flow", "unit", "period_start", "period_end", "quantity", "known_from"),
    ),
    "opening_balances": (
        (
            "service_point_id",
            "account_id",
            "tariff_id",
            "kind",
            "name",
            "period_end",
        ),
        (
            "service_point_id",
            "account_id",
            "tariff_id",
            "kind",
            "name",
            "period_end",
            "quantity",
            "known_from",
        ),
    ),
}
BEFORE_HISTORY = "2000-01-01T00:00:00"  # record time of rows from before history was kept
# tables of rows that later ones took the place of: source -> table -> encodings; their leaves are among those retired
REPLACED: dict[str, dict[str, tuple[str, ...]]] = {
    "charges": {
        "billing.charge_day_version": ("mp-charge/2", "mp-charge/1"),
        "billing.determinant_day_version": ("mp-determinant/1",),
    },
}
# rows that the hash of another table's row is over: source -> (table, the table whose hash is over it)
DETAILS = {"statements": ("billing.statement_line", "billing.statement")}
# tables whose rows hang on another's and are hashed together in an entry's body ("content"): source -> tables
BESIDE = {
    "validated": ("vee.daily_usage", "vee.register_day"),
    "statements": ("billing.statement_segment",),
    "adjustments": (
        "billing.adjustment",
        "billing.adjustment_segment",
        "billing.leak_adjustment",
        "billing.back_billing",
    ),
}
# those of them of which an entry says every row of its day: a day with rows needs an entry
WHOLE_DAYS = {"validated": ("vee.daily_usage", "vee.register_day")}
# tables whose leaves began later than their rows: an entry that holds every row of its day says so in this field; on a
# day without such an entry only rows that have leaves are held
SINCE = {"billing.determinant_day": "all_determinants"}
# tables whose whole row each entry of these kinds says ("rows"): source -> (table, key, kinds)
STATES = {
    "adjustments": (
        "billing.adjustment",
        "adjustment_id",
        {"adjustment_requested", "adjustment_approved", "adjustment_refused", "adjustment_posted"},
    ),
}
# sources whose entries also name leaves they retire: the last "retired" of an entry's leaves are of rows it took the
# place of
RETIRING = {"charges"}
GUARDED = ("entry", "log", "leaf", "node", "tree_head", "checkpoint", "cosignature", "anchor", "personal")
# roles that may do more than SELECT, and what; by column only
MAY_WRITE = {
    "meter_ledger_writer": {("entry", "INSERT"), ("personal", "INSERT")},
    "meter_ledger_eraser": {("entry", "INSERT"), ("personal", "UPDATE")},
    "meter_ledger_sequencer": {
        (t, "INSERT") for t in ("log", "leaf", "node", "tree_head", "checkpoint", "cosignature", "anchor")
    },
}
NEVER_WRITTEN = {
    "entry.entry_id",
    "xid",
    "recorded_at",
    "recorded_by",
    "log_id",
    "created_at",
    "sequenced_at",
    "signed_at",
    "received_at",
    "kept_at",
}
LIMIT = 200


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


# a row of an export, or a document in it
Row = dict[str, Any]
# (name, key id, signature)
Signature = tuple[str, bytes, bytes]
# a checkpoint you kept: name, size, root, its note as text and signatures
Held = tuple[str, int, bytes, tuple[str, list[Signature]]]
# an entry of a billing day: its place, kind, payload hashes end to end, how many of them it retires
Filed = tuple[int, str, bytes, int]
# table -> key of a row within its billing day -> what is kept of the rows
Kept = dict[str, dict[tuple[Any, ...], list[Any]]]


class Tree:
    """The right edge of an RFC 6962 tree: complete subtrees, largest first."""

    def __init__(self) -> None:
        self.edge: list[tuple[int, bytes]] = []
        self.size = 0

    def add(self, leaf: bytes) -> None:
        height = 0
        while self.edge and self.edge[-1][0] == height:
            leaf, height = node(self.edge.pop()[1], leaf), height + 1
        self.edge.append((height, leaf))
        self.size += 1

    def root(self) -> bytes:
        if not self.edge:
            return sha256(b"")
        result = self.edge[-1][1]
        for _, left in reversed(self.edge[:-1]):
            result = node(left, result)
        return result


def batch_root(flat: bytes) -> bytes:
    """The RFC 6962 root over 32-byte payload hashes given end to end."""
    if not flat:
        return sha256(b"")
    level = [sha256(b"\x00" + flat[at : at + 32]) for at in range(0, len(flat), 32)]
    while len(level) > 1:
        paired = [node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


class Key:
    """A verifier key: name+id+base64(type, public key)."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.name, key_id, encoded = self.text.split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        self.kind, public = raw[0], raw[1:]
        self.id = sha256(self.name.encode() + b"\n" + raw)[:4]
        if self.kind not in (1, 4) or len(public) != 32 or self.id.hex() != key_id:
            raise ValueError(f"{text!r} is not an Ed25519 verifier key")
        self.public = Ed25519PublicKey.from_public_bytes(public)

    def verifies(self, text: str, blob: bytes) -> bool:
        message = text.encode()
        if self.kind == 4:
            if len(blob) != 72:
                return False
            message = f"cosignature/v1\ntime {struct.unpack('>Q', blob[:8])[0]}\n{text}".encode()
            blob = blob[8:]
        try:
            self.public.verify(blob, message)
        except InvalidSignature:
            return False
        return True


def read_note(encoded: str) -> tuple[str, list[Signature]]:
    """(text, [(name, key id, signature)]) of a signed note."""
    text, found, rest = encoded.rpartition("\n\n")
    signatures = []
    for line in rest.splitlines():
        match = re.fullmatch(r"— (\S+) ([A-Za-z0-9+/=]+)", line)
        if match is None:
            raise ValueError("a signature line is malformed")
        raw = base64.b64decode(match[2], validate=True)
        signatures.append((match[1], raw[:4], raw[4:]))
    if not found or not signatures:
        raise ValueError("the note has no signature")
    return text + "\n", signatures


def read_checkpoint(text: str) -> tuple[str, int, bytes]:
    """(origin, size, root)"""
    lines = text.split("\n")
    if len(lines) < 4 or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
        raise ValueError("this is not a checkpoint")
    root = base64.b64decode(lines[2], validate=True)
    if len(root) != 32:
        raise ValueError("a root is 32 bytes")
    return lines[0], int(lines[1]), root


def signed_by(text: str, signatures: Iterable[Signature], keys: Sequence[Key]) -> list[Key]:
    """The known keys whose signature is good; raises ValueError where a known key's is bad."""
    good = []
    for name, key_id, blob in signatures:
        for key in keys:
            if (key.name, key.id) == (name, key_id):
                if not key.verifies(text, blob):
                    raise ValueError(f"the signature of {name} does not verify")
                good.append(key)
    return good


def micros(stamp: str | None) -> str:
    """Microseconds since 1970 of PostgreSQL's ISO form, as decimal text; empty for null."""
    if stamp is None:
        return ""
    at = datetime.datetime.fromisoformat(stamp)
    since = at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)  # noqa: UP017 - runs on Python 3.10 too
    return str((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds)


# column, struct code of an element, letter in the header
ARRAYS = (
    ("values", "i", "v"),
    ("wide_values", "q", "w"),
    ("qualities", "h", "q"),
    ("sequences", "i", "s"),
    ("offsets", "h", "o"),
)


def encode_intervals(row: Row) -> bytes:
    """Encoding mpi1: a meter's channel-day."""
    present = [(name, code, letter) for name, code, letter in ARRAYS if row[name] is not None]
    fields = (
        "mpi1",
        row["meter_id"],
        row["channel"],
        row["billing_day"],
        row["unit"],
        row["interval_minutes"],
        row["slots"],
        row["head_end"],
        row["source_version"],
        micros(row["read_time"]),
        row["scale"],
        row["quality"],
        row["sequence"],
        row["sequence_step"],
        "".join(letter for _, _, letter in present),
    )
    header = "\x1f".join(map(str, fields)) + "\x1e"
    return header.encode() + b"".join(struct.pack(f">{len(row[name])}{code}", *row[name]) for name, code, _ in present)


def encode_register(row: Row) -> bytes:
    """Encoding mpr1: a register read."""
    fields = (
        "mpr1",
        row["meter_id"],
        row["channel"],
        micros(row["read_at"]),
        row["unit"],
        row["head_end"],
        row["source_version"],
        micros(row["read_time"]),
        row["value"],
        row["quality"],
        row["sequence"],
    )
    return ("\x1f".join(map(str, fields)) + "\x1e").encode()


def joined(tag: str, row: Row, columns: Iterable[str]) -> bytes:
    """Tag and columns by unit separators; lists by commas."""
    values = (row[name] for name in columns)
    return "\x1f".join([tag, *(",".join(map(str, v)) if isinstance(v, list) else str(v) for v in values)]).encode()


CHARGE_1 = (
    "billing_day",
    "service_point_id",
    "account_id",
    "tariff_id",
    "tariff_version",
    "days",
    "energy_to_date",
    "peaks_to_date",
    "amounts",
)
CHARGE_2 = (
    "billing_day",
    "service_point_id",
    "account_id",
    "tariff_id",
    "tariff_version",
    "cycle_id",
    "period_start",
    "stretch_start",
    "days",
    "energy_to_date",
    "export_to_date",
    "peaks_to_date",
    "peak_at_to_date",
    "register_days",
    "budget_to_date",
    "carry",
    "history",
    "amounts",
)


DETERMINANT_1 = (
    "billing_day",
    "service_point_id",
    "account_id",
    "tariff_id",
    "tariff_version",
    "cycle_id",
    "period_start",
    "period_end",
    "stretch_start",
    "unit",
    "source_unit",
    "source_quantity",
    "source_export",
    "other_unit",
    "other_quantity",
    "other_export",
    "energy",
    "export",
    "peaks",
    "peak_at",
    "slots",
    "estimated",
    "missing",
    "interval_minutes",
)


def encode_determinant(row: Row) -> bytes:
    """Encoding mp-determinant/1: what a service point used on a day as its tariff counts it, every column."""
    return joined("mp-determinant/1", row, DETERMINANT_1)


def encode_charge_1(row: Row) -> bytes:
    """Encoding mp-charge/1: what a service point's day cost, and its position in the period, as rows had it first."""
    return joined("mp-charge/1", row, CHARGE_1)


def encode_charge(row: Row) -> bytes:
    """Encoding mp-charge/2: every column of a charge but its total, which is the sum of its amounts."""
    return joined("mp-charge/2", row, CHARGE_2)


NONE_32, NONE_64 = -(2**31), -(2**63)
BY_SLOT = ("values", "wide_values", "qualities", "sequences", "offsets", "flags")


def misshapen(row: Row) -> bool:
    """Whether a row of intervals is none: an array is longer or shorter than its slots, an element is null, or it has
    both kinds of values or neither."""
    if "values" not in row or "wide_values" not in row:
        return False
    arrays = [row[name] for name in BY_SLOT if row.get(name) is not None]
    return (row["values"] is None) == (row["wide_values"] is None) or any(
        len(array) != row["slots"] or None in array for array in arrays
    )


MISSING = 6 << 13  # the quality code of a slot that no read came for


def slots_of(row: Row) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """By slot: value in millionths (None where there is none), quality code, sequence, offset."""
    stored, none = (row["values"], NONE_32) if row["values"] is not None else (row["wide_values"], NONE_64)
    factor = 10 ** (6 - row["scale"])
    values = [None if value == none else value * factor for value in stored]
    shared = row["quality"] & 0xFFFF
    codes = row["qualities"]
    codes = [c & 0xFFFF for c in codes] if codes else [MISSING if v is None else shared for v in values]
    base, step = row.get("sequence", 0), row.get("sequence_step", 0)
    sequences = row.get("sequences") or [0 if v is None else base + k * step for k, v in enumerate(values)]
    return values, codes, sequences, row.get("offsets") or [0] * len(values)


def encode_validated(row: Row) -> bytes:
    """Encoding mp-vee-row/1: a validated channel-day: its key and account, then little-endian values, codes and rule
    bits by slot.
    """
    names = ("service_point_id", "meter_id", "channel", "unit", "flow", "account_id", "tariff_id", "cycle_id")
    key = ["" if row[name] is None else row[name] for name in names] + ["true" if row["billed"] else "false"]
    values, codes, _, _ = slots_of(row)
    difference = row["register_difference_micro"]
    numbers = (row["row_flags"], NONE_64 if difference is None else difference, row["unscaled_micro"], row["expected"])
    n = len(values)
    return (
        "\x1f".join(("mp-vee-row/1", row["billing_day"], *key)).encode()
        + struct.pack(f"<{n}q", *(NONE_64 if v is None else v for v in values))
        + struct.pack(f"<{n}H", *codes)
        + struct.pack(f"<{n}i", *(row["flags"] or [0] * n))
        + struct.pack("<4q", *numbers)
    )


def rank(code: int, empty: bool) -> int:
    """How good a value's quality is: none, null, estimate, substitute, actual or final substitute."""
    found = (4, 3, 4, 2, 1, 3, 0, 0)[code >> 13]
    return min(found, 1) if empty else found


def age(row: Row) -> tuple[int, int, str]:
    """Order of payloads: source version, then when it was read (never before ever), then hash."""
    return row["source_version"], micros_or_first(row["read_time"]), row["payload_hash"]


def micros_or_first(stamp: str | None) -> int:
    return NONE_64 if stamp is None else int(micros(stamp))


def merge_intervals(payloads: Iterable[Row]) -> tuple[Row, list[list[Any]]]:
    """What the payloads of a meter's channel-day give together: the leading payload, and its slots."""
    ordered = sorted(payloads, key=age)
    slots = {id(row): slots_of(row) for row in ordered}
    best = {id(row): max(rank(c, v is None) for v, c in zip(*slots[id(row)][:2], strict=True)) for row in ordered}
    leading = max(enumerate(ordered), key=lambda item: (best[id(item[1])], item[0]))[1]
    count = len(slots[id(leading)][0])
    won: list[list[Any]] = [[None] * count, [MISSING] * count, [0] * count, [0] * count]
    by: list[tuple[int, tuple[int, int] | None]] = [
        (0, None)
    ] * count  # rank of what stands in a slot, and (version, read time) it came with
    for row in ordered:
        if any(row[name] != leading[name] for name in ("unit", "interval_minutes", "slots")):
            continue
        for k, (value, code, sequence, offset) in enumerate(zip(*slots[id(row)], strict=True)):
            if value is None and code == MISSING:
                continue
            found, held = rank(code, value is None), by[k]
            newer = held[1] != age(row)[:2] or sequence >= won[2][k]
            if found > held[0] or (found == held[0] and newer):
                by[k] = (found, age(row)[:2])
                for column, what in zip(won, (value, code, sequence, offset), strict=True):
                    column[k] = what
    return leading, won


def merged_intervals(row: Row, payloads: list[Row]) -> list[str]:
    """What of a merged row is not as its payloads give it."""
    leading, (values, codes, sequences, offsets) = merge_intervals(payloads)
    names = (
        "source_version",
        "read_time",
        "head_end",
        "payload_hash",
        "unit",
        "interval_minutes",
        "slots",
        "starts_at",
    )
    wrong = [name for name in names if row[name] != leading[name]]
    found = slots_of(row)
    wrong += [] if found[0] == values else ["values"]
    wrong += [] if found[1] == codes else ["qualities"]
    for name, mine, theirs in (("sequences", found[2], sequences), ("offsets", found[3], offsets)):
        if any(a != b for a, b, v in zip(mine, theirs, values, strict=True) if v is not None):
            wrong.append(name)
    return wrong


def merged_registers(row: Row, payloads: list[Row]) -> list[str]:
    """What of a register read with several payloads is not the winning one's."""
    order = lambda p: (rank(p["quality"] & 0xFFFF, p["value"] is None), *age(p)[:2], p["sequence"], p["payload_hash"])  # noqa: E731
    winner = max(payloads, key=order)
    return [name for name in winner if name != "payloads" and row[name] != winner[name]]


# table -> (its history, the key of a row within a billing day, what is wrong with a merged row, whether its hash is not
# its own)
MERGED: dict[str, tuple[str, tuple[str, ...], Callable[[Row, list[Row]], list[str]], bool]] = {
    "raw.interval_day": ("raw.interval_payload", ("meter_id", "channel"), merged_intervals, True),
    "raw.register_read": ("raw.register_payload", ("meter_id", "channel", "read_at"), merged_registers, False),
}
# table -> (the table of what stood in its rows before, the key of a row within a billing day)
VERSIONS = {"vee.interval_day": ("vee.interval_day_version", ("service_point_id", "meter_id", "channel"))}


def read_key(row: Row) -> str:
    """The idempotency key of a register read: mp1, meter, instant, sequence."""
    at = datetime.datetime.fromisoformat(row["read_at"]).astimezone(datetime.timezone.utc)  # noqa: UP017 - Python 3.10 too
    return sha256(
        "\x1f".join(("mp1", row["meter_id"], f"{at:%Y-%m-%dT%H:%M:%SZ}", str(row["sequence"]))).encode()
    ).hex()


def derived_validated(row: Row) -> Row:
    """Columns of a validated channel-day that follow from its intervals: column -> what they give."""
    values, codes, _, _ = slots_of(row)
    held = [(v, c) for v, c in zip(values, codes, strict=True) if v is not None]
    estimated = sum(c >> 13 in (1, 2, 3) for _, c in held)
    return {
        "total_micro": sum(v for v, _ in held),
        "estimated": estimated,
        "actual": len(held) - estimated,
        "missing": row["expected"] - len(held),
    }


# table -> columns that no leaf covers and that follow from those it does
DERIVED: dict[str, Callable[[Row], Row]] = {
    "raw.register_read": lambda row: {"idempotency_key": "\\x" + read_key(row)},
    "vee.interval_day": derived_validated,
    "vee.interval_day_version": derived_validated,
    "billing.charge_day": lambda row: {"total": sum(row["amounts"])},
    "billing.charge_day_version": lambda row: {"total": sum(row["amounts"])},
}


def printed(value: Any) -> str:
    """A value of a row as PostgreSQL prints it, from its JSON form."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "{" + ",".join(map(printed, value)) + "}"
    return str(value)


def derived_statement(row: Row, lines: list[Row]) -> Row:
    """Columns of a bill that follow from its lines."""
    return {"total": sum(decimal.Decimal(str(line["amount"])) for line in lines), "lines": len(lines)}


def encode_adjustment_line(row: Row) -> bytes:
    """Encoding mp-adjustment-line/1."""
    fields = (
        "mp-adjustment-line/1",
        row["adjustment_id"],
        row["line_no"],
        row["action"],
        row["service_point_id"],
        row["line_key"],
        row["amount"],
    )
    return "\x1f".join(map(str, fields)).encode()


def millionths(value: Any) -> str:
    return "" if value is None else str(int(decimal.Decimal(str(value)).scaleb(6)))


def line_text(line: Row) -> str:
    """A line of a bill as its statement's hash has it."""
    fields = (
        line["line_no"],
        line["service_point_id"],
        line["tariff_id"],
        line["tariff_version"],
        line["segment_start"],
        line["segment_end"],
        line["line_key"],
        millionths(line["quantity"]),
        millionths(line["amount"]),
    )
    return "\x1f".join(map(str, fields))


def encode_statement(row: Row, lines: Iterable[tuple[int, str]]) -> bytes:
    """Encoding mp-statement/1: a bill, from (line number, text) of its lines."""
    return "\x1e".join(("mp-statement/1", row["statement_id"], "\x1e".join(text for _, text in sorted(lines)))).encode()


def raw_bytes(text: str) -> bytes:
    """PostgreSQL's hexadecimal form of bytes."""
    return bytes.fromhex(text.removeprefix("\\x"))


def encode_salted(row: Row) -> bytes:
    """Encoding mp-salted/1: a rejected line."""
    return b"mp-salted/1\x1f" + raw_bytes(row["salt"]) + raw_bytes(row["raw"])


def jsonb_text(value: Any) -> str:
    """A value as PostgreSQL prints jsonb: keys by length, then by bytes; numbers without an exponent."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {jsonb_text(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(jsonb_text, value)) + "]"
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    return json.dumps(value, ensure_ascii=False)


def instant_of(stamp: str) -> str:
    """An instant as the ledger writes it, in UTC without a zone."""
    at = datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    at = at.astimezone(datetime.timezone.utc).replace(tzinfo=None)  # noqa: UP017 - runs on Python 3.10 too
    return at.isoformat()


def change_leaf(table: str, old: Row | None, new: Row | None, columns: Iterable[str]) -> bytes:
    """The leaf of a changed row of reference data: table, row before, row after, over the columns its entry names."""
    over = set(columns)
    rows = {
        name: None if row is None else {column: value for column, value in row.items() if column in over}
        for name, row in (("old", old), ("new", new))
    }
    return sha256(jsonb_text({"table": table, **rows}).encode())


ENCODINGS: dict[str, Callable[[Row], bytes]] = {
    "mpi1": encode_intervals,
    "mpr1": encode_register,
    "mp-vee-row/1": encode_validated,
    "mp-charge/1": encode_charge_1,
    "mp-charge/2": encode_charge,
    "mp-determinant/1": encode_determinant,
    "mp-adjustment-line/1": encode_adjustment_line,
    "mp-salted/1": encode_salted,
}


class Audit:
    """One run over one export."""

    def __init__(
        self,
        folder: Path,
        keys: Sequence[Key],
        held: Sequence[Held],
        witnesses: list[Key],
        require_witness: bool,
        authority: Path | None = None,
        days: Iterable[str] = (),
        every_day: bool = False,
    ) -> None:
        self.folder, self.held, self.witnesses, self.require_witness = folder, held, witnesses, require_witness
        self.authority, self.days, self.every_day = authority, set(days), every_day
        self.absent: set[str] = set()  # billing days of the log whose rows are not in the export
        self.keys = [(key, 0) for key in keys]  # (key, believed for trees larger than this)
        self.retired: dict[str, list[str]] = {}  # key text -> the keys it handed over to
        self.findings: list[Row] = []
        self.checked: dict[str, int] = {}
        self.tree = Tree()
        self.roots: dict[int, bytes] = {}
        # by place: kind, billing day, payload hashes end to end, how many of them it retires
        self.entries: list[tuple[str, str | None, bytes, int]] = []
        self.erased: set[str | None] = set()
        self.said: dict[
            int, tuple[Any, list[Row]]
        ] = {}  # place -> (entry id, what the entry says of the rows it wrote)
        # (table, key column, value) -> the row as the last entry about it says
        self.states: dict[tuple[str, str, str], Row] = {}
        self.named: set[str] = set()  # adjustments that some entry is about
        self.whole: set[tuple[str, str | None]] = set()  # (table, billing day) of which an entry holds every row
        # record time of changed reference data -> its entry's place, leaves, the columns they are over, and what it
        # says of rows from before history was kept
        self.changes: dict[str, tuple[int, set[bytes], dict[str, list[str]] | None, Row | None]] = {}
        self.replaced: dict[int, dict[str, int]] = {}  # place -> by table, how many rows the entry's change replaced
        self.recorded_guards: Row | None = None
        self.manifest: Row = {}
        self.checkpoints: list[Row] = []

    def find(self, check: str, detail: str, index: int | None = None) -> None:
        if len(self.findings) < LIMIT:
            self.findings.append({"check": check, "index": index, "detail": detail})

    def count(self, name: str, by: int = 1) -> None:
        self.checked[name] = self.checked.get(name, 0) + by

    def lines(self, name: str) -> Iterator[Row]:
        path = self.folder / name
        if not path.exists():
            self.find("export", f"{name} is missing")
            return
        with path.open(encoding="utf-8") as handle:
            for line in handle:
                yield json.loads(line, parse_float=decimal.Decimal)

    def run(self) -> Row:
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        if self.manifest.get("format") != "mp-ledger-export/1":
            raise ValueError("this is not an export this program knows")
        self.files()
        self.checkpoints = sorted(self.lines("checkpoints.jsonl"), key=lambda row: row["size"])
        wanted = {row["size"] for row in self.checkpoints} | {size for _, size, _, _ in self.held}
        self.roots[0] = self.tree.root()
        self.log(wanted)
        self.signatures()
        self.auditors_own()
        self.personal()
        if self.authority is not None:
            self.stamps(self.authority)
        self.totals()
        self.rows()
        self.guards()
        places = [f["index"] for f in self.findings if f["index"] is not None]
        return {
            "ok": not self.findings,
            "origin": self.manifest.get("origin"),
            "size": self.tree.size,
            "root": self.tree.root().hex(),
            "first_bad_index": min(places) if places else None,
            "days_without_rows": sorted(self.absent),
            "findings": self.findings,
            "checked": self.checked,
        }

    def files(self) -> None:
        """The export is whole and nothing was slipped in: guards against a damaged copy, not against its maker."""
        named = self.manifest["files"]
        for name, digest in named.items():
            path = self.folder / name
            if not path.is_file():
                self.find("export", f"{name} is missing")
                continue
            self.count("files")
            found = hashlib.sha256()
            with path.open("rb") as handle:
                while block := handle.read(1 << 20):
                    found.update(block)
            if found.hexdigest() != digest:
                self.find("export", f"{name} is not the file that was exported")
        there = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()} - {
            "manifest.json"
        }
        for name in sorted(there - named.keys()):
            self.find("export", f"{name} is not in the manifest")

    def log(self, wanted: set[int]) -> None:
        """Every entry by itself, and the tree over all of them."""
        for line in self.lines("entries.jsonl"):
            index, body = line["index"], base64.b64decode(line["body"])
            if index != self.tree.size:
                self.find(
                    "contiguity", f"place {self.tree.size} holds an entry that says it is {index}", self.tree.size
                )
            index = self.tree.size
            leaf = sha256(b"\x00" + body)
            if leaf.hex() != line["leaf_hash"]:
                self.find("leaf", f"the body at {index} does not have the leaf hash the log recorded", index)
            self.tree.add(leaf)
            if self.tree.size in wanted:
                self.roots[self.tree.size] = self.tree.root()
            self.entry(index, line, body)
        self.count("entries", self.tree.size)
        if self.tree.size != self.manifest["tree_head"]:
            self.find(
                "contiguity",
                f"{self.tree.size} entries, the log's own tree head says {self.manifest['tree_head']}",
                self.tree.size,
            )

    def entry(self, index: int, line: Row, body: bytes) -> None:
        try:
            document = json.loads(body)
            kind, said, leaves = document["kind"], document["body"], document["leaves"]
            if not (isinstance(said, dict) and document["actor"] and document["at"]):
                raise ValueError("an entry says who and when")
        except (ValueError, KeyError, TypeError, AttributeError):
            self.find("entry", "not a ledger entry" if body else "the entry is gone", index)
            self.entries.append((line["kind"], None, b"", 0))
            return
        if kind != line["kind"]:
            self.find("entry", f"the body says {kind}, the row {line['kind']}", index)
        if said.get("billing_day") != line["billing_day"]:
            self.find("entry", f"filed under {line['billing_day']}, about {said.get('billing_day')}", index)
        flat = (
            (self.folder / line["leaves"]).read_bytes()
            if line["leaves"] and (self.folder / line["leaves"]).is_file()
            else b""
        )
        self.count("leaves", len(flat) // 32)
        if leaves is not None and (len(flat) != 32 * leaves["count"] or batch_root(flat).hex() != leaves["root"]):
            self.find("leaves", f"the payload hashes beside the {kind} entry do not give its root", index)
        if leaves is None and flat:
            self.find("leaves", f"the {kind} entry does not vouch for the hashes beside it", index)
        if kind == "verified" and said.get("step") == "repair":
            people = {str(said.get(name) or "") for name in ("requested_by", "approved_by")} - {""}
            self.count(f"repairs of {said.get('source')}")
            if len(people) != 2:
                self.find("dual control", "a repair does not name two different people", index)
            else:
                kind = f"repair of {said['source']}"
        takes_away = kind == "billed" or kind.startswith("repair of ")
        self.entries.append((kind, line["billing_day"], flat, said.get("retired", 0) if takes_away else 0))
        if kind in DUAL:
            people = {str(said.get(name) or "").strip().casefold() for name in DUAL[kind]} - {""}
            self.count("dual control")
            if len(people) != 2:
                self.find("dual control", f"{kind} does not name two different people", index)
        if kind == "file_loaded" and said.get("received") != sum(
            said.get(n, 0) for n in ("accepted", "duplicate", "superseded", "rejected")
        ):
            self.find(
                "control totals", f"received is not accepted + duplicate + superseded + rejected in {said}", index
            )
        if said.get("content"):
            self.said[index] = (line["entry_id"], said["content"])
        self.whole |= {(table, line["billing_day"]) for table, field in SINCE.items() if said.get(field)}
        for table, _, kinds in STATES.values():
            if kind in kinds:
                self.named.add(str(said.get("adjustment_id")))
                for row in said.get("rows", ()):
                    if row["table"] == table:
                        self.states[(table, *row["key"])] = row["row"]
        if "replaced" in said:
            self.replaced[index] = said["replaced"]
        if kind == "reference_imported" and "known_from" in said:
            instant = instant_of(said["known_from"])
            hashes = {flat[at : at + 32] for at in range(0, len(flat), 32)}
            if instant in self.changes:
                hashes |= self.changes[instant][1]
            self.changes[instant] = (index, hashes, said.get("columns"), said.get("before_history"))
        if kind == "erased":
            self.erased.add(said.get("payload_hash"))
        if kind == "privileges_checked":
            self.recorded_guards = said
        if kind == "key_rotation":
            self.rotation(index, said)

    def rotation(self, index: int, said: Row) -> None:
        """A new key is believed if a key already believed signed the hand-over, and so did the new one."""
        try:
            old, new = Key(said["old"]), Key(said["new"])
            statement = f"mp-key-rotation/1\n{self.manifest['origin']}\n{old.text}\n{new.text}\n"
            first, second = (bytes.fromhex(s) for s in said["signatures"])
            if old.text not in {key.text for key, _ in self.keys}:
                raise ValueError("the key that hands over is not one you trust")
            if not old.verifies(statement, first) or not new.verifies(statement, second):
                raise ValueError("a signature under the hand-over does not verify")
        except (ValueError, KeyError, TypeError) as error:
            self.find("key rotation", str(error), index)
            return
        self.keys.append((new, index))
        self.retired.setdefault(old.text, []).append(new.text)

    def signatures(self) -> None:
        """Each checkpoint is signed by a key believed for its size and states the root of what is here."""
        superseded: dict[str, int] = {}
        before = 0
        for row in self.checkpoints:
            size = row["size"]
            place = max(size - 1, 0)
            self.count("checkpoints")
            try:
                text, signatures = read_note(row["note"])
                origin, said, root = read_checkpoint(text)
                known = [key for key, since in self.keys if size > since]
                good = [key for key in signed_by(text, signatures, known) if key.kind == 1]
                if not good:
                    raise ValueError("no signature by a key you trust")
                for key in good:
                    if superseded.get(key.text, size + 1) < size:
                        raise ValueError(f"{key.name} ({key.id.hex()}) signed after it had handed over")
                    for old, heirs in self.retired.items():
                        if key.text in heirs:
                            superseded.setdefault(old, size)
                if origin != self.manifest["origin"] or any(key.name != origin for key in good):
                    raise ValueError(f"it is of another log: {origin}")
                if said != size:
                    raise ValueError(f"it is of {said} entries")
                if size > self.tree.size:
                    raise ValueError(f"the log has only {self.tree.size}: its tail is gone")
                if self.roots.get(size) != root:
                    raise ValueError("its root is not that of the entries here")
                cosigners = signed_by(
                    text, [s for line in row["cosignatures"] for s in read_note("x\n\n" + line)[1]], self.witnesses
                )
                self.count("cosignatures", len(cosigners))
                before = size
            except (ValueError, KeyError) as error:
                self.find("checkpoint", f"checkpoint of {size}: {error}", min(place, self.tree.size))
        if self.require_witness and not self.checked.get("cosignatures"):
            self.find("witness", "no checkpoint is cosigned by your witness")
        if before < self.tree.size:
            self.count("entries after the last checkpoint", self.tree.size - before)
            if not self.checkpoints:
                self.find("checkpoint", "nothing in this log was ever signed", 0)

    def auditors_own(self) -> None:
        """What you kept is still part of the log, to the byte."""
        for name, size, root, (text, signatures) in self.held:
            self.count("checkpoints held")
            try:
                origin = read_checkpoint(text)[0]
                if origin != self.manifest["origin"]:
                    raise ValueError(f"it is of another log: {origin}")
                if not signed_by(text, signatures, [key for key, _ in self.keys] + self.witnesses):
                    raise ValueError("no signature by a key you trust")
                if size > self.tree.size:
                    raise ValueError(
                        f"it covers {size} entries, the log has {self.tree.size}: the log was cut or an older copy was restored"
                    )
                if self.roots[size] != root:
                    raise ValueError("another root for the same size: the log was forked or its past rewritten")
            except ValueError as error:
                self.find(
                    "held checkpoint",
                    f"{name}: {error}",
                    min(size, self.tree.size) - 1 if size <= self.tree.size else self.tree.size,
                )

    def personal(self) -> None:
        """Payloads with personal data have their salted hash, or an entry that says they were erased."""
        for row in self.lines("personal.jsonl"):
            self.count("personal payloads")
            if row["payload"] is None:
                if row["payload_hash"] not in self.erased:
                    self.find("erasure", f"{row['payload_hash']} was erased without an entry")
            elif (
                sha256(b"mp-salted/1\x1f" + bytes.fromhex(row["salt"]) + bytes.fromhex(row["payload"])).hex()
                != row["payload_hash"]
            ):
                self.find("erasure", f"{row['payload_hash']} is not the hash of its payload")

    def stamps(self, authority: Path) -> None:
        """RFC 3161 time stamps over checkpoints, with openssl and the authority's certificates."""
        notes = {row["size"]: row["note"] for row in self.checkpoints}
        for path in sorted(self.folder.glob("anchors/*.tsr")):
            size = int(path.name.split("-")[0])
            with tempfile.NamedTemporaryFile() as data:
                data.write(notes.get(size, "").encode())
                data.flush()
                done = subprocess.run(  # noqa: S603 - files of the export and of the auditor
                    ["openssl", "ts", "-verify", "-in", str(path), "-data", data.name, "-CAfile", str(authority)],  # noqa: S607
                    capture_output=True,
                    text=True,
                    check=False,
                )
            self.count("time stamps")
            if done.returncode:
                self.find(
                    "time stamp",
                    f"of the checkpoint of {size}: {' '.join(done.stderr.split())[-200:]}",
                    max(size - 1, 0),
                )

    def totals(self) -> None:
        for row in self.lines("control_totals.jsonl"):
            self.count("files balanced")
            if row["received"] != sum(
                row[name] for name in ("accepted", "duplicate", "superseded", "rejected", "waiting")
            ):
                self.find("control totals", f"file {row['sha256']} ({row['file_name']}) does not balance")

    def rows(self) -> None:
        """Every row has its leaf and every leaf its row, by source and billing day; content is hashed again, merged
        rows are merged again, what follows from other columns is computed again.

        The days are those the log has payload hashes of, or those the auditor asked for. Days of the log that the
        export has no rows of are reported, and found with --every-day.
        """
        filed: dict[str, list[Filed]] = {}
        wanted: set[tuple[str, str]] = set()
        for index, (kind, day, flat, retired) in enumerate(self.entries):
            for key in {day or "all", "all"}:
                filed.setdefault(key, []).append((index, kind, flat, retired))
            for source, (bound, _) in SOURCES.items():
                if flat and kind in bound and (day or source in WHOLE):
                    wanted.add((source, "all" if source in WHOLE or day is None else day))
        there = set()
        for name in self.manifest["files"]:
            if name.startswith("rows/"):
                _, source, table, day = name.split("/")
                there.add((source, day.removesuffix(".jsonl")))
                known = TABLES.get(source, {}).keys() | {DETAILS.get(source, ("",))[0], *BESIDE.get(source, ())}
                known |= REPLACED.get(source, {}).keys()
                if source == "reference":
                    known = {f"ref.{name}{more}" for name in REFERENCE for more in ("", "_version")}
                if table not in known:
                    self.find("rows", f"{name}: this program knows no table {table} of {source}")
        for source, day in sorted(wanted | there):
            if source not in SOURCES or (self.days and source not in WHOLE and day not in self.days):
                continue
            if (source, day) not in there:
                self.absent.add(day)
                if self.every_day or day in self.days or source in WHOLE:
                    about = f"the log has payloads of {source} on {day}, and the export has no rows of them"
                    self.find("rows", about)
                continue
            if source == "reference":
                self.reference()
            else:
                self.group(source, day, filed.get(day, ()))

    def reference(self) -> None:
        """Every row of reference data, and every earlier version of one, is a leaf of the entry of its record time, and
        every such leaf has its row. A column that an entry does not name is from after it: it is in no leaf of its own.
        """
        found: dict[str, set[bytes]] = {}
        names: dict[bytes, str] = {}
        before: list[tuple[str, Row]] = []
        for table, (key, known) in REFERENCE.items():
            # by (record time, key): the row that ended then and the one that began
            changes: dict[tuple[str, tuple[Any, ...]], list[Row | None]] = {}
            for more in ("", "_version"):
                for row in self.of("reference", f"ref.{table}{more}", "all"):
                    self.count(f"rows of ref.{table}{more}")
                    of = tuple(row[name] for name in key)
                    until = row.pop("known_until", None)
                    began = instant_of(row["known_from"])
                    if began == BEFORE_HISTORY:
                        before.append((table, row))
                    changes.setdefault((began, of), [None, None])[1] = row
                    if until is not None:
                        changes.setdefault((instant_of(until), of), [None, None])[0] = row
            for (instant, of), (old, new) in changes.items():
                if instant == BEFORE_HISTORY:
                    continue
                named = self.changes[instant][2] if instant in self.changes else None
                columns = known if named is None else named.get(table, ())
                leaf = change_leaf(table, old, new, columns)
                found.setdefault(instant, set()).add(leaf)
                names[leaf] = f"ref.{table} {' '.join(map(str, of))}"
        for instant in sorted(found.keys() | self.changes.keys()):
            index, leaves, _, _ = self.changes.get(instant, (None, set(), None, None))
            for leaf in found.get(instant, set()) - leaves:
                self.find("row without leaf", f"reference data of {instant} UTC: {names[leaf]}", index)
            for leaf in leaves - found.get(instant, set()):
                self.find("leaf without row", f"reference data of {instant} UTC: {leaf.hex()}", index)
        said = next((each for each in reversed(self.changes.values()) if each[3] is not None), None)
        if said is not None:
            index, _, columns_by_table, held = said
            flat = sorted(
                change_leaf(table, None, row, (columns_by_table or {}).get(table, REFERENCE[table][1]))
                for table, row in before
            )
            if held != {"rows": len(flat), "sha256": sha256(b"".join(flat)).hex()}:
                about = f"reference data: {len(flat)} rows from before history was kept are not those the log holds"
                self.find("content", about, index)

    def group(self, source: str, day: str, entries: Sequence[Filed]) -> None:
        """One source on one billing day, or as a whole."""
        bound, optional = SOURCES[source]
        live: dict[bytes, int] = {}
        allowed: set[bytes] = set()
        last: dict[bytes, tuple[int, int]] = {}
        for index, kind, flat, retired in entries:
            hashes = [flat[at : at + 32] for at in range(0, len(flat), 32)]
            repair = kind == f"repair of {source}"
            if kind in bound or repair:
                if source in RETIRING or repair:
                    for h in hashes[len(hashes) - retired :]:
                        live.pop(h, None)
                    hashes = hashes[: len(hashes) - retired]
                live.update((h, index) for h in hashes if h not in live)
                last.update((h, (index, at)) for at, h in enumerate(hashes))
            elif kind in optional:
                allowed.update(hashes)
        billed = any(kind in bound for _, kind, _, _ in entries)
        # A day from before a table's leaves began.
        excused = {table for table in SINCE if billed and (table, day) not in self.whole}
        lines: dict[str, list[Row]] = self.details(source, day) if source in DETAILS else {}
        before = len(self.findings)
        present: set[bytes] = set()
        kept: Kept = {}
        begun: set[tuple[str, Any]] = set()
        histories = {MERGED[table][0] for table in TABLES[source] if table in MERGED}
        for table, (column, encodings) in TABLES[source].items():
            for row in self.of(source, table, day):
                self.count(f"rows of {table}")
                begun.add(("starts_at", row.get("starts_at")))
                if "starts_at" in row and row.get("slots"):
                    step, whole = row["interval_minutes"], row["slots"] * row["interval_minutes"]
                    # An interval longer than an hour may be cut short or left over on the day of a clock change.
                    if step <= 60 or 1440 % step or abs(whole - 1440) > max(60, step):
                        begun.add(("interval_minutes", whole))
                carried = self.row(table, row, column, encodings, (live, allowed), lines, table in excused)
                present.add(carried)
                if misshapen(row):
                    continue
                if table in MERGED and row["payloads"] > 1:
                    kept.setdefault(table, {})[tuple(row[k] for k in MERGED[table][1])] = [row]
                for owner, (versions, key) in VERSIONS.items():
                    if table in (owner, versions):
                        held = kept.setdefault(table, {}).setdefault(tuple(row[k] for k in key), [])
                        held.append((row["version"], last.get(carried, (-1, 0)), carried))
                if table in histories:
                    names = next(of[1] for of in MERGED.values() if of[0] == table)
                    kept.setdefault(table, {}).setdefault(tuple(row[k] for k in names), []).append(row)
        for table in excused & TABLES[source].keys():
            self.count(f"days of {table} from before its leaves began")
        for orphan in sorted(lines):
            self.find("row without leaf", f"lines of {orphan}, which is no row of {DETAILS[source][1]}")
        for name in ("starts_at", "interval_minutes"):
            if source not in WHOLE and len({value for key, value in begun if key == name and value is not None}) > 1:
                self.find("derived column", f"{source} {day}: rows of one billing day differ in {name}")
        for table in TABLES[source]:
            if table in MERGED:
                self.merged(table, kept)
            if table in VERSIONS:
                self.versions(table, kept)
        for missing in live.keys() - present:
            self.find("leaf without row", f"{source} {day}: {missing.hex()}", live[missing])
        # A row that is not its leaf's is found already; its entry's content is not its own either.
        if source in BESIDE and len(self.findings) == before:
            self.contents(source, day, entries)
        if source in STATES:
            self.standing(source, day)
        if source in REPLACED:
            self.versions_of(source, day, entries)

    def versions_of(self, source: str, day: str, entries: Sequence[Filed]) -> None:
        """Rows that were replaced have leaves that were retired, each no more often than it was; a day has as many as
        its entries say. Entries from before they said so leave that open.
        """
        retired: dict[bytes, int] = {}
        said: dict[str, int] = {}
        all_say = True
        for index, kind, flat, gone in entries:
            if kind not in SOURCES[source][0]:
                continue
            for at in range(len(flat) - 32 * gone, len(flat), 32):
                retired[flat[at : at + 32]] = retired.get(flat[at : at + 32], 0) + 1
            for table, rows in self.replaced.get(index, {}).items():
                said[table] = said.get(table, 0) + rows
            all_say &= not gone or index in self.replaced
        for table, encodings in REPLACED[source].items():
            left, count = dict(retired), 0
            for row in self.of(source, table, day):
                count += 1
                leaves = [sha256(ENCODINGS[encoding](row)) for encoding in encodings]
                known = next((leaf for leaf in leaves if left.get(leaf, 0) > 0), None)
                if known is not None:
                    left[known] -= 1
                elif all_say:
                    self.find("row without leaf", f"{table} {day}: {leaves[0].hex()}")
                if table in DERIVED:
                    self.derived(table, row, DERIVED[table](row))
            self.count(f"rows of {table}", count)
            if count < said.get(table, 0) or (all_say and count > said.get(table, 0)):
                check = "leaf without row" if count < said.get(table, 0) else "row without leaf"
                self.find(check, f"{table} {day}: {count} rows, the day's entries say {said.get(table, 0)}")

    def standing(self, source: str, day: str) -> None:
        """Rows that change in steps are as the last entry about them says; none is without an entry, none is gone."""
        table, key, _ = STATES[source]
        held = {row[key]: row for row in self.of(source, table, day)}
        self.count(f"rows of {table}", len(held))
        said = {value: row for (name, _, value), row in self.states.items() if name == table}
        for value, row in said.items():
            if value not in held:
                self.find("state", f"{table} {value}: its row is gone")
                continue
            for column, text in row.items():
                now = held[value].get(column)
                now = None if now is None else printed(now)
                if now != text:
                    self.find("state", f"{table} {value}: {column} is {now!r}, its last entry says {text!r}")
        for value in held.keys() - said.keys() - self.named:
            self.find("state", f"{table} {value}: no entry is about it")

    def of(self, source: str, table: str, day: str) -> Iterator[Row]:
        """The rows of a table on a day. The first line of a file names the table, and decides nothing."""
        name = f"rows/{source}/{table}/{day}.jsonl"
        if name not in self.manifest["files"]:
            return
        lines = self.lines(name)
        if next(lines, {}).get("table") != table:
            self.find("rows", f"{name} does not say that it is of {table}")
        yield from lines

    def contents(self, source: str, day: str, entries: Sequence[Filed]) -> None:
        """Rows that an entry says the hash of as a whole are that still: which table, columns and rows, the signed
        entry says.
        """
        said = [
            (index, self.said[index])
            for index, kind, _, _ in entries
            if kind in SOURCES[source][0] and index in self.said
        ]
        # In a log from before days were said as a whole, a day of register-only meters may have no entry.
        always = next((columns is not None for _, _, columns, _ in self.changes.values()), False)
        if always and not any(kind in SOURCES[source][0] for _, kind, _, _ in entries):
            for table in WHOLE_DAYS.get(source, ()):
                if stray := sum(1 for _ in self.of(source, table, day)):
                    self.find("row without leaf", f"{table} {day}: {stray} rows of a day that no entry is about")
        if not said:
            return
        owner = {row["statement_id"]: row["ledger_entry"] for row in self.of(source, "billing.statement", day)}
        # A part that names its rows by the value of a column ("of") needs no owner.
        held = {
            table: list(self.of(source, table, day))
            for table in {part["table"] for _, (_, parts) in said for part in parts}
        }
        # Of rows that several entries name by the same value, the last entry says what they are.
        last = {
            (part["table"], *(part.get("of") or (entry_id,))): (index, entry_id, part)
            for index, (entry_id, parts) in said
            for part in parts
        }
        for index, entry_id, part in last.values():
            column, value = part.get("of") or (None, None)
            rows = [
                row
                for row in held[part["table"]]
                if (row[column] == value if column else owner.get(row["statement_id"]) == entry_id)
            ]
            rows.sort(key=lambda row: [row[name] for name in part["key"]])
            whole = "\x1e".join("\x1f".join(printed(row[name]) for name in part["columns"]) for row in rows)
            self.count(f"contents of {part['table']}", len(rows))
            if len(rows) != part["rows"] or sha256(whole.encode()).hex() != part["sha256"]:
                self.find(
                    "content",
                    f"{part['table']} of entry {entry_id}: its rows are not those that were written",
                    index,
                )

    def details(self, source: str, day: str) -> dict[str, list[Row]]:
        """Statement -> its lines."""
        found: dict[str, list[Row]] = {}
        table = DETAILS[source][0]
        for row in self.of(source, table, day):
            self.count(f"rows of {table}")
            found.setdefault(row["statement_id"], []).append(row)
        return found

    def row(
        self,
        table: str,
        row: Row,
        column: str | None,
        encodings: Sequence[str],
        leaves: tuple[dict[bytes, int], set[bytes]],
        lines: dict[str, list[Row]],
        excused: bool = False,
    ) -> bytes:
        """One row: its content, that its leaf is in the log, and the columns that follow from it. Returns the leaf."""
        live, allowed = leaves
        if column is not None and misshapen(row):
            carried = raw_bytes(row[column])
            why = f"a row of {table} has not one value for each of its slots; its leaf is {carried.hex()}"
            self.find("row", why, live.get(carried))
            return carried
        again: bytes | None = None
        follows: Callable[[Row], Row] = DERIVED.get(table, lambda _: {})
        if "mp-statement/1" in encodings:
            mine = lines.pop(row["statement_id"], [])
            again = sha256(encode_statement(row, [(line["line_no"], line_text(line)) for line in mine]))
            follows = lambda row: derived_statement(row, mine)  # noqa: E731
        elif "mp-salted/1" in encodings and row["salt"] is None:
            self.unsalted(row)
        elif not (table in MERGED and MERGED[table][3] and row["payloads"] > 1):
            made = [sha256(ENCODINGS[encoding](row)) for encoding in encodings]
            again = next((h for h in made if h in live or h in allowed), made[0])
        if again is not None:
            self.count("rows hashed again")
        if column is not None:
            carried = raw_bytes(row[column])
        elif again is not None:
            carried = again
        else:
            raise ValueError(f"{table}: a row without a leaf")
        if carried not in live and carried not in allowed:
            if not excused:
                self.find("row without leaf", f"{table}: {carried.hex()}")
        elif again is not None and again != carried:
            self.find(
                "row", f"a row of {table} does not have the content of its leaf {carried.hex()}", live.get(carried)
            )
        else:
            self.derived(table, row, follows(row))
        return carried

    def derived(self, table: str, row: Row, made: Row) -> None:
        for name, value in made.items():
            # A column that is not in the export is not vouched for, and nobody can read it there.
            if name in row and row[name] != value:
                self.find("derived column", f"{table}: {name} is {row[name]}, the rest of the row gives {value}")

    def merged(self, table: str, kept: Kept) -> None:
        """Rows that several payloads were merged to are what those payloads give."""
        history, _, compare, _ = MERGED[table]
        current, payloads = kept.get(table, {}), kept.get(history, {})
        for key in current.keys() | payloads.keys():
            self.count(f"merged rows of {table}")
            rows, given = current.get(key, []), payloads.get(key, [])
            if not rows or not given or rows[0]["payloads"] != len(given):
                said = rows[0]["payloads"] if rows else 1
                self.find("merged row", f"{table} {key}: it says {said} payloads, {history} has {len(given)}")
            elif wrong := compare(rows[0], given):
                self.find("merged row", f"{table} {key}: {', '.join(wrong)} not what its payloads give")

    def versions(self, table: str, kept: Kept) -> None:
        """No earlier version of a row stands as the current one."""
        current, earlier = kept.get(table, {}), kept.get(VERSIONS[table][0], {})
        for key in current.keys() & earlier.keys():
            [(number, place, leaf)] = current[key]
            for version, before, old in earlier[key]:
                if old != leaf and (version >= number or before > place):
                    self.find("version", f"{table} {key}: version {version} is newer than the current {number}")

    def unsalted(self, row: Row) -> None:
        """A rejected line without a salt was erased, and an entry says so; or it was recorded when its key was its
        leaf."""
        content = sha256(raw_bytes(row["raw"])).hex()
        places = ["" if row[name] is None else str(row[name]) for name in ("line", "byte_offset")]
        first = "\x1f".join(("mpd1", row["file_sha256"].removeprefix("\\x"), *places, content))
        leaf = row["leaf"].removeprefix("\\x")
        if leaf not in self.erased and sha256(first.encode()).hex() != leaf:
            self.find("erasure", f"{leaf} of raw.dead_letter was erased without an entry")

    def guards(self) -> None:
        """What kept honest hands off: owner, grants by column, ENABLE ALWAYS triggers, forced row security; and that
        nobody touched them since."""
        found = json.loads((self.folder / "guards.json").read_text(encoding="utf-8"))
        problems = [f"table {name} is gone" for name in GUARDED if name not in found["tables"]]
        for name, table in found["tables"].items():
            if table["owner_can_login"] or not (table["row_security"] and table["forced"]):
                problems.append(f"table {name}: its owner can log in or row security is not forced")
        triggers = {(row["table"], row["name"]): row for row in found["triggers"]}
        for name in GUARDED:
            problems += [
                f"trigger {trigger} on {name} is gone or not ENABLE ALWAYS"
                for trigger in ("only_grows", "never_truncated")
                if triggers.get((name, trigger), {}).get("enabled") != "A"
            ]
        for grant in found["grants"]:
            allowed = (grant["table"], grant["privilege"]) in MAY_WRITE.get(grant["grantee"], ())
            known = grant["grantee"] in MAY_WRITE or grant["grantee"] == "meter_auditor"
            own = {grant["column"], f"{grant['table']}.{grant['column']}"} & NEVER_WRITTEN
            if (
                grant["grantable"]
                or not known
                or (grant["privilege"] != "SELECT" and (not allowed or not grant["column"] or own))
            ):
                problems.append(
                    f"{grant['grantee']} may {grant['privilege']} {grant['table']}.{grant['column'] or '*'}"
                )
        problems += [f"{member}, a login" for member in found["owner_members"]]
        self.count("guards", len(triggers))
        if self.recorded_guards is None:
            if self.tree.size:
                problems.append("the guards were never recorded in the log")
        else:
            now = {f"table {name}": table["version"] for name, table in found["tables"].items()}
            for what, listed in (("trigger", "triggers"), ("policy", "policies")):
                now.update({f"{what} {row['name']} on {row['table']}": row["version"] for row in found[listed]})
            now.update({f"function {row['name']}": row["version"] for row in found["functions"]})
            before = self.recorded_guards["versions"]
            problems += [
                f"{name} was altered since the guards were last recorded"
                for name in sorted(before.keys() | now)
                if before.get(name) != now.get(name)
            ]
        for problem in problems:
            self.find("guards", problem)


def climb(index: int, size: int, leaf: bytes, proof: Iterable[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        raise ValueError("the place is outside the tree")
    last, result = size - 1, leaf
    for step in proof:
        if last == 0:
            raise ValueError("the proof is too long")
        if index & 1 or index == last:
            result = node(step, result)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            result = node(result, step)
        index, last = index >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return result


def proven_row(row: Row, payload: bytes, line: int | None) -> str | None:
    """What is wrong with the row of a proof bundle, or None."""
    table = row.get("table")
    if table == "billing.statement":
        texts = [(given["line_no"], line_text(given)) for given in row["lines"]]
        if line is not None and line not in [number for number, _ in texts]:
            return "the line is not in the bill"
        if sha256(encode_statement(row, texts)) != payload:
            return "the row is not what was recorded"
        due = derived_statement(row, row["lines"])["total"]
        return (
            None
            if decimal.Decimal(str(row["total"])) == due
            else f"the bill's total is {row['total']}, its lines give {due}"
        )
    encodings = next((tables[table][1] for tables in TABLES.values() if table in tables), None)
    if encodings is None:
        return f"this program knows no table {table}"
    made = [sha256(ENCODINGS[encoding](row)) for encoding in encodings]
    return None if payload in made else "the row is not what was recorded"


def check_proof(bundle: Row, keys: Sequence[Key], held: Sequence[Held]) -> str | None:
    """What is wrong with a proof bundle, or None."""
    try:
        if bundle["format"] != "mp-ledger-proof/1":
            raise ValueError("this is not a proof this program knows")
        payload, body = bytes.fromhex(bundle["payload_hash"]), base64.b64decode(bundle["entry"])
        row = bundle["row"]
        if row is not None and (why := proven_row(row, payload, bundle.get("line"))):
            raise ValueError(why)
        batch, log = bundle["batch"], bundle["log"]
        leaves = json.loads(body)["leaves"]
        root = climb(
            batch["index"], batch["size"], sha256(b"\x00" + payload), [bytes.fromhex(step) for step in batch["proof"]]
        )
        if root.hex() != leaves["root"] or batch["size"] != leaves["count"]:
            raise ValueError("the payload is not in the entry's batch")
        text, signatures = read_note(bundle["checkpoint"])
        origin, size, stated = read_checkpoint(text)
        if (
            climb(log["index"], log["size"], sha256(b"\x00" + body), [bytes.fromhex(step) for step in log["proof"]])
            != stated
            or size != log["size"]
        ):
            raise ValueError("the entry is not in the checkpoint's tree")
        if not [key for key in signed_by(text, signatures, keys) if key.kind == 1 and key.name == origin]:
            raise ValueError("the checkpoint is not signed by the key you trust")
        for name, held_size, held_root, _ in held:
            if held_size == size and held_root != stated:
                raise ValueError(f"another root than your {name} states for the same size: the log was forked")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("export", type=Path, nargs="?")
    parser.add_argument("--proof", type=Path, help="check a proof of one read or bill instead of an export")
    parser.add_argument("--vkey", required=True, help="file (or text) with the log's verifier key")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        help="a checkpoint you kept (or a folder of them); may be repeated",
    )
    parser.add_argument(
        "--witness-vkey",
        action="append",
        default=[],
        help="file (or text) with a witness's verifier key; may be repeated",
    )
    parser.add_argument(
        "--require-witness",
        action="store_true",
        help="a log without a cosignature by one of your witnesses does not pass",
    )
    parser.add_argument(
        "--tsa-ca",
        type=Path,
        help="certificates (PEM) of the time-stamp authority: verify the export's time stamps, with openssl",
    )
    parser.add_argument(
        "--day",
        action="append",
        default=[],
        help="check the rows of this billing day (YYYY-MM-DD), which must be here; may be repeated",
    )
    parser.add_argument(
        "--every-day",
        action="store_true",
        help="the rows of every billing day in the log must be here",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document")
    options = parser.parse_args(arguments)
    try:
        key_text = Path(options.vkey).read_text(encoding="utf-8") if Path(options.vkey).is_file() else options.vkey
        keys = [Key(key_text.split()[0])]
        witnesses = [Key(Path(k).read_text(encoding="utf-8") if Path(k).is_file() else k) for k in options.witness_vkey]
        held = []
        for path in (
            p for given in options.checkpoint for p in (sorted(given.iterdir()) if given.is_dir() else [given])
        ):
            text, signatures = read_note(path.read_text(encoding="utf-8"))
            _, size, root = read_checkpoint(text)
            held.append((path.name, size, root, (text, signatures)))
        if options.proof:
            bundles = json.loads(options.proof.read_text(encoding="utf-8"))["proofs"]
            problems = [check_proof(bundle, keys, held) for bundle in bundles]
            report: Row = {
                "ok": bool(bundles) and not any(problems),
                "proofs": len(bundles),
                "problems": [problem for problem in problems if problem],
            }
            print(json.dumps(report) if options.json else "OK" if report["ok"] else f"NOT OK: {report['problems']}")
            return 0 if report["ok"] else 1
        if options.export is None:
            raise ValueError("name an export, or --proof")
        audit = Audit(
            options.export,
            keys,
            held,
            witnesses,
            options.require_witness,
            options.tsa_ca,
            options.day,
            options.every_day,
        )
        (options.export / "manifest.json").read_bytes()
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        print(f"verify_ledger: {error}", file=sys.stderr)
        return 2
    try:
        report = audit.run()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        audit.find("export", f"cannot be read: {error!r}", audit.tree.size)
        report = {
            "ok": False,
            "first_bad_index": min(f["index"] for f in audit.findings if f["index"] is not None),
            "findings": audit.findings,
        }
    if options.json:
        print(json.dumps(report))
    else:
        print("OK" if report["ok"] else f"NOT OK, first bad place in the log: {report['first_bad_index']}")
        if absent := report.get("days_without_rows"):
            print(
                f"  not checked: the rows of {len(absent)} billing days that are not in this export ({absent[0]} to {absent[-1]}); ask for them"
            )
        for finding in report["findings"]:
            print(f"  {finding['check']} at {finding['index']}: {finding['detail']}")
        for name, count in report.get("checked", {}).items():
            print(f"  checked {name}: {count}")
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
