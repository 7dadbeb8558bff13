"""The twelve tamper drills: each deed by someone who owns the database is detected, and located, by the auditor's own
program.

The auditor holds what an auditor would: the log's first verifier key and the checkpoint of yesterday. The program runs
as a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.ledger import checkpoints, entries, merkle, notes
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger.signer import file_name, reply
from meter_pipeline.ledger.signing import SignerClient
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.witness import Witness, WitnessRefusedError
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline_tests.ledger.test_verification import as_dba
from meter_pipeline_tests.support import ROOT, end_idle_sessions

Connection = psycopg.Connection[tuple[object, ...]]
DAY = date(2026, 3, 8)


@dataclass(frozen=True, slots=True)
class Here:
    """The signer's own answers without its process, which the other tests start: a drill signs often."""

    keys: Path

    def exchange(self, request: str) -> str:
        return reply(self.keys, request)

    def start(self) -> None:
        """It is here."""


class Utility:
    """A utility with a log of 19 entries: statements issued, files loaded, resumes by two people; and an auditor beside
    it."""

    def __init__(self, database: Database, home: Path) -> None:
        self.database, self.home = database, home
        with database.connect("test") as connection:
            # a stand-in of the two business tables the drills need
            connection.execute("DROP SCHEMA IF EXISTS billing CASCADE")
            connection.execute("CREATE SCHEMA billing")
            connection.execute(
                "CREATE TABLE billing.statement (statement_id text, lines_sha256 bytea, total numeric, period_end date)"
            )
            connection.execute(
                "CREATE TABLE billing.statement_line (statement_id text, line_no integer, service_point_id text, tariff_id text, tariff_version integer,"
                " segment_start date, segment_end date, line_key text, name text, quantity numeric(24,6), unit text, amount numeric(20,6))"
            )
        self.write(range(9))
        self.signer = SignerClient(Here(home / "keys"))
        self.yesterday = checkpoints.checkpoint(database, home=home, signer=self.signer)
        self.write(range(9, 18))
        self.witness = Witness(home / "witness", "finance")
        self.key = notes.parse_vkey(self.yesterday.vkey)
        self.today = checkpoints.checkpoint(database, home=home, signer=self.signer)
        self.witness.cosign_folder(self.today.folder, self.key)
        self.vkey, self.held = home / "log.vkey", home / "yesterday"
        self.vkey.write_text(self.yesterday.vkey)
        self.held.write_text(self.yesterday.note)

    def write(self, numbers: range) -> None:
        with self.database.connect("test") as connection:
            for number in numbers:
                if number % 3 == 0:
                    self.bill(connection, number, leaf=True)
                elif number % 3 == 1:
                    entries.append(
                        connection,
                        "pause_cleared",
                        {"number": number, "requested_by": "finance-1", "confirmed_by": "finance-2"},
                    )
                else:
                    totals = {"received": 5, "accepted": 2, "duplicate": 1, "superseded": 1, "rejected": 1}
                    entries.append(connection, "file_loaded", {"number": number, "billing_day": DAY} | totals)

    @staticmethod
    def bill(connection: Connection, number: int, *, leaf: bool) -> None:
        past, amount = DAY + timedelta(days=1), Decimal(number) + Decimal("0.25")
        line = "\x1f".join(
            ("1", "SP-1", "FLAT", "3", DAY.isoformat(), past.isoformat(), "BASIC", "1500000", str(int(amount * 10**6)))
        )
        made = hashlib.sha256(f"mp-statement/1\x1eS{number}\x1e{line}".encode()).digest()
        connection.execute("INSERT INTO billing.statement VALUES (%s, %b, %s, %s)", (f"S{number}", made, amount, past))
        connection.execute(
            "INSERT INTO billing.statement_line VALUES (%s, 1, 'SP-1', 'FLAT', 3, %s, %s, 'BASIC', 'Basic', 1.5, 'kWh', %s)",
            (f"S{number}", DAY, past, amount),
        )
        if leaf:
            entries.append(connection, "bill_issued", {"number": number, "statements": 1, "billing_day": DAY}, [made])

    def dba(self, *statements: str) -> None:
        with self.database.connect("dba") as connection:
            as_dba(connection, *statements)

    def entry_at(self, index: int) -> str:
        return f"(SELECT entry_id FROM ledger.leaf WHERE leaf_index = {index})"

    def audit(self, *more: str) -> dict[str, Any]:
        folder = self.home / "export"
        export(self.database, folder)
        return self.judge(folder, *more)

    def judge(self, folder: Path, *more: str) -> dict[str, Any]:
        done = subprocess.run(
            [
                sys.executable,
                str(ROOT / "tools" / "verify_ledger.py"),
                str(folder),
                "--vkey",
                str(self.vkey),
                "--checkpoint",
                str(self.held),
                "--json",
                *more,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.home,
        )
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if report["ok"] else 1)
        return report

    def rebuild(self) -> None:
        """Make the tree, its head and its checkpoint anew over the entries there are, and sign with the log's own key:
        a thorough forger."""
        signer = notes.parse_skey((self.home / "keys" / f"{file_name(self.today.origin)}.skey").read_text())
        with self.database.connect("dba") as connection:
            rows = connection.execute(
                "SELECT l.entry_id, e.leaf_hash FROM ledger.leaf l JOIN ledger.entry e USING (entry_id) ORDER BY leaf_index"
            ).fetchall()
            root = merkle.root_of_hashes(b"".join(bytes(row[1]) for row in rows))
            checkpoint = notes.Checkpoint(self.today.origin, len(rows), root)
            note = checkpoint.text + "\n" + notes.sign_checkpoint(checkpoint, signer).line
            as_dba(
                connection,
                "DELETE FROM ledger.cosignature",
                "DELETE FROM ledger.checkpoint",
                "DELETE FROM ledger.tree_head",
                "DELETE FROM ledger.leaf",
            )
            store.insert_leaves(connection, 0, [(int(row[0]), bytes(row[1])) for row in rows])
            store.insert_head(connection, store.Head(len(rows), root, 1, 1))
            store.insert_checkpoint(connection, len(rows), note, signer.verifier.key_id.hex())


