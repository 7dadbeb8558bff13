"""A folder of reference tables, read and checked whole: every fault named, nothing taken on trust."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from typing import Any

from meter_pipeline.billing.back_billing import rules as back_billing
from meter_pipeline.billing.tariffs import (
    TariffRefusedError,
    line_of,
    parse_rider,
    parse_tariff,
    says_rider,
    shares_riders,
)
from meter_pipeline.leak_adjustments import rules as leak_rules
from meter_pipeline.reference.attributes import check_attributes
from meter_pipeline.reference.balances import check_balances
from meter_pipeline.reference.faults import Fault, ReferenceRefused
from meter_pipeline.reference.past_usage import check_past_usage
from meter_pipeline.reference.table_files import ID, TableFiles
from meter_pipeline.reference.zones import check_zones
from meter_pipeline.schemas.reference import STRETCHES, TABLES, Table
from meter_pipeline.units import UnitError, base_unit
from meter_pipeline.vee.rules.thresholds import ThresholdError, in_force
from meter_pipeline.winter_average import rules as winter_rules

Rows = dict[str, list[tuple[Any, ...]]]
Documents = dict[tuple[str, int], bytes]


def read_folder(folder: Path) -> tuple[Rows, Documents]:
    """Every table of a folder, parsed and checked, and the tariff documents by (tariff_id, version).

    Raises ReferenceRefused naming every fault: unknown columns, values that do not parse, keys that repeat, references
    that point nowhere, stretches of one key that overlap. Tables may be left out; a reference into one that is left out
    is checked against the database later.
    """
    rows: Rows = {}
    faults: list[Fault] = []
    lines: dict[str, list[int]] = {}
    files = TableFiles(faults)
    with _uncollected():
        for name, table in TABLES.items():
            path = folder / f"{name}.csv"
            if path.is_file():
                rows[name], lines[name] = files.read(path, table)
    if not rows and not faults:
        faults.append(
            Fault(
                str(folder), 0, "", f"no reference table here; expected any of {', '.join(f'{n}.csv' for n in TABLES)}"
            )
        )
    documents = _read_documents(folder, rows, faults)
    if not faults:
        _check_together(rows, lines, faults)
        check_balances(rows, lines, documents, faults)
        check_past_usage(rows, lines, faults)
    if faults:
        raise ReferenceRefused(faults)
    given = {row[:2]: row for row in rows.get("id_spellings", [])}
    found = {(kind, name): (kind, name, written) for (kind, name), written in files.spellings.items()}
    if found | given:
        rows["id_spellings"] = sorted((found | given).values())
    return rows, documents


@contextmanager
def _uncollected() -> Iterator[None]:
    """Rows are made without the collector of circles, which looks at all of them again and again: a quarter of the time
    of 720,000 rows."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def folder_sha256(folder: Path) -> bytes:
    """SHA-256 over the program's version, whose checks the files passed, and the name and bytes of each file that
    ``read_folder`` may read."""
    digest = hashlib.sha256(metadata.version("meter_pipeline").encode())
    tables = [folder / f"{name}.csv" for name in TABLES]
    documents = [path for place in _document_folders(folder) for path in sorted(place.glob("*"))]
    for path in (*tables, *documents):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\x1e{path.relative_to(folder.parent)}\x1f{content}".encode())
    return digest.digest()


def _document_folders(folder: Path) -> tuple[Path, Path]:
    """Beside the tables, or beside their folder: reference/ and tariffs/ are siblings in a municipality's folder."""
    return folder / "tariffs", folder.parent / "tariffs"


def _read_documents(folder: Path, rows: Rows, faults: list[Fault]) -> Documents:
    documents: Documents = {}
    columns = list(TABLES["tariffs"].columns)
    found_at: dict[tuple[str, int], str] = {}
    for row in rows.get("tariffs", []):
        tariff = dict(zip(columns, row, strict=True))
        if tariff["document"] is None or tariff["tariff_id"] is None or tariff["version"] is None:
            continue
        name = str(tariff["document"])
        found = next((p / name for p in _document_folders(folder) if (p / name).is_file()), None)
        if found is None or Path(name).name != name:
            faults.append(Fault("tariffs.csv", 0, "document", f"no file tariffs/{name}"))
            continue
        body = found.read_bytes()
        try:
            json.loads(body, parse_constant=_refuse_constant)
        except ValueError as error:
            faults.append(Fault(f"tariffs/{name}", 0, "", f"not JSON: {error}"))
            continue
        key = tariff["tariff_id"], tariff["version"]
        documents[key], found_at[key] = body, name
        if says_rider(body):
            try:
                since = parse_rider(body).valid_from
            except TariffRefusedError:
                continue  # told below
            if since != tariff["valid_from"]:
                why = f"is {since}, and {tariff['valid_from']} in tariffs.csv"
                faults.append(Fault(f"tariffs/{name}", line_of(body, "valid_from"), "valid_from", why))
    return _priced(documents, found_at, faults)


