"""Planning a billing day's load: which staged payloads are new, known or to be folded, and the batches they are cut
into.

A pass holds at most one payload of a key, so that its batches can be written in any order and at once. The first pass
of a day's first load goes straight into the unattached partition; every other pass is compared with the store first and
writes only what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.clock import Clock
from meter_pipeline.ingest import merge_versions, unordered
from meter_pipeline.ingest.dead_letter_rows import finish_letters, payload_letters
from meter_pipeline.ingest.tables import load
from meter_pipeline.ingest.tables.load import INTERVAL, Batch, FileShare, Kind
from meter_pipeline.ledger import entries
from meter_pipeline.ledger.tables.entries import EntryRow
from meter_pipeline.postgres import copy_binary
from meter_pipeline.postgres.database import Database

#: Actor of the ledger entries that ingestion writes.
ACTOR: Final = "ingest"
#: A batch names the files its rows came from in its ledger entry; more than this many and it is cut earlier.
MOST_FILES: Final = 40


@dataclass(frozen=True, slots=True)
class Source:
    """A staged file, to which its batches are accounted."""

    sha256: bytes
    file_name: str
    head_end: str
    commodity: str
    file_format: str = ""


@dataclass(slots=True)
class WritePlan:
    """Payloads to write, at most one a key. ``incoming`` has src, row, payload_hash, reads, accepted, duplicate,
    superseded, rejected; ``current`` and ``kept`` hold the rows to write with ``at``, the position in incoming that
    they belong to (sorted); ``rechecked`` the payloads of reads that a person must decide about, with ``at`` too
    (unordered.py).
    """

    kind: Kind
    day: date
    direct: bool
    incoming: pl.DataFrame
    current: pl.DataFrame
    kept: pl.DataFrame
    rechecked: pl.DataFrame = field(default_factory=pl.DataFrame)
    _cutter: _Cutter | None = None

    @property
    def cutter(self) -> _Cutter:
        """Columns for cutting batches, computed once a pass."""
        if self._cutter is None:
            self._cutter = _Cutter(self)
        return self._cutter

    @property
    def rows(self) -> int:
        return self.incoming.height


class _Cutter:
    """A pass as NumPy columns and encoders: Polars costs milliseconds a call, and a batch of two thousand rows has no
    more than that to spend."""

    def __init__(self, load_pass: WritePlan) -> None:
        incoming, columns = load_pass.incoming, load_pass.kind.columns
        self.src, self.row = incoming["src"].to_numpy(), incoming["row"].to_numpy()
        self.outcome = np.column_stack(
            [incoming[c].to_numpy() for c in ("accepted", "duplicate", "superseded", "rejected")]
        )
        self.hashes = incoming["payload_hash"]
        self.current_at, self.kept_at = load_pass.current["at"].to_numpy(), load_pass.kept["at"].to_numpy()
        self.current, self.kept = (
            copy_binary.Encoder(load_pass.current, columns),
            copy_binary.Encoder(load_pass.kept, columns),
        )


def lay_out(
    kind: Kind,
    frames: Sequence[pl.DataFrame],
    loaded: Mapping[int, Sequence[tuple[int, int]]],
    first_rows: Sequence[int] | None = None,
) -> list[pl.DataFrame]:
    """The staged payloads of a day by pass, ordered by file and row; ``loaded`` gives row ranges of a file that are
    committed already, ``first_rows`` the number of each file's first row (0 by default)."""
    parts = []
    for index, frame in enumerate(frames):
        if not frame.height:
            continue
        first_row = first_rows[index] if first_rows is not None else 0
        row = pl.int_range(first_row, first_row + frame.height, dtype=pl.Int64)
        numbered = frame.with_columns(src=pl.lit(index, pl.Int32), row=row)
        for first, past in loaded.get(index, ()):
            numbered = numbered.filter((pl.col("row") < first) | (pl.col("row") >= past))
        if numbered.height:
            parts.append(numbered)
    if not parts:
        return []
    whole = parts[0] if len(parts) == 1 else pl.concat(parts, how="diagonal")
    key = list(kind.key)
    if whole.select(key).n_unique() == whole.height:
        return [whole]
    turn = whole.select(pl.int_range(pl.len()).over(key)).to_series()
    return [whole.filter(turn == n) for n in range(int(turn.max()) + 1)]  # type: ignore[arg-type]  # an integer column's maximum


