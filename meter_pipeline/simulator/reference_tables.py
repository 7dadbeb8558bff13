"""The city on paper: every reference table, its tariffs and its head-ends' declarations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.simulator.city import CLASSES, Block, block
from meter_pipeline.simulator.feeds_out import fixed_offset_s
from meter_pipeline.simulator.network import members, network_rows
from meter_pipeline.simulator.plan import Plan, PlantedDefect, collector_size
from meter_pipeline.simulator.registers import ExchangeDials
from meter_pipeline.simulator.spec import (
    DECIMALS,
    LETTER,
    REGISTER_HEAD_END,
    UNIT,
    Segment,
    Spec,
    meter_id,
    service_point_id,
)
from meter_pipeline.simulator.tariff_documents import TARIFFS, UNIT_TARIFFS, document, next_month
from meter_pipeline.simulator.usage import city_temperatures
from meter_pipeline.simulator.weather import STATIONS
from meter_pipeline.simulator.writers import decimal_text

_OPENED = date(2015, 1, 1)
_OPENED_TEXT = _OPENED.isoformat()
_CHUNK = 50_000
Row = tuple[Any, ...]
_CYCLE_STARTS = (1, 8, 15, 22)


def write_reference(spec: Spec, plan: Plan, exchanged: list[ExchangeDials], out: Path) -> None:
    """Write utility.toml, reference/*.csv, tariffs/*.json and head_ends/*.toml under ``out``."""
    (out / "reference").mkdir(parents=True, exist_ok=True)
    # Billing days begin with a month, so that the opening register reads of the day before the first have a day to
    # belong to.
    month = (spec.start - timedelta(days=1)).replace(day=1)
    (out / "utility.toml").write_text(
        f'# The municipality this folder describes.\nname = "{spec.name}"\nzone = "{spec.zone}"\ncurrency = "USD"\nlocale = "en_US"\n'
        f'first_billing_day = "{month.isoformat()}"\n',
        "utf-8",
    )
    started: set[str] = set()
    for pieces in _pieces(spec, plan, exchanged):
        for name, rows in pieces.items():
            frame = pl.DataFrame(rows, schema=dict.fromkeys(TABLES[name].columns, pl.String), orient="row")
            with (out / "reference" / f"{name}.csv").open("ab" if name in started else "wb") as file:
                frame.write_csv(file, include_header=name not in started, null_value="")
            started.add(name)
    _write_tariffs(spec, out)
    _write_head_ends(spec, out)


def reference_rows(spec: Spec, plan: Plan, exchanged: list[ExchangeDials]) -> dict[str, list[Row]]:
    """Rows of every reference table, cells as text, in the order of schemas/reference.py."""
    found: dict[str, list[Row]] = {}
    for pieces in _pieces(spec, plan, exchanged):
        for name, rows in pieces.items():
            found.setdefault(name, []).extend(rows)
    return found


def _pieces(spec: Spec, plan: Plan, exchanged: list[ExchangeDials]) -> Iterator[dict[str, list[Row]]]:
    """The tables a piece at a time, so that a large city is never held: first the small tables, then a chunk of service
    points each."""
    yield _small_tables(spec)
    premises = max(spec.counts.values())
    largest = next(c for c, n in spec.counts.items() if n == premises)
    for first in range(0, premises, _CHUNK):
        classes = block(spec, largest, first, min(first + _CHUNK, premises)).customer_class.tolist()
        yield {"accounts": [(f"A-{first + k:07d}", CLASSES[c], _OPENED_TEXT, None) for k, c in enumerate(classes)]}
    exchanges = {(e.commodity, e.index): e for e in exchanged}
    for segment in spec.segments:
        stories = _paper_stories(plan, segment.commodity)
        for first in range(segment.first, segment.last, _CHUNK):
            found: dict[str, list[Row]] = {
                n: [] for n in ("service_points", "meters", "channels", "installations", "accounts", "agreements")
            }
            traits = block(spec, segment.commodity, first, min(first + _CHUNK, segment.last))
            for row in range(traits.size):
                _service_point(spec, segment, traits, row, stories, exchanges, found)
            if spec.network:
                points = {
                    traits.first + k: service_point_id(segment.commodity, traits.first + k) for k in range(traits.size)
                }
                found["zone_members"] = list(members(spec, segment.commodity, points))
            yield {name: rows for name, rows in found.items() if rows}
    if spec.network:
        yield {name: rows for name, rows in network_rows().items() if rows}


def _small_tables(spec: Spec) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {"tariffs": []}
    found["weather_stations"] = [
        (station, f"Cedar Fork {'Airport' if k == 0 else 'West'}", f"{41.6 + 0.1 * k:.2f}", f"{-93.6 - 0.2 * k:.2f}")
        for k, station in enumerate(STATIONS)
    ]
    found["weather"] = list(_weather(spec))
    years = range((spec.start - timedelta(days=spec.history_days)).year, spec.end.year + 1)
    found["holidays"] = [(day.isoformat(), name) for year in years for day, name in federal_holidays(year)]
    found["billing_cycles"] = list(_cycles(spec))
    turn = next_month(spec.start)
    for tariff, commodity in tariffs_of(spec).items():
        found["tariffs"].append((tariff, commodity, "1", "2015-01-01", turn.isoformat(), f"{tariff.lower()}-v1.json"))
        found["tariffs"].append((tariff, commodity, "2", turn.isoformat(), None, f"{tariff.lower()}-v2.json"))
    return found


def tariffs_of(spec: Spec) -> dict[str, str]:
    """The city's tariffs and their commodity: those of services by the unit only where it has such services."""
    return TARIFFS | UNIT_TARIFFS if spec.network else TARIFFS


def _paper_stories(plan: Plan, commodity: str) -> Mapping[int, PlantedDefect]:
    kinds = ("usage_on_disconnected", "vacant", "move", "no_agreement", "tariff_change", "wrong_multiplier")
    return {s.index: s for s in plan.of_kind(*kinds) if s.commodity == commodity}


def _service_point(
    spec: Spec,
    segment: Segment,
    traits: Block,
    row: int,
    stories: Mapping[int, PlantedDefect],
    exchanges: Mapping[tuple[str, int], ExchangeDials],
    found: dict[str, list[Row]],
) -> None:
    commodity, index = segment.commodity, traits.first + row
    point = service_point_id(commodity, index)
    customer = CLASSES[int(traits.customer_class[row])]
    story = stories.get(index)
    fixed = (
        point,
        commodity,
        f"P-{index:07d}",
        f"R-{index // 250:05d}",
        customer,
        f"{41.5 + index % 997 / 5000:.4f}",
        f"{-93.7 + index % 1009 / 5000:.4f}",
        STATIONS[int(traits.station[row])],
    )
    stretches: list[tuple[str, date, date | None]] = [("active", _OPENED, None)]
    if story is not None and story.kind in ("usage_on_disconnected", "vacant"):
        status = "disconnected" if story.kind == "usage_on_disconnected" else "inactive"
        begin, end = spec.day(story.first), spec.day(story.last + 1)
        stretches = [("active", _OPENED, begin), (status, begin, end), ("active", end, None)]
    found["service_points"].extend(
        (*fixed, status, a.isoformat(), b.isoformat() if b else None) for status, a, b in stretches
    )
    mistyped = story is not None and story.kind == "wrong_multiplier"
    _meters(spec, segment, traits, row, exchanges.get((commodity, index)), found, ratio=10 if mistyped else 1)
    tariff = _tariff(commodity, traits, row)
    cycle = f"CYCLE-{1 + int(traits.cycle[row]) % 4}"
    account = f"A-{index:07d}"
    begun = spec.start if cycle == spec.taken_over else _OPENED

    def since(until: str | None) -> str:
        # An agreement that ends on the day of the take-over was never taken over.
        return begun.isoformat() if until is None or until > begun.isoformat() else _OPENED_TEXT

    if story is not None and story.kind == "no_agreement":
        last = spec.day(story.first).isoformat()
        found["agreements"].append((account, point, tariff, cycle, since(last), last))
    elif story is not None and story.kind == "tariff_change":
        turn = spec.day(story.first).isoformat()
        found["agreements"].append((account, point, tariff, cycle, since(turn), turn))
        found["agreements"].append((account, point, "E-TOU", cycle, turn, None))
    elif story is not None and story.kind == "move":
        out, came = spec.day(story.first), spec.day(story.first + 2)
        newcomer = f"A-{LETTER[commodity]}{index:07d}"
        found["accounts"].append((newcomer, customer, came.isoformat(), None))
        found["agreements"].append((account, point, tariff, cycle, since(out.isoformat()), out.isoformat()))
        found["agreements"].append((newcomer, point, tariff, cycle, came.isoformat(), None))
    else:
        found["agreements"].append((account, point, tariff, cycle, since(None), None))


def _tariff(commodity: str, traits: Block, row: int) -> str:
    if commodity != "electricity":
        return "W-STD" if commodity == "water" else "G-STD"
    if int(traits.customer_class[row]) != 0:
        return "E-COM"
    if float(traits.solar[row]) > 0:
        return "E-NEM"
    return "E-TOU" if bool(traits.time_of_use[row]) else "E-RES"


def _meters(
    spec: Spec,
    segment: Segment,
    traits: Block,
    row: int,
    exchange: ExchangeDials | None,
    found: dict[str, list[Row]],
    *,
    ratio: int,
) -> None:
    """A service point's meters, channels and installations. ``ratio`` is how far off the multiplier on paper is."""
    commodity, index = segment.commodity, traits.first + row
    point = service_point_id(commodity, index)
    decimals = DECIMALS[commodity]
    collector = f"C-{segment.head_end}-{(index - segment.first) // collector_size(spec):04d}"
    installed = f"{2024 - int(traits.installed_years[row]):04d}-06-01T15:00:00Z"
    ids = [meter_id(commodity, index)]
    if exchange is None:
        found["installations"].append((point, ids[0], installed, None, decimal_text(0, decimals), None))
    else:
        ids.append(meter_id(commodity, index, exchanged=True))
        midnight = spec.calendar.start_s(exchange.day)
        removed, placed = _instant(midnight + exchange.removed_s), _instant(midnight + exchange.installed_s)
        found["installations"].append(
            (
                point,
                ids[0],
                installed,
                removed,
                decimal_text(0, decimals),
                decimal_text(exchange.removal_read, decimals),
            )
        )
        found["installations"].append(
            (point, ids[1], placed, None, decimal_text(exchange.install_read, decimals), None)
        )
    register_only = segment.file_format == "register"
    main = {"electricity": "E1", "water": "W1", "gas": "G1"}[commodity]
    unit, interval = UNIT[commodity], str(segment.interval_minutes)
    multiplier, dials = str(int(traits.multiplier[row]) * ratio), str(int(traits.dials[row]))
    for meter in ids:
        model = {"electricity": "KV-2", "water": "WM-58", "gas": "DG-250"}[commodity]
        found["meters"].append((meter, commodity, segment.head_end, model, collector))
        if register_only:
            found["channels"].append(
                (meter, "R1", "register", unit, None, "import", multiplier, dials, str(decimals), None, "true", None)
            )
            continue
        pairs = [(main, "R1", "import")]
        if float(traits.solar[row]) > 0:
            pairs.append(("B1", "R2", "export"))
        for channel, register, flow in pairs:
            found["channels"].append(
                (meter, channel, "interval", unit, interval, flow, "1", None, None, None, "true", None)
            )
            found["channels"].append(
                (
                    meter,
                    register,
                    "register",
                    unit,
                    None,
                    flow,
                    multiplier,
                    dials,
                    str(decimals),
                    channel,
                    "false",
                    None,
                )
            )


def _instant(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _weather(spec: Spec) -> Iterator[Row]:
    first = spec.start - timedelta(days=spec.history_days)
    stations = city_temperatures(spec.seed, first, spec.history_days + spec.days + 2)
    for station, days in zip(STATIONS, stations, strict=True):
        for k in range(spec.history_days + spec.days):
            low, high = int(days[k, 0]), int(days[k, 1])
            yield station, (first + timedelta(days=k)).isoformat(), decimal_text(low, 1), decimal_text(high, 1), None


def _cycles(spec: Spec) -> Iterator[Row]:
    """Monthly periods of four cycles, from two months before the first day to two after the last."""
    month = date((spec.start - timedelta(days=62)).year, (spec.start - timedelta(days=62)).month, 1)
    while month < spec.end + timedelta(days=62):
        later = next_month(month)
        for k, day in enumerate(_CYCLE_STARTS):
            yield f"CYCLE-{k + 1}", month.replace(day=day).isoformat(), later.replace(day=day).isoformat()
        month = later


def federal_holidays(year: int) -> list[tuple[date, str]]:
    """United States federal holidays of a year, without shifts for weekends (5 U.S.C. 6103)."""

    def weekday(month: int, which: int, day_of_week: int) -> date:
        first = date(year, month, 1)
        return first + timedelta(days=(day_of_week - first.weekday()) % 7 + 7 * (which - 1))

    last_of_may = date(year, 5, 31)
    return [
        (date(year, 1, 1), "New Year's Day"),
        (weekday(1, 3, 0), "Martin Luther King Jr. Day"),
        (weekday(2, 3, 0), "Presidents Day"),
        (last_of_may - timedelta(days=last_of_may.weekday()), "Memorial Day"),
        (date(year, 6, 19), "Juneteenth"),
        (date(year, 7, 4), "Independence Day"),
        (weekday(9, 1, 0), "Labor Day"),
        (weekday(10, 2, 0), "Columbus Day"),
        (date(year, 11, 11), "Veterans Day"),
        (weekday(11, 4, 3), "Thanksgiving Day"),
        (date(year, 12, 25), "Christmas Day"),
    ]


def _write_tariffs(spec: Spec, out: Path) -> None:
    folder = out / "tariffs"
    folder.mkdir(parents=True, exist_ok=True)
    for tariff in tariffs_of(spec):
        for version, start in ((1, _OPENED), (2, next_month(spec.start))):
            text = json.dumps(document(tariff, version, start), indent=1)
            (folder / f"{tariff.lower()}-v{version}.json").write_text(text + "\n", "utf-8")


_QUALITY = {"OK": "A", "TEST": "A:90", "OVERFLOW": "A:95"}


def head_end_declarations(spec: Spec) -> dict[str, dict[str, Any]]:
    """What each head-end of the city declares, in the fields of feeds/head_ends.py."""
    offset = fixed_offset_s(spec) // 60
    sign = "-" if offset < 0 else "+"
    common = {"meter_id": "meter_id", "channel": "channel", "sequence": "sequence", "source_version": "version"}
    interval = {**common, "quality": "quality"}
    register = {**common, "time": "read_at", "value": "dial"}
    found: dict[str, dict[str, Any]] = {}
    for segment in spec.segments:
        name, minutes = segment.head_end, segment.interval_minutes
        base: dict[str, Any] = {"name": name, "format": segment.file_format, "commodity": segment.commodity}
        if name == "AMI":
            found[name] = base | {
                "interval_minutes": minutes,
                "unit": "kWh",
                "columns": interval | {"time": "interval_start", "value": "kwh"},
                "quality_map": _QUALITY,
            }
        elif name == "WATER":
            found[name] = base | {
                "zone": spec.zone,
                "interval_minutes": minutes,
                "unit": "gal",
                "columns": interval | {"time": "local_time", "value": "gallons"},
                "quality_map": _QUALITY,
            }
        elif name == "GAS":
            found[name] = base | {
                "stamp": "end",
                "interval_minutes": minutes,
                "unit": "CCF",
                "columns": interval | {"time": "interval_end", "value": "ccf"},
                "quality_map": _QUALITY,
            }
        elif segment.file_format == "jsonl":
            keys = {
                "meter_id": "meter",
                "channel": "channel",
                "time": "start",
                "value": "value",
                "unit": "unit",
                "sequence": "seq",
                "source_version": "ver",
                "quality": "q",
            }
            found[name] = base | {"interval_minutes": minutes, "columns": keys, "quality_map": _QUALITY}
        elif segment.file_format == "nem12":
            found[name] = base | {"zone": f"{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"}
        elif segment.file_format == "cmep":
            found[name] = base | {"zone": "+00:00", "stamp": "end", "constants": {"channel": "E1"}}
        else:
            found[name] = base | {
                "format": "delimited",
                "kind": "register",
                "zone": spec.zone,
                "unit": UNIT[segment.commodity],
                "columns": register,
            }
    if spec.registers:
        for commodity in {s.commodity: None for s in spec.segments if s.file_format != "register"}:
            name = REGISTER_HEAD_END[commodity]
            found[name] = {
                "name": name,
                "format": "delimited",
                "commodity": commodity,
                "kind": "register",
                "unit": UNIT[commodity],
                "columns": register,
            }
    return found


def _write_head_ends(spec: Spec, out: Path) -> None:
    folder = out / "head_ends"
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in head_end_declarations(spec).items():
        plain = [f"{k} = {json.dumps(v)}" for k, v in fields.items() if not isinstance(v, dict)]
        tables = [
            f"\n[{k}]\n"
            + "\n".join(f"{json.dumps(a) if not a.isidentifier() else a} = {json.dumps(b)}" for a, b in v.items())
            for k, v in fields.items()
            if isinstance(v, dict)
        ]
        (folder / f"{name.lower()}.toml").write_text(
            "\n".join(plain) + "\n" + "\n".join(tables) + ("\n" if tables else ""), "utf-8"
        )
