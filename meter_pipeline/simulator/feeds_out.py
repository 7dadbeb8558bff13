"""The files of a day by head-end: on time, late, corrected, repeated.

A file is called ARRIVAL_HEADEND_DAY_PART, arrival first, so that names in order are files in the order they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from meter_pipeline.simulator.city import Ints
from meter_pipeline.simulator.effects import DayRows, RowEffects
from meter_pipeline.simulator.plan import PlantedDefect
from meter_pipeline.simulator.registers import RegisterReads
from meter_pipeline.simulator.spec import DECIMALS, REGISTER_HEAD_END, Segment, Spec
from meter_pipeline.simulator.writers import (
    STYLES,
    ReadLine,
    cmep,
    decimal_text,
    decimal_texts,
    json_lines,
    json_pieces,
    nem12,
    plain_lines,
    special_lines,
    stamp_text,
)

SUFFIX = {"delimited": "csv", "jsonl": "jsonl", "nem12": "nem12.csv", "cmep": "cmep", "register": "csv"}
#: sequence numbers count a meter's daily transmissions from here
_SEQUENCE_ORIGIN = date(2020, 1, 1).toordinal()


def sequence_of(day: date) -> int:
    """The transmission number of a billing day."""
    return day.toordinal() - _SEQUENCE_ORIGIN


@dataclass(slots=True)
class Inbox:
    """The folder head-ends drop files into. Counts what was written; ``resends`` are the stories of files sent
    twice.
    """

    spec: Spec
    out: Path
    files: int = 0
    reads: int = 0
    size: int = 0
    resends: list[PlantedDefect] = field(default_factory=list)
    notes: dict[int, dict[str, int | str]] = field(default_factory=dict)

    def write(self, head_end: str, name: str, blocks: Iterable[bytes], reads: int) -> Path:
        """Write one file whole; a reader that lists the folder never sees a part of it."""
        folder = self.out / "inbox" / head_end
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        hidden = folder / f".{name}.part"
        with hidden.open("wb") as file:
            for data in blocks:
                file.write(data)
                self.size += len(data)
        hidden.rename(path)
        self.files += 1
        self.reads += reads
        return path

    def note(self, story: int, **facts: int | str) -> None:
        self.notes.setdefault(story, {}).update(facts)


def file_name(
    segment_name: str, file_format: str, day: date, part: int, *, delay: int = 0, clock: str = "0215", what: str = ""
) -> str:
    arrival = day + timedelta(days=1 + delay)
    return f"{arrival:%Y%m%d}T{clock}_{segment_name}_{day:%Y%m%d}_{what}{part:02d}.{SUFFIX[file_format]}"


def write_day(inbox: Inbox, rows: DayRows, part: int) -> None:
    """Every file that a chunk of one head-end sends about a day (NEM12 apart, whose days are not billing days)."""
    inbox.notes.update({number: {**inbox.notes.get(number, {}), **facts} for number, facts in rows.notes.items()})
    if rows.segment.file_format == "delimited":
        _write_delimited(inbox, rows, part)
    elif rows.segment.file_format == "jsonl":
        _write_json(inbox, rows, part)
    elif rows.segment.file_format == "cmep":
        _write_cmep(inbox, rows, part)


def _base_seconds(spec: Spec, rows: DayRows) -> Ints:
    step = rows.segment.interval_minutes * 60
    start = spec.calendar.start_s(rows.day)
    return start + step * np.arange(rows.values.shape[1], dtype=np.int64)


def _lines(
    spec: Spec, rows: DayRows, row: int, special: RowEffects, *, first_version: bool, shift: int, decimals: int
) -> Iterator[ReadLine]:
    """The reads of one row. ``first_version`` takes what was reported before a correction; ``shift`` moves stamps to
    interval ends."""
    seconds = _base_seconds(spec, rows)
    values = special.first_values if first_version and special.first_values is not None else rows.values[row]
    version = 1 if special.first_values is not None and not first_version else 0
    if special.offset_s is not None:
        seconds = seconds + special.offset_s
    sequence = sequence_of(rows.day) + version
    meter, channel = rows.ids[row], rows.channels[row]
    bad = dict(special.bad)
    repeats = {slot: (value, story) for slot, value, story in special.repeats}
    for slot, (second, text) in enumerate(zip(seconds.tolist(), decimal_texts(values, decimals), strict=True)):
        quality = special.quality.get(slot, "OK")
        story = bad.get(slot)
        if special.missing is None or not special.missing[slot]:
            yield ReadLine(meter, channel, second + shift, text, sequence, version, quality)
        if story is not None and first_version:
            yield ReadLine(meter, channel, second + shift, text, sequence, version, quality, story)
        if slot in repeats and first_version:
            again, of = repeats[slot]
            yield ReadLine(
                meter, channel, second + shift, decimal_text(again, decimals), sequence, version, quality, of
            )


def _is_slow(rows: DayRows) -> list[int]:
    """Rows that need a line at a time: with a special report, or with a negative value."""
    negative = np.flatnonzero(rows.values.min(axis=1, initial=0) < 0).tolist()
    return sorted(set(rows.special) | set(negative))


def _write_delimited(inbox: Inbox, rows: DayRows, part: int) -> None:
    spec, segment = inbox.spec, rows.segment
    style = STYLES[segment.head_end]
    step = segment.interval_minutes * 60
    shift = step if style.end else 0
    slow = _is_slow(rows)
    plain = np.setdiff1d(np.arange(len(rows.ids)), slow)
    seconds = _base_seconds(spec, rows) + shift
    stamps = [stamp_text(s, spec.zone, style.stamp) + "," for s in seconds.tolist()]
    tail = f",{sequence_of(rows.day)},0,OK"
    prefixes = [f"{rows.ids[r]},{rows.channels[r]}," for r in plain.tolist()]
    name = file_name(segment.head_end, "delimited", rows.day, part)
    line_number = 1 + len(plain) * len(stamps)
    blocks = [style.header.encode() + b"\n"]
    later: dict[tuple[str, int], list[ReadLine]] = {}
    special_bytes: list[bytes] = []
    reads = len(plain) * len(stamps)
    for row in slow:
        special = rows.special.get(row, RowEffects())
        lines = list(_lines(spec, rows, row, special, first_version=True, shift=shift, decimals=style.decimals))
        if special.late_days:
            later.setdefault(("late", special.late_days), []).extend(lines)
            continue
        if special.rebroadcast_days:
            later.setdefault(("again", special.rebroadcast_days), []).extend(lines)
        if special.first_values is not None:
            corrected = _lines(spec, rows, row, special, first_version=False, shift=shift, decimals=style.decimals)
            later.setdefault(("corrected", special.correction_days), []).extend(corrected)
        for data, line in special_lines(lines, spec.zone, style):
            line_number += 1
            reads += 1
            special_bytes.append(data)
            if line.story is not None:
                inbox.note(line.story.number, file=name, line=line_number)

    def everything() -> Iterator[bytes]:
        yield from blocks
        if plain.size:
            yield from plain_lines(prefixes, stamps, rows.values[plain] if slow else rows.values, style.decimals, tail)
        yield b"".join(special_bytes)

    path = inbox.write(segment.head_end, name, everything(), reads)
    for (what, delay), lines in sorted(later.items()):
        late_name = file_name(segment.head_end, "delimited", rows.day, part, delay=delay, clock="0640", what=f"{what}-")
        content = b"".join(data for data, _ in special_lines(lines, spec.zone, style))
        inbox.write(segment.head_end, late_name, [style.header.encode() + b"\n", content], len(lines))
    if part == 0:
        _resend(inbox, rows, path, reads)


def _resend(inbox: Inbox, rows: DayRows, path: Path, reads: int) -> None:
    """The same bytes under another name, where a story says so."""
    for story in inbox.resends:
        if story.head_end == rows.segment.head_end and story.first == (rows.day - inbox.spec.start).days:
            name = file_name(rows.segment.head_end, "delimited", rows.day, 0, delay=1, clock="0930", what="resend-")
            inbox.write(rows.segment.head_end, name, [path.read_bytes()], reads)
            inbox.note(story.number, file=name, first_file=path.name)


def _write_json(inbox: Inbox, rows: DayRows, part: int) -> None:
    spec, segment = inbox.spec, rows.segment
    now: list[ReadLine] = []
    later: dict[tuple[str, int], list[ReadLine]] = {}
    slow = _is_slow(rows)
    plain = np.setdiff1d(np.arange(len(rows.ids)), slow)
    for row in slow:
        special = rows.special.get(row, RowEffects())
        lines = list(_lines(spec, rows, row, special, first_version=True, shift=0, decimals=3))
        if special.late_days:
            later.setdefault(("late", special.late_days), []).extend(lines)
            continue
        now.extend(lines)
        if special.first_values is not None:
            corrected = _lines(spec, rows, row, special, first_version=False, shift=0, decimals=3)
            later.setdefault(("corrected", special.correction_days), []).extend(corrected)
    name = file_name(segment.head_end, "jsonl", rows.day, part)
    pieces = [json_pieces(rows.ids[r], rows.channels[r], sequence_of(rows.day), 0, "OK") for r in plain.tolist()]
    stamps = [stamp_text(s, spec.zone, "utc") + '","value":' for s in _base_seconds(spec, rows).tolist()]

    def everything() -> Iterator[bytes]:
        if plain.size:
            yield from plain_lines([before for before, _ in pieces], stamps, rows.values[plain], 3, pieces[0][1])
        yield b"".join(json_lines(now, spec.zone))

    inbox.write(segment.head_end, name, everything(), len(plain) * len(stamps) + len(now))
    for (what, delay), lines in sorted(later.items()):
        late_name = file_name(segment.head_end, "jsonl", rows.day, part, delay=delay, clock="0640", what=f"{what}-")
        inbox.write(segment.head_end, late_name, [b"".join(json_lines(lines, spec.zone))], len(lines))


def _write_cmep(inbox: Inbox, rows: DayRows, part: int) -> None:
    spec, segment = inbox.spec, rows.segment
    ends = _base_seconds(spec, rows) + segment.interval_minutes * 60
    blocks = []
    reads = 0
    for row, meter in enumerate(rows.ids):
        special = rows.special.get(row, RowEffects())
        keep = np.ones(len(ends), np.bool_) if special.missing is None else ~special.missing
        blocks.append((meter, ends[keep].tolist(), rows.values[row][keep]))
        reads += int(keep.sum())
    name = file_name(segment.head_end, "cmep", rows.day, part)
    inbox.write(segment.head_end, name, cmep(blocks, rows.day, segment.interval_minutes), reads)


def write_nem12(inbox: Inbox, day: date, part: int, pieces: list[DayRows]) -> None:
    """A NEM12 file of the fixed-offset day, put together from the billing days it overlaps (``pieces``: same chunk,
    days in order)."""
    spec, segment = inbox.spec, pieces[0].segment
    step = segment.interval_minutes * 60
    start = nem12_start(spec, day)
    slots = 86_400 // step
    blocks = []
    keys = [(pieces[-1].ids[r], pieces[-1].channels[r]) for r in range(len(pieces[-1].ids))]
    for row, (meter, channel) in enumerate(keys):
        values, missing = np.zeros(slots, np.int64), np.ones(slots, np.bool_)
        for piece in pieces:
            inbox.notes.update({n: {**inbox.notes.get(n, {}), **facts} for n, facts in piece.notes.items()})
            at = (_base_seconds(spec, piece) - start) // step
            inside = (at >= 0) & (at < slots)
            values[at[inside]] = piece.values[row][inside]
            hidden = piece.special[row].missing if row in piece.special else None
            missing[at[inside]] = False if hidden is None else hidden[inside]
        if not missing.all():
            blocks.append((meter, channel, values, missing if missing.any() else None))
    name = file_name(segment.head_end, "nem12", day, part)
    inbox.write(segment.head_end, name, nem12(blocks, day, segment.interval_minutes), sum(len(b[2]) for b in blocks))


def fixed_offset_s(spec: Spec) -> int:
    """The NEM12 head-end's offset from UTC in seconds: the utility's own at the start of the first day, kept whatever
    the clocks do."""
    midnight = spec.calendar.start_s(spec.start)
    local = spec.start.toordinal() * 86_400 - date(1970, 1, 1).toordinal() * 86_400
    return local - midnight


def nem12_start(spec: Spec, day: date) -> int:
    """Unix seconds at which a fixed-offset day begins."""
    return (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400 - fixed_offset_s(spec)


REGISTER_HEADER = b"meter_id,channel,read_at,dial,sequence,version\n"


def write_registers(inbox: Inbox, segment: Segment, day: date, part: int, reads: RegisterReads) -> None:
    """The register reads of a chunk: midnight reads of interval meters, or what a drive-by vehicle collected."""
    if not reads.ids:
        return
    spec = inbox.spec
    start = spec.calendar.start_s(day)
    decimals = DECIMALS[segment.commodity]
    drive_by = segment.file_format == "register"
    head_end = segment.head_end if drive_by else REGISTER_HEAD_END[segment.commodity]
    sequence = sequence_of(day)
    name = file_name(
        segment.head_end if drive_by else f"{head_end}-{segment.head_end}", "register", day, part, clock="0130"
    )
    if not drive_by:
        write_midnight_reads(inbox, head_end, name, segment.commodity, day, reads)
        return
    lines = [
        f"{m},{c},{stamp_text(start + s, spec.zone, 'local')},{decimal_text(v, decimals)},{sequence},0\n".encode()
        for m, c, s, v in zip(reads.ids, reads.channels, reads.second.tolist(), reads.dial.tolist(), strict=True)
    ]
    inbox.write(head_end, name, _with_header(lines), len(lines))


def write_midnight_reads(
    inbox: Inbox, head_end: str, name: str, commodity: str, day: date, reads: RegisterReads
) -> None:
    """A file of dials that were all read at the same second of a day."""
    stamp = stamp_text(inbox.spec.calendar.start_s(day) + int(reads.second[0]), inbox.spec.zone, "utc") + ","
    prefixes = [f"{m},{c}," for m, c in zip(reads.ids, reads.channels, strict=True)]
    blocks = plain_lines(prefixes, [stamp], reads.dial[:, None], DECIMALS[commodity], f",{sequence_of(day)},0")
    inbox.write(head_end, name, _with_header(blocks), len(reads.ids))


def _with_header(blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield REGISTER_HEADER
    yield from blocks