def first_pass(kind: Kind, day: date, incoming: pl.DataFrame) -> WritePlan:
    """Every payload new, straight into the day's unattached partition."""
    counted = incoming.select(
        "src",
        "row",
        "payload_hash",
        "reads",
        accepted="reads",
        duplicate=pl.lit(0, pl.Int64),
        superseded=pl.lit(0, pl.Int64),
        rejected=pl.lit(0, pl.Int64),
    )
    current = incoming.select(kind.columns).with_columns(at=pl.int_range(pl.len(), dtype=pl.Int64))
    return WritePlan(kind, day, True, counted, current, current.clear())


def later_pass(database: Database, kind: Kind, day: date, incoming: pl.DataFrame) -> WritePlan:
    """Payloads compared with the store: known ones write nothing, new keys are added, the rest folded with what is
    there.

    Read under the day's epoch: no other run writes the day, and no batch of this pass touches a key of another.
    """
    key = list(kind.key)
    numbered = incoming.with_columns(at=pl.int_range(pl.len(), dtype=pl.Int64))
    there = load.present(database, kind, day, numbered)
    several = there.filter(pl.col("payloads") > 1)
    hashes = load.kept_hashes(database, kind, day, several) if several.height else several.select(*key, "payload_hash")
    hashes = pl.concat(
        [there.filter(pl.col("payloads") == 1).select(*key, "payload_hash"), hashes.select(*key, "payload_hash")]
    )
    known = numbered.join(hashes, on=[*key, "payload_hash"], how="semi")["at"]
    present = numbered.join(there, on=key, how="semi")["at"]
    is_known = pl.col("at").is_in(known.implode())
    is_present = pl.col("at").is_in(present.implode())
    fresh = numbered.filter(~is_present)
    to_fold = numbered.filter(is_present & ~is_known)
    counts = [_counted(numbered.filter(is_known), "duplicate"), _counted(fresh, "accepted")]
    current = [fresh.select(*kind.columns, "at")]
    kept = [fresh.select(*kind.columns, "at").clear()]
    rechecked = to_fold.clear()
    if to_fold.height:
        before = load.current_rows(database, kind, day, to_fold)
        old = pl.concat(
            [
                before.filter(pl.col("payloads") == 1),
                load.kept_rows(database, kind, day, several.join(to_fold, on=key, how="semi")),
            ]
        )
        is_interval = kind is INTERVAL
        to_fold, rechecked = (unordered.settle_intervals if is_interval else unordered.settle_registers)(
            to_fold, old, before
        )
        counts.append(_counted(rechecked, "rejected"))
        # A payload that was asked about may be stored already.
        again = to_fold.join(hashes, on=[*key, "payload_hash"], how="semi")
        counts.append(_counted(again, "duplicate"))
        to_fold = to_fold.join(again.select("at"), on="at", how="anti", maintain_order="left")
        numbered = _with_own_hashes(numbered, to_fold) if rechecked.height else numbered
    if to_fold.height:
        touched = to_fold.select(key)
        before, old = (f.join(touched, on=key, how="semi", maintain_order="left") for f in (before, old))
        payloads = pl.concat([old, to_fold.select(kind.columns)]).with_columns(payloads=pl.lit(1, pl.Int16))
        after = (merge_versions.fold_intervals if is_interval else merge_versions.fold_registers)(payloads)
        outcome = (merge_versions.outcome_of_intervals if is_interval else merge_versions.outcome_of_registers)(
            before, after, to_fold
        )
        place = to_fold.select(*key, "at")
        done = pl.concat([to_fold.select("at"), outcome], how="horizontal")
        counts.append(done.with_columns(rejected=pl.lit(0, pl.Int64)).select("at", *_OUTCOMES))
        current.append(after.select(kind.columns).join(place, on=key, how="left", maintain_order="left"))
        kept.append(payloads.join(place, on=key, how="left", maintain_order="left").select(*kind.columns, "at"))
    summed = pl.concat(counts).group_by("at").agg(pl.col(_OUTCOMES).sum())
    counted = numbered.select("at", "src", "row", "payload_hash", "reads").join(
        summed, on="at", how="left", maintain_order="left"
    )
    return WritePlan(
        kind,
        day,
        False,
        counted.drop("at"),
        pl.concat(current).sort("at"),
        pl.concat(kept).sort("at", "payload_hash"),
        rechecked,
    )


