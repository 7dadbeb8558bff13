"""Checkpoints are sequenced, signed elsewhere, published and witnessed; a shorter or forked log gets no signature."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.ledger import checkpoints, entries, merkle, notes, privileges, publishing, sequencer, tiles
from meter_pipeline.ledger.signer import SignerRefusedError, answer, file_name
from meter_pipeline.ledger.signing import signer_client
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tree import stored_reader
from meter_pipeline.ledger.witness import Witness, WitnessRefusedError
from meter_pipeline.postgres.database import Database


def write(database: Database, count: int, **body: object) -> None:
    with database.connect("test") as connection:
        for number in range(count):
            entries.append(connection, "reconciled", {"number": number, **body})


def test_places_are_contiguous_and_follow_commit_not_identity(database: Database) -> None:
    with (
        database.connect("late") as late,
        database.connect("early") as early,
        database.connect("sequencer") as connection,
    ):
        entries.append(late, "reconciled", {"which": "late"})
        entries.append(early, "reconciled", {"which": "rolled back"})
        early.rollback()
        entries.append(early, "reconciled", {"which": "early"})
        early.commit()
        first = sequencer.sequence(connection)
        late.commit()
        second = sequencer.sequence(connection)
        third = sequencer.sequence(connection)
        assert (first.added, second.added, third.added) == (1, 1, 0)
        held = list(store.entries(connection, 0, 10))
        assert [entry.leaf_index for entry in held] == [0, 1]
        assert b"early" in held[0].body
        assert b"late" in held[1].body
        assert second.root == third.root == merkle.root([entry.body for entry in held])


def test_a_restored_servers_transaction_ids_hide_no_entry(database: Database) -> None:
    write(database, 3)
    with database.connect("sequencer") as connection:
        sequencer.sequence(connection)
    with database.connect("test", autocommit=True) as connection:
        # what a restore into another cluster looks like: the remembered horizon is beyond anything this server has
        # counted to
        connection.execute("SET session_replication_role = replica")
        connection.execute("ALTER TABLE ledger.tree_head DISABLE TRIGGER ALL")
        connection.execute("UPDATE ledger.tree_head SET horizon = '900000000000'::xid8")
    write(database, 2)
    with database.connect("sequencer") as connection:
        assert sequencer.sequence(connection).size == 5


def test_a_second_sequencer_refuses(database: Database) -> None:
    with database.connect("one") as one, database.connect("two") as two:
        assert store.take_sequencer_lock(one, 0)
        with pytest.raises(sequencer.SequencerBusyError):
            sequencer.sequence(two, wait_s=0)
        with pytest.raises(sequencer.SequencerBusyError):
            sequencer.sequence(two, wait_s=0.05)
        one.rollback()
        assert sequencer.sequence(two, wait_s=0.05).size == 0


def test_the_stored_tree_gives_the_same_proofs_as_all_leaves(database: Database) -> None:
    with database.connect("test") as connection:
        entry_rows = [entries.encode("reconciled", {"n": n}, at=SYSTEM_CLOCK.now(), actor="t").row for n in range(700)]
        connection.cursor().executemany(store.INSERT_ENTRY, entry_rows)
        connection.commit()
        for _ in range(2):
            head = sequencer.sequence(connection)
        whole = merkle.reader_of(store.leaf_hashes(connection, 0, 700))
        read = stored_reader(connection)
        assert head.size == 700
        assert merkle.tree_root(read, 700) == merkle.tree_root(whole, 700) == head.root
        for index in (0, 255, 256, 511, 512, 699):
            assert merkle.inclusion_proof(read, index, 700) == merkle.inclusion_proof(whole, index, 700)
        for old in (1, 255, 256, 300, 512, 699):
            assert merkle.consistency_proof(read, old, 700) == merkle.consistency_proof(whole, old, 700)


def test_a_checkpoint_is_signed_published_and_safe_to_repeat(database: Database, tmp_path: Path) -> None:
    write(database, 5)
    done = checkpoints.checkpoint(database, home=tmp_path, utility="City of Example")
    assert done.size == 6  # the guards' baseline is the log's first entry
    assert done.kinds == {"privileges_checked": 1, "reconciled": 5}
    assert done.origin.startswith("city-of-example/meter-pipeline/")
    key = notes.parse_vkey(done.vkey)
    note = notes.parse_note((done.folder / "checkpoint").read_text())
    assert notes.verify_note(note, [key]) == [key]
    assert notes.parse_checkpoint(note.text) == notes.Checkpoint(done.origin, 6, done.root)
    read = tiles.folder_reader(lambda path: (done.folder / path).read_bytes(), 6)
    assert merkle.tree_root(read, 6) == done.root
    again = checkpoints.checkpoint(database, home=tmp_path, utility="City of Example")
    assert (again.size, again.added, again.note) == (6, 0, done.note)
    skey = tmp_path / "keys" / f"{file_name(done.origin)}.skey"
    assert skey.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in (tmp_path / "keys" / f"{file_name(done.origin)}.vkey").read_text()


def test_checkpoints_at_once_never_ask_for_a_shorter_log(database: Database, tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            write(database, 3, worker=number)
            checkpoints.checkpoint(database, home=tmp_path)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert checkpoints.checkpoint(database, home=tmp_path).size in (
        10,
        11,
        12,
    )  # each that found no log recorded the guards


def test_the_signer_signs_no_shorter_log_no_fork_and_no_readable_key(tmp_path: Path) -> None:
    leaves = [merkle.leaf_hash(bytes([n])) for n in range(8)]
    read = merkle.reader_of(b"".join(leaves))

    def ask(size: int, old: int, root: bytes | None = None) -> dict[str, object]:
        proof = [step.hex() for step in merkle.consistency_proof(read, min(old, size), size)]
        chosen = (root or merkle.tree_root(read, size)).hex()
        return answer(
            tmp_path, {"op": "sign", "origin": "a/log", "size": size, "root": chosen, "old_size": old, "proof": proof}
        )

    ask(5, 0)
    ask(5, 5)
    for size, old, root, code in (
        (4, 4, None, "shorter"),
        (7, 3, None, "stale"),
        (7, 5, b"\x00" * 32, "fork"),
        (5, 5, b"\x00" * 32, "fork"),
    ):
        with pytest.raises(SignerRefusedError) as refused:
            ask(size, old, root)
        assert refused.value.code == code
    ask(8, 5)
    (tmp_path / "a_log.skey").chmod(0o644)
    with pytest.raises(SignerRefusedError, match="read by others"):
        ask(8, 8)
    (tmp_path / "a_log.skey").unlink()
    with pytest.raises(SignerRefusedError, match="gone"):
        ask(8, 8)


def test_a_restored_backup_gets_no_signature(database: Database, tmp_path: Path) -> None:
    write(database, 4)
    checkpoints.checkpoint(database, home=tmp_path)
    with database.connect("test") as connection:
        connection.execute("SET session_replication_role = replica")
        for table in ("entry", "leaf", "tree_head", "checkpoint"):
            connection.execute(
                psycopg.sql.SQL("ALTER TABLE ledger.{} DISABLE TRIGGER ALL").format(psycopg.sql.Identifier(table))
            )
        connection.execute("DELETE FROM ledger.checkpoint")
        connection.execute("DELETE FROM ledger.tree_head")
        connection.execute("DELETE FROM ledger.leaf WHERE leaf_index > 2")
        root = merkle.root_of_hashes(store.leaf_hashes(connection, 0, 3))
        connection.execute("DELETE FROM ledger.entry WHERE entry_id NOT IN (SELECT entry_id FROM ledger.leaf)")
        connection.execute(
            "INSERT INTO ledger.tree_head (tree_size, root_hash, horizon, cluster_id) VALUES (3, %s, '1', 1)", (root,)
        )
    with pytest.raises(SignerRefusedError) as refused:
        checkpoints.checkpoint(database, home=tmp_path)
    assert refused.value.code == "shorter"


def test_a_signature_lost_on_its_way_is_made_again(database: Database, tmp_path: Path) -> None:
    """The signer remembers before it answers; a crash after that leaves it ahead of the database."""
    write(database, 3)
    checkpoints.checkpoint(database, home=tmp_path)
    write(database, 3)
    signer = signer_client(tmp_path / "keys")
    with database.connect("test") as connection:
        head = sequencer.sequence(connection)
        proof = merkle.consistency_proof(stored_reader(connection), 4, head.size)
    signer.sign(head.origin, head.size, head.root, 4, proof)
    write(database, 3)
    assert checkpoints.checkpoint(database, home=tmp_path).size == 10


def test_a_witness_cosigns_growth_and_refuses_cut_and_fork(database: Database, tmp_path: Path) -> None:
    write(database, 300)
    first = checkpoints.checkpoint(database, home=tmp_path)
    key = notes.parse_vkey(first.vkey)
    witness = Witness(tmp_path / "witness", "finance", now=lambda: 1_700_000_000)
    seen = witness.cosign_folder(first.folder, key)
    assert (seen.old_size, seen.size) == (0, 301)
    checkpoints.accept_cosignature(database, tmp_path, seen.size, seen.line, seen.vkey)
    published = notes.parse_note((first.folder / "checkpoint").read_text())
    assert {found.name for found in notes.verify_note(published, [key, notes.parse_vkey(seen.vkey)])} == {
        first.origin,
        "finance",
    }
    write(database, 10)
    second = checkpoints.checkpoint(database, home=tmp_path)
    assert second.witness is not None
    assert (second.witness.name, second.witness.size) == ("finance", 301)
    assert witness.cosign_folder(second.folder, key).old_size == 301

    signer = notes.parse_skey((tmp_path / "keys" / f"{file_name(first.origin)}.skey").read_text())
    forged = notes.Checkpoint(first.origin, 311, b"\x01" * 32)
    with pytest.raises(WitnessRefusedError) as refused:
        witness.add_checkpoint(forged.text + "\n" + notes.sign_checkpoint(forged, signer).line, 311, [], key)
    assert refused.value.status == 422
    with pytest.raises(WitnessRefusedError) as refused:
        witness.add_checkpoint(first.note, 311, [], key)
    assert refused.value.status == 409
    assert len(list((tmp_path / "witness").glob("*conflict*"))) == 2
    with pytest.raises(WitnessRefusedError) as refused:
        witness.add_checkpoint(second.note, 311, [], notes.new_signer("somebody").verifier)
    assert refused.value.status == 403
    with pytest.raises(notes.NoteError):
        checkpoints.accept_cosignature(database, tmp_path, 311, seen.line, seen.vkey)


def test_a_key_hands_over_to_the_next(database: Database, tmp_path: Path) -> None:
    write(database, 2)
    before = checkpoints.checkpoint(database, home=tmp_path)
    after = checkpoints.rotate_key(database, home=tmp_path, requested_by="operator-1")
    assert before.key_id != after.key_id
    assert after.kinds == {"key_rotation": 1}
    notes.verify_note(notes.parse_note(after.note), [notes.parse_vkey(after.vkey)])
    with pytest.raises(notes.NoteError):
        notes.verify_note(notes.parse_note(after.note), [notes.parse_vkey(before.vkey)])


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [(0, 256, "tile/1/000"), (1234067, 8, "tile/1/x001/x234/067.p/8"), (999, 256, "tile/1/999")],
)
def test_tile_paths(index: int, width: int, path: str) -> None:
    assert tiles.tile_path(1, index, width) == path


def test_a_lost_tile_folder_is_written_again(database: Database, tmp_path: Path) -> None:
    write(database, 260)
    done = checkpoints.checkpoint(database, home=tmp_path)
    with database.connect("test") as connection:
        other = tmp_path / "elsewhere"
        publishing.publish(connection, other, done.size, done.note)
        assert publishing.publish(connection, other, done.size, done.note) == 1

    def files(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert files(other) == files(done.folder)
    assert sorted(files(other)) == [
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/5",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/5",
    ]


def test_guards_stand_and_a_trigger_switched_off_and_on_is_seen(database: Database) -> None:
    with database.connect("test", autocommit=True) as connection:
        assert privileges.check(connection).deviations == ()
        privileges.record(connection, accepted_by="auditor-1", reason="test")
        assert privileges.check(connection).ok
        connection.execute("ALTER TABLE ledger.entry DISABLE TRIGGER only_grows")
        assert any("not ENABLE ALWAYS" in problem for problem in privileges.check(connection).deviations)
        connection.execute("ALTER TABLE ledger.entry ENABLE ALWAYS TRIGGER only_grows")
        assert (
            "trigger only_grows on entry was altered since the guards were last recorded"
            in privileges.check(connection).deviations
        )
        connection.execute("GRANT UPDATE (body) ON ledger.entry TO meter_ledger_writer")
        assert "meter_ledger_writer may UPDATE entry.body" in privileges.check(connection).deviations


@pytest.mark.parametrize(
    ("body", "replaced"), [("array_send($1)", False), ("array_send($1) || ''::bytea", True), ("'\\x00'::bytea", True)]
)
def test_the_function_that_verification_reads_arrays_with_is_postgresql_s_own(
    database: Database, body: str, replaced: bool
) -> None:
    with database.connect("test", autocommit=True) as connection:
        connection.execute(
            f"CREATE OR REPLACE FUNCTION raw.array_bytes(anyarray) RETURNS bytea LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$SELECT {body}$$"
        )
        found = privileges.check(connection).deviations
        assert ("function raw.array_bytes was replaced: it is not PostgreSQL's own" in found) == replaced


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.entry SET kind = 'reconciled'",
        "DELETE FROM ledger.entry",
        "TRUNCATE ledger.entry CASCADE",
        "UPDATE ledger.checkpoint SET key_id = '00000000'",
        "DELETE FROM ledger.personal",
        "TRUNCATE ledger.personal",
    ],
)
def test_even_the_owner_of_the_server_meets_the_guards(database: Database, tmp_path: Path, statement: str) -> None:
    write(database, 1)
    with database.connect("test") as connection:
        connection.execute("INSERT INTO ledger.personal (payload_hash) VALUES (sha256('x'))")
        connection.commit()
        connection.execute("SET session_replication_role = replica")
        if "checkpoint" in statement:
            connection.execute("INSERT INTO ledger.tree_head VALUES (1, sha256('x'), '1', 1)")
            connection.execute("INSERT INTO ledger.checkpoint (tree_size, note, key_id) VALUES (1, 'x', '00000001')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(psycopg.sql.SQL(statement))


def test_a_writer_may_append_and_nothing_else(database: Database) -> None:
    with database.connect("writer", role="meter_ledger_writer") as connection:
        assert entries.append(connection, "reconciled", {"n": 1}) > 0
        connection.commit()
        for statement in (
            "SELECT body FROM ledger.entry",
            "INSERT INTO ledger.entry (entry_id, kind, body, leaf_hash) OVERRIDING SYSTEM VALUE VALUES (1, 'reconciled', '{}', sha256('x'))",
            "INSERT INTO ledger.entry (kind, body, leaf_hash, recorded_at) VALUES ('reconciled', '{}', sha256('x'), now())",
            "UPDATE ledger.entry SET kind = 'billed'",
            "DELETE FROM ledger.entry",
            "TRUNCATE ledger.entry",
            "INSERT INTO ledger.leaf (leaf_index, entry_id, leaf_hash) VALUES (0, 1, sha256('x'))",
            "ALTER TABLE ledger.entry DISABLE TRIGGER ALL",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
            connection.rollback()
    with database.connect("sequencer", role="meter_ledger_sequencer") as connection:
        assert sequencer.sequence(connection).size == 1
    with database.connect("auditor", role="meter_auditor") as connection:
        assert len(list(store.entries(connection, 0, 5))) == 1