@pytest.fixture
def utility(database: Database, tmp_path: Path) -> Utility:
    return Utility(database, tmp_path)


def checks(report: dict[str, Any]) -> set[str]:
    return {finding["check"] for finding in report["findings"]}


def test_an_untouched_log_passes(utility: Utility) -> None:
    report = utility.audit()
    assert report["findings"] == []
    assert (report["ok"], report["size"], report["first_bad_index"]) == (True, 19, None)
    assert report["checked"]["rows of billing.statement"] == report["checked"]["rows of billing.statement_line"] == 6
    assert report["checked"]["rows hashed again"] == 6
    assert report["checked"]["dual control"] == 6


EDIT = "convert_to(replace(convert_from(body, 'UTF8'), '\"number\":', '\"number\":1'), 'UTF8')"


def flip(utility: Utility) -> None:
    utility.dba(
        "ALTER TABLE ledger.entry DROP CONSTRAINT entry_leaf_hash_is_of_body",
        f"UPDATE ledger.entry SET body = set_byte(body, 40, get_byte(body, 40) # 1) WHERE entry_id = {utility.entry_at(7)}",
    )


def delete(utility: Utility) -> None:
    utility.dba(f"SET CONSTRAINTS ALL DEFERRED; DELETE FROM ledger.entry WHERE entry_id = {utility.entry_at(7)}")


def swap(utility: Utility) -> None:
    utility.dba(
        "UPDATE ledger.leaf SET leaf_index = leaf_index + 1000 WHERE leaf_index IN (7, 9)",
        "UPDATE ledger.leaf SET leaf_index = 16 - (leaf_index - 1000) WHERE leaf_index > 999",
    )


def backdate(utility: Utility) -> None:
    utility.dba(
        "INSERT INTO ledger.entry (kind, body, leaf_hash) SELECT kind, b, sha256('\\x00'::bytea || b) FROM"
        f" (SELECT kind, {EDIT} AS b FROM ledger.entry WHERE entry_id = {utility.entry_at(7)}) forged",
        "UPDATE ledger.leaf SET leaf_index = leaf_index + 1000 WHERE leaf_index >= 7",
        "UPDATE ledger.leaf SET leaf_index = leaf_index - 999 WHERE leaf_index > 999",
        "INSERT INTO ledger.leaf SELECT 7, entry_id, leaf_hash FROM ledger.entry ORDER BY entry_id DESC LIMIT 1",
    )
    utility.rebuild()


def truncate(utility: Utility) -> None:
    utility.dba("DELETE FROM ledger.leaf WHERE leaf_index >= 7")
    utility.rebuild()


