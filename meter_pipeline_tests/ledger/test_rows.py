"""Rows and leaves are a bijection for bills and rejected lines too: found by both verifiers; a line is proven; a
rejected line can be erased."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.control.people import Refused
from meter_pipeline.ingest import dead_letters, land
from meter_pipeline.ingest.tables import dead_letters as letter_store
from meter_pipeline.ledger import checkpoints, entries, proving, repair, verification
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing import support as billing
from meter_pipeline_tests.ingest import support as ingest
from meter_pipeline_tests.support import ROOT

pytestmark = pytest.mark.usefixtures("toy_feed")

FIRST, LAST = date(2026, 7, 1), date(2026, 7, 3)
DAYS = billing.days(FIRST, 3)


def judge(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "tools" / "verify_ledger.py"), *arguments, "--json"]
    report: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    )
    return report


class Auditor:
    """Both verifiers over one database; they must say the same."""

    def __init__(self, database: Database, home: Path, days: list[date]) -> None:
        self.database, self.home, self.days, self.exports = database, home, days, 0

    def findings(self) -> set[str]:
        done = checkpoints.checkpoint(self.database, home=self.home)
        inside = verification.verify(self.database, home=self.home, days=self.days, hashers=hashers())
        self.exports += 1
        folder = self.home / f"export-{self.exports}"
        export(self.database, folder, days=self.days)
        key = checkpoints.keys_file(self.home, done.origin).read_text().split()[0]
        outside = judge(str(folder), "--vkey", key)
        self.checked = inside.checked, outside["checked"]
        found = {finding.check for finding in inside.findings}
        assert found == {finding["check"] for finding in outside["findings"]}, (inside.findings, outside["findings"])
        return found

    def after(self, *statements: str) -> set[str]:
        """What is found after a deed, which is undone."""
        with self.database.connect("dba") as connection:
            for statement in statements:
                connection.execute(statement.encode())
        return self.findings()


@pytest.fixture
def billed(database: Database, tmp_path: Path) -> Auditor:
    """Three services billed for three days, and their statements issued."""
    billing.add_tariff(database, billing.native())
    billing.add_cycle(database, FIRST, date(2026, 7, 4))
    points = [billing.add_service(database, number) for number in range(3)]
    for day in DAYS:
        billing.put_intervals(database, day, {point: [1000 + at] * 24 for at, point in enumerate(points)})
        bill_billing_day(database, billing.CHICAGO, day, clock=billing.CLOCK)
    issue_statements(database, billing.CHICAGO, "C1", date(2026, 7, 4), clock=billing.CLOCK)
    with database.connect("dba") as connection:
        # What these tests stand in for reads has no leaves of its own.
        connection.execute("TRUNCATE vee.interval_day")
        # Nor has what they write of reference data: as rows from before history was kept.
        connection.execute("SET LOCAL session_replication_role = replica")
        for table in ("accounts", "agreements", "billing_cycles", "service_points", "tariff_document", "tariffs"):
            connection.execute(f"UPDATE ref.{table} SET known_from = '2000-01-01Z'".encode())
    return Auditor(database, tmp_path, DAYS)


def test_charges_and_bill_lines_are_their_leaves(billed: Auditor) -> None:
    assert billed.findings() == set()
    inside, outside = billed.checked
    assert inside["rows of billing.charge_day"] == outside["rows of billing.charge_day"] == 9
    assert inside["content of billing.statement"] == outside["rows of billing.statement"] == 3
    assert outside["rows of billing.statement_line"] >= 9


@pytest.mark.parametrize(
    ("deed", "found"),
    [
        (
            "UPDATE billing.charge_day SET amounts[1] = amounts[1] + 1 WHERE service_point_id = 'SP-001' AND billing_day = '2026-07-02'",
            {"row without leaf", "leaf without row"},
        ),
        (
            "DELETE FROM billing.charge_day WHERE service_point_id = 'SP-001' AND billing_day = '2026-07-02'",
            {"leaf without row"},
        ),
        (
            "UPDATE billing.statement_line SET amount = amount + 0.01 WHERE statement_id LIKE 'A-001%' AND line_no = 1",
            {"row"},
        ),
        ("UPDATE billing.statement_line SET quantity = 7 WHERE statement_id LIKE 'A-001%' AND line_no = 2", {"row"}),
        ("DELETE FROM billing.statement_line WHERE statement_id LIKE 'A-001%' AND line_no = 1", {"row"}),
    ],
)
def test_a_charge_or_a_line_changed_behind_the_ledger_is_found(billed: Auditor, deed: str, found: set[str]) -> None:
    # The room's own guards of issued bills would refuse; the owner goes round them.
    assert billed.after("SET session_replication_role = replica", deed) == found


def test_a_day_billed_again_retires_the_leaves_of_what_it_replaces(billed: Auditor) -> None:
    points = billed.database.read("SELECT DISTINCT service_point_id FROM billing.charge_day ORDER BY 1")[
        "service_point_id"
    ].to_list()
    billing.put_intervals(billed.database, DAYS[1], {point: [1500 + at] * 24 for at, point in enumerate(points[:2])})
    billing.put_intervals(billed.database, DAYS[1], {points[2]: [1002] * 24})
    done = bill_billing_day(billed.database, billing.CHICAGO, DAYS[1], clock=billing.CLOCK)
    assert (done.changed, done.carried) == (2, {DAYS[2]: 2})
    with billed.database.connect("dba") as connection:
        connection.execute("TRUNCATE vee.interval_day")
    assert billed.findings() == set()
    assert billed.after(
        "DELETE FROM billing.charge_day WHERE service_point_id = 'SP-000' AND billing_day = '2026-07-02'"
    ) == {"leaf without row", "row without leaf"}


def test_a_line_of_a_bill_is_proven_by_its_leaf_and_path(billed: Auditor, tmp_path: Path) -> None:
    done = checkpoints.checkpoint(billed.database, home=tmp_path)
    line = billed.database.read(
        "SELECT statement_id || '.' || line_no AS id FROM billing.statement_line ORDER BY 1 LIMIT 1"
    ).item()
    bundle = proving.prove_line(billed.database, line)
    proof = tmp_path / "proof.json"
    proof.write_text(json.dumps({"proofs": [bundle.document()]}, default=str))
    assert judge("--proof", str(proof), "--vkey", done.vkey) == {"ok": True, "proofs": 1, "problems": []}
    for change, problem in (("amount", "the row is not what was recorded"), ("line_no", "the line is not in the bill")):
        forged = json.loads(proof.read_text())
        forged["proofs"][0]["row"]["lines"][bundle.line - 1 if bundle.line else 0][change] = "99"
        proof.with_name("forged").write_text(json.dumps(forged))
        assert judge("--proof", str(proof.with_name("forged")), "--vkey", done.vkey)["problems"] == [problem]
    for wrong in ("nothing", f"{line}9", "A.1.x"):
        with pytest.raises(LookupError):
            proving.prove_line(billed.database, wrong)


@pytest.fixture
def rejected(database: Database, tmp_path: Path) -> Auditor:
    """A file with three lines that could not be read, one of them twice over."""
    ingest.enrol(database)
    path = ingest.write_file(
        tmp_path,
        "a",
        [ingest.Read("M-0", slot, 1000) for slot in range(4)],
        ["call Ada Example at 555-0100", "junk", "more junk"],
    )
    land(database, ingest.CALENDAR, path, ingest.NORTH, ingest.places(tmp_path), clock=ingest.CLOCK)
    return Auditor(database, tmp_path, [ingest.DAY])


def test_rejected_lines_are_their_leaves(rejected: Auditor) -> None:
    assert rejected.findings() == set()
    assert rejected.checked[0]["rows of raw.dead_letter"] == rejected.checked[1]["rows of raw.dead_letter"] == 3
    with rejected.database.connect("dba") as connection:
        connection.execute("ALTER TABLE raw.dead_letter DROP CONSTRAINT dead_letter_leaf_is_of_raw")
    assert rejected.after("UPDATE raw.dead_letter SET raw = 'jest' WHERE raw = 'junk'") == {"row"}
    assert rejected.after("DELETE FROM raw.dead_letter WHERE raw = 'jest'") == {"leaf without row"}


def test_a_rejected_line_is_erased_and_every_proof_stays(rejected: Auditor, tmp_path: Path) -> None:
    database = rejected.database
    with database.connect() as connection:
        [letter] = [one for one in letter_store.find(connection) if b"Ada" in one.raw]
    erase = partial(dead_letters.erase, database, by="privacy-1", reason="request 12")
    with pytest.raises(dead_letters.DeadLetterError, match="dismiss it first"):
        erase(letter.key.hex())
    dead_letters.correct(database, letter.key.hex(), b"call Ada Example at 555-0199", by="clerk", reason="misread")
    dead_letters.dismiss(database, letter.key.hex(), by="clerk", reason="not a read")
    assert rejected.findings() == set()
    proving_before = _proof(database, letter.leaf)
    erase(letter.key.hex())
    with pytest.raises(dead_letters.DeadLetterError):
        erase(letter.leaf.hex())
    assert rejected.findings() == set()
    assert _proof(database, letter.leaf).batch_proof == proving_before.batch_proof
    for trace in (b"Ada", b"555-0199", letter.key, letter.key.hex().encode()):
        held = database.read(
            "SELECT coalesce(string_agg(t::text, ''), '') AS t FROM (SELECT e.body::text || coalesce(e.leaves::text, '') AS t FROM ledger.entry e "
            "UNION ALL SELECT d::text FROM raw.dead_letter d UNION ALL SELECT p::text FROM ledger.personal p) x"
        ).item()
        assert trace.hex() not in held
    exported = b"".join(
        path.read_bytes() for path in (tmp_path / f"export-{rejected.exports}").rglob("*") if path.is_file()
    )
    assert b"Ada" not in exported
    assert b"Ada".hex().encode() not in exported
    with database.connect() as connection:
        junk = next(one for one in letter_store.find(connection) if one.raw == b"junk")
    dead_letters.dismiss(database, junk.key.hex(), by="clerk", reason="noise")
    silently = f"UPDATE raw.dead_letter SET raw = '', salt = NULL, erased_at = now(), erased_by = 'x' WHERE dead_letter_key = '\\x{junk.key.hex()}'"
    with database.connect("dba") as connection:
        connection.execute(silently.encode())
    done = checkpoints.checkpoint(database, home=tmp_path)
    export(database, tmp_path / "silent", days=[ingest.DAY])
    report = judge(str(tmp_path / "silent"), "--vkey", done.vkey)
    assert {finding["check"] for finding in report["findings"]} == {"erasure"}


def _proof(database: Database, leaf: bytes) -> proving.Bundle:
    with database.connect() as connection:
        return proving.prove(connection, leaf, kinds=["rejected"])


def test_leaves_that_an_entry_has_wrong_are_put_right_by_two_people(billed: Auditor) -> None:
    """An entry was written with leaves that are no rows', and without those of the rows: nothing changes it; a repair
    stands beside it, is counted by both verifiers, and blesses no later change."""
    rows = billed.database.read("SELECT count(*) AS n FROM billing.charge_day WHERE billing_day = '2026-07-02'")["n"][0]
    with billed.database.connect("dba") as connection:
        body = {"billing_day": DAYS[1], "services": 1, "changed": 1, "retired": 0, "total_micro": 0}
        entries.append(connection, "billed", body, [b"\x07" * 32])
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE billing.charge_day SET budget_to_date = 7 WHERE billing_day = '2026-07-02'")
        connection.commit()
    assert billed.findings() == {"row without leaf", "leaf without row"}
    asked = repair.request(billed.database, "charges", DAYS[1], hashers(), by="ana", reason="a fault of release 1.4")
    assert (asked.body["added"], asked.body["retired"]) == (rows, rows + 1)
    with pytest.raises(Refused):
        repair.confirm(billed.database, asked.request_id, hashers(), by="ana", reason="mine")
    assert repair.confirm(billed.database, asked.request_id, hashers(), by="ben", reason="compared") == 2 * rows + 1
    assert billed.findings() == set()
    assert billed.checked[1]["repairs of charges"] == 1
    with pytest.raises(repair.RepairError, match="agree"):
        repair.request(billed.database, "charges", DAYS[1], hashers(), by="ana", reason="again")
    assert billed.after(
        "SET session_replication_role = replica",
        "UPDATE billing.charge_day SET budget_to_date = 8 WHERE billing_day = '2026-07-02'",
    ) == {"row without leaf", "leaf without row"}
