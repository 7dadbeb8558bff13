"""A city's feeds, reference data and truth, written to a folder.

Days are the outer loop and a file's worth of meters the inner one, so that a million meters need the memory of one file
and two integers per meter.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from meter_pipeline.simulator.city import block
from meter_pipeline.simulator.effects import DayRows, chunk_day
from meter_pipeline.simulator.feeds_out import Inbox, file_name, nem12_start, write_day, write_nem12, write_registers
from meter_pipeline.simulator.network import Network
from meter_pipeline.simulator.plan import Plan
from meter_pipeline.simulator.reference_tables import write_reference
from meter_pipeline.simulator.registers import Registers
from meter_pipeline.simulator.spec import Segment, Spec
from meter_pipeline.simulator.truth import truth_frame

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SimulatedCity:
    """Counts of the written files, reads and bytes of feeds, and rows of truth."""

    out: Path
    files: int
    reads: int
    size: int
    defects: int


def simulate(spec: Spec, out: Path, progress: Progress | None = None) -> SimulatedCity:
    """Write the city under ``out``: utility.toml, reference/, tariffs/, head_ends/, inbox/ and truth.parquet.

    ``out/inbox`` is replaced; other files of the same names are overwritten. ``progress`` is called with (done, of)
    after each chunk. The same spec gives the same bytes. Raises ValueError when ``out`` holds something that is not a
    simulated city.
    """
    out.mkdir(parents=True, exist_ok=True)
    inbox_folder = out / "inbox"
    if inbox_folder.exists():
        if not (out / "truth.parquet").exists() and any(inbox_folder.iterdir()):
            raise ValueError(f"{inbox_folder} was not written by a simulation: choose another folder")
        shutil.rmtree(inbox_folder)
    plan = Plan(spec)
    registers = Registers(spec, plan)
    inbox = Inbox(spec, out, resends=plan.of_kind("duplicate_file"))
    network = Network(spec) if spec.network else None
    chunks = [
        (s, a, min(a + spec.meters_per_file, s.last), k)
        for s in spec.segments
        for k, a in enumerate(range(s.first, s.last, spec.meters_per_file))
    ]
    done, of = 0, len(chunks) * spec.days
    if spec.registers:
        for segment, first, last, part in chunks:
            if segment.file_format != "register":
                write_registers(
                    inbox, segment, spec.start - timedelta(days=1), part, registers.opening(segment, first, last)
                )
    if network is not None:
        network.read(inbox, spec.start - timedelta(days=1), opening=True)
    for index in range(spec.days):
        day = spec.day(index)
        for segment, first, last, part in chunks:
            rows = chunk_day(spec, plan, segment, first, last, day)
            panels = np.flatnonzero(block(spec, segment.commodity, first, last).solar > 0)
            reads = registers.step(rows, panels)
            if network is not None:
                network.count(rows)
            if segment.file_format == "nem12":
                write_nem12(inbox, day, part, _pieces(spec, plan, segment, first, last, day, rows))
            else:
                write_day(inbox, rows, part)
            if spec.registers or segment.file_format == "register":
                write_registers(inbox, segment, day, part, reads)
            done += 1
            if progress is not None:
                progress(done, of)
        if network is not None:
            network.read(inbox, day)
    if nem12_start(spec, spec.end) < spec.calendar.start_s(spec.end):
        # The clocks went back: the last billing day ends in the next day of the head-end that never moves its clocks.
        for segment, first, last, part in chunks:
            if segment.file_format == "nem12":
                beyond = chunk_day(spec, plan, segment, first, last, spec.end)
                write_nem12(inbox, spec.end, part, _pieces(spec, plan, segment, first, last, spec.end, beyond))
    bad_files = list(_bad_files(inbox)) if spec.defects and spec.intensity > 0 and spec.meters >= 100 else []
    write_reference(spec, plan, registers.exchanged, out)
    truth = truth_frame(spec, plan, inbox.notes, registers.rollovers, registers.exchanged, bad_files)
    truth.write_parquet(out / "truth.parquet")
    return SimulatedCity(out, inbox.files, inbox.reads, inbox.size, truth.height)


def _pieces(spec: Spec, plan: Plan, segment: Segment, first: int, last: int, day: date, rows: DayRows) -> list[DayRows]:
    """The billing days that overlap a fixed-offset day, in order; ``rows`` is the one of the same date."""
    start = nem12_start(spec, day)
    found = []
    for other in (day - timedelta(days=1), day, day + timedelta(days=1)):
        begin, end = spec.calendar.start_s(other), spec.calendar.start_s(other + timedelta(days=1))
        if begin < start + 86_400 and end > start:
            found.append(rows if other == day else chunk_day(spec, plan, segment, first, last, other))
    return found


def _bad_files(inbox: Inbox) -> list[dict[str, Any]]:
    """Files that cannot be read at all: nothing in it, and not the declared text."""
    spec = inbox.spec
    day = min(1, spec.days - 1)
    found = []
    for kind, content in (
        ("empty_file", b""),
        ("garbage_file", b"\xff\xfem\x00e\x00t\x00e\x00r\x00_\x00i\x00d\x00\n\x00" + bytes(range(256))),
    ):
        name = file_name("AMI", "delimited", spec.day(day), 0, clock="1100", what=f"{kind.split('_')[0]}-")
        inbox.write("AMI", name, [content], 0)
        found.append({"kind": kind, "head_end": "AMI", "day": day, "file": name})
    return found
