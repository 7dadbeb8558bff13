"""Files for the customer system: records new or changed since the last delivery, written by a template, with a
manifest, and the acknowledgement that comes back."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from meter_pipeline.billing.tables.spellings import KINDS, as_written, spellings
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.outbound import tables
from meter_pipeline.outbound.contracts import Output
from meter_pipeline.outbound.templates import Template
from meter_pipeline.postgres.database import Database

_MANIFEST: Final = "meter-pipeline-delivery/1"


class DeliveryError(ValueError):
    """A record that is not in its contract, or an acknowledgement that cannot be read; the message says which."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file that was written. ``sums``: exact, by field. ``path`` None: there was nothing new to send."""

    path: Path | None
    output: str
    scope: str
    sequence: int
    records: int
    unchanged: int
    sums: dict[str, str]
    sha256: str

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Answer:
    """An acknowledgement of one file."""

    file_name: str
    status: str
    detail: str


def deliver(
    database: Database,
    template: Template,
    scope: str,
    records: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    by: str,
    clock: Clock = SYSTEM_CLOCK,
) -> Delivery:
    """Write the records of a scope that are new or changed since they were last sent; none twice.

    The file, its manifest (NAME.manifest.json) and what was sent stand together: the file is in place before the
    transaction commits, and a run that dies between the two writes the same file again. Raises DeliveryError,
    templates.TemplateError.
    """
    output = template.output
    keyed = _keyed(output, records)
    folder.mkdir(parents=True, exist_ok=True)
    with database.connect("delivery") as connection:
        tables.lock(connection, output.name, scope)
        sent = tables.sent_items(connection, output.name, scope)
        sequence = tables.next_sequence(connection, output.name, scope)
        items: list[tuple[str, int, bytes]] = []
        fresh: list[dict[str, Any]] = []
        for key, record in keyed.items():
            digest = _digest(record)
            before = sent.get(key)
            if before is not None and before[1] == digest:
                continue
            number = before[0] + 1 if before else 1
            items.append((key, number, digest))
            fresh.append(dict(record) | {"sequence": number})
        if not fresh:
            return Delivery(None, output.name, scope, sequence - 1, 0, len(keyed), {}, "")
        sums = _sums(output, fresh)
        now = clock.now()
        name = f"{output.name}_{re.sub(r'[^A-Za-z0-9.-]+', '-', scope)}_{sequence:04d}.{template.extension}"
        facts = {
            "records": str(len(fresh)),
            "date": now.strftime(template.date),
            "sequence": str(sequence),
            "scope": scope,
        }
        written = spellings(database, (record.get(field) for record in fresh for field in KINDS))
        content = template.text(
            [as_written(record, written) for record in fresh],
            facts | {f"sum_{field}": total for field, total in sums.items()},
        )
        digest = hashlib.sha256(content).digest()
        row = {
            "output": output.name,
            "contract": output.version,
            "scope": scope,
            "sequence": sequence,
            "template": template.name,
            "file_name": name,
            "records": len(fresh),
            "sums": sums,
            "sha256": digest,
            "written_by": by,
            "written_at": now,
        }
        number = tables.record(connection, row, items)
        _write(folder / name, content)
        manifest = (
            {"format": _MANIFEST, "delivery": number} | row | {"sha256": digest.hex(), "written_at": now.isoformat()}
        )
        _write(folder / f"{name}.manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
        connection.commit()
    return Delivery(
        folder / name, output.name, scope, sequence, len(fresh), len(keyed) - len(fresh), sums, digest.hex()
    )


def acknowledge(database: Database, path: Path, clock: Clock = SYSTEM_CLOCK) -> list[Answer]:
    """Read an acknowledgement: CSV with file_name and records, and where the customer system has them sha256, status
    (accepted or rejected) and detail. A file whose count or hash differs, or that is rejected, is disputed.

    All of the file counts or nothing of it. Raises DeliveryError naming the line.
    """
    rows = _answers(path)
    found: list[Answer] = []
    with database.connect("delivery") as connection:
        for line, row in rows:
            delivery = tables.delivery_of(connection, row["file_name"])
            if delivery is None:
                raise DeliveryError(f"{path}: line {line}: no file {row['file_name']!r} was written")
            number, records, digest, status = delivery
            wrong = _against(row, records, digest)
            new = "disputed" if wrong else "acknowledged"
            detail = "; ".join(wrong) or row.get("detail") or "taken"
            if status == "acknowledged" and new == "disputed":
                detail = f"acknowledged before; now {detail}"
            tables.answer(connection, number, new, int(row["records"]), detail, clock.now())
            found.append(Answer(row["file_name"], new, detail))
        connection.commit()
    return found


def _answers(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        reader = csv.DictReader(path.read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"{path}: {error}") from error
    if not {"file_name", "records"} <= set(reader.fieldnames or ()):
        raise DeliveryError(
            f"{path}: line 1: an acknowledgement has the columns file_name and records, and may have sha256, status, detail"
        )
    rows = []
    for row in reader:
        line = reader.line_num
        cells = {name: (value or "").strip() for name, value in row.items() if name}
        if not cells["records"].isdecimal():
            raise DeliveryError(f"{path}: line {line}: records is {cells['records']!r}, not a whole number")
        if cells.get("status", "") not in ("", "accepted", "rejected"):
            raise DeliveryError(f"{path}: line {line}: status is {cells['status']!r}, neither accepted nor rejected")
        rows.append((line, cells))
    return rows


def _against(row: Mapping[str, str], records: int, digest: bytes) -> list[str]:
    """Differences between the acknowledgement and our records."""
    wrong = []
    if int(row["records"]) != records:
        wrong.append(f"took {row['records']} records of {records}")
    if row.get("sha256") and row["sha256"].lower() != digest.hex():
        wrong.append("took a file of another content (SHA-256)")
    if row.get("status") == "rejected":
        wrong.append("rejected" + (f": {row['detail']}" if row.get("detail") else ""))
    return wrong


def _keyed(output: Output, records: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Records by key, each in its contract. Raises DeliveryError."""
    wanted = set(output.fields) - {"sequence"}
    found: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if set(record) != wanted:
            odd = sorted(set(record) ^ wanted)
            raise DeliveryError(f"{output.name}: a record differs from contract {output.version} in {', '.join(odd)}")
        for name, field in output.fields.items():
            if name == "sequence":
                continue
            value = record[name]
            if value is None and not field.nullable:
                raise DeliveryError(f"{output.name}: {name} is missing in {dict(record)}")
            if value is not None and field.one_of and value not in field.one_of:
                raise DeliveryError(f"{output.name}: {name} is {value!r}, none of {', '.join(field.one_of)}")
        key = "\x1f".join(str(record[name]) for name in output.key)
        if key in found:
            raise DeliveryError(f"{output.name}: two records of {' '.join(key.split(chr(31)))}")
        found[key] = record
    return found


def _sums(output: Output, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Exact sums of the fields that the contract has summed."""
    names = [name for name, field in output.fields.items() if field.summed]
    return {n: format(sum((Decimal(r[n]) for r in records if r[n] is not None), Decimal(0)), "f") for n in names}


def _digest(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(sorted(record.items())), default=_iso, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _iso(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
