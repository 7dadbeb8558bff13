"""Handing bills between the two sides: the legacy batch takes ours from a folder of CSV files or a table, we
keep a copy of its.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger.entries import canonical_json
from meter_pipeline.migration import tables
from meter_pipeline.migration.dual_write import Deliver, Record
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import Settings
from meter_pipeline.units import from_micro

#: schema.table of plain words, nothing that SQL could read as more.
TABLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}")
#: Name of a delivered file: its number and the beginning of its content's hash.
_DELIVERED: Final = re.compile(r"([0-9]{8,})-([0-9a-f]{16})\.csv")
_COLUMNS: Final = ("billing_day", "account_id", "level", "code", "value", "estimated", "tariff_version")


@dataclass(frozen=True, slots=True)
class OurCopy:
    """Keeps the legacy batch's bills, so that we have every bill when authority comes to us."""

    database: Database
    clock: Clock = SYSTEM_CLOCK

    def __call__(self, records: Sequence[Record]) -> None:
        rows = [
            (r.billing_day, r.account_id, canonical_json(dict(r.payload)).decode(), r.sha256) for r in _latest(records)
        ]
        schema = {"billing_day": pl.Date, "account_id": pl.String, "payload": pl.String, "payload_sha256": pl.Binary}
        with self.database.connect("our copy") as connection:
            tables.put_customer_bills(connection, pl.DataFrame(rows, schema, orient="row"), self.clock.now())
            connection.commit()


@dataclass(frozen=True, slots=True)
class LegacyFolder:
    """Writes one CSV a batch, in the layout the legacy batch exports. Names are in order of delivery, and a later
    file's bill replaces an earlier one's.

    A file is complete when it has its name. The same batch again (its delivery was not noted, the process died) is
    recognised; the legacy side may move files away when it has read them.
    """

    folder: Path

    def __call__(self, records: Sequence[Record]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [",".join(_COLUMNS)]
        for record in _latest(records):
            lines += [",".join((str(record.billing_day), record.account_id, *cells)) for cells in _figures(record)]
        text = "\n".join(lines) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        last = self.folder / ".last"
        noted, before = last.read_text("utf-8").split() if last.exists() else ("0", "")
        # A process that died between the two writes below left a file with the next number, which may hold less than
        # the batch does now: two files of one number would be read in the order of their hashes.
        ours = [found for path in self.folder.iterdir() if (found := _DELIVERED.fullmatch(path.name))]
        number, before = max([(int(noted), before), *((int(f[1]), f[2]) for f in ours if int(f[1]) > int(noted))])
        if before != digest:
            number += 1
            _put(self.folder / f"{number:08}-{digest}.csv", text)
        _put(last, f"{number} {digest}")

    def figures(self) -> dict[tuple[str, str], list[tuple[str, ...]]]:
        """Returns the folder's bill of each (day, account), later files over earlier ones."""
        found: dict[tuple[str, str], list[tuple[str, ...]]] = {}
        for path in sorted(self.folder.glob("*.csv")):
            batch: dict[tuple[str, str], list[tuple[str, ...]]] = {}
            with path.open(encoding="utf-8", newline="") as handle:
                for day, account, *cells in list(csv.reader(handle))[1:]:
                    batch.setdefault((day, account), []).append(tuple(cells))
            found |= batch
        return found


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """Writes into a table of the legacy batch's own database: (billing_day, account_id, level, code, value numeric,
    estimated, tariff_version)."""

    database: Database
    table: str

    def __post_init__(self) -> None:
        if not TABLE.fullmatch(self.table):
            raise ValueError(f"{self.table!r} is not schema.table")

    def __call__(self, records: Sequence[Record]) -> None:
        latest = _latest(records)
        rows = [(r.billing_day, r.account_id, *cells[:4], cells[4] or None) for r in latest for cells in _figures(r)]
        with self.database.connect("to legacy") as connection:
            tables.replace_bills(
                connection, self.table, [(r.billing_day, r.account_id) for r in latest], _COLUMNS, rows
            )
            connection.commit()


def configured(database: Database, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> dict[str, Deliver]:
    """The sides of this deployment. METER_PIPELINE_LEGACY_TABLE (schema.table, in METER_PIPELINE_LEGACY_URL or our own
    database), else METER_PIPELINE_LEGACY_FOLDER, else ``to_legacy`` below the home folder."""
    table = os.environ.get("METER_PIPELINE_LEGACY_TABLE")
    legacy: Deliver
    if table:
        url = os.environ.get("METER_PIPELINE_LEGACY_URL")
        legacy = LegacyTable(Database(url) if url else Database(database.url), table)
    else:
        legacy = LegacyFolder(Path(os.environ.get("METER_PIPELINE_LEGACY_FOLDER") or settings.home / "to_legacy"))
    return {"legacy": legacy, "new": OurCopy(database, clock)}


def _put(path: Path, text: str) -> None:
    """A file whole or not at all, and on the disk when this returns."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("w", encoding="utf-8", newline="") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    beside.rename(path)


def _latest(records: Sequence[Record]) -> list[Record]:
    """The last of several records of one bill: an upsert may touch a row once."""
    return list({(r.billing_day, r.account_id): r for r in records}.values())


def _figures(record: Record) -> list[tuple[str, ...]]:
    return [
        (
            str(level),
            str(code),
            format(from_micro(int(value)), "f"),
            "true" if estimated else "false",
            "" if version is None else str(version),
        )
        for level, code, value, estimated, version in record.payload["figures"]
    ]