def _priced(documents: Documents, names: Mapping[tuple[str, int], str], faults: list[Fault]) -> Documents:
    """Documents that can be priced, the riders that tariffs share among them; the others are faults."""
    riders = tuple(body for _, body in sorted(documents.items()) if says_rider(body))
    kept: Documents = {}
    for key, body in documents.items():
        try:
            if says_rider(body):
                parse_rider(body)
            else:
                parse_tariff(body, riders if shares_riders(body) else ())
        except TariffRefusedError as error:
            faults.append(Fault(f"tariffs/{names[key]}", line_of(body, error.field), error.field, error.why))
            continue
        kept[key] = body
    return kept


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _check_together(rows: Rows, lines: Mapping[str, list[int]], faults: list[Fault]) -> None:
    for name, table in TABLES.items():
        if name not in rows:
            continue
        columns = list(table.columns)
        _check_keys(name, table, rows[name], lines[name], faults)
        for column, target in table.references.items():
            other, _, their = target.partition(".")
            if other in rows:
                theirs = itemgetter(list(TABLES[other].columns).index(their))
                defined = {None, *map(theirs, rows[other])}
                at = columns.index(column)
                if defined.issuperset(map(itemgetter(at), rows[name])):
                    continue
                for row, line in zip(rows[name], lines[name], strict=True):
                    if row[at] not in defined:
                        faults.append(Fault(f"{name}.csv", line, column, f"{row[at]} is not in {other}.csv"))
        if name in STRETCHES:
            _check_stretches(name, rows[name], lines[name], faults)
    check_zones(rows, lines, faults)
    _check_rules(rows, lines, faults)
    check_attributes(rows, lines, faults)
    _check_channel_values(rows, lines, faults)
    _check_channels(rows, lines, faults)


def _check_channels(rows: Rows, lines: Mapping[str, list[int]], faults: list[Fault]) -> None:
    columns = list(TABLES["channels"].columns)
    named = ("meter_id", "channel", "kind", "unit", "interval_minutes", "sums_to")
    channels = list(map(itemgetter(*map(columns.index, named)), rows.get("channels", [])))
    registers = {(meter, channel) for meter, channel, kind, *_ in channels if kind == "register"}
    wrong_units = {unit: why for unit in {row[3] for row in channels} if (why := _wrong_unit(unit)) is not None}
    for row, line in zip(channels, lines.get("channels", []), strict=True):
        meter, channel, kind, unit, minutes, total = row
        if total is not None and (meter, total) in registers:
            # The sum check would never be made, and nothing would say so.
            why = f"{total} is a register: name the interval channel that this one must add up to"
            faults.append(Fault("channels.csv", line, "sums_to", why))
        if kind == "interval" and total == channel:
            why = f"{total} would add up to itself: sums_to is of the register that must add up to it"
            faults.append(Fault("channels.csv", line, "sums_to", why))
        if unit in wrong_units:
            faults.append(Fault("channels.csv", line, "unit", wrong_units[unit]))
        if kind == "interval" and (minutes is None or not 1 <= minutes <= 1440):
            why = "an interval channel needs 1 to 1440 minutes"
            faults.append(Fault("channels.csv", line, "interval_minutes", why))


def _wrong_unit(unit: str) -> str | None:
    """What is wrong with a unit; None where it is known."""
    try:
        base_unit(unit)
    except UnitError as error:
        return str(error)
    return None


def _check_keys(
    name: str, table: Table, rows: Sequence[tuple[Any, ...]], lines: Sequence[int], faults: list[Fault]
) -> None:
    key = itemgetter(*(list(table.columns).index(c) for c in table.key))
    if len(set(map(key, rows))) == len(rows):
        return
    seen: dict[Any, int] = {}
    for row, line in zip(rows, lines, strict=True):
        value = key(row)
        if value in seen:
            faults.append(Fault(f"{name}.csv", line, ", ".join(table.key), f"the key of line {seen[value]} again"))
        seen[value] = line


