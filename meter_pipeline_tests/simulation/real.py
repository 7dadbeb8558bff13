"""The same snapshot, of a real PostgreSQL."""

from __future__ import annotations

from datetime import date

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.simulation.contents import DAY
from meter_pipeline_tests.simulation.invariants import Current, Snapshot
from meter_pipeline_tests.simulation.world import slots_of


def snapshot(database: Database, day: date | None = DAY) -> Snapshot:
    """Everything stored, in one transaction's view. ``day``: rows of this billing day; None: of all, keyed with their
    day."""
    found = Snapshot()
    where, parameters = ("WHERE billing_day = %s", (day,)) if day else ("", ())
    with database.connect("invariants") as connection, connection.cursor(binary=True) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for sha256, received, rejected in cursor.execute("SELECT sha256, received, rejected FROM raw.feed_file"):
            found.files[sha256] = {"received": received, "rejected": rejected}
        columns = ("received", "accepted", "duplicate", "superseded", "rejected", "loaded_at")
        for sha256, at, *rest in cursor.execute(
            f"SELECT sha256, billing_day, {', '.join(columns)} FROM raw.feed_file_day"
        ):
            found.file_days[sha256, at] = dict(zip(columns, rest, strict=True))
        more = "" if day else ", billing_day"
        for meter, channel, scale, values, wide, payload, count, *on in cursor.execute(
            f"SELECT meter_id, channel, scale, values, wide_values, payload_hash, payloads{more} FROM raw.interval_day {where}",
            parameters,
        ):
            row = {"scale": scale, "values": values, "wide_values": wide}
            found.current["interval", (*on, meter, channel)] = Current(payload, count, slots_of(row, "interval"))
        for meter, channel, read_at, value, payload, count, *on in cursor.execute(
            f"SELECT meter_id, channel, read_at, value, payload_hash, payloads{more} FROM raw.register_read {where}",
            parameters,
        ):
            found.current["register", (*on, meter, channel, read_at)] = Current(payload, count, {0: value})
        for meter, channel, payload, *on in cursor.execute(
            f"SELECT meter_id, channel, payload_hash{more} FROM raw.interval_payload {where}", parameters
        ):
            found.history.setdefault(("interval", (*on, meter, channel)), []).append(payload)
        for meter, channel, read_at, payload, *on in cursor.execute(
            f"SELECT meter_id, channel, read_at, payload_hash{more} FROM raw.register_payload {where}", parameters
        ):
            found.history.setdefault(("register", (*on, meter, channel, read_at)), []).append(payload)
        found.letters = dict(cursor.execute("SELECT dead_letter_key, reads FROM raw.dead_letter").fetchall())
        for sha256, at, kind, lows, highs, entries in cursor.execute(
            "SELECT sha256, billing_day, kind, array(SELECT lower(r) FROM unnest(rows) AS r ORDER BY 1), "
            "array(SELECT upper(r) FROM unnest(rows) AS r ORDER BY 1), ledger_entries FROM raw.load_batch"
        ):
            found.batches.append(
                {
                    "sha256": sha256,
                    "billing_day": at,
                    "kind": kind,
                    "rows": list(zip(lows, highs, strict=True)),
                    "entries": entries,
                }
            )
        for number, kind, body, leaves in cursor.execute(
            "SELECT entry_id, kind, body, coalesce(leaves, ''::bytea) FROM ledger.entry"
        ):
            found.entries[number] = (kind, body, leaves)
        for index, number, leaf in cursor.execute("SELECT leaf_index, entry_id, leaf_hash FROM ledger.leaf"):
            found.leaves[index] = (number, leaf)
        found.heads = dict(cursor.execute("SELECT tree_size, root_hash FROM ledger.tree_head").fetchall())
        counted = cursor.execute(
            "SELECT count(*) FROM pg_class AS c WHERE c.relnamespace = 'raw'::regnamespace AND c.relkind = 'r' AND c.relname ~ '_[0-9]{8}$' "
            "AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)"
        ).fetchone()
        found.open_partitions = int(counted[0]) if counted else 0
    return found