def fork(utility: Utility) -> None:
    utility.dba(
        f"UPDATE ledger.entry SET body = {EDIT}, leaf_hash = sha256('\\x00'::bytea || {EDIT}) WHERE entry_id = {utility.entry_at(7)}",
    )
    utility.rebuild()


def disable_edit_enable(utility: Utility) -> None:
    edited = "convert_to(replace(convert_from(body, 'UTF8'), 'finance-2', 'finance-3'), 'UTF8')"
    utility.dba(
        f"UPDATE ledger.entry SET body = {edited}, leaf_hash = sha256('\\x00'::bytea || {edited}) WHERE entry_id = {utility.entry_at(7)}",
    )


def edit_and_recompute_leaf(utility: Utility) -> None:
    utility.dba(
        f"UPDATE ledger.entry SET body = {EDIT}, leaf_hash = sha256('\\x00'::bytea || {EDIT}) WHERE entry_id = {utility.entry_at(7)}",
        "UPDATE ledger.leaf SET leaf_hash = (SELECT leaf_hash FROM ledger.entry e WHERE e.entry_id = leaf.entry_id) WHERE leaf_index = 7",
    )


def replace_key(utility: Utility) -> None:
    signer = notes.new_signer(utility.today.origin)
    forged = notes.Checkpoint(utility.today.origin, utility.today.size, utility.today.root)
    note = forged.text + "\n" + notes.sign_checkpoint(forged, signer).line
    with utility.database.connect("dba") as connection:
        as_dba(connection, "DELETE FROM ledger.checkpoint WHERE tree_size = 19")
        store.insert_checkpoint(connection, 19, note, signer.verifier.key_id.hex())


def bill_without_leaf(utility: Utility) -> None:
    with utility.database.connect("app") as connection:
        utility.bill(connection, 99, leaf=False)


