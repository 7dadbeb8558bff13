"""The statements the product sends for ingest, pause and ledger, and what each does to the simulated server's
tables.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from psycopg import errors

from meter_pipeline.control.tables import pauses
from meter_pipeline_tests.simulation.dispatch import on
from meter_pipeline_tests.simulation.server import Blocked, Connection, Result, Row, Server, Table, Transaction, Version


@on(r"SELECT epoch, pg_current_xact_id\(\)::text::int8, pg_backend_pid\(\) FROM raw\.day_load WHERE")
def _share(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.day_load")
    table.wait_free(p[0], tx)
    row = table.get(p[0], tx)
    server.share.setdefault(p[0], set()).add(server.assign(tx))
    return Result([(row["epoch"], server.assign(tx), id(connection))] if row else [])


@on(r"SELECT pg_xact_status\(")
def _status(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    state = server.state.get(p[0])
    return Result([("in progress" if state == "running" else state,)])


@on(r"SELECT pg_terminate_backend\(pid\) FROM pg_stat_activity WHERE pid = %s AND backend_xid")
def _end_backend(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    for other in list(server.connections):
        if id(other) == p[0] and other.tx is not None and other.tx.xid == p[1]:
            server.injected["session ended that would not"] += 1
            server.drop(other)
            return Result([(True,)])
    return Result()


@on(r"INSERT INTO raw\.day_load AS d")
def _take(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    day = p[0]
    if any(xid != tx.xid and server.state.get(xid) == "running" for xid in server.share.get(day, ())):
        raise Blocked
    table = server.table("raw.day_load")
    table.wait_free(day, tx)
    was = table.get(day, None) or {"epoch": 0}
    table.put(day, {"epoch": was["epoch"] + 1, "holder": p[1]}, tx)
    return Result([(was["epoch"] + 1,)], 1)


@on(r"INSERT INTO ledger\.entry ")
def _entry(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    kind, body, leaf_hash, leaf_count, leaves, day = p
    if hashlib.sha256(b"\0" + body).digest() != leaf_hash or len(leaves or b"") != 32 * leaf_count:
        raise errors.CheckViolation("entry_leaf_hash_is_of_body")
    server.sequences["entry"] += 1
    number = server.sequences["entry"]
    row = {
        "entry_id": number,
        "kind": kind,
        "body": bytes(body),
        "leaf_hash": leaf_hash,
        "leaves": bytes(leaves or b""),
        "day": day,
        "xid": server.assign(tx),
    }
    server.table("ledger.entry").put(number, row, tx)
    return Result([(number,)], 1)


@on(r"INSERT INTO raw\.load_batch ")
def _claim(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    sha256, day, kind, first, ranges, accepted, duplicate, superseded, rejected, entries = p
    table, key = server.table("raw.load_batch"), (sha256, day, kind, first)
    spans = _spans(ranges)
    for other in list(table.rows):
        if other[:3] != key[:3]:
            continue
        newest = table.newest(other)
        if newest is not None and newest.data is not None and _overlap(newest.data["rows"], spans):
            table.wait_free(other, tx)
            return Result([], 0)
    row = {
        "sha256": sha256,
        "billing_day": day,
        "kind": kind,
        "rows": spans,
        "accepted": accepted,
        "duplicate": duplicate,
        "superseded": superseded,
        "rejected": rejected,
        "entries": list(entries),
    }
    table.put(key, row, tx)
    return Result([], 1)


def _spans(multirange: str) -> list[tuple[int, ...]]:
    return [tuple(int(n) for n in span.split(",")) for span in re.findall(r"\[(\d+,\d+)\)", multirange)]


def _overlap(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> bool:
    return any(a < d and c < b for a, b in one for c, d in other)


@on(r"SELECT rows = %s::int8multirange FROM raw\.load_batch WHERE")
def _claimed_before(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    ranges, sha256, day, kind, _ranges = p
    spans = _spans(ranges)
    found = [
        row["rows"]
        for key, row in server.table("raw.load_batch").scan(tx)
        if key[:3] == (sha256, day, kind) and _overlap(row["rows"], spans)
    ]
    return Result([(rows == spans,) for rows in found])


@on(r'INSERT INTO "raw"\."(\w+)" \((.*?)\) SELECT .*? FROM "(incoming_\w+)" ON CONFLICT \((.*?)\) DO UPDATE')
def _upsert(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    table = f"raw.{found[1]}"
    key = [each.strip().strip('"') for each in found[4].split(",")]
    rows = tx.temporary.get(found[3], [])
    for row in rows:
        _partition(server, table, row["billing_day"]).wait_free(tuple(row[c] for c in key[1:]), tx)
    for row in rows:
        _partition(server, table, row["billing_day"]).put(tuple(row[c] for c in key[1:]), dict(row), tx)
    return Result([], len(rows))


@on(r'INSERT INTO "raw"\."(\w+)" \((.*?)\) SELECT .*? FROM "(incoming_\w+)" ON CONFLICT DO NOTHING')
def _keep(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    table = f"raw.{found[1]}"
    key = (
        ("meter_id", "channel", "payload_hash")
        if "interval" in table
        else ("meter_id", "channel", "read_at", "payload_hash")
    )
    rows = tx.temporary.get(found[3], [])
    for row in rows:
        _partition(server, table, row["billing_day"]).wait_free(tuple(row[c] for c in key), tx)
    for row in rows:
        part = _partition(server, table, row["billing_day"])
        if part.get(tuple(row[c] for c in key), tx) is None:
            part.put(tuple(row[c] for c in key), dict(row), tx)
    return Result([], len(rows))


@on(r"INSERT INTO raw\.touched_meter \(billing_day, meter_id, read_day\) SELECT %\(day\)s::date, ''")
def _touch_all(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return _note(server, tx, p["day"], [(p["day"], "")])


@on(r'INSERT INTO raw\.touched_meter .* FROM \(SELECT DISTINCT meter_id FROM "(incoming_\w+)"\)')
def _touch(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    meters = sorted({row["meter_id"] for row in tx.temporary.get(found[1], [])})
    return _note(server, tx, p["day"], [(p["day"] + timedelta(days=n), m) for m in meters for n in (-1, 0, 1)])


def _note(server: Server, tx: Transaction, day: date, rows: list[tuple[date, str]]) -> Result:
    table = server.table("raw.touched_meter")
    if any((row["day"], row["meter"]) == (day, "") for _, row in table.scan(tx)):
        return Result([], 0)
    for about, meter in rows:
        server.sequences["touch"] += 1
        table.put(server.sequences["touch"], {"day": about, "meter": meter}, tx)
    return Result([], len(rows))


def _partition(server: Server, table: str, day: date) -> Table:
    name = f"{table}_{day:%Y%m%d}"
    if server.partitions.get(name) != "attached":
        raise errors.CheckViolation(f'no partition of relation "{table}" found for row')
    return server.table(name)


@on(r'TRUNCATE "(incoming_\w+)"')
def _truncate(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    tx.temporary.pop(found[1], None)
    return Result()


@on(r'SELECT ((?:"\w+"(?:, )?)+) FROM (raw\.\w+) WHERE billing_day = %s AND \((.*?)\) IN')
def _read(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    columns = [each.strip().strip('"') for each in found[1].split(",")]
    key = [each.strip() for each in found[3].split(",")]
    wanted = set(zip(*p[1:], strict=True))
    name = f"{found[2]}_{p[0]:%Y%m%d}"
    if server.partitions.get(name) != "attached":
        return Result()
    rows = [row for _, row in server.table(name).scan(tx) if tuple(row[c] for c in key) in wanted]
    return Result([tuple(row[c] for c in columns) for row in rows])


@on(r"SELECT raw\.open_partition\(%s::regclass, %s\)")
def _open(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    name = f"{p[0]}_{p[1]:%Y%m%d}"
    state = server.partitions.get(name)
    if state is None:
        server.partitions[name] = "open"
        return Result([("created",)])
    return Result([(state,)])


@on(r"SELECT raw\.attach_partition\(%s::regclass, %s\)")
def _attach(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    name = f"{p[0]}_{p[1]:%Y%m%d}"
    if server.partitions.get(name) == "attached":
        return Result([(False,)])
    table = server.table(name)
    if any(versions and server.state.get(versions[-1].xid) == "running" for versions in table.rows.values()):
        raise Blocked
    history = p[0].endswith("_payload")
    key = (["meter_id", "channel"] if "interval" in p[0] else ["meter_id", "channel", "read_at"]) + (
        ["payload_hash"] if history else []
    )
    made: dict[Any, list[Version]] = {}
    for _, row in list(table.scan(None)):
        at = tuple(row[c] for c in key)
        if at in made:
            raise errors.UniqueViolation(f"could not create unique index of {name}: {at} is duplicated")
        made[at] = [Version(0, row)]
    server.state[0] = "committed"
    table.rows = made
    server.partitions[name] = "attached"
    return Result([(True,)])


@on(r"SELECT NOT EXISTS \(SELECT FROM pg_inherits")
def _is_open(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    state = server.partitions.get(p[0])
    return Result([(state == "open",)] if state else [])


@on(r"SELECT pg_advisory_lock\(%s, %s\)")
def _day_lock(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    server.take_advisory(("session", *p), connection)
    return Result([(None,)])


@on(r"SELECT pg_advisory_xact_lock\(%s\)")
def _xact_lock(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    server.take_advisory(("xact", *p), tx)
    tx.locks.add(("xact", *p))
    return Result([(None,)])


@on(r"SELECT set_config\('lock_timeout'")
def _lock_timeout(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    connection.lock_timeout = float(p[0].removesuffix("ms")) / 1000 if p else None
    return Result([(None,)])


@on(r"CREATE TEMPORARY TABLE IF NOT EXISTS|CREATE TEMPORARY TABLE incoming_letter|DROP TABLE incoming_letter")
def _nothing(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result()


@on(r"SET lock_timeout = '5s'; SET statement_timeout")
def _session(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    connection.lock_timeout = 5.0
    return Result()


_FILE: Final = (
    "sha256",
    "content_sha256",
    "file_name",
    "head_end",
    "commodity",
    "file_format",
    "bytes",
    "archive_path",
    "landed_at",
    "received",
    "rejected",
    "dead_letters",
    "refused",
    "run_id",
    "replay_of",
    "ledger_entry",
)
_DAY: Final = (
    "sha256",
    "billing_day",
    "staged_path",
    "staged_sha256",
    "received",
    "interval_rows",
    "register_rows",
    "duplicate_in_file",
    "superseded_in_file",
)


@on(r"SELECT sha256, content_sha256, .* FROM raw\.feed_file WHERE content_sha256 = %s AND replay_of IS NULL")
def _of_content(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    rows = [row for _key, row in server.table("raw.feed_file").scan(tx) if row["content_sha256"] == p[0]]
    return Result([tuple(row[c] for c in _FILE) for row in rows if row["replay_of"] is None])


@on(r"SELECT sha256, content_sha256, .* FROM raw\.feed_file WHERE sha256 = %s")
def _known(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    row = server.table("raw.feed_file").get(p[0], tx)
    return Result([tuple(row[c] for c in _FILE)] if row else [])


@on(r"INSERT INTO raw\.feed_file \(")
def _register(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.feed_file")
    table.wait_free(p[0], tx)
    if table.get(p[0], tx) is not None:
        return Result([], 0)
    table.put(p[0], dict(zip(_FILE, p, strict=True)), tx)
    return Result([], 1)


@on(r"SELECT billing_day, staged_sha256, .* FROM raw\.feed_file_day WHERE sha256 = %s ORDER BY 1")
def _known_days(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    columns = ("billing_day", "staged_sha256", "interval_rows", "register_rows", "first_row")
    rows = [row for (sha256, _day), row in server.table("raw.feed_file_day").scan(tx) if sha256 == p[0]]
    return Result([(*(row[c] for c in columns), row["loaded_at"] is not None) for row in rows])


@on(r"SELECT dead_letter_key, status, .* FROM raw\.dead_letter WHERE file_sha256 = %s AND NOT reasons")
def _known_letters(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    rows = [row for _key, row in server.table("raw.dead_letter").scan(tx) if row["file_sha256"] == p[0]]
    columns = ("dead_letter_key", "reads", "raw_format", "raw", "leaf")
    return Result(
        [
            (key, "open", reads, raw_format, raw, leaf, None)
            for row in rows
            if "database_refused" not in str(row["reasons"])
            for key, reads, raw_format, raw, leaf in [tuple(row[c] for c in columns)]
        ]
    )


@on(r"INSERT INTO raw\.feed_file_day \(")
def _file_day(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    if server.table("raw.feed_file_day").get((p[0], p[1]), tx) is not None:
        raise errors.UniqueViolation("feed_file_day_pkey")
    nothing: Row = dict.fromkeys(("accepted", "duplicate", "superseded", "rejected", "loaded_at"))
    nothing["first_row"] = 0
    server.table("raw.feed_file_day").put((p[0], p[1]), {**dict(zip(_DAY, p, strict=True)), **nothing}, tx)
    return Result([], 1)


@on(r"UPDATE raw\.feed_file SET ledger_entry")
def _file_entry(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.feed_file")
    row = table.get(p[1], tx)
    assert row is not None
    table.put(p[1], row | {"ledger_entry": p[0]}, tx)
    return Result([], 1)


@on(r"INSERT INTO raw\.feed_file_arrival AS a")
def _arrival(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.feed_file_arrival")
    table.wait_free((p[0], p[1]), tx)
    was = table.get((p[0], p[1]), tx) or {"times": 0}
    table.put((p[0], p[1]), {"times": was["times"] + 1, "duplicate": p[4]}, tx)
    return Result([], 1)


@on(
    r"SELECT d\.sha256, d\.billing_day, .* FROM raw\.feed_file_day AS d JOIN raw\.feed_file AS f USING \(sha256\) WHERE d\.billing_day = %s AND d\.loaded_at IS NULL"
)
def _waiting(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    found = []
    for (sha256, day), row in server.table("raw.feed_file_day").scan(tx):
        if day == p[0] and row["loaded_at"] is None:
            file = server.table("raw.feed_file").get(sha256, tx)
            assert file is not None
            whole = row | file | {"received": row["received"]}
            order = (
                "sha256",
                "billing_day",
                "staged_path",
                "staged_sha256",
                "received",
                "duplicate_in_file",
                "superseded_in_file",
                "interval_rows",
                "register_rows",
                "first_row",
                "head_end",
                "commodity",
                "file_format",
                "file_name",
                "archive_path",
            )
            found.append((file["landed_at"], sha256, tuple(whole[c] for c in order)))
    return Result([row for _, _, row in sorted(found)])


@on(r"SELECT b\.sha256, b\.kind, lower\(r\), upper\(r\) FROM raw\.load_batch AS b JOIN raw\.feed_file_day")
def _loaded(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    rows: list[tuple[Any, ...]] = []
    for (sha256, day, kind, _first), row in server.table("raw.load_batch").scan(tx):
        file_day = server.table("raw.feed_file_day").get((sha256, day), tx)
        if day == p[0] and file_day is not None and file_day["loaded_at"] is None:
            rows.extend((sha256, kind, low, high) for low, high in row["rows"])
    return Result(sorted(rows))


@on(r"UPDATE raw\.feed_file_day AS d SET loaded_at")
def _finish(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    at, sha256, day = p[:3]
    table = server.table("raw.feed_file_day")
    table.wait_free((sha256, day), tx)
    row = table.get((sha256, day), tx)
    assert row is not None
    total: Counter[str] = Counter()
    for (file, on_day, _kind, _first), batch in server.table("raw.load_batch").scan(tx):
        if (file, on_day) == (sha256, day):
            total.update({c: batch[c] for c in ("accepted", "duplicate", "superseded", "rejected")})
    row = row | {
        "loaded_at": at,
        "accepted": total["accepted"],
        "duplicate": total["duplicate"] + row["duplicate_in_file"],
        "superseded": total["superseded"] + row["superseded_in_file"],
        "rejected": total["rejected"],
    }
    table.put((sha256, day), row, tx)
    return Result([tuple(row[c] for c in ("received", "accepted", "duplicate", "superseded", "rejected"))], 1)


def totals(server: Server, tx: Transaction | None) -> list[tuple[Any, ...]]:
    """raw.control_total."""
    rows = []
    for sha256, file in server.table("raw.feed_file").scan(tx):
        days = [row for (file_sha, _), row in server.table("raw.feed_file_day").scan(tx) if file_sha == sha256]
        done = [row for row in days if row["loaded_at"] is not None]
        said = [sum(row[c] for row in done) for c in ("accepted", "duplicate", "superseded", "rejected")]
        waiting = sum(row["received"] for row in days if row["loaded_at"] is None)
        rejected = file["rejected"] + said[3]
        balanced = file["received"] == sum(said[:3]) + rejected + waiting
        rows.append(
            (
                sha256,
                file["file_name"],
                file["head_end"],
                file["landed_at"],
                file["received"],
                *said[:3],
                rejected,
                waiting,
                balanced,
            )
        )
    return rows


@on(r"SELECT c\.sha256, c\.file_name, .* FROM raw\.control_total AS c")
def _totals(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result(totals(server, tx))


@on(r"UPDATE raw\.breaker SET state = 'closed'")
def _close_breaker(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.breaker")
    table.wait_free(p[2], tx)
    row = table.get(p[2], tx)
    if row is None or row["state"] == "closed":
        return Result([], 0)
    table.put(p[2], {"state": "closed", "until": 0.0}, tx)
    return Result([], 1)


@on(r"INSERT INTO raw\.breaker AS b")
def _note_breaker(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.breaker")
    table.wait_free(p["name"], tx)
    was = table.get(p["name"], tx) or {"until": 0.0}
    until = max(was["until"], server.scheduler.now + p["open_s"]) if p["state"] == "open" else 0.0
    table.put(p["name"], {"state": p["state"], "until": until}, tx)
    return Result([], 1)


@on(r"SELECT greatest\(extract\(epoch FROM open_until")
def _open_for(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    row = server.table("raw.breaker").get(p[0], tx)
    return Result([(max(row["until"] - server.scheduler.now, 0.0),)] if row and row["state"] == "open" else [])


@on(r"SELECT CASE WHEN state LIKE 'idle in transaction")
def _waits(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result()


@on(r"INSERT INTO control\.observation AS o")
def _observe(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    server.table("control.observation").put((p[0], p[1]), {"at": p[2]}, tx)
    return Result([], 1)


@on(re.escape(" ".join(pauses.ACTIVE.split())) + "$")
def _active(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    scopes = (("all", None), ("commodity", p["commodity"]), ("head_end", p["head_end"]))
    for number, row in server.table("control.emergency_pause").scan(tx):
        if row["state"] == "paused" and (row["scope"], row["target"]) in scopes:
            at = datetime(2024, 4, 1, tzinfo=UTC)
            return Result(
                [
                    (
                        number,
                        row["scope"],
                        row["target"],
                        "paused",
                        "simulated",
                        None,
                        {},
                        "pat",
                        at,
                        None,
                        None,
                        None,
                        None,
                        None,
                    )
                ]
            )
    return Result()


@on(r"WITH written AS \(INSERT INTO raw\.dead_letter AS d")
def _letters(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    fresh = 0
    rows = tx.temporary.pop("incoming_letter", [])
    for row in rows:
        server.table("raw.dead_letter").wait_free(row["dead_letter_key"], tx)
    for row in rows:
        fresh += _letter(server, tx, row)
    return Result([(fresh,)])


@on(r"INSERT INTO raw\.dead_letter AS d \((.*?)\) VALUES")
def _letter_few(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    columns = [each.strip().strip('"') for each in found[1].split(",")]
    return Result([], _letter(server, tx, dict(zip(columns, p, strict=True))) or 1)


def _letter(server: Server, tx: Transaction, row: Row) -> int:
    table, key = server.table("raw.dead_letter"), row["dead_letter_key"]
    was = table.get(key, tx)
    table.put(key, (was or row) | {"times": (was["times"] if was else 0) + 1}, tx)
    return was is None


@on(r"SELECT origin FROM ledger\.log")
def _log(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    row = server.table("ledger.log").get("log", tx)
    return Result([(row["origin"],)] if row else [])


@on(r"INSERT INTO ledger\.log")
def _new_log(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.log")
    table.wait_free("log", tx)
    if table.get("log", tx) is None:
        table.put("log", {"origin": p[0] + "/00000000"}, tx)
    return Result([], 1)


@on(
    r"SELECT tree_size, root_hash, horizon::text::bigint AS horizon, cluster_id FROM ledger\.tree_head ORDER BY tree_size DESC LIMIT 1"
)
def _head(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    rows = [
        (size, row["root"], row["horizon"], row["cluster"]) for size, row in server.table("ledger.tree_head").scan(tx)
    ]
    return Result([max(rows)] if rows else [])


@on(r"SELECT pg_snapshot_xmin\(pg_current_snapshot\(\)\)")
def _horizon(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result([(server.horizon(), 7)])


@on(r"SELECT e\.entry_id, e\.leaf_hash FROM ledger\.entry e WHERE e\.xid >=")
def _unsequenced(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    placed = {row["entry_id"] for _, row in server.table("ledger.leaf").scan(tx)}
    rows = [
        row
        for _, row in server.table("ledger.entry").scan(tx)
        if row["xid"] >= int(p[0]) and row["entry_id"] not in placed
    ]
    return Result(
        [(row["entry_id"], row["leaf_hash"]) for row in sorted(rows, key=lambda row: (row["xid"], row["entry_id"]))]
    )


@on(r"INSERT INTO ledger\.leaf ")
def _leaves(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    first, numbers, hashes = p
    table = server.table("ledger.leaf")
    placed = {row["entry_id"] for _, row in table.scan(tx)}
    for at in range(len(numbers)):
        table.wait_free(first + at, tx)
    for at, (number, leaf) in enumerate(zip(numbers, hashes, strict=True)):
        if table.get(first + at, tx) is not None or number in placed:
            raise errors.UniqueViolation("leaf_pkey")
        table.put(first + at, {"entry_id": number, "hash": bytes(leaf)}, tx)
    return Result([], len(numbers))


@on(r"INSERT INTO ledger\.node ")
def _nodes(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    for level, index, node in zip(*p, strict=True):
        server.table("ledger.node").put((level, index), {"hash": bytes(node)}, tx)
    return Result([], len(p[0]))


@on(r"INSERT INTO ledger\.tree_head ")
def _new_head(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.tree_head")
    table.wait_free(p[0], tx)
    if table.get(p[0], tx) is not None:
        raise errors.UniqueViolation("tree_head_pkey")
    table.put(p[0], {"root": bytes(p[1]), "horizon": int(p[2]), "cluster": p[3]}, tx)
    return Result([], 1)


@on(r"SELECT leaf_hash FROM ledger\.leaf WHERE leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index")
def _leaf_range(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.leaf")
    rows = [table.get(index, tx) for index in range(p[0], p[1])]
    return Result([(row["hash"],) for row in rows if row is not None])


@on(r"SELECT node_hash FROM ledger\.node WHERE level = %s")
def _node_range(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.node")
    rows = [table.get((p[0], index), tx) for index in range(p[1], p[2])]
    return Result([(row["hash"],) for row in rows if row is not None])