_OUTCOMES: Final = ("accepted", "duplicate", "superseded", "rejected")


def _counted(payloads: pl.DataFrame, outcome: str) -> pl.DataFrame:
    """All reads of these payloads came to one outcome."""
    return payloads.select(
        "at",
        *(pl.col("reads").alias(name) if name == outcome else pl.lit(0, pl.Int64).alias(name) for name in _OUTCOMES),
    )


def _with_own_hashes(numbered: pl.DataFrame, to_fold: pl.DataFrame) -> pl.DataFrame:
    """Give payloads of which a part is stored that part's hash, which the ledger must name."""
    own = to_fold.select("at", own="payload_hash")
    return numbered.join(own, on="at", how="left", maintain_order="left").with_columns(
        payload_hash=pl.coalesce("own", "payload_hash")
    )


def cut(load_pass: WritePlan, first: int, past: int, epoch: int, sources: Sequence[Source], clock: Clock) -> Batch:
    """The batch of a pass's payloads [first, past), encoded. CPU only: run it off the event loop."""
    cutter = load_pass.cutter
    src, row, outcome = cutter.src[first:past], cutter.row[first:past], cutter.outcome[first:past]
    pieces = []
    if src[0] == src[-1] and bool((src == src[0]).all()):
        pieces.append(FileShare(sources[int(src[0])].sha256, _ranges(row), *map(int, outcome.sum(axis=0))))
    else:
        _, begins = np.unique(src, return_index=True)
        for index in src[np.sort(begins)]:
            of = src == index
            pieces.append(FileShare(sources[int(index)].sha256, _ranges(row[of]), *map(int, outcome[of].sum(axis=0))))
    made = _entries(load_pass, cutter.hashes[first:past].to_list(), outcome, pieces, sources, clock)
    batch = Batch(load_pass.kind, load_pass.day, epoch, pieces, made, rows=past - first, monotonic=clock.monotonic)
    if load_pass.rechecked.height:
        letters, rechecked_entries = _rechecked_dead_letters(load_pass, first, past, sources, clock)
        batch.letters, batch.entries = letters, [*made, *rechecked_entries]
    current = cutter.current.rows(*_between(cutter.current_at, first, past))
    if load_pass.direct:
        batch.direct = current
    else:
        batch.current, batch.kept = current, cutter.kept.rows(*_between(cutter.kept_at, first, past))
    return batch


def _rechecked_dead_letters(
    load_pass: WritePlan, first: int, past: int, sources: Sequence[Source], clock: Clock
) -> tuple[pl.DataFrame | None, list[EntryRow]]:
    """Dead letters of the reads in payloads [first, past) about which a person is asked, and their ledger entries."""
    chosen = load_pass.rechecked.filter(pl.col("at").is_between(first, past, closed="left"))
    letters, rechecked_entries = [], []
    reason = pl.Series("reasons", [[{"code": unordered.CODE, "detail": unordered.DETAIL}]])
    for (src,), rows in chosen.group_by(["src"], maintain_order=True):
        source = sources[int(src)]
        bad = rows.drop("at", "src", "row").with_columns(
            reason.new_from_index(0, rows.height), received=pl.col("reads"), first_line=pl.lit(None, pl.Int64)
        )
        name, form = source.file_name, source.file_format
        made = finish_letters([payload_letters(bad)], source.sha256, name, source.head_end, form, None, clock.now())
        letters.append(made)
        body = {
            "billing_day": load_pass.day,
            "stage": "loading",
            "sha256": source.sha256,
            "letters": made.height,
            "reads": int(made["reads"].sum()),
        }
        rechecked_entries.append(
            entries.encode("rejected", body, made["leaf"].to_list(), at=clock.now(), actor=ACTOR).row
        )
    return (pl.concat(letters) if letters else None), rechecked_entries