@pytest.mark.parametrize(
    ("deed", "found", "place"),
    [
        (flip, "leaf", 7),
        (delete, "entry", 7),
        (swap, "checkpoint", 9),
        (backdate, "held checkpoint", 9),
        (truncate, "held checkpoint", 7),
        (fork, "held checkpoint", 9),
        (disable_edit_enable, "leaf", 7),
        (edit_and_recompute_leaf, "checkpoint", 9),
        (replace_key, "checkpoint", 18),
        (bill_without_leaf, "row without leaf", None),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_deed_is_detected_and_located(
    utility: Utility, deed: Callable[[Utility], None], found: str, place: int | None
) -> None:
    deed(utility)
    report = utility.audit()
    assert not report["ok"]
    assert found in checks(report)
    assert report["first_bad_index"] == place
    if deed is not bill_without_leaf:
        assert "guards" in checks(report)  # the triggers were off for a moment, and that shows by itself


@pytest.mark.parametrize(
    ("deed", "found"),
    [
        ("UPDATE billing.statement_line SET amount = amount + 1 WHERE statement_id = 'S6'", "row"),
        ("DELETE FROM billing.statement_line WHERE statement_id = 'S6'", "row"),
        (
            (
                "INSERT INTO billing.statement_line SELECT statement_id, 2, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, name,"
                " quantity, unit, amount FROM billing.statement_line WHERE statement_id = 'S6'"
            ),
            "row",
        ),
        ("DELETE FROM billing.statement WHERE statement_id = 'S6'", "leaf without row"),
    ],
)
def test_a_bills_line_edited_removed_or_added_is_found_at_its_bills_entry(
    utility: Utility, deed: str, found: str
) -> None:
    with utility.database.connect("app") as connection:
        connection.execute(deed.encode())
    report = utility.audit()
    assert found in checks(report)
    assert report["first_bad_index"] == 6


def test_yesterdays_backup_restored(utility: Utility) -> None:
    """A consistent older state, signed in its time: nothing inside it is wrong. Only what others remember shows it."""
    utility.held.write_text(utility.today.note)
    size = utility.yesterday.size
    utility.dba(
        f"DELETE FROM ledger.checkpoint WHERE tree_size > {size}",
        f"DELETE FROM ledger.tree_head WHERE tree_size > {size}",
        f"CREATE TEMP TABLE gone AS SELECT entry_id FROM ledger.leaf WHERE leaf_index >= {size}",
        f"DELETE FROM ledger.leaf WHERE leaf_index >= {size}",
        "DELETE FROM ledger.entry WHERE entry_id IN (SELECT entry_id FROM gone)",
    )
    report = utility.audit()
    assert "held checkpoint" in checks(report)
    assert report["first_bad_index"] == size
    (utility.today.folder / "checkpoint").write_text(utility.yesterday.note)
    with pytest.raises(WitnessRefusedError) as refused:
        utility.witness.cosign_folder(utility.today.folder, utility.key)
    assert refused.value.status == 409


def test_a_fork_is_refused_by_the_witness_too(utility: Utility) -> None:
    fork(utility)
    with utility.database.connect("test") as connection:
        latest = store.latest_checkpoint(connection)
    assert latest is not None
    with pytest.raises(WitnessRefusedError) as refused:
        utility.witness.add_checkpoint(latest.note, utility.today.size, [], utility.key)
    assert refused.value.status == 422


def test_a_damaged_copy_of_the_export_is_found(utility: Utility) -> None:
    utility.audit()
    folder = utility.home / "export"
    leaves = next((folder / "leaves").iterdir())
    leaves.write_bytes(bytes([leaves.read_bytes()[0] ^ 1]) + leaves.read_bytes()[1:])
    report = utility.judge(folder)
    assert {"export", "leaves"} <= checks(report)
    assert report["first_bad_index"] == int(leaves.stem)


def test_a_handed_over_key_is_believed_and_a_forged_hand_over_is_not(utility: Utility) -> None:
    checkpoints.rotate_key(utility.database, home=utility.home, requested_by="operator-1")
    assert utility.audit()["ok"]
    new = notes.new_signer(utility.today.origin)
    with utility.database.connect("test") as connection:
        body = {"old": utility.yesterday.vkey, "new": new.verifier.vkey, "signatures": ["00" * 64, "00" * 64]}
        entries.append(connection, "key_rotation", body)
    checkpoints.checkpoint(utility.database, home=utility.home)
    export(utility.database, utility.home / "second")
    report = utility.judge(utility.home / "second")
    assert [(finding["check"], finding["index"]) for finding in report["findings"]] == [("key rotation", 20)]


def test_a_missing_witness_fails_only_who_requires_one(utility: Utility) -> None:
    assert utility.audit()["ok"]
    assert checks(utility.judge(utility.home / "export", "--require-witness")) == {"witness"}
    seen = utility.witness.cosign_folder(utility.today.folder, utility.key)
    checkpoints.accept_cosignature(utility.database, utility.home, seen.size, seen.line, seen.vkey)
    export(utility.database, utility.home / "second")
    report = utility.judge(utility.home / "second", "--require-witness", "--witness-vkey", seen.vkey)
    assert (report["ok"], report["checked"]["cosignatures"]) == (True, 1)


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tools" / "verify_ledger.py"),
        str(tmp_path / "nothing"),
        "--vkey",
        "nonsense",
    ]
    assert subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 2


def test_the_auditors_program_shares_no_code() -> None:
    text = (ROOT / "tools" / "verify_ledger.py").read_text()
    assert "meter_pipeline" not in text.replace("shares no code with meter_pipeline", "")


@pytest.mark.server
def test_a_heap_file_edited_with_the_server_down(tmp_path: Path) -> None:
    """Data checksums catch it first; read past them, the body no longer has its leaf."""
    # Not below pytest's own folder: another run of pytest closes that to the server's user again.
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-down-"))
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    cluster.start()
    try:
        database = ensure_database(Database(cluster.url("postgres")), "drill")
        migrate(database)
        utility = Utility(database, tmp_path)
        with database.connect("test", autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            row = connection.execute(
                "SELECT pg_relation_filepath('ledger.entry'), current_setting('data_directory')"
            ).fetchone()
            body = connection.execute(
                f"SELECT body FROM ledger.entry WHERE entry_id = {utility.entry_at(7)}".encode(), binary=True
            ).fetchone()
        assert row is not None
        assert body is not None
        cluster.stop()
        heap = Path(str(row[1])) / str(row[0])
        data = bytearray(heap.read_bytes())
        at = data.index(bytes(body[0])[60:140])
        data[at + 5] ^= 1
        heap.write_bytes(data)
        cluster.start()
        with pytest.raises(psycopg.errors.DataCorrupted):
            export(database, tmp_path / "refused")
        with database.connect("dba", autocommit=True) as connection:
            connection.execute("ALTER DATABASE drill SET ignore_checksum_failure = on")
        end_idle_sessions()  # they were opened without it
        report = utility.audit()
        assert "leaf" in checks(report)
        assert report["first_bad_index"] == 7
    finally:
        cluster.delete()
        shutil.rmtree(home, ignore_errors=True)
