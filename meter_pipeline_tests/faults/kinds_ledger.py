"""Faults of the ledger's sequencer and of what is stored: backups, flipped bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading

import psycopg
import pytest

from meter_pipeline.ledger import checkpoints, privileges, verification
from meter_pipeline.ledger.sequencer import SequencerBusyError, sequence
from meter_pipeline_tests.faults.bench import Bench, Case
from meter_pipeline_tests.faults.catalogue import fault
from meter_pipeline_tests.simulation.contents import CONTENTS, DAY


@fault("sequencer terminated in the middle of a round", 15)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        case.run()
        case.failpoint("ledger.tree_head", "57P01", [1])
        with contextlib.suppress(psycopg.Error), case.database.connect("sequencer") as connection:
            sequence(connection)
        case.clear_failpoint("ledger.tree_head")
        case.reckon()
    return case


@fault("two sequencers at once", 15, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        case.run()
        failed: list[BaseException] = []

        def order() -> None:
            try:
                with case.database.connect("sequencer") as connection:
                    sequence(connection)
            except SequencerBusyError:
                pass
            except psycopg.Error as error:
                failed.append(error)

        threads = [threading.Thread(target=order) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        case.injected += 2
        case.reckon()
    return case


@fault("restored from an older backup: the verifier says so, the files heal it", 3)
def _(bench: Bench, seed: int) -> Case:
    """A copy of the data folder is put back. The log is shorter than what was verified; landing the archive's files
    again brings every read back."""
    with bench.case(seed) as case:
        case.reckon()
        numbers = sorted({int(path.name.split("-")[1]) for path in case.folder.glob("file-*")})
        bench.cluster.stop("fast")
        backup = bench.home / f"backup-{seed}"
        shutil.copytree(bench.cluster.data, backup, symlinks=True)
        bench.start()
        fresh = [number for number in range(CONTENTS) if number not in numbers][:2]
        case.land(*fresh)
        case.reckon()
        bench.cluster.stop("fast")
        owner = bench.cluster.data.stat()
        shutil.rmtree(bench.cluster.data)
        shutil.copytree(backup, bench.cluster.data, symlinks=True)
        for path in (bench.cluster.data, *bench.cluster.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        bench.cluster.data.chmod(0o700)
        shutil.rmtree(backup)
        bench.start()
        outcome = verification.verify(case.database, home=case.folder / "home", full=True, days=[DAY])
        assert any(finding.check == "memory" for finding in outcome.findings), "a shorter log went unseen"
        with pytest.raises(Exception, match=r"."):
            checkpoints.checkpoint(case.database, home=case.folder / "home")
        case.land(*fresh, name="healed")
        shutil.rmtree(case.folder / "home")  # people decide that the restored log is the log: new keys, new memory
        with case.database.connect("dba", autocommit=True) as connection:
            connection.execute(
                "ALTER TABLE ledger.checkpoint DISABLE TRIGGER ALL; DELETE FROM ledger.checkpoint; ALTER TABLE ledger.checkpoint ENABLE TRIGGER ALL;"
                "ALTER TABLE ledger.checkpoint ENABLE ALWAYS TRIGGER only_grows; ALTER TABLE ledger.checkpoint ENABLE ALWAYS TRIGGER never_truncated"
            )
        with case.database.connect("dba") as connection:
            privileges.record(connection, accepted_by="ann", reason="restored from a backup")
        case.injected += 1
        case.reckon()
    return case


@fault("flipped byte in a table's file: never silent", 6)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:
        case.reckon()
        with case.database.connect(autocommit=True) as connection:
            row = connection.execute(
                "SELECT pg_relation_filepath(c.oid) FROM pg_class c WHERE c.relname ~ '^(interval_day|register_read)_[0-9]{8}$' "
                "AND pg_relation_size(c.oid) > 0 LIMIT 1"
            ).fetchone()
            connection.execute("CHECKPOINT")
        assert row is not None
        path = bench.cluster.data / row[0]
        bench.cluster.stop("fast")
        good = path.read_bytes()
        at = case.rng.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << case.rng.randrange(8))]) + good[at + 1 :])
        bench.start()
        noticed = False
        try:
            noticed = not verification.verify(case.database, home=case.folder / "home", full=True, days=[DAY]).ok
        except psycopg.errors.DataCorrupted:
            noticed = True
        assert noticed, f"byte {at} of {path.name} was changed and nobody noticed"
        case.injected += 1
        bench.cluster.stop("fast")
        path.write_bytes(good)  # the good page from the backup
        bench.start()
        case.recovery_s = 0.0
        case.check()
        case.verify()
    return case
