"""One read is proven from its row to a signature; personal data can go and every proof stays."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from meter_pipeline.ingest import keys
from meter_pipeline.ledger import checkpoints, entries, erasure, proving, verification
from meter_pipeline.ledger.export import export
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import ROOT

DAY = date(2026, 3, 8)
HASHERS = {"mpi1": keys.interval_payload_hashes, "mpr1": keys.register_payload_hashes}


def judge(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "tools" / "verify_ledger.py"), *arguments, "--json"]
    report: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    )
    return report


def load(database: Database, meters: int) -> pl.DataFrame:
    """Register reads of a day in the raw store, by the store's own encoding, with the entry that holds their leaves."""
    at = datetime(2026, 3, 8, 18, 30, 5, 250_000, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "meter_id": [f"W-{number:04}" for number in range(meters)],
            "channel": "REG",
            "read_at": pl.Series([at] * meters, dtype=pl.Datetime("us", "UTC")),
            "unit": "m3",
            "head_end": "CITY",
            "source_version": pl.Series([7] * meters, dtype=pl.Int64),
            "read_time": pl.Series(
                [None if number % 2 else at for number in range(meters)], dtype=pl.Datetime("us", "UTC")
            ),
            "value": pl.Series([number * 1000 for number in range(meters)], dtype=pl.Int64),
            "quality": pl.Series([1] * meters, dtype=pl.Int16),
            "sequence": pl.Series(range(meters), dtype=pl.Int32),
        }
    )
    hashes = keys.register_payload_hashes(frame)
    own_keys = keys.idempotency_keys(frame["meter_id"], frame["read_at"], frame["sequence"])
    with database.connect("test") as connection:
        connection.execute("SELECT raw.open_partition('raw.register_read', %s)", (DAY,))
        connection.execute("SELECT raw.attach_partition('raw.register_read', %s)", (DAY,))
        for row, payload_hash, key in zip(frame.iter_rows(named=True), hashes, own_keys, strict=True):
            connection.execute(
                "INSERT INTO raw.register_read (billing_day, idempotency_key, payload_hash, meter_id, channel, read_at, unit, head_end, source_version,"
                " read_time, value, quality, sequence) VALUES (%s, %b, %b, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (DAY, key, payload_hash, *row.values()),
            )
        half = meters // 2
        for part in (hashes[:half], hashes[half:]):
            entries.append(connection, "ingested", {"billing_day": DAY, "payloads": len(part)}, part.to_list())
    return frame.with_columns(payload_hash=hashes)


def test_a_read_is_proven_from_its_row_to_a_signature(database: Database, tmp_path: Path) -> None:
    load(database, 9)
    with pytest.raises(LookupError, match="checkpoint first"):
        proving.prove_read(database, "W-0006", DAY)
    done = checkpoints.checkpoint(database, home=tmp_path)
    (bundle,) = proving.prove_read(database, "W-0006", DAY)
    assert (bundle.batch_index, bundle.batch_size) == (2, 5)
    assert bundle.row is not None
    assert bundle.row["value"] == 6000
    proof = tmp_path / "proof.json"
    proof.write_text(json.dumps({"proofs": [bundle.document()]}))
    assert judge("--proof", str(proof), "--vkey", done.vkey) == {"ok": True, "proofs": 1, "problems": []}
    for change, problem in (
        (("row", "value"), "the row is not what was recorded"),
        (("batch", "index"), "the payload is not in the entry's batch"),
        (("log", "index"), "the entry is not in the checkpoint's tree"),
    ):
        forged = json.loads(json.dumps(bundle.document()))
        forged[change[0]][change[1]] -= 1
        proof.write_text(json.dumps({"proofs": [forged]}))
        assert judge("--proof", str(proof), "--vkey", done.vkey)["problems"] == [problem]
    with pytest.raises(LookupError):
        proving.prove_read(database, "W-9999", DAY)


def test_rows_content_is_hashed_again_inside_and_by_the_auditor(database: Database, tmp_path: Path) -> None:
    frame = load(database, 6)
    done = checkpoints.checkpoint(database, home=tmp_path)
    found = verification.verify(database, home=tmp_path, days=[DAY], hashers=HASHERS)
    assert found.ok
    assert found.checked["content of raw.register_read"] == 6
    export(database, tmp_path / "first", days=[DAY])
    report = judge(str(tmp_path / "first"), "--vkey", done.vkey)
    assert report["findings"] == []
    assert report["checked"]["rows hashed again"] == 6
    with database.connect("test") as connection:
        connection.execute("UPDATE raw.register_read SET value = value + 1 WHERE meter_id = 'W-0002'")
        connection.execute("DELETE FROM raw.register_read WHERE meter_id = 'W-0005'")
    found = verification.verify(database, home=tmp_path, days=[DAY], hashers=HASHERS)
    export(database, tmp_path / "second", days=[DAY])
    report = judge(str(tmp_path / "second"), "--vkey", done.vkey)
    expected = {("row", frame["payload_hash"][2].hex()), ("leaf without row", frame["payload_hash"][5].hex())}
    assert {(finding.check, finding.detail.split()[-1]) for finding in found.findings} == expected
    assert {(finding["check"], finding["detail"].split()[-1]) for finding in report["findings"]} == expected


def test_personal_data_goes_and_every_proof_stays(database: Database, tmp_path: Path) -> None:
    with database.connect("test") as connection:
        leaf = erasure.keep(connection, b"a complaint that names someone")
        entries.append(connection, "corrected", {"what": "dead letter"}, [leaf])
    first = checkpoints.checkpoint(database, home=tmp_path)
    export(database, tmp_path / "before")
    with database.connect("test") as connection:
        erasure.erase(connection, leaf, reason="request 12", requested_by="privacy-1")
    done = checkpoints.checkpoint(database, home=tmp_path)
    with database.connect("test") as connection:
        assert connection.execute("SELECT salt, payload FROM ledger.personal").fetchone() == (None, None)
        with pytest.raises(LookupError):
            erasure.erase(connection, leaf, reason="again", requested_by="privacy-1")
        proving.prove(connection, leaf, kinds=["corrected"]).verify()
    export(database, tmp_path / "after")
    for name in ("before", "after"):
        report = judge(str(tmp_path / name), "--vkey", done.vkey)
        assert (report["findings"], report["checked"]["personal payloads"]) == ([], 1)
    assert b"complaint" not in b"".join(path.read_bytes() for path in (tmp_path / "after").rglob("*") if path.is_file())
    with database.connect("dba") as connection:
        other = erasure.keep(connection, b"another")
        connection.commit()
        connection.execute("UPDATE ledger.personal SET salt = NULL, payload = NULL WHERE payload_hash = %b", (other,))
    export(database, tmp_path / "silent")
    assert [finding["check"] for finding in judge(str(tmp_path / "silent"), "--vkey", first.vkey)["findings"]] == [
        "erasure"
    ]


def test_personal_data_can_be_erased_and_not_changed(database: Database) -> None:
    with database.connect("writer", role="meter_ledger_writer") as connection:
        leaf = erasure.keep(connection, b"x")
        connection.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            erasure.erase(connection, leaf, reason="r", requested_by="p")
    with database.connect("eraser", role="meter_ledger_eraser") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE ledger.personal SET payload = 'y', salt = salt")
        connection.rollback()
        assert erasure.erase(connection, leaf, reason="r", requested_by="p") > 0
    assert erasure.salted_hash(b"x", b"s" * 32) == hashlib.sha256(b"mp-salted/1\x1f" + b"s" * 32 + b"x").digest()