def _check_rules(rows: Rows, lines: Mapping[str, list[int]], faults: list[Fault]) -> None:
    """Rules that could not be applied are refused before a bill asks for them."""
    for row, line in zip(rows.get("estimate_limits", []), lines.get("estimate_limits", []), strict=True):
        most = dict(zip(TABLES["estimate_limits"].columns, row, strict=True))["most_bills"]
        if most < 0:
            faults.append(Fault("estimate_limits.csv", line, "most_bills", f"{most} is below 0"))
    for row, line in zip(rows.get("validation_thresholds", []), lines.get("validation_thresholds", []), strict=True):
        try:
            in_force(((row[0], str(row[3])),))
        except ThresholdError as error:
            faults.append(Fault("validation_thresholds.csv", line, "threshold", str(error)))
    for row, line in zip(rows.get("heat_contents", []), lines.get("heat_contents", []), strict=True):
        zone, _, _, therms = row
        if zone != "*" and not ID.fullmatch(zone):
            why = f"{zone[:40]!r} is neither a zone in capitals (A to Z, 0 to 9 and -, at most 64) nor *"
            faults.append(Fault("heat_contents.csv", line, "zone_id", why))
        if not 0 < therms < 10:
            why = f"{therms} is not between 0 and 10: therms in 100 cubic feet, about 1"
            faults.append(Fault("heat_contents.csv", line, "therms_per_ccf", why))
    name = back_billing.TABLE
    for row, line in zip(rows.get(name, []), lines.get(name, []), strict=True):
        for column, why in back_billing.faults_of(dict(zip(TABLES[name].columns, row, strict=True))):
            faults.append(Fault(f"{name}.csv", line, column, why))
    for row, line in zip(rows.get("meter_tests", []), lines.get("meter_tests", []), strict=True):
        test = dict(zip(TABLES["meter_tests"].columns, row, strict=True))
        until = test["wrong_until"] or test["tested_on"]
        if not 0 <= test["percent_registration"] <= 1000:
            faults.append(Fault("meter_tests.csv", line, "percent_registration", "must be from 0 to 1000"))
        if until < test["tested_on"]:
            faults.append(Fault("meter_tests.csv", line, "wrong_until", f"{until} is before the test"))
        if test["wrong_since"] is not None and test["wrong_since"] >= until:
            faults.append(Fault("meter_tests.csv", line, "wrong_since", f"{test['wrong_since']} is not before {until}"))
    _check_winter_rules(rows, lines, faults)
    name = leak_rules.TABLE
    for row, line in zip(rows.get(name, []), lines.get(name, []), strict=True):
        try:
            leak_rules.rule_of(dict(zip(TABLES[name].columns, row, strict=True)))
        except leak_rules.LeakRefusedError as error:
            faults.append(Fault(f"{name}.csv", line, "", str(error)))


def _check_winter_rules(rows: Rows, lines: Mapping[str, list[int]], faults: list[Fault]) -> None:
    name = winter_rules.TABLE
    for row, line in zip(rows.get(name, []), lines.get(name, []), strict=True):
        for column, why in winter_rules.faults_of(dict(zip(TABLES[name].columns, row, strict=True))):
            faults.append(Fault(f"{name}.csv", line, column, why))


def _check_channel_values(rows: Rows, lines: Mapping[str, list[int]], faults: list[Fault]) -> None:
    """A row says something, of a channel that is there, and its multiplier counts up."""
    for row, line in zip(rows.get("meter_values", []), lines.get("meter_values", []), strict=True):
        if all(value is None for value in row[3:]):
            faults.append(Fault("meter_values.csv", line, "", "the row says nothing; fill one of its values"))
    columns = list(TABLES["channel_values"].columns)
    known = {tuple(row[:2]) for row in rows["channels"]} if "channels" in rows else None
    for row, line in zip(rows.get("channel_values", []), lines.get("channel_values", []), strict=True):
        value = dict(zip(columns, row, strict=True))
        if all(value[c] is None for c in columns[4:]):
            faults.append(Fault("channel_values.csv", line, "", "the row says nothing; fill one of its values"))
        if value["multiplier"] is not None and not 0 < value["multiplier"] <= 1_000_000:
            faults.append(Fault("channel_values.csv", line, "multiplier", "must be above 0 and at most 1000000"))
        if value["interval_minutes"] is not None and not 1 <= value["interval_minutes"] <= 1440:
            faults.append(Fault("channel_values.csv", line, "interval_minutes", "must be from 1 to 1440"))
        if (wrong := _wrong_unit(value["unit"] or "kWh")) is not None:
            faults.append(Fault("channel_values.csv", line, "unit", wrong))
        if known is not None and tuple(row[:2]) not in known:
            faults.append(Fault("channel_values.csv", line, "channel", f"{row[0]} {row[1]} is not in channels.csv"))


def _check_stretches(name: str, rows: Sequence[tuple[Any, ...]], lines: list[int], faults: list[Fault]) -> None:
    """Stretches of one group must not overlap: two tariffs in force on a day would bill it twice."""
    how, columns = STRETCHES[name], list(TABLES[name].columns)
    group = [columns.index(c) for c in how.group]
    starts, ends = columns.index(how.starts), columns.index(how.ends)
    ordered = list(zip(rows, lines, strict=True))
    if len(set(map(itemgetter(*group), rows))) < len(rows):  # else no group has two rows that could overlap
        ordered.sort(key=lambda r: (tuple(str(r[0][k]) for k in group), r[0][starts]))
    before: tuple[Any, ...] | None = None
    last = 0
    for row, line in ordered:
        if row[ends] is not None and row[ends] <= row[starts]:
            faults.append(Fault(f"{name}.csv", line, "", f"ends {row[ends]}, on or before its start {row[starts]}"))
        same = before is not None and all(before[k] == row[k] for k in group)
        if same and before is not None and (before[ends] is None or before[ends] > row[starts]):
            named = " ".join(str(row[k]) for k in group)
            why = f"overlaps the stretch that starts {before[starts]} (line {last}) of {named}"
            faults.append(Fault(f"{name}.csv", line, "", why))
        before, last = row, line