def rejection(
    load_pass: WritePlan, at: int, epoch: int, sources: Sequence[Source], letters: pl.DataFrame, clock: Clock
) -> Batch:
    """The batch that stands for one payload the database refused: nothing stored, its reads rejected, a dead letter."""
    row = load_pass.incoming.row(at, named=True)
    source = sources[row["src"]]
    piece = FileShare(source.sha256, ((row["row"], row["row"] + 1),), rejected=row["reads"])
    body = {
        "billing_day": load_pass.day,
        "stage": "loading",
        "sha256": source.sha256,
        "letters": 1,
        "reads": row["reads"],
    }
    entry = entries.encode("rejected", body, letters["leaf"].to_list(), at=clock.now(), actor=ACTOR)
    return Batch(
        load_pass.kind, load_pass.day, epoch, [piece], [entry.row], rows=1, letters=letters, monotonic=clock.monotonic
    )


def most_rows(load_pass: WritePlan, first: int, wanted: int) -> int:
    """How far a batch that begins at ``first`` may go: one head-end, and no more than MOST_FILES files."""
    past = min(first + wanted, load_pass.rows)
    src = load_pass.incoming["src"]
    if src[first] == src[past - 1]:
        return past
    distinct = np.unique(src[first:past].to_numpy())
    return (
        past
        if len(distinct) <= MOST_FILES
        else first + int(np.searchsorted(src[first:past].to_numpy(), distinct[MOST_FILES]))
    )


def _entries(
    load_pass: WritePlan,
    hashes: list[bytes],
    outcome: npt.NDArray[np.int64],
    pieces: Sequence[FileShare],
    sources: Sequence[Source],
    clock: Clock,
) -> list[EntryRow]:
    """A ledger entry for each outcome in the batch, its leaves the hashes of the payloads it came to."""
    names = {s.sha256: s.file_name for s in sources}
    files = [
        {
            "sha256": p.sha256,
            "file_name": names[p.sha256],
            "first_row": p.ranges[0][0],
            "accepted": p.accepted,
            "duplicate": p.duplicate,
            "superseded": p.superseded,
        }
        for p in pieces
    ]
    accepted, superseded = outcome[:, 0] > 0, outcome[:, 2] > 0
    nothing_left = ~outcome[:, :3].any(axis=1) & (outcome[:, 3] > 0)
    made = []
    for kind, chosen in (
        ("ingested", accepted),
        ("superseded", ~accepted & superseded),
        ("duplicate", ~accepted & ~superseded & ~nothing_left),
    ):
        if chosen.any():
            leaves = hashes if chosen.all() else [hashes[i] for i in np.flatnonzero(chosen)]
            body: dict[str, Any] = {
                "billing_day": load_pass.day,
                "reads": load_pass.kind.name,
                "payloads": len(leaves),
                "files": files,
            }
            made.append(entries.encode(kind, body, b"".join(leaves), at=clock.now(), actor=ACTOR).row)
    return made


def _between(at: npt.NDArray[np.int64], first: int, past: int) -> tuple[int, int]:
    """The rows whose position lies in [first, past); ``at`` is sorted."""
    low, high = np.searchsorted(at, [first, past])
    return int(low), int(high)


def _ranges(rows: npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Ascending row numbers as ranges [first, past)."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    firsts = rows[np.concatenate(([0], breaks))]
    lasts = rows[np.concatenate((breaks - 1, [len(rows) - 1]))]
    return tuple((int(a), int(b) + 1) for a, b in zip(firsts, lasts, strict=True))
