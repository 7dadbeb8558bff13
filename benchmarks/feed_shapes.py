"""Files of the shapes that docs/feeds.md names, with one day of quarter-hours each, for the benchmark of parsing.

Every shape holds the same reads, so that the time a read takes is compared with that of the plain file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from meter_pipeline.feeds.head_ends import DayColumns, HeadEnd, ValueColumn

DAY: Final = date(2026, 3, 2)
SLOTS: Final = 96
_START: Final = datetime(2026, 3, 2)  # noqa: DTZ001 - a wall clock, as files have it
_LOCAL: Final = [f"{_START + timedelta(minutes=15 * k):%Y-%m-%d %H:%M}" for k in range(SLOTS)]
_COLUMNS: Final = {"meter_id": "m", "time": "t", "value": "v"}

Values = list[list[int]]


def _head_end(**given: Any) -> HeadEnd:
    base: dict[str, Any] = {
        "zone": "America/Chicago",
        "interval_minutes": 15,
        "unit": "kWh",
        "columns": _COLUMNS,
        "constants": {"channel": "E1"},
    }
    return HeadEnd("bench", given.pop("format", "delimited"), **(base | given))


def _decimal(value: int, mark: str = ".") -> str:
    return f"{value // 1000}{mark}{value % 1000:03d}"


def _each(values: Values) -> Iterator[tuple[str, int, int]]:
    for meter, row in enumerate(values):
        for slot, value in enumerate(row):
            yield f"MTR-{meter:07d}", slot, value


def _plain(values: Values) -> Iterator[str]:
    yield "m,t,v\n"
    yield from (f"{meter},{_LOCAL[slot]},{_decimal(value)}\n" for meter, slot, value in _each(values))


def _comma(values: Values) -> Iterator[str]:
    yield "m;t;v\n"
    yield from (f"{meter};{_LOCAL[slot]};{_decimal(value, ',')}\n" for meter, slot, value in _each(values))


def _blanks(values: Values) -> Iterator[str]:
    yield "m, t, v,\n"
    yield from (f"{meter}, {_LOCAL[slot]}, {_decimal(value)},\n" for meter, slot, value in _each(values))


def _apart(values: Values) -> Iterator[str]:
    yield "m,d,h,v\n"
    for meter, slot, value in _each(values):
        day, clock = _LOCAL[slot].split()
        yield f"{meter},{day},{clock},{_decimal(value)}\n"


def _periods(values: Values) -> Iterator[str]:
    yield "m,t,p,v\n"
    yield from (f"{meter},2026-03-02,{slot + 1},{_decimal(value)}\n" for meter, slot, value in _each(values))


def _flag(values: Values) -> Iterator[str]:
    yield "m,t,s,v\n"
    yield from (f"{meter},{_LOCAL[slot]},S,{_decimal(value)}\n" for meter, slot, value in _each(values))


def _factors(values: Values) -> Iterator[str]:
    yield "m,t,v,f\n"
    for meter, slot, value in _each(values):
        yield f"{meter},{_LOCAL[slot]},{_decimal(value)},{1 + int(meter[-1]) * 10}\n"


def _residue(values: Values) -> Iterator[str]:
    yield "m,t,v\n"
    yield from (f"{meter},{_LOCAL[slot]},{_decimal(value)}4999999999\n" for meter, slot, value in _each(values))


def _four(values: Values) -> Iterator[str]:
    yield "m,t,a,b,c,d\n"
    for meter, row in enumerate(values):
        for k in range(0, SLOTS, 4):
            cells = ",".join(_decimal(value) for value in row[k : k + 4])
            yield f"MTR-{meter:07d},{_LOCAL[k]},{cells}\n"


def _day(values: Values) -> Iterator[str]:
    yield ",".join(["m", "t", *[f"h{k}" for k in range(SLOTS)]]) + "\n"
    for meter, row in enumerate(values):
        yield f"MTR-{meter:07d},2026-03-02," + ",".join(map(_decimal, row)) + "\n"


def _nested(values: Values) -> Iterator[str]:
    for meter, slot, value in _each(values):
        body = f'{{"id":"{meter}","tamper":0,"read":{{"v":{_decimal(value)}}}}}'
        yield f'{{"t":"{_LOCAL[slot]}","type":"SCM","message":{body}}}\n'


def _fixed(values: Values) -> Iterator[str]:
    yield from (f"{meter} {_LOCAL[slot]} {_decimal(value):>9}\n" for meter, slot, value in _each(values))


def _lines(values: Values) -> Iterator[str]:
    for meter, slot, value in _each(values):
        yield f'{{"t":"{_LOCAL[slot]}","m":"{meter}","v":{_decimal(value)}}}\n'


def _document(values: Values) -> Iterator[str]:
    yield '{"meters":['
    for meter, row in enumerate(values):
        reads = ",".join(f'{{"t":"{_LOCAL[slot]}","v":{_decimal(value)}}}' for slot, value in enumerate(row))
        yield f'{"," if meter else ""}{{"id":"MTR-{meter:07d}","reads":[{reads}]}}'
    yield "]}"


def _escapes(values: Values) -> Iterator[str]:
    yield '{"meters":['
    for meter, row in enumerate(values):
        reads = ",".join(
            f'{{"t":"{_LOCAL[slot].replace("-", chr(92) + "/")}","v":{_decimal(value)}}}'
            for slot, value in enumerate(row)
        )
        yield f'{"," if meter else ""}{{"id":"MTR-{meter:07d}","reads":[{reads}]}}'
    yield "]}"


def _marks(values: Values) -> Iterator[str]:
    yield '{"meters":['
    for meter, row in enumerate(values):
        reads = ",".join(f'{{"t":"{_LOCAL[slot]}","v":"{_decimal(value, ",")}"}}' for slot, value in enumerate(row))
        yield f'{"," if meter else ""}{{"id":"MTR-{meter:07d}","reads":[{reads}]}}'
    yield "]}"


def _side_by_side(values: Values) -> Iterator[str]:
    yield '{"meters":['
    times = ",".join(f'"{local}"' for local in _LOCAL)
    for meter, row in enumerate(values):
        counted = ",".join(map(_decimal, row))
        yield f'{"," if meter else ""}{{"id":"MTR-{meter:07d}","t":[{times}],"v":[{counted}]}}'
    yield "]}"


def _numbered(values: Values) -> Iterator[str]:
    yield '{"meters":['
    for meter, row in enumerate(values):
        yield f'{"," if meter else ""}{{"id":"MTR-{meter:07d}","day":"2026-03-02","v":[{",".join(map(_decimal, row))}]}}'
    yield "]}"


def _rows(values: Values) -> Iterator[str]:
    yield '{"meters":['
    for meter, row in enumerate(values):
        reads = ",".join(f'["{_LOCAL[slot]}",{_decimal(value)}]' for slot, value in enumerate(row))
        yield f'{"," if meter else ""}{{"id":"MTR-{meter:07d}","rows":[{reads}]}}'
    yield "]}"


#: shape -> (its lines, its declaration)
SHAPES: Final[dict[str, tuple[Callable[[Values], Iterator[str]], HeadEnd]]] = {
    "plain": (_plain, _head_end()),
    "decimal_comma": (_comma, _head_end(delimiter=";", decimal=",", thousands=".")),
    "blanks_and_trailing_delimiter": (_blanks, _head_end()),
    "date_and_time_apart": (_apart, _head_end(columns={"meter_id": "m", "time": ("d", "h"), "value": "v"})),
    "period_numbers": (_periods, _head_end(columns={**_COLUMNS, "period": "p"})),
    "clock_change_flag": (
        _flag,
        _head_end(columns={**_COLUMNS, "dst": "s"}, dst_map={"S": "first", "W": "second"}),
    ),
    "factor_column": (_factors, _head_end(columns={**_COLUMNS, "factor": "f"})),
    "rounded": (_residue, _head_end(rounding="half_even")),
    "average_power": (_plain, _head_end(unit="kW", average_power=True, rounding="half_even")),
    "four_values_a_row": (
        _four,
        _head_end(
            columns={"meter_id": "m", "time": "t"}, values=tuple(ValueColumn(letter, f"E{letter}") for letter in "abcd")
        ),
    ),
    "day_in_a_row": (
        _day,
        _head_end(columns={"meter_id": "m", "time": "t"}, day_columns=DayColumns("h0", SLOTS)),
    ),
    "fixed_width": (
        _fixed,
        _head_end(format="fixed", columns={"meter_id": "1-11", "time": "13-28", "value": "30-38"}),
    ),
    "json_lines": (_lines, _head_end(format="jsonl")),
    "nested_json_lines": (
        _nested,
        _head_end(format="jsonl", columns={"meter_id": "message.id", "time": "t", "value": "message.read.v"}),
    ),
    "json_document": (
        _document,
        _head_end(
            format="json", columns={"meter_id": "meters.id", "time": "meters.reads.t", "value": "meters.reads.v"}
        ),
    ),
    "json_escapes": (
        _escapes,
        _head_end(
            format="json",
            columns={"meter_id": "meters.id", "time": "meters.reads.t", "value": "meters.reads.v"},
            time_format="%Y/%m/%d %H:%M",
        ),
    ),
    "json_decimal_comma": (
        _marks,
        _head_end(
            format="json",
            columns={"meter_id": "meters.id", "time": "meters.reads.t", "value": "meters.reads.v"},
            decimal=",",
        ),
    ),
    "json_lists_side_by_side": (
        _side_by_side,
        _head_end(format="json", columns={"meter_id": "meters.id", "time": "meters.t", "value": "meters.v"}),
    ),
    "json_numbers_of_values": (
        _numbered,
        _head_end(
            format="json",
            columns={"meter_id": "meters.id", "time": "meters.day", "period": "meters.v.#", "value": "meters.v"},
        ),
    ),
    "json_places_in_lists": (
        _rows,
        _head_end(format="json", columns={"meter_id": "meters.id", "time": "meters.rows.0", "value": "meters.rows.1"}),
    ),
}


def make_shapes(folder: Path, meters: int, seed: int = 1) -> dict[str, tuple[Path, HeadEnd]]:
    """A file of each shape with the same day of some meters. Channels differ only where a row has several values."""
    values = np.random.default_rng(seed).integers(0, 3000, (meters, SLOTS)).tolist()
    made: dict[str, tuple[Path, HeadEnd]] = {}
    for name, (lines, head_end) in SHAPES.items():
        made[name] = folder / name, head_end
        with made[name][0].open("w", encoding="ascii") as file:
            file.writelines(lines(values))
    return made
