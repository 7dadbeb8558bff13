"""A folder of reference tables, read and checked whole: every fault named, nothing taken on trust."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from meter_pipeline.billing.back_billing import rules as back_billing
from meter_pipeline.billing.tariffs import (
    TariffRefusedError,
    line_of,
    parse_rider,
    parse_tariff,
    says_rider,
    shares_riders,
)
from meter_pipeline.ids import canonical_id
from meter_pipeline.leak_adjustments import rules as leak_rules
from meter_pipeline.reference.attributes import check_attributes
from meter_pipeline.reference.balances import check_balances
from meter_pipeline.reference.faults import Fault, ReferenceRefused
from meter_pipeline.reference.past_usage import check_past_usage
from meter_pipeline.reference.zones import check_zones
from meter_pipeline.schemas.reference import STRETCHES, TABLES, Table
from meter_pipeline.units import UnitError, base_unit, parse_decimal
from meter_pipeline.vee.rules.thresholds import ThresholdError, in_force
from meter_pipeline.winter_average import rules as winter_rules

ID = re.compile(r"[A-Z0-9-]{1,64}", re.ASCII)
#: A wrong export repeats its fault on every row; past this many the rest are counted, not listed.
MOST_FAULTS = 1000

#: Columns that came later and that a file may lack: they are empty then.
MAY_LACK = frozenset(
    {("channels.csv", "modulus")}
    | {("channel_values.csv", column) for column in ("unit", "interval_minutes", "sums_to")}
)

#: Tables that define ids: of what, by column. Their spelling is the customer system's.
DEFINES: Final[Mapping[str, Mapping[str, str]]] = {
    "accounts": {"account_id": "account"},
    "meters": {"meter_id": "meter"},
    "service_points": {"service_point_id": "service_point", "premise_id": "premise"},
}

#: By what an id names and the id in capitals: as it is written.
Spellings = dict[tuple[str, str], str]
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
    spellings: Spellings = {}
    for name, table in TABLES.items():
        path = folder / f"{name}.csv"
        if path.is_file():
            rows[name], lines[name] = _read_table(path, table, faults, spellings)
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
    found = {(kind, name): (kind, name, written) for (kind, name), written in spellings.items()}
    if found | given:
        rows["id_spellings"] = sorted((found | given).values())
    return rows, documents


def _read_table(
    path: Path, table: Table, faults: list[Fault], spellings: Spellings
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """A table's rows and their lines. ``spellings`` takes in the ids that the table defines and writes otherwise than
    in capitals."""
    name = path.name
    defined = DEFINES.get(path.stem, {})
    rows: list[tuple[Any, ...]] = []
    numbers: list[int] = []
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(Fault(name, 0, "", f"not UTF-8 at byte {error.start}"))
        return rows, numbers
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        missing = [c for c in table.columns if c not in header and (name, c) not in MAY_LACK]
        unknown = [c for c in header if c not in table.columns]
        if missing or unknown or len(set(header)) != len(header):
            faults.extend(Fault(name, 1, column, "column missing") for column in missing)
            faults.extend(Fault(name, 1, column, "unknown column") for column in unknown)
            if len(set(header)) != len(header):
                faults.append(Fault(name, 1, "", "a column stands twice"))
            return rows, numbers
        order = [header.index(c) if c in header else -1 for c in table.columns]
        kinds = list(table.columns.items())
        for cells in reader:
            line = reader.line_num
            if len(cells) != len(header):
                faults.append(Fault(name, line, "", f"{len(cells)} cells, {len(header)} expected"))
                continue
            row: list[Any] = []
            for at, (column, kind) in zip(order, kinds, strict=True):
                try:
                    row.append(_cell(cells[at] if at >= 0 else "", kind))
                    if column in defined and row[-1] != cells[at]:
                        spellings[defined[column], row[-1]] = cells[at]
                except ValueError as error:
                    faults.append(Fault(name, line, column, str(error)))
                    row.append(None)
            rows.append(tuple(row))
            numbers.append(line)
            if len(faults) >= MOST_FAULTS:
                faults.append(Fault(name, line, "", "too many faults; the rest was not read"))
                break
    except csv.Error as error:
        faults.append(Fault(name, reader.line_num, "", f"not CSV: {error}"))
    return rows, numbers


def _cell(text: str, kind: str) -> Any:
    if "\x00" in text:
        raise ValueError("a NUL byte")
    if kind.endswith("?"):
        if text == "":
            return None
        kind = kind[:-1]
    if kind == "text":
        return text
    if text == "":
        raise ValueError("empty")
    if kind.startswith("choice:"):
        if text not in kind[7:].split("|"):
            raise ValueError(f"{text[:40]!r} is not one of {kind[7:].replace('|', ', ')}")
        return text
    match kind:
        case "id":
            upper = text.upper()
            if not ID.fullmatch(upper) or not text.isascii():
                raise ValueError(f"{text[:40]!r} is not an id (A to Z, 0 to 9 and -, at most 64)")
            return upper
        case "long_id":
            found = canonical_id(text)
            if found is None:
                raise ValueError(
                    f"{text[:64]!r} is not an id (A to Z, 0 to 9 and -, at most 64; dots, slashes, _ and blanks inside)"
                )
            return text.upper()
        case "date":
            return date.fromisoformat(text)
        case "instant":
            instant = datetime.fromisoformat(text)
            if instant.tzinfo is None:
                raise ValueError(f"{text!r} has no zone")
            return instant.astimezone(UTC)
        case "decimal":
            return parse_decimal(text)
        case "integer":
            if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
                raise ValueError(f"{text[:40]!r} is not a whole number")
            return int(text)
        case "boolean":
            if text not in ("true", "false"):
                raise ValueError(f"{text[:40]!r} is neither true nor false")
            return text == "true"
        case _:
            raise AssertionError(kind)


def _read_documents(folder: Path, rows: Rows, faults: list[Fault]) -> Documents:
    documents: Documents = {}
    columns = list(TABLES["tariffs"].columns)
    found_at: dict[tuple[str, int], str] = {}
    for row in rows.get("tariffs", []):
        tariff = dict(zip(columns, row, strict=True))
        if tariff["document"] is None or tariff["tariff_id"] is None or tariff["version"] is None:
            continue
        name = str(tariff["document"])
        # Beside the tables, or beside their folder: reference/ and tariffs/ are siblings in a municipality's folder.
        found = next((p for p in (folder / "tariffs" / name, folder.parent / "tariffs" / name) if p.is_file()), None)
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
        key = [columns.index(c) for c in table.key]
        seen: dict[tuple[Any, ...], int] = {}
        for row, line in zip(rows[name], lines[name], strict=True):
            value = tuple(row[k] for k in key)
            if value in seen:
                faults.append(Fault(f"{name}.csv", line, ", ".join(table.key), f"the key of line {seen[value]} again"))
            seen[value] = line
        for column, target in table.references.items():
            other, _, their = target.partition(".")
            if other in rows:
                known = {r[list(TABLES[other].columns).index(their)] for r in rows[other]}
                at = columns.index(column)
                for row, line in zip(rows[name], lines[name], strict=True):
                    if row[at] is not None and row[at] not in known:
                        faults.append(Fault(f"{name}.csv", line, column, f"{row[at]} is not in {other}.csv"))
        if name in STRETCHES:
            _check_stretches(name, rows[name], lines[name], faults)
    check_zones(rows, lines, faults)
    _check_rules(rows, lines, faults)
    check_attributes(rows, lines, faults)
    _check_channel_values(rows, lines, faults)
    channels = [dict(zip(TABLES["channels"].columns, row, strict=True)) for row in rows.get("channels", [])]
    registers = {(c["meter_id"], c["channel"]) for c in channels if c["kind"] == "register"}
    for channel, line in zip(channels, lines.get("channels", []), strict=True):
        total = channel["sums_to"]
        if total is not None and (channel["meter_id"], total) in registers:
            # The sum check would never be made, and nothing would say so.
            why = f"{total} is a register: name the interval channel that this one must add up to"
            faults.append(Fault("channels.csv", line, "sums_to", why))
        if channel["kind"] == "interval" and total == channel["channel"]:
            why = f"{total} would add up to itself: sums_to is of the register that must add up to it"
            faults.append(Fault("channels.csv", line, "sums_to", why))
        try:
            base_unit(channel["unit"])
        except UnitError as error:
            faults.append(Fault("channels.csv", line, "unit", str(error)))
        if channel["kind"] == "interval" and (
            channel["interval_minutes"] is None or not 1 <= channel["interval_minutes"] <= 1440
        ):
            faults.append(
                Fault("channels.csv", line, "interval_minutes", "an interval channel needs 1 to 1440 minutes")
            )


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
        try:
            base_unit(value["unit"] or "kWh")
        except UnitError as error:
            faults.append(Fault("channel_values.csv", line, "unit", str(error)))
        if known is not None and tuple(row[:2]) not in known:
            faults.append(Fault("channel_values.csv", line, "channel", f"{row[0]} {row[1]} is not in channels.csv"))


def _check_stretches(name: str, rows: Iterable[tuple[Any, ...]], lines: list[int], faults: list[Fault]) -> None:
    """Stretches of one group must not overlap: two tariffs in force on a day would bill it twice."""
    how, columns = STRETCHES[name], list(TABLES[name].columns)
    group = [columns.index(c) for c in how.group]
    starts, ends = columns.index(how.starts), columns.index(how.ends)
    ordered = sorted(zip(rows, lines, strict=True), key=lambda r: (tuple(str(r[0][k]) for k in group), r[0][starts]))
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
